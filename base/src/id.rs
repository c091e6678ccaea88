//! Names of things: each its own type, so that a slot number cannot pass for a node id.

use std::fmt;

/// A server of the cluster, 1 to [`NodeId::MAX`]; given by the administrator, stable over reboots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u16);

impl NodeId {
    /// The highest node id of this release; the register block of a membership partition has room
    /// for this many members (`docs/spec/ondisk.md`).
    pub const MAX: u16 = 64;

    /// `None` outside 1 to [`NodeId::MAX`].
    pub const fn new(id: u16) -> Option<NodeId> {
        if id >= 1 && id <= NodeId::MAX { Some(NodeId(id)) } else { None }
    }

    pub const fn get(self) -> u16 {
        self.0
    }

    /// Position in tables that have one place for each possible node, 0 to `MAX - 1`.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One life of a node in the cluster: grows by one with every join, allocated in the register
/// (R1), never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node in one of its lives: what views list, locks are held by and fences name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub node: NodeId,
    pub incarnation: Incarnation,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A mount's place on the shared disk: it owns one journal and one list of orphans. Not a node id:
/// a joiner takes any free or clean slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u16);

impl SlotId {
    /// The most slots the disk format allows.
    pub const MAX_COUNT: u16 = 1024;
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

impl fmt::Debug for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (i, byte) in self.0.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

uuid_id! {
    /// Identity of a file system, drawn at random by `mkfs`.
    FsId
}
uuid_id! {
    /// Identity of a cluster, drawn at random when its membership partition is made.
    ClusterId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_outside_the_range_are_refused() {
        assert_eq!(NodeId::new(0), None);
        assert_eq!(NodeId::new(NodeId::MAX + 1), None);
        assert_eq!(NodeId::new(1).map(NodeId::index), Some(0));
    }

    #[test]
    fn an_fs_id_prints_as_a_uuid() {
        let id = FsId([0x12; 16]);
        assert_eq!(id.to_string(), "12121212-1212-1212-1212-121212121212");
    }
}
