//! Two replicas of one partition, kept in step through random failovers and crashes at any moment: whenever the follower
//! has all that its leader has, the two are one log.
//!
//! A run is decided by its seed. What replication does between them is done here as plainly as it can be said: a follower
//! cuts its log where the two histories part, takes what comes behind that, and says how far it is flushed; the high
//! watermark is the lower of the two flushed ends, or the leader's alone while the follower is out of sync, and then it is
//! not elected. What the logs are held to:
//!
//! - What was below a high watermark is in every later leader's log.
//! - In step, frames are the same bytes but for what each says of its own disk; every question about epochs has the same
//!   answer, and so has every question about what a producer wrote; what both know where they begin is the same.
//! - What an older leadership sent is refused, whenever it comes.
//! - No cut goes below a high watermark, and an honest disk damages nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use weir_io::{FaultDisk, MemDisk, Survival};
use weir_runtime::testing::{Dice, TestOs};
use weir_storage::{
    Acks, Admission, Append, Control, Ends, Frame, HEADER_BYTES, Limit, LogConfig, LogView, NewBatch,
    Outcome, OutcomeQuery, Partition, ReadError, ReadRequest, ReplicateError, Replicated, Seed, Verdict,
    decode_frames,
};
use weir_types::{Durability, Incarnation, LeaderEpoch, Offset, Producer, ProducerId};

use crate::model::Plant;
use crate::support::{Following, Process, append, batch, by, id, try_all};

type Checked<T> = Result<T, String>;

macro_rules! require {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

/// Longer than any answer takes, by the clock of the run.
const PATIENT: Duration = Duration::from_secs(5);

/// A leader that takes everything.
struct Leading {
    epoch: LeaderEpoch,
    /// How far the others are flushed.
    acked: Arc<AtomicI64>,
}

impl Admission for Leading {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        Some(self.epoch)
    }

    fn admit(&mut self, _: &LogView<'_>, _: &Append) -> Verdict {
        Verdict::Append { leader_epoch: self.epoch }
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        self.acked.load(Ordering::Acquire).min(log.flushed_end)
    }
}

struct Replica {
    mem: MemDisk,
    disk: FaultDisk,
    process: Process,
    log: Partition,
    boots: u64,
    /// What it knows of its leader's high watermark.
    leader: Arc<AtomicI64>,
}

impl Replica {
    fn is_dead(&self) -> bool {
        self.disk.is_dead() || !self.process.fatal.lock().is_empty()
    }
}

struct World {
    dice: Dice,
    plant: Plant,
    replicas: Vec<Replica>,
    leader: usize,
    epoch: LeaderEpoch,
    acked: Arc<AtomicI64>,
    in_sync: bool,
    payloads: u64,
    committed: BTreeMap<Offset, Vec<u8>>,
    /// Whoever was told to append, and with which number.
    written: Vec<(Producer, i32)>,
    /// What was sent and has not come yet.
    on_the_way: Vec<(LeaderEpoch, Vec<Frame>)>,
    history: Vec<String>,
}

fn settings() -> LogConfig {
    LogConfig { durability: Durability::Fsync, segment_bytes: 900, ..LogConfig::default() }
}

/// Runs a seed. What went wrong, with the history.
pub(crate) fn run(seed: u64, plant: Plant) -> Result<(), String> {
    lived(seed, plant).map(drop)
}

fn lived(seed: u64, plant: Plant) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut world = World::new(seed, plant)?;
        let lived = timeout(Duration::from_secs(3600), world.live()).await;
        let lived = lived.unwrap_or_else(|_| Err("something is waited for in vain".to_owned()));
        match lived {
            Ok(()) => Ok(world.history),
            Err(what) => Err(format!("seed {seed}: {what}\n  {}", world.history.join("\n  "))),
        }
    })
}

impl World {
    fn new(seed: u64, plant: Plant) -> Checked<Self> {
        let mut world = Self {
            dice: Dice::new(seed),
            plant,
            replicas: Vec::new(),
            leader: 0,
            epoch: 0,
            acked: Arc::default(),
            in_sync: true,
            payloads: 0,
            committed: BTreeMap::new(),
            written: Vec::new(),
            on_the_way: Vec::new(),
            history: Vec::new(),
        };
        for n in 0..2 {
            let mem = MemDisk::new(seed ^ n);
            let (disk, process) = world.start(&mem, 1)?;
            let log = process.dir.create_partition(id(0), "flights", settings());
            let log = log.map_err(|error| error.to_string())?;
            world.replicas.push(Replica { mem, disk, process, log, boots: 1, leader: Arc::default() });
        }
        Ok(world)
    }

