//! The structures of include/uapi/linux/fuse.h, and its numbers.

#![expect(missing_debug_implementations, reason = "the lint does not see what a macro derives")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! structure {
    ($(#[$doc:meta])* $name:ident = $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

structure! {
    /// Before every message from the kernel.
    InHeader = 40 {
        len: u32, opcode: u32, unique: u64, node: u64, uid: u32, gid: u32, pid: u32,
        extension_len: u16, reserved: u16,
    }
}
structure! {
    /// Before every message to the kernel.
    OutHeader = 16 { len: u32, error: i32, unique: u64 }
}
structure! {
    InitIn = 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, reserved: [u32; 11],
    }
}
structure! {
    InitOut = 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32,
        max_background: u16, congestion_threshold: u16, max_write: u32, time_granularity: u32,
        max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, reserved: [u16; 11],
    }
}
structure! {
    /// Attributes. Times as seconds, then their nanoseconds.
    Attr = 88 {
        node: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atime_nanos: u32, mtime_nanos: u32, ctime_nanos: u32,
        mode: u32, links: u32, uid: u32, gid: u32, rdev: u32, block_size: u32, flags: u32,
    }
}
structure! {
    /// A name and what it means; `valid` says for how long, in seconds and nanoseconds.
    EntryOut = 128 {
        node: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nanos: u32, attr_valid_nanos: u32, attr: Attr,
    }
}
structure! { AttrOut = 104 { valid: u64, valid_nanos: u32, reserved: u32, attr: Attr } }
structure! { OpenOut = 16 { handle: u64, flags: u32, backing: i32 } }
structure! { WriteOut = 8 { size: u32, reserved: u32 } }
structure! {
    StatfsOut = 80 {
        blocks: u64, blocks_free: u64, blocks_available: u64, files: u64, files_free: u64,
        block_size: u32, name_max: u32, fragment_size: u32, reserved: [u32; 7],
    }
}
structure! { GetxattrOut = 8 { size: u32, reserved: u32 } }
structure! { LseekOut = 8 { offset: u64 } }
structure! { IoctlOut = 16 { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 } }
structure! {
    /// Before a name in a listing; padded to 8 bytes behind the name.
    Dirent = 24 { node: u64, offset: u64, name_len: u32, file_type: u32 }
}
structure! {
    /// Seconds and nanoseconds as statx(2) has them.
    StatxTime = 16 { seconds: i64, nanos: u32, reserved: i32 }
}
structure! {
    StatxOut = 288 {
        valid: u64, valid_nanos: u32, flags: u32, reserved: [u64; 2],
        mask: u32, block_size: u32, attributes: u64, links: u32, uid: u32, gid: u32,
        mode: u16, reserved0: u16, inode: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: StatxTime, btime: StatxTime, ctime: StatxTime, mtime: StatxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, reserved1: [u64; 14],
    }
}

structure! {
    /// A notification: attributes, and data from `offset` on unless that is negative; all of it if
    /// `len` is 0.
    InvalInode = 24 { node: u64, offset: i64, len: i64 }
}

structure! {
    /// A notification, with so many bytes behind it.
    StoreOut = 24 { node: u64, offset: u64, len: u32, reserved: u32 }
}

