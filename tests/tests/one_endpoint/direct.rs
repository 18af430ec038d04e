//! Who asks for it is told who leads instead of having his call passed on.

use weir_proto::v1::{FetchRequest, Route};

use crate::said::{all_of, cluster_with, direct, fact, fetch, reason, stranger_and_leader, to_one, write};

#[tokio::test]
async fn a_direct_call_is_told_the_leader_where_it_is_and_its_epoch() {
    let cluster = cluster_with("flights", 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, "flights", 0).await;
    let refused = write(&cluster, stranger, direct(to_one("flights", 0, "x"))).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_LEADER");
    assert_eq!(fact(&refused, "leader"), Some(cluster.id(leader).to_string()));
    assert_eq!(fact(&refused, "leader_endpoint"), Some(cluster.addr(leader).to_string()));
    assert!(fact(&refused, "leader_epoch").is_some() && fact(&refused, "metadata_version").is_some());
    let request = FetchRequest { route: Route::Direct.into(), ..all_of("flights", 0..3) };
    let answer = fetch(&cluster, stranger, request).await.into_inner();
    let failed = answer.partitions.iter().filter_map(|fetched| fetched.failure.as_ref());
    assert_eq!(failed.filter(|failure| failure.metadata.contains_key("leader_endpoint")).count(), 2);
    cluster.stop().await;
}
