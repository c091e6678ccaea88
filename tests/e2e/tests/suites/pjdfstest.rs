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
    let mut suite = Command::new(tool(&cluster, "pjdfstest"));
    suite.arg("-c").arg(&config).arg("-p").arg(&dir).current_dir(&dir);
    let said = run(&cluster, &mut suite);
    beside.stop();
    println!("{}", said.lines().last().unwrap_or_default());
    cluster.finish();
}
