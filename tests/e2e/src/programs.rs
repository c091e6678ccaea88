//! Where the programs that are tried have been built.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Built programs, all in one folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    folder: PathBuf,
}

/// As cargo names them.
const NAMES: [&str; 11] = [
    "mxd",
    "mxarbiter",
    "mxctl",
    "mkfs-matrixfs",
    "fsck-matrixfs",
    "matrixfs-debug",
    "mount-matrixfs",
    "mx-load",
    "mx-fsx",
    "mx-cells",
    "mx-locker",
];

impl Programs {
    /// Those in a folder of cargo's: `target/release`.
    ///
    /// # Errors
    /// When one is missing.
    pub fn in_folder(folder: &Path) -> Result<Programs> {
        let programs = Programs { folder: folder.to_owned() };
        match programs.missing() {
            None => Ok(programs),
            Some(name) => bail!("{}: {name} is not built", folder.display()),
        }
    }

    /// Those beside the test that runs; built now when they are not there, since cargo does not
    /// build programs of other packages for a test. What is there is not brought up to date:
    /// `cargo xtask e2e` and `cargo nextest run --workspace` do that.
    ///
    /// # Errors
    /// When they cannot be built.
    pub fn beside_test() -> Result<Programs> {
        let test = env::current_exe().context("where does this test lie?")?;
        let folder = test.parent().filter(|folder| folder.ends_with("deps"));
        let folder = folder.and_then(Path::parent);
        let folder = folder.with_context(|| format!("{} is no test of cargo", test.display()))?;
        let programs = Programs { folder: folder.to_owned() };
        if programs.missing().is_some() {
            programs.build()?;
        }
        Programs::in_folder(folder)
    }

    fn missing(&self) -> Option<&'static str> {
        NAMES.into_iter().find(|name| !self.path(name).is_file())
    }

    fn build(&self) -> Result<()> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "mxd", "--package", "e2e", "--bins"]);
        if self.folder.ends_with("release") {
            cargo.arg("--release");
        }
        if let Some(target) = self.folder.parent() {
            cargo.arg("--target-dir").arg(target);
        }
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        if !status.context("cannot start cargo")?.success() {
            bail!("the programs do not build");
        }
        Ok(())
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a program, by the name that cargo gives it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn command(&self, name: &str) -> Command {
        Command::new(self.path(name))
    }
}
