//! Ranges of files, files without a name, and flags, on two nodes.

use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::ptr;

use e2e::Fixture;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, IFlags, Mode, OFlags, SeekFrom, copy_file_range, fallocate,
    ioctl_getflags, ioctl_setflags, linkat, openat, seek,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const BLOCK: u64 = 4096;

fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("opened")
}

fn blocks(path: &Path) -> u64 {
    fs::metadata(path).expect("there").blocks() * 512 / BLOCK
}

/// A program that archives takes a file without any for one hole: `tar --sparse` lost them so.
#[test]
fn a_small_file_takes_sectors_on_every_node_and_a_hole_takes_none() {
    let cluster = Fixture::of("ranges-sectors", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    fs::write(here.join("small"), [b'x'; 1000]).expect("written");
    File::create(here.join("hole")).expect("made").set_len(1 << 20).expect("grown");
    File::create(here.join("empty")).expect("made");
    for dir in [&there, &here] {
        let sectors = |name: &str| fs::metadata(dir.join(name)).expect("there").blocks();
        assert_eq!(["small", "hole", "empty"].map(sectors), [2, 0, 0]);
    }
    cluster.finish();
}

/// What is data, as pairs of first byte and the one behind the last.
fn data(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).expect("opened");
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let from = match seek(&file, SeekFrom::Data(at)) {
            Ok(from) => from,
            Err(Errno::NXIO) => return found,
            Err(error) => panic!("data from {at}: {error}"),
        };
        at = seek(&file, SeekFrom::Hole(from)).expect("a hole at the end at least");
        found.push((from, at));
    }
}

#[test]
fn blocks_and_holes_made_on_one_node_are_there_on_the_other() {
    let cluster = Fixture::of("ranges", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node).join("file"));
    fs::write(&here, vec![7_u8; 40 * 4096]).expect("written");
    // Cached there.
    assert!(fs::read(&there).expect("read").iter().all(|byte| *byte == 7));
    assert_eq!(data(&there), [(0, 40 * BLOCK)]);

    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(read_write(&here), punch, 4 * BLOCK + 10, 8 * BLOCK).expect("punched");
    let bytes = fs::read(&there).expect("read");
    let (from, to) = (4 * 4096 + 10, 12 * 4096 + 10);
    assert!(bytes[from..to].iter().all(|byte| *byte == 0), "a hole is zeros");
    assert!(bytes[..from].iter().chain(&bytes[to..]).all(|byte| *byte == 7), "nothing else is");
    assert_eq!(data(&there), [(0, 5 * BLOCK), (12 * BLOCK, 40 * BLOCK)]);
    assert_eq!(blocks(&there), 33);

    let zero = FallocateFlags::ZERO_RANGE;
    fallocate(read_write(&there), zero, 20 * BLOCK, 30 * BLOCK).expect("zeroed");
    let bytes = fs::read(&here).expect("read");
    assert_eq!(bytes.len(), 50 * 4096, "the file has grown");
    assert!(bytes[20 * 4096..].iter().all(|byte| *byte == 0));
    assert_eq!(data(&here), [(0, 5 * BLOCK), (12 * BLOCK, 20 * BLOCK)]);

    let file = read_write(&here);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 60 * BLOCK, 4 * BLOCK).expect("allocated");
    assert_eq!(fs::metadata(&there).expect("there").len(), 50 * BLOCK);
    assert_eq!(blocks(&there), 5 + 8 + 30 + 4);
    fallocate(&file, FallocateFlags::empty(), 50 * BLOCK, 20 * BLOCK).expect("allocated");
    assert_eq!(fs::metadata(&there).expect("there").len(), 70 * BLOCK);
    assert_eq!(fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, BLOCK), Err(Errno::OPNOTSUPP));
    drop(file);
    cluster.finish();
}

#[test]
fn what_a_mapping_has_stored_is_data_for_whoever_asks() {
    let cluster = Fixture::of("ranges-mapped", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node).join("file"));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(&here).expect("made");
    file.set_len(1 << 20).expect("grown");
    file.sync_all().expect("durable");
    assert_eq!(data(&here), []);
    let len = 1 << 20;
    // SAFETY: a new mapping, which nothing else refers to.
    let mapped = unsafe {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        mmap(ptr::null_mut(), len, access, MapFlags::SHARED, &file, 0)
    };
    let mapped: *mut c_void = mapped.expect("mapped");
    for (page, looking) in [(3_u64, &here), (9, &there), (200, &here), (201, &there)] {
        // SAFETY: inside the mapping, which is there until `munmap` below.
        unsafe { mapped.cast::<u8>().add(usize::try_from(page).expect("small") * 4096).write(1) };
        assert!(data(looking).iter().any(|(from, to)| (*from..*to).contains(&(page * BLOCK))));
    }
    // SAFETY: nothing uses it any more.
    unsafe { munmap(mapped, len) }.expect("unmapped");
    let ranges = [(3, 4), (9, 10), (200, 202)].map(|(from, to)| (from * BLOCK, to * BLOCK));
    assert_eq!(data(&there), ranges);
    drop(file);
    cluster.finish();
}

