//! Advisory locks of this node's owners, and the homes' decisions about everybody's.

use std::collections::BTreeMap;

use mx_base::rules::{Rule, is_kept};
use mx_base::{Instant, Member, ViewId};

use super::{Lockspace, Output};
use crate::advisory::home::{Answers, Waiter};
use crate::advisory::own::AskedStep;
use crate::advisory::{
    Access, Claim, ClaimId, ClaimRef, Family, How, Owner, ReportedClaim, Span, Todo, TooManyClaims,
    Verdict, Wait,
};
use crate::message::{BucketEpoch, Message};
use crate::name::{Bucket, ResourceName};
use crate::resource::Phase;
use crate::violation::Violation;

impl Lockspace {
    // --- what owners ask for ---

    /// Claims a range of a resource for one of this node's owners. The outcome is an
    /// [`Output::Claimed`], which may be there when this returns. Of [`Family::Whole`] the span has
    /// to be [`Span::ALL`].
    pub fn claim(
        &mut self,
        name: ResourceName,
        bucket: Bucket,
        claim: Claim,
        now: Instant,
    ) -> Result<ClaimId, TooManyClaims> {
        self.advisory.own.check_room()?;
        let Claim { owner, span, access, how, .. } = claim;
        let held = self.advisory.own.held(bucket, &name, owner);
        let is_covered = how != How::Test && held.is_some_and(|held| held.covers(span, access));
        let writes = held.is_some_and(|held| held.writes_in(span));
        let gives_up = access == Access::Read && writes;
        let own = &mut self.advisory.own;
        let step = if is_covered && owner.family == Family::Ranges && gives_up {
            AskedStep::Lowering
        } else {
            AskedStep::Deciding
        };
        let id = own.insert(bucket, name, claim, step, now);
        if is_covered && !gives_up {
            own.raise(bucket, name, &claim);
            self.end_claim(id, Verdict::Granted);
        } else if step == AskedStep::Lowering {
            own.raise(bucket, name, &claim);
            self.lower_claim(id, Some(Access::Read));
        } else {
            if owner.family == Family::Whole && how != How::Test {
                // What its home does with the claim.
                own.lower(bucket, name, owner, span, None);
            }
            self.ask_for_claim(id);
        }
        self.carry_on();
        Ok(id)
    }

    /// Gives up what the owner holds of the span; `None` when that is nothing. The outcome is an
    /// [`Output::Claimed`]: it comes when the home knows, so that whoever is told of it by other
    /// means finds it so.
    ///
    /// # Errors
    /// Not for [`Span::ALL`].
    pub fn unclaim(
        &mut self,
        name: ResourceName,
        bucket: Bucket,
        owner: Owner,
        span: Span,
        now: Instant,
    ) -> Result<Option<ClaimId>, TooManyClaims> {
        let held = self.advisory.own.held(bucket, &name, owner);
        if !held.is_some_and(|held| held.holds_in(span)) {
            return Ok(None);
        }
        if span != Span::ALL {
            self.advisory.own.check_room()?;
        }
        let id = self.give_up_claim(name, bucket, owner, span, now);
        self.carry_on();
        Ok(Some(id))
    }

    /// The open file `via` is closed everywhere: what was taken through it is given up.
    pub fn release_via(&mut self, name: ResourceName, bucket: Bucket, via: u64, now: Instant) {
        for (owner, span) in self.advisory.own.of_via(bucket, &name, via) {
            self.give_up_claim(name, bucket, owner, span, now);
        }
        self.carry_on();
    }

    /// Nobody on this node uses the file system any more: everything held is given up, and what is
    /// asked for is taken back.
    pub fn release_all_claims(&mut self, now: Instant) {
        // Before anything is given up: somebody else is to get it.
        for id in self.advisory.own.abandon_all() {
            self.take_claim_back(id);
        }
        let held: Vec<_> =
            self.advisory.own.all().map(|(bucket, name, owner, _)| (bucket, name, owner)).collect();
        for (bucket, name, owner) in held {
            self.give_up_claim(name, bucket, owner, Span::ALL, now);
        }
        self.carry_on();
    }

