//! Behaviour of `membership`.
