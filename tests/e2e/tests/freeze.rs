//! A file system is frozen on one node, for all of them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use e2e::{Cluster, Fixture};
use rustix::fs::{SeekFrom, seek};

/// Membership and the heads of slots lie in front of this.
const FRONT: u64 = 4 << 20;

/// What is in the device's file, but for its holes.
fn contents(cluster: &Cluster) -> Vec<(u64, Vec<u8>)> {
    let device = File::open(cluster.device()).expect("a file");
    let mut at = FRONT;
    std::iter::from_fn(|| {
        let from = seek(&device, SeekFrom::Data(at)).ok()?;
        at = seek(&device, SeekFrom::Hole(from)).expect("it has an end");
        let mut bytes = vec![0; usize::try_from(at - from).expect("a test's file")];
        device.read_exact_at(&mut bytes, from).expect("readable");
        Some((from, bytes))
    })
    .collect()
}

/// Longer than any change takes.
const WHILE: Duration = Duration::from_millis(1500);

#[test]
fn changes_of_all_nodes_wait_and_the_device_does_not_change() {
    let cluster = Fixture::of("freeze", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    // Where somebody waits to make a name, his kernel lets nobody look up another one.
    fs::create_dir(here.join("changes")).expect("room");
    fs::write(here.join("before"), vec![1; 1 << 20]).expect("room");
    fs::write(there.join("there"), vec![2; 1 << 20]).expect("room");

    cluster.mxctl(1, &["fs", "freeze", "--for", "60"]).expect("nothing is in the way");
    let usage = cluster.mxctl(1, &["fs", "usage"]).expect("it answers");
    assert!(usage["file_systems"][0]["frozen_at_ms"].is_u64(), "{usage}");
    let again = cluster.mxctl(2, &["fs", "freeze", "--wait", "1"]);
    assert!(again.is_err_and(|error| error.to_string().contains("another one has frozen it")));
    let refused = cluster.mxctl(2, &["fs", "thaw"]);
    assert!(refused.is_err_and(|error| error.to_string().contains("this node has not frozen it")));

    let copy = contents(&cluster);
    let (done, is_done) = mpsc::channel();
    let changes: Vec<_> = [&here, &there]
        .map(|dir| {
            let (dir, done) = (dir.clone(), done.clone());
            thread::spawn(move || {
                let file = File::create(dir.join("changes/new")).expect("when it is thawed");
                file.write_all_at(b"later", 0).expect("room");
                done.send(()).expect("somebody listens");
            })
        })
        .into();
    assert!(is_done.recv_timeout(WHILE).is_err(), "changes wait");
    assert_eq!(fs::read(there.join("before")).expect("reads go on").len(), 1 << 20);
    assert_eq!(fs::read(here.join("there")).expect("reads go on"), vec![2; 1 << 20]);
    // Membership and the heads of slots lie in front of what the file system writes to.
    assert!(contents(&cluster) == copy, "somebody has written to the device");

    cluster.mxctl(1, &["fs", "thaw"]).expect("it is frozen");
    changes.into_iter().for_each(|change| change.join().expect("it goes on"));
    cluster.finish();
}
