//! What is measured, and what beside it: a cluster of three nodes, a file system in memory, ext4, a
//! raw file, all in one folder and so on one storage, and a partner process.
//!
//! Keeps true: dropping it ends and removes all of it.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use e2e::admin::Admin;
use e2e::reports::Usage;
use e2e::{Cluster, Programs, Shape};
use nix::mount::{MsFlags, mount};

use crate::floors::ext4::Ext4;
use crate::floors::memory_fuse::MemoryFuse;
use crate::floors::partner::Partner;
use crate::floors::raw_device::RawDevice;
use crate::samples::Side;
use crate::scale::Scale;
use crate::spec::Floor;

const NODES: u16 = 3;

/// Where most is done.
pub const NODE: u16 = 1;
/// Where it is looked at.
pub const OTHER: u16 = 2;
/// Who dies.
pub const VICTIM: u16 = 3;

/// See the module. Dropped in this order.
#[derive(Debug)]
pub struct Stage {
    pub cluster: Cluster,
    memory: MemoryFuse,
    ext4: Ext4,
    pub raw: RawDevice,
    pub partner: Partner,
    /// This program, which also is the partner and the file system in memory.
    pub program: PathBuf,
    pub scale: Scale,
    _folder: Folder,
}

/// A file system that is measured.
#[derive(Clone, Debug)]
pub struct Place {
    pub side: Side,
    /// Where it is mounted, here and for reading what was written here.
    pub root: PathBuf,
    pub reader: PathBuf,
}

impl Stage {
    /// # Errors
    /// When something does not start; nothing is left then.
    pub fn start(
        programs: &Programs,
        program: &Path,
        folder: &Path,
        scale: Scale,
    ) -> Result<Stage> {
        std::fs::create_dir(folder).with_context(|| folder.display().to_string())?;
        let folder = Folder(folder.to_owned());
        let file = |name: &str| folder.0.join(name);
        let sized = |name: &str| -> Result<RawDevice> {
            File::create(file(name))?.set_len(scale.device_bytes)?;
            RawDevice::open(&file(name))
        };
        let raw = sized("raw")?;
        let for_ext4 = sized("ext4")?;
        if scale.is_filled {
            raw.fill()?;
            for_ext4.fill()?;
        }
        drop(for_ext4);
        let ext4 = Ext4::start(&file("ext4"), &file("mnt-ext4"))?;
        let memory = MemoryFuse::start(program, &file("mnt-memory"), &file("memory.log"))?;
        let shape = Shape {
            nodes: NODES,
            bytes: scale.device_bytes,
            folder: file("cluster"),
            is_kept: false,
            log: "warn",
            unit: None,
        };
        let mut cluster = Cluster::prepare(programs, &shape)?;
        if scale.is_filled {
            RawDevice::open(&cluster.device())?.fill()?;
        }
        for node in cluster.nodes() {
            cluster.start(node)?;
        }
        let partner = Partner::start(program)?;
        let program = program.to_owned();
        Ok(Stage { cluster, memory, ext4, raw, partner, program, scale, _folder: folder })
    }

    /// All file systems, another one first in every run.
    pub fn places(&self, run: usize) -> Vec<Place> {
        let alone = |floor, root: &Path| Place {
            side: Side::Floor(floor),
            root: root.to_owned(),
            reader: root.to_owned(),
        };
        let ours = Place {
            side: Side::Ours,
            root: self.cluster.mount(NODE),
            reader: self.cluster.mount(OTHER),
        };
        let mut places = vec![
            ours,
            alone(Floor::MemoryFuse, self.memory.mount()),
            alone(Floor::Ext4, self.ext4.mount()),
        ];
        let first = run % places.len();
        places.rotate_left(first);
        places
    }

    pub fn admin(&self, node: u16) -> Admin {
        self.cluster.admin(node)
    }

    /// What a node has counted.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn usage(&self, node: u16) -> Result<Usage> {
        let usage = self.admin(node).usage()?;
        usage.file_systems.into_iter().next().context("a node reports what it has mounted")
    }
}

/// The start of the name of a stage's folder; then comes the id of the process it belongs to.
const FOLDER: &str = "matrixfs-bench-";

/// Of what may be large.
const DEVICES: [&str; 3] = ["raw", "ext4", "cluster/device"];

/// A folder for a stage of this process in `dir`; those of processes that were killed are removed.
///
/// # Errors
/// When `dir` cannot be read.
pub fn folder(dir: &Path) -> Result<PathBuf> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let name = entry?.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
        let is_dead = |process: u32| !Path::new(&format!("/proc/{process}")).exists();
        if process.and_then(|process| process.parse().ok()).is_some_and(is_dead) {
            // Nothing is mounted there: mounts end with the processes.
            std::fs::remove_dir_all(dir.join(&name)).context("left by an earlier run")?;
        }
    }
    Ok(dir.join(format!("{FOLDER}{}", std::process::id())))
}

/// For a stage that cannot be ended in order: takes away what is large and leaves the logs.
pub fn remove_devices(folder: &Path) {
    for device in DEVICES {
        if let Err(error) = std::fs::remove_file(folder.join(device)) {
            complain(&error.into());
        }
    }
}

/// Makes the kernel forget names and attributes of a mount that are not in use.
///
/// # Errors
/// When it cannot be remounted.
pub fn forget_names(root: &Path) -> Result<()> {
    let nothing: Option<&str> = None;
    mount(nothing, root, nothing, MsFlags::MS_REMOUNT, nothing)
        .with_context(|| format!("remount {}", root.display()))
}

/// For destructors, which have nobody else to tell.
pub(crate) fn complain(error: &anyhow::Error) {
    let text = format_args!("not cleaned up: {error:#}\n");
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), text);
}

#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let removed = std::fs::remove_dir_all(&self.0);
        if let Err(error) = removed.with_context(|| self.0.display().to_string()) {
            complain(&error);
        }
    }
}
