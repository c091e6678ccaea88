//! readdir and readdirplus.

use std::sync::Arc;

use lcl::pin::{Ahead, Pin, Want};

use super::lookup::{Entry, Keep, kernel_keeps_attributes};
use crate::dir::Directory;
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::inode::Inode;

/// The cookies of `.` and `..`; those of entries are above.
const SELF_COOKIE: u64 = 1;
const PARENT_COOKIE: u64 = 2;

/// One line of a listing.
#[derive(Debug)]
pub struct Listed {
    pub name: Vec<u8>,
    pub file: FileId,
    pub file_type: FileType,
    /// Where a reader goes on behind this entry.
    pub cookie: u64,
    /// With attributes, when they were asked for and were at hand.
    pub entry: Option<Entry>,
}

/// A piece of a listing.
#[derive(Debug)]
pub struct Listing {
    pub entries: Vec<Listed>,
    /// Pins to be dropped behind the answer.
    pub keep: Keep,
}

impl Fs {
    /// Up to `max` entries behind `cookie` (0 from the start), at least one if there is one. An
    /// entry that is there all the time is seen exactly once by a reader that goes on from the
    /// cookie of the last one it was given.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`], [`FsError::Stale`].
    pub async fn readdir(&self, dir: FileId, cookie: u64, max: usize) -> Result<Listing, FsError> {
        self.check_open()?;
        let inode = self.inode(dir.inode)?;
        let pin = inode.entry.pin(Want::read()).await?;
        let tx = self.transaction();
        let entries = self
            .settle(|| {
                let parent = inode.with_file(dir, |state| {
                    super::locking::check_directory(state)?;
                    Ok(state.core().parent())
                })?;
                let mut entries = Vec::new();
                let dots: [(&[u8], FileId, u64); 2] =
                    [(b".", dir, SELF_COOKIE), (b"..", parent, PARENT_COOKIE)];
                for (name, file, at) in dots {
                    if at > cookie && entries.len() < max {
                        let (name, file_type) = (name.to_vec(), FileType::Directory);
                        entries.push(Listed { name, file, file_type, cookie: at, entry: None });
                    }
                }
                if entries.len() < max {
                    let directory = Directory { inode: &inode, key: &self.hash_key };
                    let more =
                        directory.list(&tx, cookie.max(PARENT_COOKIE), max - entries.len())?;
                    entries.extend(more.into_iter().map(|named| Listed {
                        name: named.name,
                        file: named.entry.file,
                        file_type: named.entry.file_type,
                        cookie: named.entry.cookie,
                        entry: None,
                    }));
                }
                Ok(entries)
            })
            .await?;
        self.touch_atime(&inode);
        let files = entries.iter().filter(|listed| !is_dots(&listed.name));
        self.listings.note(dir.inode, cookie == 0, files.map(|listed| listed.file.inode));
        let attributes = kernel_keeps_attributes(&inode);
        Ok(Listing { entries, keep: Keep { name: false, attributes, pins: vec![pin] } })
    }

    /// As [`Fs::readdir`], with attributes. Where other nodes have to be asked, that is done for all
    /// entries of the piece at once, one message to each home, with the directory let go meanwhile.
    /// What comes with a value block is not read from disk.
    ///
    /// # Errors
    /// As [`Fs::readdir`].
    pub async fn readdir_plus(
        &self,
        dir: FileId,
        cookie: u64,
        max: usize,
    ) -> Result<Listing, FsError> {
        let mut listing = self.readdir(dir, cookie, max).await?;
        let pins = self.pin_cached(&listing)?;
        if pins.iter().all(Option::is_some) {
            self.add_attributes(dir, &mut listing, pins).await?;
            return Ok(listing);
        }
        let missing = listing.entries.iter().zip(&pins).filter(|(_, pin)| pin.is_none());
        let missing: Vec<FileId> = missing.map(|(listed, _)| listed.file).collect();
        drop(pins);
        drop(listing);
        // Kept until their attributes are known: what a grant brings is for an inode that is there.
        let inodes: Vec<Arc<Inode>> =
            missing.iter().map(|file| self.inode(file.inode)).collect::<Result<_, _>>()?;
        Ahead::new(inodes.iter().map(|inode| Arc::clone(&inode.entry)), Want::read()).await;
        let fetch = missing.into_iter().map(|file| async move {
            // Whether it worked shows below; an entry may be gone by then.
            let _ = self.getattr(file).await;
        });
        futures_util::future::join_all(fetch).await;
        let mut listing = self.readdir(dir, cookie, max).await?;
        let pins = self.pin_cached(&listing)?;
        self.add_attributes(dir, &mut listing, pins).await?;
        drop(inodes);
        Ok(listing)
    }

    /// A pin for each entry, where one can be had at once. Names that are not the directory's own
    /// entries need none.
    fn pin_cached(&self, listing: &Listing) -> Result<Vec<Option<EntryPin>>, FsError> {
        let pin = |listed: &Listed| {
            if is_dots(&listed.name) {
                return Ok(Some(EntryPin::Dots));
            }
            let child = self.inode(listed.file.inode)?;
            let pin = child.entry.try_pin(Want::read());
            Ok(pin.map(|pin| EntryPin::Child(child, pin)))
        };
        listing.entries.iter().map(pin).collect()
    }

    /// Adds the attributes of the entries that are pinned. The names are kept by the kernel as long
    /// as the directory's lock is. From here on the kernel counts what is listed as known: the
    /// listing has to reach it.
    async fn add_attributes(
        &self,
        dir: FileId,
        listing: &mut Listing,
        pins: Vec<Option<EntryPin>>,
    ) -> Result<(), FsError> {
        let inode = self.inode(dir.inode)?;
        let name = self.kernel_keeps_names(&inode);
        for (listed, pin) in listing.entries.iter_mut().zip(pins) {
            let Some(EntryPin::Child(child, pin)) = pin else { continue };
            let Ok(attributes) = self.attributes_of(&child, listed.file).await else { continue };
            let is_known = self.env.kernel.remember_listed(listed.file);
            let attributes_kept = is_known && kernel_keeps_attributes(&child);
            let keep = Keep { name, attributes: attributes_kept, pins: vec![pin] };
            listed.entry = Some(Entry { attributes, keep });
        }
        Ok(())
    }
}

/// What keeps an entry's attributes as they are.
enum EntryPin {
    Dots,
    Child(Arc<Inode>, Pin),
}

fn is_dots(name: &[u8]) -> bool {
    name == b"." || name == b".."
}
