//! flock and fcntl between processes on several nodes: as on one server.

mod rounds;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use e2e::locker::Locker;
use e2e::{Cluster, Fixture, wait};
use rounds::rounds;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(30);

fn locker(cluster: &Cluster, node: u16, name: &str) -> Locker {
    let mut locker = Locker::start(cluster.programs()).expect("it starts");
    let opened = locker.open(&cluster.mount(node).join(name)).expect("opened");
    assert_eq!(opened, "0");
    locker
}

#[track_caller]
fn asked(locker: &mut Locker, line: &str) -> String {
    locker.ask(line).expect("answered")
}

/// The one of the two that is told `answer`, before the other.
fn who_is_told<'a>(
    a: &'a mut Locker,
    b: &'a mut Locker,
    answer: &str,
) -> (&'a mut Locker, &'a mut Locker) {
    let is_a = wait::until("one of two to be told", PATIENCE, || {
        let mut told = [a.answered(), b.answered()];
        let first = told.iter().position(Option::is_some);
        Ok(first.map(|first| {
            assert_eq!(told[first].take().as_deref(), Some(answer));
            assert_eq!(told, [None, None], "only one");
            first == 0
        }))
    });
    if is_a.expect("one is") { (a, b) } else { (b, a) }
}

#[test]
fn locks_of_one_node_forbid_on_another_what_they_forbid_on_one_server() {
    let cluster = Fixture::of("file-locks", 2);
    let [mut a, mut b] = [1, 2].map(|node| locker(&cluster, node, "file"));
    // fcntl: ranges, both kinds, tests.
    assert_eq!(asked(&mut a, "posix 0 w 10 10 try"), "ok");
    assert_eq!(asked(&mut b, "posix 0 r 15 1 try"), "EAGAIN");
    assert_eq!(asked(&mut b, "posix 0 r 20 5 try"), "ok");
    assert_eq!(asked(&mut b, "test 0 r 0 0"), "held w 10 10 0", "no process of this node");
    assert_eq!(asked(&mut a, "test 0 r 0 0"), "free");
    assert_eq!(asked(&mut a, "test 0 w 0 0"), "held r 20 5 0");
    let mut beside = locker(&cluster, 1, "file");
    let expected = format!("held w 10 10 {}", a.pid());
    assert_eq!(asked(&mut beside, "test 0 r 12 1"), expected);
    // A part is given up, another is lowered.
    assert_eq!(asked(&mut a, "posix 0 u 13 2 try"), "ok");
    assert_eq!(asked(&mut b, "posix 0 w 13 2 try"), "ok");
    assert_eq!(asked(&mut a, "posix 0 r 10 3 wait"), "ok");
    assert_eq!(asked(&mut b, "posix 0 r 10 3 try"), "ok");
    assert_eq!(asked(&mut b, "posix 0 w 10 3 try"), "EAGAIN");
    // flock does not see them, and they do not see it.
    assert_eq!(asked(&mut a, "flock 0 w try"), "ok");
    assert_eq!(asked(&mut b, "flock 0 r try"), "EAGAIN");
    assert_eq!(asked(&mut a, "flock 0 r try"), "ok");
    assert_eq!(asked(&mut b, "flock 0 r try"), "ok");
    assert_eq!(asked(&mut b, "flock 0 w try"), "EAGAIN");
    assert_eq!(asked(&mut a, "flock 0 w try"), "ok", "b has lost its own by trying");
    // A lock of an open file conflicts with one of a process.
    assert_eq!(asked(&mut beside, "ofd 0 r 15 1 try"), "EAGAIN");
    assert_eq!(asked(&mut beside, "ofd 0 w 40 2 try"), "ok");
    assert_eq!(asked(&mut b, "posix 0 r 41 1 try"), "EAGAIN");
    assert_eq!(asked(&mut b, "ofd 0 r 41 1 try"), "EAGAIN");
    drop((a, b, beside));
    cluster.finish();
}

