//! Extended attributes of one inode: names, values, and the stream of bytes that they are stored as.
//!
//! Keeps true: an [`Xattrs`] can be stored: names in known namespaces and within their limits, lists
//! valid, all of it together within what blocks may hold. The stream is in the order of namespaces and
//! names, and reads back as what it was made of. Any bytes may be read; none panic.

use std::collections::BTreeMap;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use crate::acl::{Acl, AclError};
use crate::error::FsError;
use crate::file::FileType;
use crate::ondisk::inode::InodeCore;
use crate::ondisk::xattr::{XATTR_BLOCKS_MAX, XATTR_HEAD_SIZE, XATTR_PAYLOAD, XattrHead};

/// The longest name with its prefix, bytes (`XATTR_NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// The largest value, bytes (`XATTR_SIZE_MAX`).
pub const VALUE_MAX: usize = 65_536;
/// The longest list of names, each with a zero byte, bytes (`XATTR_LIST_MAX`).
pub const LIST_MAX: usize = 65_536;
/// The longest stream, bytes.
pub(crate) const STREAM_MAX: usize = XATTR_BLOCKS_MAX * XATTR_PAYLOAD;

/// What a name begins with. The numbers are on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Namespace {
    User = 1,
    Trusted = 2,
    Security = 3,
    Acl = 4,
    DefaultAcl = 5,
}

impl Namespace {
    const ALL: [Namespace; 5] = [
        Namespace::User,
        Namespace::Trusted,
        Namespace::Security,
        Namespace::Acl,
        Namespace::DefaultAcl,
    ];

    fn from_u8(number: u8) -> Option<Namespace> {
        Namespace::ALL.into_iter().find(|namespace| *namespace as u8 == number)
    }

    const fn prefix(self) -> &'static [u8] {
        match self {
            Namespace::User => b"user.",
            Namespace::Trusted => b"trusted.",
            Namespace::Security => b"security.",
            Namespace::Acl => b"system.posix_acl_access",
            Namespace::DefaultAcl => b"system.posix_acl_default",
        }
    }

    /// May files of this type have attributes of it?
    pub(crate) fn is_possible_for(self, file_type: FileType) -> bool {
        match self {
            Namespace::User => matches!(file_type, FileType::Regular | FileType::Directory),
            Namespace::Trusted | Namespace::Security => true,
            Namespace::Acl => file_type != FileType::SymbolicLink,
            Namespace::DefaultAcl => file_type == FileType::Directory,
        }
    }

    /// Is the prefix the whole name?
    pub(crate) const fn is_acl(self) -> bool {
        matches!(self, Namespace::Acl | Namespace::DefaultAcl)
    }
}

/// A name, taken apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Name {
    pub(crate) namespace: Namespace,
    /// What follows the prefix; nothing for ACLs.
    rest: Vec<u8>,
}

impl Name {
    pub(crate) const ACL: Name = Name { namespace: Namespace::Acl, rest: Vec::new() };
    pub(crate) const DEFAULT_ACL: Name =
        Name { namespace: Namespace::DefaultAcl, rest: Vec::new() };

    /// # Errors
    /// [`FsError::OutOfRange`] for a name that is empty or too long, [`FsError::Unsupported`] for one
    /// of no known namespace, [`FsError::Invalid`] for a prefix alone.
    pub(crate) fn parse(name: &[u8]) -> Result<Name, FsError> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(FsError::OutOfRange("length of the name of an extended attribute"));
        }
        for namespace in Namespace::ALL {
            let Some(rest) = name.strip_prefix(namespace.prefix()) else { continue };
            if namespace.is_acl() && !rest.is_empty() {
                continue;
            }
            if rest.contains(&0) || rest.is_empty() && !namespace.is_acl() {
                return Err(FsError::Invalid("not the name of an extended attribute"));
            }
            return Ok(Name { namespace, rest: rest.to_vec() });
        }
        Err(FsError::Unsupported)
    }

    pub(crate) fn capability() -> Name {
        Name { namespace: Namespace::Security, rest: b"capability".to_vec() }
    }

    pub(crate) fn whole(&self) -> Vec<u8> {
        [self.namespace.prefix(), &self.rest].concat()
    }

    /// The bit of `xattr_kinds` that stands for it.
    fn kind(&self) -> u8 {
        match self.namespace {
            Namespace::Acl => InodeCore::HAS_ACL,
            Namespace::DefaultAcl => InodeCore::HAS_DEFAULT_ACL,
            Namespace::Security if self.rest == b"capability" => InodeCore::HAS_CAPABILITY,
            Namespace::User | Namespace::Trusted | Namespace::Security => 0,
        }
    }
}

/// All attributes of one inode.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Xattrs(BTreeMap<Name, Vec<u8>>);

