//! A lock cache with nothing behind its locks, and what it says to others.

use std::future::Future;
use std::os::unix::net::UnixDatagram;
use std::pin::{Pin as StdPin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use anyhow::{Context as _, Result, bail, ensure};
use lcl::cache::HOLD;
use lcl::class::{ClassTable, Damaged, LockClass};
use lcl::pin::{Entry, PinFuture, Requester, Table, Want};
use lcl::{
    Bucket, LockCache, LockspaceId, Message, Mode, Output, ResourceName, ValueBlock, Welcome,
};
use mx_base::{BoxFuture, Incarnation, Instant, Member, NodeId, SanGeneration, View, ViewId};
use parking_lot::Mutex;

const LOCKSPACE: LockspaceId = LockspaceId(1);
/// Nothing here waits for a time.
pub(super) const NOW: Instant = Instant(1);
/// A lock message of the least kind fits one packet.
const PACKET: usize = 4096;

/// See the module.
pub(super) struct Machine {
    pub(super) me: Member,
    pub(super) cache: LockCache,
    misses: Arc<Misses>,
    packet: Box<[u8; PACKET]>,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Misses(Mutex<Vec<(Arc<Entry>, Want)>>);

impl Requester for Misses {
    fn missed(&self, entry: &Arc<Entry>, want: Want) {
        self.0.lock().push((Arc::clone(entry), want));
    }
}

impl Misses {
    fn missed(&self) -> Option<(Arc<Entry>, Want)> {
        self.0.lock().pop()
    }
}

impl Machine {
    /// Node `node` of a cluster of `count` that has just started.
    pub(super) fn new(node: u16, count: u16) -> Result<Machine> {
        let misses = Arc::new(Misses::default());
        let weak = Arc::downgrade(&misses);
        let table = Arc::new(Table::new(weak));
        let me = member(node);
        let mut cache =
            LockCache::new(LOCKSPACE, me, table, Arc::new(Classes(Arc::new(Nothing))), |_| true);
        let view = view(1, count);
        let welcome = Welcome::cold(&view, &[], false);
        cache.enter(view, &welcome, NOW)?;
        Ok(Machine { me, cache, misses, packet: Box::new([0; PACKET]), bytes: Vec::new() })
    }

    /// Begins to wait for a lock that is not cached.
    pub(super) fn ask(&mut self, entry: &Arc<Entry>) -> Result<PinFuture> {
        let mut wait = entry.pin(Want::write());
        let mut context = Context::from_waker(Waker::noop());
        ensure!(StdPin::new(&mut wait).poll(&mut context).is_pending(), "it is not cached");
        while let Some((entry, want)) = self.misses.missed() {
            self.cache.handle_missed(&entry, want, NOW);
        }
        Ok(wait)
    }

    /// Pins a lock that is not cached; `ask` is called while it is not granted.
    pub(super) fn pin(
        &mut self,
        name: ResourceName,
        bucket: Bucket,
        mut ask: impl FnMut(&mut Machine) -> Result<()>,
    ) -> Result<()> {
        let entry = self.cache.table().entry(name, bucket);
        let mut wait = self.ask(&entry)?;
        while !is_granted(&mut wait)? {
            ask(self)?;
        }
        Ok(())
    }

    /// What is to be sent next; surrenders are carried out.
    pub(super) fn poll_message(&mut self) -> Result<Option<(Member, Message)>> {
        while let Some(output) = self.cache.poll_output() {
            match output {
                Output::Send { to, message } => return Ok(Some((to, message))),
                Output::Surrender { entry, to, class, .. } => {
                    let mut surrender = pin!(lcl::surrender(Arc::clone(&entry), to, class));
                    let mut context = Context::from_waker(Waker::noop());
                    let Poll::Ready(surrendered) = surrender.as_mut().poll(&mut context) else {
                        bail!("nothing is behind a lock, and nobody pins it");
                    };
                    self.cache.handle_surrendered(&entry, surrendered, NOW);
                }
                Output::Hold { entry, .. } => self.cache.handle_held(&entry, NOW + HOLD),
                Output::Redo { dead, .. } => self.cache.finish_recovery(dead, NOW)?,
                Output::Rebuilt { .. }
                | Output::Claimed { .. }
                | Output::Wanted { .. }
                | Output::Recovered { .. } => {}
            }
        }
        Ok(None)
    }

    pub(super) fn send(&mut self, socket: &UnixDatagram) -> Result<()> {
        while let Some((_, message)) = self.poll_message()? {
            self.bytes.clear();
            message.encode(LOCKSPACE, &mut self.bytes);
            socket.send(&self.bytes)?;
        }
        Ok(())
    }

    fn take(&mut self, from: Member, bytes: &[u8]) -> Result<()> {
        let (lockspace, message) = Message::decode(bytes)?;
        Ok(self.cache.handle_message(from, lockspace, message, NOW)?)
    }

    /// Takes one packet of the other one of two in; `false` at the end.
    pub(super) fn receive(&mut self, socket: &UnixDatagram) -> Result<bool> {
        let len = socket.recv(&mut *self.packet)?;
        if len == 0 {
            return Ok(false);
        }
        let (lockspace, message) = Message::decode(&self.packet[..len])?;
        let other = if self.me == member(1) { member(2) } else { member(1) };
        self.cache.handle_message(other, lockspace, message, NOW)?;
        Ok(true)
    }

    pub(super) fn answer(&mut self, socket: &UnixDatagram) -> Result<()> {
        while self.receive(socket)? {
            self.send(socket)?;
        }
        Ok(())
    }
}

/// The pin goes at once: the lock stays.
pub(super) fn is_granted(wait: &mut PinFuture) -> Result<bool> {
    match StdPin::new(wait).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(pin) => {
            drop(pin?);
            Ok(true)
        }
        Poll::Pending => Ok(false),
    }
}

/// Lets machines talk until none has anything to say. Gives how many messages that took.
pub(super) fn settle(machines: &mut [Machine]) -> Result<usize> {
    let mut count = 0;
    loop {
        let before = count;
        for at in 0..machines.len() {
            while let Some((to, message)) = machines[at].poll_message()? {
                let from = machines[at].me;
                let mut bytes = std::mem::take(&mut machines[at].bytes);
                bytes.clear();
                message.encode(LOCKSPACE, &mut bytes);
                let receiver = machines.iter_mut().find(|machine| machine.me == to);
                receiver.context("nobody talks to the dead")?.take(from, &bytes)?;
                machines[at].bytes = bytes;
                count += 1;
            }
        }
        if count == before {
            return Ok(count);
        }
    }
}

pub(super) fn member(node: u16) -> Member {
    let node = NodeId::new(node).expect("small numbers are nodes");
    Member { node, incarnation: Incarnation(1) }
}

/// Of nodes 1 to `count`.
pub(super) fn view(id: u64, count: u16) -> View {
    View::new(ViewId(id), SanGeneration(id), (1..=count).map(member).collect())
}

/// Names as the file system has them, in buckets all over.
pub(super) fn resource(number: u64) -> (ResourceName, Bucket) {
    (mfs::locks::Resource::Inode(mfs::file::InodeNo(number)).name(), Bucket::of(number))
}

struct Nothing;

impl LockClass for Nothing {
    fn revoke<'a>(&'a self, _: &'a Arc<Entry>, _: Mode, _: u32) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn flush<'a>(&'a self, _: &'a Arc<Entry>, _: Mode) -> BoxFuture<'a, Result<(), Damaged>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn purge(&self, _: &Arc<Entry>, _: Mode) -> Option<ValueBlock> {
        None
    }

    fn refresh(&self, _: &Arc<Entry>, _: Mode, _: Option<&ValueBlock>) {}
}

struct Classes(Arc<Nothing>);

impl ClassTable for Classes {
    fn class(&self, _: &ResourceName) -> Arc<dyn LockClass> {
        Arc::clone(&self.0) as Arc<dyn LockClass>
    }
}
