//! The simulated arbiter: the only way to the shared device, with a key for every life of a node.
//!
//! Keeps true:
//! * a write of a life that was fenced before it began to be executed never reaches the device;
//! * a fence is answered only when no write of its victim is being executed.
//!
//! Shows what passes here to the oracles of what is written: [`Judge`].
//!
//! What a node has sent goes on without it: after a crash, what had not arrived is lost or not, as
//! drawn, and what had arrived is executed. Writes may be held on their way and arrive long after
//! the death of who sent them, be executed for ever so long, and be slow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use fencing::gate::{Gate, Refused};
use fencing::register::IoFailed;
use fencing::{Answer, Block, Closed, DeviceId, FenceAgent, FenceRequest, MpBlock};
use futures_channel::oneshot;
use mfs::block::{BlockNo, SharedBlock};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mfs::layout::Layout;
use mfs::ondisk::header::Header;
use mx_base::{BoxFuture, Duration, FsId, Incarnation, Member, NodeId};
use parking_lot::Mutex;

use super::clock::HostClock;
use super::oracle::Oracle;
use super::oracle::judge::Judge;
use super::plan::Weather;
use super::{Fleet, LifeId, WORLD};
use crate::disk::Device;
use crate::exec::Executor;

/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// The arbiter. Clones are the same one.
#[derive(Clone)]
pub struct Arbiter {
    pub exec: Executor,
    pub device: Device,
    pub oracle: Oracle,
    pub weather: Weather,
    layout: Layout,
    judge: Arc<Judge>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The newest life of each node that was registered.
    newest: BTreeMap<NodeId, Incarnation>,
    /// Lives up to these are fenced.
    fenced: BTreeMap<NodeId, Incarnation>,
    executing: BTreeMap<Member, u64>,
    /// Nodes whose way to the arbiter is blocked: their requests wait.
    cut: BTreeSet<NodeId>,
    /// Nodes whose requests take longer on their way, by up to so much.
    slow: BTreeMap<NodeId, Duration>,
    /// Nodes whose writes, once executed, do not end.
    stuck: BTreeSet<NodeId>,
    /// Lives whose writes are held on their way while they live, and arrive up to so late.
    held: BTreeMap<LifeId, Duration>,
    /// Blocks that each life has asked for, those of the membership partition not among them.
    reads: BTreeMap<LifeId, u64>,
    /// Processes that are there no more.
    dead: BTreeSet<LifeId>,
    refused: u64,
    /// Writes that arrived after the process that sent them was gone.
    late: u64,
}

impl Arbiter {
    pub fn new(
        exec: &Executor,
        device: Device,
        oracle: Oracle,
        weather: Weather,
        place: (usize, FsId, Layout),
    ) -> Arbiter {
        let (exec, layout) = (exec.clone(), place.2);
        let judge = Arc::new(Judge::new(&oracle, &device, place));
        Arbiter { exec, device, oracle, weather, layout, judge, state: Arc::default() }
    }

    /// Whom writes are held against.
    pub(super) fn watch(&self, fleet: &Fleet) {
        self.judge.watch(fleet);
    }

    /// The medium changes one bit: what lay there, and what lies there now.
    pub(super) fn flip(&self, at: BlockNo, bit: usize) -> (SharedBlock, SharedBlock) {
        let (before, after) = self.device.flip(at, bit);
        self.judge.flipped(at, before.clone());
        (before, after)
    }

    /// The device has other contents than what was written to it.
    pub(super) fn power_failed(&self) {
        self.judge.power_failed();
    }

    fn is_fenced(&self, key: Member) -> bool {
        let state = self.state.lock();
        state.fenced.get(&key.node).is_some_and(|up_to| key.incarnation <= *up_to)
    }

    /// Blocks of the file system that a life has read so far.
    pub fn reads(&self, life: LifeId) -> u64 {
        self.state.lock().reads.get(&life).copied().unwrap_or(0)
    }

    /// Writes of fenced lives that were refused so far.
    pub fn refused(&self) -> u64 {
        self.state.lock().refused
    }

    pub(super) fn judge(&self) -> &Judge {
        &self.judge
    }

    pub fn cut(&self, node: NodeId) {
        self.state.lock().cut.insert(node);
    }

    /// Whatever is wrong with the ways of all nodes ends.
    pub fn heal(&self) {
        let state = &mut *self.state.lock();
        state.cut.clear();
        state.slow.clear();
        state.stuck.clear();
    }

    pub fn reconnect(&self, node: NodeId) {
        self.state.lock().cut.remove(&node);
    }

    /// Requests of a node take up to so much longer; zero for no longer.
    pub fn slow(&self, node: NodeId, extra: Duration) {
        match extra {
            Duration::ZERO => drop(self.state.lock().slow.remove(&node)),
            _ => drop(self.state.lock().slow.insert(node, extra)),
        }
    }

