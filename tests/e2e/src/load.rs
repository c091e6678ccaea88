//! Work on the mounts, done by processes that stand outside of them and tell every operation that
//! was acknowledged; and the judge of what must be there afterwards.
//!
//! A writer's operations follow from its number and the operation's alone ([`step`]), so what it
//! says is short: `try K`, `ack K`, `fail K WHY`. Acknowledged means that fsync(2) has returned, of
//! the file and of the directory. Operations of one writer follow each other: all before the last
//! acknowledged one are acknowledged, and at most one more was tried.

pub mod judge;
pub mod mail;
pub mod process;
pub mod step;
pub mod team;
pub mod writer;

pub use judge::{Verdict, judge};
pub use process::{Progress, Writer};
pub use step::{Mix, Step};
pub use team::Team;
