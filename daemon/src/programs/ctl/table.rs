//! Reports as people read them. Every one begins with whose view it is, and of when.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::top::Rates;
use mx_base::size::Bytes;
use mx_node::report::{
    Delay, Doing, FileLock, FileLocks, FileSystem, FsCheck, FsDamage, FsLocks, FsTrim, FsUsage,
    Gate, Homed, Isolated, Lock, LockDump, Member, Permit, Problem, Recovery, RecoveryReport,
    State, Status, Usage, Viewer, Waiting, Why, WhyResource, Work,
};

/// The end of the longest file.
const FILE_END: u64 = i64::MAX.cast_unsigned();

/// Lines that grow; writing to memory does not fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn of(viewer: &Viewer) -> Page {
        let mut page = Page::default();
        let life =
            viewer.incarnation.map_or("not joined".to_owned(), |life| format!("life {life}"));
        page.line(format_args!(
            "as seen by node {} ({life}) of {:?}, cluster {}, at {}",
            viewer.node,
            viewer.name,
            viewer.cluster,
            utc(viewer.at_ms)
        ));
        page
    }

    fn line(&mut self, text: impl Display) {
        writeln!(self.0, "{text}").expect("memory takes it");
    }

    fn file_system(&mut self, fs: &FileSystem, directory: impl Display) {
        self.line(format_args!("file system {:?} {} on {directory}", fs.label, fs.id));
    }

    fn field(&mut self, name: &str, value: impl Display) {
        self.line(format_args!("{name:<12} {value}"));
    }

    /// Columns as wide as their widest cell; a line in words instead of an empty table.
    fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]], none: &str) {
        if rows.is_empty() {
            return self.line(none);
        }
        let width = |at: usize| {
            rows.iter()
                .map(|row| row[at].chars().count())
                .chain([head[at].len()])
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let mut row = |cells: [&str; N]| {
            let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            self.line(line.trim_end());
        };
        row(head);
        for cells in rows {
            row(std::array::from_fn(|at| cells[at].as_str()));
        }
    }
}

pub(super) fn status(status: &Status) -> String {
    let mut page = Page::of(&status.viewer);
    let state = match &status.state {
        State::Joining => "joining".to_owned(),
        State::Member => "member".to_owned(),
        State::Leaving => "leaving".to_owned(),
        State::Ended { reason } => format!("ended: {reason}"),
    };
    page.field("state", format_args!("{state} ({})", status.activity));
    match &status.view {
        Some(view) => {
            let (id, generation, phase) = (view.id, view.generation, &view.phase);
            page.field("view", format_args!("{id}, register generation {generation}, {phase}"));
            page.field("members", members(&view.members));
            page.field("admin", optional(view.administrator));
        }
        None => page.field("view", "none yet"),
    }
    match status.permit {
        Permit::None => page.field("permit", "none: cached data is not served"),
        Permit::Left { ms } => {
            page.field("permit", format_args!("{ms} ms left, renewed all the time"))
        }
        Permit::Unlimited => page.field("permit", "unlimited: nobody else has to agree"),
    }
    page.field("gate", gate(&status.gate));
    page.field("unrecovered", members(&status.unrecovered));
    page.line("");
    let peers = status.peers.iter().map(|peer| {
        let connection = if peer.connected { "connected" } else { "not connected" };
        let suspicion = peer.suspected.as_ref();
        let suspected =
            suspicion.map_or("no".to_owned(), |s| format!("for {} ms: {}", s.since_ms, s.cause));
        let unacknowledged = Bytes(peer.unacknowledged_bytes).to_string();
        [format!("n{}", peer.node), connection.to_owned(), suspected, unacknowledged]
    });
    page.table(
        ["PEER", "CONNECTION", "SUSPECTED", "UNACKNOWLEDGED"],
        &peers.collect::<Vec<_>>(),
        "no peers",
    );
    page.line("");
    let mounts = status.mounts.iter().map(|mount| {
        let who = mount.members.iter().map(|m| format!("{} {}", m.member, m.state));
        [
            mount.fs.label.clone(),
            mount.fs.id.clone(),
            optional(mount.lockspace),
            mount.directory.clone().unwrap_or_else(|| "not here".to_owned()),
            optional(mount.slot),
            who.collect::<Vec<_>>().join(", "),
        ]
    });
    let head = ["LABEL", "FILE SYSTEM", "LOCKSPACE", "HERE ON", "SLOT", "MEMBERS"];
    page.table(head, &mounts.collect::<Vec<_>>(), "nothing is mounted anywhere");
    page.0
}

