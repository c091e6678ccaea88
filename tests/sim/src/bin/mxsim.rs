//! Plays seeds of the cluster simulator: `mxsim run A..B`, `mxsim replay SEED`, `mxsim shrink SEED`;
//! and breaks the rules that it has to find out: `mxsim mutations`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

mod mxsim {
    pub(crate) mod choice;
    pub(crate) mod mutate;
    pub(crate) mod panics;
    pub(crate) mod play;
    pub(crate) mod replay;
    pub(crate) mod shrink;
}

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::mxsim::{mutate, play, replay, shrink};

/// Whole clusters in one thread, every choice from one seed
#[derive(Debug, Parser)]
#[command(name = "mxsim", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(play::Args),
    Replay(replay::Args),
    Shrink(shrink::Args),
    Mutations(mutate::Args),
    Broken(mutate::BrokenArgs),
}

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Run(args) => play::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Shrink(args) => shrink::run(&args),
        Command::Mutations(args) => mutate::run(&args),
        Command::Broken(args) => mutate::broken(&args),
    }
}
