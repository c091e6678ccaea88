//! Options of mount(8), each known by name.
//!
//! Keeps true: an option is obeyed, or it asks for nothing of the file system (`_netdev`, `x-*`), or
//! the mount is refused. None is taken and then not kept.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the daemon acts on. As text ([`fmt::Display`]) it is an option list again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MountOptions {
    pub read_only: bool,
    pub no_suid: bool,
    pub no_dev: bool,
    pub no_exec: bool,
    /// Access times are never updated; otherwise as `relatime`.
    pub no_atime: bool,
    /// File systems mounted on directories of this one stay mounted, whatever other nodes do
    /// beside them; not so if nothing is said. A mount keeps to what it began with.
    pub submounts: Option<bool>,
}

/// All of an option list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parsed {
    pub options: MountOptions,
    /// A cluster of one: the source is a device or a file, and the mount brings its own daemon.
    pub local: bool,
    /// The socket of the daemon that is to mount, where its name does not lead to it.
    pub admin: Option<PathBuf>,
    /// What is mounted gets these options, all of them.
    pub remount: bool,
}

/// Why an option list is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionError {
    #[error("unknown option `{0}`")]
    Unknown(String),
    #[error("option `{name}` cannot be kept: {why}")]
    CannotKeep { name: &'static str, why: &'static str },
    #[error("option `admin` needs the path of a socket: admin=PATH")]
    NoPath,
    #[error("option `admin` is for the file systems of a cluster, not with `local`")]
    AdminOfLocal,
}

const CANNOT_KEEP: [(&str, &str); 8] = [
    ("sync", "writes are durable after fsync(2) only; open with O_SYNC instead"),
    ("dirsync", "changes of directories are durable after fsync(2) only"),
    ("strictatime", "access times are updated as with `relatime`"),
    ("nodiratime", "use `noatime`, which is for directories too"),
    ("lazytime", "access times are updated as with `relatime`"),
    ("mand", "Linux has no mandatory locks any more"),
    ("noacl", "access control lists are always obeyed"),
    ("nouser_xattr", "extended attributes are always there"),
];

/// They say when and by whom it is mounted, or ask for what is the case anyway.
const NOTHING_TO_DO: [&str; 25] = [
    "_netdev",
    "acl",
    "async",
    "auto",
    "comment",
    "defaults",
    "diratime",
    "group",
    "helper",
    "loud",
    "noauto",
    "nofail",
    "nogroup",
    "nolazytime",
    "nomand",
    "noowner",
    "nostrictatime",
    "nouser",
    "nousers",
    "owner",
    "silent",
    "uhelper",
    "user",
    "user_xattr",
    "users",
];

/// What the kernel shows of a mount besides, and mount(8) hands on when it is to be changed.
const SHOWN: [&str; 4] = ["user_id", "group_id", "default_permissions", "allow_other"];

impl Parsed {
    /// Reads `rw,noatime,x-systemd.automount`; of two that contradict each other the last holds.
    /// Options that nobody knows are passed over if `sloppy`.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse(list: &str, sloppy: bool) -> Result<Parsed, OptionError> {
        let mut parsed = Parsed::default();
        let said = || list.split(',').filter(|option| !option.is_empty());
        parsed.remount = said().any(|option| option == "remount");
        for option in said() {
            parsed.take(option, sloppy)?;
        }
        if parsed.local && parsed.admin.is_some() {
            return Err(OptionError::AdminOfLocal);
        }
        Ok(parsed)
    }

    fn take(&mut self, option: &str, sloppy: bool) -> Result<(), OptionError> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let options = &mut self.options;
        match (name, value) {
            ("local", None) => self.local = true,
            ("admin", Some(path)) if path.starts_with('/') => self.admin = Some(path.into()),
            ("admin", _) => return Err(OptionError::NoPath),
            ("ro", None) => options.read_only = true,
            ("rw", None) => options.read_only = false,
            ("nosuid", None) => options.no_suid = true,
            ("suid", None) => options.no_suid = false,
            ("nodev", None) => options.no_dev = true,
            ("dev", None) => options.no_dev = false,
            ("noexec", None) => options.no_exec = true,
            ("exec", None) => options.no_exec = false,
            ("noatime", None) => options.no_atime = true,
            ("atime" | "relatime", None) => options.no_atime = false,
            ("submounts", None) => options.submounts = Some(true),
            ("nosubmounts", None) => options.submounts = Some(false),
            ("remount", None) => {}
            (name, _) if self.remount && SHOWN.contains(&name) => {}
            (name, _) if name.starts_with("x-") || name.starts_with("X-") => {}
            (name, _) if NOTHING_TO_DO.contains(&name) => options.imply(name),
            (name, _) => {
                if let Some((name, why)) = CANNOT_KEEP.iter().find(|(known, _)| *known == name) {
                    return Err(OptionError::CannotKeep { name, why });
                }
                if !sloppy {
                    return Err(OptionError::Unknown(option.to_owned()));
                }
            }
        }
        Ok(())
    }
}

