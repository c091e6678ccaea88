//! Named situations without other faults, and the times that the timers promise for them.

use mx_base::ViewId;

use crate::faults::Fault;
use crate::world::{Event, U, Weather, World, node_id};

/// A cluster of `nodes`, all of them members, everything mounted everywhere.
fn formed(nodes: usize) -> World {
    formed_from(nodes, 100 + nodes as u64)
}

fn formed_from(nodes: usize, seed: u64) -> World {
    let mut world = World::new(seed, nodes, Weather::CALM);
    for host in 0..nodes {
        world.at(host as u64 * U / 4, Event::Start { host });
    }
    world.calm = true;
    world.run_while(100 * U, |world| world.unhealed().is_some());
    assert_eq!(world.unhealed(), None);
    let settle = world.now + 10 * U;
    world.run_until(settle);
    world
}

impl World {
    /// Everybody but these has installed a view without them.
    fn goes_on_without(&self, gone: &[usize]) -> bool {
        let newest = &self.register.value;
        gone.iter().all(|host| newest.member(node_id(*host)).is_none())
            && (0..self.hosts.len()).filter(|host| !gone.contains(host)).all(|host| {
                let process = self.hosts[host].process.as_ref();
                let view = process.and_then(|process| process.view);
                view == Some(newest.view) && newest.member(node_id(host)).is_some()
            })
    }

    fn time_until(&mut self, longest: u64, done: impl Fn(&World) -> bool) -> u64 {
        let began = self.now;
        self.run_while(longest, |world| !done(world));
        assert!(done(self), "not done within {} U", longest / U);
        self.now - began
    }

    fn power_off(&mut self, host: usize) {
        self.fault(Fault::PowerOff { host, until: u64::MAX });
    }

    fn view(&self) -> ViewId {
        self.register.value.view
    }

    fn administrator(&self) -> usize {
        let administrator = self.register.value.administrator.expect("a formed cluster has one");
        administrator.node.index()
    }

    /// Both ways between each of `one` and each of `other`.
    fn separate(&mut self, one: &[usize], other: &[usize]) {
        for from in one {
            for to in other {
                self.net.cut[*from][*to] = true;
                self.net.cut[*to][*from] = true;
            }
        }
    }
}

/// S3-160 to S3-164, R9: the connection is reset and no process listens any more.
#[test]
fn a_process_that_crashed_is_out_of_the_view_within_three_units() {
    for nodes in 2..=6 {
        for victim in 0..nodes {
            let mut world = formed(nodes);
            world.kill(victim);
            let time = world.time_until(10 * U, |world| world.goes_on_without(&[victim]));
            assert!(time < 3 * U, "{nodes} nodes, node {victim}: {} ms", time / 1_000_000);
        }
    }
}

#[test]
fn a_host_that_fell_silent_is_out_of_the_view_within_ten_units() {
    for nodes in 2..=6 {
        for victim in 0..nodes {
            let mut world = formed(nodes);
            world.power_off(victim);
            let time = world.time_until(20 * U, |world| world.goes_on_without(&[victim]));
            assert!(time < 10 * U, "{nodes} nodes, node {victim}: {} ms", time / 1_000_000);
        }
    }
}

#[test]
fn a_recovery_after_a_crash_ends_soon_and_records_each_phase_in_order() {
    let mut world = formed(3);
    world.kill(1);
    world.time_until(20 * U, |world| {
        let process = world.hosts[0].process.as_ref().expect("it lives");
        process.machine.recoveries().any(|recovery| recovery.ended.is_some())
    });
    let machine = &world.hosts[0].process.as_ref().expect("it lives").machine;
    let recovery = machine.recoveries().last().expect("one recovery").clone();
    assert!(recovery.suspected <= recovery.dropped);
    let fenced = recovery.fenced.expect("fenced");
    assert_eq!(recovery.file_systems.len(), 2);
    for course in recovery.file_systems.values() {
        let replayed = course.replayed.expect("replayed");
        assert!(recovery.dropped <= fenced && fenced <= replayed);
        assert!(course.rebuilt.expect("rebuilt") <= course.resumed.expect("resumed"));
        assert!(replayed <= course.resumed.expect("resumed"));
    }
}

