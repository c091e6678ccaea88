//! A shared block device with a volatile cache, seen through ports that can be cut off.
//!
//! A write becomes visible when it completes and durable when it completes (if it was asked to be)
//! or with the next flush that began behind it. What a crash leaves of everything else is drawn:
//! each block whole, not at all, or torn between sectors. A write whose owner has died may land
//! later ([`Device::settle_late`]). Everything that happened is kept as a log, so that the image
//! after a crash at any moment can be made from one run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use mfs::block::{BLOCK_SIZE, Block, BlockNo, SharedBlock};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use model::Random;
use mx_base::{BoxFuture, Duration};
use parking_lot::Mutex;

use crate::exec::Executor;

const SECTOR: usize = 512;

/// Contents of a device; blocks that are not listed are zero.
pub type Image = BTreeMap<BlockNo, SharedBlock>;

/// What happened on a device, in order.
#[derive(Clone, Debug)]
pub enum Event {
    Issued {
        id: u64,
        at: BlockNo,
        data: Vec<SharedBlock>,
        durable: bool,
    },
    Written {
        id: u64,
    },
    FlushBegan {
        id: u64,
    },
    Flushed {
        id: u64,
    },
    /// The medium changed by itself.
    Flipped {
        at: BlockNo,
        bit: usize,
    },
}

impl Event {
    fn renumbered(&self, number: impl Fn(u64) -> u64) -> Event {
        let mut event = self.clone();
        match &mut event {
            Event::Issued { id, .. }
            | Event::Written { id }
            | Event::FlushBegan { id }
            | Event::Flushed { id } => *id = number(*id),
            Event::Flipped { .. } => {}
        }
        event
    }
}

/// How the device misbehaves.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Blocks that cannot be read.
    pub unreadable: BTreeSet<BlockNo>,
    /// Blocks that cannot be written.
    pub unwritable: BTreeSet<BlockNo>,
}

/// Requests of a device so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
}

/// A device. Clones are the same device.
#[derive(Clone)]
pub struct Device(Arc<Mutex<State>>);

struct State {
    blocks: u64,
    base: Image,
    /// What reads see: completed writes over the base.
    visible: Image,
    log: Vec<Event>,
    next_id: u64,
    /// Requests with smaller numbers are forgotten.
    first_id: u64,
    faults: Faults,
    /// Runs of blocks that cannot be read whatever is written to them.
    lost: Vec<Range<u64>>,
    counts: Counts,
    /// Shortest and longest time of a request, in microseconds.
    latency: (u64, u64),
}

impl Device {
    /// A device of `blocks` blocks that holds `base`.
    pub fn new(blocks: u64, base: Image) -> Device {
        Device(Arc::new(Mutex::new(State {
            blocks,
            visible: base.clone(),
            base,
            log: Vec::new(),
            next_id: 0,
            first_id: 0,
            faults: Faults::default(),
            lost: Vec::new(),
            counts: Counts::default(),
            latency: (20, 400),
        })))
    }

    pub fn blocks(&self) -> u64 {
        self.0.lock().blocks
    }

    /// Events so far.
    pub fn log_len(&self) -> usize {
        self.0.lock().log.len()
    }

    pub fn log(&self) -> Vec<Event> {
        self.0.lock().log.clone()
    }

    pub fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// A block cannot be read any more, until it is written.
    pub fn damage(&self, at: BlockNo) {
        self.0.lock().faults.unreadable.insert(at);
    }

    /// Blocks that cannot be read any more, until [`Device::mend`].
    pub fn lose(&self, at: BlockNo, count: u64) {
        self.0.lock().lost.push(at.0..at.0 + count);
    }

    /// What was lost can be read again.
    pub fn mend(&self) {
        self.0.lock().lost.clear();
    }

    pub fn is_readable(&self, at: BlockNo) -> bool {
        !self.0.lock().faults.unreadable.contains(&at)
    }

    pub fn visible_block(&self, at: BlockNo) -> Option<SharedBlock> {
        self.0.lock().visible.get(&at).cloned()
    }

    /// The block is what it was meant to be again.
    pub fn put_right(&self, at: BlockNo, block: SharedBlock) {
        self.0.lock().visible.insert(at, block);
    }

