//! Two nodes take one lock in EX by turns, with nothing behind it.
//!
//! One of them is its home, as one of two always is. A turn costs one message each way: the node
//! that is not the home has its turn by a request and its grant, the home has its own by a callout
//! and the unlock. The floor is one message there and one back.

use std::os::unix::net::UnixDatagram;
use std::thread;

use anyhow::{Context as _, Result};
use lcl::Mode;

use super::machine::{Machine, is_granted, resource, settle};
use super::{PARTS, Processor, REQUEST, answer_pings, middle, ping};
use crate::groups::timed;
use crate::samples::{Samples, Side};
use crate::spec::Floor;

pub(super) fn measure(count: usize, samples: &mut Samples) -> Result<()> {
    let mut machines = [Machine::new(1, 2)?, Machine::new(2, 2)?];
    settle(&mut machines)?;
    let [mut one, mut home] = machines;
    let (name, bucket) = (0..)
        .map(resource)
        .find(|(_, bucket)| home.cache.is_home(*bucket))
        .context("half of all buckets")?;
    let (ours, theirs) = UnixDatagram::pair()?;
    let (pinging, ponging) = UnixDatagram::pair()?;
    let turns = (count / PARTS).max(2);
    thread::scope(|scope| {
        let at_home = scope.spawn(move || {
            let _processor = Processor::take(0)?;
            let entry = home.cache.table().entry(name, bucket);
            // Wants the lock back whenever the other one has taken it.
            let mut wait = None;
            loop {
                if wait.is_none() && entry.mode() == Mode::NL {
                    wait = Some(home.ask(&entry)?);
                }
                if let Some(asked) = &mut wait
                    && is_granted(asked)?
                {
                    wait = None;
                }
                home.send(&theirs)?;
                if wait.is_none() && entry.mode() == Mode::NL {
                    continue;
                }
                if !home.receive(&theirs)? {
                    return anyhow::Ok(());
                }
            }
        });
        scope.spawn(move || {
            let _processor = Processor::take(0)?;
            answer_pings(&ponging, REQUEST);
            anyhow::Ok(())
        });
        let _processor = Processor::take(0)?;
        let entry = one.cache.table().entry(name, bucket);
        let mut took = Vec::new();
        let mut pings = Vec::new();
        for _ in 0..PARTS {
            let (part, ()) = timed(|| {
                for _ in 0..turns / 2 {
                    let mut wait = one.ask(&entry)?;
                    one.send(&ours)?;
                    while !is_granted(&mut wait)? {
                        one.receive(&ours)?;
                    }
                    // The other one's turn.
                    while entry.mode() != Mode::NL {
                        one.receive(&ours)?;
                        one.send(&ours)?;
                    }
                }
                Ok(())
            })?;
            took.push(part);
            let (part, ()) = timed(|| (0..turns).try_for_each(|_| ping(&pinging, REQUEST)))?;
            pings.push(part);
        }
        ours.send(&[])?;
        pinging.send(&[])?;
        at_home.join().expect("the home does not panic")?;
        samples.add_time("contended_ex", Side::Ours, middle(took), turns / 2 * 2);
        samples.add_time("contended_ex", Side::Floor(Floor::PingPong), middle(pings), turns);
        Ok(())
    })
}
