//! Whole clusters of lock caches in one thread, with objects under the locks: rules one by one, and
//! random histories in which every read must see the last write.

mod ahead;
mod ends;
mod full;
mod hold;
mod node;
mod objects;
mod random;
#[path = "../../../dlm/tests/cluster/rng.rs"]
mod rng;
mod rules;
mod world;
