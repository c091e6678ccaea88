//! Suites that others wrote, and programs that people use every day, on the mounts of a cluster.
//!
//! One file for each, of the name that `cargo xtask e2e --suite NAME` takes; quick in CI, long
//! there. What a suite leaves out is named with its reason where it is left out.

#![expect(clippy::print_stdout, reason = "a suite tells how much it has done")]

#[path = "../rounds/mod.rs"]
mod rounds;

mod client;
mod program;

mod archives;
mod cargo;
mod coherence;
mod damage;
mod dbench;
mod fio;
mod fsx;
mod git;
mod maildir;
mod ping_pong;
mod pjdfstest;
mod postgres;
mod shared_file;
mod sqlite;
mod stress;