fn gate(gate: &Gate) -> String {
    let Gate { closed, under_way, admitted, refused, disowned } = gate;
    let state = closed.as_ref().map_or("open".to_owned(), |why| format!("closed: {why}"));
    format!(
        "{state}; {under_way} requests under way, {admitted} admitted, {refused} refused, \
         {disowned} disowned"
    )
}

pub(super) fn locks(dump: &LockDump) -> String {
    let mut page = Page::of(&dump.viewer);
    for fs in &dump.file_systems {
        locks_of(&mut page, fs);
    }
    if dump.file_systems.is_empty() {
        page.line("nothing is mounted here");
    }
    page.0
}

fn locks_of(page: &mut Page, of: &FsLocks) {
    page.line("");
    page.line(format_args!("file system {:?} {}", of.fs.label, of.fs.id));
    page.line(format_args!(
        "{} locks cached or asked for here:",
        shown(of.locks.len(), of.locks_total)
    ));
    let rows: Vec<_> = of.locks.iter().map(lock_row).collect();
    let head = ["RESOURCE", "MODE", "HOME", "BUCKET", "PINS", "PAGES", "WAITERS", "DOING"];
    page.table(head, &rows, "none");
    page.line("");
    page.line(format_args!(
        "{} resources that this node decides about:",
        shown(of.homed.len(), of.homed_total)
    ));
    for homed in &of.homed {
        homed_lines(page, homed);
    }
    if !of.file_locks.is_empty() {
        page.line("");
        page.line("locks of applications that this node decides about:");
        let rows: Vec<_> = of.file_locks.iter().map(file_lock_row).collect();
        let head = ["RESOURCE", "BY", "PID", "KIND", "FOR", "BYTES", "STATE"];
        page.table(head, &rows, "none");
    }
}

fn file_lock_row(lock: &FileLock) -> [String; 7] {
    let state = match &lock.waits_for {
        None => "held".to_owned(),
        Some(members) => format!("waits for {}", listed(members)),
    };
    [
        lock.resource.clone(),
        lock.member.to_string(),
        lock.pid.to_string(),
        lock.family.clone(),
        lock.access.clone(),
        bytes_of(lock),
        state,
    ]
}

/// The bytes of a file that are locked.
fn bytes_of(lock: &FileLock) -> String {
    // The last one that a program can name, and that of a lock on the whole file.
    match (lock.start, lock.end) {
        (0, FILE_END..) => "all".to_owned(),
        (start, FILE_END..) => format!("{start} to the end"),
        (start, end) => format!("{start}-{end}"),
    }
}

fn shown(count: usize, total: u64) -> String {
    if count as u64 == total { total.to_string() } else { format!("{count} of {total}") }
}

fn lock_row(lock: &Lock) -> [String; 8] {
    let doing = [("asks for", &lock.asked), ("surrenders to", &lock.surrendering_to)];
    let doing = doing.into_iter().chain([("called out for", &lock.called_out)]);
    let doing = doing.filter_map(|(what, mode)| Some(format!("{what} {}", mode.as_ref()?)));
    [
        lock.resource.clone(),
        lock.mode.clone(),
        optional(lock.home),
        lock.bucket.to_string(),
        lock.pins.to_string(),
        lock.kernel_pages.to_string(),
        lock.waiters.to_string(),
        doing.collect::<Vec<_>>().join(", "),
    ]
}

fn homed_lines(page: &mut Page, homed: &Homed) {
    let value = if homed.value_is_valid { "value valid" } else { "no value" };
    page.line(format_args!("{} (bucket {}, {value})", homed.resource, homed.bucket));
    if !homed.unreported.is_empty() {
        page.line(format_args!("  rebuilding, no report yet from {}", members(&homed.unreported)));
    }
    for granted in &homed.granted {
        let called_out = granted.called_out.as_ref();
        let called_out =
            called_out.map_or(String::new(), |mode| format!(", called out for {mode}"));
        page.line(format_args!(
            "  granted    {} to {} for {} ms{called_out}",
            granted.mode, granted.member, granted.since_ms
        ));
    }
    for (queue, waiters) in [("converting", &homed.converting), ("waiting", &homed.waiting)] {
        for Waiting { member, wanted, since_ms } in waiters {
            page.line(format_args!("  {queue:<10} {member} for {wanted}, since {since_ms} ms"));
        }
    }
    for remnant in &homed.remnants {
        let until =
            if remnant.is_limbo { "its journal is replayed" } else { "its caches are gone" };
        let (dead, modes) = (remnant.dead, &remnant.modes);
        page.line(format_args!("  dead       {dead} may hold {modes} until {until}"));
    }
}

