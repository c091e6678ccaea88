//! The home side: who holds and waits for ranges of the resources that this node decides about.
//!
//! Keeps true between calls:
//!   * what owners hold goes together;
//!   * in a bucket that may decide, whoever waits is kept from it by somebody who holds; elsewhere
//!     everything asked for waits, tests too;
//!   * what waits is counted, member by member.
//!
//! Whoever does not have to wait does not: a claim that goes with all that is held passes those
//! that wait, as on one server. Of those that wait the first goes first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mx_base::{Instant, Member};

use super::pieces::{Access, Piece, Pieces, Span};
use super::{ClaimRef, Conflict, Family, How, Owner, ReportedClaim, Verdict, Wait};
use crate::home::Waiting;
use crate::name::{Bucket, ResourceName};
use crate::violation::Violation;

/// An owner, wherever it is.
pub(crate) type Holder = (Member, Owner);

/// A claim at its home.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Waiter {
    pub(crate) key: ClaimRef,
    pub(crate) owner: Owner,
    pub(crate) pid: u32,
    pub(crate) span: Span,
    pub(crate) access: Access,
    pub(crate) how: How,
    pub(crate) stamp: u64,
    /// Since this home knows of it.
    pub(crate) since: Instant,
}

impl Waiter {
    pub(crate) fn holder(&self) -> Holder {
        (self.key.member, self.owner)
    }

    fn piece(&self) -> Piece {
        Piece { span: self.span, access: self.access, pid: self.pid, via: 0 }
    }

    /// The wait that it is, if it may be part of a cycle.
    pub(crate) fn wait(&self, bucket: Bucket, name: ResourceName) -> Option<Wait> {
        let detects = self.how == How::Wait { detect: true } && self.owner.family == Family::Ranges;
        let ClaimRef { member, id } = self.key;
        let Waiter { owner, stamp, .. } = *self;
        detects.then_some(Wait { member, owner: owner.id, id, stamp, bucket, name })
    }
}

/// One resource.
#[derive(Clone, Hash, Default)]
pub(crate) struct HomeFile {
    held: BTreeMap<Holder, Pieces>,
    waiting: VecDeque<Waiter>,
}

/// See the module.
#[derive(Clone, Hash, Default)]
pub(crate) struct HomeClaims {
    files: BTreeMap<(Bucket, ResourceName), HomeFile>,
    waiting: Waiting,
}

/// Answers, in order.
pub(crate) type Answers = Vec<(ClaimRef, Verdict)>;

impl HomeFile {
    fn conflict(&self, holder: Holder, span: Span, access: Access) -> Option<Conflict> {
        let others = self
            .held
            .iter()
            .filter(|(other, _)| **other != holder && other.1.family == holder.1.family);
        let in_the_way = others.filter_map(|((member, _), pieces)| {
            let Piece { span, access, pid, .. } = *pieces.conflict(span, access)?;
            Some(Conflict { holder: *member, pid, span, access })
        });
        in_the_way.min_by_key(|conflict| conflict.span)
    }

    /// Whoever keeps it from being granted.
    fn blockers(&self, waiter: &Waiter) -> BTreeSet<Holder> {
        let holder = waiter.holder();
        let others = self.held.iter().filter(|(other, pieces)| {
            **other != holder
                && other.1.family == holder.1.family
                && pieces.conflict(waiter.span, waiter.access).is_some()
        });
        others.map(|(other, _)| *other).collect()
    }

    fn raise(&mut self, waiter: &Waiter) {
        self.held.entry(waiter.holder()).or_default().raise(waiter.piece());
    }

    fn lower(&mut self, holder: Holder, span: Span, to: Option<Access>) {
        let Some(pieces) = self.held.get_mut(&holder) else { return };
        pieces.lower(span, to);
        if pieces.is_empty() {
            self.held.remove(&holder);
        }
    }

    fn is_unused(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }

    /// Decides about a claim that may wait no longer than it has to; `None` when it does wait.
    fn decide(&mut self, waiter: &Waiter) -> Option<Verdict> {
        let conflict = self.conflict(waiter.holder(), waiter.span, waiter.access);
        match (conflict, waiter.how) {
            (None, How::Test) => Some(Verdict::Free),
            (Some(conflict), How::Test) => Some(Verdict::Held(conflict)),
            (None, How::Try | How::Wait { .. }) => {
                self.raise(waiter);
                Some(Verdict::Granted)
            }
            (Some(_), How::Try) => Some(Verdict::WouldWait),
            (Some(_), How::Wait { .. }) => None,
        }
    }
}

