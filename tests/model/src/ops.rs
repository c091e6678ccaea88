//! Operations to try a file system with: drawn from a seed, applied to the model, told to others.
//!
//! An [`Op`] names its operands by index, taken modulo what exists when it is resolved; so every
//! sequence of operations means something on every tree, whatever happened before, and stays
//! meaningful when some are left out. [`Op::resolve`] makes an [`Action`] of it, which names
//! objects of one tree; [`Tree::apply`](crate::posix::Tree::apply) carries that out, and whoever
//! runs the judged file system translates it by the path or handle of the object.

mod action;
mod data;
mod generate;
mod op;
mod profile;

pub use action::{Action, Outcome};
pub use data::{Data, Value};
pub use generate::Generator;
pub use op::{Among, Entry, Op, Pick, Place};
pub use profile::Profile;

#[cfg(test)]
mod tests;
