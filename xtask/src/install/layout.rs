//! What goes where below a prefix.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// A program: its name as cargo builds it (which knows no dots), its real name, its folder.
struct Program {
    binary: &'static str,
    name: &'static str,
    folder: &'static str,
    /// Installed where it is built, not missed where it is not.
    optional: bool,
}

#[rustfmt::skip]
const PROGRAMS: &[Program] = &[
    Program { binary: "mxctl", name: "mxctl", folder: "bin", optional: false },
    Program { binary: "mxd", name: "mxd", folder: "sbin", optional: false },
    Program { binary: "mxarbiter", name: "mxarbiter", folder: "sbin", optional: false },
    Program { binary: "mxguard", name: "mxguard", folder: "sbin", optional: true },
    Program { binary: "mkfs-matrixfs", name: "mkfs.matrixfs", folder: "sbin", optional: false },
    Program { binary: "fsck-matrixfs", name: "fsck.matrixfs", folder: "sbin", optional: false },
    Program { binary: "mount-matrixfs", name: "mount.matrixfs", folder: "sbin", optional: false },
    Program { binary: "umount-matrixfs", name: "umount.fuse.matrixfs", folder: "sbin", optional: true },
];

/// Where mount(8) and umount(8) look for helpers, and nowhere else.
const HELPERS: &str = "/sbin";

#[derive(Debug)]
pub(crate) struct Layout {
    prefix: PathBuf,
    /// Installed for the whole system, so that mount(8) has to find its helper.
    for_system: bool,
}

#[derive(Debug)]
pub(crate) struct Copy {
    pub from: Source,
    pub to: PathBuf,
    pub mode: u32,
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A program that cargo builds.
    Binary(String),
    File(PathBuf),
}

/// A symbolic link.
#[derive(Debug)]
pub(crate) struct Link {
    pub at: PathBuf,
    pub to: PathBuf,
}

impl Layout {
    pub(crate) fn new(prefix: &Path, is_root: bool) -> Layout {
        let for_all = ["/", "/usr", "/usr/local"].iter().any(|p| prefix == Path::new(p));
        Layout { prefix: prefix.to_owned(), for_system: is_root && for_all }
    }

    /// Programs and documents.
    pub(crate) fn copies(&self, binaries: &[String], root: &Path) -> Result<Vec<Copy>> {
        let mut copies = Vec::new();
        for program in PROGRAMS {
            if binaries.iter().any(|binary| binary == program.binary) {
                let from = Source::Binary(program.binary.to_owned());
                copies.push(Copy { from, to: self.program(program), mode: 0o755 });
            } else if !program.optional {
                bail!("no package of the workspace builds {}", program.binary);
            }
        }
        copies.extend(self.documents(root));
        Ok(copies)
    }

    /// Manual pages (`docs/man/*.N`) and completions (`docs/completions/SHELL/*`) as far as there
    /// are any.
    pub(crate) fn documents(&self, root: &Path) -> Vec<Copy> {
        let mut copies = Vec::new();
        for file in listed(&root.join("docs/man")) {
            if let Some(section) = file.extension().map(|e| e.to_string_lossy().into_owned())
                && section.len() == 1
                && section.chars().all(|c| c.is_ascii_digit())
            {
                copies.push(self.shared(file, &format!("man/man{section}")));
            }
        }
        for (shell, folder) in [
            ("bash", "bash-completion/completions"),
            ("zsh", "zsh/site-functions"),
            ("fish", "fish/vendor_completions.d"),
        ] {
            let files = listed(&root.join("docs/completions").join(shell));
            copies.extend(files.into_iter().map(|file| self.shared(file, folder)));
        }
        copies
    }

