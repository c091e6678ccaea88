//! Visits every state within given bounds.

use std::fmt::Write as _;

use stateright::{Checker as _, HasDiscoveries, Model as _, Path};

use crate::cluster::Cluster;
use crate::model::{Action, Bounds, Model};

/// Depth first: takes little memory, and since nothing goes on for long the ways are short all the
/// same.
///
/// # Panics
/// When something is found that must not be, with the way that leads there, or something was not
/// seen that has to be.
#[expect(clippy::print_stderr, reason = "how many states there were is worth knowing")]
pub(crate) fn visit_every_state(name: &str, bounds: Bounds) {
    let sights = bounds.sights;
    let found = HasDiscoveries::AnyFailures;
    let checker = Model::new(bounds).checker().finish_when(found).spawn_dfs().join();
    let mut discoveries = checker.discoveries();
    for sight in sights {
        assert!(discoveries.remove(sight.name).is_some(), "{name}: never {}", sight.name);
    }
    if let Some((what, way)) = discoveries.into_iter().next() {
        panic!("{name}: not always {what}:{}", told(way));
    }
    eprintln!("{name}: {} states, {} steps", checker.unique_state_count(), checker.state_count());
}

fn told(way: Path<Cluster, Action>) -> String {
    let mut text = String::new();
    let last = way.last_state().clone();
    for action in way.into_actions() {
        write!(text, "\n  {action:?}").expect("text grows");
    }
    write!(text, "\n{last:?}").expect("text grows");
    text
}
