//! Compares what is on a mount with what writers say was acknowledged.
//!
//! Every acknowledged operation must be there. Of the one that a writer was in when it ended, all
//! or nothing: a record, a rename, an unlink; a file that was being created may have any prefix of
//! its contents. What nobody wrote must not be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::mail;
use super::process::Progress;
use super::step::{FOLDER, LOG, RECORD, Step};
use super::step::{contents, first_name, other_beginning, read_record, second_name};

/// What a mount shows of the work of some writers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Operations that must be there.
    pub acknowledged: u64,
    /// Acknowledged, and not there.
    pub lost: Vec<String>,
    /// There, and half, double or by nobody.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// # Errors
    /// With the first things that are lost or wrong.
    pub fn expect_all(&self) -> Result<()> {
        if self.lost.is_empty() && self.wrong.is_empty() {
            return Ok(());
        }
        let first = self.lost.iter().map(|what| format!("lost: {what}"));
        let first = first.chain(self.wrong.iter().map(|what| format!("wrong: {what}")));
        let first: Vec<String> = first.take(20).collect();
        let (lost, wrong) = (self.lost.len(), self.wrong.len());
        anyhow::bail!("{lost} operations lost, {wrong} things wrong: {}", first.join("; "))
    }
}

/// Looks at everything below a mount.
///
/// # Errors
/// When something cannot be read.
pub fn judge(mount: &Path, writers: &[Progress]) -> Result<Verdict> {
    let mut verdict = Verdict {
        acknowledged: writers.iter().map(|writer| writer.acknowledged).sum(),
        ..Verdict::default()
    };
    let expected: Vec<Expected> = writers.iter().map(Expected::of).collect();
    let log = match fs::read(mount.join(LOG)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        log => log.context("reading the log")?,
    };
    judge_log(&log, &expected, &mut verdict);
    judge_folder(&mount.join(FOLDER), &expected, &mut verdict)?;
    mail::judge(&mount.join(mail::FOLDER), writers, &mut verdict)?;
    Ok(verdict)
}

/// What must and what may be there on account of one writer.
struct Expected {
    writer: u32,
    /// Numbers of records.
    records: BTreeSet<u64>,
    /// A record that may be there or not.
    maybe_record: Option<u64>,
    /// Files by name.
    files: BTreeMap<String, Contents>,
    /// How the files may be instead.
    or: Option<BTreeMap<String, Contents>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Contents {
    Exactly(Vec<u8>),
    PrefixOf(Vec<u8>),
}

impl Expected {
    fn of(progress: &Progress) -> Expected {
        let writer = progress.writer;
        let mut expected = Expected {
            writer,
            records: BTreeSet::new(),
            maybe_record: None,
            files: BTreeMap::new(),
            or: None,
        };
        for number in 0..progress.acknowledged {
            match progress.mix.step(number) {
                Step::Append(number) => {
                    expected.records.insert(number);
                }
                Step::Deliver(_) => {}
                step @ (Step::Create(_)
                | Step::Rename(_)
                | Step::Unlink(_)
                | Step::Overwrite(_)) => {
                    apply(writer, step, &mut expected.files);
                }
            }
        }
        if progress.tried > progress.acknowledged {
            match progress.mix.step(progress.acknowledged) {
                Step::Append(number) => expected.maybe_record = Some(number),
                Step::Deliver(_) => {}
                Step::Create(file) => {
                    let mut files = expected.files.clone();
                    let contents = Contents::PrefixOf(contents(writer, file));
                    files.insert(first_name(writer, file), contents);
                    expected.or = Some(files);
                }
                step @ (Step::Rename(_) | Step::Unlink(_) | Step::Overwrite(_)) => {
                    let mut files = expected.files.clone();
                    apply(writer, step, &mut files);
                    expected.or = Some(files);
                }
            }
        }
        expected
    }
}

fn apply(writer: u32, step: Step, files: &mut BTreeMap<String, Contents>) {
    match step {
        Step::Append(_) | Step::Deliver(_) => {}
        Step::Create(file) => {
            let contents = Contents::Exactly(contents(writer, file));
            files.insert(first_name(writer, file), contents);
        }
        Step::Rename(file) => {
            if let Some(contents) = files.remove(&first_name(writer, file)) {
                files.insert(second_name(writer, file), contents);
            }
        }
        Step::Unlink(file) => {
            files.remove(&first_name(writer, file));
        }
        Step::Overwrite(file) => {
            let other = other_beginning(writer, file);
            if let Some(Contents::Exactly(bytes)) = files.get_mut(&second_name(writer, file)) {
                bytes[..other.len()].copy_from_slice(&other);
            }
        }
    }
}

fn judge_log(log: &[u8], expected: &[Expected], verdict: &mut Verdict) {
    if !log.len().is_multiple_of(RECORD) {
        verdict.wrong.push(format!("the log has {} bytes, no whole records", log.len()));
    }
    let mut found: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for (index, bytes) in log.chunks_exact(RECORD).enumerate() {
        match read_record(bytes) {
            None => verdict.wrong.push(format!("record {index} of the log is nobody's")),
            Some((writer, number)) => {
                if !found.entry(writer).or_default().insert(number) {
                    verdict
                        .wrong
                        .push(format!("record {number} of writer {writer} is there twice"));
                }
            }
        }
    }
    for expected in expected {
        let found = found.remove(&expected.writer).unwrap_or_default();
        let writer = expected.writer;
        let lost = expected.records.difference(&found);
        verdict.lost.extend(lost.map(|number| format!("record {number} of writer {writer}")));
        let more = found.difference(&expected.records);
        let more = more.filter(|number| expected.maybe_record != Some(**number));
        verdict
            .wrong
            .extend(more.map(|number| format!("record {number} of writer {writer}, never tried")));
    }
    let strangers =
        found.keys().map(|writer| format!("records of writer {writer}, which is not there"));
    verdict.wrong.extend(strangers);
}

fn judge_folder(folder: &Path, expected: &[Expected], verdict: &mut Verdict) -> Result<()> {
    let mut found: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.context("reading the directory")?,
    };
    for entry in entries {
        let name = entry.context("reading the directory")?.file_name();
        let name = name.to_string_lossy().into_owned();
        let writer = name.strip_prefix('w').and_then(|rest| rest.split('-').next());
        match writer.and_then(|writer| writer.parse().ok()) {
            None => verdict.wrong.push(format!("{name} is nobody's")),
            Some(writer) => {
                if !found.entry(writer).or_default().insert(name.clone()) {
                    verdict.wrong.push(format!("{name} is listed twice"));
                }
            }
        }
    }
    for expected in expected {
        let names = found.remove(&expected.writer).unwrap_or_default();
        let (lost, wrong) = judge_files(folder, &names, &expected.files)?;
        if let Some(or) = &expected.or
            && !(lost.is_empty() && wrong.is_empty())
        {
            let (lost_or, wrong_or) = judge_files(folder, &names, or)?;
            if lost_or.is_empty() && wrong_or.is_empty() {
                continue;
            }
        }
        verdict.lost.extend(lost);
        verdict.wrong.extend(wrong);
    }
    let strangers =
        found.keys().map(|writer| format!("files of writer {writer}, which is not there"));
    verdict.wrong.extend(strangers);
    Ok(())
}

