//! This node's dealings with one membership partition.
//!
//! Keeps true between calls: at most one request is outstanding (R4); the newest copy of the own
//! record is never the first to be overwritten, unless it is the only one.

use mx_base::{ClusterId, Incarnation, NodeId};

use super::scan::{Picture, Scan, Seen};
use super::{IoId, Trouble};
use crate::ballot::Ballot;
use crate::layout::{CopyNo, MpBlock, MpIndex};
use crate::ondisk::Block;
use crate::ondisk::register::{RegisterRecord, place};
use crate::reg_val::RegVal;

/// Passes over the records in one stage before a record without a readable copy counts as damaged:
/// a copy that is being written at the moment of reading may look damaged.
const SCANS_MAX: u32 = 3;

/// What a copy of the own record holds. The order is that in which copies may be overwritten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum CopyState {
    /// Old, new or damaged: a write of it failed, or it could not be read.
    Unsure,
    Holds {
        sequence: u64,
    },
}

/// The own record: as it was read, or as it was last meant to be written. What may have landed is
/// never taken back.
#[derive(Debug)]
struct Own {
    record: RegisterRecord,
    copies: [CopyState; 2],
}

#[derive(Debug)]
enum Io {
    Write { copy: CopyNo, sequence: u64 },
    Read,
}

#[derive(Debug)]
struct Outstanding {
    io: IoId,
    stage_no: u64,
    what: Io,
}

/// How far the present stage has come here.
#[derive(Debug)]
enum Step {
    Ready,
    /// Reading before the first write of this life.
    Loading {
        scan: Scan,
        scans: u32,
    },
    /// `copy` is being written; `second` if the other one has been tried.
    Writing {
        copy: CopyNo,
        second: bool,
        written: u32,
    },
    /// Reading all records after the own one is written.
    Checking {
        scan: Scan,
        scans: u32,
    },
    /// Written, and this is what was seen after it.
    Counted(Picture),
    Failed(Trouble),
}

/// What is to be sent next.
#[derive(Debug)]
pub(super) enum Send {
    Write { block: MpBlock, data: Box<Block> },
    Read { block: MpBlock, count: u32 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Partition {
    cluster: ClusterId,
    node: NodeId,
    index: MpIndex,
    nodes_max: u16,
    extinguished: bool,
    ruled_out: Option<Trouble>,
    own: Option<Own>,
    step: Step,
    outstanding: Option<Outstanding>,
}

impl Partition {
    pub(super) fn new(
        cluster: ClusterId,
        node: NodeId,
        index: MpIndex,
        nodes_max: u16,
    ) -> Partition {
        Partition {
            cluster,
            node,
            index,
            nodes_max,
            extinguished: false,
            ruled_out: None,
            own: None,
            step: Step::Ready,
            outstanding: None,
        }
    }

    pub(super) fn index(&self) -> MpIndex {
        self.index
    }

    pub(super) fn awaits(&self, io: IoId) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.io == io)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.outstanding.is_none()
    }

    /// R5 is satisfied here.
    pub(super) fn extinguish(&mut self) {
        self.extinguished = true;
    }

    pub(super) fn ruled_out(&self) -> Option<Trouble> {
        self.ruled_out
    }

    pub(super) fn rule_out(&mut self, trouble: Trouble) {
        self.ruled_out = Some(trouble);
        self.step = Step::Failed(trouble);
    }

    /// The own record is known, so that it can be written.
    pub(super) fn is_loaded(&self) -> bool {
        self.own.is_some() && self.ruled_out.is_none()
    }

    /// The own promise; the zero ballot before it is known.
    pub(super) fn own_promise(&self) -> Ballot {
        self.own.as_ref().map_or(Ballot::ZERO, |own| own.record.promised)
    }

    pub(super) fn picture(&self) -> Option<&Picture> {
        match &self.step {
            Step::Counted(picture) => Some(picture),
            Step::Ready
            | Step::Loading { .. }
            | Step::Writing { .. }
            | Step::Checking { .. }
            | Step::Failed(_) => None,
        }
    }

