//! That sequences mean what they should: deterministic, varied, and the tree stays whole.

use std::collections::BTreeMap;

use mx_base::Timestamp;

use super::*;
use crate::posix::{Compare, Errno, Ino, Kind, Tree, diff};

#[test]
fn a_seed_and_a_profile_give_the_same_tree_again() {
    for profile in Profile::ALL {
        let (one, two) = (run(5, profile, 500), run(5, profile, 500));
        assert_eq!(diff(&one.snapshot(), &two.snapshot(), Compare::WithTimes), None);
        let other = run(6, profile, 500);
        assert!(diff(&one.snapshot(), &other.snapshot(), Compare::WithTimes).is_some());
    }
}

#[test]
fn every_profile_mostly_succeeds_and_meets_errors_too() {
    for profile in Profile::ALL {
        let mut tree = Tree::new(time(0));
        let mut results: BTreeMap<Option<Errno>, u32> = BTreeMap::new();
        for (step, op) in Generator::new(1, profile).take(2_000).enumerate() {
            let Some(action) = op.resolve(&tree) else { continue };
            let result = tree.apply(&action, time(step));
            *results.entry(result.err()).or_default() += 1;
        }
        let succeeded = results.get(&None).copied().unwrap_or(0);
        let all: u32 = results.values().sum();
        assert!(succeeded * 2 > all, "{}: {results:?}", profile.name());
        assert!(results.len() > 1, "{}: {results:?}", profile.name());
    }
}

#[test]
fn an_operation_that_fails_changes_nothing() {
    for profile in [Profile::Metadata, Profile::RenameStorm] {
        let mut tree = Tree::new(time(0));
        for (step, op) in Generator::new(2, profile).take(1_000).enumerate() {
            let Some(action) = op.resolve(&tree) else { continue };
            let before = tree.clone();
            if tree.apply(&action, time(step)).is_err() || !action.changes() {
                let difference = diff(&before.snapshot(), &tree.snapshot(), Compare::WithTimes);
                assert_eq!(difference, None, "{action:?}");
                assert_eq!(before.statfs(), tree.statfs());
            }
        }
    }
}

#[test]
fn link_counts_and_parents_are_those_that_a_walk_counts() {
    for profile in Profile::ALL {
        let tree = run(3, profile, 1_500);
        let mut names: BTreeMap<Ino, u32> = BTreeMap::new();
        for dir in tree.inos().filter(|ino| tree.kind(*ino) == Some(Kind::Directory)) {
            let Ok(entries) = tree.readdir(dir) else { continue };
            let below = entries.iter().filter(|(_, _, kind)| *kind == Kind::Directory);
            let expected = 2 + u32::try_from(below.count()).expect("few");
            assert_eq!(tree.getattr(dir).map(|a| a.nlink), Ok(expected));
            for (name, ino, kind) in entries {
                *names.entry(ino).or_default() += 1;
                assert_eq!(tree.lookup(dir, &name), Ok(ino));
                if kind == Kind::Directory {
                    assert_eq!(tree.lookup(ino, b".."), Ok(dir));
                }
            }
        }
        for (ino, names) in names {
            let attributes = tree.getattr(ino).expect("an entry names what lives");
            if attributes.kind == Kind::Directory {
                assert_eq!(names, 1, "a directory has one name");
            } else {
                assert_eq!(attributes.nlink, names);
            }
            let path = tree.path(ino).expect("it has a name");
            assert_eq!(tree.resolve(&path), Ok(ino));
        }
    }
}

#[test]
fn deep_directories_get_deep_and_many_links_are_many() {
    let deep = run(1, Profile::DeepDirectories, 2_000);
    assert!(deep.inos().map(|ino| deep.depth(ino)).max() > Some(12));
    let linked = run(1, Profile::ManyLinks, 2_000);
    let most = linked.inos().map(|ino| linked.names(ino).len()).max();
    assert!(most > Some(15), "{most:?}");
    let sparse = run(1, Profile::BigSparse, 300);
    let largest = sparse.inos().filter_map(|ino| sparse.getattr(ino).ok()).map(|a| a.size).max();
    assert!(largest > Some(1 << 40), "{largest:?}");
}

#[test]
fn a_profile_is_found_by_its_name() {
    for profile in Profile::ALL {
        assert_eq!(Profile::from_name(profile.name()), Some(profile));
    }
    assert_eq!(Profile::from_name("none"), None);
}

#[test]
fn an_index_beyond_what_exists_counts_on_from_the_first() {
    let tree = Tree::new(time(0));
    let op = Op::Getattr { object: Pick::Any(41) };
    assert_eq!(op.resolve(&tree), Some(Action::Getattr { ino: Ino::ROOT }));
    let op = Op::Unlink {
        entry: Entry::Existing { among: Among::All, object: Pick::Newest(7), name: 0 },
    };
    assert_eq!(op.resolve(&tree), None);
}

fn run(seed: u64, profile: Profile, ops: usize) -> Tree {
    let mut tree = Tree::new(time(0));
    for (step, op) in Generator::new(seed, profile).take(ops).enumerate() {
        if let Some(action) = op.resolve(&tree) {
            // Errors are part of the workload.
            let _ = tree.apply(&action, time(step));
        }
    }
    tree
}

fn time(step: usize) -> Timestamp {
    Timestamp { seconds: 1_000 + i64::try_from(step).expect("few steps"), nanos: 0 }
}
