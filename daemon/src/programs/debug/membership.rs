//! The membership partition, as text.
//!
//! Nothing here decides anything; a record that cannot be read is shown as what is the matter with it.

use fencing::layout::{self, CopyNo};
use fencing::ondisk::Block;
use fencing::ondisk::heartbeat::{self, HeartbeatRecord};
use fencing::ondisk::register::{self, RegisterRecord};
use mfs::block::BlockNo;
use mfs::env::Disk;
use mfs::error::DiskError;
use mfs::inspect::Value;
use mx_base::NodeId;

use crate::partition::{Identity, partition_block_of};

/// Its superblock, and what nodes have written.
///
/// # Errors
/// When the device does not give it.
pub(super) async fn membership(disk: &dyn Disk, identity: &Identity) -> Result<Value, DiskError> {
    let sb = &identity.membership;
    let start = identity.fs.layout.membership_start;
    let mut shown = vec![Value::Fields(vec![
        ("cluster", sb.cluster.to_string().into()),
        ("partition", u64::from(sb.index.0).into()),
        ("partitions", u64::from(sb.count).into()),
        ("set_epoch", sb.set_epoch.into()),
        ("nodes_max", u64::from(sb.nodes_max).into()),
        ("unit_ms", u64::try_from(sb.unit.as_millis()).unwrap_or(u64::MAX).into()),
        ("sequence", sb.sequence.into()),
    ])];
    for node in (1..=sb.nodes_max).filter_map(NodeId::new) {
        for copy in CopyNo::BOTH {
            let at = BlockNo(start + u64::from(layout::register(node, copy).0));
            let place = register::place(sb.cluster, sb.index, node, copy);
            let mut fields = begun("register", at, node);
            match RegisterRecord::decode(&*read(disk, at).await?, node, place) {
                Ok(record) if record == RegisterRecord::unused(node) => continue,
                Ok(record) => fields.extend([
                    ("incarnation", u64::from(record.incarnation.0).into()),
                    ("sequence", record.sequence.into()),
                    ("promised", record.promised.to_string().into()),
                    ("accepted", record.accepted.to_string().into()),
                    ("value", format!("{:?}", record.value).into()),
                ]),
                Err(error) => fields.push(("wrong", error.to_string().into())),
            }
            shown.push(Value::Fields(fields));
        }
        let at = BlockNo(start + u64::from(layout::heartbeat(node).0));
        let place = heartbeat::place(sb.cluster, sb.index, node);
        let mut fields = begun("heartbeat", at, node);
        match HeartbeatRecord::decode(&*read(disk, at).await?, node, place) {
            Ok(record) if record == HeartbeatRecord::unused(node) => continue,
            Ok(record) => fields.extend([
                ("incarnation", u64::from(record.incarnation.0).into()),
                ("nonce", format!("{:#x}", record.nonce).into()),
                ("sequence", record.sequence.into()),
                ("generation_seen", record.generation_seen.0.into()),
                ("view", record.view.0.into()),
                ("reach", record.reach.to_string().into()),
                ("leaving", Value::Flag(record.flags.leaving)),
                ("quiesced", Value::Flag(record.flags.quiesced)),
                ("wants_fence", Value::Flag(record.flags.wants_fence)),
            ]),
            Err(error) => fields.push(("wrong", error.to_string().into())),
        }
        shown.push(Value::Fields(fields));
    }
    Ok(Value::List(shown))
}

fn begun(what: &str, at: BlockNo, node: NodeId) -> Vec<(&'static str, Value)> {
    vec![("record", what.into()), ("block", at.0.into()), ("node", u64::from(node.get()).into())]
}

async fn read(disk: &dyn Disk, at: BlockNo) -> Result<Box<Block>, DiskError> {
    Ok(partition_block_of(&disk.read(at, 1).await?[0]))
}
