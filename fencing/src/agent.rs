//! What the director asks of a fencing method, and what one may answer.

use std::fmt;

use mx_base::BoxFuture;

use crate::proof::{DeviceId, Victim};

/// A configured method, by its place in the list of the device or node; only for naming it again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MethodId(pub u16);

impl fmt::Display for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "method {}", self.0)
    }
}

/// How far a verified answer reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// The device that was asked about: reservations, the arbiter.
    Device,
    /// Every device, because the node itself was stopped: power.
    Node,
}

/// Cut `victim` off from `device`. Idempotent: it may be asked again at any time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FenceRequest {
    pub victim: Victim,
    pub device: DeviceId,
}

/// The answer of a method.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Checked, not assumed: writes of the victim that had been begun have ended, none begins any
    /// more, and no life of it up to the one named is ever let in again.
    Verified,
    /// It did not work, or it is not known whether it did.
    Failed { reason: String },
    /// This method cannot do it here, now or later.
    Unsupported { reason: String },
}

/// A fencing method: the arbiter, reservations, power; the simulator has its own.
pub trait FenceAgent: Send + Sync {
    /// For people.
    fn name(&self) -> &str;

    /// Never answers [`Answer::Verified`] unless it is so.
    fn fence(&self, request: FenceRequest) -> BoxFuture<'static, Answer>;
}
