//! What a node needs from the world besides the device and the clock of the file system.
//!
//! The daemon implements these over sockets and an arbiter, the simulator over a seed.

use cluster::{ConnectionId, Frame};
use fencing::register::IoFailed;
use fencing::{Block, Closed, MpBlock};
use mx_base::{BoxFuture, NodeId};

/// Connections to the other nodes. Nothing here waits; what happens to a connection is told to the
/// node by its `handle_*` calls, never from inside a call of this trait.
pub trait Network: Send + Sync {
    /// Dials a peer; [`Node::handle_connected`](crate::Node::handle_connected) or
    /// [`Node::handle_connect_failed`](crate::Node::handle_connect_failed) follows.
    fn connect(&self, peer: NodeId);

    /// Puts a frame on a connection, in order; urgent ones go before what waits there.
    fn send(&self, connection: ConnectionId, frame: Frame);

    /// Closes a connection after what was sent before.
    fn close(&self, connection: ConnectionId);
}

/// The membership partition, over a way of its own that bulk data does not crowd.
pub trait Partition: Send + Sync {
    /// Reads blocks from the device itself.
    fn read(
        &self,
        first: MpBlock,
        count: u32,
    ) -> BoxFuture<'static, Result<Box<[Block]>, IoFailed>>;

    /// Writes a block, durable when it completes. An error says that the write has ended and will
    /// never land; as long as that is not certain, it does not complete.
    fn write(&self, block: MpBlock, data: Box<Block>) -> BoxFuture<'static, Result<(), IoFailed>>;

    /// Why this life may use the device no more, if shared storage has said so: the register, which
    /// would tell, cannot be read then.
    fn closed(&self) -> Option<Closed> {
        None
    }

    /// This life may use shared storage no more (R16): closes every gate, and fails every request
    /// that waits. Final.
    fn cut_off(&self, why: Closed);
}
