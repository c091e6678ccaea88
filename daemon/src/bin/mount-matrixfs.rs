//! mount.matrixfs.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use mxd::programs::mount::{self, OK, USAGE};

fn main() -> ExitCode {
    let options = match mount::Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked { OK } else { USAGE });
        }
    };
    let mut say = |text: &str| eprintln!("mount.matrixfs: {text}");
    match mount::run(&options, &mut say) {
        Ok(()) => ExitCode::from(OK),
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(error.status())
        }
    }
}
