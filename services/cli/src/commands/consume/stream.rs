//! The reading itself: one Consume call after another until the plan is done. A lost connection is dialled again
//! and reading goes on where it was; nothing is printed twice.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};
use weir_proto::v1::ConsumeResponse;

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::record_format::RecordFormat;
use crate::session::Session;
use crate::units;

/// Without any message for so long, heartbeats included, the connection is dead.
const SILENCE: Duration = Duration::from_secs(16);
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
    let mut outage = Outage::new(session, endless);
    while !plan.done() && left > 0 {
        if endless && !waiting_said && plan.caught_up() {
            session.say(0, &format!("waiting for records in {} (Ctrl-C ends)", plan.topics()));
            waiting_said = true;
        }
        let mut client = session.consumer().await?;
        let mut stream = match client.consume(plan.request()).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                outage.pause(&status).await?;
                continue;
            }
        };
        while !plan.done() && left > 0 {
            // Whoever read our output may go while there is nothing to write; then only this tells. The message is lost
            // to nobody: the command ends.
            let heard = tokio::select! {
                heard = tokio::time::timeout(SILENCE, stream.message()) => heard,
                () = session.output_closed() => return Err(Error::OutputClosed),
            };
            let message = match heard {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => {
                    outage.pause(&Status::unavailable("the server ended the stream")).await?;
                    break;
                }
                Ok(Err(status)) => {
                    outage.pause(&status).await?;
                    break;
                }
                Err(_) => {
                    outage.pause(&Status::unavailable("no sign of life")).await?;
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

/// A time without a connection: pauses that grow, words for people, and when to give up.
struct Outage<'a> {
    session: &'a Session,
    since: Option<Instant>,
    pause: Duration,
    /// How long to go on trying. Nothing: for ever.
    patience: Option<Duration>,
}

impl<'a> Outage<'a> {
    fn new(session: &'a Session, endless: bool) -> Self {
        let patience = (!endless || session.timeout_given()).then(|| session.timeout());
        Self { session, since: None, pause: PAUSE.0, patience }
    }

    /// Waits before the next attempt, or gives up.
    async fn pause(&mut self, status: &Status) -> Result<()> {
        let error = Error::of_read(status);
        if !passes(&error) {
            return Err(error);
        }
        let since = *self.since.get_or_insert_with(|| {
            self.session.say(0, &format!("the stream broke: {error}; going on as soon as a server answers"));
            Instant::now()
        });
        if self.patience.is_some_and(|patience| since.elapsed() >= patience) {
            return Err(error);
        }
        // Everybody who lost the same server would come back at the same moment.
        let jitter = Duration::from_millis(weir_runtime::random_u64() % 50);
        tokio::time::sleep(self.pause + jitter).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
        Ok(())
    }

    /// A message came.
    fn over(&mut self) {
        if let Some(since) = self.since.take() {
            self.session.say(0, &format!("going on after {}", units::elapsed(since.elapsed())));
        }
        self.pause = PAUSE.0;
    }
}

/// Whether trying again can help.
fn passes(error: &Error) -> bool {
    match error {
        Error::Server(error) => {
            error.failure.retry_after_ms.is_some()
                || Code::from_i32(error.failure.code) == Code::Unavailable
                // A proxy or a dying server cuts streams off like this.
                || (error.reason() == weir_proto::v1::ErrorReason::Unspecified
                    && matches!(Code::from_i32(error.failure.code), Code::Cancelled | Code::Unknown | Code::Internal))
        }
        Error::Unreachable(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_connections_pass_and_refusals_do_not() {
        for status in [
            Status::unavailable("tcp connect error"),
            Status::unknown("h2 protocol error: transport"),
            Status::cancelled("stream reset"),
        ] {
            assert!(passes(&Error::of_read(&status)), "{status:?}");
        }
        for status in
            [Status::not_found("no topic"), Status::out_of_range("gone"), Status::permission_denied("")]
        {
            assert!(!passes(&Error::of_read(&status)), "{status:?}");
        }
    }
}
