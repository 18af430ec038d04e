//! A connection holds a bounded number of long calls: the next one is refused in words instead of hanging in the
//! client, and short calls go on.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use weir_proto::v1::{Applied, ConsumeRequest, ConsumeResponse, ErrorReason, GetServerInfoRequest};
use weir_runtime::testing::PATIENCE;
use weir_tests::api::Api;
use weir_tests::process::Setup;
use weir_tests::refusal::Refusal;

async fn consume(api: &Api) -> Result<Streaming<ConsumeResponse>, Status> {
    let request = ConsumeRequest { topics: vec!["flights".to_owned()], ..ConsumeRequest::default() };
    Ok(api.consumer().consume(request).await?.into_inner())
}

#[tokio::test]
async fn the_257th_long_call_of_a_connection_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic("flights", 1, &[]).await?;
    let info = api.metadata().get_server_info(GetServerInfoRequest::default()).await?.into_inner();
    let limit = info.limits.context("limits")?.long_calls_per_connection_max;
    ensure!(limit == 256, "{limit}");

    let mut open = try_join_all((0..256).map(|_| consume(&api))).await?;
    let status = consume(&api).await.err().context("the 257th was taken")?;
    let refusal = Refusal::of_status(&status)?;
    ensure!(refusal.reason == ErrorReason::ConnectionLongCalls, "{refusal:?}");
    ensure!(refusal.code == Code::ResourceExhausted && refusal.applied == Applied::No, "{refusal:?}");
    ensure!(refusal.message.contains("256"), "the limit is not named: {refusal:?}");

    // Short calls of the same connection, and long ones of another, are taken.
    api.metadata().get_server_info(GetServerInfoRequest::default()).await?;
    let other = Api::connect(server.addr()).await?;
    let taken = consume(&other).await?;

    // One that ends makes room for one. The server learns of the end with one of the next frames.
    drop(open.pop());
    let taken_again = async {
        while let Err(status) = consume(&api).await {
            ensure!(Refusal::of_status(&status)?.reason == ErrorReason::ConnectionLongCalls, "{status:?}");
        }
        Ok(())
    };
    timeout(PATIENCE, taken_again).await.context("one that ended made no room")??;
    drop((open, taken));
    server.stop().await
}
