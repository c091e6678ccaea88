//! Who may write to shared storage.
//!
//! * [`gate`]: the pseudo storage driver's check in front of every request of this node.
//! * [`register`]: one value, [`RegVal`], that a majority of the membership partitions agrees on;
//!   the only source of authority (R11). [`administrator`] says how it may change.
//! * [`heartbeat`]: signs of life on the membership partition.
//! * [`director`]: carries fences out over [`agent`]s until each is proven by a [`FenceProof`].
//! * [`ondisk`], [`layout`]: the membership partition byte by byte (`docs/spec/fencing.md`).
//!
//! Pure: no clock, no randomness, no file, no thread. Times are of the node that runs the machine;
//! those of two nodes are never compared (R2). Knows no locks, no files and no peers.

pub mod administrator;
pub mod agent;
pub mod ballot;
pub mod director;
pub mod gate;
pub mod generation;
pub mod heartbeat;
pub mod key;
pub mod layout;
pub mod node_set;
pub mod ondisk;
pub mod partition_set;
pub mod proof;
mod random;
pub mod reg_val;
pub mod register;

pub use administrator::{Change, Refusal};
pub use agent::{Answer, FenceAgent, FenceRequest};
pub use ballot::Ballot;
pub use gate::{Admission, Closed, Gate};
pub use key::Key;
pub use layout::{MpBlock, MpIndex};
pub use node_set::NodeSet;
pub use ondisk::Block;
pub use proof::{DeviceId, FenceProof, Victim};
pub use reg_val::{Phase, RegVal};
pub use register::Register;
