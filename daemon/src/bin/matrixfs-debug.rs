//! matrixfs-debug.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use mxd::programs::debug;

fn main() -> ExitCode {
    let options = debug::Options::parse();
    match debug::run(&options) {
        Ok(text) => {
            // Whoever has read enough closes its end.
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("matrixfs-debug: {error}");
            ExitCode::FAILURE
        }
    }
}
