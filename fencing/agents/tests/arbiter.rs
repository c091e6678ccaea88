//! The arbiter and its client, over real sockets and files.

mod support;

use std::os::fd::AsFd;
use std::sync::Arc;

use fencing::gate::Refused;
use fencing::{Answer, Block, Closed, DeviceId, FenceAgent, FenceRequest, Gate, Key};
use fencing_agents::arbiter::ArbiterAgent;
use fencing_agents::arbiter::client::{Client, ConnectError, Identity, RequestFailed};
use fencing_agents::arbiter::protocol::{
    FRAME_SIZE, Fault, Hello, HelloRefusal, Request, Status, Transfer,
};
use fencing_agents::arbiter::server::{Server, StartError};
use fencing_agents::device::OpenError;
use mx_base::{ClusterId, Incarnation, NodeId};
use rustix::fs::SealFlags;
use rustix::io::Errno;
use support::raw::{self, Raw};
use support::{
    Arbiter, DEVICE, DEVICE_BLOCKS, PATIENCE, Scratch, World, client_config, config, filled,
    identity, is_ready, member, node, report, victim, wait_until,
};

const FENCED: RequestFailed = RequestFailed::Gate(Refused::Closed(Closed::Fenced));

fn raw_write(block: u64) -> Request {
    Request::Write { transfer: Transfer { block, count: 1, area_block: 0 }, durable: false }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, ConnectError>, expected: HelloRefusal) {
    match result {
        Err(ConnectError::Refused(refusal)) => assert_eq!(refusal, expected),
        other => panic!("{other:?}"),
    }
}

// Reading and writing.

#[test]
fn what_one_node_writes_another_reads() {
    let world = World::new("arbiter-read-back");
    let (one, two) = (world.member(1, 1), world.member(2, 1));
    assert_eq!(one.blocks(), DEVICE_BLOCKS);
    let gathered: Vec<Arc<Block>> = (1..=256).map(|i| Arc::new(*filled(low_byte(i)))).collect();
    one.write(100, gathered, false).wait().expect("written");
    one.write(101, filled(99), true).wait().expect("written");
    one.flush().wait().expect("flushed");
    let blocks = two.read::<Block>(100, 256).wait().expect("read");
    assert_eq!((blocks[0].0[0], blocks[1].0[4095], blocks[255].0[7]), (1, 99, 0));
    assert_eq!(blocks[2].0[0], 3);
    let counters = two.counters().wait().expect("counted");
    assert_eq!((counters.writes, counters.write_blocks), (2, 257));
    assert_eq!((counters.reads, counters.flushes, counters.sessions), (1, 1, 2));
}

#[test]
fn more_requests_than_memory_or_places_wait_for_their_turn() {
    let world = World::new("arbiter-many");
    let client = world.member(1, 1);
    // 16 MiB of memory hold 16 of the large ones.
    let large: Vec<_> = (0..30)
        .map(|i| {
            let run: Box<[Block]> = (0..256).map(|_| *filled(low_byte(i))).collect();
            client.write(i * 256, run, false)
        })
        .collect();
    for write in large {
        write.wait().expect("written");
    }
    let small: Vec<_> =
        (0..5000).map(|i| client.write(i, filled(low_byte(i)), i % 9 == 0)).collect();
    for write in small {
        write.wait().expect("written");
    }
    let reads: Vec<_> = (0..5000).map(|i| client.read::<Block>(i, 1)).collect();
    for (i, read) in (0..).zip(reads) {
        assert_eq!(read.wait().expect("read")[0].0[5], low_byte(i));
    }
    assert_eq!(client.read::<Block>(29 * 256, 1).wait().expect("read")[0].0[0], 29);
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let world = World::new("arbiter-limits");
    let client = world.member(1, 1);
    let read = |block, count| client.read::<Block>(block, count).wait().err();
    assert_eq!(read(DEVICE_BLOCKS, 1), Some(RequestFailed::OutOfRange));
    assert_eq!(read(u64::MAX, 2), Some(RequestFailed::OutOfRange));
    assert_eq!(read(0, 0), Some(RequestFailed::NotBlocks));
    assert_eq!(read(0, 257), Some(RequestFailed::NotBlocks));
    let beyond =
        client.write(DEVICE_BLOCKS - 1, vec![Arc::new(*filled(1)), Arc::new(*filled(1))], false);
    assert_eq!(beyond.wait(), Err(RequestFailed::OutOfRange));
    client.ping().wait().expect("the session goes on");
}