    /// Takes back what is asked for. The outcome is an [`Output::Claimed`] all the same: cancelled,
    /// or what came first. Does nothing when it is answered.
    pub fn take_claim_back(&mut self, id: ClaimId) {
        let Some(asked) = self.advisory.own.cancel(id) else { return };
        let (bucket, name) = (asked.bucket, asked.name);
        match self.homes.home(bucket) {
            Some(home) if home == self.me => self.cancel_at_home(bucket, name, self.my(id)),
            Some(home) => {
                let at = self.at(bucket);
                self.send(home, Message::ClaimCancel { at, id, name });
            }
            // Never sent: the first view finds it cancelled.
            None => {}
        }
        self.carry_on();
    }

    /// How many ranges this node's owners hold, and claims of theirs that are not answered.
    pub fn claims_count(&self) -> (usize, usize) {
        self.advisory.own.counts()
    }

    fn my(&self, id: ClaimId) -> ClaimRef {
        ClaimRef { member: self.me, id }
    }

    fn give_up_claim(
        &mut self,
        name: ResourceName,
        bucket: Bucket,
        owner: Owner,
        span: Span,
        now: Instant,
    ) -> ClaimId {
        let (access, how) = (Access::Read, How::Try);
        let claim = Claim { owner, via: 0, pid: 0, span, access, how };
        let id = self.advisory.own.insert(bucket, name, claim, AskedStep::Lowering, now);
        self.lower_claim(id, None);
        id
    }

    /// Its owner relies on no more than `to` of what is claimed, from now on.
    fn lower_claim(&mut self, id: ClaimId, to: Option<Access>) {
        let asked = *self.advisory.own.get(id).expect("what is given up is listed");
        let (bucket, name, owner, span) =
            (asked.bucket, asked.name, asked.claim.owner, asked.claim.span);
        self.advisory.own.lower(bucket, name, owner, span, to);
        match self.homes.home(bucket) {
            Some(home) if home == self.me => {
                self.lower_at_home(bucket, name, self.my(id), owner, (span, to));
            }
            Some(home) => {
                let at = self.at(bucket);
                self.send(home, Message::ClaimLower { at, id, name, owner, span, to });
            }
            None => unreachable!("what is held was granted by a home"),
        }
    }

    fn ask_for_claim(&mut self, id: ClaimId) {
        let asked = *self.advisory.own.get(id).expect("just listed");
        let (bucket, name, claim, stamp) = (asked.bucket, asked.name, asked.claim, asked.stamp);
        match self.homes.home(bucket) {
            Some(home) if home == self.me => {
                let Claim { owner, pid, span, access, how, .. } = claim;
                let (key, since) = (self.my(id), asked.since);
                let waiter = Waiter { key, owner, pid, span, access, how, stamp, since };
                self.claim_at_home(bucket, name, waiter);
            }
            Some(home) => {
                let at = self.at(bucket);
                self.send(home, Message::Claim { at, id, name, claim, stamp });
            }
            // No view yet: the first one brings a home, and it is reported there.
            None => {}
        }
    }

    // --- what a home says ---

    pub(super) fn claim_answered(
        &mut self,
        id: ClaimId,
        verdict: Verdict,
    ) -> Result<(), Violation> {
        let asked = *self.advisory.own.get(id).ok_or(Violation::LockUnknown)?;
        let is_test = asked.claim.how == How::Test && asked.step == AskedStep::Deciding;
        let fits = match verdict {
            Verdict::Free | Verdict::Held(_) => is_test,
            Verdict::Granted => !is_test,
            Verdict::Cancelled | Verdict::TooMany | Verdict::Deadlock | Verdict::WouldWait => {
                asked.step == AskedStep::Deciding
            }
        };
        if !fits {
            return Err(Violation::NothingAsked);
        }
        let (bucket, name, Claim { owner, span, access, .. }) =
            (asked.bucket, asked.name, asked.claim);
        if verdict == Verdict::Granted && asked.step == AskedStep::Deciding {
            self.advisory.own.raise(bucket, name, &asked.claim);
            let held = self.advisory.own.held(bucket, &name, owner);
            if access == Access::Read && held.is_some_and(|held| held.writes_in(span)) {
                // The home has left that in force: it goes when this node says so.
                self.advisory.own.lowering(id);
                self.lower_claim(id, Some(Access::Read));
                return Ok(());
            }
        }
        self.end_claim(id, verdict);
        let is_held = self.advisory.own.held(bucket, &name, owner).is_some();
        if asked.is_abandoned && is_held && verdict == Verdict::Granted {
            self.give_up_claim(name, bucket, owner, Span::ALL, asked.since);
        } else if verdict == Verdict::Granted && owner.family == Family::Ranges {
            // An owner of several threads may wait elsewhere for those who now wait for it.
            for wait in self.advisory.own.waits_of(self.me, owner.id) {
                self.follow(vec![wait], Wait::BUDGET);
            }
        }
        Ok(())
    }

