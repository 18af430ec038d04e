//! Wall clocks that jump, in a fourth of the runs: what is known of producers is what the frames say, whatever the clock has
//! said meanwhile, and append times go back by much or not at all.
//!
//! What has to be drawn for it is drawn by dice of its own: the other runs are what they were.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use weir_io::FaultDisk;
use weir_runtime::testing::{Dice, START_WALL_MS, TestOs};
use weir_storage::{Frame, LogConfig, Outcome, OutcomeQuery, Partition, UnknownCause};
use weir_types::{Producer, ProducerId};

use super::{Checked, World, look};
use crate::support::{Process, id};

const HOUR_MS: i64 = 3_600_000;
const YEARS_MS: i64 = 73 * 365 * 24 * HOUR_MS;

/// Append times do not go back by less.
const JUMP_MS: i64 = 60_000;

/// The clock of the machine.
pub(super) struct Clock {
    dice: Dice,
    pub(super) jumps: bool,
    /// What it would show if it were right.
    right_ms: i64,
    pub(super) shows_ms: i64,
}

impl Clock {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(!seed);
        let jumps = dice.percent(25);
        Self { dice, jumps, right_ms: START_WALL_MS, shows_ms: START_WALL_MS }
    }

    /// The next process sees the same clock. For how long it does not believe it.
    pub(super) fn begin(&mut self, os: &TestOs) -> Duration {
        os.set_wall_ms(self.shows_ms);
        let at_once = self.jumps && self.dice.percent(60);
        if at_once { Duration::ZERO } else { Duration::from_secs(600) }
    }
}

impl World {
    /// The clock may jump before the next step, and somebody may write by what it shows.
    pub(super) async fn jump(&mut self, process: &Process) -> Checked<()> {
        let clock = &mut self.clock;
        if !clock.jumps || !clock.dice.percent(40) {
            return Ok(());
        }
        clock.right_ms += clock.dice.below(250) as i64 * HOUR_MS;
        let is_wrong_by_ms = match clock.dice.below(10) {
            0..5 => 0,
            5..8 => YEARS_MS,
            8 => clock.dice.below(240_000) as i64 - 120_000,
            // It begins in 1970.
            _ => 5_000 - clock.right_ms,
        };
        clock.shows_ms = clock.right_ms + is_wrong_by_ms;
        process.os.set_wall_ms(clock.shows_ms);
        self.history.push(format!("the clock shows {}", clock.shows_ms));
        let partition = clock.dice.below(3) as i32;
        if clock.dice.percent(70)
            && let Some(log) = process.dir.partition(id(partition))
            && self.models.contains_key(&partition)
        {
            self.sequence(&log, partition).await?;
        }
        Ok(())
    }

    /// A batch is refused because its producer is not known: forgotten, if the clock has jumped.
    pub(super) async fn forgotten(&mut self, log: &Partition, partition: i32) -> Checked<()> {
        let clock_ms = self.clock.shows_ms;
        let (ends, read) = look(log).await;
        let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
        model.open = None;
        model.sealing = false;
        let Some((producer, _)) = model.producer.take() else { return Ok(()) };
        self.history.push(format!("p{partition} has forgotten {}", producer.id));
        let Some(frames) = read.ok().filter(|_| ends.log_start == 0) else { return Ok(()) };
        let known = Known::of(&frames);
        require!(
            !known.is_young(producer.id, clock_ms),
            "partition {partition} has forgotten {}, who wrote at {:?}",
            producer.id,
            known.times.get(&producer.id)
        );
        Ok(())
    }

    /// Holds a log whose frames are all there to what they say of producers.
    pub(super) async fn check_producers(
        &self,
        log: &Partition,
        frames: &[Frame],
        disk: &FaultDisk,
    ) -> Checked<()> {
        let (known, end) = (Known::of(frames), log.ends().log_end);
        for (producer_id, epoch) in &known.epochs {
            let producer = Producer { id: *producer_id, epoch: *epoch };
            let query = OutcomeQuery { producer, base_sequence: 0, seal: false };
            let asked = timeout(Duration::from_secs(5), log.append_outcome(query)).await;
            let Ok(Ok(Ok(outcome))) = asked else { return Ok(()) };
            if disk.is_dead() || log.ends().log_end != end {
                return Ok(());
            }
            let is_known = outcome != Outcome::Unknown(UnknownCause::Expired);
            let time = known.times.get(producer_id);
            require!(
                !is_known || time.is_some(),
                "{producer_id} is to be forgotten, and is not: {outcome:?}"
            );
            let is_young = known.is_young(*producer_id, self.clock.shows_ms);
            require!(is_known || !is_young, "{producer_id} wrote at {time:?}, and is forgotten");
        }
        Ok(())
    }
}

/// What the frames of a log say of its producers, from its first frame on.
struct Known {
    /// Those that are not forgotten: when they wrote last, no later than what is behind it.
    times: BTreeMap<ProducerId, i64>,
    /// All that ever wrote.
    epochs: BTreeMap<ProducerId, i32>,
    last_ms: i64,
}

impl Known {
    fn of(frames: &[Frame]) -> Self {
        let expiry_ms = LogConfig::default().producer_expiry_ms;
        let mut known = Self { times: BTreeMap::new(), epochs: BTreeMap::new(), last_ms: i64::MIN };
        for header in frames.iter().map(|frame| &frame.header) {
            let now_ms = header.append_time_ms;
            known.times.values_mut().for_each(|time_ms| *time_ms = now_ms.min(*time_ms));
            known.times.retain(|_, time_ms| *time_ms + expiry_ms > now_ms);
            if let Some(producer) = header.producer {
                known.times.insert(producer.id, now_ms);
                known.epochs.insert(producer.id, producer.epoch);
            }
            known.last_ms = now_ms;
        }
        known
    }

    /// Whether it must not be forgotten by whoever appends now.
    fn is_young(&self, id: ProducerId, clock_ms: i64) -> bool {
        let expiry_ms = LogConfig::default().producer_expiry_ms;
        self.times.get(&id).is_some_and(|time_ms| time_ms + expiry_ms > clock_ms.max(self.last_ms))
    }
}

/// Within a log the time goes back by much, or not at all.
pub(super) fn compare_times(frames: &[Frame]) -> Checked<()> {
    for pair in frames.windows(2) {
        let [before, next] = [0, 1].map(|at| pair[at].header.append_time_ms);
        require!(
            next >= before || before - next > JUMP_MS,
            "offset {}: appended at {next}, after {before}",
            pair[1].header.base_offset
        );
    }
    Ok(())
}
