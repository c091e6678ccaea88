//! Who coordinates, who stays, and which side goes first (R10, R12).

use super::*;

#[test]
fn the_lowest_member_that_is_reached_and_acts_coordinates() {
    let membership = acting(3, &[1, 2, 3]);
    let mut neighbours = all_well(3, &[1, 2, 3]);
    let coordinator = |neighbours: &Neighbours| {
        membership.coordinator_among(neighbours, at(1)).map(|member| member.node.get())
    };
    assert_eq!(coordinator(&neighbours), Some(1));
    let not_welcomed = Flags { member: false, ..WELL };
    neighbours.insert(node(1), neighbour(1, &[1, 2, 3], not_welcomed));
    assert_eq!(coordinator(&neighbours), Some(2));
    let leaves = Flags { leaving: true, ..WELL };
    neighbours.insert(node(2), neighbour(2, &[1, 2, 3], leaves));
    assert_eq!(coordinator(&neighbours), Some(3));
    silent(&mut neighbours, 1);
    silent(&mut neighbours, 2);
    assert_eq!(coordinator(&neighbours), Some(3));
}

#[test]
fn of_members_that_miss_each_other_for_two_units_those_that_miss_most_go() {
    let membership = acting(1, &[1, 2, 3, 4]);
    let mut neighbours = all_well(1, &[1, 2, 3, 4]);
    let stayers = |neighbours: &Neighbours, now| {
        let stay = membership.stayers(&value(&[1, 2, 3, 4]), neighbours, now);
        stay.iter().map(|member| member.node.get()).collect::<Vec<_>>()
    };
    for (from, to) in [(2, 3), (2, 4)] {
        let missing = &mut neighbours.get_mut(&node(from)).expect("a peer").missing;
        missing.insert(node(to), at(1));
    }
    assert_eq!(stayers(&neighbours, at(2)), [1, 2, 3, 4], "one report is no proof");
    assert_eq!(stayers(&neighbours, at(3)), [1, 3, 4]);
}

#[test]
fn a_majority_goes_at_once_and_others_wait_for_those_that_live_on_the_disk() {
    let mut membership = acting(4, &[1, 2, 3, 4, 5]);
    let base = value(&[1, 2, 3, 4, 5]);
    let mut neighbours = all_well(4, &[1, 2, 3, 4, 5]);
    let hesitation = |m: &Membership, stay: &[u16], n: &Neighbours, now| {
        let stay: Vec<Member> = stay.iter().copied().map(member).collect();
        m.hesitation(&base, &stay, n, now)
    };
    assert_eq!(hesitation(&membership, &[2, 4, 5], &neighbours, at(1)), Duration::ZERO);
    for id in [1, 2, 3] {
        silent(&mut neighbours, id);
    }
    // Nothing is known of the disk: they may be alive, and together.
    assert_eq!(hesitation(&membership, &[4, 5], &neighbours, at(1)), UNIT.times(5));
    let block = |id: u16, sequence, reach: &[u16]| DiskHeartbeat {
        node: node(id),
        incarnation: Incarnation(1),
        sequence,
        reach: set(reach),
    };
    // Three sides: 1 alone, 2 with 3, and this one; 2 with 3 has the lower node.
    for sequence in 0..4 {
        let blocks =
            [block(1, sequence, &[1]), block(2, sequence, &[2, 3]), block(3, sequence, &[2, 3])];
        let now = at(u32::try_from(sequence).expect("small") * 2);
        membership.handle_disk_heartbeats(&blocks, now);
    }
    assert_eq!(hesitation(&membership, &[4, 5], &neighbours, at(7)), UNIT.times(5));
    // A process that is known to have ended is not waited for, whatever its block says.
    for id in [2, 3] {
        gone(&mut neighbours, id);
    }
    assert_eq!(hesitation(&membership, &[4, 5], &neighbours, at(7)), Duration::ZERO);
}

#[test]
fn few_wait_once_for_many_that_all_fell_silent_and_not_for_those_that_have_ended() {
    let mut membership = acting(4, &[1, 2, 3, 4, 5]);
    let base = value(&[1, 2, 3, 4, 5]);
    let mut neighbours = all_well(4, &[1, 2, 3, 4, 5]);
    let block = |id: u16| DiskHeartbeat {
        node: node(id),
        incarnation: Incarnation(1),
        sequence: 1,
        reach: set(&[id]),
    };
    for now in [0, 2, 4, 6] {
        membership.handle_disk_heartbeats(&[block(1), block(2), block(3)], at(now));
    }
    for id in [1, 2, 3] {
        silent(&mut neighbours, id);
    }
    let stay = [member(4), member(5)];
    assert_eq!(membership.hesitation(&base, &stay, &neighbours, at(7)), UNIT.times(5));
    gone(&mut neighbours, 2);
    assert_eq!(membership.hesitation(&base, &stay, &neighbours, at(7)), Duration::ZERO);
}
