//! What can happen next in a state of the cluster.
//!
//! Two kinds of events: those that must come to pass sooner or later (a message arrives, a callout
//! is answered, a view is followed, a recovery goes on), and those that may (a request, a death, a
//! join), which a budget bounds. A state is at rest when nothing has to come to pass any more.

use dlm::rebuild::RecoveryStep;

use crate::cluster::{Budget, Cluster, Lock, State, Who};
use crate::model::{Action, Model};

impl Model {
    /// Nothing has to come to pass any more.
    pub(crate) fn is_at_rest(&self, cluster: &Cluster) -> bool {
        let mut actions = Vec::new();
        self.must(cluster, &mut actions);
        actions.is_empty()
    }

    // --- what must come to pass ---

    pub(crate) fn must(&self, cluster: &Cluster, actions: &mut Vec<Action>) {
        for (from, to) in cluster.busy_links() {
            if cluster.nodes[to].state != State::Outside || cluster.is_member(to) {
                actions.push(Action::Deliver { from, to });
            }
            if cluster.link(from, to).is_severed {
                actions.push(Action::Lose { from, to });
            }
        }
        for (who, node) in cluster.nodes.iter().enumerate() {
            if !node.is_active() {
                continue;
            }
            let called_out = node.locks.iter().filter(|(_, lock)| lock.callout.is_some());
            actions.extend(called_out.map(|(lock, _)| Action::Answer { who, lock: *lock }));
            if node.state == State::Leaving {
                let kept = node.locks.iter().filter(|(_, lock)| !lock.is_cancelled);
                actions.extend(kept.map(|(lock, _)| Action::GiveUp { who, lock: *lock }));
            }
        }
        for who in cluster.members() {
            let node = &cluster.nodes[who];
            if node.state == State::Stopped {
                let may = coordinators(cluster, who).map(|by| Action::Drop { who, by });
                actions.extend(may);
                continue;
            }
            if node.state == State::Leaving && node.locks.is_empty() {
                actions.extend(coordinators(cluster, who).map(|by| Action::Part { who, by }));
            }
            let missing = cluster.views.len() - node.followed;
            if missing > 0 {
                actions.push(Action::Follow { who });
            }
            if missing > 1 && node.followed > 0 {
                actions.push(Action::CatchUp { who });
            }
        }
        for dead in 0..cluster.nodes.len() {
            self.recovery(cluster, dead, actions);
        }
    }

    fn recovery(&self, cluster: &Cluster, dead: Who, actions: &mut Vec<Action>) {
        let Some(died) = &cluster.dead[dead] else { return };
        let Some(lost_in) = died.lost_in else { return };
        if !died.is_fenced {
            let all: u8 = self.resources.iter().enumerate().map(|(what, _)| 1 << what).sum();
            return actions.extend((0..=all).map(|live| Action::Fence { who: dead, live }));
        }
        if died.caches_cut {
            let untold = cluster.members().filter(|to| {
                let node = &cluster.nodes[*to];
                let knows = node.is_active() && node.space.view().id >= lost_in;
                knows && !node.told_gone.contains(&dead)
            });
            actions.extend(untold.map(|to| Action::TellGone { dead, to }));
        } else {
            actions.push(Action::CutCaches { dead });
        }
        if died.is_recovered {
            return;
        }
        let me = cluster.nodes[dead].space.me();
        let recoverer = died
            .recoverer
            .filter(|by| cluster.is_member(*by) && cluster.nodes[*by].state != State::Stopped);
        let Some(recoverer) = recoverer else { return assign(cluster, dead, actions) };
        let mut under_way = cluster.nodes[recoverer].space.recoveries();
        let is_announcing =
            under_way.any(|(of, step)| of == me && matches!(step, RecoveryStep::Announcing { .. }));
        match &died.redo {
            Some(redo) if redo.is_empty() && !is_announcing => {
                actions.push(Action::Finish { dead });
            }
            Some(redo) => {
                actions.extend(redo.iter().map(|what| Action::Replay { dead, what: *what }));
            }
            None => {}
        }
    }

    // --- what may happen ---

