//! Random histories: requests, conversions, callouts, crashes, expulsions, joins, leaves, missed
//! views, recoveries that break off; the oracle looks on after every step.
//!
//! `DLM_SEEDS=A..B` runs other seeds than the usual ones.

use dlm::{BucketName, LockId, Mode};
use mx_base::Member;

use crate::oracle;
use crate::rng::Rng;
use crate::world::{Lock, State, World, resource, resource_of_none};

/// What one history was about; drawn from its seed, so that some are calm and some are not.
struct Plan {
    nodes: u16,
    resources: u16,
    steps: usize,
    /// One step in so many is a fault; 0 for none.
    fault_every: usize,
    /// Messages take 0 to so many steps.
    delay_max: usize,
    modes: &'static [Mode],
    /// Do applications claim ranges, too?
    claims: bool,
}

/// Resources by number, those that kernels cache and others.
fn drawn(index: u16) -> BucketName {
    if index % 3 == 1 { resource_of_none(index) } else { resource(index) }
}

struct History {
    rng: Rng,
    world: World,
    plan: Plan,
    /// No more faults and no new requests: everything must come to an end.
    is_ending: bool,
}

const FILE_SYSTEM: &[Mode] =
    &[Mode::PR, Mode::PR, Mode::PR, Mode::EX, Mode::EX, Mode::EX, Mode::CR];
const ALL: &[Mode] = &[Mode::NL, Mode::CR, Mode::CW, Mode::PR, Mode::PW, Mode::EX];

/// The trace's hash.
pub(crate) fn run(seed: u64, claims: bool) -> u64 {
    let mut rng = Rng::new(seed);
    let plan = Plan {
        nodes: u16::try_from(2 + rng.below(4)).expect("small"),
        resources: u16::try_from(1 + rng.below(6)).expect("small"),
        steps: 150 + rng.below(500),
        fault_every: [0, 40, 25, 12][rng.below(4)],
        delay_max: [0, 3, 12, 40][rng.below(4)],
        modes: if rng.one_in(3) { ALL } else { FILE_SYSTEM },
        claims,
    };
    let world = World::of(plan.nodes);
    let mut history = History { rng, world, plan, is_ending: false };
    for _ in 0..history.plan.steps {
        history.step();
    }
    history.end();
    history.world.trace.0
}

impl History {
    fn step(&mut self) {
        self.world.now += 1;
        let fault = self.plan.fault_every;
        if !self.is_ending && fault != 0 && self.rng.one_in(fault) {
            self.fault();
        } else {
            match self.rng.below(10) {
                0..=4 => self.deliver(),
                5 | 6 => self.act(),
                7 => self.follow_a_view(),
                8 => self.answer_a_callout(),
                _ => self.advance_a_recovery(),
            }
        }
        oracle::check_usable_modes(&self.world);
        self.world.check_claims();
        let looked_at = self.rng.below(self.world.nodes.len() * 12);
        if let Some((_, node)) = self.world.nodes.iter().nth(looked_at) {
            node.space.check_invariants();
        }
    }

    fn deliver(&mut self) {
        // Not before its time: the delay is drawn when the message gets to the head of its link.
        let reach = self.rng.below(self.plan.delay_max + 1) as u64;
        let due = self.world.busy_links(self.world.now.saturating_sub(reach));
        if let Some((from, to)) = self.rng.pick(&due) {
            for _ in 0..=self.rng.below(3) {
                self.world.deliver(from, to);
            }
        }
    }

    // --- owners ---

    fn active(&self) -> Vec<Member> {
        let active = |(member, node): (&Member, &crate::world::Node)| {
            (node.state != State::Stopped && node.followed > 0).then_some(*member)
        };
        self.world.nodes.iter().filter_map(active).collect()
    }

