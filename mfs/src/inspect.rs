//! Showing what is on a device, for people who look for what is wrong with it.
//!
//! Keeps true: nothing is written; what a block says is shown also where it is damaged, beside what is
//! the matter with it; whatever the bytes, it ends. Nothing here decides anything.

mod objects;
mod structures;

use std::sync::Arc;

use crate::block::{Block, BlockNo};
use crate::env::Disk;
use crate::error::Corruption;
use crate::file::{FileId, InodeNo};
use crate::fsck::media::{Seen, read_one};
use crate::ondisk::header::{self, Header, Kind};
use crate::ondisk::inode::InodeBlock;
use crate::superblock::{Superblock, SuperblockError};

/// Something to be shown: as text, or as JSON.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Text(String),
    Number(u64),
    Signed(i64),
    Flag(bool),
    List(Vec<Value>),
    Fields(Vec<(&'static str, Value)>),
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

/// What to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    Superblocks,
    /// All groups that have been used, or one.
    Groups(Option<u64>),
    /// The chunk table of a group.
    Chunks(u64),
    Inode(Object),
    Extents(Object),
    Directory(Object),
    Xattrs(Object),
    Slots,
    /// Segments and transactions of a slot's journal.
    Journal(u16),
    Block(u64),
}

/// An inode, by number or by path from the root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    Number(u64),
    Path(Vec<u8>),
}

/// Why there is nothing to show.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error("there is no {what} {number}")]
    OutOfRange { what: &'static str, number: u64 },
    #[error("{name:?} is not in directory {dir}")]
    NoEntry { dir: InodeNo, name: String },
    #[error("block {0} cannot be read")]
    Unreadable(BlockNo),
}

/// Shows something of the file system on `disk`, as it lies there: no journal is replayed.
///
/// # Errors
/// [`InspectError`].
pub async fn inspect(disk: Arc<dyn Disk>, query: &Query) -> Result<Value, InspectError> {
    let sb = crate::fsck::choose_superblock(&*disk).await?;
    let look = Look { disk, sb };
    match query {
        Query::Superblocks => Ok(look.superblocks().await),
        Query::Groups(one) => look.groups(*one).await,
        Query::Chunks(group) => look.chunks(*group).await,
        Query::Inode(object) => {
            let at = look.find(object).await?;
            Ok(look.block(BlockNo(at.0)).await)
        }
        Query::Extents(object) => look.extents(look.find(object).await?).await,
        Query::Directory(object) => look.directory(look.find(object).await?).await,
        Query::Xattrs(object) => look.xattrs(look.find(object).await?).await,
        Query::Slots => Ok(look.slots().await),
        Query::Journal(slot) => look.journal(*slot).await,
        Query::Block(number) if *number < look.disk.blocks() => {
            Ok(look.block(BlockNo(*number)).await)
        }
        Query::Block(number) => Err(InspectError::OutOfRange { what: "block", number: *number }),
    }
}

/// A device being looked at.
struct Look {
    disk: Arc<dyn Disk>,
    sb: Superblock,
}

impl Look {
    async fn read(&self, at: BlockNo) -> Option<Box<Block>> {
        read_one(&*self.disk, at).await
    }

    /// One block, decoded by its header.
    async fn block(&self, at: BlockNo) -> Value {
        let Some(block) = self.read(at).await else {
            return Value::Fields(vec![
                ("block", at.0.into()),
                ("wrong", "the device cannot read it".into()),
            ]);
        };
        structures::block(&block, at, &self.sb)
    }

    /// What is wrong with a block that should be of a kind, and belong to somebody.
    fn wrong(&self, block: &Block, at: BlockNo, kind: Kind, owner: u64) -> Option<String> {
        match header::check(block, self.sb.fs_id, at) {
            Err(corruption) => Some(wrong_text(block, &corruption, &self.sb, at)),
            Ok(header) if header.kind() != Some(kind) => {
                Some(format!("it is of kind {}", structures::kind_name(header.kind)))
            }
            Ok(header) if header.owner.get() != owner => {
                Some(format!("it belongs to {}", header.owner.get()))
            }
            Ok(_) => None,
        }
    }

    async fn find(&self, object: &Object) -> Result<InodeNo, InspectError> {
        match object {
            Object::Number(number) if self.sb.layout.group_of(BlockNo(*number)).is_some() => {
                Ok(InodeNo(*number))
            }
            Object::Number(number) => {
                Err(InspectError::OutOfRange { what: "inode", number: *number })
            }
            Object::Path(path) => {
                let mut dir = self.sb.root.inode;
                for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                    let entries = self.entries(dir).await?;
                    let found = entries.iter().find(|entry| entry.name == name);
                    let Some(found) = found else {
                        let name = String::from_utf8_lossy(name).into_owned();
                        return Err(InspectError::NoEntry { dir, name });
                    };
                    dir = found.file.inode;
                }
                Ok(dir)
            }
        }
    }

    /// An inode's block, whatever its state; and who it says it is.
    async fn inode(
        &self,
        no: InodeNo,
    ) -> Result<(Box<Block>, FileId, Option<String>), InspectError> {
        let at = BlockNo(no.0);
        let block = self.read(at).await.ok_or(InspectError::Unreadable(at))?;
        let generation = block.get::<InodeBlock>().core.generation.get();
        let wrong = self.wrong(&block, at, Kind::Inode, no.0);
        Ok((block, FileId { inode: no, generation }, wrong))
    }
}

/// What is wrong, and where if it is one bit.
fn wrong_text(block: &Block, corruption: &Corruption, sb: &Superblock, at: BlockNo) -> String {
    let seen = Seen::of(Some(Box::new(block.clone())), sb.fs_id, at);
    if let Seen::Mended(_, bit) = seen {
        return format!("{corruption}; bit {bit} has flipped");
    }
    corruption.to_string()
}

/// Fields of every header.
fn header_fields(header: &Header) -> Vec<(&'static str, Value)> {
    let writer = match header.slot.get() {
        Header::NO_SLOT => Value::Text("mkfs or fsck".into()),
        slot => Value::Text(format!("slot {slot}, incarnation {}", header.incarnation.get())),
    };
    vec![
        ("kind", structures::kind_name(header.kind).into()),
        ("owner", header.owner.get().into()),
        ("owner_generation", u64::from(header.owner_generation.get()).into()),
        ("version", header.version.get().into()),
        ("written_by", writer),
    ]
}
