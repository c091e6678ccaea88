//! What applications do on every node, and what they must find.
//!
//! Counters and sizes are registers; names move between directories; blobs are files of which every
//! byte is known; logs are appended to by everybody. Each object has one writer at a time, whichever
//! node it is on, except logs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mfs::error::DiskError;
use mfs::file::FileId;
use mfs::ops::{NewFile, NewKind, OpenFlags, SetAttributes};
use mfs::{Attributes, FsError};
use mx_base::{Duration, Instant, Timestamp};
use parking_lot::Mutex;

use super::LifeId;
use super::chain::Chain;
use super::host::Life;
use super::kernel::Mount;
use super::log_file::{Log, Record};
use super::oracle::Oracle;
use crate::exec::Executor;

const COUNTERS: usize = 4;
const SIZES: usize = 2;
const NAMES: usize = 8;
const BLOBS: usize = 2;
const LOGS: usize = 2;
/// Where each counter lies in its file: in the inode, in a block, behind a hole.
const COUNTER_AT: [u64; COUNTERS] = [0, 5_000, 4_088, 300_000];
const BLOB_MAX: u64 = 30_000;
const DIRS: [&[u8]; 2] = [b"d0", b"d1"];

/// Where a name is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Absent,
    /// In this directory; which file is known when the creation is answered.
    In(usize, Option<FileId>),
}

impl Place {
    fn is_in(self, dir: usize) -> bool {
        matches!(self, Place::In(at, _) if at == dir)
    }

    fn shows(self, dir: usize, found: Option<FileId>) -> bool {
        match (self, found) {
            (Place::In(at, Some(file)), Some(found)) => at == dir && file == found,
            (Place::In(at, None), Some(_)) => at == dir,
            (Place::Absent, found) => found.is_none(),
            (Place::In(at, _), None) => at != dir,
        }
    }
}

type TimesByLife = BTreeMap<LifeId, (Timestamp, Timestamp)>;

/// All objects, and what is known of them.
pub struct Work {
    pub exec: Executor,
    pub oracle: Oracle,
    counters: Vec<Mutex<Chain<u64>>>,
    sizes: Vec<Mutex<Chain<u64>>>,
    names: Vec<Mutex<Chain<Place>>>,
    blobs: Vec<Mutex<Chain<Arc<Vec<u8>>>>>,
    logs: Vec<Mutex<Log>>,
    times: Mutex<BTreeMap<FileId, TimesByLife>>,
    /// Operations under way.
    under_way: Mutex<BTreeMap<u64, (LifeId, Step, Instant)>>,
    next: AtomicU64,
    is_over: AtomicBool,
    pub done: AtomicU64,
    /// The longest that an operation took, of a life that was not lost.
    longest: Mutex<(Duration, String)>,
}

/// How far an operation is, in words.
type Step = Arc<Mutex<String>>;

/// One application's view of the world.
#[derive(Clone)]
pub struct App {
    pub step: Step,
    pub work: Arc<Work>,
    pub life: Arc<Life>,
    pub mount: Mount,
}

fn name_of(kind: char, i: usize) -> Vec<u8> {
    format!("{kind}{i}").into_bytes()
}

fn regular() -> NewFile<'static> {
    NewFile { kind: NewKind::Regular, permissions: 0o644, uid: 0, gid: 0 }
}

const WRITE: OpenFlags = OpenFlags { write: true, append: false, sync: false, truncate: false };
const READ: OpenFlags = OpenFlags { write: false, append: false, sync: false, truncate: false };
const APPEND: OpenFlags = OpenFlags { write: true, append: true, sync: false, truncate: false };

impl Work {
    pub fn new(exec: &Executor, oracle: &Oracle) -> Arc<Work> {
        let chains = |count| (0..count).map(|_| Mutex::new(Chain::new(0))).collect();
        let work = Arc::new(Work {
            exec: exec.clone(),
            oracle: oracle.clone(),
            counters: chains(COUNTERS),
            sizes: chains(SIZES),
            names: (0..NAMES).map(|_| Mutex::new(Chain::new(Place::Absent))).collect(),
            blobs: (0..BLOBS).map(|_| Mutex::new(Chain::new(Arc::default()))).collect(),
            logs: (0..LOGS).map(|_| Mutex::default()).collect(),
            times: Mutex::default(),
            under_way: Mutex::default(),
            next: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            longest: Mutex::default(),
        });
        let weak = Arc::downgrade(&work);
        oracle.listen(Box::new(move |life| {
            if let Some(work) = weak.upgrade() {
                work.lose(life);
            }
        }));
        work
    }

