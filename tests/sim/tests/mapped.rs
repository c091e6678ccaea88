//! Stores through shared mappings beside read(2) and write(2) of the same pages, on one node: none is
//! lost, and nobody sees an old one after a new one.
//!
//! The kernel here does with pages what the real one does (`docs/spec/locks.md`, surrender): a page is
//! read whole, stored to without asking, and comes back whole; a write(2) drops the pages of its range
//! before it is sent and behind its answer; a read(2) sends what is dirty first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use mfs::env::KernelCache;
use mfs::file::FileId;
use mfs::ops::{NewFile, NewKind, OpenFile, OpenFlags, ReadKind};
use mfs::{Fs, Options};
use mx_base::{BoxFuture, Duration};
use parking_lot::Mutex;
use sim::disk::Device;
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const BLOCKS: u64 = 64 << 8;
const PAGE: u64 = 4096;
const CELL: u64 = 64;
const OWNERS: u64 = 4;
const OPERATIONS: u32 = 150;

/// The kernel's pages of one file.
#[derive(Clone)]
struct Kernel {
    exec: Executor,
    file: Arc<OnceLock<(Arc<Fs>, OpenFile)>>,
    state: Arc<Mutex<Pages>>,
}

#[derive(Default)]
struct Pages {
    cached: BTreeMap<u64, (Vec<u8>, bool)>,
    locked: BTreeSet<u64>,
    came_back: u64,
}

fn pages_of(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE..range.end.div_ceil(PAGE)
}

impl Kernel {
    async fn pause(&self) {
        self.exec.sleep(Duration::from_micros(self.exec.draw(|r| r.below(60)))).await;
    }

    fn file(&self) -> &(Arc<Fs>, OpenFile) {
        self.file.get().expect("opened first")
    }

    async fn lock(&self, page: u64) {
        while !self.state.lock().locked.insert(page) {
            self.exec.sleep(Duration::from_micros(5)).await;
        }
    }

    fn unlock(&self, page: u64) {
        self.state.lock().locked.remove(&page);
    }

    /// Sends dirty pages of a range, and drops all of it if `drops`.
    async fn send(&self, range: &Range<u64>, drops: bool) {
        for page in pages_of(range) {
            self.lock(page).await;
            let dirty = {
                let mut state = self.state.lock();
                let cached = state.cached.get_mut(&page);
                let dirty = cached.filter(|(_, is_dirty)| *is_dirty).map(|(bytes, is_dirty)| {
                    *is_dirty = false;
                    bytes.clone()
                });
                state.came_back += u64::from(dirty.is_some());
                dirty
            };
            if let Some(bytes) = dirty {
                let (fs, open) = self.file();
                self.pause().await;
                fs.write_laundered(open, page * PAGE, &bytes).await.expect("there is room");
            }
            if drops {
                self.state.lock().cached.remove(&page);
            }
            self.unlock(page);
        }
    }

    /// Has the page read, if it is not there.
    async fn fault(&self, page: u64) {
        self.lock(page).await;
        if !self.state.lock().cached.contains_key(&page) {
            let (fs, open) = self.file();
            let read = fs.read(open, page * PAGE, PAGE, ReadKind::KernelPage).await;
            let bytes = read.expect("readable").as_slice().to_vec();
            self.pause().await;
            self.state.lock().cached.insert(page, (bytes, false));
        }
        self.unlock(page);
    }

    /// Does something with a page that is mapped and not locked.
    async fn mapped<T>(&self, page: u64, f: impl Fn(&mut (Vec<u8>, bool)) -> T) -> T {
        loop {
            {
                let state = &mut *self.state.lock();
                if !state.locked.contains(&page)
                    && let Some(cached) = state.cached.get_mut(&page)
                {
                    return f(cached);
                }
            }
            self.fault(page).await;
        }
    }

    async fn store(&self, at: u64, bytes: &[u8]) {
        let inside = place(at % PAGE);
        self.mapped(at / PAGE, |(page, is_dirty)| {
            page[inside..inside + bytes.len()].copy_from_slice(bytes);
            *is_dirty = true;
        })
        .await;
    }

    async fn load(&self, range: Range<u64>) -> Vec<u8> {
        let inside = place(range.start % PAGE);
        let len = place(range.end - range.start);
        self.mapped(range.start / PAGE, |(page, _)| page[inside..inside + len].to_vec()).await
    }

    async fn write(&self, at: u64, bytes: &[u8]) {
        let range = at..at + bytes.len() as u64;
        self.send(&range, true).await;
        self.pause().await;
        let (fs, open) = self.file();
        fs.write(open, at, bytes).await.expect("there is room");
        self.pause().await;
        self.send(&range, true).await;
    }

    async fn read(&self, range: Range<u64>) -> Vec<u8> {
        self.send(&range, false).await;
        self.pause().await;
        let (fs, open) = self.file();
        let len = range.end - range.start;
        let read = fs.read(open, range.start, len, ReadKind::Direct).await;
        read.expect("readable").as_slice().to_vec()
    }
}

impl KernelCache for Kernel {
    fn remember(&self, _file: FileId) {}

    fn forget_attributes(&self, _file: FileId, _is_directory: bool) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn outdate_attributes(&self, _file: FileId) {}

