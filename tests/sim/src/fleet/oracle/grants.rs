//! Rule: no two members that may use what they have cached hold modes that exclude each other on one
//! resource (I6). What excludes what is told by the meaning of the modes in `tests/model`, not by the
//! lock manager's own table.
//!
//! Looked at with every change: behind each step of a node, what it holds otherwise than before is
//! told to the model's [`Holds`]. A step is never looked into, for nobody else acts within it. Whoever
//! may not use what it holds (its permit has run out, its life is over, it was fenced) is set aside
//! when somebody else gets what excludes that, and compared again as soon as it may. CR of a member
//! that another's newer view does not contain stands in nobody's way there (`locks.md` 6).
//!
//! At every new view of a node, every so many steps, and when all is quiet, the lock manager and the lock cache are also
//! asked for their own invariants, which are assertions.

use std::collections::BTreeMap;
use std::sync::Arc;

use lcl::{Mode, ResourceName};
use model::locks::{self, Conflict, Holds};
use mx_base::{Member, ViewId};
use mx_node::Node;
use parking_lot::Mutex;

use crate::exec::Group;
use crate::fleet::Fleet;
use crate::fleet::host::{Life, Living};

/// Steps of a node between two looks at the invariants of its locks, which take long.
const INVARIANTS_EVERY: u32 = 8_192;

/// What a member may use, each in a place of the lock cache.
type Places = Vec<Option<(ResourceName, Mode)>>;

/// What all members hold, as of their last steps.
#[derive(Default)]
pub(in crate::fleet) struct Grants(Mutex<State>);

#[derive(Default)]
struct State {
    /// By file system.
    holds: Vec<Holds>,
    watched: BTreeMap<Group, Watched>,
    /// What processes that are gone held for writing where they had mounted, by file system.
    gone: BTreeMap<Member, Vec<BTreeMap<ResourceName, Mode>>>,
}

struct Watched {
    living: Living,
    view: Option<ViewId>,
    changes: u64,
    steps: u32,
    /// By file system.
    places: Vec<Places>,
    is_set_aside: bool,
}

/// Somebody else than the writer of a block, and what it holds of the lock that covers it.
pub(in crate::fleet) struct Other {
    pub(in crate::fleet) member: Member,
    pub(in crate::fleet) mode: Mode,
    /// It may use it at this moment.
    pub(in crate::fleet) may_use: bool,
}

fn in_model(mode: Mode) -> locks::Mode {
    match mode {
        Mode::NL => locks::Mode::NL,
        Mode::CR => locks::Mode::CR,
        Mode::CW => locks::Mode::CW,
        Mode::PR => locks::Mode::PR,
        Mode::PW => locks::Mode::PW,
        Mode::EX => locks::Mode::EX,
    }
}

impl Grants {
    /// From now on the life is looked at behind each of its steps.
    pub(in crate::fleet) fn watch(&self, life: &Arc<Life>, node: &Arc<Node>, volumes: usize) {
        let state = &mut *self.0.lock();
        state.holds.resize_with(volumes, Holds::new);
        let watched = Watched {
            living: Living { life: Arc::clone(life), node: Arc::clone(node) },
            view: None,
            changes: 0,
            steps: 0,
            places: vec![Places::new(); volumes],
            is_set_aside: false,
        };
        state.watched.insert(life.group(), watched);
    }

    /// The process is gone. What it held for writing is nobody's before it is proven fenced.
    pub(in crate::fleet) fn died(&self, life: &Life) {
        let state = &mut *self.0.lock();
        let Some(of) = state.watched.remove(&life.group()) else { return };
        state.holds.iter_mut().for_each(|holds| holds.end(life.member));
        let of_volume = |(volume, places): (usize, Places)| {
            let held = places.into_iter().flatten().filter(|(_, mode)| mode.writes());
            held.filter(|_| life.mount(volume).is_some()).collect()
        };
        let held = of.places.into_iter().enumerate().map(of_volume).collect();
        state.gone.insert(life.member, held);
    }

    /// A step of this group has ended.
    pub(in crate::fleet) fn look(&self, fleet: &Fleet, group: Group) {
        let state = &mut *self.0.lock();
        let Some(of) = state.watched.get_mut(&group) else { return };
        let (view, changes) = of.living.node.lock_changes();
        of.steps += 1;
        let is_new_view = of.view != view;
        if is_new_view {
            of.view = view;
            fleet.views.check(&fleet.oracle, &of.living);
        }
        if is_new_view || of.steps.is_multiple_of(INVARIANTS_EVERY) {
            of.living.node.check_locks();
        }
        if of.changes != changes || of.is_set_aside {
            of.changes = changes;
            state.take_in(fleet, group);
        }
    }

    /// Asks everybody for the invariants of its locks.
    pub(in crate::fleet) fn check_invariants(&self) {
        self.0.lock().watched.values().for_each(|of| of.living.node.check_locks());
    }

