//! Extended attributes, access control lists and privileges, on two nodes.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use e2e::Fixture;
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

/// Somebody without privileges.
const SOMEBODY: u32 = 12_345;

fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 70_000];
    let len = getxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

fn list(path: &Path) -> Vec<String> {
    let mut names = vec![0; 4096];
    let len = listxattr(path, &mut names[..]).expect("a list");
    let names = String::from_utf8(names[..len].to_vec()).expect("text");
    names.split_terminator('\0').map(str::to_owned).collect()
}

/// Version 2, and entries of tag, permissions and id (include/uapi/linux/posix_acl_xattr.h).
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const NOBODY: u32 = u32::MAX;

/// Owner all, `SOMEBODY` as said, others nothing.
fn for_somebody(permissions: u16) -> Vec<u8> {
    acl(&[
        (0x01, 7, NOBODY),
        (0x02, permissions, SOMEBODY),
        (0x04, 0, NOBODY),
        (0x10, 7, NOBODY),
        (0x20, 0, NOBODY),
    ])
}

/// The folder of the cluster is its owner's.
fn let_others_in(cluster: &Fixture) {
    fs::set_permissions(cluster.folder(), fs::Permissions::from_mode(0o711)).expect("set");
}

fn somebody(program: &str, path: &Path) -> bool {
    let mut command = Command::new(program);
    command.arg(path).uid(SOMEBODY).gid(SOMEBODY);
    command.output().expect("it starts").status.success()
}

#[test]
fn attributes_set_on_one_node_are_read_on_the_other() {
    let cluster = Fixture::of("attributes", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node).join("file"));
    fs::write(&here, "data").expect("made");
    assert_eq!(get(&there, "user.small"), Err(Errno::NODATA));
    let large: Vec<u8> = (0..60_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    setxattr(&here, "user.small", b"1", XattrFlags::CREATE).expect("set");
    setxattr(&there, "user.large", &large, XattrFlags::empty()).expect("set");
    assert_eq!(get(&there, "user.small").expect("read"), b"1");
    assert!(get(&here, "user.large").expect("read") == large);
    assert_eq!(list(&there), ["user.large", "user.small"]);
    assert_eq!(setxattr(&there, "user.small", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    setxattr(&there, "user.small", b"2", XattrFlags::REPLACE).expect("replaced");
    assert_eq!(get(&here, "user.small").expect("read"), b"2");
    let mut short = [0; 4];
    assert_eq!(getxattr(&here, "user.large", &mut short[..]), Err(Errno::RANGE));
    removexattr(&here, "user.large").expect("removed");
    assert_eq!(removexattr(&there, "user.large"), Err(Errno::NODATA));
    assert_eq!(list(&here), ["user.small"]);
    let unknown = setxattr(&here, "unknown.name", b"", XattrFlags::empty());
    assert_eq!(unknown, Err(Errno::OPNOTSUPP));
    assert_eq!(fs::read(&here).expect("read"), b"data");
    cluster.finish();
}

#[test]
fn an_access_list_is_obeyed_on_every_node_as_soon_as_it_is_set_on_one() {
    let cluster = Fixture::of("acl", 2);
    let_others_in(&cluster);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    let name = "system.posix_acl_access";
    fs::write(here.join("file"), "secret").expect("made");
    fs::set_permissions(here.join("file"), fs::Permissions::from_mode(0o600)).expect("set");
    for round in 0..3 {
        assert!(!somebody("cat", &there.join("file")), "round {round}");
        setxattr(here.join("file"), name, &for_somebody(4), XattrFlags::empty()).expect("set");
        assert!(somebody("cat", &there.join("file")), "round {round}");
        assert!(!somebody("tee", &there.join("file")), "round {round}");
        // chmod takes the mask away, and that everybody's right by name.
        fs::set_permissions(there.join("file"), fs::Permissions::from_mode(0o600)).expect("set");
        assert!(!somebody("cat", &here.join("file")), "round {round}");
        removexattr(there.join("file"), name).expect("removed");
    }
    // What is made in a directory gets its default list, whatever the umask.
    fs::create_dir(here.join("dir")).expect("made");
    fs::set_permissions(here.join("dir"), fs::Permissions::from_mode(0o755)).expect("set");
    let default = "system.posix_acl_default";
    setxattr(here.join("dir"), default, &for_somebody(6), XattrFlags::empty()).expect("set");
    fs::write(there.join("dir/new"), "inherited").expect("made");
    assert!(somebody("cat", &here.join("dir/new")));
    fs::create_dir(there.join("dir/sub")).expect("made");
    assert_eq!(get(&here.join("dir/sub"), default).expect("inherited"), for_somebody(6));
    let of_a_file = setxattr(here.join("file"), default, &for_somebody(6), XattrFlags::empty());
    assert_eq!(of_a_file, Err(Errno::ACCESS));
    cluster.finish();
}

#[test]
fn who_writes_to_a_file_of_another_takes_its_privileges_away() {
    let cluster = Fixture::of("privileges", 2);
    let_others_in(&cluster);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
    let set = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o6777)).expect("set");
        assert_eq!(mode(path), 0o6777);
    };
    let (file, other) = (here.join("program"), there.join("program"));
    fs::write(&file, "#!").expect("made");
    set(&file);
    let script = format!("echo x >> {}", other.display());
    let appended = Command::new("sh").args(["-c", &script]).uid(SOMEBODY).gid(SOMEBODY).status();
    assert!(appended.expect("sh").success());
    assert_eq!(mode(&file), 0o777, "after a write");
    set(&other);
    let mut cut = Command::new("truncate");
    cut.args(["-s", "0"]).arg(&file).uid(SOMEBODY).gid(SOMEBODY);
    assert!(cut.status().expect("truncate").success());
    assert_eq!(mode(&other), 0o777, "after a truncation");
    set(&other);
    chown(&file, Some(SOMEBODY), None).expect("changed");
    assert_eq!(mode(&other), 0o777, "after a change of owner");
    // Root may keep them.
    set(&file);
    fs::write(&other, "by root").expect("written");
    assert_eq!(mode(&file), 0o6777, "after a write of root");
    cluster.finish();
}

#[test]
fn a_file_knows_when_it_was_made() {
    let cluster = Fixture::of("birth", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node).join("file"));
    fs::write(&here, "").expect("made");
    let made = fs::metadata(&here).expect("there").created().expect("a time");
    fs::write(&there, "changed").expect("written");
    let metadata = fs::metadata(&there).expect("there");
    assert_eq!(metadata.created().expect("a time"), made);
    assert!(metadata.modified().expect("a time") >= made);
    cluster.finish();
}
