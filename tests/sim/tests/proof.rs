//! The table in `docs/spec/proof.md` is about the rules that are broken, all of them and no others.
//! `cargo xtask sim --mutations` proves it again.

use std::path::Path;

use mx_base::rules::Rule;
use sim::mutations::{MUTATIONS, Mutation};

/// A row, without its number.
#[derive(PartialEq, Eq, Debug)]
struct Row {
    rule: String,
    world: String,
    within: u64,
}

fn documented() -> Vec<Row> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec/proof.md");
    let text = std::fs::read_to_string(file).expect("the document is there");
    let rows = text.lines().skip_while(|line| !line.starts_with("| n | rule broken |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|line| row(line).unwrap_or_else(|| panic!("not a row of the table: {line}"))).collect()
}

/// `| 7 | `name`: sentence (place) | world: oracle | 3 of 20 |`
fn row(line: &str) -> Option<Row> {
    let columns: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [_, rule, oracle, seeds] = columns[..] else { return None };
    let name = rule.strip_prefix('`')?.split('`').next()?;
    let (world, _) = oracle.split_once(": ")?;
    let (needed, within) = seeds.split_once(" of ")?;
    let (needed, within): (u64, u64) = (needed.parse().ok()?, within.parse().ok()?);
    assert!((1..=within).contains(&needed), "found out within its seeds: {line}");
    Some(Row { rule: name.to_owned(), world: world.to_owned(), within })
}

#[test]
fn the_table_lists_every_rule_that_is_broken_and_where() {
    let listed = |mutation: &Mutation| Row {
        rule: mutation.rule.name(),
        world: mutation.world.to_string(),
        within: mutation.within,
    };
    assert_eq!(documented(), MUTATIONS.iter().map(listed).collect::<Vec<_>>());
}

#[test]
fn every_rule_that_can_be_broken_is_tried() {
    let tried: Vec<Rule> = MUTATIONS.iter().map(|mutation| mutation.rule).collect();
    assert_eq!(tried, Rule::ALL);
    assert!(tried.len() >= 30, "{}", tried.len());
    assert!(MUTATIONS.iter().all(|mutation| (1..=600).contains(&mutation.within)));
}
