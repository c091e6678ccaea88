//! Every row can be measured, here with little of everything. No time is asserted: the machine may
//! be busy, and the programs are not built for speed.

use std::process::Command;

use bench::row::{Report, Row};
use bench::spec::{Floor, SPECS, Unit};
use e2e::Programs;

#[test]
fn every_row_is_measured_and_makes_sense() {
    let programs = Programs::beside_test().expect("the programs are built");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mx-bench"));
    command.args(["run", "all", "--quick", "--json", "--programs"]).arg(programs.folder());
    let output = command.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    let report: Report = serde_json::from_str(text.trim()).expect("a report");
    assert_eq!(report.rows.len(), SPECS.len());
    for (row, spec) in report.rows.iter().zip(SPECS) {
        assert_eq!((row.name.as_str(), row.floor_kind), (spec.name, spec.floor));
        assert!(row.runs == 1 && is_sane(row), "{row:?}");
    }
}

fn is_sane(row: &Row) -> bool {
    let Row { name, ours, floor, floor_kind, ratio, unit, .. } = row;
    // A step of a recovery may take less than the millisecond that reports are in.
    let may_be_zero = *unit == Unit::Count || name.starts_with("recovery_");
    let is_time = |value: f64| value.is_finite() && value > 0.0;
    let has_ours = is_time(*ours) || (may_be_zero && *ours == 0.0);
    if *floor_kind == Floor::None {
        return has_ours && ratio.is_none();
    }
    has_ours && is_time(*floor) && ratio.is_some_and(|ratio| ratio >= 0.0)
}

#[test]
fn a_name_that_is_no_row_is_refused_with_those_there_are() {
    let output = Command::new(env!("CARGO_BIN_EXE_mx-bench")).args(["run", "crate"]).output();
    let output = output.expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("`crate`") && errors.contains("create, "), "{errors}");
}
