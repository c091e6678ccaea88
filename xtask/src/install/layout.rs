//! What goes where below a prefix.

use std::ffi::OsStr;
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
    /// People type its name, so that shells should complete what follows.
    typed: bool,
}

#[rustfmt::skip]
const PROGRAMS: &[Program] = &[
    Program { binary: "mxctl", name: "mxctl", folder: "bin", optional: false, typed: true },
    Program { binary: "mxd", name: "mxd", folder: "sbin", optional: false, typed: true },
    Program { binary: "mxarbiter", name: "mxarbiter", folder: "sbin", optional: false, typed: true },
    Program { binary: "mxguard", name: "mxguard", folder: "sbin", optional: true, typed: false },
    Program { binary: "mkfs-matrixfs", name: "mkfs.matrixfs", folder: "sbin", optional: false, typed: true },
    Program { binary: "fsck-matrixfs", name: "fsck.matrixfs", folder: "sbin", optional: false, typed: true },
    Program { binary: "matrixfs-debug", name: "matrixfs-debug", folder: "sbin", optional: false, typed: true },
    Program { binary: "mount-matrixfs", name: "mount.matrixfs", folder: "sbin", optional: false, typed: false },
    Program { binary: "umount-matrixfs", name: "umount.fuse.matrixfs", folder: "sbin", optional: false, typed: false },
];

/// What mount(8) runs to change a mount: the type as the kernel shows it.
const REMOUNT: (&str, &str) = ("mount.fuse.matrixfs", "mount.matrixfs");

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

    /// Programs and their documents, given what there is to build, the folder that documents are
    /// written to and the workspace.
    pub(crate) fn copies(
        &self,
        binaries: &[String],
        written: &Path,
        root: &Path,
    ) -> Result<Vec<Copy>> {
        let mut copies = Vec::new();
        for program in PROGRAMS {
            if binaries.iter().any(|binary| binary == program.binary) {
                let from = Source::Binary(program.binary.to_owned());
                copies.push(Copy { from, to: self.program(program), mode: 0o755 });
                copies.extend(self.documents(program, written));
            } else if !program.optional {
                bail!("no package of the workspace builds {}", program.binary);
            }
        }
        copies.push(self.shared(root.join("docs/mxd.toml.example"), "doc/matrixfs"));
        Ok(copies)
    }

    /// The manual page of a program and its completions, as `mxctl documents` writes them.
    fn documents(&self, program: &Program, written: &Path) -> Vec<Copy> {
        if program.optional {
            return Vec::new();
        }
        let name = program.name;
        let mut copies = vec![self.shared(written.join(format!("man/{name}.8")), "man/man8")];
        for (file, folder) in [
            (format!("bash/{name}.bash"), "bash-completion/completions"),
            (format!("zsh/_{name}"), "zsh/site-functions"),
            (format!("fish/{name}.fish"), "fish/vendor_completions.d"),
        ] {
            if program.typed {
                copies.push(self.shared(written.join("completions").join(file), folder));
            }
        }
        copies
    }

    /// Helpers of mount(8) that would not be found where they are, or not under this name.
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
        let programs = copies.iter().filter(|copy| matches!(copy.from, Source::Binary(_)));
        let helpers: Vec<_> = programs.map(|copy| &copy.to).filter(|to| is_helper(to)).collect();
        let link =
            |name: &OsStr, to: &PathBuf| Link { at: Path::new(HELPERS).join(name), to: to.clone() };
        let elsewhere = helpers.iter().filter(|to| !same_folder(to));
        let (name, target) = REMOUNT;
        let remount = helpers.iter().filter(|to| to.ends_with(target));
        elsewhere
            .map(|to| link(to.file_name().unwrap_or_default(), to))
            .chain(remount.map(|to| link(OsStr::new(name), to)))
            .filter(|_| self.for_system)
            .collect()
    }

    /// Everything that `install` may have made, whatever is built now.
    pub(crate) fn everything(&self) -> Result<Vec<Copy>> {
        let binaries: Vec<String> = PROGRAMS.iter().map(|p| p.binary.to_owned()).collect();
        self.copies(&binaries, Path::new(""), Path::new(""))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_their_real_names() {
        let layout = Layout::new(Path::new("/opt/mx"), true);
        let copies = copies_of(&layout, &all_binaries()).expect("all there");
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
        binaries.retain(|binary| binary != "mxguard");
        assert!(copies_of(&layout, &binaries).is_ok());
        binaries.retain(|binary| binary != "mxd");
        let error = copies_of(&layout, &binaries).expect_err("mxd is missed");
        assert_eq!(error.to_string(), "no package of the workspace builds mxd");
    }

    #[test]
    fn mount_finds_its_helper_only_where_root_installs_for_the_system() {
        let links = |prefix: &str, is_root| {
            let layout = Layout::new(Path::new(prefix), is_root);
            let copies = copies_of(&layout, &all_binaries()).expect("all");
            layout.links(&copies).into_iter().map(|link| (link.at, link.to)).collect::<Vec<_>>()
        };
        let helper = |name: &str| {
            let to = Path::new("/usr/local/sbin").join(name);
            (Path::new("/sbin").join(name), to)
        };
        let remount = |to: &str| (PathBuf::from("/sbin/mount.fuse.matrixfs"), PathBuf::from(to));
        let expected = [
            helper("mount.matrixfs"),
            helper("umount.fuse.matrixfs"),
            remount("/usr/local/sbin/mount.matrixfs"),
        ];
        assert_eq!(links("/usr/local", true), expected);
        assert_eq!(links("/usr/local", false), []);
        assert_eq!(links("/", true), [remount("/sbin/mount.matrixfs")]);
        assert_eq!(links("/opt/mx", true), []);
    }

    #[test]
    fn manual_pages_and_completions_go_where_they_are_looked_for() {
        let layout = Layout::new(Path::new("/"), true);
        let copies = copies_of(&layout, &all_binaries()).expect("all there");
        let to = |from: &str| {
            let from = Source::File(from.into());
            copies.iter().find(|copy| copy.from == from).map(|copy| copy.to.clone())
        };
        assert_eq!(to("/written/man/mxd.8"), Some("/usr/share/man/man8/mxd.8".into()));
        let bash = to("/written/completions/bash/mxctl.bash");
        let expected = "/usr/share/bash-completion/completions/mxctl.bash";
        assert_eq!(bash, Some(expected.into()));
        assert_eq!(to("/written/completions/bash/mount.matrixfs.bash"), None);
        let example = to("/root/docs/mxd.toml.example");
        assert_eq!(example, Some("/usr/share/doc/matrixfs/mxd.toml.example".into()));
    }

    #[test]
    fn what_is_taken_away_is_what_may_have_been_installed() {
        let layout = Layout::new(Path::new("/opt/mx"), true);
        let paths = |copies: Vec<Copy>| copies.into_iter().map(|copy| copy.to).collect::<Vec<_>>();
        let installed = paths(copies_of(&layout, &all_binaries()).expect("all there"));
        assert_eq!(paths(layout.everything().expect("all there")), installed);
    }

    fn copies_of(layout: &Layout, binaries: &[String]) -> Result<Vec<Copy>> {
        layout.copies(binaries, Path::new("/written"), Path::new("/root"))
    }

    fn all_binaries() -> Vec<String> {
        PROGRAMS.iter().map(|program| program.binary.to_owned()).collect()
    }
}
