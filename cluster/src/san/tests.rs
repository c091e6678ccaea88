//! Mount groups and the script of recovery, with messages that arrive at once or are held back.

use mx_base::{Incarnation, SanGeneration, SlotId};

use super::*;
use crate::wire::Ending;

const A: FsId = FsId([0xa; 16]);
const B: FsId = FsId([0xb; 16]);
const NOW: Instant = Instant(1);

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn member(id: u16) -> Member {
    Member { node: node(id), incarnation: Incarnation(1) }
}

fn spaces(lockspace: u32) -> LockspaceId {
    LockspaceId(lockspace)
}

/// Nodes of one cluster, their register, and everything they wanted done.
struct Group {
    nodes: BTreeMap<u16, San>,
    value: RegisterValue,
    steps: Vec<(u16, Step)>,
    grants: Vec<(u16, FsId, LockspaceId, bool)>,
    revoked: Vec<(u16, FsId)>,
    wanted: Vec<(u16, Change)>,
    /// Messages from or to these wait.
    held_back: BTreeSet<u16>,
    waiting: Vec<(u16, u16, Control)>,
}

impl Group {
    fn of(nodes: u16) -> Group {
        let members: Vec<Member> = (1..=nodes).map(member).collect();
        let value = RegisterValue {
            generation: SanGeneration(1),
            view: ViewId(1),
            administrator: members.first().copied(),
            incarnations: members.iter().map(|m| (m.node, m.incarnation)).collect(),
            members,
            ..RegisterValue::initial()
        };
        let mut group = Group {
            nodes: (1..=nodes).map(|id| (id, San::default())).collect(),
            value,
            steps: Vec::new(),
            grants: Vec::new(),
            revoked: Vec::new(),
            wanted: Vec::new(),
            held_back: BTreeSet::new(),
            waiting: Vec::new(),
        };
        group.install(&[]);
        group
    }

    /// Everybody has mounted these.
    fn mounted(nodes: u16, files: &[FsId]) -> Group {
        let mut group = Group::of(nodes);
        for fs in files {
            for id in 1..=nodes {
                group.mount(id, *fs);
                group.finish_mount(id, *fs);
            }
        }
        group
    }

    fn install(&mut self, lost: &[u16]) {
        let lost: Vec<(Member, Instant)> = lost.iter().map(|id| (member(*id), NOW)).collect();
        let value = self.value.clone();
        for (id, san) in &mut self.nodes {
            san.handle_installed(member(*id), &value, &lost, None, NOW);
        }
        self.run();
    }

    /// These die, and the next view is installed everywhere.
    fn die(&mut self, dead: &[u16]) {
        self.commit_death(dead);
        self.install(dead);
    }

    fn commit_death(&mut self, dead: &[u16]) {
        self.value.generation.0 += 1;
        self.value.view.0 += 1;
        self.value.phase = Phase::Fencing;
        for id in dead {
            self.nodes.remove(id);
            self.value.members.retain(|m| m.node != node(*id));
            self.value.victims.insert(node(*id), Incarnation(1));
            self.waiting.retain(|(from, to, _)| from != id && to != id);
        }
        if !self.value.administrator.is_some_and(|admin| self.value.contains(admin)) {
            self.value.administrator = self.value.members.first().copied();
        }
    }

    fn record(&mut self, phase: Phase) {
        self.value.generation.0 += 1;
        self.value.phase = phase;
        let value = self.value.clone();
        for san in self.nodes.values_mut() {
            san.handle_phase(&value, NOW);
        }
        self.run();
    }

