//! A node of which nothing is carried out: tasks are kept, and no request ever ends.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use fencing::register::IoFailed;
use fencing::{Answer, DeviceId, FenceRequest, MpBlock};
use mfs::block::BlockNo;
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mfs::layout::Layout;
use mx_base::{BoxFuture, Duration, Incarnation, Timestamp};
use parking_lot::Mutex;

use super::*;
use crate::file_system::FileSystem;
use crate::revocable::{Revocable, RevocableDisk};

#[derive(Default)]
struct Nowhere {
    node: OnceLock<Weak<Node>>,
    clock: AtomicU64,
    read_outside: AtomicU64,
    tasks: Mutex<Vec<BoxFuture<'static, ()>>>,
}

impl Runtime for Nowhere {
    fn now(&self) -> Instant {
        if let Some(node) = self.node.get().and_then(Weak::upgrade)
            && !node.core.is_locked()
        {
            self.read_outside.fetch_add(1, Ordering::Relaxed);
        }
        Instant(self.clock.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn wall_time(&self) -> Timestamp {
        unreachable!("nothing is written")
    }

    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tasks.lock().push(task);
    }
}

impl Network for Nowhere {
    fn connect(&self, _peer: NodeId) {}
    fn send(&self, _connection: ConnectionId, _frame: cluster::Frame) {}
    fn close(&self, _connection: ConnectionId) {}
}

impl Partition for Nowhere {
    fn read(
        &self,
        _first: MpBlock,
        _count: u32,
    ) -> BoxFuture<'static, Result<Box<[fencing::Block]>, IoFailed>> {
        Box::pin(std::future::pending())
    }

    fn write(
        &self,
        _block: MpBlock,
        _data: Box<fencing::Block>,
    ) -> BoxFuture<'static, Result<(), IoFailed>> {
        Box::pin(std::future::pending())
    }

    fn cut_off(&self, _why: Closed) {}
}

impl fencing::FenceAgent for Nowhere {
    fn name(&self) -> &'static str {
        "nowhere"
    }

    fn fence(&self, _request: FenceRequest) -> BoxFuture<'static, Answer> {
        Box::pin(std::future::pending())
    }
}

impl Disk for Nowhere {
    fn blocks(&self) -> u64 {
        1 << 20
    }

    fn read(
        &self,
        _at: BlockNo,
        _count: usize,
    ) -> BoxFuture<'static, Result<Box<[mfs::block::Block]>, DiskError>> {
        Box::pin(std::future::pending())
    }

    fn write(
        &self,
        _at: BlockNo,
        _data: WriteData,
        _durability: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        Box::pin(std::future::pending())
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        Box::pin(std::future::pending())
    }
}

fn member(id: u16) -> Member {
    Member { node: NodeId::new(id).expect("in range"), incarnation: Incarnation(1) }
}

const A: FsId = FsId([2; 16]);
const B: FsId = FsId([3; 16]);

fn file_system(id: FsId, disk: &Arc<Nowhere>) -> FileSystem {
    let layout = Layout::for_device(1 << 20).expect("large enough");
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    FileSystem { id, device: DeviceId(id.0), layout, disk }
}

fn config(disk: &Arc<Nowhere>) -> Config {
    Config {
        cluster: ClusterId([1; 16]),
        file_systems: FileSystems::new([A, B].map(|id| file_system(id, disk))).expect("two"),
        me: member(1),
        nonce: cluster::StartNonce::new(1).expect("not zero"),
        peers: BTreeSet::new(),
        unit: cluster::Unit::DEFAULT,
        nodes_max: 4,
        seed: 1,
    }
}

fn node() -> (Arc<Node>, Arc<Nowhere>) {
    let nowhere = Arc::new(Nowhere::default());
    let world = World {
        network: Arc::clone(&nowhere) as Arc<dyn Network>,
        partition: Arc::clone(&nowhere) as Arc<dyn Partition>,
        agent: Arc::clone(&nowhere) as Arc<dyn fencing::FenceAgent>,
        control: Arc::clone(&nowhere) as Arc<dyn Runtime>,
        runtime: Arc::clone(&nowhere) as Arc<dyn Runtime>,
    };
    let node = Node::start(config(&nowhere), world);
    nowhere.node.set(Arc::downgrade(&node)).expect("once");
    (node, nowhere)
}

