//! A process that waits for what does not come can be ended.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::{Fixture, wait};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_process_that_waits_for_a_device_that_does_not_answer_can_be_ended_by_any_signal() {
    let cluster = Fixture::of("interrupt", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    for signal in ["TERM", "KILL"] {
        // What this node does not know yet it cannot tell without the device.
        fs::write(here.join(signal), signal).expect("written");
        cluster.pause_arbiter().expect("it runs");
        let mut looker = Command::new("stat");
        looker.arg(there.join(signal)).stdout(Stdio::null());
        let mut looker = looker.spawn().expect("stat");
        let waits = format!("/proc/{}/wchan", looker.id());
        wait::until("stat to wait for an answer", PATIENCE, || {
            let is_waiting = fs::read_to_string(&waits)?.contains("request_wait_answer");
            Ok(is_waiting.then_some(()))
        })
        .expect("it waits");
        let id = looker.id().to_string();
        let killed = Command::new("kill").arg(format!("-{signal}")).arg(id).status();
        assert!(killed.expect("kill").success());
        let ended = wait::until("stat to end", PATIENCE, || Ok(looker.try_wait()?));
        cluster.resume_arbiter().expect("it runs");
        let status = ended.expect("while the device does not answer");
        assert!(status.signal().is_some(), "{signal}: {status}");
        // Nothing is left behind of what was given up.
        assert_eq!(fs::read_to_string(there.join(signal)).expect("read"), signal);
    }
    cluster.finish();
}
