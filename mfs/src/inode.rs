//! Inodes as this mount knows them.
//!
//! Keeps true:
//!   * everything in [`State`] that comes from the disk is valid only while the inode's lock is
//!     held in PR or EX, and is dropped when it goes;
//!   * attributes in memory are the truth while the lock is held: they may be newer than the block
//!     (under EX), never older;
//!   * the size that is on disk covers only data that is durable (ordered data).

pub(crate) mod extents;
pub(crate) mod flush;
pub(crate) mod growth;
pub(crate) mod pages;
pub(crate) mod reap;
pub(crate) mod replaced;
pub(crate) mod truncate;
pub(crate) mod unwritten;
pub(crate) mod xattrs;

use std::fmt;
use std::sync::Arc;

use lcl::pin::{Entry, Pin};
use mx_base::Timestamp;
use mx_base::rules::{Rule, is_kept};
use parking_lot::Mutex;

use crate::block::{BLOCK_SIZE_U64, BlockNo};
use crate::cache::{BlockSet, CachedBlock, Fault, Step};
use crate::error::{Corruption, CorruptionKind, FsError};
use crate::file::{Attributes, FileId, FileType, InodeNo, PERMISSIONS};
use crate::fs::Fs;
use crate::journal::Transaction;
use crate::locks::Resource;
use crate::ondisk::Header;
use crate::ondisk::header::{Kind, Owner};
use crate::ondisk::inode::{AREA_SIZE, AreaKind, InodeBlock, InodeCore};

use pages::Pages;
use replaced::Replaced;

/// Bytes that fit into the inode itself, when nothing else does.
pub(crate) const INLINE_BYTES_MAX: u64 = AREA_SIZE as u64;

/// One inode.
pub(crate) struct Inode {
    pub(crate) no: InodeNo,
    /// INODE(i).
    pub(crate) entry: Arc<Entry>,
    /// OPEN(i).
    pub(crate) open_entry: Arc<Entry>,
    pub(crate) set: Arc<BlockSet>,
    pub(crate) state: Mutex<State>,
    /// A flush has ended.
    pub(crate) flushed: event_listener::Event,
    /// The last handle of this mount was closed.
    pub(crate) closed: event_listener::Event,
    /// A last page has been stored in the kernel.
    pub(crate) stored: event_listener::Event,
    /// A write is not under way any more ([`Replaced`]).
    pub(crate) shown: event_listener::Event,
}

/// What is known of an inode.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) core: Option<Core>,
    pub(crate) pages: Pages,
    /// Blocks promised for nodes of the extent tree that the flush of those pages may need.
    pub(crate) nodes_promised: u64,
    /// Open handles on this mount, and those of them that may write.
    pub(crate) opens: u32,
    pub(crate) writers: u32,
    /// It was made here without a name, and may still get one.
    pub(crate) linkable: bool,
    /// Pages that the kernel has locked until this node has EX.
    pub(crate) page_reads_waiting: u32,
    pub(crate) kernel: KernelView,
    /// So many last pages are being stored in the kernel; nobody here begins to write meanwhile.
    pub(crate) storing: u32,
    /// Requests for pages so far.
    pub(crate) page_reads: u64,
    /// So many are about to have had pages dropped that are not noted in `kernel` any more.
    pub(crate) pages_dropped_now: u32,
    pub(crate) replaced: Replaced,
    /// A flush is under way; the next one waits for it.
    pub(crate) flushing: bool,
    /// Write-backs that failed; each open file is told once (`kernel-cache.md`, fsync).
    pub(crate) failures: u64,
    /// The object is isolated: its changes could not be made durable.
    pub(crate) damaged: bool,
}

impl State {
    /// May somebody here store to a page of the kernel's? Then pages exist under EX only, and none
    /// was served under less. It stays so as long as a page waits for EX: dropping pages that were
    /// served under less meanwhile would wait for that one, and EX for the dropping.
    pub(crate) fn may_store(&self) -> bool {
        self.writers > 0 || self.page_reads_waiting > 0
    }
}

