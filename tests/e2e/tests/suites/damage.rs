//! A block of each kind is damaged in turn: what it belongs to answers EIO, everything else is read and
//! written, the mount ends in order, fsck repairs or removes, and finds nothing then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use e2e::{Cluster, Fixture, fsck};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::rounds::is_long;

const BLOCK: usize = 4096;
/// Of a header: where its kind is, and where the number of its block.
const KIND_AT: usize = 4;
const NUMBER_AT: usize = 24;
const MAGIC: usize = 4;
/// More than the index in an inode leads to, if it is long.
fn names() -> usize {
    if is_long() { 5000 } else { 400 }
}

const GROUP_MAP: &str = "group map";
/// `docs/spec/ondisk.md` 2; of those that a mount of one node has.
const KINDS: [(u8, &str); 14] = [
    (1, "superblock"),
    (2, "group header"),
    (3, "bitmap"),
    (4, "chunk table"),
    (5, GROUP_MAP),
    (6, "slot head"),
    (8, "free block"),
    (9, "inode"),
    (10, "extent node"),
    (11, "directory index"),
    (12, "directory bucket"),
    (14, "journal header"),
    (15, "slot body"),
    (16, "extended attributes"),
];

/// Those that are damaged when there is little time; the simulator damages all of them
/// (`tests/sim/tests/repair/attack.rs`).
const QUICK: [u8; 4] = [3, 8, 9, 12];

fn fill(dir: &Path) -> io::Result<()> {
    for i in 0..20 {
        fs::write(dir.join(format!("small-{i}")), format!("contents of {i}").repeat(20))?;
        fs::create_dir(dir.join(format!("dir-{i}")))?;
        fs::write(dir.join(format!("dir-{i}/file")), vec![i; 50_000])?;
    }
    let sparse = File::create(dir.join("sparse"))?;
    for i in 0..400 {
        sparse.write_all_at(&[5; BLOCK], i * 3 * BLOCK as u64)?;
    }
    let value = vec![9; 20_000];
    rustix::fs::setxattr(dir.join("small-3"), "user.large", &value, XattrFlags::empty())?;
    fs::create_dir(dir.join("many"))?;
    for i in 0..names() {
        let name = format!("many/{i:04} {}", "a name that fills buckets ".repeat(9));
        fs::hard_link(dir.join("small-0"), dir.join(name))?;
    }
    Ok(())
}

/// What can be read below a directory, and what answers EIO.
#[derive(PartialEq, Eq, Debug, Default)]
struct Tree {
    files: BTreeMap<String, Vec<u8>>,
    failed: BTreeSet<String>,
}

impl Tree {
    fn of(root: &Path) -> Tree {
        let mut tree = Tree::default();
        tree.look(root, "");
        tree
    }

    fn look(&mut self, root: &Path, at: &str) {
        let path = root.join(at);
        let looked = fs::symlink_metadata(&path).and_then(|metadata| {
            let mut names = Vec::new();
            if metadata.is_dir() {
                for entry in fs::read_dir(&path)? {
                    names.push(entry?.file_name().into_string().expect("made here"));
                }
                return Ok((names, Vec::new()));
            }
            let mut data = fs::read(&path)?;
            let mut value = vec![0; 65_536];
            match rustix::fs::getxattr(&path, "user.large", &mut value) {
                Ok(len) => data.extend_from_slice(&value[..len]),
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
            Ok((names, data))
        });
        match looked {
            Ok((names, data)) => {
                self.files.insert(at.to_owned(), data);
                for name in names {
                    let below = if at.is_empty() { name } else { format!("{at}/{name}") };
                    self.look(root, &below);
                }
            }
            Err(error) => {
                let eio = Some(Errno::IO.raw_os_error());
                assert_eq!(error.raw_os_error(), eio, "{at}: {error}");
                self.failed.insert(at.to_owned());
            }
        }
    }
}

/// Blocks of a kind, by their headers.
fn blocks_of(device: &[u8], kind: u8) -> Vec<usize> {
    let magic = &device[16 * BLOCK..16 * BLOCK + MAGIC];
    let is_of = |(at, block): &(usize, &[u8])| {
        // Journals have images of blocks, too.
        let is_here = block[NUMBER_AT..NUMBER_AT + 8] == (*at as u64).to_le_bytes();
        block.starts_with(magic) && block[KIND_AT] == kind && is_here
    };
    let found = device.chunks_exact(BLOCK).enumerate().filter(is_of);
    found.map(|(at, _)| at).collect()
}

fn spoil(device: &Path, block: usize, with: u8) {
    let file = File::options().write(true).open(device).expect("opened");
    let (from, bytes) = if with == 0 { (0, vec![0; BLOCK]) } else { (100, vec![with; 2000]) };
    file.write_all_at(&bytes, (block * BLOCK + from) as u64).expect("written");
}

struct Damage<'a> {
    cluster: &'a mut Cluster,
    pristine: &'a [u8],
    whole: &'a Tree,
}

