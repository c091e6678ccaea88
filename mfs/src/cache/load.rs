//! Synchronous steps over cached blocks, and how a missing block is brought in.
//!
//! Whatever walks or changes structures is plain synchronous code over blocks that are in memory.
//! Where one is missing it stops with [`Fault::Missing`]; the operation loads that block and runs
//! the step again from its start. So nothing is half done while an operation waits for the disk,
//! and what is cached is never awaited.

use std::sync::Arc;

use super::blocks::{BlockSet, CachedBlock};
use crate::block::BlockNo;
use crate::error::{Corruption, CorruptionKind, FsError};
use crate::fs::Fs;
use crate::ondisk::header::{self, Header, Kind, Owner};

/// What a block must be to be what a pointer promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expect {
    pub(crate) kind: Kind,
    pub(crate) owner: Owner,
}

impl Expect {
    /// # Errors
    /// [`Corruption`] of kind, owner or generation.
    pub(crate) fn check(&self, number: BlockNo, header: &Header) -> Result<(), Corruption> {
        let wrong =
            |kind, expected, found| Err(Corruption { block: number, kind, expected, found });
        if header.kind() != Some(self.kind) {
            return wrong(CorruptionKind::Kind, self.kind as u64, u64::from(header.kind));
        }
        let owner = header.owner();
        if owner.id != self.owner.id {
            return wrong(CorruptionKind::Owner, self.owner.id, owner.id);
        }
        if owner.generation != self.owner.generation {
            let (expected, found) = (self.owner.generation, owner.generation);
            return wrong(CorruptionKind::OwnerGeneration, expected.into(), found.into());
        }
        Ok(())
    }
}

/// A block that a step needs and that is not cached.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) set: Arc<BlockSet>,
    pub(crate) number: BlockNo,
    /// With its neighbours, which are likely to be needed too.
    pub(crate) first: BlockNo,
    pub(crate) count: usize,
}

/// Why a step stopped.
#[derive(Debug)]
pub(crate) enum Fault {
    Missing(Missing),
    Fail(FsError),
}

pub(crate) type Step<T> = Result<T, Fault>;

impl From<FsError> for Fault {
    fn from(error: FsError) -> Fault {
        Fault::Fail(error)
    }
}

impl From<Corruption> for Fault {
    fn from(error: Corruption) -> Fault {
        Fault::Fail(FsError::Corrupt(error))
    }
}

impl BlockSet {
    /// The block, if it is cached; its header may say anything.
    pub(crate) fn any(self: &Arc<Self>, number: BlockNo) -> Step<Arc<CachedBlock>> {
        self.run(number, number, 1)
    }

    /// As [`BlockSet::any`]; when the block is missing, `count` blocks from `first` are read.
    pub(crate) fn run(
        self: &Arc<Self>,
        number: BlockNo,
        first: BlockNo,
        count: usize,
    ) -> Step<Arc<CachedBlock>> {
        match self.get(number) {
            Some(block) => Ok(block),
            None => Err(Fault::Missing(Missing { set: Arc::clone(self), number, first, count })),
        }
    }

    /// The block, which has to be what `expect` says.
    pub(crate) fn expect(
        self: &Arc<Self>,
        number: BlockNo,
        expect: Expect,
    ) -> Step<Arc<CachedBlock>> {
        let block = self.any(number)?;
        expect.check(number, Header::of(&block.data()))?;
        Ok(block)
    }
}

impl Fs {
    /// Runs a step until nothing is missing. The caller holds the pins under which it may read.
    pub(crate) async fn settle<T>(&self, mut step: impl FnMut() -> Step<T>) -> Result<T, FsError> {
        loop {
            match step() {
                Ok(value) => return Ok(value),
                Err(Fault::Fail(error)) => return Err(error),
                Err(Fault::Missing(missing)) => self.load(&missing).await?,
            }
        }
    }

    /// Reads blocks into a set. Neighbours that are damaged are left out; of the one that is needed
    /// that is an error, or the step would need it for ever.
    pub(crate) async fn load(&self, missing: &Missing) -> Result<(), FsError> {
        let blocks = self.env.disk.read(missing.first, missing.count).await?;
        for (i, block) in blocks.into_vec().into_iter().enumerate() {
            let number = missing.first.plus(i as u64);
            match header::check(&block, self.fs_id, number) {
                Ok(_) => {
                    missing.set.insert_read(number, Box::new(block).into());
                }
                Err(corruption) if number == missing.number => {
                    self.report_damage(missing.set.resource(), &corruption);
                    return Err(corruption.into());
                }
                Err(_) => {}
            }
        }
        Ok(())
    }
}
