//! What the locks of these tests protect: numbered objects on a shared disk, each with a version
//! that every write raises; a node caches them in its daemon and in its kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use lcl::class::{ClassTable, Damaged, LockClass};
use lcl::pin::Entry;
use lcl::{Mode, ResourceName, ValueBlock};
use mx_base::{BoxFuture, Member};
use parking_lot::Mutex;

/// The disk that all nodes share, and what the outside world knows of the objects.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) versions: BTreeMap<ResourceName, u64>,
    /// What the last write wrote, as far as it counts.
    pub(crate) truth: BTreeMap<ResourceName, u64>,
    pub(crate) fenced: BTreeSet<Member>,
    /// The next flush of the object fails.
    pub(crate) failing: BTreeSet<ResourceName>,
}

impl Disk {
    pub(crate) fn version(&self, name: &ResourceName) -> u64 {
        self.versions.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn truth(&self, name: &ResourceName) -> u64 {
        self.truth.get(name).copied().unwrap_or(0)
    }
}

/// What one node caches of the objects. Stays when its daemon dies: the kernel's part is the
/// kernel's.
pub(crate) struct Objects {
    me: Member,
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    daemon: BTreeMap<ResourceName, Cached>,
    /// What the kernel serves without asking anybody.
    pub(crate) kernel: BTreeMap<ResourceName, u64>,
    /// How often each asynchronous callout has to be polled.
    pub(crate) slowness: u32,
    /// Callouts in their order.
    pub(crate) log: Vec<String>,
    surrendering: BTreeSet<ResourceName>,
}

#[derive(Clone, Copy)]
struct Cached {
    version: u64,
    is_dirty: bool,
}

impl Objects {
    pub(crate) fn new(me: Member, disk: Arc<Mutex<Disk>>) -> Arc<Objects> {
        Arc::new(Objects { me, disk, state: Mutex::default() })
    }

    /// Under PR: what an operation sees.
    pub(crate) fn read(&self, name: &ResourceName) -> u64 {
        let disk = self.disk.lock();
        let mut state = self.state.lock();
        let version = disk.version(name);
        let cached =
            state.daemon.entry(*name).or_insert(Cached { version, is_dirty: false }).version;
        assert_eq!(cached, disk.truth(name), "{} reads the last write of {name:?}", self.me);
        cached
    }

    /// Under EX, alone.
    pub(crate) fn write(&self, name: &ResourceName) {
        let version = self.read(name) + 1;
        let mut state = self.state.lock();
        state.daemon.insert(*name, Cached { version, is_dirty: true });
        state.kernel.remove(name);
        self.disk.lock().truth.insert(*name, version);
    }

    /// A page that was read under a pin reaches the kernel.
    pub(crate) fn give_to_kernel(&self, name: &ResourceName, version: u64) {
        self.state.lock().kernel.insert(*name, version);
    }

    /// What the kernel serves is what was written last.
    pub(crate) fn check_kernel(&self) {
        let disk = self.disk.lock();
        for (name, version) in &self.state.lock().kernel {
            assert_eq!(*version, disk.truth(name), "{}'s kernel serves {name:?}", self.me);
        }
    }

    /// Objects that were changed and are not in place on disk.
    pub(crate) fn dirty(&self) -> Vec<(ResourceName, u64)> {
        let state = self.state.lock();
        let dirty = state.daemon.iter().filter(|(_, cached)| cached.is_dirty);
        dirty.map(|(name, cached)| (*name, cached.version)).collect()
    }

    fn delay(&self) -> impl Future<Output = ()> {
        let mut left = self.state.lock().slowness;
        poll_fn(move |_| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            Poll::Pending
        })
    }

    fn note(&self, what: &str, entry: &Entry, to: Mode) {
        let held = entry.mode();
        self.state.lock().log.push(format!("{what} {:?} {held} to {to}", entry.name()));
    }
}

impl LockClass for Objects {
    fn revoke<'a>(&'a self, entry: &'a Arc<Entry>, to: Mode, pass: u32) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.note("revoke", entry, to);
            if pass == 0 {
                let is_first = self.state.lock().surrendering.insert(entry.name());
                assert!(is_first, "one surrender of an entry at a time");
            }
            assert_eq!(entry.pins().0, 0, "no operation is left");
            if !to.covers(Mode::PR) {
                self.state.lock().kernel.remove(&entry.name());
            }
            self.delay().await;
        })
    }

    fn flush<'a>(&'a self, entry: &'a Arc<Entry>, to: Mode) -> BoxFuture<'a, Result<(), Damaged>> {
        Box::pin(async move {
            self.note("flush", entry, to);
            assert_eq!(entry.pins(), (0, 0), "no pin exists");
            self.delay().await;
            let name = entry.name();
            let mut disk = self.disk.lock();
            let mut state = self.state.lock();
            let Some(cached) = state.daemon.get_mut(&name).filter(|cached| cached.is_dirty) else {
                return Ok(());
            };
            assert!(entry.mode().covers(Mode::EX), "changed under EX only");
            if disk.fenced.contains(&self.me) {
                return Err(Damaged);
            }
            if disk.failing.remove(&name) {
                // What was written is lost, and everybody is told so.
                let version = disk.version(&name);
                disk.truth.insert(name, version);
                state.daemon.remove(&name);
                state.kernel.remove(&name);
                return Err(Damaged);
            }
            cached.is_dirty = false;
            disk.versions.insert(name, cached.version);
            Ok(())
        })
    }

    fn purge(&self, entry: &Arc<Entry>, to: Mode) -> Option<ValueBlock> {
        self.note("purge", entry, to);
        let name = entry.name();
        let mut state = self.state.lock();
        state.surrendering.remove(&name);
        let cached = state.daemon.get(&name).copied();
        if !to.covers(Mode::PR) {
            state.daemon.remove(&name);
            assert!(!state.kernel.contains_key(&name), "the kernel caches nothing any more");
        }
        ValueBlock::new(&cached?.version.to_le_bytes())
    }

    fn refresh(&self, entry: &Arc<Entry>, mode: Mode, value: Option<&ValueBlock>) {
        assert_ne!(entry.mode(), mode, "refreshed before the first pin in the new mode");
        let name = entry.name();
        let mut state = self.state.lock();
        state.log.push(format!("refresh {name:?} {mode} value {}", value.is_some()));
        if let (true, Some(value)) = (mode.covers(Mode::PR), value) {
            let bytes = value.as_bytes().try_into().expect("values of tests have 8 bytes");
            let version = u64::from_le_bytes(bytes);
            // Believed without a look at the disk: the next read compares it with the truth.
            state.daemon.entry(name).or_insert(Cached { version, is_dirty: false });
        }
    }
}

/// All locks of these tests are of one class.
pub(crate) struct OneClass(pub(crate) Arc<Objects>);

impl ClassTable for OneClass {
    fn class(&self, _name: &ResourceName) -> Arc<dyn LockClass> {
        Arc::clone(&self.0) as Arc<dyn LockClass>
    }
}
