//! Which member has which file system mounted, in which slot (S3-044, S3-046).
//!
//! Keeps true:
//! * a member's row is what that member says; the leader adds grants only;
//! * the first to mount a file system is granted it alone, with a lock space of a new number, and
//!   only when every dead member is proven fenced: it replays whatever journals are dirty, and
//!   everybody else waits until it is ready;
//! * whoever was granted a mount beside others and had not finished it when a member died asks
//!   again: the one it relied on may be among the dead. It has stopped before it reports to the
//!   leader of the view, so nobody is granted the file system alone beside it. The same when the
//!   last one leaves that could have replayed what a dead member left.

use std::collections::BTreeMap;

use mx_base::{FsId, Instant, Member, NodeId, SlotId};

use super::{Effect, San};
use crate::frame::LockspaceId;
use crate::register::Phase;
use crate::wire::{Control, MountState, MountTable, SanEvent};

/// File systems that are mounted in one cluster at once. The state of all mounts and recoveries goes
/// in one message, and with 64 members and all of them dead but one it then still fits a frame.
pub const FILE_SYSTEMS_MAX: usize = 256;

/// Why a mount cannot be asked for or completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MountError {
    #[error("this node is no member of the cluster")]
    NotAMember,
    #[error("the file system is mounted here, or about to be")]
    AlreadyMounted,
    #[error("{FILE_SYSTEMS_MAX} file systems are mounted in this cluster")]
    TooMany,
    /// A member died meanwhile: start over with the grant that follows.
    #[error("the grant under which the mount was begun holds no longer")]
    GrantGone,
}

impl San {
    /// This node wants to mount; [`Effect::MountGranted`] follows.
    pub(crate) fn handle_mount(&mut self, fs: FsId, now: Instant) -> Result<(), MountError> {
        if self.current.is_none() {
            return Err(MountError::NotAMember);
        }
        if self.own.contains_key(&fs) {
            return Err(MountError::AlreadyMounted);
        }
        if self.table.len() >= FILE_SYSTEMS_MAX && !self.table.contains_key(&fs) {
            return Err(MountError::TooMany);
        }
        self.own.insert(fs, MountState::Asked);
        self.tell(SanEvent::MountAsked { fs }, now);
        Ok(())
    }

    /// The mount that was granted under `lockspace` is complete.
    pub(crate) fn handle_mounted(
        &mut self,
        fs: FsId,
        lockspace: LockspaceId,
        slot: SlotId,
        now: Instant,
    ) -> Result<(), MountError> {
        let granted = self.own.get(&fs).and_then(|state| state.lockspace());
        if granted != Some(lockspace) {
            return Err(MountError::GrantGone);
        }
        self.own.insert(fs, MountState::Ready { lockspace, slot });
        self.tell(SanEvent::Mounted { fs, lockspace, slot }, now);
        Ok(())
    }

    /// This node has given the file system up: unmounted, or the mount failed.
    pub(crate) fn handle_unmounted(&mut self, fs: FsId, now: Instant) {
        if self.own.remove(&fs).is_some() {
            self.local.forget_replays(fs);
            self.tell(SanEvent::Unmounted { fs }, now);
        }
    }

    /// Nothing is mounted and nothing is being replayed here.
    pub(crate) fn may_leave(&self) -> bool {
        self.own.is_empty() && self.local.replaying().is_empty()
    }

    pub(crate) fn mounts(&self) -> &MountTable {
        &self.table
    }

    /// The leader grants.
    pub(super) fn handle_granted(
        &mut self,
        from: NodeId,
        fs: FsId,
        lockspace: LockspaceId,
        first: bool,
        now: Instant,
    ) {
        let Some(current) = &self.current else { return };
        if current.leader() != from {
            return;
        }
        match self.own.get_mut(&fs) {
            Some(state @ (MountState::Asked | MountState::Granted { .. })) => {
                *state = MountState::Granted { lockspace, first };
                self.lockspace_high = self.lockspace_high.max(lockspace.0);
                self.effects.push_back(Effect::MountGranted { fs, lockspace, first });
            }
            Some(MountState::Ready { .. }) => {}
            None => self.tell(SanEvent::Unmounted { fs }, now),
        }
    }

    /// A member died: grants beside others that are not finished start over.
    pub(super) fn revoke_unfinished(&mut self) {
        for (fs, state) in &mut self.own {
            if let MountState::Granted { lockspace, first: false } = *state {
                *state = MountState::Asked;
                self.effects.push_back(Effect::MountRevoked { fs: *fs, lockspace });
            }
        }
    }

