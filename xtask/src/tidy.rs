//! `tidy`: what the compiler and clippy cannot know of this project. Writes nothing.
//!
//! One file per rule, or per group of rules that read the same thing. A finding names the file,
//! the line and what to do instead.

pub(crate) mod arrows;
mod licences;
pub(crate) mod pure;
mod source;
mod words;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::workspace::{self, Metadata};

/// Checks arrows between crates, licences, banned words and the rules for source files
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<ExitCode> {
    check()?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check() -> Result<()> {
    let files = workspace::files(&workspace::root())?;
    let packages = Metadata::read()?.packages()?;
    let mut findings = arrows::check(&packages, &files);
    findings.extend(licences::check(&packages));
    findings.extend(pure::check(&files));
    findings.extend(source::check(&files));
    findings.extend(words::check(&files));
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files and {} packages", files.len(), packages.len());
            Ok(())
        }
        1 => bail!("tidy has 1 finding"),
        count => bail!("tidy has {count} findings"),
    }
}
