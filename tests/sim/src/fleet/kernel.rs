//! A kernel that caches as a FUSE kernel does: attributes, names, listings and pages, for as long as
//! it is not told to forget them. What is stale here is what applications would see.
//!
//! It is the host's: what it has cached of a mount can be read on when the daemon of that mount is
//! stopped or dead, by whoever has the files open or mapped (`kernel-cache.md`, fact 18). The next life
//! has a mount of its own, with nothing cached.

mod by_name;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use futures_util::future::join_all;
use mfs::env::{FileLocks, KernelCache};
use mfs::file::FileId;
use mfs::ops::{
    Allocate, Entry, Listing, Lookup, NewFile, OpenFile, OpenFlags, ReadKind, RenameKind,
    SetAttributes, SetXattr,
};
use mfs::{Attributes, Fs, FsError};
use mx_base::{BoxFuture, Duration};
use parking_lot::Mutex;

use super::lease::Lease;
use crate::exec::Executor;

const PAGE: u64 = 4096;
/// Entries that one readdir asks for.
const PIECE: usize = 16;
/// Who waits for a page that is being read looks again so soon.
const PAGE_LOCK: Duration = Duration::from_micros(30);

/// What a listing shows.
pub type Names = BTreeMap<Vec<u8>, FileId>;

/// The caches of one mount. Clones are the same ones.
#[derive(Clone)]
pub struct Kernel {
    exec: Executor,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Names kept under an older one do not count.
    epoch: u64,
    names: BTreeMap<(FileId, Vec<u8>), (u64, Option<FileId>)>,
    files: BTreeMap<FileId, File>,
    /// Directories that are locked: by so many who look, or by one who changes them.
    locked: BTreeMap<FileId, Locked>,
    next_read: u64,
    /// Grows with every change of attributes.
    clock: u64,
    hits: u64,
    /// Every other one asks for attributes.
    listings: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Locked {
    Shared(u32),
    Exclusive,
}

#[derive(Default)]
struct File {
    attributes: Option<Attributes>,
    /// Reads end here (`i_size`). An answer that makes the file shorter is passed over here only when
    /// the size is newer than the question, in the real one also when the attributes were given up
    /// since (docs/semantics.md, section 6).
    size: u64,
    /// By the clock: who asked for the size before knows less.
    size_set: u64,
    /// Has it been told any attributes? The first answer makes it know the file.
    is_known: bool,
    /// So many have it open for writing, or are about to.
    writers: u32,
    /// Pages that are being read since somebody had: they wait for EX.
    beside_writers: u32,
    /// So many of both have gone.
    writers_gone: u32,
    listing: Option<Arc<Names>>,
    pages: BTreeMap<u64, Arc<[u8]>>,
    /// When the attributes were last given up for good, by the clock: answers to what was asked
    /// before are not kept (`attr_version` of the kernel).
    attributes_changed: u64,
    pages_version: u64,
    /// Pages that are locked while they are read, by the read: one at a time.
    reading: BTreeMap<u64, u64>,
}

impl Kernel {
    pub fn new(exec: &Executor) -> Kernel {
        Kernel { exec: exec.clone(), state: Arc::default() }
    }

    /// Answers that asked nobody.
    pub fn hits(&self) -> u64 {
        self.state.lock().hits
    }

    fn file<T>(&self, file: FileId, f: impl FnOnce(&mut File) -> T) -> T {
        f(self.state.lock().files.entry(file).or_default())
    }

    /// As `fuse_invalidate_attr`: asked for again, but an older answer that is taken in late counts.
    fn doubt_attributes(&self, file: FileId) {
        self.file(file, |f| (f.attributes, f.listing) = (None, None));
    }

    /// As `inval_inode`, and what SETATTR and WRITE do by themselves.
    fn drop_attributes(&self, file: FileId) {
        self.outdate_attributes(file);
        self.doubt_attributes(file);
    }

    /// What this node has done itself, or was told without having asked, makes the file so long.
    fn set_size(&self, file: FileId, size: impl FnOnce(u64) -> u64) {
        let state = &mut *self.state.lock();
        let f = state.files.entry(file).or_default();
        (f.size, f.size_set) = (size(f.size), state.clock);
    }

    fn clock(&self) -> u64 {
        self.state.lock().clock
    }

