//! The life of a node ends while files are open on it: who has them open learns so.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use e2e::process::{Process, Terms};
use e2e::{Cluster, Fixture};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);

/// A second process for a node that runs: the life of the first is over then.
fn twin(cluster: &Cluster, node: u16) -> Process {
    let config = fs::read_to_string(cluster.config(node)).expect("readable");
    let own = |line: &str| line.starts_with("listen") || line.starts_with("admin");
    let name = format!("node{node}");
    let config = config.lines().map(|line| match own(line) {
        true => line.replace(&name, "twin"),
        false => line.to_owned(),
    });
    let file = cluster.folder().join("twin.toml");
    fs::write(&file, config.collect::<Vec<_>>().join("\n")).expect("written");
    let mut command = cluster.programs().command("mxd");
    command.arg("--config").arg(file);
    let terms = Terms { log: &cluster.folder().join("twin.log"), is_kept: false };
    Process::start_ready(command, terms, PATIENCE).expect("it starts")
}

/// The kernel goes on showing what it has cached when its daemon is gone (`kernel-cache.md`, fact 18),
/// whatever others write meanwhile.
#[test]
fn what_the_kernel_has_cached_is_not_shown_when_the_life_of_a_node_has_ended() {
    let mut cluster = Fixture::of("ended", 2);
    let path = cluster.mount(1).join("file");
    fs::write(&path, "as it was").expect("written");
    let open = File::open(&path).expect("opened");
    open.sync_all().expect("durable");
    let mut read = [0; 9];
    open.read_exact_at(&mut read, 0).expect("read");
    let mut twin = twin(&cluster, 1);
    let status = cluster.until_ended(1, PATIENCE).expect("it ends by itself");
    assert!(!status.expect("a child").success(), "it was expelled");
    fs::write(cluster.mount(2).join("file"), "otherwise").expect("node 2 goes on");
    let again = open.read_exact_at(&mut read, 0);
    assert!(again.is_err(), "{:?}", String::from_utf8_lossy(&read));
    twin.end(Signal::TERM).expect("it ends");
    cluster.finish();
}