    pub(crate) fn may(&self, cluster: &Cluster, actions: &mut Vec<Action>) {
        let left = &cluster.left;
        let goings = |of: &Budget| usize::from(of.stops + of.expulsions + of.leaves);
        let gone = goings(&self.bounds.budget) - goings(left);
        for (who, node) in cluster.nodes.iter().enumerate() {
            let number = node.space.me().node.get();
            if node.state != State::Running {
                continue;
            }
            if self.bounds.users.contains(&number) {
                self.use_locks(cluster, who, actions);
            }
            let is_next = self.bounds.mortal.get(gone) == Some(&number);
            if !is_next || !cluster.is_member(who) {
                continue;
            }
            let others = || coordinators(cluster, who);
            // Somebody has to be there to see to it.
            if others().next().is_none() {
                continue;
            }
            if left.stops > 0 {
                actions.push(Action::Stop { who });
            }
            if left.expulsions > 0 {
                actions.extend(others().map(|by| Action::Expel { who, by }));
            }
            if left.leaves > 0 && node.followed > 0 {
                actions.push(Action::Leave { who });
            }
        }
        if left.joins > 0 && self.bounds.joiner.is_some() {
            let who = cluster.nodes.len() - 1;
            let node = cluster.nodes[who].space.me().node;
            // A node has one life at a time.
            if cluster.newest().view.member(node).is_none() {
                actions.extend(coordinators(cluster, who).map(|by| Action::Join { who, by }));
            }
        }
    }

    fn use_locks(&self, cluster: &Cluster, who: Who, actions: &mut Vec<Action>) {
        let (node, left) = (&cluster.nodes[who], &cluster.left);
        let patience = || [false, true].into_iter().filter(|no| !no || left.impatient > 0);
        let modes = || self.bounds.modes.iter().copied();
        for what in 0..self.resources.len() {
            let Some((lock, known)) = node.lock_on(what) else {
                if left.requests > 0 {
                    let wanted = modes().flat_map(|wanted| patience().map(move |no| (wanted, no)));
                    let request =
                        |(wanted, no_queue)| Action::Request { who, what, wanted, no_queue };
                    actions.extend(wanted.map(request));
                }
                continue;
            };
            let Lock { held, asked, is_cancelled, .. } = known;
            if asked.is_some() && !is_cancelled && left.cancels > 0 {
                actions.push(Action::Cancel { who, lock });
            }
            let Some(held) = held else { continue };
            if asked.is_none() && left.conversions > 0 {
                let higher = modes().filter(|to| to.covers(held) && *to != held);
                let wanted = higher.flat_map(|wanted| patience().map(move |no| (wanted, no)));
                let convert = |(wanted, no_queue)| Action::Convert { who, lock, wanted, no_queue };
                actions.extend(wanted.map(convert));
            }
            if left.releases > 0 {
                if asked.is_none() {
                    actions.push(Action::Unlock { who, lock });
                }
                let lower = modes().filter(|to| held.covers(*to) && *to != held);
                actions.extend(lower.map(|to| Action::Lower { who, lock, to }));
            }
        }
    }
}

/// Members that act and have followed every view, and so may commit the next.
fn coordinators(cluster: &Cluster, but: Who) -> impl Iterator<Item = Who> + '_ {
    cluster.members().filter(move |by| {
        *by != but && cluster.nodes[*by].is_active() && cluster.is_up_to_date(*by)
    })
}

/// Somebody who knows of the death, once no former recoverer can write any more.
fn assign(cluster: &Cluster, dead: Who, actions: &mut Vec<Action>) {
    let died = cluster.dead[dead].as_ref().expect("dead");
    let me = cluster.nodes[dead].space.me();
    let former_is_fenced = died.recoverer.is_none_or(|former| {
        cluster.dead[former].as_ref().is_some_and(|died| died.is_fenced)
            || cluster.nodes[former].state == State::Stopped
    });
    if !former_is_fenced {
        return;
    }
    let before = actions.len();
    let able = cluster.members().filter(|by| {
        let space = &cluster.nodes[*by].space;
        cluster.nodes[*by].is_active()
            && space.dead().any(|(of, facts)| of == me && !facts.recovered)
            && space.recoveries().all(|(of, _)| of != me)
    });
    actions.extend(able.map(|by| Action::Recover { dead, by }));
    let all_know = cluster.members().all(|who| {
        let space = &cluster.nodes[who].space;
        cluster.is_up_to_date(who) && space.dead().all(|(of, facts)| of != me || facts.recovered)
    });
    if actions.len() == before && all_know {
        actions.push(Action::Forget { dead });
    }
}
