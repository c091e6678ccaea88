//! The cluster as a model for a checker that visits every state: bounds, events, what must hold.
//!
//! Links are ordered, and their messages arrive at any time later. Of what a dead node sent some
//! first part arrives. A panic of a lock manager is one more thing that must not be: it does not
//! end the exploration without telling the way that led there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dlm::rebuild::welcome::Welcome;
use dlm::{Bucket, BucketName, LockId, Lockspace, Mode, ResourceName};
use mx_base::{Incarnation, Member, NodeId, SanGeneration, View, ViewId};
use stateright::Property;

use crate::cluster::{Budget, Cluster, LOCKSPACE, NOW, What, Who, lingers};
use crate::oracle;

/// How far one exploration goes.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Members of the first view: nodes 1 to `nodes`.
    pub(crate) nodes: u16,
    /// Who may join later: node and life.
    pub(crate) joiner: Option<(u16, u32)>,
    pub(crate) resources: &'static [Resource],
    /// What is asked for.
    pub(crate) modes: &'static [Mode],
    pub(crate) budget: Budget,
    /// Who may stop, be expelled or leave, by node and in this order.
    pub(crate) mortal: &'static [u16],
    /// Who may ask for locks, by node.
    pub(crate) users: &'static [u16],
    pub(crate) sights: &'static [Sight],
}

/// Something to lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resource {
    /// Its home while all the first members live, by node.
    pub(crate) home: u16,
    /// Its home in a view of the first members without that one.
    pub(crate) heir: u16,
    /// Kernels cache what it protects.
    pub(crate) is_cached: bool,
    /// It moves to who joins.
    pub(crate) goes_to_joiner: bool,
}

/// Something that an exploration within its bounds has to come across, lest it prove nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) name: &'static str,
    pub(crate) is_seen: fn(&Model, &Cluster) -> bool,
}

pub(crate) struct Model {
    pub(crate) bounds: Bounds,
    pub(crate) resources: Vec<BucketName>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    // What must come to pass.
    Deliver {
        from: Who,
        to: Who,
    },
    /// The rest of what is on this link is lost.
    Lose {
        from: Who,
        to: Who,
    },
    Answer {
        who: Who,
        lock: LockId,
    },
    Follow {
        who: Who,
    },
    CatchUp {
        who: Who,
    },
    /// A view without a member that has stopped.
    Drop {
        who: Who,
        by: Who,
    },
    GiveUp {
        who: Who,
        lock: LockId,
    },
    /// A view without a member that has left in order.
    Part {
        who: Who,
        by: Who,
    },
    /// It changes nothing any more; what it held in writing modes has live records, or some of it.
    Fence {
        who: Who,
        live: u8,
    },
    Recover {
        dead: Who,
        by: Who,
    },
    Replay {
        dead: Who,
        what: What,
    },
    Finish {
        dead: Who,
    },
    /// Whoever recovered it died before saying so, and everybody knows.
    Forget {
        dead: Who,
    },
    CutCaches {
        dead: Who,
    },
    TellGone {
        dead: Who,
        to: Who,
    },
    // What may happen.
    Request {
        who: Who,
        what: What,
        wanted: Mode,
        no_queue: bool,
    },
    Convert {
        who: Who,
        lock: LockId,
        wanted: Mode,
        no_queue: bool,
    },
    Lower {
        who: Who,
        lock: LockId,
        to: Mode,
    },
    Unlock {
        who: Who,
        lock: LockId,
    },
    Cancel {
        who: Who,
        lock: LockId,
    },
    Stop {
        who: Who,
    },
    Expel {
        who: Who,
        by: Who,
    },
    Leave {
        who: Who,
    },
    Join {
        who: Who,
        by: Who,
    },
}

const FILE_SYSTEM: &[Mode] = &[Mode::PR, Mode::EX];

/// A resource that kernels cache.
pub(crate) const fn homed(home: u16, heir: u16) -> Resource {
    Resource { home, heir, is_cached: true, goes_to_joiner: false }
}