    fn run(&mut self) {
        loop {
            let mut effects = Vec::new();
            for (id, san) in &mut self.nodes {
                while let Some(effect) = san.poll_effect() {
                    effects.push((*id, effect));
                }
            }
            if effects.is_empty() {
                return;
            }
            for (id, effect) in effects {
                match effect {
                    Effect::Send { to, control } => self.deliver(id, to.get(), control),
                    Effect::Step(step) => self.steps.push((id, step)),
                    Effect::MountGranted { fs, lockspace, first } => {
                        self.grants.push((id, fs, lockspace, first));
                    }
                    Effect::MountRevoked { fs, .. } => self.revoked.push((id, fs)),
                    Effect::WantPhase(change) => self.wanted.push((id, change)),
                    Effect::MountGroupChanged { .. } => {}
                    Effect::Scoped { .. } | Effect::Recovered { .. } => {}
                }
            }
        }
    }

    fn deliver(&mut self, from: u16, to: u16, control: Control) {
        if self.held_back.contains(&from) || self.held_back.contains(&to) {
            self.waiting.push((from, to, control));
        } else if let Some(san) = self.nodes.get_mut(&to) {
            san.handle_control(node(from), control, NOW);
        }
    }

    fn let_go(&mut self) {
        self.held_back.clear();
        for (from, to, control) in std::mem::take(&mut self.waiting) {
            self.deliver(from, to, control);
        }
        self.run();
    }

    fn with(&mut self, id: u16, call: impl FnOnce(&mut San)) {
        call(self.nodes.get_mut(&id).expect("alive"));
        self.run();
    }

    fn mount(&mut self, id: u16, fs: FsId) {
        self.with(id, |san| san.handle_mount(fs, NOW).expect("not mounted"));
    }

    fn finish_mount(&mut self, id: u16, fs: FsId) {
        let granted = self.grants.iter().rev().find(|(to, of, ..)| *to == id && *of == fs);
        let lockspace = granted.expect("granted").2;
        self.with(id, |san| {
            san.handle_mounted(fs, lockspace, SlotId(id), NOW).expect("granted");
        });
    }

    fn fenced(&mut self, by: u16, dead: u16) {
        self.with(by, |san| san.handle_fenced(member(dead), NOW));
    }

    fn rebuilt(&mut self) {
        let view = self.value.view;
        let ids: Vec<u16> = self.nodes.keys().copied().collect();
        for id in ids {
            for fs in [A, B] {
                self.with(id, |san| san.handle_rebuilt(view, fs, NOW));
            }
        }
    }

    /// Who was told to replay what, in order.
    fn replays(&self) -> Vec<(u16, u16, FsId)> {
        let replay = |(by, step): &(u16, Step)| {
            let Step::Replay { dead, fs, .. } = step else { return None };
            Some((*by, dead.node.get(), *fs))
        };
        self.steps.iter().filter_map(replay).collect()
    }

    fn resumed(&self, dead: u16, fs: FsId) -> Vec<(u16, Ending)> {
        let resume = |(by, step): &(u16, Step)| {
            let Step::Resume { dead: of, fs: in_fs, ending } = step else { return None };
            (*of == member(dead) && *in_fs == fs).then_some((*by, *ending))
        };
        self.steps.iter().filter_map(resume).collect()
    }

    fn granted(&mut self) -> Vec<(u16, FsId, LockspaceId, bool)> {
        std::mem::take(&mut self.grants)
    }
}

// Mount groups

#[test]
fn the_first_to_mount_is_alone_until_it_is_ready() {
    let mut group = Group::of(3);
    group.mount(2, A);
    group.mount(3, A);
    assert_eq!(group.granted(), [(2, A, spaces(1), true)]);
    group.grants.push((2, A, spaces(1), true));
    group.finish_mount(2, A);
    assert_eq!(group.granted()[1..], [(3, A, spaces(1), false)]);
}

#[test]
fn every_first_mount_gets_a_lock_space_of_its_own() {
    let mut group = Group::mounted(2, &[A]);
    for id in [1, 2] {
        group.with(id, |san| san.handle_unmounted(A, NOW));
    }
    group.granted();
    group.mount(2, A);
    group.mount(1, B);
    assert_eq!(group.granted(), [(2, A, spaces(2), true), (1, B, spaces(3), true)]);
}

