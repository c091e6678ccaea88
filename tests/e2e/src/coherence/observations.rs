//! The columns of the table: what a node looks at, again and again, and what it has to see.
//!
//! Keeps true: a look gives as many words each time, in the order in which it took them, and each
//! word is of one moment: of one answer of the file system, or of one page.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, IFlags, OFlags, SeekFrom, Statx, StatxFlags,
};
use rustix::io::Errno;

use super::model::{
    ACL, KEPT, Kind, NAMES, Object, PAGE, PAGES, Stat, Tree, error, no_pieces, pieces, runs,
    stat_words,
};
use super::{told, world};
use crate::aligned::Aligned;
use crate::mapping::Mapping;

/// What is looked at when it is called, with what was opened before.
pub(super) type Look = Box<dyn FnMut() -> Vec<String>>;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) name: &'static str,
    pub(super) open: fn(&Path) -> Result<Look>,
    pub(super) model: fn(&Tree) -> Vec<String>,
    pub(super) late: Late,
}

/// May it show later what another node has done? docs/semantics.md has why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Late {
    Never,
    /// While it is done.
    InRaces,
    Always,
}

/// What is looked at by descriptors that stay open.
const OPEN: [&str; 4] = ["file", "other", "sub", "empty"];
/// What is read by name.
const READ: [&str; 7] = ["file", "other", "link", "sub/inner", "new", "new/inner", "sub/file"];
/// What is opened for writing, and what may have attributes.
const FILES: [&str; 3] = ["file", "other", "new"];
/// What may be listed.
const DIRS: [&str; 4] = [".", "sub", "empty", "new"];
const LINKS: [&str; 3] = ["link", "file", "new"];
/// Where a hole or data is looked for.
const SEEKS: [usize; 3] = [0, PAGE, 2 * PAGE];

