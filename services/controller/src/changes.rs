//! Follows the changes of the metadata as any watcher does, beside the state machine and never in its way: for the metrics,
//! and for the lines of the log. What was too much to follow is neither counted nor said.

use std::sync::Arc;

use tokio::time::sleep_until;

use crate::machine::Start;
use crate::news::News;
use crate::service::Parts;

/// Follows for as long as the controller lives. Cancelled with it: what was gathered and not said by then is lost.
pub(crate) async fn follow(parts: Arc<Parts>) {
    let hub = parts.machine.hub();
    let mut image = hub.image().as_ref().clone();
    let mut news = News::default();
    loop {
        tokio::select! {
            _ = hub.wait_for(image.version() + 1) => {}
            () = due(&news) => {
                news.say();
                continue;
            }
        }
        match hub.subscribe(image.version()).0 {
            Start::Image(newest) => image = newest.as_ref().clone(),
            Start::Deltas(deltas) => {
                for delta in deltas {
                    let older = image.clone();
                    // It continues: that is what was asked for.
                    if image.follow(&delta).is_ok() {
                        parts.metrics.changed(&older, &image, &delta);
                        // Said by whoever decided it, once: three controllers would say everything three times, and one
                        // that starts again would tell what is in its log as if it happened now.
                        if delta.author == parts.proposer.author() {
                            news.changed(&older, &image, &delta);
                        }
                    }
                    // One may change tens of thousands.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Waits until something is to be said.
async fn due(news: &News) {
    match news.due() {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
