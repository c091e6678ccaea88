//! dbench: what a file server does for office programs, as it was recorded.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::Fixture;

use crate::program::{Running, installed};
use crate::rounds::rounds;

/// What came with the package.
const LOAD: &str = "/usr/share/dbench/client.txt";

fn dbench(dir: &Path) -> Command {
    fs::create_dir_all(dir).expect("made");
    let (seconds, clients) = (rounds(3, 120), rounds(2, 8));
    let mut dbench = Command::new(installed("dbench"));
    dbench.args(["-c", LOAD, "-D"]).arg(dir);
    dbench.args(["-t", &seconds.to_string(), &clients.to_string()]);
    dbench
}

/// It takes number 0, of the first semaphores that a machine ever makes, for none, says this, and does
/// without.
const FIRST_SEMAPHORE: &str = "failed to create barrier semaphore";

/// It ends with success whatever happens.
fn expect_no_errors(said: &str) {
    let is_wrong = |line: &&str| {
        let is_harmless = line.trim() == FIRST_SEMAPHORE;
        let line = line.to_lowercase();
        !is_harmless && (line.contains("fail") || line.contains("error"))
    };
    let wrong: Vec<&str> = said.lines().filter(is_wrong).take(10).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let result = said.lines().find(|line| line.starts_with("Throughput"));
    println!("{}", result.expect("a result"));
}

fn on(name: &str, nodes: u16) {
    let cluster = Fixture::of(name, nodes);
    let dir = |node: u16| cluster.mount(node).join(format!("of-node-{node}"));
    let start = |node| Running::start(&cluster, &mut dbench(&dir(node)));
    let all: Vec<Running> = cluster.nodes().into_iter().map(start).collect();
    for running in all {
        expect_no_errors(&running.finish(&cluster));
    }
    cluster.finish();
}

#[test]
fn it_runs_on_one_node() {
    on("suite-dbench", 1);
}

#[test]
fn it_runs_on_three_nodes_at_once() {
    on("suite-dbench-three", 3);
}
