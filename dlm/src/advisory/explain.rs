//! Who holds and waits for advisory locks: the state as an administrator asks for it.
//!
//! Plain values, made on request; changes nothing.

use mx_base::Member;

use super::pieces::{Access, Span};
use super::{How, Owner};
use crate::lockspace::Lockspace;
use crate::name::{Bucket, ResourceName};

/// A range that somebody holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClaimHolder {
    pub name: ResourceName,
    pub bucket: Bucket,
    pub member: Member,
    pub owner: Owner,
    pub pid: u32,
    pub span: Span,
    pub access: Access,
}

/// A range that somebody waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimWaiter {
    pub wanted: ClaimHolder,
    pub how: How,
    /// Who holds what is in its way; nobody while its home may not decide.
    pub waits_for: Vec<(Member, Owner)>,
}

impl Lockspace {
    /// What is held of the resources that this node is the home of, the dead's included.
    pub fn claims_held(&self) -> impl Iterator<Item = ClaimHolder> + '_ {
        self.advisory.home.files().flat_map(|(bucket, name, file)| {
            file.held().map(move |((member, owner), piece)| {
                let (pid, span, access) = (piece.pid, piece.span, piece.access);
                ClaimHolder { name, bucket, member, owner, pid, span, access }
            })
        })
    }

    /// Who waits at this node, in the order in which they do.
    pub fn claims_waiting(&self) -> impl Iterator<Item = ClaimWaiter> + '_ {
        self.advisory.home.files().flat_map(|(bucket, name, file)| {
            file.waiting().map(move |(waiter, waits_for)| {
                let (pid, span, access) = (waiter.pid, waiter.span, waiter.access);
                let (member, owner) = (waiter.key.member, waiter.owner);
                let wanted = ClaimHolder { name, bucket, member, owner, pid, span, access };
                ClaimWaiter { wanted, how: waiter.how, waits_for }
            })
        })
    }

    /// What this node's own owners rely on, wherever its home is.
    pub fn own_claims(&self) -> impl Iterator<Item = ClaimHolder> + '_ {
        let member = self.me;
        self.advisory.own.all().flat_map(move |(bucket, name, owner, pieces)| {
            pieces.iter().map(move |piece| {
                let (pid, span, access) = (piece.pid, piece.span, piece.access);
                ClaimHolder { name, bucket, member, owner, pid, span, access }
            })
        })
    }
}