/// What a thread learns while it waits for the latch is not older than what it waited for.
#[test]
fn the_clock_is_read_under_the_latch() {
    let (node, nowhere) = node();
    let first = node.run(|_, now| now);
    assert!(node.run(|_, now| now) > first);
    assert_eq!(nowhere.read_outside.load(Ordering::Relaxed), 0);
}

fn frame_of(node: &Node, fs: FsId) -> cluster::LockspaceId {
    node.look(|core| core.of(fs).local.lockspace.for_frames())
}

#[test]
fn who_sends_what_is_no_lock_message_is_not_listened_to_any_more() {
    let (node, _nowhere) = node();
    let from = member(2);
    node.run(|core, now| {
        let [a, b] = [A, B].map(|fs| core.of(fs).local.lockspace.for_frames());
        node.deliver_lock(core, from, a, b"no message", now);
        node.deliver_lock(core, from, b, b"nor this", now);
    });
    assert_eq!(node.look(|core| core.ended), None);
    assert_eq!(node.violations(), 1, "what it says later is not looked at, in either lock space");
}

#[test]
fn a_message_of_a_lock_space_that_is_not_known_or_not_its_frames_is_refused() {
    let (node, _nowhere) = node();
    let [a, b] = [A, B].map(|fs| frame_of(&node, fs));
    let message = |lockspace: cluster::LockspaceId| {
        let mut bytes = Vec::new();
        let report = lcl::Message::ReportEnd { view: mx_base::ViewId(1) };
        report.encode(lcl::LockspaceId(lockspace.0), &mut bytes);
        bytes
    };
    let deliver = |from, frame, payload: &[u8]| {
        node.run(|core, now| node.deliver_lock(core, member(from), frame, payload, now));
    };
    let foreign = cluster::LockspaceId(7);
    deliver(2, foreign, &message(foreign));
    assert_eq!(node.violations(), 1);
    deliver(3, a, &message(b));
    assert_eq!(node.violations(), 2);
}

#[test]
fn a_node_is_held_back_until_the_last_write_of_a_revoked_mount_has_ended() {
    let (node, nowhere) = node();
    let write = |revocable: &Arc<Revocable>| {
        let disk = RevocableDisk(Arc::clone(revocable));
        drop(disk.write(BlockNo(9), WriteData::Blocks(Vec::new()), Durability::Volatile));
    };
    let given = node.config.file_systems.get(A).expect("configured");
    let revocable = || Revocable::new(given, node.weak.clone());
    let (former, present) = (revocable(), revocable());
    assert!(!former.revoke());
    nowhere.tasks.lock().clear();
    write(&present);
    assert!(present.revoke());
    node.run_in(A, |fs, _| fs.mounting.hold_back());
    // A task that a former mount left behind, and one of this mount.
    write(&former);
    write(&present);
    assert!(node.look(Core::is_held_back), "nothing has ended");
    let under_way = std::mem::take(&mut *nowhere.tasks.lock());
    assert_eq!(under_way.len(), 1);
    drop(under_way);
    assert!(!present.is_writing());
    assert!(node.look(|core| !core.is_held_back()));
}

/// The watch on the heartbeats would never end: whoever was faster lives.
#[test]
fn a_cold_start_that_somebody_else_has_forestalled_is_not_kept_waiting() {
    let mut storage = Storage::new(&config(&Arc::default()), Instant(1));
    let mut value = cluster::RegisterValue::initial();
    value.members = vec![member(2)];
    value.generation = mx_base::SanGeneration(1);
    storage.commit(cluster::Commit {
        token: cluster::CommitToken(1),
        expected: value.generation,
        change: cluster::Change::ColdStart { me: member(1) },
    });
    storage.advance(Some(&value), Instant(2));
    assert!(storage.poll_effect().is_none(), "nobody has watched member 2 yet");
    value.generation = mx_base::SanGeneration(2);
    storage.advance(Some(&value), Instant(3));
    assert!(storage.poll_effect().is_some(), "the register is asked, and refuses");
}
