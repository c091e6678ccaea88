//! What the small programs do; their `main`s are thin.

pub mod arbiter;
pub mod ctl;
pub mod debug;
pub mod documents;
pub mod fsck;
pub mod mkfs;
pub mod mount;
pub mod mxd;
pub mod service;
pub mod signatures;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fencing::gate::Gate;
use fencing_agents::device::{Device, OpenError};
use fencing_agents::engine::Engine;

use crate::disk::LocalDisk;

/// How long a program waits for requests of a former user of a device to end.
const PATIENCE: Duration = Duration::from_millis(500);

/// Opens a device for a program that has it to itself.
///
/// # Errors
/// When it cannot be opened or somebody else has it.
pub fn open_alone(path: &Path) -> Result<Arc<LocalDisk>, AloneError> {
    let device = Device::open(path, PATIENCE)?;
    let engine = Engine::start(device).map_err(AloneError::Engine)?;
    Ok(Arc::new(LocalDisk::new(Arc::new(engine), Gate::new())))
}

/// Why a program cannot have a device.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot start I/O: {0}")]
    Engine(#[source] std::io::Error),
}

/// Runs a future of a program to its end.
///
/// # Errors
/// When there are no threads for it.
pub fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    Ok(runtime.block_on(future))
}
