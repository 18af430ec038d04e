//! Sessions of brokers: a stream of heartbeats, and what its end means.
//!
//! A process that dies takes its connections with it, and that is known at once; a machine that dies, or a network that is
//! cut, is silent, and that is known after a session ([`crate::sessions`]). So whose stream ends is looked for where it
//! listens, once: if nobody is there it is fenced. No acknowledgement of acks ALL hangs on that being true: what a broker may do
//! there hangs on its epoch and on the sets it is in (correctness rules 5, 7, 8). What goes by the session does (rule 10): a
//! broker that lives, and whose address refuses connections on behalf of somebody else, promises on for what is left of its session.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use weir_metadata::BrokerEpoch;
use weir_proto::internal::v1 as pb;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;

use super::{Parts, brokers, required};
use crate::probe;

type Answer = Result<pb::BrokerSessionResponse, Status>;

/// A broker's stream, as far as it has come.
struct Open {
    by: BrokerEpoch,
    /// Which of its streams this is.
    number: u64,
    heard: Instant,
}

/// Answers heartbeats until the broker goes, or is told why not.
pub(super) fn run(
    parts: &Arc<Parts>,
    requests: Streaming<pb::BrokerSessionRequest>,
) -> ReceiverStream<Answer> {
    let (to, answers) = mpsc::channel(1);
    let parts = parts.clone();
    // On a task of its own: nobody drives it any more when the broker is gone, and then it has most to do.
    tokio::spawn(async move {
        let stopping = parts.stop.clone();
        let mut open = None;
        let ended = tokio::select! {
            ended = converse(&parts, requests, &to, &mut open) => ended,
            () = stopping.requested() => {
                Err(Problem::new(ErrorReason::Draining, "this controller is stopping: ask another one"))
            }
        };
        match (ended, open) {
            (Ok(()), Some(open)) => look_for(&parts, open).await,
            (Ok(()), None) => {}
            // Best effort: who does not listen finds out by the connection's end.
            (Err(problem), _) => drop(to.try_send(Err(problem.status()))),
        }
    });
    ReceiverStream::new(answers)
}

/// Ends well when the broker has gone.
async fn converse(
    parts: &Parts,
    mut requests: Streaming<pb::BrokerSessionRequest>,
    to: &mpsc::Sender<Answer>,
    open: &mut Option<Open>,
) -> Result<(), Problem> {
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            () = to.closed() => return Ok(()),
        };
        // An error is how a broken connection ends.
        let Ok(Some(request)) = request else { return Ok(()) };
        let heartbeat = required(request.heartbeat, "heartbeat")?;
        let by: BrokerEpoch = super::row(heartbeat.broker, "broker")?;
        let answer = brokers::heartbeat(parts, heartbeat).await?;
        let heard = Instant::now();
        match open {
            Some(open) if open.by == by => open.heard = heard,
            _ => *open = Some(Open { by, number: parts.sessions.opened(by), heard }),
        }
        if to.send(Ok(pb::BrokerSessionResponse { answer: Some(answer) })).await.is_err() {
            return Ok(());
        }
    }
}

/// A broker's stream has ended without its last word. Who is not where it listens is dead.
async fn look_for(parts: &Parts, Open { by, number, heard }: Open) {
    let gone = || {
        let image = parts.machine.hub().image();
        let broker =
            image.broker(by.broker).filter(|known| known.epoch == by.epoch && known.state.is_alive())?;
        let endpoint = broker.endpoint("internal").or_else(|| broker.endpoint("public")).cloned();
        endpoint.filter(|_| parts.sessions.is_last_word(by, number, heard))
    };
    let Some(endpoint) = gone() else { return };
    let (broker, epoch) = (by.broker.0, by.epoch);
    if !probe::nobody_at(&*parts.os, &endpoint).await {
        // Not of one that has said meanwhile that it has stopped, or is about to, or that goes on by another connection.
        let stops = parts.machine.hub().image().broker(by.broker).is_some_and(|known| !known.state.serves());
        if gone().is_some() && !stops && parts.leads() {
            tracing::info!(
                broker,
                epoch,
                "a broker's connection ended, and its process, or another one, is at its address still: it is fenced if it \
                 says nothing until its session is over"
            );
        }
        return;
    }
    // It may have come back meanwhile, by another connection.
    if parts.fences.fence(&parts.proposer, by, || gone().is_some()).await {
        let (host, port) = (&endpoint.host, endpoint.port);
        tracing::warn!(
            broker,
            epoch,
            "broker's connection ended and nobody is at {host}:{port}: it is fenced"
        );
        parts.metrics.fenced("gone").inc();
    }
}
