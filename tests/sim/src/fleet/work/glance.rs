//! Somebody who only looks at what the kernel has already, as a process does that has files mapped.
//!
//! Waits for nobody, so on a node that is cut off from the others and does not know it yet, where
//! everybody else soon waits for a lock, it goes on looking: at what the node may serve as long as
//! it has its permit (R13), and what others must not change for as long.

use mx_base::Duration;

use super::{App, COUNTER_AT, COUNTERS, DIRS, NAMES, SIZES, name_of};

/// Longest pause between two glances.
const PAUSE: usize = 4_000;

impl App {
    /// Looks until the work is over.
    pub async fn glance(self) {
        while !self.work.is_stopped() && !self.life.is_leaving() {
            let pause = u64::try_from(1 + self.draw(PAUSE)).expect("small");
            self.exec().sleep(Duration::from_micros(pause)).await;
            if !self.counts() {
                self.mount.kernel.forget_everything();
                continue;
            }
            let what = self.draw(COUNTERS + SIZES + NAMES);
            let seen = match what {
                i if i < COUNTERS => self.glance_at_counter(i),
                i if i < COUNTERS + SIZES => self.glance_at_size(i - COUNTERS),
                i => self.glance_at_name(i - COUNTERS - SIZES, self.draw(DIRS.len())),
            };
            self.exec().note(u64::from(seen.is_some()));
        }
    }

    /// `None` when the kernel would have to ask.
    fn glance_at_counter(&self, i: usize) -> Option<()> {
        let kernel = &self.mount.kernel;
        let file = kernel.cached_name(self.mount.root(), &name_of('c', i))??;
        let size = kernel.cached_attributes(file)?.size;
        let page = COUNTER_AT[i] - COUNTER_AT[i] % 4096;
        let inside = usize::try_from(COUNTER_AT[i] - page).expect("within a page");
        let data = kernel.cached_page(file, page)?;
        let bytes = data.get(inside..inside + 8)?.try_into().expect("8 bytes");
        let value = if size < COUNTER_AT[i] + 8 { 0 } else { u64::from_le_bytes(bytes) };
        let mut chain = self.work.counters[i].lock();
        let began = chain.begin_read();
        if let Err(why) = chain.end_read(self.id(), began, |v| *v == value) {
            self.wrong("cached", format!("counter {i} ({file:?}) is cached as {value}: {why}"));
        }
        Some(())
    }

    fn glance_at_size(&self, i: usize) -> Option<()> {
        let kernel = &self.mount.kernel;
        let file = kernel.cached_name(self.mount.root(), &name_of('s', i))??;
        let size = kernel.cached_attributes(file)?.size;
        let mut chain = self.work.sizes[i].lock();
        let began = chain.begin_read();
        if let Err(why) = chain.end_read(self.id(), began, |s| *s == size) {
            self.wrong("cached", format!("size {i} ({file:?}) is cached as {size}: {why}"));
        }
        Some(())
    }

    fn glance_at_name(&self, i: usize, at: usize) -> Option<()> {
        let kernel = &self.mount.kernel;
        let dir = kernel.cached_name(self.mount.root(), DIRS[at])??;
        let found = kernel.cached_name(dir, &name_of('n', i))?;
        let mut chain = self.work.names[i].lock();
        let began = chain.begin_read();
        let seen = chain.end_partial_read(
            self.id(),
            began,
            |place| place.shows(at, found),
            |before, after| before.is_in(at) || after.is_in(at),
        );
        if let Err(why) = seen {
            self.wrong(
                "cached",
                format!("name {i} in directory {at} is cached as {found:?}: {why}"),
            );
        }
        Some(())
    }
}