    fn act(&mut self) {
        let Some(owner) = self.rng.pick(&self.active()) else { return };
        if self.plan.claims && !self.rng.one_in(4) {
            return self.claim(owner);
        }
        if self.world.nodes[&owner].state == State::Leaving {
            return self.release_one(owner);
        }
        let locks: Vec<LockId> = self.world.nodes[&owner].locks.keys().copied().collect();
        let Some(lock) = self.rng.pick(&locks).filter(|_| !self.rng.one_in(3)) else {
            if !self.is_ending && locks.len() < 6 {
                let index = self.rng.below(usize::from(self.plan.resources));
                let at = drawn(u16::try_from(index).expect("small"));
                let wanted = self.rng.pick(self.plan.modes).expect("some");
                let no_queue = self.rng.one_in(6);
                self.world.request_as(owner, at, wanted, no_queue);
            }
            return;
        };
        self.use_lock(owner, lock);
    }

    /// An application of the member claims something, or gives something up.
    fn claim(&mut self, member: Member) {
        if self.world.nodes[&member].state == State::Leaving {
            return self.world.release_claims(member);
        }
        let owner = self.rng.below(crate::claimants::OWNERS) as u64;
        let index = self.rng.below(usize::from(self.plan.resources.min(3)));
        let at = drawn(u16::try_from(index).expect("small"));
        let rng = &mut self.rng;
        if self.is_ending {
            self.world.give_up_or_wait(member, owner);
        } else {
            self.world.claim_at_random(member, owner, at, rng);
        }
    }

    fn use_lock(&mut self, owner: Member, lock: LockId) {
        let Lock { held, asked, .. } = self.world.nodes[&owner].locks[&lock];
        let writes = !self.rng.one_in(5);
        match (held, asked) {
            (_, Some(_)) if self.rng.one_in(8) => self.world.cancel(owner, lock),
            (Some(held), asked) => {
                let lower: Vec<Mode> =
                    Mode::ALL.into_iter().filter(|to| held.covers(*to) && held != *to).collect();
                let higher: Vec<Mode> =
                    Mode::ALL.into_iter().filter(|to| to.covers(held) && held != *to).collect();
                let allowed: Vec<Mode> =
                    higher.into_iter().filter(|to| self.plan.modes.contains(to)).collect();
                match self.rng.below(3) {
                    0 if asked.is_none() => self.world.unlock(owner, lock, writes),
                    1 if asked.is_none() && !self.is_ending => {
                        if let Some(wanted) = self.rng.pick(&allowed) {
                            let no_queue = self.rng.one_in(6);
                            self.world.convert(owner, lock, wanted, no_queue);
                        }
                    }
                    2 => {
                        if let Some(to) = self.rng.pick(&lower) {
                            self.world.lower(owner, lock, to, writes);
                        }
                    }
                    _ => {}
                }
            }
            (None, _) => {}
        }
    }

    fn answer_a_callout(&mut self) {
        let mut called_out = Vec::new();
        for owner in self.active() {
            let locks = self.world.nodes[&owner].locks.iter();
            called_out.extend(
                locks.filter(|(_, lock)| lock.callout.is_some()).map(|(id, _)| (owner, *id)),
            );
        }
        if let Some((owner, lock)) = self.rng.pick(&called_out) {
            let writes = !self.rng.one_in(5);
            self.world.answer(owner, lock, writes);
        }
    }

    fn release_one(&mut self, owner: Member) {
        let node = &self.world.nodes[&owner];
        let Some((lock, state)) = node.locks.iter().next().map(|(id, lock)| (*id, *lock)) else {
            return;
        };
        match state {
            Lock { asked: Some(_), .. } => self.world.cancel(owner, lock),
            Lock { asked: None, .. } => self.world.unlock(owner, lock, true),
        }
    }

    // --- membership ---

    /// A member that acts, has followed every view, and so may commit the next.
    fn coordinator(&mut self, but: Option<Member>) -> Option<Member> {
        let count = self.world.views.len();
        let ready: Vec<Member> = self
            .world
            .newest()
            .view
            .members()
            .iter()
            .copied()
            .filter(|member| {
                let node = &self.world.nodes[member];
                node.state != State::Stopped && node.followed == count && Some(*member) != but
            })
            .collect();
        self.rng.pick(&ready)
    }

    fn members(&self) -> Vec<Member> {
        self.world.newest().view.members().to_vec()
    }

    fn fault(&mut self) {
        match self.rng.below(5) {
            0 => self.crash_somebody(),
            1 => self.expel(),
            2 => self.join(),
            3 => self.leave(),
            _ => self.drop_the_stopped(),
        }
    }