    pub(super) fn failure(&self) -> Option<Trouble> {
        match &self.step {
            Step::Failed(trouble) => Some(*trouble),
            Step::Ready
            | Step::Loading { .. }
            | Step::Writing { .. }
            | Step::Checking { .. }
            | Step::Counted(_) => None,
        }
    }

    /// A new stage begins; a request of the former one may still be outstanding.
    pub(super) fn enter_stage(&mut self) {
        self.step = self.ruled_out.map_or(Step::Ready, Step::Failed);
    }

    /// Is there nothing begun in this stage, and may something be?
    pub(super) fn is_ready(&self) -> bool {
        self.extinguished && matches!(self.step, Step::Ready)
    }

    pub(super) fn begin_loading(&mut self) {
        self.step = Step::Loading { scan: Scan::new(self.nodes_max), scans: 1 };
    }

    /// # Panics
    /// When the own record is not known, or would go back.
    pub(super) fn begin_writing(
        &mut self,
        incarnation: Incarnation,
        promised: Ballot,
        accepted: Option<(Ballot, &RegVal)>,
    ) {
        let own = self.own.as_mut().expect("the own record is read before it is written");
        assert!(promised >= own.record.promised, "promises of a node only grow");
        own.record.incarnation = incarnation;
        own.record.promised = promised;
        if let Some((ballot, value)) = accepted {
            assert!(ballot >= own.record.accepted, "accepted ballots of a node only grow");
            own.record.accepted = ballot;
            own.record.value = value.clone();
        }
        own.record.sequence += 1;
        let older_first = own.copies[0] <= own.copies[1];
        let copy = if older_first { CopyNo::First } else { CopyNo::Second };
        self.step = Step::Writing { copy, second: false, written: 0 };
    }

    /// What the present step needs next; it becomes the outstanding request. Nothing while one is
    /// outstanding.
    pub(super) fn poll_send(&mut self, io: IoId, stage_no: u64) -> Option<Send> {
        if self.outstanding.is_some() {
            return None;
        }
        let (send, what) = match &self.step {
            Step::Loading { scan, .. } | Step::Checking { scan, .. } => {
                let (block, count) = scan.next_run().expect("a complete pass ends the step");
                (Send::Read { block, count }, Io::Read)
            }
            Step::Writing { copy, .. } => {
                let own = self.own.as_ref().expect("the own record is read before it is written");
                let place = place(self.cluster, self.index, self.node, *copy);
                let data = own.record.encode(place);
                let what = Io::Write { copy: *copy, sequence: own.record.sequence };
                (Send::Write { block: place.block, data }, what)
            }
            Step::Ready | Step::Counted(_) | Step::Failed(_) => return None,
        };
        self.outstanding = Some(Outstanding { io, stage_no, what });
        Some(send)
    }

    /// # Panics
    /// When a read was outstanding.
    pub(super) fn handle_written(&mut self, ok: bool, stage_no: u64) {
        let outstanding = self.outstanding.take().expect("found by its id");
        let Io::Write { copy, sequence } = outstanding.what else {
            panic!("{:?} was a read", outstanding.io);
        };
        let own = self.own.as_mut().expect("only a known record is written");
        own.copies[copy.index()] =
            if ok { CopyState::Holds { sequence } } else { CopyState::Unsure };
        if outstanding.stage_no != stage_no {
            return;
        }
        let Step::Writing { second, written, .. } = self.step else {
            unreachable!("a write of this stage is outstanding only while writing")
        };
        let written = written + u32::from(ok);
        self.step = if !second {
            Step::Writing { copy: copy.other(), second: true, written }
        } else if written == 0 {
            Step::Failed(Trouble::Io)
        } else {
            Step::Checking { scan: Scan::new(self.nodes_max), scans: 1 }
        };
    }

