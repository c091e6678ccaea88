//! The copies of the superblock: which of them counts, and which are not like it.
//!
//! Nobody changes a superblock, so whole copies that differ are damaged ones: what most of them say
//! counts, and among as many the first.

use crate::block::{BLOCK_SIZE, Block, BlockNo};
use crate::env::Disk;
use crate::fsck::media::read_one;
use crate::layout::Layout;
use crate::ondisk::header::HEADER_SIZE;
use crate::ondisk::superblock::{SUPERBLOCK_AT, SUPERBLOCK_COPY_AT};
use crate::superblock::{self, Superblock, SuperblockError};

/// The superblock, and the copies that are not like it.
pub(crate) struct Chosen {
    pub(crate) sb: Superblock,
    /// The first good copy.
    pub(crate) block: Box<Block>,
    pub(crate) bad: Vec<BlockNo>,
}

/// Copies that are looked at to find out what most of them say.
const VOTERS_MAX: usize = 6;

/// # Errors
/// As [`superblock::read`].
pub(crate) async fn choose(disk: &dyn Disk) -> Result<Chosen, SuperblockError> {
    let mut places = vec![BlockNo(SUPERBLOCK_AT), BlockNo(SUPERBLOCK_COPY_AT)];
    if let Ok(layout) = Layout::for_device(disk.blocks()) {
        places.extend(layout.superblock_copies().skip(2).take(VOTERS_MAX - 2));
    }
    let mut whole: Vec<(Superblock, Box<Block>)> = Vec::new();
    for at in places {
        if let Some(block) = read_one(disk, at).await
            && let Some(sb) = superblock::read_copy(&block, at)
            && sb.layout.device_blocks <= disk.blocks()
        {
            whole.push((sb, block));
        }
    }
    let votes = |block: &Block| whole.iter().filter(|(_, other)| is_same(block, other)).count();
    let most = whole.iter().map(|(_, block)| votes(block)).max().unwrap_or(0);
    let Some((sb, block)) = whole.iter().find(|(_, block)| votes(block) == most).cloned() else {
        // Says why there is none.
        superblock::read(disk).await?;
        return Err(SuperblockError::NotFound);
    };
    let mut bad = Vec::new();
    for at in sb.layout.superblock_copies() {
        let copy = read_one(disk, at).await;
        let is_good = copy.is_some_and(|copy| {
            superblock::read_copy(&copy, at).is_some() && is_same(&copy, &block)
        });
        if !is_good {
            bad.push(at);
        }
    }
    Ok(Chosen { sb, block, bad })
}

/// Does all that is not the header of the place itself agree?
fn is_same(a: &Block, b: &Block) -> bool {
    a.0[HEADER_SIZE..BLOCK_SIZE] == b.0[HEADER_SIZE..BLOCK_SIZE] && a.0[8..24] == b.0[8..24]
}
