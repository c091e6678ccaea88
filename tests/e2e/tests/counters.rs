//! What must cost nothing, counted.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use e2e::load::{Mix, Team};
use e2e::reports::{FsRecovery, Usage};
use e2e::{Cluster, Fixture, Killed, wait};

const PATIENCE: Duration = Duration::from_secs(30);

fn usage(cluster: &Cluster, node: u16) -> Usage {
    let usage = cluster.admin(node).usage().expect("an answer");
    usage.file_systems.into_iter().next().expect("it is mounted")
}

#[test]
fn a_cached_stat_and_a_cached_read_make_no_request() {
    let cluster = Fixture::of("counters-cached", 2);
    let path = cluster.mount(1).join("file");
    fs::write(&path, [7; 8192]).expect("written");
    let file = File::open(&path).expect("opened");
    let mut block = [0; 4096];
    // Once, so that they are cached: attributes last, because reading changes the access time.
    file.read_exact_at(&mut block, 0).expect("readable");
    fs::metadata(&path).expect("it is there");
    let before = usage(&cluster, 1).requests;
    for _ in 0..1000 {
        fs::metadata(&path).expect("it is there");
    }
    assert_eq!(usage(&cluster, 1).requests, before, "stat");
    for _ in 0..1000 {
        file.read_exact_at(&mut block, 0).expect("readable");
    }
    assert_eq!(usage(&cluster, 1).requests, before, "read");
    assert_eq!(block, [7; 4096]);
    drop(file);
    cluster.finish();
}

#[test]
fn a_create_in_a_nodes_own_group_sends_no_message() {
    let cluster = Fixture::of("counters-create", 2);
    let dir = cluster.mount(1).join("dir");
    fs::create_dir(&dir).expect("created");
    // The node has the directory, a group and free places by then.
    for number in 0..20 {
        File::create(dir.join(format!("before{number}"))).expect("created");
    }
    let before = usage(&cluster, 1);
    for number in 0..100 {
        File::create(dir.join(format!("file{number}"))).expect("created");
    }
    let after = usage(&cluster, 1);
    assert_eq!(after.messages_by_kind, before.messages_by_kind, "lock messages");
    cluster.finish();
}

#[test]
fn a_recovery_stops_nobody_who_does_not_want_what_the_dead_node_had() {
    let mut cluster = Fixture::of("counters-recovery", 3);
    // Each node works in a directory of its own, so nobody wants what another has.
    for node in cluster.nodes() {
        let dir = cluster.mount(node).join(format!("own{node}"));
        fs::create_dir(&dir).expect("created");
        fs::write(dir.join("cached"), [1; 4096]).expect("written");
    }
    let own = cluster.mount(1).join("own1");
    let cached = own.join("cached");
    let file = File::open(&cached).expect("opened");
    let mut block = [0; 4096];
    file.read_exact_at(&mut block, 0).expect("readable");
    let mut log = File::create(own.join("log")).expect("created");
    // The last: what is created changes the directory.
    fs::metadata(&cached).expect("it is there");

    // Work of the dead node that is only in its journal.
    let theirs = cluster.mount(3).join("own3");
    for number in 0..50 {
        let file = File::create(theirs.join(format!("file{number}"))).expect("created");
        file.sync_all().expect("durable");
    }
    // Once more: a kernel may take back what was not used for half a second.
    file.read_exact_at(&mut block, 0).expect("readable");
    fs::metadata(&cached).expect("it is there");
    let before = usage(&cluster, 1);
    let killed = cluster.kill(3).expect("it is killed");
    let mut recovered = None;
    wait::until("the recovery, working meanwhile", PATIENCE, || {
        log.write_all(b"a line\n")?;
        log.sync_data()?;
        fs::metadata(&cached)?;
        file.read_exact_at(&mut block, 0)?;
        let report = cluster.admin(1).recoveries()?;
        let of_dead = report.recoveries.into_iter().find(|recovery| recovery.dead.node == 3);
        recovered = of_dead.filter(|recovery| {
            let is_resumed = |fs: &FsRecovery| fs.resumed_ms.is_some();
            recovery.ended_ms.is_some() && recovery.file_systems.iter().all(is_resumed)
        });
        Ok(recovered.is_some().then_some(()))
    })
    .expect("recovered");
    cluster.until_recovered(&killed, PATIENCE).expect("recovered");
    // The caches of the survivor are what they were: no read and no stat came to the daemon.
    let after = usage(&cluster, 1);
    for fs in &recovered.expect("just seen").file_systems {
        // The recoverer itself waits for the slot of the dead.
        let waits = fs.work.longest.iter().filter(|wait| wait.pid.is_some());
        assert_eq!(waits.count(), 0, "no process waited on a phase of it: {fs:?}");
    }
    let reads = |usage: &Usage, kind: &str| usage.requests_by_operation.get(kind).copied();
    for kind in ["read", "getattr", "lookup"] {
        assert_eq!(reads(&after, kind), reads(&before, kind), "{kind}");
    }
    assert!(after.locks_cached >= before.locks_cached, "no lock of it was dropped");
    drop((file, log));
    cluster.finish();
}

