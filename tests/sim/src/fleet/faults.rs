//! Makes happen what a plan says goes wrong, and ends it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mfs::block::BlockNo;
use mfs::fsck::online::Cursor;
use model::Random;
use mx_base::Duration;

use super::aim::Shot;
use super::arbiter::Arbiter;
use super::host::{Life, host_of, node_id};
use super::plan::Fault;
use super::{Fleet, WORLD};
use crate::disk::Replayer;

/// Between two attempts to make room on the device.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long others may take to come to rest, and how long they do at most.
const FREEZE_WITHIN: Duration = Duration::from_secs(4);
const FROZEN_AT_MOST: Duration = Duration::from_secs(3);
/// After the power of all came back, and before processes start.
const POWER_BACK: Duration = Duration::from_millis(100);

impl Fleet {
    pub(super) fn fault(&self, fault: Fault) {
        tracing::info!(?fault, "FAULT");
        match fault {
            Fault::Crash { host, restart } => {
                if let Some(life) = self.life(host) {
                    self.crash(&life, restart);
                }
            }
            Fault::CrashStep { host, steps, restart } => {
                if let Some(life) = self.life(host) {
                    let (fleet, group) = (self.clone(), life.group());
                    self.exec.after_polls(group, steps, move || {
                        if fleet.oracle.is_lost(life.id) && life.node().is_none() {
                            return;
                        }
                        fleet.crash(&life, restart);
                    });
                }
            }
            Fault::PowerOff { host, restart } => {
                self.stop_host(host);
                if let Some(life) = self.life(host) {
                    self.power_off(&life, restart);
                }
            }
            Fault::Pause { host, length } => {
                if let Some(life) = self.life(host) {
                    self.exec.pause(life.group());
                    self.later(length, move |fleet| fleet.exec.resume(life.group()));
                }
            }
            Fault::Partition { mask, length } => {
                let inside = |host: usize| mask >> host & 1 == 1;
                for from in 0..self.plan.nodes {
                    for to in (0..self.plan.nodes).filter(|to| inside(from) != inside(*to)) {
                        self.net.cut(node_id(from), node_id(to));
                    }
                }
                self.later(length, |fleet| fleet.net.reconnect());
            }
            Fault::OneWay { from, to, length } => {
                self.net.cut(node_id(from), node_id(to));
                self.later(length, |fleet| fleet.net.reconnect());
            }
            Fault::SlowLink { from, to, extra, length } => {
                let (from, to) = (node_id(from), node_id(to));
                self.net.slow(from, to, extra);
                self.later(length, move |fleet| fleet.net.slow(from, to, Duration::ZERO));
            }
            Fault::Reorder { spread, length } => {
                self.net.spread(spread);
                self.later(length, |fleet| fleet.net.spread(Duration::ZERO));
            }
            Fault::BreakConnections { percent } => self.net.break_some(percent),
            Fault::HalfOpen { percent, late } => self.net.half_open(percent, late),
            Fault::CutStorage { host, length } => {
                self.arbiters().for_each(|arbiter| arbiter.cut(node_id(host)));
                self.later(length, move |fleet| {
                    fleet.arbiters().for_each(|arbiter| arbiter.reconnect(node_id(host)));
                });
            }
            Fault::SlowStorage { host, extra, length } => {
                self.arbiters().for_each(|arbiter| arbiter.slow(node_id(host), extra));
                self.later(length, move |fleet| {
                    fleet.arbiters().for_each(|a| a.slow(node_id(host), Duration::ZERO));
                });
            }
            Fault::StuckWrite { host, length } => {
                self.arbiters().for_each(|arbiter| arbiter.stick(node_id(host), true));
                self.later(length, move |fleet| {
                    fleet.arbiters().for_each(|arbiter| arbiter.stick(node_id(host), false));
                });
            }
            Fault::LateWrite { host, hold, late, restart } => {
                if let Some(life) = self.life(host) {
                    self.arbiters().for_each(|arbiter| arbiter.hold(life.id, late));
                    self.later(hold, move |fleet| {
                        if fleet.oracle.is_lost(life.id) && life.node().is_none() {
                            return;
                        }
                        fleet.crash(&life, restart);
                    });
                }
            }
            Fault::ReadError { victim } => {
                if let Some(inode) = self.first().work.damage(victim) {
                    self.first().arbiter.device.damage(BlockNo(inode.0));
                }
            }
            Fault::BitFlip { victim, bit } => {
                if let Some(inode) = self.first().work.damage(victim) {
                    let at = BlockNo(inode.0);
                    let bit = usize::try_from(bit).expect("within a block");
                    let (before, after) = self.first().arbiter.flip(at, bit);
                    self.flipped.lock().push((at, before, after));
                }
            }
            Fault::HeadFlip { host, copy, bit, restart } => {
                if let Some(life) = self.life(host)
                    && let Some(mount) = life.mount(0)
                {
                    let volume = self.first();
                    let at = volume.layout.slot_heads(mount.fs.slot())[copy];
                    let bit = usize::try_from(bit).expect("within a block");
                    volume.arbiter.flip(at, bit);
                    self.crash(&life, restart);
                }
            }
            Fault::DeviceFull { host, length } => self.fill(host, length),
            Fault::Freeze { host, length } => self.freeze(host, length),
            Fault::Check { host } => self.check_in_use(host),
            Fault::WallJump { host, seconds } => self.clocks[host].jump(seconds),
            Fault::Leave { host, restart } => {
                if let Some(life) = self.life(host)
                    && life.has_mounted()
                {
                    self.want_later(host, restart);
                    self.leave(life);
                }
            }
            Fault::LoseJournal { host, restart } => {
                if let Some(life) = self.life(host) {
                    self.lose_journal(&life);
                    self.crash(&life, restart);
                }
            }
            Fault::Aimed { part, steps, blow, restart } => {
                self.shoot(Shot { part, steps, blow, restart });
            }
            Fault::PowerFailure => self.power_failure(),
        }
    }

