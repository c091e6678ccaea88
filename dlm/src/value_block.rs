//! Value blocks: a few bytes that travel with grants. Hints only, never the only copy of anything.

use std::fmt;

/// 0 to [`ValueBlock::MAX`] bytes that the last exclusive holder left for the next holder.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueBlock {
    len: u8,
    bytes: [u8; ValueBlock::MAX],
}

impl ValueBlock {
    pub const MAX: usize = 128;

    /// `None` when `value` is longer than [`ValueBlock::MAX`].
    pub fn new(value: &[u8]) -> Option<ValueBlock> {
        let mut bytes = [0; ValueBlock::MAX];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(ValueBlock { len: u8::try_from(value.len()).ok()?, bytes })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for ValueBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueBlock({} bytes)", self.len)
    }
}