    fn start(&mut self, mem: &MemDisk, boots: u64) -> Checked<(FaultDisk, Process)> {
        let disk = FaultDisk::over_mem(mem);
        let os = TestOs::new(Arc::new(disk.clone()));
        os.set_seed(self.dice.roll());
        os.set_boot_id(&format!("boot-{boots}"));
        let note_every_bytes = if self.dice.percent(50) { 100 } else { 64 << 20 };
        let plant = self.plant;
        let process = Process::start_on(os, |options| {
            options.checkpoint_interval = Duration::from_secs(3);
            options.retention_interval = Duration::from_secs(1);
            options.note_every_bytes = note_every_bytes;
            if let Plant::Bug(mutant) = plant {
                options.mutant = Some(mutant);
            }
        });
        let process = process.map_err(|error| format!("a directory does not open: {error}"))?;
        require!(process.report.damaged.is_empty(), "damaged: {:?}", process.report.damaged);
        Ok((disk, process))
    }

    async fn live(&mut self) -> Checked<()> {
        self.elect(0).await?;
        for _ in 0..15 + self.dice.below(25) {
            self.step().await?;
            self.bring_back().await?;
        }
        self.history.push("in the end".to_owned());
        loop {
            self.bring_back().await?;
            self.subscribe().await?;
            self.catch_up(true).await?;
            // One that led before may have heard of a later start than its successor.
            let offset = self.log(self.follower()).ends().log_start;
            let _ = timeout(PATIENT, self.log(self.leader).control(Control::SetLogStart { offset })).await;
            self.compare().await?;
            // A process that is to die may do so here.
            if !self.replicas.iter().any(Replica::is_dead) {
                break;
            }
        }
        let (one, two) = (self.log(self.leader).ends(), self.log(self.follower()).ends());
        require!((one.log_start, one.log_end) == (two.log_start, two.log_end), "{one:?}, {two:?}");
        Ok(())
    }

    fn follower(&self) -> usize {
        1 - self.leader
    }

    fn log(&self, n: usize) -> Partition {
        self.replicas[n].log.clone()
    }

    async fn step(&mut self) -> Checked<()> {
        if self.dice.percent(15) {
            let n = self.dice.below(2) as usize;
            let changes = self.dice.below(25);
            self.history.push(format!("{n} dies after {changes} changes"));
            self.replicas[n].disk.die_after(changes);
        }
        match self.dice.below(100) {
            0..30 => self.produce().await,
            30..50 => {
                let whole = self.dice.percent(50);
                self.catch_up(whole).await?;
                self.compare().await?;
            }
            50..62 => {
                let to = if self.in_sync { self.dice.below(2) as usize } else { self.leader };
                self.elect(to).await?;
            }
            62..68 => {
                let n = self.dice.below(2) as usize;
                let _ = self.log(n).control(Control::Roll).await;
            }
            68..73 => {
                let n = self.dice.below(2) as usize;
                let _ = self.replicas[n].process.dir.checkpoint();
            }
            73..78 => self.send_late().await,
            78..84 => self.deliver_late().await?,
            84..90 => self.move_start().await,
            90..94 => {
                self.history.push("the follower is out of sync".to_owned());
                self.in_sync = false;
                self.acked.store(i64::MAX, Ordering::Release);
                self.log(self.leader).advance();
            }
            _ => tokio::time::sleep(Duration::from_secs(self.dice.below(5))).await,
        }
        Ok(())
    }

    fn batch(&mut self) -> NewBatch {
        self.payloads += 1;
        let mut payload = self.payloads.to_le_bytes().to_vec();
        payload.resize(8 + self.dice.below(200) as usize, self.payloads as u8);
        let records = 1 + self.dice.below(3) as i32;
        let plain = batch(payload, records);
        if self.dice.percent(40) {
            return plain;
        }
        let (producer, sequence) = (self.dice.below(3) as i64, self.payloads as i32);
        self.written.push((Producer { id: ProducerId(producer), epoch: 0 }, sequence));
        by(producer, 0, sequence, plain)
    }