pub(super) const ALL: &[Observation] = &[
    Observation {
        name: "stat",
        open: |dir| {
            let (first, dir) = (First::of(dir)?, dir.to_owned());
            look(move || words(NAMES, |name| first.stat(&fs::symlink_metadata(dir.join(name))?)))
        },
        model: |tree| of_names(tree, &NAMES, false, |object| vec![object.stat()], 1),
        late: Late::Never,
    },
    Observation {
        name: "fstat",
        open: |dir| {
            let (first, files) = (First::of(dir)?, open_all(dir, &OPEN)?);
            look(move || words(&files, |file| first.stat(&file.metadata()?)))
        },
        model: |tree| OPEN.map(|name| tree.origin(name).stat()).to_vec(),
        late: Late::Never,
    },
    Observation {
        name: "statx",
        open: |dir| {
            let dir = dir.to_owned();
            let statx = move |name: &str| -> io::Result<Statx> {
                let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                Ok(rustix::fs::statx(CWD, dir.join(name), flags, mask)?)
            };
            let born =
                |found: &Statx| (found.stx_ino, found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
            let first = NAMES.map(|name| statx(name).ok().map(|found| (born(&found), name)));
            let first: HashMap<_, _> = first.into_iter().flatten().collect();
            look(move || {
                words(NAMES, |name| {
                    let found = statx(name)?;
                    let origin = first.get(&born(&found)).unwrap_or(&"new");
                    let (mode, links, size) = (found.stx_mode, found.stx_nlink, found.stx_size);
                    let size = if mode & 0o170_000 == 0o040_000 { 0 } else { size };
                    let mode = mode & 0o7777;
                    Ok(format!("born as {origin}, {mode:o}, {links} links, {size} bytes"))
                })
            })
        },
        model: |tree| of_names(tree, &NAMES, false, |object| vec![object.statx()], 1),
        late: Late::Never,
    },
    Observation {
        name: "access",
        open: |dir| {
            let dir = dir.to_owned();
            look(move || {
                words(NAMES, |name| {
                    rustix::fs::access(dir.join(name), Access::EXEC_OK)?;
                    Ok("allowed".to_owned())
                })
            })
        },
        model: |tree| of_names(tree, &NAMES, true, |object| vec![object.execute()], 1),
        late: Late::Never,
    },
    Observation {
        name: "open to write",
        open: |dir| {
            let dir = dir.to_owned();
            look(move || {
                words(FILES, |name| {
                    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
                    OpenOptions::new().write(true).custom_flags(flags).open(dir.join(name))?;
                    Ok("opened".to_owned())
                })
            })
        },
        model: |tree| of_names(tree, &FILES, true, |object| vec![object.open_to_write()], 1),
        late: Late::Never,
    },
    Observation {
        name: "open, read",
        open: |dir| {
            let dir = dir.to_owned();
            look(move || {
                let read = |name: &str| content(&dir.join(name));
                READ.iter().flat_map(|name| read(name).unwrap_or_else(all_fail)).collect()
            })
        },
        model: |tree| {
            let read = |name: &&str| match tree.at(name, true) {
                Ok(object) => object.read(),
                Err(errno) => no_pieces(&error(errno)).to_vec(),
            };
            READ.iter().flat_map(read).collect()
        },
        late: Late::Never,
    },
    Observation {
        name: "pread",
        open: |dir| {
            let files = open_all(dir, &["file", "other"])?;
            look(move || files.iter().flat_map(|file| content_of(file, &mut [0; END])).collect())
        },
        model: |tree| ["file", "other"].map(|name| tree.origin(name).pieces()).concat(),
        late: Late::Never,
    },
    Observation {
        name: "O_DIRECT",
        open: |dir| {
            let flags = i32::try_from(OFlags::DIRECT.bits())?;
            let mut options = OpenOptions::new();
            let file = options.read(true).custom_flags(flags).open(dir.join("file"))?;
            let mut bytes = Aligned::new(END);
            look(move || content_of(&file, bytes.get(END)))
        },
        model: |tree| tree.origin("file").pieces(),
        late: Late::Never,
    },
    Observation {
        name: "load",
        open: |dir| {
            let mapped = Mapped::new(&dir.join("file"))?;
            look(move || (0..PAGES - 1).map(|page| mapped.load(page)).collect())
        },
        model: |tree| (0..PAGES - 1).map(|page| tree.origin("file").mapped_page(page)).collect(),
        late: Late::Never,
    },
    Observation {
        name: "load behind the old end",
        open: |dir| {
            let mapped = Mapped::new(&dir.join("file"))?;
            look(move || vec![mapped.load(PAGES - 1)])
        },
        model: |tree| vec![tree.origin("file").mapped_page(PAGES - 1)],
        late: Late::Always,
    },
    Observation {
        name: "fstat, load behind it",
        open: |dir| {
            let mapped = Mapped::new(&dir.join("file"))?;
            look(move || {
                let size =
                    mapped.file.metadata().map_or_else(failed, |found| found.len().to_string());
                vec![size, mapped.load(PAGES - 1)]
            })
        },
        model: |tree| {
            let file = tree.origin("file");
            vec![file.bytes.len().to_string(), file.mapped_page(PAGES - 1)]
        },
        late: Late::InRaces,
    },
    Observation {
        name: "SEEK_DATA, _HOLE, _END",
        open: |dir| {
            let file = File::open(dir.join("file"))?;
            look(move || {
                let data = SEEKS.map(|at| SeekFrom::Data(at as u64));
                let holes = SEEKS.map(|at| SeekFrom::Hole(at as u64));
                words(data.into_iter().chain(holes).chain([SeekFrom::End(0)]), |from| {
                    Ok(rustix::fs::seek(&file, from)?.to_string())
                })
            })
        },
        model: |tree| {
            let file = tree.origin("file");
            let seeks = [true, false].map(|data| SEEKS.map(|at| file.seek(at, data)));
            [seeks.concat(), vec![file.bytes.len().to_string()]].concat()
        },
        late: Late::Never,
    },
    Observation {
        name: "getxattr, listxattr",
        open: |dir| {
            let dir = dir.to_owned();
            look(move || FILES.iter().flat_map(|name| xattrs(&dir.join(name))).collect())
        },
        model: |tree| of_names(tree, &FILES, true, Object::xattrs, 3),
        late: Late::Never,
    },
    Observation {
        name: "lsattr",
        open: |dir| {
            let file = File::open(dir.join("file"))?;
            look(move || {
                words([&file], |file| {
                    let flags = rustix::fs::ioctl_getflags(file)?;
                    Ok(flags.contains(IFlags::IMMUTABLE).to_string())
                })
            })
        },
        model: |tree| vec![tree.origin("file").is_immutable.to_string()],
        late: Late::Never,
    },
    Observation {
        name: "F_OFD_GETLK",
        open: |dir| {
            let file = File::open(dir.join("file"))?;
            look(move || {
                words([&file], |file| {
                    let mut lock = world::whole_file(libc::F_WRLCK);
                    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
                    Ok((libc::c_int::from(lock.l_type) != libc::F_UNLCK).to_string())
                })
            })
        },
        model: |tree| vec![tree.origin("file").is_locked.to_string()],
        late: Late::Never,
    },
    Observation {
        name: "readdir",
        open: |dir| {
            let dir = dir.to_owned();
            look(move || {
                words(DIRS, |name| {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                    let dir = rustix::fs::open(dir.join(name), flags, 0.into())?;
                    list(&mut Dir::new(dir)?)
                })
            })
        },
        model: |tree| {
            DIRS.map(|name| match tree.at(name, true) {
                Ok(dir) if dir.kind == Kind::Dir => tree.list(dir),
                Ok(_) => error(Errno::NOTDIR),
                Err(errno) => error(errno),
            })
            .to_vec()
        },
        late: Late::Never,
    },
    Observation {
        name: "rewinddir, readdir",
        open: |dir| {
            let open = |name: &&str| Ok(Dir::new(File::open(dir.join(name))?)?);
            let mut dirs = DIRS[..3].iter().map(open).collect::<Result<Vec<Dir>>>()?;
            look(move || {
                words(&mut dirs, |dir| {
                    dir.rewind();
                    list(dir)
                })
            })
        },
        model: |tree| DIRS[..3].iter().map(|name| tree.list(tree.origin(name))).collect(),
        late: Late::Never,
    },
    Observation {
        name: "readlink",
        open: |dir| {
            let dir = dir.to_owned();
            look(move || {
                words(LINKS, |name| {
                    Ok(fs::read_link(dir.join(name))?.to_string_lossy().into_owned())
                })
            })
        },
        model: |tree| of_names(tree, &LINKS, false, |object| vec![object.target()], 1),
        late: Late::Never,
    },
    Observation {
        name: "getcwd",
        open: |dir| {
            let path = PathOf::new(dir, "sub")?;
            look(move || vec![path.read()])
        },
        model: |tree| vec![tree.path("sub")],
        late: Late::Always,
    },
    Observation {
        name: "stat, getcwd",
        open: |dir| {
            let (path, dir) = (PathOf::new(dir, "sub")?, dir.to_owned());
            look(move || {
                for name in DIRS {
                    // Only that it was looked up counts.
                    let _ = fs::symlink_metadata(dir.join(name));
                }
                vec![path.read()]
            })
        },
        model: |tree| vec![tree.path("sub")],
        late: Late::Never,
    },
];

impl Object {
    fn statx(&self) -> String {
        let origin = self.origin.unwrap_or("new");
        let (mode, links, size) = (self.mode, self.links, self.size());
        format!("born as {origin}, {mode:o}, {links} links, {size} bytes")
    }

    /// Root may execute what anybody may.
    fn execute(&self) -> String {
        let is_allowed = self.kind == Kind::Dir || self.mode & 0o111 != 0;
        if is_allowed { "allowed".to_owned() } else { error(Errno::ACCESS) }
    }

    fn open_to_write(&self) -> String {
        match self.kind {
            Kind::Dir => error(Errno::ISDIR),
            // Nobody has it open to read.
            Kind::Fifo => error(Errno::NXIO),
            Kind::File | Kind::Link(_) if self.is_immutable => error(Errno::PERM),
            Kind::File | Kind::Link(_) => "opened".to_owned(),
        }
    }

    fn read(&self) -> Vec<String> {
        match self.kind {
            Kind::Dir => no_pieces(&error(Errno::ISDIR)).to_vec(),
            Kind::File | Kind::Link(_) | Kind::Fifo => self.pieces(),
        }
    }

    fn xattrs(&self) -> Vec<String> {
        let value = |name| match self.xattrs.get(name) {
            Some(value) => (*value).to_owned(),
            None => error(Errno::NODATA),
        };
        let names: Vec<&str> = self.xattrs.keys().copied().collect();
        vec![value(KEPT), value(ACL), names.join(" ")]
    }

    fn target(&self) -> String {
        match self.kind {
            Kind::Link(target) => target.to_owned(),
            Kind::File | Kind::Dir | Kind::Fifo => error(Errno::INVAL),
        }
    }
}

/// `count` words of each, or the error as often.
fn of_names(
    tree: &Tree,
    names: &[&str],
    follow: bool,
    words: fn(&Object) -> Vec<String>,
    count: usize,
) -> Vec<String> {
    let of_name = |name: &&str| match tree.at(name, follow) {
        Ok(object) => words(object),
        Err(errno) => vec![error(errno); count],
    };
    names.iter().flat_map(of_name).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "what opens may fail before it comes to this")]
