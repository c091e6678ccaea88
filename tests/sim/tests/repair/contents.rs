//! A device with something of everything on it, and what is found on a device afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use mfs::block::{BLOCK_SIZE, Block, BlockNo};
use mfs::error::FsError;
use mfs::file::{FileId, FileType};
use mfs::fsck::{self, RepairOptions, Repaired, Report};
use mfs::layout::Layout;
use mfs::ondisk::header::{self, Header, Kind, Writer};
use mfs::ondisk::superblock::SuperblockBlock;
use mfs::ops::{Allocate, NewFile, NewKind, OpenFile, OpenFlags, ReadKind, SetXattr};
use mfs::{Fs, Options};
use model::Random;
use mx_base::{Duration, FsId, Incarnation, SlotId, Timestamp};
use sim::disk::{Device, Image};
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

pub(crate) const NODE: Group = Group(1);
pub(crate) const LIMIT: Duration = Duration::from_secs(36_000);
pub(crate) const BLOCKS: u64 = 64 << 8;
const WRITE: OpenFlags =
    OpenFlags { write: true, append: false, sync: false, truncate: false, kill_privileges: false };
const ANY: SetXattr = SetXattr { create: false, replace: false, clear_sgid: false };

/// What a file is, as far as it does not change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Directory,
    File(Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>),
    Link(Vec<u8>),
    Other,
}

/// Everything that is found from the root, by path.
pub(crate) type Tree = BTreeMap<String, (FileId, Result<What, String>)>;

pub(crate) struct Contents {
    pub(crate) image: Image,
    pub(crate) tree: Tree,
    pub(crate) layout: Layout,
    pub(crate) fs_id: FsId,
}

