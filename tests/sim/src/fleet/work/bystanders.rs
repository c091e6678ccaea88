//! Bystanders: one on every node, in a directory that nobody else looks at.
//!
//! Whatever dies, its operations touch nothing of the dead, so they wait on no phase of a recovery.
//! Two things are not theirs to choose: a lock that they take for the first time may be decided on by
//! a dead node, and where others remove files (the mixed workload), a new file may get the place, or
//! the group, of one that a dead node has removed. Then they wait until the buckets of the dead have
//! new homes, or like everybody for what it held. Nor is it theirs when half of a view dies at once
//! (R13).

use std::collections::{BTreeMap, BTreeSet};

use mfs::FsError;
use mfs::block::BlockNo;
use mfs::file::FileId;
use mfs::layout::GroupNo;
use mfs::ops::{NewFile, NewKind};
use mx_base::{Duration, Instant};
use parking_lot::Mutex;

use super::{App, READ, WRITE, regular};
use crate::fleet::LifeId;
use crate::fleet::oracle::bounds::{RECOVERED_WITHIN, REHOMED_WITHIN, UNAFFECTED_WITHIN};

/// What is known of all bystanders.
#[derive(Debug, Default)]
pub struct Bystanders(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_watched: bool,
    longest: Duration,
    lives: BTreeMap<LifeId, OfLife>,
}

/// What of the dead somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Needs {
    #[default]
    Nothing,
    /// What a dead node decided on.
    Home,
    /// What a dead node held.
    Held,
}

impl Needs {
    fn allowed(self) -> Duration {
        match self {
            Needs::Nothing => UNAFFECTED_WITHIN,
            Needs::Home => REHOMED_WITHIN,
            Needs::Held => RECOVERED_WITHIN,
        }
    }
}

/// What is known of one bystander.
#[derive(Debug, Default)]
struct OfLife {
    /// Since when an operation is under way.
    since: Option<Instant>,
    needs: Needs,
    /// Where its files lie.
    groups: BTreeSet<GroupNo>,
}

impl Bystanders {
    /// From now on, or no longer, it counts how long they wait.
    pub fn watch(&self, is_watched: bool) {
        self.0.lock().is_watched = is_watched;
    }

    /// Bystanders that have waited for so long by now, and where their files lie.
    pub fn waiting(&self, now: Instant, long: Duration) -> Vec<(LifeId, BTreeSet<GroupNo>)> {
        let state = self.0.lock();
        let waits = state
            .lives
            .iter()
            .filter(|(_, of)| of.since.is_some_and(|since| now.since(since) > long));
        waits.map(|(life, of)| (*life, of.groups.clone())).collect()
    }

    /// What the bystander of a life waits for.
    pub fn excuse(&self, life: LifeId, needs: Needs) {
        let of = &mut self.0.lock().lives;
        let known = &mut of.entry(life).or_default().needs;
        *known = needs.max(*known);
    }

    fn at(&self, life: LifeId, groups: &[Option<GroupNo>]) {
        let lives = &mut self.0.lock().lives;
        lives.entry(life).or_default().groups.extend(groups.iter().flatten());
    }

    /// The longest that an operation took.
    pub fn longest(&self) -> Duration {
        self.0.lock().longest
    }
}

impl App {
    /// Works until it is told to stop.
    pub async fn stand_by(self) {
        let made = self.make_own_directory().await;
        let Ok(dir) = made else { return };
        let mut made = 0;
        while !self.work.is_stopped() && !self.life.is_leaving() {
            let began = self.exec().now();
            let is_watched = {
                let state = &mut *self.work.bystanders.0.lock();
                let mine = state.lives.entry(self.id()).or_default();
                (mine.since, mine.needs) = (Some(began), Needs::Nothing);
                state.is_watched
            };
            made += 1;
            if self.operation("bystander", self.touch_own(dir, made)).await.is_err() {
                return;
            }
            let took = self.exec().now().since(began);
            self.judge_wait(took, is_watched);
            self.exec().sleep(Duration::from_millis(3)).await;
        }
    }

    /// An operation is over.
    fn judge_wait(&self, took: Duration, is_watched: bool) {
        let state = &mut *self.work.bystanders.0.lock();
        let mine = state.lives.entry(self.id()).or_default();
        mine.since = None;
        if is_watched && state.is_watched && self.counts() {
            if mine.needs == Needs::Nothing {
                state.longest = took.max(state.longest);
            }
            if took > mine.needs.allowed() {
                let needs = mine.needs;
                let what = format!("who needs {needs:?} of the dead waited {took:?}");
                self.wrong("unaffected", what);
            }
        }
    }

    async fn make_own_directory(&self) -> Result<FileId, FsError> {
        let name = format!("own {}", self.life.member);
        let new = NewFile { kind: NewKind::Directory, ..regular() };
        self.mount.create(self.mount.root(), name.as_bytes(), &new).await
    }

    /// Makes a file, writes and reads it, makes it durable at times, and removes it.
    async fn touch_own(&self, dir: FileId, made: u64) -> Result<(), FsError> {
        let name = format!("own {made}").into_bytes();
        let file = self.mount.create(dir, &name, &regular()).await?;
        let group = |file: FileId| self.mount.fs.layout().group_of(BlockNo(file.inode.0));
        let groups = [group(dir), group(file)];
        self.work.bystanders.at(self.id(), &groups);
        let bytes = vec![0x77; 1 + self.draw(6_000)];
        {
            let open = self.mount.open(file, WRITE).await?;
            self.mount.write(&open, 0, &bytes).await?;
            if self.chance(20) {
                self.mount.fsync(&open).await?;
            }
        }
        let open = self.mount.open(file, READ).await?;
        let len = u64::try_from(bytes.len()).expect("short");
        if self.mount.read(&open, 0, len).await? != bytes && self.counts() {
            self.wrong("unaffected", format!("{file:?} is not what was written"));
        }
        drop(open);
        self.mount.unlink(dir, &name).await
    }
}
