//! POSIX access control lists: the bytes of `system.posix_acl_access` and `system.posix_acl_default`,
//! and what they and a mode mean for each other (POSIX 1003.1e draft 17; acl(5)).
//!
//! Keeps true: an [`Acl`] is one that the kernel takes: entries in the order of their tags, the three
//! that every file has, a mask where there are others. Checks no access: the kernel does.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Entries of a list: as many as the kernel asks for, which is a page of bytes.
pub(crate) const ENTRIES_MAX: usize = 511;

const VERSION: u32 = 2;
const HEAD_SIZE: usize = 4;
const ENTRY_SIZE: usize = 8;
/// The id of an entry that is for nobody in particular.
const ID_NONE: u32 = u32::MAX;
/// Read, write, execute.
const RWX: u32 = 0o7;

/// Whom an entry is for. The numbers are those of the attribute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u16)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

impl Tag {
    fn from_u16(number: u16) -> Option<Tag> {
        Some(match number {
            0x01 => Tag::Owner,
            0x02 => Tag::User,
            0x04 => Tag::OwningGroup,
            0x08 => Tag::Group,
            0x10 => Tag::Mask,
            0x20 => Tag::Other,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: Tag,
    /// Read, write, execute: 0 to 7.
    permissions: u32,
    id: u32,
}

/// An entry as the kernel passes it.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EntryBytes {
    tag: U16,
    permissions: U16,
    id: U32,
}
const _: () = assert!(size_of::<EntryBytes>() == ENTRY_SIZE);

/// A list; see the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Acl(Vec<Entry>);

/// Why bytes are no list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AclError {
    /// Of a version that is not known.
    Version,
    /// More than [`ENTRIES_MAX`] entries.
    TooLarge,
    Malformed(&'static str),
}

/// What is left of a default ACL for something new.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Inherited {
    /// The permission bits of the mode.
    pub(crate) permissions: u32,
    /// The access ACL, unless the mode says it all.
    pub(crate) acl: Option<Acl>,
}

impl Acl {
    /// `None` for a list without entries, which stands for no list.
    ///
    /// # Errors
    /// [`AclError`], as the kernel has it (`posix_acl_from_xattr`, `posix_acl_valid`).
    pub(crate) fn parse(value: &[u8]) -> Result<Option<Acl>, AclError> {
        if value.is_empty() {
            return Ok(None);
        }
        let Ok((version, entries)) = U32::read_from_prefix(value) else {
            return Err(AclError::Malformed("an ACL without a head"));
        };
        if version.get() != VERSION {
            return Err(AclError::Version);
        }
        let Ok(entries) = <[EntryBytes]>::ref_from_bytes(entries) else {
            return Err(AclError::Malformed("an ACL with half an entry"));
        };
        if entries.len() > ENTRIES_MAX {
            return Err(AclError::TooLarge);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let mut parsed = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(tag) = Tag::from_u16(entry.tag.get()) else {
                return Err(AclError::Malformed("an ACL entry of unknown kind"));
            };
            let permissions = u32::from(entry.permissions.get());
            if permissions & !RWX != 0 {
                return Err(AclError::Malformed("an ACL entry with unknown permissions"));
            }
            let id = match tag {
                Tag::User | Tag::Group if entry.id.get() == ID_NONE => {
                    return Err(AclError::Malformed("an ACL entry for nobody"));
                }
                Tag::User | Tag::Group => entry.id.get(),
                Tag::Owner | Tag::OwningGroup | Tag::Mask | Tag::Other => ID_NONE,
            };
            parsed.push(Entry { tag, permissions, id });
        }
        check_order(&parsed)?;
        Ok(Some(Acl(parsed)))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_SIZE + self.0.len() * ENTRY_SIZE);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        for Entry { tag, permissions, id } in &self.0 {
            let permissions = u16::try_from(*permissions).expect("three bits");
            let entry = EntryBytes {
                tag: U16::new(*tag as u16),
                permissions: U16::new(permissions),
                id: U32::new(*id),
            };
            bytes.extend_from_slice(entry.as_bytes());
        }
        bytes
    }

