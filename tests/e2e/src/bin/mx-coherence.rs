//! mx-coherence: what one node does, every node sees (`e2e::coherence`).

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match e2e::coherence::main(&args, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mx-coherence: {error:#}");
            ExitCode::FAILURE
        }
    }
}