#[test]
fn an_observer_reads_and_lists_and_does_nothing_else() {
    let world = World::new("arbiter-observer");
    world.member(1, 1).write(5, filled(6), false).wait().expect("written");
    let observer = world.connect(Identity::Observer).expect("admitted");
    assert_eq!(observer.read::<Block>(5, 1).wait().expect("read")[0].0[0], 6);
    assert_eq!(report(&observer, 1).incarnation_newest, Incarnation(1));
    let write = observer.write(5, filled(7), false).wait();
    assert_eq!(write, Err(RequestFailed::NotAllowed));
    assert_eq!(observer.flush().wait(), Err(RequestFailed::NotAllowed));
    assert_eq!(observer.fence(victim(1, 1)).wait(), Err(RequestFailed::NotAllowed));
    assert_eq!(world.byte(5), 6);
}

#[test]
fn an_error_of_the_device_reaches_the_request_and_no_other() {
    let world = World::new("arbiter-io-error");
    let (one, two) = (world.member(1, 1), world.member(2, 1));
    let errno = Errno::IO.raw_os_error().unsigned_abs();
    one.inject(Fault::FailWrites { node: node(2), errno }).wait().expect("injected");
    assert_eq!(two.write(1, filled(1), false).wait(), Err(RequestFailed::Io(Errno::IO)));
    one.write(1, filled(2), false).wait().expect("written");
    two.read::<Block>(1, 1).wait().expect("read");
    one.inject(Fault::Clear).wait().expect("cleared");
    two.write(1, filled(3), false).wait().expect("written");
    assert_eq!(one.counters().wait().expect("counted").io_errors, 1);
}

#[test]
fn faults_are_refused_unless_the_server_was_started_for_them() {
    let scratch = Scratch::new("arbiter-no-faults");
    scratch.file("device", DEVICE_BLOCKS);
    let _arbiter = Arbiter::start(fencing_agents::arbiter::server::Config {
        accept_faults: false,
        ..config(scratch.path())
    });
    let raw = Raw::open(scratch.path(), identity(1, 1)).expect("admitted");
    raw.request(1, Request::Inject(Fault::StallWrites { node: node(1) }));
    assert_eq!(raw.reply(), (1, Status::NotAllowed));
}

// Fencing.

#[test]
fn a_fence_is_answered_only_after_the_writes_that_were_executing() {
    let world = World::new("arbiter-drain");
    let (one, two) = (world.member(1, 1), world.member(2, 1));
    one.inject(Fault::StallWrites { node: node(2) }).wait().expect("injected");
    let slow = two.write(7, filled(0xBB), false);
    wait_until(&one, 2, |report| report.writes_executing == 1);
    let mut fence = one.fence(victim(2, 1));
    // A later fence is stored with all earlier ones; only the executing write is missing.
    one.fence(victim(3, 1)).wait().expect("fenced");
    assert_eq!(report(&one, 2).incarnation_min, Incarnation(2));
    assert!(!is_ready(&mut fence), "a write of the victim is executing");
    assert_eq!(world.byte(7), 0);
    one.inject(Fault::Clear).wait().expect("cleared");
    fence.wait().expect("fenced");
    // It has landed before the answer, and nothing lands after it.
    assert_eq!(world.byte(7), 0xBB);
    assert_eq!(report(&one, 2).writes_executing, 0);
    one.write(7, filled(0xAA), true).wait().expect("written");
    let _ = slow.wait();
    assert_eq!(world.byte(7), 0xAA);
}

