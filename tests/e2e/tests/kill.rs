//! Nodes are killed in the middle of mixed work: the others go on, every acknowledged operation is
//! there, nothing is half there, and the device is clean after every round.

mod rounds;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use e2e::load::{Mix, Team};
use e2e::reports::Recovery;
use e2e::{Fixture, Killed, wait};
use rounds::rounds;

const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than any recovery.
const FAR_APART: Duration = Duration::from_secs(5);

/// When a killed node is started again.
#[derive(Clone, Copy, PartialEq)]
enum Again {
    Recovered,
    AtOnce,
}

/// One death, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Course {
    killed: u64,
    /// When each phase of its recovery had ended: suspicion, the view, the fence, everything.
    phases: [u64; 4],
}

impl Course {
    fn of(killed: &Killed, told_at: u64, recovery: &Recovery) -> Course {
        let suspected = told_at.saturating_sub(recovery.suspected_ago_ms);
        let ended = recovery.ended_ms.expect("it is over");
        let fenced = recovery.fenced_ms.unwrap_or(ended);
        let phases = [0, recovery.dropped_ms, fenced, ended].map(|after| suspected + after);
        Course { killed: killed.wall_ms, phases }
    }

    fn ended(&self) -> u64 {
        self.phases[3]
    }

    /// How many of its phases had ended.
    fn phase_at(&self, moment: u64) -> usize {
        self.phases.iter().filter(|end| **end <= moment).count()
    }
}

/// One round: work, kills, recovery, work of the others, the dead nodes again, judgement, fsck.
/// From a kill to the next one it is `gap`, or as long as killing takes. Gives the course of each death.
fn round(
    cluster: &mut Fixture,
    victims: &[u16],
    gap: Duration,
    again: Again,
    before: impl FnOnce(&Fixture),
) -> Vec<Course> {
    let mut team = Team::new(Mix::Mixed, Duration::ZERO);
    for node in cluster.nodes() {
        team.start(cluster, node).expect("a writer starts");
    }
    team.until_all_go_on(20).expect("all work");
    before(cluster);
    let mut killed: Vec<Killed> = Vec::new();
    for victim in victims {
        if let Some(former) = killed.last() {
            std::thread::sleep(gap.saturating_sub(former.at.elapsed()));
        }
        killed.push(cluster.kill(*victim).expect("it is killed"));
    }
    for victim in victims {
        team.stop(*victim).expect("the writer of the dead node ends");
        if again == Again::AtOnce {
            cluster.start(*victim).expect("the dead node joins again");
        }
    }
    team.until_all_go_on(20).expect("the survivors go on");
    let mut courses = Vec::new();
    for killed in &killed {
        let (told_at, recovery) =
            cluster.until_recovered(killed, PATIENCE).expect("it is recovered");
        for fs in &recovery.file_systems {
            assert_eq!(fs.ending.as_deref(), Some("replayed"), "{recovery:?}");
            assert_eq!(fs.replay.map_or(0, |replay| replay.locks_damaged), 0, "{recovery:?}");
        }
        courses.push(Course::of(killed, told_at, &recovery));
    }
    for victim in victims {
        if again == Again::Recovered {
            cluster.start(*victim).expect("the dead node joins again");
        }
        team.start(cluster, *victim).expect("a writer starts");
    }
    team.until_all_go_on(10).expect("all work");
    team.stop_all().expect("nobody failed");
    for node in cluster.nodes() {
        let verdict = team.judge(cluster, node).expect("readable");
        verdict.expect_all().unwrap_or_else(|error| panic!("on node {node}: {error:#}"));
    }
    clear(cluster);
    cluster.stop_all().expect("all stop in order");
    cluster.fsck().expect("checked").expect_clean().expect("clean");
    courses
}

/// The next round begins with an empty file system.
fn clear(cluster: &Fixture) {
    let mount = cluster.mount(1);
    wait::within("clearing", PATIENCE, move || {
        fs::remove_dir_all(mount.join(e2e::load::step::FOLDER))?;
        Ok(fs::remove_file(mount.join(e2e::load::step::LOG))?)
    })
    .expect("everything can be removed");
}

/// In every second round the dead node comes back at once: it joins while it is being recovered.
fn all_rounds(
    name: &str,
    nodes: u16,
    choose: impl Fn(&Fixture, u16) -> u16,
    before: impl Fn(&Fixture, u16),
) {
    let mut cluster = Fixture::prepared(name, nodes, 2 << 30);
    for number in 0..rounds(2, 50) {
        if number > 0 {
            cluster.start_arbiter().expect("it starts");
        }
        for node in cluster.nodes() {
            cluster.start(node).expect("it starts");
        }
        let victim = choose(&cluster, number);
        let again = if number % 2 == 0 { Again::Recovered } else { Again::AtOnce };
        round(&mut cluster, &[victim], Duration::ZERO, again, |cluster| before(cluster, victim));
    }
}

/// Two of five nodes are killed, the second one so long after the first; `gap` is told the number of
/// the round and what came of those before.
fn rounds_of_two(
    name: &str,
    count: u16,
    gap: impl Fn(u16, &[Vec<Course>]) -> Duration,
) -> Vec<Vec<Course>> {
    let mut cluster = Fixture::prepared(name, 5, 2 << 30);
    let mut all = Vec::new();
    for number in 0..count {
        if number > 0 {
            cluster.start_arbiter().expect("it starts");
        }
        for node in cluster.nodes() {
            cluster.start(node).expect("it starts");
        }
        let second = (number + 1 + number / 5 % 4) % 5;
        let victims = [number % 5 + 1, second + 1];
        let gap = gap(number, &all);
        all.push(round(&mut cluster, &victims, gap, Again::Recovered, |_| {}));
    }
    all
}