    /// A stop without a word; the others notice later.
    fn crash_somebody(&mut self) {
        let running: Vec<Member> = self
            .members()
            .into_iter()
            .filter(|member| self.world.nodes[member].state != State::Stopped)
            .collect();
        if running.len() < 2 {
            return;
        }
        let Some(victim) = self.rng.pick(&running) else { return };
        self.crash(victim);
    }

    fn crash(&mut self, victim: Member) {
        self.cut_links(victim);
        self.world.crash(victim);
    }

    /// Of what is on the way from and to the victim some arrives, nothing after.
    fn cut_links(&mut self, victim: Member) {
        let others: Vec<Member> = self.world.nodes.keys().copied().collect();
        for other in others {
            // Those expelled together still hear each other.
            if other != victim && self.world.is_member(other) {
                let (one, two) = (self.rng.below(12), self.rng.below(12));
                self.world.sever(victim, other, one);
                self.world.sever(other, victim, two);
            }
        }
    }

    /// A view without some member that goes on, not knowing.
    fn expel(&mut self) {
        let Some(coordinator) = self.coordinator(None) else { return };
        let others: Vec<Member> =
            self.members().into_iter().filter(|member| *member != coordinator).collect();
        let Some(victim) = self.rng.pick(&others) else { return };
        let mut gone = vec![victim];
        if self.rng.one_in(3) {
            gone.extend(self.rng.pick(&others));
        }
        let members: Vec<Member> =
            self.members().into_iter().filter(|member| !gone.contains(member)).collect();
        self.world.commit(coordinator, members, Vec::new());
        for victim in gone {
            self.cut_links(victim);
        }
    }

    /// Everybody who has stopped goes, maybe together with a join.
    fn drop_the_stopped(&mut self) {
        let Some(coordinator) = self.coordinator(None) else { return };
        let mut members: Vec<Member> = self
            .members()
            .into_iter()
            .filter(|member| self.world.nodes[member].state != State::Stopped)
            .collect();
        if members.len() == self.members().len() {
            return;
        }
        if self.rng.one_in(3) {
            members.extend(self.newcomer());
        }
        self.world.commit(coordinator, members, Vec::new());
    }

    fn newcomer(&mut self) -> Option<Member> {
        let members = self.members();
        let vacant: Vec<u16> =
            (1..=5).filter(|node| members.iter().all(|m| m.node.get() != *node)).collect();
        let node = self.rng.pick(&vacant)?;
        Some(self.world.give_life(node))
    }

    fn join(&mut self) {
        let Some(coordinator) = self.coordinator(None) else { return };
        if let Some(newcomer) = self.newcomer() {
            let mut members = self.members();
            members.push(newcomer);
            self.world.commit(coordinator, members, Vec::new());
        }
    }

    /// Somebody begins to leave, or whoever has released everything goes.
    fn leave(&mut self) {
        let members = self.members();
        let done: Vec<Member> = members
            .iter()
            .copied()
            .filter(|member| {
                let node = &self.world.nodes[member];
                let has_claims = node.space.claims_count() != (0, 0);
                node.state == State::Leaving && node.locks.is_empty() && !has_claims
            })
            .collect();
        match self.rng.pick(&done) {
            Some(leaver) => {
                let Some(coordinator) = self.coordinator(Some(leaver)) else { return };
                let members = members.into_iter().filter(|member| *member != leaver).collect();
                self.world.commit(coordinator, members, vec![leaver]);
                self.cut_links(leaver);
                self.world.node(leaver).state = State::Stopped;
            }
            None => {
                let running: Vec<Member> = members
                    .into_iter()
                    .filter(|m| {
                        let node = &self.world.nodes[m];
                        node.state == State::Running && node.followed > 0
                    })
                    .collect();
                if running.len() >= 2
                    && let Some(leaver) = self.rng.pick(&running)
                {
                    self.world.node(leaver).state = State::Leaving;
                }
            }
        }
    }

