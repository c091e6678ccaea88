//! The membership partition of a device that an arbiter serves.
//!
//! Keeps true: a write is answered as failed only if the arbiter has answered it, or it was never
//! sent. What is unknown for good, because this life is cut off, is not answered at all.

use std::fmt;
use std::future::pending;
use std::sync::Arc;

use fencing::register::IoFailed;
use fencing::{Block, Closed, Gate, MpBlock};
use fencing_agents::arbiter::client::{Client, RequestFailed};
use mx_base::BoxFuture;
use mx_node::world::Partition;

/// The membership partition through a channel of its own.
pub struct ArbiterPartition {
    register: Arc<Client>,
    data: Arc<Client>,
    gate: Arc<Gate>,
    start: u64,
}

impl ArbiterPartition {
    /// `start` is the partition's first block on the device; `data` is cut off along with
    /// `register`, and `gate` is in front of both.
    pub fn new(
        register: Arc<Client>,
        data: Arc<Client>,
        gate: Arc<Gate>,
        start: u64,
    ) -> ArbiterPartition {
        ArbiterPartition { register, data, gate, start }
    }

    fn at(&self, block: MpBlock) -> u64 {
        self.start + u64::from(block.0)
    }
}

impl Partition for ArbiterPartition {
    fn read(
        &self,
        first: MpBlock,
        count: u32,
    ) -> BoxFuture<'static, Result<Box<[Block]>, IoFailed>> {
        let read = self.register.read(self.at(first), count as usize);
        Box::pin(async move {
            read.await.map_err(|error| {
                tracing::warn!(?first, count, %error, "the membership partition cannot be read");
                IoFailed
            })
        })
    }

    fn write(&self, block: MpBlock, data: Box<Block>) -> BoxFuture<'static, Result<(), IoFailed>> {
        let written = self.register.write(self.at(block), data, true);
        Box::pin(async move {
            let Err(error) = written.await else { return Ok(()) };
            tracing::warn!(?block, %error, "the membership partition cannot be written");
            match error {
                RequestFailed::Io(_)
                | RequestFailed::OutOfRange
                | RequestFailed::NotAllowed
                | RequestFailed::NotBlocks
                | RequestFailed::Overloaded => Err(IoFailed),
                RequestFailed::Gate(_)
                | RequestFailed::Session(_)
                | RequestFailed::Protocol
                | RequestFailed::Ended => pending().await,
            }
        })
    }

    fn closed(&self) -> Option<Closed> {
        self.gate.closed()
    }

    fn cut_off(&self, why: Closed) {
        self.data.cut_off(why);
        self.register.cut_off(why);
    }
}

impl fmt::Debug for ArbiterPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArbiterPartition")
            .field("register", &self.register)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}
