//! What one node does, every node sees at once: the table of docs/semantics.md pair by pair, with
//! warm caches, in turn and in a race; contests with one winner; appends; readers that follow.
//!
//! Races are in the long form only: what is known to be wrong there is named in docs/semantics.md,
//! section 6. Register histories, of two processes on one mount as well, are in `shared_file`.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Cluster, Fixture};

use crate::program::run;
use crate::rounds::{is_long, rounds};

/// Runs `mx-coherence` in a folder of its own, on the mounts of these nodes.
fn try_out(cluster: &Cluster, what: &str, seed: u16, number: &str, nodes: &[u16]) {
    let name = format!("{what}-{seed}-{}", nodes[0]);
    let dirs: Vec<PathBuf> = nodes.iter().map(|node| cluster.mount(*node).join(&name)).collect();
    fs::create_dir(&dirs[0]).expect("made");
    let mut program = cluster.programs().command("mx-coherence");
    program.args([what, &seed.to_string(), number]).args(dirs);
    println!("nodes {nodes:?}, seed {seed}: {}", run(cluster, &mut program));
}

/// Every pair from every node; in CI each of two nodes has one of `shares` shares of them.
fn pairs(what: &str, shares: u16) {
    let nodes = if is_long() { 3 } else { 2 };
    let cluster = Fixture::of(&format!("suite-coherence-{what}"), nodes);
    for seed in 0..rounds(1, 5) {
        for first in 1..=nodes {
            let all: Vec<u16> = (0..nodes).map(|node| (first - 1 + node) % nodes + 1).collect();
            let part = if is_long() { "all".to_owned() } else { format!("{first}/{shares}") };
            try_out(&cluster, what, seed, &part, &all);
        }
    }
    cluster.finish();
}

#[test]
fn what_a_node_has_done_every_node_sees() {
    pairs("pairs", 8);
    if is_long() {
        pairs("races", 1);
    }
}

#[test]
fn one_of_many_gets_a_name_and_no_append_is_lost_or_missed() {
    let cluster = Fixture::of("suite-coherence-many", 3);
    // Two on each node: they share the cache of one kernel.
    let nodes = [1, 2, 3, 1, 2, 3];
    let (contests, appends, writes) =
        if is_long() { ("200", "5000", "5000") } else { ("3", "60", "300") };
    for seed in 0..rounds(1, 3) {
        try_out(&cluster, "winners", seed, contests, &nodes);
        try_out(&cluster, "appends", seed, appends, &nodes);
        try_out(&cluster, "follows", seed, writes, &[1, 2, 3]);
    }
    cluster.finish();
}

#[test]
fn the_table_of_the_document_is_the_one_that_is_tried() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/semantics.md");
    let text = fs::read_to_string(file).expect("the document is there");
    let table = e2e::coherence::table();
    let documented = text.lines().skip_while(|line| *line != table[0]);
    let documented: Vec<&str> = documented.take_while(|line| line.starts_with('|')).collect();
    assert!(documented == table, "docs/semantics.md has to have\n{}", table.join("\n"));
}
