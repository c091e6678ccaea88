//! How the values of `mx-base` become plain numbers on the wire: `#[serde(with = "raw")]`.
//!
//! Every value that comes back is checked for its range; maps must come in order and without
//! repetition, so that one value has one encoding.

use std::collections::BTreeMap;

use mx_base::{FsId, Incarnation, Member, NodeId, SanGeneration, SlotId, ViewId};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{MountState, ProgressRecord};
use crate::frame::LockspaceId;
use crate::handshake::StartNonce;
use crate::nodes::NodeSet;

pub(crate) trait Raw: Sized {
    type As: Serialize + DeserializeOwned;
    fn to_raw(&self) -> Self::As;
    fn from_raw(raw: Self::As) -> Option<Self>;
}

pub(crate) fn serialize<T: Raw, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    value.to_raw().serialize(to)
}

pub(crate) fn deserialize<'de, T: Raw, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::from_raw(T::As::deserialize(from)?).ok_or_else(|| D::Error::custom("out of range"))
}

/// Byte strings: a length and the bytes.
pub(crate) mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        <&[u8]>::deserialize(from).map(<[u8]>::to_vec)
    }
}

impl Raw for NodeId {
    type As = u16;
    fn to_raw(&self) -> u16 {
        self.get()
    }
    fn from_raw(raw: u16) -> Option<NodeId> {
        NodeId::new(raw)
    }
}

impl Raw for Member {
    type As = (u16, u32);
    fn to_raw(&self) -> (u16, u32) {
        (self.node.get(), self.incarnation.0)
    }
    fn from_raw((node, incarnation): (u16, u32)) -> Option<Member> {
        Some(Member { node: NodeId::new(node)?, incarnation: Incarnation(incarnation) })
    }
}

impl Raw for StartNonce {
    type As = u64;
    fn to_raw(&self) -> u64 {
        self.get()
    }
    fn from_raw(raw: u64) -> Option<StartNonce> {
        StartNonce::new(raw)
    }
}

macro_rules! raw_newtype {
    ($($name:ident($raw:ty)),*) => {$(
        impl Raw for $name {
            type As = $raw;
            fn to_raw(&self) -> $raw {
                self.0
            }
            fn from_raw(raw: $raw) -> Option<$name> {
                Some($name(raw))
            }
        }
    )*};
}

raw_newtype!(
    Incarnation(u32),
    SanGeneration(u64),
    ViewId(u64),
    SlotId(u16),
    LockspaceId(u32),
    FsId([u8; 16])
);

impl Raw for NodeSet {
    type As = u64;
    fn to_raw(&self) -> u64 {
        self.bits()
    }
    fn from_raw(raw: u64) -> Option<NodeSet> {
        Some(NodeSet::from_bits(raw))
    }
}

macro_rules! raw_itself {
    ($($name:ident),*) => {$(
        impl Raw for $name {
            type As = $name;
            fn to_raw(&self) -> $name {
                *self
            }
            fn from_raw(raw: $name) -> Option<$name> {
                Some(raw)
            }
        }
    )*};
}

raw_itself!(MountState, ProgressRecord);

impl<T: Raw> Raw for Option<T> {
    type As = Option<T::As>;
    fn to_raw(&self) -> Option<T::As> {
        self.as_ref().map(Raw::to_raw)
    }
    fn from_raw(raw: Option<T::As>) -> Option<Option<T>> {
        match raw {
            None => Some(None),
            Some(raw) => Some(Some(T::from_raw(raw)?)),
        }
    }
}

impl<A: Raw, B: Raw> Raw for (A, B) {
    type As = (A::As, B::As);
    fn to_raw(&self) -> (A::As, B::As) {
        (self.0.to_raw(), self.1.to_raw())
    }
    fn from_raw((a, b): (A::As, B::As)) -> Option<(A, B)> {
        Some((A::from_raw(a)?, B::from_raw(b)?))
    }
}

impl<T: Raw> Raw for Vec<T> {
    type As = Vec<T::As>;
    fn to_raw(&self) -> Vec<T::As> {
        self.iter().map(Raw::to_raw).collect()
    }
    fn from_raw(raw: Vec<T::As>) -> Option<Vec<T>> {
        raw.into_iter().map(T::from_raw).collect()
    }
}

impl<K: Raw + Ord, V: Raw> Raw for BTreeMap<K, V> {
    type As = Vec<(K::As, V::As)>;
    fn to_raw(&self) -> Vec<(K::As, V::As)> {
        self.iter().map(|(key, value)| (key.to_raw(), value.to_raw())).collect()
    }
    fn from_raw(raw: Vec<(K::As, V::As)>) -> Option<BTreeMap<K, V>> {
        let mut map = BTreeMap::new();
        for (key, value) in raw {
            let key = K::from_raw(key)?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return None;
            }
            map.insert(key, V::from_raw(value)?);
        }
        Some(map)
    }
}
