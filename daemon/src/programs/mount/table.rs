//! The mounts of this machine: as the kernel lists them, and as mount(8) remembers them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::{RUN_FOLDER, name_of_local};

/// As the kernel shows it.
pub(super) const TYPE: &str = "fuse.matrixfs";

/// Tells mount(8) of a mount, so that umount(8) runs our helper.
///
/// Without an entry in its table, umount(8) run by root asks statfs(2) for the type, is told
/// `fuse`, and never looks for a helper of `fuse.matrixfs`. A faked mount is how others who mount
/// by themselves make the entry.
pub(super) fn note(source: &str, dir: &Path) -> io::Result<()> {
    let mut command = Command::new("mount");
    command.args(["--no-canonicalize", "-i", "-f", "-t", TYPE, "-o"]);
    command.arg(format!("helper={TYPE}")).arg("--").arg(source).arg(dir);
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("mount: {why} ({})", output.status)))
}

/// Notes which daemon serves a mount, where its name does not lead to its socket.
pub(super) fn note_socket(dir: &Path, socket: &Path) -> io::Result<()> {
    let link = socket_link(dir);
    forget_socket(dir);
    fs::create_dir_all(link.parent().expect("it is in a folder"))?;
    std::os::unix::fs::symlink(socket, link)
}

/// What was noted.
pub(super) fn noted_socket(dir: &Path) -> Option<PathBuf> {
    fs::read_link(socket_link(dir)).ok()
}

pub(super) fn forget_socket(dir: &Path) {
    // If there is none, none was noted.
    let _ = fs::remove_file(socket_link(dir));
}

/// Names of file systems do not begin with a point.
fn socket_link(dir: &Path) -> PathBuf {
    Path::new(RUN_FOLDER).join(".mounts").join(name_of_local(dir))
}

/// The source of the topmost MatrixFS on a directory.
pub(super) fn source_of(dir: &Path) -> io::Result<Option<PathBuf>> {
    let list = fs::read("/proc/self/mountinfo")?;
    Ok(find(&list, dir))
}

fn find(list: &[u8], dir: &Path) -> Option<PathBuf> {
    let topmost_first = list.rsplit(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let at = unescape(fields.nth(4)?);
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        Some((at, rest.next()?, rest.next()?))
    });
    let (_, kind, source) = { topmost_first }.find(|(at, ..)| at == dir)?;
    (kind == TYPE.as_bytes()).then(|| unescape(source))
}

/// Spaces and the like are written in octal.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 29 0:41 / /mnt/a\\040b rw,nosuid - fuse.matrixfs /dev/x\\134y rw,user_id=0
41 29 0:42 / /mnt/c rw shared:7 master:1 - fuse.matrixfs vol rw
42 41 0:43 / /mnt/c rw - tmpfs none rw
";

    #[test]
    fn a_mount_is_found_by_its_directory_unless_another_hides_it() {
        assert_eq!(find(LIST, Path::new("/mnt/a b")), Some("/dev/x\\y".into()));
        assert_eq!(find(LIST, Path::new("/mnt/c")), None);
        assert_eq!(find(LIST, Path::new("/")), None);
        assert_eq!(find(LIST, Path::new("/mnt")), None);
    }
}