    fn lose(&self, life: LifeId) {
        self.counters.iter().chain(&self.sizes).for_each(|chain| chain.lock().lose(life));
        self.names.iter().for_each(|chain| chain.lock().lose(life));
        self.blobs.iter().for_each(|chain| chain.lock().lose(life));
        self.logs.iter().for_each(|log| log.lock().lose(life));
        self.times.lock().values_mut().for_each(|seen| {
            seen.remove(&life);
        });
        self.under_way.lock().retain(|_, (of, _, _)| *of != life);
    }

    /// Nobody begins anything any more.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub fn is_stopped(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// What has not ended yet.
    pub fn under_way(&self, life: Option<LifeId>) -> Vec<String> {
        let now = self.exec.now();
        let all = self.under_way.lock();
        let of = all.values().filter(|(of, _, _)| life.is_none_or(|life| *of == life));
        let tell = |(of, what, since): &(LifeId, Step, Instant)| {
            format!("{of} {} for {:?}", what.lock(), now.since(*since))
        };
        of.map(tell).collect()
    }

    pub fn longest(&self) -> (Duration, String) {
        self.longest.lock().clone()
    }

    /// What every run begins with.
    pub async fn set_up(&self, mount: &Mount) -> Result<(), FsError> {
        let root = mount.root();
        for dir in DIRS {
            let new = NewFile { kind: NewKind::Directory, ..regular() };
            mount.create(root, dir, &new).await?;
        }
        let files = [('c', COUNTERS), ('s', SIZES), ('b', BLOBS), ('l', LOGS)];
        for (kind, count) in files {
            for i in 0..count {
                mount.create(root, &name_of(kind, i), &regular()).await?;
            }
        }
        mount.fs.sync().await
    }
}

impl App {
    fn exec(&self) -> &Executor {
        &self.work.exec
    }

    fn id(&self) -> LifeId {
        self.life.id
    }

    fn draw(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("small");
        usize::try_from(self.exec().draw(|r| r.below(bound))).expect("small")
    }

    fn chance(&self, percent: u64) -> bool {
        self.exec().draw(|r| r.chance(percent))
    }

    /// Does what this node sees count?
    fn counts(&self) -> bool {
        !self.work.oracle.is_lost(self.id()) && self.life.is_permitted()
    }

    /// Works until it is told to stop.
    pub async fn work(self) {
        while !self.work.is_stopped() && !self.life.is_leaving() {
            if !self.life.is_permitted() {
                // As the FUSE layer has it: what the kernel caches goes, and requests wait.
                self.mount.kernel.forget_everything();
                self.exec().sleep(Duration::from_millis(2)).await;
                continue;
            }
            let what = self.draw(100);
            let name = match what {
                0..20 => "counter",
                20..30 => "size",
                30..55 => "name",
                55..70 => "blob",
                70..85 => "append",
                85..92 => "log",
                92..97 => "list",
                _ => "statfs",
            };
            if self.operation(name, self.any(what)).await.is_err() {
                // The mount is gone; so is what it had.
                break;
            }
            let pause = if self.chance(70) { self.draw(2_000) } else { self.draw(40_000) };
            let pause = Duration::from_micros(u64::try_from(pause).expect("small"));
            self.exec().sleep(pause).await;
        }
    }

    async fn any(&self, what: usize) -> Result<(), FsError> {
        match what {
            0..20 => self.counter(self.draw(COUNTERS)).await,
            20..30 => self.size(self.draw(SIZES)).await,
            30..55 => self.name(self.draw(NAMES)).await,
            55..70 => self.blob(self.draw(BLOBS)).await,
            70..85 => self.append(self.draw(LOGS)).await,
            85..92 => self.read_log(self.draw(LOGS)).await,
            92..97 => self.list(self.draw(DIRS.len())).await,
            _ => self.mount.fs.statfs().await.map(|_| ()),
        }
    }

