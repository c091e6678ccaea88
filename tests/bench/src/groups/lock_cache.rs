//! The lock cache alone, in this process: pins, grants by this node as home, grants by another.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::net::UnixDatagram;
use std::pin::{Pin as StdPin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use lcl::class::{ClassTable, Damaged, LockClass};
use lcl::pin::{Entry, Requester, Table, Want};
use lcl::{
    Bucket, LockCache, LockspaceId, Message, Mode, Output, ResourceName, ValueBlock, Welcome,
};
use mfs::file::InodeNo;
use mfs::locks::Resource;
use mx_base::{BoxFuture, Incarnation, Instant, Member, NodeId, SanGeneration, View, ViewId};
use parking_lot::Mutex;

use super::timed;
use crate::floors::partner::MESSAGE;
use crate::samples::{Samples, Side};
use crate::scale::Scale;
use crate::spec::Floor;

const LOCKSPACE: LockspaceId = LockspaceId(1);
/// Nothing here waits for a time.
const NOW: Instant = Instant(1);
/// Of a lock message that fits one packet.
const PACKET: usize = 4096;

pub(super) fn measure(scale: &Scale, samples: &mut Samples) -> Result<()> {
    cached_pin(scale.pins, samples)?;
    local_grant(scale.grants, samples)?;
    remote_grant(scale.grants, samples)
}

fn cached_pin(count: usize, samples: &mut Samples) -> Result<()> {
    let home = Machine::new(1, 1)?;
    let (name, bucket) = resource(1);
    let entry = home.cache.table().entry(name, bucket);
    entry.raise(Mode::EX);
    let (took, ()) = timed(|| {
        for _ in 0..count {
            drop(std::hint::black_box(entry.try_pin(Want::read()).context("it is cached")?));
        }
        Ok(())
    })?;
    samples.add_time("cached_pin", Side::Ours, took, count);
    let word = AtomicU64::new(0);
    let (took, ()) = timed(|| {
        for _ in 0..count {
            std::hint::black_box(word.fetch_add(1, Ordering::AcqRel));
            std::hint::black_box(word.fetch_sub(1, Ordering::AcqRel));
        }
        Ok(())
    })?;
    samples.add_time("cached_pin", Side::Floor(Floor::Atomics), took, count);
    Ok(())
}

fn local_grant(count: usize, samples: &mut Samples) -> Result<()> {
    let mut home = Machine::new(1, 1)?;
    let names: Vec<_> = (0..count as u64).map(resource).collect();
    let (took, ()) = timed(|| {
        for (name, bucket) in &names {
            home.pin(*name, *bucket, |_| anyhow::bail!("no message is sent"))?;
        }
        Ok(())
    })?;
    samples.add_time("local_grant", Side::Ours, took, count);
    let mut map = BTreeMap::new();
    let (took, ()) = timed(|| {
        for (name, bucket) in &names {
            map.insert(*name, *bucket);
        }
        Ok(())
    })?;
    ensure!(map.len() == count, "every name is another one");
    samples.add_time("local_grant", Side::Floor(Floor::MapInsertion), took, count);
    Ok(())
}

fn remote_grant(count: usize, samples: &mut Samples) -> Result<()> {
    let mut asking = Machine::new(1, 2)?;
    let mut home = Machine::new(2, 2)?;
    settle(&mut asking, &mut home)?;
    let at_home = |(_, bucket): &(ResourceName, Bucket)| home.cache.is_home(*bucket);
    let names: Vec<_> = (0..).map(resource).filter(at_home).take(count).collect();
    let (ours, theirs) = UnixDatagram::pair()?;
    thread::scope(|scope| {
        let answering = scope.spawn(move || home.answer(&theirs));
        let (took, ()) = timed(|| {
            for (name, bucket) in &names {
                asking.pin(*name, *bucket, |asking| {
                    asking.send(&ours)?;
                    asking.receive(&ours).map(drop)
                })?;
            }
            Ok(())
        })?;
        samples.add_time("remote_grant", Side::Ours, took, count);
        // An empty packet is the end.
        ours.send(&[])?;
        answering.join().expect("the home does not panic")
    })?;
    ping_pong(count, samples)
}

/// The same between two threads that do nothing else.
fn ping_pong(count: usize, samples: &mut Samples) -> Result<()> {
    let (ours, theirs) = UnixDatagram::pair()?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut packet = [0; MESSAGE];
            while theirs.recv(&mut packet).is_ok_and(|len| len > 0) {
                if theirs.send(&packet).is_err() {
                    return;
                }
            }
        });
        let mut packet = [7; MESSAGE];
        let (took, ()) = timed(|| {
            for _ in 0..count {
                ours.send(&packet)?;
                ours.recv(&mut packet)?;
            }
            Ok(())
        })?;
        samples.add_time("remote_grant", Side::Floor(Floor::PingPong), took, count);
        ours.send(&[])?;
        Ok(())
    })
}

