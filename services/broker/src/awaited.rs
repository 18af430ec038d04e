//! Whom appends wait for that are not acknowledged, in words: for whoever asks how a partition is, and for whoever's time is
//! up meanwhile. Known to the leader alone: it hears its followers, and knows whether controllers hear it.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_proto::v1::AwaitedReplica;
use weir_replication::Late;
use weir_types::BrokerId;

/// A wait that is shorter is no state of a partition: a follower that has just begun, or dials again, takes less.
pub(crate) const MOMENT_MS: u64 = 1_000;

/// Replicas that the acknowledgements of a partition wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Awaited {
    pub(crate) replicas: BTreeMap<BrokerId, Late>,
    /// For how long no controller has answered the leader, where that is longer than a session.
    pub(crate) controllers_silent: Option<Duration>,
}

impl Awaited {
    /// In a sentence without its end; `None`: nobody is waited for.
    pub(crate) fn said(&self) -> Option<String> {
        let each = self.replicas.iter().map(|(broker, late)| match late.silent_ms {
            // Of one that says again and again how far it is, that is what is to be known.
            ..MOMENT_MS => format!("broker {broker}, which is behind for {}", seconds(late.behind_ms)),
            // It may be dead or cut off, or have no room: of the broker this says no more than of the replica.
            silent_ms => format!("broker {broker}, which has taken nothing for {}", seconds(silent_ms)),
        });
        let each: Vec<_> = each.collect();
        let replicas = match each.len() {
            0 => return None,
            1 => "the replica",
            _ => "the replicas",
        };
        let controllers = self.controllers_silent.map_or_else(String::new, |silent| {
            let silent = seconds(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX));
            format!(
                "; nobody takes it out of those in sync, for no controller has answered this leader for {silent}: start \
                 controllers until a majority of them runs, without which a broker that has ended is not taken back either (one \
                 that only hangs need only go on)"
            )
        });
        Some(format!("appends wait for {replicas} on {}{controllers}", each.join(", and on ")))
    }

    /// Behind the words of an error, if there is anything to be said.
    pub(crate) fn behind_a_colon(&self) -> String {
        self.said().map_or_else(String::new, |said| format!(": {said}"))
    }

    /// The brokers, as a fact of an error.
    pub(crate) fn brokers(&self) -> String {
        self.replicas.keys().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// For programs.
    pub(crate) fn to_wire(&self) -> Vec<AwaitedReplica> {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let each = self.replicas.iter().map(|(broker, late)| AwaitedReplica {
            broker_id: broker.0,
            behind_ms: signed(late.behind_ms),
            silent_ms: signed(late.silent_ms),
        });
        each.collect()
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited(replicas: &[(i32, u64, u64)], silent_s: Option<u64>) -> Awaited {
        let late = |(id, behind_ms, silent_ms): &(i32, u64, u64)| {
            (BrokerId(*id), Late { behind_ms: *behind_ms, silent_ms: *silent_ms })
        };
        let controllers_silent = silent_s.map(Duration::from_secs);
        Awaited { replicas: replicas.iter().map(late).collect(), controllers_silent }
    }

    #[test]
    fn who_is_waited_for_is_named_and_what_would_help() {
        assert_eq!(awaited(&[], Some(14)).said(), None);
        let said = |replicas: &[_], silent_s| awaited(replicas, silent_s).said().unwrap();
        let one = "appends wait for the replica on broker 3, which has taken nothing for 12.3 s";
        assert_eq!(said(&[(3, 12_400, 12_340)], None), one);
        assert_eq!(
            said(&[(2, 4_000, 200), (3, 12_000, 12_000)], None),
            "appends wait for the replicas on broker 2, which is behind for 4.0 s, and on broker 3, which has taken nothing \
             for 12.0 s"
        );
        let unheard = said(&[(3, 12_340, 12_340)], Some(14));
        assert!(unheard.starts_with(one), "{unheard}");
        // A broker that is started is taken by a quorum alone.
        let helps = "no controller has answered this leader for 14.0 s: start controllers until a majority of them runs, \
                     without which a broker that has ended is not taken back either";
        assert!(unheard.contains(helps), "{unheard}");
    }
}