    /// Takes note of an operation for as long as it takes; an error is explained by the end of this
    /// life, or wrong.
    async fn operation(
        &self,
        name: &str,
        operation: impl Future<Output = Result<(), FsError>>,
    ) -> Result<(), FsError> {
        let work = &self.work;
        let began = self.exec().now();
        let number = work.next.fetch_add(1, Ordering::Relaxed);
        name.clone_into(&mut self.step.lock());
        work.under_way.lock().insert(number, (self.id(), Arc::clone(&self.step), began));
        let done = operation.await;
        work.under_way.lock().remove(&number);
        work.done.fetch_add(1, Ordering::Relaxed);
        self.exec().note(u64::from(done.is_ok()));
        let took = self.exec().now().since(began);
        if done.is_ok() && self.counts() {
            let mut longest = work.longest.lock();
            if took > longest.0 {
                *longest = (took, format!("{name} on {}", self.life.member));
            }
        }
        if let Err(error) = &done {
            tracing::info!(life = %self.id(), name, %error, "operation failed");
            if is_end(error) {
                self.life.expect_end(format!("{name}: {error}"));
            } else if self.counts() {
                self.wrong("errors", format!("{name} failed: {error}"));
            }
        }
        done
    }

    fn step(&self, what: &str, file: FileId) {
        tracing::debug!(?file, "{what}");
        *self.step.lock() = format!("{what} {file:?}");
    }

    fn wrong(&self, oracle: &'static str, what: String) {
        self.work.oracle.violation(oracle, format!("{}: {what}", self.life.member));
    }

    async fn find(&self, dir: FileId, name: &[u8]) -> Result<FileId, FsError> {
        self.step("find in", dir);
        match self.mount.lookup(dir, name).await? {
            Some(file) => Ok(file),
            None => {
                if self.counts() {
                    self.wrong("names", format!("{} is not there", String::from_utf8_lossy(name)));
                }
                Err(FsError::NotFound)
            }
        }
    }

    async fn file(&self, kind: char, i: usize) -> Result<FileId, FsError> {
        self.find(self.mount.root(), &name_of(kind, i)).await
    }

    async fn stat(&self, file: FileId) -> Result<Attributes, FsError> {
        let before = self.work.times.lock().get(&file).cloned().unwrap_or_default();
        self.step("stat", file);
        let found = self.mount.stat(file).await?;
        if self.counts() {
            let seen = (found.mtime, found.ctime);
            for (life, times) in before {
                let is_back = seen.0 < times.0 || seen.1 < times.1;
                if is_back && !self.work.oracle.is_lost(life) {
                    self.wrong(
                        "times",
                        format!("times of {file:?} went from {times:?} to {seen:?}"),
                    );
                }
            }
            let mut times = self.work.times.lock();
            let mine = times.entry(file).or_default().entry(self.id()).or_default();
            *mine = (mine.0.max(seen.0), mine.1.max(seen.1));
        }
        Ok(found)
    }

    // Counters

    async fn counter(&self, i: usize) -> Result<(), FsError> {
        let chain = &self.work.counters[i];
        let writes = self.chance(50) && chain.lock().take(self.id());
        if !writes {
            return self.read_counter(i).await.map(|_| ());
        }
        let file = self.file('c', i).await?;
        if chain.lock().is_in_doubt() {
            let value = self.read_counter(i).await?;
            if self.counts() {
                chain.lock().settle(value);
            } else {
                chain.lock().release(self.id());
                return Ok(());
            }
        }
        let (change, value) = {
            let mut chain = chain.lock();
            let value = chain.newest() + 1;
            let Some(change) = chain.begin_change(self.id(), value) else { return Ok(()) };
            (change, value)
        };
        self.step("open", file);
        let open = self.mount.open(file, WRITE).await?;
        self.step("write", open.file());
        self.mount.write(&open, COUNTER_AT[i], &value.to_le_bytes()).await?;
        chain.lock().acknowledge(change, value);
        if self.chance(30) {
            let sync = chain.lock().begin_sync();
            self.step("fsync", open.file());
            self.mount.fsync(&open).await?;
            chain.lock().synced(sync);
        }
        chain.lock().release(self.id());
        Ok(())
    }

