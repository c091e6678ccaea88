//! Somebody who only looks at what the kernel has already, as a process does that has files open and
//! mapped. It is a process of the host: it goes on when the daemon is stopped or dead.
//!
//! Rule: what a kernel has cached is right (I8) as long as its node may serve it, and until the node
//! has dropped it: a unit behind the permit (R13). Others change it no earlier. That holds also
//! for a node that is cut off or fenced and does not know, and for one whose daemon has crashed.
//! Not judged is what nobody drops: behind the permit and that unit, what the kernel of a daemon
//! has that is stopped, has run for less than a unit since, or has died
//! (`docs/spec/simulator.md`, section 4).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mfs::file::FileId;
use mx_base::{Duration, Instant};
use parking_lot::Mutex;

use super::{COUNTER_AT, COUNTERS, DIRS, NAMES, SIZES, Work, name_of};
use crate::fleet::chain::Chain;
use crate::fleet::host::Life;
use crate::fleet::kernel::{Kernel, Mount};

/// Longest pause between two glances, in microseconds.
const PAUSE: u64 = 4_000;
/// Time to drop caches without a permit: one unit.
const DROPPED_WITHIN: Duration = Duration::from_millis(100);

/// See the module.
pub struct Glancer {
    work: Arc<Work>,
    life: Arc<Life>,
    kernel: Kernel,
    root: FileId,
    /// What it has open, of the root.
    open: BTreeMap<Vec<u8>, FileId>,
    /// When the daemon was last seen not to run.
    stopped: Option<Instant>,
}

impl Glancer {
    pub fn new(work: Arc<Work>, life: Arc<Life>, mount: &Mount) -> Glancer {
        let (kernel, root) = (mount.kernel.clone(), mount.root());
        Glancer { work, life, kernel, root, open: BTreeMap::new(), stopped: None }
    }

    /// Looks until the work is over, or there is nothing to be judged any more.
    pub async fn glance(mut self) {
        while !self.work.is_stopped() && !self.life.is_leaving() {
            let pause = Duration::from_micros(1 + self.draw(PAUSE));
            self.work.exec.sleep(pause).await;
            if !self.is_right() {
                if self.life.has_ended() {
                    return;
                }
                continue;
            }
            let what = usize::try_from(self.draw(WHAT as u64)).expect("small");
            let seen = match what {
                i if i < COUNTERS => self.counter(i),
                i if i < COUNTERS + SIZES => self.size(i - COUNTERS),
                i => self.name((i - COUNTERS - SIZES) % NAMES, (i - COUNTERS - SIZES) / NAMES),
            };
            self.work.exec.note(u64::from(seen.is_some()));
        }
    }

    /// Must what the kernel shows be right?
    fn is_right(&mut self) -> bool {
        let now = self.life.now();
        if !self.life.has_daemon() || self.work.exec.is_paused(self.life.group()) {
            self.stopped = Some(now);
        }
        let runs = self.stopped.is_none_or(|stopped| now > stopped + DROPPED_WITHIN);
        runs || now < self.life.permit() + DROPPED_WITHIN
    }

    fn draw(&self, bound: u64) -> u64 {
        self.work.exec.draw(|r| r.below(bound))
    }

    /// `None` when the kernel would have to ask.
    fn opened(&mut self, name: &[u8]) -> Option<FileId> {
        if let Some(file) = self.open.get(name) {
            return Some(*file);
        }
        let file = self.kernel.cached_name(self.root, name)??;
        self.open.insert(name.to_vec(), file);
        Some(file)
    }

    fn counter(&mut self, i: usize) -> Option<()> {
        let file = self.opened(&name_of('c', i))?;
        let page = COUNTER_AT[i] - COUNTER_AT[i] % 4096;
        let inside = usize::try_from(COUNTER_AT[i] - page).expect("within a page");
        let data = self.kernel.cached_page(file, page)?;
        let value = u64::from_le_bytes(data.get(inside..inside + 8)?.try_into().expect("8 bytes"));
        let what = || format!("counter {i} ({file:?}) is cached as {value}");
        self.judge(&self.work.counters[i], what, |v| *v == value, |_, _| true);
        Some(())
    }

    fn size(&mut self, i: usize) -> Option<()> {
        let file = self.opened(&name_of('s', i))?;
        let size = self.kernel.cached_attributes(file)?.size;
        let what = || format!("size {i} ({file:?}) is cached as {size}");
        self.judge(&self.work.sizes[i], what, |s| *s == size, |_, _| true);
        Some(())
    }

    fn name(&mut self, i: usize, at: usize) -> Option<()> {
        let dir = self.opened(DIRS[at])?;
        let found = self.kernel.cached_name(dir, &name_of('n', i))?;
        let what = || format!("name {i} in directory {at} is cached as {found:?}");
        self.judge(
            &self.work.names[i],
            what,
            |place| place.shows(at, found),
            |before, after| before.is_in(at) || after.is_in(at),
        );
        Some(())
    }

    fn judge<S: Clone + PartialEq + fmt::Debug>(
        &self,
        chain: &Mutex<Chain<S>>,
        what: impl Fn() -> String,
        matches: impl FnMut(&S) -> bool,
        touches: impl Fn(&S, &S) -> bool,
    ) {
        let seen = chain.lock().glimpse(self.life.id, matches, touches);
        if let Err(why) = seen {
            let what = format!("{}: {}: {why}", self.life.member, what());
            self.work.oracle.violation("cached", what);
        }
    }
}

/// All that is looked at.
const WHAT: usize = COUNTERS + SIZES + NAMES * DIRS.len();

impl fmt::Debug for Glancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glancer on {}", self.life.member)
    }
}
