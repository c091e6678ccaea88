//! What ours is compared with.
//!
//! * [`memory_fuse`]: the kernel's FUSE with nothing behind it.
//! * [`ext4`]: a file system of one machine on the same storage.
//! * [`raw_device`]: the storage itself.
//! * [`partner`]: a process at the other end of a socket.

pub mod ext4;
pub mod memory_fuse;
pub mod partner;
pub mod raw_device;
