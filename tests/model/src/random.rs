//! The one source of chance: a seed gives the same sequence on every machine and in every release.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// 0 to `bound - 1`.
    ///
    /// # Panics
    /// When `bound` is 0: there is nothing to draw.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a draw needs at least one possibility");
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of a 128-bit product has 64 bits")
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let len = u64::try_from(choices.len()).expect("a slice has fewer than 2^64 elements");
        choices[usize::try_from(self.below(len)).expect("an index of a slice")]
    }

    /// One of `choices`, each as likely as its weight; at least one weight must not be 0.
    pub fn weighted<T: Copy>(&mut self, choices: &[(T, u32)]) -> T {
        let total: u64 = choices.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = self.below(total);
        for (choice, weight) in choices {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return *choice,
            }
        }
        unreachable!("the draw is below the sum of the weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded seeds must keep their meaning.
    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut random = Random::new(1);
        assert_eq!(random.next_u64(), 0x910a_2dec_8902_5cc1);
        assert_eq!(random.next_u64(), 0xbeeb_8da1_658e_ec67);
    }

    #[test]
    fn weights_are_kept_and_zero_never_comes() {
        let mut random = Random::new(7);
        let mut heads = 0;
        for _ in 0..1000 {
            match random.weighted(&[("never", 0), ("heads", 9), ("tails", 1)]) {
                "never" => panic!("weight 0 was drawn"),
                "heads" => heads += 1,
                _ => {}
            }
        }
        assert!((800..1000).contains(&heads), "{heads}");
    }
}
