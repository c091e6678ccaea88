//! The exchange between the recoverer of a dead member and the homes.
//!
//! The recoverer tells every home which names have live records in the dead member's journal; each
//! home frees the rest and answers which of them are in limbo; those the recoverer redoes, and tells
//! as they become durable. A home for which somebody begins to wait meanwhile says so, and that comes
//! first. Every step may be repeated: after a change of view the recoverer tells
//! the names that are left again, and a successor starts from the journal.

use std::collections::{BTreeMap, BTreeSet};

use mx_base::Member;

use crate::message::{BucketName, LimboName};

/// A recovery that this node carries out.
#[derive(Clone, Hash)]
pub(crate) struct Recovery {
    /// Live names that are not known to be redone or to need no redoing.
    pub(crate) left: BTreeSet<BucketName>,
    pub(crate) step: Step,
}

#[derive(Clone, Hash)]
pub(crate) enum Step {
    /// Until every member has answered which of the names are in limbo.
    Asking { awaited: BTreeSet<Member>, in_limbo: Vec<LimboName> },
    /// The names were handed out to be redone.
    Redoing,
    /// Until every member knows that nothing is left.
    Announcing { awaited: BTreeSet<Member> },
}

/// What happened last: for `mxctl` and the recovery's time line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoveryStep {
    Asking { unanswered: usize },
    Redoing { left: usize },
    Announcing { unanswered: usize },
}

/// Why a recovery cannot begin or go on here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("{0} is not a dead member that waits for recovery")]
    NotDead(Member),
    #[error("the recovery of {0} is under way here")]
    UnderWay(Member),
    #[error("no recovery of {0} is under way here")]
    NotUnderWay(Member),
}

/// All recoveries that this node carries out.
pub(crate) type Recoveries = BTreeMap<Member, Recovery>;

/// The live names of a dead member as they arrive at a home.
#[derive(Clone, Hash)]
pub(crate) struct LiveNamesAsked {
    pub(crate) recoverer: Member,
    pub(crate) names: BTreeSet<BucketName>,
    pub(crate) is_complete: bool,
}

impl Recovery {
    pub(crate) fn new(names: impl IntoIterator<Item = BucketName>) -> Recovery {
        let step = Step::Asking { awaited: BTreeSet::new(), in_limbo: Vec::new() };
        Recovery { left: names.into_iter().collect(), step }
    }

    /// `from` has answered; the names to redo once it was the last one, those that somebody waits
    /// for first.
    pub(crate) fn answered(
        &mut self,
        from: Member,
        names: Vec<LimboName>,
        last: bool,
    ) -> Option<Vec<BucketName>> {
        let Step::Asking { awaited, in_limbo } = &mut self.step else {
            // Told again after a change of view: what is handed out stays handed out.
            return None;
        };
        in_limbo.extend(names);
        if !last || !awaited.remove(&from) || !awaited.is_empty() {
            return None;
        }
        let mut redo = std::mem::take(in_limbo);
        redo.retain(|limbo| {
            self.left.contains(&BucketName { bucket: limbo.bucket, name: limbo.name })
        });
        redo.sort_by_key(|limbo| (!limbo.waited, limbo.bucket, limbo.name));
        let redo =
            redo.into_iter().map(|limbo| BucketName { bucket: limbo.bucket, name: limbo.name });
        // Named twice when somebody began to wait for it while the question was on the way.
        let mut named = BTreeSet::new();
        let redo: Vec<BucketName> = redo.filter(|name| named.insert(*name)).collect();
        self.left = named;
        self.step = Step::Redoing;
        Some(redo)
    }

    /// Of what was handed out to be redone, what somebody waits for now.
    pub(crate) fn wanted(&self, names: &[LimboName]) -> Vec<BucketName> {
        if !matches!(self.step, Step::Redoing) {
            return Vec::new();
        }
        let wanted = names.iter().filter(|limbo| limbo.waited);
        let wanted = wanted.map(|limbo| BucketName { bucket: limbo.bucket, name: limbo.name });
        wanted.filter(|name| self.left.contains(name)).collect()
    }

    pub(crate) fn summary(&self) -> RecoveryStep {
        match &self.step {
            Step::Asking { awaited, .. } => RecoveryStep::Asking { unanswered: awaited.len() },
            Step::Redoing => RecoveryStep::Redoing { left: self.left.len() },
            Step::Announcing { awaited } => RecoveryStep::Announcing { unanswered: awaited.len() },
        }
    }
}
