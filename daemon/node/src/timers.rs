//! When the node has to be run next without anybody asking.
//!
//! Keeps true: as long as this life lasts, a task sleeps until the earliest moment at which one of
//! the machines has something to do, or an earlier one.

use mx_base::{Instant, Member};

use crate::node::{Core, Node};

impl Node {
    pub(crate) fn arm(&self, core: &mut Core, now: Instant) {
        if core.ended.is_some() {
            return;
        }
        let is_member = core.cluster.me().is_some();
        let due = [
            core.cluster.poll_timeout().map(|(at, _)| at),
            core.storage.poll_timeout(is_member),
            core.caches_gone.values().min().copied(),
        ];
        let Some(due) = due.into_iter().flatten().min() else { return };
        if core.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        core.armed = Some(due);
        let sleep = self.world.control.sleep(due.since(now));
        let weak = self.weak.clone();
        self.world.control.spawn(Box::pin(async move {
            sleep.await;
            if let Some(node) = weak.upgrade() {
                node.handle_timeout(due);
            }
        }));
    }

    fn handle_timeout(&self, due: Instant) {
        let woken = self.world.control.now();
        self.run(|core, now| {
            if now.since(due) > self.config.unit.get() {
                // Near five units the others expel it, and whoever has to find out why asks this.
                let (asleep, latched) = (woken.since(due), now.since(woken));
                tracing::warn!(?asleep, ?latched, "this node was not run in time");
            }
            if core.armed == Some(due) {
                core.armed = None;
            }
            if core.ended.is_some() {
                return;
            }
            core.cluster.handle_timeout(now);
            core.storage.handle_timeout(now);
            let gone: Vec<Member> = core
                .caches_gone
                .iter()
                .filter(|(_, at)| **at <= now)
                .map(|(dead, _)| *dead)
                .collect();
            for dead in gone {
                core.caches_gone.remove(&dead);
                let all = core.file_systems.values_mut();
                all.filter_map(|fs| fs.locks.as_mut()).for_each(|l| l.caches_gone(dead, now));
            }
        });
    }
}
