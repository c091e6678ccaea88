//! The history of one object that has one writer at a time, and what a reader may see of it.
//!
//! Every change makes a version. A reader sees one between the newest that was acknowledged, or seen
//! by anybody, when it began, and the newest that was begun when it ended (I8). A life that is lost
//! takes with it what it had acknowledged and neither made durable nor shown to others (I7); from
//! then on the object is in doubt until somebody has looked.

use std::collections::{BTreeMap, VecDeque};

use super::LifeId;

/// A history. `S` says all that can be seen of a version.
#[derive(Debug)]
pub struct Chain<S> {
    versions: VecDeque<(S, LifeId)>,
    /// Number of the first of them.
    first: u64,
    /// The newest acknowledged or seen.
    acknowledged: u64,
    /// The newest that no loss of a life can take back.
    durable: u64,
    in_doubt: bool,
    writer: Option<LifeId>,
    /// What they go on doing counts for nothing.
    lost: BTreeMap<LifeId, Left<S>>,
    /// Changes that were answered.
    answered: u64,
    /// Grows whenever a life took something with it, or a doubt ended.
    epoch: u64,
}

/// What may still be read of a life that is lost, by who asks nobody.
#[derive(Debug)]
struct Left<S> {
    /// The object may have been so for it.
    states: Vec<S>,
    /// As long as no more changes were answered.
    answered: u64,
}

/// What a reader knew when it began.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    acknowledged: u64,
    durable: u64,
    epoch: u64,
}

/// A change under way.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    version: u64,
    epoch: u64,
    life: LifeId,
}

impl<S: Clone + PartialEq + std::fmt::Debug> Chain<S> {
    /// An object that everybody may know to be so.
    pub fn new(state: S) -> Chain<S> {
        Chain {
            versions: VecDeque::from([(state, LifeId(0))]),
            first: 0,
            acknowledged: 0,
            durable: 0,
            in_doubt: false,
            writer: None,
            lost: BTreeMap::new(),
            answered: 0,
            epoch: 0,
        }
    }

    fn last(&self) -> u64 {
        self.first + self.versions.len() as u64 - 1
    }

    fn version(&self, number: u64) -> &(S, LifeId) {
        let i = usize::try_from(number - self.first).expect("few versions");
        &self.versions[i]
    }

    /// Becomes the writer, if there is none and the life is not lost.
    pub fn take(&mut self, life: LifeId) -> bool {
        let is_free = self.writer.is_none() && !self.lost.contains_key(&life);
        if is_free {
            self.writer = Some(life);
        }
        is_free
    }

    pub fn release(&mut self, life: LifeId) {
        if self.writer == Some(life) {
            self.writer = None;
        }
    }

    /// Is it not known in which version the object is?
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Whose change was the last one?
    pub fn newest_life(&self) -> LifeId {
        self.version(self.last()).1
    }

    /// What the writer left last.
    pub fn newest(&self) -> &S {
        &self.version(self.last()).0
    }

    /// `None` when the life was lost meanwhile, or the one that made the last version was: then the
    /// object is to be looked at first.
    pub fn begin_change(&mut self, life: LifeId, state: S) -> Option<Change> {
        if self.writer != Some(life) || self.in_doubt {
            self.release(life);
            return None;
        }
        self.versions.push_back((state, life));
        // Nobody looks back as far.
        while self.versions.len() > 200 && self.first < self.durable.min(self.acknowledged) {
            self.versions.pop_front();
            self.first += 1;
        }
        Some(Change { version: self.last(), epoch: self.epoch, life })
    }

    /// The change was answered; `state` is what it turned out to be.
    pub fn acknowledge(&mut self, change: Change, state: S) {
        if change.epoch != self.epoch || self.writer != Some(change.life) {
            return;
        }
        let i = usize::try_from(change.version - self.first).expect("few versions");
        self.versions[i].0 = state;
        self.acknowledged = self.acknowledged.max(change.version);
        self.answered += 1;
        // Whoever was here before has given the object up, and it was durable before that.
        let foreign = (self.first..change.version).rev();
        let before = foreign.into_iter().find(|n| self.version(*n).1 != change.life);
        self.durable = self.durable.max(before.unwrap_or(0));
        tracing::debug!(version = change.version, durable = self.durable, "acknowledged");
    }

    /// The change was refused: it never happened.
    pub fn withdraw(&mut self, change: Change) {
        if change.epoch == self.epoch && self.last() == change.version {
            self.versions.pop_back();
        }
    }

    /// How far an fsync that begins now reaches.
    pub fn begin_sync(&self) -> Began {
        self.begin_read()
    }

