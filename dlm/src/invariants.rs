//! What must be true between any two calls, checked at length for the simulator and the tests.

use crate::home::HomeBucket;
use crate::lock::LockRef;
use crate::lockspace::Lockspace;
use crate::mode::Mode;
use crate::name::Bucket;
use crate::resource::{Phase, Resource};

impl Lockspace {
    /// Walks everything this lock manager knows.
    ///
    /// # Panics
    /// When an invariant does not hold, with the invariant in words.
    pub fn check_invariants(&self) {
        for bucket in Bucket::all() {
            let is_homed = self.homes.home(bucket) == Some(self.me);
            let here = self.home.bucket(bucket);
            assert_eq!(is_homed, here.is_some(), "a bucket is open at its home only: {bucket:?}");
            let is_rebuilding = here.is_some_and(|here| here.phase == Phase::Rebuilding);
            assert_eq!(
                is_rebuilding,
                self.rebuilding.contains(&bucket),
                "the rebuilding buckets are listed: {bucket:?}"
            );
            if let Some(here) = here {
                self.check_bucket(bucket, here);
            }
        }
        assert_eq!(self.home.count_waiting(), self.home.waiting, "what waits is counted");
        self.check_own_locks();
        self.check_claims();
        for (from, message) in self.early.iter() {
            assert!(*from != self.me, "a node keeps no message of its own: {message:?}");
        }
        assert!(self.dead.values().all(|facts| !facts.is_over()), "who is over is forgotten");
        for dead in self.recoveries.keys() {
            assert!(!self.view.contains(*dead), "only the dead are recovered: {dead}");
        }
    }

    fn check_bucket(&self, at: Bucket, bucket: &HomeBucket) {
        for remnant in &bucket.unknown {
            self.check_remnant(remnant.dead, remnant.is_limbo(), remnant.blocks(Mode::CW));
        }
        for (name, resource) in bucket.resources.iter() {
            let what = || format!("{name:?} {at:?}");
            assert!(
                !resource.is_unused() || !bucket.unknown.is_empty(),
                "an unused resource is forgotten: {}",
                what()
            );
            assert!(
                resource.remnants().is_empty()
                    || bucket.haunted.iter().any(|haunted| haunted.name == *name),
                "a resource with remnants is haunted: {}",
                what()
            );
            for remnant in resource.remnants() {
                assert!(!remnant.is_over(), "a remnant that is over is dropped: {}", what());
                self.check_remnant(remnant.dead, remnant.is_limbo(), remnant.blocks(Mode::CW));
                assert!(
                    (bucket.lingers)(name)
                        || self.dead.get(&remnant.dead).is_some_and(|facts| !facts.recovered),
                    "what no kernel caches outlasts no recovery: {}",
                    what()
                );
                assert!(
                    !remnant.is_limbo() || resource.value().is_none(),
                    "nobody vouches for a value in limbo: {}",
                    what()
                );
            }
            let holders = resource.granted().iter().map(|lock| lock.key().owner);
            let waiters = resource.converting().chain(resource.waiting()).map(|q| q.key.owner);
            for owner in holders.chain(waiters) {
                assert!(
                    bucket.resources.is_listed(name, owner),
                    "what a member has to do with is listed: {owner} {}",
                    what()
                );
            }
            self.check_locks(resource, &what);
            if bucket.phase == Phase::Ready {
                check_served(resource, &what);
            }
        }
    }

    fn check_remnant(&self, dead: mx_base::Member, is_limbo: bool, blocks: bool) {
        let facts = self.dead.get(&dead);
        assert!(facts.is_some(), "remnants are of dead members that are not over: {dead}");
        assert!(!is_limbo || facts.is_some_and(|f| !f.recovered), "nothing recovered is limbo");
        assert!(is_limbo || blocks, "a remnant that is no limbo is a ghost");
        assert!(
            is_limbo || facts.is_some_and(|f| !f.caches_gone),
            "no ghost outlasts its caches: {dead}"
        );
    }

