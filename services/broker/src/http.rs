//! What the plain HTTP listener shows of a broker.

use std::sync::{Arc, OnceLock};

use weir_process::http::Page;
use weir_storage::Progress;

use crate::broker::Broker;
use crate::metrics::Metrics;

/// What is shown: the start until there is a broker, then the broker.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) progress: Arc<Progress>,
    pub(crate) broker: OnceLock<Arc<Broker>>,
}

impl Page for Shown {
    fn metrics(&self) -> Vec<u8> {
        match self.broker.get() {
            Some(broker) => broker.metrics.render(broker, &self.progress),
            None => Metrics::render_start(&self.progress),
        }
    }

    fn ready(&self) -> Result<Option<String>, String> {
        let Some(broker) = self.broker.get() else {
            let Progress { logs, logs_done, .. } = &*self.progress;
            return Err(format!("opening logs: {} of {}", logs_done.get(), logs.get()));
        };
        broker.unready().map_or_else(|| Ok(broker.note()), Err)
    }
}
