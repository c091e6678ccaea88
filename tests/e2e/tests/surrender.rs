//! Locks change hands all the time, under readers, writers, creators and renamers of the same
//! objects on all nodes: nobody hangs, nothing fails that should not, and what is read was written.

#![expect(clippy::print_stdout, reason = "a test tells how much it has done")]

mod rounds;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{Cluster, Fixture};
use rounds::period;

/// Everybody has to finish an operation in this time; the lock may have to go round first.
const PATIENCE: Duration = Duration::from_secs(20);

/// One kind of work, done again and again.
type Work = fn(&Path, u64) -> Result<()>;

/// Bytes of the file that all write, of blocks that are of one writer whole.
const BLOCK: usize = 4096;
const BLOCKS: u64 = 16;

fn read(dir: &Path, round: u64) -> Result<()> {
    let file = File::open(dir.join("shared"))?;
    let mut block = [0; BLOCK];
    file.read_exact_at(&mut block, round % BLOCKS * BLOCK as u64)?;
    ensure!(block.iter().all(|byte| *byte == block[0]), "a block of two writers");
    Ok(())
}

fn write(dir: &Path, round: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(dir.join("shared"))?;
    let byte = u8::try_from(round % 251)?;
    Ok(file.write_all_at(&[byte; BLOCK], round * 7 % BLOCKS * BLOCK as u64)?)
}

fn append(dir: &Path, _round: u64) -> Result<()> {
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("log"))?;
    Ok(log.write_all(b"0123456789abcde\n")?)
}

/// Others remove what this one creates, and create what this one removes.
fn create(dir: &Path, round: u64) -> Result<()> {
    let path = dir.join(format!("name{}", round % 8));
    match File::create_new(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => tolerated(fs::remove_file(&path)),
        created => created.map(drop).with_context(|| path.display().to_string()),
    }
}

fn rename(dir: &Path, round: u64) -> Result<()> {
    let (from, to) = (round % 8, (round + 3) % 8);
    tolerated(fs::rename(dir.join(format!("name{from}")), dir.join(format!("name{to}"))))
}

fn list(dir: &Path, round: u64) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name());
    }
    ensure!(names.iter().any(|name| name == "shared"), "the shared file is not among {names:?}");
    tolerated(fs::metadata(dir.join(format!("name{}", round % 8))).map(drop))
}

/// Somebody else was faster.
fn tolerated(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => Ok(result?),
    }
}

const ALL: [(&str, Work); 6] = [
    ("read", read),
    ("write", write),
    ("append", append),
    ("create", create),
    ("rename", rename),
    ("list", list),
];

struct Worker {
    name: String,
    rounds: Arc<AtomicU64>,
    thread: thread::JoinHandle<Result<()>>,
}

fn start(node: u16, dir: PathBuf, name: &str, work: Work, stop: &Arc<AtomicBool>) -> Worker {
    let rounds = Arc::new(AtomicU64::new(0));
    let (counted, stop) = (Arc::clone(&rounds), Arc::clone(stop));
    let thread = thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let round = counted.load(Ordering::Relaxed);
            work(&dir, round + u64::from(node)).with_context(|| format!("round {round}"))?;
            counted.store(round + 1, Ordering::Relaxed);
        }
        Ok(())
    });
    Worker { name: format!("{name} on node {node}"), rounds, thread }
}

/// All kinds of work on all nodes for a while, watched.
fn under_load(cluster: &Cluster, work: &[(&str, Work)], period: Duration) -> Result<Vec<String>> {
    let stop = Arc::new(AtomicBool::new(false));
    let nodes = cluster.nodes();
    let start = |node: u16| {
        let (dir, stop) = (cluster.mount(node).join("dir"), Arc::clone(&stop));
        work.iter().map(move |(name, work)| start(node, dir.clone(), name, *work, &stop))
    };
    let workers: Vec<Worker> = nodes.iter().flat_map(|node| start(*node)).collect();
    let began = Instant::now();
    let mut seen: Vec<(u64, Instant)> = workers.iter().map(|_| (0, began)).collect();
    let watch = |seen: &mut Vec<(u64, Instant)>| -> Result<()> {
        for (worker, (rounds, since)) in workers.iter().zip(seen) {
            let now = worker.rounds.load(Ordering::Relaxed);
            if now != *rounds {
                (*rounds, *since) = (now, Instant::now());
            } else if !worker.thread.is_finished() && since.elapsed() > PATIENCE {
                bail!("{} hangs in round {now}", worker.name);
            }
        }
        Ok(())
    };
    while began.elapsed() < period && !workers.iter().any(|worker| worker.thread.is_finished()) {
        watch(&mut seen)?;
        thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    while workers.iter().any(|worker| !worker.thread.is_finished()) {
        watch(&mut seen)?;
        thread::sleep(Duration::from_millis(10));
    }
    let mut told = Vec::new();
    for worker in workers {
        let rounds = worker.rounds.load(Ordering::Relaxed);
        let result = worker.thread.join().unwrap_or_else(|_| bail!("it panicked"));
        result.with_context(|| worker.name.clone())?;
        ensure!(rounds > 0, "{} never came to anything", worker.name);
        told.push(format!("{}: {rounds}", worker.name));
    }
    Ok(told)
}

fn loaded(name: &str, nodes: u16, work: &[(&str, Work)]) {
    let cluster = Fixture::of(name, nodes);
    let dir = cluster.mount(1).join("dir");
    fs::create_dir(&dir).expect("created");
    fs::write(dir.join("shared"), vec![0; BLOCK * 16]).expect("written");
    let period = period(Duration::from_secs(10), Duration::from_secs(120));
    match under_load(&cluster, work, period) {
        Ok(told) => println!("{}", told.join(", ")),
        Err(error) => panic!("{error:#}"),
    }
    let surrenders: u64 = cluster.nodes().into_iter().map(|node| surrenders(&cluster, node)).sum();
    assert!(surrenders > 0, "locks should have changed hands");
    if work.iter().any(|(name, _)| *name == "append") {
        let length = fs::metadata(dir.join("log")).expect("it is there").len();
        assert_eq!(length % 16, 0, "no two appends overlap");
    }
    cluster.finish();
}

fn surrenders(cluster: &Cluster, node: u16) -> u64 {
    let usage = cluster.admin(node).usage().expect("an answer");
    usage.file_systems.iter().map(|fs| fs.surrenders).sum()
}

#[test]
fn everything_at_once_on_two_nodes() {
    loaded("surrender-two", 2, &ALL);
}

#[test]
fn everything_at_once_on_three_nodes() {
    loaded("surrender-three", 3, &ALL);
}

#[test]
fn renamers_and_creators_of_the_same_names() {
    loaded("surrender-names", 3, &[("create", create), ("rename", rename), ("list", list)]);
}

#[test]
fn readers_and_writers_of_the_same_file() {
    loaded("surrender-data", 3, &[("read", read), ("write", write), ("append", append)]);
}
