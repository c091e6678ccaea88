//! Storage membership (SMS, Figs. 7B and 7C): who has which file system mounted, and the order of
//! recovery.
//!
//! Every member keeps the whole state; the lowest member of the view leads. On a new view each
//! member reports what it knows and does, the leader merges all reports before it decides
//! anything, and tells everybody the whole state after each change. So whoever dies, what any
//! survivor has recorded is not lost, and what is lost with the dead is done once more.
//!
//! Keeps true:
//! * a message of this module counts in the view it names only; one of a later view waits for it;
//! * a member's mounts and running replays are what that member says;
//! * see [`recovery`] and [`mount_group`].

mod ledger;
mod mount_group;
mod recovery;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mx_base::{FsId, Instant, Member, NodeId, ViewId};

use crate::frame::LockspaceId;
use crate::output::Step;
use crate::register::{Change, Phase, RegisterValue};
use crate::wire::{Control, MountState, MountTable, SanEvent, SanReport, SanState};

use ledger::Ledger;
pub use ledger::{FsRecovery, Recovery};
pub use mount_group::{FILE_SYSTEMS_MAX, MountError};

/// Messages of views that this node has not installed yet. The others wait for its report, so few
/// can come; beyond the bound they are dropped, and the next view brings everything again.
const EARLY_MAX: usize = 1024;

/// What this module wants done, in order.
#[derive(Debug)]
pub(crate) enum Effect {
    Send {
        to: NodeId,
        control: Control,
    },
    Step(Step),
    MountGranted {
        fs: FsId,
        lockspace: LockspaceId,
        first: bool,
    },
    MountRevoked {
        fs: FsId,
        lockspace: LockspaceId,
    },
    MountGroupChanged {
        fs: FsId,
    },
    Scoped {
        dead: Member,
    },
    Recovered {
        dead: Member,
    },
    /// To be recorded in the register.
    WantPhase(Change),
}

/// The view this node acts in.
#[derive(Debug)]
struct Current {
    me: Member,
    value: RegisterValue,
}

impl Current {
    fn leader(&self) -> NodeId {
        self.value.members.first().expect("a view this node acts in has members").node
    }

    fn leads(&self) -> bool {
        self.leader() == self.me.node
    }
}

#[derive(Debug, Default)]
pub(crate) struct San {
    current: Option<Current>,
    /// What this node itself has mounted: the truth of its row in `table`.
    own: BTreeMap<FsId, MountState>,
    table: MountTable,
    /// Leader: since the last state that was sent.
    table_changed: bool,
    lockspace_high: u32,
    ledger: Ledger,
    local: recovery::Local,
    /// Leader: who has reported in this view; and whether all have.
    reported: BTreeSet<NodeId>,
    collected: bool,
    /// Leader: who has rebuilt which file system in this view.
    rebuilt_by: BTreeMap<FsId, BTreeSet<NodeId>>,
    /// Of the last state taken or sent in this view.
    sequence: u64,
    early: VecDeque<(NodeId, Control)>,
    effects: VecDeque<Effect>,
}

impl San {
    // The view

    /// This node acts in a new view. `suspected` says since when it suspected those it lost.
    pub(crate) fn handle_installed(
        &mut self,
        me: Member,
        value: &RegisterValue,
        lost: &[(Member, Instant)],
        admission: Option<&SanState>,
        now: Instant,
    ) {
        if let Some(state) = admission {
            self.set_table(state.mounts.clone());
            self.lockspace_high = state.lockspace_high;
            self.ledger.take(&state.dead, now);
        }
        let view = value.view;
        self.current = Some(Current { me, value: value.clone() });
        self.reported.clear();
        self.collected = false;
        self.rebuilt_by.clear();
        self.sequence = 0;
        self.local.handle_view();
        for (member, suspected) in lost {
            if value.is_unrecovered(*member) {
                let slots = self.slots_of(*member);
                self.ledger.add(*member, view, slots, *suspected, now);
            }
        }
        self.ledger.align(value, now);
        let mut table = self.table.clone();
        for group in table.values_mut() {
            group.retain(|member, _| value.contains(*member));
        }
        self.set_table(table);
        if !lost.is_empty() {
            self.revoke_unfinished();
        }
        self.fence_if_administrator();
        self.start_local_steps();
        let report = self.report(view);
        self.tell_leader(Control::SanReport(Box::new(report)), now);
        self.take_early(now);
    }

