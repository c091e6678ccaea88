//! What may be found after a crash, given every version that the tree went through.
//!
//! The rules, for one journal whose transactions become durable in order (I7, I10):
//!   * names, links, modes and owners are those of one version: no operation half done, none done
//!     without those before it; and not of a version older than the last acknowledged fsync;
//!   * the size of each file is one that it had since its own last acknowledged fsync;
//!   * each 512-byte sector of a file is as it was in some version since then: contents may lag
//!     behind names and may be torn between sectors, but never show what this file did not hold.
//!
//! Data written with a seed of its own by each operation ([`Data`](crate::ops::Data)) makes the
//! last rule sharp: bytes of another file or of an earlier life of a block cannot pass.

use std::collections::BTreeMap;
use std::fmt;

use crate::posix::{Compare, Content, Difference, Ino, Snapshot, Tree, diff};

/// What a device writes as a whole or not at all, bytes.
const SECTOR: u64 = 512;

/// Every version of a tree, and what has been acknowledged as durable.
#[derive(Clone, Debug)]
pub struct History {
    versions: Vec<Snapshot>,
    /// What each file held, by its identity: from which version on, and the content.
    lives: BTreeMap<u64, Vec<(usize, Content)>>,
    /// Names may not be found older than this version.
    durable: usize,
    /// Contents of a file may not be found older than this version; 0 where none is named.
    durable_by_file: BTreeMap<u64, usize>,
}

/// Why nothing that happened explains what was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unexplained {
    /// The names are of no version that may be found.
    Names { oldest: usize, newest: usize, against_oldest: Difference, against_newest: Difference },
    /// The names are those of `version`, but the contents of a file are not its own.
    Contents { version: usize, difference: Difference },
}

impl fmt::Display for Unexplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unexplained::Names { oldest, newest, against_oldest, against_newest } => write!(
                f,
                "names of no version from {oldest} to {newest}; against the oldest, \
                 {against_oldest}; against the newest, {against_newest}"
            ),
            Unexplained::Contents { version, difference } => {
                write!(f, "names of version {version}, but {difference}")
            }
        }
    }
}

impl std::error::Error for Unexplained {}

impl History {
    /// Begins with what is durable, such as an empty file system.
    pub fn new(start: &Tree) -> History {
        let mut history = History {
            versions: Vec::new(),
            lives: BTreeMap::new(),
            durable: 0,
            durable_by_file: BTreeMap::new(),
        };
        history.push(start);
        history
    }

    /// An operation has changed the tree. To be called before the operation may reach the disk.
    pub fn push(&mut self, tree: &Tree) {
        // Also files without a name: if their unlinking is not durable they are found again, with
        // what was written to them since.
        for ino in tree.inos() {
            let Ok(content) = tree.content(ino) else { continue };
            let lives = self.lives.entry(ino.get()).or_default();
            if !lives.last().is_some_and(|(_, last)| content.is_untouched(last)) {
                lives.push((self.versions.len(), content.clone()));
            }
        }
        self.versions.push(tree.snapshot());
    }

    /// The number of the last version.
    pub fn newest(&self) -> usize {
        self.versions.len() - 1
    }

    /// An fsync or fdatasync of `ino` that began when `version` was the newest is acknowledged.
    ///
    /// # Panics
    /// When there is no such version.
    pub fn synced(&mut self, ino: Ino, version: usize) {
        self.synced_names(version);
        let durable = self.durable_by_file.entry(ino.get()).or_default();
        *durable = version.max(*durable);
    }

    /// As [`History::synced`] where no file is meant: fsync of a directory.
    ///
    /// # Panics
    /// When there is no such version.
    pub fn synced_names(&mut self, version: usize) {
        assert!(version < self.versions.len(), "version {version} is yet to come");
        self.durable = version.max(self.durable);
    }

