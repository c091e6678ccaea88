//! Messages to bytes and back. The encoding is canonical: what decodes encodes to the same bytes.

mod claims;

use mx_base::{Incarnation, Member, NodeId, ViewId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{BucketNameField, Head, LockBody, MemberField, NameField, ReportField};
use super::{BucketEpoch, BucketName, Kind, LimboName, LockspaceId, Message, ReportedLock};
use crate::lock::{Denial, LockId};
use crate::mode::Mode;
use crate::name::{Bucket, ResourceName};
use crate::value_block::ValueBlock;

const FLAG_NONE: u8 = 0;
const FLAG_VALUE: u8 = 1;
const FLAG_NO_QUEUE: u8 = 2;
const FLAG_LAST: u8 = 4;
const ENTRY_WAITED: u8 = 1;
const ENTRY_NO_QUEUE: u8 = 2;
const NONE: u8 = 0xff;

/// Why bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{0} bytes are more than any message has")]
    TooLong(usize),
    #[error("ends {missing} bytes too early")]
    Short { missing: usize },
    #[error("{0} bytes left over")]
    Trailing(usize),
    #[error("kind {0} is unknown")]
    Kind(u8),
    #[error("flags {flags:#x} do not belong to {kind:?}")]
    Flags { kind: Kind, flags: u8 },
    #[error("bucket {0} is out of range")]
    Bucket(u16),
    #[error("mode {0} is unknown")]
    Mode(u8),
    #[error("reason {0} is unknown")]
    Reason(u8),
    #[error("name of {0} bytes, or not filled up with zeros")]
    Name(u8),
    #[error("value block of {0} bytes")]
    Value(u8),
    #[error("node {0} is out of range")]
    Node(u16),
    #[error("bytes that must be zero are not")]
    NotZero,
    #[error("a bundle of {0} messages, or a path of so many waits")]
    Count(u16),
    #[error("a range that ends before it begins")]
    Span,
    #[error("a message of lock space {} in a bundle of another", .0.0)]
    OtherLockspace(LockspaceId),
}

