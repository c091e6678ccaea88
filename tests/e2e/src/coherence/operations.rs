//! The rows of the table: what a node does, as one system call, and what the tree is like then.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::Path;

use anyhow::{Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, RenameFlags, Timestamps,
    XattrFlags,
};

use super::model::{ACL, DIR_MODE, FILE_BYTES, FILE_MODE, KEPT, Kind, Moment, PAGE, Tree};
use super::{told, world};
use crate::aligned::Aligned;
use crate::mapping::Mapping;

/// What is done when it is called, with what was opened before; that stays open after.
pub(super) type Act = Box<dyn FnMut() -> Result<()>>;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// Opens what is needed.
    pub(super) prepare: fn(&Path) -> Result<Act>,
    pub(super) model: fn(&mut Tree),
    /// What the node itself may see late in a race.
    pub(super) own_late: &'static [&'static str],
}

/// The end of a file that has grown, in its fourth page.
const LONG: usize = 16_000;
/// The end of one that was cut, in its second.
const SHORT: usize = 6000;

pub(super) const ALL: &[Operation] = &[
    Operation {
        name: "write(2) inside",
        prepare: |dir| {
            let file = read_write(&dir.join("file"))?;
            act(move || Ok(file.write_all_at(&[b'w'; 100], 5000)?))
        },
        model: |tree| tree.was("file").write(5000, &[b'w'; 100]),
        own_late: &[],
    },
    Operation {
        name: "write(2) of all, and longer",
        prepare: |dir| {
            let file = read_write(&dir.join("file"))?;
            act(move || Ok(file.write_all_at(&[b'w'; LONG], 0)?))
        },
        model: |tree| tree.was("file").write(0, &[b'w'; LONG]),
        own_late: &[],
    },
    Operation {
        name: "write(2) at the end",
        prepare: |dir| {
            let file = read_write(&dir.join("file"))?;
            act(move || Ok(file.write_all_at(&[b'w'; LONG - FILE_BYTES], FILE_BYTES as u64)?))
        },
        model: |tree| tree.was("file").write(FILE_BYTES, &[b'w'; LONG - FILE_BYTES]),
        own_late: &[],
    },
    Operation {
        name: "write(2), O_DIRECT",
        prepare: |dir| {
            let flags = i32::try_from(OFlags::DIRECT.bits())?;
            let file = OpenOptions::new().write(true).custom_flags(flags).open(dir.join("file"))?;
            let mut bytes = Aligned::new(PAGE);
            bytes.get(PAGE).fill(b'd');
            act(move || Ok(file.write_all_at(bytes.get(PAGE), PAGE as u64)?))
        },
        model: |tree| tree.was("file").write(PAGE, &[b'd'; PAGE]),
        own_late: &[],
    },
    Operation {
        name: "write(2), O_APPEND",
        prepare: |dir| {
            let mut file = OpenOptions::new().append(true).open(dir.join("file"))?;
            act(move || Ok(file.write_all(&[b'a'; LONG - FILE_BYTES])?))
        },
        model: |tree| tree.was("file").write(FILE_BYTES, &[b'a'; LONG - FILE_BYTES]),
        own_late: &[],
    },
    Operation {
        name: "a store to a mapping",
        prepare: |dir| {
            let mapping = Mapping::new(&read_write(&dir.join("file"))?, FILE_BYTES)?;
            // The page is in the mapping already.
            mapping.load(PAGE, &mut [0]);
            act(move || {
                let word = mapping.word(PAGE + 8);
                word.store(u64::from_le_bytes([b's'; 8]), std::sync::atomic::Ordering::SeqCst);
                Ok(())
            })
        },
        model: |tree| tree.was("file").write(PAGE + 8, &[b's'; 8]),
        // The kernel stores without asking: the times follow when the page is written back, which
        // is before another node sees anything of it.
        own_late: &["stat", "fstat"],
    },
    Operation {
        name: "truncate(2), shorter",
        prepare: |dir| {
            let path = dir.join("file");
            act(move || {
                let file = OpenOptions::new().write(true).open(&path)?;
                Ok(file.set_len(SHORT as u64)?)
            })
        },
        model: |tree| tree.was("file").resize(SHORT),
        own_late: &[],
    },
    Operation {
        name: "ftruncate(2), longer",
        prepare: |dir| {
            let file = read_write(&dir.join("file"))?;
            act(move || Ok(file.set_len(LONG as u64)?))
        },
        model: |tree| tree.was("file").resize(LONG),
        own_late: &[],
    },
    Operation {
        name: "open(2), O_TRUNC",
        prepare: |dir| {
            let path = dir.join("file");
            act(move || {
                File::create(&path)?;
                Ok(())
            })
        },
        model: |tree| tree.was("file").resize(0),
        own_late: &[],
    },
    Operation {
        name: "fallocate(2), longer",
        prepare: |dir| fallocate(dir, FallocateFlags::empty(), 0, LONG),
        model: |tree| tree.was("file").resize(LONG),
        own_late: &[],
    },
    Operation {
        name: "fallocate(2), PUNCH_HOLE",
        prepare: |dir| {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(dir, punch, 3000, 6000)
        },
        model: |tree| tree.was("file").zero(3000, 9000),
        own_late: &[],
    },
    Operation {
        name: "fallocate(2), ZERO_RANGE",
        prepare: |dir| fallocate(dir, FallocateFlags::ZERO_RANGE, 3000, 6000),
        model: |tree| tree.was("file").zero(3000, 9000),
        own_late: &[],
    },
    Operation {
        name: "copy_file_range(2)",
        prepare: |dir| {
            let (from, to) = (File::open(dir.join("other"))?, read_write(&dir.join("file"))?);
            act(move || {
                let (mut read, mut written) = (0, 6000);
                let count = rustix::fs::copy_file_range(
                    &from,
                    Some(&mut read),
                    &to,
                    Some(&mut written),
                    3000,
                )?;
                ensure!(count == 3000, "{count} bytes copied");
                Ok(())
            })
        },
        model: |tree| tree.was("file").write(6000, &[b'o'; 3000]),
        own_late: &[],
    },
    Operation {
        name: "chmod(2)",
        prepare: |dir| {
            let path = dir.join("file");
            act(move || Ok(fs::set_permissions(&path, Permissions::from_mode(0o751))?))
        },
        model: |tree| {
            let file = tree.was("file");
            (file.mode, file.changed) = (0o751, Moment::Later);
        },
        own_late: &[],
    },
    Operation {
        name: "chown(2)",
        prepare: |dir| {
            let path = dir.join("file");
            act(move || Ok(chown(&path, Some(1234), Some(4321))?))
        },
        model: |tree| {
            let file = tree.was("file");
            (file.owner, file.changed) = ((1234, 4321), Moment::Later);
        },
        own_late: &[],
    },
    Operation {
        name: "utimensat(2)",
        prepare: |dir| {
            let path = dir.join("file");
            let times = Timestamps { last_access: told(), last_modification: told() };
            act(move || Ok(rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())?))
        },
        model: |tree| {
            let file = tree.was("file");
            (file.modified, file.changed) = (Moment::Told, Moment::Later);
        },
        own_late: &[],
    },
    Operation {
        name: "setxattr(2)",
        prepare: |dir| {
            let path = dir.join("file");
            act(move || Ok(rustix::fs::setxattr(&path, KEPT, b"now", XattrFlags::REPLACE)?))
        },
        model: |tree| {
            let file = tree.was("file");
            file.xattrs.insert(KEPT, "now");
            file.changed = Moment::Later;
        },
        own_late: &[],
    },
    Operation {
        name: "removexattr(2)",
        prepare: |dir| {
            let path = dir.join("file");
            act(move || Ok(rustix::fs::removexattr(&path, KEPT)?))
        },
        model: |tree| {
            let file = tree.was("file");
            file.xattrs.remove(KEPT);
            file.changed = Moment::Later;
        },
        own_late: &[],
    },
    Operation {
        name: "setxattr(2) of an ACL",
        prepare: |dir| {
            let path = dir.join("file");
            let list = world::acl();
            act(move || Ok(rustix::fs::setxattr(&path, ACL, &list, XattrFlags::empty())?))
        },
        model: |tree| {
            let file = tree.was("file");
            file.xattrs.insert(ACL, "as set");
            // The group shows the mask.
            (file.mode, file.changed) = (0o670, Moment::Later);
        },
        own_late: &[],
    },
    Operation {
        name: "chattr(1) +i",
        prepare: |dir| {
            let file = File::open(dir.join("file"))?;
            act(move || {
                let flags = rustix::fs::ioctl_getflags(&file)?;
                Ok(rustix::fs::ioctl_setflags(&file, flags | IFlags::IMMUTABLE)?)
            })
        },
        model: |tree| {
            let file = tree.was("file");
            (file.is_immutable, file.changed) = (true, Moment::Later);
        },
        own_late: &[],
    },
    Operation {
        name: "F_OFD_SETLK",
        prepare: |dir| {
            let file = read_write(&dir.join("file"))?;
            act(move || {
                let lock = world::whole_file(libc::F_WRLCK);
                fcntl(&file, FcntlArg::F_OFD_SETLK(&lock))?;
                Ok(())
            })
        },
        model: |tree| tree.was("file").is_locked = true,
        own_late: &[],
    },
    Operation {
        name: "open(2), O_CREAT, O_EXCL",
        prepare: |dir| {
            let path = dir.join("new");
            act(move || {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(FILE_MODE).open(&path)?;
                Ok(())
            })
        },
        model: |tree| tree.make("new", Kind::File, Vec::new()),
        own_late: &[],
    },
    Operation {
        name: "linkat(2) of O_TMPFILE",
        prepare: |dir| {
            let flags = OFlags::TMPFILE | OFlags::WRONLY;
            let file = File::from(rustix::fs::open(dir, flags, Mode::from(FILE_MODE))?);
            file.write_all_at(b"tmpfile", 0)?;
            let path = dir.join("new");
            act(move || Ok(rustix::fs::linkat(&file, "", CWD, &path, AtFlags::EMPTY_PATH)?))
        },
        model: |tree| tree.make("new", Kind::File, b"tmpfile".to_vec()),
        own_late: &[],
    },
    Operation {
        name: "mknod(2)",
        prepare: |dir| {
            let path = dir.join("new");
            let mode = Mode::from(FILE_MODE);
            act(move || Ok(rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0)?))
        },
        model: |tree| tree.make("new", Kind::Fifo, Vec::new()),
        own_late: &[],
    },
    Operation {
        name: "mkdir(2)",
        prepare: |dir| {
            let path = dir.join("new");
            act(move || Ok(rustix::fs::mkdir(&path, Mode::from(DIR_MODE))?))
        },
        model: |tree| tree.make("new", Kind::Dir, Vec::new()),
        own_late: &[],
    },
    Operation {
        name: "symlink(2)",
        prepare: |dir| {
            let path = dir.join("new");
            act(move || Ok(std::os::unix::fs::symlink("other", &path)?))
        },
        model: |tree| tree.make("new", Kind::Link("other"), Vec::new()),
        own_late: &[],
    },
    Operation {
        name: "link(2)",
        prepare: |dir| {
            let (from, to) = (dir.join("file"), dir.join("new"));
            act(move || Ok(fs::hard_link(&from, &to)?))
        },
        model: |tree| tree.link("file", "new"),
        own_late: &[],
    },
    Operation {
        name: "unlink(2)",
        prepare: |dir| {
            let path = dir.join("file");
            act(move || Ok(fs::remove_file(&path)?))
        },
        model: |tree| tree.remove("file"),
        own_late: &[],
    },
    Operation {
        name: "unlink(2) of a symbolic link",
        prepare: |dir| {
            let path = dir.join("link");
            act(move || Ok(fs::remove_file(&path)?))
        },
        model: |tree| tree.remove("link"),
        own_late: &[],
    },
    Operation {
        name: "rmdir(2)",
        prepare: |dir| {
            let path = dir.join("empty");
            act(move || Ok(fs::remove_dir(&path)?))
        },
        model: |tree| tree.remove("empty"),
        own_late: &[],
    },
    Operation {
        name: "rename(2), NOREPLACE",
        prepare: |dir| rename(dir, "file", "new", RenameFlags::NOREPLACE),
        model: |tree| tree.rename("file", "new"),
        own_late: &[],
    },
    Operation {
        name: "rename(2) over a file",
        prepare: |dir| rename(dir, "other", "file", RenameFlags::empty()),
        model: |tree| tree.rename("other", "file"),
        own_late: &[],
    },
    Operation {
        name: "rename(2) to another directory",
        prepare: |dir| rename(dir, "file", "sub/file", RenameFlags::empty()),
        model: |tree| tree.rename("file", "sub/file"),
        own_late: &[],
    },
    Operation {
        name: "rename(2), EXCHANGE",
        prepare: |dir| rename(dir, "file", "other", RenameFlags::EXCHANGE),
        model: |tree| tree.exchange("file", "other"),
        own_late: &[],
    },
    Operation {
        name: "rename(2) of a directory",
        prepare: |dir| rename(dir, "sub", "new", RenameFlags::empty()),
        model: |tree| tree.rename("sub", "new"),
        own_late: &[],
    },
    Operation {
        name: "rename(2) of a directory over one",
        prepare: |dir| rename(dir, "sub", "empty", RenameFlags::empty()),
        model: |tree| tree.rename("sub", "empty"),
        own_late: &[],
    },
    Operation {
        name: "rename(2) of a directory to another",
        prepare: |dir| rename(dir, "empty", "sub/empty", RenameFlags::empty()),
        model: |tree| tree.rename("empty", "sub/empty"),
        own_late: &[],
    },
];

#[expect(clippy::unnecessary_wraps, reason = "what prepares may fail before it comes to this")]
fn act(act: impl FnMut() -> Result<()> + 'static) -> Result<Act> {
    Ok(Box::new(act))
}

fn read_write(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).open(path)?)
}

fn fallocate(dir: &Path, how: FallocateFlags, at: usize, len: usize) -> Result<Act> {
    let file = read_write(&dir.join("file"))?;
    act(move || Ok(rustix::fs::fallocate(&file, how, at as u64, len as u64)?))
}

fn rename(dir: &Path, from: &str, to: &str, flags: RenameFlags) -> Result<Act> {
    let (from, to) = (dir.join(from), dir.join(to));
    act(move || Ok(rustix::fs::renameat_with(CWD, &from, CWD, &to, flags)?))
}
