//! What must hold in every run, whatever happens.
//!
//! * Views: one per id, the same for everybody, as committed.
//! * Sides: no two lock spaces of one file system in the hands of processes that may write; a
//!   process that the newest view does not list stops or is fenced within a bound.
//! * Recovery: replay only after the fence proof, by one process at a time that could still write.
//! * Cold starts only when no listed member shows signs of life on the disk.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{Fault, LockspaceId, RegisterValue};
use mx_base::{FsId, Incarnation, Member, NodeId, View, ViewId};

use crate::node::Host;
use crate::world::U;

/// A process outside the newest view is fenced, or has learnt of it, within so long; if storage is
/// not cut off and nobody that has to fence it dies.
const SUPERSEDED_MAX: u64 = 60 * U;

#[derive(Default)]
pub(crate) struct Oracle {
    fenced: BTreeMap<NodeId, Incarnation>,
    /// Which process each member is.
    lives: BTreeMap<Member, u64>,
    views: BTreeMap<ViewId, View>,
    /// Who may be writing to each file system, in which lock space.
    users: BTreeMap<(FsId, Member), LockspaceId>,
    replays: BTreeMap<(Member, FsId), u64>,
    disk_signs: BTreeMap<Member, Vec<u64>>,
    committed_at: u64,
    next_check: u64,
}

impl Oracle {
    // Fencing

    pub(crate) fn fence(&mut self, dead: Member) {
        let up_to = self.fenced.entry(dead.node).or_insert(dead.incarnation);
        *up_to = (*up_to).max(dead.incarnation);
    }

    pub(crate) fn is_fenced(&self, member: Member) -> bool {
        self.fenced.get(&member.node).is_some_and(|up_to| member.incarnation <= *up_to)
    }

    // Views

    pub(crate) fn member(&mut self, me: Member, life: u64) {
        let former = self.lives.insert(me, life);
        assert!(former.is_none_or(|former| former == life), "two processes act as {me}");
    }

    pub(crate) fn agree_on(&mut self, view: &View) {
        let known = self.views.entry(view.id).or_insert_with(|| view.clone());
        assert_eq!(known.members(), view.members(), "two views have one id");
    }

    pub(crate) fn committed(&mut self, value: &RegisterValue, now: u64) {
        self.committed_at = now;
        if value.phase == cluster::Phase::Fenced || value.phase == cluster::Phase::Recovered {
            for (node, incarnation) in &value.victims {
                let dead = Member { node: *node, incarnation: *incarnation };
                assert!(self.is_fenced(dead), "{dead} is recorded as fenced and is not");
            }
        }
    }

    pub(crate) fn disk_sign(&mut self, member: Member, now: u64) {
        self.disk_signs.entry(member).or_default().push(now);
    }

    /// `issued` is when the machine asked for it. What was written in the last units before may
    /// not have been read yet; what was written before that must have been.
    pub(crate) fn check_cold_start(&self, me: Member, value: &RegisterValue, issued: u64) {
        let watched = issued.saturating_sub(7 * U)..issued.saturating_sub(3 * U);
        for member in &value.members {
            let mut signs = self.disk_signs.get(member).into_iter().flatten();
            assert!(
                !signs.any(|sign| watched.contains(sign)),
                "{me} starts a cluster although {member} is alive"
            );
        }
    }

    // File systems

    pub(crate) fn grant(&mut self, member: Member, fs: FsId, lockspace: LockspaceId, first: bool) {
        if self.is_fenced(member) {
            // It does not know yet, and can do no harm.
            return;
        }
        // A process that is gone may still have writes on their way: only the fence ends that.
        for ((of, user), known) in &self.users {
            if *of != fs || *user == member || self.is_fenced(*user) {
                continue;
            }
            assert!(!first, "{member} mounts {fs} first although {user} may write to it");
            assert_eq!(*known, lockspace, "{member} and {user} use {fs} in two lock spaces");
        }
        // A grant alone lets the process write: the first one replays.
        self.users.insert((fs, member), lockspace);
    }

