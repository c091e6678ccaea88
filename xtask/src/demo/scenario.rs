//! The course of the demo, and what can be done to a kept cluster.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use e2e::load::{Mix, Team};
use e2e::{Cluster, Killed, Programs, Shape, wait};

use super::report::{Report, Times};
use super::screen::Screen;

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two operations of a writer: the demo is to be followed by eye, not to be fast.
const PAUSE: Duration = Duration::from_millis(2);

/// How long all work before the kill.
const BEFORE: Duration = Duration::from_secs(2);

/// How long the survivors go on after the recovery, and then all together.
const AFTER: Duration = Duration::from_secs(1);

pub(super) fn whole(
    programs: &Programs,
    shape: &Shape,
    report: &mut Report,
    screen: &Screen,
) -> Result<()> {
    screen.heading("One device, and nodes that share it");
    let mut cluster = Cluster::prepare(programs, shape)?;
    report.describe(&cluster);
    screen.line(&format!("formatted {} ({} MiB)", cluster.device().display(), shape.bytes >> 20));
    let result = play(&mut cluster, report, screen);
    if result.is_err() || !shape.is_kept {
        keep_logs(&cluster, result.is_err(), screen);
        cluster.give_up();
    } else {
        screen.heading("The cluster goes on");
        let (folder, device) = (cluster.folder().display(), cluster.device());
        screen.line(&format!("device {}, logs in {folder}", device.display()));
        screen.line("cargo xtask demo --kill N, --start N, --stop (with the same --dir)");
    }
    result
}

fn play(cluster: &mut Cluster, report: &mut Report, screen: &Screen) -> Result<()> {
    let nodes = cluster.nodes();
    for node in &nodes {
        cluster.start(*node)?;
        let mount = cluster.mount(*node);
        screen.line(&format!("node {node} has it mounted on {}", mount.display()));
    }
    read_everywhere(cluster, screen)?;

    screen.heading("All append to one log and create in one directory, at once");
    let mut team = Team::new(Mix::Together, PAUSE);
    for node in &nodes {
        team.start(cluster, *node)?;
    }
    work(&team, cluster, BEFORE, screen)?;

    let victim = *nodes.last().context("at least one node")?;
    screen.heading(&format!("Node {victim} is killed (SIGKILL) in the middle of it"));
    let killed = cluster.kill(victim)?;
    let at_kill: Vec<_> = nodes.iter().filter_map(|node| Some((*node, team.on(*node)?))).collect();
    let dead = team.stop(victim)?.context("it had a writer")?;
    let told = dead.acknowledged;
    screen.line(&format!("its writer ends after {told} acknowledged operations"));
    if nodes.len() > 1 {
        team.until_all_go_on(20).context("the survivors should go on")?;
        let times = until_recovered(cluster, &killed, screen)?;
        report.recovery = times;
        work(&team, cluster, AFTER, screen)?;
        for (node, before) in at_kill.iter().filter(|(node, _)| *node != victim) {
            let now = team.on(*node).context("a survivor works")?;
            let (more, pause) = (now.acknowledged - before.acknowledged, now.longest_pause);
            let pause = pause.as_millis();
            screen.line(&format!(
                "node {node} went on: {more} operations since the kill, never waited more than {pause} ms"
            ));
        }
    }

    screen.heading("What is there");
    pause_and_judge(&mut team, cluster, report, screen)?;

    screen.heading(&format!("Node {victim} joins again; nothing else restarts"));
    let lives = lives(cluster)?;
    let start = Instant::now();
    cluster.start(victim)?;
    let took = start.elapsed().as_millis();
    screen.line(&format!("node {victim} has it mounted again after {took} ms"));
    if lives_without(cluster, victim)? != lives {
        bail!("another node restarted as well");
    }
    for node in &nodes {
        team.start(cluster, *node)?;
    }
    work(&team, cluster, AFTER, screen)?;
    pause_and_judge(&mut team, cluster, report, screen)?;

    if !cluster.is_kept() {
        screen.heading("The end");
        stop_and_check(cluster, screen)?;
    }
    table(report, screen);
    Ok(())
}

fn read_everywhere(cluster: &Cluster, screen: &Screen) -> Result<()> {
    screen.heading("A file written on one node is read on the others");
    let first = cluster.mount(1).join("hello");
    let text = "written on node 1\n";
    fs::write(&first, text).context("writing on node 1")?;
    for node in cluster.nodes() {
        let path = cluster.mount(node).join("hello");
        let read = wait::within("reading", PATIENCE, move || Ok(fs::read_to_string(path)?))?;
        if read != text {
            bail!("node {node} reads `{}`", read.trim());
        }
        screen.line(&format!("node {node} reads: {}", read.trim()));
    }
    Ok(())
}

/// Lets the writers work, and shows how far they are.
fn work(team: &Team, cluster: &Cluster, period: Duration, screen: &Screen) -> Result<()> {
    // Once each has begun; a slow machine is not to see less.
    team.until_all_go_on(5)?;
    let start = Instant::now();
    while start.elapsed() < period {
        screen.progress(&counts(team, cluster));
        std::thread::sleep(Duration::from_millis(100));
    }
    screen.line(&counts(team, cluster));
    Ok(())
}

