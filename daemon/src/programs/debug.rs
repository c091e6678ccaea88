//! matrixfs-debug: prints structures of a device.

mod membership;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Parser, Subcommand};
use mfs::block::{BLOCK_SIZE_U64, Block, BlockNo};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mfs::inspect::{InspectError, Object, Query, Value, inspect};
use mx_base::BoxFuture;
use zerocopy::IntoBytes;

use crate::partition::{self, IdentityError};

/// Print structures of a MatrixFS device, as they lie there.
///
/// Nothing is written, no journal is replayed; while a node has the file system mounted, what is
/// printed may be older than what the node sees. A damaged block is printed as far as it goes, beside
/// what is wrong with it. Exit status: 0 printed, 1 there is nothing like that, 2 wrong usage.
#[derive(Parser, Debug)]
#[command(name = "matrixfs-debug", version)]
pub struct Options {
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Block device or regular file.
    pub device: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

/// What to print.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// All copies of the superblock
    Superblock,
    /// Headers of all groups that have been used, or the blocks of one
    Groups {
        /// Number of a group
        group: Option<u64>,
    },
    /// The chunk table of a group
    Chunks {
        /// Number of a group
        group: u64,
    },
    /// An inode
    Inode {
        /// Number of an inode, or a path from the root that begins with /
        inode: String,
    },
    /// The extent tree of a file
    Extents {
        /// Number of an inode, or a path from the root that begins with /
        inode: String,
    },
    /// The index and the buckets of a directory
    Directory {
        /// Number of an inode, or a path from the root that begins with /
        inode: String,
    },
    /// Extended attributes
    Xattrs {
        /// Number of an inode, or a path from the root that begins with /
        inode: String,
    },
    /// Heads and bodies of all slots that have been used
    Slots,
    /// Segments, transactions and records of a slot's journal
    Journal {
        /// Number of a slot
        slot: u16,
    },
    /// Records of the membership partition
    Membership,
    /// A block, decoded by its header
    Block {
        /// Number of a block
        block: u64,
    },
}

/// Why nothing is printed.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    #[error("{}: {source}", device.display())]
    Open { device: PathBuf, source: io::Error },
    #[error("{0:?} is neither the number of an inode nor a path that begins with /")]
    Object(String),
    #[error("{}: {source}", device.display())]
    Inspect { device: PathBuf, source: InspectError },
    #[error("{}: {source}", device.display())]
    Membership { device: PathBuf, source: IdentityError },
    #[error("{0}")]
    System(#[from] std::io::Error),
}

fn object(text: &str) -> Result<Object, DebugError> {
    if text.starts_with('/') {
        return Ok(Object::Path(text.as_bytes().to_vec()));
    }
    text.parse().map(Object::Number).map_err(|_| DebugError::Object(text.to_owned()))
}

/// What was asked for, as text or JSON.
///
/// # Errors
/// [`DebugError`].
pub fn run(options: &Options) -> Result<String, DebugError> {
    let device = options.device.clone();
    let open = |source| DebugError::Open { device: device.clone(), source };
    let disk: Arc<dyn Disk> = Arc::new(ReadOnly::open(&options.device).map_err(open)?);
    let query = match &options.command {
        Command::Superblock => Query::Superblocks,
        Command::Groups { group } => Query::Groups(*group),
        Command::Chunks { group } => Query::Chunks(*group),
        Command::Inode { inode } => Query::Inode(object(inode)?),
        Command::Extents { inode } => Query::Extents(object(inode)?),
        Command::Directory { inode } => Query::Directory(object(inode)?),
        Command::Xattrs { inode } => Query::Xattrs(object(inode)?),
        Command::Slots => Query::Slots,
        Command::Journal { slot } => Query::Journal(*slot),
        Command::Membership => {
            let shown = super::block_on(async {
                let identity = partition::identify(&*disk).await?;
                Ok::<_, IdentityError>(membership::membership(&*disk, &identity).await?)
            })?;
            let shown = shown.map_err(|source| DebugError::Membership { device, source })?;
            return Ok(printed(options, &shown));
        }
        Command::Block { block } => Query::Block(*block),
    };
    let shown = super::block_on(async { inspect(disk, &query).await })?;
    let shown = shown.map_err(|source| DebugError::Inspect { device, source })?;
    Ok(printed(options, &shown))
}

