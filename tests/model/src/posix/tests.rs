//! The corner cases of POSIX and Linux that the tree is trusted for.

use mx_base::Timestamp;

use super::*;

const NOW: Timestamp = Timestamp { seconds: 1_000, nanos: 0 };
const LATER: Timestamp = Timestamp { seconds: 2_000, nanos: 0 };
const ROOT: Ino = Ino::ROOT;

#[test]
fn a_directory_cannot_move_into_itself_or_below() {
    let mut t = tree(&["a/", "a/b/", "a/b/c/"]);
    assert_eq!(mv(&mut t, "a", "a/x"), Err(Errno::Invalid));
    assert_eq!(mv(&mut t, "a", "a/b/c/x"), Err(Errno::Invalid));
    assert_eq!(mv(&mut t, "a", "a/b/c"), Err(Errno::Invalid));
    assert_eq!(exchange(&mut t, "a", "a/b/c"), Err(Errno::Invalid));
}

#[test]
fn nothing_replaces_a_directory_above_it() {
    let mut t = tree(&["a/", "a/b/", "a/b/f"]);
    assert_eq!(mv(&mut t, "a/b/f", "a"), Err(Errno::NotEmpty));
    assert_eq!(mv(&mut t, "a/b", "a"), Err(Errno::NotEmpty));
    assert_eq!(exchange(&mut t, "a/b/f", "a"), Err(Errno::Invalid));
    assert_eq!(noreplace(&mut t, "a/b/f", "a"), Err(Errno::Exists));
}

#[test]
fn rename_over_a_directory_needs_a_directory_and_an_empty_one() {
    let mut t = tree(&["full/", "full/f", "empty/", "dir/", "file"]);
    assert_eq!(mv(&mut t, "dir", "full"), Err(Errno::NotEmpty));
    assert_eq!(mv(&mut t, "file", "empty"), Err(Errno::IsDirectory));
    assert_eq!(mv(&mut t, "dir", "file"), Err(Errno::NotDirectory));
    let dir = at(&t, "dir");
    assert_eq!(mv(&mut t, "dir", "empty"), Ok(()));
    assert_eq!(at(&t, "empty"), dir);
    assert_eq!(nlink(&t, ""), 4);
}

#[test]
fn renaming_one_name_of_a_file_over_another_does_nothing() {
    let mut t = tree(&["f"]);
    t.link(at(&t, "f"), ROOT, b"g", NOW).expect("a free name");
    let before = t.getattr(at(&t, "f"));
    assert_eq!(t.rename((ROOT, b"f"), (ROOT, b"g"), Rename::Replace, LATER), Ok(()));
    assert_eq!(exchange(&mut t, "f", "g"), Ok(()));
    assert_eq!(t.getattr(at(&t, "f")), before);
    assert_eq!(at(&t, "f"), at(&t, "g"));
    assert_eq!(mv(&mut t, "f", "f"), Ok(()));
}

#[test]
fn exchange_swaps_a_directory_and_a_file_and_the_links_of_their_parents() {
    let mut t = tree(&["a/", "a/dir/", "b/", "b/file"]);
    let (dir, file) = (at(&t, "a/dir"), at(&t, "b/file"));
    assert_eq!(exchange(&mut t, "a/dir", "b/file"), Ok(()));
    assert_eq!((at(&t, "b/file"), at(&t, "a/dir")), (dir, file));
    assert_eq!((nlink(&t, "a"), nlink(&t, "b")), (2, 3));
    assert_eq!(exchange(&mut t, "a/dir", "b/missing"), Err(Errno::NoEntry));
    assert_eq!(t.lookup(dir, b".."), Ok(at(&t, "b")));
}

