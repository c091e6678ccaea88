//! Control messages: golden bytes, round trips, and bytes that are none.

use mx_base::{Incarnation, NodeId};

use super::*;
use crate::nodes::NodeSet;
use crate::register::Phase;

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn member(id: u16, incarnation: u32) -> Member {
    Member { node: node(id), incarnation: Incarnation(incarnation) }
}

fn start(nonce: u64) -> StartNonce {
    StartNonce::new(nonce).expect("not zero")
}

fn value() -> RegisterValue {
    RegisterValue {
        generation: SanGeneration(300),
        view: ViewId(4),
        phase: Phase::Fencing,
        administrator: Some(member(1, 2)),
        members: vec![member(1, 2), member(3, 1)],
        victims: BTreeMap::from([(node(2), Incarnation(7))]),
        incarnations: BTreeMap::from([
            (node(1), Incarnation(2)),
            (node(2), Incarnation(7)),
            (node(3), Incarnation(1)),
        ]),
    }
}

/// Of [`value`]: the value that the golden bytes of several messages contain.
#[rustfmt::skip]
const VALUE: [u8; 27] = [
    0xac, 0x02,                               // generation 300
    4,                                        // view
    1,                                        // phase: fencing
    1, 1, 2,                                  // administrator n1.2
    2, 1, 2, 3, 1,                            // members n1.2, n3.1
    1, 2, 7,                                  // victims: n2 up to 7
    3, 1, 2, 2, 7, 3, 1,                      // incarnations
    0, 0, 0, 0, 0,
];

fn dead() -> DeadRecord {
    DeadRecord {
        member: member(2, 7),
        dropped_in: ViewId(4),
        fenced: true,
        scoped: true,
        file_systems: BTreeMap::from([(
            FsId([0xaa; 16]),
            ProgressRecord {
                slot: Some(SlotId(5)),
                recoverer: Some(member(3, 1)),
                attempt: 1,
                rebuilt: true,
                ending: Some(Ending::Isolated),
                resumed: false,
            },
        )]),
    }
}

fn proposal() -> Proposal {
    Proposal {
        round: RoundId { coordinator: member(1, 2), number: 9 },
        base: value(),
        regroup: Regroup {
            joins: vec![member(5, 1)],
            leaves: NodeSet::EMPTY,
            victims: [node(3)].into_iter().collect(),
        },
        starts: BTreeMap::from([(member(1, 2), start(11)), (member(5, 1), start(55))]),
    }
}

fn state() -> SanState {
    let ready = MountState::Ready { lockspace: LockspaceId(2), slot: SlotId(1) };
    let group = BTreeMap::from([
        (member(1, 2), ready),
        (member(3, 1), MountState::Granted { lockspace: LockspaceId(2), first: false }),
    ]);
    SanState {
        view: ViewId(4),
        sequence: 3,
        mounts: BTreeMap::from([(FsId([0xaa; 16]), group)]),
        lockspace_high: 2,
        dead: vec![dead()],
    }
}

/// One of each.
fn all() -> Vec<Control> {
    let round = proposal().round;
    let boxed = || Box::new(value());
    let fs = FsId([0xaa; 16]);
    vec![
        Control::JoinRequest {
            generation: SanGeneration(300),
            storage_ok: true,
            incarnation: Incarnation(200),
        },
        Control::JoinRefused(JoinRefusal::GenerationMismatch { theirs: 1, ours: 300 }),
        Control::Propose(Box::new(proposal())),
        Control::Agree { round, storage_ok: true },
        Control::Object { round, objection: Objection::Behind(boxed()) },
        Control::Object {
            round,
            objection: Objection::Unreachable([node(64)].into_iter().collect()),
        },
        Control::Withdraw { round },
        Control::Order { order: 4, base_view: ViewId(4), regroup: proposal().regroup },
        Control::OrderDone { order: 4, outcome: OrderOutcome::Refused(boxed()) },
        Control::Committed(boxed()),
        Control::JoinState { view: ViewId(4), layer: 1, id: 2, bytes: vec![0xfe, 0xff] },
        Control::Welcome {
            value: boxed(),
            starts: BTreeMap::from([(member(1, 2), start(11)), (member(3, 1), start(33))]),
            state: Box::new(state()),
        },
        Control::SanReport(Box::new(SanReport {
            view: ViewId(4),
            mounts: BTreeMap::from([(fs, MountState::Asked)]),
            lockspace_high: 2,
            dead: vec![dead()],
            replaying: vec![(member(2, 7), fs)],
        })),
        Control::SanState(Box::new(state())),
        Control::SanEvent { view: ViewId(4), event: SanEvent::Fenced { dead: member(2, 7) } },
        Control::MountGranted { view: ViewId(4), fs, lockspace: LockspaceId(2), first: true },
        Control::JoinRefused(JoinRefusal::LifeUsed { newest: Incarnation(300) }),
    ]
}

#[test]
fn every_message_survives_the_wire() {
    for control in all() {
        assert_eq!(Control::from_bytes(&control.to_bytes()), Ok(control));
    }
}