impl MountOptions {
    /// What mount(8) says follows from letting others than root mount.
    fn imply(&mut self, name: &str) {
        if matches!(name, "user" | "users") {
            self.no_exec = true;
        }
        if matches!(name, "user" | "users" | "owner" | "group") {
            self.no_suid = true;
            self.no_dev = true;
        }
    }
}

impl fmt::Display for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.read_only { "ro" } else { "rw" })?;
        for (is_set, name) in [
            (self.no_suid, ",nosuid"),
            (self.no_dev, ",nodev"),
            (self.no_exec, ",noexec"),
            (self.no_atime, ",noatime"),
            (self.submounts == Some(true), ",submounts"),
            (self.submounts == Some(false), ",nosubmounts"),
        ] {
            if is_set {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Parsed, String> {
        Parsed::parse(list, false).map_err(|error| error.to_string())
    }

    #[test]
    fn standard_options_are_taken_and_the_last_one_holds() {
        let options = |list| parse(list).map(|parsed| parsed.options.to_string());
        assert_eq!(options(""), Ok("rw".to_owned()));
        assert_eq!(options("rw,ro,noatime,_netdev,nofail"), Ok("ro,noatime".to_owned()));
        assert_eq!(options("nosuid,suid,nodev,noexec"), Ok("rw,nodev,noexec".to_owned()));
        assert_eq!(options("noatime,relatime,x-systemd.automount,x-a=b,comment=c,"), options("rw"));
        assert_eq!(options("user,exec"), Ok("rw,nosuid,nodev".to_owned()));
        assert_eq!(options("user=joe,dev"), Ok("rw,nosuid,noexec".to_owned()));
    }

    #[test]
    fn what_is_taken_is_read_back_from_its_text() {
        for bits in 0..128 {
            let bit = |at: u32| bits & (1 << at) != 0;
            let options = MountOptions {
                read_only: bit(0),
                no_suid: bit(1),
                no_dev: bit(2),
                no_exec: bit(3),
                no_atime: bit(4),
                submounts: bit(5).then_some(bit(6)),
            };
            assert_eq!(parse(&options.to_string()).map(|parsed| parsed.options), Ok(options));
        }
    }

    #[test]
    fn where_it_is_mounted_from_is_said_by_two_options_of_our_own() {
        assert_eq!(parse("local").map(|parsed| parsed.local), Ok(true));
        let admin = parse("ro,admin=/run/x.sock").map(|parsed| parsed.admin);
        assert_eq!(admin, Ok(Some("/run/x.sock".into())));
        assert!(parse("admin").is_err() && parse("admin=x").is_err());
        assert!(parse("local,admin=/run/x.sock").is_err());
    }

    #[test]
    fn a_change_of_options_takes_what_mount_hands_on() {
        let shown = "rw,nosuid,relatime,user_id=0,group_id=0,default_permissions,allow_other";
        let parsed = parse(&format!("{shown},remount,ro")).expect("known");
        assert!(parsed.remount);
        assert_eq!(parsed.options.to_string(), "ro,nosuid");
        assert_eq!(parse(shown), Err("unknown option `user_id=0`".to_owned()));
    }

    #[test]
    fn an_option_that_nobody_keeps_is_refused_by_name() {
        assert_eq!(parse("ro,qouta"), Err("unknown option `qouta`".to_owned()));
        assert_eq!(parse("ro=1"), Err("unknown option `ro=1`".to_owned()));
        let sync = parse("sync").expect_err("writes are not synchronous");
        assert!(sync.starts_with("option `sync` cannot be kept: "), "{sync}");
    }

    #[test]
    fn a_sloppy_mount_passes_over_unknown_options_only() {
        assert!(Parsed::parse("qouta,ro", true).is_ok_and(|parsed| parsed.options.read_only));
        assert!(Parsed::parse("sync", true).is_err());
    }
}
