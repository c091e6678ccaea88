//! Extended attributes and ACLs at their limits: beside what shares the inode with them, on a full
//! device, over damaged blocks.

use std::sync::Arc;

use mfs::block::{BLOCK_SIZE, BlockNo};
use mfs::file::FileId;
use mfs::ondisk::inode::InodeBlock;
use mfs::ops::{NewFile, NewKind, OpenFile, OpenFlags, ReadKind, SetAttributes, SetTime, SetXattr};
use mfs::{Fs, FsError, Options, fsck};
use mx_base::Duration;
use sim::disk::{Device, Faults};
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const BLOCKS: u64 = 64 << 8;
const ANY: SetXattr = SetXattr { create: false, replace: false, clear_sgid: false };
const ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

fn new(kind: NewKind<'static>, permissions: u32) -> NewFile<'static> {
    NewFile { kind, permissions, umask: 0o022, uid: 0, gid: 0 }
}

async fn made(fs: &Fs, name: &[u8]) -> (FileId, OpenFile) {
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let new = new(NewKind::Regular, 0o666);
    let made = fs.create_and_open(fs.root(), name, &new, flags).await;
    let (entry, open) = made.expect("there is room");
    (entry.attributes.file, open)
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// A user, and more of them, for whom a mask of `mask` counts.
fn named(users: u32, mask: u16) -> Vec<u8> {
    let users = (0..users).map(|id| (2, 6, id));
    let all: Vec<_> = [(1, 7, u32::MAX)]
        .into_iter()
        .chain(users)
        .chain([(4, 5, u32::MAX), (16, mask, u32::MAX), (32, 0, u32::MAX)])
        .collect();
    acl(&all)
}

async fn permissions(fs: &Fs, file: FileId) -> u32 {
    fs.getattr(file).await.expect("it lives").attributes.permissions
}

async fn blocks(fs: &Fs, file: FileId) -> u64 {
    fs.getattr(file).await.expect("it lives").attributes.blocks
}

/// Runs a test on a fresh file system, leaves it, and has it checked.
fn on_one_node<F: Future<Output = ()> + 'static + Send>(
    test: impl FnOnce(Arc<Fs>, Device) -> F + Send + 'static,
) -> Device {
    let exec = Executor::new(1);
    let device = Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"));
    let (env, seen) = (env(&exec, &device, 1), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let mounted = mfs::mount(env, Options::default(), true, |_| {}).await.expect("mounts");
        test(Arc::clone(&mounted.fs), seen).await;
        mounted.leave().await.expect("leaves");
    });
    ran.expect("nothing stops it");
    exec.kill(NODE);
    device
}