#[test]
fn the_bytes_of_messages_are_those_of_the_specification() {
    let bytes = |control: &Control| control.to_bytes();
    assert_eq!(bytes(&all()[0]), [0, 0xac, 0x02, 1, 0xc8, 0x01]);
    assert_eq!(bytes(&all()[1]), [1, 1, 1, 0xac, 0x02]);
    assert_eq!(bytes(&all()[3]), [3, 1, 2, 9, 1]);
    assert_eq!(bytes(&all()[6]), [5, 1, 2, 9]);
    assert_eq!(bytes(&all()[7]), [6, 4, 4, 1, 5, 1, 0, 4]);
    let mut committed = vec![8];
    committed.extend(&VALUE[..22]);
    assert_eq!(bytes(&all()[9]), committed);
    assert_eq!(bytes(&all()[10]), [9, 4, 1, 2, 2, 0xfe, 0xff]);
    assert_eq!(bytes(&all()[14]), [13, 4, 0, 2, 7]);
    let mut granted = vec![14, 4];
    granted.extend([0xaa; 16]);
    granted.extend([2, 1]);
    assert_eq!(bytes(&all()[15]), granted);
    assert_eq!(bytes(&all()[16]), [1, 4, 0xac, 0x02]);
    let mut proposal = vec![2, 1, 2, 9];
    proposal.extend(&VALUE[..22]);
    proposal.extend([1, 5, 1, 0, 4, 2, 1, 2, 11, 5, 1, 55]);
    assert_eq!(bytes(&all()[2]), proposal);
}

#[test]
fn values_out_of_range_and_maps_out_of_order_are_refused() {
    let agree = Control::Agree { round: proposal().round, storage_ok: true }.to_bytes();
    for node in [0, 65] {
        let mut bytes = agree.clone();
        bytes[1] = node;
        assert_eq!(Control::from_bytes(&bytes), Err(ControlError::Encoding));
    }
    let mut bytes = Control::Committed(Box::new(value())).to_bytes();
    let incarnations = bytes.len() - 6;
    bytes.swap(incarnations, incarnations + 2);
    bytes.swap(incarnations + 1, incarnations + 3);
    assert_eq!(Control::from_bytes(&bytes), Err(ControlError::Encoding));
}

#[test]
fn messages_that_contradict_themselves_are_refused() {
    let refused = |control: Control| {
        let result = Control::from_bytes(&control.to_bytes());
        assert_eq!(result, Err(ControlError::Contradiction), "{control:?}");
    };
    let mut twice = value();
    twice.members = vec![member(1, 2), member(1, 2)];
    refused(Control::Committed(Box::new(twice)));
    let mut stranger = proposal();
    stranger.round.coordinator = member(9, 1);
    refused(Control::Propose(Box::new(stranger)));
    let mut reused = proposal();
    reused.regroup.joins = vec![member(2, 7)];
    reused.starts.insert(member(2, 7), start(5));
    refused(Control::Propose(Box::new(reused)));
    let mut unknown_start = proposal();
    unknown_start.starts.clear();
    refused(Control::Propose(Box::new(unknown_start)));
    let mut contrary = proposal();
    contrary.regroup.leaves = contrary.regroup.victims;
    refused(Control::Propose(Box::new(contrary)));
}

#[test]
fn nothing_may_follow_a_message() {
    let mut bytes = all()[0].to_bytes();
    bytes.push(0);
    assert_eq!(Control::from_bytes(&bytes), Err(ControlError::Rest { rest: 1 }));
}

/// A small generator, so that the same bytes are tried every time.
fn noise(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn no_bytes_make_the_decoder_panic() {
    let mut seed = 1;
    let messages: Vec<Vec<u8>> = all().iter().map(Control::to_bytes).collect();
    for message in &messages {
        for cut in 0..message.len() {
            assert!(Control::from_bytes(&message[..cut]).is_err());
        }
    }
    for round in 0..30_000 {
        let mut bytes = messages[round % messages.len()].clone();
        for _ in 0..=noise(&mut seed) % 4 {
            let at = usize::try_from(noise(&mut seed)).expect("31 bits") % bytes.len();
            bytes[at] = noise(&mut seed).to_le_bytes()[0];
        }
        // What is accepted can be written again.
        if let Ok(control) = Control::from_bytes(&bytes) {
            assert_eq!(Control::from_bytes(&control.to_bytes()), Ok(control));
        }
    }
}

/// A length of four thousand million is refused for want of bytes, not tried.
#[test]
fn a_count_that_lies_holds_no_memory() {
    let mut bytes = vec![2, 1, 2, 9];
    bytes.extend(&VALUE[..7]);
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(Control::from_bytes(&bytes), Err(ControlError::Encoding));
}

/// As many members, dead and file systems as there can be.
#[test]
fn the_largest_state_fits_a_frame() {
    let lives = |ids: std::ops::RangeInclusive<u16>| ids.map(|id| member(id, u32::MAX));
    let ready = MountState::Ready { lockspace: LockspaceId(u32::MAX), slot: SlotId(u16::MAX) };
    let files = (0..crate::san::FILE_SYSTEMS_MAX).map(|n| {
        let mut id = [0xff; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        FsId(id)
    });
    let files: Vec<FsId> = files.collect();
    let progress = ProgressRecord {
        slot: Some(SlotId(u16::MAX)),
        recoverer: Some(member(64, u32::MAX)),
        attempt: u32::MAX,
        rebuilt: true,
        ending: Some(Ending::Replayed),
        resumed: true,
    };
    let record = |dead: Member| DeadRecord {
        member: dead,
        dropped_in: ViewId(u64::MAX),
        fenced: true,
        scoped: true,
        file_systems: files.iter().map(|fs| (*fs, progress)).collect(),
    };
    let group: BTreeMap<Member, MountState> = lives(1..=64).map(|m| (m, ready)).collect();
    let state = SanState {
        view: ViewId(u64::MAX),
        sequence: u64::MAX,
        mounts: files.iter().map(|fs| (*fs, group.clone())).collect(),
        lockspace_high: u32::MAX,
        dead: lives(1..=63).map(record).collect(),
    };
    let bytes = Control::SanState(Box::new(state)).to_bytes();
    assert!(bytes.len() <= crate::frame::PAYLOAD_MAX, "{} bytes", bytes.len());
}
