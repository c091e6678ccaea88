//! Applications that lock ranges of two files, in any order, and so wait for each other in circles.
//!
//! What they may rely on is known by what they were answered alone. Rules: what owners of lives
//! that are not lost rely on goes together; a wait ends as a deadlock only for who has waited in a
//! circle. That everybody else's wait ends is looked at as for all operations.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;

use lcl::advisory::{Access, Claim, Family, How, Owner, Span, Verdict};
use mfs::FsError;
use mfs::env::{Asked, LockError};
use mfs::file::FileId;
use mx_base::Duration;

use super::App;
use crate::fleet::LifeId;

const FILES: usize = 2;
const BYTES: usize = 6;

type Held = [Option<Access>; BYTES];

/// Who relies on what, and who waits for what.
#[derive(Default)]
pub(super) struct Claimants {
    alive: BTreeMap<u64, Claimant>,
    /// Of lives that are lost: their claims stand until they are fenced.
    lost: BTreeMap<u64, Claimant>,
}

struct Claimant {
    life: LifeId,
    owner: Owner,
    held: [Held; FILES],
    asks: Option<Asks>,
}

#[derive(Clone, Copy)]
struct Asks {
    file: usize,
    span: (usize, usize),
    access: Access,
    waits: bool,
    in_circle: bool,
}

impl Claimant {
    /// Whoever asks for less relies on less already.
    fn relies_on(&self, file: usize) -> Held {
        let mut held = self.held[file];
        if let Some(asks) = self.asks.filter(|asks| asks.file == file) {
            for byte in &mut held[asks.span.0..=asks.span.1] {
                *byte = (*byte).min(Some(asks.access));
            }
        }
        held
    }

    fn is_in_the_way_of(&self, asks: &Asks) -> bool {
        let bytes = &self.held[asks.file][asks.span.0..=asks.span.1];
        bytes.iter().flatten().any(|held| !held.goes_with(asks.access))
    }
}

impl Claimants {
    /// Its processes are gone, or nothing of them reaches the device any more.
    pub(super) fn lose(&mut self, life: LifeId) {
        let lost: Vec<u64> = self
            .alive
            .iter()
            .filter(|(_, one)| one.life == life)
            .map(|(number, _)| *number)
            .collect();
        self.lost.extend(lost.iter().filter_map(|number| self.alive.remove_entry(number)));
    }

    /// Does `number` rely on what another one does not allow? Who that is.
    fn conflict(&self, number: u64) -> Option<String> {
        let one = self.alive.get(&number)?;
        let others = self
            .alive
            .iter()
            .filter(|(other, beside)| **other != number && beside.owner.family == one.owner.family);
        for (other, beside) in others {
            for file in 0..FILES {
                let (held, theirs) = (one.relies_on(file), beside.relies_on(file));
                let goes = |(a, b): (&Option<Access>, &Option<Access>)| {
                    a.is_none_or(|a| b.is_none_or(|b| a.goes_with(b)))
                };
                if !held.iter().zip(&theirs).all(goes) {
                    return Some(format!(
                        "{number} has {held:?} of file {file}, {other} of {} has {theirs:?}",
                        beside.life
                    ));
                }
            }
        }
        None
    }

    /// Marks everybody who waits in a circle now.
    fn mark_circles(&mut self) {
        let ranges = |one: &Claimant| one.owner.family == Family::Ranges;
        let all = || self.alive.iter().chain(&self.lost);
        let waits: Vec<(u64, Asks)> = all()
            .filter(|(_, one)| ranges(one))
            .filter_map(|(number, one)| Some((*number, one.asks.filter(|asks| asks.waits)?)))
            .collect();
        let edges: BTreeMap<u64, Vec<u64>> = waits
            .iter()
            .map(|(number, asks)| {
                let others = all().filter(|(other, one)| {
                    *other != number && ranges(one) && one.is_in_the_way_of(asks)
                });
                (*number, others.map(|(other, _)| *other).collect())
            })
            .collect();
        for (number, _) in waits {
            let mut seen = BTreeSet::new();
            let mut next = edges[&number].clone();
            while let Some(other) = next.pop() {
                if seen.insert(other) {
                    next.extend(edges.get(&other).into_iter().flatten());
                }
            }
            if seen.contains(&number)
                && let Some(asks) = self.alive.get_mut(&number).and_then(|one| one.asks.as_mut())
            {
                asks.in_circle = true;
            }
        }
    }
}

impl App {
    /// A process that locks a few ranges, keeps them for a while and gives them up.
    pub(super) async fn lock_files(&self) -> Result<(), FsError> {
        let mut files = Vec::new();
        for i in 0..FILES {
            files.push(self.file('c', i).await?);
        }
        let number = self.work.next.fetch_add(1, Ordering::Relaxed);
        let family = if self.chance(25) { Family::Whole } else { Family::Ranges };
        let owner = Owner { family, id: number };
        let claimant =
            Claimant { life: self.id(), owner, held: [[None; BYTES]; FILES], asks: None };
        if self.work.oracle.is_lost(self.id()) {
            return Err(FsError::CutOff);
        }
        self.work.claimants.lock().alive.insert(number, claimant);
        let done = self.lock_some(number, owner, &files).await;
        self.work.claimants.lock().alive.remove(&number);
        if done.is_ok() && self.chance(50) {
            // As whoever is killed: with the last close everything goes at once.
            files.iter().for_each(|file| self.mount.locks.release_via(*file, number));
        }
        for file in files {
            self.step("unlock", file);
            let given_up = self.mount.locks.unclaim(file, owner, Span::ALL).outcome.await;
            given_up.map_err(ended)?;
        }
        done
    }

