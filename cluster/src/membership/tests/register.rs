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

/// A start that the view does not list may belong to a cluster that was restored from a copy.
#[test]
fn only_members_are_believed_about_the_register() {
    let mut expelled = value(&[1, 3]);
    expelled.view = ViewId(2);
    expelled.generation = SanGeneration(2);
    let mut neighbours = all_well(2, &[1, 2, 3, 4]);
    let mut membership = acting(2, &[1, 2, 3]);
    let committed = Control::Committed(Box::new(expelled));
    membership.handle_control(node(4), committed.clone(), &neighbours, at(1));
    assert!(matches!(membership.poll_effect(), Some(Effect::ReadRegister)));
    let other = StartNonce::new(99).expect("not zero");
    neighbours.get_mut(&node(1)).expect("a peer").start = other;
    membership.handle_control(node(1), committed.clone(), &neighbours, at(1));
    assert_eq!(ended(&mut membership), None);
    membership.handle_control(node(3), committed, &neighbours, at(1));
    assert_eq!(ended(&mut membership), Some(End::Expelled));
}
