//! The project's own commands: `cargo xtask <command>`.
//!
//! One file per command: a module with `Args` and `run`, and a line in [`Command`] and in `main`.
//! Uses no crate of the workspace but `e2e`, which uses none, so that it builds and tells what is
//! wrong while they do not.

// Printing is what these commands are for.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

mod bench;
mod conformance;
mod demo;
mod e2e;
mod exhaustive;
mod fix;
mod install;
mod packages;
mod process;
mod runner;
mod rust_source;
mod sim;
mod steps;
mod test;
mod tidy;
mod uninstall;
mod verify;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Conformance(conformance::Args),
    Demo(demo::Args),
    E2e(e2e::Args),
    Exhaustive(exhaustive::Args),
    Fix(fix::Args),
    Install(install::Args),
    Replay(sim::ReplayArgs),
    Shrink(sim::ShrinkArgs),
    Sim(sim::Args),
    Test(test::Args),
    Tidy(tidy::Args),
    Uninstall(uninstall::Args),
    Verify(verify::Args),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Bench(args) => bench::run(args),
        Command::Conformance(args) => conformance::run(args),
        Command::Demo(args) => demo::run(args),
        Command::E2e(args) => e2e::run(args),
        Command::Exhaustive(args) => exhaustive::run(args),
        Command::Fix(args) => fix::run(args),
        Command::Install(args) => install::run(args),
        Command::Replay(args) => sim::replay(args),
        Command::Shrink(args) => sim::shrink(args),
        Command::Sim(args) => sim::run(args),
        Command::Test(args) => test::run(args),
        Command::Tidy(args) => tidy::run(args),
        Command::Uninstall(args) => uninstall::run(args),
        Command::Verify(args) => verify::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
