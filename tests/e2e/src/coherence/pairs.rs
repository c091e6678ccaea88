//! The cells of the table: an operation on one node, an observation on all of them.
//!
//! Keeps true: a look that begins after the operation has returned, or after anybody has seen what
//! it changed, shows what it changed; every other look shows what was there before, or what is there
//! now, and nothing that was there before after something that is there now. But while a node's
//! kernel has not been told yet that an operation of its own is done, it shows some of it and not the
//! rest: those who look on this node may see both, and what other nodes see does not count for them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::model::Tree;
use super::observations::{self, Late, Look, Observation};
use super::operations::{self, Act, Operation};
use super::world;
use crate::dice::Dice;

/// Of both, and what is seen before and after.
#[derive(Debug)]
pub(super) struct Pair {
    operation: &'static Operation,
    observation: &'static Observation,
    old: Vec<String>,
    new: Vec<String>,
    /// Of who had found the name before, and asked what it names after.
    between: Vec<String>,
}

/// When a look began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Began {
    /// Before the operation.
    Before,
    During,
    /// On the node of the operation itself.
    DuringOwn,
    After,
}

impl Pair {
    pub(super) fn new(operation: &'static Operation, observation: &'static Observation) -> Pair {
        let mut tree = Tree::new();
        let before = tree.clone();
        let old = (observation.model)(&before);
        (operation.model)(&mut tree);
        let new = (observation.model)(&tree);
        let between = (observation.model)(&before.with_objects_of(&tree));
        assert_eq!(old.len(), new.len(), "{}: as many words each time", observation.name);
        Pair { operation, observation, old, new, between }
    }

    /// What the table has in its cell.
    pub(super) fn mark(&self) -> &'static str {
        match (self.old == self.new, self.observation.late) {
            (true, _) => "",
            (false, Late::Never) => "new",
            (false, Late::InRaces) => "new, late in races",
            (false, Late::Always) => "late",
        }
    }

    /// Has anything new been seen?
    fn judge(&self, words: &[String], began: Began, is_race: bool) -> Result<bool> {
        ensure!(words.len() == self.old.len(), "{} words", words.len());
        let is_late = match self.observation.late {
            Late::Never => false,
            Late::InRaces => is_race,
            Late::Always => true,
        };
        let is_free = is_late && self.old != self.new && began != Began::Before;
        let mut has_new = began == Began::After && !is_free;
        for (number, ((word, old), new)) in words.iter().zip(&self.old).zip(&self.new).enumerate() {
            let tell = || format!("word {number} is «{word}», was «{old}», becomes «{new}»");
            if old == new {
                ensure!(word == old, "{}", tell());
            } else if word == new {
                ensure!(began != Began::Before, "too early: {}", tell());
                has_new = true;
            } else if word == old {
                // New bytes, and no more of them than there were: a write becomes longer at its end.
                let is_short = began == Began::During && word.is_empty();
                let is_split = began == Began::DuringOwn || is_short;
                ensure!(!has_new || is_free || is_split, "old, {began:?}: {}", tell());
            } else if matches!(began, Began::During | Began::DuringOwn)
                && *word == self.between[number]
            {
                has_new = true;
            } else {
                ensure!(is_free, "neither old nor new: {}", tell());
            }
        }
        Ok(has_new && self.old != self.new && !is_free)
    }
}

/// Which pairs.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Share {
        number: usize,
        of: usize,
    },
    /// Those of one operation.
    Row(String),
}

impl Part {
    /// `all`, `1/3`, or the name of an operation.
    pub(super) fn parse(text: &str) -> Result<Part> {
        if operations::ALL.iter().any(|operation| operation.name == text) {
            return Ok(Part::Row(text.to_owned()));
        }
        let (number, of) =
            if text == "all" { ("1", "1") } else { text.split_once('/').context("PART")? };
        Ok(Part::Share { number: number.parse()?, of: of.parse()? })
    }

    fn has(&self, row: usize, column: usize) -> bool {
        match self {
            // Neither whole rows nor whole columns.
            Part::Share { number, of } => (row + column) % of + 1 == *number,
            Part::Row(name) => operations::ALL[row].name == name,
        }
    }
}

/// What is still looked at when the other pairs of a row are done, and what is held until then.
pub(super) type Later = (Vec<Look>, Act);

/// One pair, in a tree of its own, at these paths.
type Way = fn(&Pair, &[PathBuf], &mut Dice) -> Result<Later>;

