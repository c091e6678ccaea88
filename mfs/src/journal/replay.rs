//! Redoing what a dead slot's journal holds and the disk does not.
//!
//! Keeps true: a block is written only if the lock that covers it is in limbo on the dead member's
//! account (nobody else can have changed it since), and only with a newer version than is in
//! place; so replaying twice is replaying once. If a record of a transaction cannot be applied,
//! none of the locks that the transaction touched is replayed: they are reported as damaged, and
//! so on for every transaction that shares a lock with those (never half a rename). What is rebuilt
//! in the place of a block that says nothing any more may be older than what was there: its object
//! is reported as doubtful, and nobody sees it unmarked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use lcl::ResourceName;
use mx_base::FsId;
use mx_base::rules::{Rule, is_kept};

use super::record::Record;
use super::scan::Scan;
use crate::block::{Block, BlockNo};
use crate::env::{Disk, Durability, WriteData};
use crate::error::DiskError;
use crate::file::InodeNo;
use crate::locks::Resource;
use crate::ondisk::header::{self, Header, Kind, Writer};
use crate::ondisk::journal::RecordKind;

/// Blocks in flight at once.
const BATCH: usize = 256;

/// A scan set against what is in place.
pub(crate) struct Replay {
    fs_id: FsId,
    /// The dead slot: its blocks are written in its name.
    pub(crate) writer: Writer,
    disk: Arc<dyn Disk>,
    scan: Scan,
    /// The lock that covers a block after its last record.
    lock_of: BTreeMap<BlockNo, ResourceName>,
}

/// What is to be written in place for some locks.
#[derive(Default)]
pub(crate) struct Redo {
    pub(crate) changed: BTreeMap<BlockNo, Box<Block>>,
    /// By lock, those of them that have to be in place before anybody gets it: what it covers, and
    /// what it covered before it was another lock's.
    pub(crate) needs: BTreeMap<ResourceName, Vec<BlockNo>>,
    /// Locks whose objects have to be isolated before anything is written: of some transactions
    /// with them nothing is.
    pub(crate) damaged: BTreeSet<ResourceName>,
    /// The same, but all that the journal has of them is in `changed`.
    pub(crate) doubtful: BTreeSet<ResourceName>,
}

/// A block as it lies in place.
#[derive(Clone, Debug)]
enum InPlace {
    Whole(Box<Block>),
    /// Its header can be read, the rest is not what belongs to it: torn, or damaged later. A write
    /// in place is torn between sectors, so the version is that of the last write or of the one before it.
    Torn {
        version: u64,
    },
    /// Unreadable, or not even a header: nobody knows who wrote it last.
    Unknown,
}

impl InPlace {
    /// Is all that the records do in place, or was it before somebody else had the block, who has
    /// written a later version? One that is torn in such a version is not this journal's to mend.
    fn is_beyond(&self, chain: &[&Record]) -> bool {
        let newest = chain.iter().map(|record| record.new_version).max().expect("a record");
        match self {
            InPlace::Whole(block) => Header::of(block).version() >= newest,
            InPlace::Torn { version } => *version > newest,
            InPlace::Unknown => false,
        }
    }
}

impl Replay {
    pub(crate) fn new(disk: Arc<dyn Disk>, fs_id: FsId, writer: Writer, scan: Scan) -> Replay {
        let records = scan.transactions.iter().flat_map(|t| &t.records);
        let lock_of = records.map(|r| (r.block, r.lock)).collect();
        Replay { fs_id, writer, disk, scan, lock_of }
    }

    /// Locks with blocks that are older in place than in the journal, or had such blocks before they
    /// became another lock's: an inode that was freed must not be seen as it was before. A block that cannot be read
    /// counts: it may have been torn by the dead member's last write.
    pub(crate) async fn live(&self) -> BTreeSet<ResourceName> {
        let mut chains: BTreeMap<BlockNo, Vec<&Record>> = BTreeMap::new();
        for record in self.scan.transactions.iter().flat_map(|t| &t.records) {
            chains.entry(record.block).or_default().push(record);
        }
        let numbers: Vec<BlockNo> = chains.keys().copied().collect();
        let mut live = BTreeSet::new();
        for batch in numbers.chunks(BATCH) {
            let in_place = self.read(batch).await;
            for (number, block) in batch.iter().zip(in_place) {
                let chain = &chains[number];
                if !block.is_beyond(chain) || !is_kept(Rule::RedoOnlyNewer) {
                    live.extend(concerned(&block, chain));
                }
            }
        }
        live
    }

