//! What the kernel's FUSE sends.

use mfs_fuse::protocol::layout::opcode;
use mfs_fuse::protocol::{Operation, Request};

use crate::Target;

/// Bytes of a header.
const HEADER: usize = 40;

fn message(opcode: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[4..8].copy_from_slice(&opcode.to_le_bytes());
    bytes[8..16].copy_from_slice(&77_u64.to_le_bytes());
    bytes.extend_from_slice(body);
    set_len(&mut bytes);
    bytes
}

fn set_len(bytes: &mut [u8]) {
    if let (Ok(len), Some(place)) = (u32::try_from(bytes.len()), bytes.get_mut(..4)) {
        place.copy_from_slice(&len.to_le_bytes());
    }
}

/// One message.
pub const REQUEST: Target = Target {
    seeds: || {
        let counted = |count: u8, rest: &[u8]| [&[count, 0, 0, 0, 0, 0, 0, 0][..], rest].concat();
        let written = [&[1; 16][..], &[4, 0, 0, 0], &[0; 20], b"data"].concat();
        let attribute = [&counted(3, &[0; 8])[..], b"user.name\0abc"].concat();
        let command = [&[0; 24][..], &[4, 0, 0, 0, 0, 0, 0, 0], b"data"].concat();
        let mut seeds = vec![
            message(opcode::LOOKUP, b"name\0"),
            message(opcode::SYMLINK, b"name\0target\0"),
            message(opcode::RENAME2, &counted(9, b"\0\0\0\0\0\0\0\0old\0new\0")),
            message(opcode::CREATE, &counted(1, b"\0\0\0\0\0\0\0\0name\0")),
            message(opcode::WRITE, &written),
            message(opcode::SETXATTR, &attribute),
            message(opcode::GETXATTR, &counted(9, b"user.name\0")),
            message(opcode::IOCTL, &command),
            message(opcode::BATCH_FORGET, &counted(2, &[3; 32])),
            message(opcode::INIT, &[7; 64]),
        ];
        // The others: a structure, the longest of which has 88 bytes.
        seeds.extend((1..=52).map(|opcode| message(opcode, &[0; 88])));
        seeds
    },
    mend: |bytes| set_len(bytes),
    run: |bytes| {
        let Ok(request) = Request::parse(bytes) else { return false };
        if let Operation::Write { data: place, .. } | Operation::Setxattr { value: place, .. } =
            request.operation
        {
            assert!(place.start >= HEADER, "data is no header");
            assert!(bytes.get(place).is_some(), "data lies in the message");
        }
        true
    },
};
