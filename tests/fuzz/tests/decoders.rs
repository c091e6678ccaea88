//! Every target for a short while, with the same bytes each time.
//!
//! `MATRIXFS_FUZZ_ROUNDS=N` and `MATRIXFS_FUZZ_SEED=N` run others.

use fuzz::{Target, files, fuzz, kernel, links, locks, storage};

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Enough bytes must have been taken, or nothing behind the first check was ever reached.
fn check(target: Target, rounds: u64, taken_min: u64) {
    let rounds = setting("MATRIXFS_FUZZ_ROUNDS").unwrap_or(rounds);
    let taken = fuzz(target, setting("MATRIXFS_FUZZ_SEED").unwrap_or(1), rounds);
    assert!(taken >= taken_min.min(rounds / 100), "{taken} of {rounds} were taken");
}

#[test]
fn frames() {
    check(links::FRAMES, 40_000, 400);
}

#[test]
fn handshakes() {
    check(links::HELLO, 40_000, 400);
    check(links::REFUSAL, 40_000, 400);
}

#[test]
fn heartbeats_of_peers() {
    check(links::PING, 40_000, 400);
}

#[test]
fn control_messages() {
    check(links::CONTROL, 100_000, 400);
}

#[test]
fn requests_of_the_kernel() {
    check(kernel::REQUEST, 200_000, 400);
}

#[test]
fn lock_messages() {
    check(locks::MESSAGE, 100_000, 400);
}

#[test]
fn payloads_of_lock_frames() {
    check(locks::BUNDLE, 100_000, 400);
}

#[test]
fn the_welcome_of_lock_tables() {
    check(locks::WELCOME, 3_000, 30);
}

#[test]
fn superblocks_of_the_membership_partition() {
    check(storage::SUPERBLOCK, 40_000, 400);
}

#[test]
fn register_records() {
    check(storage::REGISTER, 40_000, 400);
}

#[test]
fn heartbeat_records() {
    check(storage::HEARTBEAT, 40_000, 400);
}

#[test]
fn packets_of_the_arbiter() {
    check(storage::ARBITER_HELLO, 40_000, 400);
    check(storage::ARBITER_WELCOME, 40_000, 400);
    check(storage::ARBITER_REQUEST, 40_000, 400);
    check(storage::ARBITER_REPLY, 40_000, 400);
    check(storage::ARBITER_REPORTS, 10_000, 100);
}

#[test]
fn journal_segments() {
    check(files::SEGMENT, 100_000, 400);
}

#[test]
fn extended_attributes() {
    check(files::XATTRS, 100_000, 400);
}

#[test]
fn devices() {
    check(files::DEVICE, 200, 2);
}