    pub fn synced(&mut self, began: Began) {
        if began.epoch == self.epoch {
            tracing::debug!(version = began.acknowledged, "synced");
            self.durable = self.durable.max(began.acknowledged);
        }
    }

    pub fn begin_read(&self) -> Began {
        Began { acknowledged: self.acknowledged, durable: self.durable, epoch: self.epoch }
    }

    /// Does nobody change the object while nothing else is said?
    pub fn is_quiet(&self) -> bool {
        self.acknowledged == self.last()
    }

    /// Is the object as it was when the reader began, and does nobody change it?
    pub fn was_quiet(&self, began: Began) -> bool {
        began.epoch == self.epoch && began.acknowledged == self.last()
    }

    /// A reader has seen something that the versions explain for which `matches` is true.
    ///
    /// # Errors
    /// When no version explains it: what was expected.
    pub fn end_read(
        &mut self,
        life: LifeId,
        began: Began,
        matches: impl FnMut(&S) -> bool,
    ) -> Result<(), String> {
        self.end_partial_read(life, began, matches, |_, _| true)
    }

    /// As [`Chain::end_read`], of a part of the object. `touches` says whether the change from one
    /// version to the next is one of that part: if not, seeing the part makes nothing durable.
    ///
    /// # Errors
    /// As [`Chain::end_read`].
    pub fn end_partial_read(
        &mut self,
        life: LifeId,
        began: Began,
        mut matches: impl FnMut(&S) -> bool,
        touches: impl Fn(&S, &S) -> bool,
    ) -> Result<(), String> {
        if began.epoch != self.epoch && !self.in_doubt {
            // A loss and a look at what it left came between.
            return Ok(());
        }
        let from = if began.epoch == self.epoch { began.acknowledged } else { began.durable };
        let from = from.max(self.first);
        let seen = (from..=self.last()).find(|n| matches(&self.version(*n).0));
        let Some(seen) = seen else {
            let possible: Vec<&(S, LifeId)> =
                (from..=self.last()).map(|n| self.version(n)).collect();
            let older = (self.first..from).rev().find(|n| matches(&self.version(*n).0));
            return Err(format!(
                "versions {from} to {} were possible: {possible:?}; it matches version {older:?}",
                self.last(),
            ));
        };
        self.acknowledged = self.acknowledged.max(seen);
        // What a life sees of itself may be in its own memory; below that somebody has given the object
        // up to it, or was lost with what it had there.
        let is_shown = |n: &u64| {
            let of = self.version(*n).1;
            let is_lost = *n < seen && self.lost.contains_key(&of);
            of != life && !is_lost && touches(&self.version(n - 1).0, &self.version(*n).0)
        };
        if let Some(shown) = (self.durable + 1..=seen).rev().find(is_shown) {
            tracing::debug!(version = shown, state = ?self.version(shown), "shown");
            self.durable = shown;
        }
        Ok(())
    }

    /// Something was found at this moment in what the kernel of a life has cached, whose daemon may be
    /// cut off or dead.
    ///
    /// # Errors
    /// As [`Chain::end_read`]. Of a life that is lost also what it may have seen is right, and proves
    /// nothing, until somebody else has changed the object.
    pub fn glimpse(
        &mut self,
        life: LifeId,
        mut matches: impl FnMut(&S) -> bool,
        touches: impl Fn(&S, &S) -> bool,
    ) -> Result<(), String> {
        let Some(left) = self.lost.get(&life) else {
            let began = self.begin_read();
            return self.end_partial_read(life, began, matches, touches);
        };
        let possible: Vec<&S> =
            (self.acknowledged..=self.last()).map(|n| &self.version(n).0).collect();
        let is_left = left.answered == self.answered && left.states.iter().any(&mut matches);
        if is_left || possible.iter().any(|state| matches(state)) {
            return Ok(());
        }
        let since = self.answered - left.answered;
        Err(format!(
            "{possible:?} were possible, or {:?} until it was changed, {since} times by now",
            left.states
        ))
    }

    /// Ends a doubt: the object was seen to be in `state` by `life`, and has no other writer. What
    /// this one had changed itself it may have seen in its own memory, and all below with it.
    pub fn settle(&mut self, life: LifeId, state: S) {
        let number = self.last() + 1;
        if (self.durable + 1..number).any(|n| self.version(n).1 == life) {
            let kept = usize::try_from(self.durable + 1 - self.first).expect("few versions");
            self.versions.range_mut(kept..).for_each(|version| version.1 = life);
            self.versions.push_back((state, life));
        } else {
            self.versions = VecDeque::from([(state, LifeId(0))]);
            (self.first, self.durable) = (number, number);
        }
        self.acknowledged = number;
        self.in_doubt = false;
        self.epoch += 1;
    }

