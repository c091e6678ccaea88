//! The memory that messages are read into, used again and again.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::protocol::init::REQUEST_BYTES_MAX;

/// The kernel refuses to fill a smaller one: data, header and arguments of a WRITE, in whole pages.
const BUFFER_BYTES: usize = REQUEST_BYTES_MAX as usize + 4096;
/// Kept for later; more are needed only while so many large writes wait.
const SPARE_MAX: usize = 8;
/// Data up to here is copied, so that a write that waits does not keep a whole buffer.
const COPIED_MAX: usize = 64 << 10;

/// Buffers that nobody uses at present.
#[derive(Debug)]
pub(crate) struct Buffers(ArrayQueue<Box<[u8]>>);

impl Buffers {
    pub(crate) fn new() -> Arc<Buffers> {
        Arc::new(Buffers(ArrayQueue::new(SPARE_MAX)))
    }

    pub(crate) fn take(self: &Arc<Self>) -> Message {
        let bytes = self.0.pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into());
        Message { bytes, len: 0, home: Arc::clone(self) }
    }
}

/// A message, and the buffer that it lies in.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Box<[u8]>,
    len: usize,
    home: Arc<Buffers>,
}

impl Message {
    /// Where to read a message to.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        assert!(len <= self.bytes.len(), "no more was read than there is room for");
        self.len = len;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Keeps a part of it.
    pub(crate) fn into_data(self, place: Range<usize>) -> Data {
        if place.len() <= COPIED_MAX {
            Data::Copied(self.bytes()[place].into())
        } else {
            Data::Whole(self, place)
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // One too many is freed.
        let _ = self.home.0.push(std::mem::take(&mut self.bytes));
    }
}

/// Data of a request, for as long as it is being served.
#[derive(Debug)]
pub(crate) enum Data {
    Copied(Box<[u8]>),
    Whole(Message, Range<usize>),
}

impl Data {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Data::Copied(bytes) => bytes,
            Data::Whole(message, place) => &message.bytes()[place.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_outlives_the_reading_of_further_messages_and_its_buffer_is_used_again() {
        let buffers = Buffers::new();
        let mut message = buffers.take();
        message.room()[..COPIED_MAX + 1].fill(7);
        message.set_len(COPIED_MAX + 1);
        let at = message.bytes().as_ptr();
        let data = message.into_data(0..COPIED_MAX + 1);
        let mut next = buffers.take();
        next.room().fill(1);
        assert!(data.as_slice().iter().all(|byte| *byte == 7));
        drop(data);
        assert_eq!(buffers.take().room().as_ptr(), at);
    }

    #[test]
    fn little_data_keeps_no_buffer() {
        let buffers = Buffers::new();
        let mut message = buffers.take();
        message.set_len(100);
        let data = message.into_data(10..20);
        assert_eq!((data.as_slice().len(), buffers.0.len()), (10, 1));
    }
}
