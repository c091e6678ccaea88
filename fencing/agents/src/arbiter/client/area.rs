//! Which blocks of the shared memory are in use.

/// First fit over a table of blocks; a run of blocks for each request.
#[derive(Debug)]
pub(super) struct Area {
    used: Vec<bool>,
    free: u32,
    /// No run that is long enough begins below it, for runs that were looked for since.
    hint: usize,
}

impl Area {
    pub(super) fn new(blocks: u32) -> Area {
        Area { used: vec![false; blocks as usize], free: blocks, hint: 0 }
    }

    /// `count` blocks in a row, if there are.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        if count > self.free {
            return None;
        }
        let len = self.used.len();
        // From the hint to the end, then from the start: old runs come free in order, roughly.
        let first = self
            .find(self.hint..len, count as usize)
            .or_else(|| self.find(0..(self.hint + count as usize).min(len), count as usize))?;
        self.used[first..first + count as usize].fill(true);
        self.free -= count;
        self.hint = (first + count as usize) % len;
        Some(u32::try_from(first).expect("the area has a u32 of blocks"))
    }

    fn find(&self, within: std::ops::Range<usize>, count: usize) -> Option<usize> {
        let mut run = 0;
        for at in within {
            run = if self.used[at] { 0 } else { run + 1 };
            if run == count {
                return Some(at + 1 - count);
            }
        }
        None
    }

    /// # Panics
    /// When they were not taken.
    pub(super) fn give_back(&mut self, first: u32, count: u32) {
        let range = first as usize..(first + count) as usize;
        assert!(self.used[range.clone()].iter().all(|used| *used), "given back once");
        self.used[range].fill(false);
        self.free += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_do_not_overlap_and_come_back() {
        let mut area = Area::new(16);
        let a = area.take(8).expect("free");
        let b = area.take(7).expect("free");
        assert_eq!((a, b), (0, 8));
        assert_eq!(area.take(2), None);
        assert_eq!(area.take(1), Some(15));
        assert_eq!(area.take(1), None);
        area.give_back(4, 4);
        area.give_back(8, 7);
        assert_eq!(area.take(11), Some(4));
    }

    #[test]
    fn a_run_across_the_hint_is_found() {
        let mut area = Area::new(8);
        assert_eq!(area.take(3), Some(0));
        assert_eq!(area.take(5), Some(3));
        area.give_back(0, 3);
        area.give_back(3, 5);
        assert_eq!(area.take(4), Some(0));
        area.give_back(0, 4);
        assert_eq!(area.take(8), Some(0));
    }

    #[test]
    fn random_use_never_gives_a_block_twice() {
        let mut state = 7_u64;
        let mut random = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u32::try_from((state >> 33) % bound).expect("small")
        };
        let mut area = Area::new(64);
        let mut taken: Vec<(u32, u32)> = Vec::new();
        for _ in 0..5000 {
            if random(2) == 0 {
                let count = 1 + random(20);
                if let Some(first) = area.take(count) {
                    let free =
                        |(other, len): &(u32, u32)| first + count <= *other || other + len <= first;
                    assert!(taken.iter().all(free) && first + count <= 64);
                    taken.push((first, count));
                }
            } else if !taken.is_empty() {
                let which = random(taken.len() as u64) as usize;
                let (first, count) = taken.swap_remove(which);
                area.give_back(first, count);
            }
        }
    }
}
