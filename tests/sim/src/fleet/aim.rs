//! Deaths in the middle of a recovery: aims them, and counts all there are.
//!
//! A shot ([`Fault::Aimed`](super::plan::Fault::Aimed)) is meant for whoever plays a part in the
//! recovery of the last one that died. Who that is, and since when, is looked up in what the nodes
//! themselves say; from then on its own steps are counted. Shots come one after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mx_base::{Duration, Member};
use mx_node::Surroundings;
use mx_node::report::{self, FsRecovery, Recovery};
use parking_lot::Mutex;

use super::host::{Life, Living, host_of};
use super::plan::{Blow, Part};
use super::{Fleet, WORLD};

/// Between two looks at who does what.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// The same, of a recovery that has been going on for long.
const LOOK_EVERY_MAX: Duration = Duration::from_millis(2);

/// How far a recovery is, by what all nodes together know; the later, the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// There is no view without the dead one yet.
    Unnoticed,
    /// Its fence is not proven.
    Unproven,
    /// Its journal is looked through: nothing that it held is free yet.
    Scan,
    /// Some of what it held is free, and not all of it is replayed.
    Redo,
    /// Everything is replayed, and the register still lists it.
    Replayed,
}

impl Phase {
    pub const ALL: [(Phase, &'static str); 5] = [
        (Phase::Unnoticed, "before a view without it"),
        (Phase::Unproven, "before the proof of its fence"),
        (Phase::Scan, "before anything of it was free"),
        (Phase::Redo, "before all was replayed"),
        (Phase::Replayed, "before the register had it recovered"),
    ];
}

/// What is aimed at whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shot {
    pub(super) part: Part,
    /// Steps of its own that it still takes.
    pub(super) steps: u64,
    pub(super) blow: Blow,
    pub(super) restart: Duration,
}

/// Who has died, what that interrupted, and what is still to come.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    dead: Mutex<Vec<Member>>,
    shots: Mutex<VecDeque<Shot>>,
    hit: Mutex<u32>,
    during: Mutex<BTreeMap<Phase, u32>>,
}

impl Deaths {
    /// Shots that hit somebody, and deaths in the middle of the recovery of another one.
    pub(super) fn counts(&self) -> (u32, BTreeMap<Phase, u32>) {
        (*self.hit.lock(), self.during.lock().clone())
    }

    /// What was not shot yet never is.
    pub(super) fn cease(&self) {
        self.shots.lock().clear();
    }
}

/// What is known of one recovery; `None` when it is over.
fn phase_of<'a>(records: impl Iterator<Item = &'a Recovery> + Clone) -> Option<Phase> {
    let any = |holds: fn(&Recovery) -> bool| records.clone().any(holds);
    let frees = |of: &FsRecovery| of.work.limbo_freed + of.work.limbo_redone > 0;
    let is_replayed = |of: &FsRecovery| of.replayed_ms.is_some();
    if any(|record| record.ended_ms.is_some()) {
        None
    } else if !any(|record| record.fenced_ms.is_some()) {
        Some(Phase::Unproven)
    } else if records.clone().any(|record| {
        !record.file_systems.is_empty() && record.file_systems.iter().all(is_replayed)
    }) {
        Some(Phase::Replayed)
    } else if records.clone().any(|record| record.file_systems.iter().any(frees)) {
        Some(Phase::Redo)
    } else {
        Some(Phase::Scan)
    }
}

/// What everybody says of every recovery.
#[derive(Default)]
struct Records(BTreeMap<report::Member, Vec<Recovery>>);

impl Records {
    fn of(standing: &[Living]) -> Records {
        let mut records = Records::default();
        for Living { node, .. } in standing {
            for recovery in node.recovery_report(&Surroundings::default()).recoveries {
                records.0.entry(recovery.dead).or_default().push(recovery);
            }
        }
        records
    }

    fn is_over(&self, dead: Member) -> bool {
        self.0.get(&dead.into()).is_none_or(|records| phase_of(records.iter()).is_none())
    }

    /// The file systems in which `by` replays what `dead` has left.
    fn is_recoverer(&self, by: Member, dead: Member) -> bool {
        let mut all = self.0.get(&dead.into()).into_iter().flatten().flat_map(|r| &r.file_systems);
        all.any(|of| of.recoverer == Some(by.into()))
    }
}

