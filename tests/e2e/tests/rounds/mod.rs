//! How long tests go on: quick in CI, long under `cargo xtask e2e`.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::time::Duration;

/// Set by `cargo xtask e2e`: how many rounds the long form has.
const VARIABLE: &str = "MATRIXFS_E2E_ROUNDS";

fn asked() -> Option<u16> {
    std::env::var(VARIABLE).ok()?.parse().ok()
}

/// Is it the long form?
pub fn is_long() -> bool {
    asked().is_some()
}

/// `quick`, or in the long form what was asked for, up to `long` if nothing was.
pub fn rounds(quick: u16, long: u16) -> u16 {
    match asked() {
        None => quick,
        Some(0) => long,
        Some(rounds) => rounds,
    }
}

/// How long work under load goes on.
pub fn period(quick: Duration, long: Duration) -> Duration {
    if asked().is_some() { long } else { quick }
}
