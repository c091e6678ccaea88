//! What an administrator is told of a lock that another node holds and does not give up, of the
//! recovery that ends the wait, and of programs that wait for each other's locks of a file.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use e2e::locker::Locker;
use e2e::{Cluster, Fixture, wait};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of this test")
}

/// Those of a list where `field` is `value`.
fn with<'a>(list: &'a Value, field: &str, value: &Value) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry[field] == *value)
}

#[test]
fn a_reader_is_told_who_holds_its_file_and_what_the_recovery_of_the_holder_cost_it() {
    let mut cluster = Fixture::of("why", 3);
    let here = cluster.mount(1).join("held");
    let there = cluster.mount(3).join("held");
    // The node that makes it is its home; the other one is left with the lock.
    fs::write(&here, "old").expect("written");
    wait::within("writing elsewhere", PATIENCE, move || {
        let mut file = OpenOptions::new().append(true).open(there)?;
        Ok(file.write_all(b" and new")?)
    })
    .expect("written");
    let holders = cluster.mxctl(3, &["why", text(&cluster.mount(3).join("held"))]);
    let held = &holders.expect("an answer")["resources"][0];
    assert_eq!((&held["here"]["mode"], &held["here"]["doing"]), (&"EX".into(), &"cached".into()));
    assert!(held["here"]["unwritten_blocks"].as_u64() > Some(0), "it is dirty: {held}");
    cluster.pause(3).expect("it runs");
    let mut reader = Command::new("cat").arg(&here).stdout(Stdio::null()).spawn().expect("cat");
    let pid = Value::from(reader.id());
    let why = wait::until("the reader to be seen waiting", PATIENCE, || {
        let why = cluster.mxctl(1, &["why", text(&here)])?;
        let of_file = why["resources"]
            .as_array()
            .and_then(|all| all.iter().find(|of| with(&of["waiters"], "pid", &pid).is_some()));
        Ok(of_file.cloned())
    })
    .expect("it waits");
    let waiter = with(&why["waiters"], "pid", &pid).expect("found by it");
    assert_eq!((&waiter["command"], &waiter["mode"]), (&"cat".into(), &"PR".into()), "{why}");
    let holders = why["holders"].as_array().expect("a list");
    let holder = holders.iter().find(|holder| holder["member"]["node"] == 3);
    let holder = holder.unwrap_or_else(|| panic!("node 3 holds it: {why}"));
    assert!(holder["doing"] == "limbo" || holder["doing"]["called_out"].is_object(), "{why}");
    let resource = why["resource"].as_str().expect("a name");
    let same = cluster.mxctl(1, &["why", resource]).expect("an answer");
    assert_eq!(same["resources"][0]["resource"], resource);

    cluster.process(3).expect("it is stopped").signal(Signal::KILL).expect("it is there");
    cluster.until_ended(3, PATIENCE).expect("it is killed");
    assert!(reader.wait().expect("a child").success(), "the reader goes on");
    let recovery = wait::until("the recovery to end", PATIENCE, || {
        let report = cluster.mxctl(1, &["recovery", "last"])?;
        let last = &report["recoveries"][0];
        let is_over = last["dead"]["node"] == 3 && !last["ended_ms"].is_null();
        Ok(is_over.then(|| last.clone()))
    })
    .expect("it is recovered");
    let work = &recovery["file_systems"][0]["work"];
    let delay = with(&work["longest"], "pid", &pid);
    let delay = delay.unwrap_or_else(|| panic!("the reader was delayed: {recovery}"));
    assert_eq!(delay["resource"], resource, "{recovery}");
    assert_eq!(delay["cause"], "limbo", "{recovery}");
    assert_eq!(delay["is_over"], true, "{recovery}");
    assert!(work["waits"].as_u64() >= Some(1), "{recovery}");
    assert!(work["waited_ms"].as_u64() >= delay["waited_ms"].as_u64(), "{recovery}");
    assert!(work["locks_rebuilt"].is_u64(), "{recovery}");
    let limbo = [&work["limbo_freed"], &work["limbo_redone"]].map(|n| n.as_u64().unwrap_or(0));
    assert!(limbo[0] + limbo[1] > 0, "{recovery}");
    let all = cluster.mxctl(1, &["recovery", "list"]).expect("an answer");
    assert_eq!(all["recoveries"].as_array().map(Vec::len), Some(1), "{all}");

    cluster.start(3).expect("it joins again");
    cluster.finish();
}

/// Appends to a file until it is told to end.
fn append(path: PathBuf, is_over: Arc<AtomicBool>) -> JoinHandle<std::io::Result<()>> {
    thread::spawn(move || {
        let mut file = OpenOptions::new().append(true).open(path)?;
        while !is_over.load(Ordering::SeqCst) {
            file.write_all(b"a line\n")?;
        }
        Ok(())
    })
}

