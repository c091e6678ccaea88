//! Contests: many want the same name at the same moment, and exactly one of them gets it.
//!
//! Keeps true: who has won is told by the system call, and by what every node sees after.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, FileType, RenameFlags};

/// The name that all want.
const PRIZE: &str = "prize";

/// One kind.
struct Contest {
    name: &'static str,
    /// What they want, where they want it gone.
    set: Option<fn(&Path) -> io::Result<()>>,
    attempt: fn(&Path, u32) -> io::Result<()>,
    /// How everybody else fails.
    loss: ErrorKind,
    /// Whose it is.
    winner: fn(&Path) -> io::Result<u32>,
}

const ALL: &[Contest] = &[
    Contest {
        name: "open, O_EXCL",
        set: None,
        attempt: |dir, who| {
            File::create_new(dir.join(PRIZE))?.write_all(who.to_string().as_bytes())
        },
        loss: ErrorKind::AlreadyExists,
        winner: content,
    },
    Contest {
        name: "link",
        set: None,
        attempt: |dir, who| fs::hard_link(own(dir, who), dir.join(PRIZE)),
        loss: ErrorKind::AlreadyExists,
        winner: content,
    },
    Contest {
        name: "rename, NOREPLACE",
        set: None,
        attempt: |dir, who| {
            let prize = dir.join(PRIZE);
            let flags = RenameFlags::NOREPLACE;
            Ok(rustix::fs::renameat_with(CWD, own(dir, who), CWD, prize, flags)?)
        },
        loss: ErrorKind::AlreadyExists,
        winner: content,
    },
    Contest {
        name: "symlink",
        set: None,
        attempt: |dir, who| symlink(who.to_string(), dir.join(PRIZE)),
        loss: ErrorKind::AlreadyExists,
        winner: |dir| number(&fs::read_link(dir.join(PRIZE))?.to_string_lossy()),
    },
    Contest {
        name: "mkdir",
        set: None,
        attempt: |dir, who| Ok(rustix::fs::mkdir(dir.join(PRIZE), who.into())?),
        loss: ErrorKind::AlreadyExists,
        winner: mode,
    },
    Contest {
        name: "mknod",
        set: None,
        attempt: |dir, who| {
            Ok(rustix::fs::mknodat(CWD, dir.join(PRIZE), FileType::Fifo, who.into(), 0)?)
        },
        loss: ErrorKind::AlreadyExists,
        winner: mode,
    },
    Contest {
        name: "rename away",
        set: Some(|dir| fs::write(dir.join(PRIZE), "")),
        attempt: |dir, who| fs::rename(dir.join(PRIZE), own(dir, who)),
        loss: ErrorKind::NotFound,
        // Everybody else's says who it is of.
        winner: |dir| {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if entry.metadata()?.len() == 0 {
                    return number(&entry.file_name().to_string_lossy());
                }
            }
            Err(ErrorKind::NotFound.into())
        },
    },
    Contest {
        name: "unlink",
        set: Some(|dir| fs::write(dir.join(PRIZE), "")),
        attempt: |dir, who| {
            fs::remove_file(dir.join(PRIZE))?;
            fs::set_permissions(dir, Permissions::from_mode(who))
        },
        loss: ErrorKind::NotFound,
        winner: mode_of_emptied,
    },
    Contest {
        name: "rmdir",
        set: Some(|dir| fs::create_dir(dir.join(PRIZE))),
        attempt: |dir, who| {
            fs::remove_dir(dir.join(PRIZE))?;
            fs::set_permissions(dir, Permissions::from_mode(who))
        },
        loss: ErrorKind::NotFound,
        winner: mode_of_emptied,
    },
];

/// Each has a file of its own, with its number in it, which is its name as well.
fn own(dir: &Path, who: u32) -> PathBuf {
    dir.join(who.to_string())
}

fn number(text: &str) -> io::Result<u32> {
    text.parse().map_err(|_| io::Error::other(format!("«{text}» is nobody")))
}

fn content(dir: &Path) -> io::Result<u32> {
    number(&fs::read_to_string(dir.join(PRIZE))?)
}

fn mode(dir: &Path) -> io::Result<u32> {
    Ok(fs::symlink_metadata(dir.join(PRIZE))?.mode() & 0o777)
}

fn mode_of_emptied(dir: &Path) -> io::Result<u32> {
    match fs::symlink_metadata(dir.join(PRIZE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(fs::metadata(dir)?.mode() & 0o777),
        Err(error) => Err(error),
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
    }
}

/// `rounds` of each kind; a contender on each path.
///
/// # Errors
/// With the first contest that did not have exactly one winner.
pub(super) fn run(rounds: u32, dirs: &[PathBuf]) -> Result<String> {
    for contest in ALL {
        for round in 0..rounds {
            let name = format!("{} {round}", contest.name);
            let paths: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(&name)).collect();
            hold(contest, &paths).context(name)?;
        }
    }
    Ok(format!("{} contests of {} kinds, one winner each", ALL.len() * rounds as usize, ALL.len()))
}

fn hold(contest: &Contest, dirs: &[PathBuf]) -> Result<()> {
    fs::create_dir(&dirs[0])?;
    let contenders: Vec<(u32, &PathBuf)> = (1..).zip(dirs).collect();
    for (who, dir) in &contenders {
        fs::write(own(dir, *who), who.to_string())?;
    }
    if let Some(set) = contest.set {
        set(&dirs[0])?;
    }
    // A thread is as good as a process: the kernel takes each for a caller of its own.
    let start = Barrier::new(dirs.len());
    let results: Vec<(u32, io::Result<()>)> = thread::scope(|scope| {
        let contend = |(who, dir): &(u32, &PathBuf)| {
            let (who, dir, start) = (*who, dir.to_path_buf(), &start);
            scope.spawn(move || {
                // It is in everybody's cache whether the name is there.
                let _ = fs::symlink_metadata(dir.join(PRIZE));
                start.wait();
                (who, (contest.attempt)(&dir, who))
            })
        };
        let running: Vec<_> = contenders.iter().map(contend).collect();
        running.into_iter().map(|one| one.join().expect("no contender panics")).collect()
    });
    let mut winners = Vec::new();
    for (who, result) in results {
        match result {
            Ok(()) => winners.push(who),
            Err(error) if error.kind() == contest.loss => {}
            Err(error) => return Err(error).with_context(|| format!("contender {who}")),
        }
    }
    ensure!(winners.len() == 1, "won by {winners:?}");
    for dir in dirs {
        let seen = (contest.winner)(dir).with_context(|| dir.display().to_string())?;
        ensure!(seen == winners[0], "{}: won by {seen}, not {}", dir.display(), winners[0]);
    }
    Ok(())
}
