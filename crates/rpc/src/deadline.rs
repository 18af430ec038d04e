//! Deadlines. tonic's own timeout drops the handler and answers CANCELLED; ours are kept by the handler, which
//! answers in time and lets what must not be cancelled run on.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// How long before the caller gives up an answer is sent.
const MARGIN: Duration = Duration::from_millis(100);

/// When the caller stops waiting, from `grpc-timeout`. `None`: it did not say, or not in the form of the gRPC
/// specification.
pub fn of(metadata: &MetadataMap) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    Some(Instant::now() + parse(text)?)
}

/// When a call that may wait `wait` answers at the latest: a little before the caller's deadline.
pub fn wait_until(wait: Duration, deadline: Option<Instant>) -> Instant {
    let until = Instant::now() + wait;
    deadline.map_or(until, |deadline| until.min(before(deadline)))
}

/// When to answer a caller with this deadline at the latest; now, if that has passed.
pub fn before(deadline: Instant) -> Instant {
    let now = Instant::now();
    deadline.checked_sub(MARGIN).unwrap_or(now).max(now)
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(n * 3_600),
        'M' => Duration::from_secs(n * 60),
        'S' => Duration::from_secs(n),
        'm' => Duration::from_millis(n),
        'u' => Duration::from_micros(n),
        'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(parse("10S"), Some(Duration::from_secs(10)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "10", "123456789S", "-1S", "1x", "ä"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_before_the_caller_gives_up() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(wait_until(second, None), now + second);
        assert_eq!(wait_until(10 * second, Some(now + second)), now + Duration::from_millis(900));
        assert_eq!(wait_until(second, Some(now)), now);
    }
}
