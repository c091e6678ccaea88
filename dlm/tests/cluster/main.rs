//! Whole clusters of lock managers in one thread: rules one by one, and random histories under an
//! oracle.

mod claimants;
mod claims;
mod death;
mod flood;
mod leave;
mod oracle;
mod random;
mod rebuild;
mod rng;
mod rules;
mod world;
