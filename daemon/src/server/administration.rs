//! What administrators ask of a running server.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfs::locks::Resource;
use mx_base::BoxFuture;
use mx_node::report::{
    CheckCursor, FileLocks, FsCheck, FsDamage, FsTrim, FsUsage, LockDump, LockTop, RecoveryReport,
    ResourceFilter, Status, Why,
};
use parking_lot::Mutex;

use super::Server;
use crate::admin::{Source, Subject};
use crate::programs::mount::options::MountOptions;

/// How long the lock of a directory may take when a path is looked up for `mxctl why`.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);

/// The server behind the administration socket.
#[derive(Clone, Debug)]
pub struct Administration(pub Arc<Server>);

impl Administration {
    /// The resources of the file that a path below the mount means; of the directory that cannot be
    /// looked into now, and its path, if there is one on the way.
    async fn resources_of(&self, path: &Path) -> Result<(Vec<Resource>, Option<String>), String> {
        let Administration(server) = self;
        let mounted = server.mounted_on().ok_or("nothing is mounted here")?;
        let below = path.strip_prefix(&mounted).map_err(|_| {
            format!(
                "{} is not below {}, which this daemon serves",
                path.display(),
                mounted.display()
            )
        })?;
        let mut names = Vec::new();
        for part in below.components() {
            match part {
                Component::Normal(name) => names.push(name.as_bytes().to_vec()),
                Component::Prefix(_)
                | Component::RootDir
                | Component::CurDir
                | Component::ParentDir => {
                    return Err(format!("{}: give the path without `..`", path.display()));
                }
            }
        }
        let reached = Mutex::new((server.root(), 0));
        let resolving =
            server.node().resolve(server.fs(), server.root(), &names, |directory, depth| {
                *reached.lock() = (directory, depth);
            });
        let (file, stuck_at) = match tokio::time::timeout(LOOKUP_PATIENCE, resolving).await {
            Ok(Ok(file)) => (file, None),
            Ok(Err(error)) => return Err(format!("{}: {error}", path.display())),
            Err(_) => {
                let (directory, depth) = *reached.lock();
                let stuck_at: PathBuf = below.components().take(depth).collect();
                (directory, Some(mounted.join(stuck_at).display().to_string()))
            }
        };
        let group = server.layout().group_of(mfs::block::BlockNo(file.inode.0));
        let group = group.map(Resource::Group);
        let inode = [Resource::Inode(file.inode), Resource::Open(file.inode)];
        // Of interest where changes wait.
        let is_frozen = server.node().is_frozen(server.fs()).then_some(Resource::Freeze);
        Ok((is_frozen.into_iter().chain(inode).chain(group).collect(), stuck_at))
    }
}

/// The name of a process of this machine that is still there.
fn command(pid: u32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

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
        Box::pin(async move {
            let mut report = server.node().recovery_report(&server.surroundings());
            let works = report.recoveries.iter_mut().flat_map(|r| &mut r.file_systems);
            for delay in works.flat_map(|fs| &mut fs.work.longest) {
                delay.command = delay.pid.and_then(command);
            }
            Ok(report)
        })
    }

    fn lock_top(&self) -> BoxFuture<'_, Result<LockTop, String>> {
        let Administration(server) = self;
        Box::pin(async move { Ok(server.node().lock_top(server.fs(), &server.surroundings())) })
    }

    fn why(&self, subject: Subject) -> BoxFuture<'_, Result<Why, String>> {
        let Administration(server) = self;
        Box::pin(async move {
            let (resources, stuck_at) = match subject {
                Subject::Resource(text) => {
                    let filter: ResourceFilter = text
                        .parse()
                        .map_err(|error: mx_node::report::FilterError| error.to_string())?;
                    let resource = filter.resource();
                    let which = || format!("`{filter}` is no single resource: give its number");
                    (vec![resource.ok_or_else(which)?], None)
                }
                Subject::Path(path) => self.resources_of(&path).await?,
            };
            let mut why =
                server.node().why(server.fs(), &server.surroundings(), &resources, stuck_at);
            for waiter in why.resources.iter_mut().flat_map(|resource| &mut resource.waiters) {
                waiter.command = waiter.pid.and_then(command);
            }
            let file_locks = why.resources.iter_mut().filter_map(|of| of.file_locks.as_mut());
            for lock in file_locks.flat_map(FileLocks::listed_mut) {
                // The number of a process says nothing on another machine.
                let is_here = Some(lock.member.incarnation) == why.viewer.incarnation
                    && lock.member.node == why.viewer.node;
                lock.command = is_here.then(|| command(lock.pid)).flatten();
            }
            Ok(why)
        })
    }

    fn fs_usage(&self) -> BoxFuture<'_, Result<FsUsage, String>> {
        let Administration(server) = self;
        Box::pin(async move {
            let report = server.node().usage_report(&server.surroundings()).await;
            report.map_err(|error| error.to_string())
        })
    }

    fn fs_damage(&self) -> BoxFuture<'_, Result<FsDamage, String>> {
        let Administration(server) = self;
        Box::pin(async move { Ok(server.node().damage_report(&server.surroundings())) })
    }

    fn fs_trim(&self, from: u64, minimum_bytes: u64) -> BoxFuture<'_, Result<FsTrim, String>> {
        let Administration(server) = self;
        Box::pin(async move {
            let around = server.surroundings();
            let trim = server.node().trim(server.fs(), &around, from, minimum_bytes).await;
            let trim = trim.ok_or("nothing is mounted here")?;
            trim.map_err(|error| error.to_string())
        })
    }

    fn fs_check(&self, from: CheckCursor, data: bool) -> BoxFuture<'_, Result<FsCheck, String>> {
        let Administration(server) = self;
        Box::pin(async move {
            let around = server.surroundings();
            let check = server.node().check(server.fs(), &around, from, data).await;
            let check = check.ok_or("nothing is mounted here")?;
            check.map_err(|error| error.to_string())
        })
    }

    fn fs_freeze(&self, patience: Duration, lasts: Duration) -> BoxFuture<'_, Result<(), String>> {
        let Administration(server) = self;
        Box::pin(async move {
            let frozen = server.node().freeze(server.fs(), patience, lasts).await;
            let frozen = frozen.ok_or("nothing is mounted here")?;
            frozen.map_err(|error| error.to_string())
        })
    }

    fn fs_thaw(&self) -> BoxFuture<'_, Result<(), String>> {
        let Administration(server) = self;
        Box::pin(async move {
            match server.node().thaw(server.fs()) {
                Some(true) => Ok(()),
                Some(false) => Err("this node has not frozen it, or not any more".to_owned()),
                None => Err("nothing is mounted here".to_owned()),
            }
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

    fn remount(
        &self,
        directory: PathBuf,
        options: MountOptions,
    ) -> BoxFuture<'_, Result<(), String>> {
        let Administration(server) = self;
        Box::pin(async move {
            let changed = server.remount(&directory, options).await;
            changed.map_err(|error| format!("{}: {error}", directory.display()))
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
