//! The fixed parts of messages, byte by byte; little-endian, no padding, no alignment.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Every message begins with this.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// 0 in messages that are about no bucket or about several.
    pub(super) bucket: U16,
    pub(super) lockspace: U32,
    /// The epoch of the bucket, or the view.
    pub(super) epoch: U64,
}

/// Request, Convert, Lower, Unlock, Cancel, Granted, Denied, Callout. A value block follows when
/// the flag says so: its length (1 byte), its bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct LockBody {
    pub(super) lock: U64,
    /// grants of a Lower, lowers of a Granted, waiters of a Callout, else 0.
    pub(super) count: U32,
    /// wanted, to, mode; the reason of a Denied; else 0.
    pub(super) mode: u8,
    pub(super) zero: [u8; 3],
}

/// After the LockBody of the five messages to a home, and inside names and reports: the length,
/// then the bytes, then zeros.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct NameField {
    pub(super) len: u8,
    pub(super) bytes: [u8; 31],
}

/// One entry of a Report; its value block's bytes follow.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ReportField {
    pub(super) bucket: U16,
    /// 0xff: never granted.
    pub(super) held: u8,
    /// 0xff: waits for nothing.
    pub(super) wanted: u8,
    pub(super) flags: u8,
    /// 0xff: no value block.
    pub(super) value_len: u8,
    pub(super) zero: [u8; 2],
    pub(super) lock: U64,
    pub(super) name: NameField,
}

/// A member; what follows the head of the recovery messages.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct MemberField {
    pub(super) node: U16,
    pub(super) zero: [u8; 2],
    pub(super) incarnation: U32,
}

/// One entry of LiveNames, InLimbo, Released.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BucketNameField {
    pub(super) bucket: U16,
    pub(super) flags: u8,
    pub(super) zero: u8,
    pub(super) name: NameField,
}

/// Claim and ClaimLower; the name follows.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ClaimBody {
    pub(super) id: U64,
    /// 0 in a ClaimLower.
    pub(super) stamp: U64,
    pub(super) owner: U64,
    pub(super) start: U64,
    /// The last byte, included.
    pub(super) end: U64,
    /// 0 in a ClaimLower.
    pub(super) pid: U32,
    /// 0 whole, 1 ranges.
    pub(super) family: u8,
    /// 0 read, 1 write; 0xff in a ClaimLower to nothing.
    pub(super) access: u8,
    /// 0 test, 1 try, 2 wait, 3 wait and detect cycles; 0 in a ClaimLower.
    pub(super) how: u8,
    pub(super) zero: u8,
}

/// ClaimAnswer.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct AnswerBody {
    pub(super) id: U64,
    /// 0 granted, 1 would wait, 2 cancelled, 3 deadlock, 4 too many, 5 free, 6 held.
    pub(super) verdict: u8,
    /// From here on 0 but where it is held.
    pub(super) access: u8,
    pub(super) zero: [u8; 2],
    pub(super) pid: U32,
    pub(super) start: U64,
    pub(super) end: U64,
    pub(super) holder: MemberField,
}

/// One entry of a ClaimReport.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ClaimReportField {
    pub(super) bucket: U16,
    pub(super) family: u8,
    pub(super) access: u8,
    /// 0xff: held.
    pub(super) how: u8,
    pub(super) zero: [u8; 3],
    pub(super) owner: U64,
    /// This and the stamp are 0 where it is held.
    pub(super) id: U64,
    pub(super) stamp: U64,
    pub(super) start: U64,
    pub(super) end: U64,
    pub(super) pid: U32,
    pub(super) zero2: [u8; 4],
    pub(super) name: NameField,
}

/// Trace, Follow and Confirm; 1 to 32 waits follow.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct SearchBody {
    /// Of a Trace, else 0.
    pub(super) owner: U64,
    /// The budget; of a Confirm the position.
    pub(super) number: U16,
    pub(super) zero: [u8; 6],
}

/// One wait.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct WaitField {
    pub(super) member: MemberField,
    pub(super) owner: U64,
    pub(super) id: U64,
    pub(super) stamp: U64,
    pub(super) bucket: U16,
    pub(super) zero: [u8; 6],
    pub(super) name: NameField,
}

/// Before the messages of a bundle.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BundleHead {
    pub(super) kind: u8,
    pub(super) zero: u8,
    pub(super) count: U16,
    /// That of every message in it.
    pub(super) lockspace: U32,
}

/// Before each message of a bundle: its length.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct EntryLen {
    pub(super) bytes: U32,
}

const _: () = assert!(size_of::<Head>() == 16);
const _: () = assert!(size_of::<LockBody>() == 16);
const _: () = assert!(size_of::<NameField>() == 32);
const _: () = assert!(size_of::<ReportField>() == 48);
const _: () = assert!(size_of::<MemberField>() == 8);
const _: () = assert!(size_of::<BucketNameField>() == 36);
const _: () = assert!(size_of::<ClaimBody>() == 48);
const _: () = assert!(size_of::<AnswerBody>() == 40);
const _: () = assert!(size_of::<ClaimReportField>() == 88);
const _: () = assert!(size_of::<SearchBody>() == 16);
const _: () = assert!(size_of::<WaitField>() == 72);
const _: () = assert!(size_of::<BundleHead>() == 8);
const _: () = assert!(size_of::<EntryLen>() == 4);
