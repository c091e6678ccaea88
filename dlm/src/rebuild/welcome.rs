//! What a joiner has to be told with its first view: a table that cannot be computed from the
//! members alone, and the dead.

use std::collections::BTreeMap;

use mx_base::{Incarnation, Member, NodeId, View, ViewId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::dead::{Dead, DeadTable};
use crate::name::Bucket;

/// The state of the lockspace under one view, as a member of it knows it. Good for entering that
/// view and no other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    view: ViewId,
    epochs: Vec<ViewId>,
    /// The latest life of each node that any view has shown.
    newest: BTreeMap<NodeId, Incarnation>,
    dead: DeadTable,
}

/// Why a welcome does not admit to a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WelcomeError {
    #[error("the welcome is for view {welcome:?}, the view is {view:?}")]
    OtherView { welcome: ViewId, view: ViewId },
    #[error("a welcome has {} bytes, and {} for each of at most {} dead", FIXED, DEAD, DEAD_MAX)]
    Length,
    #[error("a bucket's epoch is after the view, or none")]
    Epoch,
    #[error("an entry of the dead is not well formed")]
    Dead,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DeadField {
    node: U16,
    /// 1: recovered; 2: caches gone.
    flags: u8,
    zero: u8,
    incarnation: U32,
    lost_in: U64,
}

const DEAD: usize = size_of::<DeadField>();
const LIVES: usize = NodeId::MAX as usize;
const FIXED: usize = 8 + 8 * Bucket::COUNT as usize + 4 * LIVES;
/// Four times the slots of a file system, each of which one dead member can leave unrecovered.
const DEAD_MAX: usize = 4096;
const RECOVERED: u8 = 1;
const CACHES_GONE: u8 = 2;
const _: () = assert!(DEAD == 16);

impl Welcome {
    /// For the first view of a cluster that starts: nobody holds anything, but `dead`, whose
    /// journals nobody has replayed yet, may have left anything in any state. Their caches went
    /// with their machines' last mount of an earlier cluster unless `caches_gone` says less.
    pub fn cold(view: &View, dead: &[Member], caches_gone: bool) -> Welcome {
        let facts = Dead { lost_in: view.id, recovered: false, caches_gone };
        Welcome {
            view: view.id,
            epochs: vec![view.id; usize::from(Bucket::COUNT)],
            newest: BTreeMap::new(),
            dead: dead.iter().map(|member| (*member, facts)).collect(),
        }
    }

    pub(crate) fn new(
        view: ViewId,
        epochs: &[ViewId],
        newest: &BTreeMap<NodeId, Incarnation>,
        dead: &DeadTable,
    ) -> Welcome {
        Welcome { view, epochs: epochs.to_vec(), newest: newest.clone(), dead: dead.clone() }
    }

    pub fn view(&self) -> ViewId {
        self.view
    }

    /// The dead of whom something is left.
    pub fn dead(&self) -> &DeadTable {
        &self.dead
    }

    pub(crate) fn epochs(&self) -> &[ViewId] {
        &self.epochs
    }

    pub(crate) fn newest(&self) -> &BTreeMap<NodeId, Incarnation> {
        &self.newest
    }

