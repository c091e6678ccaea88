//! Extended attributes, and access control lists among them.

use std::collections::BTreeMap;

use mx_base::Timestamp;

use super::acl::Acl;
use super::errno::Errno;
use super::node::{Ino, Kind, Node};
use super::tree::Tree;

/// Attributes of one object: name with prefix, value.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) const ACL: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

/// The longest name (XATTR_NAME_MAX) and the largest value (XATTR_SIZE_MAX), bytes.
const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 65_536;
/// What all attributes of an object may take on a MatrixFS, bytes: each 8, its value, and its name
/// without prefix.
const ALL_MAX: usize = 32 * 4024;

/// What setxattr does with an attribute that is there, or is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    Any,
    /// XATTR_CREATE
    Absent,
    /// XATTR_REPLACE
    Present,
}

impl Tree {
    /// # Errors
    /// ESTALE; ERANGE, EINVAL, EOPNOTSUPP for the name; EOPNOTSUPP for an ACL of a symbolic link;
    /// ENODATA.
    pub fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<&[u8], Errno> {
        let node = self.node(ino)?;
        check_name(name)?;
        if is_acl(name) && node.kind() == Kind::Symlink {
            return Err(Errno::NotSupported);
        }
        node.xattrs.get(name).map(Vec::as_slice).ok_or(Errno::NoData)
    }

    /// Names in the order of their bytes.
    ///
    /// # Errors
    /// ESTALE.
    pub fn list_xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(self.node(ino)?.xattrs.keys().cloned().collect())
    }

    /// An access ACL sets the mode, and stays only where it says more; an ACL without entries removes
    /// what is there. Whether an ACL was there does not matter.
    ///
    /// # Errors
    /// As [`Tree::get_xattr`]; EPERM for `user.` on what is neither file nor directory; EACCES for a
    /// default ACL on what is no directory; E2BIG, ENOSPC, EEXIST; EINVAL for a malformed ACL.
    pub fn set_xattr(
        &mut self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        presence: Presence,
        now: Timestamp,
    ) -> Result<(), Errno> {
        let node = self.node_mut(ino)?;
        check_name(name)?;
        if value.len() > VALUE_MAX {
            return Err(Errno::TooBig);
        }
        let acl = if is_acl(name) { Acl::parse(value)? } else { None };
        check_change(node, name)?;
        if name == DEFAULT_ACL && acl.is_some() && !node.is_directory() {
            return Err(Errno::Access);
        }
        if let Some(acl) = &acl {
            acl.check()?;
        }
        match (presence, node.xattrs.contains_key(name)) {
            _ if is_acl(name) => {}
            (Presence::Absent, true) => return Err(Errno::Exists),
            (Presence::Present, false) => return Err(Errno::NoData),
            _ => {}
        }
        if is_acl(name) {
            let Some(acl) = acl else {
                if node.xattrs.remove(name).is_some() {
                    node.changed(now);
                }
                return Ok(());
            };
            if name == ACL {
                node.mode = node.mode & 0o7000 | acl.mode();
            }
            if name == ACL && acl.is_minimal() {
                node.xattrs.remove(name);
            } else {
                node.xattrs.insert(name.to_vec(), acl.bytes());
            }
        } else {
            let others = node.xattrs.iter().filter(|(n, _)| *n != name);
            let all: usize = others.map(|(n, v)| taken(n, v)).sum();
            if all + taken(name, value) > ALL_MAX {
                return Err(Errno::NoSpace);
            }
            node.xattrs.insert(name.to_vec(), value.to_vec());
        }
        node.changed(now);
        Ok(())
    }

    /// # Errors
    /// As [`Tree::set_xattr`]; ENODATA, but for an ACL.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8], now: Timestamp) -> Result<(), Errno> {
        let node = self.node_mut(ino)?;
        check_change(node, name)?;
        match node.xattrs.remove(name) {
            Some(_) => node.changed(now),
            None if is_acl(name) => {}
            None => return Err(Errno::NoData),
        }
        Ok(())
    }
}

impl Node {
    /// The mode was set: an ACL says the same.
    pub(super) fn mode_set(&mut self) {
        if let Some(value) = self.xattrs.get_mut(ACL) {
            let mut acl = stored(value);
            acl.set_mode(self.mode);
            *value = acl.bytes();
        }
    }

    /// Contents or owner were changed: what somebody vouched for is not the same any more.
    pub(super) fn drop_capability(&mut self) {
        if !self.is_directory() {
            self.xattrs.remove(CAPABILITY);
        }
    }

    /// Of a directory: what something new in it gets, and with which mode.
    pub(super) fn inherited(&self, kind: Kind, mode: u16, umask: u16) -> (u16, Xattrs) {
        if kind == Kind::Symlink {
            return (mode, Xattrs::new());
        }
        let Some(default) = self.xattrs.get(DEFAULT_ACL) else {
            return (mode & !(umask & 0o777), Xattrs::new());
        };
        let mut xattrs = Xattrs::new();
        let mut acl = stored(default);
        acl.restrict(mode);
        if !acl.is_minimal() {
            xattrs.insert(ACL.to_vec(), acl.bytes());
        }
        if kind == Kind::Directory {
            xattrs.insert(DEFAULT_ACL.to_vec(), default.clone());
        }
        (mode & 0o7000 | acl.mode(), xattrs)
    }
}

fn stored(value: &[u8]) -> Acl {
    Acl::parse(value).ok().flatten().expect("only valid lists are stored")
}

fn is_acl(name: &[u8]) -> bool {
    name == ACL || name == DEFAULT_ACL
}

fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Errno::Range);
    }
    if is_acl(name) {
        return Ok(());
    }
    let prefixes = [&b"user."[..], b"trusted.", b"security."];
    match prefixes.iter().find_map(|prefix| name.strip_prefix(*prefix)) {
        Some([]) => Err(Errno::Invalid),
        Some(_) => Ok(()),
        None => Err(Errno::NotSupported),
    }
}

fn check_change(node: &Node, name: &[u8]) -> Result<(), Errno> {
    check_name(name)?;
    let kind = node.kind();
    if is_acl(name) && kind == Kind::Symlink {
        return Err(Errno::NotSupported);
    }
    if name.starts_with(b"user.") && !matches!(kind, Kind::File | Kind::Directory) {
        return Err(Errno::NotPermitted);
    }
    Ok(())
}

fn taken(name: &[u8], value: &[u8]) -> usize {
    let prefix = name.iter().position(|b| *b == b'.').map_or(0, |at| at + 1);
    let rest = if is_acl(name) { 0 } else { name.len() - prefix };
    8 + rest + value.len()
}