pub(super) fn recoveries(report: &RecoveryReport) -> String {
    let mut page = Page::of(&report.viewer);
    if report.recoveries.is_empty() {
        page.line("no recovery since this daemon started");
    }
    for recovery in &report.recoveries {
        recovery_lines(&mut page, recovery);
    }
    page.0
}

fn recovery_lines(page: &mut Page, of: &Recovery) {
    page.line("");
    let ended = if of.ended_ms.is_some() { "over" } else { "under way" };
    page.line(format_args!(
        "{}: {ended}, suspected {} ms ago; times since then:",
        of.dead, of.suspected_ago_ms
    ));
    page.field("  dropped", format_args!("{} ms (view without it committed)", of.dropped_ms));
    page.field("  fenced", after(of.fenced_ms));
    for fs in &of.file_systems {
        page.line(format_args!("  file system {:?} {}", fs.fs.label, fs.fs.id));
        page.field("    rebuilt", after(fs.rebuilt_ms));
        let ending = fs.ending.as_ref().map_or(String::new(), |ending| format!(" ({ending})"));
        let by = fs.recoverer.map_or(String::new(), |by| format!(" by {by}"));
        page.field("    replayed", format_args!("{}{by}{ending}", after(fs.replayed_ms)));
        page.field("    resumed", after(fs.resumed_ms));
        if let Some(replay) = fs.replay {
            page.field("    replay", format_args!(
                "{} blocks; {} locks in the journal, {} of them live, {} damaged; {} segments, {} orphans adopted",
                replay.blocks_replayed, replay.locks, replay.locks_live, replay.locks_damaged, replay.segments, replay.orphans_adopted
            ));
        }
        work_lines(page, &fs.work);
    }
    page.field("  ended", after(of.ended_ms));
}

fn work_lines(page: &mut Page, of: &Work) {
    if let (Some(locks), Some(buckets)) = (of.locks_rebuilt, of.buckets_rebuilt) {
        let messages = of.messages;
        page.field(
            "    here",
            format_args!("{locks} locks rebuilt in {buckets} buckets, {messages} messages"),
        );
    }
    if of.limbo_freed + of.limbo_redone > 0 {
        page.field(
            "    limbo",
            format_args!("{} freed unchanged, {} redone", of.limbo_freed, of.limbo_redone),
        );
    }
    page.field("    waits", format_args!("{}, {} ms in all", of.waits, of.waited_ms));
    for delay in &of.longest {
        let pages = [delay.resource.clone(), delay.mode.clone()].join(" ");
        let state = if delay.is_over { "" } else { " so far" };
        page.line(format_args!(
            "      {} ms{state}: {} for {pages}: {}",
            delay.waited_ms,
            process(delay.pid, delay.command.as_ref()),
            cause(delay)
        ));
    }
}

fn cause(delay: &Delay) -> String {
    let home = optional(delay.home);
    match delay.cause.as_str() {
        "limbo" => "in limbo until the journal was replayed".to_owned(),
        "caches" => "until the dead node's caches were gone".to_owned(),
        "rebuild" => "until its bucket was rebuilt here".to_owned(),
        "home_died" => format!("its home died; its home now, {home}, knows more"),
        "home" => format!("its home, {home}, knows why"),
        other => other.to_owned(),
    }
}

fn process(pid: Option<u32>, command: Option<&String>) -> String {
    match (pid, command) {
        (Some(pid), Some(command)) => format!("process {pid} ({command})"),
        (Some(pid), None) => format!("process {pid}"),
        (None, _) => "the kernel or mxd".to_owned(),
    }
}

