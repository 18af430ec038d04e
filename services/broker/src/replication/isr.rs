//! In-sync sets: what leaders propose goes to the controller, many in one request, one request at a time. What it makes
//! of them comes back with the metadata.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use weir_cluster::{Names, PARTITION_EPOCH_STALE, Row, by_name, partition_name, said};
use weir_metadata::{AlterPartition, AlterPartitions, BrokerEpoch, Image};
use weir_proto::internal::v1 as wire;
use weir_replication::{Member, Outcome, Proposal};
use weir_types::{BrokerId, PartitionId};

use crate::replication::Replication;
use crate::replication::led::{Asked, Led};

/// How long the controller is given to decide.
const DECIDE: Duration = Duration::from_secs(3);
/// Partitions may have something to say for so long before they are asked: many at once make one request.
const GATHER: Duration = Duration::from_millis(2);
/// How often everything that is led here is looked at: who lags says nothing by itself. A part of the longest lag.
const LOOKS: u32 = 20;
/// After the controller has refused something, or could not be reached.
const PAUSE: Duration = Duration::from_millis(200);
/// Changes in one request, at most.
const CHANGES_MAX: usize = 5_000;

/// See the module.
pub(crate) async fn keep(hub: Arc<Replication>) {
    let mut looks = interval((hub.lag_max / LOOKS).max(Duration::from_millis(10)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            _ = looks.tick() => {
                hub.news.look();
                let all = hub.all_led();
                // Some may have waited long enough.
                all.iter().for_each(|led| led.look_at_floors());
                all
            }
            first = hub.isr.next() => {
                sleep(GATHER).await;
                let mut due = BTreeSet::from([first]);
                while let Some(next) = hub.isr.try_next() {
                    due.insert(next);
                }
                due.into_iter().filter_map(|id| hub.led(id)).collect()
            }
        };
        // Whoever led before counts on a session of its own, if it has not heard of this leadership: so long nothing is
        // committed without it (correctness rule 10).
        let lag_max = hub.lag_max.max(hub.cluster.session());
        let lag_ms = u64::try_from(lag_max.as_millis()).unwrap_or(u64::MAX);
        let image = hub.cluster.image();
        let mut heard = Heard::default();
        let propose = |led: Arc<Led>| {
            let asked = led.propose(lag_ms, &image);
            heard.add(&image, led.partition.id(), &asked);
            asked.proposal.map(|proposal| (led, proposal))
        };
        let proposals: Vec<_> = due.into_iter().filter_map(propose).collect();
        heard.say();
        let mut pause = false;
        for some in proposals.chunks(CHANGES_MAX) {
            pause |= decide(&hub, some).await;
        }
        if pause {
            // Who was refused may ask again with the next look, and nobody at once.
            sleep(PAUSE).await;
        }
    }
}

/// What came of leaderships that first heard others: of all of them together.
#[derive(Default)]
struct Heard {
    gave_way: Names,
    to: BTreeSet<BrokerId>,
    went_on: Names,
    without: BTreeSet<BrokerId>,
}

impl Heard {
    fn add(&mut self, image: &Image, id: PartitionId, asked: &Asked) {
        if let Some(further) = asked.further {
            self.gave_way.add(|| partition_name(image, id));
            self.to.insert(further);
        }
        if !asked.without.is_empty() {
            self.went_on.add(|| partition_name(image, id));
            self.without.extend(&asked.without);
        }
    }

    fn say(self) {
        let brokers =
            |of: BTreeSet<BrokerId>| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if self.gave_way.count() > 0 {
            tracing::info!(
                count = self.gave_way.count(),
                partitions = %self.gave_way,
                brokers = brokers(self.to),
                "replicas there go further than those here and shall lead: by what was never acknowledged, or by what a disk \
                 here has lost"
            );
        }
        if self.went_on.count() > 0 {
            tracing::warn!(
                count = self.went_on.count(),
                partitions = %self.went_on,
                brokers = brokers(self.without),
                "goes on without replicas that were as complete by what is on record and have not been heard of since nobody in \
                 sync was left: if a disk here has lost the end of what was on it, they alone have it"
            );
        }
    }
}

/// Asks the controller. Whether it refused any, or has not answered.
async fn decide(hub: &Replication, proposals: &[(Arc<Led>, Proposal)]) -> bool {
    let by = hub.cluster.registered_as();
    let changes = proposals.iter().map(|(led, proposal)| change(led.partition.id(), proposal)).collect();
    let request = wire::AlterPartitionsRequest { changes: Some(AlterPartitions { by, changes }.to_wire()) };
    // Once: what is refused then was never carried out and never will be.
    let until = Instant::now() + DECIDE;
    let answer =
        hub.cluster.once(until, |mut client| async move { client.alter_partitions(request).await }).await;
    let refused: BTreeSet<PartitionId> = match &answer {
        Ok(answer) => {
            let image = hub.cluster.image();
            let (mut refused, mut told, mut first) = (BTreeSet::new(), BTreeSet::new(), None);
            for one in &answer.refused {
                let id = one.partition.clone().and_then(|id| PartitionId::from_wire(id).ok());
                let Some(id) = id else { continue };
                let why = by_name(&one.message, &image, id);
                tracing::debug!(reason = one.reason, why, "an in-sync set was refused");
                refused.insert(id);
                // Somebody was quicker, as where a broker stops or dies: nothing is wrong, and what became of it comes.
                if one.reason != PARTITION_EPOCH_STALE {
                    told.insert(id);
                    first.get_or_insert(why);
                }
            }
            if let Some(why) = first {
                hub.news.unchanged(&image, told.into_iter(), &why);
            }
            refused
        }
        Err(status) => {
            tracing::debug!(%status, partitions = proposals.len(), "in-sync sets could not be changed");
            let asked = proposals.iter().map(|(led, _)| led.partition.id());
            hub.news.unchanged(&hub.cluster.image(), asked, &said(status));
            BTreeSet::new()
        }
    };
    for (led, proposal) in proposals {
        match &answer {
            Ok(_) if refused.contains(&led.partition.id()) => led.decided(proposal, Outcome::Refused),
            Ok(_) => {
                hub.metrics.isr_changes.inc();
                led.carried_out(proposal);
            }
            Err(_) => led.decided(proposal, Outcome::Unknown),
        }
    }
    answer.is_err() || !refused.is_empty()
}

fn change(partition: PartitionId, proposal: &Proposal) -> AlterPartition {
    let member = |member: &Member| BrokerEpoch { broker: member.broker, epoch: member.epoch };
    AlterPartition {
        partition,
        leader_epoch: proposal.leader_epoch,
        partition_epoch: proposal.partition_epoch,
        isr: proposal.isr.iter().map(member).collect(),
    }
}
