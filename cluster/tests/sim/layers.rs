//! What stands for the layers above a machine: it mounts, talks, replays, leaves, and checks what it
//! is told.

use cluster::{Installed, LockspaceId, Step};
use mx_base::{FsId, Member, SlotId};

use crate::node::Mount;
use crate::world::{Event, FILE_SYSTEMS, U, World, index_of, node_id};

impl World {
    pub(crate) fn installed(&mut self, host: usize, installed: &Installed) {
        let process = self.hosts[host].process.as_mut().expect("it has just spoken");
        let view = &installed.view;
        let committed = self.register.members_of.get(&view.id);
        assert_eq!(
            committed.map(Vec::as_slice),
            Some(view.members()),
            "{:?} was never committed",
            view.id
        );
        assert!(view.contains(installed.me), "{} acts in {view:?}", installed.me);
        assert!(process.me.is_none_or(|me| me == installed.me), "one start has one incarnation");
        if let Some(former) = process.view {
            assert_eq!(former.0 + 1, view.id.0, "views are installed one after the other");
            assert_eq!(installed.join_state, None);
        } else if let Some(blobs) = &installed.join_state {
            assert_eq!(blobs.len(), 2, "both blobs arrive: {blobs:?}");
            assert_eq!(blobs[0].bytes, view.id.0.to_le_bytes(), "the state is that of the view");
        }
        let is_new = process.view.is_none();
        let alone = view.members().len() == 1;
        assert!(!is_new || alone || installed.join_state.is_some(), "a joiner is welcomed");
        process.me = Some(installed.me);
        process.view = Some(view.id);
        self.oracle.member(installed.me, process.life);
        self.oracle.agree_on(view);
        // R13: five units, and one for clocks that run at different rates.
        let quiet = self.hosts[host].clock(self.now).since(installed.quiet_from);
        let quiet = u64::try_from(quiet.as_nanos()).expect("short");
        let at = (self.now + 6 * U).saturating_sub(quiet);
        let mut lost = installed.lost.clone();
        if installed.previous.is_none() && installed.view.members().len() == 1 {
            // A cold start.
            lost.extend(&installed.unrecovered);
        }
        for member in lost {
            self.at(at, Event::PermitMustBeOver { member });
        }
    }

    /// A member that the others have dropped must not serve from its caches any more, even if it
    /// has not heard of it.
    pub(crate) fn check_permit(&mut self, member: Member) {
        let host = &self.hosts[index_of(member.node)];
        let Some(process) = host.process.as_ref().filter(|p| p.me == Some(member)) else { return };
        let until = process.machine.permit_until();
        assert!(until <= host.clock(self.now), "{member} was dropped and still has a permit");
    }

    pub(crate) fn execute(&mut self, host: usize, life: u64, step: Step) {
        let me = node_id(host);
        self.note(|| format!("{me} {step:?}"));
        match step {
            Step::Hold { .. } => {}
            Step::Fence { dead } => {
                let delay = self.rng.between(1, 3 * self.weather.storage_delay);
                self.after(delay, Event::FenceWorks { host, life, dead });
            }
            Step::Rebuild { view, fs } => {
                let delay = self.rng.between(1, 3 * self.weather.storage_delay);
                self.after(delay, Event::Rebuilt { host, life, view, fs });
            }
            Step::Replay { dead, fs, .. } => {
                let mounts = &self.hosts[host].process.as_ref().expect("just spoke").mounts;
                assert!(matches!(mounts.get(&fs), Some(Mount::Ready(_))), "{me} uses {fs}");
                self.oracle.begin_replay(dead, fs, life);
                let delay = self.rng.between(1, 3 * U);
                self.after(delay, Event::Replayed { host, life, dead, fs });
            }
            Step::Resume { dead, .. } => {
                assert!(self.oracle.is_fenced(dead), "{dead} is resumed but not fenced");
            }
        }
    }

    pub(crate) fn granted(
        &mut self,
        host: usize,
        life: u64,
        fs: FsId,
        lockspace: LockspaceId,
        first: bool,
    ) {
        let me = node_id(host);
        self.note(|| format!("{me} may mount {fs} in {lockspace:?}, first: {first}"));
        let process = self.hosts[host].process.as_mut().expect("it has just spoken");
        process.mounts.insert(fs, Mount::Granted(lockspace));
        let member = process.me.expect("only members mount");
        self.oracle.grant(member, fs, lockspace, first);
        let delay = self.rng.between(1, U);
        self.after(delay, Event::Mounted { host, life, fs, lockspace });
    }