#[test]
fn a_discard_is_fenced_as_a_write_is() {
    let world = World::new("arbiter-discard");
    let (one, two) = (world.member(1, 1), world.member(2, 1));
    let run: Box<[Block]> = (0..10).map(|_| *filled(0xAA)).collect();
    one.write(20, run, true).wait().expect("written");
    one.discard(22, 3).wait().expect("the scratch file can have holes");
    let bytes: Vec<u8> = (20..27).map(|block| world.byte(block)).collect();
    assert_eq!(bytes, [0xAA, 0xAA, 0, 0, 0, 0xAA, 0xAA]);
    let counters = one.counters().wait().expect("counted");
    assert_eq!((counters.discards, counters.discard_blocks), (1, 3));
    let beyond = one.discard(DEVICE_BLOCKS - 1, 2).wait();
    assert_eq!(beyond, Err(RequestFailed::OutOfRange));
    assert_eq!(one.discard(0, 0).wait(), Err(RequestFailed::NotBlocks));

    one.inject(Fault::StallWrites { node: node(2) }).wait().expect("injected");
    let slow = two.discard(27, 1);
    wait_until(&one, 2, |report| report.writes_executing == 1);
    let mut fence = one.fence(victim(2, 1));
    one.fence(victim(3, 1)).wait().expect("fenced");
    assert!(!is_ready(&mut fence), "a discard of the victim is executing");
    one.inject(Fault::Clear).wait().expect("cleared");
    fence.wait().expect("fenced");
    assert_eq!(world.byte(27), 0, "it has landed before the answer");
    let _ = slow.wait();
    two.discard(28, 1).wait().expect_err("fenced");
    assert_eq!(world.byte(28), 0xAA);
}

#[test]
fn writes_delayed_in_the_device_are_waited_for() {
    let world = World::new("arbiter-delay");
    let (one, two) = (world.member(1, 1), world.member(2, 1));
    one.inject(Fault::DelayWrites { node: node(2), ms: 150 }).wait().expect("injected");
    let writes: Vec<_> = (0..50).map(|i| two.write(i, filled(2), false)).collect();
    wait_until(&one, 2, |report| report.writes_executing > 0);
    one.fence(victim(2, 1)).wait().expect("fenced");
    let landed: Vec<u8> = (0..50).map(|block| world.byte(block)).collect();
    for write in writes {
        let _ = write.wait();
    }
    two.write(60, filled(2), false).wait().expect_err("fenced");
    let later: Vec<u8> = (0..50).map(|block| world.byte(block)).collect();
    assert_eq!(landed, later, "nothing changes after the answer");
    assert_eq!(world.byte(60), 0);
}

#[test]
fn what_a_victim_has_queued_is_dropped_and_counted() {
    let world = World::new("arbiter-queued");
    let one = world.member(1, 1);
    one.inject(Fault::StallWrites { node: node(2) }).wait().expect("injected");
    let two = Raw::open(world.scratch.path(), identity(2, 1)).expect("admitted");
    // 256 begin, the others wait for a place.
    for id in 0..300 {
        two.request(id, raw_write(id));
    }
    wait_until(&one, 2, |report| report.writes_executing == 256);
    let counters = || one.counters().wait().expect("counted");
    while counters().queued < 44 {
        one.ping().wait().expect("answered");
    }
    let fence = one.fence(victim(2, 1));
    one.ping().wait().expect("answered");
    assert_eq!(report(&one, 2).writes_refused, 44);
    one.inject(Fault::Clear).wait().expect("cleared");
    fence.wait().expect("fenced");
    assert_eq!(counters().writes_refused, 44);
    assert_eq!((counters().executing, counters().queued), (0, 0));
}

#[test]
fn a_fenced_life_that_goes_on_writing_is_refused_and_counted() {
    let world = World::new("arbiter-refused");
    let one = world.member(1, 1);
    let two = Raw::open(world.scratch.path(), identity(2, 1)).expect("admitted");
    two.request(1, raw_write(3));
    assert_eq!(two.reply(), (1, Status::Done));
    one.fence(victim(2, 1)).wait().expect("fenced");
    one.write(3, filled(0xAA), false).wait().expect("written");
    for id in 2..12 {
        two.request(id, raw_write(3));
        assert_eq!(two.reply(), (id, Status::Fenced));
    }
    two.request(12, Request::Read(Transfer { block: 3, count: 1, area_block: 0 }));
    assert_eq!(two.reply(), (12, Status::Fenced));
    two.request(13, Request::Fence { victim: victim(1, 1) });
    assert_eq!(two.reply(), (13, Status::Fenced));
    let report = report(&one, 2);
    assert_eq!((report.writes_refused, report.others_refused), (10, 2));
    assert_eq!(world.byte(3), 0xAA);
    one.ping().wait().expect("node 1 is not fenced");
}