fn counts(team: &Team, cluster: &Cluster) -> String {
    let of = |node: u16| team.on(node).map(|p| format!("node {node}: {:6}", p.acknowledged));
    let counts: Vec<String> = cluster.nodes().into_iter().filter_map(of).collect();
    format!("acknowledged  {}", counts.join("   "))
}

fn until_recovered(cluster: &Cluster, killed: &Killed, screen: &Screen) -> Result<Times> {
    let (viewer_ms, recovery) = cluster.until_recovered(killed, PATIENCE)?;
    let times = Times::of(killed, viewer_ms, &recovery);
    screen.line("from the kill:");
    print!("{times}");
    for fs in &recovery.file_systems {
        if fs.ending.as_deref() != Some("replayed") {
            bail!("its journal was not replayed: {:?}", fs.ending);
        }
        if let (Some(replay), Some(by)) = (fs.replay, fs.recoverer) {
            screen.line(&format!(
                "node {} replayed {} blocks of its journal, for {} of {} locks",
                by.node, replay.blocks_replayed, replay.locks_live, replay.locks
            ));
            if replay.locks_damaged > 0 {
                bail!("{} objects had to be isolated", replay.locks_damaged);
            }
        }
    }
    Ok(times)
}

/// Stops the writers and compares what every running node shows with what they told.
fn pause_and_judge(
    team: &mut Team,
    cluster: &Cluster,
    report: &mut Report,
    screen: &Screen,
) -> Result<()> {
    team.stop_all()?;
    for node in cluster.running() {
        let verdict = team.judge(cluster, node)?;
        let (lost, wrong) = (verdict.lost.len(), verdict.wrong.len());
        report.acknowledged = verdict.acknowledged;
        report.lost = report.lost.max(lost as u64);
        let all = verdict.acknowledged;
        screen.line(&format!(
            "node {node} shows {} of {all} acknowledged operations; {wrong} things half there or nobody's",
            all - lost as u64
        ));
        verdict.expect_all().with_context(|| format!("on node {node}"))?;
    }
    Ok(())
}

/// Who runs, in which life.
fn lives(cluster: &Cluster) -> Result<Vec<(u16, Option<u32>)>> {
    let life = |node| Ok((node, cluster.admin(node).status()?.viewer.incarnation));
    cluster.running().into_iter().map(life).collect()
}

fn lives_without(cluster: &Cluster, node: u16) -> Result<Vec<(u16, Option<u32>)>> {
    let mut lives = lives(cluster)?;
    lives.retain(|(other, _)| *other != node);
    Ok(lives)
}

fn stop_and_check(cluster: &mut Cluster, screen: &Screen) -> Result<()> {
    cluster.stop_all()?;
    screen.line("all nodes have unmounted and left");
    let findings = cluster.fsck()?;
    findings.expect_clean()?;
    screen.line(&format!("fsck.matrixfs -n: clean, {} inodes", findings.inodes));
    Ok(())
}

fn table(report: &Report, screen: &Screen) {
    screen.heading("Result");
    println!("  nodes         {:8}", report.nodes);
    println!("  acknowledged  {:8}", report.acknowledged);
    println!("  lost          {:8}", report.lost);
    if let Some(resumed) = report.recovery.resumed {
        println!("  recovered     {resumed:8} ms after the kill");
    }
}

/// What the processes said is worth reading after a failure only.
fn keep_logs(cluster: &Cluster, has_failed: bool, screen: &Screen) {
    if !has_failed {
        return;
    }
    let kept = std::env::temp_dir().join("matrixfs-demo-failed");
    match copy_logs(cluster.folder(), &kept) {
        Ok(()) => screen.line(&format!("the logs are in {}", kept.display())),
        Err(error) => screen.line(&format!("the logs cannot be kept: {error:#}")),
    }
}

fn copy_logs(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|ending| ending == "log") {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

pub(super) fn kill(
    cluster: &mut Cluster,
    node: u16,
    report: &mut Report,
    screen: &Screen,
) -> Result<()> {
    expect_node(cluster, node)?;
    let killed = cluster.kill(node)?;
    screen.line(&format!("node {node} is killed"));
    if cluster.running().is_empty() {
        screen.line("it was the last one; the next that starts replays its journal");
        return Ok(());
    }
    report.recovery = until_recovered(cluster, &killed, screen)?;
    Ok(())
}

pub(super) fn start(cluster: &mut Cluster, node: u16, screen: &Screen) -> Result<()> {
    expect_node(cluster, node)?;
    cluster.start(node)?;
    let mount = cluster.mount(node);
    screen.line(&format!("node {node} has it mounted on {}", mount.display()));
    Ok(())
}

/// What cannot be stopped in order, because a program uses the mount, goes on.
pub(super) fn stop(mut cluster: Cluster, screen: &Screen) -> Result<()> {
    stop_and_check(&mut cluster, screen)?;
    cluster.give_up();
    Ok(())
}

fn expect_node(cluster: &Cluster, node: u16) -> Result<()> {
    if !cluster.nodes().contains(&node) {
        bail!("the cluster has nodes 1 to {}", cluster.nodes().len());
    }
    Ok(())
}
