//! What the rest of the project is judged by: a POSIX tree in memory, a generator of operations on
//! it, and a table of lock modes.
//!
//! Depends on `mx-base` only and never on the code it judges. Written for being obviously right,
//! not fast: whoever doubts a test result reads here what should have happened. Does no I/O, reads
//! no clock, draws no randomness besides [`Random`], which has a seed.

pub mod crash;
pub mod locks;
pub mod ops;
pub mod posix;
mod random;

pub use random::Random;
