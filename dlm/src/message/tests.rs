//! Every message survives its encoding, and garbage is refused.

use mx_base::{Incarnation, NodeId};

use super::*;
use crate::advisory::{AskedClaim, Conflict, Family, How};

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
    let mut messages = vec![
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
    ];
    messages.extend(claims());
    messages
}

fn wait() -> Wait {
    let BucketEpoch { bucket, .. } = at();
    let (id, stamp) = (ClaimId(0x21), 0x22);
    Wait { member: dead(), owner: 0x23, id, stamp, bucket, name: name() }
}

/// Those about advisory locks.
fn claims() -> Vec<Message> {
    let (at, name, id, view) = (at(), name(), ClaimId(0x11), ViewId(9));
    let owner = Owner { family: Family::Ranges, id: 0x12 };
    let span = Span::new(0x13, 0x14).expect("in order");
    let how = How::Wait { detect: true };
    let claim = Claim { owner, via: 0, pid: 0x15, span, access: Access::Write, how };
    let conflict = Conflict { holder: dead(), pid: 0x15, span, access: Access::Write };
    let report = |asked| ReportedClaim {
        bucket: at.bucket,
        name,
        owner: Owner { family: Family::Whole, id: 0x12 },
        pid: 0x15,
        span,
        access: Access::Read,
        asked,
    };
    let asked = AskedClaim { id, how: How::Wait { detect: false }, stamp: 0x16 };
    vec![
        Message::Claim { at, id, name, claim, stamp: 0x16 },
        Message::ClaimLower { at, id, name, owner, span, to: None },
        Message::ClaimLower { at, id, name, owner, span, to: Some(Access::Read) },
        Message::ClaimCancel { at, id, name },
        Message::ClaimAnswer { at, id, verdict: Verdict::Deadlock },
        Message::ClaimAnswer { at, id, verdict: Verdict::Held(conflict) },
        Message::ClaimReport { epoch: view, claims: vec![report(None), report(Some(asked))] },
        Message::Trace { view, path: vec![wait()], owner: 0x17, budget: 0x0102 },
        Message::Follow { at, path: vec![wait()], budget: 0x0102 },
        Message::Confirm { at, cycle: vec![wait(), wait()], position: 1 },
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
    let number = |number: u64| hex(&number.to_le_bytes());
    let numbers = |all: &[u64]| all.iter().map(|n| number(*n)).collect::<String>();
    let claim = numbers(&[0x11, 0x16, 0x12, 0x13, 0x14]);
    let lowered = numbers(&[0x11, 0, 0x12, 0x13, 0x14]);
    let reported = |how: &str, id: u64, stamp: u64| {
        let numbers = numbers(&[0x12, id, stamp, 0x13, 0x14]);
        format!("bc0a0000{how}000000{numbers}1500000000000000{name}")
    };
    let (held, asked) = (reported("ff", 0, 0), reported("02", 0x11, 0x16));
    let wait = format!("{dead}{}bc0a000000000000{name}", numbers(&[0x23, 0x21, 0x22]));
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
        head("10", "00") + &claim + "15000000" + "01010300" + &name,
        head("11", "00") + &lowered + "00000000" + "01ff0000" + &name,
        head("11", "00") + &lowered + "00000000" + "01000000" + &name,
        head("12", "00") + &number(0x11) + &name,
        head("13", "00") + &number(0x11) + "03000000" + &"00".repeat(28),
        head("13", "00")
            + &number(0x11)
            + "06010000"
            + "15000000"
            + &number(0x13)
            + &number(0x14)
            + dead,
        by_view("14", "00") + &held + &asked,
        by_view("15", "00") + &number(0x17) + "0201000000000000" + &wait,
        head("16", "00") + &number(0) + "0201000000000000" + &wait,
        head("17", "00") + &number(0) + "0100000000000000" + &wait + &wait,
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
    assert_eq!(with(0, 24), Err(DecodeError::Kind(24)));
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

#[test]
fn bytes_that_are_no_message_about_advisory_locks_are_refused_with_the_reason() {
    let samples: Vec<Vec<u8>> = claims().iter().map(encode).collect();
    let with = |sample: usize, at: usize, byte: u8| {
        let mut bytes = samples[sample].clone();
        bytes[at] = byte;
        Message::decode(&bytes).map(|_| ())
    };
    assert_eq!(with(0, 1, 1), Err(DecodeError::Flags { kind: Kind::Claim, flags: 1 }));
    assert_eq!(with(0, 40, 0x15), Err(DecodeError::Span), "it begins behind its end");
    assert_eq!(with(0, 60, 2), Err(DecodeError::Mode(2)), "a family");
    assert_eq!(with(0, 61, 2), Err(DecodeError::Mode(2)), "what for");
    assert_eq!(with(0, 62, 4), Err(DecodeError::Mode(4)), "how");
    assert_eq!(with(0, 63, 1), Err(DecodeError::NotZero));
    assert_eq!(with(1, 24, 1), Err(DecodeError::NotZero), "a stamp where none is");
    assert_eq!(with(1, 62, 1), Err(DecodeError::NotZero));
    assert_eq!(with(4, 24, 7), Err(DecodeError::Reason(7)));
    assert_eq!(with(4, 28, 1), Err(DecodeError::NotZero), "a process where none is");
    assert_eq!(with(5, 48, 65), Err(DecodeError::Node(65)));
    assert_eq!(with(6, 32, 1), Err(DecodeError::NotZero), "a number where nothing is asked");
    assert_eq!(with(7, 26, 1), Err(DecodeError::NotZero));
    assert_eq!(with(8, 16, 1), Err(DecodeError::NotZero), "an owner where none is");
    assert_eq!(with(9, 24, 2), Err(DecodeError::Count(2)), "behind the end of the cycle");
    let empty = &samples[8][..32];
    assert_eq!(Message::decode(empty).map(|_| ()), Err(DecodeError::Count(0)));
    let path = vec![wait(); Wait::PATH_MAX + 1];
    let long = encode(&Message::Follow { at: at(), path, budget: 1 });
    assert_eq!(Message::decode(&long).map(|_| ()), Err(DecodeError::Count(33)));
}

#[test]
fn the_longest_report_of_claims_fits() {
    let Message::ClaimReport { epoch, claims } = claims().swap_remove(6) else { unreachable!() };
    let claims = vec![claims[0].clone(); Message::CLAIMS_MAX];
    assert!(encode(&Message::ClaimReport { epoch, claims }).len() <= Message::MAX);
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