/// One line for each recovery.
pub(super) fn recovery_list(report: &RecoveryReport) -> String {
    let mut page = Page::of(&report.viewer);
    let rows = report.recoveries.iter().map(|of| {
        let sum = |count: &dyn Fn(&Work) -> u64| -> String {
            of.file_systems.iter().map(|fs| count(&fs.work)).sum::<u64>().to_string()
        };
        let replays = of.file_systems.iter().filter_map(|fs| fs.replay);
        let blocks = replays.map(|replay| replay.blocks_replayed).reduce(|a, b| a + b);
        [
            of.dead.to_string(),
            format!("{} ms ago", of.suspected_ago_ms),
            after(of.fenced_ms),
            after(of.file_systems.iter().filter_map(|fs| fs.rebuilt_ms).max()),
            after(of.file_systems.iter().filter_map(|fs| fs.replayed_ms).max()),
            after(of.ended_ms),
            sum(&|work| work.locks_rebuilt.unwrap_or(0)),
            sum(&|work| work.limbo_freed + work.limbo_redone),
            blocks.map_or("elsewhere".to_owned(), |blocks| blocks.to_string()),
            sum(&|work| work.waits),
            sum(&|work| work.waited_ms),
        ]
    });
    let head = [
        "DEAD",
        "SUSPECTED",
        "FENCED",
        "REBUILT",
        "REPLAYED",
        "ENDED",
        "LOCKS",
        "LIMBO",
        "BLOCKS",
        "WAITS",
        "WAITED MS",
    ];
    page.table(head, &rows.collect::<Vec<_>>(), "no recovery since this daemon started");
    page.0
}

pub(super) fn top(rates: &Rates) -> String {
    let mut page = Page::of(&rates.viewer);
    let rows = rates.resources.iter().map(|rate| {
        [
            rate.resource.clone(),
            format!("{:.1}", rate.requests),
            format!("{:.1}", rate.callouts),
            format!("{:.1}", rate.surrenders),
            format!("{:.1}", rate.waits),
            format!("{:.1}", rate.waited_ms),
        ]
    });
    let head = ["RESOURCE", "REQUESTS/S", "CALLOUTS/S", "SURRENDERS/S", "WAITS/S", "WAITED MS/S"];
    page.table(head, &rows.collect::<Vec<_>>(), "nothing asked, surrendered or waited for");
    page.line("");
    page.0
}

pub(super) fn why(why: &Why) -> String {
    let mut page = Page::of(&why.viewer);
    if let Some(stuck_at) = &why.stuck_at {
        page.line(format_args!("the path cannot be followed now; told is about {stuck_at}:"));
    }
    for resource in &why.resources {
        why_lines(&mut page, resource);
    }
    page.0
}

fn why_lines(page: &mut Page, of: &WhyResource) {
    page.line("");
    page.line(format_args!("{} (bucket {}, home {})", of.resource, of.bucket, optional(of.home)));
    for holder in &of.holders {
        let since = holder.since_ms.map_or(String::new(), |ms| format!(" for {ms} ms"));
        let suspected = holder.suspected_ms;
        let suspected =
            suspected.map_or(String::new(), |ms| format!("; not heard of, suspected for {ms} ms"));
        page.line(format_args!(
            "  held       {} by {}{since}: {}{suspected}",
            holder.mode,
            holder.member,
            doing(&holder.doing)
        ));
    }
    if let Some(here) = &of.here {
        let since = here.since_ms.map_or(String::new(), |ms| format!(" for {ms} ms"));
        let asked =
            here.asked.as_ref().map_or(String::new(), |mode| format!(", asks for {mode}{since}"));
        let unwritten = here.unwritten_blocks.filter(|blocks| *blocks > 0);
        let unwritten =
            unwritten.map_or(String::new(), |blocks| format!(", {blocks} blocks not in place yet"));
        let (mode, doing) = (&here.mode, doing(&here.doing));
        page.line(format_args!("  here       {mode}{asked}: {doing}{unwritten}"));
    }
    for waiter in &of.waiters {
        let process = process(waiter.pid, waiter.command.as_ref());
        let (mode, since) = (&waiter.mode, waiter.since_ms);
        page.line(format_args!("  waits      {process} for {mode}, since {since} ms"));
    }
    let more = of.waiters_total.saturating_sub(of.waiters.len() as u64);
    if more > 0 {
        page.line(format_args!("  waits      {more} more"));
    }
    if let Some(homed) = &of.at_home {
        for (queue, waiters) in [("converting", &homed.converting), ("waiting", &homed.waiting)] {
            for Waiting { member, wanted, since_ms } in waiters {
                page.line(format_args!("  {queue:<10} {member} for {wanted}, since {since_ms} ms"));
            }
        }
        if !homed.unreported.is_empty() {
            page.line(format_args!(
                "  rebuilding, no report yet from {}",
                members(&homed.unreported)
            ));
        }
    }
    if let Some(file_locks) = &of.file_locks {
        file_lock_lines(page, file_locks, of.home);
    }
    if !of.ask.is_empty() {
        page.line(format_args!("  ask        {} for more", members(&of.ask)));
    }
    let is_locked = of.file_locks.as_ref().is_some_and(|locks| locks.held_total > 0);
    let is_held = is_locked || !of.holders.is_empty();
    if !is_held && of.here.is_none() && of.waiters.is_empty() && of.ask.is_empty() {
        page.line("  nobody holds it or waits for it");
    }
}

