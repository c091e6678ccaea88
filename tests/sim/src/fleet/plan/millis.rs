//! Lengths of time as whole milliseconds in JSON: what people can read and change.

use mx_base::Duration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    u64::try_from(value.as_millis()).expect("short").serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}

/// Faults, each with its time.
pub(super) mod timed {
    use mx_base::Duration;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::super::Fault;

    #[derive(Serialize, Deserialize)]
    struct At {
        #[serde(with = "super")]
        at: Duration,
        fault: Fault,
    }

    pub(in super::super) fn serialize<S: Serializer>(
        faults: &[(Duration, Fault)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(faults.iter().map(|(at, fault)| At { at: *at, fault: *fault }))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(Duration, Fault)>, D::Error> {
        let list = Vec::<At>::deserialize(from)?;
        Ok(list.into_iter().map(|At { at, fault }| (at, fault)).collect())
    }
}