    fn check_locks(&self, resource: &Resource, what: &dyn Fn() -> String) {
        let granted = resource.granted();
        for (i, lock) in granted.iter().enumerate() {
            let LockRef { owner, .. } = lock.key();
            assert!(self.view.contains(owner), "only members hold locks: {owner} {}", what());
            for other in &granted[i + 1..] {
                assert!(
                    lock.granted.compatible(other.granted),
                    "granted modes are compatible: {lock:?} {other:?} {}",
                    what()
                );
                assert!(lock.key() != other.key(), "a lock is granted once: {lock:?} {}", what());
            }
        }
        for queued in resource.converting() {
            let lock = granted.iter().find(|lock| lock.key() == queued.key);
            assert!(
                lock.is_some_and(|lock| !lock.granted.covers(queued.wanted)),
                "what converts is granted less than it wants: {queued:?} {}",
                what()
            );
        }
        for queued in resource.waiting() {
            let LockRef { owner, .. } = queued.key;
            assert!(self.view.contains(owner), "only members wait: {owner} {}", what());
            assert!(
                granted.iter().all(|lock| lock.key() != queued.key),
                "what waits is not granted: {queued:?} {}",
                what()
            );
        }
    }

    fn check_claims(&self) {
        self.advisory.own.check_invariants();
        self.advisory.home.check_invariants(|bucket| self.may_decide(bucket));
        assert!(self.advisory.todo.is_empty(), "what follows is done at once");
        for (bucket, name, owner, pieces) in self.advisory.own.all() {
            if self.homes.home(bucket) != Some(self.me) {
                continue;
            }
            let at_home = self.advisory.home.held(bucket, name, (self.me, owner));
            for piece in pieces.iter() {
                assert!(
                    at_home.is_some_and(|held| held.covers(piece.span, piece.access)),
                    "a home knows what its own node's owners hold: {name:?} {owner:?} {piece:?}"
                );
            }
        }
        for (bucket, name, _) in self.advisory.home.files() {
            assert_eq!(
                self.homes.home(bucket),
                Some(self.me),
                "claims are known at home: {name:?}"
            );
        }
    }

    fn check_own_locks(&self) {
        let mut count = 0;
        for (id, own) in self.own.iter() {
            count += 1;
            assert!(
                self.own.in_bucket(own.bucket).any(|(listed, _)| listed == id),
                "every lock is found by its bucket: {id}"
            );
            assert!(own.held.is_some() || own.asked.is_some(), "a lock is held or asked for: {id}");
            if let (Some(held), Some(asked)) = (own.held, own.asked) {
                assert!(!held.covers(asked.wanted), "what is held is not asked for: {id}");
            }
            let copy_allowed = own.held.is_some_and(|held| held.covers(Mode::PR));
            assert!(own.value.is_none() || copy_allowed, "only readers keep a copy: {id}");
            let Some(here) = self.home.bucket(own.bucket) else { continue };
            let key = LockRef { owner: self.me, id };
            let resource = here.resources.get(&own.name);
            let granted = resource.and_then(|resource| {
                resource.granted().iter().find(|lock| lock.key() == key).map(|lock| lock.granted)
            });
            assert_eq!(granted, own.held, "a home knows its own node's locks: {id}");
            let wanted = resource.and_then(|resource| {
                let mut queued = resource.converting().chain(resource.waiting());
                queued.find(|queued| queued.key == key).map(|queued| queued.wanted)
            });
            assert_eq!(
                wanted,
                own.asked.map(|asked| asked.wanted),
                "a home knows what its own node waits for: {id}"
            );
        }
        assert_eq!(count, self.own.len(), "every lock is counted");
    }
}

/// At a home that may grant, nobody waits without need.
fn check_served(resource: &Resource, what: &dyn Fn() -> String) {
    let Some(head) = resource.head() else { return };
    assert!(
        !resource.is_grantable(head.wanted, head.key),
        "what can be granted is granted: {head:?} {}",
        what()
    );
    assert!(
        resource.converting().chain(resource.waiting()).all(|queued| !queued.no_queue),
        "what would not wait does not: {}",
        what()
    );
    for lock in resource.granted().iter().filter(|lock| lock.key() != head.key) {
        assert!(
            lock.granted.compatible(head.wanted) || lock.called_out == Some(head.wanted),
            "who stands in the way was called out: {lock:?} {head:?} {}",
            what()
        );
    }
}