impl Message {
    /// Appends the message's bytes to `out`.
    ///
    /// # Panics
    /// When it would be longer than [`Message::MAX`]: senders split ([`Message::reports`]).
    pub fn encode(&self, lockspace: LockspaceId, out: &mut Vec<u8>) {
        let start = out.len();
        let head = |flags: u8, bucket: u16, epoch: ViewId| Head {
            kind: self.kind() as u8,
            flags,
            bucket: U16::new(bucket),
            lockspace: U32::new(lockspace.0),
            epoch: U64::new(epoch.0),
        };
        let mut lock_message = |at: &BucketEpoch,
                                flags: u8,
                                lock: LockId,
                                count: u32,
                                mode: u8,
                                name: Option<&ResourceName>,
                                value: Option<&ValueBlock>| {
            let flags = flags | if value.is_some() { FLAG_VALUE } else { 0 };
            put(out, &head(flags, at.bucket.get(), at.epoch));
            let (lock, count) = (U64::new(lock.0), U32::new(count));
            put(out, &LockBody { lock, count, mode, zero: [0; 3] });
            if let Some(name) = name {
                put(out, &name_field(name));
            }
            if let Some(value) = value {
                out.push(value_len(value));
                out.extend_from_slice(value.as_bytes());
            }
        };
        let no_queue_flag = |no_queue: bool| if no_queue { FLAG_NO_QUEUE } else { 0 };
        let last_flag = |last: bool| if last { FLAG_LAST } else { 0 };
        match self {
            Message::Request { at, lock, name, wanted, no_queue }
            | Message::Convert { at, lock, name, wanted, no_queue } => {
                let flags = no_queue_flag(*no_queue);
                lock_message(at, flags, *lock, 0, *wanted as u8, Some(name), None);
            }
            Message::Lower { at, lock, name, to, grants, value } => {
                lock_message(at, 0, *lock, *grants, *to as u8, Some(name), value.as_deref());
            }
            Message::Unlock { at, lock, name, value } => {
                lock_message(at, 0, *lock, 0, 0, Some(name), value.as_deref());
            }
            Message::Cancel { at, lock, name } => {
                lock_message(at, 0, *lock, 0, 0, Some(name), None);
            }
            Message::Granted { at, lock, mode, lowers, value } => {
                lock_message(at, 0, *lock, *lowers, *mode as u8, None, value.as_deref());
            }
            Message::Denied { at, lock, reason } => {
                lock_message(at, 0, *lock, 0, reason_byte(*reason), None, None);
            }
            Message::Callout { at, lock, wanted, waiters } => {
                lock_message(at, 0, *lock, *waiters, *wanted as u8, None, None);
            }
            Message::Report { epoch, locks } => {
                put(out, &head(0, 0, *epoch));
                locks.iter().for_each(|lock| put_report(out, lock));
            }
            Message::ReportEnd { view } => put(out, &head(0, 0, *view)),
            Message::LiveNames { view, dead, names, last } => {
                put(out, &head(last_flag(*last), 0, *view));
                put(out, &member_field(*dead));
                names.iter().for_each(|n| put(out, &bucket_name_field(n.bucket, &n.name, 0)));
            }
            Message::InLimbo { view, dead, names, last } => {
                put(out, &head(last_flag(*last), 0, *view));
                put(out, &member_field(*dead));
                for n in names {
                    let flags = if n.waited { ENTRY_WAITED } else { 0 };
                    put(out, &bucket_name_field(n.bucket, &n.name, flags));
                }
            }
            Message::Released { view, dead, names } => {
                put(out, &head(0, 0, *view));
                put(out, &member_field(*dead));
                names.iter().for_each(|n| put(out, &bucket_name_field(n.bucket, &n.name, 0)));
            }
            Message::Recovered { view, dead } | Message::RecoveredSeen { view, dead } => {
                put(out, &head(0, 0, *view));
                put(out, &member_field(*dead));
            }
            Message::Claim { at, .. }
            | Message::ClaimLower { at, .. }
            | Message::ClaimCancel { at, .. }
            | Message::ClaimAnswer { at, .. }
            | Message::Follow { at, .. }
            | Message::Confirm { at, .. } => {
                put(out, &head(0, at.bucket.get(), at.epoch));
                self.encode_claim(out);
            }
            Message::ClaimReport { epoch: view, .. } | Message::Trace { view, .. } => {
                put(out, &head(0, 0, *view));
                self.encode_claim(out);
            }
        }
        assert!(out.len() - start <= Message::MAX, "a message is split before it gets too long");
    }