    pub fn stick(&self, node: NodeId, is_stuck: bool) {
        let state = &mut *self.state.lock();
        match is_stuck {
            true => drop(state.stuck.insert(node)),
            false => drop(state.stuck.remove(&node)),
        }
    }

    /// Writes of a life do not arrive while it lives; when it has died, each arrives within `late`.
    pub fn hold(&self, life: LifeId, late: Duration) {
        self.state.lock().held.insert(life, late);
    }

    /// Writes that arrived after the process that sent them was gone.
    pub fn late(&self) -> u64 {
        self.state.lock().late
    }

    pub fn process_died(&self, life: LifeId) {
        self.state.lock().dead.insert(life);
    }

    /// A number for a new life of `node`, above all before. Former lives are fenced first (R5).
    pub async fn register(&self, node: NodeId) -> Member {
        self.travel(node).await;
        let incarnation = {
            let mut state = self.state.lock();
            let newest = state.newest.entry(node).or_insert(Incarnation(0));
            *newest = Incarnation(newest.0 + 1 + self.exec.draw(|r| u32::from(r.chance(20))));
            *newest
        };
        if incarnation.0 > 1 {
            self.fence(node, Incarnation(incarnation.0 - 1)).await;
        }
        Member { node, incarnation }
    }

    /// The life that another arbiter has registered is known here too; former ones are fenced.
    pub async fn let_in(&self, life: Member) {
        self.travel(life.node).await;
        self.state.lock().newest.insert(life.node, life.incarnation);
        if life.incarnation.0 > 1 {
            self.fence(life.node, Incarnation(life.incarnation.0 - 1)).await;
        }
    }

    fn delay(&self) -> Duration {
        let longest = self.weather.storage_delay;
        Duration::from_micros(10 + self.exec.draw(|r| r.below(longest)))
    }

    /// On the way there or back.
    async fn travel(&self, node: NodeId) {
        let delay = self.delay() + self.slowness(node);
        self.exec.sleep(delay).await;
        while self.state.lock().cut.contains(&node) {
            self.exec.sleep(LOOK_AGAIN * 50).await;
        }
    }

    /// Most of what is slow is a little slow.
    fn slowness(&self, node: NodeId) -> Duration {
        let Some(extra) = self.state.lock().slow.get(&node).copied() else { return Duration::ZERO };
        let most = u64::try_from(extra.as_micros()).expect("short").max(20);
        let most = if self.exec.draw(|r| r.chance(85)) { most / 20 } else { most };
        Duration::from_micros(self.exec.draw(|r| r.below(most.max(1))))
    }

    /// Where writes of a life are held: until it has died, and some more.
    async fn wait_on_the_way(&self, life: LifeId) {
        if !self.state.lock().held.contains_key(&life) {
            return;
        }
        while !self.state.lock().dead.contains(&life) {
            self.exec.sleep(LOOK_AGAIN).await;
        }
        let late = self.state.lock().held.get(&life).copied().unwrap_or_default();
        let late = u64::try_from(late.as_micros()).expect("short");
        let late = Duration::from_micros(self.exec.draw(|r| r.below(late.max(1))));
        self.exec.sleep(late).await;
        self.state.lock().late += 1;
    }

    /// Lost with the process that sent it?
    fn is_lost(&self, life: LifeId) -> bool {
        self.state.lock().dead.contains(&life) && self.exec.draw(|r| r.chance(50))
    }

    async fn fence(&self, node: NodeId, up_to: Incarnation) {
        tracing::info!(column = node.get(), up_to = up_to.0, "fenced");
        {
            let mut state = self.state.lock();
            let fenced = state.fenced.entry(node).or_insert(up_to);
            *fenced = up_to.max(*fenced);
        }
        self.oracle.fenced(node, up_to);
        let is_victim = |member: &Member| member.node == node && member.incarnation <= up_to;
        loop {
            let busy = self.state.lock().executing.keys().any(is_victim);
            if !busy {
                break;
            }
            self.exec.sleep(LOOK_AGAIN).await;
        }
        tracing::info!(column = node.get(), up_to = up_to.0, "fence answered");
    }