    /// Everybody else that may hold something of this lock, who has mounted the file system. Whoever
    /// had its mount revoked keeps its locks until it mounts again, and can write no more.
    pub(in crate::fleet) fn others(
        &self,
        fleet: &Fleet,
        volume: usize,
        name: &ResourceName,
        writer: Member,
    ) -> Vec<Other> {
        let state = &*self.0.lock();
        let of_watched = |of: &Watched| {
            let Living { life, node } = &of.living;
            let table = node.table(fleet.volumes[volume].fs).filter(|_| life.member != writer)?;
            let mode = table.find(name)?.mode();
            life.mount(volume).filter(|_| mode != Mode::NL)?;
            Some(Other { member: life.member, mode, may_use: may_use(fleet, &of.living) })
        };
        let of_gone = |(member, held): (&Member, &Vec<BTreeMap<_, _>>)| {
            let mode = *held[volume].get(name).filter(|_| *member != writer)?;
            Some(Other { member: *member, mode, may_use: false })
        };
        let watched = state.watched.values().filter_map(of_watched);
        watched.chain(state.gone.iter().filter_map(of_gone)).collect()
    }
}

fn may_use(fleet: &Fleet, Living { life, node }: &Living) -> bool {
    !fleet.oracle.is_lost(life.id) && !node.has_ended() && life.is_permitted()
}

impl State {
    /// What one member holds may have changed, or it may use it again.
    fn take_in(&mut self, fleet: &Fleet, group: Group) {
        let of = self.watched.get_mut(&group).expect("it is looked at");
        let comes_back = of.is_set_aside && may_use(fleet, &of.living);
        let is_told = comes_back || !of.is_set_aside;
        of.is_set_aside = !is_told;
        let (mut lowered, mut raised) = (Vec::new(), Vec::new());
        for (i, volume) in fleet.volumes.iter().enumerate() {
            let places = &mut of.places[i];
            if comes_back {
                places.clear();
            }
            of.living.node.see_modes(volume.fs, |at, now| {
                if places.len() <= at {
                    places.push(None);
                }
                let before = std::mem::replace(&mut places[at], now);
                if before == now {
                    return;
                }
                // Something may have got another place.
                let is_held = |(_, mode): &(_, Mode)| *mode != Mode::NL;
                lowered.extend(before.filter(is_held).map(|(name, _)| (i, name, Mode::NL)));
                raised.extend(now.filter(is_held).map(|(name, mode)| (i, name, mode)));
            });
        }
        let member = of.living.life.member;
        if is_told {
            // Set aside by one of its news, it is told of none that follow: it would not be told of
            // their end.
            for news in lowered.into_iter().chain(raised) {
                if !self.tell(fleet, member, news) {
                    break;
                }
            }
        }
    }

    /// Returns whether the member goes on being compared.
    fn tell(
        &mut self,
        fleet: &Fleet,
        member: Member,
        (volume, name, mode): (usize, ResourceName, Mode),
    ) -> bool {
        while let Err(conflict) = self.holds[volume].set(name.as_bytes(), member, in_model(mode)) {
            if let Some(gone) = self.gone_with_cr(&conflict) {
                let lowered = self.holds[volume].set(name.as_bytes(), gone, locks::Mode::NL);
                lowered.expect("a release excludes nobody");
                if gone == member {
                    break;
                }
                continue;
            }
            let excused = self.excused(fleet, &conflict);
            let Some(excused) = excused else {
                fleet.oracle.violation("compatible grants", conflict.to_string());
                return false;
            };
            self.holds.iter_mut().for_each(|holds| holds.end(excused));
            let mut watched = self.watched.values_mut();
            let of = watched.find(|of| of.living.life.member == excused);
            of.expect("who holds something is looked at").is_set_aside = true;
            if excused == member {
                return false;
            }
        }
        true
    }

    /// Who of the two may not use what it holds.
    fn excused(&self, fleet: &Fleet, conflict: &Conflict) -> Option<Member> {
        let mut both = [conflict.other, conflict.holder].into_iter();
        both.find(|member| self.living(*member).is_some_and(|living| !may_use(fleet, living)))
    }

    /// Who of the two has only CR, and is no member any more in the newer view of the other.
    fn gone_with_cr(&self, conflict: &Conflict) -> Option<Member> {
        let Conflict { holder, mode, other, other_mode, .. } = conflict;
        let view = |member| self.living(member).and_then(|living| living.node.view());
        let is_gone = |member, mode, other| {
            let (Some(its), Some(newer)) = (view(member), view(other)) else { return false };
            mode == locks::Mode::CR && newer.id > its.id && !newer.contains(member)
        };
        if is_gone(*holder, *mode, *other) {
            Some(*holder)
        } else {
            is_gone(*other, *other_mode, *holder).then_some(*other)
        }
    }

    fn living(&self, member: Member) -> Option<&Living> {
        self.watched.values().map(|of| &of.living).find(|living| living.life.member == member)
    }
}
