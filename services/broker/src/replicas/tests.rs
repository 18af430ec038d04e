//! What becomes of a broker's session while its logs are brought in line with the metadata.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weir_io::{Disk, Effect, Fault, Op, Rule};
use weir_metadata::{
    AlterPartition, AlterPartitions, AssignDirectories, BrokerEpoch, Command, CreateCluster, CreateTopic,
    DeleteTopic, ElectLeader, Entry, FEATURE_LEVEL, JoinController, State,
};
use weir_runtime::testing::{Said, listen};
use weir_storage::ReadError;
use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

use super::*;
use crate::cluster::tests::{SESSION, is_heard};
use crate::damage::Found;
use crate::mutant::Mutant;
use crate::testing::{Parts, registers, topic};

const ID: PartitionId = PartitionId { topic: TopicId(7), partition: 0 };

/// A broker, which is told of the metadata by the test, and the state that it comes from.
struct Told {
    parts: Parts,
    known: Known,
    state: State,
    index: i64,
}

impl Told {
    /// Broker 1 is this one, 2 another; both serve.
    fn new() -> Self {
        listen();
        let parts = Parts::new();
        let ours = parts.log_dir.directory_id();
        let known = Known { registered: true, ..Known::default() };
        let mut told = Self { parts, known, state: State::default(), index: 0 };
        told.run(Command::CreateCluster(CreateCluster {
            cluster_id: ClusterId(1),
            feature_level: FEATURE_LEVEL,
            settings: [("min_insync_replicas".to_owned(), "1".to_owned())].into(),
            controller: JoinController { directory: DirectoryId(1), endpoint: "localhost:1".to_owned() },
        }));
        for directory in [ours, DirectoryId(2)] {
            told.run(registers(directory));
        }
        for id in [1, 2] {
            let by = told.by(id);
            told.run(Command::UnfenceBroker(by));
        }
        told
    }

    /// The same, as the leader of a partition with two replicas, in a session.
    async fn leading() -> Self {
        Self::leading_of(1).await
    }

    /// The same of the first of so many partitions.
    async fn leading_of(partitions: i32) -> Self {
        let mut told = Self::new();
        told.create(partitions, 2);
        told.follow().await;
        told.assign();
        told.elect(1);
        told.follow().await;
        assert!(told.leads() && told.parts.cluster.session_valid());
        told
    }

    fn by(&self, id: i32) -> BrokerEpoch {
        let broker = BrokerId(id);
        BrokerEpoch { broker, epoch: self.state.image.broker(broker).unwrap().epoch }
    }

    fn run(&mut self, command: Command) {
        self.index += 1;
        let entry = Entry { at_ms: 0, author: 0, commands: vec![command] };
        self.state.apply(self.index, &entry).outcomes.remove(0).unwrap();
    }

    /// A topic of so many partitions, all of them here.
    fn create(&mut self, partitions: i32, replicas: i32) {
        self.run(Command::CreateTopic(CreateTopic {
            name: "orders".to_owned(),
            topic_id: ID.topic,
            partitions,
            replication_factor: replicas,
            config: Default::default(),
            if_absent: false,
            internal: false,
            request_id: String::new(),
        }));
    }

    fn record(&self) -> weir_metadata::Partition {
        (**self.state.image.partition(ID).unwrap()).clone()
    }

    /// Both have made their replicas of the partitions, and are in sync in the first.
    fn assign(&mut self) {
        let topic = self.state.image.topic(ID.topic).unwrap().clone();
        let all =
            || topic.partitions.iter().map(|(partition, _)| PartitionId { partition: *partition, ..ID });
        for (id, directory) in [(1, self.parts.log_dir.directory_id()), (2, DirectoryId(2))] {
            let (by, assignments) = (self.by(id), all().map(|id| (id, directory)).collect());
            self.run(Command::AssignDirectories(AssignDirectories { by, assignments }));
        }
        if self.record().isr.len() < 2 {
            self.alter(&[1, 2]);
        }
    }

