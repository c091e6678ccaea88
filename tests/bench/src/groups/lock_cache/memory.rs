//! What a held lock takes in memory, at its holder and its home together.

use anyhow::{Result, ensure};

use super::machine::{Machine, resource, settle};
use crate::allocations;
use crate::samples::{Samples, Side};

pub(super) fn measure(count: usize, samples: &mut Samples) -> Result<()> {
    let mut machines = [Machine::new(1, 2)?, Machine::new(2, 2)?];
    settle(&mut machines)?;
    let homed = |number: &u64| machines[1].cache.is_home(resource(*number).1);
    let numbers: Vec<u64> = (0..).filter(homed).take(count).collect();
    let counting = allocations::count();
    for number in numbers {
        let (name, bucket) = resource(number);
        let entry = machines[0].cache.table().entry(name, bucket);
        let mut wait = machines[0].ask(&entry)?;
        settle(&mut machines)?;
        ensure!(super::machine::is_granted(&mut wait)?, "nobody else holds it");
    }
    let bytes = counting.bytes_in_use();
    ensure!(machines[0].cache.cached_count() == count, "every lock is held");
    samples.add_count("lock_memory", Side::Ours, bytes, count);
    Ok(())
}