impl Fleet {
    /// A process dies of something that goes wrong.
    pub(super) fn die(&self, life: &Arc<Life>, is_silent: bool) {
        let during = self.interrupted_by(life);
        if let Some(phase) = during {
            tracing::info!(column = life.member.node.get(), ?phase, "dies during a recovery");
            *self.deaths.during.lock().entry(phase).or_default() += 1;
        }
        self.deaths.dead.lock().push(life.member);
        self.kill(life, is_silent);
    }

    /// The phase of the recovery under way that is the furthest but for its end.
    fn interrupted_by(&self, dying: &Life) -> Option<Phase> {
        let standing = self.standing();
        let is_dying = |dead: &report::Member| *dead == dying.member.into();
        let records = Records::of(&standing);
        let others = records.0.iter().filter(|(dead, _)| !is_dying(dead));
        let phases = others.filter_map(|(_, records)| phase_of(records.iter()));
        let is_listed = |dead: &Member| standing.iter().any(|l| lists(l, *dead));
        let unnoticed = || {
            let is_one = self.deaths.dead.lock().iter().any(is_listed);
            is_one.then_some(Phase::Unnoticed)
        };
        phases
            .min_by_key(|phase| (*phase == Phase::Replayed, std::cmp::Reverse(*phase)))
            .or_else(unnoticed)
    }

    /// Whoever has not died, whether it may serve what it has cached or not.
    fn standing(&self) -> Vec<Living> {
        let lives = self.lives().into_iter().flatten().filter(|l| !self.oracle.is_lost(l.id));
        lives.filter_map(|life| life.node().map(|node| Living { life, node })).collect()
    }

    pub(super) fn shoot(&self, shot: Shot) {
        let is_idle = {
            let shots = &mut *self.deaths.shots.lock();
            shots.push_back(shot);
            shots.len() == 1
        };
        if is_idle {
            self.exec.spawn(WORLD, self.clone().shoot_in_turn());
        }
    }

    async fn shoot_in_turn(self) {
        while let Some(shot) = self.shot() {
            if let Some((dead, life)) = self.take_aim(shot.part).await {
                self.fire(shot, dead, &life).await;
            }
            self.deaths.shots.lock().pop_front();
        }
    }

    fn shot(&self) -> Option<Shot> {
        self.deaths.shots.lock().front().copied()
    }

    /// Waits for whoever plays the part; `None` when the recovery has ended without one.
    async fn take_aim(&self, part: Part) -> Option<(Member, Arc<Life>)> {
        let mut looks = 0;
        while self.shot().is_some() {
            let last = self.deaths.dead.lock().last().copied();
            if let Some(dead) = last {
                let standing = self.standing();
                let is_dropped = standing.iter().any(|l| acts(l) && !lists(l, dead));
                let player = match is_dropped {
                    true => {
                        looks += 1;
                        let records = Records::of(&standing);
                        if records.is_over(dead) {
                            return None;
                        }
                        self.player(part, dead, &standing, &records)
                    }
                    false => player_before(part, dead, &standing),
                };
                if let Some(life) = player {
                    return Some((dead, life));
                }
            }
            self.exec.sleep((LOOK_EVERY * (1 + looks / 50)).min(LOOK_EVERY_MAX)).await;
        }
        None
    }

    /// Who plays the part, now that there is a view without the dead one.
    fn player(
        &self,
        part: Part,
        dead: Member,
        standing: &[Living],
        records: &Records,
    ) -> Option<Arc<Life>> {
        let inside: Vec<&Living> = standing.iter().filter(|l| acts(l) && !lists(l, dead)).collect();
        let leader = inside.iter().min_by_key(|l| l.life.member);
        let administrator = inside.iter().find(|l| administrates(l));
        let recoverer = inside.iter().find(|l| records.is_recoverer(l.life.member, dead));
        let of = |one: Option<&&Living>| one.map(|l| Arc::clone(&l.life));
        let is_any =
            |l: &Living, one: Option<&&Living>| one.is_some_and(|one| one.life.id == l.life.id);
        match part {
            Part::Coordinator => of(leader),
            Part::Candidate | Part::Administrator => of(administrator),
            Part::Recoverer => of(recoverer),
            Part::Heir => {
                let heirs: Vec<&&Living> = inside.iter().filter(|l| rebuilds(l, dead)).collect();
                (!heirs.is_empty()).then(|| Arc::clone(&self.exec.draw(|r| r.pick(&heirs)).life))
            }
            Part::Bystander => {
                recoverer?;
                let has_part =
                    |l: &Living| [leader, administrator, recoverer].iter().any(|o| is_any(l, *o));
                of(inside.iter().find(|l| !has_part(l)))
            }
        }
    }