    fn forget_names(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn forget_pages(&self, _file: FileId, bytes: Option<Range<u64>>) -> BoxFuture<'static, ()> {
        let kernel = self.clone();
        Box::pin(async move {
            // A thread of its own does it.
            kernel.pause().await;
            let all = 0..PAGE * kernel.state.lock().cached.len().max(64) as u64;
            kernel.send(&bytes.unwrap_or(all), true).await;
        })
    }

    fn store(&self, _file: FileId, _offset: u64, _bytes: Vec<u8>) -> BoxFuture<'static, ()> {
        unreachable!("the file is open for writing all the time")
    }
}

fn place(at: u64) -> usize {
    usize::try_from(at).expect("small")
}

/// How often a cell was changed: begun, done.
#[derive(Clone, Copy, Default)]
struct Changes(u64, u64);

/// One process; each cell has one that changes it.
#[derive(Clone)]
struct Process {
    kernel: Kernel,
    changes: Arc<Mutex<Vec<Changes>>>,
    /// The newest that anybody was shown.
    seen: Arc<Mutex<Vec<u64>>>,
    me: u64,
}

impl Process {
    fn draw(&self, below: u64) -> u64 {
        self.kernel.exec.draw(|r| r.below(below))
    }

    async fn work(self) {
        let cells = self.changes.lock().len() as u64;
        for _ in 0..OPERATIONS {
            let cell = self.draw(cells);
            if cell % OWNERS == self.me && self.draw(4) > 0 {
                self.change(cell).await;
            } else {
                self.look_at(cell).await;
            }
            if self.draw(3) == 0 {
                self.kernel.pause().await;
            }
        }
    }

    async fn change(&self, cell: u64) {
        let count = {
            let changes = &mut self.changes.lock()[place(cell)];
            changes.0 += 1;
            changes.0
        };
        let bytes = count.to_le_bytes().repeat(8);
        match self.draw(2) {
            0 => self.kernel.write(cell * CELL, &bytes).await,
            _ => self.kernel.store(cell * CELL, &bytes).await,
        }
        self.changes.lock()[place(cell)].1 = count;
    }

    async fn look_at(&self, cell: u64) {
        let done = self.changes.lock()[place(cell)].1.max(self.seen.lock()[place(cell)]);
        let range = cell * CELL..(cell + 1) * CELL;
        let (how, bytes) = match self.draw(2) {
            0 => ("read", self.kernel.read(range).await),
            _ => ("loaded", self.kernel.load(range).await),
        };
        let begun = self.changes.lock()[place(cell)].0;
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("eight")))
            .collect();
        assert!(words.iter().all(|word| *word == words[0]), "{how} cell {cell}: {words:?}");
        let count = words[0];
        assert!(
            (done..=begun).contains(&count),
            "{how} cell {cell}: change {count}, when {done} was done or seen, {begun} begun"
        );
        let seen = &mut self.seen.lock()[place(cell)];
        *seen = count.max(*seen);
    }
}

/// Returns how many pages came back.
fn mix(seed: u64, pages: u64, cells: u64) -> u64 {
    let exec = Executor::new(seed);
    let device = Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"));
    let kernel = Kernel { exec: exec.clone(), file: Arc::default(), state: Arc::default() };
    let mut env = env(&exec, &device, 1);
    env.kernel = Arc::new(kernel.clone());
    let ours = kernel.clone();
    let ran = exec.run(NODE, LIMIT, async move {
        let mounted = mfs::mount(env, Options::default(), true, |_| {}).await.expect("mounts");
        let fs = Arc::clone(&mounted.fs);
        let new = NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 };
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let (_, open) = fs.create_and_open(fs.root(), b"f", &new, flags).await.expect("room");
        fs.write(&open, 0, &vec![0; place(pages * PAGE)]).await.expect("room");
        assert!(kernel.file.set((Arc::clone(&fs), open)).is_ok());
        let cells = place(cells);
        let changes = Arc::new(Mutex::new(vec![Changes::default(); cells]));
        let seen = Arc::new(Mutex::new(vec![0; cells]));
        let process = |me| {
            let (changes, seen) = (Arc::clone(&changes), Arc::clone(&seen));
            Process { kernel: kernel.clone(), changes, seen, me }
        };
        let processes: Vec<Process> = (0..OWNERS).map(process).collect();
        futures_util::future::join_all(processes.iter().cloned().map(Process::work)).await;
        for cell in 0..cells as u64 {
            processes[0].look_at(cell).await;
        }
        std::mem::forget(mounted);
    });
    exec.kill(NODE);
    ran.expect("nobody waits for ever");
    ours.state.lock().came_back
}

#[test]
fn stores_and_writes_to_one_page_at_once_are_both_kept() {
    let came_back: u64 = (0..40).map(|seed| mix(seed, 1, PAGE / CELL)).sum();
    assert!(came_back > 1_000, "{came_back} pages came back");
}

#[test]
fn stores_and_writes_to_several_pages_at_once_are_kept() {
    let came_back: u64 = (0..20).map(|seed| mix(seed, 3, 3 * PAGE / CELL)).sum();
    assert!(came_back > 500, "{came_back} pages came back");
}

/// So few bytes that somebody is always looking at what is being written.
#[test]
fn nobody_is_shown_an_old_byte_after_a_new_one() {
    let came_back: u64 = (0..100).map(|seed| mix(seed, 1, OWNERS)).sum();
    assert!(came_back > 1_000, "{came_back} pages came back");
}
