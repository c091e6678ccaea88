//! An exploration as a test.

use crate::explore::explore;
use crate::model::Bounds;

/// # Panics
/// When something is found that must not be, or not seen that has to be.
#[expect(clippy::print_stderr, reason = "how many states there were is worth knowing")]
pub(crate) fn visit_every_state(name: &str, bounds: Bounds) {
    match explore(bounds) {
        Ok(counts) => eprintln!("{name}: {counts}"),
        Err(found) => panic!("{name}: {found}"),
    }
}
