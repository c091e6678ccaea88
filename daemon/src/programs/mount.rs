//! mount.matrixfs and umount.fuse.matrixfs.

pub mod options;
