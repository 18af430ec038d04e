//! The one truncation: a log is cut to where it parts from its leader's (correctness rule 3).

use std::sync::Arc;

use weir_storage::Control;
use weir_types::Offset;

use crate::replication::Replication;
use crate::replication::followed::Followed;
use crate::replication::suspects::Suspect;

/// Cuts a log to where it parts from its leader's. Whether that is done.
pub(super) async fn cut(hub: Arc<Replication>, followed: Arc<Followed>, to: Offset) -> bool {
    let topic = hub.topic(followed.id);
    let ends = followed.partition.ends();
    let (partition, leader, epoch) = (followed.id.partition, followed.leader.0, followed.epoch);
    let (log_end, records) = (ends.log_end, (ends.log_end - to).max(0));
    let below_high_watermark = followed.may_lose;
    // Whatever is below the high watermark was acknowledged; of what is above it that is not known here where the leader was
    // not complete, and it was not where it was.
    let known_acknowledged = (ends.high_watermark - to).max(0);
    if let Some(why) = followed.lacked_by_its_leader(to) {
        hub.news.untaken(&hub.cluster.image(), followed.id, &why, false);
        return false;
    }
    if records > 0 && below_high_watermark {
        tracing::warn!(
            topic,
            partition,
            leader,
            epoch,
            to,
            log_end,
            records,
            known_acknowledged,
            "cutting a log to that of a leader that did not have all that was acknowledged: these records are lost, and not \
             kept here"
        );
    } else {
        tracing::info!(
            topic,
            partition,
            leader,
            epoch,
            to,
            log_end,
            records,
            "cutting a log to its leader's: nothing of this is known here to have been acknowledged"
        );
    }
    let cut = followed
        .partition
        .control(Control::Truncate { to, below_high_watermark, following: Some(followed.epoch) })
        .await;
    if let Err(error) = &cut {
        tracing::error!(
            topic, partition, to, high_watermark = ends.high_watermark, %error,
            "a log cannot be cut to its leader's: this replica stays behind"
        );
    }
    if let Err(error @ weir_storage::Error::Damaged { .. }) = &cut {
        hub.suspects.note(followed.id, Suspect::Uncut { to, epoch, what: error.to_string() });
    }
    cut.is_ok()
}
