//! What lock managers send each other.

use dlm::advisory::{
    Access, AskedClaim, Claim, ClaimId, Conflict, Family, How, Owner, ReportedClaim, Span, Verdict,
    Wait,
};
use dlm::message::{BucketEpoch, BucketName, LimboName, ReportedLock};
use dlm::rebuild::welcome::Welcome;
use dlm::{Bucket, Bundle, Denial, LockId, LockspaceId, Message, Mode, ResourceName, ValueBlock};
use mx_base::{Incarnation, Member, NodeId, SanGeneration, View, ViewId};

use crate::{Target, no_checksum};

fn member(id: u16) -> Member {
    Member { node: NodeId::new(id).expect("in range"), incarnation: Incarnation(3) }
}

fn messages() -> Vec<Message> {
    let bucket = Bucket::new(4095).expect("in range");
    let at = BucketEpoch { bucket, epoch: ViewId(9) };
    let lock = LockId(77);
    let name = ResourceName::new(b"\x01resource name").expect("short");
    let value = || ValueBlock::new(&[5; 32]).map(Box::new);
    let (view, dead) = (ViewId(9), member(2));
    let id = ClaimId(31);
    let owner = Owner { family: Family::Ranges, id: 32 };
    let span = Span::new(33, u64::MAX).expect("in order");
    let how = How::Wait { detect: true };
    let claim = Claim { owner, via: 0, pid: 34, span, access: Access::Write, how };
    let conflict = Conflict { holder: dead, pid: 34, span, access: Access::Read };
    let wait = Wait { member: dead, owner: 32, id, stamp: 4, bucket, name };
    let asked = AskedClaim { id, how: How::Try, stamp: 4 };
    let report =
        |asked| ReportedClaim { bucket, name, owner, pid: 34, span, access: Access::Read, asked };
    vec![
        Message::Request { at, lock, name, wanted: Mode::EX, no_queue: true },
        Message::Convert { at, lock, name, wanted: Mode::PR, no_queue: false },
        Message::Lower { at, lock, name, to: Mode::CR, grants: 4, value: value() },
        Message::Unlock { at, lock, name, value: None },
        Message::Cancel { at, lock, name },
        Message::Granted { at, lock, mode: Mode::PW, lowers: 3, value: value() },
        Message::Denied { at, lock, reason: Denial::WouldWait },
        Message::Callout { at, lock, wanted: Mode::EX, waiters: 2 },
        Message::Report {
            epoch: ViewId(9),
            locks: vec![
                ReportedLock {
                    bucket,
                    name,
                    lock,
                    held: Some(Mode::EX),
                    wanted: None,
                    no_queue: false,
                    value: value(),
                },
                ReportedLock {
                    bucket,
                    name,
                    lock,
                    held: None,
                    wanted: Some(Mode::PR),
                    no_queue: false,
                    value: None,
                },
            ],
        },
        Message::ReportEnd { view },
        Message::LiveNames { view, dead, names: vec![BucketName { bucket, name }; 2], last: true },
        Message::InLimbo {
            view,
            dead,
            names: vec![LimboName { bucket, name, waited: true }],
            last: false,
        },
        Message::Released { view, dead, names: vec![BucketName { bucket, name }] },
        Message::Recovered { view, dead },
        Message::RecoveredSeen { view, dead },
        Message::Claim { at, id, name, claim, stamp: 4 },
        Message::ClaimLower { at, id, name, owner, span, to: Some(Access::Read) },
        Message::ClaimCancel { at, id, name },
        Message::ClaimAnswer { at, id, verdict: Verdict::Held(conflict) },
        Message::ClaimReport { epoch: view, claims: vec![report(None), report(Some(asked))] },
        Message::Trace { view, path: vec![wait; 2], owner: 5, budget: 9 },
        Message::Follow { at, path: vec![wait], budget: 9 },
        Message::Confirm { at, cycle: vec![wait; 3], position: 2 },
    ]
}

fn encoded(message: &Message, lockspace: LockspaceId) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(lockspace, &mut bytes);
    bytes
}

pub const MESSAGE: Target = Target {
    seeds: || messages().iter().map(|message| encoded(message, LockspaceId(6))).collect(),
    mend: no_checksum,
    run: |bytes| {
        let decoded = Message::decode(bytes);
        if let Ok((lockspace, message)) = &decoded {
            assert_eq!(encoded(message, *lockspace), bytes, "one message has one encoding");
        }
        decoded.is_ok()
    },
};

fn bundled(messages: &[Message], lockspace: LockspaceId) -> Vec<u8> {
    let mut bundle = Bundle::new(lockspace, &messages[0]);
    assert!(messages[1..].iter().all(|message| bundle.push(message)), "it fits");
    bundle.payload().to_vec()
}

/// What a lock frame carries: a message, or several.
pub const BUNDLE: Target = Target {
    seeds: || {
        let messages = messages();
        let all = bundled(&messages, LockspaceId(6));
        let pairs = messages.windows(2).map(|pair| bundled(pair, LockspaceId(6)));
        let alone = messages.iter().map(|message| encoded(message, LockspaceId(6)));
        std::iter::once(all).chain(pairs).chain(alone).collect()
    },
    mend: no_checksum,
    run: |bytes| {
        let decoded = Bundle::decode(bytes);
        if let Ok((lockspace, messages)) = &decoded {
            assert_eq!(bundled(messages, *lockspace), bytes, "one payload has one encoding");
        }
        decoded.is_ok()
    },
};

/// The lock tables' part of what a joiner is given.
pub const WELCOME: Target = Target {
    seeds: || {
        let view = View::new(ViewId(5), SanGeneration(8), vec![member(1)]);
        vec![Welcome::cold(&view, &[member(2), member(3)], true).encode()]
    },
    mend: no_checksum,
    run: |bytes| {
        let decoded = Welcome::decode(bytes);
        if let Ok(welcome) = &decoded {
            assert_eq!(Welcome::decode(&welcome.encode()).as_ref(), Ok(welcome));
        }
        decoded.is_ok()
    },
};
