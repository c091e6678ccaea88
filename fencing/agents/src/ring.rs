//! io_uring, as far as this crate uses it: an instance for one thread, and requests of a device that
//! come to their end whatever the kernel returns for them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;

/// What a completion says: the number given at submission, and the result, negative for an errno.
pub(crate) type Completed = (u64, i32);

/// For the thread that makes it, and no other.
pub(crate) struct Ring {
    uring: IoUring,
    /// Entries that found the submission queue full.
    waiting: VecDeque<squeue::Entry>,
}

impl Ring {
    pub(crate) fn new(entries: u32) -> io::Result<Ring> {
        let fast = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .build(entries);
        let uring = match fast {
            // Kernels before 6.1 do not know these flags.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                IoUring::new(entries)?
            }
            other => other?,
        };
        Ok(Ring { uring, waiting: VecDeque::new() })
    }

    /// Submits `entry` with the next [`Ring::enter`].
    ///
    /// # Safety
    /// The descriptor and all memory that the entry names must stay valid until its completion has
    /// come.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.waiting.push_back(entry);
    }

    /// Submits what was pushed, and waits until something completes, or `patience` has passed, if
    /// there is one.
    pub(crate) fn enter(&mut self, patience: Option<Duration>) -> io::Result<()> {
        loop {
            self.fill();
            if self.waiting.is_empty() {
                break;
            }
            passing(self.uring.submit())?;
            // A full queue of completions keeps the kernel from taking more.
            if !self.uring.completion().is_empty() {
                return Ok(());
            }
        }
        let timespec;
        let mut args = SubmitArgs::new();
        if let Some(patience) = patience {
            timespec = Timespec::from(patience);
            args = args.timespec(&timespec);
        }
        passing(self.uring.submitter().submit_with_args(1, &args))
    }

    pub(crate) fn completed(&mut self, into: &mut Vec<Completed>) {
        into.extend(self.uring.completion().map(|entry| (entry.user_data(), entry.result())));
    }

    fn fill(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(entry) = self.waiting.front() {
            // SAFETY: whoever pushed the entry has promised that what it names stays valid.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.waiting.pop_front();
        }
    }
}

fn passing(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
            Some(_) | None => Err(error),
        },
    }
}

/// A piece of memory by address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) start: *mut u8,
    pub(crate) len: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Read,
    Write { durable: bool },
}

/// One contiguous read or write of a device, from or to several pieces of memory.
#[derive(Debug)]
pub(crate) struct DiskIo {
    direction: Direction,
    /// Bytes from the start of the device.
    offset: u64,
    /// What is left to be done.
    pieces: Vec<Piece>,
    vectors: Vec<IoVec>,
}

/// As the kernel reads it (`struct iovec`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct IoVec {
    base: *mut u8,
    len: usize,
}

// SAFETY: the addresses are only handed to the kernel; the memory behind them belongs to whoever
// keeps the operation, who promises at `entry` that it stays valid whatever thread runs the ring.
unsafe impl Send for DiskIo {}

/// The kernel takes this many pieces at once.
pub(crate) const PIECES_MAX: usize = 1024;

impl DiskIo {
    pub(crate) fn new(direction: Direction, offset: u64, pieces: Vec<Piece>) -> DiskIo {
        assert!(pieces.len() <= PIECES_MAX, "more pieces than the kernel takes");
        DiskIo { direction, offset, pieces, vectors: Vec::new() }
    }

    /// The entry that does what is left.
    ///
    /// # Safety
    /// Until it has completed, the descriptor must stay open, this value must not be dropped, and
    /// nobody else may write to its pieces, or for a read, use them at all. (Memory shared with
    /// another process is exempt: what that process does to it may end up on disk or in its own
    /// hands, but nowhere else.)
    pub(crate) unsafe fn entry(&mut self, device: BorrowedFd<'_>, number: u64) -> squeue::Entry {
        let fd = Fd(device.as_raw_fd());
        let flags = match self.direction {
            Direction::Write { durable: true } => RWF_DSYNC,
            Direction::Write { durable: false } | Direction::Read => 0,
        };
        let single = (self.pieces.len() == 1).then(|| self.pieces[0]);
        let single = single.and_then(|piece| Some((piece.start, u32::try_from(piece.len).ok()?)));
        let entry = match (single, self.direction) {
            (Some((start, len)), Direction::Read) => {
                opcode::Read::new(fd, start, len).offset(self.offset).build()
            }
            (Some((start, len)), Direction::Write { .. }) => {
                opcode::Write::new(fd, start, len).offset(self.offset).rw_flags(flags).build()
            }
            (None, direction) => {
                self.vectors = self
                    .pieces
                    .iter()
                    .map(|piece| IoVec { base: piece.start, len: piece.len })
                    .collect();
                let vectors = self.vectors.as_ptr().cast();
                let count = u32::try_from(self.vectors.len()).expect("at most PIECES_MAX");
                match direction {
                    Direction::Read => {
                        opcode::Readv::new(fd, vectors, count).offset(self.offset).build()
                    }
                    Direction::Write { .. } => opcode::Writev::new(fd, vectors, count)
                        .offset(self.offset)
                        .rw_flags(flags)
                        .build(),
                }
            }
        };
        entry.user_data(number)
    }

