//! The membership partition, and the arbiter's protocol.

use std::time::Duration;

use fencing::layout::{self, CopyNo, RECORD_SIZE};
use fencing::ondisk::heartbeat::{self, HeartbeatRecord};
use fencing::ondisk::register::{self, RegisterRecord};
use fencing::ondisk::superblock::Superblock;
use fencing::{Block, DeviceId, Key, MpIndex, Victim};
use fencing_agents::arbiter::protocol::{
    Counters, Hello, HelloRefusal, NodeReport, Reply, Request, Status, Transfer, Welcome,
    decode_list, encode_list,
};
use mfs::ondisk::header::crc32c;
use mx_base::{ClusterId, Incarnation, Member, NodeId};

use crate::{Target, no_checksum};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const PARTITION: MpIndex = MpIndex(0);

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

/// The bytes as a block, which the rest of is zero.
fn block_of(bytes: &[u8]) -> Box<Block> {
    let mut block = Block::zeroed();
    let count = bytes.len().min(block.0.len());
    block.0[..count].copy_from_slice(&bytes[..count]);
    block
}

fn record_of(block: &Block) -> Vec<u8> {
    block.0[..RECORD_SIZE].to_vec()
}

fn mend_record(bytes: &mut Vec<u8>) {
    bytes.resize(RECORD_SIZE, 0);
    let crc = crc32c(&bytes[..RECORD_SIZE - 4]);
    bytes[RECORD_SIZE - 4..].copy_from_slice(&crc.to_le_bytes());
}

pub const SUPERBLOCK: Target = Target {
    seeds: || {
        let superblock = Superblock {
            cluster: CLUSTER,
            partition_id: [3; 16],
            index: PARTITION,
            count: 1,
            set_epoch: 1,
            nodes_max: 64,
            unit: Duration::from_millis(100),
            sequence: 1,
        };
        vec![record_of(&superblock.encode(CopyNo::First))]
    },
    mend: mend_record,
    run: |bytes| {
        let decoded = Superblock::decode(&block_of(bytes), CopyNo::First);
        if let Ok(superblock) = &decoded {
            let again = superblock.encode(CopyNo::First);
            assert_eq!(Superblock::decode(&again, CopyNo::First).as_ref(), Ok(superblock));
        }
        decoded.is_ok()
    },
};

pub const REGISTER: Target = Target {
    seeds: || {
        let place = register::place(CLUSTER, PARTITION, node(3), CopyNo::First);
        let unused = record_of(&RegisterRecord::unused(node(3)).encode(place));
        // Node 3 has promised and accepted a ballot, and is the only member.
        let mut used = unused.clone();
        let fields: [(usize, u8); 16] = [
            (32, 9), // sequence
            (44, 1), // incarnation
            (48, 1), // promised: round, nonce, node
            (56, 5),
            (64, 3),
            (72, 1), // accepted
            (80, 5),
            (88, 3),
            (96, 1),  // generation
            (104, 1), // view
            (112, 4), // members
            (130, 3), // administrator
            (132, 1),
            (140, 3), // author
            (144, 5),
            (200, 1), // newest incarnation of node 3
        ];
        for (at, byte) in fields {
            used[at] = byte;
        }
        mend_record(&mut used);
        vec![unused, used]
    },
    mend: mend_record,
    run: |bytes| {
        let place = register::place(CLUSTER, PARTITION, node(3), CopyNo::First);
        let decoded = RegisterRecord::decode(&block_of(bytes), node(3), place);
        if let Ok(record) = &decoded {
            let again = record.encode(place);
            assert_eq!(RegisterRecord::decode(&again, node(3), place).as_ref(), Ok(record));
        }
        // Whoever starts looks at records without a ballot.
        let mut survey = fencing::register::Survey::new(CLUSTER, 64);
        let at = layout::register(node(3), CopyNo::First);
        survey.add(PARTITION, at, std::slice::from_ref(&*block_of(bytes)));
        let _ = survey.next_life(node(3), Incarnation(0));
        decoded.is_ok()
    },
};

pub const HEARTBEAT: Target = Target {
    seeds: || {
        let place = heartbeat::place(CLUSTER, PARTITION, node(3));
        vec![record_of(&HeartbeatRecord::unused(node(3)).encode(place))]
    },
    mend: mend_record,
    run: |bytes| {
        let place = heartbeat::place(CLUSTER, PARTITION, node(3));
        let decoded = HeartbeatRecord::decode(&block_of(bytes), node(3), place);
        if let Ok(record) = &decoded {
            let again = record.encode(place);
            assert_eq!(HeartbeatRecord::decode(&again, node(3), place).as_ref(), Ok(record));
        }
        decoded.is_ok()
    },
};

