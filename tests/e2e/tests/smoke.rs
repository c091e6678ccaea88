//! Nodes start, see each other's work, stop, and leave a clean device.

use std::fs;
use std::time::Duration;

use e2e::load::{Mix, Writer, judge, step};
use e2e::{Fixture, wait};

#[test]
fn what_one_node_writes_all_others_read_and_the_device_is_clean_afterwards() {
    let cluster = Fixture::of("smoke-read", 3);
    for from in cluster.nodes() {
        let name = format!("from-{from}");
        fs::write(cluster.mount(from).join(&name), name.as_bytes()).expect("written");
        for to in cluster.nodes() {
            let path = cluster.mount(to).join(&name);
            let read = wait::within("read", Duration::from_secs(20), move || Ok(fs::read(path)?));
            assert_eq!(read.expect("read"), name.as_bytes(), "{from} to {to}");
        }
    }
    cluster.finish();
}

#[test]
fn three_nodes_append_to_one_log_and_create_in_one_directory_at_once() {
    let cluster = Fixture::of("smoke-together", 3);
    fs::create_dir(cluster.mount(1).join(step::FOLDER)).expect("created");
    let start = |node: u16| {
        let mount = cluster.mount(node);
        let writer = u32::from(node);
        Writer::start(cluster.programs(), Mix::Together, &mount, writer, Duration::ZERO)
    };
    let writers: Vec<Writer> =
        cluster.nodes().into_iter().map(|node| start(node).expect("started")).collect();
    for writer in &writers {
        writer.until_acknowledged(40).expect("no writer hangs");
    }
    let stopped: Vec<_> =
        writers.into_iter().map(|writer| writer.stop().expect("it ends")).collect();
    for progress in &stopped {
        assert_eq!(progress.failure, None);
    }
    for node in cluster.nodes() {
        let (mount, stopped) = (cluster.mount(node), stopped.clone());
        let judged =
            wait::within("judge", Duration::from_secs(30), move || judge(&mount, &stopped));
        judged.expect("readable").expect_all().expect("all is there");
    }
    cluster.finish();
}
