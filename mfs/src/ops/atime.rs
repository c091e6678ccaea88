//! Access times, as `relatime`.
//!
//! Reads that the kernel answers from its cache are not seen here. A time is updated only while
//! this node holds the inode in EX: asking other nodes for the right to note that a file was read
//! would cost them their caches (`docs/semantics.md`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lcl::Mode;
use mx_base::Timestamp;

use crate::fs::Fs;
use crate::inode::Inode;

/// After this time an access time is updated whatever the others are, in seconds.
const DAY: i64 = 24 * 60 * 60;

impl Fs {
    /// Are reads noted from now on? As long as it is not said, the options of the mount hold.
    pub fn keep_access_times(&self, keeps: bool) {
        self.keeps_atime.store(keeps && !self.options.read_only, Ordering::Relaxed);
    }

    /// The contents of a pinned inode were read.
    pub(crate) fn touch_atime(&self, inode: &Arc<Inode>) {
        if !self.keeps_atime.load(Ordering::Relaxed) || !inode.entry.mode().covers(Mode::EX) {
            return;
        }
        let Some(_change) = self.try_begin_change() else { return };
        let now = self.now();
        let mut state = inode.state.lock();
        let Some(core) = state.core.as_mut().filter(|core| !core.flags().no_atime) else { return };
        let a = &mut core.attributes;
        let atime: Timestamp = a.atime.into();
        let older = atime <= a.mtime.into() || atime <= a.ctime.into();
        if older || now.seconds - atime.seconds >= DAY {
            a.atime = now.into();
            core.dirty = true;
            self.note_dirty(inode, &state);
        }
    }
}
