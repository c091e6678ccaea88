//! A change of view: who is gone, which buckets moved, the rebuild of those that moved here.

use mx_base::rules::{Rule, is_kept};
use mx_base::{Instant, Member, View, ViewId};

use super::{Lockspace, Output};
use crate::homes::Homes;
use crate::message::Message;
use crate::name::Bucket;
use crate::rebuild::dead::Dead;
use crate::rebuild::limbo::{Fate, Lost};
use crate::rebuild::remnant::Remnant;
use crate::rebuild::report;
use crate::rebuild::welcome::{Welcome, WelcomeError};
use crate::violation::HandleError;

impl Lockspace {
    /// Enters `view` with what a member of it told, or with [`Welcome::cold`] when the cluster
    /// starts. For the first view of a node, and for one that has missed views: it catches up.
    ///
    /// # Errors
    /// When the welcome is for another view; the state is as before.
    ///
    /// # Panics
    /// When the view is not newer than the present one, or this node is not in it.
    pub fn enter(&mut self, view: View, welcome: &Welcome, now: Instant) -> Result<(), EnterError> {
        if welcome.view() != view.id {
            let (welcome, view) = (welcome.view(), view.id);
            return Err(EnterError::Welcome(WelcomeError::OtherView { welcome, view }));
        }
        let homes = Homes::given(&view, welcome.epochs().to_vec())
            .ok_or(EnterError::Welcome(WelcomeError::Epoch))?;
        let lost: Vec<Lost> = self
            .view
            .lost_in(&view)
            .map(|member| {
                // Who is not among the dead left, or died and is recovered already.
                let facts = welcome.dead().get(&member);
                self.lost(member, facts.map_or(Fate::Left, |facts| Fate::Died(*facts)))
            })
            .collect();
        // What was recovered meanwhile, before the dead of this view are added.
        let known: Vec<Member> = self.dead.keys().copied().collect();
        for member in known {
            let told = welcome.dead().get(&member);
            if told.is_none_or(|facts| facts.recovered) {
                self.mark_recovered(member, now);
            }
            if told.is_none_or(|facts| facts.caches_gone) {
                self.caches_gone(member, now);
            }
        }
        for (member, facts) in welcome.dead() {
            // A death this node has seen itself, and has no entry of, is over.
            let is_news = facts.lost_in > self.view.id;
            if is_news && !facts.is_over() {
                self.dead.entry(*member).or_insert(*facts);
            }
        }
        for (node, life) in welcome.newest() {
            let newest = self.newest.entry(*node).or_insert(*life);
            *newest = (*newest).max(*life);
        }
        self.change_view(view, homes, &lost, now).map_err(EnterError::Early)
    }

    /// Follows the committed view that comes directly after the present one. Members that are not
    /// in it any more have died, but for those who `left` in order.
    ///
    /// # Errors
    /// When a message that had been kept for this view breaks a rule; as in
    /// [`Lockspace::handle_message`].
    ///
    /// # Panics
    /// When the view is not newer than the present one, or this node is not in it.
    pub fn handle_view(
        &mut self,
        view: View,
        left: &[Member],
        now: Instant,
    ) -> Result<(), HandleError> {
        assert!(self.view.id > ViewId(0), "the first view is entered with a welcome");
        let facts = Dead::new(view.id);
        let lost: Vec<Lost> = self
            .view
            .lost_in(&view)
            .map(|member| {
                let fate = if left.contains(&member) { Fate::Left } else { Fate::Died(facts) };
                self.lost(member, fate)
            })
            .collect();
        for one in &lost {
            if let Fate::Died(facts) = one.fate {
                self.dead.insert(one.member, facts);
            }
        }
        let homes = self.homes.next(&view);
        self.change_view(view, homes, &lost, now)
    }

    /// What a member tells those who join in the present view.
    pub fn welcome(&self) -> Welcome {
        Welcome::new(self.view.id, self.homes.epochs(), &self.newest, &self.dead)
    }

    fn lost(&self, member: Member, fate: Fate) -> Lost {
        let reported = self.reported.get(&member).copied().unwrap_or_default();
        Lost { member, fate, reported }
    }

