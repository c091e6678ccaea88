//! What passes an arbiter, shown to the oracles of what is written: [`super::writes`],
//! [`super::fences`], [`super::records`], [`super::metadata`], [`super::rest`]. And a rule of its own, one writer (I5):
//! no block is written by two requests at once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{OnceLock, Weak};

use mfs::block::{BlockNo, SharedBlock};
use mfs::env::Durability;
use mfs::layout::Layout;
use mx_base::{FsId, Incarnation, Member, NodeId};
use parking_lot::Mutex;

use super::Oracle;
use super::fences::Fences;
use super::metadata::Metadata;
use super::records::Records;
use super::rest::Rest;
use super::writes::{self, Place};
use crate::disk::Device;
use crate::fleet::{Fleet, Inner};

/// See the module. Of one file system.
pub(in crate::fleet) struct Judge {
    oracle: Oracle,
    device: Device,
    volume: usize,
    fs: FsId,
    layout: Layout,
    fleet: OnceLock<Weak<Inner>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fences: Fences,
    records: Records,
    metadata: Metadata,
    rest: Rest,
    /// What is being written.
    writing: BTreeMap<BlockNo, Member>,
}

fn run(at: BlockNo, count: usize) -> Range<u64> {
    at.0..at.0 + count as u64
}

impl Judge {
    pub(in crate::fleet) fn new(
        oracle: &Oracle,
        device: &Device,
        (volume, fs, layout): (usize, FsId, Layout),
    ) -> Judge {
        let (oracle, device) = (oracle.clone(), device.clone());
        let (fleet, state) = (OnceLock::new(), Mutex::default());
        Judge { oracle, device, volume, fs, layout, fleet, state }
    }

    /// Whom writes are held against.
    pub(in crate::fleet) fn watch(&self, fleet: &Fleet) {
        let _ = self.fleet.set(std::sync::Arc::downgrade(&fleet.0));
    }

    /// Somebody was answered that nothing of these lives is executed any more.
    pub(in crate::fleet) fn proven(&self, node: NodeId, up_to: Incarnation) {
        self.state.lock().fences.proven(node, up_to);
    }

    /// A read is sent, by somebody who is not fenced.
    pub(in crate::fleet) fn sends_read(&self, by: Member, at: BlockNo, count: usize) {
        self.state.lock().fences.check_read(&self.oracle, by, &run(at, count));
    }

    /// A write is sent, by somebody who is not fenced.
    pub(in crate::fleet) fn sends_write(&self, by: Member, at: BlockNo, data: &[SharedBlock]) {
        let state = &*self.state.lock();
        state.fences.check_write(&self.oracle, &self.layout, by, &run(at, data.len()));
        for (at, block) in (at.0..).map(BlockNo).zip(data) {
            state.records.check(&self.oracle, by, at, block);
        }
    }

    /// Somebody has frozen the file system, or thaws it now.
    pub(in crate::fleet) fn frozen(&self, by: Option<Member>) {
        self.state.lock().rest.frozen(&self.oracle, by);
    }

    /// How often somebody has frozen it.
    pub(in crate::fleet) fn freezes(&self) -> u32 {
        self.state.lock().rest.count()
    }

    /// A write begins to be executed.
    pub(in crate::fleet) fn begins(&self, by: Member, at: BlockNo, data: &[SharedBlock]) {
        let Some(fleet) = self.fleet.get().and_then(Weak::upgrade) else { return };
        let (fleet, state) = (Fleet(fleet), &mut *self.state.lock());
        for (at, new) in (at.0..).map(BlockNo).zip(data) {
            state.rest.check(&self.oracle, &self.layout, by, at);
            if let Some(other) = state.writing.insert(at, by) {
                let what = format!("{by} and {other} write block {at} at once");
                self.oracle.violation("one writer", what);
            }
            let place = Place { layout: &self.layout, at };
            let old = self.device.visible_block(at);
            state.metadata.check(&self.oracle, place, by, (old.as_deref(), new));
            let old = old.filter(|_| self.device.is_readable(at));
            let others = |name: &_| fleet.grants.others(&fleet, self.volume, name, by);
            let is_proven = |member| state.fences.is_proven(member);
            writes::check(&self.oracle, place, by, (old.as_deref(), new), others, is_proven);
        }
    }

    /// A write has been executed, or has failed.
    pub(in crate::fleet) fn ended(
        &self,
        by: Member,
        at: BlockNo,
        data: &[SharedBlock],
        durability: Durability,
    ) {
        let state = &mut *self.state.lock();
        let blocks = run(at, data.len());
        for at in blocks.clone().map(BlockNo) {
            state.writing.remove(&at);
        }
        let is_in_journal = || state.fences.is_in_journal_of(by, at);
        state.records.written(by, data, durability == Durability::Durable, is_in_journal);
        self.look_at_heads(&mut state.fences, blocks);
    }

    pub(in crate::fleet) fn flush_began(&self, id: u64) {
        self.state.lock().records.flush_began(id);
    }

    pub(in crate::fleet) fn flush_ended(&self, id: u64) {
        self.state.lock().records.flush_ended(id);
    }

    /// The device has other contents than what was written to it.
    pub(in crate::fleet) fn power_failed(&self) {
        let state = &mut *self.state.lock();
        state.records.power_failed();
        self.look_at_heads(&mut state.fences, 0..self.device.blocks());
    }

    /// The medium changes what lies there.
    pub(in crate::fleet) fn flipped(&self, at: BlockNo, before: SharedBlock) {
        self.state.lock().metadata.flipped(at, before);
    }

    fn look_at_heads(&self, fences: &mut Fences, blocks: Range<u64>) {
        let of = (self.fs, &self.layout);
        fences.written(of, blocks, |at| self.device.visible_block(at));
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("fs", &self.fs).finish_non_exhaustive()
    }
}
