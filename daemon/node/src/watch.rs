//! The membership partition: heartbeats read and written, the register looked at and changed.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use fencing::{MpBlock, layout};

use crate::file_system::FsCore;
use crate::node::{Core, Node};
use crate::storage::Effect;
use mx_base::{BoxFuture, Instant, NodeId};

/// Units between two readings of the heartbeats and the register.
const READ_EVERY: u32 = 2;

/// Units after which a reading that has not ended counts as failed.
const LATE: u32 = 5;

impl Node {
    /// Reads heartbeats and register for as long as this life lasts.
    pub(crate) fn spawn_watch(&self) {
        let weak = self.weak.clone();
        let control = Arc::clone(&self.world.control);
        let pause = self.config.unit.get() * READ_EVERY;
        let task = async move {
            while let Some(node) = weak.upgrade() {
                if node.look(|core| core.ended.is_some()) {
                    break;
                }
                node.read_heartbeats().await;
                node.run(|core, _| {
                    node.look_at_register(core);
                    core.file_systems.values_mut().for_each(FsCore::keep_locks_few);
                });
                let sleep = node.world.control.sleep(pause);
                drop(node);
                sleep.await;
            }
        };
        control.spawn(Box::pin(task));
    }

    pub(crate) fn look_at_register(&self, core: &mut Core) {
        if std::mem::replace(&mut core.looking, true) {
            core.look_again = true;
            return;
        }
        let Some(node) = self.weak.upgrade() else { return };
        self.world.control.spawn(Box::pin(async move { node.look_until_settled().await }));
    }

    /// True when another look was asked for meanwhile.
    fn looked(core: &mut Core) -> bool {
        if std::mem::take(&mut core.look_again) {
            return true;
        }
        core.looking = false;
        false
    }

    async fn read_heartbeats(&self) {
        let (first, count) = layout::heartbeat_run(self.config.nodes_max);
        let started = self.world.control.now();
        let read = self.world.partition.read(first, count);
        match self.unless_late(read).await {
            Ok(blocks) => self.run(|core, now| {
                let heartbeats = core.storage.handle_heartbeats(&blocks, started, now);
                core.cluster.handle_disk_heartbeats(&heartbeats, now);
            }),
            Err(error) => {
                tracing::warn!(?error, "heartbeats not readable");
                if let Some(why) = self.world.partition.closed() {
                    self.cut_off(why);
                }
            }
        }
    }

    /// Waits for a reading however long it takes; when that is too long the cluster is told that
    /// this node does not reach the membership partition.
    async fn unless_late<T>(&self, mut read: BoxFuture<'static, T>) -> T {
        let mut patience = self.world.control.sleep(self.config.unit.get() * LATE);
        let early = poll_fn(|context| match read.as_mut().poll(context) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => patience.as_mut().poll(context).map(|()| None),
        });
        if let Some(read) = early.await {
            return read;
        }
        tracing::warn!("the membership partition does not answer");
        self.run(|core, now| core.cluster.handle_register_unreadable(now));
        read.await
    }

    /// Passes over the register until one settles what it holds, or a ballot has to.
    pub(crate) async fn look_until_settled(self: Arc<Self>) {
        let (first, count) = layout::register_run(self.config.nodes_max);
        loop {
            let began = self.world.control.now();
            let read = self.unless_late(self.world.partition.read(first, count)).await;
            let again = self.run(|core, _| {
                let unsettled = match read {
                    Ok(blocks) => {
                        let rank = core.rank(self.config.me.node);
                        core.storage.handle_look(blocks, rank, began)
                    }
                    Err(_) => {
                        core.storage.handle_look_failed();
                        false
                    }
                };
                let over = core.ended.is_some();
                !over && (unsettled || Node::looked(core))
            });
            if !again {
                break;
            }
        }
    }

    pub(crate) fn carry_out_storage(&self, core: &mut Core, now: Instant) -> bool {
        if core.ended.is_some() {
            return false;
        }
        if core.cluster.me().is_some() {
            core.storage.beat(&core.cluster, now);
        }
        let mut moved = core.storage.advance(core.cluster.register(), now);
        while let Some(effect) = core.storage.poll_effect() {
            moved = true;
            match effect {
                Effect::ReadRegister { io, block, count } => {
                    let read = self.world.partition.read(block, count);
                    self.spawn_control(async move |node| {
                        let result = read.await;
                        node.run(|core, now| {
                            let result = result.as_deref().map_err(|error| *error);
                            core.storage.handle_read(io, result, now);
                        });
                    });
                }
                Effect::WriteRegister { io, block, data } => {
                    let write = self.world.partition.write(block, data);
                    self.spawn_control(async move |node| {
                        let result = write.await;
                        node.run(|core, now| core.storage.handle_written(io, result, now));
                    });
                }
                Effect::WriteHeartbeat { block, data } => self.write_heartbeat(block, data),
                Effect::Fence { attempt, request } => {
                    let fence = self.world.agent.fence(request);
                    self.spawn_control(async move |node| {
                        let answer = fence.await;
                        tracing::info!(victim = %request.victim, ?answer, "fence answered");
                        node.run(|core, now| core.storage.handle_answer(attempt, answer, now));
                    });
                }
                Effect::Committed { token, answer } => {
                    core.cluster.handle_commit_answer(token, answer, now);
                }
                Effect::Register { value, began } => {
                    core.cluster.handle_register(value, began, now);
                }
                Effect::RegisterUnreadable => core.cluster.handle_register_unreadable(now),
                Effect::Fenced { dead } => core.cluster.handle_fenced(dead, now),
            }
        }
        moved
    }

    fn write_heartbeat(&self, block: MpBlock, data: Box<fencing::Block>) {
        let write = self.world.partition.write(block, data);
        self.spawn_control(async move |node| {
            let written = write.await.is_ok();
            node.run(|core, now| {
                core.storage.handle_heartbeat_written(written, now);
                if let Some(issued) = core.storage.pulse() {
                    core.cluster.handle_disk_heartbeat_written(issued, now);
                }
            });
        });
    }

    fn spawn_control<F>(&self, task: impl FnOnce(Arc<Node>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let weak = self.weak.clone();
        self.world.control.spawn(Box::pin(async move {
            if let Some(node) = weak.upgrade() {
                task(node).await;
            }
        }));
    }
}

impl Core {
    /// How many members come before this node; those who are none yet come behind them.
    fn rank(&self, me: NodeId) -> u32 {
        let members = self.cluster.view().map(mx_base::View::members).unwrap_or_default();
        let before = members.iter().take_while(|member| member.node < me).count();
        let rank = if members.is_empty() { me.index() % 8 } else { before };
        u32::try_from(rank).expect("at most 64 nodes")
    }
}
