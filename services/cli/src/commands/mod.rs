//! One file per command. Here: which runs, and what happens around it.

pub(crate) mod bench;
pub(crate) mod broker;
pub(crate) mod call;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod consume;
pub(crate) mod context;
pub(crate) mod controller;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod errors;
pub(crate) mod health;
pub(crate) mod partition;
pub(crate) mod produce;
pub(crate) mod segment;
pub(crate) mod standalone;
pub(crate) mod status;
pub(crate) mod topic;
pub(crate) mod version;

use std::sync::Arc;
use std::time::Duration;

use weir_proto::v1::ErrorReason;
use weir_runtime::RealOs;

use crate::args::{Command, Global};
use crate::error::{Error, Result};
use crate::session::Session;
use crate::{elsewhere, offsets};
use weir_types::{did_you_mean, nearest};

/// Threads that wait for files and for the terminal.
const IO_THREADS: usize = 4;

/// Runs the command, and ends it at Ctrl-C.
pub(crate) async fn run(global: Global, command: Command) -> Result<()> {
    if global.watch && !command.watchable() {
        return Err(Error::Usage("--watch is for commands that list, describe or show status".to_owned()));
    }
    let ends_itself = command.ends_itself();
    let os = RealOs::new(IO_THREADS)
        .map_err(|source| Error::Io { what: "cannot start threads".to_owned(), source })?;
    let session = Arc::new(Session::new(global, Arc::new(os)));
    // On a task of its own, so that Ctrl-C is heard while the command waits for the terminal.
    let task = tokio::spawn({
        let session = Arc::clone(&session);
        async move { dispatch(command, &session).await }
    });
    let result = tokio::select! {
        result = task => result,
        Ok(()) = tokio::signal::ctrl_c(), if !ends_itself => return Err(Error::Interrupted),
    };
    match result {
        Ok(Err(error)) => Err(explained(&session, error).await),
        Ok(Ok(())) => Ok(()),
        Err(error) => Err(Error::Failed(format!("a defect of this program: {error}; please report it"))),
    }
}

async fn dispatch(command: Command, session: &Session) -> Result<()> {
    match command {
        Command::Produce(command) => command.run(session).await,
        Command::Consume(command) => command.run(session).await,
        Command::Topic(command) => command.run(session).await,
        Command::Partition(command) => command.run(session).await,
        Command::Broker(command) => command.run(session).await,
        Command::Dev(command) => command.run(session).await,
        Command::Controller(command) => command.run(session).await,
        Command::Cluster(command) => command.run(session).await,
        Command::Status(command) => command.run(session).await,
        Command::Config(command) => command.run(session).await,
        Command::Doctor(command) => command.run(session).await,
        Command::Bench(command) => command.run(session).await,
        Command::Segment(command) => command.run(session),
        Command::Errors(command) => command.run(session),
        Command::Call(command) => command.run(session).await,
        Command::Context(command) => command.run(session),
        Command::Health(command) => command.run(session).await,
        Command::Completion(command) => command.run(session),
        Command::Version(command) => command.run(session).await,
    }
}

impl Command {
    /// Whether it hears Ctrl-C itself, to end what it began.
    fn ends_itself(&self) -> bool {
        matches!(self, Self::Produce(_))
    }

    /// Whether it measures, and two threads would be what it measures.
    pub(crate) fn wants_every_core(&self) -> bool {
        matches!(self, Self::Bench(_))
    }

    /// Whether looking again makes sense.
    fn watchable(&self) -> bool {
        match self {
            Self::Topic(command) => command.watchable(),
            Self::Partition(command) => command.watchable(),
            Self::Broker(command) => command.watchable(),
            Self::Controller(command) => command.watchable(),
            Self::Status(_) | Self::Health(_) => true,
            Self::Config(command) => command.watchable(),
            Self::Dev(command) => command.watchable(),
            Self::Produce(_)
            | Self::Consume(_)
            | Self::Doctor(_)
            | Self::Bench(_)
            | Self::Segment(_)
            | Self::Errors(_)
            | Self::Call(_)
            | Self::Cluster(_)
            | Self::Context(_)
            | Self::Completion(_)
            | Self::Version(_) => false,
        }
    }
}

/// Adds what can be found out from here: who answers instead of a server of ours, which topic was probably meant.
async fn explained(session: &Session, error: Error) -> Error {
    let time_left = session.time_left();
    if time_left.is_zero() {
        return error;
    }
    match session.address() {
        Ok(address) if error.is_a_strangers() => elsewhere::instead(error, &address, time_left).await,
        _ => with_suggestion(session, error, time_left).await,
    }
}

/// Adds the nearest topic's name where the server had none to offer.
async fn with_suggestion(session: &Session, error: Error, time_left: Duration) -> Error {
    let Error::Server(mut server) = error else { return error };
    if server.reason() != ErrorReason::TopicNotFound || server.failure.message.contains("did you mean") {
        return Error::Server(server);
    }
    let written = match server.failure.metadata.get("topic") {
        Some(topic) => topic.clone(),
        None => server.failure.topic.clone(),
    };
    let limit = time_left.min(Duration::from_secs(2));
    let names = tokio::time::timeout(limit, offsets::all_names(session)).await;
    let names = names.unwrap_or_default();
    server.failure.message.push_str(&did_you_mean(nearest(&written, names.iter().map(String::as_str))));
    Error::Server(server)
}