#[test]
fn who_waits_is_woken_by_whatever_ends_the_lock() {
    let mut cluster = Fixture::of("file-locks-wake", 3);
    for family in ["posix 0 w 3 4 wait", "ofd 0 w 3 4 wait", "flock 0 w wait"] {
        for end in ["unlock", "close", "KILL"] {
            let [mut a, mut b] = [1, 2].map(|node| locker(&cluster, node, "file"));
            assert_eq!(asked(&mut a, family), "ok");
            b.say_and_wait(family).expect("a has it");
            match (end, family.split(' ').next()) {
                ("unlock", Some("flock")) => assert_eq!(asked(&mut a, "flock 0 u try"), "ok"),
                ("unlock", Some(kind)) => {
                    assert_eq!(asked(&mut a, &format!("{kind} 0 u 0 0 try")), "ok");
                }
                ("close", _) => assert_eq!(asked(&mut a, "close 0"), "ok"),
                _ => a.signal(Signal::KILL).expect("sent"),
            }
            assert_eq!(b.answer(PATIENCE).expect("woken"), "ok", "{family} {end}");
        }
    }
    // The other file of a process: with any close all its fcntl locks go.
    let [mut a, mut b] = [1, 2].map(|node| locker(&cluster, node, "file"));
    assert_eq!(asked(&mut a, "posix 0 w 0 1 try"), "ok");
    assert_eq!(asked(&mut a, "flock 0 w try"), "ok");
    assert_eq!(a.open(&cluster.mount(1).join("file")).expect("opened"), "1");
    assert_eq!(asked(&mut a, "close 1"), "ok");
    assert_eq!(asked(&mut b, "posix 0 w 0 1 try"), "ok");
    assert_eq!(asked(&mut b, "flock 0 w try"), "EAGAIN", "this belongs to the open file");
    // The name may change meanwhile.
    fs::rename(cluster.mount(2).join("file"), cluster.mount(2).join("renamed")).expect("renamed");
    b.say_and_wait("flock 0 w wait").expect("a has it still");
    assert_eq!(asked(&mut a, "close 0"), "ok");
    assert_eq!(b.answer(PATIENCE).expect("woken"), "ok");
    // The node with the holder dies.
    let mut c = locker(&cluster, 3, "renamed");
    c.say_and_wait("posix 0 w 0 1 wait").expect("b has it");
    cluster.kill(2).expect("killed");
    assert_eq!(c.answer(PATIENCE).expect("woken"), "ok");
    drop((a, b, c));
    cluster.start(2).expect("it joins again");
    cluster.finish();
}

#[test]
fn who_waits_in_a_circle_across_nodes_is_told_and_only_one() {
    let cluster = Fixture::of("file-locks-circle", 2);
    let [mut a, mut b] = [1, 2].map(|node| locker(&cluster, node, "file"));
    for _ in 0..rounds(5, 50) {
        assert_eq!(asked(&mut a, "posix 0 w 0 1 wait"), "ok");
        assert_eq!(asked(&mut b, "posix 0 w 1 1 wait"), "ok");
        a.say_and_wait("posix 0 w 1 1 wait").expect("b has it");
        b.say("posix 0 w 0 1 wait").expect("said");
        // That a program waits does not say that its node has asked: either one may be the last.
        let (told, other) = who_is_told(&mut a, &mut b, "EDEADLK");
        assert_eq!(other.answered(), None, "it waits on");
        assert_eq!(asked(told, "posix 0 u 0 0 try"), "ok");
        assert_eq!(other.answer(PATIENCE).expect("woken"), "ok");
        assert_eq!(asked(other, "posix 0 u 0 0 try"), "ok");
    }
    // Locks of open files are not looked at, as fcntl(2) says: both wait.
    assert_eq!(asked(&mut a, "ofd 0 w 0 1 wait"), "ok");
    assert_eq!(asked(&mut b, "ofd 0 w 1 1 wait"), "ok");
    a.say_and_wait("ofd 0 w 1 1 wait").expect("b has it");
    b.say_and_wait("ofd 0 w 0 1 wait").expect("a has it");
    a.signal(Signal::TERM).expect("sent");
    assert!(a.ended().expect("it ends").signal().is_some());
    assert_eq!(b.answer(PATIENCE).expect("woken"), "ok");
    drop(b);
    cluster.finish();
}

#[test]
fn a_signal_ends_a_wait_and_nothing_is_held_by_it() {
    let cluster = Fixture::of("file-locks-signal", 2);
    let mut a = locker(&cluster, 1, "file");
    assert_eq!(asked(&mut a, "posix 0 w 0 9 wait"), "ok");
    assert_eq!(asked(&mut a, "flock 0 w wait"), "ok");
    for signal in [Signal::INT, Signal::KILL] {
        for wait in ["posix 0 w 5 9 wait", "ofd 0 r 0 1 wait", "flock 0 r wait"] {
            for node in [1, 2] {
                let mut b = locker(&cluster, node, "file");
                b.say_and_wait(wait).expect("a has it");
                b.signal(signal).expect("sent");
                assert!(b.ended().expect("it ends").signal().is_some(), "{signal:?} {wait}");
            }
        }
    }
    assert_eq!(asked(&mut a, "posix 0 w 0 0 try"), "ok", "nobody else has any of it");
    assert_eq!(asked(&mut a, "flock 0 r try"), "ok");
    drop(a);
    cluster.finish();
}

#[test]
fn counting_under_a_lock_on_two_nodes_loses_nothing() {
    let cluster = Fixture::of("file-locks-count", 2);
    let times = u64::from(rounds(150, 5_000));
    let mut lockers: Vec<Locker> = (0..6).map(|i| locker(&cluster, 1 + i % 2, "counter")).collect();
    for locker in &mut lockers {
        locker.say(&format!("count 0 {times}")).expect("it counts");
    }
    for locker in &mut lockers {
        assert_eq!(locker.answer(Duration::from_secs(300)).expect("counted"), "ok");
    }
    let bytes = fs::read(cluster.mount(1).join("counter")).expect("read");
    let number = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    assert_eq!(number, 6 * times);
    drop(lockers);
    cluster.finish();
}
