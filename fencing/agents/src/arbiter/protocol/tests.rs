//! The protocol: golden bytes, what is refused and why, and that no bytes make a decoder panic.

use fencing::{Block, DeviceId, Key, Victim};
use mx_base::{ClusterId, Incarnation, Member, NodeId};

use super::*;

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn hello() -> Hello {
    let member = Member { node: node(3), incarnation: Incarnation(0x0A0B_0C0D) };
    Hello {
        cluster: ClusterId([0xC1; 16]),
        device: DeviceId([0xD2; 16]),
        key: Some(Key::of(member)),
        nonce: 0x0123_4567_89AB_CDEF,
        channel: 0x0102,
        area_blocks: 4096,
    }
}

fn requests() -> Vec<Request> {
    let transfer = Transfer { block: 0x0102_0304_0506_0708, count: 256, area_block: 0x090A_0B0C };
    let victim = Victim { node: node(64), up_to: Incarnation(7) };
    vec![
        Request::Read(transfer),
        Request::Write { transfer, durable: false },
        Request::Write { transfer, durable: true },
        Request::Discard { block: 0x0102_0304_0506_0708, count: 65_536 },
        Request::Flush,
        Request::Fence { victim },
        Request::List { area_block: 5 },
        Request::Counters { area_block: 6 },
        Request::Ping,
        Request::Inject(Fault::Clear),
        Request::Inject(Fault::DelayWrites { node: node(2), ms: 30 }),
        Request::Inject(Fault::StallWrites { node: node(2) }),
        Request::Inject(Fault::FailWrites { node: node(2), errno: 5 }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn hello_golden_bytes() {
    let head = concat!(
        "4d5841524248454c", // magic
        "01000100",         // versions
        "02010000",         // channel
        "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
        "d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2",
        "0d0c0b0a0300584d", // key
        "efcdab8967452301", // nonce
        "00100000",         // blocks of shared memory
    );
    assert_eq!(hex(&hello().encode()), format!("{head}{}", "00".repeat(60)));
}

#[test]
fn welcome_golden_bytes() {
    let welcome = Welcome {
        device_blocks: 0x1000,
        server_start: 0x1122_3344_5566_7788,
        requests_max: 1024,
        incarnation_min: Incarnation(5),
        incarnation_newest: Incarnation(6),
    };
    let head = concat!(
        "4d5841524257454c", // magic
        "01000000",         // version, status
        "00040000",         // requests at once
        "8877665544332211", // start of the server
        "0010000000000000", // blocks of the device
        "0500000006000000", // incarnations
    );
    assert_eq!(hex(&Welcome::encode(Ok(welcome))), format!("{head}{}", "00".repeat(88)));
    assert_eq!(Welcome::decode(&Welcome::encode(Ok(welcome))), Ok(Ok(welcome)));
}

#[test]
fn request_and_reply_golden_bytes() {
    let transfer = Transfer { block: 0x0102_0304_0506_0708, count: 256, area_block: 0x090A_0B0C };
    let write = Request::Write { transfer, durable: true };
    let head = concat!(
        "4d585251",         // magic
        "02010000",         // kind, flags
        "2a00000000000000", // id
        "0807060504030201", // block
        "000100000c0b0a09", // count, block of the shared memory
    );
    assert_eq!(hex(&write.encode(42)), format!("{head}{}", "00".repeat(32)));
    let discard = Request::Discard { block: 0x0102_0304_0506_0708, count: 0x0001_0000 };
    let head = "4d58525109000000290000000000000008070605040302010000010000000000";
    assert_eq!(hex(&discard.encode(41)), format!("{head}{}", "00".repeat(32)));
    let fence = Request::Fence { victim: Victim { node: node(64), up_to: Incarnation(7) } };
    let head = "4d585251040000002b00000000000000";
    assert_eq!(
        hex(&fence.encode(43)),
        format!("{head}{}4000000007000000{}", "00".repeat(16), "00".repeat(24))
    );
    let reply = Reply { id: 42, status: Status::Io { errno: 5 } };
    let head = "4d585250020000002a000000000000000500000000000000";
    assert_eq!(hex(&reply.encode()), format!("{head}{}", "00".repeat(40)));
}

#[test]
fn everything_reads_back_as_it_was_written() {
    assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    let observer = Hello { key: None, ..hello() };
    assert_eq!(Hello::decode(&observer.encode()), Ok(observer));
    for number in 1..=11 {
        let Ok(Err(refusal)) = Welcome::decode(&{
            let mut bytes = Welcome::encode(Err(HelloRefusal::Version));
            bytes[10] = number;
            bytes
        }) else {
            panic!("refusal {number}")
        };
        assert_eq!(refusal as u16, u16::from(number));
    }
    for (id, request) in (7..).zip(requests()) {
        assert_eq!(Request::decode(&request.encode(id)), Ok((id, request)));
    }
    for status in [
        Status::Done,
        Status::Fenced,
        Status::Io { errno: 28 },
        Status::OutOfRange,
        Status::NotAllowed,
        Status::Malformed,
        Status::TooMany,
    ] {
        let reply = Reply { id: 9, status };
        assert_eq!(Reply::decode(&reply.encode()), Some(reply));
    }
}

#[test]
fn reports_read_back_as_they_were_written() {
    let report = |id| NodeReport {
        node: node(id),
        incarnation_min: Incarnation(2),
        incarnation_newest: Incarnation(3),
        sessions: id,
        writes_executing: 4,
        writes_refused: 5,
        others_refused: 6,
    };
    let reports: Vec<NodeReport> = (1..=64).map(report).collect();
    assert_eq!(decode_list(&encode_list(&reports)), Some(reports));
    assert_eq!(decode_list(&Block::zeroed()), None);
    let counters = Counters { reads: 1, queued: 15, ..Counters::default() };
    assert_eq!(Counters::decode(&counters.encode()), Some(counters));
    assert_eq!(Counters::decode(&Block::zeroed()), None);
}

#[test]
fn impossible_requests_are_refused_by_name() {
    let decode = |at: usize, byte: u8, request: &Request| {
        let mut frame = request.encode(7);
        frame[at] = byte;
        Request::decode(&frame)
    };
    let all = requests();
    let is = |kind| move |request: &&Request| request.kind() == kind;
    let one = |kind| all.iter().find(is(kind)).expect("there is one");
    let [read, fence, inject, discard] =
        [Kind::Read, Kind::Fence, Kind::Inject, Kind::Discard].map(one);
    assert_eq!(decode(0, 0, read), Err(RequestError::Magic));
    assert_eq!(decode(4, 99, read), Err(RequestError::Kind { id: 7, kind: 99 }));
    assert_eq!(decode(24, 1, read), Err(RequestError::Count { id: 7, count: 257 }));
    assert_eq!(decode(25, 0, read), Err(RequestError::Count { id: 7, count: 0 }));
    assert_eq!(decode(24, 1, discard), Err(RequestError::Discard { id: 7, count: 65_537 }));
    assert_eq!(decode(26, 0, discard), Err(RequestError::Discard { id: 7, count: 0 }));
    assert_eq!(decode(32, 65, fence), Err(RequestError::Node { id: 7 }));
    assert_eq!(decode(36, 0, fence), Err(RequestError::Node { id: 7 }));
    assert_eq!(decode(6, 9, inject), Err(RequestError::Fault { id: 7, fault: 9 }));
    assert_eq!(Request::decode(&[0; 63]), Err(RequestError::Size { found: 63 }));
    let mut bytes = hello().encode();
    bytes[8] = 2;
    bytes[10] = 3;
    assert_eq!(Hello::decode(&bytes), Err(HelloError::Version { min: 2, max: 3 }));
}

#[test]
fn no_bytes_make_a_decoder_panic() {
    let mut state = 1_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut decoded = 0;
    for round in 0..20_000 {
        let goods: Vec<Vec<u8>> = vec![
            hello().encode().to_vec(),
            Welcome::encode(Err(HelloRefusal::Fenced)).to_vec(),
            requests()[round % 12].encode(1).to_vec(),
            Reply { id: 1, status: Status::Done }.encode().to_vec(),
            (0..random() % 200).map(|_| random().to_le_bytes()[0]).collect(),
        ];
        for mut bytes in goods {
            if let Some(len) = u64::try_from(bytes.len()).ok().filter(|len| *len > 0) {
                let at = usize::try_from(random() % len).expect("small");
                bytes[at] = random().to_le_bytes()[0];
            }
            decoded += u32::from(Hello::decode(&bytes).is_ok());
            decoded += u32::from(Welcome::decode(&bytes).is_ok());
            decoded += u32::from(Request::decode(&bytes).is_ok());
            decoded += u32::from(Reply::decode(&bytes).is_some());
        }
        let mut block = *encode_list(&[]);
        block.0[usize::try_from(random() % 32).expect("small")] = random().to_le_bytes()[0];
        decoded += u32::from(decode_list(&block).is_some());
    }
    assert!(decoded > 1000, "{decoded}");
}
