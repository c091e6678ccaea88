//! `uninstall`: takes away what `install` put below the same prefix, and nothing else.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::install::layout::Layout;
use crate::process;

/// Removes what install put below a prefix
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The prefix that was given to install
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Say what would be removed and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let layout = Layout::new(&args.prefix, process::is_root());
    let copies = layout.everything()?;
    let mut removed = 0;
    for link in layout.links(&copies) {
        // A link that points elsewhere is not ours.
        if fs::read_link(&link.at).is_ok_and(|to| to == link.to) {
            removed += remove(&link.at, args.dry_run)?;
        }
    }
    for copy in &copies {
        removed += remove(&copy.to, args.dry_run)?;
    }
    if removed == 0 {
        println!("  nothing of MatrixFS is below {}", args.prefix.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// How many files were, or would be, removed: 0 or 1.
fn remove(path: &Path, dry_run: bool) -> Result<u32> {
    let result =
        if dry_run { fs::symlink_metadata(path).map(|_| ()) } else { fs::remove_file(path) };
    match result {
        Ok(()) => {
            println!("  {} {}", if dry_run { "would remove" } else { "removed" }, path.display());
            Ok(1)
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(0)
        }
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}
