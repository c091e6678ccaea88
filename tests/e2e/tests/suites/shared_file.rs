//! Our own fsx of several nodes: one file, every operation on any of them, every one checked.

use std::process::Command;

use e2e::{Cluster, Fixture};

use crate::program::run;
use crate::rounds::{is_long, rounds};

/// Of operations; `all,-punch` would leave one out.
const KINDS: &str = "all";

/// A mapping and copy_file_range(2) do not reach what the file has grown by on another node before
/// this one has asked for the size: the kernel goes by the size that it knows, and raises SIGBUS or
/// copies less (docs/semantics.md, 2). `all` shows it.
const KINDS_OF_SEVERAL: &str = "all,size-first";

/// Beside read(2) and write(2).
const WAYS: &str = "map-read,map-write,direct";

fn exercise(cluster: &Cluster, seed: u16, operations: u32, length: u32) {
    let mut program: Command = cluster.programs().command("mx-fsx");
    let kinds = if cluster.nodes().len() == 1 { KINDS } else { KINDS_OF_SEVERAL };
    let log = cluster.folder().join("suite-operations.log");
    program.args([seed.to_string(), operations.to_string(), length.to_string()]);
    program.arg(kinds).arg(log);
    for node in cluster.nodes() {
        program.arg(cluster.mount(node).join("shared"));
    }
    println!("{} nodes, seed {seed}: {}", cluster.nodes().len(), run(cluster, &mut program));
}

/// In the long form 200,000 operations. Files of one page up to files that are larger than what an
/// operation touches.
fn all(name: &str, nodes: u16) {
    let cluster = Fixture::of(name, nodes);
    let operations = if is_long() { 25_000 } else { 800 };
    for (seed, length) in
        (0..rounds(2, 8)).zip([300_000, 20_000, 6_000, 1 << 20].into_iter().cycle())
    {
        exercise(&cluster, seed, operations, length);
    }
    cluster.finish();
}

#[test]
fn every_operation_of_three_nodes_on_one_file_is_right() {
    all("suite-shared", 3);
}

/// Nobody waits for anybody: pages are taken away from those who are storing to them.
#[test]
fn no_store_is_lost_when_three_nodes_write_one_file_at_once() {
    let cluster = Fixture::of("suite-cells", 3);
    // Two writers on one of the nodes: they share pages of one kernel.
    let paths = [1, 2, 3, 1].map(|node| cluster.mount(node).join("cells"));
    let operations = if is_long() { 250_000 } else { 500 };
    for (seed, pages) in (0..rounds(2, 4)).zip([1, 16, 4, 64].into_iter().cycle()) {
        let mut program = cluster.programs().command("mx-cells");
        program.args([seed.to_string(), operations.to_string(), pages.to_string()]);
        program.arg(WAYS).args(&paths);
        println!("{pages} pages, seed {seed}: {}", run(&cluster, &mut program));
    }
    cluster.finish();
}

#[test]
fn every_operation_of_one_node_on_one_file_is_right() {
    all("suite-shared-one", 1);
}
