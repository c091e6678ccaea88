//! Rule: a register that anybody writes and reads at any time behaves as if each operation happened at
//! one moment between its beginning and its end (I8), and what a lost life had neither made durable
//! nor shown to others is gone as a whole or there as a whole (I7).
//!
//! Every write has a value of its own, so the order is decided by zones (Gibbons and Korach, *Testing
//! shared memories*, 1997): the operations of one value stretch from the first end to the last
//! beginning. Where that is a stretch of time, the register has the value throughout. No two such
//! stretches overlap, and no value comes and goes within another's.
//!
//! A loss ends a section of the history: what was read before and what is read behind it are judged
//! apart, and behind it the register begins with one of the values that may have been left.

use std::collections::BTreeMap;

use mx_base::Instant;

use crate::fleet::LifeId;

/// What is known of one register.
#[derive(Debug)]
pub struct History {
    values: BTreeMap<u64, Value>,
    /// When the present section began.
    since: Instant,
}

/// A value, and all operations that had to do with it.
#[derive(Clone, Debug)]
struct Value {
    life: LifeId,
    begun: Instant,
    /// `None`: not answered, or of a section before: it may have come at any time.
    ended: Option<Instant>,
    first_read_ended: Option<Instant>,
    last_read_begun: Option<Instant>,
    /// No loss takes it back.
    is_durable: bool,
    /// It was answered in a section before: the register may have begun with it.
    is_former: bool,
}

impl Value {
    fn written(life: LifeId, begun: Instant) -> Value {
        Value {
            life,
            begun,
            ended: None,
            first_read_ended: None,
            last_read_begun: None,
            is_durable: false,
            is_former: false,
        }
    }

    /// From the first end to the last beginning; `None` when it need not have been there.
    fn zone(&self) -> Option<(Instant, Instant)> {
        let ends = [self.ended, self.first_read_ended];
        let first_end = ends.into_iter().flatten().min()?;
        let begun = if self.is_former { Instant(0) } else { self.begun };
        Some((first_end, self.last_read_begun.unwrap_or(begun).max(begun)))
    }
}

impl Default for History {
    /// A register that reads as 0.
    fn default() -> History {
        let zero = Value {
            ended: Some(Instant(0)),
            is_durable: true,
            ..Value::written(LifeId(0), Instant(0))
        };
        History { values: BTreeMap::from([(0, zero)]), since: Instant(0) }
    }
}

impl History {
    /// `is_lost`: the life counts no more.
    pub fn begin_write(&mut self, value: u64, life: LifeId, begun: Instant, is_lost: bool) {
        if !is_lost {
            self.values.insert(value, Value::written(life, begun));
        }
    }

    /// It never happened.
    pub fn withdraw(&mut self, value: u64) {
        self.values.remove(&value);
    }

    pub fn end_write(&mut self, value: u64, ended: Instant) {
        let Some(written) = self.values.get_mut(&value) else { return };
        if written.is_former {
            return;
        }
        written.ended = Some(ended);
        let (life, begun) = (written.life, written.begun);
        // Whoever was here before has given the file up, and was durable before that.
        for other in self.values.values_mut() {
            other.is_durable |= other.life != life && other.ended.is_some_and(|at| at < begun);
        }
    }

    /// An fsync of `life` that began at `began` was answered.
    pub fn synced(&mut self, life: LifeId, began: Instant) {
        for value in self.values.values_mut().filter(|v| v.life == life) {
            value.is_durable |= value.ended.is_some_and(|at| at < began);
        }
    }

    /// `life` has read a value.
    pub fn read(&mut self, value: u64, life: LifeId, begun: Instant, ended: Instant) {
        if begun < self.since {
            // What it saw may be from before the loss.
            return;
        }
        let unknown = Value { ended: Some(Instant(u64::MAX)), ..Value::written(life, ended) };
        let read = self.values.entry(value).or_insert(unknown);
        read.first_read_ended = Some(read.first_read_ended.unwrap_or(ended).min(ended));
        read.last_read_begun = Some(read.last_read_begun.unwrap_or(begun).max(begun));
        read.is_durable |= read.life != life || read.is_former;
    }

    /// A life is gone: what only it knew of may be gone with it.
    ///
    /// # Errors
    /// When what was read before cannot be explained.
    pub fn lose(&mut self, life: LifeId, now: Instant) -> Result<(), String> {
        if !self.values.values().any(|v| v.life == life && !v.is_durable) {
            return Ok(());
        }
        let judged = self.check();
        // Overwritten for certain by something that stays.
        let certain = self.values.values().filter(|v| v.is_durable).map(|v| v.begun).max();
        let certain = certain.unwrap_or(Instant(0));
        self.values.retain(|_, v| v.ended.is_none_or(|at| at >= certain));
        for value in self.values.values_mut() {
            let is_over = value.ended.is_some() || value.is_former || value.life == life;
            value.is_former = is_over;
            if is_over {
                value.ended = None;
            }
            (value.first_read_ended, value.last_read_begun) = (None, None);
        }
        self.since = now;
        judged
    }

