//! Words for people while records wait to be written or read: the server is away, or says "not now". A pause of a moment is nobody's
//! business; a longer one is said once, and its end too. What does not pass by itself is said at once.

use std::io::Write as _;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_client::{ErrorReason, Producer};

use crate::error::reason_name;
use crate::progress::Progress;
use crate::units;

/// How long records wait before that is said.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Looks at a producer until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Watch {
    /// Says on stderr what is in a producer's way, beside the bar that is drawn there.
    pub(crate) fn over(producer: Producer, progress: Progress) -> Self {
        Self(tokio::spawn(async move {
            let mut hindered = Hindered::default();
            let mut look = tokio::time::interval(LOOK);
            loop {
                look.tick().await;
                let error = producer.hindrance();
                if let Some(line) = hindered.look(Instant::now(), error.as_ref()) {
                    // Without a stderr there is nobody to tell.
                    progress.beside(|| drop(writeln!(std::io::stderr(), "{line}")));
                }
            }
        }))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is in the way, since when, and what was said of it.
#[derive(Debug, Default)]
pub(crate) struct Hindered {
    since: Option<Instant>,
    /// What was said: the reason, or none where nobody answers.
    said: Option<Option<ErrorReason>>,
}

impl Hindered {
    /// What is to be said now.
    pub(crate) fn look(&mut self, now: Instant, error: Option<&weir_client::Error>) -> Option<String> {
        let Some(error) = error else {
            let since = self.since.take();
            self.said.take()?;
            return Some(format!("going on after {}", units::elapsed(now - since?)));
        };
        let since = *self.since.get_or_insert(now);
        let refused = match error {
            weir_client::Error::Refused(refusal) => Some(refusal.reason),
            _ => None,
        };
        let lasts = error.waits_for_a_person();
        if (now - since < PATIENCE && !lasts) || self.said == Some(refused) {
            return None;
        }
        self.said = Some(refused);
        Some(match refused {
            Some(reason) if lasts => {
                let reason = reason_name(reason);
                format!(
                    "refused, and that does not pass by itself: {error} (weir errors {reason}); trying again"
                )
            }
            // It was not refused: nobody has said yet what became of it.
            Some(ErrorReason::DeadlineExceeded) => format!("not acknowledged yet: {error}"),
            Some(reason) => {
                format!("refused for now: {error} ({}); trying again", reason_name(reason))
            }
            None => {
                let why = match error {
                    // What became of the records on their way is asked for; it is no news yet.
                    weir_client::Error::ConnectionLost { cause, .. } => {
                        format!("the connection broke ({cause})")
                    }
                    other => other.to_string(),
                };
                format!("the server is away: {why}; going on as soon as one answers")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> weir_client::Error {
        weir_client::Error::Unreachable { address: "h:1".into(), cause: "connection refused".into() }
    }

    fn full() -> weir_client::Error {
        refused(ErrorReason::DiskFull, "the disk has 1 GiB left", &[])
    }

    fn refused(reason: ErrorReason, message: &str, facts: &[(&str, &str)]) -> weir_client::Error {
        let problem = weir_rpc::Problem::new(reason, message);
        let problem = facts.iter().fold(problem, |problem, (name, value)| problem.fact(name, value));
        weir_client::Error::from_failure(&problem.failure())
    }

    #[test]
    fn a_long_wait_is_said_once_with_its_cause_and_its_end() {
        let (mut hindered, start) = (Hindered::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(hindered.look(at(0), None), None);
        assert_eq!(hindered.look(at(10), Some(&away())), None);
        let line = hindered.look(at(1_100), Some(&away())).unwrap();
        assert_eq!(
            line,
            "the server is away: cannot reach h:1: connection refused; going on as soon as one answers"
        );
        assert_eq!(hindered.look(at(1_300), Some(&away())), None, "once");
        let line = hindered.look(at(1_500), Some(&full())).unwrap();
        assert_eq!(line, "refused for now: the disk has 1 GiB left (DISK_FULL); trying again");
        assert_eq!(hindered.look(at(3_010), None).unwrap(), "going on after 3.0 s");
        assert_eq!(hindered.look(at(3_100), None), None);
    }

    #[test]
    fn what_waits_for_a_person_is_said_at_once_and_once() {
        let start = Instant::now();
        let nobody = refused(ErrorReason::NoLeader, "t/0 has no leader", &[]);
        assert_eq!(Hindered::default().look(start, Some(&nobody)), None, "an election takes a moment");
        for reason in [ErrorReason::NoLeader, ErrorReason::PartitionOffline] {
            let mut hindered = Hindered::default();
            let stuck = refused(reason, "t/0 is stuck", &[("waits_for_a_person", "true")]);
            let name = reason_name(reason);
            assert_eq!(
                hindered.look(start, Some(&stuck)).unwrap(),
                format!(
                    "refused, and that does not pass by itself: t/0 is stuck (weir errors {name}); trying again"
                )
            );
            assert_eq!(hindered.look(start + PATIENCE, Some(&stuck)), None, "once");
        }
    }

    #[test]
    fn what_is_not_acknowledged_was_not_refused() {
        let (mut hindered, start) = (Hindered::default(), Instant::now());
        let waits = refused(ErrorReason::DeadlineExceeded, "t/0: appends wait for broker 3", &[]);
        assert_eq!(hindered.look(start, Some(&waits)), None);
        let line = hindered.look(start + PATIENCE, Some(&waits)).unwrap();
        assert_eq!(line, "not acknowledged yet: t/0: appends wait for broker 3");
    }

    #[test]
    fn a_moment_is_nobody_s_business() {
        let (mut hindered, start) = (Hindered::default(), Instant::now());
        assert_eq!(hindered.look(start, Some(&full())), None);
        assert_eq!(hindered.look(start + Duration::from_millis(500), None), None);
        assert_eq!(hindered.look(start + Duration::from_millis(1_200), Some(&full())), None, "a new one");
    }
}