#[test]
fn the_last_one_standing_goes_on() {
    let mut world = formed(5);
    for victim in [0, 3, 1, 2] {
        world.kill(victim);
        let gone: Vec<usize> = (0..5).filter(|host| world.hosts[*host].process.is_none()).collect();
        world.time_until(10 * U, |world| world.goes_on_without(&gone));
    }
    assert_eq!(world.register.value.members.len(), 1);
}

#[test]
fn several_that_crash_together_leave_in_few_views() {
    let mut world = formed(6);
    let before = world.view();
    for victim in [0, 2, 4] {
        world.kill(victim);
    }
    let time = world.time_until(20 * U, |world| world.goes_on_without(&[0, 2, 4]));
    assert!(time < 6 * U, "{} ms", time / 1_000_000);
    assert!(world.view().0 - before.0 <= 3);
}

// Nobody is dropped without need

#[test]
fn a_cluster_in_which_nothing_happens_keeps_its_view() {
    let mut world = formed(4);
    let (view, generation) = (world.view(), world.register.value.generation);
    let end = world.now + 300 * U;
    world.run_until(end);
    assert_eq!((world.view(), world.register.value.generation), (view, generation));
}

#[test]
fn connections_that_break_again_and_again_expel_nobody() {
    let mut world = formed(4);
    let view = world.view();
    for _ in 0..40 {
        world.fault(Fault::BreakConnections { percent: 70 });
        let next = world.now + 2 * U;
        world.run_until(next);
    }
    assert_eq!(world.view(), view);
}

#[test]
fn a_pause_shorter_than_the_suspicion_expels_nobody() {
    let mut world = formed(3);
    let view = world.view();
    for host in [0, 1, 2, 0] {
        let until = world.now + 37 * U / 10;
        world.fault(Fault::Pause { host, until });
        let next = world.now + 10 * U;
        world.run_until(next);
    }
    assert_eq!(world.view(), view);
}

/// As when a host takes its processors from several virtual machines at once.
#[test]
fn of_many_that_are_not_run_for_a_while_nobody_is_expelled_by_the_few_that_are() {
    let mut world = formed(5);
    let view = world.view();
    for running in [0, 3, 4] {
        let until = world.now + 7 * U;
        for host in (0..5).filter(|host| *host != running) {
            world.fault(Fault::Pause { host, until });
        }
        let next = world.now + 20 * U;
        world.run_until(next);
        assert_eq!(world.view(), view, "host {running} went on alone");
    }
}

/// The same, and one of them goes on a little later.
#[test]
fn of_all_that_are_not_run_for_a_while_the_last_to_go_on_is_not_expelled() {
    let mut world = formed(3);
    let view = world.view();
    for last in [2, 0, 1] {
        for host in 0..3 {
            let until = world.now + if host == last { 10 * U } else { 7 * U };
            world.fault(Fault::Pause { host, until });
        }
        let next = world.now + 30 * U;
        world.run_until(next);
        assert_eq!(world.view(), view, "host {last} was expelled");
    }
}

/// 4.7: disk silence alone never evicts a node whose heartbeats are fine.
#[test]
fn storage_lost_on_some_or_all_nodes_expels_nobody() {
    let mut world = formed(3);
    let view = world.view();
    for cut in [vec![1], vec![0, 1, 2]] {
        for host in &cut {
            world.fault(Fault::CutStorage { host: *host });
        }
        let until = world.now + 60 * U;
        world.run_until(until);
        for host in cut {
            world.fault(Fault::HealStorage { host });
        }
    }
    assert_eq!(world.view(), view);
}

/// They vouch for each other, and cannot know of it. The oracle looks at their permits.
#[test]
fn members_that_have_all_lost_storage_have_no_permit_when_a_stranger_has_started_cold() {
    let mut world = formed(3);
    world.separate(&[0, 1], &[2]);
    world.time_until(40 * U, |world| world.goes_on_without(&[2]));
    let until = world.now + 10 * U;
    world.run_until(until);
    for host in [0, 1] {
        world.fault(Fault::CutStorage { host });
    }
    let stranger = node_id(2);
    world.time_until(100 * U, |world| {
        let members = &world.register.value.members;
        members.len() == 1 && members[0].node == stranger
    });
    let until = world.now + 20 * U;
    world.run_until(until);
    let serves = |host: usize| {
        let process = world.hosts[host].process.as_ref().expect("it runs");
        process.machine.permit_until() > world.hosts[host].clock(world.now)
    };
    assert!(!serves(0) && !serves(1));
}