#[test]
fn a_client_that_is_fenced_closes_its_gate_for_good() {
    let world = World::new("arbiter-gate");
    let one = world.member(1, 1);
    let (two, gate) = world.connect_on(identity(2, 1), 0).expect("admitted");
    one.fence(victim(2, 1)).wait().expect("fenced");
    assert_eq!(two.write(1, filled(1), false).wait(), Err(FENCED));
    assert_eq!(gate.closed(), Some(Closed::Fenced));
    assert_eq!(two.read::<Block>(1, 1).wait().err(), Some(FENCED));
    assert_eq!(two.flush().wait(), Err(FENCED));
    assert_eq!(two.fence(victim(1, 1)).wait(), Err(FENCED));
}

#[test]
fn a_node_may_fence_itself() {
    let world = World::new("arbiter-self");
    let (one, two) = (world.member(1, 1), world.member(2, 1));
    two.fence(victim(2, 1)).wait().expect("its own fence is answered");
    assert_eq!(two.write(1, filled(1), false).wait(), Err(FENCED));
    assert_eq!(report(&one, 2).incarnation_min, Incarnation(2));
}

#[test]
fn fencing_again_and_fencing_earlier_lives_changes_nothing() {
    let world = World::new("arbiter-idempotent");
    let one = world.member(1, 1);
    for up_to in [3, 3, 2, 1] {
        one.fence(victim(2, up_to)).wait().expect("fenced");
        assert_eq!(report(&one, 2).incarnation_min, Incarnation(4));
    }
}

#[test]
fn a_fence_that_cannot_be_stored_is_not_answered_as_done() {
    let world = World::new("arbiter-store");
    let (one, two) = (world.member(1, 1), world.member(2, 1));
    let state = world.scratch.path().join("state");
    std::fs::rename(&state, world.scratch.path().join("away")).expect("moved");
    let failed = one.fence(victim(2, 1)).wait();
    assert_eq!(failed, Err(RequestFailed::Io(Errno::NOENT)));
    assert_eq!(two.write(1, filled(1), false).wait(), Err(FENCED), "cut off all the same");
    std::fs::rename(world.scratch.path().join("away"), &state).expect("moved back");
    one.fence(victim(2, 1)).wait().expect("stored at the second try");
}

#[test]
fn the_agent_verifies_only_what_the_arbiter_has_answered() {
    let world = World::new("arbiter-agent");
    let agent = ArbiterAgent::new(Arc::new(world.member(1, 1)), DEVICE);
    let ask = |device| block_on(agent.fence(FenceRequest { victim: victim(2, 5), device }));
    assert!(matches!(ask(DeviceId([9; 16])), Answer::Unsupported { .. }));
    assert_eq!(ask(DEVICE), Answer::Verified);
    let own = agent.fence(FenceRequest { victim: victim(1, 1), device: DEVICE });
    assert_eq!(block_on(own), Answer::Verified);
    assert!(matches!(ask(DEVICE), Answer::Failed { .. }), "it is fenced itself by now");
}

// Registration.

#[test]
fn a_fenced_life_is_not_let_in_again_and_the_next_one_is() {
    let world = World::new("arbiter-old-life");
    let one = world.member(1, 1);
    one.fence(victim(2, 3)).wait().expect("fenced");
    for incarnation in 1..=3 {
        assert_refused(world.connect(identity(2, incarnation)), HelloRefusal::Fenced);
    }
    let welcome = world.member(2, 4).welcome();
    assert_eq!(welcome.incarnation_min, Incarnation(4));
}

#[test]
fn an_incarnation_belongs_to_the_start_that_registered_it() {
    let world = World::new("arbiter-nonce");
    drop(world.member(2, 4));
    let other = Identity::Member { key: Key::of(member(2, 4)), nonce: 99 };
    assert_refused(world.connect(other), HelloRefusal::InUse);
    drop(world.member(2, 4));
    drop(world.member(2, 5));
    assert_refused(world.connect(identity(2, 4)), HelloRefusal::Superseded);
}

