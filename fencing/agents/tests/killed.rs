//! The arbiter as a process of its own that is killed in the middle of everything.

mod support;

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use fencing::Block;
use fencing::gate::Refused;
use fencing::{Closed, Gate};
use fencing_agents::arbiter::client::{Client, RequestFailed};
use fencing_agents::arbiter::protocol::Fault;
use fencing_agents::arbiter::server::{self, Stop};
use support::{
    DEVICE_BLOCKS, PATIENCE, Scratch, client_config, config, filled, identity, node, victim,
    wait_until,
};

const CHILD: &str = "MX_TEST_ARBITER_DIR";

/// Not a test of its own: what the child process runs, when the environment says so.
#[test]
fn arbiter_process() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let stop = Stop::new().expect("an eventfd");
        server::run(config(Path::new(&dir)), &stop).expect("runs until it is killed");
    }
}

/// Killed, not ended, when it is dropped.
struct Process(Child);

impl Process {
    fn start(dir: &Path) -> Process {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "arbiter_process", "--nocapture"])
            .env(CHILD, dir)
            .stdout(std::process::Stdio::null())
            .spawn();
        Process(child.expect("a child process"))
    }

    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.0.kill().expect("running");
        self.0.wait().expect("ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(dir: &Path, node: u16, incarnation: u32) -> Client {
    let config = client_config(dir, identity(node, incarnation), 0, &Gate::new());
    Client::connect(config, PATIENCE).expect("admitted")
}

#[test]
fn every_request_is_done_though_the_arbiter_is_killed_again_and_again() {
    let scratch = Scratch::new("killed-load");
    scratch.file("device", DEVICE_BLOCKS);
    let mut process = Process::start(scratch.path());
    let client = connect(scratch.path(), 1, 1);
    for round in 1..=5_u8 {
        let writes: Vec<_> =
            (0..2000).map(|block| client.write(block, filled(round), block % 50 == 0)).collect();
        let read = client.read::<Block>(5000, 256);
        // Somewhere in the middle: some are answered, some executing, some not yet sent.
        let mut writes = writes.into_iter();
        for write in writes.by_ref().take(usize::from(round) * 100) {
            write.wait().expect("written");
        }
        process.kill();
        process = Process::start(scratch.path());
        for write in writes {
            write.wait().expect("written in the end");
        }
        read.wait().expect("read in the end");
        let blocks = client.read::<Block>(0, 256).wait().expect("read");
        assert!(blocks.iter().all(|block| block.0 == [round; 4096]), "round {round}");
        let blocks = client.read::<Block>(1744, 256).wait().expect("read");
        assert!(blocks.iter().all(|block| block.0 == [round; 4096]), "round {round}");
    }
}

#[test]
fn a_fence_that_was_answered_outlives_the_arbiter() {
    let scratch = Scratch::new("killed-fenced");
    scratch.file("device", DEVICE_BLOCKS);
    let process = Process::start(scratch.path());
    let (one, two) = (connect(scratch.path(), 1, 1), connect(scratch.path(), 2, 1));
    two.write(1, filled(2), false).wait().expect("written");
    one.fence(victim(2, 1)).wait().expect("fenced");
    process.kill();
    // The victim has not heard of it and keeps its write for the next arbiter.
    let late = two.write(1, filled(0xBB), false);
    let _process = Process::start(scratch.path());
    let fenced = RequestFailed::Gate(Refused::Closed(Closed::Fenced));
    assert_eq!(late.wait(), Err(fenced));
    assert_eq!(one.read::<Block>(1, 1).wait().expect("read")[0].0[0], 2);
}

#[test]
fn a_fence_that_was_asked_for_is_done_by_the_next_arbiter() {
    let scratch = Scratch::new("killed-fence");
    scratch.file("device", DEVICE_BLOCKS);
    let process = Process::start(scratch.path());
    let (one, two) = (connect(scratch.path(), 1, 1), connect(scratch.path(), 2, 1));
    one.inject(Fault::StallWrites { node: node(2) }).wait().expect("injected");
    let write = two.write(1, filled(0xBB), false);
    wait_until(&one, 2, |report| report.writes_executing == 1);
    let fence = one.fence(victim(2, 1));
    one.ping().wait().expect("the fence is marked and waits for the write");
    process.kill();
    let _process = Process::start(scratch.path());
    fence.wait().expect("fenced");
    one.write(1, filled(0xAA), true).wait().expect("written");
    // Whether the victim's write came to the second arbiter before the fence is open; that it does
    // not come after it is not.
    let _ = write.wait();
    assert_eq!(one.read::<Block>(1, 1).wait().expect("read")[0].0[0], 0xAA);
    two.write(1, filled(0xBB), false).wait().expect_err("fenced");
    assert_eq!(one.read::<Block>(1, 1).wait().expect("read")[0].0[0], 0xAA);
}

#[test]
fn a_successor_waits_for_the_lock_on_the_device() {
    let scratch = Scratch::new("killed-lock");
    let device = scratch.file("device", DEVICE_BLOCKS);
    // Somebody whose requests have not ended, as far as anybody can tell.
    let held = fencing_agents::device::Device::open(&device, Duration::ZERO).expect("free");
    let _process = Process::start(scratch.path());
    let connecting = std::thread::spawn({
        let dir = scratch.path().to_owned();
        move || connect(&dir, 1, 1)
    });
    // Not reachable before the lock is free: the socket is made after it is had.
    assert!(!scratch.path().join("socket").exists());
    drop(held);
    connecting.join().expect("no panic").ping().wait().expect("serves");
}