fn look(look: impl FnMut() -> Vec<String> + 'static) -> Result<Look> {
    Ok(Box::new(look))
}

/// A word of each, or its error.
fn words<T>(
    of: impl IntoIterator<Item = T>,
    mut word: impl FnMut(T) -> io::Result<String>,
) -> Vec<String> {
    of.into_iter().map(|one| word(one).unwrap_or_else(failed)).collect()
}

fn failed(error: io::Error) -> String {
    error.to_string()
}

fn all_fail(error: io::Error) -> Vec<String> {
    no_pieces(&error.to_string()).to_vec()
}

fn open_all(dir: &Path, names: &[&str]) -> Result<Vec<File>> {
    names.iter().map(|name| Ok(File::open(dir.join(name))?)).collect()
}

/// Behind the last page.
const END: usize = PAGES * PAGE;

fn content(path: &Path) -> io::Result<Vec<String>> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut bytes = [0; END];
    // A FIFO has no places to read at.
    let count = io::Read::read(&mut &file, &mut bytes)?;
    Ok(pieces(&bytes[..count]).to_vec())
}

fn content_of(file: &File, bytes: &mut [u8]) -> Vec<String> {
    match file.read_at(bytes, 0) {
        Ok(count) => pieces(&bytes[..count]).to_vec(),
        Err(error) => all_fail(error),
    }
}