fn new(kind: NewKind<'_>) -> NewFile<'_> {
    NewFile { kind, permissions: 0o644, umask: 0, uid: 7, gid: 8 }
}

async fn dir(fs: &Fs, parent: FileId, name: &str) -> FileId {
    let made = fs.create(parent, name.as_bytes(), &new(NewKind::Directory)).await;
    made.expect("there is room").attributes.file
}

pub(crate) async fn file(fs: &Fs, parent: FileId, name: &str, data: &[u8]) -> OpenFile {
    let made = fs.create_and_open(parent, name.as_bytes(), &new(NewKind::Regular), WRITE).await;
    let (_, open) = made.expect("there is room");
    if !data.is_empty() {
        fs.write(&open, 0, data).await.expect("there is room");
    }
    open
}

fn bytes(random: &mut Random, len: u64) -> Vec<u8> {
    let seed = random.next_u64();
    let word = |i: u64| seed.rotate_left((i % 61) as u32).wrapping_add(i).to_le_bytes();
    (0..len).map(|i| word(i)[1]).collect()
}

async fn fill(fs: Arc<Fs>) {
    let mut random = Random::new(77);
    let root = fs.root();
    for i in 0..40 {
        let len = random.below(3800);
        let data = bytes(&mut random, len);
        file(&fs, root, &format!("small-{i}"), &data).await;
    }
    for d in 0..4 {
        let parent = dir(&fs, root, &format!("dir-{d}")).await;
        for i in 0..25 {
            let len = random.below(60_000);
            let data = bytes(&mut random, len);
            file(&fs, parent, &format!("file-{i}"), &data).await;
        }
    }
    let many = dir(&fs, root, "many").await;
    for i in 0..260 {
        file(&fs, many, &format!("{i}-a name that is long enough to fill buckets"), b"x").await;
    }
    let mut deep = root;
    for i in 0..5 {
        deep = dir(&fs, deep, &format!("deep-{i}")).await;
        file(&fs, deep, "file", format!("on level {i}").as_bytes()).await;
    }
    let sparse = file(&fs, root, "sparse", b"").await;
    for i in 0..400_u64 {
        let data = bytes(&mut random, 4096);
        fs.write(&sparse, i * 8192, &data).await.expect("there is room");
    }
    let open = file(&fs, root, "allocated", b"data").await;
    let what = Allocate::Blocks { keep_size: true };
    fs.allocate(&open, what, 0, 300_000).await.expect("there is room");
    for (name, target) in [("link", "target".to_owned()), ("long-link", "t/".repeat(1990))] {
        let new = new(NewKind::SymbolicLink(target.as_bytes()));
        fs.create(root, name.as_bytes(), &new).await.expect("there is room");
    }
    fs.create(deep, b"fifo", &new(NewKind::Fifo)).await.expect("there is room");
    fs.create(deep, b"null", &new(NewKind::CharDevice(0x103))).await.expect("there is room");
    fs.link(open.file(), deep, b"second name").await.expect("there is room");
    for i in 0..12 {
        let open = file(&fs, root, &format!("xattrs-{i}"), &[i; 9000]).await;
        for j in 0..=i {
            let name = format!("user.{j}");
            let value = vec![j; usize::from(i) * 150];
            fs.set_xattr(open.file(), name.as_bytes(), &value, ANY).await.expect("there is room");
        }
        let mut acl = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [
            (1_u16, 6_u16, u32::MAX),
            (2, 4, 5),
            (4, 4, u32::MAX),
            (16, 4, u32::MAX),
            (32, 4, u32::MAX),
        ] {
            acl.extend(tag.to_le_bytes());
            acl.extend(permissions.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        let acl = fs.set_xattr(open.file(), b"system.posix_acl_access", &acl, ANY).await;
        acl.expect("there is room");
    }
}

/// Runs something on a mount of an image; `leaves` or not. Returns the image then.
pub(crate) fn on_mount<T: Send + 'static, F>(
    image: Image,
    leaves: bool,
    then: impl FnOnce(Arc<Fs>) -> F + Send + 'static,
) -> (Image, T)
where
    F: Future<Output = T> + Send + 'static,
{
    let exec = Executor::new(9);
    let device = Device::new(BLOCKS, image);
    let env = env(&exec, &device, 2);
    let within = exec.clone();
    let done = exec.run(NODE, LIMIT, async move {
        let mounted =
            mfs::mount(env, Options::default(), true, |_| {}).await.expect("it can be mounted");
        let value = then(Arc::clone(&mounted.fs)).await;
        if leaves {
            within.sleep(Duration::from_secs(2)).await;
            mounted.leave().await.expect("left");
        } else {
            std::mem::forget(mounted);
        }
        value
    });
    let value = done.expect("nothing waits for ever");
    exec.kill(NODE);
    (device.visible(), value)
}

pub(crate) fn contents() -> &'static Contents {
    static CONTENTS: OnceLock<Contents> = OnceLock::new();
    CONTENTS.get_or_init(|| {
        let image = formatted(1, BLOCKS).expect("formats");
        let (image, ()) = on_mount(image, true, fill);
        let problems = check(&image).problems;
        assert!(problems.is_empty(), "{problems:?}");
        let tree = tree(image.clone());
        let sb: &SuperblockBlock = image[&BlockNo(16)].get();
        let layout = Layout::of_superblock(sb).expect("it was mounted");
        let fs_id = FsId(sb.header.fs_id);
        Contents { image, tree, layout, fs_id }
    })
}

pub(crate) fn check(image: &Image) -> Report {
    let exec = Executor::new(2);
    let port = Device::new(BLOCKS, image.clone()).port(&exec);
    let check = async move { fsck::check(port, &mut |_, _, _| {}).await };
    exec.run(NODE, LIMIT, check).expect("ends").expect("there is a file system")
}

pub(crate) const OPTIONS: RepairOptions = RepairOptions {
    preen: false,
    remove_isolated: false,
    now: Timestamp { seconds: 1_000_000, nanos: 0 },
};

/// Repairs what is on a device.
pub(crate) fn repair_device(device: &Device, seed: u64, options: RepairOptions) -> Repaired {
    let exec = Executor::new(seed);
    let port = device.port(&exec);
    let repair = async move { fsck::repair(port, options, &mut |_, _, _| {}).await };
    exec.run(NODE, LIMIT, repair).expect("ends").expect("there is a file system")
}

pub(crate) fn repair(image: &Image) -> (Image, Repaired) {
    let device = Device::new(BLOCKS, image.clone());
    let repaired = repair_device(&device, 3, OPTIONS);
    (device.visible(), repaired)
}

/// A repair after which nothing is left to do.
pub(crate) fn repaired(image: &Image) -> (Image, Repaired) {
    let (image, repaired) = repair(image);
    assert!(repaired.is_clean(), "{:#?}\n{:#?}", repaired.left, repaired.after.problems);
    let (again, second) = repair(&image);
    assert!(
        second.done.is_empty(),
        "the second run still did {:#?}\nthe first {:#?}",
        second.done,
        repaired.done
    );
    assert!(same(&again, &image), "the second run wrote");
    (image, repaired)
}

pub(crate) fn same(a: &Image, b: &Image) -> bool {
    a.keys().chain(b.keys()).all(|at| {
        let of = |image: &Image| image.get(at).map_or([0; BLOCK_SIZE], |block| block.0);
        of(a) == of(b)
    })
}

/// What is found from the root; of what cannot be read, why.
pub(crate) fn tree(image: Image) -> Tree {
    on_mount(image, false, async |fs| {
        let mut tree = Tree::new();
        let mut todo = vec![(String::new(), fs.root())];
        let mut seen = BTreeSet::new();
        while let Some((path, file)) = todo.pop() {
            let what = look(&fs, &path, file, &mut todo, &mut seen).await;
            tree.insert(path, (file, what.map_err(|error| error.to_string())));
        }
        tree
    })
    .1
}

async fn look(
    fs: &Arc<Fs>,
    path: &str,
    file: FileId,
    todo: &mut Vec<(String, FileId)>,
    seen: &mut BTreeSet<FileId>,
) -> Result<What, FsError> {
    let attributes = fs.getattr(file).await?.attributes;
    let mut xattrs = BTreeMap::new();
    for name in fs.list_xattrs(file).await?.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        xattrs.insert(name.to_vec(), fs.get_xattr(file, name).await?);
    }
    Ok(match attributes.file_type {
        FileType::Directory => {
            assert!(seen.insert(file), "a directory with two names: {path}");
            let mut cookie = 0;
            loop {
                let piece = fs.readdir(file, cookie, 64).await?;
                let Some(last) = piece.entries.last() else { break };
                cookie = last.cookie;
                for entry in piece.entries {
                    if entry.name != b"." && entry.name != b".." {
                        let name = String::from_utf8_lossy(&entry.name).into_owned();
                        todo.push((format!("{path}/{name}"), entry.file));
                    }
                }
            }
            What::Directory
        }
        FileType::Regular => {
            let open = fs.open(file, OpenFlags::default()).await?;
            let mut data = Vec::new();
            while (data.len() as u64) < attributes.size && data.len() < 8 << 20 {
                let piece = fs.read(&open, data.len() as u64, 1 << 20, ReadKind::Direct).await?;
                if piece.as_slice().is_empty() {
                    break;
                }
                data.extend_from_slice(piece.as_slice());
            }
            What::File(data, xattrs)
        }
        FileType::SymbolicLink => What::Link(fs.readlink(file).await?),
        FileType::Fifo | FileType::CharDevice | FileType::BlockDevice | FileType::Socket => {
            What::Other
        }
    })
}