fn printed(options: &Options, shown: &Value) -> String {
    if options.json {
        return json(shown).to_string();
    }
    let mut text = String::new();
    write_text(shown, 0, &mut text);
    text
}

/// A device that is only looked at, beside whoever has it mounted.
#[derive(Debug)]
struct ReadOnly {
    file: File,
    blocks: u64,
}

impl ReadOnly {
    fn open(path: &Path) -> io::Result<ReadOnly> {
        // What others write passes the page cache of this machine by.
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
        let mut file = match direct {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => File::open(path)?,
            opened => opened?,
        };
        let blocks = file.seek(SeekFrom::End(0))? / BLOCK_SIZE_U64;
        Ok(ReadOnly { file, blocks })
    }

    fn read_now(&self, at: BlockNo, count: usize) -> Result<Box<[Block]>, DiskError> {
        let mut blocks = Block::zeroed_many(count);
        let read = self.file.read_exact_at(blocks.as_mut_bytes(), at.0 * BLOCK_SIZE_U64);
        read.map_err(|error| crate::disk::failed("read", at, count, error))?;
        Ok(blocks)
    }
}

impl Disk for ReadOnly {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
        let is_inside = at.0.checked_add(count as u64).is_some_and(|end| end <= self.blocks);
        let read = if is_inside {
            self.read_now(at, count)
        } else {
            Err(DiskError::BeyondEnd { at, end: self.blocks })
        };
        Box::pin(std::future::ready(read))
    }

    fn write(
        &self,
        _: BlockNo,
        _: WriteData,
        _: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        Box::pin(std::future::ready(Err(DiskError::Fenced)))
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        Box::pin(std::future::ready(Err(DiskError::Fenced)))
    }
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => text.clone().into(),
        Value::Number(number) => (*number).into(),
        Value::Signed(number) => (*number).into(),
        Value::Flag(flag) => (*flag).into(),
        Value::List(all) => all.iter().map(json).collect(),
        Value::Fields(fields) => {
            fields.iter().map(|(name, value)| ((*name).to_owned(), json(value))).collect()
        }
    }
}

/// A field a line, further in what belongs to it; short lists of plain values on one line.
fn write_text(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::List(all) => {
            for value in all {
                write_text(value, indent, text);
            }
        }
        Value::Fields(fields) => {
            let mut line = " ".repeat(indent);
            let (plain, nested): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, value)| {
                !matches!(value, Value::List(all) if !all.is_empty())
                    && !matches!(value, Value::Fields(_))
            });
            for (i, (name, value)) in plain.into_iter().enumerate() {
                line.push_str(if i == 0 { "" } else { "  " });
                line.push_str(&format!("{name} {}", plain_text(value)));
            }
            if !line.trim().is_empty() {
                text.push_str(line.trim_end());
                text.push('\n');
            }
            for (name, value) in nested {
                text.push_str(&format!("{}{name}:\n", " ".repeat(indent + 2)));
                write_text(value, indent + 4, text);
            }
        }
        plain @ (Value::Text(_) | Value::Number(_) | Value::Signed(_) | Value::Flag(_)) => {
            text.push_str(&format!("{}{}\n", " ".repeat(indent), plain_text(plain)));
        }
    }
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::Text(text) if text.is_empty() => "\"\"".into(),
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Flag(flag) => if *flag { "yes" } else { "no" }.into(),
        Value::List(_) | Value::Fields(_) => "none".into(),
    }
}
