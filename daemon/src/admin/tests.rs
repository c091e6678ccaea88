//! Both sides over a real socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mx_node::report::{Gate, Permit, State, Viewer};
use parking_lot::Mutex;

use super::protocol::{Reply, VERSION};
use super::server::CONNECTIONS_MAX;
use super::*;

#[derive(Default)]
struct Told {
    asked: Mutex<Vec<String>>,
}

impl Told {
    fn note(&self, what: String) {
        self.asked.lock().push(what);
    }
}

fn viewer() -> Viewer {
    Viewer { node: 2, incarnation: Some(7), ..Viewer::default() }
}

fn status() -> Status {
    Status {
        viewer: viewer(),
        state: State::Ended { reason: "expelled".to_owned() },
        activity: "nothing".to_owned(),
        view: None,
        permit: Permit::Left { ms: 5 },
        peers: Vec::new(),
        mounts: Vec::new(),
        unrecovered: Vec::new(),
        gate: Gate::default(),
    }
}

impl Source for Told {
    fn status(&self) -> BoxFuture<'_, Result<Status, String>> {
        Box::pin(async { Ok(status()) })
    }

    fn lock_dump(
        &self,
        resource: Option<ResourceFilter>,
        limit: usize,
    ) -> BoxFuture<'_, Result<LockDump, String>> {
        let resource = resource.map_or("all".to_owned(), |resource| resource.to_string());
        self.note(format!("lock_dump {resource} {limit}"));
        Box::pin(async { Ok(LockDump { viewer: viewer(), file_systems: Vec::new() }) })
    }

    fn recovery_last(&self) -> BoxFuture<'_, Result<RecoveryReport, String>> {
        Box::pin(async { Ok(RecoveryReport { viewer: viewer(), recoveries: Vec::new() }) })
    }

    fn lock_top(&self) -> BoxFuture<'_, Result<LockTop, String>> {
        let (viewer, clock_us, resources) = (viewer(), 7, Vec::new());
        Box::pin(async move { Ok(LockTop { viewer, clock_us, resources }) })
    }

    fn why(&self, subject: Subject) -> BoxFuture<'_, Result<Why, String>> {
        self.note(format!("why {subject:?}"));
        let (viewer, resources, stuck_at) = (viewer(), Vec::new(), None);
        Box::pin(async move { Ok(Why { viewer, resources, stuck_at }) })
    }

    fn fs_usage(&self) -> BoxFuture<'_, Result<FsUsage, String>> {
        Box::pin(async { Err("nothing is mounted".to_owned()) })
    }

    fn fs_damage(&self) -> BoxFuture<'_, Result<FsDamage, String>> {
        let file_systems = Vec::new();
        Box::pin(async { Ok(FsDamage { viewer: viewer(), file_systems }) })
    }

    fn fs_trim(&self, from: u64, minimum_bytes: u64) -> BoxFuture<'_, Result<FsTrim, String>> {
        self.note(format!("trim {from} {minimum_bytes}"));
        Box::pin(async { Err("nothing is mounted".to_owned()) })
    }

    fn fs_check(&self, from: CheckCursor, data: bool) -> BoxFuture<'_, Result<FsCheck, String>> {
        self.note(format!("check {} {} {data}", from.group, from.chunk));
        Box::pin(async { Err("nothing is mounted".to_owned()) })
    }

    fn fs_freeze(&self, patience: Duration, lasts: Duration) -> BoxFuture<'_, Result<(), String>> {
        self.note(format!("freeze {patience:?} {lasts:?}"));
        Box::pin(async { Ok(()) })
    }

    fn fs_thaw(&self) -> BoxFuture<'_, Result<(), String>> {
        self.note("thaw".to_owned());
        Box::pin(async { Ok(()) })
    }

    fn mount(
        &self,
        directory: PathBuf,
        options: MountOptions,
    ) -> BoxFuture<'_, Result<(), String>> {
        self.note(format!("mount {} {options}", directory.display()));
        Box::pin(async { Ok(()) })
    }

    fn remount(
        &self,
        directory: PathBuf,
        options: MountOptions,
    ) -> BoxFuture<'_, Result<(), String>> {
        self.note(format!("remount {} {options}", directory.display()));
        Box::pin(async { Ok(()) })
    }

    fn unmount(&self, _: PathBuf) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::pending())
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// A daemon's socket in a folder of its own.
struct Fixture {
    path: PathBuf,
    source: Arc<Told>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Fixture {
    fn new() -> Fixture {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("mx-admin-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(folder).join("vol/mxd.sock");
        let source = Arc::new(Told::default());
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().expect("there are threads");
        let fixture = Fixture { path, source, runtime: Some(runtime) };
        let server = fixture.bind().expect("nobody else is there");
        let source = Arc::clone(&fixture.source) as Arc<dyn Source>;
        fixture.runtime().spawn(async move { server.run(source).await });
        fixture
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("it is kept to the end")
    }

    fn bind(&self) -> Result<Server, BindError> {
        let _entered = self.runtime().enter();
        Server::bind(&self.path)
    }

    fn client(&self) -> Client {
        Client::connect(&self.path).expect("it listens")
    }

    /// As [`Fixture::raw`], with nothing after the bytes.
    fn raw_half(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.path).expect("it listens");
        stream.write_all(bytes).expect("it reads");
        stream.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it closes");
        text
    }

    /// What is answered to raw bytes, until the server closes.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.path).expect("it listens");
        // The server may close before it has read all.
        let _ = stream.write_all(bytes);
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    }

