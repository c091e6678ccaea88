//! Which membership partitions belong together, and how many of them decide.

use mx_base::{ClusterId, Duration};

use crate::layout::MpIndex;
use crate::ondisk::superblock::Superblock;

/// The partitions of one cluster, as far as they were found; always a majority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionSet {
    pub cluster: ClusterId,
    pub nodes_max: u16,
    pub unit: Duration,
    count: u8,
    found: Vec<MpIndex>,
}

/// The devices given do not make a usable set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartitionSetError {
    #[error("no membership partition given")]
    None,
    #[error("membership partitions of two clusters: {first} and {second}")]
    Clusters { first: ClusterId, second: ClusterId },
    #[error("{index} has set epoch {found}, others have {newest}: it was taken out of the set")]
    Epoch { index: MpIndex, found: u64, newest: u64 },
    #[error("the membership partitions disagree on their number, on nodes or on the time unit")]
    Parameters,
    #[error("{index} was given twice, or a copy of it")]
    Twice { index: MpIndex },
    #[error("{found} of {count} membership partitions are there, a majority is needed")]
    NoMajority { found: usize, count: u8 },
}

impl PartitionSet {
    /// # Errors
    /// When the superblocks are not all of one set, or are no majority of it.
    pub fn new(superblocks: &[Superblock]) -> Result<PartitionSet, PartitionSetError> {
        let Some(first) = superblocks.first() else { return Err(PartitionSetError::None) };
        let newest = superblocks.iter().map(|sb| sb.set_epoch).max().unwrap_or(0);
        let mut found = Vec::new();
        for sb in superblocks {
            if sb.cluster != first.cluster {
                let second = sb.cluster;
                return Err(PartitionSetError::Clusters { first: first.cluster, second });
            }
            if sb.set_epoch != newest {
                let (index, found) = (sb.index, sb.set_epoch);
                return Err(PartitionSetError::Epoch { index, found, newest });
            }
            if (sb.count, sb.nodes_max, sb.unit) != (first.count, first.nodes_max, first.unit) {
                return Err(PartitionSetError::Parameters);
            }
            if found.contains(&sb.index) {
                return Err(PartitionSetError::Twice { index: sb.index });
            }
            found.push(sb.index);
        }
        if found.len() < majority(first.count) {
            return Err(PartitionSetError::NoMajority { found: found.len(), count: first.count });
        }
        found.sort_unstable();
        let Superblock { cluster, nodes_max, unit, count, .. } = *first;
        Ok(PartitionSet { cluster, nodes_max, unit, count, found })
    }

    /// Partitions that the cluster has, whether found or not.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// Those that were found, in order.
    pub fn found(&self) -> &[MpIndex] {
        &self.found
    }

    /// How many must agree.
    pub fn majority(&self) -> usize {
        majority(self.count)
    }
}

const fn majority(count: u8) -> usize {
    count as usize / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(index: u8, count: u8) -> Superblock {
        Superblock {
            cluster: ClusterId([1; 16]),
            partition_id: [index; 16],
            index: MpIndex(index),
            count,
            set_epoch: 1,
            nodes_max: 64,
            unit: Duration::from_millis(100),
            sequence: 1,
        }
    }

    #[test]
    fn two_of_three_partitions_suffice_and_one_does_not() {
        let all = [superblock(0, 3), superblock(1, 3), superblock(2, 3)];
        let set = PartitionSet::new(&all[1..]).expect("a majority");
        assert_eq!((set.majority(), set.found()), (2, &[MpIndex(1), MpIndex(2)][..]));
        assert_eq!(
            PartitionSet::new(&all[..1]),
            Err(PartitionSetError::NoMajority { found: 1, count: 3 })
        );
        assert_eq!(PartitionSet::new(&[]), Err(PartitionSetError::None));
    }

    #[test]
    fn partitions_that_do_not_belong_together_are_refused() {
        let one = superblock(0, 3);
        let foreign = Superblock { cluster: ClusterId([2; 16]), ..superblock(1, 3) };
        assert!(matches!(
            PartitionSet::new(&[one, foreign]),
            Err(PartitionSetError::Clusters { .. })
        ));
        let old = Superblock { set_epoch: 0, ..superblock(1, 3) };
        assert!(matches!(PartitionSet::new(&[one, old]), Err(PartitionSetError::Epoch { .. })));
        assert!(matches!(PartitionSet::new(&[one, one]), Err(PartitionSetError::Twice { .. })));
        let other = Superblock { nodes_max: 8, ..superblock(1, 3) };
        assert_eq!(PartitionSet::new(&[one, other]), Err(PartitionSetError::Parameters));
    }
}