    /// Helpers of mount(8) that would not be found where they are.
    pub(crate) fn links(&self, copies: &[Copy]) -> Vec<Link> {
        let is_helper = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("mount.") || name.starts_with("umount.")
        };
        let same_folder = |path: &Path| {
            let folder = path.parent().unwrap_or(path);
            fs::canonicalize(folder).ok() == fs::canonicalize(HELPERS).ok()
                || folder == Path::new(HELPERS)
        };
        let helpers = copies.iter().map(|copy| &copy.to);
        helpers
            .filter(|to| self.for_system && is_helper(to) && !same_folder(to))
            .map(|to| Link {
                at: Path::new(HELPERS).join(to.file_name().unwrap_or_default()),
                to: to.clone(),
            })
            .collect()
    }

    /// Every path that any version of `install` may have made for a program.
    pub(crate) fn programs(&self) -> Vec<PathBuf> {
        PROGRAMS.iter().map(|program| self.program(program)).collect()
    }

    fn program(&self, program: &Program) -> PathBuf {
        self.prefix.join(program.folder).join(program.name)
    }

    fn shared(&self, file: PathBuf, folder: &str) -> Copy {
        // There is no /share.
        let prefix = if self.prefix == Path::new("/") { Path::new("/usr") } else { &self.prefix };
        let name = file.file_name().unwrap_or_default().to_owned();
        let to = prefix.join("share").join(folder).join(name);
        Copy { from: Source::File(file), to, mode: 0o644 }
    }
}

/// The files of a folder, in order; none where there is no folder.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_their_real_names() {
        let layout = Layout::new(Path::new("/opt/mx"), true);
        let copies = layout.copies(&all_binaries(), Path::new("/nonexistent")).expect("all there");
        let to = |binary: &str| {
            let from = Source::Binary(binary.to_owned());
            copies.iter().find(|copy| copy.from == from).map(|copy| copy.to.clone())
        };
        assert_eq!(to("mkfs-matrixfs"), Some("/opt/mx/sbin/mkfs.matrixfs".into()));
        assert_eq!(to("umount-matrixfs"), Some("/opt/mx/sbin/umount.fuse.matrixfs".into()));
        assert_eq!(to("mxctl"), Some("/opt/mx/bin/mxctl".into()));
        assert!(layout.links(&copies).is_empty());
    }

    #[test]
    fn a_program_that_nobody_builds_is_missed_unless_it_is_optional() {
        let layout = Layout::new(Path::new("/opt/mx"), true);
        let mut binaries = all_binaries();
        binaries.retain(|binary| binary != "umount-matrixfs");
        assert!(layout.copies(&binaries, Path::new("/nonexistent")).is_ok());
        binaries.retain(|binary| binary != "mxd");
        let error = layout.copies(&binaries, Path::new("/nonexistent")).expect_err("mxd is missed");
        assert_eq!(error.to_string(), "no package of the workspace builds mxd");
    }

    #[test]
    fn mount_finds_its_helper_only_where_root_installs_for_the_system() {
        let links = |prefix: &str, is_root| {
            let layout = Layout::new(Path::new(prefix), is_root);
            let copies = layout.copies(&all_binaries(), Path::new("/nonexistent")).expect("all");
            layout.links(&copies).into_iter().map(|link| (link.at, link.to)).collect::<Vec<_>>()
        };
        let helper = |name: &str| {
            let to = Path::new("/usr/local/sbin").join(name);
            (Path::new("/sbin").join(name), to)
        };
        let expected = [helper("mount.matrixfs"), helper("umount.fuse.matrixfs")];
        assert_eq!(links("/usr/local", true), expected);
        assert_eq!(links("/usr/local", false), []);
        assert_eq!(links("/", true), []);
        assert_eq!(links("/opt/mx", true), []);
    }

    #[test]
    fn manual_pages_go_to_their_section() {
        let root = std::env::temp_dir().join(format!("mx-layout-{}", std::process::id()));
        fs::create_dir_all(root.join("docs/man")).expect("a fresh folder");
        fs::create_dir_all(root.join("docs/completions/bash")).expect("a fresh folder");
        for file in ["docs/man/mxd.8", "docs/man/notes.md", "docs/completions/bash/mxctl"] {
            fs::write(root.join(file), "").expect("a fresh folder");
        }
        let layout = Layout::new(Path::new("/"), true);
        let copies = layout.copies(&all_binaries(), &root).expect("all there");
        let files: Vec<_> = copies.iter().filter(|copy| copy.mode == 0o644).collect();
        assert_eq!(files[0].to, Path::new("/usr/share/man/man8/mxd.8"));
        assert_eq!(files[1].to, Path::new("/usr/share/bash-completion/completions/mxctl"));
        assert_eq!(files.len(), 2);
        fs::remove_dir_all(root).expect("a folder of ours");
    }

    fn all_binaries() -> Vec<String> {
        PROGRAMS.iter().map(|program| program.binary.to_owned()).collect()
    }
}
