//! Bits of a bitmap: least significant first within a byte.

/// Is bit `at` set?
pub(crate) fn get(bits: &[u8], at: usize) -> bool {
    bits[at / 8] & (1 << (at % 8)) != 0
}

/// Sets `len` bits from `at` on.
///
/// # Panics
/// When one is set already: two owners of one block are the end of a file system.
pub(crate) fn set(bits: &mut [u8], at: usize, len: usize) {
    for i in at..at + len {
        assert!(!get(bits, i), "bit {i} is allocated twice");
        bits[i / 8] |= 1 << (i % 8);
    }
}

/// Clears `len` bits from `at` on; false, and nothing changed, when one was clear already.
pub(crate) fn clear(bits: &mut [u8], at: usize, len: usize) -> bool {
    if (at..at + len).any(|i| !get(bits, i)) {
        return false;
    }
    for i in at..at + len {
        bits[i / 8] &= !(1 << (i % 8));
    }
    true
}

/// The first clear bit in `from..to`.
pub(crate) fn first_clear(bits: &[u8], from: usize, to: usize) -> Option<usize> {
    let mut at = from;
    while at < to {
        if at.is_multiple_of(8) && bits[at / 8] == 0xff {
            at += 8;
        } else if !get(bits, at) {
            return Some(at);
        } else {
            at += 1;
        }
    }
    None
}

/// How many clear bits follow from `from` on, `to` at most.
pub(crate) fn clear_run(bits: &[u8], from: usize, to: usize) -> usize {
    (from..to).take_while(|i| !get(bits, *i)).count()
}

/// Set bits in `from..to`.
pub(crate) fn count_set(bits: &[u8], from: usize, to: usize) -> usize {
    (from..to).filter(|i| get(bits, *i)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_set_and_cleared() {
        let mut bits = [0_u8; 8];
        set(&mut bits, 3, 20);
        assert_eq!(first_clear(&bits, 3, 64), Some(23));
        assert_eq!(first_clear(&bits, 3, 23), None);
        assert_eq!(clear_run(&bits, 23, 30), 7);
        assert_eq!(count_set(&bits, 0, 64), 20);
        assert!(!clear(&mut bits, 20, 10), "some are clear");
        assert_eq!(count_set(&bits, 0, 64), 20);
        assert!(clear(&mut bits, 3, 20));
        assert_eq!(bits, [0; 8]);
    }
}