#[test]
fn dot_and_dot_dot_as_the_last_component_have_their_own_errors() {
    let mut t = tree(&["d/", "f"]);
    let d = at(&t, "d");
    let caller = Caller::default();
    for dots in [&b"."[..], b".."] {
        assert_eq!(t.unlink(d, dots, NOW), Err(Errno::IsDirectory));
        assert_eq!(t.mkdir(d, dots, 0o755, caller, NOW), Err(Errno::Exists));
        assert_eq!(t.mknod(d, dots, None, 0o644, caller, NOW), Err(Errno::Exists));
        assert_eq!(t.symlink(d, dots, b"x", caller, NOW), Err(Errno::Exists));
        assert_eq!(t.link(at(&t, "f"), d, dots, NOW), Err(Errno::Exists));
        let create = |t: &mut Tree, existing| t.create(d, dots, 0o644, existing, caller, NOW);
        assert_eq!(create(&mut t, Existing::Open), Err(Errno::IsDirectory));
        assert_eq!(create(&mut t, Existing::Refuse), Err(Errno::Exists));
        let rename = |t: &mut Tree, from, to, how| t.rename((d, from), (d, to), how, NOW);
        assert_eq!(rename(&mut t, dots, b"x", Rename::Replace), Err(Errno::Busy));
        assert_eq!(rename(&mut t, b"x", dots, Rename::Replace), Err(Errno::Busy));
        assert_eq!(rename(&mut t, b"x", dots, Rename::NoReplace), Err(Errno::Exists));
    }
    assert_eq!(t.rmdir(d, b".", NOW), Err(Errno::Invalid));
    assert_eq!(t.rmdir(d, b"..", NOW), Err(Errno::NotEmpty));
    assert_eq!(t.lookup(d, b"."), Ok(d));
    assert_eq!(t.lookup(ROOT, b".."), Ok(ROOT));
}

#[test]
fn names_may_end_in_dots_and_be_any_255_bytes() {
    let mut t = tree(&[]);
    let caller = Caller::default();
    for name in [b"...".to_vec(), b"a.".to_vec(), b" ".to_vec(), vec![0xff; 255]] {
        t.mkdir(ROOT, &name, 0o755, caller, NOW).expect("an ordinary name");
    }
    let long = [b'x'; 256];
    assert_eq!(t.lookup(ROOT, &long), Err(Errno::NameTooLong));
    assert_eq!(t.mkdir(ROOT, &long, 0o755, caller, NOW), Err(Errno::NameTooLong));
    assert_eq!(t.unlink(ROOT, &long, NOW), Err(Errno::NameTooLong));
    assert_eq!(
        t.rename((ROOT, b"a."), (ROOT, &long), Rename::Replace, NOW),
        Err(Errno::NameTooLong)
    );
    assert_eq!(t.symlink(ROOT, b"s", &[b'x'; 4096], caller, NOW), Err(Errno::NameTooLong));
    assert_eq!(t.symlink(ROOT, b"s", b"", caller, NOW), Err(Errno::NoEntry));
}

#[test]
fn a_link_to_a_directory_is_not_permitted_but_an_existing_name_is_told_first() {
    let mut t = tree(&["d/", "f"]);
    assert_eq!(t.link(at(&t, "d"), ROOT, b"e", NOW), Err(Errno::NotPermitted));
    assert_eq!(t.link(at(&t, "d"), ROOT, b"f", NOW), Err(Errno::Exists));
}

#[test]
fn unlink_is_not_for_directories_and_rmdir_for_nothing_else() {
    let mut t = tree(&["d/", "d/f", "f"]);
    assert_eq!(t.unlink(ROOT, b"d", NOW), Err(Errno::IsDirectory));
    assert_eq!(t.rmdir(ROOT, b"f", NOW), Err(Errno::NotDirectory));
    assert_eq!(t.rmdir(ROOT, b"d", NOW), Err(Errno::NotEmpty));
    assert_eq!(t.rmdir(ROOT, b"x", NOW), Err(Errno::NoEntry));
    assert_eq!(t.unlink(at(&t, "f"), b"x", NOW), Err(Errno::NotDirectory));
}

#[test]
fn a_directory_has_two_links_and_one_for_each_directory_in_it() {
    let mut t = tree(&["a/", "a/b/", "a/c/", "a/f"]);
    assert_eq!((nlink(&t, ""), nlink(&t, "a"), nlink(&t, "a/b")), (3, 4, 2));
    t.rmdir(at(&t, "a"), b"b", NOW).expect("empty");
    assert_eq!(nlink(&t, "a"), 3);
    mv(&mut t, "a/c", "c").expect("a free name");
    assert_eq!((nlink(&t, ""), nlink(&t, "a")), (4, 2));
}

#[test]
fn an_unlinked_file_lives_until_its_last_handle_closes() {
    let mut t = tree(&["f"]);
    let f = at(&t, "f");
    let (first, second) = (t.open(f).expect("a file"), t.open(f).expect("a file"));
    t.write(f, 0, b"still here", NOW).expect("a file");
    t.unlink(ROOT, b"f", NOW).expect("a file");
    assert_eq!(t.lookup(ROOT, b"f"), Err(Errno::NoEntry));
    assert_eq!(t.getattr(f).map(|a| a.nlink), Ok(0));
    assert_eq!(t.link(f, ROOT, b"g", NOW), Err(Errno::NoEntry));
    t.release(first).expect("open");
    assert_eq!(t.read(f, 6, 4).as_deref(), Ok(&b"here"[..]));
    assert_eq!(t.statfs().orphans, 1);
    t.release(second).expect("open");
    assert_eq!(t.read(f, 0, 1), Err(Errno::Stale));
    assert_eq!(t.release(second), Err(Errno::Stale));
    assert_eq!(t.statfs(), Counts { objects: 1, orphans: 0, pages: 0 });
}

