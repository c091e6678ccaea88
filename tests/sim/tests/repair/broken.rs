//! A device on which something is broken, and what a check and a repair say of it.

use mfs::block::BlockNo;
use mfs::fsck::Repaired;
use mfs::ondisk::extent::ExtentEntry;
use mfs::ondisk::inode::InodeBlock;
use sim::disk::Image;
use zerocopy::{FromBytes, IntoBytes};

use super::contents::{Contents, Tree, change, check, contents, damage, repaired, tree};

/// Breaks something, and returns what was found wrong, what the repair did, and the tree after it.
pub(crate) struct Broken {
    pub(crate) found: Vec<String>,
    pub(crate) repaired: Repaired,
    pub(crate) image: Image,
    pub(crate) tree: Tree,
}

pub(crate) fn broken(f: impl FnOnce(&Contents, &mut Image)) -> Broken {
    let contents = contents();
    let mut image = contents.image.clone();
    f(contents, &mut image);
    let found = check(&image).problems.iter().map(ToString::to_string).collect();
    let (image, repaired) = repaired(&image);
    let tree = tree(image.clone());
    Broken { found, repaired, image, tree }
}

impl Broken {
    /// A check finds this, and the repair says that.
    pub(crate) fn tells(&self, found: &str, done: &str) -> &Broken {
        assert!(self.found.iter().any(|text| text.contains(found)), "{found:?}: {:#?}", self.found);
        let all: Vec<String> = self.repaired.done.iter().map(ToString::to_string).collect();
        assert!(all.iter().any(|text| text.contains(done)), "{done:?}: {all:#?}");
        self
    }

    /// Everything is as it was, but for these.
    pub(crate) fn leaves(&self, except: &[&str]) -> &Broken {
        for (path, there) in &contents().tree {
            let is_excepted =
                except.iter().any(|e| path == e || path.starts_with(&format!("{e}/")));
            if !is_excepted {
                let done = &self.repaired.done;
                assert!(self.tree.get(path) == Some(there), "{path}, {:?}: {done:#?}", there.0);
            }
        }
        self
    }

    pub(crate) fn lost_and_found(&self) -> Vec<&str> {
        let below = self.tree.keys().filter_map(|path| path.strip_prefix("/lost+found/"));
        below.filter(|name| !name.contains('/')).collect()
    }
}

pub(crate) fn inode(
    image: &mut Image,
    contents: &Contents,
    path: &str,
    f: impl FnOnce(&mut InodeBlock),
) {
    let at = BlockNo(contents.file(path).inode.0);
    change(image, at, |block| f(block.get_mut()));
}

pub(crate) fn root_extents(inode: &mut InodeBlock) -> &mut [ExtentEntry] {
    let count = usize::from(inode.core.root_count.get());
    let bytes = &mut inode.area[..count * ExtentEntry::SIZE];
    <[ExtentEntry]>::mut_from_bytes(bytes.as_mut_bytes()).expect("whole entries")
}

/// Destroys what is in a block beyond what one bit could explain.
pub(crate) fn spoil(image: &mut Image, at: BlockNo) {
    damage(image, at, |block| {
        block.0[300] ^= 0xff;
        block.0[2000] ^= 0xff;
    });
}