    /// A life is gone, with everything that it alone knew of.
    pub fn lose(&mut self, life: LifeId) {
        self.release(life);
        let states = (self.acknowledged..=self.last()).map(|n| self.version(n).0.clone()).collect();
        let left = Left { states, answered: self.answered };
        self.lost.entry(life).or_insert(left);
        // Also below a change of somebody else that has begun and waits for what the life held.
        if (self.durable + 1..=self.last()).any(|n| self.version(n).1 == life) {
            self.acknowledged = self.durable;
            self.in_doubt = true;
            self.epoch += 1;
        }
    }
}

impl Chain<std::sync::Arc<Vec<u8>>> {
    /// The first byte that no possible version has: of a file that a life left in doubt, whose pages
    /// reach the disk one by one.
    pub fn unexplained_byte(&self, began: Began, content: &[u8]) -> Option<usize> {
        let from = if began.epoch == self.epoch { began.acknowledged } else { began.durable };
        let possible = || (from.max(self.first)..=self.last()).map(|n| &self.version(n).0);
        let longest = possible().map(|c| c.len()).max().unwrap_or(0);
        let shortest = possible().map(|c| c.len()).min().unwrap_or(0);
        if !(shortest..=longest).contains(&content.len()) {
            return Some(content.len());
        }
        let explains = |i: usize, byte: u8| {
            // What one version cut off reads as zeros when the next one reaches further.
            possible().any(|c| c.get(i).copied().unwrap_or(0) == byte)
        };
        (0..content.len()).find(|i| !explains(*i, content[*i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LifeId = LifeId(1);
    const B: LifeId = LifeId(2);
    const C: LifeId = LifeId(3);

    fn written(chain: &mut Chain<u64>, life: LifeId, value: u64) {
        assert!(chain.take(life));
        let change = chain.begin_change(life, value).expect("the writer");
        chain.acknowledge(change, value);
        chain.release(life);
    }

    /// B has begun to write 2 when A is lost, which had written 1.
    fn begun_above_a_lost_one() -> (Chain<u64>, Change) {
        let mut chain = Chain::new(0);
        written(&mut chain, A, 1);
        assert!(chain.take(B));
        let change = chain.begin_change(B, 2).expect("the writer");
        chain.lose(A);
        assert!(chain.is_in_doubt());
        (chain, change)
    }

    #[test]
    fn a_read_that_began_behind_a_write_sees_it() {
        let mut chain = Chain::new(0);
        let early = chain.begin_read();
        written(&mut chain, A, 1);
        let late = chain.begin_read();
        assert!(chain.end_read(B, late, |v| *v == 0).is_err());
        assert!(chain.end_read(B, early, |v| *v == 0).is_ok());
        assert!(chain.end_read(B, early, |v| *v == 1).is_ok());
    }

    #[test]
    fn what_was_seen_once_stays() {
        let mut chain = Chain::new(0);
        assert!(chain.take(A));
        let _ = chain.begin_change(A, 1);
        let first = chain.begin_read();
        assert!(chain.end_read(B, first, |v| *v == 1).is_ok());
        let second = chain.begin_read();
        assert!(chain.end_read(B, second, |v| *v == 0).is_err());
    }

    #[test]
    fn a_lost_life_takes_what_it_had_shown_to_nobody() {
        let mut chain = Chain::new(0);
        written(&mut chain, A, 1);
        written(&mut chain, B, 2);
        written(&mut chain, B, 3);
        chain.lose(A);
        assert!(!chain.is_in_doubt());
        let began = chain.begin_read();
        chain.lose(B);
        for value in [1, 2, 3] {
            assert!(chain.end_read(A, began, |v| *v == value).is_ok());
        }
        assert!(chain.end_read(A, began, |v| *v == 0).is_err());
    }

    #[test]
    fn a_lost_life_takes_its_change_from_below_one_that_waits_for_it() {
        let mut chain = Chain::new(0);
        written(&mut chain, A, 1);
        let began = chain.begin_read();
        assert!(chain.take(B));
        let change = chain.begin_change(B, 2).expect("the writer");
        chain.lose(A);
        assert!(chain.end_read(B, began, |v| *v == 0).is_ok());
        chain.acknowledge(change, 2);
        assert!(chain.is_in_doubt(), "whoever writes next looks first");
    }

    /// Seed 666927: its change was made without the one that was lost.
    #[test]
    fn what_a_life_sees_of_itself_does_not_show_what_another_one_took_along() {
        let (mut chain, change) = begun_above_a_lost_one();
        chain.acknowledge(change, 2);
        assert!(chain.end_read(B, chain.begin_read(), |v| *v == 2).is_ok());
        chain.lose(B);
        assert!(chain.end_read(C, chain.begin_read(), |v| *v == 0).is_ok());
    }

    /// Its answer may be from before the change, however late it comes.
    #[test]
    fn a_read_that_began_before_a_lost_change_may_miss_what_was_seen_of_it_meanwhile() {
        let mut chain = Chain::new(0);
        written(&mut chain, A, 1);
        let began = chain.begin_read();
        written(&mut chain, B, 2);
        chain.lose(B);
        let later = chain.begin_read();
        assert!(chain.end_read(A, later, |v| *v == 2).is_ok());
        assert!(chain.end_read(A, began, |v| *v == 1).is_ok());
        assert!(chain.end_read(A, chain.begin_read(), |v| *v == 1).is_err());
    }

    /// Seed 11468: the doubt is about another life.
    #[test]
    fn what_a_life_sees_of_itself_is_not_durable_because_another_one_was_lost() {
        let (mut chain, change) = begun_above_a_lost_one();
        assert!(chain.end_read(B, chain.begin_read(), |v| *v == 2).is_ok());
        chain.acknowledge(change, 2);
        chain.lose(B);
        assert!(
            chain.end_read(A, chain.begin_read(), |v| *v == 1).is_ok(),
            "A may have given it up"
        );
        assert!(chain.end_read(A, chain.begin_read(), |v| *v == 0).is_err());
    }

    /// Seed 104628: fenced, and not aware of it.
    #[test]
    fn a_lost_life_writes_no_more() {
        let mut chain = Chain::new(0);
        chain.lose(A);
        assert!(!chain.take(A));
        assert!(chain.take(B));
    }

    /// Seed 51957.
    #[test]
    fn what_ends_a_doubt_is_not_durable_if_whoever_looked_has_changed_it() {
        let (mut chain, change) = begun_above_a_lost_one();
        chain.acknowledge(change, 2);
        chain.settle(B, 2);
        assert!(!chain.is_in_doubt());
        assert!(chain.end_read(A, chain.begin_read(), |v| *v == 1).is_err());
        let change = chain.begin_change(B, 3).expect("the writer");
        chain.acknowledge(change, 3);
        chain.lose(B);
        assert!(chain.is_in_doubt());
        assert!(chain.end_read(A, chain.begin_read(), |v| *v == 0).is_ok());
        assert!(chain.end_read(A, chain.begin_read(), |v| *v == 7).is_err());
    }

    #[test]
    fn what_ends_a_doubt_is_durable_if_others_have_left_it() {
        let mut chain = Chain::new(0);
        written(&mut chain, A, 1);
        chain.lose(A);
        assert!(chain.take(B));
        chain.settle(B, 0);
        chain.lose(B);
        assert!(!chain.is_in_doubt());
        assert!(chain.end_read(A, chain.begin_read(), |v| *v == 1).is_err());
    }

    #[test]
    fn what_a_lost_life_still_shows_is_right_until_somebody_has_changed_it() {
        let mut chain = Chain::new(0);
        written(&mut chain, A, 1);
        chain.lose(A);
        let shows = |chain: &mut Chain<u64>, value| chain.glimpse(A, |v| *v == value, |_, _| true);
        assert!(shows(&mut chain, 1).is_ok() && shows(&mut chain, 7).is_err());
        assert!(
            chain.end_read(B, chain.begin_read(), |v| *v == 0).is_ok(),
            "it has proved nothing"
        );
        chain.settle(B, 0);
        assert!(chain.take(B));
        let change = chain.begin_change(B, 2).expect("the writer");
        assert!(shows(&mut chain, 1).is_ok() && shows(&mut chain, 0).is_ok());
        chain.acknowledge(change, 2);
        assert!(shows(&mut chain, 1).is_err() && shows(&mut chain, 0).is_err());
    }

    #[test]
    fn what_a_life_shows_that_is_not_lost_is_read() {
        let mut chain = Chain::new(0);
        written(&mut chain, A, 1);
        assert!(chain.glimpse(B, |v| *v == 0, |_, _| true).is_err());
        assert!(chain.glimpse(B, |v| *v == 1, |_, _| true).is_ok());
        chain.lose(A);
        assert!(!chain.is_in_doubt(), "A has given it up, or B could not show it");
    }

    #[test]
    fn what_was_synced_survives_its_life() {
        let mut chain = Chain::new(0);
        written(&mut chain, A, 1);
        let sync = chain.begin_sync();
        chain.synced(sync);
        chain.lose(A);
        assert!(!chain.is_in_doubt());
        let began = chain.begin_read();
        assert!(chain.end_read(B, began, |v| *v == 0).is_err());
    }
}
