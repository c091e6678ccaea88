//! mxctl lock top: rates of the hottest resources, from two accounts of the same daemon.

use std::collections::BTreeMap;
use std::io::Write;
use std::thread;
use std::time::Duration;

use mx_node::report::{Hot, LockTop, Viewer};
use serde::Serialize;

use super::{CtlError, Printer, table};
use crate::admin::Client;

/// One refresh: events per second since the one before.
#[derive(PartialEq, Debug, Serialize)]
pub(super) struct Rates {
    pub(super) viewer: Viewer,
    pub(super) seconds: f64,
    pub(super) resources: Vec<Rate>,
}

#[derive(PartialEq, Debug, Serialize)]
pub(super) struct Rate {
    pub(super) resource: String,
    pub(super) requests: f64,
    pub(super) callouts: f64,
    pub(super) surrenders: f64,
    pub(super) waits: f64,
    /// Milliseconds of all operations together, for each second.
    pub(super) waited_ms: f64,
}

/// Seconds: 0.1 to 3600.
pub(super) fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected 0.1 to 3600 seconds".to_owned()),
    }
}

pub(super) fn run<W: Write>(
    client: &mut Client,
    printer: &mut Printer<'_, W>,
    count: usize,
    interval: f64,
    once: bool,
) -> Result<(), CtlError> {
    let mut before = client.lock_top()?;
    loop {
        thread::sleep(Duration::from_secs_f64(interval));
        let after = client.lock_top()?;
        printer.print(&rates(&before, &after, count), table::top)?;
        if once {
            return Ok(());
        }
        before = after;
    }
}

fn rates(before: &LockTop, after: &LockTop, count: usize) -> Rates {
    let micros = after.clock_us.saturating_sub(before.clock_us).max(1);
    let seconds = Duration::from_micros(micros).as_secs_f64();
    let known: BTreeMap<_, _> = before.resources.iter().map(|hot| (&hot.resource, hot)).collect();
    let nothing = Hot::default();
    let mut all: Vec<Hot> = Vec::new();
    for now in &after.resources {
        let old = *known.get(&now.resource).unwrap_or(&&nothing);
        // What was forgotten meanwhile is counted from its new beginning.
        let since = |now: u64, old: u64| now.checked_sub(old).unwrap_or(now);
        let hot = Hot {
            resource: now.resource.clone(),
            requests: since(now.requests, old.requests),
            callouts: since(now.callouts, old.callouts),
            surrenders: since(now.surrenders, old.surrenders),
            waits: since(now.waits, old.waits),
            waited_us: since(now.waited_us, old.waited_us),
        };
        if messages(&hot) + hot.waits > 0 {
            all.push(hot);
        }
    }
    all.sort_by_key(|hot| std::cmp::Reverse((hot.waited_us, messages(hot))));
    all.truncate(count);
    let rate = |count: u64| Duration::from_micros(count).as_secs_f64() * 1e6 / seconds;
    let resources = all.into_iter().map(|hot| Rate {
        requests: rate(hot.requests),
        callouts: rate(hot.callouts),
        surrenders: rate(hot.surrenders),
        waits: rate(hot.waits),
        waited_ms: rate(hot.waited_us) / 1000.0,
        resource: hot.resource,
    });
    Rates { viewer: after.viewer.clone(), seconds, resources: resources.collect() }
}

fn messages(hot: &Hot) -> u64 {
    hot.requests + hot.callouts + hot.surrenders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot(resource: &str, requests: u64, waited_us: u64) -> Hot {
        let waits = u64::from(waited_us > 0);
        Hot { resource: resource.to_owned(), requests, waits, waited_us, ..Hot::default() }
    }

    #[test]
    fn rates_are_of_what_happened_in_between_and_the_hottest_come_first() {
        let at = |clock_us, resources| LockTop { viewer: Viewer::default(), clock_us, resources };
        let before = at(1_000_000, vec![hot("a", 10, 0), hot("b", 50, 0), hot("idle", 9, 9)]);
        let after = vec![hot("a", 12, 8000), hot("b", 4, 0), hot("c", 6, 0), hot("idle", 9, 9)];
        let rates = rates(&before, &at(3_000_000, after), 2);
        let shown: Vec<_> = rates.resources.iter().map(|r| (&*r.resource, r.requests)).collect();
        assert_eq!(shown, [("a", 1.0), ("c", 3.0)]);
        assert!((rates.resources[0].waited_ms - 4.0).abs() < 1e-9);
        assert!((rates.seconds - 2.0).abs() < 1e-9);
    }

    #[test]
    fn an_interval_is_neither_nothing_nor_for_ever() {
        assert_eq!(interval("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "NaN", "inf", "1e9", "x"] {
            interval(wrong).expect_err(wrong);
        }
    }
}