fn xattrs(path: &Path) -> Vec<String> {
    let mut bytes = [0; 1000];
    let mut get = |name: &str| {
        let len = rustix::fs::getxattr(path, name, &mut bytes[..])?;
        let value = bytes[..len].to_vec();
        let is_acl = value == world::acl();
        let text = || String::from_utf8_lossy(&value).into_owned();
        Ok(if is_acl { "as set".to_owned() } else { text() })
    };
    let values = [KEPT, ACL].map(|name| get(name).unwrap_or_else(failed));
    let mut bytes = [0; 1000];
    let names = rustix::fs::listxattr(path, &mut bytes[..]).map(|len| {
        let names = String::from_utf8_lossy(&bytes[..len]).into_owned();
        let mut names: Vec<&str> = names.split_terminator('\0').collect();
        names.sort_unstable();
        names.join(" ")
    });
    let [kept, acl] = values;
    vec![kept, acl, names.unwrap_or_else(error)]
}

/// As [`Tree::list`] tells it.
fn list(dir: &mut Dir) -> io::Result<String> {
    let mut names = Vec::new();
    while let Some(entry) = dir.read() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let letter = match entry.file_type() {
            FileType::Directory => 'd',
            FileType::Symlink => 'l',
            FileType::Fifo => 'p',
            FileType::RegularFile
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => 'f',
        };
        if name != "." && name != ".." {
            names.push(format!("{name}:{letter}"));
        }
    }
    names.sort();
    Ok(names.join(" "))
}

