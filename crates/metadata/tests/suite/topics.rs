//! What topics can be made, changed and deleted, and what is said when not.

use crate::common::*;
use weir_metadata::*;
use weir_types::*;

fn error(result: Result<Reply, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_topic_is_made_placed_and_led_once_its_directories_are_known() {
    let mut cluster = Cluster::new(3);
    let made = cluster.run(Command::CreateTopic(create("flights", 3, 2))).unwrap();
    let Reply::TopicCreated { topic, created: true } = made else { panic!("{made:?}") };
    assert_eq!((topic.partitions, topic.replication_factor, &*topic.name), (3, 2, "flights"));
    assert_eq!(cluster.partition(topic.id, 0).leader, None, "no directory is known yet");
    cluster.assign_all(topic.id);
    for number in 0..3 {
        let partition = cluster.partition(topic.id, number);
        assert_eq!(partition.leader_epoch, 1);
        assert_eq!(partition.leader, Some(partition.replicas[0].broker));
    }
    for id in 1..=3 {
        assert_eq!(cluster.state.image.load(BrokerId(id)), Load { replicas: 2, leaders: 1 });
    }
}

#[test]
fn zero_means_the_clusters_default() {
    let mut cluster = Cluster::new(3);
    let set = SetClusterConfig {
        set: pairs(&[("default_partitions", "4"), ("default_replication_factor", "2")]),
        unset: Vec::new(),
        expected: pairs(&[]),
        request_id: String::new(),
    };
    cluster.run(Command::SetClusterConfig(set)).unwrap();
    let id = cluster.topic("a", 0, 0, &[]);
    let topic = cluster.state.image.topic(id).unwrap();
    assert_eq!((topic.partition_count(), topic.replication_factor), (4, 2));
}

#[test]
fn what_cannot_be_made_is_refused_with_the_limit() {
    let mut cluster = Cluster::new(1);
    cluster.topic("flights", 1, 1, &[]);
    let cases = [
        (create("flights", 1, 1), "topic \"flights\" exists already"),
        (create("a/b", 1, 1), "topic name \"a/b\" is not allowed: '/' is not one of a-z A-Z 0-9 . _ -"),
        (create("__mine", 1, 1), "names that begin with __ are reserved"),
        (create("a", -1, 1), "-1 partitions are not possible: 1 to 10000 are allowed in a topic"),
        (create("a", 10_001, 1), "1 to 10000 are allowed"),
        (create("a", 1, 2), "2 replicas are not possible: 1 broker is active"),
        (create("a", 1, -1), "-1 replicas are not possible: 1 to 9 are allowed"),
        (CreateTopic { config: pairs(&[("retention", "7d")]), ..create("a", 1, 1) }, "there is no setting"),
        (
            CreateTopic { config: pairs(&[("min_insync_replicas", "2")]), ..create("a", 1, 1) },
            "min_insync_replicas cannot be \"2\": expected at most the topic's 1 replicas",
        ),
    ];
    let before = cluster.state.image.clone();
    for (command, expected) in cases {
        let name = command.name.clone();
        let said = error(cluster.run(Command::CreateTopic(command)));
        assert!(said.contains(expected), "{name}: {said}");
    }
    assert_eq!(cluster.state.image, before, "a refusal changes nothing, not even the version");
}

#[test]
fn if_absent_answers_what_is_there() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 2, 1, &[]);
    let again = CreateTopic { if_absent: true, topic_id: TopicId(99), ..create("a", 5, 1) };
    let reply = cluster.run(Command::CreateTopic(again)).unwrap();
    let Reply::TopicCreated { topic, created: false } = reply else { panic!("{reply:?}") };
    assert_eq!((topic.id, topic.partitions), (id, 2));
}

#[test]
fn durability_and_min_insync_are_decided_when_a_topic_is_made() {
    let mut cluster = Cluster::new(2);
    let set = |pairs_: &[(&str, &str)]| {
        Command::SetClusterConfig(SetClusterConfig {
            set: pairs(pairs_),
            unset: vec![],
            expected: pairs(&[]),
            request_id: String::new(),
        })
    };
    cluster.run(set(&[("durability", "replicated"), ("min_insync_replicas", "2")])).unwrap();
    let id = cluster.topic("a", 1, 2, &[]);
    let single = cluster.topic("single", 1, 1, &[]);
    cluster.run(set(&[("durability", "fsync"), ("min_insync_replicas", "1")])).unwrap();
    let image = &cluster.state.image;
    let settings = image.topic_settings(image.topic(id).unwrap());
    assert_eq!((settings.durability, settings.min_insync_replicas), (Durability::Replicated, 2));
    assert_eq!(cluster.partition(id, 0).min_insync, 2);
    assert_eq!(cluster.partition(single, 0).min_insync, 1, "cut to what one replica can fulfil");
    assert!(image.topic(id).unwrap().config.is_empty(), "nothing was set on the topic itself");
    let said = error(cluster.run(Command::UpdateTopic(update("a", &[("durability", "fsync")]))));
    assert_eq!(said, "durability is fixed when a topic is created and cannot be changed");
}

#[test]
fn the_clusters_settings_change_only_from_what_was_expected() {
    let mut cluster = Cluster::new(1);
    let set = |value, expected| {
        Command::SetClusterConfig(SetClusterConfig {
            set: pairs(&[("retention_ms", value)]),
            unset: vec![],
            expected: pairs(&[("retention_ms", expected)]),
            request_id: String::new(),
        })
    };
    // Nobody has set it: the default is its value, however that is written.
    cluster.run(set("2d", "7d")).unwrap();
    let said = error(cluster.run(set("3d", "604800000")));
    assert_eq!(said, "retention_ms of the cluster is 172800000 by now, not 604800000: read it again");
    assert_eq!(cluster.state.image.cluster_settings()["retention_ms"], "172800000");
    cluster.run(set("3d", "2d")).unwrap();
    assert_eq!(cluster.state.image.cluster_settings()["retention_ms"], "259200000");
}