impl Xattrs {
    /// # Errors
    /// What is wrong with the bytes.
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Xattrs, &'static str> {
        let mut all = BTreeMap::new();
        let mut list_len = 0;
        while let Ok((head, rest)) = XattrHead::ref_from_prefix(bytes) {
            if head.namespace == 0 {
                break;
            }
            let Some(namespace) = Namespace::from_u8(head.namespace) else {
                return Err("an extended attribute of an unknown namespace");
            };
            let name_len = usize::from(head.name_len);
            let value_len = usize::try_from(head.value_len.get()).unwrap_or(usize::MAX);
            let fits = value_len <= VALUE_MAX && name_len + value_len <= rest.len();
            if !fits || namespace.prefix().len() + name_len > NAME_MAX {
                return Err("an extended attribute longer than there is room for");
            }
            let (name, rest) = rest.split_at(name_len);
            let (value, rest) = rest.split_at(value_len);
            if name.contains(&0) || name.is_empty() != namespace.is_acl() {
                return Err("an extended attribute without a proper name");
            }
            if namespace.is_acl() && !matches!(Acl::parse(value), Ok(Some(_))) {
                return Err("an ACL that is none");
            }
            let name = Name { namespace, rest: name.to_vec() };
            if all.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err("extended attributes out of order");
            }
            list_len += name.whole().len() + 1;
            all.insert(name, value.to_vec());
            bytes = rest;
        }
        if bytes.len() >= XATTR_HEAD_SIZE || bytes.iter().any(|b| *b != 0) {
            return Err("bytes behind the extended attributes");
        }
        if list_len > LIST_MAX {
            return Err("more extended attributes than can be listed");
        }
        Ok(Xattrs(all))
    }

    /// Bytes of the entry that a stream begins with, if it is there as a whole.
    pub(crate) fn entry_len(bytes: &[u8]) -> Option<usize> {
        let (head, rest) = XattrHead::ref_from_prefix(bytes).ok()?;
        let value_len = usize::try_from(head.value_len.get()).ok()?;
        let len = usize::from(head.name_len).checked_add(value_len)?;
        (head.namespace != 0 && len <= rest.len()).then_some(XATTR_HEAD_SIZE + len)
    }

    /// Another value in the place of one that is as long.
    pub(crate) fn replace(&mut self, name: &Name, value: Vec<u8>) {
        self.0.insert(name.clone(), value);
    }

    #[expect(clippy::cast_possible_truncation, reason = "names and values are within their limits")]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        for (name, value) in &self.0 {
            let head = XattrHead {
                namespace: name.namespace as u8,
                name_len: name.rest.len() as u8,
                reserved0: U16::ZERO,
                value_len: U32::new(value.len() as u32),
            };
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(&name.rest);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    /// Bytes of the stream.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|(name, value)| XATTR_HEAD_SIZE + name.rest.len() + value.len()).sum()
    }

    pub(crate) fn kinds(&self) -> u8 {
        self.0.keys().fold(0, |kinds, name| kinds | name.kind())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }

    pub(crate) fn get(&self, name: &Name) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Sets a value; of an ACL a valid one.
    ///
    /// # Errors
    /// [`FsError::XattrTooLarge`] for the value, [`FsError::NoSpace`] when all of them together become
    /// too much; nothing has changed then.
    pub(crate) fn set(&mut self, name: &Name, value: Vec<u8>) -> Result<(), FsError> {
        if value.len() > VALUE_MAX {
            return Err(FsError::XattrTooLarge);
        }
        let before = self.0.insert(name.clone(), value);
        if self.len() <= STREAM_MAX && self.list().len() <= LIST_MAX {
            return Ok(());
        }
        match before {
            Some(before) => self.0.insert(name.clone(), before),
            None => self.0.remove(name),
        };
        Err(FsError::NoSpace)
    }

    /// True when it was there.
    pub(crate) fn remove(&mut self, name: &Name) -> bool {
        self.0.remove(name).is_some()
    }

    /// The names, each with a zero byte behind it, as listxattr(2) has them.
    pub(crate) fn list(&self) -> Vec<u8> {
        self.0.keys().flat_map(|name| [name.whole(), vec![0]].concat()).collect()
    }

    /// The access ACL, or the default ACL of a directory.
    pub(crate) fn acl(&self, name: &Name) -> Option<Acl> {
        assert!(name.namespace.is_acl(), "{name:?} is none");
        let acl = Acl::parse(self.get(name)?);
        Some(acl.ok().flatten().expect("checked when it was read or set"))
    }
}

impl From<AclError> for FsError {
    fn from(error: AclError) -> FsError {
        match error {
            AclError::Version => FsError::Unsupported,
            AclError::TooLarge => FsError::XattrTooLarge,
            AclError::Malformed(what) => FsError::Invalid(what),
        }
    }
}

/// For the fuzzer: reads a stream; what it takes it reads again from what it makes of it.
///
/// # Panics
/// When it does not.
#[doc(hidden)]
pub fn takes_stream(bytes: &[u8]) -> bool {
    let Ok(xattrs) = Xattrs::parse(bytes) else { return false };
    assert_eq!(Xattrs::parse(&xattrs.encode()).as_ref(), Ok(&xattrs), "as it was written");
    for name in [Name::ACL, Name::DEFAULT_ACL] {
        let Some(mut acl) = xattrs.acl(&name) else { continue };
        let permissions = acl.permissions();
        assert_eq!(acl.inherit(0o777).permissions, permissions, "all of it was asked for");
        acl.set_permissions(permissions);
        assert_eq!(Some(acl), xattrs.acl(&name), "a mode that it has already changes nothing");
    }
    true
}

#[cfg(test)]
mod tests;
