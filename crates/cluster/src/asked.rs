//! What the controllers that were asked have answered, while none of them helps. People are told of all of them at once, as
//! soon as each was asked, and then seldom: whoever asks does so several times a second.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use crate::said;

/// How often people are told again.
const AGAIN: Duration = Duration::from_secs(60);
/// Whoever waits for one that is silent tells of the others meanwhile.
const PATIENCE: Duration = Duration::from_secs(4);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    answers: BTreeMap<String, Answer>,
    /// Since when nobody helps.
    since: Option<Instant>,
    /// When people were told last.
    told: Option<Instant>,
    /// Whether people are told only of what lasts, though all have answered.
    is_patient: bool,
}

#[derive(Debug)]
struct Answer {
    said: String,
    /// Whether it knows nothing of what controllers are asked.
    is_stranger: bool,
}

impl Asked {
    /// For what is missing for a moment in the course of things.
    pub(crate) fn patient() -> Self {
        Self { is_patient: true, ..Self::default() }
    }

    /// This one did not help. What people are to be told now of those that are known, if anything.
    pub(crate) fn failed(&mut self, endpoint: &str, status: &Status, known: &[String]) -> Option<String> {
        self.noted(endpoint, in_words(endpoint, status), status.code() == Code::Unimplemented, known)
    }

    /// The same, of one that said this.
    pub(crate) fn noted(
        &mut self,
        endpoint: &str,
        said: String,
        is_stranger: bool,
        known: &[String],
    ) -> Option<String> {
        self.answers.insert(endpoint.to_owned(), Answer { said, is_stranger });
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let all = known.iter().all(|known| self.answers.contains_key(known));
        let is_due = match self.told {
            None => (all && !self.is_patient) || now - since >= PATIENCE,
            Some(told) => now - told >= AGAIN,
        };
        is_due.then(|| {
            self.told = Some(now);
            self.list(known)
        })
    }

    /// One of them has helped. For how long none did, if people were told so.
    pub(crate) fn helped(&mut self) -> Option<Duration> {
        self.answers.clear();
        let since = self.since.take();
        self.told.take().and(since).map(|since| since.elapsed())
    }

    /// Whether people were told that nobody helps, and that is so still.
    pub(crate) fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// Whether all that are known were asked, and none of them is a controller.
    pub(crate) fn are_strangers(&self, known: &[String]) -> bool {
        known.iter().all(|known| self.answers.get(known).is_some_and(|answer| answer.is_stranger))
    }

    /// Those that are known, and those that they have named, with what each has answered.
    pub(crate) fn list(&self, known: &[String]) -> String {
        let named = self.answers.keys().filter(|endpoint| !known.contains(endpoint));
        let said = |endpoint: &String| match self.answers.get(endpoint) {
            Some(Answer { said, .. }) => format!("{endpoint}: {said}"),
            None => format!("{endpoint}: not asked yet"),
        };
        known.iter().chain(named).map(said).collect::<Vec<_>>().join("; ")
    }
}

/// What it answered. Of a connection that could not be made the innermost cause says most; where it was tried is said anyway.
pub fn in_words(endpoint: &str, status: &Status) -> String {
    let said = weir_rpc::cause(status, &said(status));
    said.strip_prefix(&format!("cannot connect to {endpoint}: ")).unwrap_or(&said).to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn known() -> Vec<String> {
        ["a:1", "b:1"].map(str::to_owned).into()
    }

    #[test]
    fn what_a_controller_said_names_it_once() {
        let words = |said: &str| in_words("c:1", &Status::unavailable(said));
        assert_eq!(words("cannot connect to c:1: Connection refused (os error 111)"), "Connection refused");
        assert_eq!(words("no controller leads at the moment"), "no controller leads at the moment");
    }

    #[tokio::test(start_paused = true)]
    async fn people_are_told_once_all_were_asked_and_then_seldom() {
        let (mut asked, known) = (Asked::default(), known());
        assert_eq!(asked.list(&known), "a:1: not asked yet; b:1: not asked yet");
        let refused = Status::unavailable("cannot connect to a:1: connection refused");
        assert_eq!(asked.failed("a:1", &refused, &known), None, "the other may help");
        let said = asked.failed("b:1", &Status::unimplemented(""), &known).unwrap();
        assert!(
            said.starts_with("a:1: connection refused; b:1: whoever answers there is not a controller"),
            "{said}"
        );
        let mut told = 0;
        for _ in 0..600 {
            advance(Duration::from_millis(200)).await;
            told += usize::from(asked.failed("a:1", &refused, &known).is_some());
        }
        assert_eq!(told, 2, "within two minutes");
        assert!(asked.is_told() && asked.helped() == Some(Duration::from_secs(120)) && !asked.is_told());
        assert_eq!(asked.helped(), None, "it is said once");
        assert_eq!(asked.failed("a:1", &refused, &known), None, "it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_does_not_keep_what_the_others_said() {
        let (mut asked, known) = (Asked::default(), known());
        let elsewhere = Status::unavailable("c:1 leads");
        assert_eq!(asked.failed("a:1", &elsewhere, &known), None);
        advance(PATIENCE).await;
        let said = asked.failed("c:1", &Status::unknown("no answer in time"), &known).unwrap();
        assert_eq!(said, "a:1: c:1 leads; b:1: not asked yet; c:1: no answer in time");
    }
}