    async fn read_counter(&self, i: usize) -> Result<u64, FsError> {
        let file = self.file('c', i).await?;
        let began = self.work.counters[i].lock().begin_read();
        self.step("open", file);
        let open = self.mount.open(file, if self.chance(30) { WRITE } else { READ }).await?;
        self.step("read", file);
        let bytes = self.mount.read(&open, COUNTER_AT[i], 8).await?;
        let value = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        self.exec().note(value);
        if self.counts()
            && let Err(why) =
                self.work.counters[i].lock().end_read(self.id(), began, |v| *v == value)
        {
            self.wrong("counters", format!("counter {i} ({file:?}) is {value}: {why}"));
        }
        Ok(value)
    }

    // Sizes

    async fn size(&self, i: usize) -> Result<(), FsError> {
        let chain = &self.work.sizes[i];
        let writes = self.chance(50) && chain.lock().take(self.id());
        if !writes {
            return self.read_size(i).await.map(|_| ());
        }
        let file = self.file('s', i).await?;
        if chain.lock().is_in_doubt() {
            let size = self.read_size(i).await?;
            if self.counts() {
                chain.lock().settle(size);
            } else {
                chain.lock().release(self.id());
                return Ok(());
            }
        }
        let size = self.exec().draw(|r| r.below(20_000));
        let Some(change) = chain.lock().begin_change(self.id(), size) else { return Ok(()) };
        let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
        self.step("set size", file);
        let found = self.mount.set(file, &set).await?;
        if found.size != size && self.counts() {
            self.wrong("sizes", format!("size set to {size} is {}", found.size));
        }
        let mut chain = chain.lock();
        chain.acknowledge(change, size);
        chain.release(self.id());
        Ok(())
    }

    async fn read_size(&self, i: usize) -> Result<u64, FsError> {
        let file = self.file('s', i).await?;
        let began = self.work.sizes[i].lock().begin_read();
        let size = self.stat(file).await?.size;
        if self.counts()
            && let Err(why) = self.work.sizes[i].lock().end_read(self.id(), began, |s| *s == size)
        {
            self.wrong("sizes", format!("size {i} ({file:?}) is {size}: {why}"));
        }
        if self.chance(30) {
            self.step("open", file);
            let open = self.mount.open(file, READ).await?;
            self.step("read", file);
            let bytes = self.mount.read(&open, 0, 20_000).await?;
            if self.counts() && bytes.iter().any(|b| *b != 0) {
                self.wrong("nothing exposed", format!("{file:?} holds what nobody wrote (I10)"));
            }
        }
        Ok(size)
    }

    // Names

    async fn dir(&self, dir: usize) -> Result<FileId, FsError> {
        self.find(self.mount.root(), DIRS[dir]).await
    }

    async fn name(&self, i: usize) -> Result<(), FsError> {
        let chain = &self.work.names[i];
        let writes = self.chance(60) && chain.lock().take(self.id());
        if !writes {
            return self.read_name(i, self.draw(DIRS.len())).await.map(|_| ());
        }
        // Whoever changes the name next sees both directories: what was done to them by another
        // node, and not synced, is durable then.
        let is_foreign = chain.lock().newest_life() != self.id();
        if is_foreign || chain.lock().is_in_doubt() {
            let mut place = Place::Absent;
            for dir in 0..DIRS.len() {
                if let Some(file) = self.read_name(i, dir).await? {
                    if place != Place::Absent && self.counts() {
                        self.wrong("names", format!("name {i} is in two directories"));
                    }
                    place = Place::In(dir, Some(file));
                }
            }
            if !self.counts() {
                chain.lock().release(self.id());
                return Ok(());
            }
            let mut chain = chain.lock();
            if chain.is_in_doubt() {
                chain.settle(place);
            }
        }
        let name = name_of('n', i);
        let before = *chain.lock().newest();
        match before {
            Place::Absent => {
                let at = self.draw(DIRS.len());
                let dir = self.dir(at).await?;
                let Some(change) = chain.lock().begin_change(self.id(), Place::In(at, None)) else {
                    return Ok(());
                };
                self.step("create in", dir);
                let file = self.mount.create(dir, &name, &regular()).await?;
                chain.lock().acknowledge(change, Place::In(at, Some(file)));
                if self.chance(50) {
                    self.step("open", file);
                    let open = self.mount.open(file, WRITE).await?;
                    let len = 1 + self.draw(9_000);
                    self.step("write", open.file());
                    self.mount.write(&open, 0, &vec![0x5a; len]).await?;
                }
            }
            Place::In(at, file) => {
                let dir = self.dir(at).await?;
                if self.chance(50) {
                    let to = self.dir(1 - at).await?;
                    let after = Place::In(1 - at, file);
                    let Some(change) = chain.lock().begin_change(self.id(), after) else {
                        return Ok(());
                    };
                    self.step("rename from", dir);
                    self.mount.rename((dir, &name), (to, &name)).await?;
                    chain.lock().acknowledge(change, after);
                } else {
                    let Some(change) = chain.lock().begin_change(self.id(), Place::Absent) else {
                        return Ok(());
                    };
                    self.step("unlink from", dir);
                    self.mount.unlink(dir, &name).await?;
                    chain.lock().acknowledge(change, Place::Absent);
                }
            }
        }
        if self.chance(20) {
            let sync = chain.lock().begin_sync();
            self.mount.fs.fsync_directory().await?;
            chain.lock().synced(sync);
        }
        chain.lock().release(self.id());
        Ok(())
    }

