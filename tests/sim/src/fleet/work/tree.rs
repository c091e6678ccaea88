//! A small tree in which everybody changes the same few names at once: made, linked, moved, replaced,
//! exchanged and removed, files and directories, opened, cut, written and read, also behind their
//! removal, looked up, asked about and listed. Each request goes through the kernel, caches and all, and
//! is taken down; what all of them saw is judged by [`crate::fleet::oracle::tree`].
//!
//! In turns: so many requests, then nobody begins anything, and when all is quiet one looks at the whole
//! tree. So a window of the history stays short enough to be judged.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering;

use mfs::FsError;
use mfs::file::{FileId, FileType};
use mfs::ops::{NewFile, NewKind, OpenFlags, RenameKind};
use model::posix::{Errno, Rename};

use super::{App, READ, WRITE, regular};
use crate::fleet::LifeId;
use crate::fleet::kernel::Opened;
use crate::fleet::oracle::tree::{Answer, Call, History, Synced, Wrong};

/// The directory in which it lies.
pub(super) const TOP: &[u8] = b"t";
const NAMES: [&[u8]; 3] = [b"a", b"b", b"c"];
/// Requests of one window, the whole look and what has begun by then apart.
const WINDOW: usize = 14;
/// Applications at work at once, of all nodes.
const AT_ONCE: usize = 5;
/// With fewer objects more is made than removed, with more nothing is made until some are gone.
const OBJECTS: Range<usize> = 5..9;
/// The whole look finds a circle where it finds more.
const OBJECTS_MAX: usize = 60;
/// Looks at the whole tree at the end of a run, until one sees all of it.
const LAST_LOOKS: usize = 3;
/// Bytes that a read asks for.
const ALL: u64 = 64;
/// Longest pause between two requests by one descriptor, in microseconds.
const PAUSE: usize = 4_000;

/// The history, and whose turn it is.
#[derive(Default)]
pub(super) struct Turns {
    /// `None` before the tree is made.
    history: Option<History>,
    acting: BTreeMap<LifeId, usize>,
    /// Who looks at the whole tree, and since which moment.
    looking: Option<(LifeId, u64)>,
    /// Is it a directory?
    kinds: BTreeMap<FileId, bool>,
}

enum Turn {
    Act,
    Look,
    Wait,
}

impl Turns {
    pub(super) fn begin(&mut self, top: FileId) {
        self.history = Some(History::new(top));
        self.learn(top, true);
    }

    fn history(&mut self) -> &mut History {
        self.history.as_mut().expect("the tree is made before anybody works")
    }

    fn next(&mut self, life: LifeId) -> Turn {
        let acting: usize = self.acting.values().sum();
        let history = self.history();
        if history.is_lost(life) {
            return Turn::Wait;
        }
        let is_over = history.len() >= WINDOW;
        let moment = history.moment();
        if self.looking.is_some() || acting >= AT_ONCE || is_over && acting > 0 {
            return Turn::Wait;
        }
        if is_over {
            self.looking = Some((life, moment));
            return Turn::Look;
        }
        *self.acting.entry(life).or_default() += 1;
        Turn::Act
    }

    fn has_acted(&mut self, life: LifeId) {
        if let Some(acting) = self.acting.get_mut(&life) {
            *acting -= 1;
        }
    }

    /// A life is gone, and everything that it was doing.
    pub(super) fn lose(&mut self, life: LifeId) {
        let Some(history) = &mut self.history else { return };
        history.lose(life);
        self.acting.remove(&life);
        self.has_looked(life);
    }

    pub(super) fn unmounted(&mut self, life: LifeId) {
        if let Some(history) = &mut self.history {
            let number = history.begin(life, Call::Sync(Synced::Everything));
            history.end(number, Answer::Done);
        }
    }

    /// Whoever looked at the whole tree did not see all.
    fn has_looked(&mut self, life: LifeId) {
        if let Some((by, moment)) = self.looking
            && by == life
        {
            self.looking = None;
            self.history().forget_since(moment);
        }
    }

