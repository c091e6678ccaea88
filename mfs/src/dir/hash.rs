//! The hash of names, and cookies made of it.
//!
//! Keyed, so that nobody can choose names that fall into one bucket.

use crate::block::as_usize;
use siphasher::sip::SipHasher13;

/// Bits of a hash.
pub(crate) const HASH_BITS: u32 = 55;
/// Bits of the ordinal that tells entries with one hash apart.
pub(crate) const ORDINAL_BITS: u32 = 8;

/// The hash of a name, 1 to 2^55 - 1: the first cookies are left to `.` and `..`.
pub(crate) fn of(key: &[u8; 16], name: &[u8]) -> u64 {
    (SipHasher13::new_with_key(key).hash(name) >> (64 - HASH_BITS)).max(1)
}

/// The first cookie of a hash.
pub(crate) fn first_cookie(hash: u64) -> u64 {
    hash << ORDINAL_BITS
}

pub(crate) fn of_cookie(cookie: u64) -> u64 {
    cookie >> ORDINAL_BITS
}

/// The hash's bits from `depth` on, `bits` of them, counted from the top.
pub(crate) fn bits_at(hash: u64, depth: u32, bits: u32) -> usize {
    let shift = HASH_BITS.saturating_sub(depth + bits);
    let mask = (1_u64 << bits) - 1;
    as_usize((hash >> shift) & mask)
}

/// The first hash behind all that share the first `depth` bits with `hash`.
pub(crate) fn after_prefix(hash: u64, depth: u32) -> Option<u64> {
    let rest = HASH_BITS - depth;
    let next = ((hash >> rest) + 1) << rest;
    (next >> HASH_BITS == 0).then_some(next)
}

/// The first `depth` bits of a hash, the others zero.
pub(crate) fn prefix(hash: u64, depth: u32) -> u64 {
    let rest = HASH_BITS - depth;
    (hash >> rest) << rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_name_is_fixed() {
        assert_eq!(of(&[7; 16], b"name"), 10_417_926_419_657_606);
    }

    #[test]
    fn bits_are_counted_from_the_top() {
        let hash = 0b1010_1010_1111_0000 << (HASH_BITS - 16);
        assert_eq!(bits_at(hash, 0, 8), 0b1010_1010);
        assert_eq!(bits_at(hash, 8, 8), 0b1111_0000);
        assert_eq!(bits_at(hash, 4, 4), 0b1010);
        assert_eq!(prefix(hash | 5, 12), hash);
    }

    #[test]
    fn prefixes_follow_each_other_and_end() {
        assert_eq!(after_prefix(0, 1), Some(1 << 54));
        assert_eq!(after_prefix(1 << 54, 1), None);
        assert_eq!(after_prefix(3, 0), None);
    }
}