    /// Executes a write. `None`: it was lost with its sender.
    async fn write(
        &self,
        from: LifeId,
        key: Member,
        at: BlockNo,
        data: Vec<SharedBlock>,
        durability: Durability,
    ) -> Option<Result<(), DiskError>> {
        self.travel(key.node).await;
        self.wait_on_the_way(from).await;
        if self.is_lost(from) {
            return None;
        }
        for (block, number) in data.iter().zip(at.0..) {
            let kind = Header::of(block).kind();
            tracing::trace!(%key, number, ?kind, ?durability, "write");
        }
        {
            let mut state = self.state.lock();
            if state.fenced.get(&key.node).is_some_and(|up_to| key.incarnation <= *up_to) {
                state.refused += 1;
                tracing::info!(column = key.node.get(), block = at.0, "write refused");
                return Some(Err(DiskError::Fenced));
            }
            *state.executing.entry(key).or_default() += 1;
        }
        self.judge.begins(key, at, &data);
        let written = match self.device.begin_write(at, &data, durability) {
            Ok(id) => {
                let delay = self.delay();
                self.exec.sleep(delay).await;
                while self.state.lock().stuck.contains(&key.node) {
                    self.exec.sleep(LOOK_AGAIN * 5).await;
                }
                self.device.end_write(id, at, data.clone());
                Ok(())
            }
            Err(error) => Err(error),
        };
        self.judge.ended(key, at, &data, durability);
        {
            let mut state = self.state.lock();
            let executing = state.executing.get_mut(&key).expect("counted above");
            *executing -= 1;
            if *executing == 0 {
                state.executing.remove(&key);
            }
        }
        self.travel(key.node).await;
        Some(written)
    }

    /// Executes a discard, as the writes that it is. `None`: it was lost with its sender.
    async fn discard(
        &self,
        from: LifeId,
        key: Member,
        at: BlockNo,
        count: u64,
    ) -> Option<Result<(), DiskError>> {
        for (at, zeros) in self.device.zeros_for(at, count) {
            let written = self.write(from, key, at, zeros, Durability::Volatile).await?;
            if written.is_err() {
                return Some(written);
            }
        }
        Some(Ok(()))
    }

    async fn read(
        &self,
        key: Member,
        at: BlockNo,
        count: usize,
    ) -> Result<Box<[mfs::block::Block]>, DiskError> {
        self.travel(key.node).await;
        let read = self.device.read_now(at, count);
        self.travel(key.node).await;
        read
    }

    async fn flush(&self, from: LifeId, key: Member) -> Option<Result<(), DiskError>> {
        self.travel(key.node).await;
        if self.is_lost(from) {
            return None;
        }
        self.wait_on_the_way(from).await;
        let id = self.device.begin_flush();
        self.judge.flush_began(id);
        let delay = self.delay();
        self.exec.sleep(delay).await;
        self.device.end_flush(id);
        self.judge.flush_ended(id);
        self.travel(key.node).await;
        Some(Ok(()))
    }