structure! { ForgetIn = 8 { lookups: u64 } }
structure! { ForgetOne = 16 { node: u64, lookups: u64 } }
structure! { BatchForgetIn = 8 { count: u32, reserved: u32 } }
structure! { GetattrIn = 16 { flags: u32, reserved: u32, handle: u64 } }
structure! {
    SetattrIn = 88 {
        valid: u32, reserved: u32, handle: u64, size: u64, lock_owner: u64,
        atime: u64, mtime: u64, ctime: u64, atime_nanos: u32, mtime_nanos: u32, ctime_nanos: u32,
        mode: u32, reserved1: u32, uid: u32, gid: u32, reserved2: u32,
    }
}
structure! { MknodIn = 16 { mode: u32, rdev: u32, umask: u32, reserved: u32 } }
structure! { MkdirIn = 8 { mode: u32, umask: u32 } }
structure! { RenameIn = 8 { new_parent: u64 } }
structure! { Rename2In = 16 { new_parent: u64, flags: u32, reserved: u32 } }
structure! { LinkIn = 8 { node: u64 } }
structure! { OpenIn = 8 { flags: u32, open_flags: u32 } }
structure! { CreateIn = 16 { flags: u32, mode: u32, umask: u32, open_flags: u32 } }
structure! { ReleaseIn = 24 { handle: u64, flags: u32, release_flags: u32, lock_owner: u64 } }
structure! { FlushIn = 24 { handle: u64, reserved: u32, reserved1: u32, lock_owner: u64 } }
structure! {
    ReadIn = 40 {
        handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
        reserved: u32,
    }
}
structure! {
    WriteIn = 40 {
        handle: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        reserved: u32,
    }
}
structure! { FsyncIn = 16 { handle: u64, flags: u32, reserved: u32 } }
structure! {
    /// As SETXATTR_EXT has it, which is always asked for.
    SetxattrIn = 16 { size: u32, flags: u32, setxattr_flags: u32, reserved: u32 }
}
structure! { GetxattrIn = 8 { size: u32, reserved: u32 } }
structure! { FileLock = 24 { start: u64, end: u64, kind: u32, pid: u32 } }
structure! { LockIn = 48 { handle: u64, owner: u64, lock: FileLock, flags: u32, reserved: u32 } }
structure! { InterruptIn = 8 { unique: u64 } }
structure! {
    FallocateIn = 32 { handle: u64, offset: u64, len: u64, mode: u32, reserved: u32 }
}
structure! { LseekIn = 24 { handle: u64, offset: u64, whence: u32, reserved: u32 } }
structure! {
    CopyRangeIn = 56 {
        handle_in: u64, offset_in: u64, node_out: u64, handle_out: u64, offset_out: u64, len: u64,
        flags: u64,
    }
}
structure! {
    IoctlIn = 32 {
        handle: u64, flags: u32, command: u32, argument: u64, in_size: u32, out_size: u32,
    }
}
structure! {
    StatxIn = 24 { flags: u32, reserved: u32, handle: u64, statx_flags: u32, mask: u32 }
}

/// Opcodes.
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
}

/// Which fields of [`SetattrIn`] count.
pub mod setattr {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    /// Set-user-ID, set-group-ID and capabilities are to go.
    pub const KILL_PRIVILEGES: u32 = 1 << 11;
}

/// Flags of the answer to OPEN.
pub mod open {
    pub const DIRECT_IO: u32 = 1;
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const CACHE_DIR: u32 = 1 << 3;
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// Flags of requests.
pub mod flag {
    /// Of OPEN and CREATE: truncating takes the privileges away.
    pub const OPEN_KILL_PRIVILEGES: u32 = 1;
    /// Of READ: by read(2) on a direct open, and not for the page cache.
    pub const READ_LOCK_OWNER: u32 = 1 << 1;
    /// Of WRITE: dirty pages of a mapping.
    pub const WRITE_CACHE: u32 = 1;
    pub const WRITE_KILL_PRIVILEGES: u32 = 1 << 2;
    pub const FSYNC_DATA_ONLY: u32 = 1;
    /// Of SETXATTR: an access ACL set by somebody outside the group takes set-group-ID away.
    pub const SETXATTR_KILL_SGID: u32 = 1;
    pub const LOCK_FLOCK: u32 = 1;
}

/// Codes of notifications.
pub mod notify {
    pub const INVAL_INODE: i32 = 2;
    pub const STORE: i32 = 4;
    pub const RESEND: i32 = 7;
    pub const INC_EPOCH: i32 = 8;
}