    /// These are in sync, whoever leads.
    fn alter(&mut self, in_sync: &[i32]) {
        let (record, isr) = (self.record(), in_sync.iter().map(|id| self.by(*id)).collect());
        let (leader_epoch, partition_epoch) = (record.leader_epoch, record.partition_epoch);
        let change = AlterPartition { partition: ID, leader_epoch, partition_epoch, isr };
        let by = self.by(record.leader.unwrap().0);
        self.run(Command::AlterPartitions(AlterPartitions { by, changes: vec![change] }));
    }

    fn elect(&mut self, id: i32) {
        let (broker, record) = (BrokerId(id), self.record());
        if record.leader != Some(broker) {
            let partition_epoch = record.partition_epoch;
            let elect = ElectLeader { partition: ID, broker, partition_epoch, unclean: false };
            self.run(Command::ElectLeader(elect));
        }
    }

    /// Whoever leads is elected again, after a moment without.
    fn elect_anew(&mut self) {
        let by = self.by(self.record().leader.unwrap().0);
        self.run(Command::FenceBroker(by));
        self.run(Command::UnfenceBroker(by));
        assert_eq!(self.record().leader, Some(by.broker));
    }

    fn elect_the_other(&mut self) {
        self.elect(3 - self.record().leader.unwrap().0);
    }

    /// Something else changes.
    fn go_on(&mut self) {
        self.run(Command::AllocateProducerIds(self.by(2)));
    }

    /// After a silence that has ended the session a controller answers that this version is what there is; then the broker
    /// hears of it.
    async fn follow(&mut self) {
        tokio::time::advance(2 * SESSION).await;
        let image = Arc::new(self.state.image.clone());
        is_heard(&self.parts.cluster, image.version());
        assert!(!self.parts.cluster.session_valid());
        let due = changes::between(&self.known.image, &image);
        let older = std::mem::replace(&mut self.known.image, image);
        self.parts.replicas.bring_in_line(&mut self.known, &older, &due).await;
    }

    fn leads(&self) -> bool {
        self.known.logs.get(&ID).is_some_and(|log| matches!(log.role, Some(Role::Lead { .. })))
    }
}

