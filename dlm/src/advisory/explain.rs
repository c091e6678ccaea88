//! Who holds and waits for advisory locks: the state as an administrator asks for it.
//!
//! Plain values, made on request; changes nothing.

use std::collections::BTreeSet;

use mx_base::{Instant, Member};

use super::home::{HomeFile, Waiter};
use super::own::{Asked, AskedStep};
use super::pieces::{Access, Piece, Span};
use super::{Claim, How, Owner};
use crate::lockspace::Lockspace;
use crate::name::{Bucket, ResourceName};
use crate::resource::Phase;

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
    /// Since it was asked for; of another member, since this home knows of it.
    pub since: Instant,
}

/// What is locked of one resource and waited for, as far as this node knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimsState {
    /// This node decides, and this is everything. Else it is about this node's own owners, and who
    /// of other members is in their way only the home knows.
    pub is_all: bool,
    /// What is in the way of the `waiting` comes first.
    pub held: Vec<ClaimHolder>,
    pub held_total: usize,
    /// Whoever has no answer yet, in the order in which they are looked at.
    pub waiting: Vec<ClaimWaiter>,
    pub waiting_total: usize,
    /// Nothing is decided before these members have reported.
    pub unreported: Vec<Member>,
    /// Nothing is decided before these dead are known to be fenced: nobody knows what they hold.
    pub unfenced: Vec<Member>,
}

impl ClaimHolder {
    /// Is what it holds in the way of `wanted`?
    fn forbids(&self, wanted: &ClaimHolder) -> bool {
        let is_another = (self.member, self.owner) != (wanted.member, wanted.owner);
        let sees_it = self.owner.family == wanted.owner.family;
        let overlaps = self.span.overlaps(wanted.span);
        is_another && sees_it && overlaps && !self.access.goes_with(wanted.access)
    }
}

impl Lockspace {
    /// What is held of the resources that this node is the home of, the dead's included.
    pub fn claims_held(&self) -> impl Iterator<Item = ClaimHolder> + '_ {
        self.advisory.home.files().flat_map(|(bucket, name, file)| held_at_home(bucket, name, file))
    }

    /// Who waits at this node, in the order in which they do.
    pub fn claims_waiting(&self) -> impl Iterator<Item = ClaimWaiter> + '_ {
        self.advisory
            .home
            .files()
            .flat_map(|(bucket, name, file)| self.waiting_at_home(bucket, name, file))
    }

    /// What this node's own owners rely on, wherever its home is.
    pub fn own_claims(&self) -> impl Iterator<Item = ClaimHolder> + '_ {
        let member = self.me;
        self.advisory.own.all().flat_map(move |(bucket, name, owner, pieces)| {
            pieces.iter().map(move |piece| holder(bucket, name, (member, owner), piece))
        })
    }

    /// At most `limit` of those who hold anything of a resource, and of those who wait for it.
    pub fn claims_of(&self, name: ResourceName, bucket: Bucket, limit: usize) -> ClaimsState {
        if self.homes.home(bucket) != Some(self.me) {
            return self.own_claims_of(name, bucket, limit);
        }
        let file = self.advisory.home.file(bucket, name);
        let waiting = file.into_iter().flat_map(|file| self.waiting_at_home(bucket, name, file));
        let waiting: Vec<_> = waiting.take(limit).collect();
        let held = file.into_iter().flat_map(|file| held_at_home(bucket, name, file));
        let (held, held_total) = those_in_the_way_first(held, &waiting, limit);
        let here = self.home.bucket(bucket);
        let is_rebuilding = here.is_some_and(|here| here.phase == Phase::Rebuilding);
        let unknown = here.into_iter().flat_map(|here| &here.unknown);
        let unfenced: BTreeSet<Member> =
            unknown.filter(|remnant| remnant.is_limbo()).map(|remnant| remnant.dead).collect();
        ClaimsState {
            is_all: true,
            held,
            held_total,
            waiting,
            waiting_total: file.map_or(0, HomeFile::waiting_count),
            unreported: if is_rebuilding {
                self.unreported_since(self.homes.epoch(bucket))
            } else {
                Vec::new()
            },
            unfenced: unfenced.into_iter().collect(),
        }
    }

    fn own_claims_of(&self, name: ResourceName, bucket: Bucket, limit: usize) -> ClaimsState {
        let me = self.me;
        let held = || {
            let owners = self.advisory.own.owners_of(bucket, &name);
            owners.flat_map(move |(owner, pieces)| {
                pieces.iter().map(move |piece| holder(bucket, name, (me, owner), piece))
            })
        };
        let mut asked = self.advisory.own.asked_in(|of| of == bucket);
        asked.retain(|(_, asked)| asked.name == name && asked.step == AskedStep::Deciding);
        let waiter = |asked: &Asked| {
            let Claim { owner, pid, span, access, how, .. } = asked.claim;
            let wanted = ClaimHolder { name, bucket, member: me, owner, pid, span, access };
            let in_the_way = held().filter(|one| one.forbids(&wanted));
            let waits_for: BTreeSet<_> = in_the_way.map(|one| (me, one.owner)).collect();
            let waits_for = waits_for.into_iter().collect();
            ClaimWaiter { wanted, how, waits_for, since: asked.since }
        };
        let waiting: Vec<_> = asked.iter().take(limit).map(|(_, asked)| waiter(asked)).collect();
        let (held, held_total) = those_in_the_way_first(held(), &waiting, limit);
        let (unreported, unfenced) = (Vec::new(), Vec::new());
        let waiting_total = asked.len();
        ClaimsState {
            is_all: false,
            held,
            held_total,
            waiting,
            waiting_total,
            unreported,
            unfenced,
        }
    }

    fn waiting_at_home<'a>(
        &'a self,
        bucket: Bucket,
        name: ResourceName,
        file: &'a HomeFile,
    ) -> impl Iterator<Item = ClaimWaiter> + 'a {
        file.waiting().map(move |(waiter, waits_for)| {
            let Waiter { key, owner, pid, span, access, how, since, .. } = *waiter;
            let member = key.member;
            let wanted = ClaimHolder { name, bucket, member, owner, pid, span, access };
            // A home that has taken over knows it from its own owners since they asked.
            let own = (member == self.me).then(|| self.advisory.own.get(key.id)).flatten();
            let since = own.map_or(since, |asked| asked.since);
            ClaimWaiter { wanted, how, waits_for, since }
        })
    }
}

fn holder(
    bucket: Bucket,
    name: ResourceName,
    (member, owner): (Member, Owner),
    piece: &Piece,
) -> ClaimHolder {
    let (pid, span, access) = (piece.pid, piece.span, piece.access);
    ClaimHolder { name, bucket, member, owner, pid, span, access }
}

fn held_at_home(
    bucket: Bucket,
    name: ResourceName,
    file: &HomeFile,
) -> impl Iterator<Item = ClaimHolder> + '_ {
    file.held().map(move |(who, piece)| holder(bucket, name, who, piece))
}

/// At most `limit` of what is held, and how much there is.
fn those_in_the_way_first(
    held: impl Iterator<Item = ClaimHolder>,
    waiting: &[ClaimWaiter],
    limit: usize,
) -> (Vec<ClaimHolder>, usize) {
    let (mut first, mut rest, mut total) = (Vec::new(), Vec::new(), 0);
    for claim in held {
        total += 1;
        let is_in_the_way = waiting.iter().any(|waiter| claim.forbids(&waiter.wanted));
        let list = if is_in_the_way { &mut first } else { &mut rest };
        if list.len() < limit {
            list.push(claim);
        }
    }
    first.extend(rest);
    first.truncate(limit);
    (first, total)
}
