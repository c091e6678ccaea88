//! The composition root: sockets, disks, clocks, threads, admin API.
