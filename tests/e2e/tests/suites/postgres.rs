//! PostgreSQL, with its data directory on the mounts: a node is killed with everything that runs
//! on it, the server starts on another one, and nothing committed is lost.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{Cluster, Fixture, wait};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, Done};
use crate::program::{Running, installed, let_others_in, run};
use crate::rounds::{is_long, rounds};

/// How long the server may take to start: it redoes its log.
const PATIENCE: Duration = Duration::from_secs(300);

/// It refuses to be run by root; the package makes this user.
const USER: &str = "postgres";

fn user() -> (u32, u32) {
    let all = fs::read_to_string("/etc/passwd").expect("readable");
    let line = all.lines().find(|line| line.split(':').next() == Some(USER));
    let mut fields = line.expect("the package made it").split(':').skip(2);
    let mut id = || fields.next().and_then(|field| field.parse().ok()).expect("an id");
    (id(), id())
}

/// A program of the package, as its user.
fn program(name: &str) -> Command {
    let (uid, gid) = user();
    let mut command = Command::new(installed(name));
    command.uid(uid).gid(gid).current_dir("/");
    command
}

/// A server on one node.
#[derive(Debug)]
struct Server {
    process: Child,
    socket: PathBuf,
}

impl Server {
    fn start(cluster: &Cluster, data: &Path, socket: &Path) -> Server {
        let log = cluster.folder().join("suite-postgres-server.log");
        let log = File::options().append(true).create(true).open(log).expect("its log");
        let mut command = program("postgres");
        command.arg("-D").arg(data).arg("-k").arg(socket).args(["-c", "listen_addresses="]);
        // With few buffers and segments of its log, so that it reads and reuses files.
        command.args(["-c", "shared_buffers=2MB", "-c", "max_wal_size=64MB"]);
        command.args(["-c", "max_connections=30"]);
        let errors = log.try_clone().expect("its log");
        let process = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        let mut server = Server { process: process.expect("it starts"), socket: socket.to_owned() };
        let ready = wait::until("the server", PATIENCE, || {
            let ended = server.process.try_wait()?;
            anyhow::ensure!(ended.is_none(), "it ended: {ended:?}");
            let mut is_ready = program("pg_isready");
            is_ready.arg("-h").arg(socket).stdout(Stdio::null());
            Ok(is_ready.status()?.success().then_some(()))
        });
        ready.unwrap_or_else(|error| panic!("{error:#}; see suite-postgres-server.log"));
        server
    }

    /// Itself and all that it has started, the parent first.
    fn processes(&self) -> Vec<Pid> {
        let parent = i32::try_from(self.process.id()).expect("a process id");
        let mut all = vec![parent];
        let mut at = 0;
        while let Some(parent) = all.get(at) {
            let file = format!("/proc/{parent}/task/{parent}/children");
            let children = fs::read_to_string(file).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
            at += 1;
        }
        all.into_iter().filter_map(Pid::from_raw).collect()
    }

    /// SIGKILL to all of it.
    fn kill(mut self) {
        for process in self.processes() {
            // It may have ended.
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = self.process.wait();
    }

    /// In order, with everything written.
    fn stop(mut self) {
        let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a process id"), Signal::INT).expect("it is there");
        let ended = wait::until("its end", PATIENCE, || Ok(self.process.try_wait()?));
        assert!(ended.expect("it ends").success());
    }

    fn sql(&self, cluster: &Cluster, statements: &str) -> String {
        let mut psql = self.psql();
        run(cluster, psql.arg("-c").arg(statements)).trim().to_owned()
    }

    fn psql(&self) -> Command {
        let mut psql = program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h"]).arg(&self.socket);
        psql.arg("postgres");
        psql
    }

    /// A row for each statement.
    fn client(&self, cluster: &Cluster, life: u16, which: u16) -> Client {
        let statement = move |number: u64| {
            format!(
                "INSERT INTO rows VALUES({life},{which},{number},repeat('x',500));\n\
                 \\echo ack {number}\n"
            )
        };
        Client::start(cluster, &format!("{life}-{which}"), &mut self.psql(), "", statement)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            for process in self.processes() {
                let _ = kill_process(process, Signal::KILL);
            }
            // What it waits for in a mount ends when the mount does, which is after this.
        }
    }
}