#[test]
fn an_update_is_all_or_nothing_and_says_before_and_after() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 1, 1, &[("retention_ms", "7d"), ("compression", "zstd")]);
    let wrong = UpdateTopic { partitions: Some(0), ..update("a", &[("retention_ms", "1d")]) };
    assert!(error(cluster.run(Command::UpdateTopic(wrong))).contains("cannot be taken away"));
    let command = UpdateTopic {
        partitions: Some(3),
        unset_config: vec!["compression".into()],
        ..update("a", &[("retention_ms", "1d")])
    };
    let reply = cluster.run(Command::UpdateTopic(command)).unwrap();
    let Reply::TopicUpdated { before, after } = reply else { panic!("{reply:?}") };
    assert_eq!(before.config, pairs(&[("compression", "zstd"), ("retention_ms", "604800000")]));
    assert_eq!(after.config, pairs(&[("retention_ms", "86400000")]));
    assert_eq!((before.partitions, after.partitions), (1, 3));
    assert!(after.revision > before.revision);
    cluster.assign_all(id);
    assert_eq!(cluster.partition(id, 2).leader, Some(BrokerId(1)));

    let stale = UpdateTopic { expected_revision: Some(before.revision), ..update("a", &[]) };
    assert!(error(cluster.run(Command::UpdateTopic(stale))).contains("read it again"));
    let said = error(cluster.run(Command::UpdateTopic(update("b", &[]))));
    assert_eq!(said, "topic \"b\" does not exist", "one letter is not a guess");
}

#[test]
fn min_insync_reaches_the_partition_records() {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 1, 3, &[]);
    let epoch = cluster.partition(id, 0).partition_epoch;
    cluster.run(Command::UpdateTopic(update("a", &[("min_insync_replicas", "3")]))).unwrap();
    assert_eq!(cluster.partition(id, 0).min_insync, 3);
    assert_eq!(cluster.partition(id, 0).partition_epoch, epoch + 1);
    cluster.run(Command::UpdateTopic(update("a", &[("retention_ms", "1d")]))).unwrap();
    assert_eq!(cluster.partition(id, 0).partition_epoch, epoch + 1, "other settings leave the records alone");
}

#[test]
fn a_recreated_topic_is_another_one() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 1, 1, &[]);
    let guarded = |id| Command::DeleteTopic(DeleteTopic { topic_id: Some(id), ..delete("a") });
    assert!(error(cluster.run(guarded(TopicId(9)))).contains("it was deleted and created again"));
    cluster.run(guarded(id)).unwrap();
    assert_eq!(cluster.state.image.topic_named("a"), None);
    assert_eq!(cluster.state.image.partition_count(), 0);
    cluster.run(Command::CreateTopic(CreateTopic { topic_id: TopicId(5), ..create("a", 1, 1) })).unwrap();
    assert!(error(cluster.run(guarded(id))).contains("it was deleted and created again"));
    let said = error(cluster.run(Command::DeleteTopic(delete("missing-topic"))));
    assert!(said.contains("does not exist"), "{said}");
}

#[test]
fn the_same_request_gets_the_same_answer() {
    let mut cluster = Cluster::new(1);
    let command = Command::CreateTopic(CreateTopic { request_id: "r1".into(), ..create("a", 1, 1) });
    let first = cluster.run(command.clone());
    assert_eq!(cluster.run(command.clone()), first);
    cluster.run(Command::DeleteTopic(delete("a"))).unwrap();
    assert_eq!(cluster.run(command), first, "also when the world has moved on");
    assert_eq!(cluster.state.image.topic_named("a"), None);
    let other = CreateTopic { request_id: "r1".into(), ..create("b", 1, 1) };
    assert!(error(cluster.run(Command::CreateTopic(other))).contains("used for another request"));
    let long = CreateTopic { request_id: "x".repeat(65), ..create("b", 1, 1) };
    assert!(error(cluster.run(Command::CreateTopic(long))).contains("0 to 64 bytes"));
}

#[test]
fn a_trial_answers_like_the_real_thing_and_changes_nothing() {
    let mut cluster = Cluster::new(1);
    cluster.topic("a", 1, 1, &[]);
    let before = cluster.state.clone();
    let command = Command::UpdateTopic(UpdateTopic { partitions: Some(5), ..update("a", &[]) });
    let trial = cluster.state.try_out(0, &command);
    assert_eq!(cluster.state, before);
    let Ok(Reply::TopicUpdated { after, .. }) = trial else { panic!("{trial:?}") };
    assert_eq!(after.partitions, 5);
    assert!(cluster.state.try_out(0, &Command::CreateTopic(create("a", 1, 1))).is_err());
}

#[test]
fn cluster_settings_are_checked_against_the_topics_they_reach() {
    let mut cluster = Cluster::new(1);
    cluster.topic("a", 1, 1, &[("batch_bytes_max", "64MiB")]);
    let set = SetClusterConfig {
        set: pairs(&[("segment_bytes", "100MiB")]),
        unset: Vec::new(),
        expected: pairs(&[]),
        request_id: String::new(),
    };
    assert!(error(cluster.run(Command::SetClusterConfig(set))).contains("at least twice batch_bytes_max"));
    let unknown = SetClusterConfig {
        set: pairs(&[("segment_byte", "1")]),
        unset: Vec::new(),
        expected: pairs(&[]),
        request_id: String::new(),
    };
    assert!(
        error(cluster.run(Command::SetClusterConfig(unknown))).contains("did you mean \"segment_bytes\"?")
    );
}
