//! git: clones, branches, repacking and checks of a repository that two nodes work in, while a
//! third one walks and reads everything.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Cluster, Fixture};

use crate::program::{Beside, installed, run};
use crate::rounds::rounds;

fn git(cluster: &Cluster, dir: &Path, args: &[&str]) -> String {
    let mut git = Command::new(installed("git"));
    let who = ["safe.directory=*", "user.name=e2e", "user.email=e2e@localhost", "gc.auto=0"];
    git.args(who.iter().flat_map(|option| ["-c", option]));
    run(cluster, git.args(args).current_dir(dir).env("GIT_CONFIG_NOSYSTEM", "1"))
}

/// A repository of its own, so that it does not matter how this one was got.
fn origin(cluster: &Cluster, dir: &Path) {
    fs::create_dir(dir).expect("created");
    git(cluster, dir, &["init", "--quiet", "--initial-branch=main", "."]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut copy = Command::new("cp");
    copy.arg("-r").args(["mfs", "cluster", "dlm", "docs"].map(|name| source.join(name)));
    run(cluster, copy.arg(dir));
    git(cluster, dir, &["add", "--all"]);
    git(cluster, dir, &["commit", "--quiet", "--message", "all"]);
}

#[test]
fn two_nodes_work_in_one_repository_while_a_third_reads_everything() {
    let cluster = Fixture::of("suite-git", 3);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    let script = "find . -type f -size -100k | xargs -r cat; tar cf - .";
    let beside = Beside::start(&cluster, script, &cluster.mount(3));
    origin(&cluster, &here.join("origin"));
    git(&cluster, &here, &["clone", "--quiet", "--no-local", "origin", "clone"]);
    for round in 0..rounds(1, 20) {
        for (number, mount) in [&here, &there].into_iter().enumerate() {
            let clone = mount.join("clone");
            let branch = format!("branch-{round}-{number}");
            git(&cluster, &clone, &["checkout", "--quiet", "-b", &branch]);
            // A name that others have too, and one of its own.
            fs::write(clone.join("both"), &branch).expect("written");
            fs::rename(clone.join("mfs"), clone.join(&branch)).expect("renamed");
            git(&cluster, &clone, &["add", "--all"]);
            git(&cluster, &clone, &["commit", "--quiet", "--message", &branch]);
            git(&cluster, &clone, &["push", "--quiet", "origin", &branch]);
            git(&cluster, &clone, &["checkout", "--quiet", "main"]);
            assert_eq!(git(&cluster, &clone, &["status", "--porcelain"]), "", "{branch}");
        }
        // What one node has committed the other one checks, repacks and checks out.
        git(&cluster, &there.join("clone"), &["fsck", "--strict"]);
        git(&cluster, &there.join("clone"), &["gc", "--quiet", "--aggressive", "--prune=now"]);
        git(&cluster, &here.join("clone"), &["fsck", "--strict"]);
        for (mount, number) in [(&here, 1), (&there, 0)] {
            let clone = mount.join("clone");
            let branch = format!("branch-{round}-{number}");
            git(&cluster, &clone, &["checkout", "--quiet", &branch]);
            assert_eq!(git(&cluster, &clone, &["status", "--porcelain"]), "", "{branch}");
            assert_eq!(fs::read_to_string(clone.join("both")).expect("read"), branch);
            git(&cluster, &clone, &["checkout", "--quiet", "main"]);
        }
        git(&cluster, &here.join("origin"), &["fsck", "--strict"]);
    }
    beside.stop();
    // The third one has the same in its hands.
    let clone = cluster.mount(3).join("clone");
    git(&cluster, &clone, &["fsck", "--strict"]);
    assert_eq!(git(&cluster, &clone, &["status", "--porcelain"]), "");
    cluster.finish();
}