#[test]
fn two_of_five_nodes_may_die_together() {
    rounds_of_two("kill-two", rounds(1, 50), |_, _| Duration::ZERO);
}

/// The first round measures a recovery that nobody disturbs. In the others the second death comes
/// when a part of that time has gone by, from none of it to all.
#[test]
fn a_second_node_may_die_in_every_phase_of_the_recovery_of_the_first() {
    let count = rounds(3, 50).max(2);
    let all = rounds_of_two("kill-second", count, |number, before| match before.first() {
        None => FAR_APART,
        Some(undisturbed) => {
            let took = Duration::from_millis(undisturbed[0].ended() - undisturbed[0].killed);
            took * u32::from(number - 1) / u32::from(count - 1)
        }
    });
    let mut by_phase = [0; 5];
    for courses in &all[1..] {
        by_phase[courses[0].phase_at(courses[1].killed)] += 1;
    }
    let told = "second deaths before the first was suspected, before the view without it, before \
                the proof, before the end, later";
    let during: u16 = by_phase[..4].iter().sum();
    assert!(3 * during >= count - 1, "{told}: {by_phase:?} {all:?}");
    assert!(all[0][0].ended() < all[0][1].killed, "the first round is undisturbed: {all:?}");
}

#[test]
fn any_node_may_die_in_the_middle_of_mixed_work() {
    // Which one, and when in its work, differs from round to round and from run to run.
    let any = |_: &Fixture, number: u16| {
        let process = u16::try_from(std::process::id() % 3).expect("below three");
        (number + process) % 3 + 1
    };
    all_rounds("kill-any", 3, any, |_, _| {});
}

#[test]
fn any_of_five_nodes_may_die_in_the_middle_of_mixed_work() {
    all_rounds("kill-five", 5, |_, number| number % 5 + 1, |_, _| {});
}

#[test]
fn the_administrator_may_die() {
    let administrator = |cluster: &Fixture, _| {
        let view = cluster.admin(1).status().expect("an answer").view.expect("a view");
        view.administrator.expect("there is one").node
    };
    all_rounds("kill-administrator", 3, administrator, |_, _| {});
}

#[test]
fn the_home_of_a_lock_may_die_while_another_node_holds_it_dirty() {
    let holder = |victim: u16| victim % 3 + 1;
    let before = move |cluster: &Fixture, victim: u16| {
        // A file whose lock has its home on the victim, dirty on another node: a node creates files
        // where it is itself the home, if it can.
        let (home, mount) = (cluster.mount(victim), cluster.mount(holder(victim)));
        let dirty = wait::within("writing", PATIENCE, {
            let admin = cluster.admin(holder(victim));
            move || {
                for number in 0..64 {
                    let name = format!("dirty-{number}");
                    let path = mount.join(&name);
                    fs::File::create(home.join(&name))?.sync_all()?;
                    let mut file = OpenOptions::new().append(true).open(&path)?;
                    file.write_all(b"not durable yet")?;
                    // It has changed nothing else.
                    let dump = admin.locks("inode")?;
                    let locks = dump.file_systems.iter().flat_map(|fs| &fs.locks);
                    let is_it = locks
                        .filter(|lock| lock.mode == "EX")
                        .any(|lock| lock.home.is_some_and(|home| home.node == victim));
                    if is_it {
                        return Ok(Some((path, file)));
                    }
                    fs::remove_file(&path)?;
                }
                Ok(None)
            }
        });
        let (path, file) = dirty.expect("written").expect("a lock has that home");
        let reader = cluster.mount(6 - victim - holder(victim));
        KEPT.with_borrow_mut(|kept| *kept = Some((path, file, reader)));
    };
    let mut cluster = Fixture::prepared("kill-home", 3, 2 << 30);
    for number in 0..rounds(2, 50) {
        if number > 0 {
            cluster.start_arbiter().expect("it starts");
        }
        for node in cluster.nodes() {
            cluster.start(node).expect("it starts");
        }
        let victim = number % 3 + 1;
        before(&cluster, victim);
        let killed = cluster.kill(victim).expect("it is killed");
        let (path, mut file, reader) = KEPT.take().expect("made before");
        // The holder goes on with what it has, and the third node is shown all of it.
        let name = path.file_name().expect("a name").to_owned();
        let read = wait::within("using the file", PATIENCE, move || {
            file.write_all(b", and more")?;
            drop(file);
            Ok(fs::read_to_string(reader.join(name))?)
        });
        assert_eq!(read.expect("no hang"), "not durable yet, and more");
        cluster.until_recovered(&killed, PATIENCE).expect("recovered");
        cluster.start(victim).expect("the dead node joins again");
        fs::remove_file(path).expect("removed");
        cluster.stop_all().expect("all stop in order");
        cluster.fsck().expect("checked").expect_clean().expect("clean");
    }
}

thread_local! {
    static KEPT: std::cell::RefCell<Option<(PathBuf, fs::File, PathBuf)>> =
        const { std::cell::RefCell::new(None) };
}

#[test]
fn a_node_may_die_that_has_the_directory_all_others_want() {
    // The victim has just changed the directory, so it holds it EX; the writers of all others ask.
    let before = |cluster: &Fixture, victim: u16| {
        let folder = cluster.mount(victim).join(e2e::load::step::FOLDER);
        let changed = wait::within("changing the directory", PATIENCE, move || {
            for _ in 0..20 {
                fs::write(folder.join("w0-0"), b"")?;
                fs::remove_file(folder.join("w0-0"))?;
            }
            // Or a crash may bring it back.
            Ok(fs::File::open(&folder)?.sync_all()?)
        });
        changed.expect("changed");
    };
    all_rounds("kill-directory", 3, |_, number| number % 3 + 1, before);
}