#[test]
fn a_first_mount_waits_until_every_dead_member_is_proven_fenced() {
    let mut group = Group::of(3);
    group.mount(3, A);
    group.granted();
    group.die(&[3]);
    group.mount(2, A);
    assert_eq!(group.granted(), []);
    group.fenced(1, 3);
    group.record(Phase::Fenced);
    assert_eq!(group.granted(), [(2, A, spaces(2), true)]);
}

#[test]
fn a_mount_beside_others_starts_over_when_a_member_dies_meanwhile() {
    let mut group = Group::of(3);
    group.mount(3, A);
    group.finish_mount(3, A);
    group.mount(2, A);
    assert_eq!(group.granted().pop(), Some((2, A, spaces(1), false)));
    group.die(&[3]);
    assert_eq!(group.revoked, [(2, A)]);
    let late = |san: &mut San| {
        let result = san.handle_mounted(A, spaces(1), SlotId(2), NOW);
        assert_eq!(result, Err(MountError::GrantGone));
    };
    group.with(2, late);
    group.fenced(1, 3);
    group.record(Phase::Fenced);
    assert_eq!(group.granted(), [(2, A, spaces(2), true)], "it is the first then");
}

/// Whoever waits for a lock of the dead member would wait for ever: nobody replays its journal.
#[test]
fn a_mount_beside_others_starts_over_when_the_last_of_them_leaves_a_dead_member_unreplayed() {
    for (leaver, mounter) in [(3, 2), (2, 3), (3, 1)] {
        let mut group = Group::of(4);
        for id in [4, leaver] {
            group.mount(id, A);
            group.finish_mount(id, A);
        }
        group.die(&[4]);
        group.mount(mounter, A);
        assert_eq!(group.granted().pop(), Some((mounter, A, spaces(1), false)));
        group.with(leaver, |san| san.handle_unmounted(A, NOW));
        assert_eq!(group.revoked, [(mounter, A)]);
        assert_eq!(group.granted(), [], "the dead member may write yet");
        group.fenced(1, 4);
        group.record(Phase::Fenced);
        assert_eq!(group.granted(), [(mounter, A, spaces(2), true)], "it replays what is left");
    }
}

/// A mount that was completed when the last of the others left: the news of it comes after theirs.
#[test]
fn what_a_dead_member_left_is_replayed_by_whoever_had_just_mounted_when_the_last_user_left() {
    let mut group = Group::of(4);
    for id in [3, 4] {
        group.mount(id, A);
        group.finish_mount(id, A);
    }
    group.die(&[4]);
    group.mount(2, A);
    group.held_back.insert(2);
    group.finish_mount(2, A);
    group.with(3, |san| san.handle_unmounted(A, NOW));
    group.fenced(1, 4);
    assert_eq!(group.resumed(4, A), [], "node 2 may be able to replay");
    group.let_go();
    assert_eq!(group.replays(), [(2, 4, A)]);
    assert_eq!(group.resumed(4, A), []);
}

/// It starts over only while it knows that somebody is dead.
#[test]
fn nothing_is_recorded_as_recovered_while_a_mount_beside_others_has_not_started_over() {
    let mut group = Group::of(4);
    for id in [3, 4] {
        group.mount(id, A);
        group.finish_mount(id, A);
    }
    group.die(&[4]);
    group.mount(2, A);
    group.held_back.insert(2);
    group.with(3, |san| san.handle_unmounted(A, NOW));
    group.fenced(1, 4);
    group.record(Phase::Fenced);
    assert!(!group.wanted.contains(&(1, Change::Recovered)));
    group.let_go();
    assert_eq!(group.revoked, [(2, A)]);
    assert_eq!(group.resumed(4, A).len(), 3);
    assert!(group.wanted.contains(&(1, Change::Recovered)));
}

#[test]
fn a_mount_beside_others_goes_on_when_they_leave_and_nobody_is_dead() {
    let mut group = Group::of(2);
    group.mount(1, A);
    group.finish_mount(1, A);
    group.mount(2, A);
    group.with(1, |san| san.handle_unmounted(A, NOW));
    assert_eq!(group.revoked, []);
    group.finish_mount(2, A);
}

