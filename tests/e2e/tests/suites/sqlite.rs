//! SQLite: several processes of one machine in one data base, in both journal modes, or of two nodes, with a
//! rollback journal; and a crash in the middle.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::{Cluster, Fixture};

use crate::client::{Client, Done};
use crate::program::{installed, run};
use crate::rounds::{is_long, rounds};

/// How often a client waits for another one's lock, in milliseconds, before it gives up.
const BUSY: &str = ".timeout 100000\n";

/// A client on one of several nodes: SQLite asks for a lock again and again, and whoever locks anew at once
/// leaves others, farther away, no moment for that.
const THINKS: Duration = Duration::from_millis(50);

/// Clients at the same time.
const CLIENTS: usize = 3;

fn sqlite(cluster: &Cluster, db: &Path, statements: &str) -> String {
    let mut sqlite = Command::new(installed("sqlite3"));
    run(
        cluster,
        sqlite.args(["-batch", "-bail", "-cmd", ".timeout 100000"]).arg(db).arg(statements),
    )
}

/// Rows of 3000 bytes, so that a transaction changes several pages.
/// `pause` is before each transaction.
fn client(cluster: &Cluster, db: &Path, life: u16, which: usize, pause: Duration) -> Client {
    let mut sqlite = Command::new(installed("sqlite3"));
    sqlite.args(["-batch", "-bail"]).arg(db);
    let statement = move |number: u64| {
        thread::sleep(pause);
        let row = |part: u64| {
            format!("INSERT INTO rows VALUES({life},{which},{number},{part},zeroblob(1500));\n")
        };
        let count = format!("UPDATE counts SET n=n+1 WHERE life={life} AND client={which};\n");
        let rows = [row(0), row(1)].concat();
        format!("BEGIN IMMEDIATE;\n{rows}{count}COMMIT;\nSELECT 'ack {number}';\n")
    };
    // With less the name of a journal that a commit took away may come back after a crash, and with
    // it what was there before the last transaction, on any file system.
    let first =
        format!("{BUSY}PRAGMA synchronous=EXTRA;\nINSERT INTO counts VALUES({life},{which},0);\n");
    Client::start(cluster, &format!("{life}-{which}"), &mut sqlite, &first, statement)
}

fn expect_all(cluster: &Cluster, db: &Path, life: u16, done: &[Done]) {
    assert_eq!(sqlite(cluster, db, "PRAGMA integrity_check;").trim(), "ok");
    for (which, Done { acknowledged, tried }) in done.iter().enumerate() {
        let whose = format!("WHERE life={life} AND client={which}");
        let query = format!(
            "SELECT count(*), count(DISTINCT number), coalesce(max(number)+1,0) FROM rows {whose};\
             SELECT n FROM counts {whose};"
        );
        let said = sqlite(cluster, db, &query);
        let words = said.split(['|', '\n']).filter(|word| !word.is_empty());
        let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
        let [rows, distinct, end, count] = numbers[..] else { panic!("{said}") };
        assert!(end >= *acknowledged && end <= *tried, "client {which}: {done:?}, found {end}");
        assert_eq!((rows, distinct, count), (2 * end, end, end), "client {which}");
    }
}

/// Clients commit, everything of the machine is killed, and what they were told is there; again
/// and again in one data base.
fn lives(name: &str, mode: &str) {
    let mut cluster = Fixture::prepared(name, 1, 1 << 30);
    cluster.start_local(1).expect("it mounts");
    let db: PathBuf = cluster.mount(1).join("rows.db");
    let tables = "CREATE TABLE rows(life, client, number, part, data);\
                  CREATE TABLE counts(life, client, n);";
    let said = sqlite(&cluster, &db, &format!("PRAGMA journal_mode={mode}; {tables}"));
    assert_eq!(said.trim(), mode);
    let transactions = if is_long() { 300 } else { 4 };
    let mut all: Vec<(u16, Vec<Done>)> = Vec::new();
    for life in 0..rounds(2, 20) {
        let clients: Vec<Client> =
            (0..CLIENTS).map(|which| client(&cluster, &db, life, which, Duration::ZERO)).collect();
        for client in &clients {
            client.until_acknowledged(transactions);
        }
        let dies = life.is_multiple_of(2);
        let done: Vec<Done> = if dies {
            // All at once, the mount first: nobody is left to tidy up.
            cluster.kill(1).expect("it is killed");
            let done = clients.into_iter().map(Client::kill).collect();
            cluster.start_local(1).expect("it mounts again");
            done
        } else {
            clients.into_iter().map(Client::stop).collect()
        };
        all.push((life, done));
        for (life, done) in &all {
            expect_all(&cluster, &db, *life, done);
        }
    }
    let committed: u64 = all.iter().flat_map(|(_, done)| done).map(|done| done.acknowledged).sum();
    println!("{mode}: {committed} transactions");
    cluster.stop_local(1).expect("it ends in order");
    cluster.fsck().expect("checked").expect_clean().expect("clean");
}

/// As [`lives`], with clients on two nodes in one data base at once. One node and its clients die; those of
/// the other go on. Not with a write-ahead log: its index lives in memory that the processes share and
/// never make durable, so it is for those of one machine, says SQLite.
fn nodes(name: &str, mode: &str) {
    let mut cluster = Fixture::of(name, 2);
    let db = |cluster: &Cluster, node: u16| cluster.mount(node).join("rows.db");
    let tables = "CREATE TABLE rows(life, client, number, part, data);\
                  CREATE TABLE counts(life, client, n);";
    let pragma = format!("PRAGMA journal_mode={mode}; {tables}");
    assert_eq!(sqlite(&cluster, &db(&cluster, 1), &pragma).trim(), mode);
    let transactions = if is_long() { 100 } else { 3 };
    let mut all: Vec<(u16, Vec<Done>)> = Vec::new();
    for life in 0..rounds(2, 10) {
        let victim = 1 + life % 2;
        let client_on =
            |node: u16, which| client(&cluster, &db(&cluster, node), life, which, THINKS);
        let dying: Vec<Client> = (0..2).map(|which| client_on(victim, which)).collect();
        let living: Vec<Client> = (2..4).map(|which| client_on(3 - victim, which)).collect();
        for client in dying.iter().chain(&living) {
            client.until_acknowledged(transactions);
        }
        cluster.kill(victim).expect("it is killed");
        let mut done: Vec<Done> = dying.into_iter().map(Client::kill).collect();
        for client in &living {
            client.until_acknowledged(client.acknowledged() + transactions);
        }
        done.extend(living.into_iter().map(Client::stop));
        cluster.start(victim).expect("it joins again");
        all.push((life, done));
        for (life, done) in &all {
            expect_all(&cluster, &db(&cluster, victim), *life, done);
        }
    }
    let committed: u64 = all.iter().flat_map(|(_, done)| done).map(|done| done.acknowledged).sum();
    println!("{mode}, two nodes: {committed} transactions");
    cluster.finish();
}

#[test]
fn nothing_committed_is_lost_with_a_rollback_journal() {
    lives("suite-sqlite-delete", "delete");
}

#[test]
fn nothing_committed_is_lost_with_a_write_ahead_log() {
    lives("suite-sqlite-wal", "wal");
}

#[test]
fn nothing_committed_is_lost_with_a_rollback_journal_on_two_nodes() {
    nodes("suite-sqlite-nodes-delete", "delete");
}