    /// Every lock that the journal speaks of.
    pub(crate) fn locks(&self) -> BTreeSet<ResourceName> {
        self.lock_of.values().copied().collect()
    }

    /// Adds the newest version of every block that the journal speaks of to those of others.
    pub(crate) fn add_newest(&self, newest: &mut BTreeMap<BlockNo, u64>) {
        for (block, version) in self.scan.newest() {
            let known = newest.entry(block).or_insert(version);
            *known = version.max(*known);
        }
    }

    /// The blocks covered by `limbo` as they have to be in place, those that are not. What is damaged
    /// is known for all of them before the first is written and given free: no half of a transaction
    /// is shown. A block that cannot be rebuilt is left to another journal that is replayed too, if
    /// that one has it in a later version: `newest` are the newest versions in all of them.
    pub(crate) async fn rebuild(
        &self,
        limbo: &BTreeSet<ResourceName>,
        newest: &BTreeMap<BlockNo, u64>,
    ) -> Redo {
        let mut chains: BTreeMap<BlockNo, Vec<&Record>> = BTreeMap::new();
        for record in self.scan.transactions.iter().flat_map(|t| &t.records) {
            if limbo.contains(&self.lock_of[&record.block]) {
                chains.entry(record.block).or_default().push(record);
            }
        }
        let mut changed: BTreeMap<BlockNo, Box<Block>> = BTreeMap::new();
        let mut needs: BTreeMap<ResourceName, Vec<BlockNo>> = BTreeMap::new();
        let mut broken: BTreeSet<BlockNo> = BTreeSet::new();
        let mut doubtful: BTreeSet<ResourceName> = BTreeSet::new();
        let numbers: Vec<BlockNo> = chains.keys().copied().collect();
        for batch in numbers.chunks(BATCH) {
            for (number, in_place) in batch.iter().zip(self.read(batch).await) {
                let chain = &chains[number];
                let concerned = concerned(&in_place, chain);
                let is_unknown = matches!(in_place, InPlace::Unknown);
                let is_others = is_later(newest.get(number), chain);
                match rebuild(in_place, chain) {
                    Rebuilt::Unchanged => {}
                    // Whoever had the block last was torn off in a write in place of it, which comes
                    // behind everything here.
                    Rebuilt::Broken if is_others => {}
                    Rebuilt::Changed(_) if is_others && is_unknown => {}
                    Rebuilt::Changed(block) => {
                        if is_unknown && is_kept(Rule::DoubtUnknown) {
                            tracing::error!(
                                block = number.0,
                                "rebuilt without knowing what it was"
                            );
                            doubtful.insert(self.lock_of[number]);
                        }
                        changed.insert(*number, block);
                        for lock in concerned {
                            needs.entry(lock).or_default().push(*number);
                        }
                    }
                    Rebuilt::Broken => {
                        tracing::error!(block = number.0, "journal does not reach back far enough");
                        broken.insert(*number);
                    }
                }
            }
        }
        let damaged = self.tainted(&broken, limbo);
        changed.retain(|number, _| !damaged.contains(&self.lock_of[number]));
        Redo { changed, needs, damaged, doubtful }
    }

    /// Locks that share a transaction with a broken block, directly or over others. Only those in
    /// limbo: what the others cover is in place, and may be somebody else's by now. And not over the
    /// slot, which almost every transaction changes: its counters and its list of orphans are what
    /// they are without the damaged objects.
    fn tainted(
        &self,
        broken: &BTreeSet<BlockNo>,
        limbo: &BTreeSet<ResourceName>,
    ) -> BTreeSet<ResourceName> {
        let mut tainted: BTreeSet<ResourceName> =
            broken.iter().map(|number| self.lock_of[number]).collect();
        loop {
            let before = tainted.len();
            for transaction in &self.scan.transactions {
                let locks = transaction.records.iter().map(|r| self.lock_of[&r.block]);
                let locks = locks.filter(|lock| limbo.contains(lock) && !is_slot(lock));
                if locks.clone().any(|lock| tainted.contains(&lock)) {
                    tainted.extend(locks);
                }
            }
            if tainted.len() == before {
                return tainted;
            }
        }
    }

