//! The fenced set on disk.
//!
//! Keeps true: the file `state` in the state directory is always a whole, checked image: it is
//! written anew beside it, made durable, put in its place, and the directory made durable, before
//! anybody is told. One server at a time uses the directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mx_base::{ClusterId, NodeId};
use parking_lot::{Condvar, Mutex};
use rustix::event::EventfdFlags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use fencing::DeviceId;

use super::fence_table::{FenceTable, NodeEntry};
use crate::device::{self, Waiting};
use crate::engine;

const MAGIC: [u8; 8] = *b"MXARBSTA";
const VERSION: u16 = 1;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EntryRaw {
    min: U32,
    newest: U32,
    nonce: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StateRaw {
    magic: [u8; 8],
    version: U16,
    reserved: [u8; 6],
    cluster: [u8; 16],
    device: [u8; 16],
    entries: [EntryRaw; NodeId::MAX as usize],
    reserved_2: [u8; 4],
    checksum: U32,
}
const _: () = assert!(size_of::<StateRaw>() == 1080);

/// Whose state it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    pub(super) cluster: ClusterId,
    pub(super) device: DeviceId,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {what}", path = .path.display())]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error("{path}: another arbiter uses this state directory", path = .path.display())]
    InUse { path: PathBuf },
    #[error(
        "{path}: damaged ({what}). It says who is fenced; restore it, or remove it when no node of \
         the cluster runs", path = .path.display()
    )]
    Damaged { path: PathBuf, what: &'static str },
    #[error("{path}: belongs to another cluster or device", path = .path.display())]
    Foreign { path: PathBuf },
}

/// The state directory, held by a lock for as long as this lives.
#[derive(Debug)]
pub(super) struct StateDir {
    dir: PathBuf,
    owner: Owner,
    _lock: File,
}

impl StateDir {
    /// Waits at most `patience` for a former server: a killed one keeps the lock until its requests
    /// have ended.
    pub(super) fn open(
        dir: &Path,
        owner: Owner,
        patience: Duration,
    ) -> Result<StateDir, StoreError> {
        let failed = |what| move |source| StoreError::Io { path: dir.to_owned(), what, source };
        std::fs::create_dir_all(dir).map_err(failed("cannot be made"))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("no lock file can be made in it"))?;
        match device::lock(&lock, &mut Waiting::new(&path, patience)) {
            Ok(true) => Ok(StateDir { dir: dir.to_owned(), owner, _lock: lock }),
            Ok(false) => Err(StoreError::InUse { path: dir.to_owned() }),
            Err(errno) => Err(failed("cannot be locked")(errno.into())),
        }
    }

    /// The table as it was last stored; an empty one when there is none yet.
    pub(super) fn load(&self) -> Result<FenceTable, StoreError> {
        let path = self.dir.join("state");
        let mut bytes = Vec::new();
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(FenceTable::new([NodeEntry::default(); NodeId::MAX as usize]));
            }
            Err(source) => {
                return Err(StoreError::Io { path, what: "cannot be opened", source });
            }
            Ok(mut file) => {
                if let Err(source) = file.read_to_end(&mut bytes) {
                    return Err(StoreError::Io { path, what: "cannot be read", source });
                }
            }
        }
        let damaged = |what| StoreError::Damaged { path: path.clone(), what };
        let (owner, entries) = decode(&bytes).map_err(damaged)?;
        if owner != self.owner {
            return Err(StoreError::Foreign { path });
        }
        Ok(FenceTable::new(entries))
    }

    /// Stores the table durably.
    fn save(&self, image: &[u8]) -> io::Result<()> {
        let new = self.dir.join("state.new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(image)?;
        file.sync_all()?;
        std::fs::rename(&new, self.dir.join("state"))?;
        File::open(&self.dir)?.sync_all()
    }

    fn encode(&self, table: &FenceTable) -> Vec<u8> {
        encode(self.owner, table.entries())
    }
}

fn encode(owner: Owner, entries: &[NodeEntry; NodeId::MAX as usize]) -> Vec<u8> {
    let mut raw = StateRaw::new_zeroed();
    raw.magic = MAGIC;
    raw.version = VERSION.into();
    raw.cluster = owner.cluster.0;
    raw.device = owner.device.0;
    for (raw, entry) in raw.entries.iter_mut().zip(entries) {
        *raw = EntryRaw {
            min: entry.min.into(),
            newest: entry.newest.into(),
            nonce: entry.nonce.into(),
        };
    }
    raw.checksum = checksum(raw.as_bytes()).into();
    raw.as_bytes().to_vec()
}

