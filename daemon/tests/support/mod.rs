//! A directory with a formatted device and an arbiter process, gone when the test is.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::Parser;
use mxd::programs::mkfs;

#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("mxd-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A formatted device of 64 MiB, sparse.
    pub fn device(&self) -> PathBuf {
        let path = self.path("device");
        let file = std::fs::File::create(&path).expect("a new file");
        file.set_len(64 << 20).expect("sparse");
        drop(file);
        let args = ["mkfs.matrixfs", "--quiet", path.to_str().expect("a plain path")];
        let options = mkfs::Options::parse_from(args);
        // On a thread of its own: it has a runtime, and so may the test.
        let made = std::thread::spawn(move || mkfs::run(&options).map(drop));
        made.join().expect("no panic").expect("formatted");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn arbiter_command(scratch: &Scratch, device: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mxarbiter"));
    command.arg(device).args(["--patience", "10", "--log", "warn"]);
    command.arg("--socket").arg(scratch.path("socket"));
    command.arg("--state").arg(scratch.path("state"));
    command
}

/// An arbiter that nodes can connect to.
pub struct Arbiter(Child);

impl Arbiter {
    pub fn start(scratch: &Scratch, device: &Path) -> Arbiter {
        let mut command = arbiter_command(scratch, device);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let output = child.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("readable");
        assert_eq!(line, "ready\n");
        Arbiter(child)
    }

    /// SIGTERM; the exit status.
    pub fn stop(mut self) -> Option<i32> {
        let id = i32::try_from(self.0.id()).expect("a process id");
        let id = rustix::process::Pid::from_raw(id).expect("not zero");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it runs");
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
