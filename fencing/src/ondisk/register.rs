//! Blocks 2 to 129: what each node has promised and accepted on this partition. Two copies a node,
//! written by that node alone.

use mx_base::{Incarnation, Member, NodeId, SanGeneration, ViewId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Block, DecodeError, Place, Record, open, seal};
use crate::ballot::Ballot;
use crate::layout::{self, ConfigImage, CopyNo};
use crate::node_set::NodeSet;
use crate::reg_val::{Author, ConfigPointer, Incarnations, Phase, RegVal};

/// A node's part in the register on one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegisterRecord {
    pub node: NodeId,
    /// The life that wrote it, for people: 0 before its first join. Ballots tell lives apart.
    pub incarnation: Incarnation,
    /// Grows by one with every write; the copy with the higher sequence counts.
    pub sequence: u64,
    /// No ballot below it may be accepted (R3).
    pub promised: Ballot,
    /// The ballot in which `value` was accepted here; [`Ballot::ZERO`] for none.
    pub accepted: Ballot,
    pub value: RegVal,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BallotRaw {
    round: U64,
    nonce: U64,
    node: U16,
    reserved: [u8; 6],
}
const _: () = assert!(size_of::<BallotRaw>() == 24);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RegValRaw {
    generation: U64,
    view: U64,
    members: U64,
    victims: U64,
    phase: u8,
    config_image: u8,
    administrator_node: U16,
    administrator_incarnation: U32,
    config_len: U32,
    author_node: U16,
    reserved: [u8; 2],
    author_nonce: U64,
    author_serial: U32,
    reserved_2: [u8; 4],
    config_blake3: [u8; 32],
    incarnations: [U32; NodeId::MAX as usize],
}
const _: () = assert!(size_of::<RegValRaw>() == 352);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RegisterRaw {
    header: [u8; 32],
    sequence: U64,
    node: U16,
    reserved: [u8; 2],
    incarnation: U32,
    promised: BallotRaw,
    accepted: BallotRaw,
    value: RegValRaw,
    unused: [u8; 60],
    checksum: U32,
}

impl Record for RegisterRaw {
    const MAGIC: [u8; 8] = *b"MXMPREG1";
}

impl RegisterRecord {
    /// What mkfs writes for a node: no promise, nothing accepted.
    pub fn unused(node: NodeId) -> RegisterRecord {
        RegisterRecord {
            node,
            incarnation: Incarnation(0),
            sequence: 0,
            promised: Ballot::ZERO,
            accepted: Ballot::ZERO,
            value: RegVal::initial(),
        }
    }

    pub fn encode(&self, place: Place) -> Box<Block> {
        assert_eq!(self.violation(), None, "a register record that could not be read back");
        let record = RegisterRaw {
            header: [0; 32],
            sequence: self.sequence.into(),
            node: self.node.get().into(),
            reserved: [0; 2],
            incarnation: self.incarnation.0.into(),
            promised: encode_ballot(self.promised),
            accepted: encode_ballot(self.accepted),
            value: encode_value(&self.value),
            unused: [0; 60],
            checksum: U32::ZERO,
        };
        seal(record, place)
    }

    /// # Errors
    /// When the block is not the record of `node` in its place.
    pub fn decode(
        block: &Block,
        node: NodeId,
        place: Place,
    ) -> Result<RegisterRecord, DecodeError> {
        let (raw, _) =
            open::<RegisterRaw>(block, Some(place.cluster), Some(place.partition), place.block)?;
        let bad = DecodeError::Contents;
        let record = RegisterRecord {
            node: NodeId::new(raw.node.get()).ok_or(bad("node id out of range"))?,
            incarnation: Incarnation(raw.incarnation.get()),
            sequence: raw.sequence.get(),
            promised: decode_ballot(&raw.promised).ok_or(bad("an impossible promise"))?,
            accepted: decode_ballot(&raw.accepted).ok_or(bad("an impossible accepted ballot"))?,
            value: decode_value(&raw.value).map_err(bad)?,
        };
        if record.node != node {
            return Err(bad("the record of another node"));
        }
        record.violation().map_or(Ok(record), |what| Err(bad(what)))
    }

