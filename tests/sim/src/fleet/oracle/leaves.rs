//! Rule: a planned leave is a hand-over that nobody notices: no request waits on it longer than its own
//! round trip takes; what is on its way to the leaver just then is asked again, which takes half a round
//! trip more.
//!
//! Counted in calm weather, in runs in which nodes leave in good order: as long as one leaves, every
//! other node asks for locks that nobody else wants, the homes of which are everywhere. Only what is
//! asked while nobody joins is judged: a joiner becomes a home as well.

use std::sync::Arc;

use futures_util::future::join_all;
use lcl::Bucket;
use lcl::pin::Want;
use mfs::file::InodeNo;
use mfs::locks::Resource;
use mx_base::{Duration, Instant, Member};
use mx_node::Node;
use parking_lot::Mutex;

use super::Oracle;
use crate::fleet::Fleet;
use crate::fleet::host::Life;
use crate::fleet::plan::{Kind, Weather};

/// What a node asks for at once.
const AT_ONCE: u64 = 3;
/// Between two times at which it does.
const PAUSE: Duration = Duration::from_micros(400);
/// All that a life asks for: a leave that does not end is for others to find.
const MOST: u64 = 3_000;
/// Between two looks whether somebody leaves.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What was asked for beside leaves.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Leaves(Mutex<Counts>);

/// Of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub asked: u64,
    /// Those that took longer than a round trip does at most.
    pub noticed: u64,
    pub longest: Duration,
}

impl Leaves {
    pub(in crate::fleet) fn counts(&self) -> Counts {
        *self.0.lock()
    }

    /// A request has been granted; a message takes `delay` at most.
    fn judge(&self, oracle: &Oracle, member: Member, took: Duration, delay: Duration) {
        let round_trip = delay * 2;
        let counts = &mut *self.0.lock();
        counts.asked += 1;
        counts.noticed += u64::from(took > round_trip);
        counts.longest = took.max(counts.longest);
        if took > round_trip * 2 + delay {
            let what = format!("{member} waited {took:?}, a round trip takes {round_trip:?}");
            oracle.violation("leave", what);
        }
    }
}

impl Fleet {
    /// Are requests beside leaves counted in this run?
    pub(in crate::fleet) fn counts_leaves(&self) -> bool {
        self.plan.kind == Kind::Coming && self.plan.weather == Weather::CALM
    }

    /// Asks for locks as long as somebody else leaves.
    pub(in crate::fleet) async fn ask_beside_leaves(self, life: Arc<Life>, node: Arc<Node>) {
        let mut asked = u64::from(life.id.0) << 32;
        let end = asked + MOST;
        while asked < end && !self.first().work.is_stopped() && !life.is_leaving() {
            if !self.lives().iter().flatten().any(|other| other.is_leaving()) {
                self.exec.sleep(LOOK_AGAIN).await;
                continue;
            }
            let joins = self.joins();
            let asks = (asked..asked + AT_ONCE).map(|number| self.ask(&node, number));
            let granted: Option<Vec<Duration>> = join_all(asks).await.into_iter().collect();
            let Some(granted) = granted else { return };
            asked += AT_ONCE;
            if !joins && !self.joins() {
                let delay = Duration::from_micros(self.plan.weather.network_delay);
                let judge = |took| self.leaves.judge(&self.oracle, life.member, took, delay);
                granted.into_iter().for_each(judge);
            }
            self.exec.sleep(PAUSE).await;
        }
    }

    /// Somebody has started and not mounted yet.
    fn joins(&self) -> bool {
        self.lives().iter().flatten().any(|life| !life.is_leaving() && !life.has_mounted())
    }

    /// How long it takes to get a lock that nobody else wants; `None` when this life is over.
    async fn ask(&self, node: &Node, number: u64) -> Option<Duration> {
        // No file has such a number.
        let name = Resource::Open(InodeNo(1 << 60 | number)).name();
        let entry = node.table(self.first().fs)?.entry(name, Bucket::of(number));
        let began: Instant = self.exec.now();
        let pin = entry.pin(Want::write()).await.ok()?;
        drop(pin);
        Some(self.exec.now().since(began))
    }
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, NodeId};

    use super::*;
    use crate::exec::Executor;

    #[test]
    fn a_request_that_waits_on_a_leave_is_found() {
        let (leaves, oracle) = (Leaves::default(), Oracle::new(&Executor::new(1)));
        let me = Member { node: NodeId::new(1).expect("1"), incarnation: Incarnation(1) };
        let delay = Duration::from_micros(300);
        for took in [0, 600, 601, 1_500] {
            leaves.judge(&oracle, me, Duration::from_micros(took), delay);
        }
        assert_eq!((leaves.counts().asked, leaves.counts().noticed), (4, 2));
        assert_eq!(oracle.first_violation(), None);
        leaves.judge(&oracle, me, Duration::from_micros(1_501), delay);
        assert_eq!(oracle.first_violation().map(|found| found.oracle), Some("leave"));
    }
}
