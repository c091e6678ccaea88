//! Mixtures of operations, each made to press on one side of a file system.

/// What a workload is mostly about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// A little of everything, mostly names and attributes.
    Metadata,
    /// Reads, writes and truncations of a few files, at and around page borders.
    Data,
    /// Renames of all kinds, between directories that move themselves.
    RenameStorm,
    /// Many files, written once, replaced and removed.
    SmallFiles,
    /// Few files with bytes terabytes apart.
    BigSparse,
    /// Chains of directories, moved and cut.
    DeepDirectories,
    /// Few objects with many names.
    ManyLinks,
    /// Writes that fill a small device, and removals that make room again.
    NearFull,
}

/// The kinds of operation that weights are given for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Lookup,
    Getattr,
    SetMode,
    SetOwner,
    SetTimes,
    Truncate,
    Create,
    Mknod,
    Mkdir,
    Symlink,
    Readlink,
    Link,
    Unlink,
    Rmdir,
    Rename,
    NoReplace,
    Exchange,
    Open,
    Release,
    Read,
    Write,
    Append,
    Allocate,
    Seek,
    CopyRange,
    Tmpfile,
    Readdir,
    Statfs,
    Fsync,
    Fdatasync,
    GetXattr,
    ListXattrs,
    SetXattr,
    RemoveXattr,
    SetAcl,
}

/// How operands are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// How many different names there are; few make collisions.
    pub names: u64,
    /// Percent of directories chosen among the newest: makes chains.
    pub newest: u64,
    /// The highest offset that is drawn, bytes.
    pub offset_max: u64,
    /// The longest read or write, bytes.
    pub len_max: u64,
}

impl Profile {
    pub const ALL: [Profile; 8] = [
        Profile::Metadata,
        Profile::Data,
        Profile::RenameStorm,
        Profile::SmallFiles,
        Profile::BigSparse,
        Profile::DeepDirectories,
        Profile::ManyLinks,
        Profile::NearFull,
    ];

    /// As on a command line, such as `rename-storm`.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Metadata => "metadata",
            Profile::Data => "data",
            Profile::RenameStorm => "rename-storm",
            Profile::SmallFiles => "small-files",
            Profile::BigSparse => "big-sparse",
            Profile::DeepDirectories => "deep-directories",
            Profile::ManyLinks => "many-links",
            Profile::NearFull => "near-full",
        }
    }

    pub fn from_name(name: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|profile| profile.name() == name)
    }

    pub(super) fn shape(self) -> Shape {
        const KIB: u64 = 1 << 10;
        let small = Shape { names: 24, newest: 10, offset_max: 64 * KIB, len_max: 9 * KIB };
        match self {
            Profile::Metadata => small,
            Profile::Data => {
                Shape { names: 6, newest: 0, offset_max: 1024 * KIB, len_max: 160 * KIB }
            }
            Profile::RenameStorm => Shape { names: 8, newest: 30, ..small },
            Profile::SmallFiles => {
                Shape { names: 400, newest: 20, offset_max: 0, len_max: 6 * KIB }
            }
            Profile::BigSparse => {
                Shape { names: 4, newest: 0, offset_max: 1 << 44, len_max: 64 * KIB }
            }
            Profile::DeepDirectories => Shape { names: 40, newest: 85, ..small },
            Profile::ManyLinks => Shape { names: 200, newest: 20, ..small },
            Profile::NearFull => {
                Shape { names: 60, newest: 0, offset_max: 2048 * KIB, len_max: 512 * KIB }
            }
        }
    }

    /// Weights of the classes; a class that is not named does not occur.
    #[rustfmt::skip]
    pub(super) fn weights(self) -> &'static [(Class, u32)] {
        use Class::*;
        match self {
            Profile::Metadata => &[
                (Lookup, 8), (Getattr, 8), (SetMode, 4), (SetOwner, 3), (SetTimes, 4), (Truncate, 2),
                (Create, 12), (Mknod, 4), (Mkdir, 7), (Symlink, 4), (Readlink, 2), (Link, 4),
                (Unlink, 9), (Rmdir, 4), (Rename, 7), (NoReplace, 2), (Exchange, 2), (Open, 3),
                (Release, 9), (Read, 2), (Write, 4), (Append, 2), (Readdir, 5), (Statfs, 1),
                (Fsync, 2), (Fdatasync, 1), (SetXattr, 6), (GetXattr, 3), (ListXattrs, 2),
                (RemoveXattr, 3), (SetAcl, 5),
                (Allocate, 1), (Tmpfile, 3),
            ],
            Profile::Data => &[
                (Create, 4), (Unlink, 1), (Open, 2), (Release, 4), (Getattr, 4), (SetTimes, 1),
                (Read, 25), (Write, 35), (Append, 8), (Truncate, 10), (Fsync, 3), (Fdatasync, 3),
                (SetXattr, 4), (RemoveXattr, 2), (SetAcl, 1), (GetXattr, 1),
                (Allocate, 18), (Seek, 6), (CopyRange, 5),
            ],
            Profile::RenameStorm => &[
                (Create, 8), (Mkdir, 10), (Symlink, 2), (Link, 4), (Unlink, 4), (Rmdir, 3),
                (Rename, 40), (NoReplace, 8), (Exchange, 12), (Lookup, 4), (Readdir, 4),
                (Getattr, 4), (Release, 8), (Fsync, 2),
            ],
            Profile::SmallFiles => &[
                (Create, 30), (Mkdir, 2), (Append, 20), (Write, 10), (Release, 28), (Unlink, 14),
                (Rename, 4), (Read, 8), (Readdir, 2), (Lookup, 6), (Getattr, 6), (Fsync, 4),
                (SetXattr, 14), (GetXattr, 4), (RemoveXattr, 4), (SetAcl, 3), (Allocate, 3),
                (Tmpfile, 3), (Link, 3),
            ],
            Profile::BigSparse => &[
                (Create, 3), (Unlink, 1), (Release, 3), (Write, 30), (Read, 20), (Truncate, 15),
                (Append, 8), (Getattr, 4), (Statfs, 1), (Fsync, 3), (Fdatasync, 2), (SetXattr, 4),
                (RemoveXattr, 2), (SetAcl, 1), (Allocate, 12), (Seek, 6), (CopyRange, 3),
            ],
            Profile::DeepDirectories => &[
                (Mkdir, 40), (Rmdir, 8), (Rename, 14), (Exchange, 3), (Create, 6), (Unlink, 3),
                (Release, 6), (Lookup, 10), (Readdir, 6), (Getattr, 6), (Fsync, 2),
                (SetAcl, 6), (SetXattr, 2), (RemoveXattr, 1),
            ],
            Profile::ManyLinks => &[
                (Create, 2), (Symlink, 1), (Mkdir, 2), (Link, 45), (Unlink, 26), (Rename, 12),
                (Exchange, 2), (Open, 2), (Release, 4), (Getattr, 8), (SetMode, 2), (Fsync, 2),
            ],
            Profile::NearFull => &[
                (Create, 12), (Mkdir, 4), (Symlink, 2), (Write, 30), (Append, 20), (Unlink, 10),
                (Truncate, 6), (Rename, 4), (Release, 12), (Read, 4), (Statfs, 4), (Fsync, 4),
                (Fdatasync, 2), (SetXattr, 10), (RemoveXattr, 3), (SetAcl, 1), (Allocate, 16),
                (CopyRange, 3),
            ],
        }
    }
}
