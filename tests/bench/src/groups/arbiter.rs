//! What the block server costs on the way to the device.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context as _, Result};
use fencing::Gate;
use fencing_agents::arbiter::client::{Client, Config, Identity};
use fencing_agents::arbiter::protocol::Hello;
use mfs::block::Block;
use mx_base::Instant;

use super::{shuffled, timed};
use crate::floors::raw_device::{BLOCK, blocks};
use crate::samples::{Samples, Side};
use crate::spec::Floor;
use crate::stage::Stage;

/// Blocks of memory shared with it; the least there may be.
const AREA: u32 = 256;

pub(super) fn measure(stage: &mut Stage, run: usize, samples: &mut Samples) -> Result<()> {
    let client = connect(stage)?;
    let pings = stage.scale.pings;
    let (took, ()) = timed(|| (0..pings).try_for_each(|_| Ok(client.ping().wait()?)))?;
    samples.add_time("arbiter_ping", Side::Ours, took, pings);
    let (took, ()) = timed(|| (0..pings).try_for_each(|_| stage.partner.ping()))?;
    samples.add_time("arbiter_ping", Side::Floor(Floor::PingPong), took, pings);

    let of_device = usize::try_from(client.blocks())?.min(stage.scale.file_bytes / BLOCK);
    let mut order = shuffled(of_device, run);
    order.truncate(stage.scale.random_accesses);
    let (took, ()) = timed(|| {
        order.iter().try_for_each(|at| Ok(client.read::<Block>(*at as u64, 1).wait().map(drop)?))
    })?;
    samples.add_time("arbiter_read", Side::Ours, took, order.len());
    let mut block = blocks(BLOCK);
    let (took, ()) = timed(|| order.iter().try_for_each(|at| stage.raw.read(*at, &mut block)))?;
    samples.add_time("arbiter_read", Side::Floor(Floor::RawDevice), took, order.len());
    Ok(())
}

/// Writes and flushes that the device has been asked for, by all nodes; heartbeats are among them,
/// some in a second.
pub(super) fn device_writes(client: &Client) -> Result<u64> {
    let counters = client.counters().wait()?;
    Ok(counters.writes + counters.flushes)
}

/// As one who only looks: nobody's life is touched.
pub(super) fn connect(stage: &Stage) -> Result<Client> {
    let start = Clock::now();
    let nanoseconds = move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let config = Config {
        socket: stage.cluster.arbiter_socket(),
        cluster: Hello::ANY_CLUSTER,
        device: Hello::ANY_DEVICE,
        identity: Identity::Observer,
        channel: 0,
        area_blocks: AREA,
        gate: Gate::new(),
        clock: Arc::new(move || Instant(nanoseconds())),
    };
    Client::connect(config, Duration::from_secs(10)).context("the arbiter")
}
