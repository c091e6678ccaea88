//! Messages byte by byte, as include/uapi/linux/fuse.h lays them out.

use zerocopy::IntoBytes;

use super::*;

const UNIQUE: u64 = 0x1122;

fn message(opcode: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(size_of::<InHeader>() + body.len()).expect("short");
    let (unique, node) = (UNIQUE, 7);
    let header = InHeader {
        len,
        opcode,
        unique,
        node,
        uid: 1,
        gid: 2,
        pid: 3,
        extension_len: 0,
        reserved: 0,
    };
    [header.as_bytes(), body].concat()
}

fn operation(message: &[u8]) -> Operation<'_> {
    Request::parse(message).expect("well formed").operation
}

#[test]
fn a_header_says_who_asks_about_which_node() {
    let bytes = [
        &[43, 0, 0, 0, 1, 0, 0, 0][..],
        &[0x22, 0x11, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        b"ab\0",
    ]
    .concat();
    let request = Request::parse(&bytes).expect("well formed");
    assert_eq!((request.unique, request.node), (UNIQUE, 7));
    assert_eq!((request.uid, request.gid, request.pid), (1, 2, 3));
    assert_eq!(request.operation, Operation::Lookup { name: b"ab" });
}

#[test]
fn names_follow_their_structures_and_end_with_a_zero() {
    let rename = message(opcode::RENAME2, b"\x09\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0old\0new\0");
    let expected = Operation::Rename { name: b"old", new_parent: 9, new_name: b"new", flags: 2 };
    assert_eq!(operation(&rename), expected);
    let create = message(opcode::CREATE, b"\x41\0\0\0\xa4\x81\0\0\x12\0\0\0\x01\0\0\0f\0");
    let (flags, mode, umask) = (0x41, 0o100_644, 0o22);
    let expected = Operation::Create { name: b"f", flags, mode, umask, kill_privileges: true };
    assert_eq!(operation(&create), expected);
    let symlink = message(opcode::SYMLINK, b"name\0target\0");
    assert_eq!(operation(&symlink), Operation::Symlink { name: b"name", target: b"target" });
}

#[test]
fn data_is_a_place_in_the_message() {
    let write = WriteIn {
        handle: 5,
        offset: 4096,
        size: 3,
        write_flags: flag::WRITE_CACHE,
        lock_owner: 0,
        flags: 0,
        reserved: 0,
    };
    let write = message(opcode::WRITE, &[write.as_bytes(), b"xyz"].concat());
    let Operation::Write { handle: 5, offset: 4096, data, laundered: true, .. } = operation(&write)
    else {
        panic!("a write");
    };
    assert_eq!(&write[data], b"xyz");
    let set = message(opcode::SETXATTR, b"\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0user.a\0vv");
    let Operation::Setxattr { name: b"user.a", value, flags: 0, kill_sgid: true } = operation(&set)
    else {
        panic!("an attribute");
    };
    assert_eq!(&set[value], b"vv");
}

#[test]
fn what_follows_as_an_extension_is_no_data() {
    let mut message = message(opcode::LOOKUP, b"ab\0zzzzz12345678");
    message[36..38].copy_from_slice(&[1, 0]);
    assert_eq!(operation(&message), Operation::Lookup { name: b"ab" });
    message[36..38].copy_from_slice(&[3, 0]);
    assert!(matches!(Request::parse(&message), Err(Malformed::Argument { unique: UNIQUE, .. })));
}

#[test]
fn lengths_that_lie_are_refused() {
    assert_eq!(Request::parse(&[0; 39]), Err(Malformed::Header(39)));
    let mut short = message(opcode::LOOKUP, b"ab\0");
    short.pop();
    assert_eq!(Request::parse(&short), Err(Malformed::Length { said: 43, got: 42 }));
    let endless = message(opcode::LOOKUP, b"ab");
    let expected = Malformed::Name { unique: UNIQUE, opcode: opcode::LOOKUP };
    assert_eq!(Request::parse(&endless), Err(expected));
    for (opcode, body) in [
        (opcode::GETATTR, &[0; 15][..]),
        (opcode::BATCH_FORGET, &[255, 255, 255, 255, 0, 0, 0, 0]),
        (opcode::SETXATTR, b"\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0user.a\0vv"),
    ] {
        let refused = Request::parse(&message(opcode, body)).expect_err("it lies");
        assert_eq!(refused.unique(), Some(UNIQUE), "{refused}");
    }
}

#[test]
fn what_is_forgotten_together_comes_one_by_one() {
    let body = [&[2, 0, 0, 0, 0, 0, 0, 0][..], &[5; 16], &[6; 16]].concat();
    let batch = message(opcode::BATCH_FORGET, &body);
    let word = |byte| u64::from_le_bytes([byte; 8]);
    let expected = vec![(word(5), word(5)), (word(6), word(6))];
    assert_eq!(operation(&batch), Operation::Forget(expected));
}

#[test]
fn an_operation_that_is_not_known_can_be_answered() {
    assert_eq!(operation(&message(4096, &[])), Operation::Unknown(4096));
}
