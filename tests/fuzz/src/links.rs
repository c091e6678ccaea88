//! What other nodes send: frames, handshake, heartbeats, control messages.

use std::collections::BTreeMap;

use cluster::frame::{Decoder, Frame, Kind};
use cluster::handshake::{Hello, Refusal, StartNonce, Versions};
use cluster::heartbeat::{Flags, Ping};
use cluster::wire::{Control, JoinRefusal, SanEvent, SanReport, SanState};
use cluster::{LockspaceId, MountState, NodeSet, Phase, RegisterValue};
use mx_base::{ClusterId, FsId, Incarnation, Member, NodeId, SanGeneration, SlotId, ViewId};

use crate::{Target, no_checksum};

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn member(id: u16, incarnation: u32) -> Member {
    Member { node: node(id), incarnation: Incarnation(incarnation) }
}

fn start(nonce: u64) -> StartNonce {
    StartNonce::new(nonce).expect("not zero")
}

/// A stream of frames after the handshake, in pieces.
pub const FRAMES: Target = Target {
    seeds: || {
        let frame = |kind, sequence, payload: &[u8]| Frame {
            version: 1,
            kind,
            lockspace: LockspaceId(7),
            sequence,
            ack: 3,
            payload: payload.into(),
        };
        let frames = [
            frame(Kind::Hello, 0, &[1; 40]),
            frame(Kind::Ping, 0, &[2; 40]),
            frame(Kind::Lock, 1, b"lock"),
            frame(Kind::Control, 2, &[3; 100]),
            frame(Kind::Ack, 0, b""),
        ];
        let mut seeds: Vec<Vec<u8>> = frames.iter().map(Frame::to_bytes).collect();
        seeds.push(frames.iter().flat_map(Frame::to_bytes).collect());
        seeds
    },
    mend: no_checksum,
    run: |bytes| {
        let mut whole = Vec::new();
        let mut error = None;
        let mut decoder = Decoder::new();
        decoder.allow_all();
        decoder.push(bytes);
        while error.is_none() {
            match decoder.next_frame() {
                Ok(Some(frame)) => whole.push(frame),
                Ok(None) => break,
                Err(found) => error = Some(found),
            }
        }
        // In pieces the same comes out.
        let mut pieces = Vec::new();
        let mut decoder = Decoder::new();
        decoder.allow_all();
        'all: for piece in bytes.chunks(13) {
            decoder.push(piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => pieces.push(frame),
                    Ok(None) => break,
                    Err(found) => {
                        assert_eq!(error, Some(found));
                        break 'all;
                    }
                }
            }
        }
        assert_eq!(whole, pieces);
        let again: Vec<u8> = whole.iter().flat_map(Frame::to_bytes).collect();
        assert_eq!(bytes[..again.len()], again);
        error.is_none() && again.len() == bytes.len()
    },
};

pub const HELLO: Target = Target {
    seeds: || {
        let hello = Hello {
            cluster: ClusterId([7; 16]),
            versions: Versions { min: 1, max: 3 },
            node: node(1),
            incarnation: Some(Incarnation(5)),
            start: start(9),
            to: node(64),
        };
        vec![hello.to_bytes(), Hello { incarnation: None, ..hello }.to_bytes()]
    },
    mend: no_checksum,
    run: |bytes| {
        let hello = Hello::from_bytes(bytes);
        if let Ok(hello) = hello {
            assert_eq!(Hello::from_bytes(&hello.to_bytes()), Ok(hello));
        }
        hello.is_ok()
    },
};

pub const REFUSAL: Target = Target {
    seeds: || {
        vec![
            Refusal::ForeignCluster.to_bytes(),
            Refusal::Version { min: 1, max: 2 }.to_bytes(),
            Refusal::StaleIncarnation { newest: Incarnation(7) }.to_bytes(),
        ]
    },
    mend: no_checksum,
    run: |bytes| {
        let refusal = Refusal::from_bytes(bytes);
        if let Ok(refusal) = refusal {
            assert_eq!(Refusal::from_bytes(&refusal.to_bytes()), Ok(refusal));
        }
        refusal.is_ok()
    },
};

pub const PING: Target = Target {
    seeds: || {
        let reach: NodeSet = [node(1), node(64)].into_iter().collect();
        let flags = Flags { member: true, storage_ok: true, leaving: false };
        let (view, generation) = (ViewId(3), SanGeneration(4));
        vec![Ping { sequence: 1, view, generation, reach, flags }.to_bytes()]
    },
    mend: no_checksum,
    run: |bytes| {
        let ping = Ping::from_bytes(bytes);
        if let Some(ping) = ping {
            assert_eq!(Ping::from_bytes(&ping.to_bytes()), Some(ping));
        }
        ping.is_some()
    },
};

fn controls() -> Vec<Control> {
    let value = RegisterValue {
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
    };
    let fs = FsId([0xaa; 16]);
    let ready = MountState::Ready { lockspace: LockspaceId(2), slot: SlotId(1) };
    let state = SanState {
        view: ViewId(4),
        sequence: 3,
        mounts: BTreeMap::from([(fs, BTreeMap::from([(member(1, 2), ready)]))]),
        lockspace_high: 2,
        dead: Vec::new(),
    };
    vec![
        Control::JoinRequest {
            generation: SanGeneration(300),
            storage_ok: true,
            incarnation: Incarnation(9),
        },
        Control::JoinRefused(JoinRefusal::LifeUsed { newest: Incarnation(7) }),
        Control::Committed(Box::new(value.clone())),
        Control::JoinState { view: ViewId(4), layer: 1, id: 2, bytes: vec![1; 20] },
        Control::Welcome {
            value: Box::new(value),
            starts: BTreeMap::from([(member(1, 2), start(11)), (member(3, 1), start(33))]),
            state: Box::new(state.clone()),
        },
        Control::SanReport(Box::new(SanReport {
            view: ViewId(4),
            mounts: BTreeMap::from([(fs, MountState::Asked)]),
            lockspace_high: 2,
            dead: Vec::new(),
            replaying: vec![(member(2, 7), fs)],
        })),
        Control::SanState(Box::new(state)),
        Control::SanEvent { view: ViewId(4), event: SanEvent::Fenced { dead: member(2, 7) } },
        Control::MountGranted { view: ViewId(4), fs, lockspace: LockspaceId(2), first: true },
    ]
}

pub const CONTROL: Target = Target {
    seeds: || {
        let mut seeds: Vec<Vec<u8>> = controls().iter().map(Control::to_bytes).collect();
        // A proposal, an objection and an order, as the specification has them.
        let mut proposal = vec![2, 1, 2, 9, 0xac, 0x02, 4, 1, 1, 1, 2, 2, 1, 2, 3, 1, 1, 2, 7];
        proposal.extend([3, 1, 2, 2, 7, 3, 1, 1, 5, 1, 0, 4, 2, 1, 2, 11, 5, 1, 55]);
        seeds.push(proposal);
        seeds.push(vec![4, 1, 2, 9, 1, 4]);
        seeds.push(vec![6, 4, 4, 1, 5, 1, 0, 4]);
        seeds
    },
    mend: no_checksum,
    run: |bytes| {
        let control = Control::from_bytes(bytes);
        if let Ok(control) = &control {
            assert_eq!(Control::from_bytes(&control.to_bytes()).as_ref(), Ok(control));
        }
        control.is_ok()
    },
};
