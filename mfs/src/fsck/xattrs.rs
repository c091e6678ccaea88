//! Extended attributes: the blocks that they are in, their order and limits, and what ACLs and the
//! mode say of each other.

use super::Check;
use crate::block::{BlockNo, as_usize};
use crate::file::{FileId, FileType};
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::{Kind, Owner};
use crate::ondisk::inode::InodeBlock;
use crate::ondisk::xattr::{XATTR_BLOCKS_MAX, XattrBlock};
use crate::xattr::{Name, Xattrs};

impl Check<'_> {
    pub(super) async fn read_xattrs(&mut self, file: FileId, on_disk: &InodeBlock) {
        let name = format!("inode {}", file.inode);
        let core = &on_disk.core;
        let mut in_blocks = self.read_xattr_blocks(file, on_disk).await;
        let len = as_usize(core.xattr_len.get().into());
        if len > in_blocks.len() {
            let have = in_blocks.len();
            let what = format!("{len} bytes of extended attributes in blocks of {have}");
            self.problem(&name, what);
            return;
        }
        in_blocks.truncate(len);
        let inline = &on_disk.area[core.room()..];
        if !inline.is_empty() && len > 0 {
            self.problem(&name, "extended attributes in the inode and in blocks");
            return;
        }
        let stream = if len > 0 { &in_blocks } else { inline };
        let xattrs = match Xattrs::parse(stream) {
            Ok(xattrs) => xattrs,
            Err(what) => {
                self.problem(&name, what);
                return;
            }
        };
        if !inline.is_empty() && xattrs.len() == 0 {
            self.problem(&name, "room for extended attributes without any");
        }
        if xattrs.kinds() != core.xattr_kinds {
            let (said, are) = (core.xattr_kinds, xattrs.kinds());
            let what = format!("says extended attributes of kinds {said:#x}, they are {are:#x}");
            self.problem(&name, what);
        }
        let file_type = FileType::of_mode(core.mode.get()).expect("checked");
        if let Some(wrong) = xattrs.names().find(|n| !n.namespace.is_possible_for(file_type)) {
            let shown = String::from_utf8_lossy(&wrong.whole()).into_owned();
            self.problem(
                &name,
                format!("has the extended attribute {shown:?} in spite of its type"),
            );
        }
        if let Some(acl) = xattrs.acl(&Name::ACL) {
            let (mode, said) = (core.mode.get() & 0o777, acl.permissions());
            if acl.is_mode() {
                self.problem(&name, "an ACL that says no more than the mode");
            }
            if mode != said {
                self.problem(&name, format!("mode {mode:o} beside an ACL that says {said:o}"));
            }
        }
    }

    /// The contents of all blocks for extended attributes, spare ones too.
    async fn read_xattr_blocks(&mut self, file: FileId, on_disk: &InodeBlock) -> Vec<u8> {
        let name = format!("inode {}", file.inode);
        let count = usize::from(on_disk.core.xattr_blocks);
        let owner = Owner { id: file.inode.0, generation: file.generation };
        let mut stream = Vec::new();
        let mut next = on_disk.core.xattr_first.get();
        let mut found = 0;
        while next != 0 {
            if found == count || found == XATTR_BLOCKS_MAX {
                self.problem(&name, format!("more than {count} blocks of extended attributes"));
                return stream;
            }
            let block = match self.read(BlockNo(next), Kind::Xattr, owner).await {
                Ok(block) => *block.get::<XattrBlock>(),
                Err(corruption) => {
                    self.problem(&name, corruption);
                    return stream;
                }
            };
            self.use_block(&name, BlockNo(next), ChunkKind::Tree);
            stream.extend_from_slice(&block.payload);
            next = block.next.get();
            found += 1;
        }
        if found != count {
            self.problem(&name, format!("{found} blocks of extended attributes, not {count}"));
        }
        stream
    }
}
