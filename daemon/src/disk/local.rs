//! A device of this machine, used by this process alone.

use std::fmt;
use std::sync::Arc;

use fencing::gate::Gate;
use fencing_agents::engine::{Engine, EngineError};
use mfs::block::{Block, BlockNo};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mx_base::BoxFuture;
use rustix::io::Errno;

use super::{Gathered, blocks, failed, refused};
use crate::runtime::now;

/// A file or block device through io_uring.
pub struct LocalDisk {
    engine: Arc<Engine>,
    gate: Arc<Gate>,
}

impl LocalDisk {
    pub fn new(engine: Arc<Engine>, gate: Arc<Gate>) -> LocalDisk {
        LocalDisk { engine, gate }
    }
}

impl Disk for LocalDisk {
    fn blocks(&self) -> u64 {
        self.engine.device().blocks()
    }

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
        let admitted = self.gate.admit(now());
        let engine = Arc::clone(&self.engine);
        Box::pin(async move {
            let admission = admitted.map_err(refused)?;
            let read = engine.read::<Block>(at.0, count).await;
            admission.complete(now()).map_err(refused)?;
            read.map_err(|error| failed("read", at, count, error))
        })
    }

    fn write(
        &self,
        at: BlockNo,
        data: WriteData,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        let count = data.len();
        // Submitted here, not when the future is first polled: several are on their way at once.
        let submitted = self.gate.admit(now()).map(|admission| {
            let durable = durability == Durability::Durable;
            (admission, self.engine.write(at.0, Gathered(data), durable))
        });
        Box::pin(async move {
            let (admission, written) = submitted.map_err(refused)?;
            let written = written.await;
            admission.complete(now()).map_err(refused)?;
            written.map_err(|error| failed("write", at, count, error))
        })
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        let submitted = self.gate.admit(now()).map(|a| (a, self.engine.flush()));
        Box::pin(async move {
            let (admission, flushed) = submitted.map_err(refused)?;
            let flushed = flushed.await;
            admission.complete(now()).map_err(refused)?;
            flushed.map_err(|error| failed("flush", BlockNo(0), 0, error))
        })
    }

    fn discard(&self, at: BlockNo, count: u64) -> BoxFuture<'static, Result<bool, DiskError>> {
        let submitted = self.gate.admit(now()).map(|a| (a, self.engine.discard(at.0, count)));
        Box::pin(async move {
            let (admission, discarded) = submitted.map_err(refused)?;
            let discarded = discarded.await;
            admission.complete(now()).map_err(refused)?;
            match discarded {
                Ok(()) => Ok(true),
                Err(EngineError::Io(Errno::OPNOTSUPP)) => Ok(false),
                Err(error) => Err(failed("discard", at, blocks(count), error)),
            }
        })
    }
}

impl fmt::Debug for LocalDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalDisk").field("device", &self.engine.device().path()).finish()
    }
}
