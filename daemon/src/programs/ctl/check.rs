//! `mxctl fs check --online`: asks for one piece after the other, and shows how far it is.

use indicatif::{ProgressBar, ProgressStyle};
use mx_node::report::{CheckCursor, FsCheck};

use crate::admin::{Client, ClientError};

/// The whole file system. Drawn on standard error if that is a terminal.
pub(super) fn run(client: &mut Client, data: bool) -> Result<FsCheck, ClientError> {
    let template = "{prefix} [{bar:40}] {percent}% {msg}";
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(1).with_style(style).with_prefix("checking");
    let mut done = client.fs_check(CheckCursor::default(), data)?;
    while let Some(next) = done.next {
        bar.set_length(done.groups);
        bar.set_position(next.group);
        bar.set_message(format!("{} inodes, {} problems", done.inodes, done.problems.len()));
        let mut more = client.fs_check(next, data)?;
        done.problems.append(&mut more.problems);
        done = FsCheck {
            problems: done.problems,
            inodes: done.inodes + more.inodes,
            directories: done.directories + more.directories,
            entries: done.entries + more.entries,
            data_bytes: done.data_bytes + more.data_bytes,
            skipped: done.skipped + more.skipped,
            ..more
        };
    }
    bar.finish_and_clear();
    Ok(done)
}