impl HomeClaims {
    /// Takes in a claim. When it `may_decide` and the claim has to wait, its wait is returned.
    pub(crate) fn claim(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        waiter: Waiter,
        may_decide: bool,
        answers: &mut Answers,
    ) -> Option<Wait> {
        let file = self.files.entry((bucket, name)).or_default();
        let is_conversion = waiter.owner.family == Family::Whole && waiter.how != How::Test;
        if is_conversion {
            // Not one step, as flock(2) says: the old one is gone whatever becomes of the new one.
            file.lower(waiter.holder(), Span::ALL, None);
        }
        let decided = if may_decide { file.decide(&waiter) } else { None };
        let waits = match decided {
            Some(verdict) => {
                answers.push((waiter.key, verdict));
                None
            }
            None if !self.waiting.has_room(waiter.key.member) => {
                answers.push((waiter.key, Verdict::TooMany));
                None
            }
            None => {
                self.waiting.begin(waiter.key.member);
                file.waiting.push_back(waiter);
                waiter.wait(bucket, name).filter(|_| may_decide)
            }
        };
        if is_conversion {
            self.settle(bucket, name, may_decide, answers);
        } else {
            self.tidy(bucket, name);
        }
        waits
    }

    /// An owner has given up what it held of the span, or what it held for writing.
    pub(crate) fn lower(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        holder: Holder,
        (span, to): (Span, Option<Access>),
        may_decide: bool,
        answers: &mut Answers,
    ) {
        if let Some(file) = self.files.get_mut(&(bucket, name)) {
            file.lower(holder, span, to);
            self.settle(bucket, name, may_decide, answers);
        }
    }

    /// Takes a claim out of the queue, if it is there still.
    pub(crate) fn cancel(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        key: ClaimRef,
        verdict: Verdict,
        answers: &mut Answers,
    ) {
        let Some(file) = self.files.get_mut(&(bucket, name)) else { return };
        let Some(at) = file.waiting.iter().position(|waiter| waiter.key == key) else { return };
        file.waiting.remove(at);
        self.waiting.end(key.member);
        answers.push((key, verdict));
        self.tidy(bucket, name);
    }

    /// Takes in what a member reports.
    ///
    /// # Errors
    /// When two members say that they hold what does not go together.
    pub(crate) fn report(
        &mut self,
        from: Member,
        report: &ReportedClaim,
        now: Instant,
    ) -> Result<(), Violation> {
        let ReportedClaim { bucket, name, owner, pid, span, access, asked } = *report;
        let file = self.files.entry((bucket, name)).or_default();
        match asked {
            None => {
                let piece = Piece { span, access, pid, via: 0 };
                if file.conflict((from, owner), span, access).is_some() {
                    return Err(Violation::Incompatible);
                }
                file.held.entry((from, owner)).or_default().raise(piece);
            }
            Some(super::AskedClaim { id, how, stamp }) => {
                let key = ClaimRef { member: from, id };
                self.waiting.begin(from);
                let waiter = Waiter { key, owner, pid, span, access, how, stamp, since: now };
                file.waiting.push_back(waiter);
            }
        }
        Ok(())
    }

    /// The bucket may decide from now on, or what stood in the way has gone: decides what can be.
    /// Returns the waits that have to go on, when they are to be looked at anew.
    pub(crate) fn settle_bucket(&mut self, bucket: Bucket, answers: &mut Answers) -> Vec<Wait> {
        let names = self.names_in(bucket);
        for name in &names {
            self.settle(bucket, *name, true, answers);
        }
        let files =
            names.iter().filter_map(|name| Some((*name, self.files.get(&(bucket, *name))?)));
        let waits = files.flat_map(|(name, file)| {
            file.waiting.iter().filter_map(move |waiter| waiter.wait(bucket, name))
        });
        waits.collect()
    }

    /// Another node decides about the bucket from now on.
    pub(crate) fn close(&mut self, bucket: Bucket) {
        for name in self.names_in(bucket) {
            let file = self.files.remove(&(bucket, name)).expect("just listed");
            file.waiting.iter().for_each(|waiter| self.waiting.end(waiter.key.member));
        }
    }

    /// What the member waited for goes; what it holds goes where `forgets` says so of the bucket.
    pub(crate) fn lose(&mut self, member: Member, forgets: impl Fn(Bucket) -> bool) {
        for ((bucket, _), file) in &mut self.files {
            file.waiting.retain(|waiter| waiter.key.member != member);
            if forgets(*bucket) {
                file.held.retain(|(of, _), _| *of != member);
            }
        }
        self.files.retain(|_, file| !file.is_unused());
        self.waiting.forget(member);
    }