    /// What a name led to when it was last looked up.
    fn named(&self, dir: FileId, name: &[u8]) -> Option<FileId> {
        self.state.lock().names.get(&(dir, name.to_vec()))?.1
    }

    fn drop_name(&self, dir: FileId, name: &[u8]) {
        self.state.lock().names.remove(&(dir, name.to_vec()));
    }

    /// Those that are being read, and locked, have come.
    async fn pages_read(&self, file: FileId) {
        let locked = self.file(file, |f| f.reading.clone());
        while self.file(file, |f| locked.keys().any(|read| f.reading.contains_key(read))) {
            self.exec.sleep(PAGE_LOCK).await;
        }
    }

    /// As `invalidate_inode_pages2_range`: waits for pages that are being read.
    async fn drop_pages(&self, file: FileId, bytes: Option<Range<u64>>) {
        self.pages_read(file).await;
        self.file(file, |f| {
            f.pages_version += 1;
            match bytes {
                None => f.pages.clear(),
                Some(bytes) => {
                    let kept = |page: u64| page >= bytes.end || page + PAGE <= bytes.start;
                    f.pages.retain(|page, _| kept(*page));
                }
            }
        });
    }

    /// What a look-up that asks nobody finds: `None` when it has to ask.
    pub fn cached_name(&self, dir: FileId, name: &[u8]) -> Option<Option<FileId>> {
        let state = self.state.lock();
        let (epoch, file) = state.names.get(&(dir, name.to_vec()))?;
        (*epoch == state.epoch).then_some(*file)
    }

    pub fn cached_attributes(&self, file: FileId) -> Option<Attributes> {
        self.file(file, |f| f.attributes)
    }

    /// The page that begins at this byte.
    pub fn cached_page(&self, file: FileId, page: u64) -> Option<Arc<[u8]>> {
        self.file(file, |f| f.pages.get(&page).cloned())
    }

    /// As `Notifier::forget_everything`: names, then files, each of which waits for its pages that are
    /// being read.
    pub async fn forget_everything(&self) {
        self.forget_names().await;
        let files: Vec<FileId> = self.state.lock().files.keys().copied().collect();
        join_all(files.into_iter().map(|file| self.forget_pages(file, None))).await;
    }

    /// A directory's `i_rwsem`: lookups that ask the daemon and listings share it, changes have it
    /// alone until the kernel knows of them.
    async fn lock_dir(&self, dir: FileId, wanted: Locked) -> DirLock {
        loop {
            {
                let locked = &mut self.state.lock().locked;
                let after = match (locked.get(&dir), wanted) {
                    (None, _) => Some(wanted),
                    (Some(Locked::Shared(n)), Locked::Shared(_)) => Some(Locked::Shared(n + 1)),
                    (Some(_), _) => None,
                };
                if let Some(after) = after {
                    locked.insert(dir, after);
                    return DirLock { kernel: self.clone(), dir };
                }
            }
            self.exec.sleep(Duration::from_micros(30)).await;
        }
    }

    fn thread_delay(&self) -> impl Future<Output = ()> + Send + 'static {
        let delay = self.exec.draw(|r| r.below(60));
        self.exec.sleep(Duration::from_micros(delay))
    }
}

impl KernelCache for Kernel {
    fn remember(&self, file: FileId) {
        self.file(file, |_| ());
    }