/// What a node says of a recovery of its only file system.
fn recovery_of(cluster: &Cluster, node: u16, killed: &Killed) -> Option<FsRecovery> {
    let report = cluster.admin(node).recoveries().ok()?;
    let mut of_dead = report.recoveries.into_iter().filter(|of| of.dead.node == killed.node);
    of_dead.next().and_then(|of| of.file_systems.into_iter().next())
}

/// Somebody who makes and removes files, in a directory of his own, until he is told to end.
struct Maker {
    is_over: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Maker {
    fn start(dir: PathBuf) -> Maker {
        let (is_over, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (end, count) = (Arc::clone(&is_over), Arc::clone(&made));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                let path = dir.join(format!("file{}", count.load(Ordering::SeqCst)));
                fs::write(&path, "content")?;
                fs::remove_file(&path)?;
                count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        Maker { is_over, made, thread }
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        wait::until("a maker to end", PATIENCE, || Ok(self.thread.is_finished().then_some(())))
            .expect("it does not hang");
        self.thread.join().expect("no panic").expect("nothing failed");
    }
}

/// That a wait is counted is shown by `why.rs`.
#[test]
fn who_makes_and_removes_files_of_his_own_waits_for_no_phase_of_a_recovery() {
    const SURVIVORS: [u16; 2] = [1, 2];
    let mut cluster = Fixture::of("counters-own-files", 3);
    let mut makers: Vec<Maker> = Vec::new();
    for node in cluster.nodes() {
        let dir = cluster.mount(node).join(format!("own{node}"));
        fs::create_dir(&dir).expect("created");
        makers.push(Maker::start(dir));
    }
    // Each has its directory, a group and free places by then, and the way there.
    let before = makers.iter().map(Maker::made).max().expect("there are some") + 50;
    wait::until("all to make files", PATIENCE, || {
        Ok(makers.iter().all(|maker| maker.made() > before).then_some(()))
    })
    .expect("they do");
    let before: Vec<u64> = makers.iter().map(Maker::made).collect();
    let killed = cluster.kill(3).expect("it is killed");
    // It fails with its node, or ends now.
    let of_dead = makers.pop().expect("the last");
    of_dead.is_over.store(true, Ordering::SeqCst);
    let recovered = SURVIVORS.map(|node| {
        wait::until("the recovery", PATIENCE, || {
            let of_dead = recovery_of(&cluster, node, &killed);
            Ok(of_dead.filter(|fs| fs.resumed_ms.is_some()))
        })
    });
    for ((maker, before), of_dead) in makers.into_iter().zip(before).zip(recovered) {
        let made = maker.made() - before;
        maker.end();
        assert!(made > 0, "files are made meanwhile");
        let work = of_dead.expect("recovered").work;
        assert_eq!(work.waits, work.longest.len() as u64, "each wait is told of: {work:?}");
        // The recoverer itself waits for the slot of the dead.
        let of_slot = |wait: &&e2e::reports::Delay| wait.resource.starts_with("slot ");
        let waits = work.longest.iter().filter(|wait| !of_slot(wait));
        assert_eq!(waits.count(), 0, "{work:?}");
    }
    cluster.finish();
}

#[test]
fn a_replay_writes_the_blocks_that_were_not_in_place_and_no_others() {
    const FILES: u64 = 50;
    /// Their directory, its entries, and what says which places are free.
    const OTHER_BLOCKS: u64 = 8;
    let mut cluster = Fixture::of("counters-replay", 3);
    let theirs = cluster.mount(3).join("theirs");
    fs::create_dir(&theirs).expect("created");
    // Everything is in place behind a checkpoint, and the next one is seconds away.
    let mut spark = File::create(theirs.join("spark")).expect("created");
    let mut used_most = 0;
    wait::until("a checkpoint", PATIENCE, || {
        spark.write_all(b"a line\n")?;
        spark.sync_all()?;
        let used = usage(&cluster, 3).journal_used_bytes;
        let is_behind_one = used < used_most;
        used_most = used.max(used_most);
        Ok(is_behind_one.then_some(()))
    })
    .expect("there is one");
    for number in 0..FILES {
        let file = File::create(theirs.join(format!("file{number}"))).expect("created");
        file.sync_all().expect("durable");
    }
    let killed = cluster.kill(3).expect("it is killed");
    cluster.until_recovered(&killed, PATIENCE).expect("recovered");
    let of_survivors = [1, 2].map(|node| recovery_of(&cluster, node, &killed));
    let replay = of_survivors.into_iter().flatten().find_map(|fs| fs.replay);
    let replayed = replay.expect("somebody replayed").blocks_replayed;
    assert!((FILES..=FILES + OTHER_BLOCKS).contains(&replayed), "{replay:?}");
    drop(spark);
    cluster.finish();
}

/// What survivors have of the dead home goes to the heirs in as few messages as it fits.
#[test]
fn a_rebuild_sends_many_locks_in_one_message() {
    const FILES: u64 = 600;
    let mut cluster = Fixture::of("counters-rebuild", 3);
    let theirs = cluster.mount(3).join("theirs");
    fs::create_dir(&theirs).expect("created");
    for number in 0..FILES {
        File::create(theirs.join(format!("file{number}"))).expect("created");
    }
    // Whoever makes them is their home; another node has them in its cache.
    let cached = cluster.mount(1).join("theirs");
    wait::within("reading them elsewhere", PATIENCE, move || {
        for number in 0..FILES {
            fs::metadata(cached.join(format!("file{number}")))?;
        }
        Ok(())
    })
    .expect("readable");
    let locks = cluster.admin(1).locks("inode").expect("an answer");
    let locks = locks.file_systems.iter().flat_map(|fs| &fs.locks);
    let of_home = locks.filter(|lock| lock.home.is_some_and(|home| home.node == 3)).count();
    assert!(of_home as u64 >= FILES, "{of_home} locks have their home on node 3");
    let killed = cluster.kill(3).expect("it is killed");
    cluster.until_recovered(&killed, PATIENCE).expect("recovered");
    let work = |node| -> e2e::reports::Work {
        let report = cluster.admin(node).recoveries().expect("an answer");
        report.recoveries[0].file_systems[0].work.clone()
    };
    let works = [work(1), work(2)];
    let rebuilt: u64 = works.iter().filter_map(|work| work.locks_rebuilt).sum();
    let messages: u64 = works.iter().map(|work| work.messages).sum();
    assert!(rebuilt >= FILES, "{works:?}");
    // Every survivor tells every other one its locks and that these were all; the recoverer asks,
    // tells and ends, and each of that is answered. A file more or less makes no difference.
    assert!(messages <= 24, "{works:?}");
    cluster.finish();
}

#[test]
fn writers_on_all_nodes_that_share_nothing_send_no_callouts() {
    let cluster = Fixture::of("counters-apart", 2);
    let mut team = Team::new(Mix::Together, Duration::ZERO);
    team.start(&cluster, 1).expect("a writer starts");
    team.until_all_go_on(20).expect("it works");
    let before = usage(&cluster, 1);
    team.until_all_go_on(50).expect("it works");
    let after = usage(&cluster, 1);
    assert_eq!((before.callouts, before.surrenders), (after.callouts, after.surrenders));
    team.stop_all().expect("it stops");
    cluster.finish();
}

/// Programs that do not ask for extended attributes or access control lists pay next to nothing for
/// them: before somebody who is not the owner is let in, the kernel asks whether there is a list,
/// once for each time that it has asked for attributes. FUSE has no way of telling it earlier.
#[test]
fn lists_that_nobody_has_cost_the_owner_no_request_and_others_one_where_attributes_are_new() {
    const FILES: u64 = 20;
    let cluster = Fixture::of("counters-xattrs", 2);
    let dir = cluster.mount(1).join("dir");
    fs::create_dir(&dir).expect("created");
    let asked = |node| {
        let all = usage(&cluster, node).requests_by_operation;
        let of = |operation: &str| all.get(operation).copied().unwrap_or(0);
        (of("getxattr") + of("listxattr"), of("lookup"))
    };
    for number in 0..FILES {
        let path = dir.join(format!("file{number}"));
        fs::write(&path, "content").expect("written");
        assert_eq!(fs::read(&path).expect("readable"), b"content");
        fs::rename(&path, dir.join(format!("renamed{number}"))).expect("renamed");
    }
    assert_eq!(asked(1).0, 0, "by the owner");
    // Cold, on another node, by somebody else.
    let look = || {
        let mut other = Command::new("setpriv");
        other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        other.args(["sh", "-c", "stat * && cat *"]).current_dir(cluster.mount(2).join("dir"));
        let output = other.output().expect("setpriv is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    look();
    let first = asked(2);
    assert!(first.1 >= FILES, "it was cold: {first:?}");
    assert!(first.0 <= FILES + 2, "files, and the directories on the way: {first:?}");
    // The first read has set the access time: attributes are asked for anew, and lists with them.
    look();
    let warm = asked(2).0;
    assert!(warm <= first.0 + FILES + 2, "{first:?} {warm}");
    look();
    assert_eq!(asked(2).0, warm, "the kernel remembers that there is none");
    cluster.finish();
}
