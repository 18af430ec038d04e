//! The replicated state: the image, and what only controllers need beside it.

use std::sync::Arc;

use crate::apply;
use crate::command::{Command, Entry};
use crate::event::{Delta, Event, SharedDelta};
use crate::image::Image;
use crate::mutant::Mutant;
use crate::reply::{Remembered, Replies, Reply};
use crate::{CLUSTER_LEVEL, Error};

/// What the raft log adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What everyone watches.
    pub image: Image,
    /// Answers that are remembered.
    pub replies: Replies,
}

/// What one entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer to each command, in order. A refused one changed nothing.
    pub outcomes: Vec<Result<Reply, Error>>,
    /// What changed; `None` if nothing did.
    pub delta: Option<SharedDelta>,
}

impl State {
    /// Applies the entry at a raft index. Deterministic: no clock, no randomness, no order of a hash; the same
    /// entries in the same order make the same state everywhere.
    pub fn apply(&mut self, index: i64, entry: &Entry) -> Applied {
        let mut events = Vec::new();
        let mut outcomes = Vec::with_capacity(entry.commands.len());
        for command in &entry.commands {
            outcomes.push(self.apply_one(index, entry.at_ms, command, &mut events));
        }
        let delta = (!events.is_empty()).then(|| {
            let signs = self.image.feature_level >= CLUSTER_LEVEL && !Mutant::Unsigned.is_planted();
            let author = if signs { entry.author } else { 0 };
            let delta = Delta { previous: self.image.version, version: index, author, events };
            self.image.advance(&delta);
            Arc::new(delta)
        });
        Applied { outcomes, delta }
    }

    fn apply_one(
        &mut self,
        index: i64,
        at_ms: i64,
        command: &Command,
        events: &mut Vec<Event>,
    ) -> Result<Reply, Error> {
        if let Some(before) = self.replies.recall(command) {
            return before;
        }
        let decided = apply::decide(&self.image, index, at_ms, command)?;
        for event in decided.events {
            self.image.expand(&event);
            events.push(event);
        }
        let reply = decided.reply.resolve(&self.image);
        if let Some(id) = command.request_id() {
            self.replies.remember(Remembered { request_id: id.to_owned(), at_ms, reply: reply.clone() });
        }
        Ok(reply)
    }

    /// What a command would answer now, without carrying it out.
    ///
    /// # Errors
    /// What the command would be refused with.
    pub fn try_out(&self, at_ms: i64, command: &Command) -> Result<Reply, Error> {
        if let Some(before) = self.replies.recall(command) {
            return before;
        }
        let mut image = self.image.clone();
        let next = image.version.saturating_add(1);
        let decided = apply::decide(&image, next, at_ms, command)?;
        for event in &decided.events {
            image.expand(event);
        }
        Ok(decided.reply.resolve(&image))
    }
}
