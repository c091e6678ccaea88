//! What a start does before it may join: from the way to the device to a register it may use
//! (section 12 of `docs/spec/fencing.md`).
//!
//! Keeps true: when a life is handed out, no start had it before, and nothing of a former life of
//! this node is under way to the device any more (R5).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::StartNonce;
use fencing::register::Survey;
use fencing::{DeviceId, FenceAgent, Gate, Key, MpBlock, MpIndex, Victim, layout};
use fencing_agents::arbiter::ArbiterAgent;
use fencing_agents::arbiter::client::{self, Client, ConnectError, RequestFailed};
use fencing_agents::arbiter::protocol::{Hello, HelloRefusal};
use fencing_agents::device::{Device, OpenError};
use fencing_agents::engine::Engine;
use mfs::block::BlockNo;
use mfs::env::Disk;
use mx_base::{ClusterId, Incarnation, Member, NodeId};
use mx_node::world::Partition;

use crate::disk::{ArbiterDisk, LocalDisk};
use crate::partition::{
    ArbiterPartition, EnginePartition, Identity, IdentityError, LocalAgent, identify,
    partition_block_of,
};
use crate::runtime::now;

/// Numbers that are tried. Each one that is taken was taken by another start of this node at the
/// same time.
const TRIES_MAX: u32 = 32;

/// The session for the file system's requests, and the one for membership, which they never crowd.
const DATA_CHANNEL: u16 = 0;
const REGISTER_CHANNEL: u16 = 1;

/// Blocks of shared memory for the register: its longest request has 128.
const REGISTER_AREA: u32 = 256;

/// The only membership partition of this release.
const PARTITION: MpIndex = MpIndex(0);

/// A new life of this node that shared storage lets in.
pub struct Prepared {
    /// Through [`Prepared::gate`].
    pub disk: Arc<dyn Disk>,
    pub partition: Arc<dyn Partition>,
    pub agent: Arc<dyn FenceAgent>,
    /// Of this life, in front of everything above.
    pub gate: Arc<Gate>,
    pub identity: Identity,
    /// Above all that were seen, and registered where there is an arbiter.
    pub me: Member,
}

