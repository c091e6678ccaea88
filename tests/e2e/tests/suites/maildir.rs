//! Mail is delivered on three nodes into one folder, read on all of them, and one of them dies:
//! every mail that was acknowledged is there once.

use std::time::Duration;

use e2e::Fixture;
use e2e::load::{Mix, Team, mail};

use crate::program::Beside;
use crate::rounds::{is_long, rounds};

const PATIENCE: Duration = Duration::from_secs(60);

/// Moves every new mail to those that were seen; another reader may have been faster.
const READ: &str = "for mail in new/*; do cat $mail && mv $mail cur/${mail#new/}:2,S; done; ls cur";

#[test]
fn every_acknowledged_mail_is_there_once() {
    let mut cluster = Fixture::of("suite-maildir", 3);
    let folder = cluster.mount(1).join(mail::FOLDER);
    mail::prepare(&folder).expect("made");
    let mails = if is_long() { 500 } else { 30 };
    let mut team = Team::new(Mix::Mail, Duration::ZERO);
    for life in 0..rounds(1, 10) {
        let victim = life % 3 + 1;
        for node in cluster.nodes() {
            team.start(&cluster, node).expect("a writer starts");
        }
        let read = |node| Beside::start(&cluster, READ, &cluster.mount(node).join(mail::FOLDER));
        let mut readers: Vec<(u16, Beside)> =
            cluster.nodes().into_iter().map(|node| (node, read(node))).collect();
        team.until_all_go_on(mails).expect("all deliver");
        // The reader of the dead node has nothing to read from any more.
        let killed = cluster.kill(victim).expect("it is killed");
        readers.retain(|(node, _)| *node != victim);
        team.stop(victim).expect("the writer of the dead node ends");
        team.until_all_go_on(mails).expect("the survivors go on");
        cluster.until_recovered(&killed, PATIENCE).expect("it is recovered");
        for (_, reader) in readers {
            reader.stop();
        }
        team.stop_all().expect("nobody failed");
        cluster.start(victim).expect("the dead node joins again");
        for node in cluster.nodes() {
            let verdict = team.judge(&cluster, node).expect("readable");
            verdict.expect_all().unwrap_or_else(|error| panic!("on node {node}: {error:#}"));
        }
    }
    let acknowledged: u64 = team.progress().iter().map(|writer| writer.acknowledged).sum();
    println!("{acknowledged} mails");
    cluster.finish();
}
