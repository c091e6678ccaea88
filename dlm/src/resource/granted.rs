//! The granted locks of one resource: nearly always one, which is kept in place.

use std::ops::{Deref, DerefMut};

use super::HomeLock;

/// In the order in which they were granted.
#[derive(Clone, Default)]
pub(super) enum Granted {
    #[default]
    None,
    One(HomeLock),
    /// Two or more, or as many as are left of them.
    Many(Vec<HomeLock>),
}

impl Granted {
    pub(super) fn push(&mut self, lock: HomeLock) {
        *self = match std::mem::take(self) {
            Granted::None => Granted::One(lock),
            Granted::One(first) => Granted::Many(vec![first, lock]),
            Granted::Many(mut locks) => {
                locks.push(lock);
                Granted::Many(locks)
            }
        };
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&HomeLock) -> bool) {
        match self {
            Granted::None => {}
            Granted::One(lock) => {
                if !keep(lock) {
                    *self = Granted::None;
                }
            }
            Granted::Many(locks) => {
                locks.retain(keep);
                match locks[..] {
                    [] => *self = Granted::None,
                    [lock] => *self = Granted::One(lock),
                    [_, _, ..] => {}
                }
            }
        }
    }
}

impl Deref for Granted {
    type Target = [HomeLock];

    fn deref(&self) -> &[HomeLock] {
        match self {
            Granted::None => &[],
            Granted::One(lock) => std::slice::from_ref(lock),
            Granted::Many(locks) => locks,
        }
    }
}

impl DerefMut for Granted {
    fn deref_mut(&mut self) -> &mut [HomeLock] {
        match self {
            Granted::None => &mut [],
            Granted::One(lock) => std::slice::from_mut(lock),
            Granted::Many(locks) => locks,
        }
    }
}

impl std::hash::Hash for Granted {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}
