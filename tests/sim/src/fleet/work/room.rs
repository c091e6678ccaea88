//! A device that is full: changes that find no room fail as a whole, and everything else goes on.
//! When what filled it is gone, everybody has room again, whoever has claimed what.

use std::sync::atomic::Ordering;

use mfs::FsError;

use super::{WRITE, Work, regular};
use crate::fleet::kernel::Mount;

const FILLER: &[u8] = b"full";
/// Bytes of one write of the filler.
const PIECE: usize = 1 << 20;

impl Work {
    /// Somebody begins to fill the device.
    pub fn fills(&self) {
        self.is_full.store(true, Ordering::SeqCst);
    }

    /// Nobody fills it any more.
    pub fn fills_no_more(&self) {
        self.may_fill.store(false, Ordering::SeqCst);
    }

    fn may_fill(&self) -> bool {
        self.may_fill.load(Ordering::SeqCst)
    }

    /// May a change find no room?
    pub fn may_be_full(&self) -> bool {
        self.is_full.load(Ordering::SeqCst)
    }

    /// Writes until there is no room.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] at last, or what else happens.
    pub async fn fill(&self, mount: &Mount) -> Result<(), FsError> {
        let file = match mount.create(mount.root(), FILLER, &regular()).await {
            Err(FsError::Exists) => mount.lookup(mount.root(), FILLER).await?,
            made => Some(made?),
        };
        let Some(file) = file else { return Ok(()) };
        let open = mount.open(file, WRITE).await?;
        let (piece, mut at, mut len) = (vec![0xf1; PIECE], 0, PIECE);
        while len >= 4096 && self.may_fill() {
            match mount.write(&open, at, &piece[..len]).await {
                Ok(()) => at += u64::try_from(len).expect("a piece"),
                Err(FsError::NoSpace) => len /= 4,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes what fills the device.
    ///
    /// # Errors
    /// As an unlink.
    pub async fn make_room(&self, mount: &Mount) -> Result<(), FsError> {
        match mount.unlink(mount.root(), FILLER).await {
            Err(FsError::NotFound) => Ok(()),
            done => done,
        }
    }

    /// Removes what fills the device, and tries whether this mount finds room.
    ///
    /// # Errors
    /// As an unlink and a write, but for [`FsError::NoSpace`].
    pub async fn finds_room(&self, mount: &Mount) -> Result<bool, FsError> {
        self.make_room(mount).await?;
        let written = async {
            let file = mount.create(mount.root(), b"room", &regular()).await?;
            let open = mount.open(file, WRITE).await?;
            mount.write(&open, 0, &vec![1; PIECE]).await
        };
        let written = written.await;
        match mount.unlink(mount.root(), b"room").await {
            Err(FsError::NotFound) | Ok(()) => {}
            Err(error) => return Err(error),
        }
        match written {
            Err(FsError::NoSpace) => Ok(false),
            written => written.map(|()| true),
        }
    }
}
