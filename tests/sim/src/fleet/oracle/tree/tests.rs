//! Histories that one server could have shown, and such that it could not.

use mfs::file::InodeNo;

use super::*;

const A: LifeId = LifeId(1);
const B: LifeId = LifeId(2);

fn file(n: u64) -> FileId {
    FileId { inode: InodeNo(n), generation: 1 }
}

const ROOT: u64 = 1;

fn name(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn create(text: &str) -> Call {
    Call::Make { dir: file(ROOT), name: name(text), is_directory: false }
}

fn mkdir(text: &str) -> Call {
    Call::Make { dir: file(ROOT), name: name(text), is_directory: true }
}

fn lookup(text: &str) -> Call {
    Call::Lookup { dir: file(ROOT), name: name(text) }
}

fn unlink(text: &str) -> Call {
    Call::Unlink { dir: file(ROOT), name: name(text) }
}

fn rename(from: (u64, &str), to: (u64, &str)) -> Call {
    let of = |(dir, text): (u64, &str)| (file(dir), name(text));
    Call::Rename { from: of(from), to: of(to), how: Rename::Replace }
}

fn list(dir: u64) -> Call {
    Call::List { dir: file(dir) }
}

fn names(all: &[(&str, u64)]) -> Answer {
    Answer::Names(all.iter().map(|(text, n)| (name(text), file(*n))).collect())
}

/// One after the other.
fn done(history: &mut History, life: LifeId, call: Call, answer: Answer) {
    let number = history.begin(life, call);
    history.end(number, answer);
}

fn new() -> History {
    History::new(file(ROOT))
}

fn is_refused(mut history: History) -> bool {
    matches!(history.judge(), Err(Wrong::NoOrder(_)))
}

#[test]
fn of_two_that_make_one_name_at_the_same_time_one_is_refused() {
    let both = |second: Answer| {
        let mut history = new();
        let (a, b) = (history.begin(A, create("x")), history.begin(B, create("x")));
        history.end(a, Answer::File(file(7)));
        history.end(b, second);
        done(&mut history, A, list(ROOT), names(&[("x", 7)]));
        history
    };
    assert_eq!(both(Answer::Failed(Errno::Exists)).judge(), Ok(()));
    assert!(is_refused(both(Answer::File(file(8)))));
}

#[test]
fn operations_at_the_same_time_may_have_happened_in_any_order() {
    let mut history = new();
    done(&mut history, A, create("x"), Answer::File(file(7)));
    let moved = history.begin(A, rename((ROOT, "x"), (ROOT, "y")));
    let look = history.begin(B, lookup("x"));
    let made = history.begin(B, create("x"));
    history.end(look, Answer::File(file(7)));
    history.end(made, Answer::File(file(8)));
    done(&mut history, B, lookup("y"), Answer::File(file(7)));
    history.end(moved, Answer::Done);
    done(&mut history, B, list(ROOT), names(&[("x", 8), ("y", 7)]));
    assert_eq!(history.judge(), Ok(()));
    done(&mut history, A, lookup("x"), Answer::File(file(8)));
    assert_eq!(history.judge(), Ok(()), "the next window begins with what the last one left");
}

#[test]
fn what_was_removed_is_not_seen_again() {
    let mut history = new();
    done(&mut history, A, create("x"), Answer::File(file(7)));
    let removed = history.begin(A, unlink("x"));
    done(&mut history, B, lookup("x"), Answer::Absent);
    done(&mut history, B, lookup("x"), Answer::File(file(7)));
    history.end(removed, Answer::Done);
    assert!(is_refused(history));
}

#[test]
fn nobody_sees_half_of_a_rename() {
    let seen = |both: bool| {
        let mut history = new();
        done(&mut history, A, create("x"), Answer::File(file(7)));
        let moved = history.begin(A, rename((ROOT, "x"), (ROOT, "y")));
        let found = if both { names(&[("x", 7), ("y", 7)]) } else { names(&[("y", 7)]) };
        done(&mut history, B, list(ROOT), found);
        history.end(moved, Answer::Done);
        history
    };
    assert_eq!(seen(false).judge(), Ok(()));
    assert!(is_refused(seen(true)));
}

#[test]
fn of_two_directories_that_move_into_each_other_one_stays() {
    let moved = |second: Answer| {
        let mut history = new();
        done(&mut history, A, mkdir("x"), Answer::File(file(7)));
        done(&mut history, A, mkdir("y"), Answer::File(file(8)));
        let a = history.begin(A, rename((ROOT, "x"), (8, "x")));
        let b = history.begin(B, rename((ROOT, "y"), (7, "y")));
        history.end(a, Answer::Done);
        history.end(b, second);
        history
    };
    assert_eq!(moved(Answer::Failed(Errno::Invalid)).judge(), Ok(()));
    assert!(is_refused(moved(Answer::Done)));
}

#[test]
fn a_file_without_a_name_is_read_by_who_has_it_open() {
    let read = |bytes: Vec<u8>| {
        let mut history = new();
        done(&mut history, A, create("x"), Answer::File(file(7)));
        done(&mut history, A, Call::Write { file: file(7), value: 3 }, Answer::Done);
        done(&mut history, B, Call::Open { file: file(7), truncate: false }, Answer::Done);
        done(&mut history, A, unlink("x"), Answer::Done);
        done(&mut history, B, Call::Read { file: file(7) }, Answer::Bytes(bytes));
        let open = Call::Open { file: file(7), truncate: false };
        done(&mut history, A, open, Answer::Failed(Errno::Stale));
        history
    };
    assert_eq!(read(3_u64.to_le_bytes().to_vec()).judge(), Ok(()));
    assert!(is_refused(read(Vec::new())));
}

#[test]
fn what_was_cut_short_has_happened_or_not() {
    for found in [Answer::Absent, Answer::File(file(9))] {
        let mut history = new();
        history.begin(A, create("x"));
        history.lose(A);
        done(&mut history, B, lookup("x"), found.clone());
        done(&mut history, B, lookup("x"), found);
        assert_eq!(history.judge(), Ok(()));
    }
    let mut history = new();
    history.begin(A, create("x"));
    history.lose(A);
    done(&mut history, B, lookup("x"), Answer::File(file(9)));
    done(&mut history, B, lookup("x"), Answer::File(file(10)));
    assert!(is_refused(history));
}

#[test]
fn what_was_cut_short_and_was_not_seen_does_not_happen_later() {
    let mut history = new();
    done(&mut history, A, create("x"), Answer::File(file(7)));
    done(&mut history, B, lookup("x"), Answer::File(file(7)));
    done(&mut history, A, Call::Write { file: file(7), value: 1 }, Answer::Done);
    history.begin(A, unlink("x"));
    history.lose(A);
    done(&mut history, B, list(ROOT), names(&[("x", 7)]));
    done(&mut history, B, Call::Read { file: file(7) }, Answer::Bytes(Vec::new()));
    assert_eq!(history.judge(), Ok(()));
    done(&mut history, B, lookup("x"), Answer::File(file(7)));
    assert_eq!(history.judge(), Ok(()), "the look at everything was behind all that A has done");
}

/// A makes x, y and z, and is lost.
fn three_made(synced: bool, shown: Option<(&str, u64)>) -> History {
    let mut history = new();
    done(&mut history, A, create("x"), Answer::File(file(7)));
    if synced {
        done(&mut history, A, Call::Sync(Synced::Names), Answer::Done);
    }
    done(&mut history, A, create("y"), Answer::File(file(8)));
    if let Some((text, n)) = shown {
        done(&mut history, B, lookup(text), Answer::File(file(n)));
    }
    done(&mut history, A, create("z"), Answer::File(file(9)));
    history.lose(A);
    history
}

#[test]
fn a_lost_life_loses_what_it_did_last() {
    for found in [&[][..], &[("x", 7)], &[("x", 7), ("y", 8)], &[("x", 7), ("y", 8), ("z", 9)]] {
        let mut history = three_made(false, None);
        done(&mut history, B, list(ROOT), names(found));
        assert_eq!(history.judge(), Ok(()), "{found:?}");
    }
    for found in [&[("y", 8)][..], &[("x", 7), ("z", 9)]] {
        let mut history = three_made(false, None);
        done(&mut history, B, list(ROOT), names(found));
        assert!(is_refused(history), "{found:?}: the later without the earlier");
    }
}

#[test]
fn what_was_synced_or_shown_survives_its_life() {
    for (synced, shown) in [(true, None), (false, Some(("y", 8)))] {
        let mut history = three_made(synced, shown);
        done(&mut history, B, list(ROOT), names(&[]));
        assert!(is_refused(history));
    }
    let mut history = three_made(false, Some(("y", 8)));
    done(&mut history, B, list(ROOT), names(&[("x", 7)]));
    assert!(is_refused(history));
}

#[test]
fn a_life_loses_nothing_while_it_lives() {
    let mut history = new();
    done(&mut history, A, create("x"), Answer::File(file(7)));
    done(&mut history, B, list(ROOT), names(&[]));
    history.lose(A);
    assert!(is_refused(history));
}

#[test]
fn what_one_life_lost_does_not_come_back_when_another_one_is_lost() {
    let mut history = new();
    done(&mut history, A, create("x"), Answer::File(file(7)));
    done(&mut history, B, create("y"), Answer::File(file(8)));
    history.lose(A);
    done(&mut history, B, lookup("x"), Answer::Absent);
    history.lose(B);
    done(&mut history, LifeId(3), list(ROOT), names(&[("x", 7)]));
    assert!(is_refused(history));
}

#[test]
fn a_write_may_be_lost_and_a_later_name_not() {
    let found = |bytes: Vec<u8>| {
        let mut history = new();
        done(&mut history, A, create("x"), Answer::File(file(7)));
        done(&mut history, A, Call::Write { file: file(7), value: 3 }, Answer::Done);
        done(&mut history, A, create("y"), Answer::File(file(8)));
        history.lose(A);
        done(&mut history, B, list(ROOT), names(&[("x", 7), ("y", 8)]));
        done(&mut history, B, Call::Read { file: file(7) }, Answer::Bytes(bytes));
        history
    };
    assert_eq!(found(Vec::new()).judge(), Ok(()));
    assert_eq!(found(3_u64.to_le_bytes().to_vec()).judge(), Ok(()));
    assert!(is_refused(found(4_u64.to_le_bytes().to_vec())));
}

#[test]
fn a_node_may_see_what_it_changes_itself_a_moment_late() {
    let seen = |by: LifeId| {
        let mut history = new();
        done(&mut history, A, create("x"), Answer::File(file(7)));
        let removed = history.begin(A, unlink("x"));
        done(&mut history, B, lookup("x"), Answer::Absent);
        done(&mut history, by, lookup("x"), Answer::File(file(7)));
        history.end(removed, Answer::Done);
        history
    };
    assert_eq!(seen(A).judge(), Ok(()));
    assert!(is_refused(seen(B)));
}

#[test]
fn a_search_that_is_too_long_is_no_success() {
    let mut history = new();
    for _ in 0..=search::OPS_MAX {
        done(&mut history, A, lookup("x"), Answer::Absent);
    }
    assert!(matches!(history.judge(), Err(Wrong::TooLong(_))));
}
