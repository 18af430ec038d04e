//! A panic in the step that appends ends the process: the partition would be waited for by everybody who comes.

use std::sync::Arc;

use weir_io::MemDisk;
use weir_storage::{Admission, Append, Control, LogConfig, LogView, Verdict};
use weir_types::{LeaderEpoch, Offset};

use crate::support::*;

struct Panics;

impl Admission for Panics {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        Some(1)
    }

    fn admit(&mut self, _: &LogView<'_>, _: &Append) -> Verdict {
        panic!("on purpose");
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        log.high_watermark
    }
}

#[tokio::test]
async fn a_panic_where_an_append_is_decided_is_fatal() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, LogConfig::default()).await;
    log.control(Control::SetAdmission(Box::new(Panics))).await.unwrap();
    let appending = tokio::spawn(async move { produce(&log, batch("a", 1)).await });
    assert!(appending.await.unwrap_err().is_panic());
    let fatal = process.fatal.lock();
    assert!(fatal.len() == 1 && fatal[0].to_string().contains("it panicked"), "{fatal:?}");
}
