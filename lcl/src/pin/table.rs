//! All entries of a node, found by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use dlm::{Bucket, ResourceName};

use super::{Entry, Requester};
use crate::sync::Mutex;

/// Enough that two threads rarely meet in one shard; a power of two.
const SHARDS: usize = 64;

/// The entries of one node, in shards so that threads do not meet. Operations keep the `Arc` of
/// the entries they use often; the table is for the first look.
pub struct Table {
    shards: Vec<Mutex<BTreeMap<ResourceName, Arc<Entry>>>>,
    requester: Weak<dyn Requester>,
    is_cut_off: AtomicBool,
}

impl Table {
    pub fn new(requester: Weak<dyn Requester>) -> Table {
        let shards = (0..SHARDS).map(|_| Mutex::new(BTreeMap::new())).collect();
        Table { shards, requester, is_cut_off: AtomicBool::new(false) }
    }

    /// The entry of a resource; a new one holds nothing.
    pub fn entry(&self, name: ResourceName, bucket: Bucket) -> Arc<Entry> {
        let mut shard = self.shard(&name).lock();
        let entry = shard.entry(name).or_insert_with(|| {
            let entry = Entry::new(name, bucket, Weak::clone(&self.requester));
            // Whoever cuts off sets this before it looks into the shards.
            if self.is_cut_off.load(Ordering::SeqCst) {
                entry.cut_off();
            }
            entry
        });
        assert_eq!(entry.bucket(), bucket, "a resource has one bucket: {name:?}");
        Arc::clone(entry)
    }

    pub fn find(&self, name: &ResourceName) -> Option<Arc<Entry>> {
        self.shard(name).lock().get(name).cloned()
    }

    /// Forgets an entry that nobody else refers to. The caller vouches that no cluster lock
    /// stands behind it.
    pub fn forget(&self, name: &ResourceName) -> bool {
        let mut shard = self.shard(name).lock();
        let unused = shard.get(name).is_some_and(|entry| Arc::strong_count(entry) == 1);
        if unused {
            shard.remove(name);
        }
        unused
    }

    /// Every entry at some moment during the call, in order of shard and name.
    pub fn for_each(&self, mut f: impl FnMut(&Arc<Entry>)) {
        for shard in &self.shards {
            // Copied out: `f` may drop pins or ask for locks.
            let entries: Vec<Arc<Entry>> = shard.lock().values().cloned().collect();
            entries.iter().for_each(&mut f);
        }
    }

    /// This node holds no locks any more: all entries, and those to come, are cut off.
    pub fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::SeqCst);
        self.for_each(|entry| entry.cut_off());
    }

    /// Forgets all entries that nobody else refers to and that hold nothing.
    pub fn forget_unused(&self) {
        for shard in &self.shards {
            shard.lock().retain(|_, entry| {
                let is_unused = Arc::strong_count(entry) == 1
                    && entry.is_idle()
                    && entry.mode() == dlm::Mode::NL;
                !is_unused
            });
        }
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, name: &ResourceName) -> &Mutex<BTreeMap<ResourceName, Arc<Entry>>> {
        let sum = name
            .as_bytes()
            .iter()
            .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        &self.shards[(sum ^ (sum >> 6) ^ (sum >> 12)) % SHARDS]
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("entries", &self.len()).finish_non_exhaustive()
    }
}