#[test]
fn a_life_is_let_in_only_when_its_registration_is_stored() {
    let world = World::new("arbiter-unstored");
    let dir = world.scratch.path();
    std::fs::rename(dir.join("state"), dir.join("away")).expect("moved");
    let refused = Raw::open(dir, identity(2, 4)).map(drop);
    assert_eq!(refused, Err(HelloRefusal::StateUnavailable));
    std::fs::rename(dir.join("away"), dir.join("state")).expect("moved back");
    Raw::open(dir, identity(2, 4)).map(drop).expect("stored at the second try");
}

#[test]
fn a_new_life_beside_the_former_one_ends_it_only_by_fencing_it() {
    let world = World::new("arbiter-two-lives");
    let former = world.member(2, 4);
    let new = world.member(2, 5);
    former.write(1, filled(4), false).wait().expect("not fenced yet");
    new.fence(victim(2, 4)).wait().expect("fenced");
    assert_eq!(former.write(1, filled(4), false).wait(), Err(FENCED));
    new.write(1, filled(5), false).wait().expect("written");
}

#[test]
fn a_new_session_of_a_life_opens_after_the_former_ones_requests_have_ended() {
    let world = World::new("arbiter-replace");
    let one = world.member(1, 1);
    one.inject(Fault::DelayWrites { node: node(2), ms: 100 }).wait().expect("injected");
    let former = Raw::open(world.scratch.path(), identity(2, 1)).expect("admitted");
    former.request(1, raw_write(9));
    wait_until(&one, 2, |report| report.writes_executing == 1);
    let new = world.member(2, 1);
    assert_eq!(report(&one, 2).writes_executing, 0, "a late write could undo the new session's");
    assert!(former.is_at_end());
    new.ping().wait().expect("open");
}

#[test]
fn an_observer_that_comes_again_has_its_former_session_ended() {
    let world = World::new("arbiter-observer-again");
    let first = Raw::open(world.scratch.path(), Identity::Observer).expect("admitted");
    // The same nonce: the same memory, to which a late read could still go.
    let second = Raw::open(world.scratch.path(), Identity::Observer).expect("admitted");
    assert!(first.is_at_end());
    second.request(1, Request::Ping);
    assert_eq!(second.reply(), (1, Status::Done));
    let other = world.connect(Identity::Observer).expect("admitted");
    other.ping().wait().expect("answered");
    second.request(2, Request::Ping);
    assert_eq!(second.reply(), (2, Status::Done), "another observer is another one");
}

#[test]
fn sessions_on_other_channels_are_left_alone() {
    let world = World::new("arbiter-channels");
    let (first, _) = world.connect_on(identity(2, 1), 0).expect("admitted");
    let (second, _) = world.connect_on(identity(2, 1), 1).expect("admitted");
    first.write(1, filled(1), false).wait().expect("written");
    second.write(2, filled(2), false).wait().expect("written");
    assert_eq!(report(&first, 2).sessions, 2);
    world.member(1, 1).fence(victim(2, 1)).wait().expect("fenced");
    assert_eq!(first.write(1, filled(1), false).wait(), Err(FENCED));
    assert_eq!(second.write(1, filled(1), false).wait(), Err(FENCED));
}

// Starting and ending.

#[test]
fn a_restarted_arbiter_knows_who_is_fenced_and_registered() {
    let mut world = World::new("arbiter-restart");
    let one = world.member(1, 1);
    drop(world.member(2, 4));
    one.fence(victim(2, 4)).wait().expect("fenced");
    drop(world.member(3, 7));
    world.restart();
    assert_refused(world.connect(identity(2, 4)), HelloRefusal::Fenced);
    let other = Identity::Member { key: Key::of(member(3, 7)), nonce: 99 };
    assert_refused(world.connect(other), HelloRefusal::InUse);
    one.write(1, filled(1), false).wait().expect("connected again by itself");
    assert_eq!(report(&one, 3).incarnation_newest, Incarnation(7));
}