    fn forget_attributes(&self, file: FileId, _is_directory: bool) -> BoxFuture<'static, ()> {
        let (kernel, delay) = (self.clone(), self.thread_delay());
        Box::pin(async move {
            delay.await;
            kernel.drop_attributes(file);
        })
    }

    fn outdate_attributes(&self, file: FileId) {
        let state = &mut *self.state.lock();
        state.clock += 1;
        let f = state.files.entry(file).or_default();
        f.attributes = None;
        f.attributes_changed = state.clock;
    }

    fn forget_names(&self) -> BoxFuture<'static, ()> {
        let (kernel, delay) = (self.clone(), self.thread_delay());
        Box::pin(async move {
            delay.await;
            let mut state = kernel.state.lock();
            state.epoch += 1;
            state.names.clear();
        })
    }

    fn forget_pages(&self, file: FileId, bytes: Option<Range<u64>>) -> BoxFuture<'static, ()> {
        let (kernel, delay) = (self.clone(), self.thread_delay());
        Box::pin(async move {
            delay.await;
            // As `inval_inode` with an offset that is not negative: attributes go as well.
            kernel.drop_attributes(file);
            kernel.drop_pages(file, bytes).await;
        })
    }

    fn store(&self, file: FileId, offset: u64, bytes: Vec<u8>) -> BoxFuture<'static, ()> {
        let (kernel, delay) = (self.clone(), self.thread_delay());
        Box::pin(async move {
            delay.await;
            let end = offset + bytes.len() as u64;
            assert!(offset.is_multiple_of(PAGE) && end <= offset + PAGE, "of one page");
            if kernel.file(file, |f| end > f.size) {
                kernel.drop_attributes(file);
                kernel.set_size(file, |_| end);
            }
            kernel.pages_read(file).await;
            let mut page = bytes;
            page.resize(usize::try_from(PAGE).expect("small"), 0);
            kernel.file(file, |f| f.pages.insert(offset, page.into()));
        })
    }
}

/// A mounted file system as applications see it.
#[derive(Clone, Debug)]
pub struct Mount {
    pub fs: Arc<Fs>,
    pub locks: Arc<dyn FileLocks>,
    pub kernel: Kernel,
    pub lease: Lease,
}

impl Mount {
    /// For a request, which waits until this node may serve at all.
    pub async fn served(&self) -> &Arc<Fs> {
        self.lease.granted().await;
        &self.fs
    }

    pub fn root(&self) -> FileId {
        self.fs.root()
    }

    /// The thread that waits for an answer goes on a while after it was given, without the pins that
    /// were held for it; then the kernel takes in what it may keep.
    async fn take_in(&self, entries: Vec<Entry>, asked: u64) {
        let known: Vec<_> =
            entries.into_iter().map(|e| (e.attributes, e.keep.attributes)).collect();
        self.kernel.thread_delay().await;
        for (attributes, is_kept) in known {
            let state = &mut *self.kernel.state.lock();
            let file = state.files.entry(attributes.file).or_default();
            let is_new = !std::mem::replace(&mut file.is_known, true);
            if is_new || file.size_set <= asked && attributes.size < file.size {
                (file.size, file.size_set) = (attributes.size, asked);
            }
            if file.attributes_changed <= asked {
                // Others that were asked for at the same time come too late then.
                state.clock += 1;
                (file.size, file.size_set) = (attributes.size, state.clock);
                file.attributes = is_kept.then_some(attributes);
                file.attributes_changed = state.clock;
            }
        }
    }

    pub async fn stat(&self, file: FileId) -> Result<Attributes, FsError> {
        let (kept, asked) = (self.kernel.file(file, |f| f.attributes), self.kernel.clock());
        if let Some(attributes) = kept {
            self.kernel.state.lock().hits += 1;
            return Ok(attributes);
        }
        let entry = self.served().await.getattr(file).await?;
        let attributes = entry.attributes;
        self.take_in(vec![entry], asked).await;
        Ok(attributes)
    }

    pub async fn lookup(&self, dir: FileId, name: &[u8]) -> Result<Option<FileId>, FsError> {
        let key = (dir, name.to_vec());
        let epoch = {
            let state = &mut *self.kernel.state.lock();
            if let Some((epoch, file)) = state.names.get(&key)
                && *epoch == state.epoch
            {
                state.hits += 1;
                return Ok(*file);
            }
            state.epoch
        };
        let _locked = self.kernel.lock_dir(dir, Locked::Shared(1)).await;
        self.ask_for(dir, name, epoch).await
    }

    /// A look-up that asks, with the directory locked.
    async fn ask_for(
        &self,
        dir: FileId,
        name: &[u8],
        epoch: u64,
    ) -> Result<Option<FileId>, FsError> {
        let asked = self.kernel.clock();
        let (found, is_kept) = match self.served().await.lookup(dir, name).await? {
            Lookup::Found(entry) => {
                let (file, is_kept) = (entry.attributes.file, entry.keep.name);
                self.take_in(vec![entry], asked).await;
                (Some(file), is_kept)
            }
            Lookup::Absent(keep) => {
                let is_kept = keep.name;
                drop(keep);
                self.take_in(Vec::new(), asked).await;
                (None, is_kept)
            }
        };
        if is_kept {
            self.kernel.state.lock().names.insert((dir, name.to_vec()), (epoch, found));
        }
        Ok(found)
    }