    /// # Errors
    /// What no order of the operations explains.
    pub fn check(&self) -> Result<(), String> {
        if let Some((value, _)) =
            self.values.iter().find(|(_, v)| v.ended == Some(Instant(u64::MAX)))
        {
            return Err(format!("{value} was read and cannot be there: {self}"));
        }
        let former = self.values.iter().filter(|(_, v)| v.is_former && v.zone().is_some());
        let former: Vec<u64> = former.map(|(value, _)| *value).collect();
        if former.len() > 1 {
            return Err(format!("{former:?} were all left by one loss: {self}"));
        }
        let zones = self.values.iter().filter_map(|(value, v)| Some((v.zone()?, *value)));
        let (mut forward, backward): (Vec<_>, Vec<_>) =
            zones.partition(|((first_end, last_begin), _)| first_end < last_begin);
        forward.sort_unstable();
        for pair in forward.windows(2) {
            if pair[1].0.0 < pair[0].0.1 {
                let values = (pair[0].1, pair[1].1);
                return Err(format!("{values:?} were there at the same time: {self}"));
            }
        }
        for ((first_end, last_begin), value) in backward {
            let within =
                forward.iter().find(|((from, to), _)| *from < last_begin && first_end < *to);
            if let Some((_, other)) = within {
                return Err(format!("{value} came and went while {other} was there: {self}"));
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (value, v) in self.values.iter().rev().take(6) {
            let reads = (v.first_read_ended, v.last_read_begun);
            write!(f, "[{value} by {} {:?}..{:?} read {reads:?}] ", v.life, v.begun, v.ended)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LifeId = LifeId(1);
    const B: LifeId = LifeId(2);

    fn written(history: &mut History, value: u64, life: LifeId, from: u64, to: u64) {
        history.begin_write(value, life, Instant(from), false);
        history.end_write(value, Instant(to));
    }

    #[test]
    fn operations_at_the_same_time_may_have_happened_in_any_order() {
        let mut history = History::default();
        written(&mut history, 1, A, 10, 30);
        written(&mut history, 2, B, 20, 40);
        history.read(2, A, Instant(25), Instant(35));
        history.read(1, B, Instant(36), Instant(50));
        history.read(1, A, Instant(60), Instant(70));
        assert_eq!(history.check(), Ok(()));
    }

    #[test]
    fn a_value_that_was_overwritten_is_not_read_again() {
        let mut history = History::default();
        written(&mut history, 1, A, 10, 20);
        written(&mut history, 2, B, 30, 40);
        history.read(1, B, Instant(50), Instant(60));
        assert!(history.check().is_err());
    }

    #[test]
    fn two_readers_do_not_see_two_values_in_turn() {
        let mut history = History::default();
        written(&mut history, 1, A, 10, 90);
        written(&mut history, 2, B, 10, 90);
        for (at, value) in [(20, 1), (30, 2), (40, 1)] {
            history.read(value, A, Instant(at), Instant(at + 5));
        }
        assert!(history.check().is_err());
    }

    #[test]
    fn a_value_that_nobody_wrote_is_found() {
        let mut history = History::default();
        history.read(9, A, Instant(10), Instant(20));
        assert!(history.check().is_err());
    }

    #[test]
    fn a_lost_life_takes_its_last_values_with_it_and_leaves_one() {
        let mut history = History::default();
        written(&mut history, 1, A, 10, 20);
        written(&mut history, 2, A, 30, 40);
        written(&mut history, 3, A, 50, 60);
        history.synced(A, Instant(45));
        assert_eq!(history.lose(A, Instant(70)), Ok(()));
        let lost = history.values.keys().copied().collect::<Vec<_>>();
        assert_eq!(lost, [2, 3]);
        history.read(2, B, Instant(80), Instant(85));
        assert_eq!(history.check(), Ok(()));
        history.read(3, B, Instant(90), Instant(95));
        assert!(history.check().is_err());
    }

    #[test]
    fn what_another_life_has_seen_stays() {
        let mut history = History::default();
        written(&mut history, 1, A, 10, 20);
        history.read(1, B, Instant(30), Instant(35));
        assert_eq!(history.lose(A, Instant(40)), Ok(()));
        history.read(0, B, Instant(50), Instant(55));
        assert!(history.check().is_err());
    }
}
