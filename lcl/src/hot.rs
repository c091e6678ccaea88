//! Which resources are hot: counts for each, in a bounded table.
//!
//! Keeps true: at most [`HOT_MAX`] resources are counted. When there is no room the half that was
//! counted least since room was made last is forgotten, so that whatever is hot stays. Counted is
//! only what sends, surrenders or waits: a pin of a cached lock does not come here.

use std::collections::BTreeMap;

use dlm::ResourceName;

/// The most resources that are counted.
pub const HOT_MAX: usize = 1024;

/// What happened to one resource on this node; each grows only, until it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Heat {
    /// New locks and stronger modes asked for.
    pub requests: u64,
    /// What others asked this node to give up.
    pub callouts: u64,
    pub surrenders: u64,
    /// Waits that have ended.
    pub waits: u64,
    /// How long those took in all, in microseconds.
    pub waited_us: u64,
}

impl Heat {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Heat) -> Heat {
        Heat {
            requests: self.requests + other.requests,
            callouts: self.callouts + other.callouts,
            surrenders: self.surrenders + other.surrenders,
            waits: self.waits + other.waits,
            waited_us: self.waited_us + other.waited_us,
        }
    }
}

#[derive(Debug, Default)]
struct Counted {
    heat: Heat,
    /// Since room was made last.
    recent: u64,
}

/// The counts of one node.
#[derive(Debug, Default)]
pub struct HotResources(BTreeMap<ResourceName, Counted>);

impl HotResources {
    /// Counts something that happened to a resource.
    pub fn count(&mut self, name: ResourceName, what: impl FnOnce(&mut Heat)) {
        if self.0.len() >= HOT_MAX && !self.0.contains_key(&name) {
            self.make_room();
        }
        let counted = self.0.entry(name).or_default();
        what(&mut counted.heat);
        counted.recent += 1;
    }

    /// All that are counted, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceName, Heat)> + '_ {
        self.0.iter().map(|(name, counted)| (name, counted.heat))
    }

    fn make_room(&mut self) {
        let mut ranks: Vec<u64> = self.0.values().map(|counted| counted.recent).collect();
        let (_, &mut least, hotter) = ranks.select_nth_unstable(HOT_MAX / 2);
        // Of those that were counted as often as the first that has to go, as many stay as fit.
        let mut room = hotter.len() - hotter.iter().filter(|recent| **recent > least).count();
        self.0.retain(|_, counted| {
            let recent = std::mem::take(&mut counted.recent);
            let fits = recent == least && room > 0;
            room -= usize::from(fits);
            recent > least || fits
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> ResourceName {
        ResourceName::new(&number.to_le_bytes()).expect("short")
    }

    #[test]
    fn what_is_hot_stays_however_many_others_come_and_go() {
        let mut hot = HotResources::default();
        for number in 1..20_000 {
            hot.count(name(number), |heat| heat.requests += 1);
            if number % 16 == 0 {
                hot.count(name(0), |heat| heat.callouts += 1);
            }
        }
        assert!(hot.iter().count() <= HOT_MAX);
        let found = hot.iter().find(|(found, _)| **found == name(0));
        assert_eq!(found.map(|(_, heat)| heat.callouts), Some(19_999 / 16));
    }
}