    /// What was lost before anybody saw it may come again as something else.
    fn learn(&mut self, file: FileId, is_directory: bool) {
        self.kinds.insert(file, is_directory);
    }

    fn is_directory(&self, file: FileId) -> Option<bool> {
        self.kinds.get(&file).copied()
    }
}

fn errno_of(error: &FsError) -> Option<Errno> {
    Some(match error {
        FsError::NotFound => Errno::NoEntry,
        FsError::Exists => Errno::Exists,
        FsError::NotDirectory => Errno::NotDirectory,
        FsError::IsDirectory => Errno::IsDirectory,
        FsError::NotEmpty => Errno::NotEmpty,
        FsError::Invalid(_) => Errno::Invalid,
        FsError::NotPermitted(_) => Errno::NotPermitted,
        FsError::Stale => Errno::Stale,
        FsError::NameTooLong
        | FsError::NoSpace
        | FsError::FileTooLarge
        | FsError::TooManyLinks
        | FsError::SymbolicLink
        | FsError::ReadOnly
        | FsError::Unsupported
        | FsError::NoXattr
        | FsError::XattrTooLarge
        | FsError::OutOfRange(_)
        | FsError::Refused(_)
        | FsError::Corrupt(_)
        | FsError::Damaged
        | FsError::Disk(_)
        | FsError::CutOff => return None,
    })
}

fn directory() -> NewFile<'static> {
    NewFile { kind: NewKind::Directory, permissions: 0o755, ..regular() }
}

impl App {
    pub(super) async fn tree(&self) -> Result<(), FsError> {
        let turn = self.work.tree.lock().next(self.id());
        match turn {
            Turn::Wait => Ok(()),
            Turn::Look => self.look_at_tree().await.map(|_| ()),
            Turn::Act => {
                let done = self.change_tree().await;
                self.work.tree.lock().has_acted(self.id());
                done
            }
        }
    }

    /// Nobody does anything any more: what is left of the history is judged now or never.
    pub(super) async fn look_at_tree_at_last(&self) -> Result<(), FsError> {
        for _ in 0..LAST_LOOKS {
            {
                let turns = &mut *self.work.tree.lock();
                let Some(history) = &turns.history else { return Ok(()) };
                turns.looking = Some((self.id(), history.moment()));
            }
            if self.look_at_tree().await? {
                return Ok(());
            }
        }
        if self.counts() {
            self.wrong("tree search", "the last window was never seen as a whole".to_owned());
        }
        Ok(())
    }

    /// A request, taken down; `None` when it was refused.
    async fn asked<T>(
        &self,
        call: Call,
        request: impl Future<Output = Result<T, FsError>>,
        answer: impl FnOnce(&T) -> Answer,
    ) -> Result<Option<T>, FsError> {
        tracing::debug!(target: "sim::operations", "{call}");
        *self.step.lock() = call.to_string();
        let is_change = call.is_change();
        let number = self.work.tree.lock().history().begin(self.id(), call);
        let outcome = request.await;
        let counts = self.counts();
        let turns = &mut *self.work.tree.lock();
        match outcome {
            Ok(done) => {
                match is_change || counts {
                    true => turns.history().end(number, answer(&done)),
                    false => turns.history().leave_out(number),
                }
                Ok(Some(done))
            }
            Err(FsError::NoSpace) if self.work.may_be_full() => {
                turns.history().leave_out(number);
                Ok(None)
            }
            Err(error) => match errno_of(&error) {
                Some(errno) => {
                    match counts {
                        true => turns.history().end(number, Answer::Failed(errno)),
                        false => turns.history().leave_out(number),
                    }
                    Ok(None)
                }
                None => {
                    turns.history().cut_short(number);
                    Err(error)
                }
            },
        }
    }

