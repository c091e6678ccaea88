//! Which run: what leaves nothing to the seed.

use std::io::Read as _;
use std::path::PathBuf;

use sim::fleet::plan::{FaultName, Plan, Wishes, Workload};

/// What is wanted of a run instead of leaving it to the seed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Wish {
    /// Nodes of the cluster, instead of what the seed draws
    #[arg(long, value_name = "1-16", value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: Option<u16>,
    /// What applications do: mixed, counters, sizes, names, blobs, logs, registers, file-locks or tree
    #[arg(long, value_name = "NAME")]
    workload: Option<Workload>,
    /// The only thing that goes wrong; an unknown name lists the known ones
    #[arg(long, value_name = "NAME")]
    fault: Option<FaultName>,
}

impl Wish {
    pub(crate) fn plan(&self, seed: u64) -> Plan {
        let Wish { nodes, workload, fault } = *self;
        Plan::wished(seed, Wishes { nodes: nodes.map(usize::from), workload, fault })
    }

    /// As options of a command.
    pub(crate) fn words(&self) -> String {
        let mut words = String::new();
        if let Some(nodes) = self.nodes {
            words += &format!(" --nodes {nodes}");
        }
        let name = |known: Option<&'static str>| known.expect("every one has a name");
        if let Some(workload) = self.workload {
            let known = Workload::ALL.iter().find(|(known, _)| *known == workload);
            words += &format!(" --workload {}", name(known.map(|(_, name)| *name)));
        }
        if let Some(fault) = self.fault {
            let known = FaultName::ALL.iter().find(|(known, _)| *known == fault);
            words += &format!(" --fault {}", name(known.map(|(_, name)| *name)));
        }
        words
    }
}

/// One run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct One {
    #[arg(required_unless_present = "plan", conflicts_with = "plan")]
    seed: Option<u64>,
    #[command(flatten)]
    wish: Wish,
    /// A plan that was written down as JSON, - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "workload", "fault"])]
    plan: Option<PathBuf>,
}

impl One {
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn plan(&self) -> Result<Plan, String> {
        let Some(path) = &self.plan else {
            return Ok(self.wish.plan(self.seed.expect("a seed or a plan")));
        };
        let mut text = String::new();
        let read = match path.to_str() {
            Some("-") => std::io::stdin().read_to_string(&mut text).map(|_| ()),
            _ => std::fs::read_to_string(path).map(|read| text = read),
        };
        read.map_err(|e| format!("{}: {e}", path.display()))?;
        let plan = Plan::from_json(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        plan.check().map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(plan)
    }
}
