//! Two threads at once, each with a lock of its own, beside two threads with a counter each.
//!
//! How much two threads get done is taken from the processor time that each of their operations
//! takes: what they cost each other shows in it, what else the machine does meanwhile does not.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Result;
use lcl::Mode;
use lcl::pin::Want;

use super::machine::{Machine, resource};
use super::{PARTS, on_processor};
use crate::samples::{Samples, Side, median};
use crate::spec::Floor;

/// A counter that shares its memory with no other.
#[repr(align(128))]
struct Counter(AtomicU64);

pub(super) fn measure(count: usize, samples: &mut Samples) -> Result<()> {
    let home = Machine::new(1, 1)?;
    let table = home.cache.table();
    // Made one after the other, as locks of files that are made one after the other.
    let entries = [1, 2].map(|number| {
        let (name, bucket) = resource(number);
        table.entry(name, bucket)
    });
    entries.iter().for_each(|entry| entry.raise(Mode::EX));
    let counters = [Counter(AtomicU64::new(0)), Counter(AtomicU64::new(0))];
    let pin = |thread: usize| drop(std::hint::black_box(entries[thread].try_pin(Want::read())));
    let add = |thread: usize| {
        std::hint::black_box(counters[thread].0.fetch_add(1, Ordering::AcqRel));
        std::hint::black_box(counters[thread].0.fetch_sub(1, Ordering::AcqRel));
    };
    let part = (count / PARTS).max(1);
    let mut ours = Vec::new();
    let mut floor = Vec::new();
    for _ in 0..PARTS {
        ours.push(speed_up(part, &pin)?);
        floor.push(speed_up(part, &add)?);
    }
    let middle = |values: &[f64]| median(values).unwrap_or_default();
    samples.add("cached_pin_threads", Side::Ours, middle(&ours));
    samples.add("cached_pin_threads", Side::Floor(Floor::Counters), middle(&floor));
    Ok(())
}

/// How many times as much two threads get done as one.
fn speed_up(count: usize, act: &(impl Fn(usize) + Sync)) -> Result<f64> {
    let alone = on_processor(|| (0..count).for_each(|_| act(0)))?;
    let start = Barrier::new(2);
    let together = thread::scope(|scope| {
        let threads = [0, 1].map(|thread| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                on_processor(|| (0..count).for_each(|_| act(thread)))
            })
        });
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"))
            .sum::<Result<_>>()
    });
    let together: std::time::Duration = together?;
    Ok(alone.as_secs_f64() * 4.0 / together.as_secs_f64())
}
