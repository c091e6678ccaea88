//! Random histories: reads, writes, pages of the kernel, waits given up, memory pressure, failing
//! disks, crashes, expulsions, joins and leaves. Every read must see the last write.
//!
//! `LCL_SEEDS=A..B` runs other seeds than the usual ones.

use lcl::BucketName;
use mx_base::Member;

use crate::node::{Node, Stage, What};
use crate::rng::Rng;
use crate::world::{World, object};

struct Plan {
    objects: u16,
    steps: usize,
    fault_every: usize,
    shrinks: bool,
}

struct History {
    rng: Rng,
    world: World,
    plan: Plan,
    leaving: Option<Member>,
    is_ending: bool,
}

pub(crate) fn run(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let nodes = u16::try_from(2 + rng.below(3)).expect("small");
    let plan = Plan {
        objects: u16::try_from(1 + rng.below(4)).expect("small"),
        steps: 200 + rng.below(500),
        fault_every: [0, 60, 30][rng.below(3)],
        shrinks: rng.one_in(2),
    };
    let world = World::of(nodes);
    let mut history = History { rng, world, plan, leaving: None, is_ending: false };
    for _ in 0..history.plan.steps {
        history.step();
    }
    history.end();
    history.world.trace
}

impl History {
    fn step(&mut self) {
        self.world.now += 1;
        let fault = self.plan.fault_every;
        if !self.is_ending && fault != 0 && self.rng.one_in(fault) {
            self.fault();
        } else {
            match self.rng.below(12) {
                0..=3 => self.deliver(),
                4 | 5 => self.take_an_event(),
                6 => self.begin(),
                7 | 8 => self.move_an_operation(),
                9 => self.move_a_surrender(),
                // Often before anything else has happened, and as often not at all for long.
                10 if self.rng.one_in(2) => self.end_a_hold(),
                10 => self.follow_a_view(),
                _ => self.advance_a_recovery(),
            }
        }
        self.world.check();
        let looked_at = self.rng.below(self.world.nodes.len() * 10);
        if let Some((_, node)) = self.world.nodes.iter().nth(looked_at) {
            node.cache.check_invariants();
        }
    }

    fn running(&self) -> Vec<Member> {
        let follows = |member: &&Member| self.world.followed.contains_key(*member);
        self.world.nodes.keys().filter(follows).copied().collect()
    }

    fn deliver(&mut self) {
        if let Some((from, to)) = self.rng.pick(&self.world.busy_links()) {
            for _ in 0..=self.rng.below(3) {
                self.world.deliver(from, to);
            }
        }
    }

    fn take_an_event(&mut self) {
        let now = self.world.instant();
        let members: Vec<Member> = self.world.nodes.keys().copied().collect();
        if let Some(member) = self.rng.pick(&members) {
            self.world.node(member).take_event(now);
            self.world.drain(member);
        }
    }

    fn begin(&mut self) {
        if self.is_ending {
            return;
        }
        let Some(member) = self.rng.pick(&self.running()) else { return };
        if Some(member) == self.leaving {
            return;
        }
        if self.plan.shrinks && self.rng.one_in(6) {
            let target = self.rng.below(2);
            self.world.node(member).cache.shrink(target);
            return self.world.drain(member);
        }
        if self.rng.one_in(40) {
            let at = self.object();
            self.world.disk.lock().failing.insert(at.name);
        }
        let slowness = u32::try_from(self.rng.below(3)).expect("small");
        let at = self.object();
        let what = [What::Read, What::Read, What::Write, What::Write, What::Page, What::Open]
            [self.rng.below(6)];
        let is_impatient = what != What::Page && self.rng.one_in(5);
        let want = if is_impatient { what.want().no_queue() } else { what.want() };
        let node = self.world.node(member);
        node.objects.state.lock().slowness = slowness;
        if node.operations.len() < 40 {
            node.begin(what, at, want);
        }
    }

    fn object(&mut self) -> BucketName {
        object(u16::try_from(self.rng.below(usize::from(self.plan.objects))).expect("small"))
    }

