//! A block of each kind is damaged in turn: what it belongs to answers EIO, everything else is read and
//! written, the mount ends in order, fsck repairs or removes, and finds nothing then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use e2e::{Cluster, Fixture, fsck};
use rustix::fs::XattrFlags;

use crate::rounds::is_long;

const BLOCK: usize = 4096;
/// Of a header: where its kind is, and where the number of its block.
const KIND_AT: usize = 4;
const MAGIC: usize = 4;
/// More than the index in an inode leads to.
const NAMES: usize = 5000;

/// `docs/spec/ondisk.md` 2; of those that a mount of one node has.
const KINDS: [(u8, &str); 15] = [
    (1, "superblock"),
    (2, "group header"),
    (3, "bitmap"),
    (4, "chunk table"),
    (5, "group map"),
    (6, "slot head"),
    (8, "free block"),
    (9, "inode"),
    (10, "extent node"),
    (11, "directory index"),
    (12, "directory bucket"),
    (14, "journal header"),
    (15, "slot body"),
    (16, "extended attributes"),
    (0, "data"),
];

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
    for i in 0..NAMES {
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
            if let Ok(len) = rustix::fs::getxattr(&path, "user.large", &mut value) {
                data.extend_from_slice(&value[..len]);
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
                let eio = Some(rustix::io::Errno::IO.raw_os_error());
                assert_eq!(error.raw_os_error(), eio, "{at}: {error}");
                self.failed.insert(at.to_owned());
            }
        }
    }
}

/// Blocks of a kind, by their headers; of data, one of a file whose contents are known.
fn blocks_of(device: &[u8], kind: u8) -> Vec<usize> {
    let magic = &device[16 * BLOCK..16 * BLOCK + MAGIC];
    let is_of = |block: &[u8]| {
        if kind == 0 {
            block.iter().all(|b| *b == 5)
        } else {
            block.starts_with(magic) && block[KIND_AT] == kind
        }
    };
    let found = device.chunks_exact(BLOCK).enumerate().filter(|(_, block)| is_of(block));
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
            fs::write(dir.join("new"), vec![3; 100_000]).expect("the rest goes on");
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
    for (kind, what) in KINDS {
        let blocks = blocks_of(&pristine, kind);
        assert!(!blocks.is_empty(), "there is no {what}");
        // From all over the device.
        for block in blocks.iter().step_by(blocks.len().div_ceil(each)).rev() {
            for with in ways {
                let mut damage =
                    Damage { cluster: &mut cluster, pristine: &pristine, whole: &whole };
                damage.of(*block, what, *with);
                damaged += 1;
            }
        }
    }
    println!("{damaged} blocks damaged, of {} kinds", KINDS.len());
    fs::write(cluster.device(), pristine).expect("there is room");
    cluster.finish();
}
