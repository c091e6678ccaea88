//! mxarbiter.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use mxd::programs::{arbiter, service};

fn main() -> ExitCode {
    // Wrong usage ends here, with exit status 2.
    let options = arbiter::Options::parse();
    let log = match service::log_to_stderr(&options.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("mxarbiter: {error}");
            return ExitCode::from(arbiter::USAGE);
        }
    };
    let ready = || {
        println!("ready");
        service::notify_ready();
    };
    let outcome = arbiter::run(&options, ready);
    drop(log);
    match outcome {
        Ok(()) => ExitCode::from(arbiter::STOPPED),
        Err(error) => {
            let mut why = format!("mxarbiter: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                why.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            eprintln!("{why}");
            ExitCode::from(error.exit_status())
        }
    }
}