    fn move_an_operation(&mut self) {
        let Some(member) = self.rng.pick(&self.running()) else { return };
        let node = self.world.nodes.get_mut(&member).expect("runs");
        if node.operations.is_empty() {
            return;
        }
        let place = self.rng.below(node.operations.len());
        match node.operations[place].stage {
            Stage::Waiting(_) if !self.is_ending && self.rng.one_in(15) => {
                drop(node.operations.swap_remove(place));
            }
            Stage::Waiting(_) => node.poll_operation(place),
            Stage::Working(..) => node.end_operation(place),
            Stage::Ended(_) => drop(node.operations.swap_remove(place)),
        }
    }

    fn move_a_surrender(&mut self) {
        let now = self.world.instant();
        let Some(member) = self.rng.pick(&self.running()) else { return };
        let count = self.world.nodes[&member].surrenders.len();
        if count > 0 {
            let place = self.rng.below(count);
            self.world.node(member).poll_surrender(place, now);
            self.world.drain(member);
        }
    }

    fn end_a_hold(&mut self) {
        let holds = |node: &Node| node.holds.len();
        let held = self.world.nodes.iter().filter(|(_, node)| holds(node) > 0);
        let held: Vec<(Member, usize)> =
            held.map(|(member, node)| (*member, holds(node))).collect();
        if let Some((member, count)) = self.rng.pick(&held) {
            let place = self.rng.below(count);
            self.world.end_hold(member, place);
        }
    }

    // --- membership ---

