//! What may be done to the file.

use std::fmt;
use std::str::FromStr;

/// One kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Read,
    Write,
    Append,
    Truncate,
    /// Loads through a shared mapping.
    MapRead,
    /// Stores through a shared mapping, inside the file; some are followed by msync(2).
    MapWrite,
    DirectRead,
    DirectWrite,
    /// fsync(2) or fdatasync(2).
    Sync,
    Stat,
    /// close(2) and open(2), and mappings made anew.
    Reopen,
    /// fallocate(2) of a range, with the size kept or not.
    Allocate,
    /// FALLOC_FL_PUNCH_HOLE.
    Punch,
    /// FALLOC_FL_ZERO_RANGE, with the size kept or not.
    Zero,
    /// copy_file_range(2) of a part of the file to another part.
    Copy,
    /// lseek(2) with SEEK_HOLE or SEEK_DATA.
    Seek,
}

impl Kind {
    pub const ALL: [Kind; 16] = [
        Kind::Read,
        Kind::Write,
        Kind::Append,
        Kind::Truncate,
        Kind::MapRead,
        Kind::MapWrite,
        Kind::DirectRead,
        Kind::DirectWrite,
        Kind::Sync,
        Kind::Stat,
        Kind::Reopen,
        Kind::Allocate,
        Kind::Punch,
        Kind::Zero,
        Kind::Copy,
        Kind::Seek,
    ];

    /// How often it comes, beside the others.
    pub(super) fn weight(self) -> u64 {
        match self {
            Kind::Read | Kind::Write | Kind::MapRead | Kind::MapWrite => 8,
            Kind::Append | Kind::Truncate | Kind::DirectRead | Kind::DirectWrite => 4,
            Kind::Allocate | Kind::Punch | Kind::Zero | Kind::Copy => 3,
            Kind::Stat | Kind::Seek => 2,
            Kind::Sync | Kind::Reopen => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Append => "append",
            Kind::Truncate => "truncate",
            Kind::MapRead => "map-read",
            Kind::MapWrite => "map-write",
            Kind::DirectRead => "direct-read",
            Kind::DirectWrite => "direct-write",
            Kind::Sync => "sync",
            Kind::Stat => "stat",
            Kind::Reopen => "reopen",
            Kind::Allocate => "allocate",
            Kind::Punch => "punch",
            Kind::Zero => "zero",
            Kind::Copy => "copy",
            Kind::Seek => "seek",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let names = Kind::ALL.map(Kind::name).join(", ");
            format!("`{text}`: expected one of {names}")
        })
    }
}
