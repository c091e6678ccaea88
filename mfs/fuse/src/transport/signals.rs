//! Signals that end a process, told from those that it handles.
//!
//! The kernel says that a process that waits got a signal, not which. On a local file system look-ups,
//! reads and writes go on whatever a program handles, and end with the process (signal(7), NFS: `intr`).

use std::fs;

/// What does nothing, or stops and lets go on, unless a program handles it.
const HARMLESS: u64 = bit(libc::SIGCHLD)
    | bit(libc::SIGURG)
    | bit(libc::SIGWINCH)
    | bit(libc::SIGCONT)
    | bit(libc::SIGSTOP)
    | bit(libc::SIGTSTP)
    | bit(libc::SIGTTIN)
    | bit(libc::SIGTTOU);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Has a thread got a signal that ends its process? So too when it cannot be told: it is gone, or in
/// another process name space.
pub(crate) fn is_dying(thread: u32) -> bool {
    let told = fs::read_to_string(format!("/proc/{thread}/status"));
    told.ok().and_then(|told| ends(&told)).unwrap_or(true)
}

/// What /proc/TID/status says: pending, masked, ignored and caught signals as sets.
fn ends(status: &str) -> Option<bool> {
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.strip_prefix(':')?.trim(), 16).ok()
    };
    let pending = set("SigPnd")? | set("ShdPnd")?;
    // Nothing blocks, ignores or handles SIGKILL.
    let spared = set("SigBlk")? | set("SigIgn")? | set("SigCgt")? | HARMLESS;
    Some(pending & !spared != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(own: u64, shared: u64, masked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tx\nThreads:\t1\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n\
             SigBlk:\t{masked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn what_nobody_handles_ends_a_process() {
        assert_eq!(ends(&status(bit(libc::SIGKILL), 0, 0, 0, 0)), Some(true));
        assert_eq!(ends(&status(0, bit(libc::SIGTERM), 0, 0, 0)), Some(true));
        assert_eq!(ends(&status(0, bit(libc::SIGALRM), 0, 0, bit(libc::SIGUSR1))), Some(true));
    }

    #[test]
    fn what_is_handled_ignored_masked_or_harmless_does_not() {
        let term = bit(libc::SIGTERM);
        assert_eq!(ends(&status(0, 0, 0, 0, 0)), Some(false));
        assert_eq!(ends(&status(term, 0, 0, 0, term)), Some(false));
        assert_eq!(ends(&status(0, term, 0, term, 0)), Some(false));
        assert_eq!(ends(&status(0, term, term, 0, 0)), Some(false));
        assert_eq!(ends(&status(bit(libc::SIGSTOP), bit(libc::SIGCHLD), 0, 0, 0)), Some(false));
    }

    #[test]
    fn whoever_cannot_be_found_is_not_kept_waiting() {
        assert!(is_dying(0));
        assert_eq!(ends("Name:\tx\n"), None);
        assert!(!is_dying(std::process::id()));
    }
}
