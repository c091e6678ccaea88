//! mx-load: the operations of one writer (`e2e::load`).

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match e2e::load::writer::run(&args, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mx-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
