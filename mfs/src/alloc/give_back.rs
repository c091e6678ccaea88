//! Giving back what is claimed and not needed, and asking the others for it.
//!
//! Keeps true:
//!   * what is promised to a write is never given back;
//!   * who has claims holds SPACE in PR, or waits for it: whoever asks for SPACE in EX has asked
//!     everybody;
//!   * nobody waits for SPACE while holding a group, so a surrender of SPACE may wait for groups;
//!   * one round: who has SPACE in EX and finds no room is told so. Nobody else claims meanwhile, so
//!     two that want the last room do not take it from each other in turn.

use std::sync::Arc;

use lcl::Mode;
use lcl::pin::{Entry, Pin, Want};

use super::claim::{Aside, Use, signed};
use super::group::Group;
use crate::block::as_usize;
use crate::cache::Step;
use crate::error::FsError;
use crate::fs::Fs;
use crate::layout::Layout;
use crate::locks::Resource;

/// The lock on claims.
pub(crate) fn space_entry(locks: &dyn crate::env::Locks, layout: &Layout) -> Arc<Entry> {
    locks.entry(Resource::Space.name(), Resource::Space.bucket(layout))
}

impl Fs {
    /// The right to claim.
    pub(super) async fn pin_to_claim(&self) -> Result<Pin, FsError> {
        let entry = space_entry(&*self.env.locks, &self.layout);
        Ok(entry.pin(Want::shared(Mode::PR)).await?)
    }

    /// Asks all others for what they do not need; when it is answered they have given it back.
    pub(super) async fn take_back(&self) -> Result<Pin, FsError> {
        let entry = space_entry(&*self.env.locks, &self.layout);
        Ok(entry.pin(Want::shared(Mode::EX)).await?)
    }

    /// The round is over.
    pub(super) fn let_others_claim(&self) {
        self.env.locks.idle(&space_entry(&*self.env.locks, &self.layout));
        self.stay_in_reach();
    }

    /// Promises are for the worst case: what is written back needs less. What was freed can be used
    /// when that is durable.
    pub(super) async fn free_own(&self) -> Result<(), FsError> {
        self.write_back_idle().await;
        self.journal.force(self.journal.last()).await
    }

    /// Another node has found no room.
    pub(crate) async fn make_space_for_others(self: &Arc<Self>) {
        if let Some(Err(error)) = self.unless_over(self.give_back_surplus()).await {
            tracing::warn!(%error, "not all that is claimed and not needed was given back");
        }
        self.stay_in_reach();
    }

    /// While there are claims, SPACE is held.
    fn stay_in_reach(&self) {
        if !self.has_claims() {
            return;
        }
        let entry = space_entry(&*self.env.locks, &self.layout);
        self.env.runtime.spawn(Box::pin(async move {
            // Cut off, there is nothing to be asked for.
            drop(entry.pin(Want::shared(Mode::PR)).await);
        }));
    }

    fn has_claims(&self) -> bool {
        let groups = self.known_groups();
        groups.iter().any(|g| [Use::Data, Use::Nodes].iter().any(|of| !g.claimed(*of).is_empty()))
    }

    /// Gives up all claims, when the mount is left.
    pub(crate) async fn give_up_claims(&self) -> Result<(), FsError> {
        self.give_back_surplus().await
    }

    /// Gives back claims that are promised to nobody: whole chunks first, so that what is promised
    /// stays in as few as there can be.
    pub(crate) async fn give_back_surplus(&self) -> Result<(), FsError> {
        for (of, whole) in [(Use::Data, true), (Use::Data, false), (Use::Nodes, false)] {
            for group in self.known_groups() {
                if group.claimed(of).is_empty() {
                    continue;
                }
                match self.give_back_in(&group, of, whole).await {
                    Err(FsError::Damaged | FsError::Corrupt(_)) => {}
                    done => done?,
                }
            }
        }
        Ok(())
    }

    async fn give_back_in(&self, group: &Arc<Group>, of: Use, whole: bool) -> Result<(), FsError> {
        let pinned = self.pin_group(group.no).await?;
        let counts = self.settle(|| claimed_counts(self, group, of)).await?;
        let mut aside = Aside::nothing(self.account(of));
        let mut chosen = Vec::new();
        for (chunk, free) in counts {
            if (!whole || free == group.geometry.chunk_blocks) && aside.try_more(free) {
                chosen.push((chunk, free));
            }
        }
        if chosen.is_empty() {
            return Ok(());
        }
        let blocks = 2 + as_usize(self.layout.chunk_table_blocks(group.no));
        self.transact(blocks, |tx| {
            chosen.iter().try_for_each(|(chunk, _)| pinned.unclaim(tx, *chunk))
        })
        .await?;
        for (chunk, free) in chosen {
            self.discount_claim(group, of, chunk, signed(free));
        }
        Ok(())
    }
}

/// Chunks claimed in a group, with their free blocks.
fn claimed_counts(fs: &Fs, group: &Arc<Group>, of: Use) -> Step<Vec<(u64, u64)>> {
    let tx = fs.transaction();
    let claimed = group.claimed(of).into_iter();
    claimed.map(|chunk| Ok((chunk, group.chunk(&tx, chunk)?.free.get().into()))).collect()
}