    /// Some batches, written when this returns; now and then a fence.
    async fn produce(&mut self) {
        let count = 1 + self.dice.below(5);
        self.history.push(format!("produce {count}"));
        let leader = self.log(self.leader);
        let appends = (0..count).map(|_| append(self.batch(), Acks::None).0).collect();
        leader.submit(appends);
        if let Some((producer, base_sequence)) = self.written.last().filter(|_| self.dice.percent(10)) {
            let query = OutcomeQuery { producer: *producer, base_sequence: base_sequence + 1, seal: true };
            // The answer waits for the follower.
            let _ = timeout(Duration::from_millis(1), leader.append_outcome(query)).await;
        }
    }

    /// A process that is dead is started again; whoever led leads no more.
    async fn bring_back(&mut self) -> Checked<()> {
        for n in 0..2 {
            if !self.replicas[n].is_dead() {
                continue;
            }
            let killed = self.dice.percent(40);
            self.history.push(format!("{n} is {}", if killed { "killed" } else { "without power" }));
            let survival = match self.dice.below(4) {
                0 => Survival::Nothing,
                1 => Survival::Everything,
                _ => Survival::Drawn(self.dice.roll()),
            };
            let old = &self.replicas[n];
            let mem = if killed { old.mem.kill() } else { old.mem.power_loss(survival) };
            let boots = old.boots + u64::from(!killed);
            let (disk, process) = self.start(&mem, boots)?;
            let log = process.dir.partition(id(0)).ok_or_else(|| format!("{n} has no log any more"))?;
            log.control(Control::Configure(settings())).await.map_err(|error| error.to_string())?;
            self.replicas[n] = Replica { mem, disk, process, log, boots, leader: Arc::default() };
            let to = if n == self.leader && self.in_sync { self.dice.below(2) as usize } else { self.leader };
            self.elect(to).await?;
        }
        Ok(())
    }

    /// Whoever has all that is committed leads from now on.
    async fn elect(&mut self, to: usize) -> Checked<()> {
        self.epoch += 1;
        self.leader = to;
        self.history.push(format!("{to} leads in epoch {}", self.epoch));
        self.acked = Arc::new(AtomicI64::new(if self.in_sync { 0 } else { i64::MAX }));
        let leading = Leading { epoch: self.epoch, acked: Arc::clone(&self.acked) };
        let led = self.log(to).control(Control::SetAdmission(Box::new(leading))).await;
        if self.replicas[to].is_dead() {
            return Ok(());
        }
        led.map_err(|error| format!("{to} does not lead: {error}"))?;
        self.holds_what_is_committed(to).await?;
        self.subscribe().await
    }

    async fn holds_what_is_committed(&self, n: usize) -> Checked<()> {
        let log = self.log(n);
        let frames = match try_all(&log).await {
            Ok(frames) => frames,
            Err(_) if self.replicas[n].is_dead() => return Ok(()),
            Err(error) => return Err(format!("{n} cannot be read: {error}")),
        };
        let there: BTreeMap<_, _> =
            frames.iter().map(|frame| (frame.header.base_offset, &frame.payload)).collect();
        let log_start = log.ends().log_start;
        for (offset, payload) in self.committed.range(log_start..) {
            let found = there.get(offset).is_some_and(|found| ***found == **payload);
            require!(found, "offset {offset} was committed, and {n} leads without it");
        }
        Ok(())
    }

    /// The follower hears of its leader, and cuts its log where the two part.
    async fn subscribe(&mut self) -> Checked<()> {
        let n = self.follower();
        let (leader, follower) = (self.log(self.leader), self.log(n));
        let known = Arc::new(AtomicI64::new(0));
        self.replicas[n].leader = Arc::clone(&known);
        let following = Following { epoch: self.epoch, leader: known, seen: Arc::default() };
        let heard = follower.control(Control::SetAdmission(Box::new(following))).await;
        if self.replicas[n].is_dead() {
            return Ok(());
        }
        heard.map_err(|error| format!("{n} does not follow: {error}"))?;
        loop {
            let Some(last) = follower.last_epoch() else { return Ok(()) };
            let (epoch, end) = leader.epoch_end(last);
            // Of an epoch that it lacks, too, it knows where what came before has ended.
            let (own, own_end) = follower.epoch_end(epoch);
            let to = if own == epoch { end.min(own_end) } else { own_end };
            let to = to.max(follower.ends().log_start);
            self.history.push(format!("{n} is cut at {to} of {:?}", follower.ends()));
            let truncate = Control::Truncate { to, below_high_watermark: false, following: None };
            let cut = timeout(PATIENT, follower.control(truncate)).await;
            if self.replicas[n].is_dead() {
                return Ok(());
            }
            cut.map_err(|_| format!("{n} is not cut"))?
                .map_err(|error| format!("{n} cannot be cut at {to}: {error}"))?;
            if own == epoch || follower.last_epoch() == Some(last) {
                return Ok(());
            }
        }
    }

