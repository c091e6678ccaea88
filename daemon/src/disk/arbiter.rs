//! A device that an arbiter serves.
//!
//! Keeps true: every part of a request is submitted before any of them is waited for, and the
//! request ends when all of them have.

use std::fmt;
use std::sync::Arc;

use fencing_agents::Payload;
use fencing_agents::arbiter::client::{Client, RequestFailed};
use fencing_agents::arbiter::protocol::{DISCARD_BLOCKS_MAX, PAYLOAD_BLOCKS_MAX};
use futures_util::future::join_all;
use mfs::block::{Block, BlockNo, SharedBlock};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mx_base::BoxFuture;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{Gathered, blocks, failed, refused};

/// Blocks of one request to the arbiter.
const PART: usize = PAYLOAD_BLOCKS_MAX as usize;

/// A device through the data channel of this life.
pub struct ArbiterDisk {
    client: Arc<Client>,
    blocks: u64,
}

impl ArbiterDisk {
    pub fn new(client: Arc<Client>) -> ArbiterDisk {
        let blocks = client.blocks();
        ArbiterDisk { client, blocks }
    }
}

/// Some of the blocks of a run, without copying them.
struct Part {
    data: Arc<WriteData>,
    first: usize,
    count: usize,
}

impl Payload for Part {
    fn pieces(&self) -> Vec<&[u8]> {
        let range = self.first..self.first + self.count;
        match &*self.data {
            WriteData::Blocks(blocks) => {
                blocks[range].iter().map(|block: &SharedBlock| block.as_bytes()).collect()
            }
            WriteData::Run(run) => vec![run[range].as_bytes()],
        }
    }
}

/// First block and length of each part of a request.
fn parts(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).step_by(PART).map(move |first| (first, PART.min(count - first)))
}

fn reason(operation: &'static str, at: BlockNo, count: usize, error: RequestFailed) -> DiskError {
    match error {
        RequestFailed::Gate(closed) => refused(closed),
        RequestFailed::Io(_)
        | RequestFailed::OutOfRange
        | RequestFailed::NotAllowed
        | RequestFailed::NotBlocks
        | RequestFailed::Overloaded
        | RequestFailed::Session(_)
        | RequestFailed::Protocol
        | RequestFailed::Ended => failed(operation, at, count, error),
    }
}

impl Disk for ArbiterDisk {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
        let part = |(first, count)| self.client.read::<Block>(at.0 + first as u64, count);
        if count <= PART {
            let read = part((0, count));
            return Box::pin(async move {
                read.await.map_err(|error| reason("read", at, count, error))
            });
        }
        let submitted: Vec<_> = parts(count).map(part).collect();
        Box::pin(async move {
            let mut blocks = Vec::with_capacity(count);
            for read in join_all(submitted).await {
                blocks.extend(read.map_err(|error| reason("read", at, count, error))?);
            }
            Ok(blocks.into_boxed_slice())
        })
    }

    fn write(
        &self,
        at: BlockNo,
        data: WriteData,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        let durable = durability == Durability::Durable;
        let count = data.len();
        if count <= PART {
            let written = self.client.write(at.0, Gathered(data), durable);
            return Box::pin(async move {
                written.await.map_err(|error| reason("write", at, count, error))
            });
        }
        let data = Arc::new(data);
        let part = |(first, count)| {
            let part = Part { data: Arc::clone(&data), first, count };
            self.client.write(at.0 + first as u64, part, durable)
        };
        let submitted: Vec<_> = parts(count).map(part).collect();
        Box::pin(async move {
            // All have ended before the first failure is told.
            let written: Result<(), RequestFailed> =
                join_all(submitted).await.into_iter().collect();
            written.map_err(|error| reason("write", at, count, error))
        })
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        let flushed = self.client.flush();
        Box::pin(
            async move { flushed.await.map_err(|error| reason("flush", BlockNo(0), 0, error)) },
        )
    }

    fn discard(&self, at: BlockNo, count: u64) -> BoxFuture<'static, Result<bool, DiskError>> {
        let most = u64::from(DISCARD_BLOCKS_MAX);
        let part = |first: u64| {
            let count = u32::try_from((count - first).min(most)).expect("at most the most");
            self.client.discard(at.0 + first, count)
        };
        let submitted: Vec<_> = (0..count).step_by(blocks(most)).map(part).collect();
        Box::pin(async move {
            let discarded: Result<(), RequestFailed> =
                join_all(submitted).await.into_iter().collect();
            match discarded {
                Ok(()) => Ok(true),
                Err(RequestFailed::Io(Errno::OPNOTSUPP)) => Ok(false),
                Err(error) => Err(reason("discard", at, blocks(count), error)),
            }
        })
    }
}

impl fmt::Debug for ArbiterDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArbiterDisk").field("client", &self.client).finish()
    }
}
