//! What a listing with attributes costs a node that has none of them, counted.
//!
//! Nothing goes wrong here and nobody else works: whatever is sent or read meanwhile is for it.

use std::sync::Arc;

use mfs::FsError;
use mfs::file::FileId;
use mfs::ops::{Lookup, NewFile, NewKind};
use mx_base::Duration;

use super::host::Life;
use super::oracle::Violation;
use super::oracle::bounds::HEALED_WITHIN;
use super::plan::{Kind, Plan};
use super::{Fleet, WORLD};

/// Room for some hundred files in whatever groups their makers prefer.
const DEVICE_BLOCKS: u64 = 512 << 8;

/// What one listing with attributes has cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Entries that came with attributes.
    pub attributes: usize,
    /// Payloads that the node has sent.
    pub requests: u64,
    /// Payloads that the other nodes have sent.
    pub replies: u64,
    /// Blocks that the node has read.
    pub blocks_read: u64,
}

/// How the files are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// By one listing with attributes.
    Listing,
    /// By look-ups, one after the other, in the order of a listing.
    LookUps,
}

/// One node looks at `files` files that the others, `others` of them and at least two, have made and
/// looked at.
///
/// # Errors
/// Whatever fails.
pub fn cold_look(how: How, others: usize, files: usize) -> Result<Cost, Violation> {
    let plan = Plan {
        nodes: others + 1,
        workers: 0,
        victims: 0,
        faults: Vec::new(),
        ..Plan::of_kind(1, Kind::OneCrash)
    };
    let fleet = Fleet::new(&plan, DEVICE_BLOCKS)?;
    let cost = fleet.cold_look(how, files);
    fleet.take_apart();
    cost
}

impl Fleet {
    fn cold_look(&self, how: How, files: usize) -> Result<Cost, Violation> {
        for host in 0..self.plan.nodes {
            self.exec.spawn(WORLD, self.clone().run_host(host));
        }
        self.until("everybody has mounted", HEALED_WITHIN, |f| {
            f.first().is_ready()
                && f.lives().iter().all(|l| l.as_ref().is_some_and(|l| l.mount(0).is_some()))
        })?;
        let lives: Vec<Arc<Life>> = self.lives().into_iter().flatten().collect();
        let (reader, makers) = lives.split_last().expect("a cluster has nodes");
        let root = makers[0].mount(0).expect("mounted").fs.root();
        let new = |kind| NewFile { kind, permissions: 0o755, umask: 0, uid: 0, gid: 0 };
        let dir = self.at(&makers[0], move |fs| async move {
            let made = fs.create(root, b"listed", &new(NewKind::Directory)).await?;
            Ok(made.attributes.file)
        })?;
        let mut made: Vec<Vec<FileId>> = Vec::new();
        for (i, maker) in makers.iter().enumerate() {
            let share = files / makers.len() + usize::from(i < files % makers.len());
            made.push(self.at(maker, move |fs| async move {
                let mut mine = Vec::new();
                for j in 0..share {
                    let name = format!("f{i}-{j}");
                    let file = fs.create(dir, name.as_bytes(), &new(NewKind::Regular)).await?;
                    mine.push(file.attributes.file);
                }
                Ok(mine)
            })?);
        }
        // Somebody else looks, so that their makers leave value blocks.
        for (i, files) in made.into_iter().enumerate() {
            self.at(&makers[(i + 1) % makers.len()], move |fs| async move {
                for file in files {
                    fs.getattr(file).await?;
                }
                Ok(())
            })?;
        }
        self.run_until(self.exec.now() + Duration::from_secs(2))?;
        // The directory itself, and what a first look at it brings.
        self.at(reader, move |fs| async move { fs.readdir(dir, 0, files + 2).await.map(drop) })?;
        self.run_until(self.exec.now() + Duration::from_secs(2))?;

        let sent = |life: &Arc<Life>| life.node().map_or(0, |node| node.lock_payloads());
        let all = || (sent(reader), makers.iter().map(sent).sum::<u64>());
        let (before, read_before) = (all(), self.first().arbiter.reads(reader.id));
        let attributes = self.at(reader, move |fs| async move {
            if how == How::Listing {
                let listing = fs.readdir_plus(dir, 0, files + 2).await?;
                return Ok(listing.entries.iter().filter(|listed| listed.entry.is_some()).count());
            }
            let listing = fs.readdir(dir, 0, files + 2).await?;
            let names = listing.entries.into_iter().map(|listed| listed.name);
            drop(listing.keep);
            let mut found = 0;
            for name in names.filter(|name| name.starts_with(b"f")) {
                found += usize::from(matches!(fs.lookup(dir, &name).await?, Lookup::Found(_)));
            }
            Ok(found)
        })?;
        let after = all();
        Ok(Cost {
            attributes,
            requests: after.0 - before.0,
            replies: after.1 - before.1,
            blocks_read: self.first().arbiter.reads(reader.id) - read_before,
        })
    }

    /// Does something on a node's mount.
    fn at<T, F>(
        &self,
        life: &Arc<Life>,
        act: impl FnOnce(Arc<mfs::Fs>) -> F,
    ) -> Result<T, Violation>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, FsError>> + Send + 'static,
    {
        let fs = life.mount(0).expect("mounted").fs;
        match self.exec.run(life.group(), HEALED_WITHIN, act(fs)) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Violation::new("errors", format!("{}: {error}", life.member))),
            Err(stopped) => Err(Violation::new("liveness", format!("{stopped:?}"))),
        }
    }
}
