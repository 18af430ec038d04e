//! Watching: nothing missed, nothing twice, never back.

use std::sync::Arc;

use tonic::Code;
use weir_cluster::{Controllers, Follower, ImageReader, Row};
use weir_io::MemDisk;
use weir_metadata::{Delta, Image};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::watch_metadata_response::Frame;

use crate::common::*;

async fn watch(
    controllers: &Controllers,
    request: pb::WatchMetadataRequest,
) -> Result<tonic::Streaming<pb::WatchMetadataResponse>, tonic::Status> {
    ask(controllers, |mut client| {
        let request = request.clone();
        async move { client.watch_metadata(request).await }
    })
    .await
}

fn from(from_version: i64) -> pb::WatchMetadataRequest {
    pb::WatchMetadataRequest { from_version, ..pb::WatchMetadataRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_begins_with_the_image_or_with_what_it_missed() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let controllers = node.controllers();
    Broker::start(&controllers).await;
    node.create("a").await.unwrap();
    let mut stream = watch(&controllers, from(0)).await.unwrap();
    let mut reader = ImageReader::default();
    let mut image: Image = loop {
        let Some(Frame::Image(rows)) = stream.message().await.unwrap().unwrap().frame else {
            panic!("no image")
        };
        rows.rows.into_iter().for_each(|row| reader.push(row).unwrap());
        if rows.last {
            break reader.finish().unwrap();
        }
    };
    assert_eq!(image, *node.handle.image());
    let seen = image.version();
    node.create("b").await.unwrap();
    for mut stream in [stream, watch(&controllers, from(seen)).await.unwrap()] {
        let delta = loop {
            match stream.message().await.unwrap().unwrap().frame {
                Some(Frame::Delta(delta)) => break Delta::from_wire(delta).unwrap(),
                Some(Frame::CurrentVersion(version)) => assert_eq!(version, seen),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(delta.previous, seen);
        image.follow(&delta).unwrap();
        assert_eq!(image, *node.handle.image());
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_seen_more_than_the_leader_is_told_to_stay_away() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let status = watch(&node.controllers(), from(1_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("restored from a backup"), "{}", status.message());
    let request = pb::WatchMetadataRequest { cluster_id: weir_types::ClusterId(9).to_wire(), ..from(0) };
    let status = watch(&node.controllers(), request).await.unwrap_err();
    assert!(status.message().contains("not the one that was meant"), "{}", status.message());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_follows_through_restarts_and_never_goes_back() {
    let mut node = Node::start(MemDisk::new(1), config()).await;
    let follower = Arc::new(Follower::new(0));
    let controllers = node.controllers();
    let mut versions = follower.versions();
    let following = tokio::spawn({
        let (follower, controllers) = (follower.clone(), controllers.clone());
        async move { follower.run(&controllers, None).await }
    });
    let watched = tokio::spawn(async move {
        let mut last = 0;
        while versions.changed().await.is_ok() {
            let now = *versions.borrow_and_update();
            assert!(now > last, "{now} after {last}");
            last = now;
        }
    });
    Broker::start(&controllers).await;
    for round in 0..4 {
        for number in 0..20 {
            node.create(&format!("topic-{round}-{number}")).await.unwrap();
        }
        let image = follower.wait_for(node.handle.image().version()).await;
        assert_eq!(image, node.handle.image());
        let disk = if round % 2 == 0 { node.stop().await } else { node.lose_power(round) };
        node = Node::start(disk, config()).await;
        // Another port, as after a move: the configuration says where.
        controllers.set_endpoints(vec![node.endpoint.clone()]);
    }
    until("all of it", async || follower.image().topics().count() == 80).await;
    assert!(!watched.is_finished());
    following.abort();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_starts_over_and_misses_nothing() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let controllers = node.controllers();
    Broker::start(&controllers).await;
    let mut stream = watch(&controllers, from(0)).await.unwrap();
    // More bytes than fit into the windows of its stream, then more changes than wait for one watcher.
    for number in 0..30 {
        let answer = ask(&controllers, |mut client| {
            let mut request = create_request(&format!("large-{number}"));
            request.request.as_mut().unwrap().topic.as_mut().unwrap().partitions = 5_000;
            async move { client.create_topic(request).await }
        });
        answer.await.unwrap();
    }
    for number in 0..1_200 {
        node.create(&format!("small-{number}")).await.unwrap();
    }
    let (mut image, mut reader, mut images) = (Image::default(), None, 0);
    while image.version() < node.handle.image().version() {
        match stream.message().await.unwrap().unwrap().frame {
            Some(Frame::Image(rows)) => {
                if rows.first {
                    reader = Some(ImageReader::default());
                }
                let mut open = reader.take().unwrap();
                rows.rows.into_iter().for_each(|row| open.push(row).unwrap());
                if rows.last {
                    let newer = open.finish().unwrap();
                    assert!(newer.version() >= image.version());
                    image = newer;
                    images += 1;
                } else {
                    reader = Some(open);
                }
            }
            Some(Frame::Delta(delta)) => image.follow(&Delta::from_wire(delta).unwrap()).unwrap(),
            _ => {}
        }
    }
    assert_eq!(image, *node.handle.image());
    assert!(images == 1 || images == 2, "{images} images");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_from_an_old_backup_is_not_followed_also_once_it_has_more_versions() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let follower = Arc::new(Follower::new(0));
    let controllers = node.controllers();
    let following = tokio::spawn({
        let (follower, controllers) = (follower.clone(), controllers.clone());
        async move { follower.run(&controllers, None).await }
    });
    Broker::start(&controllers).await;
    node.create("kept").await.unwrap();
    let disk = node.stop().await;
    let backup = disk.after_power_loss(weir_io::Survival::Everything);
    let node = Node::start(disk, config()).await;
    controllers.set_endpoints(vec![node.endpoint.clone()]);
    // Whenever it says so, it is one version more.
    until("it has said where it is now", async || {
        node.handle.image().controllers().any(|controller| controller.endpoint == node.endpoint)
    })
    .await;
    node.create("lost").await.unwrap();
    let seen = follower.wait_for(node.handle.image().version()).await;
    assert_ne!(seen.author(), 0);
    node.stop().await;

    let node = Node::start(backup, config()).await;
    for number in 0..20 {
        node.create(&format!("other-{number}")).await.unwrap();
    }
    assert!(node.handle.image().version() > seen.version(), "it has caught up");
    controllers.set_endpoints(vec![node.endpoint.clone()]);
    until("it is not followed", async || {
        follower.refused().is_some_and(|why| why.contains("is not the one that"))
    })
    .await;
    assert_eq!(follower.image(), seen);
    // Nor by whoever wrote down what it has seen, and begins anew.
    let again = Arc::new(Follower::after(seen.version(), seen.author()));
    let asking = tokio::spawn({
        let (again, controllers) = (again.clone(), node.controllers());
        async move { again.run(&controllers, None).await }
    });
    until("nor after a restart", async || again.refused().is_some()).await;
    assert_eq!(again.image().version(), 0);
    asking.abort();
    following.abort();
    node.stop().await;
}