#[test]
fn nothing_can_be_put_into_a_removed_directory_that_is_still_open() {
    let mut t = tree(&["d/", "f"]);
    let d = at(&t, "d");
    let handle = t.open(d).expect("a directory");
    t.rmdir(ROOT, b"d", NOW).expect("empty");
    let caller = Caller::default();
    assert_eq!(t.getattr(d).map(|a| a.nlink), Ok(0));
    assert_eq!(t.mkdir(d, b"x", 0o755, caller, NOW), Err(Errno::NoEntry));
    assert_eq!(t.create(d, b"x", 0o644, Existing::Open, caller, NOW), Err(Errno::NoEntry));
    assert_eq!(t.rename((ROOT, b"f"), (d, b"f"), Rename::Replace, NOW), Err(Errno::NoEntry));
    assert_eq!(t.readdir(d), Err(Errno::NoEntry));
    t.release(handle).expect("open");
    assert_eq!(t.getattr(d), Err(Errno::Stale));
}

#[test]
fn a_file_replaced_by_rename_lives_while_it_is_open() {
    let mut t = tree(&["old", "new"]);
    let old = at(&t, "old");
    t.write(old, 0, b"old", NOW).expect("a file");
    let handle = t.open(old).expect("a file");
    mv(&mut t, "new", "old").expect("both are files");
    assert_eq!(t.read(old, 0, 9).as_deref(), Ok(&b"old"[..]));
    t.release(handle).expect("open");
    assert!(!t.exists(old));
}

#[test]
fn truncating_to_a_larger_size_shows_zeros() {
    let mut t = tree(&["f"]);
    let f = at(&t, "f");
    t.write(f, 0, b"abcdef", NOW).expect("a file");
    t.truncate(f, 2, NOW).expect("a file");
    t.truncate(f, 8, NOW).expect("a file");
    assert_eq!(t.read(f, 0, 100).as_deref(), Ok(&b"ab\0\0\0\0\0\0"[..]));
    assert_eq!(t.append(f, b"!", NOW), Ok(1));
    assert_eq!(t.getattr(f).map(|a| a.size), Ok(9));
}

/// `file_modified` and `setattr_prepare` of the kernel; fs/ext4/extents.c, `ext4_fallocate`.
#[test]
fn every_change_of_the_contents_takes_the_capability() {
    type Edit = fn(&mut Tree, Ino) -> Result<(), Errno>;
    let edits: [Edit; 5] = [
        |t, f| t.write(f, 0, b"x", LATER).map(|_| ()),
        |t, f| t.truncate(f, 3, LATER),
        |t, f| t.allocate(f, Allocate::Blocks { keep_size: true }, 0, 9, LATER),
        |t, f| t.allocate(f, Allocate::Zeros { keep_size: false }, 0, 9, LATER),
        |t, f| t.allocate(f, Allocate::Hole, 0, 9, LATER),
    ];
    for edit in edits {
        let mut t = tree(&["f"]);
        let f = at(&t, "f");
        let name = b"security.capability";
        t.set_xattr(f, name, b"set", Presence::Any, NOW).expect("a file");
        assert_eq!(edit(&mut t, f), Ok(()));
        assert_eq!(t.get_xattr(f, name), Err(Errno::NoData));
    }
}

#[test]
fn the_largest_size_cuts_a_write_short_and_then_refuses() {
    let mut t = tree(&["f", "d/"]);
    let f = at(&t, "f");
    assert_eq!(t.write(f, FILE_SIZE_MAX - 2, b"abcd", NOW), Ok(2));
    assert_eq!(t.write(f, FILE_SIZE_MAX, b"x", NOW), Err(Errno::FileTooBig));
    assert_eq!(t.append(f, b"x", NOW), Err(Errno::FileTooBig));
    assert_eq!(t.truncate(f, FILE_SIZE_MAX + 1, NOW), Err(Errno::FileTooBig));
    assert_eq!(t.truncate(at(&t, "d"), 0, NOW), Err(Errno::IsDirectory));
    assert_eq!(t.write(at(&t, "d"), 0, b"x", NOW), Err(Errno::IsDirectory));
}

