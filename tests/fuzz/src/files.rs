//! The file system's blocks and journals.
//!
//! Blocks are not decoded one by one but by walking a device, so here whole devices are changed and
//! fsck reads them: it looks at everything that a mount looks at, and more.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fencing::layout::MpIndex;
use futures_util::FutureExt;
use mfs::block::{Block, BlockNo};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mfs::journal::record::decode_payload;
use mfs::mkfs::Format;
use mfs::ondisk::header::{self, Header, Writer};
use mfs::ondisk::journal::{RECORD_HEAD_SIZE, TRANSACTION_HEAD_SIZE};
use mx_base::{BoxFuture, ClusterId, FsId, NodeId, Timestamp};
use parking_lot::Mutex;

use crate::{Random, Target, no_checksum};

/// Blocks of the device: 64 MiB.
const DEVICE_BLOCKS: u64 = 16_384;

/// A device in memory; blocks that were never written are zero.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<BTreeMap<u64, Box<Block>>>>);

impl Disk for Memory {
    fn blocks(&self) -> u64 {
        DEVICE_BLOCKS
    }

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
        let beyond = at.0.checked_add(count as u64).is_none_or(|end| end > DEVICE_BLOCKS);
        let result = if beyond {
            Err(DiskError::BeyondEnd { at, end: DEVICE_BLOCKS })
        } else {
            let map = self.0.lock();
            let mut blocks = Block::zeroed_many(count);
            for (block, number) in blocks.iter_mut().zip(at.0..) {
                if let Some(written) = map.get(&number) {
                    block.0 = written.0;
                }
            }
            Ok(blocks)
        };
        Box::pin(std::future::ready(result))
    }

    fn write(
        &self,
        at: BlockNo,
        data: WriteData,
        _: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        let mut map = self.0.lock();
        for (block, number) in data.iter().zip(at.0..) {
            map.insert(number, Box::new(block.clone()));
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Nothing here ever waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

/// What mkfs makes.
fn formatted() -> &'static BTreeMap<u64, Box<Block>> {
    static FORMATTED: OnceLock<BTreeMap<u64, Box<Block>>> = OnceLock::new();
    FORMATTED.get_or_init(|| {
        let cluster = ClusterId([7; 16]);
        let partition = fencing::ondisk::superblock::Superblock {
            cluster,
            partition_id: [3; 16],
            index: MpIndex(0),
            count: 1,
            set_epoch: 1,
            nodes_max: NodeId::MAX,
            unit: Duration::from_millis(100),
            sequence: 1,
        };
        let mut membership: Vec<_> = fencing::ondisk::format::format(partition).collect();
        membership.sort_by_key(|(at, _)| *at);
        let as_blocks = membership.iter().map(|(_, block)| {
            let mut copy = Block::zeroed();
            copy.0 = block.0;
            copy
        });
        let format = Format {
            fs_id: FsId([9; 16]),
            cluster_id: cluster,
            label: "fuzz".into(),
            hash_key: [1; 16],
            discard: false,
            now: Timestamp { seconds: 1, nanos: 0 },
            membership: as_blocks.collect(),
        };
        let disk = Memory::default();
        now(mfs::mkfs::format(&disk, &format, |_, _| {})).expect("large enough");
        disk.0.lock().clone()
    })
}

/// A device of which up to four blocks were changed, chosen and sealed by the bytes: eight bytes of
/// a number each.
pub const DEVICE: Target = Target {
    seeds: || (0..8_u64).map(|number| number.to_le_bytes().to_vec()).collect(),
    mend: |bytes| bytes.resize(8, 0),
    run: |bytes| {
        let seed = bytes.iter().fold(0_u64, |seed, byte| seed << 8 | u64::from(*byte));
        let disk = Memory(Arc::new(Mutex::new(formatted().clone())));
        let mut random = Random::new(seed);
        {
            let mut map = disk.0.lock();
            let written: Vec<u64> = map
                .iter()
                .filter(|(_, block)| Header::of(block).kind().is_some())
                .map(|(number, _)| *number)
                .collect();
            for _ in 0..=random.below(4) {
                let number = *random.pick(&written);
                let block = map.get_mut(&number).expect("written");
                damage(block, &mut random);
            }
        }
        let mut progress = |_: &str, _, _| {};
        let check = mfs::fsck::check(Arc::new(disk), &mut progress);
        now(check).is_ok()
    },
};

fn damage(block: &mut Block, random: &mut Random) {
    let header = Header::of(block);
    let writer = Writer {
        slot: mx_base::SlotId(header.slot.get()),
        incarnation: mx_base::Incarnation(header.incarnation.get()),
    };
    let is_header = random.below(4) == 0;
    let before = block.0;
    let mut bytes = before.to_vec();
    random.change(&mut bytes, &[before.to_vec()]);
    bytes.resize(before.len(), 0);
    block.0.copy_from_slice(&bytes);
    if !is_header {
        // Otherwise hardly any block would be believed to be the right one.
        block.0[..64].copy_from_slice(&before[..64]);
    }
    if random.below(8) != 0 {
        header::seal(block, writer);
    }
}

fn field(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A transaction with one record of two runs.
fn payload() -> Vec<u8> {
    let mut runs = Vec::new();
    for (offset, bytes) in [(64_u16, &b"changed"[..]), (4000, &b"too"[..])] {
        runs.extend(offset.to_le_bytes());
        runs.extend(u16::try_from(bytes.len()).expect("short").to_le_bytes());
        runs.extend(bytes);
    }
    let mut record = vec![0; RECORD_HEAD_SIZE];
    field(&mut record, 0, &77_u64.to_le_bytes()); // block
    field(&mut record, 8, &4_u64.to_le_bytes()); // versions
    field(&mut record, 16, &5_u64.to_le_bytes());
    field(&mut record, 24, b"\x01lock name of it"); // lock
    record[48] = 16;
    record[49] = 1; // a delta
    field(&mut record, 50, &2_u16.to_le_bytes());
    field(&mut record, 52, &u32::try_from(runs.len()).expect("short").to_le_bytes());
    record.extend(&runs);
    let mut transaction = vec![0; TRANSACTION_HEAD_SIZE];
    field(&mut transaction, 0, &3_u64.to_le_bytes());
    field(&mut transaction, 8, &1_u32.to_le_bytes());
    field(&mut transaction, 12, &u32::try_from(record.len()).expect("short").to_le_bytes());
    transaction.extend(&record);
    transaction
}

/// The extended attributes of an inode.
pub const XATTRS: Target = Target {
    seeds: || {
        let acl = [
            &b"\x02\0\0\0"[..],
            b"\x01\0\x07\0\xff\xff\xff\xff",
            b"\x02\0\x06\0\xe8\x03\0\0",
            b"\x04\0\x05\0\xff\xff\xff\xff",
            b"\x10\0\x05\0\xff\xff\xff\xff",
            b"\x20\0\x01\0\xff\xff\xff\xff",
        ]
        .concat();
        let user = b"\x01\x04\0\0\x05\0\0\0namevalue".to_vec();
        let capability = b"\x03\x0a\0\0\x02\0\0\0capability\x01\x02".to_vec();
        let both = [4, 5].map(|kind| [&[kind, 0, 0, 0, 44, 0, 0, 0], &acl[..]].concat()).concat();
        let all = [user.clone(), capability, both].concat();
        vec![Vec::new(), user, all, vec![0; 7]]
    },
    mend: no_checksum,
    run: mfs::xattr::takes_stream,
};

/// The payload of a journal segment; the first byte says how many transactions it should have.
pub const SEGMENT: Target = Target {
    seeds: || {
        let one = [vec![1], payload()].concat();
        let two = [vec![2], payload(), payload()].concat();
        vec![one, two, vec![0]]
    },
    mend: no_checksum,
    run: |bytes| match bytes {
        [] => false,
        [count, payload @ ..] => {
            let decoded = decode_payload(payload, u32::from(*count));
            // A count that lies holds no memory.
            let _ = decode_payload(payload, u32::MAX);
            decoded.is_ok()
        }
    },
};