/// What the kernel may have cached of an inode since it was last told to forget.
#[derive(Debug, Default)]
pub(crate) struct KernelView {
    /// Attributes, or the listing of a directory.
    pub(crate) attributes: bool,
    /// Names in a directory, present ones and absent ones.
    pub(crate) names: bool,
    /// Pages, as a range of bytes that covers all that were served.
    pub(crate) pages: Option<(u64, u64)>,
    /// It takes the file for at least as long, whatever it passes over: by a store.
    pub(crate) size: u64,
}

/// The attributes, and how far they are on disk.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    /// Fields `blocks`, `area`, `depth`, `root_count` and those of extended attributes follow the block;
    /// the others lead.
    pub(crate) attributes: InodeCore,
    /// Up to here the data is durable; the block carries this size.
    pub(crate) durable_size: u64,
    /// The block is older than `attributes`.
    pub(crate) dirty: bool,
}

impl Inode {
    pub(crate) fn new(no: InodeNo, entry: Arc<Entry>, open_entry: Arc<Entry>) -> Arc<Inode> {
        Arc::new(Inode {
            no,
            entry,
            open_entry,
            set: BlockSet::new(Resource::Inode(no)),
            state: Mutex::default(),
            flushed: event_listener::Event::new(),
            closed: event_listener::Event::new(),
            stored: event_listener::Event::new(),
            shown: event_listener::Event::new(),
        })
    }

    pub(crate) fn block_no(&self) -> BlockNo {
        BlockNo(self.no.0)
    }

    /// The inode's own block, checked to be an inode that is in use.
    pub(crate) fn block(self: &Arc<Self>) -> Step<Arc<CachedBlock>> {
        let block = self.set.any(self.block_no())?;
        let data = block.data();
        let header = Header::of(&data);
        let wrong = |kind, expected: u64, found: u64| Corruption {
            block: self.block_no(),
            kind,
            expected,
            found,
        };
        match header.kind() {
            Some(Kind::Inode) => {}
            // Freed and not used again, or never used: the handle is older than that.
            Some(Kind::Free) => return Err(Fault::Fail(FsError::Stale)),
            _ => {
                let found = u64::from(header.kind);
                return Err(wrong(CorruptionKind::Kind, Kind::Inode as u64, found).into());
            }
        }
        if header.owner().id != self.no.0 {
            return Err(wrong(CorruptionKind::Owner, self.no.0, header.owner().id).into());
        }
        let core = &data.get::<InodeBlock>().core;
        check_core(core).map_err(|what| wrong(CorruptionKind::Contents(what), 0, 0))?;
        Ok(block)
    }

    /// As [`Inode::block`]; a block that the transaction has just made counts.
    pub(crate) fn own_block(self: &Arc<Self>, tx: &Transaction) -> Step<Arc<CachedBlock>> {
        match tx.staged_block(self.block_no()) {
            Some(block) => Ok(block),
            None => self.block(),
        }
    }

    /// Runs `f` with the attributes in memory, which are brought in when they are not there.
    pub(crate) fn with_core<T>(self: &Arc<Self>, f: impl FnOnce(&mut State) -> Step<T>) -> Step<T> {
        let mut state = self.state.lock();
        self.bring_core(&mut state)?;
        f(&mut state)
    }

    /// As [`Inode::with_core`], for a file that is meant by number and generation.
    pub(crate) fn with_file<T>(
        self: &Arc<Self>,
        file: FileId,
        f: impl FnOnce(&mut State) -> Step<T>,
    ) -> Step<T> {
        self.with_core(|state| {
            if state.core().attributes.generation.get() != file.generation {
                return Err(Fault::Fail(FsError::Stale));
            }
            f(state)
        })
    }

    pub(crate) fn owner(&self, generation: u32) -> Owner {
        Owner { id: self.no.0, generation }
    }

    /// Changes the attributes inside a transaction. They become the ones in memory when it commits.
    pub(crate) fn edit_core(
        self: &Arc<Self>,
        tx: &mut Transaction,
        pin: &Pin,
        f: impl FnOnce(&mut Core) -> Result<(), FsError>,
    ) -> Step<()> {
        let mut core = match tx.pending_core(self) {
            Some(core) => core,
            None => self.with_core(|state| Ok(state.core().clone()))?,
        };
        f(&mut core)?;
        self.stage_core(tx, pin, &mut core)?;
        tx.set_pending_core(self, core);
        Ok(())
    }

