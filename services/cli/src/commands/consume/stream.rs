//! The reading itself: one Consume call after another until the plan is done. A lost connection is dialled again
//! and reading goes on where it was; nothing is printed twice.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};
use weir_client::{Error as Sdk, ErrorReason};
use weir_proto::v1::ConsumeResponse;

use super::plan::Plan;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::hindered::Hindered;
use crate::record_format::RecordFormat;
use crate::session::Session;

/// Without any message for so long, heartbeats included, the connection is dead.
const SILENCE: Duration = Duration::from_secs(16);
/// However little time somebody has: a server that is asked for a sign of life gets so long.
const SILENCE_MIN: Duration = Duration::from_millis(500);
/// The shortest and the longest pause before the next attempt.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How much text is gathered before it is written.
const WRITE_BYTES: usize = 64 << 10;

/// Reads and writes records until the plan is done, or so many are written. How many were.
pub(super) async fn run(
    session: &Session,
    mut plan: Plan,
    count: Option<u64>,
    endless: bool,
    format: &RecordFormat,
) -> Result<u64> {
    let mut left = count.unwrap_or(u64::MAX);
    let mut written = 0;
    let mut waiting_said = false;
    let mut outage = Outage::new(session, endless)?;
    while !plan.done() && left > 0 {
        if endless && !waiting_said && plan.caught_up() {
            session.say(0, &format!("waiting for records in {} (Ctrl-C ends)", plan.topics()));
            waiting_said = true;
        }
        let mut client = session.consumer().await?;
        let mut request = plan.request();
        request.heartbeat_ms = outage.heartbeat_ms(request.heartbeat_ms);
        let began = Instant::now();
        let mut stream = match outage.hear(client.consume(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(error) => {
                if !puts_off(&mut plan, &error) {
                    outage.pause(error, began).await.map_err(|error| plan.unread(error))?;
                }
                continue;
            }
        };
        while !plan.round_is_over() && left > 0 {
            let began = Instant::now();
            // Whoever read our output may go while there is nothing to write; then only this tells. The message is lost
            // to nobody: the command ends.
            let heard = tokio::select! {
                heard = outage.hear(stream.message()) => heard,
                () = session.output_closed() => return Err(Error::OutputClosed),
            };
            if matches!(heard, Ok(None)) && plan.ended() {
                break;
            }
            let ended = || Sdk::from_status(&Status::unknown("the server ended the stream"), "").of_a_read();
            let message = match heard.and_then(|message| message.ok_or_else(ended)) {
                Ok(message) => message,
                Err(error) => {
                    if !puts_off(&mut plan, &error) {
                        outage.pause(error, began).await.map_err(|error| plan.unread(error))?;
                    }
                    break;
                }
            };
            outage.over();
            let records = write(session, &mut plan, &message, left, format)?;
            left -= records;
            written += records;
            if endless && !waiting_said && plan.caught_up() {
                session.say(0, &format!("waiting for more in {} (Ctrl-C ends)", plan.topics()));
                waiting_said = true;
            }
        }
    }
    Ok(written)
}

/// Whether one partition is why all were refused for now, and the others are read first.
fn puts_off(plan: &mut Plan, error: &Sdk) -> bool {
    let Some(failure) = error.refusal().and_then(|refusal| refusal.failures.first()) else { return false };
    passes(error) && !failure.topic.is_empty() && plan.put_off(&failure.topic, failure.partition)
}

/// Writes the records of a message that are wanted.
fn write(
    session: &Session,
    plan: &mut Plan,
    message: &ConsumeResponse,
    limit: u64,
    format: &RecordFormat,
) -> Result<u64> {
    let mut text = Vec::with_capacity(WRITE_BYTES + (WRITE_BYTES >> 2));
    let written = plan.take(message, limit, |record| {
        // Writing to memory does not fail.
        format.write(&mut text, record).map_err(Error::stdout)?;
        if text.len() >= WRITE_BYTES {
            session.print_bytes(&text)?;
            text.clear();
        }
        Ok(())
    })?;
    if !text.is_empty() {
        session.print_bytes(&text)?;
    }
    Ok(written)
}

/// A time without a word from the server: pauses that grow, words for people, and when to give up.
struct Outage<'a> {
    session: &'a Session,
    server: Address,
    since: Option<Instant>,
    hindered: Hindered,
    pause: Duration,
    /// How long to go on trying. Nothing: for ever.
    patience: Option<Duration>,
}

