//! pjdfstest: what POSIX says of each system call on files, on one node while another lists.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use e2e::Fixture;

use crate::program::{Beside, let_others_in, run, tool};

#[test]
fn it_passes_while_another_node_lists() {
    let cluster = Fixture::of("suite-pjdfstest", 2);
    let config = cluster.folder().join("cluster.pjdfstest.toml");
    // Left out: EROFS, for which it makes the mount read-only: `mount -o remount` runs mount.fuse of
    // Debian, which cannot, and past that the kernel says EBUSY now and then. Flags of BSD and NFSv4
    // lists are not for Linux.
    // What it tries beyond POSIX is what docs/semantics.md does not name as later.
    let features = ["posix_fallocate", "utimensat", "utime_now", "rename_ctime"];
    let features = features.map(|name| format!("{name} = {{}}\n")).concat();
    let other = cluster.folder().join("another-file-system");
    fs::create_dir(&other).expect("made");
    let features = format!("{features}secondary_fs = {other:?}\n");
    let users = "entries = [ [\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"] ]";
    let text = format!("[features]\n{features}[settings]\nnaptime = 0.01\n[dummy_auth]\n{users}\n");
    fs::write(&config, text).expect("written");
    let dir = cluster.mount(1).join("suite");
    fs::create_dir(&dir).expect("created");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("set");
    let_others_in(&cluster);
    let beside = Beside::start(&cluster, "find . -ls", &cluster.mount(2));
    let suite = |cases: &[String]| {
        let mut suite = Command::new(tool(&cluster, "pjdfstest"));
        suite.arg("-c").arg(&config).arg("-p").arg(&dir).args(cases).current_dir(&dir);
        let said = run(&cluster, &mut suite);
        println!("{}", said.lines().last().unwrap_or_default());
        said
    };
    suite(&all_but(MOUNTS));
    cluster.admin(1).unmount(&cluster.mount(1)).expect("unmounted");
    cluster.admin(1).mount_for_submounts(&cluster.mount(1)).expect("mounted");
    let said = suite(&[MOUNTS.to_owned()]);
    assert!(said.contains(" 1 passed"), "this one was to be tried:\n{said}");
    beside.stop();
    cluster.finish();
}

/// The case that mounts a file system on a directory of ours, which stays there for sure with
/// `submounts` alone (docs/semantics.md 1).
const MOUNTS: &str = "tests::rmdir::ebusy";

/// Patterns for all cases but this one: the suite takes none that leaves something out.
fn all_but(case: &str) -> Vec<String> {
    let tests = "tests::".len();
    let differs_at = |(at, next)| {
        let others = ('a'..='z').chain(['_', ':']).filter(move |other| *other != next);
        others.map(move |other| format!("{}{other}", &case[..at]))
    };
    case.char_indices().skip(tests).flat_map(differs_at).collect()
}
