//! Directories in which a write or sync has failed (correctness rule 35): out of use until a person trusts them.
//!
//! Why one is not believed. A page that the system failed to write reads well from then on and counts as clean, so the next
//! sync succeeds and means nothing; and a disk that has failed once may have failed before without a word. Its broker
//! says so twice: with its last words ([`fail`]), and when it comes again ([`refuse`]), from a file in the directory. Either
//! may be lost, the file because it is on the disk that has failed.
//!
//! Each failure has a number, drawn when it happened. By that a late word is known for what was said before, and the file
//! for the failure that was forgiven: it stays until the broker is registered, however often it dies on the way.

use weir_types::BrokerId;

use crate::apply::{Decided, current};
use crate::broker::{DirectoryFacts, FailedDirectory};
use crate::command::{BrokerEpoch, FailDirectory};
use crate::event::Event;
use crate::image::Image;
use crate::mutant::Mutant;
use crate::reply::Reply;
use crate::{CLUSTER_LEVEL, Error};

/// The last words of a process. A registration since was of another one, which has said what it found.
pub(super) fn fail(image: &Image, command: FailDirectory) -> Result<Decided, Error> {
    let FailDirectory { by, directory, failure } = command;
    let broker = current(image, by)?;
    if !broker.has_directory(directory) {
        return Err(Error::DirectoryUnknown { directory: directory.to_string(), broker: by.broker });
    }
    let is_known = |failed: &FailedDirectory| failed.id == directory && failed.failure == failure;
    if broker.failed.iter().any(is_known) {
        return Ok(Decided::nothing(Reply::Done));
    }
    let event = Event::DirectoryFailed { broker: by.broker, directory, failure };
    Ok(Decided::new(vec![event], Reply::Done))
}

/// A person has looked at the disk. Said of one registration: whoever registered since was trusted already, and what has
/// failed in that one was not shown.
pub(super) fn trust(image: &Image, by: BrokerEpoch) -> Result<Decided, Error> {
    let broker = current(image, by)?;
    if broker.distrusted().next().is_none() {
        return Ok(Decided::nothing(Reply::Done));
    }
    Ok(Decided::new(vec![Event::BrokerTrusted { broker: by.broker }], Reply::Done))
}

/// Why a broker is not registered with what it found, if a directory of it has failed; what was not on record is from now
/// on. A directory that nobody was ever registered with holds nothing that is to be believed.
pub(super) fn refuse(image: &Image, found: &[DirectoryFacts]) -> Option<Result<Decided, Error>> {
    if image.feature_level < CLUSTER_LEVEL || Mutant::FailedTrusted.is_planted() {
        return None;
    }
    found.iter().find_map(|found| {
        let refused = |broker| Error::DirectoryFailed { directory: found.id.to_string(), broker };
        let known = image.failed_directory(found.id);
        match (known, found.failure) {
            (Some((_, failed)), failure) if failed.is_forgiven(failure) => None,
            (Some((broker, failed)), failure) if failed.is_known(failure) => Some(Err(refused(broker))),
            (_, None) => None,
            (known, Some(failure)) => {
                let broker = known.map(|(broker, _)| broker).or_else(|| image.directory_owner(found.id))?;
                let event = Event::DirectoryFailed { broker, directory: found.id, failure };
                let reply = Reply::BrokerDistrusted { refused: refused(broker) };
                Some(Ok(Decided::new(vec![event], reply)))
            }
        }
    })
}

/// What stays on a broker's record when it is registered: what it comes without, and what its directories still say, which
/// a person has forgiven. They say so until the registration is on them.
pub(super) fn remain(image: &Image, id: BrokerId, found: &[DirectoryFacts]) -> Vec<FailedDirectory> {
    let is_over =
        |failed: &FailedDirectory| found.iter().any(|found| found.id == failed.id && found.failure.is_none());
    let known = image.broker(id).map(|broker| &broker.failed);
    known.into_iter().flatten().filter(|failed| !is_over(failed)).copied().collect()
}
