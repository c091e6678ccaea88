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
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
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
const _: () = assert!(size_of::<BundleHead>() == 8);
const _: () = assert!(size_of::<EntryLen>() == 4);
