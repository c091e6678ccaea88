//! Rule: no two members that may use what they have cached hold modes that exclude each other on one
//! resource (I6). What excludes what is told by the meaning of the modes in `tests/model`, not by the
//! lock manager's own table.

use lcl::ResourceName;
use model::locks;
use mx_base::{FsId, Member};

use super::Oracle;
use crate::fleet::host::Living;

fn in_model(mode: lcl::Mode) -> locks::Mode {
    match mode {
        lcl::Mode::NL => locks::Mode::NL,
        lcl::Mode::CR => locks::Mode::CR,
        lcl::Mode::CW => locks::Mode::CW,
        lcl::Mode::PR => locks::Mode::PR,
        lcl::Mode::PW => locks::Mode::PW,
        lcl::Mode::EX => locks::Mode::EX,
    }
}

/// Compares what all hold of a file system at this moment.
pub(in crate::fleet) fn check(oracle: &Oracle, fs: FsId, living: &[Living]) {
    let mut held: Vec<(ResourceName, Member, lcl::Mode)> = Vec::new();
    for Living { life, node } in living {
        let Some(table) = node.table(fs) else { continue };
        table.for_each(|entry| {
            let mode = entry.mode();
            if mode != lcl::Mode::NL {
                held.push((entry.name(), life.member, mode));
            }
        });
    }
    // Runs of each table's shards are sorted already.
    held.sort_by_key(|(name, ..)| *name);
    for holders in held.chunk_by(|(a, ..), (b, ..)| a == b) {
        for (i, (name, a, mode)) in holders.iter().enumerate() {
            for (_, b, other) in &holders[i + 1..] {
                if !in_model(*mode).goes_with(in_model(*other)) {
                    let what = format!("{name:?} is held by {a} in {mode} and by {b} in {other}");
                    oracle.violation("compatible grants", what);
                }
            }
        }
    }
}