/// A lock cache with nothing behind its locks.
struct Machine {
    me: Member,
    cache: LockCache,
    misses: Arc<Misses>,
}

#[derive(Default)]
struct Misses(Mutex<Vec<(Arc<Entry>, Want)>>);

impl Requester for Misses {
    fn missed(&self, entry: &Arc<Entry>, want: Want) {
        self.0.lock().push((Arc::clone(entry), want));
    }
}

impl Machine {
    /// Node `node` of a cluster of `count` that has just started.
    fn new(node: u16, count: u16) -> Result<Machine> {
        let members: Vec<Member> = (1..=count).map(member).collect();
        let misses = Arc::new(Misses::default());
        let weak = Arc::downgrade(&misses);
        let table = Arc::new(Table::new(weak));
        let me = member(node);
        let mut cache = LockCache::new(LOCKSPACE, me, table, Arc::new(Nothing), |_| true);
        let view = View::new(ViewId(1), SanGeneration(1), members);
        let welcome = Welcome::cold(&view, &[], false);
        cache.enter(view, &welcome, NOW)?;
        Ok(Machine { me, cache, misses })
    }

    /// Pins a lock that is not cached; `ask` is called while it is not granted.
    fn pin(
        &mut self,
        name: ResourceName,
        bucket: Bucket,
        mut ask: impl FnMut(&mut Machine) -> Result<()>,
    ) -> Result<()> {
        let entry = self.cache.table().entry(name, bucket);
        let mut wait = pin!(entry.pin(Want::write()));
        let mut context = Context::from_waker(Waker::noop());
        ensure!(wait.as_mut().poll(&mut context).is_pending(), "it is not cached");
        let misses = std::mem::take(&mut *self.misses.0.lock());
        for (entry, want) in misses {
            self.cache.handle_missed(&entry, want, NOW);
        }
        loop {
            match StdPin::as_mut(&mut wait).poll(&mut context) {
                Poll::Ready(pin) => return Ok(pin.map(drop)?),
                Poll::Pending => ask(self)?,
            }
        }
    }

    /// What is to be sent, encoded.
    fn messages(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some(output) = self.cache.poll_output() {
            if let Output::Send { message, .. } = output {
                let mut bytes = Vec::new();
                message.encode(LOCKSPACE, &mut bytes);
                messages.push(bytes);
            }
        }
        messages
    }

    fn send(&mut self, socket: &UnixDatagram) -> Result<()> {
        for message in self.messages() {
            socket.send(&message)?;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let (lockspace, message) = Message::decode(bytes)?;
        let other = if self.me == member(1) { member(2) } else { member(1) };
        Ok(self.cache.handle_message(other, lockspace, message, NOW)?)
    }

    /// Takes one packet in; `false` at the end.
    fn receive(&mut self, socket: &UnixDatagram) -> Result<bool> {
        let mut packet = [0; PACKET];
        let len = socket.recv(&mut packet)?;
        if len > 0 {
            self.take(&packet[..len])?;
        }
        Ok(len > 0)
    }

    fn answer(&mut self, socket: &UnixDatagram) -> Result<()> {
        while self.receive(socket)? {
            self.send(socket)?;
        }
        Ok(())
    }
}

/// Lets two machines talk until neither has anything to say.
fn settle(one: &mut Machine, other: &mut Machine) -> Result<()> {
    loop {
        let (from_one, from_other) = (one.messages(), other.messages());
        if from_one.is_empty() && from_other.is_empty() {
            return Ok(());
        }
        from_one.iter().try_for_each(|message| other.take(message))?;
        from_other.iter().try_for_each(|message| one.take(message))?;
    }
}

fn member(node: u16) -> Member {
    let node = NodeId::new(node).expect("small numbers are nodes");
    Member { node, incarnation: Incarnation(1) }
}

/// Names as the file system has them, in buckets all over.
fn resource(number: u64) -> (ResourceName, Bucket) {
    (Resource::Inode(InodeNo(number)).name(), Bucket::of(number))
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

impl ClassTable for Nothing {
    fn class(&self, _: &ResourceName) -> Arc<dyn LockClass> {
        Arc::new(Nothing)
    }
}
