//! Three nodes in one directory and in one file at once, beside one node that does the same alone.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_UNLCK, F_WRLCK, SEEK_SET, flock};

use super::entries::{create_all, names, open, stat_all};
use super::timed;
use crate::floors::raw_device::BLOCK;
use crate::samples::{Samples, Side};
use crate::spec::Floor;
use crate::stage::{NODE, OTHER, Place, Stage, VICTIM, forget_names};

const NODES: [u16; 3] = [NODE, OTHER, VICTIM];

/// What an append appends.
const LINE: usize = 100;

/// What of the shared file each node writes.
const PART: usize = 8 << 20;

/// What a node does again and again: which node it is of all, and how often it has done it.
type Act<'a> = dyn Fn(usize, usize) -> Result<()> + Sync + 'a;

pub(super) fn measure(stage: &mut Stage, run: usize, samples: &mut Samples) -> Result<()> {
    locked(stage, run, samples)?;
    written(stage, run, samples)?;
    appended(stage, run, samples)?;
    listed(stage, run, samples)?;
    created(stage, run, samples)
}

/// In a directory that has many entries already, and keeps them for the runs that follow.
fn created(stage: &Stage, run: usize, samples: &mut Samples) -> Result<()> {
    let dirs = NODES.map(|node| stage.cluster.mount(node).join("crowd"));
    if run == 0 {
        fs::create_dir(&dirs[0])?;
        create_all(&open(&dirs[0])?, &names(stage.scale.crowd))?;
    }
    let files = dirs.map(|dir| open(&dir)).into_iter().collect::<Result<Vec<_>>>()?;
    let create = |kind: &str| {
        let files = &files;
        let kind = kind.to_owned();
        move |node: usize, number: usize| {
            let name = format!("run{run}-{kind}-{node}-{number}");
            create_all(&files[node], std::slice::from_ref(&name))
        }
    };
    compare(
        stage,
        ["shared_create", "shared_create_least"],
        samples,
        &create("alone"),
        &create("together"),
    )
}

fn written(stage: &Stage, run: usize, samples: &mut Samples) -> Result<()> {
    let paths = paths(stage, &format!("written{run}"));
    File::create_new(&paths[0])?.write_all_at(&vec![1; NODES.len() * PART], 0)?;
    let files = open_all(&paths, File::options().write(true))?;
    let write = |node: usize, number: usize| {
        // A step that is no divisor of their number goes through all of them.
        let block = number * 611 % (PART / BLOCK);
        Ok(files[node].write_all_at(&[2; BLOCK], (node * PART + block * BLOCK) as u64)?)
    };
    compare(stage, ["shared_write", "shared_write_least"], samples, &write, &write)?;
    fs::remove_file(&paths[0])?;
    Ok(())
}

fn appended(stage: &Stage, run: usize, samples: &mut Samples) -> Result<()> {
    let paths = paths(stage, &format!("appended{run}"));
    let files = open_all(&paths, File::options().append(true).create(true))?;
    let append =
        |node: usize, _: usize| Ok(std::io::Write::write_all(&mut &files[node], &[b'a'; LINE])?);
    compare(stage, ["shared_append", "shared_append_least"], samples, &append, &append)?;
    fs::remove_file(&paths[0])?;
    Ok(())
}

/// What ping_pong of ctdb does: each locks a byte, then gives up the one before, and so they chase
/// each other round.
fn locked(stage: &mut Stage, run: usize, samples: &mut Samples) -> Result<()> {
    let window = stage.scale.window;
    for place in stage.places(run) {
        if place.side == Side::Floor(Floor::Ext4) {
            continue;
        }
        let path = place.root.join(format!("locked{run}"));
        let cycle = chase(&[path.clone(), path.clone()], window)?;
        samples.add_time("locks_one_node", place.side, cycle, 1);
        fs::remove_file(path)?;
    }
    let [one, other, _] = paths(stage, &format!("locked-by-turns{run}"));
    let cycle = chase(&[one.clone(), other], window)?;
    samples.add_time("locks_two_nodes", Side::Ours, cycle, 1);
    fs::remove_file(one)?;
    let pings = stage.scale.pings;
    let (took, ()) = timed(|| (0..pings).try_for_each(|_| stage.partner.ping()))?;
    samples.add_time("locks_two_nodes", Side::Floor(Floor::PingPong), took, pings);
    Ok(())
}

