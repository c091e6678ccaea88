//! Names of resources: opaque bytes, and the bucket that decides where their home is.

use std::fmt;

/// A resource's name: 1 to [`ResourceName::MAX`] opaque bytes (31, as in VMS).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    len: u8,
    bytes: [u8; ResourceName::MAX],
}

impl ResourceName {
    pub const MAX: usize = 31;

    /// No name, and less than any.
    pub(crate) const LEAST: ResourceName = ResourceName { len: 0, bytes: [0; ResourceName::MAX] };

    /// `None` when `name` is empty or longer than [`ResourceName::MAX`].
    pub fn new(name: &[u8]) -> Option<ResourceName> {
        if name.is_empty() || name.len() > ResourceName::MAX {
            return None;
        }
        let mut bytes = [0; ResourceName::MAX];
        bytes[..name.len()].copy_from_slice(name);
        Some(ResourceName { len: u8::try_from(name.len()).ok()?, bytes })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_bytes() {
            if byte.is_ascii_graphic() {
                write!(f, "{}", char::from(*byte))?;
            } else {
                write!(f, "\\{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// A share of all resources that has one home and moves to another home as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// Fixed for the life of a cluster: the homes of a view are computed from it.
    pub const COUNT: u16 = if cfg!(feature = "few-buckets") { 16 } else { 4096 };

    /// `None` at or above [`Bucket::COUNT`].
    pub const fn new(bucket: u16) -> Option<Bucket> {
        if bucket < Bucket::COUNT { Some(Bucket(bucket)) } else { None }
    }

    /// Spreads any 64 bits over the buckets, the same on every node and in every release.
    #[expect(clippy::cast_possible_truncation, reason = "the value is below 4096")]
    pub const fn of(key: u64) -> Bucket {
        Bucket((mix(key) % Bucket::COUNT as u64) as u16)
    }

    pub const fn get(self) -> u16 {
        self.0
    }

    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub fn all() -> impl Iterator<Item = Bucket> {
        (0..Bucket::COUNT).map(Bucket)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): fixed, so that all nodes agree.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_31_bytes() {
        assert_eq!(ResourceName::new(b""), None);
        assert_eq!(ResourceName::new(&[7; 32]), None);
        assert_eq!(ResourceName::new(b"x").map(|n| n.as_bytes().to_vec()), Some(b"x".to_vec()));
    }

    /// The home of a lock must be the same for every release that may be in one cluster.
    #[test]
    fn the_bucket_of_a_key_is_fixed() {
        assert_eq!(Bucket::of(0).get(), 3503);
        assert_eq!(Bucket::of(1).get(), 3265);
    }
}
