//! rsync and tar: a tree goes round over the nodes, and every one of them has the same of it:
//! contents, times, modes, owners, links, holes, attributes and access lists.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use e2e::{Cluster, Fixture};
use rustix::fs::{XattrFlags, setxattr};

use crate::program::{installed, run};
use crate::rounds::rounds;

/// Everything that a file can be, on one node.
fn plant(dir: &Path, files: u16) {
    fs::create_dir(dir).expect("made");
    for number in 0..files {
        let folder = dir.join(format!("folder{}", number % 7));
        fs::create_dir_all(&folder).expect("made");
        let path = folder.join(format!("file {number} ä"));
        let len = usize::from(number) * 977 % 70_000;
        fs::write(&path, format!("<{number}>").repeat(len / 4)).expect("written");
        let mode = [0o644, 0o600, 0o4755, 0o444][usize::from(number) % 4];
        chown(&path, Some(u32::from(number)), Some(u32::from(number) + 1)).expect("given");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        if number % 3 == 0 {
            let value = vec![b'v'; usize::from(number) * 13 % 3000];
            setxattr(&path, "user.of-a-file", &value, XattrFlags::empty()).expect("set");
        }
        let nanos = u32::from(number) * 1_000_003 % 1_000_000_000;
        let time = UNIX_EPOCH + Duration::new(1_000_000_000 + u64::from(number), nanos);
        File::open(&path).expect("opened").set_modified(time).expect("set");
        if number % 5 == 0 {
            fs::hard_link(&path, dir.join(format!("link{number}"))).expect("linked");
        }
        if number % 4 == 0 {
            symlink("no/such/place", folder.join(format!("symbolic{number}"))).expect("made");
        }
    }
    let sparse = File::create(dir.join("sparse")).expect("made");
    for at in [1 << 20, 9 << 20] {
        sparse.write_all_at(b"in the middle of nothing", at).expect("written");
    }
    sparse.set_len(20 << 20).expect("grown");
    run_alone("mkfifo", &dir.join("fifo"));
    fs::create_dir(dir.join("empty")).expect("made");
}

fn run_alone(program: &str, path: &Path) {
    assert!(Command::new(program).arg(path).status().expect("it starts").success());
}

fn rsync(cluster: &Cluster, options: &[&str], from: &Path, to: &Path) -> String {
    let mut rsync = Command::new(installed("rsync"));
    rsync.args(["-aHAXS", "--numeric-ids", "--delete"]).args(options);
    // What is in the one, into the other.
    run(cluster, rsync.arg(from.join("")).arg(to.join("")))
}

/// rsync would have nothing to do, having read everything.
fn expect_same(cluster: &Cluster, from: &Path, to: &Path) {
    let said = rsync(cluster, &["--dry-run", "--checksum", "--itemize-changes"], from, to);
    assert_eq!(said, "", "{} and {}", from.display(), to.display());
    let links = |dir: &Path| fs::metadata(dir.join("link0")).expect("there").nlink();
    assert_eq!((links(from), links(to)), (2, 2));
}

#[test]
fn a_tree_that_goes_round_comes_back_the_same() {
    let cluster = Fixture::of("suite-archives", 3);
    let at = |node: u16, name: &str| cluster.mount(node).join(name);
    plant(&at(1, "origin"), rounds(60, 2000));
    for round in 0..rounds(1, 5) {
        rsync(&cluster, &[], &at(2, "origin"), &at(3, "copied"));
        expect_same(&cluster, &at(1, "origin"), &at(1, "copied"));
        let tar = |node: u16, dir: &str, args: &[&str]| {
            let mut tar = Command::new(installed("tar"));
            tar.arg("-C").arg(at(node, dir)).args(["--xattrs", "--xattrs-include=*", "--acls"]);
            let archive = at(node, "archive.tar");
            run(&cluster, tar.args(args).arg("-f").arg(archive).arg("."))
        };
        tar(3, "copied", &["--sparse", "--create"]);
        fs::create_dir(at(1, "unpacked")).expect("made");
        tar(1, "unpacked", &["--extract", "--same-owner", "--preserve-permissions"]);
        tar(2, "unpacked", &["--compare"]);
        expect_same(&cluster, &at(2, "origin"), &at(2, "unpacked"));
        // Some change, and only those are copied.
        for number in 0..10 {
            let path = at(1, "origin").join(format!("folder{}", number % 7)).join("new");
            fs::write(path, format!("of round {round}")).expect("written");
        }
        rsync(&cluster, &["--inplace", "--no-whole-file"], &at(3, "origin"), &at(2, "unpacked"));
        expect_same(&cluster, &at(1, "origin"), &at(3, "unpacked"));
        fs::remove_dir_all(at(2, "unpacked")).expect("removed");
    }
    cluster.finish();
}
