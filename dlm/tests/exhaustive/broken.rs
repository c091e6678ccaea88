//! The explorations of `main.rs` find every rule of the lock manager that is broken on purpose: with
//! the features `few-buckets` and `broken-rules`.
//!
//! A process breaks one rule for good, so that each rule has a process of its own.

mod bounds;
mod cluster;
mod events;
mod explore;
mod model;
mod oracle;
mod steps;

use mx_base::rules::{Rule, break_rule};

use crate::explore::explore;
use crate::model::Bounds;

/// Where each rule of the lock manager shows, by its name.
const SHOWN: [(&str, Bounds); 16] = [
    ("check-readers-before-writer", bounds::three_nodes()),
    ("call-out-for-conversion", bounds::three_nodes()),
    ("call-out-again", bounds::three_nodes()),
    ("notice-crossing-grant", bounds::three_nodes()),
    ("drop-old-epochs", bounds::join()),
    ("keep-early-messages", bounds::leave()),
    ("await-all-reports", bounds::leave()),
    ("report-what-is-held", bounds::leave()),
    ("report-what-is-waited-for", bounds::leave()),
    ("choose-one-home", bounds::join()),
    ("drop-queue-of-dead", bounds::death_of_a_user()),
    ("keep-ex-of-dead", bounds::death_of_a_user()),
    ("assume-the-worst", bounds::death_of_the_home()),
    ("keep-live-in-limbo", bounds::death_of_a_user()),
    ("forget-value-in-limbo", bounds::death_of_a_user()),
    ("tell-live-names-again", bounds::two_deaths()),
];

const RULE: &str = "MATRIXFS_BROKEN_RULE";

#[test]
fn every_rule_of_the_locks_is_broken_here() {
    // Nobody claims anything in these clusters: those rules show in the simulator.
    let ours = |rule: &&Rule| {
        rule.place().starts_with("`dlm::") && rule.place() != "`dlm::lockspace::claims`"
    };
    for rule in Rule::ALL.iter().filter(ours) {
        let name = rule.name();
        assert!(SHOWN.iter().any(|(shown, _)| *shown == name), "{name} is not");
    }
}

#[test]
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "one process for each rule")]
fn every_broken_rule_of_the_locks_is_found() {
    let me = std::env::current_exe().expect("a test has a program");
    let mut missed = Vec::new();
    for (name, _) in SHOWN {
        let mut child = std::process::Command::new(&me);
        child.args(["--exact", "a_rule_is_broken", "--nocapture"]).env(RULE, name);
        let output = child.output().expect("it started once");
        let said = String::from_utf8_lossy(&output.stderr);
        let found = said.lines().find(|line| line.starts_with("not always"));
        eprintln!("{name}: {}", found.unwrap_or("missed"));
        if found.is_none() {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "nothing comes of it when these are broken: {missed:?}");
}

/// Does nothing unless the test above has started it.
#[test]
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "one process for each rule")]
fn a_rule_is_broken() {
    let Ok(name) = std::env::var(RULE) else { return };
    let shown = SHOWN.into_iter().find(|(shown, _)| *shown == name);
    let (name, bounds) = shown.expect("a rule of the list");
    break_rule(Rule::of_name(name).expect("a rule that there is"));
    // Panics are findings, and told as such.
    std::panic::set_hook(Box::new(|_| {}));
    eprintln!("{}", explore(bounds).unwrap_or_else(|found| found));
}