fn problems(device: &Device) -> Vec<String> {
    let exec = Executor::new(2);
    let port = Device::new(BLOCKS, device.visible()).port(&exec);
    let check = async move { fsck::check(port, &mut |_, _, _| {}).await };
    let report = exec.run(NODE, LIMIT, check).expect("ends").expect("can be read");
    report.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn data_in_an_inode_and_attributes_beside_it_keep_out_of_each_others_way() {
    let device = on_one_node(|fs, _| async move {
        for (len, size) in [(1000, 2800), (1000, 2900), (1016, 2824), (200, 3840), (5000, 3840)] {
            let (file, open) = made(&fs, format!("{len}-{size}").as_bytes()).await;
            let (value, data) = (vec![7; len], vec![9; size]);
            fs.write(&open, 0, &data).await.expect("there is room");
            fs.set_xattr(file, b"user.a", &value, ANY).await.expect("there is room");
            fs.fsync(&open).await.expect("durable");
            // Longer than what is left beside the attributes, then longer than any inode.
            for longer in [size, 3840, 4097, 9000] {
                let data = vec![9; longer];
                fs.write(&open, 0, &data).await.expect("there is room");
                fs.fsync(&open).await.expect("durable");
                let read = fs.read(&open, 0, 10_000, ReadKind::Direct).await.expect("readable");
                assert_eq!(read.as_slice(), data);
                assert_eq!(fs.get_xattr(file, b"user.a").await.expect("there"), value);
            }
        }
        let dir = fs.create(fs.root(), b"d", &new(NewKind::Directory, 0o755)).await;
        let dir = dir.expect("there is room").attributes.file;
        for i in 0..200 {
            let name = format!("a rather long name of entry {i}");
            let entry = fs.create(dir, name.as_bytes(), &new(NewKind::Fifo, 0o644)).await;
            drop(entry.expect("there is room"));
            let value = vec![1; i * 31 % 1500];
            fs.set_xattr(dir, b"user.a", &value, ANY).await.expect("there is room");
            let listed = fs.readdir(dir, 0, 1000).await.expect("readable").entries;
            let others = listed.iter().filter(|e| e.name != b"." && e.name != b"..");
            assert_eq!(others.count(), i + 1);
            assert_eq!(fs.get_xattr(dir, b"user.a").await.expect("there"), value);
        }
    });
    assert_eq!(problems(&device), [""; 0]);
}

#[test]
fn a_root_with_many_extents_and_attributes_share_an_inode() {
    let device = on_one_node(|fs, _| async move {
        for before in [false, true] {
            let (file, open) = made(&fs, if before { b"b" } else { b"a" }).await;
            let value = [3; 1000];
            if before {
                fs.set_xattr(file, b"user.a", &value, ANY).await.expect("there is room");
            }
            for i in 0..400_u64 {
                fs.write(&open, i * 8192, &[1; 100]).await.expect("there is room");
                if i % 17 == 0 {
                    fs.fsync(&open).await.expect("durable");
                }
                if !before && i == 140 {
                    fs.set_xattr(file, b"user.a", &value, ANY).await.expect("there is room");
                }
            }
            fs.fsync(&open).await.expect("durable");
            assert_eq!(fs.get_xattr(file, b"user.a").await.expect("there"), value);
        }
    });
    assert_eq!(problems(&device), [""; 0]);
}

#[test]
fn blocks_of_attributes_come_and_go_with_them() {
    let device = on_one_node(|fs, _| async move {
        let used = fs.usage();
        let (file, open) = made(&fs, b"f").await;
        for (len, expected) in [(10, 0), (1000, 0), (1100, 1), (65_536, 17), (9_000, 3), (10, 0)] {
            fs.set_xattr(file, b"user.a", &vec![5; len], ANY).await.expect("there is room");
            assert_eq!(blocks(&fs, file).await, expected, "{len} bytes");
        }
        for name in [&b"user.a"[..], b"trusted.b"] {
            fs.set_xattr(file, name, &[5; 63_000], ANY).await.expect("there is room");
        }
        assert_eq!(blocks(&fs, file).await, 32);
        let more = fs.set_xattr(file, b"user.c", &[5; 4_000], ANY).await;
        assert!(matches!(more, Err(FsError::NoSpace)), "{more:?}");
        assert_eq!(blocks(&fs, file).await, 32);
        fs.remove_xattr(file, b"user.a").await.expect("there");
        assert_eq!(blocks(&fs, file).await, 16);
        assert!(matches!(fs.remove_xattr(file, b"user.a").await, Err(FsError::NoXattr)));
        drop(open);
        fs.unlink(fs.root(), b"f").await.expect("there");
        fs.sync().await.expect("durable");
        assert_eq!(fs.usage(), used, "its blocks went with the file");
    });
    assert_eq!(problems(&device), [""; 0]);
}

#[test]
fn without_room_nothing_changes() {
    let device = on_one_node(|fs, _| async move {
        let mut files = Vec::new();
        for i in 0..60 {
            let (file, _open) = made(&fs, format!("f{i}").as_bytes()).await;
            fs.set_xattr(file, b"user.a", b"before", ANY).await.expect("there is room");
            files.push(file);
        }
        let (_, filler) = made(&fs, b"filler").await;
        let mut at = 0;
        let mut size = 1 << 20;
        while size >= BLOCK_SIZE {
            match fs.write(&filler, at, &vec![1; size]).await {
                Ok(_) => at += size as u64,
                Err(FsError::NoSpace) => size /= 2,
                Err(error) => panic!("{error}"),
            }
        }
        let mut refused = 0;
        for file in files {
            let before = blocks(&fs, file).await;
            match fs.set_xattr(file, b"user.b", &[2; 60_000], ANY).await {
                Ok(()) => continue,
                Err(FsError::NoSpace) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            assert_eq!(blocks(&fs, file).await, before);
            assert_eq!(fs.list_xattrs(file).await.expect("listed"), b"user.a\0");
            assert_eq!(fs.get_xattr(file, b"user.a").await.expect("there"), b"before");
        }
        assert!(refused > 0, "the device was filled");
    });
    assert_eq!(problems(&device), [""; 0]);
}

#[test]
fn a_damaged_block_of_attributes_is_an_error_of_those_only() {
    let device = on_one_node(|fs, _| async move {
        let (file, open) = made(&fs, b"f").await;
        fs.set_xattr(file, b"user.a", &[5; 9_000], ANY).await.expect("there is room");
        fs.write(&open, 0, b"contents").await.expect("there is room");
        fs.fsync(&open).await.expect("durable");
    });
    let exec = Executor::new(3);
    let env = env(&exec, &device, 2);
    let faulty = device.clone();
    let ran = exec.run(NODE, LIMIT, async move {
        let mounted = mfs::mount(env, Options::default(), true, |_| {}).await.expect("mounts");
        let fs = Arc::clone(&mounted.fs);
        let found = fs.named(fs.root(), b"f").await.expect("readable");
        let (file, _) = found.expect("there");
        let image = faulty.visible();
        let own = image.get(&BlockNo(file.inode.0)).expect("written");
        let first = own.get::<InodeBlock>().core.xattr_first.get();
        let unreadable = [BlockNo(first)].into();
        faulty.set_faults(Faults { unreadable, ..Faults::default() });
        assert!(fs.get_xattr(file, b"user.a").await.is_err());
        assert!(fs.list_xattrs(file).await.is_err());
        assert!(fs.set_xattr(file, b"user.b", b"1", ANY).await.is_err());
        assert!(fs.remove_xattr(file, b"user.a").await.is_err());
        let open = fs.open(file, OpenFlags::default()).await.expect("opened");
        let read = fs.read(&open, 0, 100, ReadKind::Direct).await.expect("readable");
        assert_eq!(read.as_slice(), b"contents");
        drop(read);
        let set = SetAttributes { mtime: Some(SetTime::Now), ..SetAttributes::default() };
        drop(fs.setattr(file, &set).await.expect("times are not among them"));
        faulty.set_faults(Faults::default());
        assert_eq!(fs.get_xattr(file, b"user.a").await.expect("readable again"), [5; 9_000]);
        std::mem::forget((mounted, open));
    });
    ran.expect("nothing stops it");
    exec.kill(NODE);
}

#[test]
fn privileges_go_with_writes_cuts_and_changes_of_owner() {
    let device = on_one_node(|fs, _| async move {
        let (file, open) = made(&fs, b"f").await;
        let arm = async |mode| {
            let set = SetAttributes { permissions: Some(mode), ..SetAttributes::default() };
            drop(fs.setattr(file, &set).await.expect("a mode"));
            fs.set_xattr(file, CAPABILITY, b"cap", ANY).await.expect("there is room");
        };
        let has_capability = async || fs.get_xattr(file, CAPABILITY).await.is_ok();
        arm(0o6755).await;
        fs.write(&open, 0, b"x").await.expect("written");
        assert_eq!((permissions(&fs, file).await, has_capability().await), (0o6755, false));
        arm(0o6755).await;
        fs.write_unprivileged(&open, 0, b"x").await.expect("written");
        assert_eq!((permissions(&fs, file).await, has_capability().await), (0o755, false));
        arm(0o6745).await;
        fs.write_unprivileged(&open, 0, b"x").await.expect("written");
        assert_eq!(permissions(&fs, file).await, 0o2745, "mandatory locking is no privilege");
        for set in [
            SetAttributes { size: Some(0), ..SetAttributes::default() },
            SetAttributes { uid: Some(5), ..SetAttributes::default() },
            SetAttributes { gid: Some(5), ..SetAttributes::default() },
        ] {
            arm(0o6755).await;
            drop(fs.setattr(file, &set).await.expect("set"));
            assert_eq!((permissions(&fs, file).await, has_capability().await), (0o6755, false));
            arm(0o6755).await;
            let set = SetAttributes { kill_privileges: true, ..set };
            drop(fs.setattr(file, &set).await.expect("set"));
            assert_eq!((permissions(&fs, file).await, has_capability().await), (0o755, false));
        }
        arm(0o6755).await;
        let flags = OpenFlags {
            write: true,
            truncate: true,
            kill_privileges: true,
            ..OpenFlags::default()
        };
        drop(fs.open(file, flags).await.expect("opened"));
        assert_eq!((permissions(&fs, file).await, has_capability().await), (0o755, false));
        arm(0o6755).await;
        let set = SetAttributes { kill_privileges: true, ..SetAttributes::default() };
        drop(fs.setattr(file, &set).await.expect("nothing else"));
        assert_eq!((permissions(&fs, file).await, has_capability().await), (0o755, false));
    });
    assert_eq!(problems(&device), [""; 0]);
}

#[test]
fn an_acl_and_the_mode_say_the_same() {
    let device = on_one_node(|fs, _| async move {
        let (file, _open) = made(&fs, b"f").await;
        assert_eq!(permissions(&fs, file).await, 0o644, "the umask counts");
        fs.set_xattr(file, ACL, &named(1, 6), ANY).await.expect("valid");
        assert_eq!(permissions(&fs, file).await, 0o760);
        let set = SetAttributes { permissions: Some(0o2714), ..SetAttributes::default() };
        drop(fs.setattr(file, &set).await.expect("a mode"));
        let expected = acl(&[
            (1, 7, u32::MAX),
            (2, 6, 0),
            (4, 5, u32::MAX),
            (16, 1, u32::MAX),
            (32, 4, u32::MAX),
        ]);
        assert_eq!(fs.get_xattr(file, ACL).await.expect("there"), expected);
        fs.set_xattr(file, ACL, &named(1, 6), ANY).await.expect("valid");
        assert_eq!(permissions(&fs, file).await, 0o2760);
        let clear = SetXattr { clear_sgid: true, ..ANY };
        fs.set_xattr(file, ACL, &named(2, 4), clear).await.expect("valid");
        assert_eq!(permissions(&fs, file).await, 0o740);
        fs.remove_xattr(file, ACL).await.expect("there");
        fs.remove_xattr(file, ACL).await.expect("none is as well");
        assert_eq!(permissions(&fs, file).await, 0o740);
        let minimal = acl(&[(1, 6, u32::MAX), (4, 4, u32::MAX), (32, 0, u32::MAX)]);
        fs.set_xattr(file, ACL, &minimal, ANY).await.expect("valid");
        assert_eq!(permissions(&fs, file).await, 0o640);
        assert!(matches!(fs.get_xattr(file, ACL).await, Err(FsError::NoXattr)));
        let refused = fs.set_xattr(file, DEFAULT, &minimal, ANY).await;
        assert!(matches!(refused, Err(FsError::Refused(_))));
        let large = fs.set_xattr(file, ACL, &named(600, 7), ANY).await;
        assert!(matches!(large, Err(FsError::XattrTooLarge)));
    });
    assert_eq!(problems(&device), [""; 0]);
}

#[test]
fn what_is_made_in_a_directory_inherits_lists_of_any_length() {
    let device = on_one_node(|fs, _| async move {
        for users in [1, 60, 140, 500] {
            let name = format!("d{users}");
            let dir = fs.create(fs.root(), name.as_bytes(), &new(NewKind::Directory, 0o777)).await;
            let dir = dir.expect("there is room").attributes.file;
            assert_eq!(permissions(&fs, dir).await, 0o755);
            fs.set_xattr(dir, DEFAULT, &named(users, 7), ANY).await.expect("valid");
            let make = async |name: &[u8], kind| {
                let made = fs.create(dir, name, &new(kind, 0o666)).await.expect("there is room");
                made.attributes.file
            };
            let file = make(b"f", NewKind::Regular).await;
            assert_eq!(permissions(&fs, file).await, 0o660, "the umask does not count");
            let mut expected = named(users, 6);
            expected[6] = 6;
            assert_eq!(fs.get_xattr(file, ACL).await.expect("inherited"), expected);
            assert_eq!(fs.list_xattrs(file).await.expect("listed"), [ACL, b"\0"].concat());
            let sub = make(b"s", NewKind::Directory).await;
            assert_eq!(fs.get_xattr(sub, DEFAULT).await.expect("inherited"), named(users, 7));
            assert_eq!(fs.get_xattr(sub, ACL).await.expect("inherited"), expected);
            let link = make(b"l", NewKind::SymbolicLink(b"f")).await;
            assert_eq!(fs.list_xattrs(link).await.expect("listed"), b"");
            let below = fs.create(sub, b"below", &new(NewKind::Fifo, 0o600)).await;
            let below = below.expect("there is room").attributes.file;
            assert_eq!(permissions(&fs, below).await, 0o600);
            fs.unlink(dir, b"f").await.expect("there");
            fs.unlink(sub, b"below").await.expect("there");
            fs.rmdir(dir, b"s").await.expect("empty");
        }
    });
    assert_eq!(problems(&device), [""; 0]);
}
