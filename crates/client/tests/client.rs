//! Connecting, calls and their repetition, topics, offsets.

mod common;

use common::{builder, client, cluster};
use tonic::Status;
use weir_client::{Applied, Client, Error, ErrorReason, NewTopic, TopicChange};
use weir_rpc::Problem;

#[tokio::test(start_paused = true)]
async fn a_client_says_hello_when_it_connects() {
    let cluster = cluster();
    let client = client(&cluster).await;
    assert_eq!(client.server_info().await.unwrap().cluster_id, "fake");
    assert_eq!(cluster.net().dialled("broker1"), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_said_at_once_and_nothing_was_applied() {
    let cluster = cluster();
    cluster.net().refuse("broker1", true);
    let error = builder(&cluster).connect("broker1:1,elsewhere:2").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.applied(), Applied::No);
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_address_that_answers_is_enough() {
    let cluster = cluster();
    let client = builder(&cluster).connect("gone:1, broker1:1").await.unwrap();
    assert_eq!(client.topics().list().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_not_an_address_is_refused() {
    for bad in ["", "a b:1", "x:y"] {
        let error = Client::connect(bad).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn topics_are_made_listed_changed_and_deleted() {
    let cluster = cluster();
    let topics = client(&cluster).await.topics();
    let (made, created) =
        topics.create(NewTopic::new("b").partitions(3).config("retention_ms", "1000")).await.unwrap();
    assert!(created);
    assert_eq!((made.partitions, made.config["retention_ms"].as_str()), (3, "1000"));
    let (again, created) = topics.create(NewTopic::new("b").if_absent()).await.unwrap();
    assert!(!created);
    assert_eq!(again.topic_id, made.topic_id);
    let error = topics.create(NewTopic::new("b")).await.unwrap_err();
    assert!(error.is(ErrorReason::TopicAlreadyExists));

    topics.create(NewTopic::new("a")).await.unwrap();
    let names: Vec<_> = topics.list().await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["a", "b"]);

    let change = TopicChange::new().set("retention_ms", "7").partitions(4);
    let (before, after) = topics.update("b", change).await.unwrap();
    assert_eq!((before.partitions, after.partitions), (3, 4));

    topics.delete("a", None).await.unwrap();
    assert!(topics.get("a").await.unwrap_err().is(ErrorReason::TopicNotFound));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_repeated_when_nothing_was_applied() {
    let cluster = cluster();
    let client = client(&cluster).await;
    let busy = || Problem::new(ErrorReason::ControllerUnavailable, "no leader").status();
    cluster.lock().fail_call.insert("CreateTopic", vec![busy(), busy()]);
    client.topics().create(NewTopic::new("a")).await.unwrap();
    assert_eq!(cluster.calls("CreateTopic"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_repeated() {
    let cluster = cluster();
    let client = client(&cluster).await;
    cluster.lock().fail_call.insert("GetTopic", vec![Status::permission_denied("no")]);
    let error = client.topics().get("a").await.unwrap_err();
    assert_eq!(error.to_string(), "no");
    assert_eq!(cluster.calls("GetTopic"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_survives_a_broken_connection() {
    let cluster = cluster();
    let client = client(&cluster).await;
    cluster.topic("a", 1);
    cluster.net().cut("broker1");
    assert_eq!(client.topics().get("a").await.unwrap().name, "a");
    assert_eq!(cluster.net().dialled("broker1"), 2);
}

#[tokio::test(start_paused = true)]
async fn another_broker_is_asked_when_one_is_gone() {
    let cluster = common::Cluster::start(2);
    cluster.topic("a", 1);
    let client = builder(&cluster).connect("broker1:1,broker2:1").await.unwrap();
    cluster.net().refuse("broker1", true);
    cluster.net().cut("broker1");
    assert_eq!(client.topics().get("a").await.unwrap().name, "a");
}

#[tokio::test(start_paused = true)]
async fn offsets_by_place_and_time() {
    let cluster = cluster();
    cluster.topic("a", 1);
    cluster.put("a", 0, &["1", "2"]);
    cluster.put("a", 0, &["3"]);
    let client = client(&cluster).await;
    assert_eq!(client.offsets().earliest("a", 0).await.unwrap(), 0);
    assert_eq!(client.offsets().latest("a", 0).await.unwrap(), 3);
    assert_eq!(client.offsets().at_time("a", 0, 1_001).await.unwrap(), 0);
    assert_eq!(client.offsets().at_time("a", 0, 9_999).await.unwrap(), 3);
    client.topics().delete_records("a", &[(0, 2)]).await.unwrap();
    assert_eq!(client.offsets().earliest("a", 0).await.unwrap(), 2);
    let error = client.offsets().latest("a", 7).await.unwrap_err();
    assert!(error.is(ErrorReason::PartitionNotFound));
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_may_have_done_is_not_undone_by_nobody_being_there() {
    let cluster = cluster();
    let client = client(&cluster).await;
    let lost = || Status::unknown("transport error");
    cluster.lock().fail_call.insert("CreateTopic", (0..10_000).map(|_| lost()).collect());
    let topics = client.topics();
    let call = tokio::spawn(async move { topics.create(NewTopic::new("a")).await });
    common::until("one was lost", || async { cluster.calls("CreateTopic") > 0 }).await;
    cluster.net().refuse("broker1", true);
    cluster.net().cut("broker1");
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    assert!(matches!(error.last(), Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_may_have_done_is_not_undone_by_refusals_of_those_after_it() {
    for later in [
        Problem::new(ErrorReason::ControllerUnavailable, "no leader").status(),
        // Not of a Weir: it knows nothing of the attempt before.
        Status::unimplemented("a proxy"),
    ] {
        let cluster = cluster();
        let client = client(&cluster).await;
        let mut fails = vec![Status::unknown("transport error")];
        fails.extend(std::iter::repeat_n(later, 10_000));
        cluster.lock().fail_call.insert("CreateTopic", fails);
        let error = client.topics().create(NewTopic::new("a")).await.unwrap_err();
        assert_eq!(error.applied(), Applied::Maybe, "{error}");
        assert!(matches!(error.last(), Error::Refused(_)), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_for_good_is_said_of_the_attempts_before_it_too() {
    let cluster = cluster();
    let client = client(&cluster).await;
    cluster.lock().fail_call.insert("GetTopic", vec![Status::unknown("transport error")]);
    let error = client.topics().get("a").await.unwrap_err();
    assert!(error.is(ErrorReason::TopicNotFound), "{error:?}");
    assert_eq!(error.applied(), Applied::No);
}