/// What is lost, and what is wrong.
fn judge_files(
    folder: &Path,
    names: &BTreeSet<String>,
    files: &BTreeMap<String, Contents>,
) -> Result<(Vec<String>, Vec<String>)> {
    let (mut lost, mut wrong) = (Vec::new(), Vec::new());
    for (name, contents) in files {
        if !names.contains(name) {
            lost.push(format!("file {name}"));
            continue;
        }
        let bytes = match fs::read(folder.join(name)) {
            Ok(bytes) => bytes,
            Err(error) => {
                lost.push(format!("file {name} cannot be read: {error}"));
                continue;
            }
        };
        match contents {
            Contents::Exactly(expected) if *expected == bytes => {}
            Contents::Exactly(expected) => lost.push(difference(name, expected, &bytes)),
            Contents::PrefixOf(whole) if whole.starts_with(&bytes) => {}
            Contents::PrefixOf(whole) => wrong.push(difference(name, whole, &bytes)),
        }
    }
    let more = names.iter().filter(|name| !files.contains_key(*name));
    wrong.extend(more.map(|name| format!("file {name} should not be there")));
    Ok((lost, wrong))
}

fn difference(name: &str, expected: &[u8], found: &[u8]) -> String {
    let at = expected.iter().zip(found).position(|(a, b)| a != b);
    let at = at.unwrap_or(expected.len().min(found.len()));
    let (all, has) = (expected.len(), found.len());
    format!("file {name} differs from byte {at} on; it has {has} bytes, expected {all}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Mix;
    use crate::load::step::record;
    use std::time::Duration;

    fn progress(acknowledged: u64, tried: u64) -> Progress {
        Progress {
            writer: 1,
            mix: Mix::Mixed,
            tried,
            acknowledged,
            longest_pause: Duration::ZERO,
            failure: None,
            has_ended: true,
        }
    }

    #[test]
    fn a_record_may_be_missing_only_if_it_was_not_acknowledged() {
        let judge = |numbers: &[u64], acknowledged, tried| {
            let log: Vec<u8> = numbers.iter().flat_map(|number| record(1, *number)).collect();
            let expected = [Expected::of(&progress(acknowledged, tried))];
            let mut verdict = Verdict::default();
            judge_log(&log, &expected, &mut verdict);
            (verdict.lost.len(), verdict.wrong.len())
        };
        // Records are operations 1, 3 and 5 of eight.
        assert_eq!(judge(&[1, 3], 4, 4), (0, 0));
        assert_eq!(judge(&[3, 1], 5, 6), (0, 0));
        assert_eq!(judge(&[1, 3, 5], 5, 6), (0, 0));
        assert_eq!(judge(&[1], 4, 4), (1, 0));
        assert_eq!(judge(&[1, 3, 5], 4, 5), (0, 1));
        assert_eq!(judge(&[1, 3, 3], 4, 4), (0, 1));
    }

    #[test]
    fn what_follows_from_operations_is_one_set_of_files_or_the_next() {
        let names = |progress: &Progress| {
            let expected = Expected::of(progress);
            let names = |files: &BTreeMap<String, Contents>| files.keys().cloned().collect();
            let or: Option<Vec<String>> = expected.or.as_ref().map(names);
            (names(&expected.files), or)
        };
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&progress(4, 4)), (own(&["w1-0", "w1-2"]), None));
        let after = own(&["w1-0-renamed", "w1-2"]);
        assert_eq!(names(&progress(4, 5)), (own(&["w1-0", "w1-2"]), Some(after)));
        assert_eq!(names(&progress(7, 7)), (own(&["w1-0-renamed"]), None));
    }
}