    /// Puts attributes into the block, inside a transaction. What only the block knows (its area)
    /// stays.
    pub(crate) fn stage_core(
        self: &Arc<Self>,
        tx: &mut Transaction,
        pin: &Pin,
        core: &mut Core,
    ) -> Step<()> {
        let block = self.own_block(tx)?;
        let on_disk: &mut InodeBlock = tx.change(pin, &self.set, &block).get_mut();
        let mut attributes = core.attributes;
        copy_followers(&mut attributes, &on_disk.core);
        if is_kept(Rule::SizeBehindData) {
            attributes.size.set(core.durable_size);
        }
        on_disk.core = attributes;
        core.dirty = core.durable_size != core.attributes.size.get();
        Ok(())
    }

    /// After a commit that changed the area: the fields that follow the block.
    pub(crate) fn follow_block(&self, state: &mut State) {
        let (Some(block), Some(core)) = (self.set.get(self.block_no()), state.core.as_mut()) else {
            return;
        };
        let block = block.data();
        copy_followers(&mut core.attributes, &block.get::<InodeBlock>().core);
    }
}

/// The fields that follow the block.
fn copy_followers(to: &mut InodeCore, block: &InodeCore) {
    to.blocks = block.blocks;
    to.area = block.area;
    to.depth = block.depth;
    to.root_count = block.root_count;
    to.xattr_inline = block.xattr_inline;
    to.xattr_blocks = block.xattr_blocks;
    to.xattr_kinds = block.xattr_kinds;
    to.xattr_first = block.xattr_first;
    to.xattr_len = block.xattr_len;
}

/// What is the matter with an object that a recovery has marked, and that may have nothing else.
pub(crate) const ISOLATED: &str = "isolated by a recovery";

/// Is what a block says of an inode possible at all?
pub(crate) fn check_core(core: &InodeCore) -> Result<(), &'static str> {
    if core.flags.get() & InodeCore::ISOLATED != 0 {
        return Err(ISOLATED);
    }
    let Some(file_type) = FileType::of_mode(core.mode.get()) else {
        return Err("file type unknown");
    };
    let Some(area) = AreaKind::from_u8(core.area) else { return Err("area of unknown kind") };
    let fits = match file_type {
        FileType::Regular => matches!(area, AreaKind::Bytes | AreaKind::Extents),
        FileType::Directory => matches!(area, AreaKind::Entries | AreaKind::Index),
        FileType::SymbolicLink => matches!(area, AreaKind::Bytes | AreaKind::Extents),
        FileType::Fifo | FileType::CharDevice | FileType::BlockDevice | FileType::Socket => {
            area == AreaKind::Empty
        }
    };
    if !fits {
        return Err("area does not fit the file type");
    }
    xattrs::check_xattrs(core)?;
    if area == AreaKind::Bytes && core.size.get() > core.room() as u64 {
        return Err("inline data larger than the area");
    }
    if core.size.get() > crate::file::FILE_SIZE_MAX {
        return Err("size beyond the largest offset");
    }
    if area == AreaKind::Extents && usize::from(core.root_count.get()) > core.root_entries_max() {
        return Err("too many entries in the root of the extent tree");
    }
    Ok(())
}

impl State {
    /// The attributes, which the caller has brought in.
    pub(crate) fn core(&self) -> &Core {
        self.core.as_ref().expect("brought in by with_core")
    }

    pub(crate) fn core_mut(&mut self) -> &mut Core {
        self.core.as_mut().expect("brought in by with_core")
    }
}

impl Core {
    pub(crate) fn of(attributes: &InodeCore) -> Core {
        Core { attributes: *attributes, durable_size: attributes.size.get(), dirty: false }
    }

    pub(crate) fn file_type(&self) -> FileType {
        FileType::of_mode(self.attributes.mode.get()).expect("checked when it was read")
    }

    pub(crate) fn area(&self) -> AreaKind {
        AreaKind::from_u8(self.attributes.area).expect("checked when it was read")
    }

    pub(crate) fn size(&self) -> u64 {
        self.attributes.size.get()
    }

