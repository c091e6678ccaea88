//! A payload gives back what went in, and anything else is refused as a whole.

use mx_base::ViewId;

use super::*;
use crate::lock::LockId;
use crate::message::{BucketEpoch, ReportedLock};
use crate::mode::Mode;
use crate::name::{Bucket, ResourceName};

const LOCKSPACE: LockspaceId = LockspaceId(6);

fn message(lock: u64) -> Message {
    let bucket = Bucket::new(0x0abc).expect("in range");
    let at = BucketEpoch { bucket, epoch: ViewId(9) };
    Message::Callout { at, lock: LockId(lock), wanted: Mode::EX, waiters: 2 }
}

fn bundle(messages: &[Message]) -> Vec<u8> {
    let mut bundle = Bundle::new(LOCKSPACE, &messages[0]);
    assert!(messages[1..].iter().all(|message| bundle.push(message)));
    assert_eq!(bundle.count(), messages.len());
    bundle.payload().to_vec()
}

#[test]
fn a_message_alone_is_the_payload() {
    let mut bytes = Vec::new();
    message(1).encode(LOCKSPACE, &mut bytes);
    assert_eq!(Bundle::new(LOCKSPACE, &message(1)).payload(), bytes);
    let (lockspace, messages) = Bundle::decode(&bytes).expect("decodes");
    assert_eq!((lockspace, messages.as_slice()), (LOCKSPACE, [message(1)].as_slice()));
}

#[test]
fn several_messages_come_out_in_order() {
    let messages: Vec<Message> = (0..300).map(message).collect();
    let (lockspace, decoded) = Bundle::decode(&bundle(&messages)).expect("decodes");
    assert_eq!((lockspace, decoded.to_vec()), (LOCKSPACE, messages));
}

#[test]
fn the_bytes_of_a_bundle_are_those_of_the_specification() {
    let bytes = bundle(&[message(1), Message::ReportEnd { view: ViewId(9) }]);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let head = "80000200_06000000";
    let first = "20000000_0800bc0a_06000000_0900000000000000_0100000000000000_02000000_05000000";
    let second = "10000000_0a000000_06000000_0900000000000000";
    assert_eq!(hex, format!("{head}{first}{second}").replace('_', ""));
}

#[test]
fn bytes_that_are_no_bundle_are_refused_with_the_reason() {
    let good = bundle(&[message(1), message(2)]);
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        Bundle::decode(&bad).expect_err("refused")
    };
    assert_eq!(with(1, &[1]), DecodeError::NotZero);
    // None, one alone, fewer and more than are there, more than any payload carries.
    assert_eq!(with(2, &[0, 0]), DecodeError::Count(0));
    assert_eq!(with(2, &[1, 0]), DecodeError::Count(1));
    assert_eq!(with(2, &[3, 0]), DecodeError::Short { missing: 4 });
    assert_eq!(with(2, &[1, 4]), DecodeError::Count(1025));
    assert_eq!(with(4, &[7]), DecodeError::OtherLockspace(LOCKSPACE));
    // Lengths that lie.
    assert_eq!(with(8, &[31]), DecodeError::Short { missing: 1 });
    assert_eq!(with(8, &[33]), DecodeError::Trailing(1));
    assert_eq!(with(8, &[0xff; 4]), DecodeError::Short { missing: 0xffff_ffff - 68 });
    // A bundle in a bundle.
    assert_eq!(with(12, &[BUNDLE]), DecodeError::Kind(BUNDLE));
    let longer = [good.as_slice(), &[0]].concat();
    assert_eq!(Bundle::decode(&longer), Err(DecodeError::Trailing(1)));
    for len in 0..good.len() {
        assert!(Bundle::decode(&good[..len]).is_err(), "cut at {len}");
    }
    let huge = [good.as_slice(), &vec![0; Bundle::BYTES_MAX]].concat();
    assert_eq!(Bundle::decode(&huge), Err(DecodeError::TooLong(huge.len())));
}

#[test]
fn a_payload_takes_so_many_messages_and_so_many_bytes_and_stays_as_it_was_beyond() {
    let mut many = Bundle::new(LOCKSPACE, &message(0));
    assert!((1..1024).all(|i| many.push(&message(i))));
    assert!(!many.push(&message(1024)));
    assert_eq!(Bundle::decode(many.payload()).expect("decodes").1.len(), Bundle::MESSAGES_MAX);

    let name = ResourceName::new(b"n").expect("short");
    let lock = ReportedLock {
        bucket: Bucket::of(1),
        name,
        lock: LockId(1),
        held: Some(Mode::PR),
        wanted: None,
        no_queue: false,
        value: None,
    };
    // As long as a message gets.
    let locks = vec![lock; (Message::MAX - 16) / 48];
    let report = Message::Report { epoch: ViewId(9), locks };
    let mut long = Bundle::new(LOCKSPACE, &report);
    while long.push(&report) {}
    assert!(long.push(&message(1)), "what is shorter still fits");
    let payload = long.payload().to_vec();
    assert!(payload.len() <= Bundle::BYTES_MAX);
    assert!(payload.len() + Message::MAX > Bundle::BYTES_MAX);
    assert_eq!(Bundle::decode(&payload).expect("decodes").1.len(), long.count());
}
