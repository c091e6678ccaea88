//! mx-fsx: one file through several mounts (`e2e::shared_file`).

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match e2e::shared_file::main(&args, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mx-fsx: {error:#}");
            ExitCode::FAILURE
        }
    }
}
