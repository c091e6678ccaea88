//! The arbiter: a block server for devices that cannot fence by themselves.
//!
//! Every write of every node passes it, so that it can say of a node "no write of it reaches the
//! device any more" and have it be so. It runs on the machine that has the device; the bytes of
//! requests and answers go over a Unix socket, payloads over memory that the client shares.
//! `docs/spec/fencing.md` has the protocol and what a fence proves.

pub mod agent;
pub mod client;
pub mod protocol;
pub mod server;

mod shared_memory;
mod socket;

pub use agent::ArbiterAgent;
pub use client::Client;
