//! The messages about advisory locks to bytes and back.

use mx_base::ViewId;
use zerocopy::little_endian::{U16, U32, U64};

use super::{
    DecodeError, FLAG_NONE, Head, Input, NONE, bucket_of, member_field, must_be_zero, name_field,
    name_of, no_bucket, put,
};
use crate::advisory::{
    Access, AskedClaim, Claim, ClaimId, Conflict, Family, How, Owner, ReportedClaim, Span, Verdict,
    Wait,
};
use crate::message::layout::{AnswerBody, ClaimBody, ClaimReportField, SearchBody, WaitField};
use crate::message::{BucketEpoch, Kind, Message};
use crate::name::ResourceName;

impl Message {
    /// How many entries fit into one ClaimReport.
    pub(crate) const CLAIMS_MAX: usize =
        (Message::MAX - size_of::<Head>()) / size_of::<ClaimReportField>();

    /// Appends what follows the head of a message about advisory locks.
    pub(super) fn encode_claim(&self, out: &mut Vec<u8>) {
        match self {
            Message::Claim { id, name, claim, stamp, .. } => {
                let Claim { owner, pid, span, access, how, .. } = *claim;
                let (access, how) = (access as u8, how_byte(how));
                put_claim(out, *id, *stamp, owner, span, pid, access, how);
                put(out, &name_field(name));
            }
            Message::ClaimLower { id, name, owner, span, to, .. } => {
                let access = to.map_or(NONE, |access| access as u8);
                put_claim(out, *id, 0, *owner, *span, 0, access, 0);
                put(out, &name_field(name));
            }
            Message::ClaimCancel { id, name, .. } => {
                put(out, &U64::new(id.0));
                put(out, &name_field(name));
            }
            Message::ClaimAnswer { id, verdict, .. } => put(out, &answer_body(*id, *verdict)),
            Message::ClaimReport { claims, .. } => {
                claims.iter().for_each(|claim| put(out, &report_field(claim)));
            }
            Message::Trace { path, owner, budget, .. } => {
                put_search(out, *owner, *budget, path);
            }
            Message::Follow { path, budget, .. } => put_search(out, 0, *budget, path),
            Message::Confirm { cycle, position, .. } => put_search(out, 0, *position, cycle),
            Message::Request { .. }
            | Message::Convert { .. }
            | Message::Lower { .. }
            | Message::Unlock { .. }
            | Message::Cancel { .. }
            | Message::Granted { .. }
            | Message::Denied { .. }
            | Message::Callout { .. }
            | Message::Report { .. }
            | Message::ReportEnd { .. }
            | Message::LiveNames { .. }
            | Message::InLimbo { .. }
            | Message::Released { .. }
            | Message::Recovered { .. }
            | Message::RecoveredSeen { .. } => {
                unreachable!("not about advisory locks: {:?}", self.kind())
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of one structure")]
fn put_claim(
    out: &mut Vec<u8>,
    id: ClaimId,
    stamp: u64,
    owner: Owner,
    span: Span,
    pid: u32,
    access: u8,
    how: u8,
) {
    let body = ClaimBody {
        id: U64::new(id.0),
        stamp: U64::new(stamp),
        owner: U64::new(owner.id),
        start: U64::new(span.start()),
        end: U64::new(span.end()),
        pid: U32::new(pid),
        family: owner.family as u8,
        access,
        how,
        zero: 0,
    };
    put(out, &body);
}

fn put_search(out: &mut Vec<u8>, owner: u64, number: u16, waits: &[Wait]) {
    put(out, &SearchBody { owner: U64::new(owner), number: U16::new(number), zero: [0; 6] });
    for wait in waits {
        let field = WaitField {
            member: member_field(wait.member),
            owner: U64::new(wait.owner),
            id: U64::new(wait.id.0),
            stamp: U64::new(wait.stamp),
            bucket: U16::new(wait.bucket.get()),
            zero: [0; 6],
            name: name_field(&wait.name),
        };
        put(out, &field);
    }
}

fn answer_body(id: ClaimId, verdict: Verdict) -> AnswerBody {
    let mut body = AnswerBody { id: U64::new(id.0), ..AnswerBody::default() };
    body.verdict = match verdict {
        Verdict::Granted => 0,
        Verdict::WouldWait => 1,
        Verdict::Cancelled => 2,
        Verdict::Deadlock => 3,
        Verdict::TooMany => 4,
        Verdict::Free => 5,
        Verdict::Held(Conflict { holder, pid, span, access }) => {
            body.access = access as u8;
            body.pid = U32::new(pid);
            body.start = U64::new(span.start());
            body.end = U64::new(span.end());
            body.holder = member_field(holder);
            6
        }
    };
    body
}

fn report_field(claim: &ReportedClaim) -> ClaimReportField {
    let ReportedClaim { bucket, name, owner, pid, span, access, asked } = *claim;
    let (id, stamp) = asked.map_or((0, 0), |asked| (asked.id.0, asked.stamp));
    ClaimReportField {
        bucket: U16::new(bucket.get()),
        family: owner.family as u8,
        access: access as u8,
        how: asked.map_or(NONE, |asked| how_byte(asked.how)),
        zero: [0; 3],
        owner: U64::new(owner.id),
        id: U64::new(id),
        stamp: U64::new(stamp),
        start: U64::new(span.start()),
        end: U64::new(span.end()),
        pid: U32::new(pid),
        zero2: [0; 4],
        name: name_field(&name),
    }
}

impl Input<'_> {
    pub(super) fn claim_message(
        &mut self,
        kind: Kind,
        head: &Head,
    ) -> Result<Message, DecodeError> {
        debug_assert!(head.flags == FLAG_NONE, "checked before");
        let view = ViewId(head.epoch.get());
        Ok(match kind {
            Kind::Claim => {
                let (at, body, name) = self.claim_body(head)?;
                let claim = Claim {
                    owner: owner_of(body.family, body.owner)?,
                    via: 0,
                    pid: body.pid.get(),
                    span: span_of(body.start, body.end)?,
                    access: access_of(body.access)?,
                    how: how_of(body.how)?,
                };
                Message::Claim { at, id: id_of(body.id), name, claim, stamp: body.stamp.get() }
            }
            Kind::ClaimLower => {
                let (at, body, name) = self.claim_body(head)?;
                must_be_zero(&[body.how])?;
                if body.stamp.get() != 0 || body.pid.get() != 0 {
                    return Err(DecodeError::NotZero);
                }
                let owner = owner_of(body.family, body.owner)?;
                let span = span_of(body.start, body.end)?;
                let to = match body.access {
                    NONE => None,
                    access => Some(access_of(access)?),
                };
                Message::ClaimLower { at, id: id_of(body.id), name, owner, span, to }
            }
            Kind::ClaimCancel => {
                let at = at_of(head)?;
                let id: U64 = self.take()?;
                Message::ClaimCancel { at, id: id_of(id), name: self.name()? }
            }
            Kind::ClaimAnswer => {
                let at = at_of(head)?;
                let body: AnswerBody = self.take()?;
                let (id, verdict) = self.verdict(body)?;
                Message::ClaimAnswer { at, id, verdict }
            }
            Kind::ClaimReport => {
                no_bucket(head)?;
                Message::ClaimReport { epoch: view, claims: self.until_end(Input::claim_report)? }
            }
            Kind::Trace => {
                no_bucket(head)?;
                let (owner, budget, path) = self.search()?;
                Message::Trace { view, path, owner, budget }
            }
            Kind::Follow => {
                let at = at_of(head)?;
                let (owner, budget, path) = self.search()?;
                if owner != 0 {
                    return Err(DecodeError::NotZero);
                }
                Message::Follow { at, path, budget }
            }
            Kind::Confirm => {
                let at = at_of(head)?;
                let (owner, position, cycle) = self.search()?;
                if owner != 0 {
                    return Err(DecodeError::NotZero);
                }
                if usize::from(position) >= cycle.len() {
                    return Err(DecodeError::Count(position));
                }
                Message::Confirm { at, cycle, position }
            }
            Kind::Request
            | Kind::Convert
            | Kind::Lower
            | Kind::Unlock
            | Kind::Cancel
            | Kind::Granted
            | Kind::Denied
            | Kind::Callout
            | Kind::Report
            | Kind::ReportEnd
            | Kind::LiveNames
            | Kind::InLimbo
            | Kind::Released
            | Kind::Recovered
            | Kind::RecoveredSeen => {
                unreachable!("not about advisory locks: {kind:?}")
            }
        })
    }

    fn claim_body(
        &mut self,
        head: &Head,
    ) -> Result<(BucketEpoch, ClaimBody, ResourceName), DecodeError> {
        let at = at_of(head)?;
        let body: ClaimBody = self.take()?;
        must_be_zero(&[body.zero])?;
        Ok((at, body, self.name()?))
    }

    fn verdict(&mut self, body: AnswerBody) -> Result<(ClaimId, Verdict), DecodeError> {
        must_be_zero(&body.zero)?;
        let plain = |verdict: Verdict| {
            let is_empty = body.access == 0
                && body.pid.get() == 0
                && body.start.get() == 0
                && body.end.get() == 0;
            let holder = [body.holder.node.get() == 0, body.holder.incarnation.get() == 0];
            must_be_zero(&body.holder.zero)?;
            let is_plain = is_empty && holder == [true; 2];
            if is_plain { Ok(verdict) } else { Err(DecodeError::NotZero) }
        };
        let verdict = match body.verdict {
            0 => plain(Verdict::Granted)?,
            1 => plain(Verdict::WouldWait)?,
            2 => plain(Verdict::Cancelled)?,
            3 => plain(Verdict::Deadlock)?,
            4 => plain(Verdict::TooMany)?,
            5 => plain(Verdict::Free)?,
            6 => Verdict::Held(Conflict {
                holder: super::member_of(&body.holder)?,
                pid: body.pid.get(),
                span: span_of(body.start, body.end)?,
                access: access_of(body.access)?,
            }),
            other => return Err(DecodeError::Reason(other)),
        };
        Ok((id_of(body.id), verdict))
    }

    fn claim_report(&mut self) -> Result<ReportedClaim, DecodeError> {
        let field: ClaimReportField = self.take()?;
        must_be_zero(&field.zero)?;
        must_be_zero(&field.zero2)?;
        let asked = match field.how {
            NONE if field.id.get() == 0 && field.stamp.get() == 0 => None,
            NONE => return Err(DecodeError::NotZero),
            how => {
                let stamp = field.stamp.get();
                Some(AskedClaim { id: id_of(field.id), how: how_of(how)?, stamp })
            }
        };
        Ok(ReportedClaim {
            bucket: bucket_of(field.bucket)?,
            name: name_of(&field.name)?,
            owner: owner_of(field.family, field.owner)?,
            pid: field.pid.get(),
            span: span_of(field.start, field.end)?,
            access: access_of(field.access)?,
            asked,
        })
    }

    /// The owner, the number and the waits of a message of a search.
    fn search(&mut self) -> Result<(u64, u16, Vec<Wait>), DecodeError> {
        let body: SearchBody = self.take()?;
        must_be_zero(&body.zero)?;
        let count = self.0.len() / size_of::<WaitField>();
        if count == 0 || count > Wait::PATH_MAX {
            return Err(DecodeError::Count(u16::try_from(count).unwrap_or(u16::MAX)));
        }
        let waits = self.until_end(|input| {
            let field: WaitField = input.take()?;
            must_be_zero(&field.zero)?;
            Ok(Wait {
                member: super::member_of(&field.member)?,
                owner: field.owner.get(),
                id: id_of(field.id),
                stamp: field.stamp.get(),
                bucket: bucket_of(field.bucket)?,
                name: name_of(&field.name)?,
            })
        })?;
        Ok((body.owner.get(), body.number.get(), waits))
    }
}

fn at_of(head: &Head) -> Result<BucketEpoch, DecodeError> {
    Ok(BucketEpoch { bucket: bucket_of(head.bucket)?, epoch: ViewId(head.epoch.get()) })
}

fn id_of(field: U64) -> ClaimId {
    ClaimId(field.get())
}

fn span_of(start: U64, end: U64) -> Result<Span, DecodeError> {
    Span::new(start.get(), end.get()).ok_or(DecodeError::Span)
}

fn owner_of(family: u8, id: U64) -> Result<Owner, DecodeError> {
    let family = match family {
        0 => Family::Whole,
        1 => Family::Ranges,
        _ => return Err(DecodeError::Mode(family)),
    };
    Ok(Owner { family, id: id.get() })
}

fn access_of(byte: u8) -> Result<Access, DecodeError> {
    match byte {
        0 => Ok(Access::Read),
        1 => Ok(Access::Write),
        _ => Err(DecodeError::Mode(byte)),
    }
}

fn how_byte(how: How) -> u8 {
    match how {
        How::Test => 0,
        How::Try => 1,
        How::Wait { detect: false } => 2,
        How::Wait { detect: true } => 3,
    }
}

fn how_of(byte: u8) -> Result<How, DecodeError> {
    match byte {
        0 => Ok(How::Test),
        1 => Ok(How::Try),
        2 => Ok(How::Wait { detect: false }),
        3 => Ok(How::Wait { detect: true }),
        _ => Err(DecodeError::Mode(byte)),
    }
}
