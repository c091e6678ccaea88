//! Every message survives its encoding, and garbage is refused.

use mx_base::{Incarnation, NodeId};

use super::*;

const LOCKSPACE: LockspaceId = LockspaceId(0x0403_0201);

fn at() -> BucketEpoch {
    let bucket = Bucket::new(0x0abc).expect("in range");
    BucketEpoch { bucket, epoch: ViewId(0x1122_3344_5566_7788) }
}

fn name() -> ResourceName {
    ResourceName::new(b"inode/7").expect("short")
}

fn value() -> Option<Box<ValueBlock>> {
    ValueBlock::new(b"val").map(Box::new)
}

fn dead() -> Member {
    Member { node: NodeId::new(5).expect("in range"), incarnation: Incarnation(0x0a0b_0c0d) }
}

fn bucket_name() -> BucketName {
    BucketName { bucket: at().bucket, name: name() }
}

/// At least one of each kind, and of each form of it.
fn samples() -> Vec<Message> {
    let (at, name, lock, view) = (at(), name(), LockId(0x0102_0304_0506_0708), ViewId(9));
    let BucketEpoch { bucket, .. } = at;
    let reported = |held, wanted, value| ReportedLock {
        bucket,
        name,
        lock,
        held,
        wanted,
        no_queue: wanted.is_some(),
        value,
    };
    let limbo = LimboName { bucket, name, waited: true };
    vec![
        Message::Request { at, lock, name, wanted: Mode::EX, no_queue: true },
        Message::Convert { at, lock, name, wanted: Mode::PW, no_queue: false },
        Message::Lower { at, lock, name, to: Mode::PR, grants: 7, value: value() },
        Message::Unlock { at, lock, name, value: None },
        Message::Cancel { at, lock, name },
        Message::Granted { at, lock, mode: Mode::CR, lowers: 3, value: value() },
        Message::Denied { at, lock, reason: Denial::Cancelled },
        Message::Callout { at, lock, wanted: Mode::PR, waiters: 258 },
        Message::Report {
            epoch: view,
            locks: vec![
                reported(Some(Mode::PR), Some(Mode::EX), value()),
                reported(None, Some(Mode::CR), None),
                reported(Some(Mode::NL), None, ValueBlock::new(b"").map(Box::new)),
            ],
        },
        Message::ReportEnd { view },
        Message::LiveNames { view, dead: dead(), names: vec![bucket_name(); 2], last: false },
        Message::InLimbo { view, dead: dead(), names: vec![limbo], last: true },
        Message::Released { view, dead: dead(), names: vec![bucket_name()] },
        Message::Recovered { view, dead: dead() },
        Message::RecoveredSeen { view, dead: dead() },
    ]
}

fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(LOCKSPACE, &mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_message_survives_its_encoding() {
    let mut kinds = Vec::new();
    for message in samples() {
        assert_eq!(Message::decode(&encode(&message)), Ok((LOCKSPACE, message.clone())));
        kinds.push(message.kind());
    }
    kinds.dedup();
    assert_eq!(kinds, Kind::ALL, "one sample of each kind");
}

/// The form on the wire is fixed: nodes of different releases may meet.
#[test]
fn the_bytes_are_those_of_the_specification() {
    let head = |kind: &str, flags: &str| format!("{kind}{flags}bc0a010203048877665544332211");
    let by_view = |kind: &str, flags: &str| format!("{kind}{flags}0000010203040900000000000000");
    let lock = "0807060504030201";
    let name = format!("07{}{}", hex(b"inode/7"), "00".repeat(24));
    let dead = "050000000d0c0b0a";
    let entry = format!("bc0a0000{name}");
    let expected = [
        head("01", "02") + lock + "0000000005000000" + &name,
        head("02", "00") + lock + "0000000004000000" + &name,
        head("03", "01") + lock + "0700000003000000" + &name + "0376616c",
        head("04", "00") + lock + "0000000000000000" + &name,
        head("05", "00") + lock + "0000000000000000" + &name,
        head("06", "01") + lock + "0300000001000000" + "0376616c",
        head("07", "00") + lock + "0000000001000000",
        head("08", "00") + lock + "0201000003000000",
        by_view("09", "00")
            + "bc0a030502030000"
            + lock
            + &name
            + "76616c"
            + "bc0aff0102ff0000"
            + lock
            + &name
            + "bc0a00ff00000000"
            + lock
            + &name,
        by_view("0a", "00"),
        by_view("0b", "00") + dead + &entry + &entry,
        by_view("0c", "04") + dead + "bc0a0100" + &name,
        by_view("0d", "00") + dead + &entry,
        by_view("0e", "00") + dead,
        by_view("0f", "00") + dead,
    ];
    for (message, expected) in samples().iter().zip(expected) {
        assert_eq!(hex(&encode(message)), expected, "{message:?}");
    }
}

#[test]
fn bytes_that_are_no_message_are_refused_with_the_reason() {
    let request = encode(&samples()[0]);
    let with = |at: usize, byte: u8| {
        let mut bytes = request.clone();
        bytes[at] = byte;
        Message::decode(&bytes).map(|_| ())
    };
    assert_eq!(Message::decode(&[]), Err(DecodeError::Short { missing: 16 }));
    assert_eq!(Message::decode(&request[..40]), Err(DecodeError::Short { missing: 24 }));
    let mut long = request.clone();
    long.push(0);
    assert_eq!(Message::decode(&long), Err(DecodeError::Trailing(1)));
    let longest = vec![0; Message::MAX + 1];
    assert_eq!(Message::decode(&longest), Err(DecodeError::TooLong(Message::MAX + 1)));
    assert_eq!(with(0, 0), Err(DecodeError::Kind(0)));
    assert_eq!(with(0, 16), Err(DecodeError::Kind(16)));
    assert_eq!(with(1, 4), Err(DecodeError::Flags { kind: Kind::Request, flags: 4 }));
    assert_eq!(with(3, 0x10), Err(DecodeError::Bucket(0x10bc)));
    assert_eq!(with(24, 1), Err(DecodeError::NotZero), "a count where none is");
    assert_eq!(with(28, 6), Err(DecodeError::Mode(6)));
    assert_eq!(with(31, 1), Err(DecodeError::NotZero));
    assert_eq!(with(32, 0), Err(DecodeError::Name(0)));
    assert_eq!(with(32, 32), Err(DecodeError::Name(32)));
    assert_eq!(with(63, 1), Err(DecodeError::Name(7)), "not filled up with zeros");

    let mut lower = encode(&samples()[2]);
    lower[64] = 129;
    assert_eq!(Message::decode(&lower), Err(DecodeError::Value(129)));
    let mut denied = encode(&samples()[6]);
    denied[28] = 3;
    assert_eq!(Message::decode(&denied), Err(DecodeError::Reason(3)));
    let mut recovered = encode(&samples()[13]);
    recovered[16] = 65;
    assert_eq!(Message::decode(&recovered), Err(DecodeError::Node(65)));
}

/// Whatever decodes is canonical, and nothing makes the decoder panic.
#[test]
fn damaged_bytes_are_refused_or_mean_exactly_what_they_say() {
    let mut state = 0x5eed_u64;
    let mut random = move |below: usize| {
        state = crate::name::mix(state);
        usize::try_from(state % below as u64).expect("below a usize")
    };
    let originals: Vec<Vec<u8>> = samples().iter().map(encode).collect();
    let mut accepted = 0;
    for _ in 0..40_000 {
        let mut bytes = originals[random(originals.len())].clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.push(u8::try_from(random(256)).expect("a byte")),
                _ => bytes[at] = u8::try_from(random(256)).expect("a byte"),
            }
        }
        if let Ok((lockspace, message)) = Message::decode(&bytes) {
            let mut again = Vec::new();
            message.encode(lockspace, &mut again);
            assert_eq!(again, bytes);
            accepted += 1;
        }
    }
    assert!(accepted > 1000, "the damage is not always fatal: {accepted}");
}

#[test]
fn reports_are_split_so_that_each_fits() {
    let full = ValueBlock::new(&[7; ValueBlock::MAX]).map(Box::new);
    let locks: Vec<ReportedLock> = (0..1000)
        .map(|i| ReportedLock {
            bucket: at().bucket,
            name: name(),
            lock: LockId(i),
            held: Some(Mode::PR),
            wanted: None,
            no_queue: false,
            value: if i % 3 == 0 { None } else { full.clone() },
        })
        .collect();
    let reports = Message::reports(ViewId(1), locks.clone());
    assert!(reports.len() >= 2);
    let mut together = Vec::new();
    for report in reports {
        assert!(encode(&report).len() <= Message::MAX);
        let Message::Report { locks, .. } = report else { panic!("reports only") };
        together.extend(locks);
    }
    assert_eq!(together, locks);
    assert_eq!(Message::reports(ViewId(1), Vec::new()), []);
}

#[test]
fn the_longest_list_of_names_fits() {
    let names = vec![bucket_name(); Message::NAMES_MAX];
    let message = Message::Released { view: ViewId(1), dead: dead(), names };
    assert!(encode(&message).len() <= Message::MAX);
}
