//! Rule: what nodes see of names and files is what one server would have shown, in an order that keeps
//! who came before whom (I8); what a lost life had neither made durable nor shown to others is gone
//! from its end on, in the order in which it was done, or still there (I7).
//!
//! Everybody makes, links, moves, removes, opens, writes, reads and lists the same few names, and every
//! request is taken down here: when it began, when it was answered, and what. At a quiet moment one
//! node makes what it has done durable and looks at the whole tree. That closes a window: an order of
//! its operations is searched for ([`search`]) that explains every answer by the model of a POSIX tree
//! (`model::posix`), and what it leaves is what the next window begins with.
//!
//! * What was under way when its life was lost may have happened at any moment of that life behind its
//!   beginning, or never: not behind anything that began when the life was over.
//! * Of changes of names and sizes a life loses those behind one of them; a write may be lost alone
//!   (`docs/semantics.md`, section 3).
//! * A search that is too long is a finding of its own.
//!
//! Weaker than one server in this:
//! * What a node looks at while it changes something itself may be from before that change began
//!   (`docs/semantics.md`, section 6).
//! * Zeros that were read beside a truncation are not judged (same place).
//! * What has no name any more may be there for whoever knows its number, or not.

mod search;
#[cfg(test)]
mod tests;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mfs::file::FileId;
use model::posix::{Errno, Rename};

use crate::fleet::LifeId;
use search::Failure;
use world::World;

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    Lookup {
        dir: FileId,
        name: Vec<u8>,
    },
    List {
        dir: FileId,
    },
    Stat {
        file: FileId,
    },
    /// All of it, by a descriptor.
    Read {
        file: FileId,
    },
    Make {
        dir: FileId,
        name: Vec<u8>,
        is_directory: bool,
    },
    Link {
        file: FileId,
        dir: FileId,
        name: Vec<u8>,
    },
    Unlink {
        dir: FileId,
        name: Vec<u8>,
    },
    Rmdir {
        dir: FileId,
        name: Vec<u8>,
    },
    Rename {
        from: (FileId, Vec<u8>),
        to: (FileId, Vec<u8>),
        how: Rename,
    },
    Open {
        file: FileId,
        truncate: bool,
    },
    /// Of eight bytes, at the beginning of the file.
    Write {
        file: FileId,
        value: u64,
    },
    Sync(Synced),
}

/// What an fsync is for. What a life has done to names is durable behind each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Synced {
    Names,
    File(FileId),
    Everything,
}

/// What was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    File(FileId),
    Absent,
    /// In order.
    Names(Vec<(Vec<u8>, FileId)>),
    /// The size of a directory means nothing.
    Attributes {
        is_directory: bool,
        links: u32,
        size: u64,
    },
    Bytes(Vec<u8>),
    Failed(Errno),
}

impl Call {
    /// Does it change the tree, if it succeeds?
    pub fn is_change(&self) -> bool {
        match self {
            Call::Make { .. }
            | Call::Link { .. }
            | Call::Unlink { .. }
            | Call::Rmdir { .. }
            | Call::Rename { .. }
            | Call::Write { .. }
            | Call::Open { truncate: true, .. } => true,
            Call::Lookup { .. }
            | Call::List { .. }
            | Call::Stat { .. }
            | Call::Read { .. }
            | Call::Open { truncate: false, .. }
            | Call::Sync(_) => false,
        }
    }

    /// What it names by number.
    fn files(&self) -> Vec<FileId> {
        match self {
            Call::Lookup { dir, .. }
            | Call::List { dir }
            | Call::Make { dir, .. }
            | Call::Unlink { dir, .. }
            | Call::Rmdir { dir, .. } => vec![*dir],
            Call::Stat { file }
            | Call::Read { file }
            | Call::Open { file, .. }
            | Call::Write { file, .. } => vec![*file],
            Call::Link { file, dir, .. } => vec![*file, *dir],
            Call::Rename { from, to, .. } => vec![from.0, to.0],
            Call::Sync(_) => Vec::new(),
        }
    }
}

/// An operation. Moments are numbers that grow with everything that begins or ends.
#[derive(Clone, Debug)]
struct Op {
    life: LifeId,
    begun: u64,
    /// `None`: under way. Without an answer it has happened by then, or never.
    ended: Option<u64>,
    call: Call,
    answer: Option<Answer>,
}

