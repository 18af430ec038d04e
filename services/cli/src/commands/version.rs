//! `weir version`: of this program, and of the server if there is one.

use clap::Args;
use weir_proto::v1::GetServerInfoRequest;

use crate::error::Result;
use crate::output::{self, View};
use crate::session::Session;

/// The version of this program, and of the server
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir version
  $ weir version -o json
  $ weir version --client")]
pub(crate) struct Version {
    /// Of this program only: no server is asked
    #[arg(long)]
    client: bool,
}

impl Version {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let own = env!("CARGO_PKG_VERSION");
        let mut view = View::default();
        view.line(format!("weir {own}"));
        view.names.push(own.to_owned());
        let mut object = serde_json::json!({ "client": own, "server": null });
        if !self.client {
            // What is wrong with the address itself is no answer.
            session.address()?;
            match server(session).await {
                Ok(version) => {
                    view.line(format!("server {version} at {}", session.address()?));
                    output::set(&mut object, "server", version);
                }
                // A version without a server is an answer too.
                Err(error) => view.line(format!("server unknown: {error}")),
            }
        }
        view.objects.push(object);
        session.print(&view)
    }
}

async fn server(session: &Session) -> Result<String> {
    let mut client = session.metadata().await?;
    let info = session.read(client.get_server_info(session.request(GetServerInfoRequest {}))).await?;
    Ok(info.version)
}
