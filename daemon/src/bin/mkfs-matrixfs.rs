//! mkfs.matrixfs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

use clap::Parser;
use mxd::programs::mkfs;

fn main() -> ExitCode {
    let options = mkfs::Options::parse();
    match mkfs::run(&options) {
        Ok(made) if options.json => match serde_json::to_string(&made) {
            Ok(json) => println!("{json}"),
            Err(error) => eprintln!("mkfs.matrixfs: {error}"),
        },
        Ok(made) if !options.quiet => println!("{made}"),
        Ok(_) => {}
        Err(error) => {
            eprintln!("mkfs.matrixfs: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