    pub async fn list(&self, dir: FileId) -> Result<Arc<Names>, FsError> {
        Ok(self.list_pieces(dir).await?.0)
    }

    /// A listing, and whether all of it was seen in one moment.
    pub async fn list_pieces(&self, dir: FileId) -> Result<(Arc<Names>, bool), FsError> {
        let _locked = self.kernel.lock_dir(dir, Locked::Shared(1)).await;
        let (kept, asked) = (self.kernel.file(dir, |f| f.listing.clone()), self.kernel.clock());
        if let Some(names) = kept {
            self.kernel.state.lock().hits += 1;
            return Ok((names, true));
        }
        let with_attributes = {
            let state = &mut *self.kernel.state.lock();
            state.listings += 1;
            state.listings.is_multiple_of(2)
        };
        let _open = self.served().await.open_directory(dir).await?;
        let (mut names, mut cookie, mut pieces) = (Names::new(), 0, 0);
        loop {
            let asked_piece = self.kernel.clock();
            let Listing { entries, keep } = match with_attributes {
                true => self.served().await.readdir_plus(dir, cookie, PIECE).await?,
                false => self.served().await.readdir(dir, cookie, PIECE).await?,
            };
            let Some(last) = entries.last() else {
                let names = Arc::new(names);
                self.kernel.file(dir, |f| {
                    if f.attributes_changed <= asked && keep.attributes {
                        f.listing = Some(Arc::clone(&names));
                    }
                });
                return Ok((names, pieces <= 1));
            };
            cookie = last.cookie;
            pieces += 1;
            let real = entries.iter().filter(|e| e.name != b"." && e.name != b"..");
            names.extend(real.map(|e| (e.name.clone(), e.file)));
            drop(keep);
            let known = entries.into_iter().filter_map(|e| e.entry).collect();
            self.take_in(known, asked_piece).await;
        }
    }

    pub async fn open(&self, file: FileId, flags: OpenFlags) -> Result<Opened, FsError> {
        // It counts from before it is asked for.
        let _writing = flags.write.then(|| Writing::new(&self.kernel, file, |f| &mut f.writers));
        let open = self.opened(self.served().await.open(file, flags).await?);
        if flags.truncate {
            self.kernel.drop_attributes(file);
            self.kernel.set_size(file, |_| 0);
            self.kernel.drop_pages(file, None).await;
        }
        Ok(open)
    }

    fn opened(&self, open: OpenFile) -> Opened {
        let writing = |file| Writing::new(&self.kernel, file, |f| &mut f.writers);
        let writing = open.flags().write.then(|| writing(open.file()));
        Opened { open, _writing: writing }
    }

    /// read(2): through the page cache, unless the file is open for writing.
    pub async fn read(&self, open: &OpenFile, offset: u64, len: u64) -> Result<Vec<u8>, FsError> {
        if open.flags().write {
            let data = self.served().await.read(open, offset, len, ReadKind::Direct).await?;
            return Ok(data.as_slice().to_vec());
        }
        // What lies behind the size that the kernel knows is not looked at; pages are whole, and
        // zero behind the end.
        let size = || self.kernel.file(open.file(), |f| f.size);
        if offset + len > size() {
            let gone = self.kernel.file(open.file(), |f| f.writers_gone);
            let found = self.stat(open.file()).await?;
            // A known defect (docs/semantics.md, section 6): not shown where somebody could write
            // when it was asked for.
            let could_write =
                |f: &mut File| f.writers > 0 || f.beside_writers > 0 || f.writers_gone > gone;
            if self.kernel.file(open.file(), could_write) {
                self.kernel.set_size(open.file(), |size| size.max(found.size));
            }
        }
        let mut bytes = Vec::new();
        let mut page = offset - offset % PAGE;
        while page < size().min(offset + len) {
            let data = self.page(open, page).await?;
            let end = size().min(offset + len);
            if end <= page {
                break;
            }
            let at = |n: u64| usize::try_from(n.min(PAGE)).expect("within a page");
            bytes.extend_from_slice(&data[at(offset.saturating_sub(page))..at(end - page)]);
            page += PAGE;
        }
        Ok(bytes)
    }