    /// Everything of `version` is acknowledged: sync of the whole, or a clean end.
    ///
    /// # Panics
    /// When there is no such version.
    pub fn synced_all(&mut self, version: usize) {
        self.synced_names(version);
        for found in self.versions[version].found.values() {
            let durable = self.durable_by_file.entry(found.identity).or_default();
            *durable = version.max(*durable);
        }
    }

    /// The version whose names were found; the newest, where several have the same.
    ///
    /// # Errors
    /// When no version explains what was found.
    pub fn judge(&self, found: &Snapshot) -> Result<usize, Unexplained> {
        let mut wrong_contents = None;
        for version in (self.durable..self.versions.len()).rev() {
            let expected = &self.versions[version];
            if diff(expected, found, Compare::WithoutContents).is_some() {
                continue;
            }
            match self.check_contents(expected, found) {
                None => return Ok(version),
                Some(difference) => {
                    wrong_contents.get_or_insert(Unexplained::Contents { version, difference });
                }
            }
        }
        Err(wrong_contents.unwrap_or_else(|| {
            let against = |version: usize| {
                diff(&self.versions[version], found, Compare::WithoutContents)
                    .expect("no version had these names")
            };
            Unexplained::Names {
                oldest: self.durable,
                newest: self.newest(),
                against_oldest: against(self.durable),
                against_newest: against(self.newest()),
            }
        }))
    }

    fn check_contents(&self, expected: &Snapshot, found: &Snapshot) -> Option<Difference> {
        let check = |(path, object): (&Vec<u8>, &crate::posix::Found)| {
            let content = object.content.as_ref()?;
            let identity = expected.found.get(path)?.identity;
            let what = self.check_content(identity, content)?;
            Some(Difference { path: path.clone(), what })
        };
        found.found.iter().find_map(check)
    }

