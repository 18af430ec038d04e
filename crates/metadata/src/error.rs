//! Why a command was refused. A refusal changes nothing.

use weir_types::{BrokerId, PartitionId, TopicId, did_you_mean};

/// A refused command. Decided in apply, so every replica refuses alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The cluster exists already, or not yet.
    #[error("the cluster {}", if *exists { "exists already" } else { "is not initialised yet" })]
    Cluster {
        /// Whether it exists.
        exists: bool,
    },
    /// The caller belongs to another cluster.
    #[error("this is cluster {ours}, not {theirs}: the data directory belongs to another cluster")]
    WrongCluster {
        /// This cluster's id.
        ours: String,
        /// The id the caller named.
        theirs: String,
    },
    /// The caller has seen more than there is: this is not the history that it followed.
    #[error(
        "the cluster metadata is at version {ours}, the caller has seen version {seen}: was the controller \
         restored from a backup? (weir errors CLUSTER_MISMATCH says what to do)"
    )]
    Behind {
        /// The version here.
        ours: i64,
        /// The highest version the caller has seen.
        seen: i64,
    },
    /// The caller has seen another history: what it has acted upon was lost here, and something else was written since.
    #[error(
        "the cluster metadata is at version {ours}, and version {seen} of it is not the one that the caller has seen: \
         was the controller restored from a backup? bring the newer metadata back (weir errors CLUSTER_MISMATCH says \
         what to do)"
    )]
    OtherHistory {
        /// The version here.
        ours: i64,
        /// The version that the caller has seen.
        seen: i64,
    },
    /// A broker runs a version that cannot follow what this cluster already writes.
    #[error(
        "broker software {version} understands feature level {supported}, the cluster is at {cluster}: upgrade it"
    )]
    FeatureLevel {
        /// The broker's software version.
        version: String,
        /// The highest level it understands.
        supported: i32,
        /// The cluster's.
        cluster: i32,
    },
    /// There is no broker of that id.
    #[error(
        "broker {0} is not registered: weir broker list shows those that are, and a new one is given its id, so that it is \
         started without broker_id"
    )]
    BrokerNotFound(BrokerId),
    /// The broker registered again since: whoever uses the old epoch is a zombie.
    #[error("broker {broker} has epoch {current}, not {given}: it registered again")]
    BrokerEpochStale {
        /// The broker.
        broker: BrokerId,
        /// Its epoch now.
        current: i64,
        /// The epoch the caller used.
        given: i64,
    },
    /// A log directory is registered by another broker.
    #[error("log directory {directory} belongs to broker {owner}: two brokers cannot share it")]
    DirectoryTaken {
        /// The directory's id.
        directory: String,
        /// Who has it.
        owner: BrokerId,
    },
    /// A broker came with none of the directories that it was registered with.
    #[error(
        "log directory {directory} is none of those that broker {broker} was registered with: is its disk not \
         mounted, or was a file of another broker put there? Bring its own back; if that is lost for good, start with \
         an empty data directory and without broker_id, and it joins as a new broker"
    )]
    DirectoryUnknown {
        /// The directory it came with.
        directory: String,
        /// Whom it says it is.
        broker: BrokerId,
    },
    /// A broker came with a directory in which a write or sync has failed.
    #[error(
        "log directory {directory} of broker {broker} is out of use: a write or sync has failed in it, and what its disk \
         says since then proves nothing. Look at the disk (dmesg, smartctl). If it is good, say so (weir broker trust \
         {broker}, at a broker that serves) and start again; else start with an empty data directory on another disk \
         and without broker_id, and it joins as a new broker"
    )]
    DirectoryFailed {
        /// The directory.
        directory: String,
        /// Whose it is.
        broker: BrokerId,
    },
    /// A directory of a broker that serves says that it failed before that broker's registration.
    #[error(
        "log directory {directory} says that a write or sync has failed in it, but broker {broker} has registered with it \
         since, and serves: this is an older copy of its disk, which is not used. If broker {broker} does not run, start \
         again when it is fenced (after broker_session_ms)"
    )]
    DirectoryCopied {
        /// The directory.
        directory: String,
        /// Who serves with it.
        broker: BrokerId,
    },
    /// A failure is to be forgiven that is not on record.
    #[error(
        "failure {given} is none of those on record of broker {broker} ({}): look at it again (weir broker describe {broker})",
        numbers(current)
    )]
    FailureUnknown {
        /// The broker.
        broker: BrokerId,
        /// The number that was named.
        given: u64,
        /// Those on record.
        current: Vec<u64>,
    },
    /// A person has taken the broker out of the cluster.
    #[error(
        "broker {0} was removed from the cluster: start with an empty data directory, and it joins as a new one"
    )]
    BrokerRemoved(BrokerId),
    /// The broker cannot be removed.
    #[error("broker {broker} cannot be removed: {why}")]
    BrokerInUse {
        /// The broker.
        broker: BrokerId,
        /// Why not.
        why: String,
    },
    /// There is no controller of that id, or it is the last one.
    #[error("controller {id} cannot be removed: {why}")]
    ControllerNotRemovable {
        /// Its id.
        id: i64,
        /// Why not.
        why: &'static str,
    },
    /// Not before the upgrade of the whole cluster is made final.
    #[error(
        "{what} needs feature level {needed}, the cluster is at {current}: finish the upgrade with weir cluster finalize"
    )]
    LevelTooLow {
        /// What was asked for.
        what: &'static str,
        /// The level it needs.
        needed: i32,
        /// The cluster's.
        current: i32,
    },
    /// The level is not what the caller saw, or would go down.
    #[error("the feature level is {current} and cannot become {given}: {why}")]
    Level {
        /// The cluster's.
        current: i32,
        /// What was asked for.
        given: i32,
        /// Why not.
        why: &'static str,
    },
    /// A broker did not name a log directory.
    #[error("a broker has 1 to {max} different log directories, {given} were named")]
    Directories {
        /// How many different ones were named.
        given: usize,
        /// How many there may be.
        max: usize,
    },
    /// The same raft entry gave its index away already.
    #[error("{what} is registering at this moment: try again")]
    Busy {
        /// Who.
        what: String,
    },
    /// The name cannot be a topic's.
    #[error("topic name \"{name}\" is not allowed: {why}")]
    TopicNameInvalid {
        /// The name, shortened.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is a topic of that name.
    #[error("topic \"{0}\" exists already")]
    TopicExists(String),
    /// There is no topic of that name.
    #[error("topic \"{name}\" does not exist{}", did_you_mean(nearest.as_deref()))]
    TopicNotFound {
        /// The name, shortened.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
    },
    /// There is no topic of that id.
    #[error("topic id {0} does not exist: the topic was deleted")]
    TopicIdNotFound(TopicId),
    /// The topic of that name has another id than the caller thinks.
    #[error("topic \"{name}\" has id {current}, not {given}: it was deleted and created again")]
    TopicIdMismatch {
        /// The topic.
        name: String,
        /// Its id.
        current: TopicId,
        /// The id the caller named.
        given: TopicId,
    },
    /// Another topic has that id.
    #[error("topic id {0} is taken: try again")]
    TopicIdTaken(TopicId),
    /// The topic belongs to the system.
    #[error("topic \"{0}\" belongs to the system: names that begin with __ are reserved")]
    TopicInternal(String),
    /// The topic changed since the caller read it.
    #[error("topic \"{name}\" is at revision {current}, not {expected}: read it again")]
    RevisionMismatch {
        /// The topic.
        name: String,
        /// Its revision.
        current: i64,
        /// The revision the caller expected.
        expected: i64,
    },
    /// A setting of the cluster changed since the caller read it.
    #[error("{name} of the cluster is {current} by now, not {expected}: read it again")]
    ConfigMismatch {
        /// The setting.
        name: String,
        /// Its value.
        current: String,
        /// The value the caller expected.
        expected: String,
    },
    /// The number of partitions is not possible.
    #[error("{given} partitions are not possible: {why}")]
    PartitionCount {
        /// How many were asked for.
        given: i32,
        /// Why not.
        why: String,
    },
    /// The number of replicas is not possible.
    #[error("{given} replicas are not possible: {why}")]
    ReplicationFactor {
        /// How many were asked for.
        given: i32,
        /// Why not.
        why: String,
    },
    /// There is no setting of that name.
    #[error("there is no setting \"{name}\"{}", did_you_mean(nearest.as_deref()))]
    ConfigUnknown {
        /// The name, shortened.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
    },
    /// The setting cannot have that value.
    #[error("{name} cannot be \"{value}\": expected {wanted}")]
    ConfigInvalid {
        /// The setting.
        name: String,
        /// The value, shortened.
        value: String,
        /// What would have been understood.
        wanted: String,
    },
    /// The setting is decided when the topic is made.
    #[error("{name} is fixed when a topic is created and cannot be changed")]
    ConfigFixed {
        /// The setting.
        name: String,
    },
    /// Understood, but this version cannot do it.
    #[error("{what} is not built yet in this version")]
    NotBuiltYet {
        /// What was asked for.
        what: String,
    },
    /// There is no such partition.
    #[error("partition {0} does not exist")]
    PartitionNotFound(PartitionId),
    /// The broker holds no replica of the partition.
    #[error("broker {broker} holds no replica of partition {partition}")]
    NotAReplica {
        /// The partition.
        partition: PartitionId,
        /// The broker.
        broker: BrokerId,
    },
    /// A replica's directory is known and is another one.
    #[error("the replica of partition {partition} on broker {broker} is in directory {current}, not {given}")]
    DirectoryMismatch {
        /// The partition.
        partition: PartitionId,
        /// The broker.
        broker: BrokerId,
        /// The directory on record.
        current: String,
        /// The directory the caller named.
        given: String,
    },
    /// A compare-and-set lost: the partition changed since the caller saw it.
    #[error(
        "partition {partition} changed since: it is at leader epoch {leader_epoch}, partition epoch {partition_epoch}"
    )]
    PartitionEpochStale {
        /// The partition.
        partition: PartitionId,
        /// Its leader epoch.
        leader_epoch: i32,
        /// Its partition epoch.
        partition_epoch: i32,
    },
    /// A member cannot be in the in-sync set.
    #[error("broker {broker} cannot be in sync for partition {partition}: {why}")]
    IneligibleMember {
        /// The partition.
        partition: PartitionId,
        /// The member.
        broker: BrokerId,
        /// Why not.
        why: &'static str,
    },
    /// Nobody can lead the partition.
    #[error("broker {broker} cannot lead partition {partition}: {why}")]
    IneligibleLeader {
        /// The partition.
        partition: PartitionId,
        /// Who was to lead.
        broker: BrokerId,
        /// Why not.
        why: &'static str,
    },
    /// The request id was used for something else.
    #[error("request id \"{0}\" was used for another request within the last hour")]
    RequestIdReused(String),
    /// A field is outside its limits.
    #[error("{field} is {given}, allowed are {allowed}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it was.
        given: i64,
        /// What it may be.
        allowed: &'static str,
    },
}

/// Numbers, in words.
fn numbers(numbers: &[u64]) -> String {
    match numbers {
        [] => "there are none".to_owned(),
        some => some.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}
