//! Memory as O_DIRECT wants it.

/// See the module.
#[derive(Debug)]
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// What direct reads and writes are aligned to, in memory and in the file.
    pub(crate) const UNIT: usize = 4096;

    pub(crate) fn new(len: usize) -> Aligned {
        let bytes = vec![0; len + Aligned::UNIT];
        let start = bytes.as_ptr().align_offset(Aligned::UNIT);
        Aligned { bytes, start }
    }

    pub(crate) fn get(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + len]
    }
}
