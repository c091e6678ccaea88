//! The requester side: the locks of this node, wherever their homes are.
//!
//! Keeps true between calls:
//!   * a lock is here from its request until its owner unlocks it or it is denied;
//!   * `held` is the mode this node may use: lowered from the moment the Lower is sent, raised from
//!     the moment the grant arrives (I6);
//!   * at most one request or conversion of a lock is outstanding.

use mx_base::Instant;

use crate::lock::LockId;
use crate::mode::Mode;
use crate::name::{Bucket, ResourceName};
use crate::value_block::ValueBlock;

/// More locks than this node may have at once: unlock some first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this node has {} locks already", OwnLocks::COUNT_MAX)]
pub struct TooManyLocks;

/// All locks of this node, by id and by bucket.
#[derive(Clone, Hash)]
pub(crate) struct OwnLocks {
    places: Vec<Place>,
    vacant: Vec<u32>,
    count: usize,
    /// For each bucket the places of its locks, in no order that means anything.
    by_bucket: Vec<Vec<u32>>,
}

/// A lock id is a place and the number of its use.
#[derive(Clone, Hash)]
struct Place {
    uses: u32,
    lock: Option<OwnLock>,
}

/// One lock of this node.
#[derive(Clone, Hash)]
pub(crate) struct OwnLock {
    pub(crate) name: ResourceName,
    pub(crate) bucket: Bucket,
    /// `None` before the first grant.
    pub(crate) held: Option<Mode>,
    pub(crate) asked: Option<Asked>,
    /// Grants received from the present home.
    pub(crate) grants: u32,
    /// Lowers sent to the present home.
    pub(crate) lowers: u32,
    /// The value block as last granted or left, while PR or more is held: for the heir of the
    /// bucket.
    pub(crate) value: Option<Box<ValueBlock>>,
    /// When `held` or `asked` last changed.
    pub(crate) since: Instant,
    position: u32,
}

/// An outstanding request or conversion.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Asked {
    pub(crate) wanted: Mode,
    pub(crate) no_queue: bool,
    pub(crate) is_cancelled: bool,
}

impl OwnLocks {
    /// What one node may hold: four times what the memory of a large server is meant for, so that
    /// a leak shows before it takes all memory. Beyond it requests are refused. Since every home
    /// keeps one entry for each lock of a member, this bounds the homes, too.
    pub(crate) const COUNT_MAX: usize = 1 << 22;

    pub(crate) fn new() -> OwnLocks {
        OwnLocks {
            places: Vec::new(),
            vacant: Vec::new(),
            count: 0,
            by_bucket: (0..Bucket::COUNT).map(|_| Vec::new()).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn insert(
        &mut self,
        name: ResourceName,
        bucket: Bucket,
        asked: Asked,
        now: Instant,
    ) -> Result<LockId, TooManyLocks> {
        if self.count >= OwnLocks::COUNT_MAX {
            return Err(TooManyLocks);
        }
        self.count += 1;
        let place = match self.vacant.pop() {
            Some(place) => place,
            None => {
                self.places.push(Place { uses: 0, lock: None });
                u32::try_from(self.places.len() - 1).expect("far fewer than 2^32 places")
            }
        };
        let in_bucket = &mut self.by_bucket[bucket.index()];
        let position = u32::try_from(in_bucket.len()).expect("far fewer than 2^32 places");
        in_bucket.push(place);
        let slot = &mut self.places[place as usize];
        slot.lock = Some(OwnLock {
            name,
            bucket,
            held: None,
            asked: Some(asked),
            grants: 0,
            lowers: 0,
            value: None,
            since: now,
            position,
        });
        Ok(LockId(u64::from(slot.uses) << 32 | u64::from(place)))
    }

    pub(crate) fn get(&self, id: LockId) -> Option<&OwnLock> {
        let (uses, place) = split(id);
        self.places.get(place).filter(|slot| slot.uses == uses)?.lock.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: LockId) -> Option<&mut OwnLock> {
        let (uses, place) = split(id);
        self.places.get_mut(place).filter(|slot| slot.uses == uses)?.lock.as_mut()
    }

    pub(crate) fn remove(&mut self, id: LockId) -> Option<OwnLock> {
        let (uses, place) = split(id);
        let slot = self.places.get_mut(place).filter(|slot| slot.uses == uses)?;
        let lock = slot.lock.take()?;
        self.count -= 1;
        // An id would be used twice only after 2^32 uses of one place; it retires before.
        if let Some(next) = slot.uses.checked_add(1) {
            slot.uses = next;
            self.vacant.push(u32::try_from(place).expect("a place is 32 bits"));
        }
        let in_bucket = &mut self.by_bucket[lock.bucket.index()];
        in_bucket.swap_remove(lock.position as usize);
        if let Some(moved) = in_bucket.get(lock.position as usize) {
            let moved = self.places[*moved as usize].lock.as_mut();
            moved.expect("a bucket lists only locks that are there").position = lock.position;
        }
        Some(lock)
    }

    pub(crate) fn in_bucket(&self, bucket: Bucket) -> impl Iterator<Item = (LockId, &OwnLock)> {
        self.by_bucket[bucket.index()].iter().map(|place| {
            let slot = &self.places[*place as usize];
            let lock = slot.lock.as_ref().expect("a bucket lists only locks that are there");
            (LockId(u64::from(slot.uses) << 32 | u64::from(*place)), lock)
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LockId, &OwnLock)> {
        (0_u32..).zip(&self.places).filter_map(|(place, slot)| {
            let lock = slot.lock.as_ref()?;
            Some((LockId(u64::from(slot.uses) << 32 | u64::from(place)), lock))
        })
    }
}

fn split(id: LockId) -> (u32, usize) {
    let [b0, b1, b2, b3, b4, b5, b6, b7] = id.0.to_le_bytes();
    (u32::from_le_bytes([b4, b5, b6, b7]), u32::from_le_bytes([b0, b1, b2, b3]) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(own: &mut OwnLocks, name: &[u8], bucket: u16) -> LockId {
        let asked = Asked { wanted: Mode::PR, no_queue: false, is_cancelled: false };
        let name = ResourceName::new(name).expect("short");
        let bucket = Bucket::new(bucket).expect("in range");
        own.insert(name, bucket, asked, Instant(0)).expect("room")
    }

    #[test]
    fn an_id_is_never_used_twice() {
        let mut own = OwnLocks::new();
        let first = insert(&mut own, b"a", 7);
        assert!(own.remove(first).is_some());
        let second = insert(&mut own, b"a", 7);
        assert_ne!(first, second);
        assert!(own.get(first).is_none() && own.remove(first).is_none());
        assert!(own.get(second).is_some());
        assert_eq!(own.len(), 1);
    }

    #[test]
    fn the_locks_of_a_bucket_are_found_whatever_was_removed() {
        let mut own = OwnLocks::new();
        let ids: Vec<LockId> =
            (0..10_u8).map(|i| insert(&mut own, &[b'a' + i], u16::from(i % 2))).collect();
        for gone in [0, 4, 8, 3] {
            own.remove(ids[gone]);
        }
        let found = |bucket: u16| {
            let bucket = Bucket::new(bucket).expect("in range");
            let mut names: Vec<String> =
                own.in_bucket(bucket).map(|(_, lock)| format!("{:?}", lock.name)).collect();
            names.sort();
            names
        };
        assert_eq!(found(0), ["c", "g"]);
        assert_eq!(found(1), ["b", "f", "h", "j"]);
        assert_eq!(own.iter().count(), 6);
    }
}
