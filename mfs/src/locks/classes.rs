//! What a surrender means for each type of resource.

use std::sync::{Arc, OnceLock, Weak};

use lcl::class::{Damaged, LockClass};
use lcl::pin::Entry;
use lcl::{Mode, ValueBlock};
use mx_base::BoxFuture;
use mx_base::rules::{Rule, is_kept};
use zerocopy::{FromBytes, IntoBytes};

use super::Resource;
use crate::cache::BlockSet;
use crate::error::FsError;
use crate::file::FileType;
use crate::fs::Fs;
use crate::inode::{Core, Inode, KernelView};
use crate::ondisk::inode::InodeCore;

/// The part of an inode's core that fits its value block, followed by the block's version.
const VALUE_CORE_SIZE: usize = 120;

/// The callouts of all locks of a mount. Holds no strong reference: an unmounted file system has
/// nothing to flush.
#[derive(Default)]
pub(crate) struct Classes {
    fs: OnceLock<Weak<Fs>>,
}

impl Classes {
    /// From here on there is something to flush. Until then locks protect only what is read.
    pub(crate) fn serve(&self, fs: &Arc<Fs>) {
        self.fs.get_or_init(|| Arc::downgrade(fs));
    }

    fn fs(&self) -> Option<Arc<Fs>> {
        self.fs.get()?.upgrade()
    }
}

fn resource(entry: &Entry) -> Option<Resource> {
    Resource::of_name(&entry.name())
}

impl LockClass for Classes {
    /// Who has a file open holds CR on OPEN, under whatever the node has left from an earlier file in
    /// its place; others that open it must not wait until it is closed.
    fn leaves_pins(&self, entry: &Entry, to: Mode) -> bool {
        matches!(resource(entry), Some(Resource::Open(_))) && to.covers(Mode::CR)
    }

    fn revoke<'a>(&'a self, entry: &'a Arc<Entry>, to: Mode, pass: u32) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(fs) = self.fs() else { return };
            match resource(entry) {
                Some(Resource::Inode(no)) => {
                    if let Some(inode) = fs.known_inode(no) {
                        fs.revoke_inode(&inode, to, pass).await;
                    }
                }
                Some(Resource::Space) if pass == 0 && !to.covers(Mode::PR) => {
                    fs.make_space_for_others().await;
                }
                _ => {}
            }
        })
    }

    fn flush<'a>(&'a self, entry: &'a Arc<Entry>, to: Mode) -> BoxFuture<'a, Result<(), Damaged>> {
        Box::pin(async move {
            let Some(fs) = self.fs() else { return Ok(()) };
            if resource(entry) == Some(Resource::Freeze) && !to.covers(Mode::PR) {
                // The journal has what is not in place.
                if let Err(error) = fs.come_to_rest().await {
                    tracing::warn!(%error, "frozen, and not everything is in place");
                }
                return Ok(());
            }
            if !entry.mode().writes() {
                return Ok(());
            }
            match resource(entry) {
                Some(Resource::Inode(no)) => match fs.known_inode(no) {
                    Some(inode) => fs.flush_surrendered(entry, &inode).await,
                    None => Ok(()),
                },
                Some(Resource::Group(no)) => {
                    let group = fs.group(no);
                    fs.set_in_place(&group.set).await
                }
                Some(
                    Resource::Superblock
                    | Resource::Freeze
                    | Resource::Slot(_)
                    | Resource::Open(_)
                    | Resource::Rename
                    | Resource::Space,
                )
                | None => Ok(()),
            }
        })
    }

    fn purge(&self, entry: &Arc<Entry>, to: Mode) -> Option<ValueBlock> {
        let fs = self.fs()?;
        let wrote = entry.mode().writes();
        match resource(entry)? {
            Resource::Inode(no) => {
                let inode = fs.known_inode(no)?;
                let value = if wrote { value_of(&inode) } else { None };
                if !to.covers(Mode::PR) && is_kept(Rule::PurgeOnRelease) {
                    purge_inode(&fs, &inode);
                    drop(inode);
                    fs.forget_inode(no);
                }
                value
            }
            Resource::Group(no) => {
                let group = fs.group(no);
                if !to.covers(Mode::PR) && is_kept(Rule::PurgeOnRelease) {
                    group.set.purge(fs.is_damaged(Resource::Group(no)));
                    // Everything freed here is durable: the log was forced.
                    group.wake(fs.journal.durable());
                }
                None
            }
            Resource::Superblock
            | Resource::Freeze
            | Resource::Slot(_)
            | Resource::Open(_)
            | Resource::Rename
            | Resource::Space => None,
        }
    }

    fn refresh(&self, entry: &Arc<Entry>, _mode: Mode, value: Option<&ValueBlock>) {
        let Some(fs) = self.fs() else { return };
        match resource(entry) {
            Some(Resource::Inode(no)) => {
                if let (Some(inode), Some(value)) = (fs.known_inode(no), value) {
                    refresh_inode(&inode, value);
                }
            }
            Some(
                Resource::Superblock
                | Resource::Freeze
                | Resource::Group(_)
                | Resource::Slot(_)
                | Resource::Open(_)
                | Resource::Rename
                | Resource::Space,
            )
            | None => {}
        }
    }
}

