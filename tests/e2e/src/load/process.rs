//! A writer as whoever started it sees it: a process and what it has said so far.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;

use super::step::Mix;
use crate::programs::Programs;
use crate::wait;

/// What a writer has said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    pub writer: u32,
    pub mix: Mix,
    /// Operations that were begun.
    pub tried: u64,
    /// Operations that were acknowledged: all with a smaller number.
    pub acknowledged: u64,
    /// The longest time between two acknowledgements.
    pub longest_pause: Duration,
    /// Why it ended by itself.
    pub failure: Option<String>,
    /// It can say no more.
    pub has_ended: bool,
}

/// A writer that runs.
#[derive(Debug)]
pub struct Writer {
    child: Child,
    input: Option<ChildStdin>,
    said: Arc<Mutex<Progress>>,
    listener: Option<JoinHandle<()>>,
}

/// How long the operation that a writer is in may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Writer {
    /// # Errors
    /// When it does not start.
    pub fn start(
        programs: &Programs,
        mix: Mix,
        mount: &Path,
        writer: u32,
        pause: Duration,
    ) -> Result<Writer> {
        let mut command = programs.command("mx-load");
        command.arg(mix.to_string()).arg(mount).arg(writer.to_string());
        command.arg(pause.as_millis().to_string());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.context("a writer")?;
        let output = child.stdout.take().context("stdout was piped")?;
        let input = child.stdin.take();
        let progress = Progress {
            writer,
            mix,
            tried: 0,
            acknowledged: 0,
            longest_pause: Duration::ZERO,
            failure: None,
            has_ended: false,
        };
        let said = Arc::new(Mutex::new(progress));
        let to = Arc::clone(&said);
        let listener = Some(std::thread::spawn(move || listen(output, &to)));
        Ok(Writer { child, input, said, listener })
    }

    pub fn progress(&self) -> Progress {
        self.said.lock().clone()
    }

    /// Waits until so many operations are acknowledged.
    ///
    /// # Errors
    /// When it fails before, or comes to hang.
    pub fn until_acknowledged(&self, count: u64) -> Result<()> {
        wait::until("acknowledged operations", PATIENCE, || {
            let progress = self.progress();
            let is_over = progress.has_ended || progress.acknowledged >= count;
            Ok(is_over.then_some(()))
        })?;
        let progress = self.progress();
        if progress.acknowledged < count {
            let why = progress.failure.unwrap_or_else(|| "it ended".to_owned());
            bail!("writer {} after {} operations: {why}", progress.writer, progress.acknowledged);
        }
        Ok(())
    }

    /// Lets it finish the operation that it is in; what it did is the result.
    ///
    /// # Errors
    /// When that operation hangs.
    pub fn stop(mut self) -> Result<Progress> {
        self.input = None;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                let Progress { writer, tried, .. } = self.progress();
                bail!("writer {writer} hangs in operation {}", tried.saturating_sub(1));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        Ok(self.progress())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // One that waits for a mount ends as soon as the mount does.
        let _ = self.child.kill();
        if self.listener.is_none() {
            let _ = self.child.wait();
        }
    }
}

fn listen(output: impl Read, said: &Mutex<Progress>) {
    let mut last: Option<Instant> = None;
    let mut hear = |line: &str, said: &mut Progress| {
        let mut words = line.splitn(3, ' ');
        let (what, number) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok()));
        match (what, number) {
            (Some("try"), Some(number)) => said.tried = number + 1,
            (Some("ack"), Some(number)) => {
                said.acknowledged = number + 1;
                let now = Instant::now();
                if let Some(last) = last.replace(now) {
                    said.longest_pause = said.longest_pause.max(now - last);
                }
            }
            _ => said.failure = Some(line.to_owned()),
        }
    };
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { break };
        hear(&line, &mut said.lock());
    }
    said.lock().has_ended = true;
}