    fn coordinator(&mut self, but: Option<Member>) -> Option<Member> {
        let count = self.world.views.len();
        let ready: Vec<Member> = self
            .world
            .members()
            .into_iter()
            .filter(|member| {
                self.world.nodes.contains_key(member)
                    && self.world.followed.get(member) == Some(&count)
                    && Some(*member) != but
            })
            .collect();
        self.rng.pick(&ready)
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

    fn crash_somebody(&mut self) {
        let running: Vec<Member> = self.running();
        let members: Vec<Member> =
            running.into_iter().filter(|member| self.world.is_member(*member)).collect();
        if members.len() >= 2
            && let Some(victim) = self.rng.pick(&members)
        {
            self.cut_links(victim);
            self.crash(victim);
        }
    }

    fn crash(&mut self, victim: Member) {
        let odds = 1 + self.rng.below(3);
        let rng = &mut self.rng;
        self.world.crash(victim, || rng.one_in(odds));
        if self.leaving == Some(victim) {
            self.leaving = None;
        }
        // The journal has older records, too, of what was given up long ago.
        let at = object(u16::try_from(self.rng.below(4)).expect("small"));
        if self.rng.one_in(2) {
            let old = self.world.disk.lock().version(&at.name);
            let died = self.world.dead.get_mut(&victim).expect("just died");
            died.journal.entry(at).or_insert(old);
        }
    }

    fn cut_links(&mut self, victim: Member) {
        let others: Vec<Member> = self.world.nodes.keys().copied().collect();
        for other in others {
            if other != victim && self.world.is_member(other) {
                let (one, two) = (self.rng.below(8), self.rng.below(8));
                self.world.sever(victim, other, one);
                self.world.sever(other, victim, two);
            }
        }
    }

    fn expel(&mut self) {
        let Some(coordinator) = self.coordinator(None) else { return };
        let others: Vec<Member> = self
            .world
            .members()
            .into_iter()
            .filter(|member| *member != coordinator && self.world.nodes.contains_key(member))
            .collect();
        let Some(victim) = self.rng.pick(&others) else { return };
        let members = self.world.members().into_iter().filter(|m| *m != victim).collect();
        self.world.commit(coordinator, members, Vec::new());
        self.cut_links(victim);
        if self.leaving == Some(victim) {
            self.leaving = None;
        }
    }

    fn drop_the_stopped(&mut self) {
        let Some(coordinator) = self.coordinator(None) else { return };
        let all = self.world.members();
        let left: Vec<Member> =
            all.iter().copied().filter(|m| self.world.nodes.contains_key(m)).collect();
        if left.len() != all.len() {
            self.world.commit(coordinator, left, Vec::new());
        }
    }

    fn join(&mut self) {
        let Some(coordinator) = self.coordinator(None) else { return };
        let mut members = self.world.members();
        let vacant: Vec<u16> =
            (1..=4).filter(|node| members.iter().all(|m| m.node.get() != *node)).collect();
        if let Some(node) = self.rng.pick(&vacant) {
            members.push(self.world.give_life(node));
            self.world.commit(coordinator, members, Vec::new());
        }
    }

    fn leave(&mut self) {
        match self.leaving {
            Some(leaver) => {
                let node = self.world.node(leaver);
                node.cache.shrink(0);
                let is_done = node.cache.cached_count() == 0
                    && node.operations.is_empty()
                    && node.surrenders.is_empty()
                    && node.shell.events.lock().is_empty();
                self.world.drain(leaver);
                if is_done && let Some(coordinator) = self.coordinator(Some(leaver)) {
                    let members =
                        self.world.members().into_iter().filter(|m| *m != leaver).collect();
                    self.world.commit(coordinator, members, vec![leaver]);
                    self.cut_links(leaver);
                    self.world.crash(leaver, || false);
                    self.world.dead.remove(&leaver);
                    self.world.kernels.remove(&leaver);
                    self.leaving = None;
                }
            }
            None => {
                let running = self.running();
                let members: Vec<Member> =
                    running.into_iter().filter(|m| self.world.is_member(*m)).collect();
                if members.len() >= 2 {
                    self.leaving = self.rng.pick(&members);
                }
            }
        }
    }

    fn follow_a_view(&mut self) {
        let count = self.world.views.len();
        let behind: Vec<Member> = self
            .world
            .members()
            .into_iter()
            .filter(|member| {
                self.world.nodes.contains_key(member)
                    && self.world.followed.get(member).copied().unwrap_or(0) < count
            })
            .collect();
        if let Some(member) = self.rng.pick(&behind) {
            self.world.follow(member);
        }
    }

    // --- recovery ---

    fn advance_a_recovery(&mut self) {
        let lost = self.world.dead.iter().filter(|(_, died)| died.lost_in.is_some());
        let lost: Vec<Member> = lost.map(|(dead, _)| *dead).collect();
        let Some(dead) = self.rng.pick(&lost) else { return };
        let died = &self.world.dead[&dead];
        if !died.is_fenced {
            // Whoever goes on without knowing loses its disk here, and then its life.
            self.cut_links(dead);
            if self.world.nodes.contains_key(&dead) {
                self.crash(dead);
            }
            return self.world.fence(dead);
        }
        if self.rng.one_in(2) {
            return self.end_caches(dead);
        }
        if died.is_recovered {
            return;
        }
        let recoverer = died.recoverer.filter(|recoverer| {
            self.world.nodes.contains_key(recoverer) && self.world.is_member(*recoverer)
        });
        let Some(recoverer) = recoverer else { return self.assign(dead) };
        let Some(redo) = died.redo.clone() else { return };
        let is_announced =
            self.world.nodes[&recoverer].cache.lockspace().recoveries().all(|(of, step)| {
                of != dead || matches!(step, lcl::RecoveryStep::Announcing { .. })
            });
        match self.rng.pick(&redo) {
            Some(name) => self.world.replay(dead, name),
            None if is_announced => {}
            None => self.world.finish_recovery(dead),
        }
    }

    fn end_caches(&mut self, dead: Member) {
        if !self.world.dead[&dead].caches_cut {
            return self.world.cut_caches(dead);
        }
        let died = &self.world.dead[&dead];
        let untold: Vec<Member> = self
            .world
            .members()
            .into_iter()
            .filter(|member| {
                let knows = |node: &crate::node::Node| {
                    Some(node.cache.lockspace().view().id) >= died.lost_in
                };
                self.world.nodes.get(member).is_some_and(knows) && !died.told_gone.contains(member)
            })
            .collect();
        if let Some(member) = self.rng.pick(&untold) {
            self.world.tell_caches_gone(member, dead);
        }
    }

    fn assign(&mut self, dead: Member) {
        let former = self.world.dead[&dead].recoverer;
        if former.is_some_and(|former| self.world.nodes.contains_key(&former)) {
            // Expelled and not stopped yet: it may still write.
            return;
        }
        let able: Vec<Member> = self
            .world
            .members()
            .into_iter()
            .filter(|member| {
                self.world.nodes.get(member).is_some_and(|node| {
                    let space = node.cache.lockspace();
                    space.dead().any(|(of, facts)| of == dead && !facts.recovered)
                })
            })
            .collect();
        match self.rng.pick(&able) {
            Some(recoverer) => self.world.begin_recovery(recoverer, dead),
            None => {
                let all_know = self.world.members().iter().all(|member| {
                    self.world.nodes.get(member).is_some_and(|node| {
                        let space = node.cache.lockspace();
                        self.world.followed.get(member) == Some(&self.world.views.len())
                            && space.dead().all(|(of, facts)| of != dead || facts.recovered)
                    })
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
        let mut patience = 60_000;
        while !self.is_quiet() {
            if self.coordinator(None).is_some() {
                self.drop_the_stopped();
            } else if self.world.members().iter().all(|m| !self.world.nodes.contains_key(m)) {
                // Nobody is left to judge.
                return;
            }
            self.step();
            patience -= 1;
            assert!(patience > 0, "everything comes to an end: {}", self.unfinished());
        }
        // Everything can be given up, and then everything is in place.
        let mut patience = 200;
        while self.world.members().iter().any(|m| self.world.nodes[m].cache.cached_count() > 0) {
            for member in self.world.members() {
                self.world.node(member).cache.shrink(0);
                self.world.drain(member);
            }
            self.world.settle();
            self.world.check();
            patience -= 1;
            assert!(patience > 0, "every lock can be given up: {}", self.unfinished());
        }
        let disk = self.world.disk.lock();
        for index in 0..self.plan.objects {
            let name = object(index).name;
            assert_eq!(disk.version(&name), disk.truth(&name), "{name:?} is in place");
        }
        drop(disk);
        for member in self.world.members() {
            let node = self.world.node(member);
            node.cache.shrink(0);
            node.cache.check_invariants();
            assert_eq!(node.cache.lockspace().resources().count(), 0, "nothing is left behind");
            assert!(node.cache.table().is_empty(), "nothing is left behind");
        }
    }

    fn is_quiet(&self) -> bool {
        let members = self.world.members();
        let count = self.world.views.len();
        let all_idle = members.iter().all(|member| {
            self.world.nodes.get(member).is_some_and(|node| {
                self.world.followed.get(member) == Some(&count)
                    && node.operations.is_empty()
                    && node.surrenders.is_empty()
                    && node.shell.events.lock().is_empty()
                    && node.cache.lockspace().dead().count() == 0
            })
        });
        let on_the_way = self.world.busy_links().into_iter().any(|(_, to)| members.contains(&to));
        let dead_are_over = self.world.dead.values().all(|died| died.is_recovered);
        all_idle && !on_the_way && dead_are_over
    }

    fn unfinished(&self) -> String {
        let mut text = String::new();
        for (member, node) in &self.world.nodes {
            text += &format!("\n{member} {:?}", node.cache);
            for cached in node.cache.cached() {
                text += &format!("\n  {cached:?}");
            }
            for operation in &node.operations {
                let stage = match &operation.stage {
                    Stage::Waiting(_) => "waits",
                    Stage::Working(..) => "works",
                    Stage::Ended(_) => "has ended",
                };
                text += &format!("\n  {:?} {:?} {stage}", operation.what, operation.at);
            }
            for state in node.cache.lockspace().resources() {
                text += &format!("\n  home of {}", state.describe(self.world.instant()));
            }
        }
        for (dead, died) in &self.world.dead {
            text += &format!("\ndead {dead} recovered {}", died.is_recovered);
        }
        text
    }
}

#[expect(clippy::disallowed_methods, reason = "the seeds come from whoever runs the test")]
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("LCL_SEEDS") else { return 0..50 };
    let (from, to) = text.split_once("..").expect("LCL_SEEDS=A..B");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn whatever_happens_every_read_sees_the_last_write() {
    for seed in seeds() {
        let guard = Named(seed);
        run(seed);
        std::mem::forget(guard);
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in seeds().take(5) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

struct Named(u64);

impl Drop for Named {
    #[expect(clippy::print_stderr, reason = "the seed of a failure has to be seen")]
    fn drop(&mut self) {
        eprintln!("failed with seed {}", self.0);
    }
}
