//! Registers: eight bytes of a file that anybody writes and reads at any time, checked for
//! linearizability ([`crate::fleet::oracle::linearizable`]).

use std::sync::atomic::Ordering;

use mfs::FsError;

use super::{App, READ, WRITE};
use crate::exec;

/// How many there are.
pub(super) const COUNT: usize = 3;
/// Where each lies in its file: in the inode, in a block, behind a hole.
const AT: [u64; COUNT] = [8, 6_000, 200_000];

impl App {
    pub(super) async fn register(&self, i: usize) -> Result<(), FsError> {
        if self.chance(55) {
            return self.read_register(i).await;
        }
        let file = self.file('r', i).await?;
        self.step("open", file);
        let open = self.mount.open(file, WRITE).await?;
        let value = self.work.next.fetch_add(1, Ordering::Relaxed);
        let register = &self.work.registers[i];
        let is_lost = self.work.oracle.is_lost(self.id());
        register.lock().begin_write(value, self.id(), exec::running().0, is_lost);
        self.step("write", file);
        match self.mount.write(&open, AT[i], &value.to_le_bytes()).await {
            Err(FsError::NoSpace) if self.work.may_be_full() => {
                register.lock().withdraw(value);
                return Ok(());
            }
            written => written?,
        }
        register.lock().end_write(value, self.exec().now());
        if self.chance(20) {
            let began = self.exec().now();
            self.step("fsync", file);
            self.mount.fsync(&open).await?;
            register.lock().synced(self.id(), began);
        }
        self.judge(i);
        Ok(())
    }

    async fn read_register(&self, i: usize) -> Result<(), FsError> {
        let file = self.file('r', i).await?;
        let began = self.exec().now();
        self.step("open", file);
        let open = self.mount.open(file, if self.chance(30) { WRITE } else { READ }).await?;
        self.step("read", file);
        let bytes = self.mount.read(&open, AT[i], 8).await?;
        let value = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if self.counts() {
            self.work.registers[i].lock().read(value, self.id(), began, self.exec().now());
        }
        self.judge(i);
        Ok(())
    }

    pub(super) async fn read_registers(&self) -> Result<(), FsError> {
        if self.work.workload == super::Workload::Registers {
            for i in 0..COUNT {
                self.read_register(i).await?;
            }
        }
        Ok(())
    }

    fn judge(&self, i: usize) {
        if let Err(why) = self.work.registers[i].lock().check() {
            self.wrong("linearizable", format!("register {i}: {why}"));
        }
    }
}
