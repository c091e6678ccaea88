//! mxctl.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

use clap::Parser;
use mxd::programs::ctl;

fn main() -> ExitCode {
    let options = ctl::Options::parse();
    match ctl::run(&options, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mxctl: {error}");
            ExitCode::FAILURE
        }
    }
}