pub const ARBITER_HELLO: Target = Target {
    seeds: || {
        let life = Member { node: node(3), incarnation: Incarnation(4) };
        let hello = Hello {
            cluster: CLUSTER,
            device: DeviceId([9; 16]),
            key: Some(Key::of(life)),
            nonce: 5,
            channel: 1,
            area_blocks: 256,
        };
        vec![hello.encode().to_vec(), Hello { key: None, ..hello }.encode().to_vec()]
    },
    mend: no_checksum,
    run: |bytes| {
        let decoded = Hello::decode(bytes);
        if let Ok(hello) = &decoded {
            assert_eq!(Hello::decode(&hello.encode()).as_ref(), Ok(hello));
        }
        decoded.is_ok()
    },
};

pub const ARBITER_WELCOME: Target = Target {
    seeds: || {
        let welcome = Welcome {
            device_blocks: 1 << 30,
            server_start: 3,
            requests_max: 1024,
            incarnation_min: Incarnation(2),
            incarnation_newest: Incarnation(4),
        };
        let answers = [Ok(welcome), Err(HelloRefusal::Fenced), Err(HelloRefusal::ShuttingDown)];
        answers.into_iter().map(|answer| Welcome::encode(answer).to_vec()).collect()
    },
    mend: no_checksum,
    run: |bytes| {
        let decoded = Welcome::decode(bytes);
        if let Ok(answer) = &decoded {
            assert_eq!(Welcome::decode(&Welcome::encode(*answer)).as_ref(), Ok(answer));
        }
        decoded.is_ok()
    },
};

pub const ARBITER_REQUEST: Target = Target {
    seeds: || {
        let transfer = Transfer { block: 1 << 40, count: 256, area_block: 7 };
        let victim = Victim { node: node(64), up_to: Incarnation(9) };
        let requests = [
            Request::Read(transfer),
            Request::Write { transfer, durable: true },
            Request::Flush,
            Request::Fence { victim },
            Request::List { area_block: 1 },
            Request::Counters { area_block: 2 },
            Request::Ping,
        ];
        requests.iter().zip(1..).map(|(request, id)| request.encode(id).to_vec()).collect()
    },
    mend: no_checksum,
    run: |bytes| {
        let decoded = Request::decode(bytes);
        if let Ok((id, request)) = &decoded {
            assert_eq!(Request::decode(&request.encode(*id)).as_ref(), Ok(&(*id, *request)));
        }
        decoded.is_ok()
    },
};

pub const ARBITER_REPLY: Target = Target {
    seeds: || {
        let statuses = [Status::Done, Status::Fenced, Status::Io { errno: 5 }, Status::TooMany];
        statuses.map(|status| Reply { id: 6, status }.encode().to_vec()).into()
    },
    mend: no_checksum,
    run: |bytes| {
        let decoded = Reply::decode(bytes);
        if let Some(reply) = &decoded {
            assert_eq!(Reply::decode(&reply.encode()).as_ref(), Some(reply));
        }
        decoded.is_some()
    },
};

/// What LIST and COUNTERS put into shared memory.
pub const ARBITER_REPORTS: Target = Target {
    seeds: || {
        let report = NodeReport {
            node: node(5),
            incarnation_min: Incarnation(2),
            incarnation_newest: Incarnation(4),
            sessions: 2,
            writes_executing: 1,
            writes_refused: 9,
            others_refused: 8,
        };
        let counters = Counters { reads: 4, ..Counters::default() };
        let blocks = [encode_list(&[report; 64]), encode_list(&[report]), counters.encode()];
        blocks.map(|block| block.0.to_vec()).into()
    },
    mend: no_checksum,
    run: |bytes| {
        let block = block_of(bytes);
        let (list, counters) = (decode_list(&block), Counters::decode(&block));
        if let Some(list) = list.as_ref().filter(|list| list.len() <= 64) {
            assert_eq!(decode_list(&encode_list(list)).as_ref(), Some(list));
        }
        if let Some(counters) = &counters {
            assert_eq!(Counters::decode(&counters.encode()).as_ref(), Some(counters));
        }
        list.is_some() || counters.is_some()
    },
};
