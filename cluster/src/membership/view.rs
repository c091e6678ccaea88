//! Learning what the register says, and acting on it: install, or go (R11, R16).
//!
//! Keeps true: views are installed in the order of their ids, none left out. Whoever is in view
//! n + 1 has agreed to it on the base of view n, so it had installed n; a node that finds itself
//! further behind has not been asked and must not act.

use std::collections::BTreeMap;

use mx_base::{Instant, Member, ViewId};

use super::{Effect, Installation, Membership, Standing};
use crate::handshake::StartNonce;
use crate::output::{End, JoinBlob};
use crate::register::RegisterValue;
use crate::wire::SanState;

impl Membership {
    /// Takes a value of the register, whatever way it came: read, answered, or told by a peer.
    pub(super) fn learn(&mut self, value: RegisterValue, now: Instant) {
        if self.known.as_ref().is_some_and(|known| value.generation <= known.generation) {
            return;
        }
        match &self.standing {
            Standing::Ended => {}
            Standing::Joining(joining) => {
                let over = joining.is_over(self.life, &value);
                // It may still be welcomed in the view before this one.
                self.forget_settled(ViewId(value.view.0.saturating_sub(1)));
                self.known = Some(value);
                if let Some(end) = over {
                    self.end(end);
                }
            }
            Standing::Member { me, view } => {
                let (me, installed) = (*me, view.id);
                if value.view == installed {
                    self.known = Some(value.clone());
                    self.effects.push_back(Effect::PhaseMoved(Box::new(value)));
                } else if !value.contains(me) {
                    let left = self.leaving && !value.is_unrecovered(me);
                    self.end(if left { End::Left } else { End::Expelled });
                } else if value.view == ViewId(installed.0 + 1) {
                    self.install_next(me, value, now);
                } else {
                    self.end(End::MissedViews);
                }
            }
        }
    }

    fn install_next(&mut self, me: Member, value: RegisterValue, now: Instant) {
        let known_start = |member: &Member| {
            let offered = || self.offers.get(member).map(|(start, _)| *start);
            let start = self.starts.get(member).copied().or_else(offered)?;
            Some((*member, start))
        };
        let starts: BTreeMap<Member, StartNonce> =
            value.members.iter().filter_map(known_start).collect();
        if starts.len() < value.members.len() {
            // Not all joiners were proposed to this node, so it has not agreed to this view.
            self.end(End::MissedViews);
            return;
        }
        self.install(me, value, starts, None, now);
    }

    /// Acts in a committed view from here on.
    pub(super) fn install(
        &mut self,
        me: Member,
        value: RegisterValue,
        starts: BTreeMap<Member, StartNonce>,
        admission: Option<(Box<SanState>, Vec<JoinBlob>)>,
        now: Instant,
    ) {
        assert!(value.contains(me), "a node acts only in a view that lists it: {me} in {value:?}");
        let quiet_from = self.coordinator.agreed_at(&value).unwrap_or(now);
        let previous = match &self.standing {
            Standing::Member { view, .. } => {
                let administrator = self.known.as_ref().and_then(|known| known.administrator);
                Some((view.clone(), administrator))
            }
            Standing::Joining(_) | Standing::Ended => None,
        };
        assert!(
            previous.as_ref().is_none_or(|(view, _)| view.id.0 + 1 == value.view.0),
            "views are installed one after the other: {:?} after {previous:?}",
            value.view
        );
        tracing::info!(view = value.view.0, members = ?value.members, "view installed");
        self.standing = Standing::Member { me, view: value.view() };
        self.starts = starts;
        self.forget_settled(value.view);
        self.welcomed.clear();
        self.newcomers.clear();
        self.coordinator.handle_installed();
        let starts = &self.starts;
        self.requests.retain(|_, request| !starts.values().any(|s| *s == request.start));
        self.known = Some(value.clone());
        let is_new = previous.is_none();
        let installation = Installation { me, value, previous, quiet_from, admission };
        self.effects.push_back(Effect::Installed(Box::new(installation)));
        if is_new {
            // The permit to serve counts from a look that shows this node (R13); until there is
            // one, what it has mounted waits.
            self.effects.push_back(Effect::ReadRegister);
        }
    }

    /// Forgets proposals made from views before `view`. A joiner may have agreed to what comes
    /// after the view that it is welcomed in.
    fn forget_settled(&mut self, view: ViewId) {
        self.offers.retain(|_, (_, base)| *base >= view);
        self.agreed.retain(|_, agreed| agreed.base >= view);
    }

    /// This start is out for good; a new one may join.
    pub(super) fn end(&mut self, end: End) {
        tracing::info!(?end, "out of the cluster");
        self.standing = Standing::Ended;
        self.effects.push_back(Effect::Ended(end));
    }
}
