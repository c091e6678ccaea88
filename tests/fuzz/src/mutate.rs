//! Changing bytes at random, the same way for the same seed.

/// A small generator of numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() >> 33).expect("31 bits") % end
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One to four changes.
    pub fn change(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        for _ in 0..=self.below(4) {
            self.change_once(bytes, others);
        }
    }

    fn change_once(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        if bytes.is_empty() {
            bytes.extend((0..self.below(64)).map(|_| 0));
            return;
        }
        let at = self.below(bytes.len());
        match self.below(10) {
            0..3 => bytes[at] ^= 1 << self.below(8),
            3 => bytes[at] = self.number().to_le_bytes()[0],
            4 | 5 => self.put_number(bytes, at),
            6 => bytes.truncate(at),
            7 => {
                let more = self.number().to_le_bytes();
                let count = 1 + self.below(more.len());
                bytes.splice(at..at, more[..count].iter().copied());
            }
            8 => {
                let end = at + self.below(bytes.len() - at) + 1;
                bytes.drain(at..end.min(at + 16));
            }
            _ => {
                let other = self.pick(others);
                // A seed may be empty.
                let from = self.below(other.len() + 1);
                for (place, byte) in bytes[at..].iter_mut().zip(&other[from..]).take(16) {
                    *place = *byte;
                }
            }
        }
    }

    /// A number at a border, of 1 to 8 bytes, mostly where a field of its size would be.
    fn put_number(&mut self, bytes: &mut [u8], at: usize) {
        let size = 1 << self.below(4);
        let at = if self.below(4) == 0 { at } else { at / size * size };
        let borders = [0, 1, 2, 63, 64, 65, 4095, 4096, 4097, 1 << 16, 1 << 20, 1 << 31];
        let number: u64 = match self.below(4) {
            0 => u64::MAX,
            1 => u64::MAX >> self.below(64),
            _ => *self.pick(&borders),
        };
        for (place, byte) in bytes[at..].iter_mut().zip(number.to_le_bytes()).take(size) {
            *place = byte;
        }
    }
}
