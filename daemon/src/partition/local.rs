//! The membership partition and the fencing of a device that this process alone uses.
//!
//! Keeps true: the exclusive lock on the device is held for as long as anything here lives.

use std::fmt;
use std::sync::Arc;

use fencing::gate::Gate;
use fencing::register::IoFailed;
use fencing::{Answer, Block, Closed, DeviceId, FenceAgent, FenceRequest, MpBlock};
use fencing_agents::engine::Engine;
use mx_base::BoxFuture;
use mx_node::world::Partition;

use crate::runtime::now;

/// The membership partition of a local mount.
pub struct EnginePartition {
    engine: Arc<Engine>,
    gate: Arc<Gate>,
    start: u64,
}

impl EnginePartition {
    /// `start` is the partition's first block on the device.
    pub fn new(engine: Arc<Engine>, gate: Arc<Gate>, start: u64) -> EnginePartition {
        EnginePartition { engine, gate, start }
    }

    fn at(&self, block: MpBlock) -> u64 {
        self.start + u64::from(block.0)
    }
}

impl Partition for EnginePartition {
    fn read(
        &self,
        first: MpBlock,
        count: u32,
    ) -> BoxFuture<'static, Result<Box<[Block]>, IoFailed>> {
        let submitted = self
            .gate
            .admit(now())
            .map(|admission| (admission, self.engine.read(self.at(first), count as usize)));
        Box::pin(async move {
            let (admission, read) = submitted.map_err(|_| IoFailed)?;
            let read = read.await;
            admission.complete(now()).map_err(|_| IoFailed)?;
            read.map_err(|error| {
                tracing::warn!(?first, count, %error, "the membership partition cannot be read");
                IoFailed
            })
        })
    }

    /// The engine ends every request itself, so that every error is one of a write that has ended.
    fn write(&self, block: MpBlock, data: Box<Block>) -> BoxFuture<'static, Result<(), IoFailed>> {
        let submitted = self
            .gate
            .admit(now())
            .map(|admission| (admission, self.engine.write(self.at(block), data, true)));
        Box::pin(async move {
            let (admission, written) = submitted.map_err(|_| IoFailed)?;
            let written = written.await;
            admission.complete(now()).map_err(|_| IoFailed)?;
            written.map_err(|error| {
                tracing::warn!(?block, %error, "the membership partition cannot be written");
                IoFailed
            })
        })
    }

    fn cut_off(&self, why: Closed) {
        self.gate.close(why);
    }
}

impl fmt::Debug for EnginePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnginePartition").field("start", &self.start).finish_non_exhaustive()
    }
}

/// Fences by the lock on the device.
///
/// The lock was taken after all requests of whoever had it before had ended (see
/// [`fencing_agents::device`]), and is held as long as this lives. So nobody else on this machine
/// writes to the device, in whatever life: every victim is cut off already. It says nothing about
/// other machines: a device that several machines reach must be used through its arbiter. Against
/// one that is used without, a cold start watches the heartbeats of all that are listed.
pub struct LocalAgent {
    /// Holds the lock.
    _engine: Arc<Engine>,
    device: DeviceId,
}

impl LocalAgent {
    /// `device` is what the engine's device is called.
    pub fn new(engine: Arc<Engine>, device: DeviceId) -> LocalAgent {
        LocalAgent { _engine: engine, device }
    }
}

impl FenceAgent for LocalAgent {
    fn name(&self) -> &str {
        "lock on the device"
    }

    fn fence(&self, request: FenceRequest) -> BoxFuture<'static, Answer> {
        let answer = if request.device == self.device {
            Answer::Verified
        } else {
            let reason = format!("the lock is on {}, not on {}", self.device, request.device);
            Answer::Unsupported { reason }
        };
        Box::pin(std::future::ready(answer))
    }
}

impl fmt::Debug for LocalAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAgent").field("device", &self.device).finish_non_exhaustive()
    }
}
