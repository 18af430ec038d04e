//! What another Weir server said, read as a [`Problem`]: for servers that pass calls on and have to say of several answers
//! what became of the whole.

use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb;
use weir_proto::v1::{Applied, ErrorReason, Failure, FailureList};

use crate::Problem;

impl Problem {
    /// A failure that came as a message.
    pub fn heard(failure: &Failure) -> Self {
        let mut problem = Self::new(failure.reason(), failure.message.clone()).applied(failure.applied());
        problem.retry_after =
            failure.retry_after_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        problem.facts = failure.metadata.clone();
        if failure.topic.is_empty() {
            return problem;
        }
        problem.at(&failure.topic, failure.partition)
    }

    /// What a call failed with. `None`: the status is no Weir server's.
    pub fn heard_of_call(status: &Status) -> Option<Vec<Self>> {
        let details = pb::Status::decode(status.details()).ok()?;
        let find = |name: &str| details.details.iter().find(|any| any.type_url.ends_with(name));
        let info = pb::ErrorInfo::decode(&*find("/google.rpc.ErrorInfo")?.value).ok()?;
        if info.domain != "weir" {
            return None;
        }
        let list = find("/weir.v1.FailureList").and_then(|any| FailureList::decode(&*any.value).ok());
        let failures = list.map(|list| list.failures).unwrap_or_default();
        let heard: Vec<_> = failures.iter().map(Self::heard).collect();
        // They are left out where they do not fit; what the first is stands beside them.
        Some(if heard.is_empty() { vec![of_info(status, info)] } else { heard })
    }
}

fn of_info(status: &Status, info: pb::ErrorInfo) -> Problem {
    let reason = ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)).unwrap_or_default();
    let mut problem = Problem::new(reason, status.message());
    problem.facts = info.metadata.into_iter().collect();
    let applied = match problem.facts.remove("applied").as_deref() {
        Some("NO") => Applied::No,
        Some("YES") => Applied::Yes,
        _ => Applied::Maybe,
    };
    let place = (problem.facts.remove("topic"), problem.facts.remove("partition"));
    problem.place = match place {
        (Some(topic), Some(partition)) => partition.parse().ok().map(|partition| (topic, partition)),
        _ => None,
    };
    problem.retry_after = (status.code() == Code::Unavailable).then_some(Duration::from_millis(100));
    problem.applied(applied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_as_it_was_meant() {
        let problem = Problem::new(ErrorReason::NotLeader, "broker 1 does not lead a/0")
            .fact("leader", 2)
            .at("a", 0)
            .retry_after(Duration::from_millis(40));
        assert_eq!(Problem::heard(&problem.failure()), problem);
        assert_eq!(Problem::heard_of_call(&problem.status()), Some(vec![problem]));
        assert_eq!(Problem::heard_of_call(&Status::unavailable("a proxy")), None);
    }

    #[test]
    fn of_what_does_not_fit_the_first_is_heard() {
        let long = "ä".repeat(120);
        let facts = (0..12).fold(Problem::new(ErrorReason::NoLeader, "a/0 has no leader"), |problem, i| {
            problem.fact(&format!("fact{i}"), &long)
        });
        let problem = facts.at("a", 0);
        let heard = Problem::heard_of_call(&problem.status()).unwrap();
        assert_eq!((heard.len(), &heard[0].place), (1, &problem.place));
        assert_eq!((heard[0].reason, heard[0].applied), (problem.reason, problem.applied));
    }
}
