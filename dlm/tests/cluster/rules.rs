//! The rules of `docs/spec/locks.md`, one by one.
