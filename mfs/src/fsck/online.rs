//! Checking a file system while it is used.
//!
//! Keeps true: nothing is written, and nothing that another node or program does is taken for
//! damage. An object is looked at while its lock is held, so that nobody changes it, on the device as
//! it is there: what this node has cached whole may be damaged below. What is not in place yet, for
//! this node changed it, counts as it will be written.
//!
//! What only a file system at rest shows is left to `fsck.matrixfs`: blocks that nothing uses or that
//! two files use, counts of links, inodes without a name, the counters of slots, journals.
//!
//! A group is held for a few chunks at a time, an inode as long as what it is made of is read; who
//! waits for one that somebody dead has goes on to the next.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use lcl::pin::{Entry, Pin, Want};
use mx_base::{Duration, FsId, SlotId};

use super::groups::fits;
use super::inodes::Found;
use super::overlay::Overlay;
use super::{Check, Claim, Claims, Problem, superblocks};
use crate::alloc::{PinnedGroup, bits};
use crate::block::{BlockNo, as_usize};
use crate::cache::{BlockSet, Step};
use crate::error::FsError;
use crate::file::{FileId, FileType, InodeNo};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::journal::Transaction;
use crate::layout::GroupNo;
use crate::ondisk::alloc_group::{BitmapBlock, ChunkKind};
use crate::ondisk::header;
use crate::ondisk::superblock::SUPERBLOCK_AT;
use crate::ops::locking::At;
use crate::slot::head::SlotHead;
use crate::superblock::{Superblock, SuperblockError};

/// How long something is waited for: who lives gives it up sooner, who is dead has it for longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Chunks looked at while a group is held, and in one piece of a check.
const CHUNKS_AT_ONCE: u64 = 16;
/// Blocks of files read at once.
const DATA_AT_ONCE: u64 = 256;

/// Where a check goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    pub group: u64,
    pub chunk: u64,
}

/// A piece of a check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    /// Where the next one begins; `None` behind the last.
    pub next: Option<Cursor>,
    pub problems: Vec<Problem>,
    pub inodes: u64,
    pub directories: u64,
    pub entries: u64,
    /// Blocks of files that were read.
    pub data_blocks: u64,
    /// Groups, inodes and names that could not be had soon.
    pub skipped: u64,
}

/// Why no check can be done.
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// What there is to do is left out.
enum Skip {
    /// It could not be had soon, or is damaged so that somebody else tells of it.
    Missed,
    Over(FsError),
}

type Looked<T> = Result<T, Skip>;

impl From<FsError> for Skip {
    fn from(error: FsError) -> Skip {
        if matches!(error, FsError::CutOff) { Skip::Over(error) } else { Skip::Missed }
    }
}

impl Fs {
    /// Checks a few chunks of one group, and the inodes in them; with `data` also whether the device
    /// can read the blocks of those files.
    ///
    /// # Errors
    /// When this node has lost the file system.
    pub async fn check_online(
        self: &Arc<Self>,
        from: Cursor,
        data: bool,
    ) -> Result<Piece, OnlineError> {
        self.check_open()?;
        let superblocks::Chosen { sb, bad, .. } = superblocks::choose(&*self.env.disk).await?;
        let mut scrub = Scrub { fs: self, sb, data, piece: Piece::default() };
        if from == Cursor::default() {
            for at in bad {
                scrub.problem(format!("superblock {at}"), "is not what most copies say");
            }
            scrub.check_slots().await?;
        }
        scrub.check_piece(from).await?;
        if !scrub.piece.problems.is_empty() {
            // Who is fenced can read nothing, and knows of no damage.
            self.env.disk.read(BlockNo(SUPERBLOCK_AT), 1).await.map_err(FsError::from)?;
        }
        Ok(scrub.piece)
    }
}

struct Scrub<'a> {
    fs: &'a Arc<Fs>,
    sb: Superblock,
    data: bool,
    piece: Piece,
}