    /// A bit changes on the medium. Returns the contents before and after.
    pub fn flip(&self, at: BlockNo, bit: usize) -> (SharedBlock, SharedBlock) {
        let mut state = self.0.lock();
        let before = state.visible.get(&at).cloned().unwrap_or_else(|| Block::zeroed().into());
        let after = flipped(&before, bit);
        state.visible.insert(at, after.clone());
        state.log.push(Event::Flipped { at, bit });
        (before, after)
    }

    /// What reads see now.
    pub fn visible(&self) -> Image {
        self.0.lock().visible.clone()
    }

    /// The device begins anew, with these contents.
    pub fn set_contents(&self, image: Image) {
        let mut state = self.0.lock();
        state.visible = image.clone();
        state.base = image;
        state.log.clear();
        state.first_id = state.next_id + 1;
    }

    pub fn base(&self) -> Image {
        self.0.lock().base.clone()
    }

    /// A way to the device for one node.
    pub fn port(&self, exec: &Executor) -> Arc<Port> {
        Arc::new(Port { device: self.clone(), exec: exec.clone(), gate: Mutex::new(true) })
    }

    /// What reads see now.
    ///
    /// # Errors
    /// For blocks beyond the end, and injected faults.
    pub fn read_now(&self, at: BlockNo, count: usize) -> Result<Box<[Block]>, DiskError> {
        let mut state = self.0.lock();
        state.check(at, count)?;
        state.counts.reads += 1;
        if state.failing(&state.faults.unreadable, at, count) || state.is_lost(at, count) {
            return Err(failed("read", at, count));
        }
        let mut blocks = Block::zeroed_many(count);
        for (number, block) in state.visible.range(at..at.plus(count as u64)) {
            let i = usize::try_from(number.0 - at.0).expect("in the range");
            blocks[i] = Block::clone(block);
        }
        Ok(blocks)
    }

    /// The device takes a write; until [`Device::end_write`] it is in doubt.
    ///
    /// # Errors
    /// For blocks beyond the end, and injected faults.
    pub fn begin_write(
        &self,
        at: BlockNo,
        data: &[SharedBlock],
        durability: Durability,
    ) -> Result<u64, DiskError> {
        let mut state = self.0.lock();
        state.check(at, data.len())?;
        if state.failing(&state.faults.unwritable, at, data.len()) {
            return Err(failed("write", at, data.len()));
        }
        state.counts.writes += 1;
        let id = state.id();
        let durable = durability == Durability::Durable;
        state.log.push(Event::Issued { id, at, data: data.to_vec(), durable });
        Ok(id)
    }

    pub fn end_write(&self, id: u64, at: BlockNo, data: Vec<SharedBlock>) {
        let mut state = self.0.lock();
        if id < state.first_id {
            return;
        }
        for (i, block) in data.into_iter().enumerate() {
            // A sector that is written is put elsewhere.
            state.faults.unreadable.remove(&at.plus(i as u64));
            state.visible.insert(at.plus(i as u64), block);
        }
        state.log.push(Event::Written { id });
    }

    /// Blocks of a run that hold something, as runs of zeros to be put there: what is discarded is
    /// gone, and zero is nothing that the file system takes for something.
    pub fn zeros_for(&self, at: BlockNo, count: u64) -> Vec<(BlockNo, Vec<SharedBlock>)> {
        let zero: SharedBlock = Block::zeroed().into();
        let mut runs: Vec<(BlockNo, Vec<SharedBlock>)> = Vec::new();
        for (number, _) in self.0.lock().visible.range(at..at.plus(count)) {
            match runs.last_mut() {
                Some((first, run)) if first.0 + run.len() as u64 == number.0 => {
                    run.push(zero.clone());
                }
                Some(_) | None => runs.push((*number, vec![zero.clone()])),
            }
        }
        runs
    }

    pub fn begin_flush(&self) -> u64 {
        let mut state = self.0.lock();
        state.counts.flushes += 1;
        let id = state.id();
        state.log.push(Event::FlushBegan { id });
        id
    }

    pub fn end_flush(&self, id: u64) {
        let mut state = self.0.lock();
        if id >= state.first_id {
            state.log.push(Event::Flushed { id });
        }
    }

