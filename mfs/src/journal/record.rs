//! Transactions as bytes, and back (`docs/spec/journal.md`).
//!
//! Decoding takes any bytes: it checks every length before it is used, allocates no more than the
//! input is long, and never panics.

use lcl::ResourceName;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::Lsn;
use crate::block::{BLOCK_SIZE, Block, BlockNo};
use crate::ondisk::header::SEALED_FIELDS;
use crate::ondisk::journal::{
    RECORD_HEAD_SIZE, RecordHead, RecordKind, TRANSACTION_HEAD_SIZE, TransactionHead,
};

/// Offset of the version in a block's header; it is in the record's head and not in its runs.
const VERSION_FIELD: (usize, usize) = (48, 8);
/// Bytes in front of a run: offset and length.
const RUN_HEAD_SIZE: usize = 4;
/// Unchanged bytes that are cheaper to log than a further run.
const GAP_MAX: usize = 8;

/// The most bytes that a transaction over `blocks` blocks takes in the log.
pub(crate) const fn transaction_len_max(blocks: usize) -> usize {
    // Runs alternate with gaps of more than GAP_MAX bytes, so heads never outweigh the gaps.
    TRANSACTION_HEAD_SIZE + blocks * (RECORD_HEAD_SIZE + BLOCK_SIZE + RUN_HEAD_SIZE)
}

/// One change of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub block: BlockNo,
    pub lock: ResourceName,
    pub kind: RecordKind,
    pub old_version: u64,
    pub new_version: u64,
    /// Offset, length, bytes; repeated.
    runs: Vec<u8>,
}

/// An atomic change as it was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedTransaction {
    pub lsn: Lsn,
    pub records: Vec<Record>,
}

/// What is wrong with bytes that should be transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{what} needs {needed} bytes, {left} are left")]
    Short { what: &'static str, needed: usize, left: usize },
    #[error("a record names no lock")]
    Lock,
    #[error("a record is of unknown kind {0}")]
    Kind(u8),
    #[error("a run of {len} bytes at {offset} does not fit a block")]
    Run { offset: usize, len: usize },
    #[error("versions go from {old} to {new}")]
    Versions { old: u64, new: u64 },
    #[error("{0} bytes follow the last transaction")]
    Trailing(usize),
}

/// Appends one record: what leads from `old` (zeros for an image) to `new`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a name has at most 24 bytes, a record at most two blocks"
)]
pub(crate) fn encode_record(
    out: &mut Vec<u8>,
    lock: &ResourceName,
    number: BlockNo,
    kind: RecordKind,
    old: &Block,
    new: &Block,
    versions: (u64, u64),
) {
    let head_at = out.len();
    out.resize(head_at + RECORD_HEAD_SIZE, 0);
    let base = match kind {
        RecordKind::Image => None,
        RecordKind::Delta => Some(&old.0),
    };
    let runs = encode_runs(out, base, &new.0);
    let mut name = [0; 24];
    let lock = lock.as_bytes();
    name[..lock.len()].copy_from_slice(lock);
    let head = RecordHead {
        block: U64::new(number.0),
        old_version: U64::new(versions.0),
        new_version: U64::new(versions.1),
        lock: name,
        lock_len: lock.len() as u8,
        kind: kind as u8,
        runs: U16::new(runs),
        len: U32::new((out.len() - head_at - RECORD_HEAD_SIZE) as u32),
    };
    out[head_at..head_at + RECORD_HEAD_SIZE].copy_from_slice(head.as_bytes());
}

/// Fills in the head of a transaction whose records were appended from `head_at` on.
#[expect(clippy::cast_possible_truncation, reason = "a transaction fits into a segment")]
pub(crate) fn finish_transaction(out: &mut [u8], head_at: usize, lsn: Lsn, records: usize) {
    let len = out.len() - head_at - TRANSACTION_HEAD_SIZE;
    let head = TransactionHead {
        lsn: U64::new(lsn.0),
        records: U32::new(records as u32),
        len: U32::new(len as u32),
    };
    out[head_at..head_at + TRANSACTION_HEAD_SIZE].copy_from_slice(head.as_bytes());
}

/// Appends the runs in which `new` differs from `base` (zeros if `None`); returns their number.
#[expect(clippy::cast_possible_truncation, reason = "offsets in a block")]
fn encode_runs(out: &mut Vec<u8>, base: Option<&[u8; BLOCK_SIZE]>, new: &[u8; BLOCK_SIZE]) -> u16 {
    let zeros = [0; BLOCK_SIZE];
    let base = base.unwrap_or(&zeros);
    let mut count = 0;
    let mut at = 0;
    while let Some(start) = next_difference(base, new, at) {
        let mut end = start + 1;
        // Grow the run over gaps that are shorter than the head of another run.
        while let Some(next) = next_difference(base, new, end) {
            if next - end > GAP_MAX {
                break;
            }
            end = next + 1;
        }
        out.extend_from_slice(&(start as u16).to_le_bytes());
        out.extend_from_slice(&((end - start) as u16).to_le_bytes());
        out.extend_from_slice(&new[start..end]);
        count += 1;
        at = end;
    }
    count
}

