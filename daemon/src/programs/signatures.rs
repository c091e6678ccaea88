//! Whose a device is already, before anything is written to it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use fencing::layout::{self, MpIndex};
use fencing::ondisk::heartbeat::{self, HeartbeatRecord};
use mfs::block::BlockNo;
use mfs::env::Disk;
use mfs::superblock::{Superblock, SuperblockError};
use mx_base::{ClusterId, NodeId};

use crate::partition::{self, IdentityError, partition_block_of};

/// Units that heartbeats are watched: a node that lives writes one every unit and is expelled
/// after less (rule R8).
const UNITS_WATCHED: u32 = 10;

/// Who has a use for the device.
#[derive(Debug, thiserror::Error)]
pub enum InUse {
    #[error("it is mounted on {0}")]
    Mounted(String),
    #[error("it holds {0}")]
    Holds(String),
    #[error("it holds the MatrixFS file system {label:?} ({uuid})")]
    Matrixfs { label: String, uuid: String },
    #[error("it holds the MatrixFS file system {label:?}, and node {node} of its cluster uses it")]
    Cluster { label: String, node: NodeId },
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot be opened: {0}")]
    Device(#[source] io::Error),
    #[error("cannot run blkid (package util-linux): {0}")]
    NoBlkid(#[source] io::Error),
    #[error("blkid failed: {0}")]
    Blkid(String),
    #[error("cannot read the list of mounts: {0}")]
    Mounts(#[source] io::Error),
    #[error(transparent)]
    Disk(#[from] mfs::error::DiskError),
}

/// Where a device is mounted, by this machine's list of mounts.
///
/// # Errors
/// When the list cannot be read.
pub fn mounted_on(device: &Path) -> Result<Option<String>, ProbeError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(ProbeError::Mounts)?;
    let metadata = fs::metadata(device).ok().filter(|m| m.file_type().is_block_device());
    let number = metadata.map(|m| {
        let (major, minor) = (rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev()));
        format!("{major}:{minor}")
    });
    let path = device.canonicalize().unwrap_or_else(|_| device.to_owned());
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let source = fields.iter().position(|f| *f == "-").and_then(|dash| fields.get(dash + 2));
        let by_number = number.as_deref().is_some_and(|n| fields.get(2) == Some(&n));
        let by_path = source.is_some_and(|s| Path::new(s) == path || Path::new(s) == device);
        if by_number || by_path {
            return Ok(fields.get(4).map(|dir| (*dir).to_owned()));
        }
    }
    Ok(None)
}

/// What `blkid -p` recognises on a device: a file system, a partition table, a volume.
///
/// # Errors
/// When blkid cannot be asked.
pub fn recognised(device: &Path) -> Result<Option<String>, ProbeError> {
    let output = Command::new("blkid")
        .args(["-p", "-o", "export"])
        .arg(device)
        .output()
        .map_err(ProbeError::NoBlkid)?;
    match output.status.code() {
        // Nothing found.
        Some(2) => Ok(None),
        Some(0) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let value =
                |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            let what = value("TYPE").map(str::to_owned);
            let table = || value("PTTYPE").map(|t| format!("partitions ({t})"));
            Ok(Some(what.or_else(table).unwrap_or_else(|| "something that blkid knows".into())))
        }
        // Several that contradict each other.
        Some(8) => Ok(Some("signatures of more than one kind".into())),
        _ => Err(ProbeError::Blkid(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// A MatrixFS on the device, and whether its cluster is alive.
///
/// # Errors
/// When the device cannot be read.
pub async fn matrixfs_on(disk: &dyn Disk) -> Result<Option<InUse>, ProbeError> {
    let identity = match partition::identify(disk).await {
        Ok(identity) => identity,
        Err(
            IdentityError::Disk(error) | IdentityError::Superblock(SuperblockError::Disk(error)),
        ) => {
            return Err(error.into());
        }
        Err(_) => return Ok(None),
    };
    let sb = identity.fs;
    if let Some(node) = beating(disk, &sb, identity.membership.unit).await? {
        return Ok(Some(InUse::Cluster { label: sb.label, node }));
    }
    Ok(Some(InUse::Matrixfs { label: sb.label, uuid: sb.fs_id.to_string() }))
}

/// A node whose heartbeat on the device moves.
///
/// # Errors
/// When the device cannot be read.
pub async fn beating(
    disk: &dyn Disk,
    sb: &Superblock,
    unit: Duration,
) -> Result<Option<NodeId>, ProbeError> {
    let before = heartbeats(disk, sb).await?;
    sleep(unit * UNITS_WATCHED);
    let after = heartbeats(disk, sb).await?;
    let moved = before.iter().zip(&after).find(|(a, b)| a != b);
    Ok(moved.and_then(|(_, now)| now.as_ref()).map(|now| now.node))
}

async fn heartbeats(
    disk: &dyn Disk,
    sb: &Superblock,
) -> Result<Vec<Option<HeartbeatRecord>>, ProbeError> {
    let (first, count) = layout::heartbeat_run(NodeId::MAX);
    let at = BlockNo(sb.layout.membership_start + u64::from(first.0));
    let blocks = disk.read(at, count as usize).await?;
    let nodes = (1..=NodeId::MAX).filter_map(NodeId::new);
    let cluster: ClusterId = sb.cluster_id;
    let decoded = nodes.zip(&blocks).map(|(node, block)| {
        let place = heartbeat::place(cluster, MpIndex(0), node);
        HeartbeatRecord::decode(&partition_block_of(block), node, place).ok()
    });
    Ok(decoded.collect())
}
