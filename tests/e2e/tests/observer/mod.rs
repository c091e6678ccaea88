//! What the arbiter has counted.

use std::sync::Arc;
use std::time::Duration;

use e2e::Cluster;
use fencing::{DeviceId, Gate};
use fencing_agents::arbiter::client::{Client, Config, Identity};
use mx_base::{ClusterId, Instant};

/// Writes of fenced nodes that reached the arbiter.
pub(crate) fn writes_refused(cluster: &Cluster) -> u64 {
    let asked = cluster.running().into_iter().next().expect("a node runs");
    let status = cluster.admin(asked).status().expect("an answer");
    let fs = &status.mounts.first().expect("it is mounted").fs.id;
    let config = Config {
        socket: cluster.arbiter_socket(),
        cluster: ClusterId(bytes(&status.viewer.cluster)),
        device: DeviceId(bytes(fs)),
        identity: Identity::Observer,
        channel: 0,
        area_blocks: 256,
        gate: Gate::new(),
        clock: Arc::new(|| Instant(0)),
    };
    let client = Client::connect(config, Duration::from_secs(10)).expect("an observer is let in");
    client.counters().wait().expect("it counts").writes_refused
}

/// Of a UUID.
fn bytes(text: &str) -> [u8; 16] {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).expect("a UUID");
    // As a UUID is written.
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(number >> (120 - 8 * at) & 0xff).expect("one byte");
    }
    bytes
}