    /// The message in `bytes`, all of them.
    pub fn decode(bytes: &[u8]) -> Result<(LockspaceId, Message), DecodeError> {
        if bytes.len() > Message::MAX {
            return Err(DecodeError::TooLong(bytes.len()));
        }
        let mut input = Input(bytes);
        let head: Head = input.take()?;
        let kind = Kind::from_u8(head.kind).ok_or(DecodeError::Kind(head.kind))?;
        let epoch = ViewId(head.epoch.get());
        let allowed = match kind {
            Kind::Request | Kind::Convert => FLAG_NO_QUEUE,
            Kind::Lower | Kind::Unlock | Kind::Granted => FLAG_VALUE,
            Kind::LiveNames | Kind::InLimbo => FLAG_LAST,
            Kind::Cancel
            | Kind::Denied
            | Kind::Callout
            | Kind::Report
            | Kind::ReportEnd
            | Kind::Released
            | Kind::Recovered
            | Kind::RecoveredSeen
            | Kind::Claim
            | Kind::ClaimLower
            | Kind::ClaimCancel
            | Kind::ClaimAnswer
            | Kind::ClaimReport
            | Kind::Trace
            | Kind::Follow
            | Kind::Confirm => FLAG_NONE,
        };
        if head.flags & !allowed != 0 {
            return Err(DecodeError::Flags { kind, flags: head.flags });
        }
        let no_queue = head.flags & FLAG_NO_QUEUE != 0;
        let last = head.flags & FLAG_LAST != 0;
        let has_value = head.flags & FLAG_VALUE != 0;
        let message = match kind {
            Kind::Request => {
                let LockFields { at, lock, mode, .. } = input.uncounted(&head)?;
                let (name, wanted) = (input.name()?, mode_of(mode)?);
                Message::Request { at, lock, name, wanted, no_queue }
            }
            Kind::Convert => {
                let LockFields { at, lock, mode, .. } = input.uncounted(&head)?;
                let (name, wanted) = (input.name()?, mode_of(mode)?);
                Message::Convert { at, lock, name, wanted, no_queue }
            }
            Kind::Lower => {
                let LockFields { at, lock, mode, count: grants } = input.counted(&head)?;
                let (name, to) = (input.name()?, mode_of(mode)?);
                let value = input.value(has_value)?;
                Message::Lower { at, lock, name, to, grants, value }
            }
            Kind::Unlock => {
                let LockFields { at, lock, mode, .. } = input.uncounted(&head)?;
                must_be_zero(&[mode])?;
                let (name, value) = (input.name()?, input.value(has_value)?);
                Message::Unlock { at, lock, name, value }
            }
            Kind::Cancel => {
                let LockFields { at, lock, mode, .. } = input.uncounted(&head)?;
                must_be_zero(&[mode])?;
                Message::Cancel { at, lock, name: input.name()? }
            }
            Kind::Granted => {
                let LockFields { at, lock, mode, count: lowers } = input.counted(&head)?;
                let (mode, value) = (mode_of(mode)?, input.value(has_value)?);
                Message::Granted { at, lock, mode, lowers, value }
            }
            Kind::Denied => {
                let LockFields { at, lock, mode: reason, .. } = input.uncounted(&head)?;
                Message::Denied { at, lock, reason: reason_of(reason)? }
            }
            Kind::Callout => {
                let LockFields { at, lock, mode, count: waiters } = input.counted(&head)?;
                Message::Callout { at, lock, wanted: mode_of(mode)?, waiters }
            }
            Kind::Report => {
                no_bucket(&head)?;
                Message::Report { epoch, locks: input.until_end(Input::report)? }
            }
            Kind::ReportEnd => {
                no_bucket(&head)?;
                Message::ReportEnd { view: epoch }
            }
            Kind::LiveNames => {
                let dead = input.dead(&head)?;
                let names = input.until_end(Input::bucket_name)?;
                Message::LiveNames { view: epoch, dead, names, last }
            }
            Kind::InLimbo => {
                let dead = input.dead(&head)?;
                let names = input.until_end(Input::limbo_name)?;
                Message::InLimbo { view: epoch, dead, names, last }
            }
            Kind::Released => {
                let dead = input.dead(&head)?;
                let names = input.until_end(Input::bucket_name)?;
                Message::Released { view: epoch, dead, names }
            }
            Kind::Recovered => Message::Recovered { view: epoch, dead: input.dead(&head)? },
            Kind::RecoveredSeen => Message::RecoveredSeen { view: epoch, dead: input.dead(&head)? },
            Kind::Claim
            | Kind::ClaimLower
            | Kind::ClaimCancel
            | Kind::ClaimAnswer
            | Kind::ClaimReport
            | Kind::Trace
            | Kind::Follow
            | Kind::Confirm => input.claim_message(kind, &head)?,
        };
        if !input.0.is_empty() {
            return Err(DecodeError::Trailing(input.0.len()));
        }
        Ok((LockspaceId(head.lockspace.get()), message))
    }

    /// The reports of `locks`, in their order, split so that each fits.
    pub(crate) fn reports(epoch: ViewId, locks: Vec<ReportedLock>) -> Vec<Message> {
        let mut reports = Vec::new();
        let mut chunk = Vec::new();
        let mut len = size_of::<Head>();
        for lock in locks {
            let lock_len =
                size_of::<ReportField>() + lock.value.as_ref().map_or(0, |v| v.as_bytes().len());
            if len + lock_len > Message::MAX {
                reports.push(Message::Report { epoch, locks: std::mem::take(&mut chunk) });
                len = size_of::<Head>();
            }
            len += lock_len;
            chunk.push(lock);
        }
        if !chunk.is_empty() {
            reports.push(Message::Report { epoch, locks: chunk });
        }
        reports
    }