/// Tries the pairs of a part and tells how many.
///
/// # Errors
/// With all that went wrong.
pub(super) fn run(part: &Part, dirs: &[PathBuf], way: Way, dice: &mut Dice) -> Result<String> {
    let (mut tried, mut changing, mut wrong) = (0, 0, Vec::new());
    for (row, operation) in operations::ALL.iter().enumerate() {
        let mut later = Vec::new();
        for (column, observation) in observations::ALL.iter().enumerate() {
            if !part.has(row, column) {
                continue;
            }
            let pair = Pair::new(operation, observation);
            let name = format!("{row}-{column}-{:x}", dice.number());
            let paths: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(&name)).collect();
            tried += 1;
            changing += usize::from(!pair.mark().is_empty());
            // Who makes the tree has its locks, and may not have written it back.
            let maker = &paths[tried % paths.len()];
            let done = world::make(maker).context("making").and_then(|()| way(&pair, &paths, dice));
            match done {
                Ok(looks) => later.push((pair, looks)),
                Err(error) => wrong.push(told(&pair, &error)),
            }
        }
        for (pair, (mut looks, _held)) in later {
            for look in &mut looks {
                if let Err(error) = pair.judge(&look(), Began::After, false) {
                    wrong.push(told(&pair, &error.context("after a pause")));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {tried} pairs:\n{}", wrong.len(), wrong.join("\n"));
    Ok(format!("{tried} pairs on {} mounts, {changing} of them change what is seen", dirs.len()))
}

fn told(pair: &Pair, error: &anyhow::Error) -> String {
    format!("{} / {}: {error:#}", pair.operation.name, pair.observation.name)
}

/// The operation returns, then all look; twice, so that the second answer comes from a cache.
pub(super) fn in_turn(pair: &Pair, dirs: &[PathBuf], _: &mut Dice) -> Result<Later> {
    let mut act = (pair.operation.prepare)(&dirs[0]).context("preparing")?;
    let mut looks = Vec::new();
    for dir in dirs {
        looks.push((pair.observation.open)(dir).context("opening")?);
    }
    for began in [Began::Before, Began::After] {
        if began == Began::After {
            act().context("the operation")?;
        }
        // The others before the one that operates, which may have nothing to ask.
        for _ in 0..2 {
            for (number, look) in looks.iter_mut().enumerate().rev() {
                pair.judge(&look(), began, false)
                    .with_context(|| format!("mount {}", number + 1))?;
            }
        }
    }
    Ok((looks, act))
}

/// All look again and again, and the operation is done meanwhile.
pub(super) fn at_once(pair: &Pair, dirs: &[PathBuf], dice: &mut Dice) -> Result<Later> {
    let mut act = (pair.operation.prepare)(&dirs[0]).context("preparing")?;
    let race = Race {
        pair,
        has_begun: AtomicBool::new(false),
        has_returned: AtomicBool::new(false),
        was_seen: AtomicBool::new(false),
        ready: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        let race = &race;
        let mut watchers = Vec::new();
        for (number, dir) in dirs.iter().enumerate() {
            if number == 0 && pair.operation.own_late.contains(&pair.observation.name) {
                race.ready.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let watch =
                move || race.watch(number, dir).with_context(|| format!("mount {}", number + 1));
            watchers.push(scope.spawn(watch));
        }
        while race.ready.load(Ordering::SeqCst) < dirs.len() {
            thread::yield_now();
        }
        // Anywhere in a look.
        thread::sleep(Duration::from_micros(dice.below(400)));
        race.has_begun.store(true, Ordering::SeqCst);
        let done = act().context("the operation");
        race.has_returned.store(true, Ordering::SeqCst);
        for watcher in watchers {
            match watcher.join() {
                Ok(watched) => watched?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        done
    })?;
    Ok((Vec::new(), act))
}

#[derive(Debug)]
struct Race<'a> {
    pair: &'a Pair,
    has_begun: AtomicBool,
    has_returned: AtomicBool,
    /// Somebody has seen what is new.
    was_seen: AtomicBool,
    /// Who has seen what is old often enough to have it from a cache.
    ready: AtomicUsize,
}

impl Race<'_> {
    /// Looks until one look has begun after the operation had returned.
    fn watch(&self, number: usize, dir: &Path) -> Result<()> {
        let warm = (self.pair.observation.open)(dir).context("opening").and_then(|mut look| {
            for _ in 0..2 {
                self.pair.judge(&look(), Began::Before, true)?;
            }
            Ok(look)
        });
        // Whoever fails is not waited for.
        self.ready.fetch_add(1, Ordering::SeqCst);
        let mut look = warm?;
        let mut has_seen = false;
        loop {
            let is_over = self.has_returned.load(Ordering::SeqCst);
            let is_own = number == 0;
            let was_seen = self.was_seen.load(Ordering::SeqCst);
            let must = is_over || !is_own && (was_seen || has_seen);
            let words = look();
            let began = match self.has_begun.load(Ordering::SeqCst) {
                false => Began::Before,
                true if must => Began::After,
                true if is_own => Began::DuringOwn,
                true => Began::During,
            };
            let judged = self.pair.judge(&words, began, true);
            let why = || format!("over: {is_over}, seen by others: {was_seen}, here: {has_seen}");
            if judged.with_context(why)? {
                has_seen = true;
                self.was_seen.store(true, Ordering::SeqCst);
            }
            if is_over {
                return Ok(());
            }
        }
    }
}
