//! Where a new inode goes: a free block of a group, and the lock of the inode that it becomes.
//!
//! That is the only lock that is asked for under a group's. Somebody may have kept it from an earlier
//! file in this place: a node that lives gives it up at once, one that died may have it until its
//! caches are known to be gone. So nobody waits for it long with the group pinned, which others need:
//! the place is passed over for a while, and the group is let go in between.

use std::sync::Arc;

use lcl::pin::{Pin, Want};
use mx_base::Duration;

use crate::alloc::{Needs, PinnedGroup};
use crate::error::FsError;
use crate::file::InodeNo;
use crate::fs::{Fs, PATIENCE};
use crate::inode::Inode;

/// How long a place is passed over.
const PASSED_OVER: Duration = Duration::from_millis(250);

/// A place for an inode, found and locked.
pub(super) struct NewInode {
    pub(super) group: PinnedGroup,
    pub(super) inode: Arc<Inode>,
    /// Exclusive.
    pub(super) pin: Pin,
}

impl Fs {
    /// Finds a place for an inode in a group that has all of `needs`.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] when no group of the device has the room.
    pub(super) async fn new_inode(&self, needs: Needs) -> Result<NewInode, FsError> {
        loop {
            let group = self.metadata_group(needs).await?;
            let passed_over = group.group.passed_over(self.env.runtime.now());
            let found = {
                let scratch = self.transaction();
                self.settle(|| group.find_inode(&scratch, &passed_over)).await?
            };
            let Some(block) = found else {
                if passed_over.is_empty() {
                    return Err(FsError::NoSpace);
                }
                drop(group);
                self.env.runtime.sleep(PATIENCE).await;
                continue;
            };
            let inode = self.inode(InodeNo(block.number.0))?;
            if let Some(pin) = self.pin_soon(&inode.entry, Want::write()).await? {
                return Ok(NewInode { group, inode, pin });
            }
            let until = self.env.runtime.now() + PASSED_OVER;
            group.group.pass_over(block.number, until);
        }
    }
}
