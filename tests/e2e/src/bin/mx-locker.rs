//! mx-locker: a process that locks files and says what came of it (`e2e::locker`).

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match e2e::locker::run(std::io::stdin().lock(), &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mx-locker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
