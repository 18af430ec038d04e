//! What the plain HTTP listener shows of a broker.

use std::sync::Arc;

use tokio::sync::SetOnce;
use weir_process::http::Page;
use weir_storage::Progress;

use crate::broker::Broker;
use crate::metrics::Metrics;

/// What is shown: the start until there is a broker, then the broker.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) progress: Arc<Progress>,
    pub(crate) broker: SetOnce<Arc<Broker>>,
}

impl Shown {
    /// How far the start is before there is a broker.
    pub(crate) fn opening(&self) -> String {
        let Progress { logs, logs_done, .. } = &*self.progress;
        format!("opening logs: {} of {}", logs_done.get(), logs.get())
    }
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
            return Err(self.opening());
        };
        broker.unready().map_or_else(|| Ok(broker.note()), Err)
    }
}
