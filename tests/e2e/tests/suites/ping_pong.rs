//! ping_pong of Debian's ctdb: each process locks a byte, gives up the one before, and so they chase
//! each other round; with -rw each counts in what it has locked, and says how much all of them
//! counted since.

use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::Fixture;

use crate::program::installed;
use crate::rounds::period;

#[test]
fn no_count_is_lost_between_two_nodes_or_on_one() {
    let cluster = Fixture::of("suite-ping-pong", 2);
    let period = period(Duration::from_secs(4), Duration::from_secs(60)).as_secs();
    for nodes in [[1, 2], [1, 1]] {
        let play = |node: u16| {
            let mut play = Command::new("timeout");
            play.args(["--signal=INT", &period.to_string()]).arg(installed("ping_pong"));
            play.arg("-rw").arg(cluster.mount(node).join(format!("ping-pong-{nodes:?}"))).arg("3");
            play.stdout(Stdio::piped()).spawn().expect("timeout starts")
        };
        for player in nodes.map(play) {
            let output = player.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("data increment = 2"), "{nodes:?}: {said}");
        }
    }
    cluster.finish();
}
