//! Access control lists as acl(5) describes them, written for being obviously right.

use super::errno::Errno;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// What the kernel asks for: a page.
const BYTES_MAX: usize = 4096;

/// Entries: tag, permissions, id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Acl(Vec<(u16, u16, u32)>);

impl Acl {
    /// `None` for a list without entries. What is read may be nonsense still.
    pub(super) fn parse(value: &[u8]) -> Result<Option<Acl>, Errno> {
        if value.is_empty() {
            return Ok(None);
        }
        if value.len() < 4 || !(value.len() - 4).is_multiple_of(8) {
            return Err(Errno::Invalid);
        }
        if value[..4] != [2, 0, 0, 0] {
            return Err(Errno::NotSupported);
        }
        if value.len() > BYTES_MAX {
            return Err(Errno::TooBig);
        }
        let entries: Vec<(u16, u16, u32)> = value[4..]
            .chunks_exact(8)
            .map(|e| {
                let tag = u16::from_le_bytes([e[0], e[1]]);
                let id = u32::from_le_bytes([e[4], e[5], e[6], e[7]]);
                let id = if tag == USER || tag == GROUP { id } else { u32::MAX };
                (tag, u16::from_le_bytes([e[2], e[3]]), id)
            })
            .collect();
        if entries.is_empty() {
            return Ok(None);
        }
        let known = |tag| matches!(tag, OWNER | USER | OWNING_GROUP | GROUP | MASK | OTHER);
        if entries.iter().all(|e| known(e.0)) {
            Ok(Some(Acl(entries)))
        } else {
            Err(Errno::Invalid)
        }
    }

    /// Does it make sense?
    pub(super) fn check(&self) -> Result<(), Errno> {
        let entries = &self.0;
        let count = |tag| entries.iter().filter(|e| e.0 == tag).count();
        let named = count(USER) + count(GROUP);
        let is_valid = entries.is_sorted_by_key(|e| e.0)
            && entries
                .iter()
                .all(|e| e.1 <= 7 && (e.2 != u32::MAX || !matches!(e.0, USER | GROUP)))
            && [OWNER, OWNING_GROUP, OTHER].iter().all(|tag| count(*tag) == 1)
            && (count(MASK) == 1 || count(MASK) == 0 && named == 0);
        if is_valid { Ok(()) } else { Err(Errno::Invalid) }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, permissions, id) in &self.0 {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    /// Nothing but owner, group and other.
    pub(super) fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    fn of(&mut self, tag: u16) -> &mut u16 {
        let found = self.0.iter_mut().find(|e| e.0 == tag);
        &mut found.expect("every list has owner, group and other; the mask was looked for").1
    }

    fn class_of_group(&self) -> u16 {
        if self.0.iter().any(|e| e.0 == MASK) { MASK } else { OWNING_GROUP }
    }

    pub(super) fn mode(&self) -> u16 {
        let mut acl = self.clone();
        let group = self.class_of_group();
        (*acl.of(OWNER) << 6) | (*acl.of(group) << 3) | *acl.of(OTHER)
    }

    pub(super) fn set_mode(&mut self, mode: u16) {
        let group = self.class_of_group();
        *self.of(OWNER) = mode >> 6 & 7;
        *self.of(group) = mode >> 3 & 7;
        *self.of(OTHER) = mode & 7;
    }

    /// Takes away what `mode` does not have.
    pub(super) fn restrict(&mut self, mode: u16) {
        let mode = self.mode() & mode;
        self.set_mode(mode);
    }
}
