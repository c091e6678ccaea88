//! `docs/performance.md`: written from a report, never by hand.

use std::fmt::Write as _;

use crate::row::{Report, Row};
use crate::spec::{Floor, Group, SPECS, Spec};

/// The whole document.
pub fn document(report: &Report) -> String {
    let mut text = String::from(HEAD);
    machine(report, &mut text);
    text.push_str("\n## Floors\n\n");
    for floor in Floor::ALL {
        let is_used = report.rows.iter().any(|row| row.floor_kind == floor);
        if is_used {
            add(&mut text, format_args!("* **{}**: {}.\n", floor.name(), floor.about()));
        }
    }
    for group in Group::ALL {
        let specs: Vec<&Spec> = SPECS.iter().filter(|spec| spec.group == group).collect();
        let rows: Vec<&Row> = specs.iter().filter_map(|spec| find(report, spec)).collect();
        if !rows.is_empty() {
            add(&mut text, format_args!("\n## {}\n\n{}\n", title(group), table(&rows)));
            described(&specs, &mut text);
        }
    }
    text
}

const HEAD: &str = "# Performance

Written by `cargo xtask bench all --write-doc`: every number was measured in one run of it. `ours` and `floor` are medians over the
runs, each of which measures both, one after the other; within a run a value is the mean over its operations. `ratio` is how many
times the time of the floor ours takes, also where the unit is a throughput.

Targets are set for locks: `remote_grant` at most 1.5 times its floor, `cached_pin` 4 times the look-up, `contended_ex` 2 times;
`cached_pin_threads` within 20 % of the counters; `lock_memory` at most 400 bytes; `rebuild` at most 2 us, whatever others have.

Three nodes, an arbiter, the floors and the program that measures share the processors of one machine: what in a real cluster is
done by several machines at once is done here by turns.
";

fn machine(report: &Report, text: &mut String) {
    let machine = &report.machine;
    let lines = [
        ("Measured", format!("{}, {} at {}", machine.date, machine.version, machine.revision)),
        ("Build", machine.profile.clone()),
        ("Processors", format!("{} x {}", machine.processors, machine.processor)),
        ("Memory", format!("{} MiB", machine.memory_mib)),
        ("Kernel", machine.kernel.clone()),
        ("System", machine.system.clone()),
        ("Device", format!("a file on {}", machine.storage)),
        ("Load before", machine.load_before.clone()),
        ("Each run", machine.scale.clone()),
    ];
    text.push_str("\n## Machine\n\n| | |\n|---|---|\n");
    for (name, value) in lines {
        add(text, format_args!("| {name} | {value} |\n"));
    }
}

fn title(group: Group) -> &'static str {
    match group {
        Group::Entries => "Files in a directory",
        Group::Contents => "Contents",
        Group::Fsync => "Durability",
        Group::HandOver => "From node to node",
        Group::Sharing => "Several nodes at the same",
        Group::LockCache => "Locks in process",
        Group::Arbiter => "The arbiter",
        Group::Recovery => "Recovery",
    }
}

fn find<'a>(report: &'a Report, spec: &Spec) -> Option<&'a Row> {
    report.rows.iter().find(|row| row.name == spec.name && row.floor_kind == spec.floor)
}

/// Rows as a table of Markdown.
pub fn table<'a>(rows: impl IntoIterator<Item = &'a &'a Row>) -> String {
    let mut text = String::from(
        "| name | ours | floor | ratio | unit | compared with | runs |\n\
         |---|--:|--:|--:|---|---|--:|",
    );
    for row in rows {
        let Row { name, ours, floor, floor_kind, ratio, unit, runs } = row;
        let ratio = ratio.map_or_else(|| "-".to_owned(), figures);
        let floor = if *floor_kind == Floor::None { "-".to_owned() } else { figures(*floor) };
        let (ours, unit, kind) = (figures(*ours), unit.name(), floor_kind.name());
        add(
            &mut text,
            format_args!("\n| {name} | {ours} | {floor} | {ratio} | {unit} | {kind} | {runs} |"),
        );
    }
    text
}

fn described(specs: &[&Spec], text: &mut String) {
    text.push('\n');
    for spec in specs.iter().filter(|spec| !spec.about.is_empty()) {
        add(text, format_args!("* `{}`: {}.\n", spec.name, spec.about));
    }
}

/// Three figures that count.
fn figures(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else if value >= 0.01 || value == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

fn add(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Unit;

    #[test]
    fn a_row_is_shown_with_its_floor_and_one_without_a_floor_without() {
        let row = |ratio, floor_kind| Row {
            name: "create".to_owned(),
            ours: 123.456,
            floor: 12.34,
            floor_kind,
            ratio,
            unit: Unit::Microseconds,
            runs: 5,
        };
        let text = table(&[&row(Some(10.0), Floor::MemoryFuse), &row(None, Floor::None)]);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines[0], "| create | 123 | 12.3 | 10.0 | us | in-memory FUSE | 5 |");
        assert_eq!(lines[1], "| create | 123 | - | - | us | nothing | 5 |");
    }
}
