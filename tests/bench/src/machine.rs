//! Where it was measured, as far as it bears on the numbers.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Texts for people; what cannot be found out is said to be unknown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub date: String,
    /// Of the programs that were measured.
    pub version: String,
    pub revision: String,
    pub profile: String,
    pub processor: String,
    pub processors: usize,
    pub memory_mib: u64,
    pub kernel: String,
    pub system: String,
    /// What the device file lies on.
    pub storage: String,
    /// Of the last minute, before the first run: above the number of processors others were working.
    pub load_before: String,
    /// What a run did.
    pub scale: String,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    pub fn here(folder: &Path, mxd: &Path, revision: &str, scale: &str) -> Machine {
        let profile = mxd.parent().and_then(Path::file_name);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Machine {
            date: said(Command::new("date").args(["-u", "+%Y-%m-%d"])),
            version: said(Command::new(mxd).arg("--version")),
            revision: revision.to_owned(),
            profile: profile.map_or(UNKNOWN.into(), |name| name.to_string_lossy().into_owned()),
            processor: field("/proc/cpuinfo", "model name"),
            processors,
            memory_mib: number(&field("/proc/meminfo", "MemTotal")) / 1024,
            kernel: line("/proc/sys/kernel/osrelease"),
            system: field("/etc/os-release", "PRETTY_NAME").trim_matches('"').to_owned(),
            storage: storage(folder),
            load_before: line("/proc/loadavg").split(' ').next().unwrap_or(UNKNOWN).to_owned(),
            scale: scale.to_owned(),
        }
    }
}

fn line(file: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().next().unwrap_or(UNKNOWN).to_owned()
}

/// The first line `name: value` or `name=value`.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once([':', '='])?;
        (key.trim() == name).then(|| value.trim().to_owned())
    });
    value.unwrap_or_else(|| UNKNOWN.to_owned())
}

fn number(text: &str) -> u64 {
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn said(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| UNKNOWN.to_owned(), |text| text.trim().to_owned())
}

/// Type and source of the file system that a folder is on.
fn storage(folder: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| {
        let (place, rest) = line.split_once(" - ")?;
        let place = place.split(' ').nth(4)?;
        let mut words = rest.split(' ');
        let (kind, source) = (words.next()?, words.next()?);
        folder.starts_with(place).then_some((place.len(), format!("{kind} on {source}")))
    });
    // Of two on one place the later one is seen.
    let innermost = mounts.max_by_key(|(len, _)| *len);
    innermost.map_or_else(|| UNKNOWN.to_owned(), |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_linux_tells_is_found() {
        let machine = Machine::here(Path::new("/"), Path::new("/no/mxd"), "abc", "little");
        assert!(machine.processors > 0 && machine.memory_mib > 0, "{machine:?}");
        assert!(machine.storage.contains(" on "), "{machine:?}");
        assert_ne!(machine.kernel, UNKNOWN);
        assert_eq!(machine.version, UNKNOWN, "there is no such program");
    }
}