/// Nothing happens to `nodes` nodes.
pub(crate) const fn calm(nodes: u16) -> Bounds {
    Bounds {
        nodes,
        joiner: None,
        resources: const { &[homed(1, 2)] },
        modes: FILE_SYSTEM,
        budget: Budget::NONE,
        mortal: &[],
        users: &[1, 2, 3, 4],
        sights: &[],
    }
}

fn member(node: u16, incarnation: u32) -> Member {
    let node = NodeId::new(node).expect("in range");
    Member { node, incarnation: Incarnation(incarnation) }
}

impl Bounds {
    fn joiner(&self) -> Option<Member> {
        self.joiner.map(|(node, life)| member(node, life))
    }
}

impl Model {
    pub(crate) fn new(bounds: Bounds) -> Model {
        let first: Vec<Member> = (1..=bounds.nodes).map(|node| member(node, 1)).collect();
        let resources = bounds.resources.iter().enumerate();
        let resources =
            resources.map(|(at, wanted)| placed(at, *wanted, &first, bounds.joiner())).collect();
        Model { bounds, resources }
    }
}

impl stateright::Model for Model {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        let first: Vec<Member> = (1..=self.bounds.nodes).map(|node| member(node, 1)).collect();
        let joiner: Vec<Member> = self.bounds.joiner().into_iter().collect();
        vec![Cluster::start(&first, &joiner, &self.resources, self.bounds.budget)]
    }

    fn actions(&self, cluster: &Cluster, actions: &mut Vec<Action>) {
        if cluster.fault.is_none() {
            self.must(cluster, actions);
            self.may(cluster, actions);
        }
    }

    fn next_state(&self, cluster: &Cluster, action: Action) -> Option<Cluster> {
        let mut next = cluster.clone();
        // An assertion that fails is one more thing to be found, with the way that leads there.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.carry_out(&mut next, action)));
        let outcome = outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(text.unwrap_or_else(|| "a panic without words".to_owned()))
        });
        next.fault = outcome.err();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Model>> {
        let sights = self.bounds.sights.iter();
        let sights = sights.map(|sight| Property::sometimes(sight.name, sight.is_seen));
        let always = [
            Property::always("modes in use go together", oracle::modes_in_use_go_together),
            Property::always("nobody uses what is redone", oracle::nobody_uses_what_is_redone),
            Property::always("nothing is refused", oracle::nothing_is_refused),
            Property::always("at rest nobody waits", oracle::at_rest_nobody_waits),
        ];
        always.into_iter().chain(sights).collect()
    }
}

/// The name of a resource, in a bucket with these homes in views of `members`.
fn placed(at: usize, resource: Resource, members: &[Member], joiner: Option<Member>) -> BucketName {
    let number = u8::try_from(at).expect("few");
    let class = if resource.is_cached { b'c' } else { b'n' };
    let name = ResourceName::new(&[class, b'0' + number]).expect("short");
    let home = |bucket: Bucket, members: Vec<Member>| {
        let view = View::new(ViewId(1), SanGeneration(1), members);
        let mut space = Lockspace::new(LOCKSPACE, view.members()[0], lingers);
        let welcome = Welcome::cold(&view, &[], false);
        space.enter(view, &welcome, NOW).expect("a cold start");
        space.home(bucket).map(|home| home.node.get())
    };
    let bucket = Bucket::all().find(|bucket| {
        let survives = |member: &Member| member.node.get() != resource.home;
        let survivors = members.iter().copied().filter(survives).collect();
        let joined = joiner.is_some_and(|joiner| {
            let beside = |member: &Member| member.node != joiner.node;
            let beside = members.iter().copied().filter(beside);
            home(*bucket, beside.chain([joiner]).collect()) == Some(joiner.node.get())
        });
        home(*bucket, members.to_vec()) == Some(resource.home)
            && home(*bucket, survivors) == Some(resource.heir)
            && joined == resource.goes_to_joiner
    });
    BucketName { bucket: bucket.expect("there is a bucket for every order of homes"), name }
}