#[test]
fn opening_with_creation_tells_what_stands_in_the_way() {
    let mut t = tree(&["d/", "f"]);
    let caller = Caller::default();
    t.symlink(ROOT, b"s", b"f", caller, NOW).expect("a free name");
    t.mknod(ROOT, b"p", Some(Special::Fifo), 0o644, caller, NOW).expect("a free name");
    let mut create = |name: &[u8], existing| t.create(ROOT, name, 0o644, existing, caller, NOW);
    for name in [b"d", b"f", b"s", b"p"] {
        assert_eq!(create(name, Existing::Refuse), Err(Errno::Exists));
    }
    assert_eq!(create(b"d", Existing::Open), Err(Errno::IsDirectory));
    assert_eq!(create(b"s", Existing::Open), Err(Errno::Loop));
    assert_eq!(create(b"p", Existing::Truncate), Err(Errno::NoDevice));
    assert!(create(b"f", Existing::Open).is_ok());
}

#[test]
fn truncation_by_creation_empties_the_file() {
    let mut t = tree(&["f"]);
    let f = at(&t, "f");
    t.write(f, 0, b"abc", NOW).expect("a file");
    let (found, _) =
        t.create(ROOT, b"f", 0o600, Existing::Truncate, Caller::default(), LATER).expect("a file");
    assert_eq!(found, f);
    let attributes = t.getattr(f).expect("it lives");
    assert_eq!((attributes.size, attributes.mode, attributes.mtime), (0, 0o644, LATER));
}

#[test]
fn what_is_made_in_a_set_group_id_directory_belongs_to_its_group() {
    let mut t = tree(&["d/"]);
    let d = at(&t, "d");
    let change = Change { mode: Some(0o2775), gid: Some(50), ..Change::default() };
    t.setattr(d, &change, NOW).expect("it lives");
    let caller = Caller { uid: 7, gid: 8, umask: 0 };
    let sub = t.mkdir(d, b"sub", 0o755, caller, NOW).expect("a free name");
    let file = t.mknod(d, b"f", None, 0o644, caller, NOW).expect("a free name");
    let of = |ino| t.getattr(ino).map(|a| (a.mode, a.uid, a.gid));
    assert_eq!(of(sub), Ok((0o2755, 7, 50)));
    assert_eq!(of(file), Ok((0o644, 7, 50)));
}

#[test]
fn change_times_grow_even_when_the_clock_goes_back() {
    let mut t = tree(&["a/", "a/f", "b/"]);
    let before = t.getattr(ROOT).expect("the root lives");
    let (a, b, f) = (at(&t, "a"), at(&t, "b"), at(&t, "a/f"));
    t.rename((a, b"f"), (b, b"g"), Rename::Replace, LATER).expect("a free name");
    assert_eq!(t.getattr(ROOT).map(|r| r.mtime), Ok(before.mtime));
    for ino in [a, b] {
        assert_eq!(t.getattr(ino).map(|d| (d.mtime, d.ctime)), Ok((LATER, LATER)));
    }
    t.rename((b, b"g"), (a, b"f"), Rename::Replace, NOW).expect("a free name");
    let next = LATER.successor();
    for ino in [a, b] {
        assert_eq!(t.getattr(ino).map(|d| (d.mtime, d.ctime)), Ok((next, next)));
    }
    assert_eq!(t.getattr(f).map(|f| (f.mtime, f.ctime)), Ok((NOW, next)));
}

#[test]
fn a_set_time_may_be_any_and_the_change_time_still_grows() {
    let mut t = tree(&["f"]);
    let f = at(&t, "f");
    let past = Timestamp { seconds: -5, nanos: 3 };
    let change = Change { mtime: Some(TimeChange::At(past)), ..Change::default() };
    let attributes = t.setattr(f, &change, LATER).expect("it lives");
    assert_eq!((attributes.mtime, attributes.ctime), (past, LATER));
    let both = Change { size: Some(0), mtime: Some(TimeChange::Now), ..Change::default() };
    let attributes = t.setattr(f, &both, NOW).expect("a file");
    assert_eq!((attributes.mtime, attributes.ctime), (NOW, LATER.successor()));
    assert_eq!(t.setattr(f, &Change::default(), NOW), Ok(attributes));
}

