//! Blocks on their way to disk, neighbours together, durable when the writing ends.
//!
//! Keeps true: one run is one request that is durable by itself; several are on their way at once
//! and made durable by one flush.

use futures_util::future::join_all;
use mx_base::rules::{Rule, is_kept};

use crate::block::{BlockNo, SharedBlock};
use crate::env::{Disk, Durability, WriteData};
use crate::error::DiskError;

/// Blocks of one request at most.
const RUN_BLOCKS_MAX: usize = 256;

/// Runs of blocks, in order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Runs(Vec<(BlockNo, Vec<SharedBlock>)>);

impl Runs {
    /// `number` is above all before.
    pub(crate) fn push(&mut self, number: BlockNo, block: SharedBlock) {
        match self.0.last_mut() {
            Some((first, run))
                if first.plus(run.len() as u64) == number && run.len() < RUN_BLOCKS_MAX =>
            {
                run.push(block);
            }
            _ => self.0.push((number, vec![block])),
        }
    }

    /// Completes when all of them are durable.
    pub(crate) async fn write(self, disk: &dyn Disk) -> Result<(), DiskError> {
        let is_one = self.0.len() == 1;
        let durability = if is_one && is_kept(Rule::FlushPlaces) {
            Durability::Durable
        } else {
            Durability::Volatile
        };
        let write = |(first, run)| disk.write(first, WriteData::Blocks(run), durability);
        let requests: Vec<_> = self.0.into_iter().map(write).collect();
        if requests.is_empty() {
            return Ok(());
        }
        // All have ended before the first failure is told.
        let results = join_all(requests).await;
        results.into_iter().collect::<Result<(), DiskError>>()?;
        if is_one || !is_kept(Rule::FlushPlaces) { Ok(()) } else { disk.flush().await }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use mx_base::BoxFuture;
    use parking_lot::Mutex;

    use super::*;
    use crate::block::Block;

    /// Takes everything and notes it.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Disk for Notes {
        fn blocks(&self) -> u64 {
            1 << 20
        }

        fn read(
            &self,
            _: BlockNo,
            _: usize,
        ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
            unreachable!("nothing is read")
        }

        fn write(
            &self,
            at: BlockNo,
            data: WriteData,
            durability: Durability,
        ) -> BoxFuture<'static, Result<(), DiskError>> {
            self.0.lock().push(format!("{} {} {durability:?}", at.0, data.len()));
            Box::pin(std::future::ready(Ok(())))
        }

        fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
            self.0.lock().push("flush".to_owned());
            Box::pin(std::future::ready(Ok(())))
        }
    }

    fn written(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
        let mut runs = Runs::default();
        for number in numbers {
            runs.push(BlockNo(number), Block::zeroed().into());
        }
        let disk = Notes::default();
        let mut context = Context::from_waker(Waker::noop());
        let written = std::pin::pin!(runs.write(&disk)).poll(&mut context);
        assert!(matches!(written, Poll::Ready(Ok(()))));
        disk.0.into_inner()
    }

    #[test]
    fn neighbours_are_one_request_that_needs_no_flush_and_others_share_one() {
        assert_eq!(written([7, 8, 9]), ["7 3 Durable"]);
        assert_eq!(written([7, 9]), ["7 1 Volatile", "9 1 Volatile", "flush"]);
        assert_eq!(written(0..257), ["0 256 Volatile", "256 1 Volatile", "flush"]);
        assert_eq!(written([]), [""; 0]);
    }
}