    fn check_content(&self, identity: u64, found: &Content) -> Option<String> {
        let oldest = self.durable_by_file.get(&identity).copied().unwrap_or(0);
        let newest = self.newest();
        let all = self.lives.get(&identity).map_or(&[][..], Vec::as_slice);
        let first = all.partition_point(|(from, _)| *from <= oldest).saturating_sub(1);
        let lives: Vec<&Content> = all[first..].iter().map(|(_, content)| content).collect();
        if !lives.iter().any(|life| life.size() == found.size()) {
            return Some(format!(
                "size {} is of no version from {oldest} to {newest}",
                found.size()
            ));
        }
        let mut pages: Vec<u64> = found.written().collect();
        pages.extend(lives.iter().flat_map(|life| life.written()));
        pages.sort_unstable();
        pages.dedup();
        let sectors = pages.into_iter().flat_map(|page| (0..8).map(move |i| page + i * SECTOR));
        for at in sectors.filter(|at| *at < found.size()) {
            let len = usize::try_from(SECTOR.min(found.size() - at)).expect("at most a sector");
            let bytes = found.read(at, len);
            let is_of = |life: &&Content| {
                let mut then = life.read(at, len);
                then.resize(len, 0);
                then == bytes
            };
            if !lives.iter().any(is_of) {
                let end = at + SECTOR.min(found.size() - at);
                return Some(format!(
                    "bytes {at} to {end} are of no version from {oldest} to {newest}"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use mx_base::Timestamp;

    use super::*;
    use crate::posix::{Caller, Change, Rename};

    const NOW: Timestamp = Timestamp { seconds: 1, nanos: 0 };
    const ROOT: Ino = Ino::ROOT;

    #[test]
    fn names_of_any_version_since_the_last_fsync_are_right() {
        let mut t = Tree::new(NOW);
        let mut history = History::new(&t);
        let mut all = vec![t.snapshot()];
        for name in [b"a", b"b", b"c"] {
            file(&mut t, name);
            history.push(&t);
            all.push(t.snapshot());
        }
        for (version, found) in all.iter().enumerate() {
            assert_eq!(history.judge(found), Ok(version));
        }
        history.synced(t.lookup(ROOT, b"b").expect("it is there"), 2);
        assert!(history.judge(&all[2]).is_ok());
        let lost = history.judge(&all[1]).expect_err("b was acknowledged");
        assert!(lost.to_string().contains("against the oldest, /b: a file is missing"), "{lost}");
    }

    #[test]
    fn half_a_rename_is_told() {
        let mut t = Tree::new(NOW);
        let f = file(&mut t, b"old");
        let mut history = History::new(&t);
        let mut half = t.clone();
        t.rename((ROOT, b"old"), (ROOT, b"new"), Rename::Replace, NOW).expect("a free name");
        history.push(&t);
        half.link(f, ROOT, b"new", NOW).expect("a free name");
        assert!(history.judge(&half.snapshot()).is_err());
        assert_eq!(history.judge(&t.snapshot()), Ok(1));
    }

    #[test]
    fn an_operation_without_the_one_before_it_is_told() {
        let mut t = Tree::new(NOW);
        let mut history = History::new(&t);
        let mut without = t.clone();
        file(&mut t, b"first");
        history.push(&t);
        file(&mut t, b"second");
        history.push(&t);
        file(&mut without, b"second");
        assert!(history.judge(&without.snapshot()).is_err());
    }

    #[test]
    fn contents_may_lag_behind_names_but_not_behind_their_fsync() {
        let mut t = Tree::new(NOW);
        let f = file(&mut t, b"f");
        let mut history = History::new(&t);
        let empty = t.clone();
        t.write(f, 0, &[1; 1000], NOW).expect("a file");
        history.push(&t);
        file(&mut t, b"later");
        history.push(&t);

        let mut lagging = empty.clone();
        file(&mut lagging, b"later");
        assert_eq!(history.judge(&lagging.snapshot()), Ok(2));
        history.synced(f, 1);
        let lost = history.judge(&lagging.snapshot()).expect_err("its contents were acknowledged");
        assert_eq!(
            lost.to_string(),
            "names of version 2, but /f: size 0 is of no version from 1 to 2"
        );
    }

    #[test]
    fn sectors_may_be_of_different_versions_but_of_no_other_file() {
        let mut t = Tree::new(NOW);
        let f = file(&mut t, b"f");
        let mut history = History::new(&t);
        for byte in 1..=2 {
            t.write(f, 0, &[byte; 2048], NOW).expect("a file");
            history.push(&t);
        }
        let mut torn = t.clone();
        torn.write(f, 512, &[1; 512], NOW).expect("a file");
        assert!(history.judge(&torn.snapshot()).is_ok());
        let mut zeros = t.clone();
        zeros.write(f, 512, &[0; 512], NOW).expect("a file");
        assert!(history.judge(&zeros.snapshot()).is_ok(), "it was empty once");
        let mut mixed = t.clone();
        mixed.write(f, 600, &[1; 8], NOW).expect("a file");
        assert!(history.judge(&mixed.snapshot()).is_err(), "no sector was ever like this");
        let mut stale = t.clone();
        stale.write(f, 1024, &[9; 512], NOW).expect("a file");
        let error = history.judge(&stale.snapshot()).expect_err("bytes of something else");
        assert!(error.to_string().contains("/f: bytes 1024 to 1536"), "{error}");
    }

    #[test]
    fn a_cut_and_grown_file_shows_zeros_or_what_it_held() {
        let mut t = Tree::new(NOW);
        let f = file(&mut t, b"f");
        t.write(f, 0, &[7; 4096], NOW).expect("a file");
        let mut history = History::new(&t);
        history.synced_all(0);
        for size in [100, 4096] {
            let size = Some(size);
            t.setattr(f, &Change { size, ..Change::default() }, NOW).expect("a file");
            history.push(&t);
        }
        assert_eq!(history.judge(&t.snapshot()), Ok(2));
        let mut stale = t.clone();
        stale.write(f, 200, &[8; 10], NOW).expect("a file");
        assert!(history.judge(&stale.snapshot()).is_err());
    }

    fn file(tree: &mut Tree, name: &[u8]) -> Ino {
        tree.mknod(ROOT, name, None, 0o644, Caller::default(), NOW).expect("a free name")
    }
}
