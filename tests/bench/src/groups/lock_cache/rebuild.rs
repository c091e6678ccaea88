//! One of three nodes dies: what its locks cost the other two in processor time, in all.
//!
//! Its locks are, one half each, what the others hold of what it decided about, which its heirs
//! rebuild, and what it held of what the others decide about, which goes into limbo and is freed.

use anyhow::{Result, ensure};

use super::machine::{Machine, NOW, is_granted, member, resource, settle, view};
use super::processor_time;
use crate::samples::{Samples, Side};
use crate::spec::Floor;

const VICTIM: u16 = 3;

pub(super) fn measure(locks: usize, samples: &mut Samples) -> Result<()> {
    let few = rebuild(locks / 20, 0)?;
    samples.add("rebuild", Side::Ours, few.nanoseconds);
    samples.add("rebuild_messages", Side::Ours, few.messages);
    samples.add("rebuild_many", Side::Ours, rebuild(locks / 5, 0)?.nanoseconds);
    samples.add("rebuild_many", Side::Floor(Floor::FewerLocks), few.nanoseconds);
    let beside = rebuild(locks / 20, locks / 2)?;
    samples.add("rebuild_beside_others", Side::Ours, beside.nanoseconds);
    samples.add("rebuild_beside_others", Side::Floor(Floor::NoOtherLocks), few.nanoseconds);
    let more = rebuild(locks / 20, locks)?;
    samples.add("rebuild_beside_more", Side::Ours, more.nanoseconds);
    samples.add("rebuild_beside_more", Side::Floor(Floor::FewerOthers), beside.nanoseconds);
    Ok(())
}

/// For each lock of the dead.
struct Cost {
    nanoseconds: f64,
    messages: f64,
}

/// `locks` have to do with the dead, `others` do not.
fn rebuild(locks: usize, others: usize) -> Result<Cost> {
    let mut machines = Vec::new();
    for node in 1..=VICTIM {
        machines.push(Machine::new(node, VICTIM)?);
    }
    settle(&mut machines)?;
    let (mut of_home, mut of_holder, mut of_others) = (locks / 2, locks - locks / 2, others);
    for number in 0.. {
        let (name, bucket) = resource(number);
        let survivor = usize::from(number % 2 == 1);
        let is_left = |count: &mut usize| count.checked_sub(1).map(|left| *count = left).is_some();
        let holder = if machines[2].cache.is_home(bucket) {
            is_left(&mut of_home).then_some(survivor)
        } else if is_left(&mut of_holder) {
            Some(2)
        } else {
            is_left(&mut of_others).then_some(survivor)
        };
        if of_home + of_holder + of_others == 0 && holder.is_none() {
            break;
        }
        let Some(holder) = holder else { continue };
        let entry = machines[holder].cache.table().entry(name, bucket);
        let mut wait = machines[holder].ask(&entry)?;
        settle(&mut machines)?;
        ensure!(is_granted(&mut wait)?, "nobody else holds it");
    }
    let dead = machines.pop();
    let sent = |machines: &[Machine]| -> u64 {
        machines.iter().map(|machine| machine.cache.lockspace().counters().sent_total()).sum()
    };
    let before = (processor_time()?, sent(&machines));
    for machine in &mut machines {
        machine.cache.handle_view(view(2, VICTIM - 1), &[], NOW)?;
    }
    settle(&mut machines)?;
    machines[0].cache.begin_recovery(member(VICTIM), [], NOW)?;
    settle(&mut machines)?;
    for machine in &mut machines {
        machine.cache.caches_gone(member(VICTIM), NOW);
    }
    settle(&mut machines)?;
    let took = processor_time()?.saturating_sub(before.0);
    let messages = sent(&machines) - before.1;
    let is_over = |machine: &Machine| machine.cache.lockspace().dead().next().is_none();
    ensure!(machines.iter().all(is_over), "nothing is left of the dead");
    drop(dead);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let each = |value: f64| value / locks as f64;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let messages = messages as f64;
    Ok(Cost { nanoseconds: each(took.as_secs_f64() * 1e9), messages: each(messages) })
}
