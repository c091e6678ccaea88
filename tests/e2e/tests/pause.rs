//! A node that only pauses: the others go on without it, and when it wakes up nothing that it
//! still wants to write reaches the device.

mod observer;
mod rounds;

use std::time::Duration;

use e2e::load::{Mix, Team};
use e2e::{Fixture, wait};
use observer::writes_refused;
use rounds::rounds;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_node_paused_past_its_expulsion_cannot_write_when_it_is_resumed() {
    let mut refused = 0;
    for _ in 0..rounds(2, 20) {
        refused += round();
    }
    assert!(refused > 0, "a resumed node should have tried to write, and been refused");
}

/// Writes that the arbiter refused.
fn round() -> u64 {
    let mut cluster = Fixture::of("pause", 3);
    let mut team = Team::new(Mix::Mixed, Duration::ZERO);
    for node in cluster.nodes() {
        team.start(&cluster, node).expect("a writer starts");
    }
    team.until_all_go_on(20).expect("all work");
    let incarnation = cluster.admin(3).status().expect("an answer").viewer.incarnation;
    cluster.pause(3).expect("it runs");
    wait::until("the others to go on without node 3", PATIENCE, || {
        let view = cluster.admin(1).status()?;
        let members = view.view.map(|view| view.members).unwrap_or_default();
        let is_out = !members.iter().any(|member| member.node == 3);
        Ok((is_out && view.unrecovered.is_empty()).then_some(()))
    })
    .expect("it is expelled and recovered");
    cluster.resume(3).expect("it is there");
    let status = cluster.until_ended(3, PATIENCE).expect("it ends by itself");
    assert!(!status.expect("a child").success(), "incarnation {incarnation:?} was expelled");
    team.stop(3).expect("its writer ends");
    team.until_all_go_on(20).expect("the others go on");
    let refused = writes_refused(&cluster);
    cluster.start(3).expect("it joins again, in a new life");
    team.start(&cluster, 3).expect("a writer starts");
    team.until_all_go_on(5).expect("all work");
    team.stop_all().expect("nobody failed");
    for node in cluster.nodes() {
        let verdict = team.judge(&cluster, node).expect("readable");
        verdict.expect_all().unwrap_or_else(|error| panic!("on node {node}: {error:#}"));
    }
    cluster.finish();
    refused
}
