//! Where the workspace is, which files it has, and what cargo knows of its packages.
//!
//! Works without git, so that a source archive can be checked too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process;

/// The folder with the root `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a folder of the workspace").to_owned()
}

/// `cargo` in the root of the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// A file of the workspace as text.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root, with `/` between components.
    pub path: String,
    pub text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// All text files, in order of their paths; what is built or belongs to git is left out.
pub(crate) fn files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let is_built = entry.file_name() == "target" || path.join("CACHEDIR.TAG").exists();
            if kind.is_dir() && entry.file_name() != ".git" && !is_built {
                folders.push(path);
            } else if kind.is_file()
                && is_text(&path)
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(root).expect("found below the root");
                files.push(File { path: path.display().to_string(), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn is_text(path: &Path) -> bool {
    match path.extension() {
        Some(extension) => {
            ["rs", "toml", "md", "sh", "yml", "json"].iter().any(|e| extension == *e)
        }
        None => path.parent().and_then(Path::file_name).is_some_and(|folder| folder == ".ci"),
    }
}

/// What cargo knows of the packages of the workspace and all that they depend on.
#[derive(Debug)]
pub(crate) struct Metadata {
    json: Value,
}

#[derive(Debug)]
pub(crate) struct Package {
    pub name: String,
    pub version: String,
    /// SPDX expression.
    pub licence: Option<String>,
    /// From the root of the workspace; only of its own packages.
    pub folder: Option<String>,
    pub dependencies: Vec<Dependency>,
    pub binaries: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Dependency {
    pub name: String,
    pub is_dev: bool,
}

impl Metadata {
    pub(crate) fn read() -> Result<Metadata> {
        let platform = "x86_64-unknown-linux-gnu";
        let output = process::output(&mut cargo(&[
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            platform,
        ]))?;
        let json = serde_json::from_str(&output).context("the output of cargo metadata")?;
        Ok(Metadata { json })
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> Result<PathBuf> {
        Ok(text(&self.json, "target_directory")?.into())
    }

    pub(crate) fn packages(&self) -> Result<Vec<Package>> {
        let root = text(&self.json, "workspace_root")?;
        let members: Vec<&Value> = list(&self.json, "workspace_members")?.iter().collect();
        let package = |json: &Value| -> Result<Package> {
            let is_member = members.contains(&&json["id"]);
            let manifest = Path::new(text(json, "manifest_path")?);
            let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root).ok());
            Ok(Package {
                name: text(json, "name")?.to_owned(),
                version: text(json, "version")?.to_owned(),
                licence: json["license"].as_str().map(str::to_owned),
                folder: folder.filter(|_| is_member).map(|folder| folder.display().to_string()),
                dependencies: list(json, "dependencies")?
                    .iter()
                    .map(dependency)
                    .collect::<Result<_>>()?,
                binaries: list(json, "targets")?
                    .iter()
                    .filter(|target| target["kind"] == serde_json::json!(["bin"]))
                    .map(|target| text(target, "name").map(str::to_owned))
                    .collect::<Result<_>>()?,
            })
        };
        list(&self.json, "packages")?.iter().map(package).collect()
    }
}

fn dependency(json: &Value) -> Result<Dependency> {
    Ok(Dependency { name: text(json, "name")?.to_owned(), is_dev: json["kind"] == "dev" })
}

fn text<'a>(json: &'a Value, key: &str) -> Result<&'a str> {
    match json[key].as_str() {
        Some(text) => Ok(text),
        None => bail!("cargo metadata has no text {key:?}"),
    }
}

fn list<'a>(json: &'a Value, key: &str) -> Result<&'a [Value]> {
    match json[key].as_array() {
        Some(list) => Ok(list),
        None => bail!("cargo metadata has no list {key:?}"),
    }
}