fn decode(bytes: &[u8]) -> Result<(Owner, [NodeEntry; NodeId::MAX as usize]), &'static str> {
    let raw = StateRaw::ref_from_bytes(bytes).map_err(|_| "wrong size")?;
    if raw.magic != MAGIC {
        return Err("wrong magic");
    }
    if raw.checksum.get() != checksum(bytes) {
        return Err("wrong checksum");
    }
    if raw.version.get() != VERSION {
        return Err("another format version");
    }
    let owner = Owner { cluster: ClusterId(raw.cluster), device: DeviceId(raw.device) };
    let mut entries = [NodeEntry::default(); NodeId::MAX as usize];
    for (entry, raw) in entries.iter_mut().zip(&raw.entries) {
        let (min, newest, nonce) = (raw.min.get(), raw.newest.get(), raw.nonce.get());
        *entry = NodeEntry { min, newest, nonce };
    }
    Ok((owner, entries))
}

fn checksum(image: &[u8]) -> u32 {
    let covered = &image[..size_of::<StateRaw>() - 4];
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, covered);
    u32::try_from(crc).expect("a crc32c has 32 bits")
}

/// How storing ended: every change up to `version` is durable, or this attempt at them failed.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) version: u64,
    pub(super) result: io::Result<()>,
}

#[derive(Debug, Default)]
struct Work {
    /// The newest image that is not being stored yet.
    wanted: Option<(u64, Vec<u8>)>,
    stored: Vec<Stored>,
    ended: bool,
}

#[derive(Debug)]
struct Shared {
    work: Mutex<Work>,
    change: Condvar,
    ready: OwnedFd,
}

/// Stores tables in a thread of its own, so that the I/O of the living does not wait for it.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    dir: Arc<StateDir>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(dir: StateDir) -> io::Result<Keeper> {
        let ready = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let work = Mutex::new(Work::default());
        let shared = Arc::new(Shared { work, change: Condvar::new(), ready });
        let dir = Arc::new(dir);
        let (for_thread, dir_of_thread) = (Arc::clone(&shared), Arc::clone(&dir));
        let thread = std::thread::Builder::new()
            .name("mx-state".into())
            .spawn(move || keep(&for_thread, &dir_of_thread))?;
        Ok(Keeper { shared, dir, thread: Some(thread) })
    }

    /// Stores the table; of several in a row only the last has to be written.
    pub(super) fn store(&self, table: &FenceTable) {
        let image = self.dir.encode(table);
        self.shared.work.lock().wanted = Some((table.version(), image));
        self.shared.change.notify_one();
    }

    /// Readable when [`Keeper::take_stored`] has something.
    pub(super) fn ready(&self) -> &OwnedFd {
        &self.shared.ready
    }

    pub(super) fn take_stored(&self) -> Vec<Stored> {
        engine::drain(&self.shared.ready);
        std::mem::take(&mut self.shared.work.lock().stored)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.work.lock().ended = true;
        self.shared.change.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that stores the state has panicked");
        }
    }
}

fn keep(shared: &Shared, dir: &StateDir) {
    loop {
        let (version, image) = {
            let mut work = shared.work.lock();
            loop {
                if let Some(wanted) = work.wanted.take() {
                    break wanted;
                }
                if work.ended {
                    return;
                }
                shared.change.wait(&mut work);
            }
        };
        let result = dir.save(&image);
        shared.work.lock().stored.push(Stored { version, result });
        engine::wake(&shared.ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { cluster: ClusterId([1; 16]), device: DeviceId([2; 16]) }
    }

    fn entries() -> [NodeEntry; 64] {
        let mut entries = [NodeEntry::default(); 64];
        entries[2] = NodeEntry { min: 4, newest: 5, nonce: 6 };
        entries
    }

    #[test]
    fn a_state_reads_back_and_every_damage_is_noticed() {
        let image = encode(owner(), &entries());
        assert_eq!(decode(&image), Ok((owner(), entries())));
        for at in 0..image.len() {
            let mut bad = image.clone();
            bad[at] ^= 4;
            assert!(decode(&bad).is_err(), "byte {at}");
        }
        assert_eq!(decode(&image[1..]), Err("wrong size"));
        assert_eq!(decode(&[]), Err("wrong size"));
    }

    #[test]
    fn state_golden_bytes() {
        let image = encode(owner(), &entries());
        assert_eq!(&image[..10], b"MXARBSTA\x01\x00");
        assert_eq!(&image[16..48], [[1; 16], [2; 16]].concat());
        assert_eq!(&image[48 + 32..48 + 48], [4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&image[1076..], checksum(&image).to_le_bytes());
    }
}
