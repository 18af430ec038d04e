//! What other controllers said when they were asked for their votes: for people, while nobody leads. openraft only counts
//! votes; whoever is refused by all stands again and again, and nobody would hear why. And whether one that is led, or was,
//! says that it goes on without this one.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::raft::AppendEntriesResponse;
use parking_lot::Mutex;

/// Shared by whoever asks for votes and whoever tells people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Polled(Arc<Mutex<BTreeMap<u64, Said>>>);

#[derive(Debug)]
struct Said {
    endpoint: String,
    words: String,
    /// It was asked, and has not answered yet.
    is_open: bool,
    word: Word,
}

/// Whether it goes on without this controller, which can never win again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It says nothing of the kind.
    Other,
    /// This one was taken out of the quorum.
    TakenOut,
    /// Its quorum was recovered without this one.
    Recovered,
}

/// What a controller is to be told of that the others go on without.
const WHAT_TO_DO: &str = "what this folder holds was given up: stop this controller, give it an empty data folder, and let it join \
     again (join = those that run; docs/operations/quorum.md)";

impl Polled {
    /// It is asked for its vote. A call that nobody answers is dropped where it waits, and ends with the next one.
    pub(super) fn asked(&self, id: u64, endpoint: &str) {
        let mut all = self.0.lock();
        let new = || Said {
            endpoint: String::new(),
            words: "no answer yet".to_owned(),
            is_open: false,
            word: Word::Other,
        };
        let said = all.entry(id).or_insert_with(new);
        if std::mem::replace(&mut said.is_open, true) {
            (said.words, said.word) = ("no answer in time".to_owned(), Word::Other);
        }
        endpoint.clone_into(&mut said.endpoint);
    }

    /// It has answered, or could not be asked.
    pub(super) fn answered(&self, id: u64, words: String, word: Word) {
        if let Some(said) = self.0.lock().get_mut(&id) {
            (said.words, said.word, said.is_open) = (words, word, false);
        }
    }

    /// It has answered this one, which leads: what it said of votes is over, unless it refuses to follow.
    pub(super) fn appended(&self, id: u64, answer: &AppendEntriesResponse<u64>) {
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.0.lock().remove(&id);
        }
    }

    /// A quorum decides, with this controller in it: what was said of votes is over, and so is that it was taken out. One that
    /// leads is told again and again by those whose quorum was recovered without it, which no quorum mends; one that follows
    /// asks them no more.
    pub(crate) fn clear(&self, leads: bool) {
        self.0.lock().retain(|_, said| leads && said.word == Word::Recovered);
    }

    /// Who was asked, and what each has said last.
    pub(crate) fn list(&self) -> String {
        let all = self.0.lock();
        all.iter().map(|(id, said)| said.of(*id)).collect::<Vec<_>>().join("; ")
    }

    /// That others go on without this controller, and what is to be done, if one of them has said so.
    pub(crate) fn given_up(&self) -> Option<String> {
        self.said(|word| word != Word::Other)
    }

    /// The same, if one has said so whose quorum was recovered.
    pub(crate) fn recovered(&self) -> Option<String> {
        self.said(|word| word == Word::Recovered)
    }

    /// What this one has said, if its quorum was recovered.
    pub(crate) fn recovered_from(&self, id: u64) -> Option<String> {
        self.0.lock().get(&id).filter(|said| said.word == Word::Recovered).map(|said| said.words.clone())
    }

    fn said(&self, is_it: impl Fn(Word) -> bool) -> Option<String> {
        let all = self.0.lock();
        let (id, said) = all.iter().find(|(_, said)| is_it(said.word))?;
        Some(format!("{}; {WHAT_TO_DO}", said.of(*id)))
    }
}

impl Said {
    fn of(&self, id: u64) -> String {
        format!("controller {id} at {}: {}", self.endpoint, self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Vote;

    #[test]
    fn each_is_named_with_what_it_said_last() {
        let polled = Polled::default();
        for _ in 0..2 {
            polled.asked(3, "c:3");
            polled.asked(5, "c:5");
            polled.answered(3, "Connection refused".to_owned(), Word::Other);
        }
        assert_eq!(
            polled.list(),
            "controller 3 at c:3: Connection refused; controller 5 at c:5: no answer in time"
        );
        assert_eq!(polled.given_up(), None);
        polled.answered(5, "it goes on without this one".to_owned(), Word::Recovered);
        let said = polled.given_up().unwrap();
        assert!(
            said.starts_with("controller 5 at c:5: it goes on without this one; what this folder"),
            "{said}"
        );
        polled.asked(5, "c:5");
        polled.asked(5, "c:5");
        assert_eq!(polled.given_up(), None, "whoever is there now says nothing");
        polled.answered(5, "it goes on without this one".to_owned(), Word::Recovered);
        polled.clear(true);
        assert_eq!(polled.list(), "controller 5 at c:5: it goes on without this one", "no quorum mends that");
        assert!(polled.recovered().is_some());
        assert_eq!(polled.recovered_from(5).as_deref(), Some("it goes on without this one"));
        assert_eq!(polled.recovered_from(3), None);
        polled.appended(5, &AppendEntriesResponse::HigherVote(Vote::new(7, 3)));
        assert!(polled.recovered().is_some(), "it follows another");
        polled.appended(5, &AppendEntriesResponse::Conflict);
        assert_eq!(polled.list(), "", "it lacks entries, and takes them");
    }

    #[test]
    fn who_is_in_a_quorum_that_decides_was_not_taken_out_of_it() {
        for leads in [false, true] {
            let polled = Polled::default();
            polled.asked(3, "c:3");
            polled.answered(3, "it was taken out".to_owned(), Word::TakenOut);
            assert!(polled.given_up().is_some());
            assert_eq!(polled.recovered(), None, "these are no two quorums");
            polled.asked(3, "c:3");
            polled.answered(3, "it votes for this one".to_owned(), Word::Other);
            assert_eq!(polled.given_up(), None, "it says otherwise");
            polled.answered(3, "it was taken out".to_owned(), Word::TakenOut);
            polled.clear(leads);
            assert_eq!((polled.given_up(), polled.list()), (None, String::new()));
        }
    }
}
