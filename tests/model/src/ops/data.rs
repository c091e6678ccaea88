//! What is written: a few numbers that stand for any amount of bytes.

/// Bytes that tell where they come from: every aligned group of 8 is unlike those of any other
/// write with another seed, so that stale or misplaced contents show. None of them is zero,
/// unlike a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Data {
    /// 0 stands for zeros.
    pub seed: u64,
    pub len: usize,
}

impl Data {
    pub fn bytes(self) -> Vec<u8> {
        if self.seed == 0 {
            return vec![0; self.len];
        }
        let mut bytes = Vec::with_capacity(self.len + 8);
        let mut word = self.seed;
        while bytes.len() < self.len {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mixed = word ^ (word >> 29);
            bytes.extend_from_slice(&(mixed | 0x0101_0101_0101_0101).to_le_bytes());
        }
        bytes.truncate(self.len);
        bytes
    }
}

/// The value of an extended attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Data(Data),
    /// An access control list: tag, permissions and id of each entry.
    Acl(Vec<(u16, u16, u32)>),
}

impl Value {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Data(data) => data.bytes(),
            Value::Acl(entries) => {
                let mut bytes = 2_u32.to_le_bytes().to_vec();
                for (tag, permissions, id) in entries {
                    bytes.extend(tag.to_le_bytes());
                    bytes.extend(permissions.to_le_bytes());
                    bytes.extend(id.to_le_bytes());
                }
                bytes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_zero_unless_zeros_are_meant() {
        let bytes = Data { seed: 3, len: 10_001 }.bytes();
        assert_eq!(bytes.len(), 10_001);
        assert!(!bytes.contains(&0));
        assert_eq!(Data { seed: 0, len: 5 }.bytes(), [0; 5]);
        assert_ne!(Data { seed: 4, len: 8 }.bytes(), bytes[..8]);
    }
}
