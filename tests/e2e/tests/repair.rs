//! A damaged device: fsck.matrixfs finds it, repairs it, and what was not damaged is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

use e2e::loop_device::LoopDevice;
use e2e::{Fixture, Programs, fsck};
use rustix::fs::XattrFlags;
use serde_json::Value;

const BLOCK: u64 = 4096;
const NAMES: usize = 400;

fn name(i: usize) -> String {
    format!("{i:03} a name that is long enough to fill more than an inode with such names")
}

fn debug(programs: &Programs, device: &Path, what: &[&str]) -> Output {
    let mut command: Command = programs.command("matrixfs-debug");
    command.arg("--json").arg(device).args(what).output().expect("it starts")
}

/// What matrixfs-debug prints; it has to print it also as text.
fn shown(programs: &Programs, device: &Path, what: &[&str]) -> Value {
    let output = debug(programs, device, what);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what:?}: {errors}");
    let mut text: Command = programs.command("matrixfs-debug");
    let text = text.arg(device).args(what).output().expect("it starts");
    assert!(text.status.success() && !text.stdout.is_empty(), "{what:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// All fields of a name, wherever they are.
fn fields<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Array(all) => all.iter().flat_map(|value| fields(value, name)).collect(),
        Value::Object(all) => {
            let below = all.values().flat_map(|value| fields(value, name));
            all.get(name).into_iter().chain(below).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn number(value: &Value, name: &str) -> u64 {
    fields(value, name).first().and_then(|n| n.as_u64()).unwrap_or_else(|| panic!("{name}"))
}

fn spoil(device: &Path, block: u64) {
    let file = File::options().write(true).open(device).expect("opened");
    for at in [300, 2000] {
        file.write_all_at(b"spoilt", block * BLOCK + at).expect("written");
    }
    file.sync_all().expect("durable");
}

fn fill(dir: &Path) {
    fs::write(dir.join("large"), vec![7; 1 << 20]).expect("written");
    fs::write(dir.join("spoilt"), vec![8; 100_000]).expect("written");
    fs::hard_link(dir.join("large"), dir.join("second name")).expect("linked");
    symlink("large", dir.join("link")).expect("linked");
    let value = vec![9; 5000];
    rustix::fs::setxattr(dir.join("large"), "user.large", &value, XattrFlags::empty())
        .expect("set");
    fs::create_dir(dir.join("many")).expect("created");
    for i in 0..NAMES {
        fs::write(dir.join("many").join(name(i)), name(i)).expect("written");
    }
}

fn structures_are_shown(programs: &Programs, device: &Path) {
    let show = |what: &[&str]| shown(programs, device, what);
    let superblocks = show(&["superblock"]);
    assert!(fields(&superblocks, "label").iter().all(|label| **label == "matrix"));
    assert!(!fields(&show(&["groups"]), "free_blocks").is_empty());
    assert!(!fields(&show(&["groups", "0"]), "bits_set").is_empty());
    let chunks = show(&["chunks", "0"]);
    assert!(fields(&chunks, "kind").iter().any(|kind| **kind == "Inode"), "{chunks}");
    let inode = show(&["inode", "/large"]);
    assert_eq!((number(&inode, "size"), number(&inode, "links")), (1 << 20, 2));
    let extents = show(&["extents", "/large"]);
    let blocks: u64 = fields(&extents, "blocks").iter().filter_map(|n| n.as_u64()).sum();
    assert_eq!(blocks, (1 << 20) / BLOCK);
    let names = show(&["directory", "/many"]);
    assert_eq!(fields(&names, "name").len(), NAMES);
    let xattrs = show(&["xattrs", "/large"]);
    assert!(fields(&xattrs, "name").iter().any(|name| **name == "user.large"), "{xattrs}");
    assert!(!fields(&show(&["slots"]), "state").is_empty());
    assert!(!fields(&show(&["journal", "0"]), "tail_sequence").is_empty());
    assert!(!fields(&show(&["membership"]), "cluster").is_empty());
    let number = number(&inode, "block").to_string();
    assert_eq!(show(&["block", &number]), inode);
    assert_eq!(debug(programs, device, &["inode", "/not there"]).status.code(), Some(1));
}

#[test]
fn a_damaged_device_is_repaired_and_what_was_not_damaged_is_read() {
    let mut cluster = Fixture::prepared("repair", 1, 128 << 20);
    cluster.start_local(1).expect("started");
    let dir = cluster.mount(1);
    fill(&dir);
    let mut refused = cluster.programs().command("fsck-matrixfs");
    let refused = refused.arg("-y").arg(cluster.device()).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(8), "a mounted device: {refused:?}");
    cluster.stop_local(1).expect("stopped");
    let programs = cluster.programs().clone();
    let device = LoopDevice::over(&cluster.device()).expect("a loop device");
    let device_path = device.path();
    structures_are_shown(&programs, device_path);
    assert_eq!(fsck::repair(&programs, device_path).expect("checked").0, 0, "nothing to do");

    // An inode, a bucket of a directory, a bitmap.
    let inode = shown(&programs, device_path, &["inode", "/spoilt"]);
    spoil(device_path, number(&inode, "block"));
    let many = shown(&programs, device_path, &["directory", "/many"]);
    let blocks = fields(&many, "block");
    spoil(device_path, blocks.get(1).and_then(|n| n.as_u64()).expect("more than one bucket"));
    let group = shown(&programs, device_path, &["groups", "0"]);
    spoil(device_path, number(&group, "block") + 2);
    let wrong = shown(&programs, device_path, &["inode", "/spoilt"]);
    assert!(!fields(&wrong, "wrong").is_empty(), "{wrong}");

    let found = fsck::check(&programs, device_path).expect("checked");
    assert!(!found.clean && found.done.is_empty());
    let (status, repaired) = fsck::repair(&programs, device_path).expect("repaired");
    assert_eq!((status, repaired.clean), (1, true), "{repaired:?}");
    assert_eq!(repaired.isolated.len(), 1, "{repaired:?}");
    fsck::check(&programs, device_path).expect("checked").expect_clean().expect("clean");
    let (status, again) = fsck::repair(&programs, device_path).expect("repaired");
    assert_eq!((status, again.done.len()), (0, 0), "{again:?}");
    drop(device);

    cluster.start_local(1).expect("started");
    assert_eq!(fs::read(dir.join("large")).expect("read"), vec![7; 1 << 20]);
    assert_eq!(fs::read(dir.join("link")).expect("read"), vec![7; 1 << 20]);
    let mut value = vec![0; 8192];
    let len = rustix::fs::getxattr(dir.join("large"), "user.large", &mut value).expect("there");
    assert_eq!(value[..len], vec![9; 5000]);
    let error = fs::read(dir.join("spoilt")).expect_err("isolated");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    // Names of the bucket that were spoilt are in lost+found; contents are all there.
    let mut found: BTreeSet<String> = BTreeSet::new();
    for place in ["many", "lost+found"] {
        let entries = match fs::read_dir(dir.join(place)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.expect("read"),
        };
        for entry in entries {
            let path = entry.expect("read").path();
            found.insert(fs::read_to_string(path).expect("read"));
        }
    }
    assert_eq!(found, (0..NAMES).map(name).collect());
    fs::write(dir.join("new"), b"it can be written to").expect("written");
    cluster.stop_local(1).expect("stopped");
    cluster.finish();
}

#[test]
fn a_device_that_a_node_uses_elsewhere_is_not_repaired() {
    let cluster = Fixture::of("repair-in-use", 1);
    fs::write(cluster.mount(1).join("file"), b"as before").expect("written");
    // By another way to it, as another machine has one.
    let device = LoopDevice::over(&cluster.device()).expect("a loop device");
    let mut fsck = cluster.programs().command("fsck-matrixfs");
    let refused = fsck.arg("-y").arg(device.path()).output().expect("it starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(8), "{said}");
    assert!(said.contains("node n1 of its cluster uses it"), "{said}");
    drop(device);
    assert_eq!(fs::read(cluster.mount(1).join("file")).expect("read"), b"as before");
    cluster.finish();
}
