//! mount.matrixfs, which mount(8) runs for `-t matrixfs`: mounts through a daemon.
//!
//! Keeps true: it returns 0 only when the mount is usable, and otherwise nothing stays mounted.

mod local;
pub mod options;
mod serving;
mod table;
pub mod unmount;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser};

use crate::admin::{Client, ClientError, Request};
use crate::config::socket_of;
use local::LocalError;
use options::{OptionError, Parsed};

/// Exit status as mount(8) and umount(8) have it.
pub const OK: u8 = 0;
pub const USAGE: u8 = 1;
pub const SYSTEM: u8 = 2;
pub const FAILED: u8 = 32;

/// Mount a MatrixFS file system. Run by mount(8): mount -t matrixfs SOURCE DIR.
///
/// SOURCE is the name of a cluster's file system that mxd of this machine knows, or with
/// `-o local` a block device or file, which gets a daemon of its own.
///
/// Options: local, admin=PATH (socket of the daemon to ask), ro, rw, [no]suid, [no]dev, [no]exec,
/// noatime, relatime, [no]submounts, and those that are for mount(8) and systemd (_netdev, nofail,
/// noauto, user, x-*). Others are refused by name.
///
/// With `submounts` other file systems can be mounted on directories of this one and stay: the
/// kernel looks every name up anew, which costs a request for each component of a path. Without
/// it they are detached as soon as another node changes names near them.
///
/// `mount -o remount,ro DIR` and `-o remount,rw DIR` change what is mounted: ro and rw, [no]suid,
/// [no]dev, [no]exec, noatime and relatime, on this machine only. Made read-only, it is written to
/// by nobody here any more, and everything that was is on the device; not while files are open
/// for writing. What was mounted read-only is mounted anew to be written to.
///
/// Exit status: 0 mounted, 1 wrong usage, 2 system error, 32 not mounted.
#[derive(Parser, Debug)]
#[command(name = "mount.matrixfs", version)]
pub struct Options {
    /// Name of a file system, or with -o local a device or file.
    pub source: String,
    /// Where to mount.
    pub dir: PathBuf,
    /// Mount options, separated by commas.
    #[arg(short, value_name = "OPTIONS", action = ArgAction::Append)]
    pub options: Vec<String>,
    /// Pass over options that nobody knows.
    #[arg(short)]
    pub sloppy: bool,
    /// Check everything, mount nothing.
    #[arg(short)]
    pub fake: bool,
    /// Do not note the mount in the table of mount(8); umount will then not wait for the daemon.
    #[arg(short)]
    pub no_table: bool,
    /// Say what is done.
    #[arg(short)]
    pub verbose: bool,
    /// Given by mount(8); must be this type.
    #[arg(short = 't', value_name = "TYPE", hide = true)]
    pub kind: Option<String>,
}

/// Why it is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountFailed {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error("this is for type matrixfs, not {0}")]
    Kind(String),
    #[error("{}: {source}", path.display())]
    Path { path: PathBuf, source: io::Error },
    #[error("{}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("only root may mount")]
    NotRoot,
    #[error("{0} is no name of a file system; a device without a cluster takes -o local")]
    NoName(String),
    #[error("{}: no MatrixFS is mounted here", .0.display())]
    NotMounted(PathBuf),
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error(transparent)]
    Daemon(#[from] ClientError),
}

impl MountFailed {
    /// Exit status as mount(8) has it.
    pub fn status(&self) -> u8 {
        match self {
            MountFailed::Option(_)
            | MountFailed::Kind(_)
            | MountFailed::NotRoot
            | MountFailed::NoName(_) => USAGE,
            MountFailed::Local(error) if error.is_of_system() => SYSTEM,
            MountFailed::Path { .. }
            | MountFailed::NotADirectory(_)
            | MountFailed::NotMounted(_)
            | MountFailed::Local(_)
            | MountFailed::Daemon(_) => FAILED,
        }
    }
}

/// Mounts; what is said on the way goes to `say`.
///
/// # Errors
/// [`MountFailed`]; nothing is mounted, or changed, then.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<(), MountFailed> {
    if let Some(kind) = options.kind.as_deref()
        && !matches!(kind, "matrixfs" | "fuse.matrixfs")
    {
        return Err(MountFailed::Kind(kind.to_owned()));
    }
    let parsed = Parsed::parse(&options.options.join(","), options.sloppy)?;
    if !rustix::process::geteuid().is_root() {
        return Err(MountFailed::NotRoot);
    }
    let dir = resolve(&options.dir)?;
    let metadata =
        fs::metadata(&dir).map_err(|source| MountFailed::Path { path: dir.clone(), source })?;
    if !metadata.is_dir() {
        return Err(MountFailed::NotADirectory(dir));
    }
    if parsed.remount {
        return remount(options, &parsed, dir, say);
    }
    let source = if parsed.local {
        let device = resolve(Path::new(&options.source))?;
        if !options.fake {
            local::mount(&device, &dir, &parsed.options)?;
        }
        device.to_string_lossy().into_owned()
    } else {
        let name = &options.source;
        if parsed.admin.is_none() && (name.is_empty() || name.contains('/')) {
            return Err(MountFailed::NoName(name.clone()));
        }
        let socket = parsed.admin.clone().unwrap_or_else(|| socket_of(name));
        let mut client = Client::connect(&socket)?;
        if !options.fake {
            let request = Request::Mount { directory: dir.clone(), options: parsed.options };
            client.carry_out(&request)?;
        }
        name.clone()
    };
    if options.verbose {
        let done = if options.fake { "would be mounted" } else { "mounted" };
        say(&format!("{source} {done} on {} ({})", dir.display(), parsed.options));
    }
    if options.fake || options.no_table {
        return Ok(());
    }
    let noted = table::note(&source, &dir).and_then(|()| match &parsed.admin {
        Some(socket) => table::note_socket(&dir, socket),
        None => Ok(()),
    });
    if let Err(error) = noted {
        // The mount is as good without: umount(8) then returns before the daemon has ended.
        say(&format!("{} is not noted in the table of mount(8): {error}", dir.display()));
    }
    Ok(())
}

fn remount(
    options: &Options,
    parsed: &Parsed,
    dir: PathBuf,
    say: &mut dyn FnMut(&str),
) -> Result<(), MountFailed> {
    // Another file system may hide it.
    let source =
        table::source_of(&dir).map_err(|source| MountFailed::Path { path: dir.clone(), source })?;
    let daemon = || serving::daemon_of(&dir).map(|daemon| daemon.client);
    let client = match (source, &parsed.admin) {
        (None, _) => None,
        (Some(_), Some(socket)) => Some(Client::connect(socket)?),
        (Some(_), None) => daemon(),
    };
    let Some(mut client) = client else { return Err(MountFailed::NotMounted(dir)) };
    let done = if options.fake {
        "would be changed"
    } else {
        let request = Request::Remount { directory: dir.clone(), options: parsed.options };
        client.carry_out(&request)?;
        "changed"
    };
    if options.verbose {
        say(&format!("{} {done} ({})", dir.display(), parsed.options));
    }
    Ok(())
}

fn resolve(path: &Path) -> Result<PathBuf, MountFailed> {
    fs::canonicalize(path).map_err(|source| MountFailed::Path { path: path.to_owned(), source })
}
