//! What was found wrong, and which lives of nodes are lost.
//!
//! One file for every rule that is looked at from outside; each begins with the rule:
//! * [`grants`], [`homes`]: who may use what. [`views`]: which side of a partition goes on.
//! * [`writes`], [`records`], [`metadata`], [`fences`], [`rest`]: what reaches the device, shown to them by
//!   [`judge`]. [`fsck`]: what is there at the end.
//! * [`lives`]: how lives and operations end. [`liveness`], [`bounds`], [`room`],
//!   [`leaves`]: that they do, and when.
//! * [`linearizable`]: what concurrent readers and writers of one object see. [`tree`]: what they see of
//!   names. What one writer at a time leaves is judged by [`super::chain`] and [`super::log_file`].
//!
//! A life is lost when its process has crashed or it was fenced: what it had acknowledged and not
//! made durable may be gone from then on, and what it says does not count.

pub mod bounds;
mod fences;
mod fsck;
pub(super) mod grants;
pub(super) mod homes;
pub(super) mod judge;
pub mod leaves;
pub mod linearizable;
mod liveness;
pub(super) mod lives;
mod metadata;
mod records;
mod rest;
mod room;
pub mod tree;
pub(super) mod views;
mod writes;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use mx_base::{Incarnation, Member, NodeId};
use parking_lot::Mutex;

use super::LifeId;
use crate::exec::Executor;

/// Shared by everybody who looks. Clones are the same one.
#[derive(Clone)]
pub struct Oracle {
    exec: Executor,
    state: Arc<Mutex<State>>,
}

/// Something that is not as it has to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The name of the rule that found it, the same for all that break it.
    pub oracle: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(oracle: &'static str, what: impl Into<String>) -> Violation {
        Violation { oracle, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.oracle, self.what)
    }
}

impl std::error::Error for Violation {}

type Listener = Arc<dyn Fn(LifeId) + Send + Sync>;

#[derive(Default)]
struct State {
    lives: Vec<(LifeId, Member)>,
    lost: BTreeSet<LifeId>,
    violations: Vec<Violation>,
    listeners: Vec<Listener>,
}

impl Oracle {
    pub fn new(exec: &Executor) -> Oracle {
        Oracle { exec: exec.clone(), state: Arc::default() }
    }

    /// Something is not as it has to be.
    pub fn violation(&self, oracle: &'static str, what: String) {
        let (now, _) = crate::exec::running();
        tracing::error!(oracle, what, "VIOLATION");
        self.exec.note(now.0);
        self.state.lock().violations.push(Violation::new(oracle, format!("{now:?}: {what}")));
    }

    /// The first thing that was wrong.
    pub fn first_violation(&self) -> Option<Violation> {
        self.state.lock().violations.first().cloned()
    }

    pub fn born(&self, life: LifeId, member: Member) {
        self.state.lock().lives.push((life, member));
    }

    /// `listener` is told of every life that is lost, once.
    pub fn listen(&self, listener: Listener) {
        self.state.lock().listeners.push(listener);
    }

    pub fn is_lost(&self, life: LifeId) -> bool {
        self.state.lock().lost.contains(&life)
    }

    /// How many lives are lost.
    pub(in crate::fleet) fn losses(&self) -> usize {
        self.state.lock().lost.len()
    }

    pub fn lost(&self, life: LifeId) {
        let listeners = {
            let state = &mut *self.state.lock();
            let is_news = state.lost.insert(life);
            if is_news { state.listeners.clone() } else { Vec::new() }
        };
        // What they find wrong they say here.
        listeners.iter().for_each(|listener| listener(life));
    }

    /// No write of these lives reaches the device from now on.
    pub fn fenced(&self, node: NodeId, up_to: Incarnation) {
        let lives: Vec<LifeId> = {
            let state = self.state.lock();
            let covered = |m: &Member| m.node == node && m.incarnation <= up_to;
            state.lives.iter().filter(|(_, m)| covered(m)).map(|(life, _)| *life).collect()
        };
        lives.into_iter().for_each(|life| self.lost(life));
    }
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oracle").field("first", &self.first_violation()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_while_a_loss_is_told_is_a_violation_and_no_hang() {
        let oracle = Oracle::new(&Executor::new(1));
        let told = oracle.clone();
        oracle.listen(Arc::new(move |life| told.violation("listener", format!("{life:?}"))));
        oracle.lost(LifeId(7));
        assert_eq!(oracle.first_violation().map(|found| found.oracle), Some("listener"));
        oracle.lost(LifeId(7));
        assert_eq!(oracle.state.lock().violations.len(), 1, "told once");
        oracle.state.lock().listeners.clear();
    }
}
