//! What administrators ask of a running server.

use std::path::PathBuf;
use std::sync::Arc;

use mx_base::BoxFuture;
use mx_node::report::{FsUsage, LockDump, RecoveryReport, ResourceFilter, Status};

use super::Server;
use crate::admin::Source;
use crate::programs::mount::options::MountOptions;

/// The server behind the administration socket.
#[derive(Clone, Debug)]
pub struct Administration(pub Arc<Server>);

impl Source for Administration {
    fn status(&self) -> BoxFuture<'_, Result<Status, String>> {
        let Administration(server) = self;
        Box::pin(async move { Ok(server.node().status(&server.surroundings())) })
    }

    fn lock_dump(
        &self,
        resource: Option<ResourceFilter>,
        limit: usize,
    ) -> BoxFuture<'_, Result<LockDump, String>> {
        let Administration(server) = self;
        Box::pin(async move {
            Ok(server.node().lock_dump(&server.surroundings(), resource.as_ref(), limit))
        })
    }

    fn recovery_last(&self) -> BoxFuture<'_, Result<RecoveryReport, String>> {
        let Administration(server) = self;
        Box::pin(async move { Ok(server.node().recovery_report(&server.surroundings())) })
    }

    fn fs_usage(&self) -> BoxFuture<'_, Result<FsUsage, String>> {
        let Administration(server) = self;
        Box::pin(async move {
            let report = server.node().usage_report(&server.surroundings()).await;
            report.map_err(|error| error.to_string())
        })
    }

    fn mount(
        &self,
        directory: PathBuf,
        options: MountOptions,
    ) -> BoxFuture<'_, Result<(), String>> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            if let Some(dir) = server.mounted_on() {
                return Err(format!("it is mounted here already, on {}", dir.display()));
            }
            // A task of its own: it goes on when whoever asked is gone.
            let mounting = tokio::spawn(async move { server.mount(directory, options).await });
            let mounted = mounting.await.map_err(|error| error.to_string())?;
            mounted.map_err(|error| error.to_string())
        })
    }

    fn unmount(&self, directory: PathBuf) -> BoxFuture<'_, Result<(), String>> {
        let Administration(server) = self;
        Box::pin(async move {
            let Some(dir) = server.mounted_on() else {
                server.until_unmounted().await;
                return Ok(());
            };
            if dir != directory {
                return Ok(());
            }
            // Nobody may have it mounted any more: then only its end is waited for.
            match server.unmount() {
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                    return Err(format!("{}: {error}", dir.display()));
                }
                Ok(()) | Err(_) => {}
            }
            server.until_unmounted().await;
            Ok(())
        })
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), String>> {
        let Administration(server) = self;
        Box::pin(async move {
            if let Some(dir) = server.mounted_on() {
                return Err(format!("{} is mounted; unmount it first", dir.display()));
            }
            let end = server.leave().await;
            if end == cluster::End::Left { Ok(()) } else { Err(end.to_string()) }
        })
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), String>> {
        let Administration(server) = self;
        Box::pin(async move {
            if let Some(dir) = server.mounted_on() {
                self.unmount(dir).await?;
            }
            let end = server.leave().await;
            server.stop();
            if end == cluster::End::Left { Ok(()) } else { Err(end.to_string()) }
        })
    }
}