    fn refusal(&self, bytes: &[u8]) -> String {
        let text = self.raw(bytes);
        let reply: Reply = serde_json::from_str(&text).expect("an answer");
        let Answer::Error(why) = reply.answer else {
            panic!("not refused: {:?}", reply.answer);
        };
        why
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(self.runtime.take());
        let folder = self.path.parent().and_then(Path::parent).expect("as made above");
        let _ = std::fs::remove_dir_all(folder);
    }
}

#[test]
fn every_request_is_answered_by_what_was_asked_for() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    assert_eq!(client.status().expect("a status"), status());
    client.carry_out(&Request::Ping).expect("it lives");
    client.lock_dump(Some("inode 0x12".to_owned()), u32::MAX).expect("a dump");
    client.lock_dump(None, 3).expect("a dump");
    client.recovery_last().expect("a report");
    assert_eq!(client.lock_top().expect("counts").clock_us, 7);
    client.why(Subject::Path("/mnt/a".into())).expect("an account");
    assert!(client.fs_damage().expect("a report").file_systems.is_empty());
    client.carry_out(&Request::Leave).expect("it leaves");
    let options = MountOptions { no_dev: true, ..MountOptions::default() };
    let mount = Request::Mount { directory: "/mnt/a".into(), options };
    client.carry_out(&mount).expect("it mounts");
    let options = MountOptions { read_only: true, ..options };
    let remount = Request::Remount { directory: "/mnt/a".into(), options };
    client.carry_out(&remount).expect("it changes");
    let asked = fixture.source.asked.lock().clone();
    let expected = [
        "lock_dump inode 0x12 10000",
        "lock_dump all 3",
        "why Path(\"/mnt/a\")",
        "mount /mnt/a rw,nodev",
        "remount /mnt/a ro,nodev",
    ];
    assert_eq!(asked, expected);
}

#[test]
fn a_refusal_is_told_in_the_daemons_words_and_the_connection_goes_on() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    assert_eq!(client.fs_usage().expect_err("refused").to_string(), "nothing is mounted");
    let error = client.lock_dump(Some("file 1".to_owned()), 1).expect_err("no such kind");
    assert!(error.to_string().contains("`file 1` names no resource"), "{error}");
    client.status().expect("a status");
}

