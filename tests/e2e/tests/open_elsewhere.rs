//! A file that is open on one node is opened on another.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::time::Duration;

use e2e::{Fixture, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// The node keeps the OPEN lock of what it has deleted, and what it makes next is in the same place.
#[test]
fn a_file_made_in_the_place_of_a_deleted_one_is_opened_elsewhere_while_it_is_open() {
    let cluster = Fixture::of("open-elsewhere", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    fs::write(here.join("former"), "gone").expect("written");
    fs::remove_file(here.join("former")).expect("deleted");
    let mut open = File::create_new(here.join("log")).expect("made");
    open.write_all(b"line").expect("written");
    let read = wait::within("an open on the other node", PATIENCE, move || {
        let mut text = String::new();
        File::open(there.join("log"))?.read_to_string(&mut text)?;
        Ok(text)
    });
    assert_eq!(read.expect("opened while it is open"), "line");
    drop(open);
    cluster.finish();
}
