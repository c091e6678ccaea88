//! Behaviour of `wire`.
