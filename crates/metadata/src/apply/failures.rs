//! Directories in which a write or sync has failed (correctness rule 35): out of use until a person trusts them.
//!
//! Why one is not believed. A page that the system failed to write reads well from then on and counts as clean, so the next
//! sync succeeds and means nothing; and a disk that has failed once may have failed before without a word. Its broker
//! says so twice: with its last words ([`fail`]), and when it comes again ([`refuse`]), from a file in the directory. Either
//! may be lost, the file because it is on the disk that has failed.
//!
//! Each failure has a number, drawn when it happened. By that a late word is known for what was said before, and the file
//! for the failure that was forgiven: it stays until the broker is registered, however often it dies on the way. What a
//! directory has of several failures is forgiven one by one.

use weir_types::BrokerId;

use crate::apply::{Decided, current};
use crate::broker::{BrokerState, DirectoryFacts, FailedDirectory};
use crate::command::{FailDirectory, TrustBroker};
use crate::event::Event;
use crate::image::Image;
use crate::mutant::Mutant;
use crate::reply::Reply;
use crate::{CLUSTER_LEVEL, Error};

/// How many failures of a directory are recorded at once: one is enough for it to be out of use.
const FAILURES_MAX: usize = 16;

/// The last words of a process. A registration since was of another one, which has said what it found.
pub(super) fn fail(image: &Image, command: FailDirectory) -> Result<Decided, Error> {
    let FailDirectory { by, directory, failure } = command;
    let broker = current(image, by)?;
    if !broker.has_directory(directory) {
        return Err(Error::DirectoryUnknown { directory: directory.to_string(), broker: by.broker });
    }
    // While somebody is yet to look at the disk, he looks at what fails until then as well.
    let is_known =
        |failed: &FailedDirectory| failed.id == directory && (failed.failure == failure || !failed.trusted);
    if broker.failed.iter().any(is_known) {
        return Ok(Decided::nothing(Reply::Done));
    }
    let event = Event::DirectoryFailed { broker: by.broker, directory, failures: vec![failure] };
    Ok(Decided::new(vec![event], Reply::Done))
}

/// A person has looked at the disk, and names the failures that were shown. What has failed since was not meant.
pub(super) fn trust(image: &Image, command: &TrustBroker) -> Result<Decided, Error> {
    let TrustBroker { broker: id, failures } = command;
    let broker = image.broker(*id).ok_or(Error::BrokerNotFound(*id))?;
    if broker.state == BrokerState::Removed {
        return Err(Error::BrokerRemoved(*id));
    }
    let on_record = |failure: &u64| broker.failed.iter().any(|failed| failed.failure == *failure);
    if let Some(unknown) = failures.iter().find(|failure| !on_record(failure)) {
        let current = broker.failed.iter().map(|failed| failed.failure).collect();
        return Err(Error::FailureUnknown { broker: *id, given: *unknown, current });
    }
    if !broker.distrusted().any(|failed| failures.contains(&failed.failure)) {
        return Ok(Decided::nothing(Reply::Done));
    }
    let event = Event::BrokerTrusted { broker: *id, failures: failures.clone() };
    Ok(Decided::new(vec![event], Reply::Done))
}

/// Why a broker is not registered with what it found, if a directory of it has failed; what was not on record is from now
/// on. A directory that nobody was ever registered with holds nothing that is to be believed.
pub(super) fn refuse(image: &Image, found: &[DirectoryFacts]) -> Option<Result<Decided, Error>> {
    if image.feature_level < CLUSTER_LEVEL || Mutant::FailedTrusted.is_planted() {
        return None;
    }
    found.iter().find_map(|found| refuse_directory(image, found))
}

fn refuse_directory(image: &Image, found: &DirectoryFacts) -> Option<Result<Decided, Error>> {
    let on_record: Vec<_> = image.failures_of(found.id).collect();
    let owner = on_record.first().map(|(broker, _)| *broker).or_else(|| image.directory_owner(found.id))?;
    let refused = Error::DirectoryFailed { directory: found.id.to_string(), broker: owner.id };
    // A number that is not known is that of the failure on record, if there is one.
    let is_known = |failure: u64| on_record.iter().any(|(_, known)| failure == 0 || known.failure == failure);
    let new = found.failures.iter().filter(|failure| !is_known(**failure)).take(FAILURES_MAX);
    let new: Vec<u64> = new.copied().collect();
    if new.is_empty() {
        let is_distrusted = on_record.iter().any(|(_, known)| !known.trusted);
        return is_distrusted.then_some(Err(refused));
    }
    // Older than the registration with which its broker serves, which has got over the failure: that one is none of it.
    if owner.state.is_there() && found.persisted_epoch < Some(owner.epoch) {
        let (directory, broker) = (found.id.to_string(), owner.id);
        return Some(Err(Error::DirectoryCopied { directory, broker }));
    }
    let failed = Event::DirectoryFailed { broker: owner.id, directory: found.id, failures: new };
    Some(Ok(Decided::new(vec![failed], Reply::BrokerDistrusted { refused })))
}

/// What stays on a broker's record when it is registered: what it comes without, and what its directories still say, which
/// a person has forgiven. They say so until the registration is on them.
pub(super) fn remain(image: &Image, id: BrokerId, found: &[DirectoryFacts]) -> Vec<FailedDirectory> {
    let is_over = |failed: &FailedDirectory| {
        found.iter().any(|found| found.id == failed.id && found.failures.is_empty())
    };
    let known = image.broker(id).map(|broker| &broker.failed);
    known.into_iter().flatten().filter(|failed| !is_over(failed)).copied().collect()
}
