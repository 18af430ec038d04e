//! What is done to a partition beside appending, in the same queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use weir_types::{Offset, Producer};

use super::{Job, Owner};
use crate::admission::{Admission, NotLeading};
use crate::append::{Acks, Append, AppendError, NewBatch};
use crate::config::Mutant;
use crate::control::{Answer, Command, Control, Outcome, OutcomeQuery, UnknownCause};
use crate::core::Core;
use crate::error::Error;
use crate::jobs;
use crate::keeper;
use crate::moves::{self, Asked};
use crate::producers::Trace;
use crate::retention;
use crate::waits::{Then, Wait, Waits};

impl Owner {
    pub(super) fn command(&mut self, core: &Arc<Core>, command: Command) -> Option<Job> {
        if core.dir.failed() || core.dir.stopping() {
            command.refuse();
            return None;
        }
        match command {
            Command::Outcome(query, answer) => {
                self.outcome(core, query, answer);
                None
            }
            Command::Note => {
                self.note_tail(core);
                None
            }
            Command::RollOld { now_ms } => {
                retention::roll_old(core, self, now_ms);
                None
            }
            Command::BeginAt(front, answers) => {
                moves::answer(answers, &retention::begin_at(core, self, front));
                None
            }
            Command::GiveBack => {
                self.give_back(core);
                None
            }
            Command::Abandon(answer) => {
                self.abandon(core);
                // Whoever asked may have gone.
                drop(answer.send(Ok(())));
                None
            }
            Command::Control(control, answer) => self.control(core, control, answer),
        }
    }

    fn control(&mut self, core: &Arc<Core>, control: Control, answer: Answer<()>) -> Option<Job> {
        let result = match control {
            Control::SetAdmission(admission) => self.set_admission(core, admission),
            Control::Configure(config) => {
                self.producers.set_limits(config.producer_limits());
                jobs::note_config(core, &config);
                self.config = config;
                Ok(())
            }
            Control::Roll => self.roll_now(core),
            Control::Truncate { to, below_high_watermark, following } => {
                let follows = self.admission.follows();
                match following.filter(|given| follows != Some(*given)) {
                    Some(given) => Err(Error::NotFollowed { given, follows }),
                    // The owner goes along with the job: nothing comes between.
                    None => return Some(jobs::truncate(to, below_high_watermark, answer)),
                }
            }
            Control::SetLogStart { offset } => match self.may_begin_at(offset) {
                Ok(true) => {
                    self.roll_emptied(core, offset);
                    core.dir.move_later(Asked { core: Arc::clone(core), offset, answer });
                    return None;
                }
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            },
            Control::Close => return Some(jobs::close(answer)),
        };
        // Whoever asked may have gone.
        drop(answer.send(result));
        None
    }