#[test]
fn copies_of_ranges_are_made_where_the_files_are() {
    let cluster = Fixture::of("ranges-copied", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    fs::write(here.join("from"), &bytes).expect("written");
    let from = File::open(there.join("from")).expect("opened");
    let to = File::create(there.join("to")).expect("made");
    let (mut at, mut done) = (1_000, 5);
    while at < 2_900_000 {
        let len = usize::try_from(2_900_000 - at).expect("small");
        let copied = copy_file_range(&from, Some(&mut at), &to, Some(&mut done), len);
        assert!(copied.expect("copied") > 0);
    }
    drop((from, to));
    let copy = fs::read(here.join("to")).expect("read");
    assert_eq!(copy[..5], [0; 5]);
    assert!(copy[5..] == bytes[1_000..2_900_000]);
    let usage = cluster.admin(2).usage().expect("usage");
    let asked = &usage.file_systems[0].requests_by_operation;
    assert!(asked["copy range"] >= 1, "the kernel passes it on: {asked:?}");
    cluster.finish();
}

#[test]
fn a_file_without_a_name_gets_one_or_goes() {
    let cluster = Fixture::of("unnamed", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    let unnamed = |further: OFlags| {
        let flags = OFlags::TMPFILE | OFlags::RDWR | further;
        File::from(openat(CWD, &here, flags, Mode::from_bits_truncate(0o640)).expect("made"))
    };
    let file = unnamed(OFlags::empty());
    assert_eq!(file.metadata().expect("there").nlink(), 0);
    file.write_all_at(b"contents", 0).expect("written");
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let named = |file: &str| linkat(CWD, file, CWD, here.join("named"), AtFlags::SYMLINK_FOLLOW);
    named(&name).expect("named");
    assert_eq!(fs::read(there.join("named")).expect("read"), b"contents");
    assert_eq!(fs::metadata(there.join("named")).expect("there").mode() & 0o7777, 0o640);
    fs::remove_file(there.join("named")).expect("removed");
    file.write_all_at(b"still", 0).expect("open");
    drop(file);

    // The one that is not to be named is not, and its space comes back.
    let file = unnamed(OFlags::EXCL);
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    assert_eq!(named(&name), Err(Errno::NOENT));
    assert!(fs::read_dir(&there).expect("listed").next().is_none());
    file.write_all_at(&vec![1; 1 << 20], 0).expect("written");
    drop(file);
    // fsck finds no orphan.
    cluster.finish();
}

#[test]
fn flags_set_on_one_node_forbid_on_the_other() {
    let cluster = Fixture::of("flags", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node).join("file"));
    fs::write(&here, "one").expect("written");
    let open_there = read_write(&there);
    let file = File::open(&here).expect("opened");
    assert_eq!(ioctl_getflags(&file), Ok(IFlags::empty()));
    ioctl_setflags(&file, IFlags::IMMUTABLE).expect("set");
    let forbidden = |result: std::io::Result<()>| {
        assert_eq!(result.expect_err("immutable").kind(), ErrorKind::PermissionDenied);
    };
    forbidden(open_there.write_all_at(b"x", 0));
    forbidden(OpenOptions::new().write(true).open(&there).map(|_| ()));
    forbidden(fs::remove_file(&there));
    forbidden(fs::rename(&there, cluster.mount(2).join("other")));
    forbidden(fs::hard_link(&there, cluster.mount(2).join("other")));
    let seen = File::open(&there).expect("opened");
    assert_eq!(ioctl_getflags(&seen), Ok(IFlags::IMMUTABLE));

    ioctl_setflags(&seen, IFlags::APPEND).expect("set");
    forbidden(OpenOptions::new().write(true).open(&here).map(|_| ()));
    forbidden(fs::remove_file(&here));
    let append = OpenOptions::new().append(true).open(&here).expect("opened");
    rustix::io::write(&append, b" two").expect("appended");
    drop(append);
    assert_eq!(fs::read(&there).expect("read"), b"one two");

    assert_eq!(ioctl_setflags(&seen, IFlags::NODUMP), Err(Errno::OPNOTSUPP));
    ioctl_setflags(&seen, IFlags::NOATIME).expect("set");
    drop((file, seen, open_there));
    fs::remove_file(&here).expect("removed");
    cluster.finish();
}