impl Op {
    fn may_never_have_happened(&self) -> bool {
        self.answer.is_none()
    }

    /// Is it over for sure when something begins at that moment?
    fn comes_before(&self, begun: u64) -> bool {
        self.ended.is_some_and(|ended| ended < begun)
    }

    fn has_effect(&self) -> bool {
        self.call.is_change() && !matches!(self.answer, Some(Answer::Failed(_)))
    }
}

/// A life is gone.
#[derive(Clone, Copy, Debug)]
struct Loss {
    life: LifeId,
    at: u64,
}

/// What is wrong with a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// No order explains it.
    NoOrder(String),
    /// It was too long to be judged.
    TooLong(String),
}

/// The present window of a history.
#[derive(Debug)]
pub struct History {
    start: World,
    ops: BTreeMap<u64, Op>,
    under_way: BTreeSet<u64>,
    losses: Vec<Loss>,
    lost: BTreeSet<LifeId>,
    next: u64,
    /// By life: answers that were not taken down.
    left_out: BTreeMap<LifeId, u64>,
}

impl History {
    /// Of what is below an empty directory.
    pub fn new(root: FileId) -> History {
        History {
            start: World::new(root),
            ops: BTreeMap::new(),
            under_way: BTreeSet::new(),
            losses: Vec::new(),
            lost: BTreeSet::new(),
            next: 1,
            left_out: BTreeMap::new(),
        }
    }

    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many operations the window has.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// How many objects there were when the window began.
    pub fn objects(&self) -> usize {
        self.start.objects()
    }

    /// How many answers of this life were not taken down.
    pub fn left_out(&self, life: LifeId) -> u64 {
        self.left_out.get(&life).copied().unwrap_or(0)
    }

    /// Takes down a request, under the number that is returned.
    pub fn begin(&mut self, life: LifeId, call: Call) -> u64 {
        let number = self.tick();
        if self.lost.contains(&life) {
            return number;
        }
        // A look may be from before what its node is changing.
        let changing = self.under_way.iter().map(|i| &self.ops[i]);
        let changing = changing.filter(|op| op.life == life && op.call.is_change());
        let before = changing.map(|op| op.begun).min().filter(|_| !call.is_change());
        let begun = before.unwrap_or(number);
        self.ops.insert(number, Op { life, begun, ended: None, call, answer: None });
        self.under_way.insert(number);
        number
    }

    /// It was answered.
    pub fn end(&mut self, number: u64, answer: Answer) {
        let now = self.tick();
        if self.under_way.remove(&number) {
            let op = self.ops.get_mut(&number).expect("what is under way was taken down");
            (op.ended, op.answer) = (Some(now), Some(answer));
        }
    }

    /// It has not happened, or says nothing.
    pub fn leave_out(&mut self, number: u64) {
        if self.under_way.remove(&number)
            && let Some(op) = self.ops.remove(&number)
        {
            *self.left_out.entry(op.life).or_default() += 1;
        }
    }

    /// It failed as everything does when a life ends: a change may have happened.
    pub fn cut_short(&mut self, number: u64) {
        if !self.ops.get(&number).is_some_and(|op| op.call.is_change()) {
            self.leave_out(number);
        } else if self.under_way.remove(&number) {
            let now = self.tick();
            self.ops.get_mut(&number).expect("what is under way was taken down").ended = Some(now);
        }
    }

    /// A life is gone.
    pub fn lose(&mut self, life: LifeId) {
        if !self.lost.insert(life) {
            return;
        }
        let of_life = |i: &u64| self.ops[i].life == life;
        let left: Vec<u64> = self.under_way.iter().copied().filter(of_life).collect();
        left.into_iter().for_each(|number| self.cut_short(number));
        let at = self.tick();
        self.losses.push(Loss { life, at });
    }

    /// Everything that began behind this moment was only looking, and did not see all.
    pub fn forget_since(&mut self, moment: u64) {
        self.ops.retain(|number, _| *number <= moment);
        self.under_way.retain(|number| *number <= moment);
    }

    pub fn is_lost(&self, life: LifeId) -> bool {
        self.lost.contains(&life)
    }

    pub fn moment(&self) -> u64 {
        self.next
    }

