//! Answers to an administrator who asks why: of one resource everything that this node knows, and
//! who else is to be asked. Asks nobody itself, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use cluster::Cluster;
use lcl::ResourceName;
use lcl::cache::CachedLock;
use lcl::hot::Heat;
use mfs::FsError;
use mfs::file::{FileId, FileType};
use mfs::locks::Resource;
use mx_base::{FsId, Instant};

use crate::describe::Surroundings;
use crate::file_system::FsCore;
use crate::node::Node;
use crate::report::{
    Doing, Here, Holder, Homed, Hot, LockLook, LockTop, Member, Waiter, Why, WhyResource,
    milliseconds, resource_text,
};

/// So many of those who wait for one resource are listed.
const WAITERS_MAX: usize = 64;

impl Node {
    /// `mxctl why`: of each resource of a file system what this node knows.
    pub fn why(
        &self,
        id: FsId,
        around: &Surroundings,
        resources: &[Resource],
        stuck_at: Option<String>,
    ) -> Why {
        let now = self.world.control.now();
        let fs = self.fs(id);
        // Before the latch: the file system has its own.
        let unwritten = resources.iter().map(|resource| match resource {
            Resource::Inode(inode) => fs.as_ref()?.unwritten(*inode),
            Resource::Superblock
            | Resource::Freeze
            | Resource::Slot(_)
            | Resource::Group(_)
            | Resource::Open(_)
            | Resource::Rename
            | Resource::Space => None,
        });
        let unwritten: Vec<_> = resources.iter().zip(unwritten).collect();
        self.look(|core| Why {
            viewer: self.viewer(core, around),
            resources: core.file_systems.get(&id).map_or_else(Vec::new, |fs| {
                let all = unwritten.iter();
                all.map(|(resource, unwritten)| {
                    why_of(&core.cluster, fs, **resource, *unwritten, now)
                })
                .collect()
            }),
            stuck_at,
        })
    }

    /// What a path below the mount of a file system means, name by name. Each name is looked up in its directory
    /// under that directory's lock, and under no other. `reached` is told of every directory before
    /// it is asked, so that whoever gives up waiting knows where.
    ///
    /// # Errors
    /// When a name means nothing, or no directory where there has to be one.
    pub async fn resolve(
        &self,
        id: FsId,
        root: FileId,
        names: &[Vec<u8>],
        mut reached: impl FnMut(FileId, usize) + Send,
    ) -> Result<FileId, FsError> {
        let fs = self.fs(id).ok_or(FsError::NotFound)?;
        let (mut file, mut is_directory) = (root, true);
        for (depth, name) in names.iter().enumerate() {
            if !is_directory {
                return Err(FsError::NotDirectory);
            }
            reached(file, depth);
            let (found, file_type) = fs.named(file, name).await?.ok_or(FsError::NotFound)?;
            (file, is_directory) = (found, file_type == FileType::Directory);
        }
        Ok(file)
    }

    /// `mxctl lock top`, of a file system.
    pub fn lock_top(&self, id: FsId, around: &Surroundings) -> LockTop {
        let now = self.world.control.now();
        self.look(|core| {
            let mut hot: BTreeMap<ResourceName, Heat> = BTreeMap::new();
            if let Some(fs) = core.file_systems.get(&id) {
                let waiters = fs.local.waiters.lock();
                let asked = fs.locks.iter().flat_map(|locks| locks.hot().iter());
                for (name, heat) in asked.chain(waiters.hot().iter()) {
                    let sum = hot.entry(*name).or_default();
                    *sum = sum.plus(heat);
                }
            }
            LockTop {
                viewer: self.viewer(core, around),
                clock_us: now.0 / 1000,
                resources: hot.iter().map(|(n, heat)| Hot::of(resource_text(n), *heat)).collect(),
            }
        })
    }
}

