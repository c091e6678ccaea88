//! The program mxarbiter as its users see it: what it prints, how it ends, what it leaves.

mod support;

use std::process::{Command, Stdio};

use support::{Arbiter, Scratch, arbiter_command};

/// Exit status and standard error.
fn outcome(command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().expect("started");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn it_serves_until_a_signal_and_takes_its_socket_along() {
    let scratch = Scratch::new("serves");
    let device = scratch.device();
    let arbiter = Arbiter::start(&scratch, &device);
    assert!(scratch.path("socket").exists());
    assert_eq!(arbiter.stop(), Some(0));
    assert!(!scratch.path("socket").exists());
    assert!(scratch.path("state").is_dir(), "who is fenced is kept");
    assert_eq!(Arbiter::start(&scratch, &device).stop(), Some(0), "and it starts again");
}

#[test]
fn a_second_one_is_told_that_the_device_is_in_use() {
    let scratch = Scratch::new("second");
    let device = scratch.device();
    let _first = Arbiter::start(&scratch, &device);
    let mut second = Command::new(env!("CARGO_BIN_EXE_mxarbiter"));
    second.arg(&device).args(["--patience", "0"]);
    second.arg("--socket").arg(scratch.path("other")).arg("--state").arg(scratch.path("state"));
    let (status, message) = outcome(&mut second);
    assert_eq!(status, Some(3), "{message}");
    assert!(message.contains("in use"), "{message}");
}

#[test]
fn what_is_no_matrixfs_device_is_not_served() {
    let scratch = Scratch::new("foreign");
    let device = scratch.path("blank");
    std::fs::File::create(&device).and_then(|file| file.set_len(64 << 20)).expect("a new file");
    let (status, message) = outcome(&mut arbiter_command(&scratch, &device));
    assert_eq!(status, Some(1));
    assert!(message.contains("not a MatrixFS device"), "{message}");
    assert!(!scratch.path("socket").exists());
    let (status, message) = outcome(&mut arbiter_command(&scratch, &scratch.path("absent")));
    assert_eq!(status, Some(1));
    assert!(message.contains("No such file"), "{message}");
}

#[test]
fn help_and_wrong_usage_have_their_exit_status() {
    let mut help = Command::new(env!("CARGO_BIN_EXE_mxarbiter"));
    assert_eq!(outcome(help.arg("--help").stdout(Stdio::null())).0, Some(0));
    let mut wrong = Command::new(env!("CARGO_BIN_EXE_mxarbiter"));
    assert_eq!(outcome(wrong.arg("--frobnicate")).0, Some(2));
}