    fn follow_a_view(&mut self) {
        let count = self.world.views.len();
        let behind: Vec<Member> = self
            .members()
            .into_iter()
            .filter(|member| {
                let node = &self.world.nodes[member];
                node.state != State::Stopped && node.followed < count
            })
            .collect();
        let Some(member) = self.rng.pick(&behind) else { return };
        let missing = count - self.world.nodes[&member].followed;
        if missing > 1 && self.rng.one_in(3) {
            self.world.catch_up(member);
        } else {
            self.world.follow(member);
        }
    }

    // --- recovery ---

    fn advance_a_recovery(&mut self) {
        let dead: Vec<Member> = self
            .world
            .dead
            .iter()
            .filter(|(_, died)| died.lost_in.is_some())
            .map(|(dead, _)| *dead)
            .collect();
        let Some(dead) = self.rng.pick(&dead) else { return };
        let died = &self.world.dead[&dead];
        if !died.is_fenced {
            return self.fence(dead);
        }
        if self.rng.one_in(2) {
            return self.end_caches(dead);
        }
        if died.is_recovered {
            return;
        }
        let recoverer = died.recoverer.filter(|recoverer| {
            self.world.is_member(*recoverer) && self.world.nodes[recoverer].state != State::Stopped
        });
        let Some(recoverer) = recoverer else { return self.assign(dead) };
        if !self.is_ending && self.rng.one_in(20) {
            self.world.node(recoverer).space.abandon_recovery(dead);
            self.world.dead.get_mut(&dead).expect("dead").recoverer = None;
            self.world.dead.get_mut(&dead).expect("dead").redo = None;
            return;
        }
        let Some(redo) = died.redo.clone() else { return };
        let is_announcing = self.world.nodes[&recoverer].space.recoveries().all(|(of, step)| {
            of != dead || matches!(step, dlm::rebuild::RecoveryStep::Announcing { .. })
        });
        if is_announcing {
            return;
        }
        if redo.is_empty() {
            self.world.finish_recovery(dead);
        } else {
            let count = 1 + self.rng.below(redo.len());
            self.world.replay(dead, &redo[..count]);
        }
    }

    fn fence(&mut self, dead: Member) {
        self.cut_links(dead);
        let held: Vec<BucketName> = crate::world::holdings(&self.world.nodes[&dead])
            .into_iter()
            .filter(|(_, mode)| mode.writes())
            .map(|(at, _)| at)
            .collect();
        let mut live = Vec::new();
        for index in 0..self.plan.resources {
            let at = drawn(index);
            let odds = if held.contains(&at) { 2 } else { 4 };
            if self.rng.one_in(odds) {
                live.push(at);
            }
        }
        self.world.fence(dead, &live);
    }

    fn end_caches(&mut self, dead: Member) {
        if !self.world.dead[&dead].caches_cut {
            return self.world.cut_caches(dead);
        }
        let lost_in = self.world.dead[&dead].lost_in.expect("noticed");
        let untold: Vec<Member> = self
            .members()
            .into_iter()
            .filter(|member| {
                let node = &self.world.nodes[member];
                node.state != State::Stopped
                    && node.space.view().id >= lost_in
                    && !node.told_gone.contains(&dead)
            })
            .collect();
        if let Some(member) = self.rng.pick(&untold) {
            self.world.tell_caches_gone(member, dead);
        }
    }

    /// Somebody who knows of the death, once no former recoverer can write any more.
    fn assign(&mut self, dead: Member) {
        let died = &self.world.dead[&dead];
        let former_is_fenced = died.recoverer.is_none_or(|former| {
            self.world.dead.get(&former).is_some_and(|died| died.is_fenced)
                || self.world.nodes[&former].state == State::Stopped
        });
        if !former_is_fenced {
            return;
        }
        let able: Vec<Member> = self
            .members()
            .into_iter()
            .filter(|member| {
                let node = &self.world.nodes[member];
                node.state != State::Stopped
                    && node.space.dead().any(|(d, facts)| d == dead && !facts.recovered)
                    && node.space.recoveries().all(|(of, _)| of != dead)
            })
            .collect();
        match self.rng.pick(&able) {
            Some(recoverer) => self.world.begin_recovery(recoverer, dead),
            None => {
                // Whoever finished it died before saying so, and everybody knows.
                let all_know = self.members().iter().all(|member| {
                    let node = &self.world.nodes[member];
                    node.followed == self.world.views.len()
                        && node.space.dead().all(|(d, facts)| d != dead || facts.recovered)
                });
                if all_know {
                    self.world.dead.get_mut(&dead).expect("dead").is_recovered = true;
                }
            }
        }
    }