fn expect_all(cluster: &Cluster, server: &Server, life: u16, done: &[Done]) {
    for (which, Done { acknowledged, tried }) in done.iter().enumerate() {
        let query = format!(
            "SELECT count(*), count(DISTINCT number), coalesce(max(number)+1,0) FROM rows \
             WHERE life={life} AND client={which}"
        );
        let said = server.sql(cluster, &query);
        let numbers: Vec<u64> =
            said.split('|').map(|word| word.parse().expect("a number")).collect();
        let [rows, distinct, end] = numbers[..] else { panic!("{said}") };
        assert!(end >= *acknowledged && end <= *tried, "life {life}: {done:?}, found {end}");
        assert_eq!((rows, distinct), (end, end), "life {life}, client {which}");
    }
}

/// What pgbench moves it moves from one place to another.
fn expect_balance(cluster: &Cluster, server: &Server) -> String {
    let sums = server.sql(
        cluster,
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), \
         (SELECT sum(bbalance) FROM pgbench_branches), \
         (SELECT sum(tbalance) FROM pgbench_tellers), \
         (SELECT coalesce(sum(delta),0) FROM pgbench_history), \
         (SELECT count(*) FROM pgbench_history)",
    );
    let (sums, count) = sums.rsplit_once('|').expect("five numbers");
    let sums: Vec<&str> = sums.split('|').collect();
    assert!(sums.windows(2).all(|pair| pair[0] == pair[1]), "{sums:?}");
    count.to_owned()
}

#[test]
fn nothing_committed_is_lost_when_its_node_dies_and_another_one_goes_on() {
    let mut cluster = Fixture::of("suite-postgres", 2);
    let_others_in(&cluster);
    let (uid, gid) = user();
    let private = |dir: &Path| {
        fs::DirBuilder::new().mode(0o700).create(dir).expect("made");
        chown(dir, Some(uid), Some(gid)).expect("given");
    };
    let data = |cluster: &Cluster, node: u16| cluster.mount(node).join("data");
    private(&data(&cluster, 1));
    let socket = cluster.folder().join("postgres");
    private(&socket);
    let mut initdb = program("initdb");
    initdb.args(["--data-checksums", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"]);
    run(&cluster, initdb.arg(data(&cluster, 1)));
    let mut server = Server::start(&cluster, &data(&cluster, 1), &socket);
    server.sql(&cluster, "CREATE TABLE rows(life int, client int, number bigint, data text)");
    let pgbench = |arguments: &[&str]| {
        let mut pgbench = program("pgbench");
        pgbench.args(arguments).arg("-h").arg(&socket).arg("postgres");
        pgbench
    };
    run(&cluster, &mut pgbench(&["-i", "-q", "-s", "1"]));
    let rows = if is_long() { 500 } else { 50 };
    let mut all: Vec<(u16, Vec<Done>)> = Vec::new();
    for life in 0..rounds(1, 10) {
        let (node, other) = if life.is_multiple_of(2) { (1, 2) } else { (2, 1) };
        let bench = Running::start(&cluster, &mut pgbench(&["-c", "4", "-j", "2", "-T", "3600"]));
        let clients: Vec<Client> =
            (0..2).map(|which| server.client(&cluster, life, which)).collect();
        for client in &clients {
            client.until_acknowledged(rows);
        }
        // The server's processes first: without the mount they would end by themselves.
        server.kill();
        let killed = cluster.kill(node).expect("it is killed");
        let (ended, said) = bench.end(&cluster);
        assert!(!ended.success(), "it has lost its server: {said}");
        let done: Vec<Done> = clients.into_iter().map(Client::stop).collect();
        all.push((life, done));
        server = Server::start(&cluster, &data(&cluster, other), &socket);
        for (life, done) in &all {
            expect_all(&cluster, &server, *life, done);
        }
        let moved = expect_balance(&cluster, &server);
        println!("life {life}: {:?}, {moved} transactions of pgbench", all[usize::from(life)].1);
        cluster.until_recovered(&killed, PATIENCE).expect("it is recovered");
        cluster.start(node).expect("the dead node joins again");
    }
    server.stop();
    // Every page of every table is what was written.
    for node in cluster.nodes() {
        let mut checksums = program("pg_checksums");
        run(&cluster, checksums.args(["--check", "-D"]).arg(data(&cluster, node)));
    }
    cluster.finish();
}
