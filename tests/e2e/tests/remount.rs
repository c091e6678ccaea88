//! `mount -o remount,..` on one node, as mount(8) runs the helper, while another goes on.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use e2e::{Cluster, Fixture};

const PATIENCE: Duration = Duration::from_secs(30);

/// What mount(8) of Debian hands on besides what is asked for.
const SHOWN: &str = "rw,relatime,user_id=0,group_id=0,default_permissions,allow_other,remount";

/// What the helper said, if it refused.
fn remount(cluster: &Cluster, dir: &Path, options: &str) -> Result<(), String> {
    let admin = cluster.admin(1);
    let mut helper = cluster.programs().command("mount-matrixfs");
    helper.arg("name").arg(dir).arg("-o");
    helper.arg(format!("{SHOWN},admin={},{options}", admin.socket().display()));
    let output = helper.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(());
    }
    assert_eq!(output.status.code(), Some(32), "{said}");
    Err(said)
}

#[test]
fn a_mount_is_made_read_only_and_writable_again_while_the_other_node_writes() {
    let cluster = Fixture::of("remount", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    fs::write(here.join("file"), "before").expect("written");

    let mut open = File::create(here.join("open")).expect("made");
    open.write_all(b"one").expect("written");
    let said = remount(&cluster, &here, "ro").expect_err("a file is open for writing");
    assert!(said.contains("open for writing"), "{said}");
    open.write_all(b" two").expect("it is as it was");
    drop(open);

    remount(&cluster, &here, "ro,nosuid").expect("nobody writes");
    let error = fs::write(here.join("file"), "no").expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(File::create(here.join("new")).is_err());
    assert_eq!(fs::read(here.join("open")).expect("read"), b"one two");
    fs::write(there.join("file"), "of the other node").expect("written");
    assert_eq!(fs::read(here.join("file")).expect("read"), b"of the other node");

    let said = remount(&cluster, &here, "submounts").expect_err("names are kept");
    assert!(said.contains("submounts"), "{said}");
    remount(&cluster, &here, "nosubmounts,noatime").expect("that is what holds");
    fs::write(here.join("file"), "again").expect("writable again");
    assert_eq!(fs::read(there.join("file")).expect("read"), b"again");
    let before = fs::metadata(here.join("file")).expect("there").atime_nsec();
    assert_eq!(fs::read(here.join("file")).expect("read"), b"again");
    assert_eq!(fs::metadata(here.join("file")).expect("there").atime_nsec(), before);

    let said = remount(&cluster, &here.join("."), "ro").map(|()| fs::write(here.join("x"), ""));
    assert!(said.expect("a path to the same place").is_err(), "read-only once more");
    let elsewhere = cluster.folder();
    let said = remount(&cluster, elsewhere, "ro").expect_err("not ours");
    assert!(said.contains("no MatrixFS is mounted here"), "{said}");
    cluster.finish();
}

#[test]
fn what_was_written_is_on_the_device_when_the_mount_is_read_only() {
    let mut cluster = Fixture::of("remount-durable", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    fs::write(here.join("file"), "not synced by its writer").expect("written");
    remount(&cluster, &here, "ro").expect("nobody writes");
    let killed = cluster.kill(1).expect("it is killed");
    cluster.until_recovered(&killed, PATIENCE).expect("recovered");
    assert_eq!(fs::read(there.join("file")).expect("read"), b"not synced by its writer");
    cluster.finish();
}

#[test]
fn what_was_mounted_read_only_stays_so() {
    let cluster = Fixture::of("remount-read-only", 1);
    let dir = cluster.mount(1);
    cluster.admin(1).unmount(&dir).expect("unmounted");
    cluster.admin(1).mount(&dir, true).expect("mounted");
    let said = remount(&cluster, &dir, "rw").expect_err("it has no journal");
    assert!(said.contains("mount it again"), "{said}");
    remount(&cluster, &dir, "ro,nodev").expect("it stays read-only");
    cluster.finish();
}