    async fn lock_some(&self, number: u64, owner: Owner, files: &[FileId]) -> Result<(), FsError> {
        for _ in 0..1 + self.draw(4) {
            let file = self.draw(FILES);
            if owner.family == Family::Ranges && self.chance(15) {
                self.unlock_a_range(number, owner, file, files[file]).await?;
                continue;
            }
            if !self.lock_one(number, owner, file, files[file]).await? {
                return Ok(());
            }
            let pause = u64::try_from(self.draw(20_000)).expect("small");
            self.exec().sleep(Duration::from_micros(pause)).await;
        }
        Ok(())
    }

    fn span(&self, owner: Owner) -> ((usize, usize), Span) {
        if owner.family == Family::Whole {
            return ((0, BYTES - 1), Span::ALL);
        }
        let (a, b) = (self.draw(BYTES), self.draw(BYTES));
        let span = (a.min(b), a.max(b));
        let bytes = Span::new(span.0 as u64, span.1 as u64).expect("in order");
        (span, bytes)
    }

    /// Tells whether it goes on.
    async fn lock_one(
        &self,
        number: u64,
        owner: Owner,
        at: usize,
        file: FileId,
    ) -> Result<bool, FsError> {
        let (bytes, span) = self.span(owner);
        let access = if self.chance(50) { Access::Read } else { Access::Write };
        let waits = self.chance(85);
        let detect = owner.family == Family::Ranges;
        // Of the others nobody finds out who waits for whom: they must not wait in circles.
        let waits = waits && (detect || self.holds_nothing(number));
        let how = if waits { How::Wait { detect } } else { How::Try };
        self.change(number, |one| {
            if owner.family == Family::Whole && one.held[at][0] != Some(access) {
                one.held[at] = [None; BYTES];
            }
            one.asks = Some(Asks { file: at, span: bytes, access, waits, in_circle: false });
        });
        self.work.claimants.lock().mark_circles();
        self.step("lock", file);
        let claim = Claim { owner, via: number, pid: 1, span, access, how };
        let asked = self.mount.locks.claim(file, claim);
        let patience = match self.chance(20) {
            true => Some(Duration::from_micros(self.draw(60_000) as u64)),
            false => None,
        };
        let verdict = self.answer(asked, patience).await.map_err(ended)?;
        let mut claimants = self.work.claimants.lock();
        let Some(one) = claimants.alive.get_mut(&number) else { return Err(FsError::CutOff) };
        let asks = one.asks.take().expect("it has asked");
        match verdict {
            Verdict::Granted => {
                one.held[at][bytes.0..=bytes.1].fill(Some(access));
                if let Some(conflict) = claimants.conflict(number) {
                    drop(claimants);
                    self.wrong("file locks", conflict);
                }
                Ok(true)
            }
            Verdict::Deadlock => {
                drop(claimants);
                // Behind the permit it may tell of waits that the others have ended.
                if !asks.in_circle && self.counts() {
                    self.wrong("file locks", format!("{number} was in no circle"));
                }
                Ok(false)
            }
            Verdict::WouldWait | Verdict::Cancelled => Ok(true),
            Verdict::TooMany | Verdict::Free | Verdict::Held(_) => {
                drop(claimants);
                self.wrong("file locks", format!("{number} was answered {verdict:?}"));
                Ok(false)
            }
        }
    }

    async fn unlock_a_range(
        &self,
        number: u64,
        owner: Owner,
        at: usize,
        file: FileId,
    ) -> Result<(), FsError> {
        let (bytes, span) = self.span(owner);
        self.change(number, |one| one.held[at][bytes.0..=bytes.1].fill(None));
        self.step("unlock a range", file);
        self.mount.locks.unclaim(file, owner, span).outcome.await.map_err(ended)?;
        Ok(())
    }

    /// Waits for the answer, and takes the claim back when patience ends.
    async fn answer(
        &self,
        mut asked: Asked,
        patience: Option<Duration>,
    ) -> Result<Verdict, LockError> {
        let mut patience = patience.map(|patience| Box::pin(self.exec().sleep(patience)));
        poll_fn(|context| {
            if let Poll::Ready(outcome) = asked.outcome.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            let is_over = patience.as_mut().is_some_and(|p| p.as_mut().poll(context).is_ready());
            if is_over {
                patience = None;
                if let Some(id) = asked.id {
                    self.mount.locks.take_back(id);
                    return asked.outcome.as_mut().poll(context);
                }
            }
            Poll::Pending
        })
        .await
    }

    fn holds_nothing(&self, number: u64) -> bool {
        let claimants = self.work.claimants.lock();
        let one = claimants.alive.get(&number);
        one.is_none_or(|one| one.held.iter().flatten().all(Option::is_none))
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Claimant)) {
        if let Some(one) = self.work.claimants.lock().alive.get_mut(&number) {
            change(one);
        }
    }
}

fn ended(error: LockError) -> FsError {
    match error {
        LockError::Ended => FsError::CutOff,
        LockError::TooMany => FsError::NoSpace,
    }
}