    pub(super) fn life(&self, host: usize) -> Option<Arc<Life>> {
        self.hosts[host].life.lock().clone()
    }

    pub(super) fn arbiters(&self) -> impl Iterator<Item = &Arbiter> {
        self.volumes.iter().map(|volume| &volume.arbiter)
    }

    fn later(&self, delay: Duration, act: impl FnOnce(&Fleet) + Send + 'static) {
        let fleet = self.clone();
        self.exec.spawn(WORLD, async move {
            fleet.exec.sleep(delay).await;
            act(&fleet);
        });
    }

    /// The process dies, and starts again behind `restart`.
    pub(super) fn crash(&self, life: &Arc<Life>, restart: Duration) {
        self.want_later(host_of(life.member.node), restart);
        self.die(life, false);
    }

    /// As [`Fleet::crash`], and nobody hears of its host.
    pub(super) fn power_off(&self, life: &Arc<Life>, restart: Duration) {
        self.net.host_up(life.member.node, false);
        self.want_later(host_of(life.member.node), restart);
        self.die(life, true);
    }

    /// No new life before so long.
    pub(super) fn want_later(&self, host: usize, delay: Duration) {
        self.hosts[host].is_wanted.store(false, Ordering::SeqCst);
        self.later(delay, move |fleet| fleet.want_at_once(host));
    }

    pub(super) fn want_at_once(&self, host: usize) {
        self.net.host_up(node_id(host), true);
        if !self.hosts[host].is_done.load(Ordering::SeqCst) {
            self.hosts[host].is_wanted.store(true, Ordering::SeqCst);
        }
    }

    fn power_failure(&self) {
        for (host, life) in self.lives().into_iter().enumerate() {
            self.stop_host(host);
            if let Some(life) = life {
                self.want_later(host, POWER_BACK);
                self.kill(&life, true);
            }
        }
        self.arbiters().for_each(Arbiter::power_failure);
    }

    /// Somebody writes until there is no room left, and removes it all after a while.
    fn fill(&self, host: usize, length: Duration) {
        let Some(life) = self.life(host) else { return };
        let Some(mount) = life.mount(0) else { return };
        self.first().work.fills();
        let (work, exec) = (Arc::clone(&self.first().work), self.exec.clone());
        let of = Arc::clone(&life);
        self.spawn_at_work(&life, async move {
            if let Err(error) = work.fill(&mount).await {
                tracing::info!(%error, "the device is full, or its filler gone");
            }
            let until = exec.now() + length;
            while exec.now() < until && !of.is_leaving() {
                exec.sleep(LOOK_AGAIN).await;
            }
            if let Err(error) = work.make_room(&mount).await {
                tracing::info!(%error, "no room is made");
            }
        });
    }