    /// How many names fit into one LiveNames, InLimbo or Released.
    pub(crate) const NAMES_MAX: usize =
        (Message::MAX - size_of::<Head>() - size_of::<MemberField>())
            / size_of::<BucketNameField>();
}

/// What the head and the [`LockBody`] say together.
struct LockFields {
    at: BucketEpoch,
    lock: LockId,
    mode: u8,
    count: u32,
}

pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl Input<'_> {
    pub(super) fn take<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &mut self,
    ) -> Result<T, DecodeError> {
        match T::read_from_prefix(self.0) {
            Ok((value, rest)) => {
                self.0 = rest;
                Ok(value)
            }
            Err(_) => Err(DecodeError::Short { missing: size_of::<T>() - self.0.len() }),
        }
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&[u8], DecodeError> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            return Err(DecodeError::Short { missing: len - self.0.len() });
        };
        self.0 = rest;
        Ok(taken)
    }

    fn until_end<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn counted(&mut self, head: &Head) -> Result<LockFields, DecodeError> {
        let body: LockBody = self.take()?;
        must_be_zero(&body.zero)?;
        let bucket = bucket_of(head.bucket)?;
        let at = BucketEpoch { bucket, epoch: ViewId(head.epoch.get()) };
        let (lock, count) = (LockId(body.lock.get()), body.count.get());
        Ok(LockFields { at, lock, mode: body.mode, count })
    }

    fn uncounted(&mut self, head: &Head) -> Result<LockFields, DecodeError> {
        let fields = self.counted(head)?;
        if fields.count == 0 { Ok(fields) } else { Err(DecodeError::NotZero) }
    }

    fn name(&mut self) -> Result<ResourceName, DecodeError> {
        let field: NameField = self.take()?;
        name_of(&field)
    }

    fn value(&mut self, present: bool) -> Result<Option<Box<ValueBlock>>, DecodeError> {
        if !present {
            return Ok(None);
        }
        let len: u8 = self.take()?;
        self.value_of(len).map(Some)
    }

    fn value_of(&mut self, len: u8) -> Result<Box<ValueBlock>, DecodeError> {
        if usize::from(len) > ValueBlock::MAX {
            return Err(DecodeError::Value(len));
        }
        let bytes = self.bytes(usize::from(len))?;
        ValueBlock::new(bytes).map(Box::new).ok_or(DecodeError::Value(len))
    }

    fn report(&mut self) -> Result<ReportedLock, DecodeError> {
        let field: ReportField = self.take()?;
        must_be_zero(&field.zero)?;
        if field.flags & !ENTRY_NO_QUEUE != 0 {
            return Err(DecodeError::Flags { kind: Kind::Report, flags: field.flags });
        }
        let optional = |byte: u8| if byte == NONE { Ok(None) } else { mode_of(byte).map(Some) };
        let value = match field.value_len {
            NONE => None,
            len => Some(self.value_of(len)?),
        };
        Ok(ReportedLock {
            bucket: bucket_of(field.bucket)?,
            name: name_of(&field.name)?,
            lock: LockId(field.lock.get()),
            held: optional(field.held)?,
            wanted: optional(field.wanted)?,
            no_queue: field.flags & ENTRY_NO_QUEUE != 0,
            value,
        })
    }

    fn member(&mut self) -> Result<Member, DecodeError> {
        let field: MemberField = self.take()?;
        member_of(&field)
    }

    fn dead(&mut self, head: &Head) -> Result<Member, DecodeError> {
        no_bucket(head)?;
        self.member()
    }

    fn bucket_name(&mut self) -> Result<BucketName, DecodeError> {
        let field: BucketNameField = self.take()?;
        must_be_zero(&[field.flags, field.zero])?;
        Ok(BucketName { bucket: bucket_of(field.bucket)?, name: name_of(&field.name)? })
    }

    fn limbo_name(&mut self) -> Result<LimboName, DecodeError> {
        let field: BucketNameField = self.take()?;
        must_be_zero(&[field.zero, field.flags & !ENTRY_WAITED])?;
        Ok(LimboName {
            bucket: bucket_of(field.bucket)?,
            name: name_of(&field.name)?,
            waited: field.flags & ENTRY_WAITED != 0,
        })
    }
}