    /// The register has moved on within the view.
    pub(crate) fn handle_phase(&mut self, value: &RegisterValue, now: Instant) {
        let Some(current) = &mut self.current else { return };
        current.value = value.clone();
        if matches!(value.phase, Phase::Stable | Phase::Recovered) {
            self.ledger.close(now);
            self.local.handle_closed();
        } else {
            self.ledger.align(value, now);
        }
        self.fence_if_administrator();
        self.lead(now);
    }

    /// What a joiner of this view starts from.
    pub(crate) fn state(&self) -> SanState {
        let view = self.current.as_ref().map_or(ViewId(0), |current| current.value.view);
        SanState {
            view,
            sequence: self.sequence,
            mounts: self.table.clone(),
            lockspace_high: self.lockspace_high,
            dead: self.ledger.records(),
        }
    }

    /// The dead of which something may be left.
    pub(crate) fn unrecovered(&self) -> Vec<Member> {
        self.ledger.records().iter().map(|record| record.member).collect()
    }

    // Messages

    pub(crate) fn handle_control(&mut self, from: NodeId, control: Control, now: Instant) {
        let Some(view) = view_of(&control) else { return };
        let installed = self.current.as_ref().map_or(ViewId(0), |current| current.value.view);
        if view > installed {
            if self.early.len() < EARLY_MAX {
                self.early.push_back((from, control));
            }
            return;
        }
        if view < installed {
            self.handle_late(&control, now);
            return;
        }
        let is_member = |current: &Current| current.value.member(from).is_some();
        if !self.current.as_ref().is_some_and(is_member) {
            return;
        }
        match control {
            Control::SanReport(report) => self.handle_report(from, *report, now),
            Control::SanState(state) => self.handle_state(from, &state, now),
            Control::SanEvent { event, .. } => self.handle_event(from, event, now),
            Control::MountGranted { fs, lockspace, first, .. } => {
                self.handle_granted(from, fs, lockspace, first, now);
            }
            Control::JoinRequest { .. }
            | Control::JoinRefused(_)
            | Control::Propose(_)
            | Control::Agree { .. }
            | Control::Object { .. }
            | Control::Withdraw { .. }
            | Control::Order { .. }
            | Control::OrderDone { .. }
            | Control::Committed(_)
            | Control::JoinState { .. }
            | Control::Welcome { .. } => unreachable!("these are the membership's messages"),
        }
    }

    /// Of a view that has passed only what is true for ever counts.
    fn handle_late(&mut self, control: &Control, now: Instant) {
        if let Control::SanEvent { event: SanEvent::Fenced { dead }, .. } = control {
            self.ledger.fence(*dead, now);
            self.lead(now);
        }
    }

    fn take_early(&mut self, now: Instant) {
        for (from, control) in std::mem::take(&mut self.early) {
            self.handle_control(from, control, now);
        }
    }

    fn report(&self, view: ViewId) -> SanReport {
        SanReport {
            view,
            mounts: self.own.clone(),
            lockspace_high: self.lockspace_high,
            dead: self.ledger.records(),
            replaying: self.local.replaying(),
        }
    }

    /// Leader: what one member knows and does. Nothing is decided before all have reported.
    fn handle_report(&mut self, from: NodeId, report: SanReport, now: Instant) {
        let Some(current) = &self.current else { return };
        let Some(member) = current.value.member(from) else { return };
        if !current.leads() || !self.reported.insert(from) {
            return;
        }
        self.lockspace_high = self.lockspace_high.max(report.lockspace_high);
        let mut table = self.table.clone();
        for group in table.values_mut() {
            group.remove(&member);
        }
        for (fs, state) in report.mounts {
            table.entry(fs).or_default().insert(member, state);
        }
        self.set_table(table);
        self.take_records(&report.dead, now);
        for (dead, fs) in report.replaying {
            self.ledger.confirm_recoverer(dead, fs, member);
        }
        let members = self.current.as_ref().map_or(0, |current| current.value.members.len());
        if self.reported.len() == members {
            self.collected = true;
            // Even when nothing changes, everybody learns what all reported.
            self.sequence += 1;
            self.publish();
        }
        self.lead(now);
    }

