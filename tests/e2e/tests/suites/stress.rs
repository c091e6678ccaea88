//! stress-ng: the stressors of its file-system class, with what they check themselves.

use std::path::Path;
use std::process::Command;

use e2e::{Cluster, Fixture};

use crate::program::{Running, installed};
use crate::rounds::{is_long, rounds};

/// Those that work on files in a folder.
const STRESSORS: &[&str] = &[
    "access",
    "chattr",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "dup",
    "fallocate",
    "fanotify",
    "fcntl",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "inode-flags",
    "inotify",
    "io",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

/// The others of the class, and why not.
#[expect(dead_code, reason = "it is for whoever reads it")]
const LEFT_OUT: &[(&str, &str)] = &[
    ("bind-mount", "mounts the root of the machine, not ours"),
    ("binderfs", "mounts a file system of its own"),
    ("eventfd", "uses no files of a file system"),
    ("fiemap", "FS_IOC_FIEMAP is refused (docs/semantics.md, 4)"),
    ("ioprio", "priorities, not files"),
    ("procfs", "reads /proc"),
    ("verity", "FS_IOC_ENABLE_VERITY is refused (docs/semantics.md, 4)"),
];

fn stress(cluster: &Cluster, dir: &Path, names: &[&str], instances: u16, seconds: u16) -> Running {
    let mut stress = Command::new(installed("stress-ng"));
    for name in names {
        stress.arg(format!("--{name}")).arg(instances.to_string());
    }
    stress.args(["--verify", "--oomable", "--timeout", &format!("{seconds}s")]);
    // Of what it writes at once.
    stress.args(["--hdd-bytes", "16m", "--iomix-bytes", "16m"]);
    stress.args(["--temp-path"]).arg(dir).current_dir(dir);
    Running::start(cluster, &mut stress)
}

/// Known: while another node has changed names, and somebody looks the working directory of a process up
/// anew, that process has none (docs/semantics.md, 1).
fn is_known(line: &str) -> bool {
    line.contains("getcwd failed, errno=2") // ENOENT
        || line.contains("terminated with an error, exit status=")
}

/// All of them at once, or in the long form one after the other.
fn on(name: &str, nodes: u16) {
    let cluster = Fixture::of(name, nodes);
    let singly: Vec<&[&str]> = STRESSORS.chunks(1).collect();
    let groups = if is_long() { singly } else { vec![STRESSORS] };
    let instances = if is_long() { 2 } else { 1 };
    for names in groups {
        let start = |node| {
            let dir = cluster.mount(node).join(format!("of-node-{node}"));
            std::fs::create_dir_all(&dir).expect("made");
            stress(&cluster, &dir, names, instances, rounds(3, 5))
        };
        let all: Vec<Running> = cluster.nodes().into_iter().map(start).collect();
        for running in all {
            let what = names.join(" ");
            let (status, said) = running.end(&cluster);
            let is_wrong = |line: &&str| line.contains("fail:") || line.contains("error:");
            let mut wrong = said.lines().filter(is_wrong).filter(|line| !is_known(line));
            assert_eq!(wrong.next(), None, "{what}: {said}");
            let is_excused = said.lines().any(is_known);
            assert!(status.success() || is_excused, "{what} ended with {status}: {said}");
            if let Some(skipped) = said.lines().find(|line| line.contains("skipped")) {
                println!("{skipped}");
            }
        }
    }
    cluster.finish();
}

#[test]
fn file_system_stressors_find_nothing_on_one_node() {
    on("suite-stress", 1);
}

#[test]
fn file_system_stressors_find_nothing_on_three_nodes_at_once() {
    on("suite-stress-three", 3);
}