    fn delay(&self, exec: &Executor) -> Duration {
        let (min, max) = self.0.lock().latency;
        Duration::from_micros(min + exec.draw(|r| r.below(max - min + 1)))
    }
}

impl State {
    fn check(&self, at: BlockNo, count: usize) -> Result<(), DiskError> {
        if at.0.checked_add(count as u64).is_none_or(|end| end > self.blocks) {
            return Err(DiskError::BeyondEnd { at, end: self.blocks });
        }
        Ok(())
    }

    fn failing(&self, bad: &BTreeSet<BlockNo>, at: BlockNo, count: usize) -> bool {
        bad.range(at..at.plus(count as u64)).next().is_some()
    }

    fn is_lost(&self, at: BlockNo, count: usize) -> bool {
        let end = at.0 + count as u64;
        self.lost.iter().any(|run| run.start < end && at.0 < run.end)
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// One node's way to a device.
pub struct Port {
    device: Device,
    exec: Executor,
    /// Open until the node is fenced.
    gate: Mutex<bool>,
}

impl Port {
    /// The device refuses this node from now on.
    pub fn fence(&self) {
        *self.gate.lock() = false;
    }

    fn check_gate(&self) -> Result<(), DiskError> {
        if *self.gate.lock() { Ok(()) } else { Err(DiskError::Fenced) }
    }
}

fn flipped(block: &SharedBlock, bit: usize) -> SharedBlock {
    let mut copy = block.to_boxed();
    copy.0[bit / 8 % BLOCK_SIZE] ^= 1 << (bit % 8);
    copy.into()
}

fn failed(operation: &'static str, at: BlockNo, blocks: usize) -> DiskError {
    let reason = "injected fault".to_owned();
    DiskError::Failed { operation, at, blocks: blocks as u64, reason }
}

impl Disk for Port {
    fn blocks(&self) -> u64 {
        self.device.blocks()
    }

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
        let (device, exec, gate) = (self.device.clone(), self.exec.clone(), self.check_gate());
        let delay = device.delay(&exec);
        Box::pin(async move {
            gate?;
            device.0.lock().check(at, count)?;
            exec.sleep(delay).await;
            device.read_now(at, count)
        })
    }

    fn write(
        &self,
        at: BlockNo,
        data: WriteData,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        let (device, exec) = (self.device.clone(), self.exec.clone());
        let delay = device.delay(&exec);
        let data: Vec<SharedBlock> =
            data.iter().map(|block| Box::new(block.clone()).into()).collect();
        // Issued when it is asked for, not when it is first awaited, as with a real queue.
        let issued = self.check_gate().and_then(|()| device.begin_write(at, &data, durability));
        Box::pin(async move {
            let id = issued?;
            exec.sleep(delay).await;
            device.end_write(id, at, data);
            Ok(())
        })
    }

    fn discard(&self, at: BlockNo, count: u64) -> BoxFuture<'static, Result<bool, DiskError>> {
        let (device, exec, gate) = (self.device.clone(), self.exec.clone(), self.check_gate());
        let delay = device.delay(&exec);
        Box::pin(async move {
            gate?;
            for (at, zeros) in device.zeros_for(at, count) {
                let id = device.begin_write(at, &zeros, Durability::Volatile)?;
                exec.sleep(delay).await;
                device.end_write(id, at, zeros);
            }
            Ok(true)
        })
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        let (device, exec) = (self.device.clone(), self.exec.clone());
        let delay = device.delay(&exec);
        let began = self.check_gate().map(|()| device.begin_flush());
        Box::pin(async move {
            let id = began?;
            exec.sleep(delay).await;
            device.end_flush(id);
            Ok(())
        })
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port(..)")
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// The image of a device as its log goes on, with what is still in doubt.
#[derive(Clone, Debug)]
pub struct Replayer {
    durable: Image,
    /// Writes that are not durable: by id, in the order in which they were issued.
    doubtful: BTreeMap<u64, Doubtful>,
    /// For every flush under way, the writes that it will make durable.
    flushes: BTreeMap<u64, Vec<u64>>,
    /// The write that each block in `durable` is from: nothing of an earlier one comes back.
    settled: BTreeMap<BlockNo, u64>,
}

#[derive(Clone, Debug)]
struct Doubtful {
    at: BlockNo,
    data: Vec<SharedBlock>,
    durable: bool,
    completed: bool,
}

impl Replayer {
    pub fn new(base: Image) -> Replayer {
        Replayer {
            durable: base,
            doubtful: BTreeMap::new(),
            flushes: BTreeMap::new(),
            settled: BTreeMap::new(),
        }
    }

    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Issued { id, at, data, durable } => {
                let doubtful =
                    Doubtful { at: *at, data: data.clone(), durable: *durable, completed: false };
                self.doubtful.insert(*id, doubtful);
            }
            Event::Written { id } => {
                let write = self.doubtful.get_mut(id).expect("issued before");
                write.completed = true;
                if write.durable {
                    self.settle(*id);
                }
            }
            Event::FlushBegan { id } => {
                let completed =
                    self.doubtful.iter().filter(|(_, w)| w.completed).map(|(id, _)| *id);
                self.flushes.insert(*id, completed.collect());
            }
            Event::Flipped { at, bit } => {
                let before = self.durable.get(at).cloned();
                let before = before.unwrap_or_else(|| Block::zeroed().into());
                self.durable.insert(*at, flipped(&before, *bit));
            }
            Event::Flushed { id } => {
                for write in self.flushes.remove(id).expect("began before") {
                    self.settle(write);
                }
            }
        }
    }

