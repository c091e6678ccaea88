//! The measurements, a module for each group of rows.

mod arbiter;
mod contents;
mod entries;
mod fsync;
mod hand_over;
mod lock_cache;
mod recovery;
mod sharing;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::samples::Samples;
use crate::scale::Scale;
use crate::spec::Group;
use crate::stage::Stage;

/// Measures all rows of a group once.
///
/// # Errors
/// When something does not work as it should.
pub fn measure(group: Group, stage: &mut Stage, run: usize, samples: &mut Samples) -> Result<()> {
    match group {
        Group::Entries => entries::measure(stage, run, samples),
        Group::Contents => contents::measure(stage, run, samples),
        Group::Fsync => fsync::measure(stage, run, samples),
        Group::HandOver => hand_over::measure(stage, run, samples),
        Group::Sharing => sharing::measure(stage, run, samples),
        Group::LockCache => measure_in_process(group, &stage.scale, samples),
        Group::Arbiter => arbiter::measure(stage, run, samples),
        Group::Recovery => recovery::measure(stage, run, samples),
    }
}

/// Measures all rows of a group that needs no nodes once.
///
/// # Errors
/// As [`measure`].
///
/// # Panics
/// When the group does need them.
pub fn measure_in_process(group: Group, scale: &Scale, samples: &mut Samples) -> Result<()> {
    assert!(group.is_in_process(), "{group:?} needs nodes");
    lock_cache::measure(scale, samples)
}

/// How often a group is measured.
pub fn runs(group: Group, scale: &Scale) -> usize {
    if group == Group::Recovery { scale.runs_of_recovery } else { scale.runs }
}

fn timed<T>(act: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let start = Instant::now();
    let result = act()?;
    Ok((start.elapsed(), result))
}

/// All numbers below `count`, in an order that looks random and depends on `seed` only.
fn shuffled(count: usize, seed: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (seed as u64 + 1);
    let mut numbers: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = state % (last as u64 + 1);
        numbers.swap(last, usize::try_from(other).expect("at most `last`"));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_has_every_number_once_and_another_seed_another_order() {
        let one = shuffled(1000, 1);
        let mut sorted = one.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_ne!(one, sorted);
        assert_ne!(one, shuffled(1000, 2));
    }
}
