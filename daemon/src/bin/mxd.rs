//! mxd.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

use clap::Parser;
use mxd::programs::mxd;

fn main() -> ExitCode {
    match mxd::run(&mxd::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mxd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
