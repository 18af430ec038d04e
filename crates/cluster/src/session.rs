//! A broker's session: heartbeats to the controller that leads, over one stream for as long as both live.
//!
//! The stream itself is a sign of life. When the process dies its connections end, which the controller hears at once; it
//! does not have to wait for a silence. When the controller dies the broker hears of it as soon, and asks another one.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use weir_proto::internal::v1 as pb;
use weir_runtime::spread_ms;

use crate::controllers::{Client, Controllers, PAUSE_MS, PAUSE_MS_MAX};

/// An answer is waited for so long at least, and for two heartbeats: then another controller is asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is said and heard in a session.
pub trait Session: Sync {
    /// The next heartbeat.
    fn heartbeat(&self) -> pb::BrokerHeartbeatRequest;

    /// The one that was sent at `sent` was answered. Whether there is more to say at once.
    fn answered(&self, sent: Instant, answer: pb::BrokerHeartbeatResponse) -> bool;

    /// The controller that was asked did not take it, or the connection to it has ended.
    fn unheard(&self, failed: &Status);
}

impl Controllers {
    /// Keeps a session until dropped: a heartbeat now, at every tick, and whenever `more` rings. Cancel safe; what is on
    /// its way then may still arrive.
    pub async fn keep_session(&self, every: Duration, more: &Notify, session: &impl Session) {
        let mut pause_ms = PAUSE_MS;
        loop {
            let mut heard = false;
            let failed = match self.client() {
                Err(failed) => failed,
                Ok((endpoint, client)) => {
                    let failed = converse(self, client, every, more, session, &mut heard).await;
                    self.learn_from(&endpoint, &failed);
                    failed
                }
            };
            session.unheard(&failed);
            if heard {
                pause_ms = PAUSE_MS;
            }
            sleep(Duration::from_millis(spread_ms(&**self.os(), pause_ms))).await;
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }
}

/// Heartbeats and answers, to the end of the stream and why.
async fn converse(
    controllers: &Controllers,
    mut client: Client,
    every: Duration,
    more: &Notify,
    session: &impl Session,
    heard: &mut bool,
) -> Status {
    let patience = PATIENCE.max(2 * every);
    let (to, requests) = mpsc::channel(1);
    let opened = client.broker_session(ReceiverStream::new(requests));
    let mut answers = match in_time(patience, opened).await {
        Ok(opened) => opened.into_inner(),
        Err(failed) => return failed,
    };
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(due) => {}
            () = more.notified() => {}
            // Nobody answers unasked: this is the end.
            failed = answer(&mut answers) => return failed.err().unwrap_or_else(unasked),
        }
        let sent = Instant::now();
        due = sent + every;
        // Where nobody takes it, the wait for the answer says why.
        let _ = to.send(pb::BrokerSessionRequest { heartbeat: Some(session.heartbeat()) }).await;
        match in_time(patience, answer(&mut answers)).await {
            Ok(said) => {
                *heard = true;
                controllers.helped();
                if session.answered(sent, said) {
                    due = Instant::now();
                }
            }
            Err(failed) => return failed,
        }
    }
}

async fn answer(
    answers: &mut Streaming<pb::BrokerSessionResponse>,
) -> Result<pb::BrokerHeartbeatResponse, Status> {
    match answers.message().await? {
        Some(message) => message.answer.ok_or_else(|| Status::unknown("an empty answer")),
        None => Err(Status::unavailable("the controller has ended the session")),
    }
}

async fn in_time<T>(patience: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(patience, call).await.unwrap_or_else(|_| Err(Status::unknown("no answer in time")))
}

fn unasked() -> Status {
    Status::unknown("the controller answers what nobody has asked")
}
