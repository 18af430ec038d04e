//! What a process does in its life: one step after another, each drawn, and what its answers promise.

use std::time::Duration;

use tokio::time::timeout;
use weir_io::{Effect, Fault, FaultDisk, Op, Rule};
use weir_storage::{Acks, AppendError, Appended, Control, LogConfig, Partition, Refused};
use weir_types::{Durability, Offset, Producer, ProducerId};

use super::{Checked, Existence, Model, World, look};
use crate::support::{Answered, Process, append, batch, by, id};

impl World {
    pub(super) async fn step(&mut self, process: &Process, disk: &FaultDisk) -> Checked<()> {
        let partition = self.dice.below(3) as i32;
        let exists = self.models.get(&partition).is_some_and(|model| model.exists == Existence::Yes);
        let Some(log) = process.dir.partition(id(partition)).filter(|_| exists) else {
            return self.create(process, disk, partition).await;
        };
        if self.dice.percent(8) {
            self.dies_soon(disk);
        }
        match self.dice.below(100) {
            0..42 => self.produce(&log, partition).await?,
            42..50 => self.sequence(&log, partition).await?,
            50..54 => self.want(disk),
            54..58 => self.conditional(&log, partition).await?,
            58..66 => self.truncate(&log, partition, disk).await?,
            66..72 => self.move_start(&log, partition, disk).await?,
            72..77 => {
                self.history.push(format!("p{partition} roll"));
                let _ = log.control(Control::Roll).await;
            }
            77..83 => {
                self.history.push("checkpoint".to_owned());
                let _ = process.dir.checkpoint();
            }
            83..88 => tokio::time::sleep(Duration::from_secs(self.dice.below(5))).await,
            88..92 => self.delete(process, disk, partition).await?,
            92..93 => self.fail_sync(disk),
            93..96 => self.fail_writeback(process, &log, partition).await?,
            96..98 => self.lag(&log, partition).await?,
            98..100 => self.no_room(&log, partition, disk).await?,
            _ => {}
        }
        let alive = !disk.is_dead() && process.fatal.lock().is_empty();
        if let Some(log) = process.dir.partition(id(partition)).filter(|_| alive) {
            self.check(&log, partition, disk).await?;
        }
        Ok(())
    }

    async fn create(&mut self, process: &Process, disk: &FaultDisk, partition: i32) -> Checked<()> {
        let durability = if self.dice.percent(60) { Durability::Fsync } else { Durability::Replicated };
        let segment_bytes = 500 + self.dice.below(6000);
        let retention_bytes = self.dice.percent(40).then(|| self.dice.below(4000));
        let config = LogConfig { durability, segment_bytes, retention_bytes, ..LogConfig::default() };
        self.history.push(format!("p{partition} create {durability}, retention {retention_bytes:?}"));
        self.models.insert(partition, Model::new(config.clone(), Existence::Maybe));
        let created = process.dir.create_partition(id(partition), "flights", config);
        match created {
            Ok(log) => {
                if let Some(model) = self.models.get_mut(&partition) {
                    model.exists = Existence::Yes;
                }
                self.lead(&log, partition, None).await;
                Ok(())
            }
            Err(_) if disk.is_dead() || self.wants => Ok(()),
            Err(error) => Err(format!("partition {partition} cannot be created: {error}")),
        }
    }

    async fn delete(&mut self, process: &Process, disk: &FaultDisk, partition: i32) -> Checked<()> {
        self.history.push(format!("p{partition} delete"));
        let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
        model.exists = Existence::Maybe;
        let deleted = timeout(Duration::from_secs(5), process.dir.set_aside(vec![id(partition)])).await;
        match deleted {
            Ok(Ok(failed)) if failed.is_empty() => *model = Model::new(model.config.clone(), Existence::No),
            _ if disk.is_dead() || !process.fatal.lock().is_empty() => {}
            other => return Err(format!("partition {partition} cannot be deleted: {other:?}")),
        }
        Ok(())
    }

    fn payload(&mut self) -> Vec<u8> {
        self.payloads += 1;
        let len = match self.dice.below(10) {
            0 => 0,
            1 => 3000 + self.dice.below(6000),
            _ => self.dice.below(400),
        };
        let mut payload = self.payloads.to_le_bytes().to_vec();
        payload.extend((0..len).map(|n| (n ^ self.payloads) as u8));
        payload
    }