#[tokio::test(start_paused = true)]
async fn logs_that_are_to_be_made_do_not_put_off_the_session() {
    let mut told = Told::new();
    told.create(100, 1);
    let (cluster, late) = (told.parts.cluster.clone(), Arc::<AtomicUsize>::default());
    let count = late.clone();
    let look = move || {
        count.fetch_add(usize::from(!cluster.session_valid()), Ordering::SeqCst);
    };
    let made = told.parts.disk.add(Rule::on([Op::CreateDir], Effect::Hook(Arc::new(look))));
    told.follow().await;
    assert!(told.parts.disk.fired(made) > 0, "some are here");
    assert_eq!(late.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_set_aside_takes_no_session() {
    let mut told = Told::leading().await;
    let stays = told.parts.disk.add(Rule::on([Op::Rename], Effect::Fail(Fault::NoSpace)));
    let name = "orders".to_owned();
    told.run(Command::DeleteTopic(DeleteTopic { name, topic_id: None, request_id: String::new() }));
    told.follow().await;
    assert!(told.parts.disk.fired(stays) > 0 && told.known.failed.contains_key(&ID));
    assert!(told.leads() && told.parts.cluster.session_valid());
    // Nor later, as long as it stays.
    told.go_on();
    told.follow().await;
    assert!(told.parts.cluster.session_valid());
}

#[tokio::test(start_paused = true)]
async fn a_leadership_that_cannot_be_given_up_takes_the_session() {
    let mut told = Told::leading().await;
    // What it is about to do cannot be written down.
    let full = told.parts.disk.add(Rule::on([Op::Write, Op::Create], Effect::Fail(Fault::NoSpace)));
    told.elect(2);
    told.follow().await;
    assert!(told.parts.disk.fired(full) > 0 && told.leads());
    assert!(!told.parts.cluster.session_valid(), "somebody else may lead what is led here");
    told.parts.disk.remove(full);
    told.go_on();
    told.follow().await;
    assert!(!told.parts.cluster.session_valid(), "nor later, as long as it does");
    let (image, due) = (told.known.image.clone(), [ID].into());
    told.parts.replicas.bring_in_line(&mut told.known, &image, &due).await;
    is_heard(&told.parts.cluster, image.version());
    assert!(!told.leads() && told.parts.cluster.session_valid());
}

#[tokio::test(start_paused = true)]
async fn that_no_version_can_be_written_down_is_said_once_and_so_is_that_one_can() {
    let (said, mut told) = (Said::here(), Told::new());
    told.create(1, 2);
    told.follow().await;
    told.assign();
    told.follow().await;
    let hindered = || said.count("cannot write down the version");
    let over = || said.count("written down again");
    for round in 1..=2 {
        let full = told.parts.disk.add(Rule::on([Op::Write, Op::Create], Effect::Fail(Fault::NoSpace)));
        for _ in 0..3 {
            told.elect_the_other();
            told.follow().await;
        }
        assert!(told.parts.disk.fired(full) >= 3, "each was tried");
        assert_eq!((hindered(), over()), (round, round - 1));
        told.parts.disk.remove(full);
        for _ in 0..3 {
            told.elect_the_other();
            told.follow().await;
        }
        assert_eq!((hindered(), over()), (round, round));
    }
}

/// Follows a partition that it is not in sync of, with an empty log in the place of one that was damaged.
async fn fetching_anew() -> Told {
    let mut told = Told::leading().await;
    told.elect(2);
    told.alter(&[2]);
    let log = told.known.logs.remove(&ID).unwrap().partition;
    let (id, path, what) = (ID, log.describe().path, "rotten".to_owned());
    told.known.unusable.insert(ID, Unusable { id, path, what, is_damaged: true, whole: None });
    told
}

#[tokio::test(start_paused = true)]
async fn a_damaged_log_is_said_to_be_set_aside_once_however_often_no_other_can_be_made() {
    let (said, mut told) = (Said::here(), fetching_anew().await);
    let full = told.parts.disk.add(Rule::on([Op::CreateDir], Effect::Fail(Fault::NoSpace)));
    for _ in 0..3 {
        let (image, due) = (Arc::new(told.state.image.clone()), [ID].into());
        told.known.image = image.clone();
        told.parts.replicas.bring_in_line(&mut told.known, &image, &due).await;
        assert!(told.known.failed.contains_key(&ID) && told.parts.log_dir.is_all_aside(ID));
    }
    assert!(told.parts.disk.fired(full) >= 3, "each was tried");
    assert_eq!(said.count("a damaged log was set aside"), 1);
    told.parts.disk.remove(full);
    let (image, due) = (told.known.image.clone(), [ID].into());
    told.parts.replicas.bring_in_line(&mut told.known, &image, &due).await;
    assert!(told.known.logs.contains_key(&ID) && !told.parts.log_dir.is_all_aside(ID));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_begin_anew_is_not_taken_for_a_damaged_one() {
    let mut told = fetching_anew().await;
    told.follow().await;
    let log = told.known.logs[&ID].partition.clone();
    let role = told.known.logs[&ID].role;
    let Some(Role::Follow { leader, epoch }) = role else { panic!("{role:?}") };
    told.parts.disk.add(Rule::on([Op::CreateDir], Effect::Fail(Fault::NoSpace)).once());
    let state = log.start_state().await.unwrap();
    let restart = async |told: &mut Told| {
        let (done, begun) = tokio::sync::oneshot::channel();
        let restart = Restart { state: state.clone(), leader, epoch, done };
        told.parts.replicas.restart(&mut told.known, restart).await;
        begun.await.unwrap()
    };
    assert!(!restart(&mut told).await);
    let (image, due) = (told.known.image.clone(), [ID].into());
    told.parts.replicas.bring_in_line(&mut told.known, &image, &due).await;
    assert!(!log.is_closed(), "it is whole, and stays in its place");
    let folder = log.describe().path;
    let found = told.parts.disk.list(Path::new("/logs")).unwrap();
    let aside: Vec<_> = found.into_iter().filter(|entry| entry.name.ends_with(".damaged")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(told.parts.disk.exists(&folder).unwrap());
    assert_eq!(told.known.logs[&ID].role, role, "it is followed again");

    // Nor one whose place cannot be taken: it is closed by then, and opened again.
    let its_own = move |path: &Path| path == folder;
    told.parts.disk.add(Rule::on([Op::Rename], Effect::Fail(Fault::NoSpace)).path(its_own).once());
    assert!(!restart(&mut told).await && log.is_closed());
    told.parts.replicas.bring_in_line(&mut told.known, &image, &due).await;
    assert_eq!(told.known.logs[&ID].role, role, "it is followed again");
    assert!(restart(&mut told).await);
    assert_eq!(told.known.logs[&ID].role, role);
}

/// Between the record that is known here and what its leader has asked for since.
#[tokio::test(start_paused = true)]
async fn what_readers_find_damaged_is_set_aside_only_under_a_leader_that_has_not_let_it_in() {
    let mut told = Told::leading().await;
    told.elect(2);
    told.alter(&[2]);
    told.follow().await;
    assert!(!told.record().isr.contains(&BrokerId(1)));
    let rotten = told.known.logs[&ID].partition.clone();
    let error = ReadError::Damaged("a file at 5".to_owned());
    told.parts.damage.refused(&topic(), ID.partition, 0, &error);
    let again = async |told: &mut Told| {
        let (image, due) = (told.known.image.clone(), [ID].into());
        told.parts.replicas.bring_in_line(&mut told.known, &image, &due).await;
    };
    again(&mut told).await;
    assert!(!rotten.is_closed() && told.known.logs.contains_key(&ID), "it may be in sync by now");
    // Whoever leads next has not heard of it.
    told.elect_anew();
    told.follow().await;
    assert!(rotten.is_closed() && !told.known.logs[&ID].partition.is_closed(), "another one has its place");
    again(&mut told).await;
    assert!(!told.known.logs[&ID].partition.is_closed(), "which is not damaged");
}

#[test]
fn a_damaged_log_that_is_set_aside_while_it_may_be_in_sync_is_noticed() {
    let test = what_readers_find_damaged_is_set_aside_only_under_a_leader_that_has_not_let_it_in;
    assert!(Mutant::RottenInSync.is_noticed_by(test));
}

/// Two damaged logs, or a preferred leader with one: the lead goes to and fro more and more seldom.
#[tokio::test(start_paused = true)]
async fn a_replica_that_is_needed_gives_up_the_lead_once_in_a_while() {
    let (mut told, mut found) = (Told::leading().await, Found::default());
    let mut gives_up = |told: &Told| found.gives_up(&told.state.image, BrokerId(1), ID);
    for pause in [5, 10, 20, 40, 80, 160, 320, 600, 5] {
        assert!(gives_up(&told) && gives_up(&told), "until it is heard");
        told.elect(2);
        assert!(!gives_up(&told), "it leads no more");
        told.elect(1);
        tokio::time::advance(Duration::from_secs(pause - 1)).await;
        assert!(!gives_up(&told), "it has just done so");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(gives_up(&told));
}

/// Broker 1 has led six records, follows broker 2 out of sync, and readers have found its log damaged.
async fn rotten_with_six() -> Told {
    rotten_with_six_of(1).await
}

/// The same in the first of so many partitions.
async fn rotten_with_six_of(partitions: i32) -> Told {
    let mut told = Told::leading_of(partitions).await;
    let log = told.known.logs[&ID].partition.clone();
    for _ in 0..6 {
        drop(crate::testing::append(&log, crate::testing::batch(0), weir_storage::Acks::All, None));
    }
    assert_eq!(log.ends().log_end, 6);
    told.elect(2);
    told.alter(&[2]);
    told.follow().await;
    let error = ReadError::Damaged("a file at 5".to_owned());
    told.parts.damage.refused(&topic(), ID.partition, 0, &error);
    // A new epoch, in which it has not followed yet.
    told.elect_anew();
    assert_eq!(told.record().leader, Some(BrokerId(2)));
    told
}

/// A broker that was elected uncleanly, for a log that it set aside by an older record before it heard of that.
async fn elected_for_what_is_aside() -> Told {
    let mut told = rotten_with_six().await;
    let leaves = Arc::new(told.state.image.clone());
    let lost = told.by(2);
    told.run(Command::FenceBroker(lost));
    let partition_epoch = told.record().partition_epoch;
    let elect = ElectLeader { partition: ID, broker: BrokerId(1), partition_epoch, unclean: true };
    told.run(Command::ElectLeader(elect));
    // The broker acts upon what it hears, in order.
    let (older, due) = (std::mem::replace(&mut told.known.image, leaves), [ID].into());
    told.parts.replicas.bring_in_line(&mut told.known, &older, &due).await;
    assert_eq!(told.parts.log_dir.damaged_kept(), [ID]);
    told.follow().await;
    told
}

impl Told {
    async fn again(&mut self) {
        let (image, due) = (self.known.image.clone(), [ID].into());
        self.parts.replicas.bring_in_line(&mut self.known, &image, &due).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_neither_deleted_nor_passed_over_while_it_goes_further() {
    let (said, mut told) = (Said::here(), elected_for_what_is_aside().await);
    for _ in 0..2 {
        assert_eq!(told.known.logs[&ID].partition.ends().log_end, 0);
        assert_eq!(told.parts.log_dir.damaged_kept(), [ID], "the six are nowhere");
        assert!(!told.leads(), "what is written now would take their place");
        assert!(told.known.failed[&ID].contains("may have more"), "{:?}", told.known.failed);
        told.again().await;
    }
    assert_eq!(said.count("a log is not led"), 1);
    assert_eq!(said.count("is kept although its replica is in sync"), 1);
    assert!(told.parts.cluster.session_valid(), "nobody else is kept waiting by it");
    // Nor by a registration later, or by whoever opens the log anew.
    told.elect_anew();
    told.known.logs.get_mut(&ID).unwrap().role = Some(Role::Rest);
    told.follow().await;
    assert!(!told.leads() && told.parts.log_dir.damaged_kept() == [ID]);
    // A person takes it away, and goes on without it.
    let there = told.parts.disk.list(Path::new("/logs")).unwrap();
    let aside = there.into_iter().find(|entry| entry.name.ends_with(".damaged")).unwrap().name;
    told.parts.disk.rename(&Path::new("/logs").join(aside), Path::new("/elsewhere")).unwrap();
    told.again().await;
    assert!(told.leads() && told.known.failed.is_empty(), "{:?}", told.known.failed);
}

#[test]
fn what_was_set_aside_and_is_deleted_or_passed_over_is_noticed() {
    let test = what_was_set_aside_is_neither_deleted_nor_passed_over_while_it_goes_further;
    assert!(Mutant::AsideDeleted.is_noticed_by(test));
    assert!(Mutant::AsidePassedOver.is_noticed_by(test));
}

/// However it is in sync: a leader has let it in for what that one has, and the next append makes the difference.
#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_deleted_once_the_log_in_sync_goes_as_far() {
    let mut told = rotten_with_six().await;
    told.follow().await;
    told.alter(&[1, 2]);
    told.follow().await;
    assert_eq!(told.parts.log_dir.damaged_kept(), [ID]);
    assert!(told.known.kept.contains(&ID) && told.known.failed.is_empty(), "{:?}", told.known.failed);
    told.elect(1);
    told.follow().await;
    assert!(told.leads(), "it has what its leader had");
    let log = told.known.logs[&ID].partition.clone();
    drop(crate::testing::append(&log, crate::testing::batch(0), weir_storage::Acks::All, None));
    told.again().await;
    assert_eq!(told.parts.log_dir.damaged_kept(), []);
    assert!(told.known.kept.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_log_is_not_set_aside_by_a_version_that_cannot_be_written_down() {
    let mut told = rotten_with_six().await;
    let rotten = told.known.logs[&ID].partition.clone();
    let version = |path: &Path| path.to_string_lossy().contains("metadata-version");
    let full = Rule::on([Op::Write, Op::Create, Op::Rename], Effect::Fail(Fault::NoSpace)).path(version);
    let full = told.parts.disk.add(full);
    told.follow().await;
    assert!(told.parts.disk.fired(full) > 0, "it was tried");
    assert!(!rotten.is_closed(), "it was set aside by a version that is not written down");
    assert!(told.known.failed.contains_key(&ID));
    told.parts.disk.remove(full);
    told.again().await;
    assert!(rotten.is_closed() && told.parts.log_dir.damaged_kept() == [ID]);
    assert!(told.known.failed.is_empty(), "{:?}", told.known.failed);
}

#[test]
fn a_damaged_log_set_aside_by_a_version_that_is_not_written_down_is_noticed() {
    let test = a_damaged_log_is_not_set_aside_by_a_version_that_cannot_be_written_down;
    assert!(Mutant::AsideUnnoted.is_noticed_by(test));
}

/// It is closed before, and used no more.
#[tokio::test(start_paused = true)]
async fn logs_that_are_set_aside_do_not_put_off_the_session() {
    let mut told = rotten_with_six().await;
    let rotten = told.known.logs[&ID].partition.clone();
    let (cluster, late) = (told.parts.cluster.clone(), Arc::<AtomicUsize>::default());
    let (count, log) = (late.clone(), rotten.clone());
    let look = move || {
        count.fetch_add(usize::from(!cluster.session_valid() || !log.is_closed()), Ordering::SeqCst);
    };
    let folder = rotten.describe().path;
    let aside = Rule::on([Op::Rename], Effect::Hook(Arc::new(look))).path(move |path| path == folder);
    let aside = told.parts.disk.add(aside);
    told.follow().await;
    assert!(told.parts.disk.fired(aside) > 0, "it is set aside");
    assert_eq!(late.load(Ordering::SeqCst), 0);
    assert!(matches!(told.known.logs[&ID].role, Some(Role::Follow { .. })), "another one is followed with");
}

/// Whoever wants another partition does not wait for that.
#[tokio::test(start_paused = true)]
async fn other_partitions_are_there_before_logs_are_set_aside() {
    let mut told = rotten_with_six_of(2).await;
    let other = PartitionId { partition: 1, ..ID };
    // By the same version, or one that is followed with it, another one leads the other one.
    let record = |told: &Told| told.state.image.partition(other).unwrap().clone();
    let (led, isr) = (record(&told), vec![told.by(1), told.by(2)]);
    let (leader_epoch, partition_epoch) = (led.leader_epoch, led.partition_epoch);
    let change = AlterPartition { partition: other, leader_epoch, partition_epoch, isr };
    let by = told.by(led.leader.unwrap().0);
    told.run(Command::AlterPartitions(AlterPartitions { by, changes: vec![change] }));
    let (broker, partition_epoch) = (BrokerId(3 - by.broker.0), record(&told).partition_epoch);
    let elect = ElectLeader { partition: other, broker, partition_epoch, unclean: false };
    told.run(Command::ElectLeader(elect));
    let now = record(&told).leader_epoch;
    let topics = told.parts.replicas.topics.clone();
    let epochs = Arc::<parking_lot::Mutex<Vec<_>>>::default();
    let seen = epochs.clone();
    let look = move || {
        let map = topics.load();
        seen.lock().push(map.find("orders").unwrap().partitions.get(&1).unwrap().leader_epoch);
    };
    look();
    let folder = told.known.logs[&ID].partition.describe().path;
    let rule = Rule::on([Op::Rename], Effect::Hook(Arc::new(look))).path(move |path| path == folder);
    told.parts.disk.add(rule);
    told.follow().await;
    let [before, meanwhile] = epochs.lock().clone().try_into().unwrap();
    assert_eq!((before, meanwhile), (leader_epoch, now));
    assert!(before < now);
}

/// A newer record may name the log that would be closed by an older one.
#[tokio::test(start_paused = true)]
async fn a_log_makes_way_by_the_newest_record_alone() {
    let mut told = rotten_with_six().await;
    let leaves = told.state.image.clone();
    told.go_on();
    let other = told.state.image.clone();
    assert!(aside::is_newest(&leaves, &leaves, ID) && aside::is_newest(&other, &leaves, ID));
    assert!(aside::is_newest(&Image::default(), &leaves, ID), "it is older");
    let lost = told.by(2);
    told.run(Command::FenceBroker(lost));
    assert!(!aside::is_newest(&told.state.image, &leaves, ID));
}