#[test]
fn a_first_mount_goes_on_when_others_die() {
    let mut group = Group::of(3);
    group.mount(2, A);
    group.die(&[3]);
    assert_eq!(group.revoked, []);
    group.finish_mount(2, A);
}

#[test]
fn what_a_member_has_mounted_survives_whoever_leads() {
    let mut group = Group::mounted(3, &[A]);
    group.die(&[1]);
    for san in group.nodes.values() {
        assert_eq!(san.ready_members(A), [member(2), member(3)]);
    }
}

#[test]
fn a_node_with_something_mounted_or_to_replay_does_not_leave() {
    let mut group = Group::mounted(2, &[A]);
    assert!(!group.nodes[&1].may_leave());
    group.with(1, |san| san.handle_unmounted(A, NOW));
    assert!(group.nodes[&1].may_leave());
}

// The script

#[test]
fn hold_and_rebuild_come_at_once_replay_after_the_proof_and_resume_last() {
    let mut group = Group::mounted(3, &[A]);
    group.die(&[3]);
    for by in [1, 2] {
        let steps: Vec<Step> =
            group.steps.iter().filter(|(at, _)| *at == by).map(|(_, step)| *step).collect();
        let hold = Step::Hold { dead: member(3), fs: A };
        let rebuild = Step::Rebuild { view: ViewId(2), fs: A };
        assert!(steps.contains(&hold) && steps.contains(&rebuild), "node {by}: {steps:?}");
    }
    assert!(group.steps.contains(&(1, Step::Fence { dead: member(3) })));
    assert_eq!(group.replays(), []);
    group.fenced(1, 3);
    assert_eq!(group.replays(), [(1, 3, A)]);
    group.with(1, |san| san.handle_replayed(member(3), A, Ending::Replayed, NOW));
    assert_eq!(group.resumed(3, A), [], "its lock tables are not rebuilt yet");
    group.rebuilt();
    assert_eq!(group.resumed(3, A), [(1, Ending::Replayed), (2, Ending::Replayed)]);
}

#[test]
fn the_administrator_records_each_phase_when_it_is_true_for_all_victims() {
    let mut group = Group::mounted(4, &[A]);
    group.die(&[3, 4]);
    group.wanted.clear();
    group.fenced(1, 3);
    assert_eq!(group.wanted, []);
    group.fenced(1, 4);
    assert!(group.wanted.contains(&(1, Change::Fenced)));
    group.record(Phase::Fenced);
    group.rebuilt();
    group.wanted.clear();
    for (by, dead, fs) in group.replays() {
        group.with(by, |san| san.handle_replayed(member(dead), fs, Ending::Replayed, NOW));
    }
    assert!(group.wanted.contains(&(1, Change::Recovered)));
    group.record(Phase::Recovered);
    for san in group.nodes.values() {
        assert!(san.recoveries().all(|recovery| recovery.ended.is_some()));
    }
}

/// The proofs of an administrator die with it.
#[test]
fn a_new_administrator_fences_whom_the_register_lists_once_more() {
    let mut group = Group::mounted(3, &[A]);
    group.die(&[3]);
    group.fenced(1, 3);
    group.steps.clear();
    group.die(&[1]);
    for dead in [1, 3] {
        assert!(group.steps.contains(&(2, Step::Fence { dead: member(dead) })));
    }
}

#[test]
fn several_dead_and_several_file_systems_are_spread_over_the_survivors() {
    let mut group = Group::mounted(4, &[A, B]);
    group.die(&[3, 4]);
    group.fenced(1, 3);
    group.fenced(1, 4);
    let replays = group.replays();
    assert_eq!(replays.len(), 4);
    for by in [1, 2] {
        assert_eq!(replays.iter().filter(|(at, ..)| *at == by).count(), 2, "{replays:?}");
    }
}