/// The first `ls -l` of a node in a directory that another one has filled, and what it costs where
/// the kernel is all there is.
fn listed(stage: &Stage, run: usize, samples: &mut Samples) -> Result<()> {
    let count = stage.scale.files;
    for Place { side, root, reader } in stage.places(run) {
        if side == Side::Floor(Floor::Ext4) {
            continue;
        }
        let name = format!("listed{run}");
        fs::create_dir(root.join(&name))?;
        create_all(&open(&root.join(&name))?, &names(count))?;
        forget_names(&root)?;
        let messages = || match side {
            Side::Ours => payloads(stage),
            Side::Floor(_) => Ok(0),
        };
        let before = messages()?;
        let (took, listed) = timed(|| list(&reader.join(&name)))?;
        ensure!(listed == count, "{listed} of {count} entries are listed");
        samples.add_time("list_other_node", side, took, count);
        if side == Side::Ours {
            samples.add_count("list_other_node_payloads", side, messages()? - before, count);
        }
        fs::remove_dir_all(root.join(&name))?;
    }
    Ok(())
}

/// What the first two nodes have sent, each with many messages perhaps.
fn payloads(stage: &Stage) -> Result<u64> {
    Ok(stage.usage(NODE)?.payloads_sent + stage.usage(OTHER)?.payloads_sent)
}

/// Reads the names and looks at each in that order, as `ls -l` does.
fn list(dir: &Path) -> Result<usize> {
    let names: Vec<OsString> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    stat_all(&open(dir)?, &names)?;
    Ok(names.len())
}

/// Measures what three nodes get done together beside what the first does alone.
fn compare(
    stage: &Stage,
    [name, least]: [&'static str; 2],
    samples: &mut Samples,
    alone: &Act<'_>,
    together: &Act<'_>,
) -> Result<()> {
    let window = stage.scale.window;
    let counts = during(1, window, alone)?;
    samples.add_time(name, Side::Floor(Floor::OneNode), each(window, &counts), 1);
    let counts = during(NODES.len(), window, together)?;
    samples.add_time(name, Side::Ours, each(window, &counts), 1);
    samples.add(least, Side::Ours, share_of_least(&counts));
    Ok(())
}

/// How often each node has done it by the end of the time.
fn during(nodes: usize, window: Duration, act: &Act<'_>) -> Result<Vec<usize>> {
    let start = Barrier::new(nodes);
    thread::scope(|scope| {
        let play = |node| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let began = Instant::now();
                let mut done = 0;
                while began.elapsed() < window {
                    act(node, done)?;
                    done += 1;
                }
                Ok(done)
            })
        };
        let players: Vec<_> = (0..nodes).map(play).collect();
        players.into_iter().map(|player| player.join().expect("it does not panic")).collect()
    })
}

/// The time between two locks that are had, of both players together.
fn chase(paths: &[PathBuf; 2], window: Duration) -> Result<Duration> {
    let files = open_all(paths, File::options().read(true).write(true).create(true))?;
    let bytes = files.len() + 1;
    let counts = thread::scope(|scope| {
        let play = |(player, file)| {
            scope.spawn(move || -> Result<usize> {
                let began = Instant::now();
                let mut done = 0;
                lock(file, player, F_WRLCK)?;
                while began.elapsed() < window {
                    lock(file, (player + done + 1) % bytes, F_WRLCK)?;
                    lock(file, (player + done) % bytes, F_UNLCK)?;
                    done += 1;
                }
                // Nobody waits for who has ended.
                lock(file, (player + done) % bytes, F_UNLCK)?;
                Ok(done)
            })
        };
        let players: Vec<_> = files.iter().enumerate().map(play).collect();
        let ended = players.into_iter().map(|player| player.join().expect("it does not panic"));
        ended.collect::<Result<Vec<usize>>>()
    })?;
    Ok(each(window, &counts))
}

/// Locks a byte, or gives it up.
fn lock(file: &File, byte: usize, kind: i32) -> Result<()> {
    let lock = flock {
        l_type: i16::try_from(kind).expect("small"),
        l_whence: i16::try_from(SEEK_SET).expect("small"),
        l_start: i64::try_from(byte).expect("small"),
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLKW(&lock))?;
    Ok(())
}

fn paths(stage: &Stage, name: &str) -> [PathBuf; 3] {
    NODES.map(|node| stage.cluster.mount(node).join(name))
}

fn open_all(paths: &[PathBuf], how: &mut OpenOptions) -> Result<Vec<File>> {
    paths.iter().map(|path| Ok(how.open(path)?)).collect()
}

/// How long each took, of all that were done in this time.
fn each(window: Duration, counts: &[usize]) -> Duration {
    let all: usize = counts.iter().sum();
    window / u32::try_from(all.max(1)).expect("a window is short")
}

/// What who got least done has of the mean.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn share_of_least(counts: &[usize]) -> f64 {
    let all: usize = counts.iter().sum();
    let least = counts.iter().min().copied().unwrap_or(0);
    (least * counts.len()) as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gets_nothing_done_is_seen() {
        assert!((share_of_least(&[5, 5, 5]) - 1.0).abs() < 1e-9);
        assert!((share_of_least(&[8, 3, 1]) - 0.25).abs() < 1e-9);
        assert!(share_of_least(&[8, 0]).abs() < 1e-9);
        assert_eq!(each(Duration::from_secs(1), &[2, 3]), Duration::from_millis(200));
    }
}