    /// The last that used a file system has left, and a dead member may have left something in it:
    /// nobody replays that, so a mount that was granted beside others starts over as the first.
    pub(super) fn start_over_alone(&mut self, now: Instant) {
        let Some(current) = &self.current else { return };
        let me = current.me;
        if self.ledger.records().is_empty() {
            return;
        }
        let is_alone = |(fs, state): (&FsId, &MountState)| {
            let MountState::Granted { lockspace, first: false } = *state else { return None };
            let group = self.table.get(fs)?;
            // The leader knows of the grant: what it says of the others is not older.
            let is_known = group.get(&me) == Some(state);
            let is_used = group.values().any(|state| state.is_ready());
            (is_known && !is_used).then_some((*fs, lockspace))
        };
        let alone: Vec<(FsId, LockspaceId)> = self.own.iter().filter_map(is_alone).collect();
        for (fs, lockspace) in alone {
            self.own.insert(fs, MountState::Asked);
            self.effects.push_back(Effect::MountRevoked { fs, lockspace });
            self.tell(SanEvent::MountAsked { fs }, now);
        }
    }

    /// Does somebody mount it beside others, and may have completed that by now?
    pub(super) fn is_mounted_beside(&self, fs: FsId) -> bool {
        let mut group = self.table.get(&fs).into_iter().flat_map(BTreeMap::values);
        group.any(|state| matches!(state, MountState::Granted { first: false, .. }))
    }

    /// Leader: grants what can be granted. True when something was.
    pub(super) fn grant_mounts(&mut self, now: Instant) -> bool {
        let Some(current) = &self.current else { return false };
        let all_fenced = current.value.phase != Phase::Fencing
            && self.ledger.records().iter().all(|record| record.fenced);
        let mut grants: Vec<(FsId, Member, Option<LockspaceId>)> = Vec::new();
        for (fs, group) in &self.table {
            let asked = || group.iter().filter(|(_, s)| **s == MountState::Asked).map(|(m, _)| *m);
            let ready = group.values().find(|state| state.is_ready());
            let begun = group.values().any(|s| matches!(s, MountState::Granted { .. }));
            match ready {
                Some(state) => grants.extend(asked().map(|m| (*fs, m, state.lockspace()))),
                None if all_fenced && !begun => {
                    grants.extend(asked().next().map(|member| (*fs, member, None)));
                }
                None => {}
            }
        }
        let granted = !grants.is_empty();
        for (fs, member, shared) in grants {
            let first = shared.is_none();
            let lockspace = shared.unwrap_or_else(|| {
                self.lockspace_high += 1;
                LockspaceId(self.lockspace_high)
            });
            self.set_mount(member, fs, Some(MountState::Granted { lockspace, first }));
            self.send_grant(member, fs, lockspace, first, now);
        }
        granted
    }

    fn send_grant(
        &mut self,
        to: Member,
        fs: FsId,
        lockspace: LockspaceId,
        first: bool,
        now: Instant,
    ) {
        let Some(current) = &self.current else { return };
        let (me, view) = (current.me, current.value.view);
        if to == me {
            self.handle_granted(me.node, fs, lockspace, first, now);
        } else {
            let control = Control::MountGranted { view, fs, lockspace, first };
            self.effects.push_back(Effect::Send { to: to.node, control });
        }
    }

    pub(super) fn set_mount(&mut self, member: Member, fs: FsId, state: Option<MountState>) {
        let mut table = self.table.clone();
        let group = table.entry(fs).or_default();
        match state {
            Some(state) => group.insert(member, state),
            None => group.remove(&member),
        };
        self.set_table(table);
    }

    /// Replaces what is known of all mounts and tells of every group that changed.
    pub(super) fn set_table(&mut self, mut table: MountTable) {
        table.retain(|_, group| !group.is_empty());
        let files: std::collections::BTreeSet<FsId> =
            table.keys().chain(self.table.keys()).copied().collect();
        for fs in files {
            if table.get(&fs) != self.table.get(&fs) {
                self.table_changed = true;
                self.effects.push_back(Effect::MountGroupChanged { fs });
            }
        }
        self.table = table;
    }

    /// Where a member had what mounted.
    pub(super) fn slots_of(&self, member: Member) -> BTreeMap<FsId, SlotId> {
        let slot = |(fs, group): (&FsId, &BTreeMap<Member, MountState>)| match group.get(&member) {
            Some(MountState::Ready { slot, .. }) => Some((*fs, *slot)),
            Some(MountState::Asked | MountState::Granted { .. }) | None => None,
        };
        self.table.iter().filter_map(slot).collect()
    }

    /// Members that use the file system, in order.
    pub(super) fn ready_members(&self, fs: FsId) -> Vec<Member> {
        let group = self.table.get(&fs).into_iter().flatten();
        group.filter(|(_, state)| state.is_ready()).map(|(member, _)| *member).collect()
    }
}
