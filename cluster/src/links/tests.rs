//! Behaviour of `links`.