    /// Closes the window, at a moment at which nothing is under way and somebody has seen the whole
    /// tree: is there an order?
    ///
    /// # Errors
    /// There is none, or it was not found.
    pub fn judge(&mut self) -> Result<(), Wrong> {
        let ops: Vec<Op> = std::mem::take(&mut self.ops).into_values().collect();
        let judged: Vec<Op> = ops.iter().filter(|op| !is_zeros(op, &ops)).cloned().collect();
        let losses = std::mem::take(&mut self.losses);
        let has_ops = |loss: &Loss| judged.iter().any(|op| op.life == loss.life);
        let losses: Vec<Loss> = losses.into_iter().filter(has_ops).collect();
        match search::search(&self.start, &judged, &losses) {
            Ok(world) => {
                self.start = world.settled();
                Ok(())
            }
            Err(Failure::None { left }) => {
                Err(Wrong::NoOrder(Window(&judged, &losses, &left).to_string()))
            }
            Err(Failure::GivenUp) => Err(Wrong::TooLong(Window(&judged, &losses, &[]).to_string())),
        }
    }
}

/// A page that was read behind a truncation for a size from before it.
fn is_zeros(read: &Op, ops: &[Op]) -> bool {
    let Some(Answer::Bytes(bytes)) = &read.answer else { return false };
    let Call::Read { file } = read.call else { return false };
    let beside = |op: &Op| {
        op.call == Call::Open { file, truncate: true }
            && read.ended.is_some_and(|ended| op.begun < ended)
            && op.ended.is_none_or(|ended| read.begun < ended)
    };
    !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) && ops.iter().any(beside)
}

/// For people: what was left where most was explained comes first.
struct Window<'a>(&'a [Op], &'a [Loss], &'a [usize]);

impl fmt::Display for Window<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window(ops, losses, left) = self;
        write!(f, "left over:")?;
        left.iter().take(6).try_for_each(|i| write!(f, " [{}]", ops[*i]))?;
        write!(f, "; of {}:", ops.len())?;
        ops.iter().try_for_each(|op| write!(f, " [{op}]"))?;
        losses.iter().try_for_each(|loss| write!(f, " [{} lost at {}]", loss.life, loss.at))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.ended.map_or_else(String::new, |ended| ended.to_string());
        let doubt = if self.may_never_have_happened() { "?" } else { "" };
        write!(f, "{}..{ended}{doubt} {}: {}", self.begun, self.life, self.call)?;
        match &self.answer {
            Some(Answer::Names(names)) => {
                let names = names
                    .iter()
                    .map(|(name, file)| format!("{} {file:?}", String::from_utf8_lossy(name)));
                write!(f, " = {:?}", names.collect::<Vec<_>>())
            }
            Some(Answer::Bytes(bytes)) => write!(f, " = {}", bytes.escape_ascii()),
            Some(answer) => write!(f, " = {answer:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match self {
            Call::Lookup { dir, name } => write!(f, "lookup {dir:?}/{}", text(name)),
            Call::List { dir } => write!(f, "list {dir:?}"),
            Call::Stat { file } => write!(f, "stat {file:?}"),
            Call::Read { file } => write!(f, "read {file:?}"),
            Call::Make { dir, name, is_directory: true } => {
                write!(f, "mkdir {dir:?}/{}", text(name))
            }
            Call::Make { dir, name, .. } => write!(f, "create {dir:?}/{}", text(name)),
            Call::Link { file, dir, name } => write!(f, "link {file:?} {dir:?}/{}", text(name)),
            Call::Unlink { dir, name } => write!(f, "unlink {dir:?}/{}", text(name)),
            Call::Rmdir { dir, name } => write!(f, "rmdir {dir:?}/{}", text(name)),
            Call::Rename { from, to, how } => {
                let (a, b) = (text(&from.1), text(&to.1));
                write!(f, "rename {:?}/{a} {:?}/{b} {how:?}", from.0, to.0)
            }
            Call::Open { file, truncate } => {
                write!(f, "open {file:?}{}", if *truncate { " truncating" } else { "" })
            }
            Call::Write { file, value } => write!(f, "write {file:?} {value:x}"),
            Call::Sync(what) => write!(f, "sync {what:?}"),
        }
    }
}