    /// Lets the steps pass, and strikes; over when it is struck, or nothing is left to strike.
    async fn fire(&self, shot: Shot, dead: Member, life: &Arc<Life>) {
        let is_struck = Arc::new(AtomicBool::new(false));
        let (fleet, of, struck) = (self.clone(), Arc::clone(life), Arc::clone(&is_struck));
        self.exec.after_polls(life.group(), shot.steps, move || {
            struck.store(true, Ordering::SeqCst);
            if of.node().is_some() {
                fleet.strike(shot, dead, &of);
            }
        });
        while !is_struck.load(Ordering::SeqCst) && life.node().is_some() && self.shot().is_some() {
            self.exec.sleep(LOOK_EVERY).await;
        }
    }

    fn strike(&self, shot: Shot, dead: Member, life: &Arc<Life>) {
        tracing::info!(column = life.member.node.get(), ?shot, %dead, "AIMED");
        *self.deaths.hit.lock() += 1;
        match shot.blow {
            Blow::Crash => self.crash(life, shot.restart),
            Blow::PowerOff => self.power_off(life, shot.restart),
            Blow::Leave => {
                if life.has_mounted() && !life.is_leaving() {
                    self.want_later(host_of(life.member.node), shot.restart);
                    self.leave(Arc::clone(life));
                }
            }
            Blow::Return => self.want_at_once(host_of(dead.node)),
        }
    }
}

/// Acts in a view.
fn acts(of: &Living) -> bool {
    of.node.view().is_some()
}

/// Acts in a view that has `member` in it.
fn lists(of: &Living, member: Member) -> bool {
    of.node.view().is_some_and(|view| view.members().contains(&member))
}

fn administrates(of: &Living) -> bool {
    let view = of.node.status(&Surroundings::default()).view;
    view.is_some_and(|view| view.administrator == Some(of.life.member.into()))
}

/// Takes in, as an heir, what was homed on the dead one.
fn rebuilds(of: &Living, dead: Member) -> bool {
    let report = of.node.recovery_report(&Surroundings::default());
    let recovery = report.recoveries.iter().find(|r| r.dead == dead.into());
    recovery.is_some_and(|r| r.file_systems.iter().any(|of| of.work.buckets_rebuilt.is_none()))
}

/// Who has the view without the dead one made, and who commits it.
fn player_before(part: Part, dead: Member, standing: &[Living]) -> Option<Arc<Life>> {
    let members = || standing.iter().filter(|l| lists(l, dead));
    let is_at = |activity| members().find(|l| l.node.activity() == activity);
    let (asking, committing) = (is_at("asking the members"), is_at("committing"));
    match part {
        Part::Coordinator => asking.or(committing).map(|l| Arc::clone(&l.life)),
        Part::Candidate => {
            committing?;
            let candidate = members().find(|l| administrates(l));
            let lowest = || members().min_by_key(|l| l.life.member);
            candidate.or_else(lowest).map(|l| Arc::clone(&l.life))
        }
        Part::Administrator | Part::Heir | Part::Recoverer | Part::Bystander => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mx_node::report::{FileSystem, Work};

    fn recovery(change: impl FnOnce(&mut Recovery)) -> Recovery {
        let mut recovery = Recovery {
            dead: report::Member { node: 3, incarnation: 1 },
            suspected_ago_ms: 100,
            dropped_ms: 1,
            fenced_ms: Some(2),
            ended_ms: None,
            file_systems: vec![FsRecovery {
                fs: FileSystem { id: String::new(), label: String::new() },
                recoverer: None,
                rebuilt_ms: None,
                replayed_ms: None,
                resumed_ms: None,
                ending: None,
                replay: None,
                work: Work::default(),
            }],
        };
        change(&mut recovery);
        recovery
    }

    #[test]
    fn a_recovery_is_as_far_as_anybody_knows() {
        let behind = recovery(|r| r.fenced_ms = None);
        for (phase, ahead) in [
            (Some(Phase::Unproven), behind.clone()),
            (Some(Phase::Scan), recovery(|_| {})),
            (Some(Phase::Redo), recovery(|r| r.file_systems[0].work.limbo_freed = 1)),
            (Some(Phase::Replayed), recovery(|r| r.file_systems[0].replayed_ms = Some(3))),
            (None, recovery(|r| r.ended_ms = Some(4))),
        ] {
            assert_eq!(phase_of([&behind, &ahead].into_iter()), phase);
            assert_eq!(phase_of([&ahead, &behind].into_iter()), phase);
        }
    }
}
