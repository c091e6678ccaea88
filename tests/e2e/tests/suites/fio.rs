//! fio: writes in patterns of its own with checksums, and verifies them; buffered, direct, with
//! asynchronous requests and through mappings.

use std::path::Path;
use std::process::Command;

use e2e::Fixture;

use crate::program::{Running, installed, run};
use crate::rounds::{is_long, rounds};

/// Name, pattern, sizes of blocks, engine, direct.
const JOBS: [(&str, &str, &str, &str, bool); 6] = [
    ("sequential", "write", "1k-300k", "psync", false),
    ("random", "randwrite", "512-64k", "psync", false),
    ("vectors", "randwrite", "4k-4k", "pvsync", false),
    ("direct", "randwrite", "4k-128k", "libaio", true),
    ("direct-sequential", "write", "64k-64k", "psync", true),
    ("mapped", "randwrite", "4k-16k", "mmap", false),
];

/// Whether it writes, and whether it verifies.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Both,
    Write,
    Verify,
}

fn mebibytes() -> u16 {
    if is_long() { 64 } else { 4 }
}

fn all_jobs(dir: &Path, part: Part) -> Command {
    let mut fio = Command::new(installed("fio"));
    fio.args(["--output-format=terse", "--verify=crc32c", "--verify_fatal=1", "--verify_dump=0"]);
    fio.args(["--verify_state_save=0", "--numjobs=2", "--iodepth=8", "--end_fsync=1"]);
    fio.args(["--group_reporting", "--exitall_on_error"]);
    fio.arg(format!("--size={}m", mebibytes())).arg("--directory").arg(dir);
    match part {
        Part::Both => _ = fio.arg("--do_verify=1"),
        Part::Write => _ = fio.arg("--do_verify=0"),
        Part::Verify => _ = fio.arg("--verify_only"),
    }
    for (name, pattern, blocks, engine, direct) in JOBS {
        fio.arg(format!("--name={name}")).arg(format!("--rw={pattern}"));
        fio.arg(format!("--bsrange={blocks}")).arg(format!("--ioengine={engine}"));
        fio.arg(format!("--direct={}", u8::from(direct)));
    }
    fio
}

#[test]
fn one_node_reads_what_it_wrote() {
    let cluster = Fixture::of("suite-fio", 1);
    for _ in 0..rounds(1, 5) {
        run(&cluster, &mut all_jobs(&cluster.mount(1), Part::Both));
    }
    cluster.finish();
}

#[test]
fn one_node_reads_what_another_wrote() {
    let cluster = Fixture::of("suite-fio-other", 2);
    for _ in 0..rounds(1, 5) {
        run(&cluster, &mut all_jobs(&cluster.mount(1), Part::Write));
        run(&cluster, &mut all_jobs(&cluster.mount(2), Part::Verify));
        // Over what is there, from the other side.
        run(&cluster, &mut all_jobs(&cluster.mount(2), Part::Write));
        run(&cluster, &mut all_jobs(&cluster.mount(1), Part::Verify));
    }
    cluster.finish();
}

/// One file, a half of it for each node, in blocks that do not keep to pages.
fn half(dir: &Path, half: u16, part: Part) -> Command {
    // Whole blocks.
    let bytes = (u32::from(mebibytes()) << 19) / 2560 * 2560;
    let mut fio = Command::new(installed("fio"));
    fio.args(["--output-format=terse", "--verify=crc32c", "--verify_fatal=1", "--verify_dump=0"]);
    fio.args(["--verify_state_save=0", "--fallocate=keep", "--rw=randwrite", "--bs=2560"]);
    // fio knows a file by the folder that was named before it.
    fio.args(["--ioengine=psync", "--name=half"])
        .arg("--directory")
        .arg(dir)
        .arg("--filename=halves");
    fio.arg(format!("--size={bytes}")).arg(format!("--offset={}", u32::from(half) * bytes));
    fio.arg(format!("--randseed={}", half + 1)).arg("--file_append=0").arg("--overwrite=0");
    match part {
        Part::Both => _ = fio.arg("--do_verify=1"),
        Part::Write => _ = fio.arg("--do_verify=0"),
        Part::Verify => _ = fio.arg("--verify_only"),
    }
    fio
}

#[test]
fn two_nodes_write_halves_of_one_file_at_once_and_read_each_others() {
    let cluster = Fixture::of("suite-fio-halves", 2);
    let file = std::fs::File::create(cluster.mount(1).join("halves")).expect("created");
    file.set_len(u64::from(mebibytes()) << 20).expect("grown");
    drop(file);
    for _ in 0..rounds(1, 5) {
        for (first, second, part) in [(0, 1, Part::Both), (1, 0, Part::Verify)] {
            let start = |(node, which)| {
                Running::start(&cluster, &mut half(&cluster.mount(node), which, part))
            };
            for running in [(1, first), (2, second)].map(start) {
                running.finish(&cluster);
            }
        }
    }
    cluster.finish();
}
