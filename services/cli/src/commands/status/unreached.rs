//! Brokers that others do not reach: their clients and the controllers do, so that nobody else sees it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_proto::v1::BrokerDescription;

use super::health::serves;
use crate::units;

/// Those that serve and are not reached by others that do, where they were looked for, and by whom.
#[derive(Debug)]
pub(super) struct Unreached<'a>(BTreeMap<(i32, &'a str), Missed<'a>>);

#[derive(Debug)]
struct Missed<'a> {
    by: Vec<i32>,
    /// What the first of them met.
    why: &'a str,
}

impl<'a> Unreached<'a> {
    pub(super) fn of(brokers: &'a [BrokerDescription]) -> Self {
        let mut all: BTreeMap<_, Missed<'_>> = BTreeMap::new();
        // Of those that do not serve it is said that they do not.
        for broker in brokers.iter().filter(|broker| serves(broker)) {
            for other in &broker.unreached {
                let new = || Missed { by: Vec::new(), why: &other.why };
                let missed = all.entry((other.broker_id, other.address.as_str())).or_insert_with(new);
                missed.by.push(broker.broker_id);
            }
        }
        let is_there = |id: i32| brokers.iter().any(|broker| broker.broker_id == id && serves(broker));
        all.retain(|(id, _), _| is_there(*id));
        Self(all)
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let said = self.0.iter().map(|((id, address), Missed { by, why })| {
            let by: Vec<_> = by.iter().map(ToString::to_string).collect();
            let (who, by) = (if by.len() == 1 { "broker" } else { "brokers" }, by.join(", "));
            format!(
                "broker {id} is not reached by {who} {by} at {address} ({why}): is that where it listens for brokers \
                 (its internal_advertised_address)? Until it is, they neither replicate what it leads nor pass calls on"
            )
        });
        said.collect()
    }

    pub(super) fn brief(&self) -> Option<String> {
        let verb = if self.0.len() == 1 { "is" } else { "are" };
        let count = units::counted(self.0.len() as u64, "broker");
        (!self.0.is_empty()).then(|| format!("{count} {verb} not reached by others"))
    }

    /// For programs.
    pub(super) fn json(&self) -> Vec<Value> {
        let each = self.0.iter().map(|((id, address), Missed { by, why })| {
            json!({ "brokerId": id, "address": address, "by": by, "why": why })
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::{BrokerState, UnreachedBroker};

    use super::*;

    fn broker(broker_id: i32, state: BrokerState, unreached: &[i32]) -> BrokerDescription {
        let missed = |id: &i32| UnreachedBroker {
            broker_id: *id,
            address: format!("b{id}:9350"),
            why: "connection refused".to_owned(),
        };
        let unreached = unreached.iter().map(missed).collect();
        BrokerDescription { broker_id, state: state.into(), unreached, ..BrokerDescription::default() }
    }

    #[test]
    fn one_that_others_do_not_reach_is_named_once_with_all_of_them() {
        use BrokerState::{Active, Fenced, Slow};
        let brokers = [
            broker(1, Active, &[3, 4]),
            broker(2, Slow, &[3]),
            broker(3, Active, &[]),
            broker(4, Fenced, &[3]),
        ];
        let unreached = Unreached::of(&brokers);
        let said = unreached.problems();
        let begin = "broker 3 is not reached by brokers 1, 2 at b3:9350 (connection refused): is that where";
        assert!(said.len() == 1 && said[0].starts_with(begin), "{said:?}");
        assert_eq!(unreached.brief().unwrap(), "1 broker is not reached by others");
        let for_programs =
            json!({ "brokerId": 3, "address": "b3:9350", "by": [1, 2], "why": "connection refused" });
        assert_eq!(unreached.json(), [for_programs]);
        let well = [broker(1, Active, &[]), broker(2, Active, &[])];
        assert!(Unreached::of(&well).brief().is_none());
    }
}