// Partitions (I9, R12)

#[test]
fn of_two_nodes_that_do_not_hear_each_other_the_administrator_goes_on() {
    let mut world = formed(2);
    let (stays, goes) = (world.administrator(), 1 - world.administrator());
    world.separate(&[0], &[1]);
    let time = world.time_until(20 * U, |world| world.goes_on_without(&[goes]));
    assert!(time < 8 * U, "{} ms", time / 1_000_000);
    let until = world.now + 30 * U;
    world.run_until(until);
    assert!(world.register.value.member(node_id(stays)).is_some());
    let members = &world.register.value.members;
    assert_eq!(members.len(), 1, "the other one stays out while it is cut off: {members:?}");
    world.net.heal();
    world.time_until(60 * U, |world| world.unhealed().is_none());
}

#[test]
fn the_larger_side_of_a_partition_goes_on() {
    for seed in 0..8 {
        let mut world = formed_from(5, seed);
        world.separate(&[0, 1], &[2, 3, 4]);
        let time = world.time_until(30 * U, |world| {
            let newest = &world.register.value;
            newest.members.len() == 3 && (2..5).all(|h| newest.member(node_id(h)).is_some())
        });
        assert!(time < 10 * U, "seed {seed}: {} ms", time / 1_000_000);
    }
}

/// The side that would be preferred has no storage: the other one does not wait for ever.
#[test]
fn the_smaller_side_goes_on_when_the_larger_has_lost_storage() {
    let mut world = formed(3);
    for host in [1, 2] {
        world.fault(Fault::CutStorage { host });
    }
    world.separate(&[0], &[1, 2]);
    let time = world.time_until(40 * U, |world| {
        world.register.value.members.iter().map(|m| m.node).eq([node_id(0)])
    });
    assert!(time < 20 * U, "{} ms", time / 1_000_000);
}

#[test]
fn of_two_that_lost_each_other_but_not_the_third_one_goes() {
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let mut world = formed(3);
        let before = world.view();
        world.separate(&[a], &[b]);
        world.time_until(40 * U, |world| world.view() > before);
        let until = world.now + 40 * U;
        world.run_until(until);
        let members = &world.register.value.members;
        assert_eq!(members.len(), 2, "{members:?}");
        let third = (0..3).find(|host| *host != a && *host != b).expect("three nodes");
        assert!(world.register.value.member(node_id(third)).is_some());
    }
}

#[test]
fn a_node_that_hears_but_is_not_heard_goes() {
    let mut world = formed(4);
    for to in 1..4 {
        world.net.cut[0][to] = true;
    }
    let time = world.time_until(30 * U, |world| {
        world.register.value.members.iter().map(|m| m.node.index()).eq([1, 2, 3])
    });
    assert!(time < 12 * U, "{} ms", time / 1_000_000);
}

/// R13: from the moment a member agrees to drop another it does not answer it. Node 2 hears node
/// 3 all the time, node 1 does not, and the register takes long; node 3 is stopped before it can
/// hear how it ended. The oracle looks at its permit.
#[test]
fn a_node_that_is_about_to_be_dropped_loses_its_permit_although_it_is_heard() {
    let mut world = formed(3);
    world.weather.commit_delay = 49 * U / 10;
    world.separate(&[0], &[2]);
    world.time_until(20 * U, |world| {
        let process = world.hosts[0].process.as_ref().expect("it lives");
        process.machine.activity() == "committing"
    });
    let almost = world.now + 46 * U / 10;
    world.run_until(almost);
    assert_eq!(world.register.value.members.len(), 3);
    world.fault(Fault::Pause { host: 2, until: almost + 20 * U });
    world.time_until(U, |world| world.register.value.members.len() == 2);
    let until = world.now + 10 * U;
    world.run_until(until);
}

// The coordinator's candidate (Fig. 11)

