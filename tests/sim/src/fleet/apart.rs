//! Rule: what cannot be replayed in one file system concerns no other, and in that one only what it
//! concerns. As long as the journal of a dead member in the first file system cannot be read,
//! * everything goes on in the others, for whoever was there, and for the dead one's next life;
//! * the recovery of the others has ended, within the usual bound;
//! * in the first, what is not in limbo is granted to and fro.

use std::collections::BTreeSet;
use std::sync::Arc;

use mfs::block::BlockNo;
use mfs::locks::Resource;
use mfs::ondisk::slot::SlotHeadBlock;
use mx_base::Member;
use mx_node::Surroundings;
use mx_node::report::{FsRecovery, resource_text};
use zerocopy::FromBytes as _;

use super::host::{Life, Living};
use super::oracle::bounds::RECOVERED_WITHIN;
use super::plan::Fault;
use super::{Fleet, Violation};

fn wrong(what: String) -> Result<(), Violation> {
    Err(Violation::new("apart", what))
}

impl Fleet {
    /// The journal of a life in the first file system cannot be read until everything heals.
    pub(super) fn lose_journal(&self, life: &Arc<Life>) {
        let Some(mount) = life.mount(0) else { return };
        let (volume, slot) = (self.first(), mount.fs.slot());
        let device = &volume.arbiter.device;
        let copies = volume.layout.slot_heads(slot).map(|at| device.visible_block(at));
        let heads = copies
            .iter()
            .flatten()
            .filter_map(|block| SlotHeadBlock::ref_from_bytes(&block.0).ok());
        let head = heads.max_by_key(|head| head.header.version.get());
        let head = head.expect("a slot that is in use has a head");
        let count = usize::from(head.journal_extents_count.get());
        for extent in &head.journal_extents[..count] {
            device.lose(BlockNo(extent.start.get()), u64::from(extent.blocks.get()));
        }
        tracing::info!(column = life.member.node.get(), ?slot, "its journal cannot be read");
        self.unreplayable.lock().push((self.exec.now(), life.member));
    }

    /// Does a plan take the journal of this host away?
    pub(super) fn loses_journal(&self, host: usize) -> bool {
        let faults = self.plan.faults.iter().map(|(_, fault)| fault);
        faults.into_iter().any(|f| matches!(f, Fault::LoseJournal { host: h, .. } if *h == host))
    }

    /// Looked at just before everything heals.
    pub(super) fn check_apart(&self) -> Result<(), Violation> {
        let unreplayable = self.unreplayable.lock().clone();
        if unreplayable.is_empty() {
            return Ok(());
        }
        for (i, volume) in self.volumes.iter().enumerate().skip(1) {
            let mut lives = self.lives().into_iter().flatten();
            if let Some(life) = lives.find(|life| life.mount(i).is_none()) {
                return wrong(format!("{} has not mounted {}", life.member, volume.fs));
            }
            let (longest, what) = volume.work.longest();
            let (waiting, of) = volume.work.oldest();
            if longest.max(waiting) > RECOVERED_WITHIN {
                return wrong(format!("{what} took {longest:?}, {of} waits {waiting:?}"));
            }
        }
        let living = self.living();
        for (_, dead) in &unreplayable {
            let others = living.iter().filter(|l| l.life.member.node != dead.node);
            others.into_iter().try_for_each(|l| self.check_recoveries(l, *dead))?;
        }
        self.check_aside(&living)
    }

    fn check_recoveries(&self, at: &Living, dead: Member) -> Result<(), Violation> {
        let report = at.node.recovery_report(&Surroundings::default());
        let recovery = report.recoveries.into_iter().find(|r| r.dead == dead.into());
        let Some(recovery) = recovery else {
            return wrong(format!("{} knows nothing of the death of {dead}", at.life.member));
        };
        for (i, volume) in self.volumes.iter().enumerate() {
            let is_it = |of: &&FsRecovery| of.fs.id == volume.fs.to_string();
            let of = recovery.file_systems.iter().find(is_it);
            let resumed = of.and_then(|of| of.resumed_ms);
            let is_as_it_should_be = match i {
                0 => resumed.is_none(),
                _ => resumed.is_some_and(|ms| u128::from(ms) <= RECOVERED_WITHIN.as_millis()),
            };
            if !is_as_it_should_be {
                return wrong(format!("file system {i} on {}: {of:?}", at.life.member));
            }
        }
        Ok(())
    }

    fn check_aside(&self, living: &[Living]) -> Result<(), Violation> {
        let (fs, now) = (self.first().fs.to_string(), self.exec.now());
        let mut limbo = BTreeSet::new();
        for Living { node, .. } in living {
            let dump = node.lock_dump(&Surroundings::default(), None, usize::MAX);
            let of = dump.file_systems.into_iter().filter(|locks| locks.fs.id == fs);
            let homed = of.flat_map(|locks| locks.homed);
            let held = homed.filter(|homed| homed.remnants.iter().any(|r| r.is_limbo));
            limbo.extend(held.map(|homed| homed.resource));
        }
        if limbo.is_empty() {
            return wrong("nothing is in limbo, as if nothing had to be replayed".to_owned());
        }
        let mut free = 0;
        for (file, lives) in self.first().work.aside.all() {
            if limbo.contains(&resource_text(&Resource::Inode(file.inode).name())) {
                continue;
            }
            free += 1;
            for (life, writes) in lives.iter().filter(|(life, _)| !self.oracle.is_lost(**life)) {
                if now.since(writes.last).max(writes.longest) > RECOVERED_WITHIN {
                    return wrong(format!("{file:?} is not granted to {life}: {writes:?}"));
                }
            }
        }
        match free {
            0 => {
                wrong("every file that the dead one had nothing to do with is in limbo".to_owned())
            }
            _ => Ok(()),
        }
    }
}