    /// Whether the log can begin at an offset, and does not yet.
    fn may_begin_at(&self, offset: Offset) -> Result<bool, Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if offset > self.ends.last_stable {
            return Err(Error::OutOfRange { given: offset, min: 0, max: self.ends.last_stable });
        }
        // What could not go when it was moved there is tried again.
        Ok(offset >= self.ends.log_start)
    }

    /// Where all of the log is to go, what is written to goes, too, once it is closed: whoever deletes records wants the
    /// space (Kafka does the same).
    fn roll_emptied(&mut self, core: &Arc<Core>, start: Offset) {
        if start == self.next {
            // If it cannot be closed the records go all the same; their space with the next segment.
            self.try_roll(core);
        }
    }

    /// Closes the active segment, if it holds anything and the next one can be created.
    pub(crate) fn try_roll(&mut self, core: &Arc<Core>) {
        if self.position > 0
            && let Err(error) = self.roll(core)
        {
            tracing::warn!(name = core.name(), %error, "no new segment could be created");
        }
    }

    /// A leadership that is over changes nothing: what would be appended in it would be cut at the next start.
    fn set_admission(&mut self, core: &Arc<Core>, mut admission: Box<dyn Admission>) -> Result<(), Error> {
        let epoch = admission.leader_epoch().or(admission.follows());
        if let (Some(given), Some(last)) = (epoch, self.last_epoch)
            && given < last
        {
            return Err(Error::StaleEpoch { given, last });
        }
        core.leads.store(admission.leader_epoch().is_some(), Ordering::Release);
        admission.begins(&self.view(self.last_append_ms));
        self.ends.epoch_start = if admission.leader_epoch().is_some() { self.next } else { 0 };
        self.admission = admission;
        self.advance(core);
        Ok(())
    }

    /// The log ends here now, whether bytes go or not: so do its leaderships.
    pub(crate) fn cut_epochs(&mut self, core: &Core, end: Offset) {
        if core.dir.has(Mutant::EpochsKept) {
            return;
        }
        let mut epochs = core.epochs.write();
        epochs.cut(end);
        self.last_epoch = epochs.last();
    }

    /// Hands what is known of the active segment to the keeper, who writes it down.
    fn note_tail(&mut self, core: &Arc<Core>) {
        let grown = self.position.saturating_sub(self.noted);
        if self.closed || grown < core.dir.options.note_every_bytes {
            return;
        }
        if let Some(note) = keeper::TailNote::take(core, self) {
            self.noted = self.position;
            core.dir.note_later(note);
        }
    }

    /// Nothing is done here any more. What waits is told that it may have been applied. The admission goes: it may know the
    /// partition, and either would keep the other for ever.
    pub(crate) fn abandon(&mut self, core: &Arc<Core>) {
        self.closed = true;
        self.waits = Waits::default();
        core.closed.store(true, Ordering::Release);
        self.published = None;
        core.claim.close();
        self.admission = Box::new(NotLeading);
    }

    fn roll_now(&mut self, core: &Arc<Core>) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if self.position == 0 {
            return Ok(());
        }
        self.roll(core).map_err(Error::io(&*core.path, "create a segment"))
    }

    /// What became of an append, decided where appends are (rule 19).
    fn outcome(
        &mut self,
        core: &Arc<Core>,
        query: OutcomeQuery,
        answer: Answer<Result<Outcome, AppendError>>,
    ) {
        let now_ms = self.now_ms(core);
        let outcome = match self.producers.trace(query.producer, query.base_sequence, now_ms) {
            Trace::Found(batch) if batch.last_offset < self.ends.high_watermark => Outcome::Appended(batch),
            Trace::Found(batch) => Outcome::Pending(batch),
            Trace::Never { next_epoch } if core.dir.has(Mutant::NeverEarly) => Outcome::Never { next_epoch },
            Trace::Never { next_epoch } => {
                // The fence may not be committed yet: until it is, another leader may not have it.
                let end = self.ends.log_end;
                self.waits.committed(Wait { end, then: Then::Sealed(answer, next_epoch) });
                return;
            }
            Trace::NotSoFar if query.seal => return self.seal(core, query.producer, answer),
            Trace::NotSoFar => Outcome::NotSoFar,
            Trace::Expired => Outcome::Unknown(UnknownCause::Expired),
            Trace::Window => Outcome::Unknown(UnknownCause::Window),
            Trace::Fenced => Outcome::Unknown(UnknownCause::Fenced),
        };
        drop(answer.send(Ok(Ok(outcome))));
    }

    /// Appends a fence for the producer's next epoch: an empty frame that takes one offset.
    fn seal(&mut self, core: &Arc<Core>, producer: Producer, answer: Answer<Result<Outcome, AppendError>>) {
        let Some(next_epoch) = producer.epoch.checked_add(1) else {
            let last =
                "the producer's epoch is the last there is, and cannot be fenced: take a new producer id";
            drop(answer.send(Ok(Err(AppendError::Malformed(last)))));
            return;
        };
        let now_ms = self.now_ms(core);
        let batch = NewBatch {
            last_offset_delta: 0,
            record_count: 0,
            base_timestamp_ms: now_ms,
            max_timestamp_ms: now_ms,
            append_time: true,
            codec: 0,
            uncompressed_bytes: 0,
            crc: 0,
            producer: Some(Producer { id: producer.id, epoch: next_epoch }),
            base_sequence: 0,
            transactional: false,
            control: true,
            broker_compressed: false,
            payload: Bytes::new(),
        };
        let append = Append {
            batch,
            acks: Acks::All,
            expected_next_offset: None,
            gate: None,
            resume: false,
            done: Box::new(move |result| {
                drop(answer.send(Ok(result.map(|_| Outcome::Never { next_epoch }))));
            }),
        };
        self.append(core, append);
        self.finish(core);
    }
}