impl Damage<'_> {
    fn of(&mut self, block: usize, what: &str, with: u8) {
        let device = self.cluster.device();
        fs::write(&device, self.pristine).expect("there is room");
        spoil(&device, block, with);
        match self.cluster.start_local(1) {
            // It is said why, and nothing has been written.
            Err(error) => println!("{what} {block}: not mounted: {error:#}"),
            Ok(()) => {
                let dir = self.cluster.mount(1);
                self.goes_on_beside(&dir, what);
                self.cluster.stop_local(1).expect("it ends in order");
            }
        }
        let programs = self.cluster.programs();
        let (_, repaired) = fsck::repair(programs, &device).expect("repaired");
        assert!(repaired.clean, "{what} {block}: {repaired:?}");
        let after = fsck::check(programs, &device).expect("checked");
        after.expect_clean().unwrap_or_else(|error| panic!("{what} {block}: {error}"));
    }

    fn goes_on_beside(&self, dir: &Path, what: &str) {
        let seen = Tree::of(dir);
        println!("{what}: {} of {} fail", seen.failed.len(), self.whole.files.len());
        let is_below = |path: &str| {
            let mut failed = seen.failed.iter();
            failed.any(|f| f.is_empty() || path == f || path.starts_with(&format!("{f}/")))
        };
        for (path, data) in &self.whole.files {
            let is_same = seen.files.get(path) == Some(data);
            assert!(is_same || is_below(path), "{what}: {path} is not what it was");
        }
        assert!(seen.failed.len() <= 1, "{what}: one object: {:?}", seen.failed);
        if !seen.failed.contains("") {
            let made = fs::write(dir.join("new"), vec![3; 100_000]);
            if what == GROUP_MAP {
                // Nobody knows any more which of its groups, here all, are in use.
                let eio = Some(Errno::IO.raw_os_error());
                return assert_eq!(made.expect_err("no group").raw_os_error(), eio);
            }
            made.expect("the rest goes on");
            assert_eq!(fs::read(dir.join("new")).expect("read"), vec![3; 100_000]);
            fs::remove_file(dir.join("new")).expect("it goes");
        }
    }
}

#[test]
fn a_block_of_each_kind_is_damaged_in_turn() {
    let mut cluster = Fixture::prepared("suite-damage", 1, 64 << 20);
    cluster.start_local(1).expect("started");
    fill(&cluster.mount(1)).expect("filled");
    let whole = Tree::of(&cluster.mount(1));
    assert!(whole.failed.is_empty());
    cluster.stop_local(1).expect("stopped");
    let pristine = fs::read(cluster.device()).expect("read");
    let (each, ways): (usize, &[u8]) = if is_long() { (4, &[0xa5, 0]) } else { (1, &[0xa5]) };
    let mut damaged = 0;
    let kinds = KINDS.into_iter().filter(|(kind, _)| is_long() || QUICK.contains(kind));
    for (kind, what) in kinds {
        let blocks = blocks_of(&pristine, kind);
        assert!(!blocks.is_empty(), "there is no {what}");
        // From all over the device.
        for block in blocks.iter().rev().step_by(blocks.len().div_ceil(each)) {
            for with in ways {
                let mut damage =
                    Damage { cluster: &mut cluster, pristine: &pristine, whole: &whole };
                damage.of(*block, what, *with);
                damaged += 1;
            }
        }
    }
    println!("{damaged} blocks damaged");
    fs::write(cluster.device(), pristine).expect("there is room");
    cluster.finish();
}
