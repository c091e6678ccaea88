//! Images that somebody has made to attack whoever mounts them: nothing panics and nothing goes on for
//! ever, whatever is done on them; each operation is answered, if only by an error.

use std::sync::Arc;

use mfs::block::BLOCK_SIZE;
use mfs::file::{FileId, FileType};
use mfs::fsck::online::Cursor;
use mfs::ondisk::header::Kind;
use mfs::ops::{Allocate, NewFile, NewKind, OpenFlags, ReadKind, RenameKind, SetXattr};
use mfs::{Fs, Options};
use model::Random;
use mx_base::Duration;
use sim::disk::{Device, Image};
use sim::exec::Executor;
use sim::single::env;

use super::contents::{BLOCKS, LIMIT, NODE, change, contents};
use super::random::{Shown, damage_some, seeds};

const WRITE: OpenFlags =
    OpenFlags { write: true, append: false, sync: false, truncate: false, kill_privileges: false };
const ANY: SetXattr = SetXattr { create: false, replace: false, clear_sgid: false };
/// Directories may lead in circles.
const LOOKED_AT_MAX: usize = 1500;

fn new(kind: NewKind<'_>) -> NewFile<'_> {
    NewFile { kind, permissions: 0o644, umask: 0, uid: 7, gid: 8 }
}

/// Looks at everything that can be reached; returns some of it.
async fn look(fs: &Arc<Fs>) -> Vec<(FileId, Vec<u8>, FileId, FileType)> {
    let mut todo = vec![fs.root()];
    let mut seen = Vec::new();
    while let Some(dir) = todo.pop() {
        let mut cookie = 0;
        while let Ok(piece) = fs.readdir(dir, cookie, 64).await {
            let Some(last) = piece.entries.last() else { break };
            assert!(last.cookie > cookie, "a listing goes on");
            cookie = last.cookie;
            for entry in piece.entries {
                let _ = fs.lookup(dir, &entry.name).await;
                if entry.name != b"." && entry.name != b".." && seen.len() < LOOKED_AT_MAX {
                    if entry.file_type == FileType::Directory {
                        todo.push(entry.file);
                    }
                    seen.push((dir, entry.name, entry.file, entry.file_type));
                }
            }
            if seen.len() >= LOOKED_AT_MAX {
                return seen;
            }
        }
    }
    seen
}

async fn work(fs: &Arc<Fs>, random: &mut Random) {
    let all = look(fs).await;
    for (dir, name, file, file_type) in &all {
        let _ = fs.getattr(*file).await;
        let _ = fs.list_xattrs(*file).await;
        let _ = fs.get_xattr(*file, b"user.1").await;
        let _ = fs.readlink(*file).await;
        if let Ok(open) = fs.open(*file, OpenFlags::default()).await {
            let _ = fs.read(&open, 0, 1 << 20, ReadKind::Direct).await;
            let far = random.next_u64() >> random.below(64);
            let _ = fs.read(&open, far, 8192, ReadKind::Direct).await;
        }
        if random.chance(70) {
            continue;
        }
        let at = usize::try_from(random.below(all.len() as u64)).expect("small");
        let other = &all[at];
        match random.below(8) {
            0 => drop(fs.unlink(*dir, name).await),
            1 => drop(fs.rmdir(*dir, name).await),
            2 => drop(fs.set_xattr(*file, b"user.new", &[4; 3000], ANY).await),
            3 => drop(fs.create(*dir, b"made", &new(NewKind::Directory)).await),
            4 => drop(fs.link(*file, other.0, b"linked").await),
            5 => {
                let to = (other.0, &other.1[..]);
                drop(fs.rename((*dir, name), to, RenameKind::Replace).await);
            }
            _ if *file_type == FileType::Regular => {
                if let Ok(open) = fs.open(*file, WRITE).await {
                    let at = random.below(1 << 22);
                    let _ = fs.write(&open, at, &[3; 10_000]).await;
                    let what = Allocate::Blocks { keep_size: true };
                    let _ = fs.allocate(&open, what, 0, 100_000).await;
                    let _ = fs.fsync(&open).await;
                }
            }
            _ => {}
        }
    }
    let mut next = Some(Cursor::default());
    while let Some(from) = next {
        next = fs.check_online(from, true).await.ok().and_then(|piece| piece.next);
    }
}

fn attack(image: Image, seed: u64) {
    let exec = Executor::new(seed);
    let device = Device::new(BLOCKS, image);
    let env = env(&exec, &device, 2);
    let within = exec.clone();
    let done = exec.run(NODE, LIMIT, async move {
        let Ok(mounted) = mfs::mount(env, Options::default(), true, |_| {}).await else { return };
        work(&mounted.fs, &mut Random::new(seed)).await;
        within.sleep(Duration::from_secs(20)).await;
        let _ = mounted.leave().await;
    });
    done.expect("nothing waits for ever");
    exec.kill(NODE);
}

/// Changes what blocks say, with checksums that are right: numbers that lead elsewhere, and any others.
fn forge(image: &mut Image, random: &mut Random) {
    let kinds = [
        (Kind::Inode, 12),
        (Kind::ExtentNode, 4),
        (Kind::DirBucket, 4),
        (Kind::DirIndex, 1),
        (Kind::Xattr, 2),
        (Kind::Bitmap, 2),
        (Kind::ChunkTable, 4),
        (Kind::GroupHeader, 2),
        (Kind::GroupMap, 1),
        (Kind::SlotBody, 2),
        (Kind::SlotHead, 1),
        (Kind::Free, 2),
        (Kind::JournalHeader, 1),
        (Kind::Superblock, 1),
    ];
    for _ in 0..=random.below(12) {
        let places = contents().of_kind(random.weighted(&kinds));
        if places.is_empty() {
            continue;
        }
        let at = random.pick(&places);
        let words: Vec<(usize, Vec<u8>)> = (0..=random.below(3))
            .map(|_| {
                // Behind the header; the places that mean something are in front.
                let end = random.pick(&[128, 256, 512, BLOCK_SIZE as u64]);
                let place = usize::try_from(64 + random.below(end - 64)).expect("small");
                let bytes = match random.below(3) {
                    0 => random.below(BLOCKS).to_le_bytes().to_vec(),
                    1 => random.next_u64().to_le_bytes()[..4].to_vec(),
                    _ => vec![random.pick(&[0, 1, 2, 3, 0x10, 0x80, 0xff])],
                };
                // Numbers lie where their size divides the place.
                (place / bytes.len() * bytes.len(), bytes)
            })
            .collect();
        change(image, at, |block| {
            for (place, bytes) in &words {
                block.0[*place..place + bytes.len()].copy_from_slice(bytes);
            }
        });
    }
}

#[test]
fn whoever_mounts_an_image_that_is_forged_is_answered() {
    for seed in seeds(100) {
        let _shown = Shown(seed);
        let mut image = contents().image.clone();
        forge(&mut image, &mut Random::new(seed));
        attack(image, seed);
    }
}

#[test]
fn whoever_mounts_an_image_that_is_damaged_anyhow_is_answered() {
    for seed in seeds(60) {
        let _shown = Shown(seed);
        let mut image = contents().image.clone();
        let mut random = Random::new(seed);
        for _ in 0..=random.below(4) {
            damage_some(contents(), &mut image, &mut random);
        }
        attack(image, seed);
    }
}
