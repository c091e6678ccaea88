//! Programs of suites: found, started and waited for.
//!
//! Keeps true: what a program says stays beside the logs of the nodes when its test fails; a
//! program that hangs is ended with its whole group, after who waits for whom was asked. How long
//! it takes is never judged.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use e2e::{Cluster, wait};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::rounds::period;

/// After this a program hangs: many times what the longest takes.
fn patience() -> Duration {
    period(Duration::from_secs(300), Duration::from_secs(3 * 3600))
}

/// Where a program is that a package of Debian brings.
///
/// # Panics
/// When it is not installed.
pub(crate) fn installed(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let for_administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let of_versions = versions.map(|version| version.path().join("bin"));
    let folders = env::split_paths(&path).chain(for_administrators).chain(of_versions);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing; `cargo xtask test` installs it"))
}

/// Where a suite from the crate registry is: in the path or, installed the first time, in
/// `target/tools/bin`.
pub(crate) fn tool(cluster: &Cluster, name: &str) -> PathBuf {
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

/// Users besides root get to what is below the mounts.
pub(crate) fn let_others_in(cluster: &Cluster) {
    let open = |dir: &Path| fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
    open(cluster.folder()).expect("set");
    for node in cluster.running() {
        open(&cluster.mount(node)).expect("set");
    }
}

/// Runs a program to its end; what it says is the result.
///
/// # Panics
/// When it fails or hangs.
pub(crate) fn run(cluster: &Cluster, command: &mut Command) -> String {
    Running::start(cluster, command).finish(cluster)
}

/// A program with all that it starts.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    what: String,
    said: PathBuf,
    has_ended: bool,
}

impl Running {
    /// Starts it in a group of its own.
    pub(crate) fn start(cluster: &Cluster, command: &mut Command) -> Running {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = Path::new(command.get_program()).file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let said = cluster.folder().join(format!("suite-{count:03}-{name}.log"));
        let file = File::create(&said).expect("its output");
        let errors = file.try_clone().expect("its output");
        command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
        let what = [name].into_iter().chain(args).collect::<Vec<_>>().join(" ");
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Running { child, what, said, has_ended: false }
    }

    /// Waits for its end; what it said is the result.
    ///
    /// # Panics
    /// When it fails or hangs.
    pub(crate) fn finish(self, cluster: &Cluster) -> String {
        let what = self.what.clone();
        let (status, said) = self.end(cluster);
        let (worst, last) = (complaints(&said), ending(&said, 60));
        assert!(status.success(), "{what} ended with {status}:\n{worst}\n...\n{last}");
        said
    }

    /// Waits for its end, however it ends.
    ///
    /// # Panics
    /// When it hangs.
    pub(crate) fn end(mut self, cluster: &Cluster) -> (ExitStatus, String) {
        let patience = patience();
        let ended = wait::until("its end", patience, || Ok(self.child.try_wait()?));
        let said =
            || String::from_utf8_lossy(&fs::read(&self.said).unwrap_or_default()).into_owned();
        let Ok(status) = ended else {
            let text = who_waits(cluster, self.child.id());
            panic!("{} hangs:\n{}\n{text}", self.what, ending(&said(), 20));
        };
        let said = said();
        self.has_ended = true;
        (status, said)
    }

    /// Ends it with its group.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let Some(group) = group.filter(|_| !self.has_ended) else { return };
        let _ = kill_process_group(group, Signal::KILL);
        // What waits for a mount in the kernel ends when the mount does, which is after this; what
        // the program had started uses the mount until it is gone.
        let _ = wait::until("the end of all", Duration::from_secs(20), || {
            let _ = self.child.try_wait();
            Ok(test_kill_process_group(group).is_err().then_some(()))
        });
    }
}

/// A script that goes on on another node until this is dropped.
#[derive(Debug)]
pub(crate) struct Beside(Running);

impl Beside {
    pub(crate) fn start(cluster: &Cluster, script: &str, dir: &Path) -> Beside {
        let mut shell = Command::new("sh");
        // Whatever it says: files come and go under it.
        let script = format!("exec >/dev/null 2>&1; while :; do {script}; sleep 0.1; done");
        shell.args(["-c", &script]).current_dir(dir);
        Beside(Running::start(cluster, &mut shell))
    }

    pub(crate) fn stop(self) {
        self.0.kill();
    }
}

fn ending(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The lines that say what failed, each with the next one: a suite goes on behind them.
fn complaints(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let says_so = |line: &&str| line.to_lowercase().contains("fail") && !line.ends_with(" ok");
    let pairs = lines.windows(2).filter(|pair| pair.first().is_some_and(says_so));
    pairs.take(20).map(|pair| pair.join("\n")).collect::<Vec<_>>().join("\n")
}

/// For whoever has to find out why a program hangs: its processes with what they wait for in the
/// kernel, and what every node waits for.
fn who_waits(cluster: &Cluster, group: u32) -> String {
    let mut text = String::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(process.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        // The name in parentheses may contain anything; then state, parent, group.
        let Some((name, fields)) = stat.rsplit_once(") ") else { continue };
        if fields.split(' ').nth(2) != Some(group.to_string().as_str()) {
            continue;
        }
        let state = fields.split(' ').next().unwrap_or_default();
        let stack = read("stack");
        let stack: Vec<&str> = stack.lines().take(8).collect();
        let _ = writeln!(text, "{name}) {state} {} {}", read("wchan"), stack.join(" "));
    }
    for node in cluster.running() {
        let mut mxctl = cluster.programs().command("mxctl");
        mxctl.arg("--socket").arg(cluster.admin(node).socket());
        let why = mxctl.args(["lock", "top", "--once"]).output();
        let why = why.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let _ = writeln!(text, "node {node}:\n{}", why.unwrap_or_default());
        let mut mxctl = cluster.programs().command("mxctl");
        mxctl.arg("--socket").arg(cluster.admin(node).socket());
        let why = mxctl.arg("why").arg(cluster.mount(node)).output();
        let why = why.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let _ = writeln!(text, "{}", why.unwrap_or_default());
    }
    text
}
