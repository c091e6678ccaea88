//! Isolation: what is damaged on the device answers EIO on every node and is listed, the rest goes on.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use e2e::Fixture;

const BLOCK: usize = 4096;

/// A small file lives in its inode: turns a byte of each block that holds `contents` over, be it there or
/// in a journal.
fn damage(device: &std::path::Path, contents: &[u8]) {
    let file = OpenOptions::new().read(true).write(true).open(device).expect("opens");
    let len = file.metadata().expect("a file").len();
    let mut block = vec![0; BLOCK];
    let mut damaged = 0;
    for at in (0..len).step_by(BLOCK) {
        file.read_exact_at(&mut block, at).expect("reads");
        if let Some(place) = block.windows(contents.len()).position(|part| part == contents) {
            file.write_all_at(&[!block[place]], at + place as u64).expect("writes");
            damaged += 1;
        }
    }
    assert!(damaged > 0, "nothing of the file is on the device");
}

#[test]
fn a_damaged_file_answers_eio_is_listed_and_the_rest_goes_on() {
    let mut cluster = Fixture::sized("damage", 2, 64 << 20);
    let contents = b"a file that is about to be damaged on the device";
    for (name, contents) in [("bad", &contents[..]), ("good", b"good")] {
        fs::write(cluster.mount(1).join(name), contents).expect("written");
    }
    for node in [1, 2] {
        cluster.stop(node).expect("it leaves");
    }
    damage(&cluster.device(), contents);
    for node in [1, 2] {
        cluster.start(node).expect("it joins");
    }
    for node in [1, 2] {
        let listed = cluster.mxctl(node, &["fs", "damage"]).expect("a report");
        assert_eq!(listed["file_systems"][0]["objects"].as_array().map(Vec::len), Some(0));
        let mount = cluster.mount(node);
        let error = fs::read(mount.join("bad")).expect_err("it is damaged");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
        assert_eq!(fs::read(mount.join("good")).expect("it is not"), b"good");
        let listed = cluster.mxctl(node, &["fs", "damage"]).expect("a report");
        let objects = &listed["file_systems"][0]["objects"];
        let resource = objects[0]["resource"].as_str().unwrap_or_default();
        assert!(resource.starts_with("inode 0x"), "{listed}");
        assert!(objects[0]["why"].as_str().is_some_and(|why| why.contains("checksum")), "{listed}");
    }
    fs::write(cluster.mount(2).join("new"), "new").expect("the rest goes on");
    assert_eq!(fs::read(cluster.mount(1).join("new")).expect("read"), b"new");
    cluster.stop_all().expect("it ends in order");
    let findings = cluster.fsck().expect("checked");
    assert!(findings.expect_clean().is_err(), "fsck finds it too");
}

#[test]
fn a_check_of_what_is_in_use_tells_of_damage_and_of_nothing_else() {
    let mut cluster = Fixture::sized("check-in-use", 2, 64 << 20);
    let contents = b"a file that is about to be damaged below what is cached of it";
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    fs::write(here.join("bad"), contents).expect("written");
    File::open(here.join("bad")).and_then(|file| file.sync_all()).expect("durable");
    // The other one has it in place.
    assert_eq!(fs::read(there.join("bad")).expect("read"), contents);
    for i in 0..100 {
        fs::write(here.join(format!("here-{i}")), vec![1; i * 100]).expect("written");
        fs::write(there.join(format!("there-{i}")), vec![2; i * 100]).expect("written");
    }
    for node in [1, 2] {
        let checked = cluster.mxctl(node, &["fs", "check", "--online", "--data"]).expect("right");
        assert_eq!(checked["problems"].as_array().map(Vec::len), Some(0), "{checked}");
        assert_eq!(checked["inodes"], 202, "{checked}");
        assert_eq!((&checked["entries"], &checked["skipped"]), (&201.into(), &0.into()));
    }
    damage(&cluster.device(), contents);
    for node in [1, 2] {
        let wrong = cluster.mxctl(node, &["fs", "check", "--online"]).expect_err("it is damaged");
        assert!(wrong.to_string().contains("1 problems"), "{wrong}");
    }
    // Nobody has missed it: it is cached.
    assert_eq!(fs::read(there.join("bad")).expect("read"), contents);
    cluster.stop_all().expect("it ends in order");
    assert!(cluster.fsck().expect("checked").expect_clean().is_err(), "fsck finds it too");
}