    fn violation(&self) -> Option<&'static str> {
        if self.accepted > self.promised {
            return Some("accepted beyond the promise");
        }
        if self.sequence > u64::MAX / 2 {
            return Some("a sequence out of range");
        }
        if self.accepted == Ballot::ZERO && self.value != RegVal::initial() {
            return Some("a value that was accepted in no ballot");
        }
        self.value.violation()
    }
}

/// Place of a copy of a node's record.
pub fn place(
    cluster: mx_base::ClusterId,
    partition: layout::MpIndex,
    node: NodeId,
    copy: CopyNo,
) -> Place {
    Place { cluster, partition, block: layout::register(node, copy) }
}

fn encode_ballot(ballot: Ballot) -> BallotRaw {
    BallotRaw {
        round: ballot.round.into(),
        nonce: ballot.nonce.into(),
        node: ballot.node_raw().into(),
        reserved: [0; 6],
    }
}

fn decode_ballot(raw: &BallotRaw) -> Option<Ballot> {
    Ballot::from_parts(raw.round.get(), raw.nonce.get(), raw.node.get())
}

fn encode_value(value: &RegVal) -> RegValRaw {
    let mut raw = RegValRaw::new_zeroed();
    raw.generation = value.generation.0.into();
    raw.view = value.view.0.into();
    raw.members = value.members.bits().into();
    raw.victims = value.victims.bits().into();
    raw.phase = match value.phase {
        Phase::Stable => 0,
        Phase::Fencing => 1,
        Phase::Fenced => 2,
        Phase::Recovered => 3,
    };
    if let Some(administrator) = value.administrator {
        raw.administrator_node = administrator.node.get().into();
        raw.administrator_incarnation = administrator.incarnation.0.into();
    }
    if let Some(config) = &value.config {
        raw.config_image = match config.image {
            ConfigImage::A => 1,
            ConfigImage::B => 2,
        };
        raw.config_len = config.len.into();
        raw.config_blake3 = config.blake3;
    }
    if let Some(author) = value.author {
        raw.author_node = author.node.get().into();
        raw.author_nonce = author.nonce.into();
        raw.author_serial = author.serial.into();
    }
    raw.incarnations = value.incarnations.as_array().map(U32::new);
    raw
}

fn decode_value(raw: &RegValRaw) -> Result<RegVal, &'static str> {
    let phase = match raw.phase {
        0 => Phase::Stable,
        1 => Phase::Fencing,
        2 => Phase::Fenced,
        3 => Phase::Recovered,
        _ => return Err("an unknown phase"),
    };
    let administrator = match raw.administrator_node.get() {
        0 => None,
        node => Some(Member {
            node: NodeId::new(node).ok_or("the administrator's node id is out of range")?,
            incarnation: Incarnation(raw.administrator_incarnation.get()),
        }),
    };
    let image = match raw.config_image {
        0 => None,
        1 => Some(ConfigImage::A),
        2 => Some(ConfigImage::B),
        _ => return Err("an unknown configuration image"),
    };
    if raw.config_len.get() > layout::CONFIG_IMAGE_SIZE {
        return Err("a configuration larger than its image");
    }
    let author = match raw.author_node.get() {
        0 => None,
        node => Some(Author {
            node: NodeId::new(node).ok_or("the author's node id is out of range")?,
            nonce: raw.author_nonce.get(),
            serial: raw.author_serial.get(),
        }),
    };
    Ok(RegVal {
        generation: SanGeneration(raw.generation.get()),
        view: ViewId(raw.view.get()),
        phase,
        administrator,
        members: NodeSet::from_bits(raw.members.get()),
        victims: NodeSet::from_bits(raw.victims.get()),
        incarnations: Incarnations::from_array(raw.incarnations.map(U32::get)),
        config: image.map(|image| ConfigPointer {
            image,
            len: raw.config_len.get(),
            blake3: raw.config_blake3,
        }),
        author,
    })
}
