//! What each event does to the cluster.

use dlm::BucketName;
use mx_base::Member;

use crate::cluster::{Cluster, DeadMember, Fault, NOW, Node, State, What, Who};
use crate::model::{Action, Model};

impl Model {
    pub(crate) fn carry_out(&self, cluster: &mut Cluster, action: Action) -> Result<(), Fault> {
        let all = &self.resources[..];
        match action {
            Action::Deliver { from, to } => cluster.deliver(from, to, all),
            Action::Lose { from, to } => {
                cluster.link_mut(from, to).messages.clear();
                Ok(())
            }
            Action::Follow { who } => cluster.follow(who, all),
            Action::CatchUp { who } => cluster.catch_up(who, all),
            Action::Answer { who, lock } => {
                let gives_up = cluster.nodes[who].surrender(lock).is_some();
                let value = if gives_up { cluster.leave_value(who, lock) } else { None };
                self.used(cluster, who, |node| node.answer(lock, value))
            }
            Action::GiveUp { who, lock } => {
                if cluster.nodes[who].locks[&lock].asked.is_some() {
                    return self.used(cluster, who, |node| node.cancel(lock));
                }
                let value = cluster.leave_value(who, lock);
                self.used(cluster, who, |node| node.unlock(lock, value))
            }

            Action::Drop { who, by } => self.commit_without(cluster, who, by, false),
            Action::Expel { who, by } => {
                cluster.left.expulsions -= 1;
                self.commit_without(cluster, who, by, false)?;
                cluster.sever(who);
                Ok(())
            }
            Action::Part { who, by } => {
                self.commit_without(cluster, who, by, true)?;
                cluster.stop(who);
                Ok(())
            }
            Action::Stop { who } => {
                cluster.left.stops -= 1;
                cluster.dead[who].get_or_insert_default();
                cluster.forget_values(who);
                cluster.stop(who);
                Ok(())
            }
            Action::Leave { who } => {
                cluster.left.leaves -= 1;
                self.used(cluster, who, |node| node.state = State::Leaving)
            }
            Action::Join { who, by } => {
                cluster.left.joins -= 1;
                let mut members = cluster.newest().view.members().to_vec();
                members.push(cluster.nodes[who].space.me());
                cluster.commit(by, members, Vec::new(), all)
            }

            Action::Fence { who, live } => {
                fence(cluster, who, (0..all.len()).filter(|what| live & 1 << what != 0));
                Ok(())
            }
            Action::Recover { dead, by } => self.begin_recovery(cluster, dead, by),
            Action::Replay { dead, what } => self.replay(cluster, dead, what),
            Action::Finish { dead } => self.finish_recovery(cluster, dead),
            Action::Forget { dead } => {
                died(cluster, dead).is_recovered = true;
                Ok(())
            }
            Action::CutCaches { dead } => {
                died(cluster, dead).caches_cut = true;
                Ok(())
            }
            Action::TellGone { dead, to } => {
                let of = cluster.nodes[dead].space.me();
                self.used(cluster, to, |node| {
                    node.told_gone.push(dead);
                    node.told_gone.sort_unstable();
                    node.space.caches_gone(of, NOW);
                })
            }

            Action::Request { who, what, wanted, no_queue } => {
                cluster.left.requests -= 1;
                cluster.left.impatient -= u8::from(no_queue);
                self.used(cluster, who, |node| node.request(what, all[what], wanted, no_queue))
            }
            Action::Convert { who, lock, wanted, no_queue } => {
                cluster.left.conversions -= 1;
                cluster.left.impatient -= u8::from(no_queue);
                self.used(cluster, who, |node| node.convert(lock, wanted, no_queue))
            }
            Action::Lower { who, lock, to } => {
                cluster.left.releases -= 1;
                let value = cluster.leave_value(who, lock);
                self.used(cluster, who, |node| node.lower(lock, to, value))
            }
            Action::Unlock { who, lock } => {
                cluster.left.releases -= 1;
                let value = cluster.leave_value(who, lock);
                self.used(cluster, who, |node| node.unlock(lock, value))
            }
            Action::Cancel { who, lock } => {
                cluster.left.cancels -= 1;
                self.used(cluster, who, |node| node.cancel(lock))
            }
        }
    }

    fn used(
        &self,
        cluster: &mut Cluster,
        who: Who,
        act: impl FnOnce(&mut Node),
    ) -> Result<(), Fault> {
        cluster.act(who, &self.resources, |node| {
            act(node);
            Ok(())
        })
    }

    fn commit_without(
        &self,
        cluster: &mut Cluster,
        who: Who,
        by: Who,
        has_left: bool,
    ) -> Result<(), Fault> {
        let me = cluster.nodes[who].space.me();
        let members = cluster.newest().view.members().iter().copied();
        let members: Vec<Member> = members.filter(|member| *member != me).collect();
        let left = if has_left { vec![me] } else { Vec::new() };
        cluster.commit(by, members, left, &self.resources)
    }

    fn begin_recovery(&self, cluster: &mut Cluster, dead: Who, by: Who) -> Result<(), Fault> {
        let of = cluster.nodes[dead].space.me();
        let died = died(cluster, dead);
        died.recoverer = Some(by);
        died.redo = None;
        let live = died.live.clone();
        died.uncleared.retain(|what| live.contains(what));
        let names: Vec<BucketName> = live.iter().map(|what| self.resources[*what]).collect();
        cluster.act(by, &self.resources, |node| {
            node.space.begin_recovery(of, names, NOW).map_err(|error| error.to_string())
        })
    }

    fn replay(&self, cluster: &mut Cluster, dead: Who, what: What) -> Result<(), Fault> {
        let of = cluster.nodes[dead].space.me();
        let died = died(cluster, dead);
        died.live.retain(|left| *left != what);
        died.uncleared.retain(|left| *left != what);
        died.redo.as_mut().expect("handed out").retain(|left| *left != what);
        let by = died.recoverer.expect("somebody recovers");
        cluster.act(by, &self.resources, |node| {
            let names = [self.resources[what]];
            node.space.replayed(of, &names, NOW).map_err(|error| error.to_string())
        })
    }

    fn finish_recovery(&self, cluster: &mut Cluster, dead: Who) -> Result<(), Fault> {
        let of = cluster.nodes[dead].space.me();
        let died = died(cluster, dead);
        if !died.uncleared.is_empty() {
            return Err(format!("the recovery of {of} ends with something left: {died:?}"));
        }
        let by = died.recoverer.expect("somebody recovers");
        cluster.act(by, &self.resources, |node| {
            node.space.finish_recovery(of, NOW).map_err(|error| error.to_string())
        })
    }
}

/// The node changes nothing any more, and `live` has live records in its journal.
fn fence(cluster: &mut Cluster, who: Who, live: impl Iterator<Item = What>) {
    cluster.stop(who);
    let held = cluster.nodes[who].holdings().filter(|(_, mode)| mode.writes());
    let uncleared = held.map(|(what, _)| what).collect();
    let died = died(cluster, who);
    died.is_fenced = true;
    died.live = live.collect();
    died.uncleared = uncleared;
}

fn died(cluster: &mut Cluster, dead: Who) -> &mut DeadMember {
    cluster.dead[dead].as_mut().expect("only the dead are recovered")
}
