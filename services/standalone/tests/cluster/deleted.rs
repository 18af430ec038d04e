//! The logs of deleted topics are kept for a while, and also go when nobody looked (correctness rule 14).

use tokio::time::Instant;
use weir_io::{Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_proto::internal::v1 as pb;
use weir_proto::v1::DeleteTopicRequest;

use crate::support::*;

async fn delete(controller: &Node, name: &str) {
    let request = DeleteTopicRequest { name: name.to_owned(), ..DeleteTopicRequest::default() };
    let request = pb::DeleteTopicRequest { request: Some(request) };
    let controllers = controller.controllers();
    let deleted = controllers.call(Instant::now() + PATIENCE, |mut client| {
        let request = request.clone();
        async move { client.delete_topic(request).await }
    });
    deleted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_deleted_topics_are_set_aside_at_once_or_at_the_next_start() {
    let logs = MemDisk::new(1);
    let controller = Node::start(&MemDisk::new(2)).await;
    let broker = Broker::start(logs.clone(), controller.addr).await;
    for topic in ["a", "b", "c"] {
        broker.create(topic, 1).await.unwrap();
        broker.produce(topic, 0).await.unwrap();
    }
    broker.delete("a").await;
    let strays = |logs: &MemDisk| -> Vec<String> {
        folders(logs).into_iter().filter(|folder| folder.ends_with(".stray")).collect()
    };
    let aside = strays(&logs);
    assert!(aside.len() == 1 && aside[0].starts_with("a-0."), "{aside:?}");

    broker.running.stop().await.unwrap();
    delete(&controller, "b").await;
    let broker = Broker::start(logs.clone(), controller.addr).await;
    let aside = strays(&logs);
    assert!(aside.len() == 2 && aside[1].starts_with("b-0."), "{aside:?}");
    assert_eq!(broker.produce("c", 0).await.unwrap(), 1);
    assert_eq!(broker.metric("weir_stray_logs").await, 2);

    // A topic of that name is another one.
    broker.create("b", 1).await.unwrap();
    assert_eq!(broker.produce("b", 0).await.unwrap(), 0);
    broker.running.stop().await.unwrap();
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_is_set_aside_for_a_version_that_is_not_written_down() {
    let logs = FaultDisk::over_mem(&MemDisk::new(1));
    let controller = Node::start(&MemDisk::new(2)).await;
    let broker = Broker::start(logs.clone(), controller.addr).await;
    broker.create("a", 1).await.unwrap();
    broker.produce("a", 0).await.unwrap();
    let full = Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with("metadata-version.tmp");
    let rule = logs.add(full);
    delete(&controller, "a").await;
    let strays = || folders(&logs).iter().filter(|folder| folder.ends_with(".stray")).count();
    // The second time the first one is over.
    until("two attempts", async || logs.fired(rule) > 1 || strays() > 0).await;
    assert_eq!(strays(), 0);
    logs.remove(rule);
    until("the log is set aside", async || strays() == 1).await;
    broker.running.stop().await.unwrap();
    controller.stop().await;
}
