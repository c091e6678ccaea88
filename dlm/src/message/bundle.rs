//! The payload of a lock frame: one message, or a bundle of several for the same member.
//!
//! Keeps true: messages come out of a payload in the order in which they went in; a payload is
//! decoded as a whole before anything of it is taken in, and what decodes encodes to the same
//! bytes. Never changes what a message means: a bundle is only the frame that several share.

use smallvec::SmallVec;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::codec::{DecodeError, Input};
use super::layout::{BundleHead, EntryLen};
use super::{LockspaceId, Message};

/// The first byte of a bundle; no message has this kind.
const BUNDLE: u8 = 0x80;

/// Bytes before the first message: those of a bundle of one are left out.
const LEAD: usize = size_of::<BundleHead>() + size_of::<EntryLen>();

/// The shortest entry of a bundle: its length, and a message that is a head only.
const ENTRY_MIN: usize = size_of::<EntryLen>() + size_of::<super::layout::Head>();

/// What a payload carries, in order.
pub type Messages = SmallVec<[Message; 1]>;

/// A payload that is being filled.
#[derive(Debug)]
pub struct Bundle {
    lockspace: LockspaceId,
    /// A head to be written, then each message behind its length.
    bytes: Vec<u8>,
    count: u16,
}

impl Bundle {
    /// How many messages one payload carries at most.
    pub const MESSAGES_MAX: usize = 1024;

    /// How long a payload is at most, in bytes: what a frame of the link carries.
    pub const BYTES_MAX: usize = 1 << 20;

    /// A payload with one message in it.
    pub fn new(lockspace: LockspaceId, first: &Message) -> Bundle {
        let mut bundle = Bundle { lockspace, bytes: vec![0; size_of::<BundleHead>()], count: 0 };
        bundle.append(first);
        bundle
    }

    /// Adds a message behind the others; false, and as before, when the payload has no room for it.
    #[must_use]
    pub fn push(&mut self, message: &Message) -> bool {
        if usize::from(self.count) == Bundle::MESSAGES_MAX {
            return false;
        }
        let before = self.bytes.len();
        self.append(message);
        let is_fit = self.bytes.len() <= Bundle::BYTES_MAX;
        if !is_fit {
            self.bytes.truncate(before);
            self.count -= 1;
        }
        is_fit
    }

    /// How many messages it carries, at least 1.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// The payload: a message that is alone as it is, without the head of a bundle.
    pub fn payload(&mut self) -> &[u8] {
        if self.count == 1 {
            return &self.bytes[LEAD..];
        }
        let (count, lockspace) = (U16::new(self.count), U32::new(self.lockspace.0));
        let head = BundleHead { kind: BUNDLE, zero: 0, count, lockspace };
        self.bytes[..size_of::<BundleHead>()].copy_from_slice(head.as_bytes());
        &self.bytes
    }

    /// The messages of a payload, all of them, in order.
    ///
    /// # Errors
    /// When the bytes are no payload: nothing of it may be taken in then.
    pub fn decode(payload: &[u8]) -> Result<(LockspaceId, Messages), DecodeError> {
        if payload.first() != Some(&BUNDLE) {
            let (lockspace, message) = Message::decode(payload)?;
            return Ok((lockspace, SmallVec::from_buf([message])));
        }
        if payload.len() > Bundle::BYTES_MAX {
            return Err(DecodeError::TooLong(payload.len()));
        }
        let mut input = Input(payload);
        let head: BundleHead = input.take()?;
        let (count, lockspace) = (head.count.get(), LockspaceId(head.lockspace.get()));
        if head.zero != 0 {
            return Err(DecodeError::NotZero);
        }
        if !(2..=Bundle::MESSAGES_MAX).contains(&usize::from(count)) {
            return Err(DecodeError::Count(count));
        }
        // A count that lies holds no memory.
        let least = usize::from(count) * ENTRY_MIN;
        if input.0.len() < least {
            return Err(DecodeError::Short { missing: least - input.0.len() });
        }
        let mut messages = Messages::with_capacity(usize::from(count));
        for _ in 0..count {
            let len: EntryLen = input.take()?;
            let len = usize::try_from(len.bytes.get()).unwrap_or(usize::MAX);
            let (of, message) = Message::decode(input.bytes(len)?)?;
            if of != lockspace {
                return Err(DecodeError::OtherLockspace(of));
            }
            messages.push(message);
        }
        match input.0.len() {
            0 => Ok((lockspace, messages)),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    fn append(&mut self, message: &Message) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; size_of::<EntryLen>()]);
        let begin = self.bytes.len();
        message.encode(self.lockspace, &mut self.bytes);
        let len = u32::try_from(self.bytes.len() - begin).expect("a message is at most 64 KiB");
        let len = EntryLen { bytes: U32::new(len) };
        self.bytes[start..begin].copy_from_slice(len.as_bytes());
        self.count += 1;
    }
}

#[cfg(test)]
mod tests;
