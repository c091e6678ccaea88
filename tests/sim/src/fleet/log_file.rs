//! A file that everybody appends to, and what a reader may find in it: every record that was
//! acknowledged before, whole and once, in the order in which they were acknowledged.

use std::collections::BTreeMap;

use mx_base::Instant;

use super::LifeId;

const MAGIC: u32 = 0x4c4f_4721;
const HEADER: usize = 16;

/// What is known of a log.
#[derive(Debug, Default)]
pub struct Log {
    records: BTreeMap<u64, Record>,
    /// The last time a life took records with it.
    lost_at: Instant,
    /// What was read last, and its records: it mostly begins what is read next.
    read: (Vec<u8>, Vec<u64>),
}

/// One record.
#[derive(Debug)]
pub struct Record {
    life: LifeId,
    begun: Instant,
    acknowledged: Option<Instant>,
    is_durable: bool,
    /// Its life is gone: it is there or not.
    is_doubtful: bool,
}

impl Record {
    /// A record as it lies in the file.
    pub fn bytes(id: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + len);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(u32::try_from(len).expect("short").to_le_bytes());
        bytes.extend(id.to_le_bytes());
        bytes.extend(filler(id).take(len));
        bytes
    }
}

/// What lies behind the header.
fn filler(id: u64) -> impl Iterator<Item = u8> {
    let first = id.to_le_bytes()[0].wrapping_mul(31);
    std::iter::successors(Some(first), |byte| Some(byte.wrapping_add(7)))
}

impl Log {
    /// `is_lost`: nothing that this life does counts any more.
    pub fn begin(&mut self, id: u64, life: LifeId, begun: Instant, is_lost: bool) {
        let record =
            Record { life, begun, acknowledged: None, is_durable: false, is_doubtful: is_lost };
        self.records.insert(id, record);
    }

    /// There was no room for it: it never comes.
    pub fn withdraw(&mut self, id: u64) {
        self.records.remove(&id);
    }

    pub fn acknowledge(&mut self, id: u64, now: Instant) {
        // What a lost life goes on doing counts for nothing.
        let Some(record) = self.records.get_mut(&id).filter(|record| !record.is_doubtful) else {
            return;
        };
        record.acknowledged = Some(now);
        let (life, begun) = (record.life, record.begun);
        // What others had acknowledged was durable before this one could be written.
        for other in self.records.values_mut() {
            if other.life != life && other.acknowledged.is_some_and(|at| at < begun) {
                other.is_durable = true;
            }
        }
    }

    /// An fsync that `life` began at `began` was answered. What was acknowledged at the same time
    /// may have come behind its beginning.
    pub fn synced(&mut self, life: LifeId, began: Instant) {
        for record in self.records.values_mut() {
            if record.life == life
                && !record.is_doubtful
                && record.acknowledged.is_some_and(|at| at < began)
            {
                record.is_durable = true;
            }
        }
    }

    pub fn lose(&mut self, life: LifeId) {
        for record in self.records.values_mut() {
            if record.life == life && !record.is_durable {
                record.is_doubtful = true;
            }
        }
        self.lost_at = crate::exec::running().0;
    }

    /// `bytes` were read by `life`, which began to at `began`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&mut self, life: LifeId, began: Instant, bytes: &[u8]) -> Result<(), String> {
        let found = self.parse(bytes)?;
        let mut seen = found.clone();
        seen.sort_unstable();
        if let Some(two) = seen.windows(2).find(|two| two[0] == two[1]) {
            return Err(format!("record {} is there twice", two[0]));
        }
        let is_seen = |id: &u64| seen.binary_search(id).is_ok();
        let mut newest_begun = (Instant(0), 0);
        for id in &found {
            let record =
                self.records.get(id).ok_or_else(|| format!("record {id} was never written"))?;
            if record.acknowledged.is_some_and(|at| at < newest_begun.0) {
                return Err(format!("record {id} lies behind {}, begun later", newest_begun.1));
            }
            newest_begun = newest_begun.max((record.begun, *id));
        }
        let missing = self.records.iter().find(|(id, record)| {
            record.acknowledged.is_some_and(|at| at < began) && !record.is_doubtful && !is_seen(id)
        });
        if let Some((id, record)) = missing {
            let count = found.len();
            return Err(format!("record {id} {record:?} is missing among {count}"));
        }
        if self.lost_at < began {
            // What was not there when somebody looked never comes.
            self.records.retain(|id, r| !r.is_doubtful || is_seen(id) || r.begun >= began);
        }
        for id in seen {
            let record = self.records.get_mut(&id).expect("found above");
            if record.is_doubtful {
                (record.is_doubtful, record.is_durable) = (false, true);
            }
            record.is_durable |= record.life != life;
        }
        Ok(())
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<Vec<u64>, String> {
        if !bytes.starts_with(&self.read.0) {
            self.read = Default::default();
        }
        let (known, found) = std::mem::take(&mut self.read);
        let found = parse(bytes, known.len(), found)?;
        self.read = (bytes.to_vec(), found.clone());
        Ok(found)
    }
}

/// Records of a log, those up to an offset being known.
fn parse(bytes: &[u8], mut at: usize, mut found: Vec<u64>) -> Result<Vec<u64>, String> {
    let mut bytes = &bytes[at..];
    while !bytes.is_empty() {
        let wrong = |what: &str| format!("{what} at {at}, behind {} records", found.len());
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(wrong("half a header"));
        };
        let [m0, m1, m2, m3, l0, l1, l2, l3, id @ ..] = *header;
        if u32::from_le_bytes([m0, m1, m2, m3]) != MAGIC {
            return Err(wrong("no record"));
        }
        let (len, id) = (u32::from_le_bytes([l0, l1, l2, l3]), u64::from_le_bytes(id));
        let len = usize::try_from(len).expect("short");
        let Some((body, rest)) = rest.split_at_checked(len) else {
            return Err(wrong("half a record"));
        };
        if !body.iter().copied().eq(filler(id).take(len)) {
            return Err(wrong("a damaged record"));
        }
        found.push(id);
        (bytes, at) = (rest, at + HEADER + len);
    }
    Ok(found)
}
