//! Which resources are hot on the viewer.

use lcl::hot::Heat;
use serde::{Deserialize, Serialize};

use super::Viewer;

/// What `mxctl lock top` is made from: counts that grow, of the resources that had most to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LockTop {
    pub viewer: Viewer,
    /// By the viewer's clock, microseconds since some moment of its own.
    pub clock_us: u64,
    /// At most 2048; what has little to do is forgotten.
    pub resources: Vec<Hot>,
}

/// What happened to one resource on the viewer since it is counted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Hot {
    pub resource: String,
    /// New locks and stronger modes that this node asked for.
    pub requests: u64,
    /// What others asked this node to give up.
    pub callouts: u64,
    pub surrenders: u64,
    /// Waits of operations of this node that have ended.
    pub waits: u64,
    /// How long those took in all.
    pub waited_us: u64,
}

impl Hot {
    pub fn of(resource: String, heat: Heat) -> Hot {
        let Heat { requests, callouts, surrenders, waits, waited_us } = heat;
        Hot { resource, requests, callouts, surrenders, waits, waited_us }
    }
}
