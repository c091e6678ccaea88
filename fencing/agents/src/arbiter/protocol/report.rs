//! What LIST and COUNTERS put into a block of the shared memory.

use mx_base::{Incarnation, NodeId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use fencing::Block;
use fencing::layout::BLOCK_SIZE;

const LIST_MAGIC: [u8; 8] = *b"MXARBLST";
const COUNTERS_MAGIC: [u8; 8] = *b"MXARBCNT";

/// What the server knows of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeReport {
    pub node: NodeId,
    /// Lives below it are fenced; 0 for none.
    pub incarnation_min: Incarnation,
    /// The newest life that has ever registered; 0 for none.
    pub incarnation_newest: Incarnation,
    pub sessions: u16,
    /// Writes that have begun and not ended.
    pub writes_executing: u32,
    /// Writes that were refused because the life was fenced, since the server was started.
    pub writes_refused: u64,
    /// Other requests that were refused for the same reason.
    pub others_refused: u64,
}

/// What the server has done since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub uptime_ms: u64,
    pub reads: u64,
    pub read_blocks: u64,
    pub writes: u64,
    pub write_blocks: u64,
    pub flushes: u64,
    pub io_errors: u64,
    pub fences: u64,
    /// Writes refused because the node was fenced.
    pub writes_refused: u64,
    pub others_refused: u64,
    pub sessions: u64,
    pub sessions_refused: u64,
    /// Sessions ended because of malformed packets.
    pub sessions_malformed: u64,
    /// Requests executing on the device now.
    pub executing: u64,
    /// Requests waiting for their turn now.
    pub queued: u64,
    pub discards: u64,
    pub discard_blocks: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ListHeaderRaw {
    magic: [u8; 8],
    count: U16,
    reserved: [u8; 6],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct NodeReportRaw {
    node: U16,
    sessions: U16,
    incarnation_min: U32,
    incarnation_newest: U32,
    writes_executing: U32,
    writes_refused: U64,
    others_refused: U64,
    reserved: [u8; 16],
}
const _: () = assert!(size_of::<ListHeaderRaw>() == 16 && size_of::<NodeReportRaw>() == 48);
const _: () = assert!(16 + NodeId::MAX as usize * 48 <= BLOCK_SIZE);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CountersRaw {
    magic: [u8; 8],
    values: [U64; 17],
}

/// # Panics
/// For more reports than there are node ids.
pub fn encode_list(reports: &[NodeReport]) -> Box<Block> {
    assert!(reports.len() <= usize::from(NodeId::MAX), "a report for each node");
    let mut block = Block::zeroed();
    let count = u16::try_from(reports.len()).expect("checked above");
    let header = ListHeaderRaw { magic: LIST_MAGIC, count: count.into(), reserved: [0; 6] };
    block.0[..size_of::<ListHeaderRaw>()].copy_from_slice(header.as_bytes());
    let places = block.0[size_of::<ListHeaderRaw>()..].chunks_exact_mut(size_of::<NodeReportRaw>());
    for (place, report) in places.zip(reports) {
        let raw = NodeReportRaw {
            node: report.node.get().into(),
            sessions: report.sessions.into(),
            incarnation_min: report.incarnation_min.0.into(),
            incarnation_newest: report.incarnation_newest.0.into(),
            writes_executing: report.writes_executing.into(),
            writes_refused: report.writes_refused.into(),
            others_refused: report.others_refused.into(),
            reserved: [0; 16],
        };
        place.copy_from_slice(raw.as_bytes());
    }
    block
}

/// `None` when the block holds no list.
pub fn decode_list(block: &Block) -> Option<Vec<NodeReport>> {
    let (header, rest) = ListHeaderRaw::ref_from_prefix(&block.0).ok()?;
    if header.magic != LIST_MAGIC {
        return None;
    }
    let count = usize::from(header.count.get());
    let (reports, _) = <[NodeReportRaw]>::ref_from_prefix_with_elems(rest, count).ok()?;
    let report = |raw: &NodeReportRaw| {
        Some(NodeReport {
            node: NodeId::new(raw.node.get())?,
            incarnation_min: Incarnation(raw.incarnation_min.get()),
            incarnation_newest: Incarnation(raw.incarnation_newest.get()),
            sessions: raw.sessions.get(),
            writes_executing: raw.writes_executing.get(),
            writes_refused: raw.writes_refused.get(),
            others_refused: raw.others_refused.get(),
        })
    };
    reports.iter().map(report).collect()
}

impl Counters {
    pub fn encode(&self) -> Box<Block> {
        let mut raw = CountersRaw::new_zeroed();
        raw.magic = COUNTERS_MAGIC;
        raw.values = [
            self.uptime_ms,
            self.reads,
            self.read_blocks,
            self.writes,
            self.write_blocks,
            self.flushes,
            self.io_errors,
            self.fences,
            self.writes_refused,
            self.others_refused,
            self.sessions,
            self.sessions_refused,
            self.sessions_malformed,
            self.executing,
            self.queued,
            self.discards,
            self.discard_blocks,
        ]
        .map(U64::new);
        let mut block = Block::zeroed();
        block.0[..size_of::<CountersRaw>()].copy_from_slice(raw.as_bytes());
        block
    }

    /// `None` when the block holds no counters.
    pub fn decode(block: &Block) -> Option<Counters> {
        let (raw, _) = CountersRaw::ref_from_prefix(&block.0).ok()?;
        if raw.magic != COUNTERS_MAGIC {
            return None;
        }
        let [
            uptime_ms,
            reads,
            read_blocks,
            writes,
            write_blocks,
            flushes,
            io_errors,
            fences,
            writes_refused,
            others_refused,
            sessions,
            sessions_refused,
            sessions_malformed,
            executing,
            queued,
            discards,
            discard_blocks,
        ] = raw.values.map(U64::get);
        Some(Counters {
            uptime_ms,
            reads,
            read_blocks,
            writes,
            write_blocks,
            flushes,
            io_errors,
            fences,
            writes_refused,
            others_refused,
            sessions,
            sessions_refused,
            sessions_malformed,
            executing,
            queued,
            discards,
            discard_blocks,
        })
    }
}
