//! The resources of one bucket, found by name, and by who has to do with them.
//!
//! Keeps true between calls: whoever holds or waits for a resource is listed with it. More may be
//! listed than is true; what is too much is dropped now and then, so that a list is never longer
//! than twice what it was when that was done last.
//!
//! A name is listed by a hash of it, in four bytes: there is one for each lock.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use mx_base::Member;

use crate::name::{ResourceName, mix};
use crate::resource::Resource;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Resources {
    by_name: BTreeMap<(NameHash, ResourceName), Resource>,
    /// Few, so they are not searched for but gone through.
    of: Vec<Listed>,
}

type NameHash = u32;

#[derive(Clone)]
struct Listed {
    owner: Member,
    hashes: Vec<NameHash>,
    /// So long before it was looked through last; the next time is at twice that.
    checked: usize,
}

impl Listed {
    /// A list as long as this is not worth looking through.
    const SHORT: usize = 16;
}

impl Resources {
    pub(crate) fn get(&self, name: &ResourceName) -> Option<&Resource> {
        self.by_name.get(&(hash(name), *name))
    }

    pub(crate) fn get_mut(&mut self, name: &ResourceName) -> Option<&mut Resource> {
        self.by_name.get_mut(&(hash(name), *name))
    }

    pub(crate) fn get_or_insert_with(
        &mut self,
        name: &ResourceName,
        make: impl FnOnce() -> Resource,
    ) -> &mut Resource {
        self.by_name.entry((hash(name), *name)).or_insert_with(make)
    }

    pub(crate) fn remove(&mut self, name: &ResourceName) {
        self.by_name.remove(&(hash(name), *name));
        if self.by_name.is_empty() {
            self.of.clear();
        }
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Resource) -> bool) {
        self.by_name.retain(|_, resource| keep(resource));
        if self.by_name.is_empty() {
            self.of.clear();
        }
    }

    /// In the same order in every run.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ResourceName, &Resource)> {
        self.by_name.iter().map(|((_, name), resource)| (name, resource))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&ResourceName, &mut Resource)> {
        self.by_name.iter_mut().map(|((_, name), resource)| (name, resource))
    }

    /// Before `owner` holds the resource or waits for it.
    pub(crate) fn list(&mut self, name: &ResourceName, owner: Member) {
        let at = self.of.iter().position(|listed| listed.owner == owner).unwrap_or_else(|| {
            self.of.push(Listed { owner, hashes: Vec::new(), checked: 0 });
            self.of.len() - 1
        });
        if self.of[at].hashes.len() >= Listed::SHORT.max(self.of[at].checked * 2) {
            let mut hashes = std::mem::take(&mut self.of[at].hashes);
            hashes.sort_unstable();
            hashes.dedup();
            hashes.retain(|hash| self.with_hash(*hash).any(|(_, r)| r.concerns(owner)));
            self.of[at].checked = hashes.len();
            self.of[at].hashes = hashes;
        }
        self.of[at].hashes.push(hash(name));
    }

    /// What `owner` holds or waits for, as it is no member any more.
    pub(crate) fn take_all_of(&mut self, owner: Member) -> Vec<ResourceName> {
        let Some(at) = self.of.iter().position(|listed| listed.owner == owner) else {
            return Vec::new();
        };
        let mut hashes = self.of.remove(at).hashes;
        hashes.sort_unstable();
        hashes.dedup();
        let all = hashes.into_iter().flat_map(|hash| self.with_hash(hash));
        all.filter(|(_, resource)| resource.concerns(owner)).map(|(name, _)| *name).collect()
    }

    /// Is the resource among those that the owner is listed with?
    pub(crate) fn is_listed(&self, name: &ResourceName, owner: Member) -> bool {
        let mut listed = self.of.iter().filter(|listed| listed.owner == owner);
        listed.any(|listed| listed.hashes.contains(&hash(name)))
    }

    fn with_hash(&self, hash: NameHash) -> impl Iterator<Item = (&ResourceName, &Resource)> {
        const LEAST: ResourceName = ResourceName::LEAST;
        let all = self.by_name.range((hash, LEAST)..).take_while(move |((of, _), _)| *of == hash);
        all.map(|((_, name), resource)| (name, resource))
    }
}

/// Only the resources: the lists follow from them, and from how they came about.
impl Hash for Resources {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.by_name.hash(state);
    }
}

fn hash(name: &ResourceName) -> NameHash {
    let hash = name.as_bytes().chunks(8).fold(0, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word))
    });
    let [_, _, _, _, b4, b5, b6, b7] = hash.to_le_bytes();
    NameHash::from_le_bytes([b4, b5, b6, b7])
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, Instant, NodeId};

    use super::*;
    use crate::lock::{LockId, LockRef};
    use crate::mode::Mode;
    use crate::name::Bucket;
    use crate::resource::{Notices, Phase, Queued};

    fn member(node: u16) -> Member {
        Member { node: NodeId::new(node).expect("in range"), incarnation: Incarnation(1) }
    }

    fn name(number: u64) -> ResourceName {
        ResourceName::new(&number.to_le_bytes()).expect("short")
    }

    fn key(owner: Member, number: u64) -> LockRef {
        LockRef { owner, id: LockId(number) }
    }

    fn grant(resources: &mut Resources, owner: Member, number: u64) {
        let mut list = Vec::new();
        let now = Instant(0);
        let mut notices = Notices { now, bucket: Bucket::of(1), list: &mut list };
        let key = key(owner, number);
        let asked = Queued { key, wanted: Mode::CR, no_queue: false, since: now };
        resources.list(&name(number), owner);
        let resource = resources.get_or_insert_with(&name(number), || Resource::new(Vec::new()));
        resource.request(asked, Phase::Ready, true, &mut notices).expect("a new lock");
    }

    fn unlock(resources: &mut Resources, owner: Member, number: u64) {
        let mut list = Vec::new();
        let mut notices = Notices { now: Instant(0), bucket: Bucket::of(1), list: &mut list };
        let resource = resources.get_mut(&name(number)).expect("granted");
        resource.unlock(key(owner, number), None, Phase::Ready, &mut notices).expect("granted");
    }

    #[test]
    fn the_locks_of_one_member_are_found_among_those_of_others() {
        let mut resources = Resources::default();
        for number in 0..1000 {
            grant(&mut resources, member(1 + u16::from(number % 10 == 0)), number);
        }
        let mut found = resources.take_all_of(member(2));
        found.sort_unstable();
        let mut all: Vec<ResourceName> = (0..1000).step_by(10).map(name).collect();
        all.sort_unstable();
        assert_eq!(found, all);
        assert!(resources.take_all_of(member(2)).is_empty(), "it is gone");
    }

    #[test]
    fn locks_that_come_and_go_leave_no_long_lists() {
        let (mut resources, owner) = (Resources::default(), member(1));
        for number in 0..100 {
            grant(&mut resources, owner, number);
        }
        for _ in 0..1000 {
            unlock(&mut resources, owner, 7);
            grant(&mut resources, owner, 7);
        }
        assert!(resources.of[0].hashes.len() <= 200);
        assert_eq!(resources.take_all_of(owner).len(), 100);
    }
}
