//! Benchmarks, each with its floor: what the same work costs where nothing is kept right between
//! nodes, measured in the same run on the same machine.
//!
//! * [`spec`]: every row there is, in one table; [`row`]: a row as it is reported.
//! * [`stage`]: what is measured: a cluster, and beside it the [`floors`].
//! * [`groups`]: the measurements; those of one group share their set-up.
//! * [`document`][mod@document]: `docs/performance.md`.
//!
//! Keeps true: ours and its floors take turns within a run; a number in the document was measured.
//! Asserts no times, but that what is read is what was written.

pub mod allocations;
pub mod document;
pub mod floors;
pub mod groups;
pub mod machine;
pub mod needs;
pub mod row;
pub mod samples;
pub mod scale;
pub mod spec;
pub mod stage;
