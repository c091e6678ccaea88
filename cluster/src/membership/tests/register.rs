//! What the register says, and who goes because of it.

use super::*;

#[test]
fn a_member_that_the_register_does_not_list_is_expelled_or_has_left() {
    let mut without = value(&[1, 3]);
    without.view = ViewId(2);
    without.generation = SanGeneration(2);
    let mut expelled = without.clone();
    expelled.phase = Phase::Fencing;
    expelled.victims = BTreeMap::from([(node(2), Incarnation(1))]);
    let mut membership = acting(2, &[1, 2, 3]);
    membership.handle_leave();
    membership.learn(expelled, at(1));
    assert_eq!(ended(&mut membership), Some(End::Expelled), "it was given up while it left");
    let mut membership = acting(2, &[1, 2, 3]);
    membership.handle_leave();
    membership.learn(without, at(1));
    assert_eq!(ended(&mut membership), Some(End::Left));
    assert!(membership.has_ended());
}

#[test]
fn a_value_two_views_ahead_is_not_acted_in() {
    let mut ahead = value(&[1, 2, 3]);
    ahead.view = ViewId(3);
    ahead.generation = SanGeneration(3);
    let mut membership = acting(2, &[1, 2, 3]);
    membership.learn(ahead, at(1));
    assert_eq!(ended(&mut membership), Some(End::MissedViews));
}

#[test]
fn an_older_value_changes_nothing() {
    let mut membership = acting(2, &[1, 2, 3]);
    let mut old = value(&[1, 3]);
    old.generation = SanGeneration(1);
    membership.learn(old, at(1));
    assert_eq!(ended(&mut membership), None);
    assert_eq!(membership.me(), Some(member(2)));
}
