//! What this machine has mounted, and how that is undone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::UnmountFlags;

/// All places with something mounted at a folder or below, the innermost first.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    let mut found: Vec<PathBuf> = places.filter(|place| place.starts_with(folder)).collect();
    found.reverse();
    Ok(found)
}

/// # Errors
/// When the kernel cannot be asked.
pub fn is_mounted(dir: &Path) -> Result<bool> {
    Ok(below(dir)?.iter().any(|place| place == dir))
}

/// As umount(8) does.
///
/// # Errors
/// When somebody uses it.
pub fn unmount(dir: &Path) -> Result<()> {
    let unmounted = rustix::mount::unmount(dir, UnmountFlags::empty()).map_err(io::Error::from);
    unmounted.with_context(|| format!("unmount {}", dir.display()))
}

/// Takes a mount out of the tree, whoever uses it, and fails what waits for it: the kernel may wait
/// for an answer of a daemon that is dead while a thread of that daemon waits for the kernel.
/// Nothing when there is none.
///
/// # Errors
/// Without the right to do so.
pub fn detach(dir: &Path) -> Result<()> {
    while is_mounted(dir)? {
        match rustix::mount::unmount(dir, UnmountFlags::FORCE | UnmountFlags::DETACH) {
            // Somebody else was faster.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => {
                let error = io::Error::from(errno);
                return Err(error).with_context(|| format!("unmount {}", dir.display()));
            }
        }
    }
    Ok(())
}

/// As the kernel writes spaces and the like: `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_escapes_is_read_back() {
        assert_eq!(unescaped(r"/a\040b\134c"), PathBuf::from(r"/a b\c"));
        assert_eq!(unescaped(r"/plain\"), PathBuf::from(r"/plain\"));
    }

    #[test]
    fn the_root_is_mounted_and_nothing_is_below_a_folder_that_is_not_there() {
        assert!(is_mounted(Path::new("/proc")).expect("readable"));
        assert!(below(Path::new("/no/such/folder")).expect("readable").is_empty());
    }
}
