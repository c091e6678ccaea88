//! Whole clusters of lock managers in one thread: rules one by one, and random histories under an
//! oracle.

mod oracle;
mod random;
mod rng;
mod rules;
mod world;
