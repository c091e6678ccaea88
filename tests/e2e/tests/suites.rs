//! Suites that others wrote, on one node of a cluster while another looks at the same files.

mod rounds;

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{Cluster, Fixture, wait};
use rounds::rounds;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// Where it is installed: in `target/tools/bin`, by [`install`] the first time.
fn tool(cluster: &Cluster, name: &str) -> PathBuf {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        let target = cluster.programs().folder().parent().expect("target/debug has a parent");
        let tools = target.join("tools");
        if !tools.join("bin").join(name).is_file() {
            install(name, &tools);
        }
        tools.join("bin").join(name)
    })
}

fn install(name: &str, tools: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = cargo.args(["install", "--quiet", "--locked", name, "--root"]).arg(tools).status();
    assert!(status.expect("cargo starts").success(), "{name} cannot be installed");
}

/// Programs on another node that go on until this is dropped.
struct Beside(Child);

impl Beside {
    fn start(script: &str, dir: &Path) -> Beside {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("while :; do {script}; sleep 0.1; done")]);
        shell.current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Beside(shell.spawn().expect("sh starts"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let Some(group) = group else { return };
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
        // What the shell had started uses the mount until it is gone.
        let _ = wait::until("the end of all", Duration::from_secs(20), || {
            Ok(test_kill_process_group(group).is_err().then_some(()))
        });
    }
}

#[test]
fn pjdfstest_passes_while_another_node_lists() {
    let cluster = Fixture::of("suite-pjdfstest", 2);
    let config = cluster.folder().join("cluster.pjdfstest.toml");
    // What it tries beyond POSIX is what docs/semantics.md does not name as later.
    let features = ["posix_fallocate", "utimensat", "utime_now", "rename_ctime"];
    let features = features.map(|name| format!("{name} = {{}}\n")).concat();
    let users = "entries = [ [\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"] ]";
    let text = format!("[features]\n{features}[settings]\nnaptime = 0.01\n[dummy_auth]\n{users}\n");
    fs::write(&config, text).expect("written");
    let dir = cluster.mount(1).join("suite");
    fs::create_dir(&dir).expect("created");
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    // Its users besides root have to get there.
    for above in [cluster.folder(), &cluster.mount(1)] {
        fs::set_permissions(above, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("set");
    }
    let beside = Beside::start("find . -ls", &cluster.mount(2));
    let mut suite = Command::new(tool(&cluster, "pjdfstest"));
    suite.arg("-c").arg(&config).arg("-p").arg(&dir).current_dir(&dir);
    let output = suite.output().expect("it starts");
    drop(beside);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    cluster.finish();
}

#[test]
fn fsx_finds_nothing_while_another_node_reads_the_file() {
    let cluster = Fixture::of("suite-fsx", 2);
    let operations = if rounds(0, 1) == 0 { 20_000 } else { 100_000 };
    let config = cluster.folder().join("cluster.fsx.toml");
    let weights = ["mapread", "mapwrite", "punch_hole", "posix_fallocate", "copy_file_range"];
    let weights = weights.map(|name| format!("{name} = 0\n")).concat();
    fs::write(&config, format!("[weights]\n{weights}")).expect("written");
    let dir = cluster.mount(1);
    let beside = Beside::start("cat fsx.file | wc -c", &cluster.mount(2));
    let mut fsx = Command::new(tool(&cluster, "fsx"));
    fsx.args(["-q", "-N", &operations.to_string(), "-S", "1", "-f"]).arg(&config);
    fsx.arg("-P").arg(cluster.folder()).arg(dir.join("fsx.file"));
    let output = fsx.output().expect("it starts");
    drop(beside);
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    cluster.finish();
}

#[test]
fn git_works_on_one_node_while_another_walks_and_reads_everything() {
    let cluster = Fixture::of("suite-git", 2);
    let (here, there) = (cluster.mount(1), cluster.mount(2));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let script = "find . -type f -size -100k | xargs -r cat; tar cf - .";
    let beside = Beside::start(script, &there);
    let git = |args: &[&str], dir: &Path| {
        let mut git = Command::new("git");
        git.args([
            "-c",
            "safe.directory=*",
            "-c",
            "user.name=e2e",
            "-c",
            "user.email=e2e@localhost",
        ]);
        let output = git.args(args).current_dir(dir).output().expect("git starts");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "git {args:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // From a repository of its own, so that it does not matter how this one was got.
    let origin = here.join("origin");
    fs::create_dir(&origin).expect("created");
    git(&["init", "--quiet", "."], &origin);
    let mut copy = Command::new("cp");
    copy.arg("-r").args(["mfs", "cluster", "dlm", "docs"].map(|name| source.join(name)));
    assert!(copy.arg(&origin).status().expect("cp starts").success());
    git(&["add", "--all"], &origin);
    git(&["commit", "--quiet", "--message", "all"], &origin);
    git(&["clone", "--quiet", "--no-local", "origin", "clone"], &here);
    git(&["fsck", "--strict"], &here.join("clone"));
    assert_eq!(git(&["status", "--porcelain"], &here.join("clone")), "");
    drop(beside);
    // The other node has the same in its hands.
    git(&["fsck", "--strict"], &there.join("clone"));
    assert_eq!(git(&["status", "--porcelain"], &there.join("clone")), "");
    cluster.finish();
}