#[test]
fn a_recoverer_that_dies_is_replaced_only_when_it_is_fenced_itself() {
    let mut group = Group::mounted(4, &[A]);
    group.die(&[4]);
    group.fenced(1, 4);
    assert_eq!(group.replays(), [(1, 4, A)]);
    group.steps.clear();
    group.die(&[1]);
    group.fenced(2, 4);
    assert_eq!(group.replays(), [], "the first recoverer may still write");
    group.fenced(2, 1);
    let replays = group.replays();
    assert_eq!(replays.iter().filter(|(_, dead, _)| *dead == 4).count(), 1, "{replays:?}");
}

/// The recoverer's word is the only news of its replay: whoever named it is dead.
#[test]
fn a_new_leader_names_nobody_before_it_has_heard_from_everybody() {
    let mut group = Group::mounted(4, &[B]);
    group.mount(2, A);
    group.finish_mount(2, A);
    group.with(1, |san| san.handle_unmounted(B, NOW));
    group.die(&[4]);
    // Node 2 is to replay in A, so that B goes to node 3; but node 2 does not hear of either.
    group.held_back.insert(2);
    group.fenced(1, 4);
    assert_eq!(group.replays(), [(3, 4, B)]);
    group.with(2, |san| san.handle_unmounted(A, NOW));
    group.waiting.clear();
    group.held_back.insert(3);
    group.die(&[1]);
    group.fenced(2, 1);
    group.fenced(2, 4);
    assert_eq!(group.replays(), [(3, 4, B)], "node 3 has not reported");
    group.let_go();
    let of_four = group.replays().into_iter().filter(|(_, dead, _)| *dead == 4).count();
    assert_eq!(of_four, 1, "node 3 is still the one");
}

#[test]
fn a_replay_that_fails_isolates_and_the_recovery_ends() {
    let mut group = Group::mounted(2, &[A, B]);
    group.die(&[2]);
    group.fenced(1, 2);
    group.rebuilt();
    group.with(1, |san| san.handle_replayed(member(2), A, Ending::Isolated, NOW));
    assert_eq!(group.resumed(2, A), [(1, Ending::Isolated)]);
    assert_eq!(group.resumed(2, B), [], "the other file system is not ready because of that");
    group.with(1, |san| san.handle_replayed(member(2), B, Ending::Replayed, NOW));
    assert_eq!(group.resumed(2, B), [(1, Ending::Replayed)]);
}

#[test]
fn a_replay_that_does_not_end_holds_up_no_other_file_system() {
    let mut group = Group::mounted(3, &[A, B]);
    group.die(&[3]);
    group.fenced(1, 3);
    group.rebuilt();
    let by = group.replays().iter().find(|(_, _, fs)| *fs == B).map(|(by, ..)| *by);
    let by = by.expect("somebody replays it");
    group.with(by, |san| san.handle_replayed(member(3), B, Ending::Replayed, NOW));
    let mut resumed: Vec<u16> = group.resumed(3, B).iter().map(|(at, _)| *at).collect();
    resumed.sort_unstable();
    assert_eq!(resumed, [1, 2], "everybody goes on in B");
    assert_eq!(group.resumed(3, A), [], "A is being tried");
    assert!(group.nodes.values().all(|san| san.is_recovered(member(3), B)));
    assert!(group.nodes.values().all(|san| !san.is_recovered(member(3), A)));
}

/// What is in use nowhere is not among what the recovery is about.
#[test]
fn a_replay_that_does_not_end_holds_up_no_file_system_that_nobody_uses() {
    let mut group = Group::mounted(3, &[A]);
    group.die(&[3]);
    assert!(group.nodes.values().all(|san| !san.is_recovered(member(3), B)), "not yet fenced");
    group.fenced(1, 3);
    assert!(group.nodes.values().all(|san| san.is_recovered(member(3), B)));
    assert!(group.nodes.values().all(|san| !san.is_recovered(member(3), A)));
}

