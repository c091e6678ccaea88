//! Taking names away: unlink and rmdir.

use mx_base::Timestamp;

use super::errno::Errno;
use super::node::Ino;
use super::tree::{Last, Tree, last};

impl Tree {
    /// The object goes with its last name, or with its last handle if that comes later.
    ///
    /// # Errors
    /// ENOTDIR, EISDIR (also for `.` and `..`), ENAMETOOLONG, ENOENT.
    pub fn unlink(&mut self, dir: Ino, name: &[u8], now: Timestamp) -> Result<(), Errno> {
        self.directory(dir)?;
        if last(name)? != Last::Name {
            return Err(Errno::IsDirectory);
        }
        let victim = self.lookup(dir, name)?;
        if self.must(victim).is_directory() {
            return Err(Errno::IsDirectory);
        }
        self.detach(dir, name);
        self.must_mut(dir).modified(now);
        self.must_mut(victim).changed(now);
        self.drop_if_unused(victim);
        Ok(())
    }

    /// # Errors
    /// ENOTDIR, EINVAL for `.`, ENOTEMPTY for `..`, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY.
    pub fn rmdir(&mut self, dir: Ino, name: &[u8], now: Timestamp) -> Result<(), Errno> {
        self.directory(dir)?;
        match last(name)? {
            Last::Dot => return Err(Errno::Invalid),
            Last::DotDot => return Err(Errno::NotEmpty),
            Last::Name => {}
        }
        let victim = self.lookup(dir, name)?;
        if !self.directory(victim)?.entries.is_empty() {
            return Err(Errno::NotEmpty);
        }
        self.detach(dir, name);
        self.must_mut(dir).modified(now);
        self.remove_directory(victim, now);
        Ok(())
    }

    /// The end of an empty directory that has just lost its name.
    pub(super) fn remove_directory(&mut self, dir: Ino, now: Timestamp) {
        self.must_mut(dir).changed(now);
        self.must_directory_mut(dir).removed = true;
        self.drop_if_unused(dir);
    }

    pub(super) fn drop_if_unused(&mut self, ino: Ino) {
        if self.is_orphan(ino) && !self.is_open(ino) {
            self.nodes.remove(&ino);
        }
    }
}
