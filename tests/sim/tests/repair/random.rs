//! Random damage to metadata: the repair ends, a second one finds nothing to do, and every file of
//! which nothing was damaged is there with its contents.

use std::collections::BTreeSet;

use mfs::block::{BLOCK_SIZE, BlockNo};
use mfs::file::FileId;
use mfs::ondisk::header::{self, Header, Kind};
use model::Random;
use sim::disk::Image;

use super::contents::{Contents, Tree, change, contents, damage, repaired, tree, zero};

/// Seeds of a test; the variables override them.
pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    let setting = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = setting("REPAIR_FIRST").unwrap_or(0);
    first..first + setting("REPAIR_SEEDS").unwrap_or(default)
}

/// Damages some blocks; returns which.
pub(crate) fn damage_some(
    contents: &Contents,
    image: &mut Image,
    random: &mut Random,
) -> BTreeSet<BlockNo> {
    let kinds = [
        (Kind::Inode, 8),
        (Kind::ExtentNode, 2),
        (Kind::DirBucket, 4),
        (Kind::DirIndex, 1),
        (Kind::Xattr, 2),
        (Kind::Bitmap, 2),
        (Kind::ChunkTable, 3),
        (Kind::GroupHeader, 2),
        (Kind::GroupMap, 1),
        (Kind::SlotBody, 1),
        (Kind::SlotHead, 1),
        (Kind::Free, 2),
        (Kind::JournalHeader, 1),
        (Kind::Superblock, 1),
    ];
    let mut damaged = BTreeSet::new();
    for _ in 0..=random.below(8) {
        let places = contents.of_kind(random.weighted(&kinds));
        if places.is_empty() {
            continue;
        }
        // Two copies of superblocks at most: the others have to agree.
        let at = random.pick(&places);
        let is_superblock =
            |at: &BlockNo| Header::of(&contents.image[at]).kind() == Some(Kind::Superblock);
        if is_superblock(&at) && damaged.iter().filter(|at| is_superblock(at)).count() >= 2 {
            continue;
        }
        let place = usize::try_from(random.below(BLOCK_SIZE as u64 * 8)).expect("small");
        let flip = |block: &mut mfs::block::Block| block.0[place / 8] ^= 1 << (place % 8);
        match random.below(6) {
            0 => damage(image, at, flip),
            1 => {
                let other = random.below(BLOCK_SIZE as u64);
                damage(image, at, |block| {
                    flip(block);
                    block.0[usize::try_from(other).expect("small")] ^= 0x18;
                });
            }
            2 => zero(image, at),
            3 => {
                // Torn: some sectors are those of another block.
                let other = random.pick(&places);
                let from = contents.image[&other].to_boxed();
                let sectors = random.next_u64();
                damage(image, at, |block| {
                    for sector in (0..8).filter(|i| sectors >> i & 1 == 1) {
                        let range = sector * 512..(sector + 1) * 512;
                        block.0[range.clone()].copy_from_slice(&from.0[range]);
                    }
                });
            }
            4 => {
                let other = random.pick(&places);
                if is_superblock(&other) {
                    continue;
                }
                let (a, b) = (image[&at].clone(), image[&other].clone());
                image.insert(at, b);
                image.insert(other, a);
                damaged.insert(other);
            }
            _ => {
                // With a checksum that is right.
                let count = 1 + random.below(8);
                let places: Vec<(usize, u8)> = (0..count)
                    .map(|_| {
                        // The places that mean something are in front.
                        let end = random.pick(&[64, 256, 512, BLOCK_SIZE as u64]);
                        let at = usize::try_from(random.below(end)).expect("small");
                        (at, random.pick(&[0, 1, 2, 3, 0x10, 0x80, 0xff]))
                    })
                    .collect();
                change(image, at, |block| {
                    places.iter().for_each(|(at, byte)| block.0[*at] = *byte)
                });
            }
        }
        damaged.insert(at);
    }
    damaged
}

/// Every file of which nothing was damaged is there, under its name where that was not damaged.
pub(crate) fn judge(contents: &Contents, damaged: &BTreeSet<BlockNo>, found: &Tree) {
    let owners: BTreeSet<u64> = damaged
        .iter()
        .filter_map(|at| contents.image.get(at).map(|block| (at, block)))
        .filter(|(at, block)| header::check(block, contents.fs_id, **at).is_ok())
        .filter(|(_, block)| {
            matches!(
                Header::of(block).kind(),
                Some(
                    Kind::Inode | Kind::ExtentNode | Kind::DirIndex | Kind::DirBucket | Kind::Xattr
                )
            )
        })
        .map(|(_, block)| Header::of(block).owner.get())
        .collect();
    let is_damaged = |file: FileId| owners.contains(&file.inode.0);
    for (path, (file, what)) in &contents.tree {
        if is_damaged(*file) {
            continue;
        }
        let above = path.char_indices().filter(|(_, c)| *c == '/').map(|(i, _)| &path[..i]);
        let is_named = above.clone().all(|dir| !is_damaged(contents.tree[dir].0));
        if is_named {
            assert_eq!(found.get(path), Some(&(*file, what.clone())), "{path:?}");
        } else {
            let somewhere = found.values().any(|there| *there == (*file, what.clone()));
            assert!(somewhere, "{path:?}, {file:?}, is nowhere");
        }
    }
}

#[test]
fn whatever_is_damaged_what_was_not_is_there_after_a_repair() {
    let contents = contents();
    for seed in seeds(40) {
        let _shown = Shown(seed);
        let mut image = contents.image.clone();
        let damaged = damage_some(contents, &mut image, &mut Random::new(seed));
        let (image, _) = repaired(&image);
        judge(contents, &damaged, &tree(image));
    }
}

/// Says which seed it was.
pub(crate) struct Shown(pub(crate) u64);

impl Drop for Shown {
    #[expect(clippy::print_stderr, reason = "a failure shows the seed that made it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}