impl Fs {
    /// Drops what the kernel caches of an inode and `to` does not allow any more.
    async fn revoke_inode(&self, inode: &Arc<Inode>, to: Mode, pass: u32) {
        let (file, is_directory, view) = {
            let mut state = inode.state.lock();
            let Some(core) = &state.core else { return };
            let (file, file_type) = (core.file(inode.no), core.file_type());
            let may_store = state.may_store();
            let view = if to.covers(Mode::PR) {
                // Clean pages may stay; pages that could be stored to may not. Nor may attributes and
                // names: the answer to the last change may not have reached the kernel, which
                // meanwhile shows what was before, while another node shows the change already.
                let kernel = &mut state.kernel;
                let pages = if may_store { kernel.pages.take() } else { None };
                let names = std::mem::take(&mut kernel.names);
                let attributes = std::mem::take(&mut kernel.attributes);
                KernelView { pages, names, attributes, size: 0 }
            } else {
                std::mem::take(&mut state.kernel)
            };
            (file, file_type == FileType::Directory, view)
        };
        if view.names && is_kept(Rule::RevokeNames) {
            self.env.kernel.forget_names().await;
        }
        let all = is_directory && pass == 0 && !to.covers(Mode::PR);
        if (view.attributes || all) && is_kept(Rule::RevokeAttributes) {
            self.env.kernel.forget_attributes(file, is_directory).await;
        }
        if let Some((from, to)) = view.pages.filter(|_| is_kept(Rule::RevokePages)) {
            // The first pass drops everything: read-ahead may hold more than was served lately.
            let range = (pass > 0).then_some(from..to);
            self.env.kernel.forget_pages(file, range).await;
        }
    }

    /// Everything dirty under an inode's lock becomes durable in place.
    async fn flush_surrendered(
        &self,
        entry: &Arc<Entry>,
        inode: &Arc<Inode>,
    ) -> Result<(), Damaged> {
        let pin = entry.surrender_pin();
        let flushed = self.flush_inode(inode, &pin).await;
        if let Err(error) = &flushed {
            self.journal.over_if_failed().await;
            self.report_lost(inode.set.resource(), error);
        }
        // What is in the log goes in place whatever became of the data.
        let in_place = self.set_in_place(&inode.set).await;
        let flushed = flushed.map_err(|_| Damaged).and(in_place);
        let mut state = inode.state.lock();
        if flushed.is_err() {
            state.damaged = true;
            let promised = state.pages.clear();
            state.core = None;
            self.space.settle(promised);
            self.trim_nodes(&mut state);
        }
        self.note_dirty(inode, &state);
        flushed
    }

    /// The dirty blocks of a set become durable in place. Where they cannot, the lock is not given
    /// up: whoever got it would miss what was acknowledged, and find blocks free that are not. This
    /// life of the node ends, and the others get the lock when they have replayed the journal.
    async fn set_in_place(&self, set: &Arc<BlockSet>) -> Result<(), Damaged> {
        let Err(error) = self.journal.settle_in_place(&set.dirty()).await else { return Ok(()) };
        self.report_lost(set.resource(), &error);
        let FsError::Disk(error) = error else {
            unreachable!("only the device fails a write in place: {error}")
        };
        self.journal.fail(error);
        self.env.group.journal_failed();
        self.journal.over_if_failed().await;
        Err(Damaged)
    }

    pub(crate) fn is_damaged(&self, resource: Resource) -> bool {
        self.damage().iter().any(|(r, _)| *r == resource)
    }
}

/// The inode's core and its block's version, as the next holder's hint.
fn value_of(inode: &Inode) -> Option<ValueBlock> {
    let state = inode.state.lock();
    let core = state.core.as_ref().filter(|core| !core.dirty)?;
    let version = inode.set.get(inode.block_no())?.version();
    let mut value = [0; ValueBlock::MAX];
    value[..VALUE_CORE_SIZE].copy_from_slice(&core.attributes.as_bytes()[..VALUE_CORE_SIZE]);
    value[VALUE_CORE_SIZE..].copy_from_slice(&version.to_le_bytes());
    ValueBlock::new(&value)
}

fn refresh_inode(inode: &Inode, value: &ValueBlock) {
    let bytes = value.as_bytes();
    if bytes.len() != ValueBlock::MAX {
        return;
    }
    let mut whole = [0; size_of::<InodeCore>()];
    whole[..VALUE_CORE_SIZE].copy_from_slice(&bytes[..VALUE_CORE_SIZE]);
    let Ok(attributes) = InodeCore::read_from_bytes(&whole) else { return };
    let mut state = inode.state.lock();
    if state.core.is_none() && crate::inode::check_core(&attributes).is_ok() {
        state.core = Some(Core::of(&attributes));
    }
}

fn purge_inode(fs: &Fs, inode: &Arc<Inode>) {
    let mut state = inode.state.lock();
    let damaged = state.damaged;
    assert!(
        damaged || state.pages.is_clean() && state.core.as_ref().is_none_or(|core| !core.dirty),
        "{inode:?} is given up while it is dirty"
    );
    let promised = state.pages.clear();
    fs.space.settle(promised);
    fs.trim_nodes(&mut state);
    state.core = None;
    state.kernel = KernelView::default();
    inode.set.purge(damaged || fs.is_damaged(inode.set.resource()));
}
