//! What becomes of calls to the consensus (correctness rule 34), and what a controller does by itself, on one thread.

mod given_back;

use std::collections::BTreeSet;
use std::path::PathBuf;

use futures::future::join_all;
use openraft::ChangeMembers;
use weir_io::MemDisk;
use weir_metadata::SetClusterConfig;
use weir_runtime::testing::{PATIENCE, TestOs, until};

use super::*;

/// A controller alone, which leads; nobody serves it.
async fn leader() -> Controller {
    leader_as(|config| config).await
}

/// One that is told more.
async fn leader_as(told: impl FnOnce(Config) -> Config) -> Controller {
    let os = Arc::new(TestOs::new(Arc::new(MemDisk::new(1))));
    let config = Config::new(PathBuf::from("/controller"), ([127, 0, 0, 1], 0).into()).standalone();
    let controller = Controller::build(os, told(config)).await.unwrap();
    create_cluster(&controller.config, &controller.parts, &controller.me).await.unwrap();
    controller
}

/// From here on nothing is committed, and this one leads all the same: the second voter is not there.
async fn without_quorum(controller: &Controller) {
    let raft = controller.parts.raft.clone();
    raft.add_learner(2, BasicNode::new("127.0.0.1:1"), false).await.unwrap();
    let changing = raft.clone();
    let both = ChangeMembers::AddVoterIds([2].into());
    tokio::spawn(async move { drop(changing.change_membership(both, false).await) });
    let mut metrics = raft.server_metrics();
    let waits_for_both = metrics
        .wait_for(|metrics| metrics.membership_config.membership().get_joint_config().len() == 2)
        .await
        .is_ok();
    assert!(waits_for_both);
}

/// What one line of its metrics shows, labels included in the name.
fn shown(controller: &Controller, name: &str) -> f64 {
    let text = String::from_utf8(controller.handle().metrics()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not shown: {text}")).parse().unwrap()
}

fn set(value: usize) -> Command {
    Command::SetClusterConfig(SetClusterConfig {
        set: [("retention_ms".to_owned(), format!("{value}s"))].into(),
        unset: Vec::new(),
        expected: Default::default(),
        request_id: String::new(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_command_that_no_quorum_takes_has_an_unknown_outcome_at_its_deadline() {
    let controller = leader().await;
    without_quorum(&controller).await;
    let proposing = controller.parts.proposer.propose(set(1));
    let answer = timeout(PATIENCE, proposing).await.expect("nothing is waited for for ever");
    assert!(matches!(answer, Err(Unapplied::Unknown(_))), "{answer:?}");
    assert_eq!(controller.handle().leader(), Some(FOUNDER));
}

#[test]
fn a_command_that_waits_for_ever_is_noticed() {
    let test = a_command_that_no_quorum_takes_has_an_unknown_outcome_at_its_deadline;
    assert!(Mutant::NoDeadline.is_noticed_by(test));
}

#[tokio::test(start_paused = true)]
async fn commands_that_arrive_together_share_an_entry() {
    let controller = leader().await;
    let proposer = &controller.parts.proposer;
    let answers = join_all((1..=50).map(|value| proposer.propose(set(value)))).await;
    let versions: BTreeSet<_> = answers.into_iter().map(|answer| answer.unwrap().1).collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
}

#[test]
fn commands_that_have_an_entry_each_are_noticed() {
    assert!(Mutant::OneByOne.is_noticed_by(commands_that_arrive_together_share_an_entry));
}

#[tokio::test(start_paused = true)]
async fn how_many_commands_wait_and_how_long_they_took_is_shown() {
    let (queued, taken) = ("weir_controller_proposals_queued", "weir_controller_commit_seconds");
    let controller = leader().await;
    let (count, sum) = (format!("{taken}_count"), format!("{taken}_sum"));
    controller.parts.run(set(1), false).await.unwrap();
    assert_eq!((shown(&controller, queued), shown(&controller, &count)), (0.0, 1.0));
    let before = shown(&controller, &sum);
    without_quorum(&controller).await;
    let asking = |values: std::ops::Range<usize>| {
        let parts = &controller.parts;
        Box::pin(join_all(values.map(move |value| parts.run(set(value), false))))
    };
    let mut first = asking(2..6);
    assert!(futures::poll!(&mut first).is_pending());
    assert_eq!(shown(&controller, queued), 4.0);
    until("they are on their way, in one entry", async || shown(&controller, queued) == 0.0).await;
    let mut next = asking(6..9);
    assert!(futures::poll!(&mut next).is_pending());
    assert_eq!(shown(&controller, queued), 3.0, "they wait for the next one");
    let (first, next) = tokio::join!(first, next);
    assert!(first.iter().chain(&next).all(Result::is_err));
    assert_eq!((shown(&controller, queued), shown(&controller, &count)), (0.0, 8.0));
    // The clock is the test's: four have waited for one deadline, three for two.
    let (took, deadline) = (shown(&controller, &sum) - before, controller.config.write_timeout.as_secs_f64());
    assert!((took / deadline - 10.0).abs() < 0.1, "{took} seconds, where one waits for {deadline}");
}