#[test]
fn the_socket_is_for_its_user_alone_and_goes_away_with_the_server() {
    let fixture = Fixture::new();
    let mode = std::fs::metadata(&fixture.path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let path = fixture.path.with_file_name("other.sock");
    let _entered = fixture.runtime().enter();
    let server = Server::bind(&path).expect("nobody else is there");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_second_daemon_is_refused_and_a_socket_left_behind_is_taken_over() {
    let fixture = Fixture::new();
    assert!(matches!(fixture.bind(), Err(BindError::Running(_))));
    fixture.client().status().expect("the first one goes on");
    let path = fixture.path.with_file_name("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("nobody else is there"));
    let error = Client::connect(&path).expect_err("nobody listens");
    let expected = format!("mxd is not running: {}: Connection refused", path.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    let _entered = fixture.runtime().enter();
    Server::bind(&path).expect("nobody listens there");
}

#[test]
fn garbage_is_refused_in_words() {
    let fixture = Fixture::new();
    for garbage in [&b"\xff\xfe\n"[..], b"hello\n", b"{\"version\":1}\n", b"\n", b"[1]\n"] {
        let why = fixture.refusal(garbage);
        assert!(why.starts_with("this is no request: "), "{why}");
    }
    let why = fixture.refusal(b"{\"version\":1,\"request\":\"dance\"}\n");
    assert!(why.contains("unknown variant `dance`"), "{why}");
    let why = fixture.refusal(b"{\"version\":1,\"request\":{\"unmount\":{\"dir\":\"/\"}}}\n");
    assert!(why.contains("unknown field `dir`"), "{why}");
    assert_eq!(fixture.raw_half(b"{\"version\":1,\"requ"), "");
}

#[test]
fn another_version_is_named_whatever_else_it_says() {
    let fixture = Fixture::new();
    let why = fixture.refusal(b"{\"version\":2,\"request\":\"dance\",\"more\":[]}\n");
    assert_eq!(why, "this daemon speaks version 1 of the administration protocol, not 2");
}

#[test]
fn too_long_a_line_is_refused_before_it_ends() {
    let fixture = Fixture::new();
    let why = fixture.refusal(&vec![b' '; 65 * 1024]);
    assert_eq!(why, "a request has at most 65536 bytes");
}

#[test]
fn clients_do_not_wait_for_each_other() {
    let fixture = Fixture::new();
    let mut waiting = fixture.client();
    let unmount = Request::Unmount { directory: "/mnt".into() };
    let brief = Some(Duration::from_millis(20));
    let error = waiting.call(&unmount, brief).expect_err("it takes for ever");
    assert!(error.to_string().starts_with("mxd does not answer: "), "{error}");
    let mut clients: Vec<Client> = (0..8).map(|_| fixture.client()).collect();
    for client in clients.iter_mut().rev() {
        client.status().expect("a status");
    }
}

#[test]
fn one_connection_too_many_is_told_so() {
    let fixture = Fixture::new();
    let mut clients: Vec<Client> = (0..CONNECTIONS_MAX).map(|_| fixture.client()).collect();
    for client in &mut clients {
        client.status().expect("a status");
    }
    let error = fixture.client().status().expect_err("there are too many");
    assert_eq!(error.to_string(), "there are 32 connections to this daemon already");
}

#[test]
fn a_daemon_that_ends_or_talks_nonsense_is_told_apart() {
    let fixture = Fixture::new();
    let path = fixture.path.with_file_name("false.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("nobody else is there");
    let answers = ["", "what?\n", "{\"version\":9}\n", "{\"version\":1,\"answer\":\"done\"}\n"];
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 512];
            let _ = stream.read(&mut request).expect("a request");
            stream.write_all(answer.as_bytes()).expect("it listens");
        }
    });
    let error = || Client::connect(&path).expect("it listens").status().expect_err("no status");
    assert!(matches!(error(), ClientError::Ended { .. }));
    assert!(matches!(error(), ClientError::Nonsense { .. }));
    assert!(matches!(error(), ClientError::Version { theirs: 9 }));
    let unexpected = error().to_string();
    assert!(unexpected.ends_with("done was not asked for"), "{unexpected}");
    server.join().expect("it ended");
    assert_eq!(VERSION, 1);
}

#[test]
fn the_process_at_the_other_end_is_known() {
    let fixture = Fixture::new();
    let process = fixture.client().process().expect("it is this one");
    assert!(!process.wait(Some(Duration::ZERO)).expect("it can be asked"));
    let mut child = std::process::Command::new("true").spawn().expect("true is there");
    let pid = rustix::process::Pid::from_child(&child);
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    let process = client::Process::from(fd.expect("not reaped yet"));
    assert!(process.wait(None).expect("it can be asked"));
    child.wait().expect("a child");
}