#[test]
fn what_nobody_uses_any_more_is_left_to_the_next_mount() {
    let mut group = Group::mounted(3, &[A]);
    group.with(1, |san| san.handle_unmounted(A, NOW));
    group.die(&[3]);
    group.with(2, |san| san.handle_unmounted(A, NOW));
    assert_eq!(group.resumed(3, A), [], "not before its fence");
    group.fenced(1, 3);
    assert_eq!(group.replays(), []);
    assert_eq!(group.resumed(3, A), [(1, Ending::Deferred), (2, Ending::Deferred)]);
    assert!(group.nodes.values().all(|san| san.is_recovered(member(3), A)));
}

/// The news of the phase may be faster than the leader's of each recovery.
#[test]
fn whom_the_register_lists_no_more_is_recovered_for_everybody() {
    let mut group = Group::mounted(3, &[A]);
    group.die(&[3]);
    assert!(group.nodes.values().all(|san| !san.is_recovered(member(3), A)));
    group.held_back.insert(2);
    group.fenced(1, 3);
    group.record(Phase::Fenced);
    assert!(!group.nodes[&2].is_recovered(member(3), A));
    group.record(Phase::Recovered);
    assert!(group.nodes[&2].is_recovered(member(3), A));
}

#[test]
fn a_recoverer_that_gives_the_file_system_up_is_replaced() {
    let mut group = Group::mounted(3, &[A]);
    group.die(&[3]);
    group.fenced(1, 3);
    assert_eq!(group.replays(), [(1, 3, A)]);
    group.with(1, |san| san.handle_unmounted(A, NOW));
    assert_eq!(group.replays(), [(1, 3, A), (2, 3, A)]);
    group.with(1, |san| san.handle_replayed(member(3), A, Ending::Replayed, NOW));
    group.rebuilt();
    assert_eq!(group.resumed(3, A), [], "only the recoverer's word counts");
}

/// After another death the lock tables are rebuilt for the new view.
#[test]
fn a_second_death_has_everything_rebuilt_again_and_replays_nothing_twice() {
    let mut group = Group::mounted(4, &[A]);
    group.die(&[4]);
    group.fenced(1, 4);
    group.with(1, |san| san.handle_replayed(member(4), A, Ending::Replayed, NOW));
    group.steps.clear();
    group.die(&[3]);
    let rebuild = Step::Rebuild { view: ViewId(3), fs: A };
    assert!(group.steps.contains(&(1, rebuild)) && group.steps.contains(&(2, rebuild)));
    group.fenced(1, 3);
    assert!(group.replays().iter().all(|(_, dead, _)| *dead == 3), "{:?}", group.replays());
    group.rebuilt();
    assert_eq!(group.resumed(4, A).len(), 2);
}

#[test]
fn news_of_a_view_not_installed_yet_waits_for_it() {
    let mut group = Group::mounted(3, &[A]);
    group.commit_death(&[1]);
    let (value, lost) = (group.value.clone(), [(member(1), NOW)]);
    // Node 3 acts in the new view, and reports to node 2, which does not know of it yet.
    let san = group.nodes.get_mut(&3).expect("alive");
    san.handle_installed(member(3), &value, &lost, None, NOW);
    group.run();
    let san = group.nodes.get_mut(&2).expect("alive");
    assert!(!san.collected);
    san.handle_installed(member(2), &value, &lost, None, NOW);
    group.run();
    assert!(group.nodes[&2].collected);
}

#[test]
fn a_joiner_starts_from_the_state_that_it_is_welcomed_with() {
    let mut group = Group::mounted(2, &[A]);
    group.die(&[2]);
    let state = group.nodes[&1].state();
    group.value.generation.0 += 1;
    group.value.view.0 += 1;
    group.value.members.push(member(3));
    let value = group.value.clone();
    let mut joiner = San::default();
    joiner.handle_installed(member(3), &value, &[], Some(&state), NOW);
    assert_eq!(joiner.ready_members(A), [member(1)]);
    assert_eq!(joiner.ledger.records(), state.dead);
}