    async fn produce(&mut self, log: &Partition, partition: i32) -> Checked<()> {
        let wait = self.dice.percent(70);
        let answers = self.submit(log, partition);
        if wait { self.settle(log, partition, answers).await } else { Ok(()) }
    }

    /// Some batches in one group, written when this returns, and not synced by then.
    fn submit(&mut self, log: &Partition, partition: i32) -> Vec<(Answered, Vec<u8>, Option<i32>)> {
        let count = 1 + self.dice.below(6);
        self.history.push(format!("p{partition} produce {count}"));
        let mut answers = Vec::new();
        let mut appends = Vec::new();
        for _ in 0..count {
            let payload = self.payload();
            let acks = if self.dice.percent(80) { Acks::All } else { Acks::Leader };
            let (append, answer) = append(batch(payload.clone(), 1 + self.dice.below(4) as i32), acks);
            self.models.entry(partition).and_modify(|model| model.submitted.push(payload.clone()));
            appends.push(append);
            answers.push((answer, payload, None));
        }
        log.submit(appends);
        answers
    }

    /// A producer's next batch, with an impatient copy of it in the same group or right behind.
    pub(super) async fn sequence(&mut self, log: &Partition, partition: i32) -> Checked<()> {
        let payload = self.payload();
        let new_id = ProducerId(self.payloads as i64);
        let twice = self.dice.percent(60);
        let together = self.dice.percent(50);
        let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
        if model.open.is_some() {
            return Ok(());
        }
        let fresh = (Producer { id: new_id, epoch: 0 }, 0);
        let (producer, sequence) = *model.producer.get_or_insert(fresh);
        self.history.push(format!("p{partition} sequence {sequence}, twice {twice}, together {together}"));
        model.submitted.push(payload.clone());
        model.open = Some((sequence, payload.clone()));
        let mut appends = Vec::new();
        let mut answers = Vec::new();
        for _ in 0..if twice { 2 } else { 1 } {
            let one = by(producer.id.0, producer.epoch, sequence, batch(payload.clone(), 1));
            let (append, answer) = append(one, Acks::All);
            appends.push(append);
            answers.push((answer, payload.clone(), Some(sequence)));
        }
        if together {
            log.submit(appends);
        } else {
            for append in appends {
                log.submit(vec![append]);
            }
        }
        self.settle(log, partition, answers).await
    }

    /// Two writers that expect the same offset: one of them gets it.
    async fn conditional(&mut self, log: &Partition, partition: i32) -> Checked<()> {
        self.history.push(format!("p{partition} conditional"));
        let expected = log.ends().log_end;
        let mut appends = Vec::new();
        let mut answers = Vec::new();
        for _ in 0..2 {
            let payload = self.payload();
            let (mut append, answer) = append(batch(payload.clone(), 1), Acks::All);
            append.expected_next_offset = Some(expected);
            let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
            model.submitted.push(payload.clone());
            appends.push(append);
            answers.push((answer, payload));
        }
        log.submit(appends);
        let mut taken = 0;
        let mut known = Vec::new();
        for (mut answer, payload) in answers {
            match timeout(Duration::from_secs(5), &mut answer).await {
                Ok(Ok(Ok(appended))) => {
                    require!(appended.base_offset == expected, "a condition on {expected} got {appended:?}");
                    taken += 1;
                    known.push((appended, payload));
                }
                Ok(Ok(Err(AppendError::Refused(Refused::OffsetMismatch { next })))) => {
                    require!(next > expected, "expected {expected}, refused because of {next}");
                    let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
                    model.submitted.retain(|other| *other != payload);
                }
                _ => {}
            }
        }
        require!(taken <= 1, "two conditions on {expected} were met");
        for (appended, payload) in known {
            self.acked(partition, &appended, payload, true)?;
        }
        Ok(())
    }

