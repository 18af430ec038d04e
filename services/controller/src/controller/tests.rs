//! What becomes of calls to the consensus (correctness rule 34), in a controller on one thread.

use std::collections::BTreeSet;
use std::path::PathBuf;

use futures::future::join_all;
use openraft::ChangeMembers;
use weir_io::MemDisk;
use weir_metadata::SetClusterConfig;
use weir_runtime::testing::{PATIENCE, TestOs};

use super::*;

/// A controller alone, which leads; nobody serves it.
async fn leader() -> Controller {
    let os = Arc::new(TestOs::new(Arc::new(MemDisk::new(1))));
    let config = Config::new(PathBuf::from("/controller"), ([127, 0, 0, 1], 0).into()).standalone();
    let controller = Controller::build(os, config).await.unwrap();
    create_cluster(&controller.config, &controller.parts, &controller.me).await.unwrap();
    controller
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
    let (raft, parts) = (controller.parts.raft.clone(), controller.parts.clone());
    // The second voter is not there: from here on nothing is committed, and this one leads all the same.
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
    let answer =
        timeout(PATIENCE, parts.proposer.propose(set(1))).await.expect("nothing is waited for for ever");
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
