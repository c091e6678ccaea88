//! What the machine keeps for one entry.

use std::sync::Arc;

use dlm::{LockId, Mode, ResourceName, ValueBlock};

use crate::pin::{Entry, Table};

/// One entry that has a lock, or wants one.
pub(super) struct Cached {
    pub(super) entry: Arc<Entry>,
    /// The lock that backs the entry; `None` until one is asked for.
    pub(super) lock: Option<LockId>,
    pub(super) request: Request,
    pub(super) surrender: Option<Surrender>,
    /// What others wait for, as far as it has not been answered by a surrender yet.
    pub(super) called_out: Option<Mode>,
}

/// What is outstanding at the lock manager.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Request {
    #[default]
    None,
    Asked {
        wanted: Mode,
        no_queue: bool,
        is_cancelled: bool,
    },
    /// Denied, because too much of this node waits at the home: asked for again when something of
    /// it has ended there.
    Deferred,
    /// Granted while a surrender was under way: counts when that is over.
    Granted {
        mode: Mode,
        value: Option<Box<ValueBlock>>,
    },
}

/// A surrender that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Surrender {
    pub(super) from: Mode,
    pub(super) to: Mode,
}

impl Cached {
    pub(super) fn new(entry: Arc<Entry>) -> Cached {
        Cached { entry, lock: None, request: Request::None, surrender: None, called_out: None }
    }
}

/// Everything that is cached or asked for. An entry knows its place here, so that nothing has to be
/// searched by name.
#[derive(Default)]
pub(super) struct CachedLocks {
    places: Vec<Option<Cached>>,
    vacant: Vec<u32>,
}

/// Of something that is cached, until it is removed.
pub(super) type Place = u32;

impl CachedLocks {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// How many places there are, vacant ones included.
    pub(super) fn places(&self) -> Place {
        u32::try_from(self.places.len()).expect("far fewer than 2^32 places")
    }

    pub(super) fn get(&self, place: Place) -> Option<&Cached> {
        self.places.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Cached> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    /// Where the resource is, if it is here.
    pub(super) fn find(table: &Table, name: &ResourceName) -> Option<Place> {
        table.find(name)?.place()
    }

    /// Where the entry is, from now on if it was not here.
    pub(super) fn insert(&mut self, entry: &Arc<Entry>) -> Place {
        if let Some(place) = entry.place() {
            return place;
        }
        let cached = Some(Cached::new(Arc::clone(entry)));
        let place = match self.vacant.pop() {
            Some(place) => {
                self.places[place as usize] = cached;
                place
            }
            None => {
                let place = self.places();
                self.places.push(cached);
                place
            }
        };
        entry.set_place(Some(place));
        place
    }

    pub(super) fn remove(&mut self, place: Place) {
        if let Some(cached) = self.places[place as usize].take() {
            cached.entry.set_place(None);
            self.vacant.push(place);
        }
    }

    pub(super) fn by_place(&self) -> impl Iterator<Item = Option<&Cached>> {
        self.places.iter().map(Option::as_ref)
    }

    /// In no order that means anything, the same in every run.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Cached> {
        self.places.iter().flatten()
    }
}

/// The strongest of the modes worth caching that `held` covers and that leaves room for `wanted`;
/// `held` itself, if it does.
pub(super) fn least_surrender(held: Mode, wanted: Mode) -> Mode {
    if held.compatible(wanted) {
        return held;
    }
    [Mode::PR, Mode::CR]
        .into_iter()
        .find(|kept| held.covers(*kept) && kept.compatible(wanted))
        .unwrap_or(Mode::NL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surrender_keeps_what_the_waiter_can_bear() {
        use Mode::{CR, CW, EX, NL, PR, PW};
        for (held, wanted, kept) in [
            (EX, PR, PR),
            (EX, CR, PR),
            (EX, CW, CR),
            (EX, EX, NL),
            (PR, EX, NL),
            (PR, PW, CR),
            (PR, PR, PR),
            (CR, EX, NL),
            (CR, PW, CR),
            (CW, PR, CR),
            (PW, PR, PR),
        ] {
            assert_eq!(least_surrender(held, wanted), kept, "{held} asked for {wanted}");
        }
        for held in Mode::ALL {
            for wanted in Mode::ALL {
                let kept = least_surrender(held, wanted);
                assert!(held.covers(kept) && kept.compatible(wanted), "{held} {wanted}");
            }
        }
    }
}