    pub(crate) fn waiter(
        &self,
        bucket: Bucket,
        name: ResourceName,
        key: ClaimRef,
    ) -> Option<&Waiter> {
        let file = self.files.get(&(bucket, name))?;
        file.waiting.iter().find(|waiter| waiter.key == key)
    }

    /// Those in the way of a wait, unless it is over.
    pub(crate) fn blockers_of(&self, wait: &Wait) -> BTreeSet<Holder> {
        let Some(file) = self.files.get(&(wait.bucket, wait.name)) else { return BTreeSet::new() };
        let waiter = file.waiting.iter().find(|waiter| waiter.key == wait.claim());
        waiter.map(|waiter| file.blockers(waiter)).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Those in which anybody holds or waits for anything.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = Bucket> {
        let mut last = None;
        let buckets = self.files.keys().map(|(bucket, _)| *bucket);
        buckets.filter(move |bucket| last.replace(*bucket) != Some(*bucket))
    }

    /// Everything, by bucket and name.
    pub(crate) fn files(&self) -> impl Iterator<Item = (Bucket, ResourceName, &HomeFile)> {
        self.files.iter().map(|((bucket, name), file)| (*bucket, *name, file))
    }

    pub(crate) fn held(
        &self,
        bucket: Bucket,
        name: ResourceName,
        holder: Holder,
    ) -> Option<&Pieces> {
        self.files.get(&(bucket, name))?.held.get(&holder)
    }

    pub(crate) fn file(&self, bucket: Bucket, name: ResourceName) -> Option<&HomeFile> {
        self.files.get(&(bucket, name))
    }

    fn names_in(&self, bucket: Bucket) -> Vec<ResourceName> {
        let from = (bucket, ResourceName::LEAST);
        let within = self.files.range(from..).take_while(|((at, _), _)| *at == bucket);
        within.map(|((_, name), _)| *name).collect()
    }

    /// Decides about those that wait, the first first.
    fn settle(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        may_decide: bool,
        answers: &mut Answers,
    ) {
        if !may_decide {
            return self.tidy(bucket, name);
        }
        let Some(file) = self.files.get_mut(&(bucket, name)) else { return };
        for waiter in std::mem::take(&mut file.waiting) {
            match file.decide(&waiter) {
                Some(verdict) => {
                    self.waiting.end(waiter.key.member);
                    answers.push((waiter.key, verdict));
                }
                None => file.waiting.push_back(waiter),
            }
        }
        self.tidy(bucket, name);
    }

    fn tidy(&mut self, bucket: Bucket, name: ResourceName) {
        if self.files.get(&(bucket, name)).is_some_and(HomeFile::is_unused) {
            self.files.remove(&(bucket, name));
        }
    }

    /// # Panics
    /// When an invariant does not hold, with the invariant in words.
    pub(crate) fn check_invariants(&self, may_decide: impl Fn(Bucket) -> bool) {
        let mut waiting = Waiting::default();
        for ((bucket, name), file) in &self.files {
            assert!(!file.is_unused(), "nothing unused is listed: {name:?}");
            for (holder, pieces) in &file.held {
                assert!(!pieces.is_empty(), "nothing unused is listed: {name:?}");
                for piece in pieces.iter() {
                    let conflict = file.conflict(*holder, piece.span, piece.access);
                    assert!(
                        conflict.is_none(),
                        "what is held goes together: {name:?} {conflict:?}"
                    );
                }
            }
            for waiter in &file.waiting {
                waiting.begin(waiter.key.member);
                let is_kept_from_it = !file.blockers(waiter).is_empty();
                let may_wait = matches!(waiter.how, How::Wait { .. }) && is_kept_from_it;
                assert!(may_wait || !may_decide(*bucket), "nobody waits in vain: {waiter:?}");
            }
        }
        assert_eq!(waiting, self.waiting, "what waits is counted");
    }
}

impl HomeFile {
    pub(crate) fn held(&self) -> impl Iterator<Item = (Holder, &Piece)> {
        self.held.iter().flat_map(|(holder, pieces)| pieces.iter().map(|piece| (*holder, piece)))
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&Waiter, Vec<Holder>)> {
        self.waiting.iter().map(|waiter| (waiter, self.blockers(waiter).into_iter().collect()))
    }
}