fn put<T: IntoBytes + Immutable>(out: &mut Vec<u8>, field: &T) {
    out.extend_from_slice(field.as_bytes());
}

fn put_report(out: &mut Vec<u8>, lock: &ReportedLock) {
    let field = ReportField {
        bucket: U16::new(lock.bucket.get()),
        held: lock.held.map_or(NONE, |mode| mode as u8),
        wanted: lock.wanted.map_or(NONE, |mode| mode as u8),
        flags: if lock.no_queue { ENTRY_NO_QUEUE } else { 0 },
        value_len: lock.value.as_deref().map_or(NONE, value_len),
        zero: [0; 2],
        lock: U64::new(lock.lock.0),
        name: name_field(&lock.name),
    };
    put(out, &field);
    if let Some(value) = &lock.value {
        out.extend_from_slice(value.as_bytes());
    }
}

fn name_field(name: &ResourceName) -> NameField {
    let mut field = NameField::new_zeroed();
    let bytes = name.as_bytes();
    field.bytes[..bytes.len()].copy_from_slice(bytes);
    field.len = u8::try_from(bytes.len()).expect("a name has at most 31 bytes");
    field
}

fn name_of(field: &NameField) -> Result<ResourceName, DecodeError> {
    let (used, rest) =
        field.bytes.split_at_checked(usize::from(field.len)).ok_or(DecodeError::Name(field.len))?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(DecodeError::Name(field.len));
    }
    ResourceName::new(used).ok_or(DecodeError::Name(field.len))
}

fn member_field(member: Member) -> MemberField {
    MemberField {
        node: U16::new(member.node.get()),
        zero: [0; 2],
        incarnation: U32::new(member.incarnation.0),
    }
}

fn member_of(field: &MemberField) -> Result<Member, DecodeError> {
    must_be_zero(&field.zero)?;
    let node = NodeId::new(field.node.get()).ok_or(DecodeError::Node(field.node.get()))?;
    Ok(Member { node, incarnation: Incarnation(field.incarnation.get()) })
}

fn bucket_name_field(bucket: Bucket, name: &ResourceName, flags: u8) -> BucketNameField {
    BucketNameField { bucket: U16::new(bucket.get()), flags, zero: 0, name: name_field(name) }
}

fn value_len(value: &ValueBlock) -> u8 {
    u8::try_from(value.as_bytes().len()).expect("a value block has at most 128 bytes")
}

fn bucket_of(field: U16) -> Result<Bucket, DecodeError> {
    Bucket::new(field.get()).ok_or(DecodeError::Bucket(field.get()))
}

fn mode_of(byte: u8) -> Result<Mode, DecodeError> {
    Mode::from_u8(byte).ok_or(DecodeError::Mode(byte))
}

fn reason_byte(reason: Denial) -> u8 {
    match reason {
        Denial::WouldWait => 0,
        Denial::Cancelled => 1,
        Denial::TooManyWait => 2,
    }
}

fn reason_of(byte: u8) -> Result<Denial, DecodeError> {
    match byte {
        0 => Ok(Denial::WouldWait),
        1 => Ok(Denial::Cancelled),
        2 => Ok(Denial::TooManyWait),
        _ => Err(DecodeError::Reason(byte)),
    }
}

fn no_bucket(head: &Head) -> Result<(), DecodeError> {
    must_be_zero(head.bucket.as_bytes())
}

fn must_be_zero(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(DecodeError::NotZero) }
}
