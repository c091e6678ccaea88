//! mxctl: asks the daemon of this machine, and tells it.

mod check;
pub(in crate::programs) mod find;
mod table;
mod top;
mod trim;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mx_node::report::ResourceFilter;
use serde::Serialize;

pub use find::FindError;

use super::documents;
use crate::admin::protocol::LOCKS_MAX;
use crate::admin::{ClientError, Request, Subject};

/// How long the process of a daemon may take to go away once it has said that it will.
const END: Duration = Duration::from_secs(30);

/// Look at a MatrixFS cluster as the daemon of this machine sees it, and administer that daemon.
///
/// Exit status: 0 done, 1 not done, 2 wrong usage.
#[derive(Parser, Debug)]
#[command(name = "mxctl", version)]
pub struct Options {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", global = true, conflicts_with = "name")]
    pub socket: Option<PathBuf>,
    /// The daemon's name, as in `mount -t matrixfs NAME DIR`; may be left out where only one
    /// daemon runs.
    #[arg(long, global = true)]
    pub name: Option<String>,
    /// Print one JSON object.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Who is a member, who has what mounted, who is suspected.
    Status,
    /// Cluster locks.
    #[command(subcommand)]
    Lock(LockCommand),
    /// Who holds a file or a resource, who waits for it and since when, and what the holders do;
    /// which ranges of a file programs have locked (flock, fcntl), and who waits for which.
    ///
    /// Shows what this node knows, and names the nodes that know more; nothing is asked of them.
    /// The home of a file knows every lock that programs have on it, by node and number of the
    /// process; the name of the program only that node. Any other node knows of its own programs
    /// only.
    /// A path is looked up on this node, under the locks of its directories; where one of those
    /// cannot be had within 2 s, that directory is told about instead.
    Why {
        /// Below the mount of this daemon, and without symbolic links; or a resource: `inode
        /// 0x1234`, `open 0x1234`, `group 3`, `slot 0`, `superblock`, `rename`.
        #[arg(value_name = "PATH|RESOURCE", num_args = 1..=2, required = true)]
        subject: Vec<OsString>,
    },
    /// Recoveries of dead nodes.
    #[command(subcommand)]
    Recovery(RecoveryCommand),
    /// Mounted file systems.
    #[command(subcommand)]
    Fs(FsCommand),
    /// Leave the cluster in good order; everything must be unmounted.
    Leave,
    /// Unmount, leave and end the daemon.
    Stop,
    /// Write manual pages and completions of all programs below a folder.
    #[command(hide = true)]
    Documents { folder: PathBuf },
}

