//! Rule: after the last fault everything that waits is granted, and everything that was begun ends,
//! within [`HEALED_WITHIN`]: everybody has mounted, no operation is under way any more, and whoever looks
//! at everything then comes to an end, and sees what it has to.

use std::sync::Arc;

use mx_base::Duration;

use super::Violation;
use super::bounds::HEALED_WITHIN;
use crate::fleet::Fleet;
use crate::fleet::host::Life;
use crate::fleet::run::U;

impl Fleet {
    pub(in crate::fleet) fn until(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Fleet) -> bool,
    ) -> Result<(), Violation> {
        let began = self.exec.now();
        while !holds(self) {
            if self.exec.now().since(began) > limit {
                let lives = self.lives();
                lives.iter().flatten().for_each(|life| life.log_waits());
                let states: Vec<String> = lives.iter().flatten().map(|l| l.describe()).collect();
                let under_way = self.under_way();
                let what = format!(
                    "not within {limit:?}: {what}; {}; under way: {under_way:?}",
                    states.join("; ")
                );
                return Err(Violation::new("liveness", what));
            }
            self.run_until(self.exec.now() + U / 5)?;
        }
        Ok(())
    }

    pub(in crate::fleet) fn under_way(&self) -> Vec<String> {
        self.works().flat_map(|work| work.under_way(None)).collect()
    }

    pub(in crate::fleet) fn until_all_have_mounted(&self) -> Result<(), Violation> {
        let stays = |life: &Arc<Life>| !life.is_leaving() && !life.has_ended();
        let has_mounted = |life: &Arc<Life>| life.has_mounted() && stays(life);
        self.until("everybody has mounted again", HEALED_WITHIN, |f| {
            f.lives().iter().all(|life| life.as_ref().is_some_and(has_mounted))
        })
    }

    /// Whoever was silent at the last fault may be expelled although it is heard again: a view that
    /// is being committed is not taken back. Then its next life is looked at, once.
    pub(in crate::fleet) fn look_at_the_end(&self) -> Result<(), Violation> {
        if self.look_at_all()? {
            return Ok(());
        }
        self.until_all_have_mounted()?;
        if self.look_at_all()? {
            return Ok(());
        }
        Err(Violation::new("life", "one has ended again, long behind the last fault"))
    }

    /// False when one ended by itself, which excuses what it did not see.
    fn look_at_all(&self) -> Result<bool, Violation> {
        let mut all = true;
        for volume in 0..self.volumes.len() {
            all &= self.look_at_all_of(volume)?;
        }
        Ok(all)
    }

    fn look_at_all_of(&self, volume: usize) -> Result<bool, Violation> {
        let mut all = true;
        for life in self.lives().into_iter().flatten() {
            let Some(mount) = life.mount(volume) else { continue };
            let group = life.group();
            let app = self.app(volume, &life, &mount);
            let done = self.exec.run(group, HEALED_WITHIN, async move { app.look_at_all().await });
            match done {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) if life.has_ended() => all = false,
                Ok(Err(error)) => {
                    return Err(Violation::new("errors", format!("{}: {error}", life.member)));
                }
                Err(stopped) => {
                    self.lives().iter().flatten().for_each(|life| life.log_waits());
                    let left = self.under_way();
                    let what = format!("{}: looking {stopped:?}: {left:?}", life.member);
                    return Err(Violation::new("liveness", what));
                }
            }
            self.check()?;
        }
        Ok(all)
    }
}