    // --- the end ---

    fn end(&mut self) {
        self.is_ending = true;
        // Whoever has stopped and is still counted goes; somebody must be there to see to it.
        let mut patience = 60_000;
        while !self.is_quiet() {
            if self.coordinator(None).is_some() {
                self.drop_the_stopped();
            } else if self.revive() {
                return;
            }
            self.step();
            patience -= 1;
            assert!(patience > 0, "everything comes to an end: {}", self.unfinished());
        }
        oracle::check_usable_modes(&self.world);
        oracle::check_quiet(&self.world);
    }

    /// With nobody left there is no cluster to judge.
    fn revive(&self) -> bool {
        self.members().iter().all(|member| self.world.nodes[member].state == State::Stopped)
    }

    fn is_quiet(&self) -> bool {
        let count = self.world.views.len();
        let members = self.members();
        let all_live = members.iter().all(|member| {
            let node = &self.world.nodes[member];
            let locks_are_settled =
                node.locks.values().all(|lock| lock.asked.is_none() && lock.callout.is_none());
            let no_claims = !self.plan.claims || node.space.claims_count() == (0, 0);
            node.state != State::Stopped && node.followed == count && locks_are_settled && no_claims
        });
        let on_the_way = self.world.busy_links(u64::MAX).into_iter().any(|(_, to)| {
            self.world.nodes[&to].state != State::Stopped && self.world.is_member(to)
        });
        let nothing_left = self.world.dead.iter().all(|(dead, died)| {
            died.lost_in.is_some()
                && died.is_recovered
                && members
                    .iter()
                    .all(|member| self.world.nodes[member].space.dead().all(|(of, _)| of != *dead))
        });
        all_live && !on_the_way && nothing_left
    }

    fn unfinished(&self) -> String {
        let mut text = String::new();
        for member in self.members() {
            let node = &self.world.nodes[&member];
            text += &format!("\n{member} {:?} followed {}", node.state, node.followed);
            text += &format!(" unreported {:?}", node.space.unreported());
            text += &format!(" dead {:?}", node.space.dead().collect::<Vec<_>>());
            for own in node.space.own_locks().filter(|own| own.wanted.is_some()) {
                text += &format!("\n  wants {own:?}");
            }
            for state in node.space.resources() {
                text += &format!("\n  home of {}", state.describe(self.world.instant()));
            }
        }
        for (dead, died) in &self.world.dead {
            text += &format!(
                "\ndead {dead} lost in {:?} fenced {} recoverer {:?} redo {:?} recovered {} cut {}",
                died.lost_in,
                died.is_fenced,
                died.recoverer,
                died.redo,
                died.is_recovered,
                died.caches_cut
            );
        }
        text
    }
}

#[expect(clippy::disallowed_methods, reason = "the seeds come from whoever runs the test")]
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("DLM_SEEDS") else { return 0..50 };
    let (from, to) = text.split_once("..").expect("DLM_SEEDS=A..B");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn whatever_happens_nobody_gets_a_mode_that_another_may_still_use() {
    for seed in seeds() {
        // A panic names its seed.
        let guard = Named(seed);
        run(seed, false);
        std::mem::forget(guard);
    }
}

#[test]
fn whatever_happens_no_two_owners_rely_on_what_does_not_go_together_and_nobody_waits_for_ever() {
    for seed in seeds() {
        let guard = Named(seed);
        run(seed, true);
        std::mem::forget(guard);
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in seeds().take(10) {
        assert_eq!(run(seed, true), run(seed, true), "seed {seed}");
    }
}

struct Named(u64);

impl Drop for Named {
    #[expect(clippy::print_stderr, reason = "the seed of a failure has to be seen")]
    fn drop(&mut self) {
        eprintln!("failed with seed {}", self.0);
    }
}
