//! The lock cache alone, in this process: pins, grants by this node as home, grants by another, a
//! lock that two nodes take by turns, the memory of many locks, the rebuild after a death.
//!
//! Ours and its floor are measured by turns, a small part of each at a time, so that what else the
//! machine does meets both; what needs no other thread is measured in processor time.

mod contended;
mod machine;
mod memory;
mod rebuild;
mod threads;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lcl::pin::Want;
use lcl::{Bucket, Mode, ResourceName};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::timed;
use crate::samples::{Samples, Side, median};
use crate::scale::Scale;
use crate::spec::Floor;
use machine::{Machine, resource, settle};

/// Bytes of the request for a lock, and of the answer.
const REQUEST: usize = 64;
const ANSWER: usize = 32;

/// So many parts is a run measured in; the median counts.
const PARTS: usize = 25;

pub(super) fn measure(scale: &Scale, samples: &mut Samples) -> Result<()> {
    cached_pin(scale.pins, samples)?;
    threads::measure(scale.pins, samples)?;
    local_grant(scale.grants, samples)?;
    // Two nodes have two processors; on one nothing of what either does is hidden by waiting.
    remote_grant("remote_grant", [0, 1], scale.grants, samples)?;
    remote_grant("remote_grant_one_processor", [0, 0], scale.grants, samples)?;
    contended::measure(scale.grants, samples)?;
    memory::measure(scale.locks, samples)?;
    rebuild::measure(scale.locks, samples)
}

/// A look-up in a map in shards, each under a mutex of its own: what a table of locks costs that
/// does nothing else.
struct Sharded(Vec<Mutex<HashMap<ResourceName, u64>>>);

impl Sharded {
    const SHARDS: u16 = 64;

    fn new(names: &[(ResourceName, Bucket)]) -> Sharded {
        let shards = (0..Sharded::SHARDS).map(|_| Mutex::default()).collect();
        let map = Sharded(shards);
        for (number, (name, bucket)) in (0..).zip(names) {
            map.shard(*bucket).lock().insert(*name, number);
        }
        map
    }

    fn shard(&self, bucket: Bucket) -> &Mutex<HashMap<ResourceName, u64>> {
        &self.0[usize::from(bucket.get() % Sharded::SHARDS)]
    }

    fn get(&self, name: &ResourceName, bucket: Bucket) -> Option<u64> {
        self.shard(bucket).lock().get(name).copied()
    }
}

fn cached_pin(count: usize, samples: &mut Samples) -> Result<()> {
    let home = Machine::new(1, 1)?;
    let names: Vec<_> = (0..64).map(resource).collect();
    let table = home.cache.table();
    let entries: Vec<_> = names.iter().map(|(name, bucket)| table.entry(*name, *bucket)).collect();
    entries.iter().for_each(|entry| entry.raise(Mode::EX));
    let map = Sharded::new(&names);
    let word = AtomicU64::new(0);
    let part = (count / PARTS / names.len()).max(1);
    let mut ours = Vec::new();
    let mut look_ups = Vec::new();
    let mut atomics = Vec::new();
    for _ in 0..PARTS {
        ours.push(on_processor(|| {
            for _ in 0..part {
                for entry in &entries {
                    drop(std::hint::black_box(entry.try_pin(Want::read())));
                }
            }
        })?);
        look_ups.push(on_processor(|| {
            for _ in 0..part {
                for (name, bucket) in &names {
                    std::hint::black_box(map.get(std::hint::black_box(name), *bucket));
                }
            }
        })?);
        atomics.push(on_processor(|| {
            for _ in 0..part * names.len() {
                std::hint::black_box(word.fetch_add(1, Ordering::AcqRel));
                std::hint::black_box(word.fetch_sub(1, Ordering::AcqRel));
            }
        })?);
    }
    ensure!(entries[0].try_pin(Want::read()).is_some(), "it is cached");
    let each = part * names.len();
    samples.add_time("cached_pin", Side::Ours, middle(ours), each);
    samples.add_time("cached_pin", Side::Floor(Floor::MapLookUp), middle(look_ups), each);
    samples.add_time("cached_pin", Side::Floor(Floor::Atomics), middle(atomics), each);
    Ok(())
}