impl Scrub<'_> {
    fn problem(&mut self, object: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.piece.problems.push(Problem::new(object, what));
    }

    /// Who has none of a slot's heads cannot have its journal replayed.
    async fn check_slots(&mut self) -> Result<(), FsError> {
        let heads = SlotHead::read_all(&*self.fs.env.disk, self.sb.fs_id, &self.sb.layout).await?;
        let damaged = |(slot, head): (SlotId, Result<_, _>)| Some((slot, head.err()?));
        for (slot, error) in heads.into_iter().filter_map(damaged) {
            self.problem(slot, error);
        }
        Ok(())
    }

    async fn check_piece(&mut self, from: Cursor) -> Result<(), FsError> {
        let (layout, no) = (self.sb.layout, GroupNo(from.group));
        if from.group >= layout.group_count {
            return Ok(());
        }
        let is_used = match self.soon(self.fs.is_initialised(no)).await {
            Ok(is_used) => is_used,
            Err(Skip::Over(error)) => return Err(error),
            Err(Skip::Missed) => {
                self.piece.skipped += 1;
                false
            }
        };
        let mut end = layout.chunk_count(no);
        let mut places = Vec::new();
        if is_used {
            match self.check_group(no, from.chunk).await {
                Ok(found) => {
                    places = found;
                    end = end.min(from.chunk + CHUNKS_AT_ONCE);
                }
                Err(Skip::Over(error)) => return Err(error),
                Err(Skip::Missed) => self.piece.skipped += 1,
            }
        }
        self.piece.next = if end < layout.chunk_count(no) {
            Some(Cursor { chunk: end, ..from })
        } else {
            Some(Cursor { group: from.group + 1, chunk: 0 })
                .filter(|c| c.group < layout.group_count)
        };
        for at in places {
            match self.check_inode(at).await {
                Ok(()) => {}
                Err(Skip::Over(error)) => return Err(error),
                Err(Skip::Missed) => self.piece.skipped += 1,
            }
        }
        Ok(())
    }

    /// The group's own blocks and the free ones among these chunks; returns where inodes are.
    async fn check_group(&mut self, no: GroupNo, chunk: u64) -> Looked<Vec<BlockNo>> {
        let group = self.fs.group(no);
        let _pin = self.pin(&group.entry, Want::write()).await?;
        let mut quiet = |_: &str, _, _| {};
        let mut check = Check::new(self.overlay(&group.set), self.sb.clone(), &mut quiet);
        check.read_group(no).await;
        if chunk > 0 {
            // Told with its first chunks.
            check.report.problems.clear();
        }
        let mut places = Vec::new();
        if check.groups.contains_key(&no) {
            let among = chunk..chunk + CHUNKS_AT_ONCE;
            check.check_free_headers(no, among.clone()).await;
            if chunk == 0 {
                check.compare_counts();
            }
            places = check.inode_places(no, among);
        }
        self.piece.problems.append(&mut check.report.problems);
        Ok(places)
    }

    async fn check_inode(&mut self, at: BlockNo) -> Looked<()> {
        let inode = self.fs.inode(InodeNo(at.0))?;
        let alone = Want { exclusive: true, ..Want::read() };
        let pin = self.pin(&inode.entry, alone).await?;
        // A file that was removed since may be in place still; with its lock held it does not go.
        let itself = Claim { first: at, blocks: 1, kind: ChunkKind::Inode };
        if !self.wrong_claims(self.group_of(at)?, &[itself]).await?.is_empty() {
            return Ok(());
        }
        let mut quiet = |_: &str, _, _| {};
        let mut check = Check::new(self.overlay(&inode.set), self.sb.clone(), &mut quiet);
        check.claims = Some(Claims::default());
        if let Err(corruption) = check.read_inode(at).await {
            check.problem(format!("inode {at}"), corruption);
        }
        let Check { report, claims, mut inodes, .. } = check;
        self.piece.inodes += 1;
        self.piece.directories += report.directories;
        self.piece.entries += report.entries;
        self.piece.problems.extend(report.problems);
        self.piece.problems.extend(report.isolated);
        let runs = claims.map(|claims| claims.runs).unwrap_or_default();
        let mut by_group: BTreeMap<GroupNo, Vec<Claim>> = BTreeMap::new();
        for claim in &runs {
            by_group.entry(self.group_of(claim.first)?).or_default().push(*claim);
        }
        for (group, claims) in by_group {
            for what in self.wrong_claims(group, &claims).await? {
                self.problem(format!("inode {at}"), what);
            }
        }
        drop(pin);
        if self.data {
            for run in runs.iter().filter(|claim| claim.kind == ChunkKind::Data) {
                self.read_data(at, run).await;
            }
        }
        if let Some(dir) = inodes.remove(&InodeNo(at.0)) {
            self.check_names(dir).await?;
        }
        Ok(())
    }

    /// Blocks that are not marked used in their group, or not for this.
    async fn wrong_claims(&self, no: GroupNo, claims: &[Claim]) -> Looked<Vec<String>> {
        let group = self.soon(self.fs.pin_group(no)).await?;
        self.soon(self.fs.settle(|| group.wrong(claims))).await
    }

    /// Every block one time: the device may have lost some that nobody has read for years.
    async fn read_data(&mut self, inode: BlockNo, run: &Claim) {
        let disk = &self.fs.env.disk;
        let end = run.first.0 + run.blocks;
        let mut at = run.first.0;
        while at < end {
            let blocks = DATA_AT_ONCE.min(end - at);
            self.piece.data_blocks += blocks;
            if disk.read(BlockNo(at), as_usize(blocks)).await.is_err() {
                for at in at..at + blocks {
                    if let Err(error) = disk.read(BlockNo(at), 1).await {
                        self.piece.problems.push(Problem::new(format!("inode {inode}"), error));
                    }
                }
            }
            at += blocks;
        }
    }

    /// Does every name lead to what it says?
    async fn check_names(&mut self, dir: Found) -> Looked<()> {
        let fs = self.fs;
        for (name, file, file_type) in dir.entries {
            let expected = (file_type, (file_type == FileType::Directory).then_some(dir.file));
            match self.soon(fs.named_by(file)).await {
                Ok(Some(seen)) if seen == expected => continue,
                Ok(_) => {}
                Err(Skip::Over(error)) => return Err(Skip::Over(error)),
                // What is damaged there is told where that is.
                Err(Skip::Missed) => {
                    self.piece.skipped += 1;
                    continue;
                }
            }
            // It may have changed since the directory was read.
            match self.soon(fs.still_names(dir.file, &name, (file, file_type))).await {
                Ok(None) => {}
                Ok(Some(now)) if now == Some(expected) => {}
                Ok(Some(now)) => {
                    let shown = String::from_utf8_lossy(&name);
                    let what = match now {
                        None => "leads to no file",
                        Some((found, _)) if found != file_type => "has the wrong type",
                        Some(_) => "leads to a directory of another one",
                    };
                    let object = format!("directory {}", dir.file.inode);
                    self.problem(object, format!("entry {shown:?} {what}"));
                }
                Err(Skip::Over(error)) => return Err(Skip::Over(error)),
                Err(Skip::Missed) => self.piece.skipped += 1,
            }
        }
        Ok(())
    }

    fn group_of(&self, at: BlockNo) -> Looked<GroupNo> {
        self.sb.layout.group_of(at).ok_or(Skip::Missed)
    }

    async fn pin(&self, entry: &Arc<Entry>, want: Want) -> Looked<Pin> {
        self.soon(async { Ok(entry.pin(want).await?) }).await
    }

    async fn soon<T>(&self, work: impl Future<Output = Result<T, FsError>>) -> Looked<T> {
        match select(pin!(work), self.fs.env.runtime.sleep(PATIENCE)).await {
            Either::Left((done, _)) => Ok(done?),
            Either::Right(((), _)) => Err(Skip::Missed),
        }
    }

    /// The device, with what of an object is not in place yet.
    fn overlay(&self, set: &BlockSet) -> Overlay {
        let overlay = Overlay::new(Arc::clone(&self.fs.env.disk));
        for cached in set.dirty() {
            let mut block = cached.data().to_boxed();
            header::seal(&mut block, self.fs.journal.writer());
            overlay.put(cached.number, block);
        }
        overlay
    }
}

