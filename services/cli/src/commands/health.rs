//! `weir health`: the standard gRPC health call, with an exit code for probes that cannot speak gRPC.

use clap::Args;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::error::{Error, Result};
use crate::output::View;
use crate::session::Session;

/// Ask the server whether it is well: exit code 0 if it serves
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir health
  $ weir health --timeout 1s
  $ weir health -o json")]
pub(crate) struct Health {
    /// One service; without it, the server as a whole
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    service: String,
}

impl Health {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session.show(|| self.look(session)).await
    }

    async fn look(&self, session: &Session) -> Result<View> {
        let mut client = HealthClient::new(session.channel().await?);
        let request = HealthCheckRequest { service: self.service.clone() };
        let status = session.read(client.check(session.request(request))).await?.status();
        match status {
            ServingStatus::Serving => {
                Ok(View::sentence("serving", "serving", serde_json::json!({ "status": "SERVING" })))
            }
            other => Err(Error::Failed(format!("the server says {}", other.as_str_name()))),
        }
    }
}
