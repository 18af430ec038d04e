//! `weir dev up`: makes a cluster, or starts what does not run of one.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use clap::Args;
use tokio::time::Instant;
use weir_proto::v1::UpdateConfigsRequest;
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_storage::Whose;

use super::folder::{Folder, NODES_MAX};
use super::node::{Node, Role, io_error};
use super::{At, held, start, status};
use crate::address::{Address, Source};
use crate::connect;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::units;

/// Replicas of a topic unless it says otherwise, where there are brokers enough.
const REPLICAS: u16 = 3;
/// How many of each there are unless somebody says.
const USUAL: u16 = 3;

/// Make a cluster, or start what does not run of it, and wait until it is ready
#[derive(Debug, Args)]
#[command(after_help = "\
It may be called again at any time: what runs goes on, what does not is started, and --brokers with a
larger number adds some. Ports are chosen once, from --port on, and kept.

Examples:
  $ weir dev up
  $ weir dev up --brokers 1 --controllers 1
  $ weir dev up --brokers 3 --controllers 3 --dir ./cluster --port 12347")]
pub(super) struct Up {
    /// How many brokers [default: 3, or as many as there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    brokers: Option<u16>,
    /// How many controllers: 1, 3 or 5 [default: 3, or as many as there are]
    #[arg(long, value_name = "N", value_parser = controllers)]
    controllers: Option<u16>,
    /// The port of the first broker, if it is free; the others' follow
    #[arg(long, value_name = "PORT", default_value_t = 9_347, value_parser = clap::value_parser!(u16).range(1_024..=40_000))]
    port: u16,
    #[command(flatten)]
    at: At,
}

fn controllers(text: &str) -> Result<u16, String> {
    let even = "1, 3 or 5: an even number bears no more failures than one less, and costs one more";
    text.parse().ok().filter(|count| [1, 3, 5].contains(count)).ok_or_else(|| even.to_owned())
}

impl Up {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let began = Instant::now();
        let mut folder = Folder::read(&self.at.dir)?;
        let _lock = folder.lock(session)?;
        self.lay_out(&mut folder)?;
        let is_new = !folder.founded();
        let until = began + session.timeout();
        bring_up(session, &folder, until).await?;
        for broker in folder.of(Role::Broker) {
            keep_id(session, broker)?;
        }
        if is_new {
            fit_settings(session, &folder).await?;
        }
        let mut view = status::view(session, &folder).await?;
        view.line(format!(
            "ready in {}; data in {}",
            units::elapsed(began.elapsed()),
            folder.path().display()
        ));
        if let Some(broker) = folder.of(Role::Broker).next() {
            view.line(format!("try: weir -s {} topic create greetings", status::address(broker)));
        }
        session.print(&view)
    }

    /// Adds what there is not yet.
    fn lay_out(&self, folder: &mut Folder) -> Result<()> {
        let count = |role| u16::try_from(folder.of(role).count()).unwrap_or(u16::MAX);
        let (brokers, controllers) = (count(Role::Broker), count(Role::Controller));
        let usual = |there: u16| if there == 0 { USUAL } else { there };
        let wanted = (self.brokers.unwrap_or(usual(brokers)), self.controllers.unwrap_or(usual(controllers)));
        if controllers != 0 && wanted.1 != controllers {
            let dir = folder.path().display();
            return Err(Error::Usage(format!(
                "the cluster in {dir} has {}, not {}: their number is decided when it is made (another --dir makes \
                 another one)",
                units::counted(controllers, "controller"),
                wanted.1
            )));
        }
        if wanted.0 < brokers {
            let dir = folder.path().display();
            return Err(Error::Usage(format!(
                "the cluster in {dir} has {}, not {}: weir dev takes none away",
                units::counted(brokers, "broker"),
                wanted.0
            )));
        }
        folder.grow(wanted.0, wanted.1, self.port)
    }
}

/// Starts what does not run, and waits until all are ready.
async fn bring_up(session: &Session, folder: &Folder, until: Instant) -> Result<()> {
    let os = &**session.os();
    for node in &folder.nodes {
        if node.alive()?.is_none() {
            held::refuse(node)?;
        }
    }
    if !folder.founded()
        && let Some(first) = folder.of(Role::Controller).next()
    {
        // Until it was ready once it may have to begin again; where it has begun, it goes on.
        if first.alive()?.is_none() {
            session.say(1, &format!("starting {}, which begins the cluster", first.name()));
            first.spawn(&["--bootstrap".to_owned(), "true".to_owned()])?;
        }
        first.ready(os, until).await?;
        folder.set_founded()?;
    }
    for node in &folder.nodes {
        if node.alive()?.is_none() {
            session.say(1, &format!("starting {}", node.name()));
            start::spawn(folder, node)?;
            // Ids are given in the order in which they are asked for: broker-1 is broker 1.
            if node.role == Role::Broker && !has_id(node)? {
                node.ready(os, until).await?;
            }
        }
    }
    for node in &folder.nodes {
        match node.alive()? {
            Some(alive) if alive.paused => {
                session.say(0, &format!("{} is paused (weir dev resume {})", node.name(), node.name()));
            }
            _ => node.ready(os, until).await?,
        }
    }
    Ok(())
}

/// Whether a broker's id stands in its configuration.
fn has_id(broker: &Node) -> Result<bool> {
    let path = broker.config();
    let text = fs::read_to_string(&path);
    let text = text.map_err(|source| io_error(format!("cannot read {}", path.display()), source))?;
    Ok(text.contains("\nbroker_id = "))
}

/// Writes a broker's id into its configuration, once it has one: without its disk it does not become another one.
fn keep_id(session: &Session, broker: &Node) -> Result<()> {
    if has_id(broker)? {
        return Ok(());
    }
    let path = broker.config();
    let failed = |source| io_error(format!("cannot write {}", path.display()), source);
    let whose = weir_storage::whose(&*session.os().disk(), &broker.data("logs"));
    let Whose::Of(identity) = whose.map_err(|error| Error::Failed(error.to_string()))? else { return Ok(()) };
    let mut file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
    writeln!(file, "broker_id = {}", identity.broker_id).map_err(failed)
}

/// Topics of a cluster of one or two brokers have no three replicas.
async fn fit_settings(session: &Session, folder: &Folder) -> Result<()> {
    let brokers = u16::try_from(folder.of(Role::Broker).count()).unwrap_or(u16::MAX);
    let Some(broker) = folder.of(Role::Broker).next().filter(|_| brokers < REPLICAS) else { return Ok(()) };
    let address = Address::alone(broker.addr.into(), Source::Default);
    let mut client = AdminServiceClient::new(connect::connect(&address, session.timeout()).await?);
    let one = |name: &str, value: u16| (name.to_owned(), value.to_string());
    let set_config = [one("default_replication_factor", brokers), one("min_insync_replicas", 1)].into();
    let request = UpdateConfigsRequest {
        set_config,
        request_id: session.request_id(),
        ..UpdateConfigsRequest::default()
    };
    session.read_from(&address, client.update_configs(session.request(request))).await.map(drop)
}