    /// Does a mode say all that the list does?
    pub(crate) fn is_mode(&self) -> bool {
        self.0.iter().all(|e| matches!(e.tag, Tag::Owner | Tag::OwningGroup | Tag::Other))
    }

    /// The permissions of a file that has the list: those of its group are the mask, if there is one.
    pub(crate) fn permissions(&self) -> u32 {
        let of = |tag| self.0.iter().find(|e| e.tag == tag).map(|e| e.permissions);
        let group = of(Tag::Mask).or(of(Tag::OwningGroup));
        [of(Tag::Owner), group, of(Tag::Other)]
            .iter()
            .fold(0, |mode, part| mode << 3 | part.expect("every list has it"))
    }

    /// The mode was set: the list says the same.
    pub(crate) fn set_permissions(&mut self, mode: u32) {
        let group = self.group_tag();
        for entry in &mut self.0 {
            match entry.tag {
                Tag::Owner => entry.permissions = mode >> 6 & RWX,
                Tag::Other => entry.permissions = mode & RWX,
                tag if tag == group => entry.permissions = mode >> 3 & RWX,
                Tag::User | Tag::OwningGroup | Tag::Group | Tag::Mask => {}
            }
        }
    }

    /// What something made with `permissions` in a directory with this default ACL gets: no more than
    /// was asked for, no more than the list has.
    pub(crate) fn inherit(&self, permissions: u32) -> Inherited {
        let group = self.group_tag();
        let mut acl = self.clone();
        for entry in &mut acl.0 {
            let asked = match entry.tag {
                Tag::Owner => permissions >> 6,
                Tag::Other => permissions,
                tag if tag == group => permissions >> 3,
                Tag::User | Tag::OwningGroup | Tag::Group | Tag::Mask => RWX,
            };
            entry.permissions &= asked;
        }
        let permissions = permissions & !0o777 | acl.permissions();
        let acl = (!acl.is_mode()).then_some(acl);
        Inherited { permissions, acl }
    }

    /// The entry that the group's bits of a mode stand for.
    fn group_tag(&self) -> Tag {
        if self.0.iter().any(|e| e.tag == Tag::Mask) { Tag::Mask } else { Tag::OwningGroup }
    }
}