    fn settle(&mut self, id: u64) {
        if let Some(write) = self.doubtful.remove(&id) {
            for (i, block) in write.data.into_iter().enumerate() {
                let at = write.at.plus(i as u64);
                if !self.is_superseded(at, id) {
                    self.settled.insert(at, id);
                    self.durable.insert(at, block);
                }
            }
        }
    }

    /// Is a later write of the block durable than this one?
    fn is_superseded(&self, at: BlockNo, id: u64) -> bool {
        self.settled.get(&at).is_some_and(|settled| *settled > id)
    }

    /// The node dies and the device does not: what was under way completes. Returns what reads see.
    pub fn complete(&mut self) -> Image {
        let mut visible = self.durable.clone();
        for (id, write) in &mut self.doubtful {
            write.completed = true;
            for (i, block) in write.data.iter().enumerate() {
                let at = write.at.plus(i as u64);
                if self.settled.get(&at).is_none_or(|settled| settled < id) {
                    visible.insert(at, block.clone());
                }
            }
        }
        let durable = self.doubtful.iter().filter(|(_, write)| write.durable);
        for id in durable.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.settle(id);
        }
        visible
    }

    /// As [`Replayer::apply`], for the log of a device that goes on with what this one showed.
    pub fn apply_behind(&mut self, event: &Event) {
        self.apply(&event.renumbered(|id| id + (1 << 32)));
    }

    /// Is anything in doubt now?
    pub fn is_certain(&self) -> bool {
        self.doubtful.is_empty()
    }

    /// What a loss of power leaves: of every doubtful block, drawn, the new contents, the old ones,
    /// or a mixture of sectors.
    pub fn crash(&self, random: &mut Random) -> Image {
        let mut image = self.durable.clone();
        // Sometimes a controller loses everything, sometimes nothing.
        let kept = random.pick(&[0, 10, 50, 50, 90, 100]);
        for (id, write) in &self.doubtful {
            for (i, block) in write.data.iter().enumerate() {
                let at = write.at.plus(i as u64);
                if self.is_superseded(at, *id) {
                    continue;
                }
                if !random.chance(kept) {
                    continue;
                }
                // A completed write sits whole in the cache; one under way may be torn.
                if write.completed || random.chance(70) {
                    image.insert(at, block.clone());
                    continue;
                }
                let mut torn = image.get(&at).map_or_else(Block::zeroed, SharedBlock::to_boxed);
                for sector in (0..BLOCK_SIZE).step_by(SECTOR) {
                    if random.chance(50) {
                        torn.0[sector..sector + SECTOR]
                            .copy_from_slice(&block.0[sector..sector + SECTOR]);
                    }
                }
                image.insert(at, torn.into());
            }
        }
        image
    }
}
