//! The search: depth first over the orders that keep who came before whom, with the worlds that each
//! leaves.
//!
//! There is more than one world where a life is lost: at every change of it the worlds fork into those
//! in which the change survives it and those in which it does not. Until the loss has its place in the
//! order everybody else must be explained by the world that lacks nothing of that life; from then on
//! by any of them. An operation that has shown a change to another life has another answer in the
//! worlds without it, which ends them: what was shown is durable.

use std::collections::BTreeSet;

use super::world::World;
use super::{Loss, Op};
use crate::fleet::LifeId;

/// Operations that one search can take.
pub(super) const OPS_MAX: usize = 128;
/// Worlds that one search may try; a window takes some hundreds.
const TRIES: u64 = 300_000;

/// Why there is no order.
#[derive(Debug)]
pub(super) enum Failure {
    /// None explains the answers; these operations are left where most of them are explained.
    None { left: Vec<usize> },
    /// Not all orders were tried.
    GivenUp,
}

/// Those that have their place in the order.
#[derive(Clone)]
struct Path {
    done: u128,
    lost: BTreeSet<LifeId>,
    worlds: Vec<World>,
}

struct Search<'a> {
    ops: &'a [Op],
    losses: &'a [Loss],
    /// By operation, and by loss: what was answered before it began.
    before: Vec<u128>,
    before_loss: Vec<u128>,
    /// By operation: what began when it was over.
    behind: Vec<u128>,
    /// What has happened or not.
    doubtful: u128,
    seen: BTreeSet<(u128, u128, u64)>,
    tries: u64,
    deepest: u128,
}

/// The worlds that an order of the operations leaves.
pub(super) fn search(start: &World, ops: &[Op], losses: &[Loss]) -> Result<World, Failure> {
    if ops.len() > OPS_MAX {
        return Err(Failure::GivenUp);
    }
    let those = |is: &dyn Fn(&Op) -> bool| {
        ops.iter().enumerate().fold(0, |all, (i, op)| all | u128::from(is(op)) << i)
    };
    let before =
        |begun: u64| those(&|other| !other.may_never_have_happened() && other.comes_before(begun));
    let mut search = Search {
        ops,
        losses,
        before: ops.iter().map(|op| before(op.begun)).collect(),
        before_loss: losses.iter().map(|loss| before(loss.at)).collect(),
        behind: ops.iter().map(|op| those(&|other| op.comes_before(other.begun))).collect(),
        doubtful: those(&Op::may_never_have_happened),
        seen: BTreeSet::new(),
        tries: TRIES,
        deepest: 0,
    };
    let path = Path { done: 0, lost: BTreeSet::new(), worlds: vec![start.clone()] };
    match search.go(path) {
        Some(world) => Ok(world),
        None if search.tries == 0 => Err(Failure::GivenUp),
        None => {
            let left = (0..ops.len()).filter(|i| search.deepest >> i & 1 == 0);
            Err(Failure::None { left: left.collect() })
        }
    }
}

/// The members of a set.
fn each(mut set: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = set.trailing_zeros();
        set &= set.checked_sub(1)?;
        Some(usize::try_from(first).expect("small"))
    })
}