#[derive(Subcommand, Debug)]
pub enum LockCommand {
    /// Locks that this node has cached, and those that it decides about.
    Dump {
        /// Only these: `inode 0x1234`, or `inode` for all of a kind (superblock, slot, group,
        /// inode, open, rename).
        #[arg(long, value_name = "RESOURCE")]
        resource: Option<String>,
        /// At most so many in each list.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(LOCKS_MAX)))]
        limit: u32,
    },
    /// The resources that have most to do on this node, again and again, with rates per second.
    ///
    /// Sorted by time waited, then by messages and surrenders. With `--json` one object for each
    /// refresh.
    Top {
        /// So many resources.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1024))]
        count: u32,
        /// Seconds between two refreshes.
        #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = top::interval)]
        interval: f64,
        /// One refresh only, after one interval.
        #[arg(long)]
        once: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum RecoveryCommand {
    /// The last one, under way or over: its phases, what was done, who was delayed and why.
    Last,
    /// All that are remembered, at most 32 that are over, oldest first.
    List,
}

#[derive(Subcommand, Debug)]
pub enum FsCommand {
    /// Space, caches and counters.
    Usage,
    /// Objects that answer EIO, because they are damaged or their changes could not be written: what
    /// this node has met since it was mounted. `fsck.matrixfs -n` looks at everything.
    Damage,
    /// Look for damage while the file system is used, on this and all other nodes: all metadata on the
    /// device, what it says of itself, and that what files and directories use is marked so. One
    /// object after the other is locked for a moment; nothing is changed.
    ///
    /// What only a file system at rest shows is left to `fsck.matrixfs -n`: blocks that nobody uses or
    /// that two files use, counts of links, lost files, journals. Exit status 1 also when something
    /// is wrong: unmount the file system everywhere then, and run `fsck.matrixfs -y`.
    Check {
        /// The file system stays mounted. (For one that nobody has mounted there is `fsck.matrixfs`.)
        #[arg(long, required = true)]
        online: bool,
        /// Read all blocks of files as well, to find those that the device has lost. Files have no
        /// checksums.
        #[arg(long)]
        data: bool,
    },
    /// Tell the device which blocks nobody uses, so that a thin-provisioned one has room for something
    /// else, and a flash one less to keep. Run it on one node, now and then (fstrim(8) does the same).
    Trim {
        /// Leave shorter free runs alone.
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        minimum: u64,
    },
    /// Suspend all changes, on all nodes, while a copy of the device is made below the file system: an
    /// array's snapshot, or one of the cloud. What was answered before is in place then, and every
    /// journal empty. Whoever changes something waits; reads go on.
    Freeze {
        /// How long to wait for all nodes to come to rest.
        #[arg(long, value_name = "SECONDS", default_value_t = 60,
              value_parser = clap::value_parser!(u32).range(1..=3600))]
        wait: u32,
        /// Thaw it by itself after this time, so that nothing stands still for ever.
        #[arg(long = "for", value_name = "SECONDS", default_value_t = 300,
              value_parser = clap::value_parser!(u32).range(1..=86_400))]
        lasts: u32,
    },
    /// Let changes go on. On the node that has frozen it.
    Thaw,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Resource(#[from] mx_node::report::FilterError),
    #[error("mxd has left and should have ended, but has not after {} s", .0.as_secs())]
    Lingers(Duration),
    #[error("{0} problems: unmount the file system on all nodes and run fsck.matrixfs -y")]
    Problems(usize),
    #[error("{0}")]
    System(#[from] io::Error),
}

/// What `leave` and `stop` print.
#[derive(Serialize)]
struct Done {
    done: &'static str,
}

/// Carries out the command and prints its result.
///
/// # Errors
/// [`CtlError`].
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), CtlError> {
    if let Command::Lock(LockCommand::Dump { resource: Some(resource), .. }) = &options.command {
        // Said without a daemon as well.
        resource.parse::<ResourceFilter>()?;
    }
    if let Command::Documents { folder } = &options.command {
        return Ok(documents::write(folder)?);
    }
    let mut client = find::connect(options.socket.as_deref(), options.name.as_deref())?;
    let mut printer = Printer { out, json: options.json };
    match &options.command {
        Command::Documents { .. } => {}
        Command::Status => {
            let status = client.status()?;
            printer.print(&status, table::status)?;
        }
        Command::Lock(LockCommand::Dump { resource, limit }) => {
            let dump = client.lock_dump(resource.clone(), *limit)?;
            printer.print(&dump, table::locks)?;
        }
        Command::Lock(LockCommand::Top { count, interval, once }) => {
            top::run(&mut client, &mut printer, *count as usize, *interval, *once)?;
        }
        Command::Why { subject } => {
            let why = client.why(subject_of(subject)?)?;
            printer.print(&why, table::why)?;
        }
        Command::Recovery(which) => {
            let mut report = client.recovery_last()?;
            if let RecoveryCommand::Last = which {
                let before = report.recoveries.len().saturating_sub(1);
                report.recoveries.drain(..before);
                printer.print(&report, table::recoveries)?;
            } else {
                printer.print(&report, table::recovery_list)?;
            }
        }
        Command::Fs(FsCommand::Usage) => {
            let usage = client.fs_usage()?;
            printer.print(&usage, table::usage)?;
        }
        Command::Fs(FsCommand::Damage) => {
            let damage = client.fs_damage()?;
            printer.print(&damage, table::damage)?;
        }
        Command::Fs(FsCommand::Check { online: _, data }) => {
            let check = check::run(&mut client, *data)?;
            printer.print(&check, table::check)?;
            if !check.problems.is_empty() {
                return Err(CtlError::Problems(check.problems.len()));
            }
        }
        Command::Fs(FsCommand::Trim { minimum }) => {
            let trim = trim::run(&mut client, *minimum)?;
            printer.print(&trim, table::trim)?;
        }
        Command::Fs(FsCommand::Freeze { wait, lasts }) => {
            let [patience_ms, lasts_ms] = [wait, lasts].map(|seconds| u64::from(*seconds) * 1000);
            client.carry_out(&Request::FsFreeze { patience_ms, lasts_ms })?;
            printer.print(&Done { done: "frozen" }, |_| {
                format!(
                    "frozen on all nodes, for {lasts} s at most; let it go on with: mxctl fs thaw\n"
                )
            })?;
        }
        Command::Fs(FsCommand::Thaw) => {
            client.carry_out(&Request::FsThaw)?;
            printer.print(&Done { done: "thawed" }, |_| "thawed\n".to_owned())?;
        }
        Command::Leave => {
            client.carry_out(&Request::Leave)?;
            printer.print(&Done { done: "left" }, |_| "left the cluster\n".to_owned())?;
        }
        Command::Stop => {
            let process = client.process()?;
            match client.carry_out(&Request::Stop) {
                // It may be gone before its answer has left.
                Ok(()) | Err(ClientError::Ended { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if !process.wait(Some(END))? {
                return Err(CtlError::Lingers(END));
            }
            printer.print(&Done { done: "stopped" }, |_| "mxd has ended\n".to_owned())?;
        }
    }
    Ok(())
}

/// Whatever names a resource is one; `./rename` is a path.
fn subject_of(words: &[OsString]) -> Result<Subject, CtlError> {
    let text = words.join(std::ffi::OsStr::new(" "));
    let as_resource = text.to_str().map(str::parse::<ResourceFilter>);
    match as_resource {
        Some(Ok(_)) => Ok(Subject::Resource(text.to_string_lossy().into_owned())),
        Some(Err(error)) if words.len() > 1 => Err(error.into()),
        Some(Err(_)) | None => Ok(Subject::Path(std::path::absolute(text)?)),
    }
}

struct Printer<'a, W> {
    out: &'a mut W,
    json: bool,
}

impl<W: Write> Printer<'_, W> {
    fn print<T: Serialize>(&mut self, report: &T, text: impl Fn(&T) -> String) -> io::Result<()> {
        let text = if self.json { serde_json::to_string(report)? + "\n" } else { text(report) };
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_resource_is_one_and_everything_else_is_a_path() {
        let subject = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            subject_of(&words)
        };
        let resource = |text: &str| Subject::Resource(text.to_owned());
        assert_eq!(subject(&["inode", "0x12"]).expect("two words"), resource("inode 0x12"));
        assert_eq!(subject(&["inode 0x12"]).expect("one word"), resource("inode 0x12"));
        assert_eq!(subject(&["rename"]).expect("one word"), resource("rename"));
        let path = Subject::Path("/mnt/a b".into());
        assert_eq!(subject(&["/mnt/a b"]).expect("a path"), path);
        let here = std::env::current_dir().expect("there is one").join("rename");
        assert_eq!(subject(&["./rename"]).expect("a path"), Subject::Path(here));
        assert!(matches!(subject(&["inode", "x"]), Err(CtlError::Resource(_))));
    }

    #[test]
    fn a_refresh_and_a_question_are_understood_as_they_are_written() {
        let parse = |line: &str| Options::try_parse_from(line.split(' '));
        parse("mxctl lock top --count 3 --interval 0.5 --once --json").expect("a refresh");
        parse("mxctl why /mnt/a").expect("a question");
        parse("mxctl recovery list").expect("a list");
        for wrong in ["mxctl why", "mxctl lock top --count 0", "mxctl why a b c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