    async fn read_name(&self, i: usize, at: usize) -> Result<Option<FileId>, FsError> {
        let dir = self.dir(at).await?;
        let began = self.work.names[i].lock().begin_read();
        self.step("lookup in", dir);
        let found = self.mount.lookup(dir, &name_of('n', i)).await?;
        self.check_name(i, at, began, found);
        Ok(found)
    }

    fn check_name(&self, i: usize, at: usize, began: super::chain::Began, found: Option<FileId>) {
        if self.counts()
            && let Err(why) = self.work.names[i].lock().end_partial_read(
                self.id(),
                began,
                |place| place.shows(at, found),
                |before, after| before.is_in(at) || after.is_in(at),
            )
        {
            self.wrong("names", format!("name {i} in directory {at} is {found:?}: {why}"));
        }
    }

    async fn list(&self, at: usize) -> Result<(), FsError> {
        let dir = self.dir(at).await?;
        let began: Vec<_> = self.work.names.iter().map(|chain| chain.lock().begin_read()).collect();
        self.step("list", dir);
        let names = self.mount.list(dir).await?;
        for (i, began) in began.into_iter().enumerate() {
            self.check_name(i, at, began, names.get(&name_of('n', i)).copied());
        }
        Ok(())
    }

    // Blobs

    async fn blob(&self, i: usize) -> Result<(), FsError> {
        let chain = &self.work.blobs[i];
        let writes = self.chance(60) && chain.lock().take(self.id());
        if !writes {
            return self.read_blob(i).await.map(|_| ());
        }
        let file = self.file('b', i).await?;
        if chain.lock().is_in_doubt() {
            let content = self.read_blob(i).await?;
            if self.counts() {
                chain.lock().settle(Arc::new(content));
            } else {
                chain.lock().release(self.id());
                return Ok(());
            }
        }
        let mut content = Vec::clone(chain.lock().newest());
        self.step("open", file);
        let open = self.mount.open(file, WRITE).await?;
        if self.chance(20) {
            let size = self.draw(usize::try_from(BLOB_MAX).expect("small"));
            content.resize(size, 0);
            let after = Arc::new(content);
            let Some(change) = chain.lock().begin_change(self.id(), Arc::clone(&after)) else {
                return Ok(());
            };
            let size = u64::try_from(size).expect("small");
            let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
            self.step("set size", file);
            self.mount.set(file, &set).await?;
            chain.lock().acknowledge(change, after);
        } else {
            let (at, len) = (self.draw(20_000), 1 + self.draw(9_000));
            let byte = self.exec().draw(|r| r.next_u64().to_le_bytes()[0]) | 1;
            content.resize(content.len().max(at + len), 0);
            content[at..at + len].fill(byte);
            let after = Arc::new(content);
            let Some(change) = chain.lock().begin_change(self.id(), Arc::clone(&after)) else {
                return Ok(());
            };
            let offset = u64::try_from(at).expect("small");
            self.step("write", open.file());
            self.mount.write(&open, offset, &vec![byte; len]).await?;
            chain.lock().acknowledge(change, after);
        }
        if self.chance(30) {
            let sync = chain.lock().begin_sync();
            self.step("fsync", open.file());
            self.mount.fsync(&open).await?;
            chain.lock().synced(sync);
        }
        chain.lock().release(self.id());
        Ok(())
    }

