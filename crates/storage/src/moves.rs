//! Moves of the starts of logs: retention decides on some, DeleteRecords asks for others. The keeper makes all of a turn
//! durable with one checkpoint, and then the owners hear of them; [`crate::retention`] says why nothing is lost by that.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_types::Offset;

use crate::claim::{self, Entry};
use crate::config::Mutant;
use crate::control::{Answer, Command};
use crate::core::Core;
use crate::dir::DirCore;
use crate::error::Error;
use crate::retention::{self, Front};

/// A start that was asked for. Its owner has passed it on: in order with the appends, and not beyond what is stable.
pub(crate) struct Asked {
    pub(crate) core: Arc<Core>,
    pub(crate) offset: Offset,
    pub(crate) answer: Answer<()>,
}

/// A start that is to move, and who waits for it.
pub(crate) struct Move {
    pub(crate) core: Arc<Core>,
    pub(crate) front: Front,
    answers: Vec<Answer<()>>,
}

impl Move {
    /// One that nobody has asked for.
    pub(crate) fn decided(core: Arc<Core>, front: Front) -> Self {
        Self { core, front, answers: Vec::new() }
    }

    fn answer(self, error: &Error) {
        answer(self.answers, &Err(error.clone()));
    }
}

/// Says how it went to everybody who waits for one start.
pub(crate) fn answer(answers: Vec<Answer<()>>, result: &Result<(), Error>) {
    for answer in answers {
        // Whoever asked may have gone.
        drop(answer.send(result.clone()));
    }
}

/// What was asked for since the keeper last looked; `None` once it looks no more.
pub(crate) struct MoveQueue(Mutex<Option<Vec<Asked>>>);

impl Default for MoveQueue {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl MoveQueue {
    /// Dropped, it says by itself that nothing was done.
    pub(crate) fn push(&self, asked: Asked) {
        if let Some(queue) = &mut *self.0.lock() {
            queue.push(asked);
        }
    }

    /// Nobody takes care of them any more.
    pub(crate) fn close(&self) {
        // Whoever waits is told outside of the lock.
        let left = self.0.lock().take();
        drop(left);
    }

    fn take(&self) -> Vec<Asked> {
        self.0.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// The moves that were asked for; of several of one log the farthest is all of them. One that cannot be prepared is
/// answered, and nothing has changed.
pub(crate) fn asked(dir: &DirCore) -> Vec<Move> {
    let mut logs = BTreeMap::new();
    for Asked { core, offset, answer } in dir.moves.take() {
        let key = (core.id, core.incarnation);
        let (_, to, answers) = logs.entry(key).or_insert_with(|| (core, offset, Vec::new()));
        *to = offset.max(*to);
        answers.push(answer);
    }
    let prepare = |(core, to, answers): (Arc<Core>, Offset, Vec<_>)| match front(&core, to) {
        Ok(front) => Some(Move { core, front, answers }),
        Err(error) => {
            answer(answers, &Err(error));
            None
        }
    };
    logs.into_values().filter_map(prepare).collect()
}

/// What was stable when it was asked for may have been cut since, by somebody who accepts that.
fn front(core: &Arc<Core>, to: Offset) -> Result<Front, Error> {
    let max = core.ends().last_stable;
    if to > max {
        return Err(Error::OutOfRange { given: to, min: 0, max });
    }
    retention::front(core, to)
}

/// Makes all of them durable at once, and then tells the owners. If that fails nothing has changed, and whoever asked
/// hears why. The logs whose starts have moved.
pub(crate) fn make(dir: &DirCore, mut moves: Vec<Move>) -> Vec<Arc<Core>> {
    if moves.is_empty() {
        return Vec::new();
    }
    if dir.has(Mutant::GoneBeforeStart) {
        moves.iter().for_each(|one| retention::unlink(&one.core, one.front));
    }
    if dir.has(Mutant::HeardBeforeStart) {
        tell(&mut moves);
    }
    if let Err(error) = dir.move_starts(&moves) {
        if moves.iter().any(|one| one.answers.is_empty()) && !matches!(error, Error::Closed) {
            tracing::error!(%error, logs = moves.len(), "retention could not move the starts of logs");
        }
        moves.into_iter().for_each(|one| one.answer(&error));
        return Vec::new();
    }
    tell(&mut moves);
    moves.into_iter().map(|one| one.core).collect()
}

fn tell(moves: &mut [Move]) {
    for Move { core, front, answers } in moves {
        claim::post(core, Entry::Command(Command::BeginAt(*front, std::mem::take(answers))));
    }
}