#[test]
fn a_second_arbiter_on_the_same_device_state_or_socket_does_not_start() {
    let world = World::new("arbiter-second");
    let dir = world.scratch.path();
    let refused = |config| match Server::start(config) {
        Err(error) => error,
        Ok(server) => panic!("{server:?}"),
    };
    let patience = std::time::Duration::from_millis(50);
    let same = fencing_agents::arbiter::server::Config { patience, ..config(dir) };
    assert!(matches!(refused(same.clone()), StartError::State(_)));
    let own_state =
        fencing_agents::arbiter::server::Config { state: dir.join("other-state"), ..same.clone() };
    let error = refused(own_state.clone());
    assert!(matches!(error, StartError::Device(OpenError::InUse { .. })), "{error:?}");
    let own_device = fencing_agents::arbiter::server::Config {
        device: world.scratch.file("other-device", 16),
        ..own_state
    };
    assert!(matches!(refused(own_device), StartError::SocketInUse { .. }));
    world.member(1, 1).ping().wait().expect("the first one goes on");
}

#[test]
fn a_state_that_is_damaged_or_anothers_stops_the_start() {
    let scratch = Scratch::new("arbiter-state");
    scratch.file("device", 16);
    let own = config(scratch.path());
    {
        let world = Arbiter::start(own.clone());
        Raw::open(scratch.path(), identity(1, 1)).map(drop).expect("admitted");
        drop(world);
    }
    let start = |config| Server::start(config).map(drop).expect_err("refused").to_string();
    let foreign =
        fencing_agents::arbiter::server::Config { cluster: ClusterId([5; 16]), ..own.clone() };
    let source = |config| match Server::start(config) {
        Err(StartError::State(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(source(foreign).contains("another cluster"));
    let path = scratch.path().join("state/state");
    let mut bytes = std::fs::read(&path).expect("stored");
    bytes[60] ^= 1;
    std::fs::write(&path, &bytes).expect("damaged");
    assert!(source(own.clone()).contains("damaged"));
    assert_eq!(start(own), "state directory");
}

#[test]
fn something_else_in_the_sockets_place_is_left_alone() {
    let scratch = Scratch::new("arbiter-socket");
    scratch.file("device", 16);
    std::fs::write(scratch.path().join("socket"), "precious").expect("written");
    let error = Server::start(config(scratch.path())).map(drop).expect_err("refused");
    assert!(matches!(error, StartError::Socket { .. }), "{error:?}");
    let kept = std::fs::read_to_string(scratch.path().join("socket")).expect("still there");
    assert_eq!(kept, "precious");
}

// Clients that lose the arbiter, and the other way round.

#[test]
fn requests_wait_while_the_arbiter_is_away_and_are_done_when_it_is_back() {
    let mut world = World::new("arbiter-away");
    let client = world.member(1, 1);
    world.arbiter = None;
    let mut write = client.write(4, filled(4), true);
    let read = client.read::<Block>(4, 1);
    assert!(!is_ready(&mut write));
    world.arbiter = Some(Arbiter::start(config(world.scratch.path())));
    write.wait().expect("written");
    read.wait().expect("read");
    assert_eq!(world.byte(4), 4);
}

#[test]
fn a_request_is_not_sent_again_once_the_gate_is_closed() {
    let mut world = World::new("arbiter-gate-away");
    let (client, gate) = world.connect_on(identity(1, 1), 0).expect("admitted");
    world.arbiter = None;
    let write = client.write(4, filled(4), true);
    gate.close(Closed::Expelled);
    let closed = RequestFailed::Gate(Refused::Closed(Closed::Expelled));
    assert_eq!(write.wait(), Err(closed), "without waiting for the arbiter");
    world.restart();
    let other = world.member(2, 1);
    other.ping().wait().expect("answered");
    assert_eq!(world.byte(4), 0);
    assert_eq!(client.write(4, filled(4), true).wait(), Err(closed));
}

#[test]
fn a_request_is_not_sent_again_without_a_permit() {
    let mut world = World::new("arbiter-permit-away");
    let (client, gate) = world.connect_on(identity(1, 1), 0).expect("admitted");
    world.arbiter = None;
    let write = client.write(4, filled(4), true);
    gate.permit(mx_base::Instant(0));
    world.arbiter = Some(Arbiter::start(config(world.scratch.path())));
    assert_eq!(write.wait(), Err(RequestFailed::Gate(Refused::NoPermit)));
    assert_eq!(world.byte(4), 0);
    gate.permit(mx_base::Instant(u64::MAX));
    client.write(4, filled(5), true).wait().expect("the permit was renewed");
}

#[test]
fn a_client_fenced_while_the_arbiter_was_away_learns_it_when_it_is_back() {
    let mut world = World::new("arbiter-fenced-away");
    let (client, gate) = world.connect_on(identity(2, 1), 0).expect("admitted");
    world.member(1, 1).fence(victim(2, 1)).wait().expect("fenced");
    world.arbiter = None;
    let write = client.write(4, filled(4), true);
    world.arbiter = Some(Arbiter::start(config(world.scratch.path())));
    assert_eq!(write.wait(), Err(FENCED));
    assert_eq!(gate.closed(), Some(Closed::Fenced));
    assert_eq!(world.byte(4), 0);
}

#[test]
fn cutting_a_client_off_fails_everything_at_once() {
    let world = World::new("arbiter-cut-off");
    let one = world.member(1, 1);
    let (two, gate) = world.connect_on(identity(2, 1), 0).expect("admitted");
    one.inject(Fault::StallWrites { node: node(2) }).wait().expect("injected");
    let write = two.write(4, filled(4), false);
    wait_until(&one, 2, |report| report.writes_executing == 1);
    two.cut_off(Closed::SelfFenced);
    let closed = RequestFailed::Gate(Refused::Closed(Closed::SelfFenced));
    assert_eq!(write.wait(), Err(closed));
    assert_eq!(two.ping().wait(), Err(closed));
    assert!(!gate.is_drained(), "the arbiter may still carry the write out");
    one.inject(Fault::Clear).wait().expect("cleared");
}

#[test]
fn dropping_a_client_fails_what_is_under_way() {
    let mut world = World::new("arbiter-drop");
    let client = world.member(1, 1);
    world.arbiter = None;
    let write = client.write(4, filled(4), true);
    drop(client);
    assert_eq!(write.wait(), Err(RequestFailed::Ended));
}

#[test]
fn a_client_of_another_cluster_or_device_is_refused_by_name() {
    let world = World::new("arbiter-foreign");
    let dir = world.scratch.path();
    let refusal = |hello: Hello| {
        let raw = Raw::connect(dir);
        let memory = raw::memory(256, SealFlags::SHRINK);
        raw.send(&hello.encode(), Some(memory.as_fd()));
        let refusal = raw.welcome().expect_err("refused");
        assert!(raw.is_at_end());
        refusal
    };
    let hello = raw::hello(identity(1, 1));
    let cluster = ClusterId([9; 16]);
    assert_eq!(refusal(Hello { cluster, ..hello }), HelloRefusal::ForeignCluster);
    let device = DeviceId([9; 16]);
    assert_eq!(refusal(Hello { device, ..hello }), HelloRefusal::ForeignDevice);
    world.member(1, 1).ping().wait().expect("the server goes on");
}

#[test]
fn only_an_observer_may_ask_for_whatever_is_served() {
    let world = World::new("arbiter-anything");
    let connect = |identity| {
        let mut config = client_config(world.scratch.path(), identity, 0, &Gate::new());
        config.cluster = Hello::ANY_CLUSTER;
        config.device = Hello::ANY_DEVICE;
        Client::connect(config, PATIENCE)
    };
    let observer = connect(Identity::Observer).expect("admitted");
    observer.read::<Block>(0, 1).wait().expect("read");
    let refused = connect(identity(1, 1)).expect_err("a member has to know where it is");
    assert!(matches!(refused, ConnectError::Refused(HelloRefusal::ForeignCluster)), "{refused}");
}

#[test]
fn a_handshake_that_cannot_be_used_is_refused_by_name() {
    let world = World::new("arbiter-handshake");
    let dir = world.scratch.path();
    let hello = raw::hello(identity(1, 1)).encode();
    let refusal = |packet: &[u8], memory: Option<std::os::fd::OwnedFd>| {
        let raw = Raw::connect(dir);
        raw.send(packet, memory.as_ref().map(AsFd::as_fd));
        let refusal = raw.welcome().expect_err("refused");
        assert!(raw.is_at_end());
        refusal
    };
    let good = || Some(raw::memory(256, SealFlags::SHRINK));
    assert_eq!(refusal(&hello, None), HelloRefusal::BadArea);
    let unsealed = raw::memory(256, SealFlags::empty());
    assert_eq!(refusal(&hello, Some(unsealed)), HelloRefusal::BadArea);
    let small = raw::memory(255, SealFlags::SHRINK);
    assert_eq!(refusal(&hello, Some(small)), HelloRefusal::BadArea);
    let mut newer = hello;
    newer[8] = 2;
    newer[10] = 2;
    assert_eq!(refusal(&newer, good()), HelloRefusal::Version);
    let mut keyless = hello;
    keyless[55] = 0;
    assert_eq!(refusal(&keyless, good()), HelloRefusal::Malformed);
    assert_eq!(refusal(&hello[..127], good()), HelloRefusal::Malformed);
    assert_eq!(refusal(&[0xFF; 4000], good()), HelloRefusal::Malformed);
    Raw::open(dir, identity(1, 1)).map(drop).expect("the server goes on");
}

#[test]
fn garbage_ends_its_session_with_a_word_and_no_other() {
    let world = World::new("arbiter-garbage");
    let dir = world.scratch.path();
    let client = world.member(1, 1);
    let ended = |packet: &[u8]| {
        let raw = Raw::open(dir, identity(2, 1)).expect("admitted");
        raw.send(packet, None);
        let (_, status) = raw.reply();
        assert!(raw.is_at_end());
        status
    };
    assert_eq!(ended(&[0x55; FRAME_SIZE]), Status::Malformed);
    assert_eq!(ended(&[1, 2, 3]), Status::Malformed);
    assert_eq!(ended(&vec![0; 65 * FRAME_SIZE]), Status::Malformed);
    let outside = Transfer { block: 0, count: 2, area_block: 255 };
    assert_eq!(ended(&Request::Read(outside).encode(1)), Status::Malformed);
    let wrapping = Transfer { block: 0, count: 256, area_block: u32::MAX };
    assert_eq!(ended(&Request::Read(wrapping).encode(1)), Status::Malformed);
    let mut state = 1_u64;
    for _ in 0..50 {
        let raw = Raw::open(dir, identity(2, 1)).expect("admitted");
        let bytes: Vec<u8> = (0..200)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_le_bytes()[7]
            })
            .collect();
        raw.send(&bytes, None);
        assert_eq!(raw.reply().1, Status::Malformed);
    }
    client.write(1, filled(1), false).wait().expect("the others go on");
    assert_eq!(client.counters().wait().expect("counted").sessions_malformed, 55);
}

#[test]
fn a_client_with_more_requests_than_agreed_is_sent_away() {
    let world = World::new("arbiter-too-many");
    let one = world.member(1, 1);
    one.inject(Fault::StallWrites { node: node(2) }).wait().expect("injected");
    let two = Raw::open(world.scratch.path(), identity(2, 1)).expect("admitted");
    for id in 0..1025 {
        two.request(id, raw_write(id));
    }
    assert_eq!(two.receive()[..4], *b"MXRP");
    assert!(two.is_at_end());
    one.inject(Fault::Clear).wait().expect("cleared");
    one.fence(victim(2, 1)).wait().expect("what was executing ends");
}

#[test]
fn a_node_id_out_of_range_is_no_key() {
    assert_eq!(NodeId::new(65), None);
    let world = World::new("arbiter-range");
    let mut hello = raw::hello(identity(1, 1)).encode();
    hello[52] = 65;
    let raw = Raw::connect(world.scratch.path());
    let memory = raw::memory(256, SealFlags::SHRINK);
    raw.send(&hello, Some(memory.as_fd()));
    assert_eq!(raw.welcome(), Err(HelloRefusal::Malformed));
}

fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

fn block_on<T>(future: mx_base::BoxFuture<'static, T>) -> T {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = future;
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park_timeout(PATIENCE),
        }
    }
}