    pub(super) fn end_claim(&mut self, id: ClaimId, verdict: Verdict) {
        if self.advisory.own.remove(id).is_some() {
            self.outputs.push_back(Output::Claimed { claim: id, verdict });
        }
    }

    // --- the home's part ---

    /// May anything be decided about the bucket? Not before everybody has reported, nor while
    /// somebody who may still be alive, fenced by nobody, may hold what is not known here.
    pub(crate) fn may_decide(&self, bucket: Bucket) -> bool {
        self.home.bucket(bucket).is_some_and(|here| {
            let is_reported = here.phase == Phase::Ready || !is_kept(Rule::AwaitReportsOfClaims);
            let is_known = here.unknown.iter().all(|remnant| !remnant.is_limbo());
            is_reported && (is_known || !is_kept(Rule::KeepClaimsOfDead))
        })
    }

    pub(super) fn claim_at_home(&mut self, bucket: Bucket, name: ResourceName, waiter: Waiter) {
        self.advisory.own.hear(waiter.stamp);
        let may_decide = self.may_decide(bucket);
        let mut answers = Answers::new();
        let wait = self.advisory.home.claim(bucket, name, waiter, may_decide, &mut answers);
        self.tell(bucket, answers);
        if let Some(wait) = wait {
            self.advisory.todo.push_back(Todo::Follow { path: vec![wait], budget: Wait::BUDGET });
        }
    }

    pub(super) fn lower_at_home(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        key: ClaimRef,
        owner: Owner,
        what: (Span, Option<Access>),
    ) {
        let may_decide = self.may_decide(bucket);
        let mut answers = vec![(key, Verdict::Granted)];
        let holder = (key.member, owner);
        self.advisory.home.lower(bucket, name, holder, what, may_decide, &mut answers);
        self.tell(bucket, answers);
    }

    pub(super) fn cancel_at_home(&mut self, bucket: Bucket, name: ResourceName, key: ClaimRef) {
        self.end_wait_at_home(bucket, name, key, Verdict::Cancelled);
    }

    pub(super) fn end_wait_at_home(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        key: ClaimRef,
        verdict: Verdict,
    ) {
        let mut answers = Answers::new();
        self.advisory.home.cancel(bucket, name, key, verdict, &mut answers);
        self.tell(bucket, answers);
    }

    fn tell(&mut self, bucket: Bucket, answers: Answers) {
        let todo = answers.into_iter().map(|(to, verdict)| Todo::Tell { bucket, to, verdict });
        self.advisory.todo.extend(todo);
    }

    /// Does what follows from what was done, until nothing does.
    pub(super) fn carry_on(&mut self) {
        while let Some(todo) = self.advisory.todo.pop_front() {
            match todo {
                Todo::Tell { bucket, to: ClaimRef { member, id }, verdict } => {
                    if member == self.me {
                        self.claim_answered(id, verdict)
                            .expect("a home tells its own node only what fits");
                    } else if self.view.contains(member) {
                        let at = self.at(bucket);
                        self.send(member, Message::ClaimAnswer { at, id, verdict });
                    }
                }
                Todo::Follow { path, budget } => self.followed(path, budget),
                Todo::Trace { path, member, owner, budget } => {
                    self.traced(path, member, owner, budget);
                }
                Todo::Confirm { cycle, at } => self.confirmed(cycle, at),
            }
        }
    }

    // --- views and recoveries ---

    /// Another node decides about these buckets from now on.
    pub(super) fn close_claims(&mut self, moved: &[Bucket]) {
        if self.advisory.home.is_empty() {
            return;
        }
        moved.iter().for_each(|bucket| self.advisory.home.close(*bucket));
    }

    /// A member of the view before is none any more. What it holds is kept, where it is known and
    /// nobody knows better; what it waited for is over.
    pub(super) fn lose_claims(&mut self, member: Member, is_over: bool, reported: ViewId) {
        let (home, homes) = (&self.home, &self.homes);
        let is_known = |bucket: Bucket| {
            let is_ready = home.bucket(bucket).is_some_and(|here| here.phase == Phase::Ready);
            is_ready || reported >= homes.epoch(bucket)
        };
        let is_dropped = is_over || !is_kept(Rule::KeepClaimsOfDead);
        // What is not known of a bucket forbids everything in it, for the time being.
        self.advisory.home.lose(member, |bucket| is_dropped || !is_known(bucket));
    }

