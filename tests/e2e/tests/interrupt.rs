//! A process that waits for what does not come can be ended.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{Fixture, wait};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a process waits for our answer.
fn until_it_waits(of: &Child) {
    let waits = format!("/proc/{}/wchan", of.id());
    wait::until("an answer to be waited for", PATIENCE, || {
        let is_waiting = fs::read_to_string(&waits)?.contains("request_wait_answer");
        Ok(is_waiting.then_some(()))
    })
    .expect("it waits");
}

#[test]
fn a_process_that_waits_for_a_device_that_does_not_answer_can_be_ended_by_any_signal() {
    let cluster = Fixture::of("interrupt", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    for (name, signal) in [("TERM", Signal::TERM), ("KILL", Signal::KILL)] {
        // What this node does not know yet it cannot tell without the device.
        fs::write(here.join(name), name).expect("written");
        cluster.pause_arbiter().expect("it runs");
        let mut looker = Command::new("stat");
        looker.arg(there.join(name)).stdout(Stdio::null());
        let mut looker = looker.spawn().expect("stat");
        until_it_waits(&looker);
        kill_process(Pid::from_child(&looker), signal).expect("sent");
        let ended = wait::until("stat to end", PATIENCE, || Ok(looker.try_wait()?));
        cluster.resume_arbiter().expect("it runs");
        let status = ended.expect("while the device does not answer");
        assert!(status.signal().is_some(), "{name}: {status}");
        // Nothing is left behind of what was given up.
        assert_eq!(fs::read_to_string(there.join(name)).expect("read"), name);
    }
    cluster.finish();
}

#[test]
fn a_signal_that_a_program_handles_ends_no_look_up_and_the_next_one_may() {
    let cluster = Fixture::of("interrupt-handled", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    for name in ["goes on", "ends"] {
        fs::write(here.join(name), name).expect("written");
        cluster.pause_arbiter().expect("it runs");
        let mut looker = Command::new("bash");
        looker.args(["-c", "trap : USR1; [ -e \"$0\" ]"]).arg(there.join(name));
        let mut looker = looker.spawn().expect("bash");
        until_it_waits(&looker);
        kill_process(Pid::from_child(&looker), Signal::USR1).expect("sent");
        // Long enough for the kernel to have told of it, several times.
        std::thread::sleep(Duration::from_millis(300));
        assert!(looker.try_wait().expect("a child").is_none(), "it waits on");
        let ended = if name == "ends" {
            kill_process(Pid::from_child(&looker), Signal::TERM).expect("sent");
            let ended = wait::until("bash to end", PATIENCE, || Ok(looker.try_wait()?));
            cluster.resume_arbiter().expect("it runs");
            ended.expect("while the device does not answer")
        } else {
            cluster.resume_arbiter().expect("it runs");
            looker.wait().expect("a child")
        };
        let (code, signal) = (ended.code(), ended.signal());
        let expected = if name == "ends" { (None, Some(15)) } else { (Some(0), None) };
        assert_eq!((code, signal), expected, "{name}");
    }
    cluster.finish();
}
