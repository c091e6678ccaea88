//! What a node shows of itself to tests and to whoever reports on it. Changes nothing.

use std::sync::Arc;

use lcl::pin::Table;
use mx_base::{FsId, View};

use crate::node::Node;

impl Node {
    /// The view that this node acts in.
    pub fn view(&self) -> Option<View> {
        self.look(|core| core.cluster.view().cloned())
    }

    /// What the membership is doing, in words.
    pub fn activity(&self) -> &'static str {
        self.look(|core| core.cluster.activity())
    }

    /// Every lock of a file system as this node has cached it.
    pub fn table(&self, fs: FsId) -> Option<&Arc<Table>> {
        self.locals.get(&fs).map(|local| &local.table)
    }

    /// Payloads of lock traffic that this node has handed to its links, each with one message or a
    /// bundle of them.
    pub fn lock_payloads(&self) -> u64 {
        self.look(|core| core.backlog.sent())
    }
}