fn file_lock_lines(page: &mut Page, of: &FileLocks, home: Option<Member>) {
    let home = home.map_or("its home".to_owned(), |home| home.to_string());
    let more = |listed: usize, total: u64| total.saturating_sub(listed as u64);
    for lock in &of.held {
        let (family, locker) = (&lock.family, locker(lock));
        page.line(format_args!("  {family:<10} {} by {locker}", range(lock)));
    }
    let more_held = more(of.held.len(), of.held_total);
    if more_held > 0 {
        page.line(format_args!("  locked     {more_held} more ranges"));
    }
    for lock in &of.waiting {
        let members = lock.waits_for.as_deref().unwrap_or_default();
        let for_whom = match (members.is_empty(), of.is_all) {
            (false, _) => format!(", for {}", listed(members)),
            (true, true) => ", until it can be decided".to_owned(),
            (true, false) => format!("; for whom, {home} knows"),
        };
        let (locker, range, family) = (locker(lock), range(lock), &lock.family);
        let ms = lock.waits_ms.unwrap_or(0);
        page.line(format_args!(
            "  waits      {locker} for {family} {range} since {ms} ms{for_whom}"
        ));
    }
    let more_waiting = more(of.waiting.len(), of.waiting_total);
    if more_waiting > 0 {
        page.line(format_args!("  waits      {more_waiting} more for locks of ranges"));
    }
    if !of.unreported.is_empty() {
        let who = members(&of.unreported);
        page.line(format_args!("  undecided  no report yet from {who} of what is locked there"));
    }
    if !of.unfenced.is_empty() {
        let dead = members(&of.unfenced);
        page.line(format_args!(
            "  undecided  until {dead}, dead, is known to be fenced: what it locked is unknown"
        ));
    }
    if !of.is_all {
        page.line(format_args!(
            "  unknown    what programs of other nodes have locked: {home} knows"
        ));
    } else if of.held.is_empty() && of.waiting.is_empty() {
        page.line("  unlocked   no program has any of it locked");
    }
}

fn range(lock: &FileLock) -> String {
    let bytes = match bytes_of(lock).as_str() {
        "all" => "all of it".to_owned(),
        bytes => format!("bytes {bytes}"),
    };
    format!("{}, {bytes},", lock.access)
}

/// The program that has a lock or wants it.
fn locker(lock: &FileLock) -> String {
    let command = lock.command.as_ref().map_or(String::new(), |command| format!(" ({command})"));
    let state = match (lock.is_dead, lock.suspected_ms) {
        (true, _) => ", dead, until it is known to be fenced".to_owned(),
        (false, Some(ms)) => format!(", not heard of, suspected for {ms} ms"),
        (false, None) => String::new(),
    };
    format!("process {}{command} of {}{state}", lock.pid, lock.member)
}

fn doing(doing: &Doing) -> String {
    let used = |operations: &u64, kernel_pages: &u64| {
        format!("{operations} operations and {kernel_pages} pages that the kernel is served")
    };
    match doing {
        Doing::Waiting => "holds nothing yet".to_owned(),
        Doing::Cached => "cached, not in use".to_owned(),
        Doing::Used { operations, kernel_pages } => {
            format!("in use by {}", used(operations, kernel_pages))
        }
        Doing::Closing { to, operations, kernel_pages } => {
            format!("surrendering to {to}, waits for {}", used(operations, kernel_pages))
        }
        Doing::WritingBack { to } => format!("surrendering to {to}, writing back"),
        Doing::CalledOut { for_mode } => format!("called out for {for_mode}, not surrendered yet"),
        Doing::Elsewhere => "nobody has asked for it".to_owned(),
        Doing::Limbo => "dead, in limbo until its journal is replayed".to_owned(),
        Doing::CachesGone => "dead, until its caches are gone".to_owned(),
    }
}

fn after(ms: Option<u64>) -> String {
    ms.map_or("not yet".to_owned(), |ms| format!("{ms} ms"))
}

pub(super) fn usage(report: &FsUsage) -> String {
    let mut page = Page::of(&report.viewer);
    for of in &report.file_systems {
        usage_lines(&mut page, of);
    }
    if report.file_systems.is_empty() {
        page.line("nothing is mounted here");
    }
    page.0
}

