//! The result as an object, and as a table.

use std::fmt;
use std::path::PathBuf;

use e2e::reports::Recovery;
use e2e::{Cluster, Killed};
use serde_json::json;

/// What `--json` prints.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) ok: bool,
    pub(super) nodes: usize,
    pub(super) mounts: Vec<PathBuf>,
    pub(super) device: PathBuf,
    pub(super) acknowledged: u64,
    pub(super) lost: u64,
    pub(super) recovery: Times,
}

/// Milliseconds from the kill; `None` for what did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Times {
    pub(super) suspected: Option<u64>,
    pub(super) fenced: Option<u64>,
    pub(super) rebuilt: Option<u64>,
    pub(super) replayed: Option<u64>,
    pub(super) resumed: Option<u64>,
}

impl Times {
    /// `viewer_ms`: the wall clock of whoever reports, at the report.
    pub(super) fn of(killed: &Killed, viewer_ms: u64, recovery: &Recovery) -> Times {
        let suspected_at = viewer_ms.saturating_sub(recovery.suspected_ago_ms);
        let suspected = suspected_at.saturating_sub(killed.wall_ms);
        let from_kill = |ms: Option<u64>| ms.map(|ms| suspected + ms);
        // Recovered when the last file system is.
        let last = |of: fn(&e2e::reports::FsRecovery) -> Option<u64>| {
            let times: Option<Vec<u64>> = recovery.file_systems.iter().map(of).collect();
            from_kill(times.and_then(|times| times.into_iter().max()))
        };
        Times {
            suspected: Some(suspected),
            fenced: from_kill(recovery.fenced_ms),
            rebuilt: last(|fs| fs.rebuilt_ms),
            replayed: last(|fs| fs.replayed_ms),
            resumed: last(|fs| fs.resumed_ms),
        }
    }
}

impl Report {
    pub(super) fn describe(&mut self, cluster: &Cluster) {
        let nodes = cluster.nodes();
        self.nodes = nodes.len();
        self.mounts = nodes.into_iter().map(|node| cluster.mount(node)).collect();
        self.device = cluster.device();
    }

    /// In the order of the documentation.
    pub(super) fn json(&self) -> String {
        let Report { ok, nodes, mounts, device, acknowledged, lost, recovery } = self;
        let Times { suspected, fenced, rebuilt, replayed, resumed } = recovery;
        let (mounts, device) = (json!(mounts), json!(device));
        let times = [
            ("suspected", suspected),
            ("fenced", fenced),
            ("rebuilt", rebuilt),
            ("replayed", replayed),
            ("resumed", resumed),
        ];
        let times = times.map(|(phase, at)| format!("\"{phase}_ms\":{}", json!(at))).join(",");
        format!(
            "{{\"ok\":{ok},\"nodes\":{nodes},\"mounts\":{mounts},\"device\":{device},\
             \"acknowledged\":{acknowledged},\"lost\":{lost},\"recovery\":{{{times}}}}}"
        )
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("suspected", self.suspected, "its connections broke, its heartbeats stopped"),
            ("fenced", self.fenced, "no write of it can reach the device any more"),
            ("rebuilt", self.rebuilt, "the locks it decided about have a new home"),
            ("replayed", self.replayed, "what its journal promises is in place"),
            ("resumed", self.resumed, "nobody waits for it any more"),
        ];
        for (phase, at, meaning) in rows {
            match at {
                Some(ms) => writeln!(f, "  {phase:10} {ms:6} ms  {meaning}")?,
                None => writeln!(f, "  {phase:10}      -     not needed")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_one_object_with_the_documented_fields_in_order() {
        let recovery = Times { suspected: Some(1), fenced: None, ..Times::default() };
        let report = Report {
            mounts: vec!["/m".into()],
            device: "/\"d".into(),
            recovery,
            ..Report::default()
        };
        let text = report.json();
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["device"], "/\"d");
        assert_eq!(value["recovery"]["suspected_ms"], 1);
        let fields = ["ok", "nodes", "mounts", "device", "acknowledged", "lost", "recovery"];
        let places = fields.map(|field| text.find(&format!("\"{field}\":")).expect("it is there"));
        assert!(places.is_sorted(), "{text}");
    }
}
