//! The errors of the tree, by their Linux names and numbers.

use std::fmt;

macro_rules! errnos {
    ($($variant:ident $name:literal $number:literal $meaning:literal,)*) => {
        /// Why an operation did nothing.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Errno {
            $(#[doc = concat!($name, ": ", $meaning, ".")] $variant,)*
        }

        impl Errno {
            pub const ALL: &[Errno] = &[$(Errno::$variant,)*];

            /// As in `errno.h`, such as `ENOENT`.
            pub const fn name(self) -> &'static str {
                match self { $(Errno::$variant => $name,)* }
            }

            /// As on Linux, on all architectures that MatrixFS runs on.
            pub const fn number(self) -> i32 {
                match self { $(Errno::$variant => $number,)* }
            }
        }
    };
}

errnos! {
    NotPermitted "EPERM" 1 "not allowed on this kind of object",
    NoEntry "ENOENT" 2 "no such entry, or its directory was removed",
    NoDevice "ENXIO" 6 "an object that the kernel serves itself",
    Busy "EBUSY" 16 "the object is in use by the system, as the root is",
    TooBig "E2BIG" 7 "an extended attribute larger than any may be",
    Access "EACCES" 13 "a default ACL on what is no directory",
    Exists "EEXIST" 17 "the entry exists",
    NotDirectory "ENOTDIR" 20 "not a directory",
    IsDirectory "EISDIR" 21 "a directory",
    Invalid "EINVAL" 22 "makes no sense for this object",
    FileTooBig "EFBIG" 27 "beyond the largest size of a file",
    NoSpace "ENOSPC" 28 "the device is full",
    Range "ERANGE" 34 "an extended attribute without a name, or one of more than 255 bytes",
    NameTooLong "ENAMETOOLONG" 36 "longer than 255 bytes, or a link target longer than 4095",
    NotEmpty "ENOTEMPTY" 39 "the directory has entries",
    Loop "ELOOP" 40 "a symbolic link where none is followed",
    NoData "ENODATA" 61 "no such extended attribute",
    NotSupported "EOPNOTSUPP" 95 "not supported on this kind of object",
    Stale "ESTALE" 116 "the object no longer exists",
}

impl Errno {
    /// `None` for a number the tree never answers.
    pub fn from_number(number: i32) -> Option<Errno> {
        Errno::ALL.iter().copied().find(|errno| errno.number() == number)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Errno {}
