//! Rule: after everybody has left, every device is without fault: nothing is found by the check of the
//! file system but objects that were isolated because the medium was damaged.

use mfs::fsck;
use mx_base::Duration;

use super::Violation;
use crate::disk::Device;
use crate::exec::{Executor, Stopped};
use crate::fleet::volume::Volume;
use crate::fleet::{Fleet, WORLD};

impl Fleet {
    pub(in crate::fleet) fn check_devices(&self) -> Result<(), Violation> {
        self.mend_medium();
        self.volumes.iter().try_for_each(|volume| self.check_device(volume))
    }

    fn check_device(&self, volume: &Volume) -> Result<(), Violation> {
        let exec = Executor::new(self.plan.seed);
        let device = Device::new(volume.arbiter.device.blocks(), volume.arbiter.device.visible());
        let port = device.port(&exec);
        let limit = Duration::from_secs(600);
        let report = exec
            .run(WORLD, limit, async move { fsck::check(port, &mut |_, _, _| {}).await })
            .map_err(|s: Stopped| Violation::new("fsck", format!("stopped: {s:?}")))?
            .map_err(|e| Violation::new("fsck", e.to_string()))?;
        let damaged = volume.work.damaged();
        let is_expected =
            |found: &fsck::Problem| found.what == fsck::ISOLATED && damaged.contains(&found.object);
        let problems: Vec<_> = report.problems.into_iter().filter(|p| !is_expected(p)).collect();
        match &problems[..] {
            [] => Ok(()),
            problems => {
                let first: Vec<String> = problems.iter().take(8).map(ToString::to_string).collect();
                let what = format!("found {}: {}", problems.len(), first.join("; "));
                Err(Violation::new("fsck", what))
            }
        }
    }
}
