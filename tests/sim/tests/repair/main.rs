//! Repairs: every rule that a check holds blocks to is broken on a device with something of everything
//! on it; whole devices are damaged at random; devices fail; and a repair loses its power at its writes.
//!
//! `REPAIR_SEEDS=N` and `REPAIR_FIRST=N` damage other devices, or more of them.

mod attack;
mod broken;
mod contents;
mod directories;
mod in_use;
mod objects;
mod power;
mod random;
mod rules;
mod trouble;