    pub(crate) fn mounted(&mut self, member: Member, fs: FsId, lockspace: LockspaceId) {
        let granted = self.users.get(&(fs, member));
        assert!(self.is_fenced(member) || granted == Some(&lockspace), "{member} has no grant");
    }

    pub(crate) fn unmounted(&mut self, member: Member, fs: FsId) {
        self.users.remove(&(fs, member));
    }

    pub(crate) fn left(&mut self, member: Member) {
        assert!(!self.users.keys().any(|(_, user)| *user == member), "{member} left mounted");
    }

    // Recovery

    pub(crate) fn begin_replay(&mut self, dead: Member, fs: FsId, life: u64) {
        assert!(self.is_fenced(dead), "replay of {dead} before the proof of its fence");
        let by = self.lives.iter().find(|(_, known)| **known == life).map(|(member, _)| *member);
        if by.is_some_and(|by| self.is_fenced(by)) {
            // It does not know yet, and can do no harm.
            return;
        }
        if let Some(former) = self.replays.insert((dead, fs), life)
            && former != life
        {
            let member = self.lives.iter().find(|(_, l)| **l == former).map(|(m, _)| *m);
            let member = member.expect("a recoverer is a member");
            assert!(
                self.is_fenced(member),
                "two recoverers of {dead} in {fs}: {member} may still write"
            );
        }
    }

    pub(crate) fn end_replay(&mut self, dead: Member, fs: FsId, life: u64) {
        if self.replays.get(&(dead, fs)) == Some(&life) {
            self.replays.remove(&(dead, fs));
        }
    }

    pub(crate) fn give_up_replays(&mut self, fs: FsId, life: u64) {
        self.replays.retain(|(_, of), by| *of != fs || *by != life);
    }

    pub(crate) fn replays(&self, fs: FsId, life: u64) -> bool {
        self.replays.iter().any(|((_, of), by)| *of == fs && *by == life)
    }

    /// A member that is replaying.
    pub(crate) fn recoverer(&self) -> Option<Member> {
        let life = self.replays.values().next()?;
        self.lives.iter().find(|(_, known)| *known == life).map(|(member, _)| *member)
    }

    // Sides

    pub(crate) fn due(&mut self, now: u64) -> bool {
        let due = now >= self.next_check;
        if due {
            self.next_check = now + U;
        }
        due
    }

    pub(crate) fn check_sides(&self, hosts: &[Host], newest: &RegisterValue, now: u64) {
        let mut acting: BTreeMap<ViewId, BTreeSet<Member>> = BTreeMap::new();
        for host in hosts {
            let Some(process) = &host.process else { continue };
            let (Some(me), Some(view)) = (process.me, process.view) else { continue };
            if self.is_fenced(me) || host.paused_until > now || host.storage_cut {
                continue;
            }
            acting.entry(view).or_default().insert(me);
        }
        for (view, members) in &acting {
            assert!(*view <= newest.view, "{members:?} act in a view that was never committed");
            for member in members {
                if *view == newest.view {
                    assert!(newest.contains(*member), "{member} acts in a view without it");
                } else if !newest.contains(*member)
                    && now.saturating_sub(self.committed_at) > SUPERSEDED_MAX
                {
                    panic!("{member} goes on in {view:?}, {:?} is committed", newest.view);
                }
            }
        }
    }

    /// Faults that a node which keeps the rules can cause.
    pub(crate) fn check_fault(&self, fault: &Fault) {
        match fault {
            Fault::Refused(_) | Fault::RefusedUs(_) | Fault::TooSlow => {}
            Fault::Frame(_)
            | Fault::Handshake(_)
            | Fault::Link(_)
            | Fault::Control(_)
            | Fault::Heartbeat
            | Fault::GreetedTwice
            | Fault::TooManyStrangers
            | Fault::HeldTooMuch
            | Fault::TakesNothing
            | Fault::Distrusted => panic!("a node broke the rules: {fault}"),
        }
    }
}