#[test]
fn the_first_difference_is_told_by_path_in_words() {
    let base = tree(&["a/", "a/f", "b"]);
    let against = |t: &Tree| {
        let compare = Compare::WithoutTimes;
        diff(&base.snapshot(), &t.snapshot(), compare).map(|d| d.to_string())
    };
    assert_eq!(against(&base.clone()), None);

    let mut t = base.clone();
    t.unlink(ROOT, b"b", NOW).expect("a file");
    assert_eq!(against(&t).as_deref(), Some("/b: a file is missing"));

    let mut t = base.clone();
    t.write(at(&t, "a/f"), 3, b"x", NOW).expect("a file");
    assert_eq!(against(&t).as_deref(), Some("/a/f: size 4, expected 0"));

    let mut t = base.clone();
    t.unlink(ROOT, b"b", NOW).expect("a file");
    t.link(at(&t, "a/f"), ROOT, b"b", NOW).expect("a free name");
    assert_eq!(against(&t).as_deref(), Some("/a/f: link count 2, expected 1"));

    let mut t = base.clone();
    t.setattr(at(&t, "a"), &Change { mode: Some(0o700), ..Change::default() }, NOW)
        .expect("it lives");
    assert_eq!(against(&t).as_deref(), Some("/a: mode 0700, expected 0755"));
}

#[test]
fn two_files_with_equal_bytes_are_not_one_file_with_two_names() {
    let mut one = tree(&["f", "g/", "h/"]);
    one.link(at(&one, "f"), at(&one, "g"), b"f", NOW).expect("a free name");
    one.mknod(ROOT, b"x", None, 0o644, Caller::default(), NOW).expect("a free name");
    one.link(at(&one, "x"), at(&one, "h"), b"x", NOW).expect("a free name");
    let mut two = tree(&["f", "g/", "h/"]);
    two.mknod(ROOT, b"x", None, 0o644, Caller::default(), NOW).expect("a free name");
    two.link(at(&two, "x"), at(&two, "g"), b"f", NOW).expect("a free name");
    two.link(at(&two, "f"), at(&two, "h"), b"x", NOW).expect("a free name");
    let found = diff(&one.snapshot(), &two.snapshot(), Compare::WithoutTimes);
    assert_eq!(
        found.map(|d| d.to_string()).as_deref(),
        Some("/g/f: should be the same object as /f")
    );
}

#[test]
fn errno_numbers_are_those_of_linux_and_come_back() {
    for errno in Errno::ALL {
        assert_eq!(Errno::from_number(errno.number()), Some(*errno));
    }
    assert_eq!(Errno::NotEmpty.number(), 39);
    assert_eq!(Errno::from_number(9999), None);
}

#[test]
fn a_clone_is_a_version_of_its_own() {
    let mut t = tree(&["f"]);
    let f = at(&t, "f");
    t.write(f, 0, b"one", NOW).expect("a file");
    let version = t.clone();
    t.write(f, 0, b"two", NOW).expect("a file");
    t.unlink(ROOT, b"f", NOW).expect("a file");
    assert_eq!(version.read(f, 0, 3).as_deref(), Ok(&b"one"[..]));
}

/// Makes empty files, and directories where a path ends in `/`.
fn tree(paths: &[&str]) -> Tree {
    let mut tree = Tree::new(NOW);
    for path in paths {
        let (dir, name) = split(path.trim_end_matches('/'));
        let dir = at(&tree, dir);
        let caller = Caller::default();
        let made = if path.ends_with('/') {
            tree.mkdir(dir, name, 0o755, caller, NOW)
        } else {
            tree.mknod(dir, name, None, 0o644, caller, NOW)
        };
        made.expect("a fixture has no errors");
    }
    tree
}

fn at(tree: &Tree, path: &str) -> Ino {
    tree.resolve(path.as_bytes()).expect("the fixture has this path")
}

fn nlink(tree: &Tree, path: &str) -> u32 {
    tree.getattr(at(tree, path)).expect("what has a path lives").nlink
}

fn mv(tree: &mut Tree, from: &str, to: &str) -> Result<(), Errno> {
    rename(tree, from, to, Rename::Replace)
}

fn noreplace(tree: &mut Tree, from: &str, to: &str) -> Result<(), Errno> {
    rename(tree, from, to, Rename::NoReplace)
}

fn exchange(tree: &mut Tree, from: &str, to: &str) -> Result<(), Errno> {
    rename(tree, from, to, Rename::Exchange)
}

fn rename(tree: &mut Tree, from: &str, to: &str, how: Rename) -> Result<(), Errno> {
    let ((from_dir, from), (to_dir, to)) = (split(from), split(to));
    tree.rename((at(tree, from_dir), from), (at(tree, to_dir), to), how, NOW)
}

fn split(path: &str) -> (&str, &[u8]) {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    (dir, name.as_bytes())
}