fn local_grant(count: usize, samples: &mut Samples) -> Result<()> {
    let mut home = Machine::new(1, 1)?;
    let names: Vec<_> = (0..count as u64).map(resource).collect();
    let mut outcome = Ok(());
    let took = on_processor(|| {
        outcome = names.iter().try_for_each(|(name, bucket)| {
            home.pin(*name, *bucket, |_| anyhow::bail!("no message is sent"))
        });
    })?;
    outcome?;
    samples.add_time("local_grant", Side::Ours, took, count);
    let mut map = BTreeMap::new();
    let took = on_processor(|| map.extend(names.iter().copied()))?;
    ensure!(map.len() == count, "every name is another one");
    samples.add_time("local_grant", Side::Floor(Floor::MapInsertion), took, count);
    Ok(())
}

fn remote_grant(
    row: &'static str,
    [here, there]: [usize; 2],
    count: usize,
    samples: &mut Samples,
) -> Result<()> {
    let mut machines = [Machine::new(1, 2)?, Machine::new(2, 2)?];
    settle(&mut machines)?;
    let [mut asking, mut home] = machines;
    let at_home = |(_, bucket): &(ResourceName, Bucket)| home.cache.is_home(*bucket);
    let names: Vec<_> = (0..).map(resource).filter(at_home).take(count).collect();
    let (ours, theirs) = UnixDatagram::pair()?;
    let (pinging, ponging) = UnixDatagram::pair()?;
    let part = (count / PARTS).max(1);
    thread::scope(|scope| {
        let answering = scope.spawn(move || {
            let _processor = Processor::take(there)?;
            home.answer(&theirs)
        });
        scope.spawn(move || {
            let _processor = Processor::take(there)?;
            answer_pings(&ponging, ANSWER);
            anyhow::Ok(())
        });
        let _processor = Processor::take(here)?;
        let mut grants = Vec::new();
        let mut pings = Vec::new();
        for names in names.chunks_exact(part) {
            let (took, ()) = timed(|| {
                names.iter().try_for_each(|(name, bucket)| {
                    asking.pin(*name, *bucket, |asking| {
                        asking.send(&ours)?;
                        asking.receive(&ours).map(drop)
                    })
                })
            })?;
            grants.push(took);
            let (took, ()) = timed(|| (0..part).try_for_each(|_| ping(&pinging, REQUEST)))?;
            pings.push(took);
        }
        // An empty packet is the end.
        ours.send(&[])?;
        pinging.send(&[])?;
        answering.join().expect("the home does not panic")?;
        samples.add_time(row, Side::Ours, middle(grants), part);
        samples.add_time(row, Side::Floor(Floor::PingPong), middle(pings), part);
        Ok(())
    })
}

/// While it lives this thread runs on one processor, and not now here and now there as it suits
/// whoever schedules: whether two threads share one makes more of a difference than what they do.
struct Processor(CpuSet);

impl Processor {
    /// Of those that there are, modulo their number.
    fn take(which: usize) -> Result<Processor> {
        let myself = Pid::from_raw(0);
        let before = sched_getaffinity(myself).context("processors")?;
        let all: Vec<usize> =
            (0..CpuSet::count()).filter(|cpu| before.is_set(*cpu).unwrap_or(false)).collect();
        let mut only = CpuSet::new();
        only.set(all[which % all.len()]).context("processors")?;
        sched_setaffinity(myself, &only).context("processors")?;
        Ok(Processor(before))
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        // It was allowed before.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// One message there and one back.
fn ping(socket: &UnixDatagram, bytes: usize) -> Result<()> {
    let mut packet = [7; REQUEST];
    socket.send(&packet[..bytes])?;
    socket.recv(&mut packet)?;
    Ok(())
}

/// Does nothing else, until an empty packet comes.
fn answer_pings(socket: &UnixDatagram, bytes: usize) {
    let mut packet = [0; REQUEST];
    while socket.recv(&mut packet).is_ok_and(|len| len > 0) {
        if socket.send(&packet[..bytes]).is_err() {
            return;
        }
    }
}

/// How long this thread was on a processor meanwhile.
fn on_processor(act: impl FnOnce()) -> Result<Duration> {
    let before = processor_time()?;
    act();
    Ok(processor_time()?.saturating_sub(before))
}

fn processor_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("processor time")?;
    Ok(Duration::from(time))
}

fn middle(took: Vec<Duration>) -> Duration {
    let seconds: Vec<f64> = took.iter().map(Duration::as_secs_f64).collect();
    Duration::from_secs_f64(median(&seconds).unwrap_or_default())
}