/// The first byte from `at` on that differs and is not filled in on writing.
fn next_difference(a: &[u8; BLOCK_SIZE], b: &[u8; BLOCK_SIZE], mut at: usize) -> Option<usize> {
    const STRIDE: usize = 64;
    while at < BLOCK_SIZE {
        if at.is_multiple_of(STRIDE) && a[at..at + STRIDE] == b[at..at + STRIDE] {
            at += STRIDE;
            continue;
        }
        let first = at / WORD * WORD;
        let word = |block: &[u8; BLOCK_SIZE]| {
            u64::from_le_bytes(block[first..first + WORD].try_into().expect("a word"))
        };
        let logged = LOGGED.get(first / WORD).copied().unwrap_or(u64::MAX);
        // The first byte is the lowest one.
        let difference = (word(a) ^ word(b)) & logged & (u64::MAX << ((at - first) * 8));
        if difference != 0 {
            return Some(first + difference.trailing_zeros() as usize / 8);
        }
        at = first + WORD;
    }
    None
}

const WORD: usize = size_of::<u64>();

/// The bytes of the first words that are not filled in on writing; of the others all are logged.
const LOGGED: [u64; 8] = {
    let mut logged = [u64::MAX; 8];
    let mut field = 0;
    while field <= SEALED_FIELDS.len() {
        let is_sealed = field < SEALED_FIELDS.len();
        let (start, len) = if is_sealed { SEALED_FIELDS[field] } else { VERSION_FIELD };
        let mut at = start;
        while at < start + len {
            logged[at / WORD] &= !(0xFF << (at % WORD * 8));
            at += 1;
        }
        field += 1;
    }
    logged
};

/// All transactions of a segment's payload.
///
/// # Errors
/// [`DecodeError`]; nothing of the payload is to be used then.
pub fn decode_payload(mut bytes: &[u8], count: u32) -> Result<Vec<LoggedTransaction>, DecodeError> {
    let mut transactions = Vec::new();
    for _ in 0..count {
        let head: &TransactionHead = take_head(&mut bytes, "a transaction")?;
        let (lsn, records, len) = (Lsn(head.lsn.get()), head.records.get(), head.len.get());
        let mut body = take(&mut bytes, len as usize, "a transaction's records")?;
        let mut decoded = Vec::new();
        for _ in 0..records {
            decoded.push(decode_record(&mut body)?);
        }
        if !body.is_empty() {
            return Err(DecodeError::Trailing(body.len()));
        }
        transactions.push(LoggedTransaction { lsn, records: decoded });
    }
    if bytes.is_empty() { Ok(transactions) } else { Err(DecodeError::Trailing(bytes.len())) }
}

fn decode_record(bytes: &mut &[u8]) -> Result<Record, DecodeError> {
    let head: &RecordHead = take_head(bytes, "a record")?;
    let kind = match head.kind {
        0 => RecordKind::Image,
        1 => RecordKind::Delta,
        other => return Err(DecodeError::Kind(other)),
    };
    let lock = head
        .lock
        .get(..usize::from(head.lock_len))
        .and_then(ResourceName::new)
        .ok_or(DecodeError::Lock)?;
    let (old, new) = (head.old_version.get(), head.new_version.get());
    if new <= old {
        return Err(DecodeError::Versions { old, new });
    }
    let block = BlockNo(head.block.get());
    let run_count = head.runs.get();
    let runs = take(bytes, head.len.get() as usize, "a record's runs")?;
    let mut rest = runs;
    for _ in 0..run_count {
        take_run(&mut rest)?;
    }
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()));
    }
    Ok(Record { block, lock, kind, old_version: old, new_version: new, runs: runs.to_vec() })
}

fn take<'a>(bytes: &mut &'a [u8], len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
    let left = bytes.len();
    let Some((taken, rest)) = bytes.split_at_checked(len) else {
        return Err(DecodeError::Short { what, needed: len, left });
    };
    *bytes = rest;
    Ok(taken)
}

fn take_head<'a, T>(bytes: &mut &'a [u8], what: &'static str) -> Result<&'a T, DecodeError>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    let (needed, left) = (size_of::<T>(), bytes.len());
    let Ok((head, rest)) = T::ref_from_prefix(bytes) else {
        return Err(DecodeError::Short { what, needed, left });
    };
    *bytes = rest;
    Ok(head)
}