    /// Carries a request out, whatever becomes of whoever sent it; never completes when it was
    /// lost.
    fn carry_out<T: Send + 'static>(
        &self,
        request: impl Future<Output = Option<T>> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let (sender, answer) = oneshot::channel();
        self.exec.spawn(WORLD, async move {
            if let Some(answer) = request.await {
                let _ = sender.send(answer);
            }
        });
        async move {
            match answer.await {
                Ok(answer) => answer,
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// The way of one life of a node to the device, behind its gate.
#[derive(Clone)]
pub struct Way {
    pub arbiter: Arbiter,
    pub life: LifeId,
    pub key: Member,
    pub gate: Arc<Gate>,
    /// Where the membership partition begins.
    pub membership_start: u64,
    pub clock: HostClock,
}

impl Way {
    fn now(&self) -> mx_base::Instant {
        self.clock.now()
    }
}

fn refused(_: Refused) -> DiskError {
    DiskError::Fenced
}

impl Disk for Way {
    fn blocks(&self) -> u64 {
        self.arbiter.device.blocks()
    }

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[mfs::block::Block]>, DiskError>> {
        let (way, arbiter) = (self.clone(), self.arbiter.clone());
        let key = self.key;
        if at.0 >= self.arbiter.layout.slot_start {
            *self.arbiter.state.lock().reads.entry(self.life).or_default() += count as u64;
        }
        let submitted = self.gate.admit(self.now()).map(|admission| {
            if !arbiter.is_fenced(key) {
                arbiter.judge.sends_read(key, at, count);
            }
            let request = async move { Some(arbiter.read(key, at, count).await) };
            (admission, self.arbiter.carry_out(request))
        });
        Box::pin(async move {
            let (admission, read) = submitted.map_err(refused)?;
            let read = read.await;
            admission.complete(way.now()).map_err(refused)?;
            read
        })
    }

    fn write(
        &self,
        at: BlockNo,
        data: WriteData,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        let (way, arbiter) = (self.clone(), self.arbiter.clone());
        let (life, key) = (self.life, self.key);
        let submitted = self.gate.admit(self.now()).map(|admission| {
            let data: Vec<SharedBlock> =
                data.iter().map(|block| Box::new(block.clone()).into()).collect();
            if !arbiter.is_fenced(key) {
                arbiter.judge.sends_write(key, at, &data);
            }
            let request = async move { arbiter.write(life, key, at, data, durability).await };
            (admission, self.arbiter.carry_out(request))
        });
        Box::pin(async move {
            let (admission, written) = submitted.map_err(refused)?;
            let written = written.await;
            if let Err(DiskError::Fenced) = written {
                way.gate.close(Closed::Fenced);
            }
            admission.complete(way.now()).map_err(refused)?;
            written
        })
    }

    fn discard(&self, at: BlockNo, count: u64) -> BoxFuture<'static, Result<bool, DiskError>> {
        let (way, arbiter) = (self.clone(), self.arbiter.clone());
        let (life, key) = (self.life, self.key);
        let submitted = self.gate.admit(self.now()).map(|admission| {
            let request = async move { arbiter.discard(life, key, at, count).await };
            (admission, self.arbiter.carry_out(request))
        });
        Box::pin(async move {
            let (admission, discarded) = submitted.map_err(refused)?;
            let discarded = discarded.await;
            if let Err(DiskError::Fenced) = discarded {
                way.gate.close(Closed::Fenced);
            }
            admission.complete(way.now()).map_err(refused)?;
            discarded.map(|()| true)
        })
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        let (way, arbiter) = (self.clone(), self.arbiter.clone());
        let (life, key) = (self.life, self.key);
        let submitted = self.gate.admit(self.now()).map(|admission| {
            let request = async move { arbiter.flush(life, key).await };
            (admission, self.arbiter.carry_out(request))
        });
        Box::pin(async move {
            let (admission, flushed) = submitted.map_err(refused)?;
            let flushed = flushed.await;
            admission.complete(way.now()).map_err(refused)?;
            flushed
        })
    }
}

impl mx_node::world::Partition for Way {
    fn read(
        &self,
        first: MpBlock,
        count: u32,
    ) -> BoxFuture<'static, Result<Box<[Block]>, IoFailed>> {
        let at = BlockNo(self.membership_start + u64::from(first.0));
        let read = Disk::read(self, at, usize::try_from(count).expect("few blocks"));
        Box::pin(async move {
            let blocks = read.await.map_err(|_| IoFailed)?;
            let mut copy = Block::zeroed_many(blocks.len());
            for (to, from) in copy.iter_mut().zip(&blocks) {
                to.0.copy_from_slice(&from.0);
            }
            Ok(copy)
        })
    }

    fn write(&self, block: MpBlock, data: Box<Block>) -> BoxFuture<'static, Result<(), IoFailed>> {
        let at = BlockNo(self.membership_start + u64::from(block.0));
        let mut copy = mfs::block::Block::zeroed();
        copy.0.copy_from_slice(&data.0);
        let data = WriteData::Blocks(vec![copy.into()]);
        let write = Disk::write(self, at, data, Durability::Durable);
        Box::pin(async move { write.await.map_err(|_| IoFailed) })
    }

    fn closed(&self) -> Option<Closed> {
        self.gate.closed()
    }

    fn cut_off(&self, why: Closed) {
        self.gate.close(why);
    }
}

impl Way {
    fn fence(&self, request: FenceRequest) -> BoxFuture<'static, Answer> {
        let way = self.clone();
        let answer = self.arbiter.carry_out(async move {
            let arbiter = &way.arbiter;
            let (fails, is_late) = arbiter.exec.draw(|r| {
                let mishap = arbiter.weather.mishap;
                (r.chance(mishap), r.chance(mishap))
            });
            arbiter.travel(way.key.node).await;
            if arbiter.is_lost(way.life) {
                return None;
            }
            let has_worked = !fails || arbiter.exec.draw(|r| r.chance(50));
            if has_worked {
                arbiter.fence(request.victim.node, request.victim.up_to).await;
            }
            if is_late {
                arbiter.exec.sleep(Duration::from_millis(900)).await;
            }
            arbiter.travel(way.key.node).await;
            let reason = || "the answer was lost".to_owned();
            if !fails {
                arbiter.judge.proven(request.victim.node, request.victim.up_to);
            }
            Some(if fails { Answer::Failed { reason: reason() } } else { Answer::Verified })
        });
        Box::pin(answer)
    }
}

/// The ways of one life to all devices, for its fences.
pub struct Ways(pub BTreeMap<DeviceId, Way>);

impl FenceAgent for Ways {
    fn name(&self) -> &'static str {
        "simulated arbiters"
    }

    fn fence(&self, request: FenceRequest) -> BoxFuture<'static, Answer> {
        self.0[&request.device].fence(request)
    }
}

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.values()).finish()
    }
}

impl fmt::Debug for Arbiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arbiter").field("refused", &self.refused()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way of {}", self.key)
    }
}
