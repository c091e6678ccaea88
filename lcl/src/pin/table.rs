//! All entries of a node, found by name.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use dlm::{Bucket, ResourceName};
use hashbrown::HashTable;

use super::{Entry, Requester};
use crate::sync::Mutex;

/// Enough that two threads rarely meet in one shard; a power of two.
const SHARDS: usize = 64;

type Shard = HashTable<Arc<Entry>>;

/// The entries of one node, in shards so that threads do not meet. Operations keep the `Arc` of
/// the entries they use often; the table is for the first look.
pub struct Table {
    /// By a fixed hash of the name; what comes out of a shard is sorted by name.
    shards: Vec<Mutex<Shard>>,
    requester: Arc<Weak<dyn Requester>>,
    is_cut_off: AtomicBool,
}

impl Table {
    pub fn new(requester: Weak<dyn Requester>) -> Table {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashTable::new())).collect();
        Table { shards, requester: Arc::new(requester), is_cut_off: AtomicBool::new(false) }
    }

    /// The entry of a resource; a new one holds nothing.
    pub fn entry(&self, name: ResourceName, bucket: Bucket) -> Arc<Entry> {
        let hash = hash(&name);
        let mut shard = self.shard(hash).lock();
        let found =
            shard.entry(hash, |entry| entry.name() == name, |entry| self::hash(&entry.name()));
        let entry = found.or_insert_with(|| {
            let entry = Entry::new(name, bucket, Arc::clone(&self.requester));
            // Whoever cuts off sets this before it looks into the shards.
            if self.is_cut_off.load(Ordering::SeqCst) {
                entry.cut_off();
            }
            entry
        });
        let entry = entry.into_mut();
        assert_eq!(entry.bucket(), bucket, "a resource has one bucket: {name:?}");
        Arc::clone(entry)
    }

    pub fn find(&self, name: &ResourceName) -> Option<Arc<Entry>> {
        let hash = hash(name);
        self.shard(hash).lock().find(hash, |entry| entry.name() == *name).cloned()
    }

    /// Forgets an entry that nobody else refers to. The caller vouches that no cluster lock
    /// stands behind it.
    pub fn forget(&self, name: &ResourceName) -> bool {
        let hash = hash(name);
        let mut shard = self.shard(hash).lock();
        let is_unused = |entry: &Arc<Entry>| entry.name() == *name && Arc::strong_count(entry) == 1;
        shard.find_entry(hash, is_unused).map(|found| found.remove()).is_ok()
    }

    /// Every entry at some moment during the call, in order of shard and name.
    pub fn for_each(&self, mut f: impl FnMut(&Arc<Entry>)) {
        for shard in &self.shards {
            // Copied out: `f` may drop pins or ask for locks.
            let mut entries: Vec<Arc<Entry>> = shard.lock().iter().cloned().collect();
            entries.sort_unstable_by_key(|entry| entry.name());
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
            shard.lock().retain(|entry| {
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

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The table of a shard takes the lowest bits, and the highest.
        &self.shards[usize::from((hash >> 32).to_le_bytes()[0]) % SHARDS]
    }
}

/// Fixed, so that a run can be repeated; names of one kind differ in few bits.
fn hash(name: &ResourceName) -> u64 {
    // The multiplier of SplitMix64 (Steele, Lea, Flood 2014).
    const ODD: u64 = 0xbf58_476d_1ce4_e5b9;
    name.as_bytes().chunks(8).fold(0, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mixed = (hash ^ u64::from_le_bytes(word)).wrapping_mul(ODD);
        mixed ^ (mixed >> 29)
    })
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("entries", &self.len()).finish_non_exhaustive()
    }
}