    /// Takes a completion's result: `Some` when the whole has ended, `None` when
    /// [`DiskIo::entry`] must be submitted again for the rest.
    pub(crate) fn progress(&mut self, result: i32) -> Option<Result<(), Errno>> {
        let done = match usize::try_from(result) {
            // The end of the device within what was asked for: the range was checked before.
            Ok(0) => return Some(Err(Errno::IO)),
            Ok(done) => done,
            Err(_) => {
                let errno = Errno::from_raw_os_error(-result);
                return match errno {
                    Errno::INTR | Errno::AGAIN => None,
                    errno => Some(Err(errno)),
                };
            }
        };
        self.offset += done as u64;
        let mut left = done;
        while left > 0 {
            let first = self.pieces.first_mut().expect("the kernel did no more than was asked for");
            if first.len > left {
                // SAFETY: `left` is less than the length of the piece, so the address is inside.
                first.start = unsafe { first.start.add(left) };
                first.len -= left;
                left = 0;
            } else {
                left -= first.len;
                self.pieces.remove(0);
            }
        }
        self.pieces.is_empty().then_some(Ok(()))
    }
}

/// One request of a device.
#[derive(Debug)]
pub(crate) enum Command {
    Transfer(DiskIo),
    /// The bytes read as zeros afterwards, and the device may use their room for something else.
    Discard {
        offset: u64,
        len: u64,
    },
    /// Makes everything that was written before durable.
    Flush,
}

impl Command {
    /// The entry that does what is left.
    ///
    /// # Safety
    /// As for [`DiskIo::entry`].
    pub(crate) unsafe fn entry(&mut self, device: BorrowedFd<'_>, number: u64) -> squeue::Entry {
        let fd = Fd(device.as_raw_fd());
        match self {
            // SAFETY: the caller's promise.
            Command::Transfer(io) => unsafe { io.entry(device, number) },
            Command::Discard { offset, len } => opcode::Fallocate::new(fd, *len)
                .offset(*offset)
                .mode(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
                .build()
                .user_data(number),
            Command::Flush => {
                opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build().user_data(number)
            }
        }
    }

    /// Takes a completion's result: `Some` when the whole has ended, `None` when
    /// [`Command::entry`] must be submitted again for the rest.
    pub(crate) fn progress(&mut self, result: i32) -> Option<Result<(), Errno>> {
        match self {
            Command::Transfer(io) => io.progress(result),
            Command::Discard { .. } | Command::Flush => match result {
                0.. => Some(Ok(())),
                failed if failed == -Errno::INTR.raw_os_error() => None,
                failed => Some(Err(Errno::from_raw_os_error(-failed))),
            },
        }
    }
}

/// From `linux/falloc.h`.
const FALLOC_FL_KEEP_SIZE: i32 = 1;
const FALLOC_FL_PUNCH_HOLE: i32 = 2;

/// From `linux/fs.h`: this one write is on stable storage when it completes.
const RWF_DSYNC: i32 = 2;

/// Completes when the descriptor is ready for `events`, or has an error.
pub(crate) fn poll_entry(fd: BorrowedFd<'_>, events: u32, number: u64) -> squeue::Entry {
    opcode::PollAdd::new(Fd(fd.as_raw_fd()), events).build().user_data(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: usize, len: usize) -> Piece {
        Piece { start: std::ptr::without_provenance_mut(start), len }
    }

    #[test]
    fn a_short_transfer_goes_on_where_it_stopped() {
        let pieces = vec![piece(0x1000, 4096), piece(0x9000, 8192)];
        let mut io = DiskIo::new(Direction::Read, 100, pieces);
        assert_eq!(io.progress(-Errno::INTR.raw_os_error()), None);
        assert_eq!(io.progress(4096 + 512), None);
        assert_eq!((io.offset, io.pieces.len()), (100 + 4608, 1));
        assert_eq!((io.pieces[0].start as usize, io.pieces[0].len), (0x9000 + 512, 7680));
        assert_eq!(io.progress(7680), Some(Ok(())));
    }

    #[test]
    fn an_error_and_no_progress_end_a_transfer() {
        let mut io = DiskIo::new(Direction::Read, 0, vec![piece(0x1000, 4096)]);
        assert_eq!(io.progress(0), Some(Err(Errno::IO)));
        let mut io = DiskIo::new(Direction::Read, 0, vec![piece(0x1000, 4096)]);
        assert_eq!(io.progress(-Errno::NOSPC.raw_os_error()), Some(Err(Errno::NOSPC)));
    }
}