#[test]
fn a_coordinator_without_storage_has_another_member_commit() {
    let mut world = formed(4);
    world.fault(Fault::CutStorage { host: 0 });
    let soon = world.now + 5 * U;
    world.run_until(soon);
    world.kill(3);
    let time = world.time_until(30 * U, |world| world.goes_on_without(&[3]));
    assert!(time < 10 * U, "{} ms", time / 1_000_000);
    assert_ne!(world.administrator(), 0, "whoever commits administers");
}

// Joins, leaves, restarts

#[test]
fn a_planned_leave_makes_nobody_a_victim_and_takes_two_views() {
    let mut world = formed(3);
    let before = world.register.value.clone();
    world.leave(0);
    let time = world.time_until(20 * U, |world| world.register.value.members.len() == 2);
    assert!(time < 3 * U, "{} ms", time / 1_000_000);
    assert_eq!(world.register.value.view.0, before.view.0 + 1);
    assert!(world.register.value.unrecovered().is_empty());
    world.time_until(100 * U, |world| world.unhealed().is_none());
    assert_eq!(world.register.value.view.0, before.view.0 + 2, "it left and joined again");
}

#[test]
fn after_all_have_left_the_next_one_starts_at_once() {
    let mut world = formed(3);
    for host in [0, 1, 2] {
        world.leave(host);
    }
    world.time_until(20 * U, |world| world.register.value.members.is_empty());
    assert!(world.register.value.unrecovered().is_empty());
    world.run_while(60 * U, |world| world.hosts[1].process.is_none());
    let time = world.time_until(40 * U, |world| {
        let process = world.hosts[1].process.as_ref();
        process.is_some_and(|process| process.view.is_some())
    });
    assert!(time < 8 * U, "nobody is listed, so nothing is waited for: {} ms", time / 1_000_000);
}

#[test]
fn a_process_that_restarts_at_once_joins_while_its_former_life_is_listed() {
    for victim in 0..3 {
        let mut world = formed(3);
        let former = world.register.value.member(node_id(victim)).expect("a member");
        world.kill(victim);
        world.start(victim);
        let time = world.time_until(40 * U, |world| {
            let newest = world.register.value.member(node_id(victim));
            newest.is_some_and(|member| member.incarnation > former.incarnation)
        });
        assert!(time < 15 * U, "{} ms", time / 1_000_000);
        assert!(world.oracle.is_fenced(former));
        world.time_until(40 * U, |world| world.unhealed().is_none());
    }
}

#[test]
fn when_all_lost_power_a_cold_start_waits_for_eight_quiet_units() {
    let mut world = formed(3);
    let before = world.register.value.clone();
    for host in 0..3 {
        world.power_off(host);
    }
    let off = world.now;
    for host in 0..3 {
        world.hosts[host].up = true;
        world.start(host);
    }
    world.time_until(60 * U, |world| world.view() > before.view);
    assert!(world.now - off >= 8 * U);
    world.time_until(100 * U, |world| world.unhealed().is_none());
    for member in before.members {
        assert!(world.oracle.is_fenced(member));
    }
}

#[test]
fn a_node_stopped_for_long_is_expelled_when_it_goes_on_and_joins_again() {
    for host in 0..2 {
        let mut world = formed(2);
        let former = world.register.value.member(node_id(host)).expect("a member");
        let until = world.now + 50 * U;
        world.fault(Fault::Pause { host, until });
        world.time_until(20 * U, |world| world.goes_on_without(&[host]));
        world.run_until(until);
        world.time_until(100 * U, |world| world.unhealed().is_none());
        let newest = world.register.value.member(node_id(host)).expect("a member again");
        assert!(newest.incarnation > former.incarnation);
    }
}

#[test]
fn a_recoverer_that_dies_is_replaced_after_its_own_fence() {
    let mut world = formed(4);
    world.kill(3);
    world.time_until(20 * U, |world| world.oracle.recoverer().is_some());
    let recoverer = world.oracle.recoverer().expect("just seen");
    world.kill(recoverer.node.index());
    world.time_until(40 * U, |world| {
        let gone = [3, recoverer.node.index()];
        world.goes_on_without(&gone) && world.register.value.unrecovered().is_empty()
    });
    assert!(world.oracle.is_fenced(recoverer));
}