impl Search<'_> {
    fn go(&mut self, mut path: Path) -> Option<World> {
        while self.place_losses(&mut path) || self.place_look(&mut path) {}
        if path.done.count_ones() > self.deepest.count_ones() {
            self.deepest = path.done;
        }
        let left = self.all() & !path.done;
        if left & !self.doubtful == 0 {
            return path.worlds.into_iter().next();
        }
        let digest = path.worlds.iter().fold(0_u64, |sum, world| sum.wrapping_add(world.digest()));
        let lost = self.losses.iter().map(|loss| u128::from(path.lost.contains(&loss.life)));
        let lost = lost.fold(0, |all, is_lost| all << 1 | is_lost);
        if self.tries == 0 || !self.seen.insert((path.done, lost, digest)) {
            return None;
        }
        let may_be_next = |i: &usize| self.may_be_next(&path, *i) && !self.is_too_late(&path, *i);
        let mut next: Vec<usize> = each(left).filter(may_be_next).collect();
        next.sort_by_key(|i| (self.ops[*i].ended.unwrap_or(u64::MAX), self.ops[*i].begun));
        for i in next {
            if let Some(after) = self.place(&path, i)
                && let Some(found) = self.go(after)
            {
                return Some(found);
            }
        }
        // Before what the lost had begun, which then never happened.
        for (loss, before) in self.losses.iter().zip(self.before_loss.clone()) {
            if !path.lost.contains(&loss.life) && before & !path.done == 0 {
                let mut after = path.clone();
                after.lose(loss.life);
                if let Some(found) = self.go(after) {
                    return Some(found);
                }
            }
        }
        None
    }

    fn all(&self) -> u128 {
        self.behind.len().checked_sub(1).map_or(0, |last| u128::MAX >> (127 - last))
    }

    /// Has everything its place that was answered before?
    fn may_be_next(&self, path: &Path, i: usize) -> bool {
        self.before[i] & !path.done == 0
    }

    /// Has anything its place that began when this was over?
    fn is_too_late(&self, path: &Path, i: usize) -> bool {
        self.behind[i] & path.done != 0
    }

    /// What may still have happened, or not.
    fn open(&self, path: &Path) -> impl Iterator<Item = usize> {
        each(self.doubtful & !path.done).filter(|i| !self.is_too_late(path, *i))
    }

    /// A loss is placed as early as it may be, unless something of that life may still have happened:
    /// it only lets others see more.
    fn place_losses(&self, path: &mut Path) -> bool {
        for (loss, before) in self.losses.iter().zip(&self.before_loss) {
            let mut left = each(self.all() & !path.done).filter(|i| self.ops[*i].life == loss.life);
            if !path.lost.contains(&loss.life)
                && before & !path.done == 0
                && left.all(|i| self.is_too_late(path, i))
            {
                path.lose(loss.life);
                return true;
            }
        }
        false
    }

    /// What changes nothing and goes with every world is placed as early as it may be, unless that
    /// makes it too late for something.
    fn place_look(&mut self, path: &mut Path) -> bool {
        let left = self.all() & !path.done & !self.doubtful;
        let looks = each(left).filter(|i| !self.ops[*i].has_effect());
        for i in looks.filter(|i| self.may_be_next(path, *i)).collect::<Vec<_>>() {
            let op = &self.ops[i];
            if self.open(path).any(|doubtful| self.behind[doubtful] >> i & 1 == 1) {
                continue;
            }
            self.tries = self.tries.saturating_sub(path.worlds.len() as u64);
            let goes = |world: &World| world.behind(i, op).is_some_and(|(_, changed)| !changed);
            if path.worlds.iter().all(goes) {
                path.done |= 1 << i;
                return true;
            }
        }
        false
    }

    /// The way on with this operation next; `None` when no world that anybody may see goes with it.
    fn place(&mut self, path: &Path, i: usize) -> Option<Path> {
        let op = &self.ops[i];
        if path.lost.contains(&op.life) {
            return None;
        }
        let is_doomed = self.losses.iter().any(|loss| loss.life == op.life);
        let mut worlds = Vec::new();
        for world in &path.worlds {
            self.tries = self.tries.checked_sub(1)?;
            let Some((after, _)) = world.behind(i, op) else { continue };
            worlds.push(after);
            if is_doomed && op.has_effect() {
                worlds.extend(world.without(i, op));
            }
        }
        let mut after = Path { done: path.done | 1 << i, lost: path.lost.clone(), worlds };
        after.see();
        (!after.worlds.is_empty()).then_some(after)
    }
}

impl Path {
    fn lose(&mut self, life: LifeId) {
        self.lost.insert(life);
        self.see();
    }

    /// A world that only more losses can bring about goes with the one that is there before them.
    fn see(&mut self) {
        let seen: BTreeSet<_> = self.worlds.iter().map(|world| world.lacks.clone()).collect();
        self.worlds.retain(|world| seen.contains(&world.lacks.of(&self.lost)));
    }
}
