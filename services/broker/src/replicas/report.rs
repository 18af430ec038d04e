//! Telling the controller where new logs are, so that it elects their leaders.

use std::collections::BTreeSet;

use weir_cluster::{Row, by_name, partition_name, said};
use weir_proto::internal::v1 as wire;
use weir_types::{DirectoryId, PartitionId};

use crate::replicas::Replicas;

/// New logs in one report, at most. A controller takes no request beyond its limit, so a report that grew with what is
/// to be said would one day be refused whole, and for ever.
const LOGS_MAX: usize = 10_000;

impl Replicas {
    /// Says which directory new logs are in. Gives those that the controller did not take, or not hear of.
    pub(super) async fn report(&self, made: BTreeSet<PartitionId>) -> BTreeSet<PartitionId> {
        let (by, directory) = (self.cluster.broker_epoch(), self.log_dir.directory_id());
        let mut unheard = BTreeSet::new();
        let mut reports = reports(&made.into_iter().collect::<Vec<_>>(), by, directory).into_iter();
        while let Some((logs, request)) = reports.next() {
            let reported = self.cluster.change(request, |mut client, request| async move {
                client.assign_directories(request).await
            });
            match reported.await {
                Ok(answer) => {
                    let image = self.cluster.image();
                    for one in answer.refused {
                        let Some(id) = one.partition.and_then(|id| PartitionId::from_wire(id).ok()) else {
                            continue;
                        };
                        let (partition, why) =
                            (partition_name(&image, id), by_name(&one.message, &image, id));
                        tracing::warn!(partition, why, "the controller does not take a new log");
                        unheard.insert(id);
                    }
                }
                Err(status) => {
                    let (why, count) = (said(&status), logs.len());
                    tracing::warn!(why, count, "the controller did not hear of new logs: it is told again");
                    unheard.extend(logs);
                    unheard.extend(reports.by_ref().flat_map(|(logs, _)| logs));
                }
            }
        }
        unheard
    }
}

/// What is to be said of these logs, in requests of a limited size.
fn reports(
    made: &[PartitionId],
    by: wire::BrokerEpoch,
    directory: DirectoryId,
) -> Vec<(Vec<PartitionId>, wire::AssignDirectoriesRequest)> {
    let assignment = |id: &PartitionId| wire::DirectoryAssignment {
        partition: Some(id.to_wire()),
        directory_id: directory.to_wire(),
    };
    let report = |logs: &[PartitionId]| {
        let assignments = logs.iter().map(assignment).collect();
        let assignments = wire::AssignDirectories { by: Some(by), assignments };
        (logs.to_vec(), wire::AssignDirectoriesRequest { assignments: Some(assignments) })
    };
    made.chunks(LOGS_MAX).map(report).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use weir_types::TopicId;

    use super::*;

    #[test]
    fn a_report_stays_small_however_much_there_is_to_say() {
        let made: Vec<_> = (0..100_000)
            .map(|n| PartitionId { topic: TopicId(u128::MAX), partition: i32::MAX - n })
            .collect();
        let by = wire::BrokerEpoch { broker_id: i32::MAX, epoch: i64::MAX };
        let reports = reports(&made, by, DirectoryId(u128::MAX));
        let largest = reports.iter().map(|(_, request)| request.encoded_len()).max();
        assert!(largest.is_some_and(|bytes| bytes < 1024 * 1024), "{largest:?} bytes");
        let said: Vec<_> = reports
            .into_iter()
            .flat_map(|(_, request)| request.assignments.unwrap().assignments)
            .map(|one| PartitionId::from_wire(one.partition.unwrap()).unwrap())
            .collect();
        assert_eq!(said, made, "each once");
    }
}