    async fn page(&self, open: &OpenFile, page: u64) -> Result<Arc<[u8]>, FsError> {
        let file = open.file();
        let (_reading, version) = loop {
            let (kept, version, is_locked) = self.kernel.file(file, |f| {
                let is_locked = f.reading.values().any(|locked| *locked == page);
                (f.pages.get(&page).cloned(), f.pages_version, is_locked)
            });
            if let Some(data) = kept {
                self.kernel.state.lock().hits += 1;
                return Ok(data);
            }
            if !is_locked {
                break (Reading::new(&self.kernel, file, page), version);
            }
            self.kernel.exec.sleep(PAGE_LOCK).await;
        };
        let is_beside = self.kernel.file(file, |f| f.writers > 0);
        let _beside =
            is_beside.then(|| Writing::new(&self.kernel, file, |f| &mut f.beside_writers));
        let data = self.served().await.read(open, page, PAGE, ReadKind::KernelPage).await?;
        let mut bytes = data.as_slice().to_vec();
        bytes.resize(usize::try_from(PAGE).expect("small"), 0);
        let bytes: Arc<[u8]> = bytes.into();
        self.kernel.file(file, |f| {
            if f.pages_version == version {
                f.pages.insert(page, Arc::clone(&bytes));
            }
        });
        Ok(bytes)
    }

    pub async fn write(&self, open: &OpenFile, offset: u64, bytes: &[u8]) -> Result<(), FsError> {
        let file = open.file();
        let range = offset..offset + bytes.len() as u64;
        let range = (!open.flags().append).then_some(range);
        self.kernel.drop_pages(file, range.clone()).await;
        let written = self.served().await.write(open, offset, bytes).await;
        self.kernel.drop_attributes(file);
        self.kernel.drop_pages(file, range).await;
        if let Ok(written) = &written {
            let end = written.offset + written.len;
            self.kernel.set_size(file, |size| size.max(end));
        }
        let written = written?;
        assert_eq!(written.len, bytes.len() as u64, "a write is whole or fails");
        Ok(())
    }

    /// fallocate(2): the kernel drops its pages of the range behind the answer.
    pub async fn allocate(
        &self,
        open: &OpenFile,
        what: Allocate,
        range: Range<u64>,
    ) -> Result<(), FsError> {
        let file = open.file();
        let len = range.end - range.start;
        // The pin goes with the answer, before the kernel goes on.
        let done = self.served().await.allocate(open, what, range.start, len).await.map(|_| ());
        match what {
            Allocate::Blocks { keep_size: false } | Allocate::Zeros { keep_size: false } => {
                self.kernel.drop_attributes(file);
                if done.is_ok() {
                    self.kernel.set_size(file, |size| size.max(range.end));
                }
            }
            Allocate::Blocks { .. } | Allocate::Zeros { .. } | Allocate::Hole => {
                self.kernel.doubt_attributes(file);
            }
        }
        self.kernel.drop_pages(file, Some(range)).await;
        done
    }

    pub async fn fsync(&self, open: &OpenFile) -> Result<(), FsError> {
        self.served().await.fsync(open).await
    }

    pub async fn set(&self, file: FileId, set: &SetAttributes) -> Result<Attributes, FsError> {
        // The pins go with the answer, before the kernel goes on.
        let done = self.served().await.setattr(file, set).await.map(|entry| entry.attributes);
        self.kernel.drop_attributes(file);
        if let Ok(attributes) = &done {
            self.kernel.set_size(file, |_| attributes.size);
        }
        if set.size.is_some() {
            self.kernel.drop_pages(file, None).await;
        }
        done
    }

    pub async fn set_xattr(
        &self,
        file: FileId,
        name: &[u8],
        value: &[u8],
        how: SetXattr,
    ) -> Result<(), FsError> {
        let done = self.served().await.set_xattr(file, name, value, how).await;
        self.kernel.doubt_attributes(file);
        done
    }

    pub async fn remove_xattr(&self, file: FileId, name: &[u8]) -> Result<(), FsError> {
        let done = self.served().await.remove_xattr(file, name).await;
        self.kernel.doubt_attributes(file);
        done
    }

