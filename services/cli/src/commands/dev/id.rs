//! What the cluster calls a node: controllers and brokers get their ids from the controllers, and those have gaps, so that
//! `controller-2` may be controller 3.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use weir_proto::internal::v1::DescribeControllerRequest;
use weir_proto::internal::v1::controller_service_client::ControllerServiceClient;

use super::node::{Node, Role};
use crate::address::{Source, parse};
use crate::connect;

/// How long a controller that runs may take to say it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Its id; `None`: it has none yet, or does not say so.
pub(super) async fn of(node: &Node, runs: bool) -> Option<i64> {
    match node.role {
        // On its disk, once it was registered.
        Role::Broker => {
            let text = fs::read_to_string(node.data("logs/dir.json")).ok()?;
            serde_json::from_str::<Value>(&text).ok()?.get("broker_id")?.as_i64()
        }
        // In its log, which nobody else can read.
        Role::Controller if runs => {
            let asked = async {
                let address = parse(&node.addr.to_string(), Source::Default).ok()?;
                let mut client =
                    ControllerServiceClient::new(connect::connect(&address, PATIENCE).await.ok()?);
                let answer = client.describe_controller(DescribeControllerRequest {}).await.ok()?;
                i64::try_from(answer.into_inner().node_id).ok()
            };
            timeout(PATIENCE, asked).await.ok().flatten()
        }
        Role::Controller => None,
    }
}
