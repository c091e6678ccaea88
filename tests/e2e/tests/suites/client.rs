//! A client of a data base that knows what was acknowledged: it says statements to a program, one
//! after another, and each time waits for the line `ack N` that the statement asks for at its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use e2e::{Cluster, wait};

/// How long one statement may take, with a recovery in between, before the client hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client has done: statements below `acknowledged` are committed, of those below `tried`
/// the last may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) acknowledged: u64,
    pub(crate) tried: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    child: Child,
    errors: PathBuf,
    acknowledged: Arc<AtomicU64>,
    tried: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    feeder: Option<JoinHandle<()>>,
}

impl Client {
    /// `first` is said before statement 0.
    pub(crate) fn start(
        cluster: &Cluster,
        name: &str,
        command: &mut Command,
        first: &str,
        statement: impl Fn(u64) -> String + Send + 'static,
    ) -> Client {
        let errors = cluster.folder().join(format!("suite-client-{name}.log"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(&errors).expect("its errors"));
        let mut child = command.spawn().expect("a client starts");
        let mut input = child.stdin.take().expect("it was piped");
        let output = child.stdout.take().expect("it was piped");
        let counters = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let [acknowledged, tried] = counters.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let first = first.to_owned();
        let told = Arc::clone(&stop);
        let feeder = thread::spawn(move || {
            let [acknowledged, tried] = counters;
            let mut lines = BufReader::new(output).lines();
            let mut text = first;
            for number in 0.. {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                text.push_str(&statement(number));
                tried.store(number + 1, Ordering::Relaxed);
                // A client that is dead hears nothing.
                if input.write_all(text.as_bytes()).and_then(|()| input.flush()).is_err() {
                    return;
                }
                text.clear();
                let expected = format!("ack {number}");
                // What else it says is for people.
                loop {
                    match lines.next() {
                        Some(Ok(line)) if line.trim() == expected => break,
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    }
                }
                acknowledged.store(number + 1, Ordering::Relaxed);
            }
        });
        Client { child, errors, acknowledged, tried, stop, feeder: Some(feeder) }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// # Panics
    /// When it ends before, or hangs.
    pub(crate) fn until_acknowledged(&self, count: u64) {
        let enough = wait::until("acknowledged statements", PATIENCE, || {
            let is_over = self.feeder.as_ref().is_some_and(JoinHandle::is_finished);
            let has_enough = self.acknowledged() >= count;
            Ok((is_over || has_enough).then_some(has_enough))
        });
        let said = || std::fs::read_to_string(&self.errors).unwrap_or_default();
        match enough {
            Ok(true) => {}
            Ok(false) => panic!("the client ended after {}: {}", self.acknowledged(), said()),
            Err(error) => panic!("after {} statements: {error:#}; {}", self.acknowledged(), said()),
        }
    }

    /// Lets it finish the statement that it is in.
    pub(crate) fn stop(mut self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Done {
        let _ = self.child.kill();
        self.join()
    }

    fn join(&mut self) -> Done {
        if let Some(feeder) = self.feeder.take() {
            let ended =
                wait::until("the client", PATIENCE, || Ok(feeder.is_finished().then_some(())));
            ended.expect("its statement ends");
            feeder.join().expect("it does not panic");
        }
        let _ = self.child.wait();
        let [acknowledged, tried] = [&self.acknowledged, &self.tried];
        Done {
            acknowledged: acknowledged.load(Ordering::Relaxed),
            tried: tried.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // One that waits for a mount ends when the mount does.
        let _ = self.child.kill();
        if self.feeder.is_none() {
            let _ = self.child.wait();
        }
    }
}