/// What a name says of the file that it leads to: its type, and of a directory where it is.
type Named = (FileType, Option<FileId>);

impl Fs {
    /// What has to be said of a file; `None` when there is none.
    async fn named_by(&self, file: FileId) -> Result<Option<Named>, FsError> {
        let inode = match self.inode(file.inode) {
            Err(FsError::Stale) => return Ok(None),
            inode => inode?,
        };
        let _pin = inode.entry.pin(Want::read()).await?;
        self.named_pinned(&inode, file).await
    }

    async fn named_pinned(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
    ) -> Result<Option<Named>, FsError> {
        let named = self.settle(|| {
            inode.with_file(file, |state| {
                let (file_type, parent) = (state.core().file_type(), state.core().parent());
                Ok((file_type, (file_type == FileType::Directory).then_some(parent)))
            })
        });
        match named.await {
            Err(FsError::Stale) => Ok(None),
            named => named.map(Some),
        }
    }

    /// As [`Fs::named_by`], if the name leads there still, at one moment.
    async fn still_names(
        &self,
        dir: FileId,
        name: &[u8],
        to: (FileId, FileType),
    ) -> Result<Option<Option<Named>>, FsError> {
        let (pinned, found) = match self.pin_places(&[At { dir, name }], &[], Want::read()).await {
            // The directory is gone.
            Err(FsError::Stale) => return Ok(None),
            pinned => pinned?,
        };
        let is_there = found.iter().flatten().any(|entry| (entry.file, entry.file_type) == to);
        if !is_there {
            return Ok(None);
        }
        Ok(Some(self.named_pinned(pinned.inode(to.0.inode), to.0).await?))
    }
}

impl PinnedGroup {
    /// What is used, and not marked so, or in a chunk of another kind.
    fn wrong(&self, claims: &[Claim]) -> Step<Vec<String>> {
        let group = &self.group;
        let geometry = &group.geometry;
        let tx = Transaction::new(FsId::default());
        let mut wrong = Vec::new();
        for claim in claims {
            let from = geometry.index(claim.first);
            for index in from..(from + claim.blocks).min(geometry.blocks) {
                let at = geometry.first.plus(index);
                if index == from || index.is_multiple_of(geometry.chunk_blocks) {
                    let kind = group.chunk(&tx, index / geometry.chunk_blocks)?.chunk_kind();
                    if !fits(claim.kind, kind) {
                        let used = claim.kind;
                        wrong.push(format!("uses block {at} as {used:?}, its chunk is {kind:?}"));
                    }
                }
                let (number, bit) = geometry.bit(index);
                let bitmap = group.bitmap_block(number)?.data();
                if !bits::get(&bitmap.get::<BitmapBlock>().bits, bit) {
                    wrong.push(format!("uses block {at}, which is marked free"));
                }
            }
        }
        Ok(wrong)
    }
}
