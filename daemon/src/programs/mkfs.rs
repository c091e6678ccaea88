//! mkfs.matrixfs: formats a device.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use fencing::layout::MpIndex;
use fencing::ondisk::superblock::Superblock;
use indicatif::{ProgressBar, ProgressStyle};
use mfs::env::Disk;
use mfs::mkfs::{self, Format, LABEL_MAX};
use mx_base::size::Bytes;
use mx_base::{ClusterId, FsId, NodeId};
use serde::Serialize;

use super::signatures::{InUse, ProbeError, matrixfs_on, mounted_on, recognised};
use super::{AloneError, open_alone};
use crate::partition::block_of;
use crate::runtime::wall_time;

/// Format a device as a MatrixFS file system.
///
/// Refuses a device that holds anything, is mounted, or is used by a cluster, unless --force is
/// given. Takes seconds whatever the size: groups are initialised when they are first used, and
/// journals are allocated when a node first mounts.
#[derive(Parser, Debug)]
#[command(name = "mkfs.matrixfs", version)]
pub struct Options {
    /// Name of the file system, at most 64 bytes.
    #[arg(short = 'L', long, default_value = "")]
    pub label: String,
    /// Format whatever is on the device; its contents are lost.
    #[arg(short, long)]
    pub force: bool,
    /// Do not tell the device first that nothing on it is needed (thin-provisioned and flash devices
    /// have a use for that; a regular file becomes sparse).
    #[arg(long)]
    pub no_discard: bool,
    /// Unit of all time-outs of the cluster, in milliseconds, 50 to 1000: a heartbeat every unit,
    /// suspicion after five. Longer for slow networks or storage, and for virtual machines: who is
    /// not run for five units is expelled.
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(50..=1000))]
    pub unit: u64,
    /// Print what was made as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Print nothing but errors.
    #[arg(short, long)]
    pub quiet: bool,
    /// Block device or regular file, at least 64 MiB.
    pub device: PathBuf,
}

/// Why nothing was formatted.
#[derive(Debug, thiserror::Error)]
pub enum MkfsError {
    #[error("{}: {in_use}; use --force to format it all the same", device.display())]
    InUse { device: PathBuf, in_use: InUse },
    #[error("the label has {0} bytes, at most {LABEL_MAX} are possible")]
    Label(usize),
    #[error("{}: {source}", device.display())]
    Probe { device: PathBuf, source: ProbeError },
    #[error(transparent)]
    Open(#[from] AloneError),
    #[error("{}: {source}", device.display())]
    Format { device: PathBuf, source: mkfs::FormatError },
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Made {
    pub device: PathBuf,
    pub uuid: String,
    pub cluster: String,
    pub label: String,
    pub bytes: u64,
    pub usable_bytes: u64,
    pub block_bytes: u64,
    pub groups: u64,
    pub slots: u16,
    pub journal_bytes: u64,
}

/// Formats the device.
///
/// # Errors
/// [`MkfsError`].
pub fn run(options: &Options) -> Result<Made, MkfsError> {
    let device = options.device.clone();
    if options.label.len() > LABEL_MAX {
        return Err(MkfsError::Label(options.label.len()));
    }
    let probe = |source| MkfsError::Probe { device: device.clone(), source };
    let in_use = |in_use| MkfsError::InUse { device: device.clone(), in_use };
    if !options.force {
        // Before the device is opened for writing: that would fail with less to say.
        fs::metadata(&device).map_err(|error| probe(ProbeError::Device(error)))?;
        if let Some(dir) = mounted_on(&device).map_err(probe)? {
            return Err(in_use(InUse::Mounted(dir)));
        }
        if let Some(what) = recognised(&device).map_err(probe)? {
            return Err(in_use(InUse::Holds(what)));
        }
    }
    let disk = open_alone(&device)?;
    super::block_on(async {
        if !options.force
            && let Some(found) = matrixfs_on(&*disk).await.map_err(probe)?
        {
            return Err(in_use(found));
        }
        let format = new_format(options)?;
        let bar = progress_bar(options);
        let layout = mkfs::format(&*disk, &format, |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })
        .await
        .map_err(|source| MkfsError::Format { device: device.clone(), source })?;
        bar.finish_and_clear();
        const BLOCK: u64 = mfs::block::BLOCK_SIZE_U64;
        Ok(Made {
            uuid: format.fs_id.to_string(),
            cluster: format.cluster_id.to_string(),
            label: format.label,
            bytes: disk.blocks() * BLOCK,
            usable_bytes: layout.usable_blocks() * BLOCK,
            block_bytes: BLOCK,
            groups: layout.group_count,
            slots: layout.slot_count,
            journal_bytes: u64::from(layout.journal_blocks) * BLOCK,
            device: device.clone(),
        })
    })?
}

fn new_format(options: &Options) -> Result<Format, MkfsError> {
    let cluster_id = ClusterId(random_id()?);
    let partition = Superblock {
        cluster: cluster_id,
        partition_id: random_id()?,
        index: MpIndex(0),
        count: 1,
        set_epoch: 1,
        nodes_max: NodeId::MAX,
        unit: Duration::from_millis(options.unit),
        sequence: 1,
    };
    let mut membership: Vec<_> = fencing::ondisk::format::format(partition).collect();
    membership.sort_by_key(|(at, _)| *at);
    Ok(Format {
        fs_id: FsId(random_id()?),
        cluster_id,
        label: options.label.clone(),
        hash_key: random_id()?,
        now: wall_time(),
        discard: !options.no_discard,
        membership: membership.iter().map(|(_, block)| block_of(block)).collect(),
    })
}

fn random_id() -> Result<[u8; 16], MkfsError> {
    let mut id = [0; 16];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)?;
    // RFC 9562, version 4.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Ok(id)
}

fn progress_bar(options: &Options) -> ProgressBar {
    if options.quiet || options.json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} [{bar:40}] {percent}%");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    // Drawn on a terminal only.
    ProgressBar::new(1).with_style(style).with_prefix("formatting")
}

impl std::fmt::Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: MatrixFS {:?}", self.device.display(), self.label)?;
        writeln!(f, "  uuid     {}", self.uuid)?;
        writeln!(f, "  size     {} ({} usable)", Bytes(self.bytes), Bytes(self.usable_bytes))?;
        write!(
            f,
            "  layout   {} groups, {} slots, journals of {}",
            self.groups,
            self.slots,
            Bytes(self.journal_bytes)
        )
    }
}
