//! No directory is ever moved into itself, whoever changes the names on the way meanwhile.

use std::sync::Arc;

use mfs::file::FileId;
use mfs::ops::{NewFile, NewKind, RenameKind};
use mfs::{Fs, FsError, Options};
use mx_base::Duration;
use sim::disk::{Device, Image};
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const BLOCKS: u64 = 64 << 8;

async fn mounted(exec: &Executor, device: &Device, incarnation: u32) -> mfs::Mounted {
    let env = env(exec, device, incarnation);
    mfs::mount(env, Options::default(), true, |_| {}).await.expect("mounts")
}

async fn made(fs: &Fs, dir: FileId, name: &[u8]) -> FileId {
    let kind = NewKind::Directory;
    let new = NewFile { kind, permissions: 0o755, umask: 0, uid: 0, gid: 0 };
    fs.create(dir, name, &new).await.expect("there is room").attributes.file
}

/// `/a` and `/b/c`; the device, and a, b, c.
fn tree() -> (Image, [FileId; 3]) {
    let exec = Executor::new(1);
    let device = Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"));
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let mounted = mounted(&inside, &on, 1).await;
        let fs = Arc::clone(&mounted.fs);
        let a = made(&fs, fs.root(), b"a").await;
        let b = made(&fs, fs.root(), b"b").await;
        let c = made(&fs, b, b"c").await;
        mounted.leave().await.expect("leaves");
        [a, b, c]
    });
    let files = ran.expect("nothing stops it");
    (device.visible(), files)
}

/// One moves `/a` to `/b/c/a`; the other one makes `/a` the name of the directory that holds `c`.
/// Returns whether the move was made.
fn moved_while_names_are_exchanged(seed: u64, image: &Image, files: [FileId; 3]) -> bool {
    let exec = Executor::new(seed);
    let device = Device::new(BLOCKS, image.clone());
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let mounted = mounted(&inside, &on, 2).await;
        let fs = Arc::clone(&mounted.fs);
        let [_, _, c] = files;
        let (changing, delay) = (Arc::clone(&fs), inside.draw(|random| random.below(2000)));
        let (changed, wait) = futures_channel::oneshot::channel();
        let time = inside.clone();
        inside.spawn(NODE, async move {
            time.sleep(Duration::from_micros(delay)).await;
            let root = changing.root();
            let (a, b) = ((root, &b"a"[..]), (root, &b"b"[..]));
            let _ = changed.send(changing.rename(a, b, RenameKind::Exchange).await);
        });
        let root = fs.root();
        let moved = fs.rename((root, b"a"), (c, b"a"), RenameKind::Replace).await;
        let _ = wait.await;
        let mut at = c;
        for _ in 0..10 {
            if at == root {
                break;
            }
            at = fs.parent(at).await.expect("it has a parent");
        }
        assert_eq!(at, root, "seed {seed}: the way up from c ends at the root");
        mounted.leave().await.expect("leaves");
        match moved {
            Ok(()) => true,
            Err(FsError::Invalid(_)) => false,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    });
    ran.expect("goes on")
}

#[test]
fn a_directory_is_not_moved_into_itself_when_its_name_changes_hands_meanwhile() {
    let (image, files) = tree();
    let moves = (0..400).filter(|seed| moved_while_names_are_exchanged(*seed, &image, files));
    let moves = moves.count();
    assert!((1..400).contains(&moves), "both orders were seen: {moves}");
}