    /// Nobody changes anything for so long, unless somebody dies or others do not come to rest soon.
    fn freeze(&self, host: usize, length: Duration) {
        let Some(life) = self.life(host) else { return };
        let Some(mount) = life.mount(0) else { return };
        let fleet = self.clone();
        let of = Arc::clone(&life);
        self.spawn_at_work(&life, async move {
            let fs = mount.served().await;
            if let Err(error) = fs.freeze(FREEZE_WITHIN, FROZEN_AT_MOST).await {
                return tracing::info!(%error, "not frozen");
            }
            let judge = fleet.first().arbiter.judge();
            judge.frozen(Some(of.member));
            let until = fleet.exec.now() + length;
            while fleet.exec.now() < until && !of.is_leaving() {
                fleet.exec.sleep(LOOK_AGAIN.min(until.since(fleet.exec.now()))).await;
            }
            judge.frozen(None);
            fs.thaw();
        });
    }

    /// What is right is not told to be wrong, whatever goes on meanwhile.
    fn check_in_use(&self, host: usize) {
        let Some(life) = self.life(host) else { return };
        let Some(mount) = life.mount(0) else { return };
        let fleet = self.clone();
        let of = Arc::clone(&life);
        self.spawn_at_work(&life, async move {
            let fs = mount.served().await;
            let mut next = Some(Cursor::default());
            while let Some(from) = next
                && !of.is_leaving()
            {
                let piece = match fs.check_online(from, true).await {
                    Ok(piece) => piece,
                    Err(error) => return tracing::info!(%error, "not checked"),
                };
                if !fleet.harms_media {
                    for problem in &piece.problems {
                        fleet.oracle.violation("online check", format!("{}: {problem}", of.member));
                    }
                }
                next = piece.next;
                if next.is_none() {
                    fleet.checks.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }

    pub(super) fn heal(&self) {
        tracing::info!("everything heals");
        self.exec.disarm();
        self.deaths.cease();
        self.net.heal();
        self.arbiters().for_each(Arbiter::heal);
        self.arbiters().for_each(|arbiter| arbiter.device.mend());
        for (host, life) in self.lives().into_iter().enumerate() {
            self.net.host_up(node_id(host), true);
            if let Some(life) = life {
                self.exec.resume(life.group());
                if life.is_leaving() {
                    continue;
                }
            }
            self.hosts[host].is_wanted.store(true, Ordering::SeqCst);
        }
        self.first().work.fills_no_more();
        if self.first().work.may_be_full() {
            self.exec.spawn(WORLD, self.clone().remove_filler());
        }
    }

    /// Whoever filled the device may not have come to make room again, and who mounts needs some.
    async fn remove_filler(self) {
        let is_done = Arc::new(AtomicBool::new(false));
        while !is_done.load(Ordering::SeqCst) && !self.first().work.is_stopped() {
            for life in self.lives().into_iter().flatten() {
                let Some(mount) = life.mount(0).filter(|_| !life.is_leaving()) else { continue };
                let (work, is_done) = (Arc::clone(&self.first().work), Arc::clone(&is_done));
                self.spawn_at_work(&life, async move {
                    match work.make_room(&mount).await {
                        Ok(()) => is_done.store(true, Ordering::SeqCst),
                        Err(error) => tracing::info!(%error, "no room is made"),
                    }
                });
            }
            self.exec.sleep(LOOK_AGAIN).await;
        }
    }

    /// Bits that are still wrong are put right: whoever checks the device is to find nothing else.
    pub(super) fn mend_medium(&self) {
        for (at, before, after) in self.flipped.lock().drain(..).rev() {
            let device = &self.first().arbiter.device;
            let now = device.visible_block(at);
            if now.is_some_and(|now| now.0 == after.0) {
                device.put_right(at, before);
            }
        }
    }
}

impl Arbiter {
    /// The device loses what was not durable.
    fn power_failure(&self) {
        let mut replayer = Replayer::new(self.device.base());
        self.device.log().iter().for_each(|event| replayer.apply(event));
        let image = self.exec.draw(|r| replayer.crash(&mut Random::new(r.next_u64())));
        self.device.set_contents(image);
        self.power_failed();
    }
}
