//! What other controllers said when they were asked for their votes: for people, while nobody leads. openraft only counts
//! votes; whoever is refused by all stands again and again, and nobody would hear why. And whether one that is led, or was,
//! says that it goes on without this one.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// It goes on without this controller, which can never win again.
    goes_without: bool,
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
            goes_without: false,
        };
        let said = all.entry(id).or_insert_with(new);
        if std::mem::replace(&mut said.is_open, true) {
            (said.words, said.goes_without) = ("no answer in time".to_owned(), false);
        }
        endpoint.clone_into(&mut said.endpoint);
    }

    /// It has answered, or could not be asked.
    pub(super) fn answered(&self, id: u64, words: String, goes_without: bool) {
        if let Some(said) = self.0.lock().get_mut(&id) {
            (said.words, said.goes_without, said.is_open) = (words, goes_without, false);
        }
    }

    /// It takes what this one, which leads, sends.
    pub(super) fn follows(&self, id: u64) {
        self.0.lock().remove(&id);
    }

    /// A quorum decides: what was said of votes is over.
    pub(crate) fn clear(&self) {
        self.0.lock().retain(|_, said| said.goes_without);
    }

    /// Who was asked, and what each has said last.
    pub(crate) fn list(&self) -> String {
        let all = self.0.lock();
        all.iter().map(|(id, said)| said.of(*id)).collect::<Vec<_>>().join("; ")
    }

    /// That others go on without this controller, and what is to be done, if one of them has said so.
    pub(crate) fn given_up(&self) -> Option<String> {
        let all = self.0.lock();
        let (id, said) = all.iter().find(|(_, said)| said.goes_without)?;
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

    #[test]
    fn each_is_named_with_what_it_said_last() {
        let polled = Polled::default();
        for _ in 0..2 {
            polled.asked(3, "c:3");
            polled.asked(5, "c:5");
            polled.answered(3, "Connection refused".to_owned(), false);
        }
        assert_eq!(
            polled.list(),
            "controller 3 at c:3: Connection refused; controller 5 at c:5: no answer in time"
        );
        assert_eq!(polled.given_up(), None);
        polled.answered(5, "it goes on without this one".to_owned(), true);
        let said = polled.given_up().unwrap();
        assert!(
            said.starts_with("controller 5 at c:5: it goes on without this one; what this folder"),
            "{said}"
        );
        polled.asked(5, "c:5");
        polled.asked(5, "c:5");
        assert_eq!(polled.given_up(), None, "whoever is there now says nothing");
        polled.answered(5, "it goes on without this one".to_owned(), true);
        polled.clear();
        assert_eq!(polled.list(), "controller 5 at c:5: it goes on without this one", "no vote mends that");
        polled.follows(5);
        assert_eq!(polled.list(), "");
    }
}