/// Why there is no life to join with.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("{}: {source}", socket.display())]
    Connect { socket: PathBuf, source: ConnectError },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{node} cannot be in this cluster: its node ids end at {most}")]
    NodeId { node: NodeId, most: u16 },
    #[error("the cluster has {count} membership partitions; this release uses one")]
    Partitions { count: u8 },
    #[error("the arbiter does not say who is fenced: {0}")]
    List(#[source] RequestFailed),
    #[error("all incarnations of {node} are used up")]
    NoLifeLeft { node: NodeId },
    #[error(
        "another start of {node} has taken the place of this one: is its node id in use twice?"
    )]
    Replaced { node: NodeId },
    #[error(
        "other starts of {node} took {TRIES_MAX} incarnations in a row: is its node id in use twice?"
    )]
    Contended { node: NodeId },
    #[error("former lives of this node cannot be fenced: {0}")]
    FormerLives(#[source] RequestFailed),
    #[error("no thread, memory or io_uring: {0}")]
    System(#[from] io::Error),
}

/// Prepares a life on a device that an arbiter serves. `nonce` is of this start of the daemon;
/// `patience` is for an arbiter that is not there yet.
///
/// # Errors
/// [`PrepareError`]. Nothing of the new life is under way then.
pub async fn prepare_shared(
    socket: &Path,
    node: NodeId,
    nonce: StartNonce,
    patience: Duration,
) -> Result<Prepared, PrepareError> {
    let open = async |served, identity, channel, area_blocks, gate: &Arc<Gate>| {
        let (cluster, device) = served;
        let config = client::Config {
            socket: socket.to_owned(),
            cluster,
            device,
            identity,
            channel,
            area_blocks,
            gate: Arc::clone(gate),
            clock: Arc::new(now),
        };
        connect(config, patience).await
    };
    let anything = (Hello::ANY_CLUSTER, Hello::ANY_DEVICE);
    let observer =
        open(anything, client::Identity::Observer, DATA_CHANNEL, REGISTER_AREA, &Gate::new()).await;
    let observer = Arc::new(observer?);
    let looking = ArbiterDisk::new(Arc::clone(&observer));
    let identity = identify(&looking).await?;
    let survey = survey(&looking, &identity, node).await?;
    let served: (ClusterId, DeviceId) = (identity.fs.cluster_id, identity.device_id());

    let mut beyond = Incarnation(0);
    for _ in 0..TRIES_MAX {
        beyond = beyond.max(registered(&observer, node).await?);
        let me = survey.next_life(node, beyond).ok_or(PrepareError::NoLifeLeft { node })?;
        let member = client::Identity::Member { key: Key::of(me), nonce: nonce.get() };
        let gate = Gate::new();
        let data = match open(served, member, DATA_CHANNEL, client::AREA_BLOCKS, &gate).await {
            Ok(data) => Arc::new(data),
            Err(error) if is_taken(&error) => {
                tracing::info!(life = %me, %error, "the incarnation is taken, trying the next");
                beyond = me.incarnation;
                continue;
            }
            Err(error) => return Err(error),
        };
        // From here on the number is this start's. Whoever takes a higher one takes its place; to
        // try again would only take it back, and so on for ever.
        let register = match open(served, member, REGISTER_CHANNEL, REGISTER_AREA, &gate).await {
            Ok(register) => Arc::new(register),
            Err(error) if is_taken(&error) => return Err(PrepareError::Replaced { node }),
            Err(error) => return Err(error),
        };
        if me.incarnation.0 > 1 {
            let former = Victim { node, up_to: Incarnation(me.incarnation.0 - 1) };
            register.fence(former).await.map_err(|error| {
                let replaced = matches!(error, RequestFailed::Gate(_));
                if replaced {
                    PrepareError::Replaced { node }
                } else {
                    PrepareError::FormerLives(error)
                }
            })?;
        }
        tracing::info!(life = %me, "shared storage lets this life in");
        let start = identity.fs.layout.membership_start;
        let agent = ArbiterAgent::new(Arc::clone(&register), served.1);
        return Ok(Prepared {
            disk: Arc::new(ArbiterDisk::new(Arc::clone(&data))),
            partition: Arc::new(ArbiterPartition::new(register, data, Arc::clone(&gate), start)),
            agent: Arc::new(agent),
            gate,
            identity,
            me,
        });
    }
    Err(PrepareError::Contended { node })
}

/// Prepares a life on a device of this machine that nobody else uses. `patience` is for requests
/// of a former user.
///
/// The lock on the device shows that no former life of this machine has anything under way. The
/// number is registered nowhere: a start that never joins leaves it to the next one.
///
/// # Errors
/// [`PrepareError`].
pub async fn prepare_local(
    device: &Path,
    node: NodeId,
    patience: Duration,
) -> Result<Prepared, PrepareError> {
    let path = device.to_owned();
    let engine = blocking(move || -> Result<Engine, PrepareError> {
        Ok(Engine::start(Device::open(&path, patience)?)?)
    });
    let engine = Arc::new(engine.await??);
    let gate = Gate::new();
    let disk = LocalDisk::new(Arc::clone(&engine), Arc::clone(&gate));
    let identity = identify(&disk).await?;
    let survey = survey(&disk, &identity, node).await?;
    let me = survey.next_life(node, Incarnation(0)).ok_or(PrepareError::NoLifeLeft { node })?;
    let start = identity.fs.layout.membership_start;
    let partition = EnginePartition::new(Arc::clone(&engine), Arc::clone(&gate), start);
    Ok(Prepared {
        disk: Arc::new(disk),
        partition: Arc::new(partition),
        agent: Arc::new(LocalAgent::new(engine, identity.device_id())),
        gate,
        identity,
        me,
    })
}

/// All register records that can be read.
async fn survey(
    disk: &dyn Disk,
    identity: &Identity,
    node: NodeId,
) -> Result<Survey, PrepareError> {
    let fencing::ondisk::superblock::Superblock { cluster, nodes_max, count, .. } =
        identity.membership;
    if count != 1 {
        return Err(PrepareError::Partitions { count });
    }
    if node.get() > nodes_max {
        return Err(PrepareError::NodeId { node, most: nodes_max });
    }
    let mut survey = Survey::new(cluster, nodes_max);
    let (first, blocks) = layout::register_run(nodes_max);
    let on_device = |block: u32| BlockNo(identity.fs.layout.membership_start + u64::from(block));
    match disk.read(on_device(first.0), blocks as usize).await {
        Ok(read) => add(&mut survey, first, &read),
        Err(error) => {
            tracing::warn!(%error, "the register cannot be read at once: block by block");
            for block in first.0..first.0 + blocks {
                // What cannot be read shows nothing; the register itself judges whether it may.
                if let Ok(read) = disk.read(on_device(block), 1).await {
                    add(&mut survey, MpBlock(block), &read);
                }
            }
        }
    }
    Ok(survey)
}

fn add(survey: &mut Survey, at: MpBlock, read: &[mfs::block::Block]) {
    for (block, at) in read.iter().zip(at.0..) {
        survey.add(PARTITION, MpBlock(at), std::slice::from_ref(&*partition_block_of(block)));
    }
}

/// The newest life of the node that the arbiter has let in or will not let in any more.
async fn registered(observer: &Client, node: NodeId) -> Result<Incarnation, PrepareError> {
    let reports = observer.list().await.map_err(PrepareError::List)?;
    let report = reports.iter().find(|report| report.node == node);
    Ok(report.map_or(Incarnation(0), |report| {
        report.incarnation_newest.max(Incarnation(report.incarnation_min.0.saturating_sub(1)))
    }))
}

fn is_taken(error: &PrepareError) -> bool {
    let PrepareError::Connect { source: ConnectError::Refused(refusal), .. } = error else {
        return false;
    };
    matches!(refusal, HelloRefusal::InUse | HelloRefusal::Superseded | HelloRefusal::Fenced)
}

async fn connect(config: client::Config, patience: Duration) -> Result<Client, PrepareError> {
    let socket = config.socket.clone();
    let connected = blocking(move || Client::connect(config, patience)).await?;
    connected.map_err(|source| PrepareError::Connect { socket, source })
}

/// Runs what stops its thread on one where nobody waits.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, io::Error> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("me", &self.me).finish_non_exhaustive()
    }
}