impl<'a> Outage<'a> {
    fn new(session: &'a Session, endless: bool) -> Result<Self> {
        let patience = (!endless || session.timeout_given()).then(|| session.timeout());
        let (server, hindered) = (session.address()?, Hindered::default());
        Ok(Self { session, server, since: None, hindered, pause: PAUSE.0, patience })
    }

    /// How long the server may say nothing.
    fn silence(&self) -> Duration {
        self.patience.map_or(SILENCE, |patience| patience.clamp(SILENCE_MIN, SILENCE))
    }

    /// How often it is to give a sign of life, in milliseconds: so often that one may be late.
    fn heartbeat_ms(&self, usual: i32) -> i32 {
        i32::try_from(self.silence().as_millis() / 3).map_or(usual, |ms| ms.min(usual))
    }

    /// Waits for its next word.
    async fn hear<T>(&self, word: impl Future<Output = Result<T, Status>>) -> weir_client::Result<T> {
        let (server, limit) = (self.server.to_string(), self.silence());
        let heard = match tokio::time::timeout(limit, word).await {
            Ok(heard) => heard.map_err(|status| Sdk::from_status(&status, &server)),
            Err(_) => Err(Sdk::unanswered("Consume", &server, limit)),
        };
        heard.map_err(Sdk::of_a_read)
    }

    /// Waits before the next attempt, or gives up. What failed was waited for since `began`.
    async fn pause(&mut self, error: Sdk, began: Instant) -> Result<()> {
        let since = *self.since.get_or_insert(began);
        if !passes(&error) || self.patience.is_some_and(|patience| since.elapsed() >= patience) {
            return Err(Error::of(&error, &self.server));
        }
        self.say(Some(&error));
        // Everybody who lost the same server would come back at the same moment.
        let jitter = Duration::from_millis(self.session.os().random_u64() % 50);
        tokio::time::sleep(self.pause + jitter).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.session.turn_away()?;
        self.server = self.session.address()?;
        Ok(())
    }

    /// A message came.
    fn over(&mut self) {
        self.say(None);
        self.since = None;
        self.pause = PAUSE.0;
    }

    fn say(&mut self, error: Option<&Sdk>) {
        if let Some(line) = self.hindered.look(Instant::now(), error) {
            self.session.say(0, &line);
        }
    }
}

/// Whether trying again can help.
fn passes(error: &Sdk) -> bool {
    match error {
        Sdk::Unreachable { .. } | Sdk::ConnectionLost { .. } | Sdk::Timeout { .. } => true,
        Sdk::Refused(refusal) => {
            refusal.retry_after.is_some()
                || refusal.code == Code::Unavailable
                // A proxy or a dying server cuts streams off like this.
                || (refusal.reason == ErrorReason::Unspecified && refusal.code == Code::Internal)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_connections_pass_and_refusals_do_not() {
        let of = |status: Status| Sdk::from_status(&status, "h:1").of_a_read();
        for status in [
            Status::unavailable("tcp connect error"),
            Status::unknown("h2 protocol error: transport"),
            Status::cancelled("stream reset"),
            Status::internal("stream reset"),
        ] {
            assert!(passes(&of(status.clone())), "{status:?}");
        }
        assert!(passes(&Sdk::unanswered("Consume", "h:1", SILENCE)));
        for status in
            [Status::not_found("no topic"), Status::out_of_range("gone"), Status::permission_denied("")]
        {
            assert!(!passes(&of(status.clone())), "{status:?}");
        }
    }
}
