//! Behaviour of `san`.