/// What the tree was like before the operation.
#[derive(Debug)]
struct First(HashMap<u64, (&'static str, [Time; 2])>);

/// Seconds and nanoseconds.
type Time = (i64, i64);

fn times(found: &fs::Metadata) -> [Time; 2] {
    use std::os::unix::fs::MetadataExt as _;
    [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())]
}

impl First {
    fn of(dir: &Path) -> Result<First> {
        use std::os::unix::fs::MetadataExt as _;
        let mut first = HashMap::new();
        for name in NAMES {
            if let Ok(found) = fs::symlink_metadata(dir.join(name)) {
                first.insert(found.ino(), (name, times(&found)));
            }
        }
        Ok(First(first))
    }

    fn stat(&self, found: &fs::Metadata) -> io::Result<String> {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let first = self.0.get(&found.ino());
        let became = |now: Time, then: Time| match now {
            _ if now == (told().tv_sec, told().tv_nsec) => "told",
            _ if now == then => "same",
            _ if now > then => "later",
            _ => "earlier",
        };
        let [modified, changed] = times(found);
        let kind = found.file_type();
        let letter = match () {
            () if kind.is_dir() => 'd',
            () if kind.is_symlink() => 'l',
            () if kind.is_fifo() => 'p',
            () => 'f',
        };
        Ok(stat_words(&Stat {
            origin: first.map(|(name, _)| *name),
            letter,
            mode: found.mode() & 0o7777,
            links: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
            owner: (found.uid(), found.gid()),
            size: if kind.is_dir() { 0 } else { found.len() },
            times: match first {
                Some((_, then)) => [became(modified, then[0]), became(changed, then[1])],
                None => ["new"; 2],
            },
        }))
    }
}

/// A mapping that is read as a debugger reads it: where there is nothing, that is an error and not
/// the end of the process. The kernel looks into the tables of the process's pages and, where they
/// have none, faults it in.
#[derive(Debug)]
struct Mapped {
    file: File,
    mapping: Mapping,
    memory: File,
}

impl Mapped {
    fn new(path: &Path) -> Result<Mapped> {
        let file = File::open(path)?;
        let mapping = Mapping::to_load(&file, END)?;
        Ok(Mapped { file, mapping, memory: File::open("/proc/self/mem")? })
    }

    fn load(&self, page: usize) -> String {
        let mut bytes = [0; PAGE];
        let at = self.mapping.address() + page * PAGE;
        match self.memory.read_at(&mut bytes, at as u64) {
            Ok(PAGE) => runs(&bytes),
            _ => "SIGBUS".to_owned(),
        }
    }
}

/// Where an open folder is, as getcwd(3) tells it of one that a process is in.
#[derive(Debug)]
struct PathOf {
    root: PathBuf,
    link: PathBuf,
    _open: File,
}

impl PathOf {
    fn new(dir: &Path, name: &str) -> Result<PathOf> {
        let open = File::open(dir.join(name))?;
        let link = Path::new("/proc/self/fd").join(open.as_raw_fd().to_string());
        Ok(PathOf { root: dir.canonicalize()?, link, _open: open })
    }

    fn read(&self) -> String {
        let path = fs::read_link(&self.link).unwrap_or_default();
        path.strip_prefix(&self.root)
            .map_or_else(|_| path.clone(), Path::to_owned)
            .display()
            .to_string()
    }
}