    /// The highest promise seen, when a pass has become complete.
    ///
    /// # Panics
    /// When a write was outstanding.
    pub(super) fn handle_read(
        &mut self,
        blocks: Option<&[Block]>,
        stage_no: u64,
    ) -> Option<Ballot> {
        let outstanding = self.outstanding.take().expect("found by its id");
        assert!(matches!(outstanding.what, Io::Read), "{:?} was a write", outstanding.io);
        if outstanding.stage_no != stage_no {
            return None;
        }
        let (cluster, index) = (self.cluster, self.index);
        let (Step::Loading { scan, .. } | Step::Checking { scan, .. }) = &mut self.step else {
            unreachable!("a read of this stage is outstanding only while loading or checking")
        };
        if let Err(trouble) = scan.handle(blocks, cluster, index) {
            self.step = Step::Failed(trouble);
            return None;
        }
        if scan.next_run().is_some() {
            return None;
        }
        match self.conclude() {
            Ok(promised) => Some(promised),
            Err(trouble) => {
                self.repeat_or_fail(trouble);
                None
            }
        }
    }

    /// A pass is complete: what does it mean for this step?
    fn conclude(&mut self) -> Result<Ballot, Trouble> {
        let (Step::Loading { scan, .. } | Step::Checking { scan, .. }) = &self.step else {
            unreachable!("a pass belongs to loading or checking")
        };
        let copies = scan.copies(self.node);
        if matches!(self.step, Step::Checking { .. }) {
            self.verify(copies)?;
        }
        let picture = scan.picture()?;
        let promised = picture.promised();
        if self.own.is_none() {
            let state = |seen: &Seen| match seen.record() {
                Some(record) => CopyState::Holds { sequence: record.sequence },
                None => CopyState::Unsure,
            };
            let copies = copies.map(state);
            self.own = Some(Own { record: picture.record(self.node).clone(), copies });
            self.step = Step::Ready;
        } else {
            self.step = Step::Counted(picture);
        }
        Ok(promised)
    }

    /// Is the own record on disk what was written?
    fn verify(&self, copies: [&Seen; 2]) -> Result<(), Trouble> {
        let own = self.own.as_ref().expect("checked only after writing");
        let newest = CopyState::Holds { sequence: own.record.sequence };
        let (mut fresh, mut stale) = (false, false);
        for (seen, state) in copies.into_iter().zip(own.copies) {
            match seen.record() {
                Some(record) if *record == own.record => fresh = true,
                Some(record) if record.sequence >= own.record.sequence => {
                    return Err(Trouble::ForeignWriter);
                }
                Some(_) if state == newest => return Err(Trouble::WriteLost),
                Some(_) => stale = true,
                None => {}
            }
        }
        if stale {
            // Were the fresh copy lost, the stale one would count.
            Err(Trouble::StaleCopy)
        } else if fresh {
            Ok(())
        } else {
            Err(Trouble::Damaged { node: self.node })
        }
    }

    fn repeat_or_fail(&mut self, trouble: Trouble) {
        let repeat = matches!(trouble, Trouble::Damaged { .. } | Trouble::NewerFormat { .. });
        match &mut self.step {
            Step::Loading { scan, scans } | Step::Checking { scan, scans }
                if repeat && *scans < SCANS_MAX =>
            {
                *scan = Scan::new(self.nodes_max);
                *scans += 1;
            }
            Step::Ready
            | Step::Loading { .. }
            | Step::Writing { .. }
            | Step::Checking { .. }
            | Step::Counted(_)
            | Step::Failed(_) => {
                self.step = Step::Failed(trouble);
                if trouble.is_final() {
                    self.ruled_out = Some(trouble);
                }
            }
        }
    }

    /// Lets a new request go out beside one that has not ended: what R4 forbids.
    #[cfg(test)]
    pub(super) fn forget_outstanding(&mut self) {
        self.outstanding = None;
    }
}
