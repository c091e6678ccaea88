//! `fix`: what can be mended without thinking.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::workspace::{cargo, root};
use crate::{process, tidy};

/// Formats, applies the suggestions of the lints, lays missing clippy.toml of pure crates
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<ExitCode> {
    let model = root().join(tidy::pure::MODEL);
    for row in tidy::arrows::pure() {
        let to = root().join(row.folder).join("clippy.toml");
        if to != model && fs::read(&to).ok() != Some(fs::read(&model)?) {
            fs::copy(&model, &to).with_context(|| format!("{}", to.display()))?;
            println!("  {} is now the same as {}", to.display(), tidy::pure::MODEL);
        }
    }
    let args = ["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty"];
    process::run(cargo(&args).arg("--allow-staged"))?;
    process::run(&mut cargo(&["fmt", "--all"]))?;
    Ok(ExitCode::SUCCESS)
}
