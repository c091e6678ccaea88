//! fsx: one file, used in every way that one program can use it, on one node.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Cluster, Fixture};

use crate::program::{Beside, run, tool};
use crate::rounds::{is_long, rounds};

/// With what it does and how often, one operation beside the other.
///
/// `invalidate` is left out: what it does is msync(2) of no bytes.
const WEIGHTS: [(&str, u32); 14] = [
    ("close_open", 2),
    ("invalidate", 0),
    ("mapread", 10),
    ("mapwrite", 10),
    ("read", 10),
    ("write", 10),
    ("truncate", 10),
    ("fsync", 1),
    ("fdatasync", 1),
    ("posix_fallocate", 5),
    ("punch_hole", 5),
    ("sendfile", 5),
    ("posix_fadvise", 5),
    ("copy_file_range", 5),
];

/// Of one run: fsx 0.3 never unmaps what it has read from, and a process may have 65530 mappings.
const OPERATIONS: u32 = 50_000;

fn exercise(cluster: &Cluster, seed: u16, operations: u32, file: &Path) {
    let config = cluster.folder().join("cluster.fsx.toml");
    let weights = WEIGHTS.map(|(name, weight)| format!("{name} = {weight}\n")).concat();
    // Every second one leaves what it stores in a mapping to the kernel.
    let late = seed.is_multiple_of(2);
    let text = format!("nomsyncafterwrite = {late}\n[weights]\n{weights}");
    fs::write(&config, text).expect("written");
    let mut fsx = Command::new(tool(cluster, "fsx"));
    fsx.args(["-N", &operations.to_string(), "-S", &seed.to_string(), "-f"]).arg(&config);
    fsx.arg("-P").arg(cluster.folder()).arg(file);
    run(cluster, &mut fsx);
}

#[test]
fn it_finds_nothing_on_one_node() {
    let cluster = Fixture::of("suite-fsx", 1);
    let operations = if is_long() { OPERATIONS } else { 4_000 };
    for seed in 0..rounds(2, 20) {
        exercise(&cluster, seed, operations, &cluster.mount(1).join("fsx.file"));
    }
    cluster.finish();
}

#[test]
fn it_finds_nothing_while_another_node_reads_the_file() {
    let cluster = Fixture::of("suite-fsx-read", 2);
    let operations = if is_long() { OPERATIONS } else { 4_000 };
    let beside = Beside::start(&cluster, "cat fsx.file | wc -c", &cluster.mount(2));
    for seed in 100..100 + rounds(1, 4) {
        exercise(&cluster, seed, operations, &cluster.mount(1).join("fsx.file"));
    }
    beside.stop();
    cluster.finish();
}
