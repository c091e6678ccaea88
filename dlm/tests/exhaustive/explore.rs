//! Visits every state within given bounds.

use std::fmt::Write as _;

use stateright::{Checker as _, HasDiscoveries, Model as _, Path};

use crate::cluster::Cluster;
use crate::model::{Action, Bounds, Model};

/// Tells how many states there were, and of how many ways from one to a next one.
///
/// Depth first: takes little memory, and since nothing goes on for long the ways are short all the
/// same.
///
/// # Errors
/// When something is found that must not be: what, and on further lines the way that leads there.
/// Or what had to be seen and was not.
pub(crate) fn explore(bounds: Bounds) -> Result<String, String> {
    let sights = bounds.sights;
    let finish = HasDiscoveries::AnyFailures;
    let checker = Model::new(bounds).checker().finish_when(finish).spawn_dfs().join();
    let mut discoveries = checker.discoveries();
    let unseen = sights.iter().map(|sight| sight.name);
    let unseen: Vec<&str> = unseen.filter(|name| discoveries.remove(name).is_none()).collect();
    if let Some((what, way)) = discoveries.into_iter().next() {
        return Err(format!("not always \"{what}\"{}", told(way)));
    }
    if !unseen.is_empty() {
        return Err(format!("never seen: {unseen:?}"));
    }
    Ok(format!("{} states, {} steps", checker.unique_state_count(), checker.state_count()))
}

fn told(way: Path<Cluster, Action>) -> String {
    let last = way.last_state().clone();
    let actions = way.into_actions();
    let fault = last.fault.as_deref().unwrap_or_default();
    let mut text = format!(" after {} steps: {fault}", actions.len());
    for action in actions {
        write!(text, "\n  {action:?}").expect("text grows");
    }
    write!(text, "\n{last:?}").expect("text grows");
    text
}