impl Contents {
    pub(crate) fn file(&self, path: &str) -> FileId {
        self.tree[path].0
    }

    /// Blocks of a kind that belong to an inode.
    pub(crate) fn of(&self, path: &str, kind: Kind) -> Vec<BlockNo> {
        let file = self.file(path);
        let is_its = |header: &Header| {
            header.owner.get() == file.inode.0 && header.owner_generation.get() == file.generation
        };
        self.of_kind(kind).into_iter().filter(|at| is_its(Header::of(&self.image[at]))).collect()
    }

    /// Whole blocks of a kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<BlockNo> {
        let is_whole = |at: &BlockNo, block: &Block| header::check(block, self.fs_id, *at).is_ok();
        let blocks = self.image.iter().filter(|(at, block)| is_whole(at, block));
        blocks.filter(|(_, b)| Header::of(b).kind() == Some(kind)).map(|(at, _)| *at).collect()
    }
}

/// Changes a block, and makes its checksum right.
pub(crate) fn change(image: &mut Image, at: BlockNo, f: impl FnOnce(&mut Block)) {
    let mut block = image.get(&at).map_or_else(Block::zeroed, |block| block.to_boxed());
    f(&mut block);
    let (slot, incarnation) = {
        let header = Header::of(&block);
        (SlotId(header.slot.get()), Incarnation(header.incarnation.get()))
    };
    header::seal(&mut block, Writer { slot, incarnation });
    image.insert(at, block.into());
}

/// Changes a block, and leaves its checksum.
pub(crate) fn damage(image: &mut Image, at: BlockNo, f: impl FnOnce(&mut Block)) {
    let mut block = image.get(&at).map_or_else(Block::zeroed, |block| block.to_boxed());
    f(&mut block);
    image.insert(at, block.into());
}

pub(crate) fn zero(image: &mut Image, at: BlockNo) {
    image.insert(at, Block::zeroed().into());
}
