//! A repair that loses its power leaves what a second one repairs, to the same result.
//!
//! The events of one repair are taken in turn; behind some of them the device crashes. All those that
//! make something durable are among them: what a crash can leave changes there.

use std::collections::{BTreeMap, BTreeSet};

use mfs::block::BlockNo;
use mfs::ondisk::header::Kind;
use model::Random;
use sim::disk::{Device, Event, Image, Replayer};

use super::contents::{
    BLOCKS, Contents, OPTIONS, Tree, What, check, contents, damage, repair, repair_device, tree,
    zero,
};
use super::random::{Shown, damage_some, judge};

/// A repair, and what it leads to.
struct Whole {
    base: Image,
    log: Vec<Event>,
    tree: Tree,
}

fn whole(image: &Image, seed: u64) -> Whole {
    let device = Device::new(BLOCKS, image.clone());
    let first = repair_device(&device, seed, OPTIONS);
    assert!(first.is_clean(), "{:?} {:?}", first.left, first.after.problems);
    Whole { base: device.base(), log: device.log(), tree: tree(device.visible()) }
}

impl Whole {
    /// Places behind which the power goes: all that make something durable, if there are no more than
    /// `most`, and some others.
    fn cuts(&self, random: &mut Random, most: usize) -> BTreeSet<usize> {
        let durable: BTreeSet<u64> = self
            .log
            .iter()
            .filter_map(|event| {
                if let Event::Issued { id, durable: true, .. } = event { Some(*id) } else { None }
            })
            .collect();
        let matters = |event: &Event| match event {
            Event::Issued { id, .. } | Event::Written { id } => durable.contains(id),
            Event::FlushBegan { .. } | Event::Flushed { .. } | Event::Flipped { .. } => true,
        };
        let mut cuts: BTreeSet<usize> =
            (0..self.log.len()).filter(|i| matters(&self.log[*i])).collect();
        while cuts.len() > most {
            let all: Vec<usize> = cuts.iter().copied().collect();
            cuts.remove(&random.pick(&all));
        }
        while cuts.len() < most.min(self.log.len()) {
            cuts.insert(usize::try_from(random.below(self.log.len() as u64)).expect("small"));
        }
        cuts
    }

    /// Crashes behind each cut, and what is said of what the crash leaves.
    fn cut(&self, random: &mut Random, most: usize, mut then: impl FnMut(&Image)) {
        let cuts = self.cuts(random, most);
        let mut replayer = Replayer::new(self.base.clone());
        for (i, event) in self.log.iter().enumerate() {
            replayer.apply(event);
            if cuts.contains(&i) {
                let _shown = Shown(i as u64);
                then(&replayer.crash(random));
            }
        }
    }
}

/// Paths and what is there; numbers of inodes that were made do not matter.
fn contents_of(tree: &Tree) -> BTreeMap<&str, &Result<What, String>> {
    tree.iter().map(|(path, (_, what))| (path.as_str(), what)).collect()
}

/// A directory to be made anew, one whose entries are found in its damaged block, an inode to be isolated,
/// attributes to be cut, a bitmap and a table that are lost.
fn damaged(contents: &Contents) -> (Image, BTreeSet<BlockNo>) {
    let mut image = contents.image.clone();
    let mut damaged = BTreeSet::new();
    let places = [
        contents.of("/many", Kind::DirBucket)[0],
        contents.of("/deep-0", Kind::Inode)[0],
        contents.of("/small-3", Kind::Inode)[0],
        contents.of("/xattrs-11", Kind::Xattr)[1],
        contents.of_kind(Kind::Bitmap)[0],
        contents.of_kind(Kind::ChunkTable)[1],
    ];
    for (i, at) in places.into_iter().enumerate() {
        if i < 3 {
            damage(&mut image, at, |block| {
                block.0[100] ^= 0xff;
                block.0[3000] ^= 0xff;
            });
        } else {
            zero(&mut image, at);
        }
        damaged.insert(at);
    }
    (image, damaged)
}

#[test]
fn a_repair_that_loses_its_power_is_finished_by_the_next_one_or_a_mount_to_the_same_result() {
    let contents = contents();
    let (image, damaged) = damaged(contents);
    let whole = whole(&image, 5);
    let (mut repaired, mut replayed) = (0, 0);
    whole.cut(&mut Random::new(5), 60, |crashed| {
        let found = if check(crashed).problems.is_empty() {
            // The journal holds all of it: whoever mounts replays it.
            replayed += 1;
            tree(crashed.clone())
        } else {
            repaired += 1;
            let (image, second) = repair(crashed);
            assert!(second.is_clean(), "{:?} {:?}", second.left, second.after.problems);
            tree(image)
        };
        judge(contents, &damaged, &found);
        assert_eq!(contents_of(&found), contents_of(&whole.tree));
    });
    assert!(repaired > 3 && replayed > 3, "{repaired} {replayed}");
}

#[test]
fn repairs_of_random_damage_lose_their_power_at_some_writes() {
    let contents = contents();
    for seed in 500..508 {
        let _shown = Shown(seed);
        let mut random = Random::new(seed);
        let mut image = contents.image.clone();
        let damaged = damage_some(contents, &mut image, &mut random);
        whole(&image, seed).cut(&mut random, 6, |crashed| {
            let (image, second) = repair(crashed);
            assert!(second.is_clean(), "{:?} {:?}", second.left, second.after.problems);
            judge(contents, &damaged, &tree(image));
        });
    }
}