    async fn sent(&self, from: Offset) -> Result<Vec<Frame>, ReadError> {
        let leader = self.log(self.leader);
        let request = ReadRequest { from, bytes_max: 700, limit: Limit::LogEnd };
        let chunk = leader.read(request).await?;
        match decode_frames(chunk.bytes, leader.id(), leader.incarnation()) {
            (frames, None) => Ok(frames),
            (_, Some(error)) => Err(ReadError::Damaged(error.to_string())),
        }
    }

    async fn replicate(
        &self,
        leader_epoch: LeaderEpoch,
        frames: Vec<Frame>,
    ) -> Checked<Result<Ends, ReplicateError>> {
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |result| drop(tell.send(result)));
        self.log(self.follower()).replicate(Replicated { leader_epoch, frames, done });
        let told = timeout(PATIENT, told).await.map_err(|_| "frames are not answered".to_owned())?;
        told.map_err(|_| "an answer was dropped".to_owned())
    }

    /// The follower takes what its leader has, all of it or a part, and both hear of what is committed.
    async fn catch_up(&mut self, whole: bool) -> Checked<()> {
        let n = self.follower();
        loop {
            let (end, leader_end) = (self.log(n).ends().log_end, self.log(self.leader).ends().log_end);
            if end >= leader_end || (!whole && self.dice.percent(40)) {
                break;
            }
            let frames = match self.sent(end).await {
                Ok(frames) => frames,
                Err(ReadError::OutOfRange { .. }) => {
                    self.start_over().await?;
                    if self.replicas.iter().any(Replica::is_dead) {
                        return Ok(());
                    }
                    continue;
                }
                Err(_) if self.replicas[self.leader].is_dead() => return Ok(()),
                Err(error) => return Err(format!("what is behind {end} is not sent: {error}")),
            };
            let taken = self.replicate(self.epoch, frames).await?;
            if self.replicas.iter().any(Replica::is_dead) {
                return Ok(());
            }
            taken.map_err(|error| format!("frames behind {end} are not taken: {error}"))?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        if self.replicas.iter().any(Replica::is_dead) {
            return Ok(());
        }
        let (leader, follower) = (self.log(self.leader), self.log(n));
        let flushed = follower.ends().flushed_end;
        if !self.in_sync && flushed >= leader.ends().log_end {
            self.history.push("the follower is in sync".to_owned());
            self.in_sync = true;
        }
        if self.in_sync {
            self.acked.store(flushed, Ordering::Release);
            leader.advance();
        }
        self.replicas[n].leader.store(leader.ends().high_watermark, Ordering::Release);
        follower.advance();
        let begin = leader.ends().log_start.min(follower.ends().high_watermark);
        if begin > follower.ends().log_start {
            let moved = timeout(PATIENT, follower.control(Control::SetLogStart { offset: begin })).await;
            let moved = matches!(moved, Ok(Ok(()))) || self.replicas[n].is_dead();
            require!(moved, "the follower's start is not moved to {begin}");
        }
        let Ok(frames) = try_all(&leader).await else { return Ok(()) };
        let high_watermark = leader.ends().high_watermark;
        for frame in frames.iter().filter(|frame| frame.header.next_offset() <= high_watermark) {
            self.committed.insert(frame.header.base_offset, frame.payload.to_vec());
        }
        Ok(())
    }

    async fn start_over(&mut self) -> Checked<()> {
        let n = self.follower();
        let Ok(state) = self.log(self.leader).start_state().await else { return Ok(()) };
        self.history.push(format!("{n} starts over at {}", state.offset()));
        let began = self.replicas[n].process.dir.start_over("flights", settings(), state).await;
        if self.replicas[n].is_dead() {
            return Ok(());
        }
        self.replicas[n].log = began.map_err(|error| format!("{n} does not start over: {error}"))?;
        self.subscribe().await
    }

    /// Something is sent, and takes its time.
    async fn send_late(&mut self) {
        let from = self.log(self.follower()).ends().log_end;
        if let Some(frames) = self.sent(from).await.ok().filter(|frames| !frames.is_empty()) {
            self.on_the_way.push((self.epoch, frames));
        }
    }

    async fn deliver_late(&mut self) -> Checked<()> {
        let Some((epoch, frames)) = self.on_the_way.pop() else { return Ok(()) };
        let before = self.log(self.follower()).ends().log_end;
        let taken = self.replicate(epoch, frames).await?;
        self.history.push(format!("late, of epoch {epoch}: {taken:?}"));
        if epoch != self.epoch && !self.replicas[self.follower()].is_dead() {
            let after = self.log(self.follower()).ends().log_end;
            let refused = matches!(taken, Err(ReplicateError::WrongEpoch { .. }));
            require!(refused && after == before, "epoch {epoch} was taken in {}", self.epoch);
        }
        Ok(())
    }

    async fn move_start(&mut self) {
        let leader = self.log(self.leader);
        let ends = leader.ends();
        let offset = ends.log_start + self.dice.below((ends.last_stable - ends.log_start + 1) as u64) as i64;
        self.history.push(format!("start at {offset}"));
        let _ = timeout(PATIENT, leader.control(Control::SetLogStart { offset })).await;
    }

    /// In step the two are one log.
    async fn compare(&self) -> Checked<()> {
        let (leader, follower) = (self.log(self.leader), self.log(self.follower()));
        let (one, two) = (leader.ends(), follower.ends());
        let together = one.log_end == two.log_end && one.log_start == two.log_start;
        if !together || self.replicas.iter().any(Replica::is_dead) {
            return Ok(());
        }
        let (Ok(theirs), Ok(own)) = (try_all(&leader).await, try_all(&follower).await) else {
            let dead = self.replicas.iter().any(Replica::is_dead);
            return if dead { Ok(()) } else { Err("a log cannot be read".to_owned()) };
        };
        let bytes = |frames: &[Frame]| frames.iter().map(shared).collect::<Vec<_>>();
        require!(bytes(&theirs) == bytes(&own), "the frames differ:\n{theirs:?}\n{own:?}");
        for epoch in 0..=self.epoch + 1 {
            let (theirs, own) = (leader.epoch_end(epoch), follower.epoch_end(epoch));
            require!(theirs == own, "epoch {epoch} ends at {theirs:?} and {own:?}");
        }
        require!(leader.last_epoch() == follower.last_epoch(), "their last epochs differ");
        for (producer, base_sequence) in &self.written {
            let query = OutcomeQuery { producer: *producer, base_sequence: *base_sequence, seal: false };
            let (theirs, own) = (outcome(&leader, query).await, outcome(&follower, query).await);
            require!(theirs == own, "{query:?}: {theirs:?} and {own:?}");
        }
        let (theirs, own) = (leader.start_state().await, follower.start_state().await);
        if let (Ok(theirs), Ok(own)) = (theirs, own) {
            require!(theirs == own, "they begin with {theirs:?} and {own:?}");
        }
        Ok(())
    }
}

/// What both have of a frame, byte for byte.
fn shared(frame: &Frame) -> (Vec<u8>, Vec<u8>) {
    let header = frame.header.encode(Seed::of(id(0), Incarnation(0)));
    (header[..HEADER_BYTES - 8].to_vec(), frame.payload.to_vec())
}

/// What became of an append, committed or not.
async fn outcome(log: &Partition, query: OutcomeQuery) -> Option<Outcome> {
    match log.append_outcome(query).await.ok()?.ok()? {
        Outcome::Pending(batch) => Some(Outcome::Appended(batch)),
        outcome => Some(outcome),
    }
}

#[test]
fn two_replicas_are_one_log_whoever_dies_and_whoever_leads() {
    let said = ["is cut at", "starts over", "without power", "WrongEpoch", "is in sync"];
    let mut counts = [0; 5];
    for seed in 0..400 {
        let history = lived(seed, Plant::Nothing).unwrap_or_else(|what| panic!("{what}"));
        for (count, words) in counts.iter_mut().zip(said) {
            *count += history.iter().filter(|line| line.contains(words)).count();
        }
    }
    assert!(counts.iter().all(|count| *count > 20), "{said:?}: {counts:?} are too few to say anything");
}