    /// Nothing that `dead` did can be under way any more: what it held is free.
    pub(super) fn let_claims_go(&mut self, dead: Member) {
        self.advisory.home.lose(dead, |_| true);
        self.settle_claims(|_| true);
    }

    /// Decides what can be decided now in these buckets, and looks anew who waits for whom.
    pub(super) fn settle_claims(&mut self, is_meant: impl Fn(Bucket) -> bool) {
        let may = |bucket: &Bucket| is_meant(*bucket) && self.may_decide(*bucket);
        let buckets: Vec<Bucket> = self.advisory.home.buckets().filter(may).collect();
        for bucket in buckets {
            let mut answers = Answers::new();
            let waits = self.advisory.home.settle_bucket(bucket, &mut answers);
            self.tell(bucket, answers);
            let follow = |wait| Todo::Follow { path: vec![wait], budget: Wait::BUDGET };
            self.advisory.todo.extend(waits.into_iter().map(follow));
        }
        self.carry_on();
    }

    /// Tells the heirs of `moved` what this node's owners hold and wait for.
    pub(super) fn report_claims(&mut self, moved: &[Bucket], now: Instant) {
        if self.advisory.own.is_empty() {
            return;
        }
        let mut by_heir: BTreeMap<(Member, ViewId), Vec<ReportedClaim>> = BTreeMap::new();
        let heir = |bucket: Bucket| {
            let heir = self.homes.home(bucket);
            let heir = heir.expect("a view has members, so every bucket has a home");
            (heir, self.homes.epoch(bucket))
        };
        for bucket in moved {
            let held = self.advisory.own.reports_of(*bucket);
            if !held.is_empty() {
                by_heir.entry(heir(*bucket)).or_default().extend(held);
            }
        }
        let is_moved = |bucket: Bucket| moved.binary_search(&bucket).is_ok();
        let mut over = Vec::new();
        for (id, asked) in self.advisory.own.asked_in(is_moved) {
            match asked.step {
                // What is reported goes without it.
                AskedStep::Lowering => over.push((id, Verdict::Granted)),
                AskedStep::Deciding if asked.is_cancelled => over.push((id, Verdict::Cancelled)),
                AskedStep::Deciding => {
                    by_heir.entry(heir(asked.bucket)).or_default().push(asked.report(id));
                }
            }
        }
        over.into_iter().for_each(|(id, verdict)| self.end_claim(id, verdict));
        for ((heir, epoch), claims) in by_heir {
            if heir == self.me {
                for report in claims {
                    self.advisory
                        .home
                        .report(self.me, &report, now)
                        .expect("what is held was granted beside what others hold");
                }
            } else {
                for claims in claims.chunks(Message::CLAIMS_MAX) {
                    self.send(heir, Message::ClaimReport { epoch, claims: claims.to_vec() });
                }
            }
        }
    }

    pub(super) fn take_in_claim_report(
        &mut self,
        from: Member,
        epoch: ViewId,
        report: &ReportedClaim,
        now: Instant,
    ) -> Result<(), Violation> {
        let known = self.homes.epoch(report.bucket);
        if known > epoch {
            // The bucket has moved again: its owner reports it again, too.
            return Ok(());
        }
        if known < epoch {
            return Err(Violation::Epoch);
        }
        let here = self.home.bucket(report.bucket).ok_or(Violation::NotHome)?;
        if here.phase == Phase::Ready {
            return Err(Violation::ReportEnded);
        }
        if let Some(asked) = report.asked {
            self.advisory.own.hear(asked.stamp);
        }
        self.advisory.home.report(from, report, now)
    }

    // --- messages of owners ---

    pub(super) fn take_in_claim(
        &mut self,
        from: Member,
        at: BucketEpoch,
        (id, name): (ClaimId, ResourceName),
        claim: Claim,
        (stamp, now): (u64, Instant),
    ) -> Result<(), Violation> {
        let key = ClaimRef { member: from, id };
        if self.advisory.home.waiter(at.bucket, name, key).is_some() {
            return Err(Violation::LockKnown);
        }
        let Claim { owner, pid, span, access, how, .. } = claim;
        let waiter = Waiter { key, owner, pid, span, access, how, stamp, since: now };
        self.claim_at_home(at.bucket, name, waiter);
        self.carry_on();
        Ok(())
    }
}