    /// Waits for answers and notes what they promise.
    pub(super) async fn settle(
        &mut self,
        log: &Partition,
        partition: i32,
        answers: Vec<(Answered, Vec<u8>, Option<i32>)>,
    ) -> Checked<()> {
        for (mut answer, payload, sequence) in answers {
            let Ok(answer) = timeout(Duration::from_secs(5), &mut answer).await else { continue };
            let answer = answer.map_err(|_| "an append was not answered".to_owned())?;
            match answer.clone() {
                Ok(appended) => {
                    let all = sequence.is_some() || appended.committed;
                    self.acked(partition, &appended, payload, all)?;
                    if let (Some(sequence), Some(model)) = (sequence, self.models.get_mut(&partition)) {
                        model.open = None;
                        if let Some((_, next)) = &mut model.producer {
                            *next = sequence + 1;
                        }
                    }
                }
                Err(AppendError::Indeterminate) => {}
                // It never comes, unless it is sent again.
                Err(AppendError::Closed | AppendError::DiskFull { .. } | AppendError::NoHandles)
                    if self.wants || answer == Err(AppendError::Closed) =>
                {
                    self.history.push(format!("p{partition}: one is refused"));
                    if let (None, Some(model)) = (sequence, self.models.get_mut(&partition)) {
                        model.submitted.retain(|other| *other != payload);
                    }
                }
                Err(AppendError::Refused(Refused::ProducerUnknown))
                    if sequence.is_some() && self.clock.jumps =>
                {
                    self.forgotten(log, partition).await?;
                }
                // What it would follow was.
                Err(AppendError::Refused(_)) if sequence.is_some() && self.wants => {}
                Err(error) => return Err(format!("an append was refused: {error}")),
            }
        }
        Ok(())
    }

    fn acked(&mut self, partition: i32, appended: &Appended, payload: Vec<u8>, all: bool) -> Checked<()> {
        let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
        require!(!all || appended.committed, "acknowledged by all and not committed: {appended:?}");
        if appended.committed {
            let before = model.acked.insert(appended.base_offset, payload.clone());
            let same = before.as_ref().is_none_or(|before| *before == payload);
            require!(same, "offset {} was acknowledged twice", appended.base_offset);
        }
        Ok(())
    }

    /// Leaves a tail uncommitted, and cuts into it.
    async fn truncate(&mut self, log: &Partition, partition: i32, disk: &FaultDisk) -> Checked<()> {
        let held = log.ends().high_watermark;
        if let Some(model) = self.models.get_mut(&partition) {
            model.only_grew = false;
        }
        self.lead(log, partition, Some(held)).await;
        self.produce(log, partition).await?;
        if self.dice.percent(50) {
            // Some of the tail is durable by then, and proves it.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if self.dice.percent(50) {
            self.produce(log, partition).await?;
        }
        let (ends, read) = look(log).await;
        let frames = match read {
            Ok(frames) => frames,
            Err(_) if disk.is_dead() || self.lied || self.wants => return Ok(()),
            Err(error) => return Err(format!("partition {partition} cannot be read: {error}")),
        };
        let begin = frames.iter().map(|frame| frame.header.base_offset).chain([ends.log_end]);
        let may_be: Vec<_> = begin.filter(|at| (ends.high_watermark..=ends.log_end).contains(at)).collect();
        // Mostly so that much is kept of what nobody has synced.
        let among = if self.dice.percent(60) { may_be.len().min(3) } else { may_be.len() };
        let to = may_be[may_be.len() - 1 - self.dice.below(among as u64) as usize];
        self.history.push(format!("p{partition} truncate {} to {to}", ends.log_end));
        if self.dice.percent(30) {
            self.dies_soon(disk);
        }
        let cut = timeout(
            Duration::from_secs(5),
            log.control(Control::Truncate { to, below_high_watermark: false, following: None }),
        )
        .await;
        match cut {
            Ok(Ok(())) => require!(log.ends().log_end == to, "cut to {to}: {:?}", log.ends()),
            _ if disk.is_dead() || self.lied => return Ok(()),
            // Nothing has changed, or the process ends.
            Ok(Err(_)) if self.wants => {
                require!(log.ends().log_end >= to, "not cut to {to}: {:?}", log.ends());
            }
            other => return Err(format!("a log cannot be cut to {to}: {other:?}")),
        }
        self.lead(log, partition, None).await;
        Ok(())
    }

