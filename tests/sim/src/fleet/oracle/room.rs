//! Rule: when what filled a device is gone, everybody finds room within [`HEALED_WITHIN`]: nobody keeps
//! what he does not need. (That a change which finds none has not happened is seen by whoever made it:
//! [`crate::fleet::work`].)

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Violation;
use super::bounds::HEALED_WITHIN;
use crate::fleet::Fleet;
use crate::fleet::run::U;

impl Fleet {
    /// Whoever filled the device may not have come to make room again.
    pub(in crate::fleet) fn make_room(&self) -> Result<(), Violation> {
        let began = self.exec.now();
        let mut have_room = BTreeSet::new();
        while self.first().work.may_be_full() {
            let mut all = true;
            for life in self.lives().into_iter().flatten() {
                let Some(mount) = life.mount(0) else { continue };
                if have_room.contains(&life.member) {
                    continue;
                }
                let work = Arc::clone(&self.first().work);
                let found = async move { work.finds_room(&mount).await };
                match self.exec.run(life.group(), HEALED_WITHIN, found) {
                    Ok(Ok(true)) => {
                        have_room.insert(life.member);
                    }
                    Ok(Ok(false)) => all = false,
                    Ok(Err(error)) => {
                        return Err(Violation::new("room", format!("{}: {error}", life.member)));
                    }
                    Err(stopped) => {
                        return Err(Violation::new("room", format!("looking {stopped:?}")));
                    }
                }
            }
            if all {
                return Ok(());
            }
            if self.exec.now().since(began) > HEALED_WITHIN {
                self.lives().iter().flatten().for_each(|life| life.log_waits());
                let what = format!("only {have_room:?} find any again");
                return Err(Violation::new("room", what));
            }
            self.run_until(self.exec.now() + U)?;
        }
        Ok(())
    }
}