    async fn read_blob(&self, i: usize) -> Result<Vec<u8>, FsError> {
        let file = self.file('b', i).await?;
        let chain = &self.work.blobs[i];
        let (began, is_doubtful) = {
            let chain = chain.lock();
            (chain.begin_read(), chain.is_in_doubt())
        };
        self.step("open", file);
        let open = self.mount.open(file, if self.chance(30) { WRITE } else { READ }).await?;
        self.step("read", file);
        let content = self.mount.read(&open, 0, 1 << 20).await?;
        if !self.counts() {
            return Ok(content);
        }
        let mut chain = chain.lock();
        if is_doubtful && chain.is_in_doubt() {
            // Pages are written back one by one: each byte may be of any version.
            if let Some(at) = chain.unexplained_byte(began, &content) {
                self.wrong("blobs", format!("byte {at} of blob {i} ({file:?}) was never so"));
            }
        } else if chain.was_quiet(began)
            && let Err(why) = chain.end_read(self.id(), began, |c| **c == content)
        {
            let why = if why.len() > 200 { "no version" } else { &why };
            let difference = chain.newest().iter().zip(&content).position(|(a, b)| a != b);
            let what = format!(
                "blob {i} ({file:?}) has {} bytes instead of {}, differs at {difference:?}: {why}",
                content.len(),
                chain.newest().len(),
            );
            self.wrong("blobs", what);
        }
        Ok(content)
    }

    // Logs

    async fn append(&self, i: usize) -> Result<(), FsError> {
        let file = self.file('l', i).await?;
        self.step("open", file);
        let open = self.mount.open(file, APPEND).await?;
        let log = &self.work.logs[i];
        let (id, len) = (self.work.next.fetch_add(1, Ordering::Relaxed), 1 + self.draw(1_500));
        let record = Record::bytes(id, len);
        let is_lost = self.work.oracle.is_lost(self.id());
        log.lock().begin(id, self.id(), self.exec().now(), is_lost);
        self.step("write", open.file());
        self.mount.write(&open, 0, &record).await?;
        log.lock().acknowledge(id, self.exec().now());
        if self.chance(20) {
            let now = self.exec().now();
            self.step("fsync", open.file());
            self.mount.fsync(&open).await?;
            log.lock().synced(self.id(), now);
        }
        Ok(())
    }

    async fn read_log(&self, i: usize) -> Result<(), FsError> {
        let file = self.file('l', i).await?;
        self.step("open", file);
        let open = self.mount.open(file, if self.chance(30) { WRITE } else { READ }).await?;
        let began = self.exec().now();
        self.step("read", file);
        let bytes = self.mount.read(&open, 0, 64 << 20).await?;
        if self.counts()
            && let Err(why) = self.work.logs[i].lock().check(self.id(), began, &bytes)
        {
            self.wrong("logs", format!("log {i} ({file:?}): {why}"));
        }
        Ok(())
    }

    // The end

    /// Looks at everything once, when nobody changes anything.
    pub async fn look_at_all(&self) -> Result<(), FsError> {
        let all = async {
            for i in 0..COUNTERS {
                self.read_counter(i).await?;
            }
            for i in 0..SIZES {
                self.read_size(i).await?;
            }
            for at in 0..DIRS.len() {
                self.list(at).await?;
                for i in 0..NAMES {
                    self.read_name(i, at).await?;
                }
            }
            for i in 0..BLOBS {
                self.read_blob(i).await?;
            }
            for i in 0..LOGS {
                self.read_log(i).await?;
            }
            Ok(())
        };
        self.operation("look at everything", all).await
    }
}

/// An error that says that this life of the node is over.
fn is_end(error: &FsError) -> bool {
    matches!(error, FsError::CutOff | FsError::Disk(DiskError::Fenced))
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("done", &self.done).finish_non_exhaustive()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "App on {}", self.life.member)
    }
}
