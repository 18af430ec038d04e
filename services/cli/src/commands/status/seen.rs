//! What a server says of its cluster, asked call by call: what [`Health`](super::Health) judges.

use weir_proto::v1::{
    BrokerDescription, BrokerState, ErrorReason, PartitionDescription, TopicMetadata, Voter,
};

use super::NAMED;
use crate::commands::{broker, controller, partition};
use crate::error::{Error, Result};
use crate::offsets;
use crate::session::Session;

/// A cluster, as far as it is known where it was asked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Those that belong to it, also those that are down.
    pub(crate) brokers: Vec<BrokerDescription>,
    pub(crate) controllers: Controllers,
    pub(crate) topics: Vec<TopicMetadata>,
    /// The partitions whose files are damaged, each with what is wrong.
    pub(crate) damaged: Vec<(String, String)>,
    /// Those that are led and whose appends are not acknowledged, each with whom they wait for.
    pub(crate) waiting: Vec<(String, String)>,
    /// Those that are led and have too few replicas in sync.
    pub(crate) thin: Vec<PartitionDescription>,
    /// The first of those that nobody leads.
    pub(crate) leaderless: Vec<PartitionDescription>,
}

/// What is known of the controllers.
#[derive(Debug)]
pub(crate) enum Controllers {
    /// By one of them.
    Told(Vec<Voter>),
    /// None of them answers, in these words.
    Silent(String),
}

impl Default for Controllers {
    fn default() -> Self {
        Self::Told(Vec::new())
    }
}

impl Seen {
    pub(crate) async fn ask(session: &Session) -> Result<Self> {
        let controllers = async {
            match controller::all(session).await {
                Ok(voters) => Ok(Controllers::Told(voters)),
                Err(error) if is_of_controllers(&error) => Ok(Controllers::Silent(error.to_string())),
                Err(error) => Err(error),
            }
        };
        // All at once: each waits a moment for those that do not answer, and a person waits for all of it.
        let (mut brokers, controllers, topics, (damaged, waiting)) = tokio::try_join!(
            // Where nothing is answered, it is always the first that is said so of.
            biased;
            Box::pin(broker::all(session)),
            Box::pin(controllers),
            Box::pin(offsets::topics(session, &[])),
            Box::pin(partition::troubled(session)),
        )?;
        brokers.retain(|broker| broker.state() != BrokerState::Removed);
        let (mut offline, thin) = unwell(&topics);
        offline.truncate(NAMED);
        let (thin, leaderless) = tokio::try_join!(
            Box::pin(partition::named(session, &thin)),
            Box::pin(partition::named(session, &offline))
        )?;
        Ok(Self { brokers, controllers, topics, damaged, waiting, thin, leaderless })
    }
}

/// Whether the server answered, and had no answer from the controllers.
fn is_of_controllers(error: &Error) -> bool {
    // It asks one after the other: of one that hangs it cannot know what became of the question.
    matches!(error.reason(), Some(ErrorReason::ControllerUnavailable | ErrorReason::OutcomeUnknown))
}

/// The partitions without a leader, and those with too few replicas in sync.
pub(super) fn unwell(topics: &[TopicMetadata]) -> (Vec<String>, Vec<String>) {
    let (mut offline, mut thin) = (Vec::new(), Vec::new());
    for topic in topics {
        for partition in &topic.partitions {
            let name = format!("{}/{}", topic.name, partition.partition);
            if partition.leader < 0 {
                offline.push(name);
            } else if partition.isr.len() < partition.replicas.len() {
                thin.push(name);
            }
        }
    }
    (offline, thin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::v1::PartitionMetadata;
    use weir_rpc::Problem;

    #[test]
    fn partitions_that_are_unwell_are_named() {
        let partition = |partition, leader, isr: &[i32]| PartitionMetadata {
            partition,
            leader,
            replicas: vec![1, 2],
            isr: isr.to_vec(),
            ..PartitionMetadata::default()
        };
        let topic = TopicMetadata {
            name: "t".into(),
            partitions: vec![partition(0, 1, &[1, 2]), partition(1, -1, &[]), partition(2, 2, &[2])],
            ..TopicMetadata::default()
        };
        assert_eq!(unwell(&[topic]), (vec!["t/1".to_owned()], vec!["t/2".to_owned()]));
    }

    #[test]
    fn controllers_that_do_not_answer_are_no_reason_to_say_nothing_of_the_rest() {
        let said = |reason| is_of_controllers(&Error::of_problem(&Problem::new(reason, "none answers")));
        assert!(said(ErrorReason::ControllerUnavailable) && said(ErrorReason::OutcomeUnknown));
        assert!(!said(ErrorReason::TopicNotFound));
        assert!(!is_of_controllers(&Error::Unreachable("nobody is there".to_owned())));
    }
}
