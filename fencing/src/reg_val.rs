//! The value of the register: who is in the cluster, who is administrator, who is being fenced.
//!
//! Keeps true, from disk and after every change:
//! * every member has an incarnation, and the administrator is a member; there is one whenever
//!   there are members;
//! * there are victims exactly when the phase is not [`Phase::Stable`];
//! * `incarnations` never goes back, so that no life of a node is ever taken for another.

use std::fmt;

use mx_base::{Incarnation, Member, NodeId, SanGeneration, View, ViewId};

use crate::layout::ConfigImage;
use crate::node_set::NodeSet;
use crate::proof::Victim;

/// How far the cluster has come with its victims (R14).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// Nobody is to be fenced or recovered.
    Stable,
    /// The victims are being fenced; none of their journals may be replayed yet.
    Fencing,
    /// Every victim is proven fenced; their journals are being replayed.
    Fenced,
    /// The victims' journals have been replayed. They stay listed until the next change.
    Recovered,
}

/// The newest incarnation that was ever given to each node id; 0 for none yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Incarnations(Box<[u32; NodeId::MAX as usize]>);

impl Incarnations {
    pub fn from_array(array: [u32; NodeId::MAX as usize]) -> Incarnations {
        Incarnations(Box::new(array))
    }

    pub fn as_array(&self) -> &[u32; NodeId::MAX as usize] {
        &self.0
    }

    pub fn newest(&self, node: NodeId) -> Incarnation {
        Incarnation(self.0[node.index()])
    }

    pub(crate) fn give(&mut self, member: Member) {
        assert!(
            member.incarnation > self.newest(member.node),
            "incarnations grow: {member} after {}",
            self.newest(member.node)
        );
        self.0[member.node.index()] = member.incarnation.0;
    }
}

impl fmt::Debug for Incarnations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = (1..=NodeId::MAX).filter_map(NodeId::new).map(|node| (node, self.newest(node)));
        f.debug_map().entries(given.filter(|(_, incarnation)| incarnation.0 != 0)).finish()
    }
}

/// The configuration image that is in force, and what it must hash to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigPointer {
    pub image: ConfigImage,
    /// Bytes, at most 64 KiB.
    pub len: u32,
    pub blake3: [u8; 32],
}

/// Which change of which start of which node made the value: with it no two values that were
/// proposed independently are equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Author {
    pub node: NodeId,
    pub nonce: u64,
    pub serial: u32,
}

/// The value of the register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegVal {
    pub(crate) generation: SanGeneration,
    pub(crate) view: ViewId,
    pub(crate) phase: Phase,
    pub(crate) administrator: Option<Member>,
    pub(crate) members: NodeSet,
    pub(crate) victims: NodeSet,
    pub(crate) incarnations: Incarnations,
    pub(crate) config: Option<ConfigPointer>,
    pub(crate) author: Option<Author>,
}

impl RegVal {
    /// Before the first change: nobody is in the cluster and nobody ever was.
    pub fn initial() -> RegVal {
        RegVal {
            generation: SanGeneration(0),
            view: ViewId(0),
            phase: Phase::Stable,
            administrator: None,
            members: NodeSet::EMPTY,
            victims: NodeSet::EMPTY,
            incarnations: Incarnations::from_array([0; NodeId::MAX as usize]),
            config: None,
            author: None,
        }
    }

    /// Grows by one with every committed change.
    pub fn generation(&self) -> SanGeneration {
        self.generation
    }

    pub fn view_id(&self) -> ViewId {
        self.view
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn administrator(&self) -> Option<Member> {
        self.administrator
    }

    /// The nodes that are members.
    pub fn member_nodes(&self) -> NodeSet {
        self.members
    }

    pub fn members(&self) -> Vec<Member> {
        self.members.iter().map(|node| self.newest_life(node)).collect()
    }

    /// The committed view.
    pub fn view(&self) -> View {
        View::new(self.view, self.generation, self.members())
    }

    /// Is this life of the node a member?
    pub fn contains(&self, member: Member) -> bool {
        self.members.contains(member.node) && self.newest_life(member.node) == member
    }

    /// Newest incarnation ever given to `node`; 0 for none.
    pub fn newest_incarnation(&self, node: NodeId) -> Incarnation {
        self.incarnations.newest(node)
    }

    pub fn config(&self) -> Option<ConfigPointer> {
        self.config
    }

    pub fn author(&self) -> Option<Author> {
        self.author
    }

    /// The lives that are to be fenced and recovered, or were last ([`Phase::Recovered`]).
    pub fn victims(&self) -> Vec<Victim> {
        self.victims.iter().map(|node| self.victim(node)).collect()
    }

    /// Victims whose fence is not known to be proven.
    pub fn unfenced(&self) -> NodeSet {
        match self.phase {
            Phase::Fencing => self.victims,
            Phase::Stable | Phase::Fenced | Phase::Recovered => NodeSet::EMPTY,
        }
    }

    /// Victims whose journals are not known to be replayed.
    pub fn unrecovered(&self) -> NodeSet {
        match self.phase {
            Phase::Fencing | Phase::Fenced => self.victims,
            Phase::Stable | Phase::Recovered => NodeSet::EMPTY,
        }
    }

    /// Every life but the one that is a member: a node may have joined again while what its former
    /// life left behind is still being recovered.
    fn victim(&self, node: NodeId) -> Victim {
        let newest = self.incarnations.newest(node).0;
        let up_to = if self.members.contains(node) { newest - 1 } else { newest };
        Victim { node, up_to: Incarnation(up_to) }
    }

    fn newest_life(&self, node: NodeId) -> Member {
        Member { node, incarnation: self.incarnations.newest(node) }
    }

    /// The first of the invariants above that does not hold.
    pub(crate) fn violation(&self) -> Option<&'static str> {
        let has_life = |node| self.incarnations.newest(node).0 != 0;
        if !self.members.iter().all(has_life) {
            return Some("a member without an incarnation");
        }
        match self.administrator {
            Some(administrator) if !self.contains(administrator) => {
                return Some("an administrator who is no member");
            }
            None if !self.members.is_empty() => return Some("members without an administrator"),
            Some(_) | None => {}
        }
        if self.victims.is_empty() != (self.phase == Phase::Stable) {
            return Some("victims and phase contradict each other");
        }
        if !self.victims.iter().all(|node| has_life(node) && self.victim(node).up_to.0 != 0) {
            return Some("a victim that never lived");
        }
        if self.author.is_none() != (self.generation.0 == 0) {
            return Some("a change without an author");
        }
        if self.generation.0 > u64::MAX / 2 {
            return Some("a generation out of range");
        }
        (self.view.0 > self.generation.0).then_some("more views than changes")
    }
}
