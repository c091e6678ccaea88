//! Waiting for a state, never for a time: whoever waits names what for.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something, at most for `patience`. A look that fails is looked at again;
/// its reason is told at the end.
///
/// # Errors
/// When the time is over.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let text = format!("waited {} s for {what}", patience.as_secs());
            return match last {
                None => bail!(text),
                Some(error) => Err(error.context(text)),
            };
        }
        thread::sleep(PAUSE);
    }
}

/// Does something on a thread of its own that may come to hang, in a mount whose daemon does not
/// answer. The thread goes on until the mount is gone.
///
/// # Errors
/// When it takes longer than `patience`, or fails itself.
pub fn within<T: Send + 'static>(
    what: &str,
    patience: Duration,
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // Nobody may wait for it any more.
        let _ = sender.send(act());
    });
    match receiver.recv_timeout(patience) {
        Ok(result) => result.with_context(|| what.to_owned()),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            bail!("{what}: hangs, no end after {} s", patience.as_secs())
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => bail!("{what}: panicked"),
    }
}