    pub async fn create(
        &self,
        dir: FileId,
        name: &[u8],
        new: &NewFile<'_>,
    ) -> Result<FileId, FsError> {
        let _locked = self.kernel.lock_dir(dir, Locked::Exclusive).await;
        let made = self.served().await.create(dir, name, new).await;
        self.changed(dir, name);
        Ok(made?.attributes.file)
    }

    /// open(O_CREAT) of a name that is not there.
    pub async fn create_and_open(
        &self,
        dir: FileId,
        name: &[u8],
        new: &NewFile<'_>,
        flags: OpenFlags,
    ) -> Result<Opened, FsError> {
        let _locked = self.kernel.lock_dir(dir, Locked::Exclusive).await;
        let made = self.served().await.create_and_open(dir, name, new, flags).await;
        self.changed(dir, name);
        Ok(self.opened(made?.1))
    }

    pub async fn unlink(&self, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        let _locked = self.kernel.lock_dir(dir, Locked::Exclusive).await;
        let done = self.served().await.unlink(dir, name).await;
        if let Some(file) = self.kernel.named(dir, name) {
            self.kernel.drop_attributes(file);
        }
        self.changed(dir, name);
        done
    }

    pub async fn rmdir(&self, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        let _locked = self.kernel.lock_dir(dir, Locked::Exclusive).await;
        let done = self.served().await.rmdir(dir, name).await;
        self.changed(dir, name);
        done
    }

    pub async fn rename(&self, from: (FileId, &[u8]), to: (FileId, &[u8])) -> Result<(), FsError> {
        let (first, second) = (from.0.min(to.0), from.0.max(to.0));
        let _first = self.kernel.lock_dir(first, Locked::Exclusive).await;
        let _second = match first == second {
            true => None,
            false => Some(self.kernel.lock_dir(second, Locked::Exclusive).await),
        };
        let done = self.served().await.rename(from, to, RenameKind::Replace).await;
        if let Some(file) = self.kernel.named(to.0, to.1) {
            self.kernel.drop_attributes(file);
        }
        if let Some(file) = self.kernel.named(from.0, from.1) {
            self.kernel.doubt_attributes(file);
        }
        self.changed(from.0, from.1);
        self.changed(to.0, to.1);
        done
    }

    fn changed(&self, dir: FileId, name: &[u8]) {
        self.kernel.drop_name(dir, name);
        self.kernel.doubt_attributes(dir);
    }
}

/// A file that an application has open.
#[derive(Debug)]
pub struct Opened {
    open: OpenFile,
    _writing: Option<Writing>,
}

impl std::ops::Deref for Opened {
    type Target = OpenFile;

    fn deref(&self) -> &OpenFile {
        &self.open
    }
}

/// Counts as a writer of a file.
#[derive(Debug)]
struct Writing {
    kernel: Kernel,
    file: FileId,
    count: fn(&mut File) -> &mut u32,
}

impl Writing {
    fn new(kernel: &Kernel, file: FileId, count: fn(&mut File) -> &mut u32) -> Writing {
        kernel.file(file, |f| *count(f) += 1);
        Writing { kernel: kernel.clone(), file, count }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.kernel.file(self.file, |f| {
            *(self.count)(f) -= 1;
            f.writers_gone += 1;
        });
    }
}

struct DirLock {
    kernel: Kernel,
    dir: FileId,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        let locked = &mut self.kernel.state.lock().locked;
        match locked.get_mut(&self.dir) {
            Some(Locked::Shared(n)) if *n > 1 => *n -= 1,
            _ => drop(locked.remove(&self.dir)),
        }
    }
}

/// A page that is locked for reading.
struct Reading<'a> {
    kernel: &'a Kernel,
    file: FileId,
    id: u64,
}

impl Reading<'_> {
    fn new(kernel: &Kernel, file: FileId, page: u64) -> Reading<'_> {
        let id = {
            let state = &mut *kernel.state.lock();
            state.next_read += 1;
            state.next_read
        };
        kernel.file(file, |f| f.reading.insert(id, page));
        Reading { kernel, file, id }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.kernel.file(self.file, |f| f.reading.remove(&self.id));
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("hits", &self.hits()).finish_non_exhaustive()
    }
}