fn why_of(
    cluster: &Cluster,
    fs: &FsCore,
    resource: Resource,
    unwritten_blocks: Option<u64>,
    now: Instant,
) -> WhyResource {
    let (name, bucket) = (resource.name(), resource.bucket(&fs.local.given.layout));
    let waits = fs.local.waiters.lock().of(name);
    let mut why = WhyResource {
        resource: resource_text(&name),
        bucket: bucket.get(),
        home: None,
        here: None,
        holders: Vec::new(),
        waiters: waits.iter().take(WAITERS_MAX).map(|wait| Waiter::of(wait, now)).collect(),
        waiters_total: waits.len() as u64,
        at_home: None,
        file_locks: None,
        ask: Vec::new(),
    };
    let Some(locks) = &fs.locks else { return why };
    let known = locks.lockspace().explain(name, bucket);
    let me = locks.lockspace().me();
    why.home = known.home.map(Member::from);
    let own = known.own.first();
    why.here = locks.find(&name).map(|cached| Here {
        mode: cached.mode.to_string(),
        since_ms: own.map(|own| milliseconds(now.since(own.since))),
        asked: cached.asked.map(|mode| mode.to_string()),
        unwritten_blocks,
        doing: doing(&cached),
    });
    let suspected =
        |node| cluster.suspected(node).map(|suspicion| milliseconds(now.since(suspicion.since)));
    let mut others = BTreeSet::new();
    match &known.at_home {
        Some(state) => {
            for holder in &state.granted {
                let is_here = holder.owner == me;
                let here = why.here.as_ref().filter(|_| is_here).map(|here| here.doing.clone());
                let doing = here.unwrap_or_else(|| match holder.called_out {
                    Some(mode) => Doing::CalledOut { for_mode: mode.to_string() },
                    None => Doing::Elsewhere,
                });
                why.holders.push(Holder {
                    member: holder.owner.into(),
                    mode: holder.mode.to_string(),
                    since_ms: Some(milliseconds(now.since(holder.since))),
                    doing,
                    suspected_ms: suspected(holder.owner.node),
                });
                others.insert(holder.owner);
            }
            for remnant in &state.remnants {
                why.holders.push(Holder {
                    member: remnant.dead.into(),
                    mode: format!("{:?}", remnant.modes),
                    since_ms: None,
                    doing: if remnant.is_limbo { Doing::Limbo } else { Doing::CachesGone },
                    suspected_ms: None,
                });
            }
            others.extend(state.converting.iter().chain(&state.waiting).map(|w| w.owner));
            others.extend(&state.unreported);
            why.at_home = Some(Homed::of(state, now));
        }
        None => {
            others.extend(known.home);
            if let (Some(here), Some(held)) = (&why.here, own.and_then(|own| own.held)) {
                why.holders.push(Holder {
                    member: me.into(),
                    mode: held.to_string(),
                    since_ms: here.since_ms,
                    doing: here.doing.clone(),
                    suspected_ms: None,
                });
            }
        }
    }
    others.remove(&me);
    let mut ask: BTreeSet<Member> = others.into_iter().map(Member::from).collect();
    if matches!(resource, Resource::Inode(_)) {
        let look = LockLook { space: locks.lockspace(), cluster, now };
        let file_locks = look.of_file(name, bucket);
        let listed = file_locks.held.iter().chain(&file_locks.waiting);
        ask.extend(listed.filter(|lock| !lock.is_dead).map(|lock| lock.member));
        ask.extend(&file_locks.unreported);
        ask.remove(&me.into());
        why.file_locks = Some(file_locks);
    }
    why.ask = ask.into_iter().collect();
    why
}

fn doing(cached: &CachedLock) -> Doing {
    let (operations, kernel_pages) = (cached.operations, cached.kernel_pages);
    match cached.surrendering_to {
        Some(to) if operations + kernel_pages > 0 => {
            Doing::Closing { to: to.to_string(), operations, kernel_pages }
        }
        Some(to) => Doing::WritingBack { to: to.to_string() },
        None if operations + kernel_pages > 0 => Doing::Used { operations, kernel_pages },
        None if cached.mode == lcl::Mode::NL => Doing::Waiting,
        None => Doing::Cached,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lcl::{Bucket, Mode};

    #[test]
    fn what_a_holder_does_follows_from_its_pins_and_its_surrender() {
        let cached = CachedLock {
            name: Resource::Rename.name(),
            bucket: Bucket::of(1),
            lock: None,
            mode: Mode::EX,
            operations: 0,
            kernel_pages: 0,
            waiters: 0,
            asked: None,
            surrendering_to: None,
            called_out: None,
        };
        assert_eq!(doing(&cached), Doing::Cached);
        let used = CachedLock { operations: 1, ..cached.clone() };
        assert_eq!(doing(&used), Doing::Used { operations: 1, kernel_pages: 0 });
        let closing = CachedLock { surrendering_to: Some(Mode::PR), ..used };
        let to = "PR".to_owned();
        assert_eq!(doing(&closing), Doing::Closing { to, operations: 1, kernel_pages: 0 });
        let writing = CachedLock { operations: 0, ..closing };
        assert_eq!(doing(&writing), Doing::WritingBack { to: "PR".to_owned() });
        let asked = CachedLock { mode: Mode::NL, asked: Some(Mode::PR), ..cached };
        assert_eq!(doing(&asked), Doing::Waiting);
    }
}