    /// Nothing more is committed for a while, as if a follower lagged; retention looks on.
    async fn lag(&mut self, log: &Partition, partition: i32) -> Checked<()> {
        self.history.push(format!("p{partition} lags"));
        let held = log.ends().high_watermark;
        self.lead(log, partition, Some(held)).await;
        for _ in 0..2 {
            self.produce(log, partition).await?;
            let _ = log.control(Control::Roll).await;
        }
        tokio::time::sleep(Duration::from_secs(self.dice.below(5))).await;
        self.lead(log, partition, None).await;
        Ok(())
    }

    /// For a while there is room for appends alone, and neither for a checkpoint nor for what is written beside a
    /// segment.
    async fn no_room(&mut self, log: &Partition, partition: i32, disk: &FaultDisk) -> Checked<()> {
        self.history.push(format!("p{partition} no room"));
        let no_space = || Rule::on([Op::Write], Effect::Fail(Fault::NoSpace));
        let full = ["checkpoint.tmp", ".seal.tmp"].map(|ending| disk.add(no_space().ends_with(ending)));
        self.sequence(log, partition).await?;
        self.produce(log, partition).await?;
        let _ = log.control(Control::Roll).await;
        tokio::time::sleep(Duration::from_secs(self.dice.below(4))).await;
        full.into_iter().for_each(|rule| disk.remove(rule));
        if self.dice.percent(50) {
            // What has no sidecar is to go.
            self.begin_at(log, partition, disk, log.ends().last_stable).await?;
        }
        Ok(())
    }

    async fn move_start(&mut self, log: &Partition, partition: i32, disk: &FaultDisk) -> Checked<()> {
        let ends = log.ends();
        let offset = ends.log_start + self.dice.below((ends.last_stable - ends.log_start + 1) as u64) as i64;
        if self.dice.percent(25) {
            self.dies_soon(disk);
        }
        self.begin_at(log, partition, disk, offset).await
    }

    async fn begin_at(
        &mut self,
        log: &Partition,
        partition: i32,
        disk: &FaultDisk,
        offset: Offset,
    ) -> Checked<()> {
        self.history.push(format!("p{partition} start at {offset}"));
        let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
        model.start_asked = model.start_asked.max(offset);
        let moved = timeout(Duration::from_secs(5), log.control(Control::SetLogStart { offset })).await;
        match moved {
            Ok(Ok(())) => model.start_acked = model.start_acked.max(offset),
            _ if disk.is_dead() || self.lied || self.wants => {}
            other => return Err(format!("the start cannot be moved to {offset}: {other:?}")),
        }
        Ok(())
    }

    /// The next sync fails and loses what it should have written.
    fn fail_sync(&mut self, disk: &FaultDisk) {
        self.history.push("the next sync fails".to_owned());
        self.lied = true;
        disk.add(Rule::on([Op::SyncData], Effect::LoseDirty).ends_with(".log").once());
    }

    /// The system fails to write back some file, and says so once to whoever has it open: now and then of what was
    /// written last, while other files are opened.
    async fn fail_writeback(&mut self, process: &Process, log: &Partition, partition: i32) -> Checked<()> {
        let mut answers = Vec::new();
        if self.dice.percent(50) {
            answers = self.submit(log, partition);
            for other in (0..3).filter(|other| *other != partition) {
                if let Some(log) = process.dir.partition(id(other)) {
                    self.submit(&log, other);
                }
            }
        }
        self.history.push(format!("p{partition} writeback fails"));
        self.lied = true;
        let folder = log.describe().path;
        let entries = weir_io::Disk::list(&self.mem, &folder).unwrap_or_default();
        let logs: Vec<_> = entries.iter().filter(|entry| entry.name.ends_with(".log")).collect();
        if let Some(entry) = logs.last() {
            let _ = self.mem.fail_writeback(&folder.join(&entry.name));
        }
        self.settle(log, partition, answers).await
    }

    /// It dies in the middle of what it does next.
    fn dies_soon(&mut self, disk: &FaultDisk) {
        if disk.is_dead() {
            return;
        }
        let changes = self.dice.below(16);
        self.history.push(format!("dies after {changes} changes more"));
        disk.die_after(changes);
    }
}
