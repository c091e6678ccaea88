//! What the runs brought, and the medians of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::row::Row;
use crate::spec::{Floor, SPECS, Spec, Unit};

/// Whose time it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    Ours,
    Floor(Floor),
}

/// One value for each run, side and name.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: BTreeMap<(&'static str, Side), Vec<f64>>,
}

impl Samples {
    /// `value` in the unit of the row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn add(&mut self, name: &'static str, side: Side, value: f64) {
        let of_side = |spec: &&Spec| side == Side::Ours || side == Side::Floor(spec.floor);
        let is_known = SPECS.iter().filter(of_side).any(|spec| spec.name == name);
        assert!(is_known, "what is measured has a row: {name} {side:?}");
        self.values.entry((name, side)).or_default().push(value);
    }

    /// The time of `count` operations, for a row that tells of one.
    ///
    /// # Panics
    /// As [`Samples::add`].
    pub fn add_time(&mut self, name: &'static str, side: Side, took: Duration, count: usize) {
        let each = took.as_secs_f64() / per(count);
        let value = match unit(name) {
            Unit::Nanoseconds => each * 1e9,
            Unit::Microseconds => each * 1e6,
            Unit::Milliseconds => each * 1e3,
            Unit::Throughput | Unit::SpeedUp | Unit::Share | Unit::Bytes | Unit::Count => {
                panic!("{name} is no time")
            }
        };
        self.add(name, side, value);
    }

    /// A count over `count` operations.
    ///
    /// # Panics
    /// As [`Samples::add`].
    pub fn add_count(&mut self, name: &'static str, side: Side, total: u64, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        self.add(name, side, total as f64 / per(count));
    }

    /// The median of one side.
    pub fn median(&self, name: &'static str, side: Side) -> Option<f64> {
        median(self.values.get(&(name, side))?)
    }

    /// The row of a spec, once both sides have been measured.
    pub fn row(&self, spec: &Spec) -> Option<Row> {
        let ours = self.values.get(&(spec.name, Side::Ours))?;
        let floor = if spec.floor == Floor::None {
            0.0
        } else {
            self.median(spec.name, Side::Floor(spec.floor))?
        };
        let median_of_ours = median(ours)?;
        let (above, below) = match spec.unit.more_is_better() {
            true => (floor, median_of_ours),
            false => (median_of_ours, floor),
        };
        Some(Row {
            name: spec.name.to_owned(),
            ours: median_of_ours,
            floor,
            floor_kind: spec.floor,
            ratio: (spec.floor != Floor::None && below > 0.0).then(|| above / below),
            unit: spec.unit,
            runs: ours.len(),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per(count: usize) -> f64 {
    count as f64
}

fn unit(name: &str) -> Unit {
    let spec = SPECS.iter().find(|spec| spec.name == name);
    spec.unwrap_or_else(|| panic!("what is measured has a row: {name}")).unit
}

/// Of an even number: the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let above = *sorted.get(sorted.len() / 2)?;
    let below = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(above, below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_medians_and_says_how_many_times_the_floor_it_takes() {
        let mut samples = Samples::default();
        for ms in [5, 1, 3] {
            samples.add_time("create", Side::Ours, Duration::from_millis(ms), 1000);
        }
        samples.add("create", Side::Floor(Floor::MemoryFuse), 1.0);
        samples.add("create", Side::Floor(Floor::MemoryFuse), 2.0);
        let spec = SPECS.iter().find(|spec| spec.name == "create").expect("there is one");
        let row = samples.row(spec).expect("measured");
        assert_eq!((row.ours, row.floor, row.ratio, row.runs), (3.0, 1.5, Some(2.0), 3));
    }

    #[test]
    fn half_the_throughput_is_twice_the_time() {
        let mut samples = Samples::default();
        samples.add("write_sequential", Side::Ours, 100.0);
        samples.add("write_sequential", Side::Floor(Floor::RawDevice), 200.0);
        let is_it = |s: &&Spec| s.name == "write_sequential" && s.floor == Floor::RawDevice;
        let spec = SPECS.iter().find(is_it).expect("there is one");
        assert_eq!(samples.row(spec).expect("measured").ratio, Some(2.0));
    }

    #[test]
    fn a_count_has_no_ratio_and_what_was_not_measured_no_row() {
        let mut samples = Samples::default();
        samples.add_count("create_messages", Side::Ours, 5, 10);
        let is_it = |s: &&Spec| s.name == "create_messages";
        let row = samples.row(SPECS.iter().find(is_it).expect("there is one"));
        assert_eq!(row.map(|row| (row.ours, row.ratio)), Some((0.5, None)));
        assert!(SPECS.iter().filter(|s| !is_it(s)).all(|spec| samples.row(spec).is_none()));
    }
}