/// Owner, users, owning group, groups, mask, other; the mask is needed beside users and groups.
fn check_order(entries: &[Entry]) -> Result<(), AclError> {
    let single = |tag| !matches!(tag, Tag::User | Tag::Group);
    let ordered = entries
        .windows(2)
        .all(|w| w[0].tag < w[1].tag || w[0].tag == w[1].tag && !single(w[0].tag));
    if !ordered {
        return Err(AclError::Malformed("ACL entries out of order"));
    }
    let has = |tag| entries.iter().any(|e| e.tag == tag);
    if !(has(Tag::Owner) && has(Tag::OwningGroup) && has(Tag::Other)) {
        return Err(AclError::Malformed("an ACL without owner, group and other"));
    }
    if (has(Tag::User) || has(Tag::Group)) && !has(Tag::Mask) {
        return Err(AclError::Malformed("an ACL without the mask that it needs"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&permissions.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&bytes(entries)).expect("valid").expect("with entries")
    }

    const NONE: u32 = ID_NONE;
    const SMALL: [(u16, u16, u32); 3] = [(1, 6, NONE), (4, 4, NONE), (32, 4, NONE)];
    const NAMED: [(u16, u16, u32); 5] =
        [(1, 7, NONE), (2, 6, 1000), (4, 5, NONE), (16, 5, NONE), (32, 1, NONE)];

    #[test]
    fn a_list_is_read_back_from_its_bytes() {
        for entries in [&SMALL[..], &NAMED] {
            let bytes = bytes(entries);
            assert_eq!(acl(entries).encode(), bytes);
        }
        // Ids of entries that are for nobody in particular do not matter.
        assert_eq!(acl(&[(1, 6, 0), (4, 4, 7), (32, 4, 0)]), acl(&SMALL));
    }

    #[test]
    fn a_list_of_a_named_user_has_these_bytes() {
        let hex: String = acl(&NAMED).encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "02000000",
                "01000700ffffffff",
                "02000600e8030000",
                "04000500ffffffff",
                "10000500ffffffff",
                "20000100ffffffff",
            )
        );
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        let malformed = |entries: &[(u16, u16, u32)]| {
            assert!(
                matches!(Acl::parse(&bytes(entries)), Err(AclError::Malformed(_))),
                "{entries:?}"
            );
        };
        malformed(&SMALL[..2]);
        malformed(&[SMALL[0], SMALL[2], SMALL[1]]);
        malformed(&[SMALL[0], SMALL[0], SMALL[1], SMALL[2]]);
        malformed(&[SMALL[0], (2, 7, 5), SMALL[1], SMALL[2]]);
        malformed(&[SMALL[0], (2, 7, NONE), SMALL[1], (16, 7, NONE), SMALL[2]]);
        malformed(&[(1, 8, NONE), SMALL[1], SMALL[2]]);
        malformed(&[(3, 7, NONE), SMALL[1], SMALL[2]]);
        assert!(matches!(Acl::parse(&bytes(&SMALL)[..27]), Err(AclError::Malformed(_))));
        assert!(matches!(Acl::parse(&[2, 0, 0]), Err(AclError::Malformed(_))));
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(AclError::Version));
        let many: Vec<_> = (0..600).map(|id| (2, 7, id)).collect();
        assert_eq!(Acl::parse(&bytes(&many)), Err(AclError::TooLarge));
    }

    #[test]
    fn users_may_come_in_any_order_and_a_mask_may_stand_alone() {
        acl(&[SMALL[0], (2, 1, 9), (2, 1, 3), SMALL[1], (16, 7, NONE), SMALL[2]]);
        let masked = acl(&[SMALL[0], SMALL[1], (16, 7, NONE), SMALL[2]]);
        assert!(!masked.is_mode());
        assert_eq!(masked.permissions(), 0o674);
    }

    #[test]
    fn nothing_is_no_list() {
        assert_eq!(Acl::parse(&[]), Ok(None));
        assert_eq!(Acl::parse(&bytes(&[])), Ok(None));
    }

    #[test]
    fn the_mask_is_the_group_of_the_mode() {
        assert_eq!(acl(&NAMED).permissions(), 0o751);
        assert_eq!(acl(&SMALL).permissions(), 0o644);
        assert!(acl(&SMALL).is_mode());
        assert!(!acl(&NAMED).is_mode());
    }

    #[test]
    fn setting_the_mode_changes_the_mask_and_leaves_the_owning_group() {
        let mut list = acl(&NAMED);
        list.set_permissions(0o620);
        let expected = [(1, 6, NONE), (2, 6, 1000), (4, 5, NONE), (16, 2, NONE), (32, 0, NONE)];
        assert_eq!(list, acl(&expected));
        let mut small = acl(&SMALL);
        small.set_permissions(0o751);
        assert_eq!(small.permissions(), 0o751);
    }

    #[test]
    fn what_is_inherited_is_no_more_than_was_asked_for() {
        let Inherited { permissions, acl: inherited } = acl(&NAMED).inherit(0o1666);
        assert_eq!(permissions, 0o1640);
        let expected = [(1, 6, NONE), (2, 6, 1000), (4, 5, NONE), (16, 4, NONE), (32, 0, NONE)];
        assert_eq!(inherited, Some(acl(&expected)));
        let small = acl(&SMALL).inherit(0o777);
        assert_eq!(small, Inherited { permissions: 0o644, acl: None });
    }
}
