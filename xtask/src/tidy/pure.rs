//! The clippy.toml that keeps a crate pure: the same in all of them.
//!
//! A clippy.toml in a folder of a crate replaces the root one, so each pure crate has its own.

use super::arrows;
use crate::workspace::File;

/// The one that the others are copies of; `cargo xtask fix` lays them.
pub(crate) const MODEL: &str = "dlm/clippy.toml";

pub(crate) fn check(files: &[File]) -> Vec<String> {
    let find = |path: &str| files.iter().find(|file| file.path == path);
    let Some(model) = find(MODEL) else {
        return vec![format!("{MODEL}: missing; it is the model for all pure crates")];
    };
    let finding = |row: &arrows::Row| {
        let path = format!("{}/clippy.toml", row.folder);
        match find(&path) {
            Some(file) if file.text == model.text => None,
            Some(_) => Some(format!("{path}: should be the same as {MODEL}; cargo xtask fix")),
            None => Some(format!("{path}: missing; cargo xtask fix lays it")),
        }
    };
    arrows::pure().filter_map(finding).collect()
}
