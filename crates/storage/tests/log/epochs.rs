//! Leaderships follow each other: an older one changes nothing, and a fence is always a step up.

use std::sync::Arc;

use weir_io::MemDisk;
use weir_storage::{
    Acks, Admission, Append, AppendError, Control, Error, Holders, LogConfig, LogView, Outcome, OutcomeQuery,
    Refused, Verdict,
};
use weir_types::{LeaderEpoch, Offset, Producer, ProducerId};

use crate::support::*;

#[tokio::test]
async fn an_older_leadership_is_refused_and_the_newer_one_goes_on() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, LogConfig::default()).await;
    lead(&log, 7).await;
    produce(&log, batch("a", 1)).await.unwrap();
    let said = log.control(Control::SetAdmission(Leader::boxed(5))).await.unwrap_err();
    assert!(matches!(said, Error::StaleEpoch { given: 5, last: 7 }), "{said}");
    assert_eq!(produce(&log, batch("b", 1)).await.unwrap().leader_epoch, 7);
    // Also after a restart, when nobody leads.
    let mem = mem.kill();
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.dir.partition(id(0)).unwrap();
    log.control(Control::SetAdmission(Leader::boxed(6))).await.unwrap_err();
    assert_eq!(produce(&log, batch("c", 1)).await, Err(AppendError::Refused(Refused::NotLeader)));
    lead(&log, 7).await;
    assert_eq!(produce(&log, batch("c", 1)).await.unwrap().base_offset, 2);
    let process = Process::start(Arc::new(mem.kill()));
    assert_eq!(process.report.truncated, []);
}

/// A core with a bug: it says one epoch and appends in another.
struct Confused;

impl Admission for Confused {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        Some(9)
    }

    fn admit(&mut self, _log: &LogView<'_>, _append: &Append) -> Verdict {
        Verdict::Append { leader_epoch: 3 }
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        log.flushed_end
    }
}

#[tokio::test]
async fn a_frame_never_gets_an_epoch_below_the_one_before() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, LogConfig::default()).await;
    lead(&log, 7).await;
    produce(&log, batch("a", 1)).await.unwrap();
    log.control(Control::SetAdmission(Box::new(Confused))).await.unwrap();
    let got = produce(&log, batch("b", 1)).await;
    assert_eq!(got, Err(AppendError::Refused(Refused::NotLeader)));
    let process = Process::start(Arc::new(mem.kill()));
    assert_eq!((process.report.truncated.len(), process.report.damaged.len()), (0, 0));
    assert_eq!(process.dir.partition(id(0)).unwrap().ends().log_end, 1);
}

#[tokio::test]
async fn a_producer_in_the_last_epoch_there_is_cannot_be_fenced() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, LogConfig::default()).await;
    produce(&log, by(1, i32::MAX, 0, batch("a", 1))).await.unwrap();
    let producer = Producer { id: ProducerId(1), epoch: i32::MAX };
    let query = OutcomeQuery { producer, base_sequence: 1, seal: true };
    let said = log.append_outcome(query).await.unwrap();
    assert!(matches!(said, Err(AppendError::Malformed(_))), "{said:?}");
    // So nothing was promised about this one.
    assert_eq!(produce(&log, by(1, i32::MAX, 1, batch("b", 1))).await.unwrap().base_offset, 1);
}

#[tokio::test]
async fn a_batch_that_never_came_is_not_found_because_an_older_one_had_its_number() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, LogConfig::default()).await;
    produce(&log, by(1, 0, 0, batch("a", 1))).await.unwrap();
    let query = |epoch, base_sequence| OutcomeQuery {
        producer: Producer { id: ProducerId(1), epoch },
        base_sequence,
        seal: true,
    };
    let never = |next_epoch| Ok(Outcome::Never { next_epoch });
    assert_eq!(log.append_outcome(query(0, 1)).await.unwrap(), never(1));
    // It goes on in epoch 1 from sequence 0: that one is lost, and so is the answer to the question.
    assert_eq!(log.append_outcome(query(1, 0)).await.unwrap(), never(2));
    assert_eq!(log.append_outcome(query(1, 0)).await.unwrap(), never(2));
    let process = Process::start(Arc::new(mem.kill()));
    let log = process.lead(0, 2).await;
    assert_eq!(log.append_outcome(query(1, 0)).await.unwrap(), never(2));
}

#[tokio::test]
async fn a_leader_is_settled_once_its_beginning_is_committed() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, LogConfig::default()).await;
    let held = |epoch, at| Control::SetAdmission(Box::new(Leader { epoch, holds_at: at }));
    log.control(held(1, Some(0))).await.unwrap();
    assert!(log.ends().is_settled(), "nothing was there");
    let (append, answered) = append(batch("a", 1), Acks::Leader);
    log.submit(vec![append]);
    answered.await.unwrap().unwrap();
    log.control(held(2, Some(0))).await.unwrap();
    assert_eq!((log.ends().epoch_start, log.ends().is_settled()), (1, false));
    follow(&log, 3).await;
    assert!(log.ends().is_settled(), "it tells what its leader says");
    log.control(held(4, None)).await.unwrap();
    assert_eq!((log.ends().epoch_start, log.ends().is_settled()), (1, true));
}

/// Three replicas have what is committed.
struct Three(Leader);

impl Admission for Three {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.0.leader_epoch()
    }

    fn admit(&mut self, log: &LogView<'_>, append: &Append) -> Verdict {
        self.0.admit(log, append)
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        self.0.high_watermark(log)
    }

    fn holders(&mut self, log: &LogView<'_>, end: Offset) -> Holders {
        assert!(end <= log.high_watermark, "asked when it is acknowledged");
        Holders { written: 3, flushed: 3, zones: 2 }
    }
}

#[tokio::test]
async fn who_has_an_append_is_asked_in_the_step_that_acknowledges_it() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, LogConfig::default()).await;
    lead(&log, 1).await;
    let alone = produce(&log, batch("a", 1)).await.unwrap().holders;
    assert_eq!(alone, Holders { written: 1, flushed: 1, zones: 1 });
    log.control(Control::SetAdmission(Box::new(Three(Leader { epoch: 2, holds_at: None })))).await.unwrap();
    let three = produce(&log, batch("b", 1)).await.unwrap().holders;
    assert_eq!(three, Holders { written: 3, flushed: 3, zones: 2 });
}
