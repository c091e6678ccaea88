//! The engine on real files.

mod support;

use std::sync::Arc;
use std::time::Duration;

use fencing::Block;
use fencing_agents::device::{Device, OpenError};
use fencing_agents::engine::{Engine, EngineError};
use support::Scratch;

fn engine(scratch: &Scratch, blocks: u64) -> Engine {
    let path = scratch.file("device", blocks);
    let device = Device::open(&path, Duration::ZERO).expect("a fresh file");
    Engine::start(device).expect("io_uring")
}

fn filled(byte: u8) -> Block {
    Block([byte; 4096])
}

#[test]
fn what_is_written_is_read_back() {
    let scratch = Scratch::new("engine-read-back");
    let engine = engine(&scratch, 1024);
    let run: Box<[Block]> = (1..=3).map(filled).collect();
    engine.write(10, run, false).wait().expect("written");
    let single = vec![Arc::new(filled(7)), Arc::new(filled(8))];
    engine.write(12, single, true).wait().expect("written");
    engine.flush().wait().expect("flushed");
    let blocks = engine.read::<Block>(9, 6).wait().expect("read");
    let bytes: Vec<u8> = blocks.iter().map(|block| block.0[4095]).collect();
    assert_eq!(bytes, [0, 1, 2, 7, 8, 0]);
}

#[test]
fn many_requests_are_under_way_at_once() {
    let scratch = Scratch::new("engine-many");
    let engine = engine(&scratch, 2048);
    let writes: Vec<_> = (0..1000)
        .map(|block| {
            let byte = u8::try_from(block % 251).expect("small");
            engine.write(block, Box::new(filled(byte)), block % 7 == 0)
        })
        .collect();
    for write in writes {
        write.wait().expect("written");
    }
    let reads: Vec<_> = (0..1000).map(|block| engine.read::<Block>(block, 1)).collect();
    for (block, read) in reads.into_iter().enumerate() {
        assert_eq!(usize::from(read.wait().expect("read")[0].0[17]), block % 251);
    }
}

#[test]
fn a_payload_in_any_place_and_number_of_pieces_is_written() {
    struct Odd(Vec<u8>, usize);
    impl fencing_agents::Payload for Odd {
        fn pieces(&self) -> Vec<&[u8]> {
            self.0[self.1..self.1 + 2 * 4096].chunks(4096).collect()
        }
    }
    let scratch = Scratch::new("engine-odd");
    let engine = engine(&scratch, 4096);
    engine.write(1, Odd(vec![9; 3 * 4096], 13), false).wait().expect("copied and written");
    let many: Vec<Arc<Block>> = (0..1500).map(|_| Arc::new(filled(5))).collect();
    engine.write(100, many, false).wait().expect("copied and written");
    let blocks = engine.read::<Block>(0, 2000).wait().expect("read");
    let sum: usize = blocks.iter().map(|block| usize::from(block.0[0])).sum();
    assert_eq!(sum, 2 * 9 + 1500 * 5);
}

#[test]
fn requests_beyond_the_device_are_refused() {
    let scratch = Scratch::new("engine-range");
    let engine = engine(&scratch, 8);
    let error = EngineError::OutOfRange { block: 7, count: 2 };
    assert_eq!(engine.read::<Block>(7, 2).wait().err(), Some(error));
    let error = EngineError::OutOfRange { block: u64::MAX, count: 1 };
    assert_eq!(engine.write(u64::MAX, Box::new(filled(1)), false).wait().err(), Some(error));
    assert_eq!(engine.read::<Block>(0, 0).wait().err(), Some(EngineError::NotBlocks));
}

#[test]
fn dropping_the_engine_completes_what_was_submitted() {
    let scratch = Scratch::new("engine-drop");
    let engine = engine(&scratch, 1024);
    let writes: Vec<_> =
        (0..500).map(|block| engine.write(block, Box::new(filled(3)), false)).collect();
    drop(engine);
    for write in writes {
        write.wait().expect("written before the end");
    }
}

#[test]
fn a_device_has_one_user() {
    let scratch = Scratch::new("engine-lock");
    let path = scratch.file("device", 8);
    let first = Device::open(&path, Duration::ZERO).expect("free");
    let second = Device::open(&path, Duration::from_millis(50));
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    drop(first);
    Device::open(&path, Duration::ZERO).expect("free again");
}

#[test]
fn what_is_no_device_is_refused_by_name() {
    let scratch = Scratch::new("engine-kind");
    let open = |path: &std::path::Path| Device::open(path, Duration::ZERO);
    assert!(matches!(open(scratch.path()), Err(OpenError::Kind { .. })));
    let missing = scratch.path().join("missing");
    assert!(matches!(open(&missing), Err(OpenError::Open { .. })));
    let empty = scratch.file("empty", 0);
    assert!(matches!(open(&empty), Err(OpenError::Empty { .. })));
}

#[test]
fn a_file_system_without_direct_io_works_through_the_page_cache() {
    let scratch = Scratch::new_in("/dev/shm", "engine-buffered");
    let engine = engine(&scratch, 64);
    engine.write(3, Box::new(filled(4)), true).wait().expect("written");
    assert_eq!(engine.read::<Block>(3, 1).wait().expect("read")[0].0[0], 4);
}
