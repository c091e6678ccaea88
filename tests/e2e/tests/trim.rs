//! Room that is given back to the device: fstrim(8) and `mxctl fs trim`.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use e2e::{Cluster, Fixture};

const FILE: usize = 32 << 20;

/// What the device takes of the file system below it.
fn room(cluster: &Cluster) -> u64 {
    fs::metadata(cluster.device()).expect("it is a file").blocks() * 512
}

fn fill(dir: &Path, name: &str) {
    fs::write(dir.join(name), vec![0x5a; FILE]).expect("there is room");
    File::open(dir.join(name)).and_then(|file| file.sync_all()).expect("durable");
}

fn remove(dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).expect("it is there");
    let synced = Command::new("sync").arg("-f").arg(dir).status().expect("it runs");
    assert!(synced.success());
}

#[test]
fn what_was_removed_is_given_back_to_the_device_and_the_rest_stays() {
    let cluster = Fixture::of("trim", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    fill(&here, "kept");
    for (dir, name) in [(&here, "one"), (&there, "two")] {
        fill(dir, name);
        remove(dir, name);
    }
    let before = room(&cluster);

    // Also what the other node has freed.
    let trimmed = cluster.mxctl(1, &["fs", "trim"]).expect("it can");
    let half = FILE as u64 / 2;
    assert!(trimmed["bytes"].as_u64().expect("a number") >= 2 * half, "{trimmed}");
    assert_eq!(trimmed["groups_skipped"], 0, "{trimmed}");
    assert!(room(&cluster) + 2 * half <= before, "{before} before, {} now", room(&cluster));

    fill(&there, "three");
    remove(&there, "three");
    let before = room(&cluster);
    let trimmed = Command::new("fstrim").arg("-v").arg(&there).output().expect("it runs");
    assert!(trimmed.status.success(), "{}", String::from_utf8_lossy(&trimmed.stderr));
    assert!(room(&cluster) + half <= before, "{before} before, {} now", room(&cluster));

    for dir in [&here, &there] {
        let kept = fs::read(dir.join("kept")).expect("readable");
        assert!(kept.len() == FILE && kept.iter().all(|byte| *byte == 0x5a));
    }
    cluster.finish();
}
