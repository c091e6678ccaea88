//! Extended attributes: what of a stream can be read is kept, in the place where it is.
//!
//! Keeps true: nobody may do more with a file than before: where an access ACL is lost, the group's
//! part of the mode, which was its mask, goes; where ACL and mode differ, what both allow stays.

use std::collections::BTreeSet;

use zerocopy::little_endian::{U16, U32, U64};

use super::item::{Fix, Item};
use super::work::Work;
use crate::block::{BlockNo, as_usize};
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::Kind;
use crate::ondisk::inode::{AreaKind, InodeBlock, InodeCore};
use crate::ondisk::xattr::{XATTR_BLOCKS_MAX, XATTR_PAYLOAD, XattrBlock};
use crate::xattr::{Name, Namespace, Xattrs};

impl Work<'_> {
    pub(super) async fn read_xattrs(&mut self, item: &mut Item, on_disk: &InodeBlock) {
        let core = &on_disk.core;
        let count = usize::from(core.xattr_blocks);
        let (mut blocks, mut stream) = (Vec::new(), Vec::new());
        let mut next = core.xattr_first.get();
        let mut why = None;
        while next != 0 && blocks.len() < XATTR_BLOCKS_MAX {
            let at = BlockNo(next);
            let block = self.find(at, Kind::Xattr, item.owner()).await;
            let is_free = !self.is_used(at) && self.fits(at, ChunkKind::Tree);
            let Some(block) = block.filter(|_| is_free && blocks.len() < count) else {
                why =
                    Some(format!("its chain of extended attributes is cut off before block {at}"));
                break;
            };
            let block: &XattrBlock = block.get();
            stream.extend_from_slice(&block.payload);
            next = block.next.get();
            self.claim(at, ChunkKind::Tree);
            blocks.push(at);
        }
        if why.is_none() && blocks.len() != count {
            why = Some(format!("had {} blocks of extended attributes, not {count}", blocks.len()));
        }
        item.own.extend(&blocks);
        let len = as_usize(core.xattr_len.get().into());
        if len > stream.len() && why.is_none() {
            why = Some("its extended attributes are longer than their blocks".into());
        }
        stream.truncate(len);
        let inline = &on_disk.area[core.room()..];
        if !inline.is_empty() && len > 0 {
            why = why.or(Some("extended attributes in two places, those in the inode stay".into()));
        }
        let bytes = if inline.is_empty() { &stream[..] } else { inline };
        let mut xattrs = match Xattrs::parse(bytes) {
            Ok(xattrs) => xattrs,
            Err(what) => {
                why = why.or(Some(what.to_owned()));
                parse_front(bytes)
            }
        };
        if !inline.is_empty() && xattrs.len() == 0 && why.is_none() {
            why = Some("room for extended attributes without any".into());
        }
        self.settle_acls(item, core, &mut xattrs);
        if why.is_none() && xattrs.kinds() != core.xattr_kinds {
            why = Some("says that it has other extended attributes than it has".into());
        }
        if let Some(why) = why {
            let kept = xattrs.names().count();
            self.did(item.name(), format!("{why}; {kept} extended attributes are kept"));
            item.fix.xattrs = Some(xattrs);
        } else if item.fix.mode.is_some() || Xattrs::parse(bytes).as_ref() != Ok(&xattrs) {
            item.fix.xattrs = Some(xattrs);
        }
        if item.fix.xattrs.is_some() {
            item.fix.xattr_blocks = Some(blocks);
        }
    }

    /// What the type of file may have, and what ACL and mode say of each other.
    fn settle_acls(&mut self, item: &mut Item, core: &InodeCore, xattrs: &mut Xattrs) {
        let may_not: Vec<Name> = xattrs
            .names()
            .filter(|name| !name.namespace.is_possible_for(item.file_type))
            .cloned()
            .collect();
        for name in may_not {
            xattrs.remove(&name);
            let shown = String::from_utf8_lossy(&name.whole()).into_owned();
            self.did(item.name(), format!("had {shown:?} in spite of its type; removed"));
        }
        let mode = core.mode.get();
        match xattrs.acl(&Name::ACL) {
            Some(mut acl) => {
                let both = mode & !0o777 | mode & 0o777 & acl.permissions();
                if both & 0o777 != acl.permissions() || both != mode {
                    let said = acl.permissions();
                    let what =
                        format!("its mode and its ACL ({said:o}) differed; what both allow stays");
                    self.did(item.name(), what);
                    acl.set_permissions(both & 0o777);
                    xattrs.replace(&Name::ACL, acl.encode());
                    item.fix.mode = Some(both);
                }
                if acl.is_mode() {
                    xattrs.remove(&Name::ACL);
                    self.did(item.name(), "had an ACL that said no more than its mode; removed");
                }
            }
            None if core.xattr_kinds & InodeCore::HAS_ACL != 0
                && Namespace::Acl.is_possible_for(item.file_type) =>
            {
                // The group's bits were the mask of entries that are lost.
                item.fix.mode = Some(mode & !0o070);
                self.did(item.name(), "its ACL is lost; its group may do nothing now");
            }
            None => {}
        }
    }

    /// The attributes that are kept, in the place where they were: there is room, for they are no more.
    #[expect(clippy::cast_possible_truncation, reason = "a stream is shorter than 2^17 bytes")]
    pub(super) async fn write_xattrs(&mut self, item: &mut Item, on_disk: &mut InodeBlock) {
        let Fix { xattrs: Some(xattrs), xattr_blocks, .. } = &item.fix else { return };
        let blocks = xattr_blocks.clone().unwrap_or_default();
        let stream = xattrs.encode();
        let is_inline = on_disk.core.xattr_inline.get() > 0;
        let before = on_disk.core.room();
        let core = &mut on_disk.core;
        core.xattr_kinds = xattrs.kinds();
        core.xattr_len = U32::new(if is_inline { 0 } else { stream.len() as u32 });
        if is_inline {
            on_disk.core.xattr_inline = U16::new(stream.len().next_multiple_of(8) as u16);
            on_disk.area[before..].fill(0);
            let room = on_disk.core.room();
            on_disk.area[room..room + stream.len()].copy_from_slice(&stream);
            // The entries of a directory tile the room that there is.
            item.rebuild |= on_disk.core.area == AreaKind::Entries as u8;
        }
        let needed = if is_inline { 0 } else { stream.len().div_ceil(XATTR_PAYLOAD) };
        let kept: Vec<BlockNo> = blocks.iter().copied().take(needed).collect();
        on_disk.core.xattr_blocks = kept.len() as u8;
        on_disk.core.xattr_first = U64::new(kept.first().map_or(0, |at| at.0));
        for (i, (at, piece)) in kept.iter().zip(stream.chunks(XATTR_PAYLOAD)).enumerate() {
            let Some(mut block) = self.find(*at, Kind::Xattr, item.owner()).await else { continue };
            let body: &mut XattrBlock = block.get_mut();
            body.next = U64::new(kept.get(i + 1).map_or(0, |next| next.0));
            body.payload.fill(0);
            body.payload[..piece.len()].copy_from_slice(piece);
            self.put_changed(*at, Kind::Xattr, item.owner(), block).await;
        }
        let gone: BTreeSet<BlockNo> = blocks.iter().copied().skip(needed).collect();
        item.blocks -= gone.len() as u64;
        item.own.retain(|at| !gone.contains(at));
        gone.into_iter().for_each(|at| self.release(at));
    }
}

/// The entries at the front of a stream that are whole and in order.
fn parse_front(bytes: &[u8]) -> Xattrs {
    let mut best = Xattrs::default();
    let mut at = 0;
    while let Some(len) = Xattrs::entry_len(&bytes[at..]) {
        at += len;
        match Xattrs::parse(&bytes[..at]) {
            Ok(xattrs) => best = xattrs,
            Err(_) => break,
        }
    }
    best
}
