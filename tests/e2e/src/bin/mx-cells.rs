//! mx-cells: one file, several writers at once (`e2e::cells`).

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match e2e::cells::main(&args, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mx-cells: {error:#}");
            ExitCode::FAILURE
        }
    }
}