#[test]
fn the_file_that_two_nodes_write_at_once_is_the_hottest() {
    let cluster = Fixture::of("why-top", 2);
    let shared = cluster.mount(1).join("shared");
    // Others are written as busily, on one node each.
    for node in cluster.nodes() {
        fs::write(cluster.mount(node).join(format!("own{node}")), "").expect("written");
    }
    fs::write(&shared, "").expect("written");
    let is_over = Arc::new(AtomicBool::new(false));
    let paths = cluster.nodes().into_iter().flat_map(|node| {
        ["shared".to_owned(), format!("own{node}")].map(|name| cluster.mount(node).join(name))
    });
    let writers: Vec<_> = paths.map(|path| append(path, Arc::clone(&is_over))).collect();
    let why = cluster.mxctl(1, &["why", text(&shared)]).expect("an answer");
    let inode = &why["resources"][0]["resource"];
    let found = wait::until("a refresh with waits", PATIENCE, || {
        let words = ["lock", "top", "--once", "--interval", "0.5", "--count", "3"];
        let top = cluster.mxctl(2, &words)?;
        let first = top["resources"][0].clone();
        Ok(first["waits"].as_f64().is_some_and(|waits| waits > 0.0).then_some(first))
    });
    is_over.store(true, Ordering::SeqCst);
    for writer in writers {
        wait::until("a writer to end", PATIENCE, || Ok(writer.is_finished().then_some(())))
            .expect("it does not hang");
        writer.join().expect("no panic").expect("written");
    }
    let first = found.expect("there are waits");
    assert_eq!(first["resource"], *inode, "{first}");
    assert!(first["callouts"].as_f64() > Some(0.0), "{first}");
    assert!(first["surrenders"].as_f64() > Some(0.0), "{first}");
    assert!(first["waited_ms"].as_f64() > Some(0.0), "{first}");
    cluster.finish();
}

fn locker(cluster: &Cluster, node: u16) -> Locker {
    let mut locker = Locker::start(cluster.programs()).expect("it starts");
    assert_eq!(locker.open(&cluster.mount(node).join("file")).expect("opened"), "0");
    locker
}

/// What a node is told to know of the locks that programs have on the file, and whom it names.
fn file_locks(cluster: &Cluster, node: u16) -> (Value, Vec<u64>) {
    let path = cluster.mount(node).join("file");
    let why = cluster.mxctl(node, &["why", text(&path)]).expect("an answer");
    let inode = &why["resources"][0];
    let ask = inode["ask"].as_array().expect("a list").iter();
    (inode["file_locks"].clone(), ask.filter_map(|member| member["node"].as_u64()).collect())
}

#[test]
fn a_program_that_waits_for_a_lock_of_a_file_is_told_of_with_whoever_is_in_its_way() {
    let cluster = Fixture::of("why-file-locks", 3);
    fs::write(cluster.mount(1).join("file"), "content").expect("written");
    let [mut holder, mut waiter] = [2, 3].map(|node| locker(&cluster, node));
    let pids = [&holder, &waiter].map(|locker| Value::from(locker.pid()));
    for (lock, wait, family, start, end) in [
        ("posix 0 w 10 10 try", "posix 0 r 15 10 wait", "fcntl", 10, 19),
        ("ofd 0 w 10 10 try", "ofd 0 w 15 10 wait", "fcntl", 10, 19),
        ("flock 0 w try", "flock 0 r wait", "flock", 0, u64::MAX),
    ] {
        assert_eq!(holder.ask(lock).expect("answered"), "ok");
        waiter.say_and_wait(wait).expect("it is held");

        // The home knows who and where, and not what runs there.
        let (home, asked) = file_locks(&cluster, 1);
        assert_eq!(home["is_all"], true, "who made it is its home: {home}");
        let held = with(&home["held"], "pid", &pids[0]).expect("the home knows");
        assert_eq!((&held["member"]["node"], &held["family"]), (&2.into(), &family.into()));
        assert_eq!((&held["access"], &held["command"]), (&"write".into(), &Value::Null));
        assert_eq!((&held["start"], &held["end"]), (&start.into(), &end.into()), "{home}");
        let waits = with(&home["waiting"], "pid", &pids[1]).expect("the home knows");
        assert_eq!((&waits["member"]["node"], &waits["family"]), (&3.into(), &family.into()));
        assert_eq!(waits["waits_for"][0]["node"], 2, "{home}");
        assert!(waits["waits_ms"].is_u64(), "{home}");
        assert_eq!((&home["held_total"], &home["waiting_total"]), (&1.into(), &1.into()));
        assert!(asked.contains(&2) && asked.contains(&3), "{asked:?}");

        // Where they run, what runs is known, and the home is named for the rest.
        let (there, asked) = file_locks(&cluster, 2);
        assert_eq!(there["is_all"], false);
        let held = with(&there["held"], "pid", &pids[0]).expect("its own");
        assert_eq!(held["command"], "mx-locker", "{there}");
        assert_eq!(there["waiting"], Value::Array(Vec::new()), "it does not know");
        assert!(asked.contains(&1), "{asked:?}");
        let (there, asked) = file_locks(&cluster, 3);
        let waits = with(&there["waiting"], "pid", &pids[1]).expect("its own");
        assert_eq!(waits["command"], "mx-locker", "{there}");
        assert_eq!(there["held"], Value::Array(Vec::new()), "it does not know");
        assert!(asked.contains(&1), "{asked:?}");

        let unlock = if family == "flock" { "flock 0 u try" } else { "posix 0 u 0 0 try" };
        let unlock = if lock.starts_with("ofd") { "ofd 0 u 0 0 try" } else { unlock };
        assert_eq!(holder.ask(unlock).expect("answered"), "ok");
        assert_eq!(waiter.answer(PATIENCE).expect("woken"), "ok");
        assert_eq!(waiter.ask(unlock).expect("answered"), "ok");
    }
    let (home, _) = file_locks(&cluster, 1);
    assert_eq!((&home["held_total"], &home["waiting_total"]), (&0.into(), &0.into()));
    drop((holder, waiter));
    cluster.finish();
}
