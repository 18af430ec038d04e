//! Answers that wait for an end to reach them. Hot path.

use std::collections::VecDeque;

use weir_types::Offset;

use crate::admission::Holders;
use crate::append::{AppendError, Appended, Refused, Reply};
use crate::control::{Answer, Outcome};
use crate::ends::Ends;

/// An answer, due when an end has come this far.
pub(crate) struct Wait {
    pub(crate) end: Offset,
    pub(crate) then: Then,
}

pub(crate) enum Then {
    Appended(Reply, Appended),
    Refuse(Reply, Refused),
    Sealed(Answer<Result<Outcome, AppendError>>, i32),
}

impl Wait {
    /// It is due. `holders` says who has what lies before an offset.
    pub(crate) fn done(self, ends: &Ends, holders: &mut impl FnMut(Offset) -> Holders) {
        match self.then {
            Then::Appended(reply, appended) => reply.give(Ok(Appended {
                committed: appended.last_offset < ends.high_watermark,
                flushed: appended.last_offset < ends.flushed_end,
                holders: holders(self.end),
                ..appended
            })),
            Then::Refuse(reply, refused) => reply.give(Err(refused.into())),
            // Whoever asked may have gone.
            Then::Sealed(answer, next_epoch) => drop(answer.send(Ok(Ok(Outcome::Never { next_epoch })))),
        }
    }

    /// It never comes to that: nothing was applied.
    pub(crate) fn refuse(self, error: AppendError) {
        match self.then {
            Then::Appended(reply, _) | Then::Refuse(reply, _) => reply.give(Err(error)),
            Then::Sealed(answer, _) => drop(answer.send(Ok(Err(error)))),
        }
    }
}

/// Waits by end, for the high watermark and for the flushed end.
#[derive(Default)]
pub(crate) struct Waits {
    committed: VecDeque<Wait>,
    flushed: VecDeque<Wait>,
}

impl Waits {
    pub(crate) fn committed(&mut self, wait: Wait) {
        insert(&mut self.committed, wait);
    }

    pub(crate) fn flushed(&mut self, wait: Wait) {
        insert(&mut self.flushed, wait);
    }

    /// Answers all that is due.
    pub(crate) fn complete(&mut self, ends: &Ends, mut holders: impl FnMut(Offset) -> Holders) {
        while let Some(wait) = self.committed.pop_front_if(|wait| wait.end <= ends.high_watermark) {
            wait.done(ends, &mut holders);
        }
        while let Some(wait) = self.flushed.pop_front_if(|wait| wait.end <= ends.flushed_end) {
            wait.done(ends, &mut holders);
        }
    }

    /// The log was cut there: what waited for more may be gone.
    pub(crate) fn cut(&mut self, end: Offset) {
        // Dropped: each says by itself that it may have been applied.
        self.committed.retain(|wait| wait.end <= end);
        self.flushed.retain(|wait| wait.end <= end);
    }
}

/// Nearly always the last one: only duplicates come out of order.
fn insert(waits: &mut VecDeque<Wait>, wait: Wait) {
    let at = if waits.back().is_none_or(|last| last.end <= wait.end) {
        waits.len()
    } else {
        waits.partition_point(|other| other.end <= wait.end)
    };
    waits.insert(at, wait);
}
