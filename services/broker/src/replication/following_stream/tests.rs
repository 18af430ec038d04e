//! What a follower does where its disk does not obey.

use std::path::Path;

use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::codec::{Codec as _, EncodeBody};
use weir_io::{Access, Disk as _, Effect, Fault, Op, Rule};
use weir_proto::codec::Codec;
use weir_runtime::testing::until;
use weir_storage::{Acks, Partition, inspect};
use weir_types::{BrokerId, Durability};

use super::*;
use crate::replication::MESSAGE_BYTES_MAX;
use crate::replication::suspects::Suspect;
use crate::testing::{ID, Parts, append, batch, recorded};

/// A log of so many records, all committed: it has led alone, in epoch 1.
async fn log(parts: &Parts, records: usize) -> Partition {
    let log = parts.lead(ID, recorded(1, &[1])).await;
    for _ in 0..records {
        append(&log, batch(0), Acks::All, None).await.unwrap().unwrap();
    }
    log
}

#[tokio::test(start_paused = true)]
async fn a_start_that_could_not_be_moved_is_moved_later_though_nothing_more_is_heard() {
    let parts = Parts::new();
    let log = log(&parts, 9).await;
    let leader = BrokerId(2);
    let following = parts.replication.following(&log, Durability::Fsync, leader, &recorded(2, &[1]), 0);
    let followed = following.0.clone();
    log.control(Control::SetAdmission(Box::new(following))).await.unwrap();
    let (out, mut said) = mpsc::channel(1);
    let (say, answers) = mpsc::unbounded_channel();
    let (_nothing, mut changes) = mpsc::unbounded_channel();
    let encoder = Codec::<wire::ReplicateResponse, ()>::default().encoder();
    let answers = EncodeBody::new_client(encoder, UnboundedReceiverStream::new(answers).map(Ok), None, None);
    let answers = Messages::new(Body::new(answers), MESSAGE_BYTES_MAX);
    let stream = FollowingStream::new(parts.replication.clone(), leader, out);
    let follows =
        tokio::spawn(
            async move { stream.run(answers, &mut Wanted::from([(ID, followed)]), &mut changes).await },
        );
    let first = said.recv().await.unwrap().frame;
    let Some(Says::Subscribe(wire::Subscribe { subscriptions })) = first else { panic!("{first:?}") };
    let full = Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with("checkpoint.tmp");
    let full = parts.disk.add(full);
    let follow = wire::Following { incarnation: 1, high_watermark: 9, log_start: 5 };
    let subscription = subscriptions.first().unwrap().subscription;
    let answers = vec![wire::SubscriptionAnswer { subscription, answer: Some(Answer::Following(follow)) }];
    let frame = Some(Said::Answers(wire::SubscriptionAnswers { answers }));
    say.send(wire::ReplicateResponse { frame, data: None }).unwrap();
    until("it cannot be moved", async || parts.disk.fired(full) > 0).await;
    parts.disk.remove(full);
    until("it is moved", async || log.ends().log_start == 5).await;
    follows.abort();
}

/// What is found on the way to where it is to be cut: nobody reads there, so nobody else finds it.
#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_cut_for_what_is_damaged_in_it_is_told_of() {
    let parts = Parts::new();
    parts.is_heard();
    let log = parts.lead(ID, recorded(1, &[1, 2])).await;
    for _ in 0..4 {
        append(&log, batch(0), Acks::Leader, None).await.unwrap().unwrap();
    }
    let file = inspect::directory(&parts.disk, Path::new("/logs")).unwrap().partitions.remove(0);
    let file = file.path.join("00000000000000000000.log");
    parts.disk.open(&file, Access::Write).unwrap().write_all_at(b"!", 5).unwrap();
    let following = parts.replication.following(&log, Durability::Fsync, BrokerId(2), &recorded(2, &[2]), 0);
    let followed = following.0.clone();
    log.control(Control::SetAdmission(Box::new(following))).await.unwrap();
    assert!(!cut::cut(parts.replication.clone(), followed, 2).await);
    let (id, suspect) = parts.replication.suspects.next().await;
    let Suspect::Uncut { to: 2, epoch: 2, what } = suspect else { panic!("{suspect:?}") };
    assert_eq!(id, ID);
    parts.damage.stuck(&log, 2, 2, &what);
    assert!(parts.damage.is_in(ID, Some(&log)));
    assert_eq!(parts.damage.of(&log).unwrap(), format!("cannot be read at offset 1: {what}"));
}