    pub(crate) fn mounted(&mut self, host: usize, life: u64, fs: FsId, lockspace: LockspaceId) {
        if !self.is_life(host, life) {
            return;
        }
        let process = self.hosts[host].process.as_mut().expect("just looked at");
        if process.mounts.get(&fs) != Some(&Mount::Granted(lockspace)) {
            return;
        }
        let member = process.me.expect("only members mount");
        if self.rng.chance(self.weather.mishap) {
            self.unmount(host, fs);
            return;
        }
        let slot = SlotId(member.node.get());
        let clock = self.hosts[host].clock(self.now);
        let process = self.hosts[host].process.as_mut().expect("just looked at");
        match process.machine.handle_mounted(fs, lockspace, slot, clock) {
            Ok(()) => {
                process.mounts.insert(fs, Mount::Ready(lockspace));
                self.oracle.mounted(member, fs, lockspace);
            }
            Err(error) => panic!("{member} was granted {fs}: {error}"),
        }
        self.drain(host);
    }

    pub(crate) fn unmount(&mut self, host: usize, fs: FsId) {
        let Some(process) = &mut self.hosts[host].process else { return };
        process.mounts.remove(&fs);
        if let Some(member) = process.me {
            self.oracle.unmounted(member, fs);
            self.oracle.give_up_replays(fs, process.life);
        }
        self.with(host, |machine, now| machine.handle_unmounted(fs, now));
    }

    /// The layers above mount, unmount, leave and talk at random.
    pub(crate) fn work(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        let (life, leaving, me) = (process.life, process.leaving, process.me);
        let pause = self.rng.between(U / 2, 4 * U);
        self.after(pause, Event::Work { host });
        let Some(me) = me else { return };
        let process = self.hosts[host].process.as_ref().expect("just looked at");
        let members: Vec<Member> =
            process.machine.view().map(|view| view.members().to_vec()).unwrap_or_default();
        for to in members {
            if to != me && self.rng.chance(50) {
                self.talk(host, to);
            }
        }
        if leaving {
            self.give_up_mounts(host, life);
            return;
        }
        let fs = FILE_SYSTEMS[usize::try_from(self.rng.between(0, 2)).expect("small")];
        let process = self.hosts[host].process.as_ref().expect("just looked at");
        let is_mounted = process.mounts.get(&fs).copied();
        // The last act of every run needs every node to mount what it can.
        if is_mounted.is_none() {
            let clock = self.hosts[host].clock(self.now);
            let process = self.hosts[host].process.as_mut().expect("just looked at");
            if process.machine.handle_mount(fs, clock).is_ok() {
                process.mounts.insert(fs, Mount::Asked);
            }
            self.drain(host);
        } else if !self.calm && self.rng.chance(4) && !self.oracle.replays(fs, life) {
            self.unmount(host, fs);
        }
    }

    pub(crate) fn leave(&mut self, host: usize) {
        let Some(process) = &mut self.hosts[host].process else { return };
        process.leaving = true;
        let life = process.life;
        self.note(|| format!("{} wants to leave", node_id(host)));
        self.give_up_mounts(host, life);
        self.with(host, |machine, now| machine.handle_leave(now));
    }

    /// What it replays it unmounts later.
    pub(crate) fn give_up_mounts(&mut self, host: usize, life: u64) {
        let process = self.hosts[host].process.as_ref().expect("just looked at");
        let mounted: Vec<FsId> = process.mounts.keys().copied().collect();
        for fs in mounted {
            if !self.oracle.replays(fs, life) {
                self.unmount(host, fs);
            }
        }
    }

    pub(crate) fn talk(&mut self, host: usize, to: Member) {
        let process = self.hosts[host].process.as_mut().expect("just looked at");
        let number = process.sent.entry(to).or_insert(0);
        let payload = (*number + 1).to_le_bytes();
        if process.machine.send_lock(to, LockspaceId(1), payload.as_slice().into()).is_ok() {
            *number += 1;
        }
        self.drain(host);
    }

    /// In order, exactly once, and from members of the view only (I6).
    pub(crate) fn deliver(&mut self, host: usize, from: Member, payload: &[u8]) {
        let process = self.hosts[host].process.as_mut().expect("it has just spoken");
        let view = process.view.expect("only members receive traffic");
        let members = &self.register.members_of[&view];
        assert!(members.contains(&from), "traffic of {from}, who is not in {view:?}");
        let number = u64::from_le_bytes(payload.try_into().expect("eight bytes"));
        let last = process.received.entry(from).or_insert(0);
        assert_eq!(number, *last + 1, "{from} to {}: in order and once", node_id(host));
        *last = number;
    }
}
