//! `install`: release build, programs under their real names, where mount(8) and fsck(8) look.

pub(crate) mod layout;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::workspace::{self, Metadata, cargo};
use layout::{Layout, Link, Source};

/// Builds release and installs programs, manual pages and completions
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder below which bin, sbin and share lie
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let metadata = Metadata::read()?;
    let packages = metadata.packages()?;
    let binaries: Vec<String> = packages.into_iter().flat_map(|p| p.binaries).collect();
    let layout = Layout::new(&args.prefix, process::is_root());
    let release = metadata.target()?.join("release");
    let written = release.join("documents");
    let copies = layout.copies(&binaries, &written, &workspace::root())?;
    let mut build = cargo(&["build", "--release", "--locked", "--workspace"]);
    for copy in &copies {
        if let Source::Binary(name) = &copy.from {
            build.args(["--bin", name]);
        }
    }
    let mut write = Command::new(release.join("mxctl"));
    write.arg("documents").arg(&written);
    for command in [&mut build, &mut write] {
        if args.dry_run {
            println!("would run: {}", process::shown(command));
        } else {
            process::run(command)?;
        }
    }
    for copy in &copies {
        let from = match &copy.from {
            Source::Binary(name) => release.join(name),
            Source::File(path) => path.clone(),
        };
        println!("  {} -> {}", from.display(), copy.to.display());
        if !args.dry_run {
            put(&from, &copy.to, copy.mode)?;
        }
    }
    for link in layout.links(&copies) {
        println!("  {} -> {} (link)", link.at.display(), link.to.display());
        if !args.dry_run {
            lay(&link)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies beside the place and renames, so that a program that runs goes on with its old file.
fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let folder = to.parent().context("a path below the prefix")?;
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let copied = fs::copy(from, &beside)
        .and_then(|_| fs::set_permissions(&beside, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&beside, to));
    if copied.is_err() {
        // What is left of the copy is of no use; the error that counts is the first.
        let _ = fs::remove_file(&beside);
    }
    copied.with_context(|| format!("installing {} as {}", from.display(), to.display()))
}

fn lay(link: &Link) -> Result<()> {
    let at = &link.at;
    match fs::read_link(at) {
        Ok(target) if target == link.to => return Ok(()),
        Ok(target) => bail!("{} is a link to {}; remove it first", at.display(), target.display()),
        Err(_) if at.exists() => bail!("{} exists and is not ours", at.display()),
        Err(_) => {}
    }
    std::os::unix::fs::symlink(&link.to, at).with_context(|| format!("{}", at.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_stays_beside_it() {
        let folder = fresh_folder("put");
        let (from, to) = (folder.join("from"), folder.join("sbin/mkfs.matrixfs"));
        fs::write(&from, "new").expect("a fresh folder");
        fs::create_dir(folder.join("sbin")).expect("a fresh folder");
        fs::write(&to, "old").expect("a fresh folder");
        put(&from, &to, 0o755).expect("a folder of ours");
        assert_eq!(fs::read_to_string(&to).expect("it was put"), "new");
        let mode = fs::metadata(&to).expect("it was put").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(put(&folder.join("missing"), &to, 0o755).is_err());
        assert_eq!(fs::read_dir(folder.join("sbin")).expect("a folder").count(), 1);
        fs::remove_dir_all(folder).expect("a folder of ours");
    }

    #[test]
    fn a_link_that_others_laid_stays() {
        let folder = fresh_folder("lay");
        let link = Link { at: folder.join("mount.matrixfs"), to: folder.join("sbin/mount") };
        lay(&link).expect("nothing is there");
        lay(&link).expect("it is ours already");
        let other = Link { to: folder.join("other"), ..link };
        assert!(lay(&other).is_err());
        fs::remove_dir_all(folder).expect("a folder of ours");
    }

    fn fresh_folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("mx-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a fresh folder");
        folder
    }
}
