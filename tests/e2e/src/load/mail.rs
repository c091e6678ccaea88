//! Mail, delivered into a folder as <https://cr.yp.to/proto/maildir.html> says: written and made
//! durable under a name of its own in `tmp`, then given that name in `new`; whoever reads mail
//! moves it to `cur` and puts its marks behind the name.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::judge::Verdict;
use super::process::Progress;
use super::step::{Mix, contents};

/// The folder, in the root of the mount.
pub const FOLDER: &str = "mail";

/// What begins the marks of a mail in `cur`.
const MARKS: &str = ":2,";

/// Makes the folder; somebody else may do so at the same time.
///
/// # Errors
/// When it cannot be made.
pub fn prepare(folder: &Path) -> io::Result<()> {
    ["tmp", "new", "cur"].iter().try_for_each(|name| fs::create_dir_all(folder.join(name)))
}

/// Delivers a mail; it is durable when this returns.
///
/// # Errors
/// What an operation says.
pub fn deliver(folder: &Path, writer: u32, number: u64) -> io::Result<()> {
    let name = format!("w{writer}-{number}");
    let (tmp, new) = (folder.join("tmp").join(&name), folder.join("new").join(&name));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&tmp)?;
    file.write_all(&contents(writer, number))?;
    file.sync_all()?;
    // Both are done by programs.
    if number.is_multiple_of(2) {
        fs::hard_link(&tmp, &new)?;
        fs::remove_file(&tmp)?;
    } else {
        fs::rename(&tmp, &new)?;
    }
    File::open(folder.join("new"))?.sync_all()
}

/// Every acknowledged mail must be there once, in `new` or in `cur`, and whole; of one that was
/// being delivered the same or nothing, but what is left in `tmp`.
pub(super) fn judge(folder: &Path, writers: &[Progress], verdict: &mut Verdict) -> Result<()> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for place in ["new", "cur"] {
        for name in names(&folder.join(place))? {
            let path = folder.join(place).join(&name);
            let mail = name.split(MARKS).next().unwrap_or_default().to_owned();
            if found.insert(mail, path).is_some() {
                verdict.wrong.push(format!("mail {name} is there twice"));
            }
        }
    }
    let mut left = names(&folder.join("tmp"))?;
    for progress in writers.iter().filter(|progress| progress.mix == Mix::Mail) {
        let Progress { writer, acknowledged, tried, .. } = progress;
        for number in 0..*tried {
            let name = format!("w{writer}-{number}");
            let is_acknowledged = number < *acknowledged;
            match found.remove(&name) {
                None if is_acknowledged => verdict.lost.push(format!("mail {name}")),
                None => {}
                Some(path) => {
                    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
                    if bytes != contents(*writer, number) {
                        verdict.wrong.push(format!("mail {name} has other contents"));
                    }
                }
            }
            if !is_acknowledged {
                left.retain(|left| *left != name);
            }
        }
    }
    verdict.wrong.extend(found.keys().map(|name| format!("mail {name} is nobody's")));
    verdict.wrong.extend(left.iter().map(|name| format!("mail {name} is in tmp")));
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn judged(folder: &Path, acknowledged: u64, tried: u64) -> (Vec<String>, Vec<String>) {
        let (longest_pause, failure) = (Duration::ZERO, None);
        let progress = Progress {
            writer: 1,
            mix: Mix::Mail,
            tried,
            acknowledged,
            longest_pause,
            failure,
            has_ended: true,
        };
        let mut verdict = Verdict::default();
        judge(folder, &[progress], &mut verdict).expect("readable");
        (verdict.lost, verdict.wrong)
    }

    #[test]
    fn mail_is_there_once_wherever_it_was_moved_and_what_was_not_acknowledged_may_lie_in_tmp() {
        let folder = std::env::temp_dir().join(format!("mx-mail-{}", std::process::id()));
        prepare(&folder).expect("made");
        for number in 0..4 {
            deliver(&folder, 1, number).expect("delivered");
        }
        fs::rename(folder.join("new/w1-1"), folder.join("cur/w1-1:2,S")).expect("moved");
        fs::write(folder.join("tmp/w1-4"), "half").expect("written");
        let none = (Vec::new(), Vec::new());
        let all = judged(&folder, 4, 5);
        let early = judged(&folder, 4, 4);
        fs::copy(folder.join("cur/w1-1:2,S"), folder.join("new/w1-1")).expect("copied");
        let twice = judged(&folder, 4, 5);
        fs::remove_file(folder.join("new/w1-1")).expect("removed");
        fs::remove_file(folder.join("new/w1-2")).expect("removed");
        fs::write(folder.join("new/w1-3"), "other").expect("written");
        let lost = judged(&folder, 4, 5);
        fs::remove_dir_all(&folder).expect("removed");
        let one = |text: &str| vec![text.to_owned()];
        assert_eq!(all, none);
        assert_eq!(early, (Vec::new(), one("mail w1-4 is in tmp")));
        assert_eq!(twice.1.len(), 1, "{twice:?}");
        assert_eq!(lost, (one("mail w1-2"), one("mail w1-3 has other contents")));
    }
}