    fn some_name(&self) -> &'static [u8] {
        NAMES[self.draw(NAMES.len())]
    }

    async fn look_up(&self, dir: FileId, name: &[u8]) -> Result<Option<FileId>, FsError> {
        let call = Call::Lookup { dir, name: name.to_vec() };
        let found = self.asked(call, self.mount.lookup(dir, name), |found| {
            found.map_or(Answer::Absent, Answer::File)
        });
        Ok(found.await?.flatten())
    }

    async fn ask_about(&self, file: FileId) -> Result<Option<bool>, FsError> {
        let attributes = |found: &mfs::Attributes| Answer::Attributes {
            is_directory: found.file_type == FileType::Directory,
            links: found.links,
            size: found.size,
        };
        let found = self.asked(Call::Stat { file }, self.mount.stat(file), attributes).await?;
        let is_directory = found.map(|found| found.file_type == FileType::Directory);
        if let Some(is_directory) = is_directory {
            self.work.tree.lock().learn(file, is_directory);
        }
        Ok(is_directory)
    }

    async fn is_directory(&self, file: FileId) -> Result<bool, FsError> {
        let known = self.work.tree.lock().is_directory(file);
        match known {
            Some(is_directory) => Ok(is_directory),
            None => Ok(self.ask_about(file).await? == Some(true)),
        }
    }

    async fn list_tree(&self, dir: FileId) -> Result<Option<Vec<(Vec<u8>, FileId)>>, FsError> {
        let number = self.work.tree.lock().history().begin(self.id(), Call::List { dir });
        *self.step.lock() = format!("list {dir:?}");
        let listed = self.mount.list_pieces(dir).await;
        let counts = self.counts();
        let history = &mut *self.work.tree.lock();
        let history = history.history();
        match listed {
            // A listing in pieces is no moment of the directory.
            Ok((names, is_moment)) => {
                let names: Vec<_> = names.iter().map(|(n, file)| (n.clone(), *file)).collect();
                match counts && is_moment {
                    true => history.end(number, Answer::Names(names.clone())),
                    false => history.leave_out(number),
                }
                Ok(Some(names))
            }
            Err(error) => match errno_of(&error) {
                Some(errno) if counts => {
                    history.end(number, Answer::Failed(errno));
                    Ok(None)
                }
                Some(_) => {
                    history.leave_out(number);
                    Ok(None)
                }
                None => {
                    history.cut_short(number);
                    Err(error)
                }
            },
        }
    }

    /// The top, mostly, or a directory below it.
    async fn some_directory(&self, top: FileId) -> Result<FileId, FsError> {
        let mut dir = top;
        for percent in [50, 30] {
            if !self.chance(percent) {
                break;
            }
            match self.look_up(dir, self.some_name()).await? {
                Some(found) if self.is_directory(found).await? => dir = found,
                _ => break,
            }
        }
        Ok(dir)
    }

    async fn change_tree(&self) -> Result<(), FsError> {
        let top = self.find(self.mount.root(), TOP).await?;
        let dir = self.some_directory(top).await?;
        let name = self.some_name();
        let objects = self.work.tree.lock().history().objects();
        match self.draw(100) {
            0..26 if objects >= OBJECTS.end => self.remove_from_tree(dir, name).await,
            0..8 => self.make_in_tree(dir, name).await,
            8..18 => self.make_and_open(dir, name).await,
            18..26 => self.make_directory(dir, name).await,
            26..34 if objects < OBJECTS.start => self.make_in_tree(dir, name).await,
            34..38 if objects < OBJECTS.start => self.make_directory(dir, name).await,
            26..44 => self.remove_from_tree(dir, name).await,
            44..52 => self.link_in_tree(top, dir, name).await,
            52..70 => self.move_in_tree(top, dir, name).await,
            70..86 => self.use_file(dir, name).await,
            86..92 => {
                if let Some(file) = self.look_up(dir, name).await? {
                    self.ask_about(file).await?;
                }
                Ok(())
            }
            92..97 => self.list_tree(dir).await.map(|_| ()),
            _ => self.sync_names().await,
        }
    }

    async fn sync_names(&self) -> Result<(), FsError> {
        let call = Call::Sync(Synced::Names);
        let synced = async { self.mount.served().await.fsync_directory().await };
        self.asked(call, synced, |()| Answer::Done).await.map(|_| ())
    }

    async fn make_in_tree(&self, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        let call = Call::Make { dir, name: name.to_vec(), is_directory: false };
        let new = regular();
        let made = self.mount.make_at(dir, name, &new);
        if let Some(file) = self.asked(call, made, |file| Answer::File(*file)).await? {
            self.work.tree.lock().learn(file, false);
        }
        Ok(())
    }

    async fn make_directory(&self, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        let call = Call::Make { dir, name: name.to_vec(), is_directory: true };
        let new = directory();
        let made = self.mount.make_at(dir, name, &new);
        if let Some(file) = self.asked(call, made, |file| Answer::File(*file)).await? {
            self.work.tree.lock().learn(file, true);
        }
        Ok(())
    }

    /// open(2) with O_CREAT; without O_EXCL what is there is opened.
    async fn make_and_open(&self, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        let excludes = self.chance(50);
        if !excludes && let Some(found) = self.look_up(dir, name).await? {
            return self.open_in_tree(found).await;
        }
        let call = Call::Make { dir, name: name.to_vec(), is_directory: false };
        let new = regular();
        let made = self.mount.make_and_open_at(dir, name, &new, WRITE);
        match self.asked(call, made, |open| Answer::File(open.file())).await? {
            Some(open) => {
                self.work.tree.lock().learn(open.file(), false);
                self.use_descriptor(&open).await
            }
            // Somebody else has made it meanwhile.
            None if !excludes => self.use_file(dir, name).await,
            None => Ok(()),
        }
    }

    async fn use_file(&self, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        match self.look_up(dir, name).await? {
            Some(file) => self.open_in_tree(file).await,
            None => Ok(()),
        }
    }

    async fn open_in_tree(&self, file: FileId) -> Result<(), FsError> {
        if self.is_directory(file).await? {
            return Ok(());
        }
        let truncate = self.chance(25);
        let flags = if truncate || self.chance(50) { WRITE } else { READ };
        let flags = OpenFlags { truncate, ..flags };
        let call = Call::Open { file, truncate };
        match self.asked(call, self.mount.open(file, flags), |_| Answer::Done).await? {
            Some(open) => self.use_descriptor(&open).await,
            None => Ok(()),
        }
    }

    /// Others may remove the file meanwhile.
    async fn use_descriptor(&self, open: &Opened) -> Result<(), FsError> {
        let file = open.file();
        for _ in 0..1 + self.draw(2) {
            if open.flags().write && self.chance(60) {
                let value = self.work.next.fetch_add(1, Ordering::Relaxed);
                let bytes = value.to_le_bytes();
                let written = self.mount.write(open, 0, &bytes);
                self.asked(Call::Write { file, value }, written, |()| Answer::Done).await?;
            } else {
                self.read_in_tree(open).await?;
            }
            let pause = u64::try_from(self.draw(PAUSE)).expect("small");
            self.exec().sleep(mx_base::Duration::from_micros(pause)).await;
        }
        if open.flags().write && self.chance(25) {
            let call = Call::Sync(Synced::File(file));
            self.asked(call, self.mount.fsync(open), |()| Answer::Done).await?;
        }
        Ok(())
    }

    async fn read_in_tree(&self, open: &Opened) -> Result<(), FsError> {
        let call = Call::Read { file: open.file() };
        let read = self.mount.read(open, 0, ALL);
        self.asked(call, read, |bytes| Answer::Bytes(bytes.clone())).await.map(|_| ())
    }

    /// As what it is, or seems to be; at times as what it is not.
    async fn remove_from_tree(&self, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        let found = match self.chance(80) {
            true => self.look_up(dir, name).await?,
            false => None,
        };
        let is_directory = match found {
            Some(found) => self.is_directory(found).await?,
            None => self.chance(30),
        };
        let name = name.to_vec();
        let call = match is_directory {
            true => Call::Rmdir { dir, name: name.clone() },
            false => Call::Unlink { dir, name: name.clone() },
        };
        let removed = self.mount.remove_at(dir, &name, is_directory);
        self.asked(call, removed, |()| Answer::Done).await.map(|_| ())
    }

    async fn link_in_tree(&self, top: FileId, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        let Some(file) = self.look_up(dir, name).await? else { return Ok(()) };
        if self.is_directory(file).await? {
            return Ok(());
        }
        let (to, name) = (self.some_directory(top).await?, self.some_name());
        let call = Call::Link { file, dir: to, name: name.to_vec() };
        let linked = self.mount.link_at(file, to, name);
        self.asked(call, linked, |()| Answer::Done).await.map(|_| ())
    }

    async fn move_in_tree(&self, top: FileId, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        let (to, new_name) = (self.some_directory(top).await?, self.some_name());
        let (how, kind) = match self.draw(10) {
            0..5 => (Rename::Replace, RenameKind::Replace),
            5..7 => (Rename::NoReplace, RenameKind::NoReplace),
            _ => (Rename::Exchange, RenameKind::Exchange),
        };
        let call = Call::Rename { from: (dir, name.to_vec()), to: (to, new_name.to_vec()), how };
        let moved = self.mount.rename_at((dir, name), (to, new_name), kind);
        self.asked(call, moved, |()| Answer::Done).await.map(|_| ())
    }

    // The whole look

    /// Makes what this node has done durable, looks at everything, and has the window judged: what it
    /// has seen of others is durable as well. False when it has not seen all.
    async fn look_at_tree(&self) -> Result<bool, FsError> {
        let before = self.work.tree.lock().history().left_out(self.id());
        let looked = self.look_at_whole_tree().await;
        let judged = {
            let turns = &mut *self.work.tree.lock();
            let has_seen_all = matches!(looked, Ok(true))
                && turns.looking.is_some_and(|(life, _)| life == self.id())
                && turns.history().left_out(self.id()) == before;
            if has_seen_all {
                turns.looking = None;
                Some(turns.history().judge())
            } else {
                turns.has_looked(self.id());
                None
            }
        };
        match &judged {
            None | Some(Ok(())) => {}
            Some(Err(Wrong::NoOrder(why))) => {
                self.wrong("tree", format!("no order explains it: {why}"));
            }
            Some(Err(Wrong::TooLong(why))) => {
                self.wrong("tree search", format!("given up: {why}"));
            }
        }
        looked.map(|_| judged.is_some())
    }

    /// False when something of it was not to be seen.
    async fn look_at_whole_tree(&self) -> Result<bool, FsError> {
        let top = self.find(self.mount.root(), TOP).await?;
        let call = Call::Sync(Synced::Everything);
        let synced = async { self.mount.served().await.sync().await };
        if self.asked(call, synced, |()| Answer::Done).await?.is_none() {
            return Ok(false);
        }
        let (mut dirs, mut seen) = (vec![top], BTreeSet::new());
        while let Some(dir) = dirs.pop() {
            for (_, file) in self.list_tree(dir).await?.unwrap_or_default() {
                if !seen.insert(file) {
                    continue;
                }
                if seen.len() > OBJECTS_MAX {
                    self.wrong("tree", "there is no end of it".to_owned());
                    return Ok(false);
                }
                if self.ask_about(file).await? == Some(true) {
                    dirs.push(file);
                    continue;
                }
                let open = self.mount.open(file, READ);
                let call = Call::Open { file, truncate: false };
                if let Some(open) = self.asked(call, open, |_| Answer::Done).await? {
                    self.read_in_tree(&open).await?;
                }
            }
        }
        Ok(true)
    }
}
