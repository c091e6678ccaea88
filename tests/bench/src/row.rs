//! A measured row, and the report that all of them make: an interface, as `--json` prints it.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::spec::{Floor, Unit};

/// One comparison.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    /// Median of the runs.
    pub ours: f64,
    /// Median of the runs; 0 where there is none.
    pub floor: f64,
    pub floor_kind: Floor,
    /// How many times the time of the floor ours takes, whatever the unit; `None` without a floor.
    pub ratio: Option<f64>,
    pub unit: Unit,
    pub runs: usize,
}

/// What was measured, where.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub rows: Vec<Row>,
}
