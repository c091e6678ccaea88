//! Whole clusters: several nodes over shared devices and one network, everything from one seed.
//!
//! Every node is an [`mx_node::Node`], the wiring that ships, and a file system mounted on it under
//! a kernel that caches. [`run`] plays a seed: nodes start, applications work, things go wrong,
//! everything heals, all unmount, and the device is checked.
//!
//! * [`plan`]: what goes wrong when. [`host`]: lives of nodes, on the time of [`clock`].
//! * [`volume`]: a file system; there may be several in one cluster.
//! * [`arbiter`], [`net`], [`kernel`]: the world. [`lease`]: until when a kernel is served.
//! * [`aim`]: deaths in the middle of a recovery.
//! * [`apart`]: several file systems, and what one of them has to do with another.
//! * [`work`], [`chain`], [`log_file`], [`oracle`]: what must be found.

pub mod aim;
mod apart;
pub mod arbiter;
pub mod chain;
pub mod clock;
mod faults;
pub mod host;
pub mod kernel;
pub mod lease;
pub mod listing;
pub mod log_file;
mod look;
pub mod net;
pub mod oracle;
pub mod plan;
mod run;
pub mod volume;
pub mod work;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use mfs::block::{BlockNo, SharedBlock};
use mx_base::{ClusterId, Instant, Member};
use parking_lot::Mutex;

use crate::exec::{Executor, Group};
use aim::Deaths;
use clock::HostClock;
use host::Life;
use net::Net;
use oracle::Oracle;
pub use oracle::Violation;
use oracle::grants::Grants;
use oracle::leaves::Leaves;
use oracle::views::Views;
use plan::Plan;
use volume::Volume;

pub use run::{Report, run};

/// Tasks of the world: network, arbiter, faults.
pub const WORLD: Group = Group(0);

/// Node ids that may be in use: what all of them write is read often, so not more than are needed.
fn nodes_max(plan: &Plan) -> u16 {
    if plan.nodes > 8 { 16 } else { 8 }
}

/// One life of one node, counted from 1 over the whole run; also the group of its tasks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LifeId(pub u32);

impl fmt::Display for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "life {}", self.0)
    }
}

/// A cluster being simulated. Clones are the same one.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

/// Everything there is.
pub struct Inner {
    plan: Plan,
    exec: Executor,
    oracle: Oracle,
    /// At least one; the first has the membership partition, and faults of the medium hit it.
    volumes: Vec<Volume>,
    net: Net,
    cluster_id: ClusterId,
    hosts: Vec<Host>,
    clocks: Vec<HostClock>,
    next_life: Mutex<u32>,
    grants: Grants,
    leaves: Leaves,
    views: Views,
    /// What bystanders may have to wait for.
    dead_held: Mutex<BTreeSet<String>>,
    deaths: Deaths,
    /// Whose journal in the first file system cannot be read, and since when.
    unreplayable: Mutex<Vec<(Instant, Member)>>,
    /// Blocks of which a bit was changed: as they were, and as they became.
    flipped: Mutex<Vec<(BlockNo, SharedBlock, SharedBlock)>>,
    harms_media: bool,
    /// Checks that came to their end while the file system was used.
    checks: AtomicU32,
}

/// A place where a node may run.
struct Host {
    /// A process is to run there.
    is_wanted: AtomicBool,
    /// None will be wanted any more.
    is_done: AtomicBool,
    /// A life is being registered.
    is_starting: AtomicBool,
    life: Mutex<Option<Arc<Life>>>,
    /// Processes that are no daemon's, one group for each life that was served: they end with the host.
    processes: Mutex<Vec<Group>>,
}

impl std::ops::Deref for Fleet {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    /// The only one, where there is only one.
    fn first(&self) -> &Volume {
        &self.volumes[0]
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("plan", &self.plan).finish_non_exhaustive()
    }
}
