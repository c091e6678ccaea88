//! Messages that belong to a view this node has not heard of yet.
//!
//! Keeps them in the order of their arrival until that view comes; the links deliver nothing
//! twice, so none may be dropped.

use std::collections::VecDeque;

use mx_base::Member;

use crate::advisory::{ReportedClaim, Wait};
use crate::message::{BucketName, LimboName, Message, ReportedLock};

/// Kept messages, bounded by the memory they take.
#[derive(Clone, Hash, Default)]
pub(crate) struct Early {
    messages: VecDeque<(Member, Message)>,
    bytes: usize,
}

impl Early {
    /// Room for the reports of a million locks from each of two members, while this node learns of
    /// a view tens of milliseconds late. A node that is further behind than that must not go on.
    pub(crate) const BYTES_MAX: usize = 256 << 20;

    /// The message comes back when there is no room.
    pub(crate) fn keep(&mut self, from: Member, message: Message) -> Result<(), Message> {
        let bytes = self.bytes + footprint(&message);
        if bytes > Early::BYTES_MAX {
            return Err(message);
        }
        self.bytes = bytes;
        self.messages.push_back((from, message));
        Ok(())
    }

    /// Everything kept, in order; nothing is kept any more.
    pub(crate) fn take(&mut self) -> VecDeque<(Member, Message)> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Member, Message)> {
        self.messages.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }
}

/// About how many bytes of memory a message takes.
fn footprint(message: &Message) -> usize {
    const VALUE: usize = size_of::<crate::ValueBlock>();
    let rest = match message {
        Message::Report { locks, .. } => {
            let values = locks.iter().filter(|lock| lock.value.is_some()).count();
            size_of::<ReportedLock>() * locks.len() + VALUE * values
        }
        Message::LiveNames { names, .. } | Message::Released { names, .. } => {
            size_of::<BucketName>() * names.len()
        }
        Message::InLimbo { names, .. } => size_of::<LimboName>() * names.len(),
        Message::ClaimReport { claims, .. } => size_of::<ReportedClaim>() * claims.len(),
        Message::Trace { path, .. }
        | Message::Follow { path, .. }
        | Message::Confirm { cycle: path, .. } => size_of::<Wait>() * path.len(),
        Message::Claim { .. }
        | Message::ClaimLower { .. }
        | Message::ClaimCancel { .. }
        | Message::ClaimAnswer { .. }
        | Message::Request { .. }
        | Message::Convert { .. }
        | Message::Lower { .. }
        | Message::Unlock { .. }
        | Message::Cancel { .. }
        | Message::Granted { .. }
        | Message::Denied { .. }
        | Message::Callout { .. }
        | Message::ReportEnd { .. }
        | Message::Recovered { .. }
        | Message::RecoveredSeen { .. } => VALUE,
    };
    size_of::<(Member, Message)>() + rest
}
