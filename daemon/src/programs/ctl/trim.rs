//! `mxctl fs trim`: asks for one part after the other, and shows how far it is.

use indicatif::{ProgressBar, ProgressStyle};
use mx_node::report::FsTrim;

use crate::admin::{Client, ClientError};

/// All groups. Drawn on standard error if that is a terminal.
pub(super) fn run(client: &mut Client, minimum_bytes: u64) -> Result<FsTrim, ClientError> {
    let style = ProgressStyle::with_template("{prefix} [{bar:40}] {percent}%");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(1).with_style(style).with_prefix("trimming");
    let mut done = client.fs_trim(0, minimum_bytes)?;
    while let Some(next) = done.next {
        bar.set_length(done.groups);
        bar.set_position(next);
        let more = client.fs_trim(next, minimum_bytes)?;
        done = FsTrim {
            bytes: done.bytes + more.bytes,
            groups_skipped: done.groups_skipped + more.groups_skipped,
            ..more
        };
    }
    bar.finish_and_clear();
    Ok(done)
}