fn take_run<'a>(bytes: &mut &'a [u8]) -> Result<(usize, &'a [u8]), DecodeError> {
    let head = take(bytes, RUN_HEAD_SIZE, "a run")?;
    let offset = usize::from(u16::from_le_bytes([head[0], head[1]]));
    let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
    if offset + len > BLOCK_SIZE {
        return Err(DecodeError::Run { offset, len });
    }
    Ok((offset, take(bytes, len, "a run's bytes")?))
}

impl Record {
    /// Lays the runs over `block`, which holds zeros for an image and the old version for a delta.
    /// The version is set; writer and checksum are left to whoever writes the block.
    pub(crate) fn lay_over(&self, block: &mut Block) {
        let mut rest = &self.runs[..];
        while !rest.is_empty() {
            // Decoding has checked every run.
            let Ok((offset, bytes)) = take_run(&mut rest) else {
                unreachable!("a decoded record has whole runs")
            };
            block.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        let (at, len) = VERSION_FIELD;
        block.0[at..at + len].copy_from_slice(&self.new_version.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> ResourceName {
        ResourceName::new(b"\x05inode").expect("short")
    }

    fn log(old: &Block, new: &Block, kind: RecordKind) -> Vec<LoggedTransaction> {
        let mut out = vec![0; TRANSACTION_HEAD_SIZE];
        encode_record(&mut out, &lock(), BlockNo(9), kind, old, new, (3, 4));
        finish_transaction(&mut out, 0, Lsn(1), 1);
        assert!(out.len() <= transaction_len_max(1));
        decode_payload(&out, 1).expect("what was encoded decodes")
    }

    #[test]
    fn a_delta_leads_from_the_old_block_to_the_new_one() {
        let mut old = *Block::zeroed();
        old.0[100..200].fill(7);
        let mut new = old.clone();
        new.0[150] = 8;
        new.0[155] = 9;
        new.0[4090..].fill(1);
        let logged = log(&old, &new, RecordKind::Delta);
        let record = &logged[0].records[0];
        assert!(record.runs.len() < 30, "{}", record.runs.len());
        let mut replayed = old.clone();
        record.lay_over(&mut replayed);
        new.0[48..56].copy_from_slice(&4_u64.to_le_bytes());
        assert_eq!(replayed.0, new.0);
    }

    #[test]
    fn a_difference_is_found_wherever_it_is_but_in_what_is_filled_in() {
        let old = [0; BLOCK_SIZE];
        for at in 0..BLOCK_SIZE {
            let mut new = old;
            new[at] = 0x80;
            let fields = SEALED_FIELDS.iter().chain([&VERSION_FIELD]);
            let is_filled_in =
                fields.clone().any(|(start, len)| (*start..start + len).contains(&at));
            for from in [0, at.saturating_sub(70), at.saturating_sub(1), at, at + 1] {
                let found = (from <= at && !is_filled_in).then_some(at);
                assert_eq!(next_difference(&old, &new, from), found, "byte {at} from {from}");
            }
        }
    }

    #[test]
    fn an_image_does_not_depend_on_what_was_there() {
        let mut new = *Block::zeroed();
        new.0[64..3000].fill(5);
        let logged = log(&Block::zeroed(), &new, RecordKind::Image);
        let mut replayed = *Block::zeroed();
        logged[0].records[0].lay_over(&mut replayed);
        new.0[48..56].copy_from_slice(&4_u64.to_le_bytes());
        assert_eq!(replayed.0, new.0);
    }

    #[test]
    fn the_worst_block_fits_the_promised_length() {
        let mut new = *Block::zeroed();
        for (i, byte) in new.0.iter_mut().enumerate() {
            *byte = u8::from(i % 10 == 0);
        }
        log(&Block::zeroed(), &new, RecordKind::Image);
        new.0.fill(0xff);
        log(&Block::zeroed(), &new, RecordKind::Image);
    }

    #[test]
    fn broken_bytes_are_refused() {
        let mut new = *Block::zeroed();
        new.0[64..80].fill(5);
        let mut out = vec![0; TRANSACTION_HEAD_SIZE];
        encode_record(&mut out, &lock(), BlockNo(9), RecordKind::Image, &new, &new, (3, 4));
        finish_transaction(&mut out, 0, Lsn(1), 1);
        for cut in 0..out.len() {
            assert!(decode_payload(&out[..cut], 1).is_err(), "cut at {cut}");
        }
        assert_eq!(decode_payload(&out, 0), Err(DecodeError::Trailing(out.len())));
        let mut bad = out.clone();
        bad[TRANSACTION_HEAD_SIZE + 49] = 9;
        assert_eq!(decode_payload(&bad, 1), Err(DecodeError::Kind(9)));
        let mut bad = out;
        bad[TRANSACTION_HEAD_SIZE + RECORD_HEAD_SIZE + 1] = 0xff;
        assert!(matches!(decode_payload(&bad, 1), Err(DecodeError::Run { .. })));
    }
}
