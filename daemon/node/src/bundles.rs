//! What one step of the lock manager says to each member, on its way into payloads.
//!
//! Keeps true: what is said to one member stays in order. Nothing is held beyond the step: whoever
//! fills it sends what is in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lcl::{Bundle, LockspaceId, Message};
use mx_base::Member;

const _: () = assert!(Bundle::BYTES_MAX <= cluster::frame::PAYLOAD_MAX);

/// The payloads of a step that are not complete.
#[derive(Default)]
pub(crate) struct Bundles(BTreeMap<Member, Bundle>);

impl Bundles {
    /// Adds a message; gives the payload that has to go first, when there was no room in it.
    pub(crate) fn add(
        &mut self,
        to: Member,
        lockspace: LockspaceId,
        message: &Message,
    ) -> Option<Arc<[u8]>> {
        let Some(bundle) = self.0.get_mut(&to) else {
            self.0.insert(to, Bundle::new(lockspace, message));
            return None;
        };
        if bundle.push(message) {
            return None;
        }
        let mut full = std::mem::replace(bundle, Bundle::new(lockspace, message));
        Some(full.payload().into())
    }

    /// Takes out one payload; `None` when there is none left.
    pub(crate) fn pop(&mut self) -> Option<(Member, Arc<[u8]>)> {
        let (to, mut bundle) = self.0.pop_first()?;
        Some((to, bundle.payload().into()))
    }
}