    /// View; epoch of each bucket; latest life of each possible node, 0 for none; the dead.
    /// Little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + DEAD * self.dead.len());
        out.extend_from_slice(&self.view.0.to_le_bytes());
        for epoch in &self.epochs {
            out.extend_from_slice(&epoch.0.to_le_bytes());
        }
        for node in (1..=NodeId::MAX).filter_map(NodeId::new) {
            let life = self.newest.get(&node).map_or(0, |life| life.0);
            out.extend_from_slice(&life.to_le_bytes());
        }
        for (member, facts) in &self.dead {
            let flags = if facts.recovered { RECOVERED } else { 0 }
                | if facts.caches_gone { CACHES_GONE } else { 0 };
            let field = DeadField {
                node: U16::new(member.node.get()),
                flags,
                zero: 0,
                incarnation: U32::new(member.incarnation.0),
                lost_in: U64::new(facts.lost_in.0),
            };
            out.extend_from_slice(field.as_bytes());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Welcome, WelcomeError> {
        let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or(WelcomeError::Length)?;
        if rest.len() % DEAD != 0 || rest.len() / DEAD > DEAD_MAX {
            return Err(WelcomeError::Length);
        }
        let (numbers, lives) = fixed.split_at(FIXED - 4 * LIVES);
        let mut numbers = numbers.chunks_exact(8).map(|chunk| {
            ViewId(u64::from_le_bytes(chunk.try_into().expect("a chunk has 8 bytes")))
        });
        let view = numbers.next().ok_or(WelcomeError::Length)?;
        let epochs: Vec<ViewId> = numbers.collect();
        if epochs.iter().any(|epoch| *epoch == ViewId(0) || *epoch > view) {
            return Err(WelcomeError::Epoch);
        }
        let newest = (1..=NodeId::MAX)
            .filter_map(NodeId::new)
            .zip(lives.chunks_exact(4))
            .map(|(node, chunk)| {
                let life = u32::from_le_bytes(chunk.try_into().expect("a chunk has 4 bytes"));
                (node, Incarnation(life))
            })
            .filter(|(_, life)| life.0 != 0)
            .collect();
        let mut dead = DeadTable::new();
        for chunk in rest.chunks_exact(DEAD) {
            let field = DeadField::read_from_bytes(chunk).map_err(|_| WelcomeError::Dead)?;
            let node = NodeId::new(field.node.get()).ok_or(WelcomeError::Dead)?;
            let member = Member { node, incarnation: Incarnation(field.incarnation.get()) };
            let lost_in = ViewId(field.lost_in.get());
            let is_known = field.zero == 0 && field.flags & !(RECOVERED | CACHES_GONE) == 0;
            let in_order = dead.last_key_value().is_none_or(|(last, _)| *last < member);
            if !is_known || !in_order || lost_in > view {
                return Err(WelcomeError::Dead);
            }
            let recovered = field.flags & RECOVERED != 0;
            let caches_gone = field.flags & CACHES_GONE != 0;
            dead.insert(member, Dead { lost_in, recovered, caches_gone });
        }
        Ok(Welcome { view, epochs, newest, dead })
    }
}

#[cfg(test)]
mod tests {
    use mx_base::SanGeneration;

    use super::*;

    fn member(node: u16, incarnation: u32) -> Member {
        let node = NodeId::new(node).expect("in range");
        Member { node, incarnation: Incarnation(incarnation) }
    }

    fn welcome() -> Welcome {
        let view = View::new(ViewId(9), SanGeneration(9), vec![member(1, 1)]);
        let mut welcome = Welcome::cold(&view, &[member(3, 2), member(2, 0x0102_0304)], true);
        welcome.newest.insert(member(2, 1).node, Incarnation(0x0102_0305));
        welcome
    }

    #[test]
    fn a_welcome_survives_its_encoding() {
        let bytes = welcome().encode();
        assert_eq!(bytes.len(), FIXED + 2 * DEAD);
        assert_eq!(bytes[..16], [9, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        let lives = FIXED - 4 * LIVES;
        assert_eq!(bytes[lives..lives + 12], [0, 0, 0, 0, 5, 3, 2, 1, 0, 0, 0, 0]);
        assert_eq!(bytes[FIXED..FIXED + DEAD], [2, 0, 2, 0, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Welcome::decode(&bytes), Ok(welcome()));
    }

    #[test]
    fn bytes_that_are_no_welcome_are_refused() {
        let good = welcome().encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Welcome::decode(&bytes)
        };
        assert_eq!(Welcome::decode(&good[..FIXED - 1]), Err(WelcomeError::Length));
        assert_eq!(Welcome::decode(&good[..good.len() - 1]), Err(WelcomeError::Length));
        assert_eq!(with(8, 10), Err(WelcomeError::Epoch));
        assert_eq!(with(8, 0), Err(WelcomeError::Epoch));
        assert_eq!(with(FIXED, 0), Err(WelcomeError::Dead), "node 0");
        assert_eq!(with(FIXED, 3), Err(WelcomeError::Dead), "out of order");
        assert_eq!(with(FIXED + 2, 4), Err(WelcomeError::Dead), "unknown flag");
        assert_eq!(with(FIXED + 8, 10), Err(WelcomeError::Dead), "lost after the view");
    }
}