    /// What others have recorded counts as far as the register still lists it.
    fn take_records(&mut self, records: &[crate::wire::DeadRecord], now: Instant) {
        let Some(current) = &self.current else { return };
        let listed: Vec<_> =
            records.iter().filter(|r| current.value.is_unrecovered(r.member)).cloned().collect();
        self.ledger.take(&listed, now);
    }

    /// Member: the leader's word.
    fn handle_state(&mut self, from: NodeId, state: &SanState, now: Instant) {
        let Some(current) = &self.current else { return };
        if current.leader() != from || current.leads() || state.sequence <= self.sequence {
            return;
        }
        self.sequence = state.sequence;
        self.lockspace_high = self.lockspace_high.max(state.lockspace_high);
        self.set_table(state.mounts.clone());
        self.take_records(&state.dead, now);
        self.start_over_alone(now);
        self.start_local_steps();
        self.want_phase();
    }

    fn handle_event(&mut self, from: NodeId, event: SanEvent, now: Instant) {
        let Some(current) = &self.current else { return };
        let Some(member) = current.value.member(from) else { return };
        match event {
            SanEvent::Fenced { dead } => self.ledger.fence(dead, now),
            SanEvent::Rebuilt { fs } => {
                self.rebuilt_by.entry(fs).or_default().insert(from);
            }
            SanEvent::Replayed { dead, fs, ending } => {
                self.ledger.end_replay(dead, fs, member, ending, now);
            }
            SanEvent::MountAsked { fs } => self.set_mount(member, fs, Some(MountState::Asked)),
            SanEvent::Mounted { fs, lockspace, slot } => {
                self.set_mount(member, fs, Some(MountState::Ready { lockspace, slot }));
            }
            SanEvent::Unmounted { fs } => self.set_mount(member, fs, None),
        }
        self.lead(now);
    }

    // Leading

    /// Decides whatever can be decided, and tells everybody when something changed.
    fn lead(&mut self, now: Instant) {
        let leads = self.current.as_ref().is_some_and(Current::leads);
        if leads && self.collected {
            self.start_over_alone(now);
            let recovered = self.advance_recoveries(now);
            let granted = self.grant_mounts(now);
            let changed = std::mem::take(&mut self.table_changed);
            if recovered || granted || changed {
                self.sequence += 1;
                self.publish();
            }
        }
        self.start_local_steps();
        self.want_phase();
    }

    fn publish(&mut self) {
        let state = self.state();
        let Some(current) = &self.current else { return };
        for member in &current.value.members {
            if *member != current.me {
                let control = Control::SanState(Box::new(state.clone()));
                self.effects.push_back(Effect::Send { to: member.node, control });
            }
        }
    }

    /// To whoever leads the view: directly if that is this node.
    fn tell_leader(&mut self, control: Control, now: Instant) {
        let Some(current) = &self.current else { return };
        let (leader, me) = (current.leader(), current.me.node);
        if leader == me {
            self.handle_control(me, control, now);
        } else {
            self.effects.push_back(Effect::Send { to: leader, control });
        }
    }

    fn tell(&mut self, event: SanEvent, now: Instant) {
        let Some(view) = self.current.as_ref().map(|current| current.value.view) else { return };
        self.tell_leader(Control::SanEvent { view, event }, now);
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}

fn view_of(control: &Control) -> Option<ViewId> {
    match control {
        Control::SanReport(report) => Some(report.view),
        Control::SanState(state) => Some(state.view),
        Control::SanEvent { view, .. } | Control::MountGranted { view, .. } => Some(*view),
        Control::JoinRequest { .. }
        | Control::JoinRefused(_)
        | Control::Propose(_)
        | Control::Agree { .. }
        | Control::Object { .. }
        | Control::Withdraw { .. }
        | Control::Order { .. }
        | Control::OrderDone { .. }
        | Control::Committed(_)
        | Control::JoinState { .. }
        | Control::Welcome { .. } => None,
    }
}

#[cfg(test)]
mod tests;
