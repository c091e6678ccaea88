//! mxd.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

use ::mxd::config::Config;
use ::mxd::programs::mxd;
use clap::Parser;

fn main() -> ExitCode {
    let options = mxd::Options::parse();
    if let Some(file) = &options.check_config {
        return match Config::read(file) {
            Ok(config) => {
                println!("{config}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("mxd: {error}");
                ExitCode::FAILURE
            }
        };
    }
    match mxd::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mxd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
