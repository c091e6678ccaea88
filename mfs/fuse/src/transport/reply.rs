//! One answer.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zerocopy::{Immutable, IntoBytes};

use super::device::Channel;
use crate::protocol::layout::OutHeader;

/// A number of errno(3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Errno(pub(crate) i32);

/// The right to answer one request, once. Dropped, it answers with EIO, or EINTR when the process
/// that asked got a signal.
#[derive(Debug)]
pub(crate) struct Reply {
    /// `None` when it is answered.
    open: Option<(Arc<Channel>, u64)>,
    interrupted: Arc<AtomicBool>,
}

impl Reply {
    pub(crate) fn new(channel: &Arc<Channel>, unique: u64) -> Reply {
        Reply { open: Some((Arc::clone(channel), unique)), interrupted: Arc::default() }
    }

    /// Set when the answer is EINTR from now on.
    pub(crate) fn interrupted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }

    pub(crate) fn ok(self) {
        self.bytes(&[]);
    }

    pub(crate) fn structure(self, structure: &(impl IntoBytes + Immutable)) {
        self.bytes(structure.as_bytes());
    }

    /// Two structures, one behind the other.
    pub(crate) fn both(
        mut self,
        first: &(impl IntoBytes + Immutable),
        second: &(impl IntoBytes + Immutable + ?Sized),
    ) {
        self.send(0, [first.as_bytes(), second.as_bytes()]);
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) {
        self.send(0, [bytes, &[]]);
    }

    pub(crate) fn error(mut self, error: Errno) {
        self.send(error.0, [&[], &[]]);
    }

    /// The request wants no answer.
    pub(crate) fn forgo(mut self) {
        self.open = None;
    }

    fn send(&mut self, error: i32, [first, second]: [&[u8]; 2]) {
        let Some((channel, unique)) = self.open.take() else { return };
        let len = size_of::<OutHeader>() + first.len() + second.len();
        let len = u32::try_from(len).expect("an answer has at most 1 MiB");
        let header = OutHeader { len, error: -error, unique };
        let parts = [header.as_bytes(), first, second].map(IoSlice::new);
        if let Err(error) = channel.write(&parts) {
            // The request was given up meanwhile: ENOENT. Or the connection: nobody waits.
            tracing::debug!(unique, %error, "answer not taken");
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let is_interrupted = self.interrupted.load(Ordering::Acquire);
        self.send(if is_interrupted { libc::EINTR } else { libc::EIO }, [&[], &[]]);
    }
}
