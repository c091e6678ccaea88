//! Which member decides about a bucket, and since which view.
//!
//! Keeps true: every node that has followed the same committed views computes the same table. The
//! home of a bucket is chosen by rendezvous hashing over the members, so it changes only for the
//! buckets of a member that went, or to a member that came.

use mx_base::rules::{Rule, is_kept};
use mx_base::{Member, View, ViewId};

use crate::name::{Bucket, mix};

/// Home and epoch of every bucket under one view.
#[derive(Clone, Hash)]
pub(crate) struct Homes {
    /// `None` before the first view.
    home: Vec<Option<Member>>,
    /// The view in which the home last changed; `ViewId(0)` before the first view.
    epoch: Vec<ViewId>,
}

impl Homes {
    pub(crate) fn new() -> Homes {
        let count = usize::from(Bucket::COUNT);
        Homes { home: vec![None; count], epoch: vec![ViewId(0); count] }
    }

    pub(crate) fn home(&self, bucket: Bucket) -> Option<Member> {
        self.home[bucket.index()]
    }

    pub(crate) fn epoch(&self, bucket: Bucket) -> ViewId {
        self.epoch[bucket.index()]
    }

    pub(crate) fn epochs(&self) -> &[ViewId] {
        &self.epoch
    }

    /// The table under `view`, which follows the present one directly.
    pub(crate) fn next(&self, view: &View) -> Homes {
        let mut home: Vec<Option<Member>> =
            Bucket::all().map(|bucket| choose(bucket, view)).collect();
        if !is_kept(Rule::ChooseOneHome) {
            // Whoever was the home stays it, which a joiner cannot know.
            let stays = |old: &Option<Member>| old.filter(|old| view.contains(*old));
            home.iter_mut().zip(&self.home).for_each(|(new, old)| *new = stays(old).or(*new));
        }
        let epoch = self
            .epoch
            .iter()
            .zip(self.home.iter().zip(&home))
            .map(|(epoch, (old, new))| if old == new { *epoch } else { view.id })
            .collect();
        Homes { home, epoch }
    }

    /// The table under `view` with epochs that a member of it told; `None` when they cannot be its.
    pub(crate) fn given(view: &View, epoch: Vec<ViewId>) -> Option<Homes> {
        let plausible = epoch.len() == usize::from(Bucket::COUNT)
            && epoch.iter().all(|epoch| *epoch > ViewId(0) && *epoch <= view.id);
        let home = Bucket::all().map(|bucket| choose(bucket, view)).collect();
        plausible.then_some(Homes { home, epoch })
    }
}

/// The member with the highest weight for the bucket.
fn choose(bucket: Bucket, view: &View) -> Option<Member> {
    view.members().iter().copied().max_by_key(|member| (weight(bucket, *member), *member))
}

/// Fixed for ever: all releases that may be in one cluster must agree.
fn weight(bucket: Bucket, member: Member) -> u64 {
    let member = u64::from(member.node.get()) << 32 | u64::from(member.incarnation.0);
    mix(mix(member) ^ u64::from(bucket.get()))
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, NodeId, SanGeneration};

    use super::*;

    fn member(node: u16, incarnation: u32) -> Member {
        let node = NodeId::new(node).expect("in range");
        Member { node, incarnation: Incarnation(incarnation) }
    }

    fn view(id: u64, members: &[Member]) -> View {
        View::new(ViewId(id), SanGeneration(id), members.to_vec())
    }

    #[test]
    fn a_death_moves_only_the_buckets_of_the_dead_and_spreads_them() {
        let (a, b, c, d) = (member(1, 1), member(2, 1), member(3, 1), member(4, 1));
        let before = Homes::new().next(&view(1, &[a, b, c, d]));
        let after = before.next(&view(2, &[a, b, c]));
        let mut heirs = [0; 3];
        for bucket in Bucket::all() {
            if before.home(bucket) == Some(d) {
                assert_eq!(after.epoch(bucket), ViewId(2));
                let heir = after.home(bucket).expect("there are members");
                heirs[heir.node.index()] += 1;
            } else {
                assert_eq!(before.home(bucket), after.home(bucket));
                assert_eq!(after.epoch(bucket), ViewId(1));
            }
        }
        assert!(heirs.iter().all(|share| *share > 200), "{heirs:?}");
    }

    #[test]
    fn a_join_moves_buckets_to_the_joiner_only_and_an_even_share_of_them() {
        let (a, b, c) = (member(1, 1), member(2, 1), member(3, 1));
        let before = Homes::new().next(&view(1, &[a, b]));
        let after = before.next(&view(2, &[a, b, c]));
        let moved: Vec<Bucket> =
            Bucket::all().filter(|b| before.home(*b) != after.home(*b)).collect();
        assert!(moved.iter().all(|bucket| after.home(*bucket) == Some(c)));
        assert!((1100..1600).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn a_new_incarnation_is_another_home() {
        let (a, old, new) = (member(1, 1), member(2, 1), member(2, 2));
        let before = Homes::new().next(&view(1, &[a, old]));
        let after = before.next(&view(2, &[a, new]));
        for bucket in Bucket::all().filter(|b| before.home(*b) == Some(old)) {
            assert_eq!(after.epoch(bucket), ViewId(2));
        }
    }

    /// The home of a lock must be the same for every release that may be in one cluster.
    #[test]
    fn the_choice_of_a_home_is_fixed() {
        let members: Vec<Member> = (1..=5).map(|node| member(node, u32::from(node) * 7)).collect();
        let homes = Homes::new().next(&view(1, &members));
        let chosen: Vec<u16> = [0, 1, 2, 1000, 4095]
            .into_iter()
            .filter_map(Bucket::new)
            .filter_map(|bucket| homes.home(bucket))
            .map(|home| home.node.get())
            .collect();
        assert_eq!(chosen, [1, 4, 2, 2, 2]);
    }

    #[test]
    fn epochs_of_another_view_are_refused() {
        let of = view(3, &[member(1, 1)]);
        let count = usize::from(Bucket::COUNT);
        assert!(Homes::given(&of, vec![ViewId(3); count]).is_some());
        assert!(Homes::given(&of, vec![ViewId(4); count]).is_none());
        assert!(Homes::given(&of, vec![ViewId(0); count]).is_none());
        assert!(Homes::given(&of, vec![ViewId(3); count - 1]).is_none());
    }
}
