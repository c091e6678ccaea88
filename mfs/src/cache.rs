//! What this node caches of the shared disk, always under the lock that covers it.

pub(crate) mod blocks;
pub(crate) mod load;

pub(crate) use blocks::{BlockSet, CachedBlock};
pub(crate) use load::{Expect, Fault, Step};