    /// Bytes that fit into the inode itself, beside its extended attributes.
    pub(crate) fn inline_bytes_max(&self) -> u64 {
        self.attributes.room() as u64
    }

    pub(crate) fn links(&self) -> u32 {
        self.attributes.links.get()
    }

    pub(crate) fn file(&self, inode: InodeNo) -> FileId {
        FileId { inode, generation: self.attributes.generation.get() }
    }

    /// Of a directory: entries came or went.
    pub(crate) fn add_entries(&mut self, change: i64) {
        let entries = self.attributes.entries.get().checked_add_signed(change);
        self.attributes.entries.set(entries.expect("entries are counted exactly"));
        self.dirty = true;
    }

    pub(crate) fn add_links(&mut self, change: i32) {
        let links = self.attributes.links.get().checked_add_signed(change);
        self.attributes.links.set(links.expect("links are counted exactly"));
        self.dirty = true;
    }

    /// Of a directory: the one that holds it.
    pub(crate) fn parent(&self) -> FileId {
        FileId {
            inode: InodeNo(self.attributes.parent.get()),
            generation: self.attributes.parent_generation.get(),
        }
    }

    /// The inode was changed now: ctime, which never goes back (I8).
    pub(crate) fn touch_ctime(&mut self, now: Timestamp) {
        let ctime = Timestamp::advance(self.attributes.ctime.into(), now);
        self.attributes.ctime = ctime.into();
        self.dirty = true;
    }

    /// The contents were changed now: mtime and ctime.
    pub(crate) fn touch_mtime(&mut self, now: Timestamp) {
        let mtime = Timestamp::advance(self.attributes.mtime.into(), now);
        self.attributes.mtime = mtime.into();
        self.touch_ctime(now);
    }

    pub(crate) fn attributes(&self, inode: InodeNo) -> Attributes {
        let a = &self.attributes;
        let size = if self.file_type() == FileType::Directory {
            // The inode's own block and those of the entries.
            a.blocks.get().saturating_add(1).saturating_mul(BLOCK_SIZE_U64)
        } else {
            a.size.get()
        };
        Attributes {
            file: self.file(inode),
            file_type: self.file_type(),
            permissions: a.mode.get() & PERMISSIONS,
            uid: a.uid.get(),
            gid: a.gid.get(),
            links: a.links.get(),
            size,
            blocks: a.blocks.get(),
            is_inline: self.file_type() == FileType::Regular
                && self.area() == AreaKind::Bytes
                && a.size.get() <= self.inline_bytes_max(),
            atime: a.atime.into(),
            mtime: a.mtime.into(),
            ctime: a.ctime.into(),
            btime: a.btime.into(),
            rdev: a.rdev.get(),
            flags: self.flags(),
        }
    }
}

impl fmt::Debug for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inode({:?})", self.no)
    }
}

impl Fs {
    /// The inode object of a number.
    pub(crate) fn inode(&self, no: InodeNo) -> Result<Arc<Inode>, FsError> {
        let mut inodes = self.inodes.lock();
        if let Some(inode) = inodes.get(&no) {
            return Ok(Arc::clone(inode));
        }
        if self.layout.group_of(BlockNo(no.0)).is_none() {
            return Err(FsError::Stale);
        }
        let [inode_lock, open_lock] = [Resource::Inode(no), Resource::Open(no)]
            .map(|r| self.env.locks.entry(r.name(), r.bucket(&self.layout)));
        let inode = Inode::new(no, inode_lock, open_lock);
        inodes.insert(no, Arc::clone(&inode));
        Ok(inode)
    }

    /// The inode object, if this mount has one.
    pub(crate) fn known_inode(&self, no: InodeNo) -> Option<Arc<Inode>> {
        self.inodes.lock().get(&no).cloned()
    }

    /// Forgets an object that nobody uses and that caches nothing.
    pub(crate) fn forget_inode(&self, no: InodeNo) {
        let mut inodes = self.inodes.lock();
        let Some(inode) = inodes.get(&no) else { return };
        // One reference here, one in the map.
        let unused = Arc::strong_count(inode) == 1 && inode.state.lock().opens == 0;
        if unused {
            inodes.remove(&no);
        }
    }
}