pub(super) fn trim(report: &FsTrim) -> String {
    let mut page = Page::of(&report.viewer);
    page.line("");
    page.file_system(&report.fs, &report.directory);
    page.field("trimmed", Bytes(report.bytes));
    if report.groups_skipped > 0 {
        let (skipped, groups) = (report.groups_skipped, report.groups);
        let why = "damaged, or in use by a node that is dead or does not answer";
        page.field("left out", format_args!("{skipped} of {groups} groups: {why}"));
    }
    page.0
}

pub(super) fn check(report: &FsCheck) -> String {
    let mut page = Page::of(&report.viewer);
    page.line("");
    page.file_system(&report.fs, &report.directory);
    let FsCheck { inodes, directories, entries, .. } = report;
    page.field(
        "checked",
        format_args!("{inodes} inodes, {directories} of them directories with {entries} entries"),
    );
    if report.data_bytes > 0 {
        page.field("read", Bytes(report.data_bytes));
    }
    if report.skipped > 0 {
        let why = "damaged, or in use by a node that is dead or does not answer";
        page.field("left out", format_args!("{} groups, inodes and names: {why}", report.skipped));
    }
    for Problem { object, what } in &report.problems {
        page.field(object, what);
    }
    if report.problems.is_empty() {
        page.line("  nothing is wrong");
    }
    page.0
}

pub(super) fn damage(report: &FsDamage) -> String {
    let mut page = Page::of(&report.viewer);
    for of in &report.file_systems {
        page.line("");
        page.file_system(&of.fs, &of.directory);
        for Isolated { resource, why } in &of.objects {
            page.field(resource, why);
        }
        if of.objects.is_empty() {
            page.line("  no damage met since it was mounted");
        }
    }
    if report.file_systems.is_empty() {
        page.line("nothing is mounted here");
    }
    page.0
}

fn usage_lines(page: &mut Page, of: &Usage) {
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(of.block_bytes));
    page.line("");
    page.file_system(&of.fs, &of.directory);
    let used = of.blocks.saturating_sub(of.blocks_free);
    page.field(
        "space",
        format_args!(
            "{} used, {} free of {}",
            bytes(used),
            bytes(of.blocks_free),
            bytes(of.blocks)
        ),
    );
    let used = of.inodes.saturating_sub(of.inodes_free);
    page.field("inodes", format_args!("{used} used, {} free", of.inodes_free));
    page.field("groups", format_args!("{}, {} of them known here", of.groups, of.groups_known));
    let (size, in_use) = (Bytes(of.journal_bytes), Bytes(of.journal_used_bytes));
    page.field("journal", format_args!("{size}, {in_use} in use"));
    page.field("caches", format_args!("{} inodes, {} locks", of.cached_inodes, of.locks_cached));
    if let Some(at) = of.frozen_at_ms {
        page.field("frozen", format_args!("by this node, since {}", utc(at)));
    }
    page.field("requests", format_args!("{}{}", of.requests, by_kind(&of.requests_by_operation)));
    page.field(
        "messages",
        format_args!(
            "{} in {} payloads{}",
            of.messages_sent,
            of.payloads_sent,
            by_kind(&of.messages_by_kind)
        ),
    );
    page.field("log forces", of.forces);
    page.field(
        "grants",
        format_args!("{} by this node, {} by others", of.grants_local, of.grants_remote),
    );
    page.field("surrenders", format_args!("{}, called out {} times", of.surrenders, of.callouts));
}

fn by_kind(counts: &BTreeMap<String, u64>) -> String {
    let counts = counts.iter().filter(|(_, count)| **count > 0);
    let counts: Vec<_> = counts.map(|(kind, count)| format!("{kind} {count}")).collect();
    if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) }
}

fn members(members: &[Member]) -> String {
    if members.is_empty() {
        return "none".to_owned();
    }
    members.iter().map(Member::to_string).collect::<Vec<_>>().join(" ")
}

fn listed(members: &[Member]) -> String {
    members.iter().map(Member::to_string).collect::<Vec<_>>().join(", ")
}

fn optional(value: Option<impl Display>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}

/// Milliseconds since 1970 as date and time.
fn utc(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that the day that leap years add is their last; eras of 400 years
    // are all alike.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400, month + 3);
    let (year, month) = if month > 12 { (year + 1, month - 12) } else { (year, month) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03} UTC")
}

#[cfg(test)]
mod tests;