    /// The blocks in place.
    async fn read(&self, numbers: &[BlockNo]) -> Vec<InPlace> {
        let blocks = join_all(numbers.iter().map(|number| self.disk.read(*number, 1))).await;
        let seen = numbers.iter().zip(blocks).map(|(number, read)| {
            let Some(block) = read.ok().and_then(|blocks| blocks.into_vec().pop()) else {
                return InPlace::Unknown;
            };
            match header::check(&block, self.fs_id, *number) {
                Ok(_) => InPlace::Whole(Box::new(block)),
                Err(_) => match header::of_damaged(&block, self.fs_id, *number) {
                    Some(header) if is_kept(Rule::SeeWhoTore) => {
                        InPlace::Torn { version: header.version() }
                    }
                    Some(_) => InPlace::Torn { version: 0 },
                    None => InPlace::Unknown,
                },
            }
        });
        seen.collect()
    }

    /// Writes blocks durably; returns those that cannot be written.
    ///
    /// # Errors
    /// When the device could not be flushed, or refuses this node.
    pub(crate) async fn write(
        &self,
        blocks: BTreeMap<BlockNo, Box<Block>>,
    ) -> Result<Vec<BlockNo>, DiskError> {
        let mut failed = Vec::new();
        if blocks.is_empty() {
            return Ok(failed);
        }
        let mut blocks = blocks.into_iter();
        loop {
            let batch: Vec<_> = blocks.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let writes = batch.into_iter().map(|(number, mut block)| {
                header::seal(&mut block, self.writer);
                let data = WriteData::Blocks(vec![block.into()]);
                let write = self.disk.write(number, data, Durability::Volatile);
                async move { (number, write.await) }
            });
            for (number, written) in join_all(writes).await {
                match written {
                    Ok(()) => {}
                    Err(error @ DiskError::Failed { .. }) => {
                        tracing::error!(block = number.0, %error, "not replayed");
                        failed.push(number);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.disk.flush().await?;
        Ok(failed)
    }
}

enum Rebuilt {
    Unchanged,
    Changed(Box<Block>),
    Broken,
}

/// The locks that cover a block in the course of its records, and in place.
fn concerned(in_place: &InPlace, chain: &[&Record]) -> BTreeSet<ResourceName> {
    let mut locks: BTreeSet<ResourceName> = chain.iter().map(|record| record.lock).collect();
    let InPlace::Whole(block) = in_place else { return locks };
    let header = Header::of(block);
    let was_of_inode = header.kind().is_some_and(|kind| match kind {
        Kind::Inode | Kind::ExtentNode | Kind::DirIndex | Kind::DirBucket | Kind::Xattr => true,
        Kind::Superblock
        | Kind::GroupHeader
        | Kind::Bitmap
        | Kind::ChunkTable
        | Kind::GroupMap
        | Kind::SlotHead
        | Kind::Orphans
        | Kind::Free
        | Kind::JournalHeader
        | Kind::SlotBody => false,
    });
    if was_of_inode {
        locks.insert(Resource::Inode(InodeNo(header.owner.get())).name());
    }
    locks
}

fn is_slot(lock: &ResourceName) -> bool {
    matches!(Resource::of_name(lock), Some(Resource::Slot(_)))
}

/// Has another journal a newer version of a block than this one?
fn is_later(newest: Option<&u64>, chain: &[&Record]) -> bool {
    newest.copied() > chain.last().map(|record| record.new_version)
}

/// Applies what is newer than the block in place, in order. A delta without its base leads nowhere,
/// but an image behind it does not need it: the tail moves lock by lock, so it may stand before
/// deltas that are in place already, of a block that a later write in place has torn.
fn rebuild(in_place: InPlace, chain: &[&Record]) -> Rebuilt {
    if in_place.is_beyond(chain) && is_kept(Rule::RedoOnlyNewer) {
        return Rebuilt::Unchanged;
    }
    let mut block = match in_place {
        InPlace::Whole(block) => Some(block),
        InPlace::Torn { .. } | InPlace::Unknown => None,
    };
    let mut changed = false;
    for record in chain {
        let version = block.as_ref().map(|b| Header::of(b).version());
        let is_old = version.is_some_and(|v| v >= record.new_version);
        if is_old && is_kept(Rule::RedoOnlyNewer) {
            continue;
        }
        let base = match record.kind {
            RecordKind::Image => Some(Block::zeroed()),
            RecordKind::Delta => block.take().filter(|_| version == Some(record.old_version)),
        };
        block = base.map(|mut next| {
            record.lay_over(&mut next);
            next
        });
        changed = true;
    }
    match block {
        Some(block) if changed => Rebuilt::Changed(block),
        Some(_) => Rebuilt::Unchanged,
        None => Rebuilt::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Lsn;
    use super::super::record::{
        LoggedTransaction, decode_payload, encode_record, finish_transaction,
    };
    use super::*;
    use crate::block::as_usize;
    use crate::ondisk::header::Owner;
    use crate::ondisk::journal::TRANSACTION_HEAD_SIZE;
    use mx_base::{BoxFuture, Incarnation, SlotId};
    use parking_lot::Mutex;

    const FS: FsId = FsId([7; 16]);
    const WRITER: Writer = Writer { slot: SlotId(0), incarnation: Incarnation(1) };

    /// Blocks that are not listed are zero, so that their checksums are wrong.
    #[derive(Default)]
    struct Memory(Mutex<BTreeMap<BlockNo, Block>>);

    /// This block cannot be written.
    const UNWRITABLE: BlockNo = BlockNo(66);

    impl Disk for Memory {
        fn blocks(&self) -> u64 {
            1 << 20
        }

        fn read(
            &self,
            at: BlockNo,
            count: usize,
        ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
            let mut read = Block::zeroed_many(count);
            for (number, block) in self.0.lock().range(at..at.plus(count as u64)) {
                read[as_usize(number.0 - at.0)] = block.clone();
            }
            Box::pin(std::future::ready(Ok(read)))
        }

        fn write(
            &self,
            at: BlockNo,
            data: WriteData,
            _: Durability,
        ) -> BoxFuture<'static, Result<(), DiskError>> {
            if at == UNWRITABLE {
                let reason = "it is worn out".to_owned();
                let failed = DiskError::Failed { operation: "write", at, blocks: 1, reason };
                return Box::pin(std::future::ready(Err(failed)));
            }
            for (block, number) in data.iter().zip(at.0..) {
                self.0.lock().insert(BlockNo(number), block.clone());
            }
            Box::pin(std::future::ready(Ok(())))
        }

        fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    /// As [`block`], with one sector of something else.
    fn torn(number: u64, version: u64) -> Block {
        let mut torn = block(number, version);
        header::seal(&mut torn, WRITER);
        torn.0[512..1024].fill(7);
        *torn
    }

    fn lock(inode: u64) -> ResourceName {
        Resource::Inode(InodeNo(inode)).name()
    }

    fn block(number: u64, version: u64) -> Box<Block> {
        let mut block = Block::zeroed();
        let owner = Owner::plain(number);
        *Header::of_mut(&mut block) =
            Header::new(FS, Kind::ExtentNode, BlockNo(number), owner, version);
        block.0[1000..1008].copy_from_slice(&version.to_le_bytes());
        block
    }

    /// Records of blocks: number, which is its lock too, kind, new version.
    fn transaction(lsn: u64, records: &[(u64, RecordKind, u64)]) -> LoggedTransaction {
        let mut bytes = vec![0; TRANSACTION_HEAD_SIZE];
        for (number, kind, version) in records {
            let (old, new) = (block(*number, version - 1), block(*number, *version));
            let versions = (version - 1, *version);
            encode_record(
                &mut bytes,
                &lock(*number),
                BlockNo(*number),
                *kind,
                &old,
                &new,
                versions,
            );
        }
        finish_transaction(&mut bytes, 0, Lsn(lsn), records.len());
        decode_payload(&bytes, 1).expect("just encoded").remove(0)
    }

    fn journal(disk: &Arc<Memory>, transactions: Vec<LoggedTransaction>) -> Replay {
        let scan = Scan { transactions, ..Scan::default() };
        Replay::new(Arc::clone(disk) as Arc<dyn Disk>, FS, WRITER, scan)
    }

    fn locks(inodes: &[u64]) -> BTreeSet<ResourceName> {
        inodes.iter().copied().map(lock).collect()
    }

    fn version(disk: &Memory, number: u64) -> Option<u64> {
        let blocks = disk.0.lock();
        let block = blocks.get(&BlockNo(number))?;
        Some(header::check(block, FS, BlockNo(number)).expect("whole").version())
    }

    /// What was done for some locks.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Redone {
        blocks_written: usize,
        damaged: BTreeSet<ResourceName>,
        doubtful: BTreeSet<ResourceName>,
        not_written: Vec<BlockNo>,
    }

    fn redo(
        replay: &Replay,
        limbo: &BTreeSet<ResourceName>,
        newest: &BTreeMap<BlockNo, u64>,
    ) -> Redone {
        let Redo { changed, damaged, doubtful, .. } = now(replay.rebuild(limbo, newest));
        let blocks = changed.len();
        let not_written = now(replay.write(changed)).expect("the disk works");
        Redone { blocks_written: blocks - not_written.len(), damaged, doubtful, not_written }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => unreachable!("the disk answers at once"),
        }
    }

    /// It is the group's by its record; whoever gets the inode's lock must not find the inode.
    #[test]
    fn a_freed_inode_is_free_only_when_its_block_is_in_place() {
        let disk = Arc::new(Memory::default());
        let mut inode = block(9, 4);
        Header::of_mut(&mut inode).kind = Kind::Inode as u8;
        header::seal(&mut inode, WRITER);
        disk.0.lock().insert(BlockNo(9), *inode);
        let group = Resource::Group(crate::layout::GroupNo(0)).name();
        let mut freed = transaction(1, &[(9, RecordKind::Image, 5)]);
        freed.records[0].lock = group;
        let replay = journal(&disk, vec![freed]);
        let both = BTreeSet::from([group, lock(9)]);
        assert_eq!(now(replay.live()), both);
        let redo = now(replay.rebuild(&both, &BTreeMap::new()));
        let needs: Vec<_> = redo.needs.into_iter().collect();
        assert_eq!(needs, [(group, vec![BlockNo(9)]), (lock(9), vec![BlockNo(9)])]);
    }

    /// The block was in place in version 5 when another one kept the tail before the delta that led
    /// there; then version 6 was written in place and torn.
    #[test]
    fn a_torn_block_is_rebuilt_from_an_image_behind_deltas_that_were_in_place_once() {
        let disk = Arc::new(Memory::default());
        let deltas_first = vec![
            transaction(1, &[(9, RecordKind::Delta, 5)]),
            transaction(2, &[(9, RecordKind::Image, 6)]),
        ];
        disk.0.lock().insert(BlockNo(9), torn(9, 6));
        let replay = journal(&disk, deltas_first);
        let redone = redo(&replay, &locks(&[9]), &BTreeMap::new());
        assert_eq!(redone, Redone { blocks_written: 1, ..Redone::default() });
        assert_eq!(version(&disk, 9), Some(6));
    }

    /// This journal had it in version 5 and gave it up in place; somebody else has changed it since,
    /// and then the medium was damaged. What this journal has is out of date.
    #[test]
    fn a_block_that_somebody_else_has_written_since_is_not_rebuilt_from_an_old_image() {
        let disk = Arc::new(Memory::default());
        disk.0.lock().insert(BlockNo(9), torn(9, 7));
        let replay = journal(&disk, vec![transaction(1, &[(9, RecordKind::Image, 5)])]);
        assert_eq!(now(replay.live()), BTreeSet::new());
        let redone = redo(&replay, &locks(&[9]), &BTreeMap::new());
        assert_eq!(redone, Redone::default());
        assert_eq!(disk.0.lock().get(&BlockNo(9)).map(|b| Header::of(b).version()), Some(7));
    }

    /// Nobody can say whether the image is the newest that there was.
    #[test]
    fn what_replaces_a_block_that_says_nothing_any_more_is_doubtful() {
        let disk = Arc::new(Memory::default());
        disk.0.lock().insert(BlockNo(9), *Block::zeroed());
        let both = [(9, RecordKind::Image, 5), (8, RecordKind::Image, 2)];
        disk.0.lock().insert(BlockNo(8), torn(8, 1));
        let replay = journal(&disk, vec![transaction(1, &both)]);
        assert_eq!(now(replay.live()), locks(&[8, 9]));
        let redone = redo(&replay, &locks(&[8, 9]), &BTreeMap::new());
        let expected = Redone { blocks_written: 2, doubtful: locks(&[9]), ..Redone::default() };
        assert_eq!(redone, expected);
        assert_eq!((version(&disk, 9), version(&disk, 8)), (Some(5), Some(2)));
    }

    #[test]
    fn a_delta_without_its_base_and_without_an_image_behind_it_isolates() {
        let disk = Arc::new(Memory::default());
        disk.0.lock().insert(BlockNo(9), *block(9, 3));
        let replay = journal(&disk, vec![transaction(1, &[(9, RecordKind::Delta, 5)])]);
        let redone = redo(&replay, &locks(&[9]), &BTreeMap::new());
        assert_eq!(redone, Redone { damaged: locks(&[9]), ..Redone::default() });
    }

    /// All nodes went down; the one that had the block last was writing it in place.
    #[test]
    fn a_block_that_a_later_holder_has_torn_is_rebuilt_from_the_journal_of_that_one() {
        let disk = Arc::new(Memory::default());
        disk.0.lock().insert(BlockNo(9), torn(9, 4));
        disk.0.lock().insert(BlockNo(8), torn(8, 1));
        let both = [(9, RecordKind::Delta, 5), (8, RecordKind::Image, 2)];
        let first = journal(&disk, vec![transaction(1, &both)]);
        let second = journal(&disk, vec![transaction(1, &[(9, RecordKind::Image, 6)])]);
        let mut newest = BTreeMap::new();
        first.add_newest(&mut newest);
        second.add_newest(&mut newest);
        for replay in [first, second] {
            let redone = redo(&replay, &replay.locks(), &newest);
            assert_eq!(redone, Redone { blocks_written: 1, ..Redone::default() });
        }
        assert_eq!((version(&disk, 9), version(&disk, 8)), (Some(6), Some(2)));
    }

    /// What is not in limbo is in place, and somebody else may be changing it.
    #[test]
    fn only_what_is_in_limbo_is_isolated_with_a_broken_block() {
        let disk = Arc::new(Memory::default());
        let together =
            [(9, RecordKind::Delta, 5), (8, RecordKind::Image, 2), (7, RecordKind::Image, 2)];
        let replay = journal(&disk, vec![transaction(1, &together)]);
        let redone = redo(&replay, &locks(&[9, 8]), &BTreeMap::new());
        assert_eq!(redone.damaged, locks(&[9, 8]));
    }

    /// Its counters are in nearly every transaction.
    #[test]
    fn a_broken_block_isolates_nothing_over_the_slot() {
        let disk = Arc::new(Memory::default());
        let slot = |lsn, with: &[(u64, RecordKind, u64)]| {
            let mut transaction = transaction(lsn, with);
            transaction.records.last_mut().expect("two").lock = Resource::Slot(SlotId(0)).name();
            transaction
        };
        for (number, version) in [(9, 3), (8, 1), (5, 1)] {
            disk.0.lock().insert(BlockNo(number), torn(number, version));
        }
        let first = slot(1, &[(9, RecordKind::Delta, 5), (5, RecordKind::Image, 2)]);
        let second = slot(2, &[(8, RecordKind::Image, 2), (5, RecordKind::Image, 3)]);
        let replay = journal(&disk, vec![first, second]);
        let redone = redo(&replay, &replay.locks(), &BTreeMap::new());
        assert_eq!(redone, Redone { blocks_written: 2, damaged: locks(&[9]), ..Redone::default() });
        assert_eq!((version(&disk, 8), version(&disk, 5)), (Some(2), Some(3)));
    }

    #[test]
    fn what_cannot_be_written_stays_in_limbo_and_the_rest_is_replayed() {
        let disk = Arc::new(Memory::default());
        let worn_out = UNWRITABLE.0;
        for number in [worn_out, 9] {
            disk.0.lock().insert(BlockNo(number), torn(number, 1));
        }
        let both = [(worn_out, RecordKind::Image, 2), (9, RecordKind::Image, 2)];
        let replay = journal(&disk, vec![transaction(1, &both)]);
        let redone = redo(&replay, &replay.locks(), &BTreeMap::new());
        let expected =
            Redone { blocks_written: 1, not_written: vec![UNWRITABLE], ..Redone::default() };
        assert_eq!(redone, expected);
        assert_eq!(version(&disk, 9), Some(2));
    }
}