    fn change_view(
        &mut self,
        view: View,
        homes: Homes,
        lost: &[Lost],
        now: Instant,
    ) -> Result<(), HandleError> {
        assert!(view.id > self.view.id, "views are followed in order: {:?}", view.id);
        assert!(view.contains(self.me), "a node that is not in the view is cut off: {view:?}");
        tracing::debug!(view = view.id.0, members = view.members().len(), "lockspace: view");
        let moved: Vec<Bucket> =
            Bucket::all().filter(|bucket| homes.epoch(*bucket) > self.view.id).collect();
        for bucket in &moved {
            self.home.close(*bucket);
            self.rebuilding.remove(bucket);
        }
        self.close_claims(&moved);
        let former = std::mem::replace(&mut self.view, view);
        self.homes = homes;
        self.counters.views += 1;
        for member in self.view.members() {
            self.newest.insert(member.node, member.incarnation);
        }
        if !lost.is_empty() {
            let epochs = self.homes.epochs().to_vec();
            self.all_at_home(now, |home, list| home.lose(lost, &epochs, now, list));
            if is_kept(Rule::DropQueueOfDead) {
                lost.iter().for_each(|one| self.home.waiting.forget(one.member));
            }
            for one in lost {
                let is_over = match one.fate {
                    Fate::Left => true,
                    Fate::Died(facts) => facts.recovered,
                };
                self.lose_claims(one.member, is_over, one.reported);
            }
        }
        self.reported.retain(|member, _| self.view.contains(*member));
        for bucket in moved.iter().filter(|b| self.homes.home(**b) == Some(self.me)) {
            let unknown = self.dead.iter().map(|(dead, facts)| Remnant::unknown(*dead, *facts));
            let is_open = |remnant: &Remnant| !remnant.is_over() && is_kept(Rule::AssumeTheWorst);
            self.home.open(*bucket, unknown.filter(is_open).collect());
            self.rebuilding.insert(*bucket);
            self.counters.buckets_rebuilt += 1;
        }
        self.report(&moved, now);
        self.settle_claims(|_| true);
        self.is_rebuilt = false;
        self.live_names.clear();
        self.redoing.clear();
        self.tell_again(now);
        debug_assert!(former.id < self.view.id);
        for (from, message) in self.early.take() {
            self.handle_message(from, self.id, message, now)?;
        }
        self.end_rebuild(now);
        Ok(())
    }

    /// Tells the heirs of `moved` what this node holds and waits for, and everybody that it has.
    fn report(&mut self, moved: &[Bucket], now: Instant) {
        let reports = report::collect(&mut self.own, moved, &self.homes);
        for (lock, name, reason) in reports.cancelled {
            self.counters.denials += 1;
            let ast = crate::lock::Ast::Denied(reason);
            self.outputs.push_back(Output::Ast { lock, name, ast });
        }
        self.report_claims(moved, now);
        let view = self.view.id;
        for ((heir, epoch), locks) in reports.by_heir {
            if heir == self.me {
                for lock in locks {
                    self.take_in_report(heir, lock, now)
                        .expect("the locks of one node on a resource go together");
                }
            } else {
                for message in Message::reports(epoch, locks) {
                    self.send(heir, message);
                }
            }
        }
        for other in self.others() {
            self.send(other, Message::ReportEnd { view });
        }
        self.reported.insert(self.me, view);
    }

    /// `from` has reported for `view` and all views before.
    pub(super) fn report_ended(&mut self, from: Member, view: ViewId, now: Instant) {
        let through = self.reported.entry(from).or_default();
        *through = view.max(*through);
        self.end_rebuild(now);
    }

    /// Completes the buckets about which every member has reported.
    fn end_rebuild(&mut self, now: Instant) {
        let reported = |member| self.reported.get(member).copied().unwrap_or_default();
        let through = self.view.members().iter().map(reported);
        let through = if is_kept(Rule::AwaitAllReports) { through.min() } else { through.max() };
        let through = through.unwrap_or_default();
        let complete: Vec<Bucket> = self
            .rebuilding
            .iter()
            .copied()
            .filter(|bucket| self.homes.epoch(*bucket) <= through)
            .collect();
        for bucket in &complete {
            self.rebuilding.remove(bucket);
            self.at_home(*bucket, now, |home, notices| {
                home.complete(notices);
                Ok(())
            })
            .expect("completing a bucket refuses nothing");
        }
        if !complete.is_empty() {
            self.settle_claims(|bucket| complete.binary_search(&bucket).is_ok());
        }
        if self.rebuilding.is_empty() && !self.is_rebuilt {
            self.is_rebuilt = true;
            tracing::debug!(view = self.view.id.0, "lockspace: rebuilt");
            self.outputs.push_back(Output::Rebuilt { view: self.view.id });
            self.answer_live_names(now);
        }
    }

    pub(super) fn others(&self) -> Vec<Member> {
        self.view.members().iter().copied().filter(|member| *member != self.me).collect()
    }
}

/// Why a view could not be entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnterError {
    #[error(transparent)]
    Welcome(WelcomeError),
    /// As in [`Lockspace::handle_view`]: the view has been entered, but going on is not safe.
    #[error(transparent)]
    Early(HandleError),
}
