//! Rename, in the order of checks of `do_renameat2` and `vfs_rename`.

use mx_base::Timestamp;

use super::errno::Errno;
use super::node::Ino;
use super::tree::{Last, Tree, last};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rename {
    /// What the new name was goes.
    Replace,
    /// RENAME_NOREPLACE
    NoReplace,
    /// RENAME_EXCHANGE: both names stay and swap what they are.
    Exchange,
}

impl Tree {
    /// Two names of one object: nothing happens.
    ///
    /// # Errors
    /// In this order: ENOTDIR; EBUSY where the old name is `.` or `..`; for such a new name EEXIST
    /// with no-replace, else EBUSY; ENAMETOOLONG; ENOENT; EEXIST or, for an exchange, ENOENT as
    /// the new name is there or not; EINVAL for a directory into itself or below; ENOTEMPTY
    /// (exchange: EINVAL) for an object over a directory above it; ENOTDIR for a directory over
    /// something else; EISDIR the other way round; ENOTEMPTY.
    pub fn rename(
        &mut self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        how: Rename,
        now: Timestamp,
    ) -> Result<(), Errno> {
        self.directory(from.0)?;
        self.directory(to.0)?;
        if last(from.1)? != Last::Name {
            return Err(Errno::Busy);
        }
        if last(to.1)? != Last::Name {
            return Err(if how == Rename::NoReplace { Errno::Exists } else { Errno::Busy });
        }
        let source = self.lookup(from.0, from.1)?;
        let target = match self.lookup(to.0, to.1) {
            Ok(_) if how == Rename::NoReplace => return Err(Errno::Exists),
            Ok(target) => Some(target),
            Err(Errno::NoEntry) if how != Rename::Exchange => None,
            Err(errno) => return Err(errno),
        };
        self.check_ancestry(from.0, source, to.0, target, how)?;
        if target == Some(source) {
            return Ok(());
        }
        match target {
            None if self.directory(to.0)?.removed => return Err(Errno::NoEntry),
            Some(target) if how != Rename::Exchange => self.check_replace(source, target)?,
            None | Some(_) => {}
        }
        self.detach(from.0, from.1);
        if let Some(target) = target {
            self.detach(to.0, to.1);
            if how == Rename::Exchange {
                self.attach(from.0, from.1, target);
                self.must_mut(target).changed(now);
            } else if self.must(target).is_directory() {
                self.remove_directory(target, now);
            } else {
                self.must_mut(target).changed(now);
                self.drop_if_unused(target);
            }
        }
        self.attach(to.0, to.1, source);
        self.must_mut(source).changed(now);
        self.must_mut(from.0).modified(now);
        if to.0 != from.0 {
            self.must_mut(to.0).modified(now);
        }
        Ok(())
    }

    fn check_replace(&self, source: Ino, target: Ino) -> Result<(), Errno> {
        match (self.must(source).is_directory(), self.must(target).is_directory()) {
            (true, false) => Err(Errno::NotDirectory),
            (false, true) => Err(Errno::IsDirectory),
            (true, true) if !self.directory(target)?.entries.is_empty() => Err(Errno::NotEmpty),
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// No directory may get below itself, and none that is above the other name may be replaced.
    fn check_ancestry(
        &self,
        from_dir: Ino,
        source: Ino,
        to_dir: Ino,
        target: Option<Ino>,
        how: Rename,
    ) -> Result<(), Errno> {
        if from_dir == to_dir {
            return Ok(());
        }
        if self.is_above_or_same(source, to_dir) {
            return Err(Errno::Invalid);
        }
        match target {
            Some(target) if self.is_above_or_same(target, from_dir) => Err(match how {
                Rename::Exchange => Errno::Invalid,
                Rename::Replace | Rename::NoReplace => Errno::NotEmpty,
            }),
            Some(_) | None => Ok(()),
        }
    }
}
