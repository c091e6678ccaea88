//! The administration socket of a daemon, as `mxctl` and the mount helper use it.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::reports::{FsUsage, LockDump, Recoveries, Status};

/// A daemon says at once what it knows.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long something may take that waits for other nodes.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(60);

/// Where a daemon is asked.
#[derive(Clone, Debug)]
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    pub fn at(socket: &Path) -> Admin {
        Admin { socket: socket.to_owned() }
    }

    /// For programs that are given it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The daemon's answer, empty when it ended instead.
    fn line(&self, request: &Value, patience: Duration) -> Result<String> {
        let at = || self.socket.display().to_string();
        let mut stream = UnixStream::connect(&self.socket).with_context(at)?;
        stream.set_read_timeout(Some(patience))?;
        let line = json!({"version": 1, "request": request}).to_string() + "\n";
        stream.write_all(line.as_bytes()).with_context(at)?;
        let mut line = String::new();
        match BufReader::new(stream).read_line(&mut line) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(String::new()),
            result => result.map(|_| line).with_context(at),
        }
    }

    fn call(&self, request: &Value, patience: Duration) -> Result<Value> {
        let line = self.line(request, patience)?;
        answer(&line).with_context(|| self.socket.display().to_string())
    }

    fn report<T: DeserializeOwned>(&self, request: &Value) -> Result<T> {
        let answer = self.call(request, PATIENCE)?;
        serde_json::from_value(answer).with_context(|| format!("the answer to {request}"))
    }

    fn carry_out(&self, request: &Value) -> Result<()> {
        let answer = self.call(request, CLUSTER_PATIENCE);
        let answer = answer.with_context(|| request.to_string())?;
        is_done(request, &answer)
    }

    /// # Errors
    /// When the daemon does not answer, as for all of these.
    pub fn status(&self) -> Result<Status> {
        self.report(&json!("status"))
    }

    /// # Errors
    /// As [`Admin::status`].
    pub fn recoveries(&self) -> Result<Recoveries> {
        self.report(&json!("recovery_last"))
    }

    /// # Errors
    /// As [`Admin::status`].
    pub fn usage(&self) -> Result<FsUsage> {
        self.report(&json!("fs_usage"))
    }

    /// Locks that the node has cached; `resource` as `mxctl lock dump --resource` takes it.
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub fn locks(&self, resource: &str) -> Result<LockDump> {
        self.report(&json!({"lock_dump": {"resource": resource, "limit": 10_000}}))
    }

    /// All locks, for people.
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub fn locks_text(&self) -> Result<String> {
        let request = json!({"lock_dump": {"resource": null, "limit": 10_000}});
        Ok(serde_json::to_string_pretty(&self.call(&request, PATIENCE)?)?)
    }

    /// Returns when the mount is usable.
    ///
    /// # Errors
    /// As [`Admin::status`], or the daemon's reason.
    pub fn mount(&self, directory: &Path, read_only: bool) -> Result<()> {
        self.mount_with(directory, json!({"read_only": read_only}))
    }

    /// As [`Admin::mount`], with the option `submounts`.
    ///
    /// # Errors
    /// As [`Admin::mount`].
    pub fn mount_for_submounts(&self, directory: &Path) -> Result<()> {
        self.mount_with(directory, json!({"submounts": true}))
    }

    fn mount_with(&self, directory: &Path, options: Value) -> Result<()> {
        self.carry_out(&json!({"mount": {"directory": directory, "options": options}}))
    }

    /// Returns when everything of the mount is in place on the device.
    ///
    /// # Errors
    /// As [`Admin::mount`].
    pub fn unmount(&self, directory: &Path) -> Result<()> {
        self.carry_out(&json!({"unmount": {"directory": directory}}))
    }

    /// Unmounts and leaves; the process ends by itself.
    ///
    /// # Errors
    /// As [`Admin::mount`].
    pub fn stop(&self) -> Result<()> {
        // It may be gone before its answer has left.
        match self.line(&json!("stop"), CLUSTER_PATIENCE)?.as_str() {
            "" => Ok(()),
            line => is_done(&json!("stop"), &answer(line)?),
        }
    }
}

fn answer(line: &str) -> Result<Value> {
    if line.is_empty() {
        bail!("the daemon ended before it answered");
    }
    let mut reply: Value = serde_json::from_str(line)?;
    let mut answer = reply["answer"].take();
    if let Some(why) = answer.get("error").and_then(Value::as_str) {
        bail!("{why}");
    }
    Ok(match answer.as_object_mut() {
        Some(fields) => fields.values_mut().next().map_or(Value::Null, Value::take),
        None => answer,
    })
}

fn is_done(request: &Value, answer: &Value) -> Result<()> {
    if answer != "done" {
        bail!("{request} was answered by {answer}");
    }
    Ok(())
}
