//! `weir-controller` and `weir-broker` as processes of their own: what was acknowledged outlives restarts and kill -9, and a
//! start that cannot be right says why and makes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_proto::v1::UpdateConfigsRequest;
use weir_runtime::testing::until;
use weir_tests::api::Api;
use weir_tests::binary;
use weir_tests::process::{Process, Setup, free_port};

const TOPIC: &str = "flights";

/// A controller and a broker, each with its folder, on ports that stay.
struct Pair {
    folder: TempDir,
    /// Where the controller listens.
    at: String,
    controller: Setup,
    broker: Setup,
}

impl Pair {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = format!("127.0.0.1:{}", free_port()?);
        let controller = Setup::controller(folder.path().join("c1")).flag("--controller-listen", at.as_str());
        let broker = Setup::broker(folder.path().join("b1"), &at);
        Ok(Self { folder, at, controller, broker })
    }

    /// Begins the cluster, for topics of one replica.
    async fn begin(&self) -> Result<(Process, Process)> {
        let controller = self.controller.clone().flag("--bootstrap", "true").start().await?;
        let broker = self.broker.start().await?;
        let one = |name: &str| (name.to_owned(), "1".to_owned());
        let set_config = [one("default_replication_factor"), one("min_insync_replicas")].into();
        let request = UpdateConfigsRequest { set_config, ..UpdateConfigsRequest::default() };
        Api::connect(broker.addr()).await?.admin().update_configs(request).await?;
        Ok((controller, broker))
    }

    async fn start(&self) -> Result<(Process, Process)> {
        Ok((self.controller.start().await?, self.broker.start().await?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// What a HTTP listener answers.
async fn get(addr: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// How a command of `weir` ends, and what it says.
fn weir(server: &str, words: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(binary::weir()?).args(["-s", server]).args(words).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(said)?))
}

async fn refused(setup: &Setup, code: i32, words: &[&str]) -> Result<()> {
    let refused = setup.refused().await?;
    ensure!(refused.status.code() == Some(code), "{}: {}", refused.status, refused.said);
    for word in words {
        ensure!(refused.said.contains(word), "{word:?} is not in: {}", refused.said);
    }
    Ok(())
}

fn is_empty_or_absent(path: &Path) -> bool {
    fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

/// All that is in a folder.
fn names(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(names(&entry.path())?);
        }
        found.insert(entry.path());
    }
    Ok(found)
}

/// A folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_both_processes() -> Result<()> {
    let pair = Pair::new()?;
    let (controller, broker) = pair.begin().await?;
    let api = Api::connect(broker.addr()).await?;
    api.create_topic(TOPIC, 2, &[]).await?;
    api.write(TOPIC, 0, ["one"]).await?;

    let ready = get(controller.http_addr(), "/readyz").await?;
    ensure!(ready.starts_with("HTTP/1.1 200") && ready.ends_with("ready\n"), "{ready}");
    let metrics = get(controller.http_addr(), "/metrics").await?;
    for line in ["weir_controller_leads 1", "weir_controller_voters 1", "weir_ready 1"] {
        ensure!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    let served = get(broker.http_addr(), "/readyz").await?;
    ensure!(served.starts_with("HTTP/1.1 200"), "{served}");

    broker.stop().await?;
    controller.stop().await?;
    let (controller, broker) = pair.start().await?;
    Api::connect(broker.addr()).await?.write(TOPIC, 0, ["two"]).await?;
    broker.kill().await?;
    controller.kill().await?;
    let (controller, broker) = pair.start().await?;
    let api = Api::connect(broker.addr()).await?;
    let values = api.read_all(TOPIC).await?.into_iter().map(|record| record.value);
    let values: Vec<_> = values.map(|value| value.unwrap_or_default()).collect();
    ensure!(values == ["one", "two"], "{values:?}");
    // The broker serves on while nobody leads, and says that it does.
    controller.kill().await?;
    ensure!(api.read_all(TOPIC).await?.len() == 2);
    api.write(TOPIC, 0, ["three"]).await?;
    let controller = pair.controller.start().await?;
    api.create_topic("more", 1, &[]).await?;
    broker.stop().await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_says_too_little_is_told_what_to_say() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("c1");
    let controller = Setup::controller(&dir);
    refused(
        &controller,
        1,
        &["holds no controller", "--bootstrap true", "--join HOST:PORT", "Nothing was made"],
    )
    .await?;
    ensure!(is_empty_or_absent(&dir), "something was made");
    let both = controller.clone().flag("--bootstrap", "true").flag("--join", "localhost:1");
    refused(&both, 2, &["bootstrap starts a new cluster, and join (localhost:1) names one that runs"])
        .await?;
    ensure!(is_empty_or_absent(&dir), "something was made");

    // A folder of somebody's.
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("letter.txt"), "dear")?;
    let strangers = ["holds no cluster but other files (letter.txt)"];
    refused(&controller.flag("--bootstrap", "true"), 1, &strangers).await?;
    refused(&Setup::broker(&dir, "localhost:1"), 1, &strangers).await?;

    let dir = folder.path().join("b1");
    refused(&Setup::broker(&dir, ""), 2, &["controllers is empty: a broker needs one at least"]).await?;
    ensure!(is_empty_or_absent(&dir), "something was made");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_controller_says_whom_it_asks_and_what_each_answers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let other = Setup::new(folder.path().join("other")).start().await?;
    let http = format!("127.0.0.1:{}", free_port()?);
    let (nobody, stranger) = (format!("127.0.0.1:{}", free_port()?), other.addr());
    let broker = Setup::broker(folder.path().join("b1"), &format!("{nobody},{stranger}"));
    let mut starting = broker.clone().flag("--http-listen", http.as_str()).spawn().await?;
    let dead = format!("{nobody}: Connection refused");
    let strange = format!("{stranger}: whoever answers there is not a controller");
    for words in ["no controller takes calls now", &dead, &strange] {
        starting.says(words).await?;
    }
    let ready = get(&http, "/readyz").await?;
    ensure!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    for words in ["no controller has taken this broker yet", &dead, &strange] {
        ensure!(ready.contains(words), "{words:?} is not in: {ready}");
    }
    starting.kill().await?;
    // Where nobody is one, there is nothing to wait for.
    let nowhere = broker.flag("--controllers", stranger);
    refused(&nowhere, 1, &["whoever answers there is not a controller"]).await?;
    other.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_missing_or_another_ones_is_no_new_broker() -> Result<()> {
    let pair = Pair::new()?;
    let (controller, broker) = pair.begin().await?;
    let id = broker.ready().get("brokerId").and_then(serde_json::Value::as_i64).context("no id")?;
    broker.stop().await?;
    let named = pair.broker.clone().flag("--broker-id", id.to_string());

    // Not mounted: once as an empty folder, once without it.
    let (dir, away) = (pair.path("b1"), pair.path("away"));
    fs::rename(&dir, &away)?;
    fs::create_dir(&dir)?;
    let missing = [
        "holds no broker's logs, but broker_id says that it is broker",
        "is a disk not mounted, or were they moved away? Bring them back. Nothing was made.",
    ];
    refused(&named, 1, &missing).await?;
    ensure!(is_empty_or_absent(&dir), "something was made");
    fs::remove_dir(&dir)?;
    refused(&named, 1, &missing).await?;
    ensure!(!dir.exists(), "something was made");
    // Another broker's.
    fs::rename(&away, &dir)?;
    let other = pair.broker.clone().flag("--broker-id", "77");
    let words = format!("is of broker {id} of cluster ");
    refused(
        &other,
        1,
        &[&words, "but broker_id says that it is broker 77: the disk of another broker is mounted"],
    )
    .await?;
    // And as it was it goes on.
    named.start().await?.stop().await?;

    // The log directory by itself is none.
    let inside = Setup::broker(dir.join("logs"), controller.controller_addr());
    refused(&inside, 1, &["is not a data directory but the log directory of one"]).await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_the_data_of_another_kind_of_process() -> Result<()> {
    let pair = Pair::new()?;
    let (controller, broker) = pair.begin().await?;
    let seed = controller.controller_addr().to_owned();
    broker.stop().await?;
    let standalone = Setup::new(pair.path("s1"));
    standalone.start().await?.stop().await?;

    let joining = |dir: &str| Setup::controller(pair.path(dir)).flag("--join", seed.as_str());
    let founding = |dir: &str| Setup::controller(pair.path(dir)).flag("--bootstrap", "true");
    let together =
        ["s1 holds the data of a controller and of a broker", "start `weir standalone` on this one"];
    for (setup, words) in [
        (joining("b1"), ["b1 holds the data of a broker (logs/dir.json)", "start weir-broker on this one"]),
        (founding("b1"), ["b1 holds the data of a broker", "and a controller takes none beside it"]),
        (joining("s1"), together),
        (Setup::broker(pair.path("s1"), &seed), together),
        (
            Setup::broker(pair.path("c1"), &seed),
            ["c1 holds the data of a controller (controller/raft.redb)", "start weir-controller on this one"],
        ),
    ] {
        let before = names(setup.data_dir())?;
        refused(&setup, 1, &words).await?;
        refused(&setup, 1, &["name another folder with --data-dir", "Nothing was made"]).await?;
        ensure!(names(setup.data_dir())? == before, "something was made");
    }
    // Each goes on with its own.
    pair.broker.start().await?.stop().await?;
    standalone.start().await?.stop().await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_of_another_cluster_is_refused() -> Result<()> {
    let (pair, other) = (Pair::new()?, Pair::new()?);
    let (controller, broker) = pair.begin().await?;
    broker.stop().await?;
    let others = other.controller.clone().flag("--bootstrap", "true").start().await?;
    let cluster = |process: &Process| {
        let id = process.ready().get("clusterId").and_then(serde_json::Value::as_str);
        id.map(str::to_owned).context("no cluster id")
    };
    let (ours, theirs) = (cluster(&controller)?, cluster(&others)?);
    let strayed = pair.broker.clone().flag("--controllers", others.controller_addr());
    refused(&strayed, 1, &["the controller refused this broker", &ours, &theirs]).await?;
    // Nothing of it is lost.
    let broker = pair.broker.start().await?;
    broker.stop().await?;
    others.stop().await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_its_controller_does_not_know_is_told_so() -> Result<()> {
    let pair = Pair::new()?;
    // As a backup from before the broker's first start brings it back.
    pair.controller.clone().flag("--bootstrap", "true").start().await?.stop().await?;
    copy(&pair.path("c1"), &pair.path("backup"))?;
    let (controller, broker) = pair.start().await?;
    broker.stop().await?;
    controller.stop().await?;
    fs::remove_dir_all(pair.path("c1"))?;
    fs::rename(pair.path("backup"), pair.path("c1"))?;
    let controller = pair.controller.start().await?;
    refused(
        &pair.broker,
        1,
        &[
            "the controller refused this broker: the cluster metadata is at version",
            "was the controller restored from a backup?",
        ],
    )
    .await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_runs_and_an_older_controller_say_at_once_that_they_do_not_fit() -> Result<()> {
    let pair = Pair::new()?;
    let (controller, broker) = pair.begin().await?;
    broker.stop().await?;
    controller.stop().await?;
    copy(&pair.path("c1"), &pair.path("backup"))?;
    let (controller, mut broker) = pair.start().await?;
    let api = Api::connect(broker.addr()).await?;
    api.create_topic("lost", 1, &[]).await?;
    controller.kill().await?;
    fs::rename(pair.path("c1"), pair.path("newest"))?;
    fs::rename(pair.path("backup"), pair.path("c1"))?;
    let mut controller = pair.controller.start().await?;
    let page = "weir errors CLUSTER_MISMATCH says what to do";
    broker.says(page).await?;
    // It may have asked for the metadata first.
    controller.says("broker 1 is refused").await?;
    let of_broker = get(broker.http_addr(), "/readyz").await?;
    ensure!(of_broker.starts_with("HTTP/1.1 503") && of_broker.contains(page), "{of_broker}");
    let of_controller = get(controller.http_addr(), "/readyz").await?;
    for words in ["HTTP/1.1 200", "broker 1 is refused and does not follow this controller", page] {
        ensure!(of_controller.contains(words), "{words:?} is not in: {of_controller}");
    }
    // What it leads goes on.
    api.write("lost", 0, ["found"]).await?;
    controller.kill().await?;
    broker.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_controller_that_has_caught_up_is_still_another_ones() -> Result<()> {
    let pair = Pair::new()?;
    let (controller, broker) = pair.begin().await?;
    broker.stop().await?;
    controller.stop().await?;
    copy(&pair.path("c1"), &pair.path("backup"))?;
    let (controller, broker) = pair.start().await?;
    Api::connect(broker.addr()).await?.create_topic("lost", 1, &[]).await?;
    broker.stop().await?;
    controller.stop().await?;
    fs::rename(pair.path("c1"), pair.path("newest"))?;
    fs::rename(pair.path("backup"), pair.path("c1"))?;

    // With other brokers the old one goes on, and comes to more versions than the newest one had.
    let controller = pair.controller.start().await?;
    let other = Setup::broker(pair.path("b2"), controller.controller_addr()).start().await?;
    let api = Api::connect(other.addr()).await?;
    for number in 0..20 {
        api.create_topic(&format!("other-{number}"), 1, &[]).await?;
    }
    refused(
        &pair.broker,
        1,
        &[
            "the controller refused this broker: ",
            "is not the one that the caller has seen",
            "restored from a backup",
        ],
    )
    .await?;
    other.stop().await?;
    controller.stop().await?;
    // Nothing of it was touched: with the newest metadata it goes on.
    fs::rename(pair.path("c1"), pair.path("other"))?;
    fs::rename(pair.path("newest"), pair.path("c1"))?;
    let (controller, broker) = pair.start().await?;
    Api::connect(broker.addr()).await?.write("lost", 0, ["found"]).await?;
    broker.stop().await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_at_a_wrong_address_is_named_by_those_who_look_for_it_there() -> Result<()> {
    let pair = Pair::new()?;
    let (controller, mut first) = pair.begin().await?;
    let wrong = format!("127.0.0.1:{}", free_port()?);
    let second = Setup::broker(pair.path("b2"), controller.controller_addr());
    let second = second.flag("--internal-advertised-address", wrong.as_str()).start().await?;
    let api = Api::connect(first.addr()).await?;
    let set_config = [("default_replication_factor".to_owned(), "2".to_owned())].into();
    let request = UpdateConfigsRequest { set_config, ..UpdateConfigsRequest::default() };
    api.admin().update_configs(request).await?;
    // Each leads one of them, which the other follows.
    api.create_topic(TOPIC, 2, &[]).await?;
    let named = format!("broker 2 is heard by the controllers and not reached by this one at {wrong}");
    first.says(&named).await?;
    let ready = get(first.http_addr(), "/readyz").await?;
    for words in ["HTTP/1.1 200", &named, "internal_advertised_address"] {
        ensure!(ready.contains(words), "{words:?} is not in: {ready}");
    }
    let metrics = get(first.http_addr(), "/metrics").await?;
    ensure!(metrics.lines().any(|line| line == "weir_brokers_unreached 1"), "{metrics}");
    for server in [first.addr(), second.addr()] {
        let (code, said) = weir(server, &["status", "--check"])?;
        let named = format!("broker 2 is not reached by broker 1 at {wrong}");
        ensure!(code == Some(1) && (said.contains(&named)), "{code:?}: {said}");
    }
    let others = get(second.http_addr(), "/readyz").await?;
    ensure!(others.ends_with("\r\n\r\nready\n"), "it reaches the first: {others}");
    second.kill().await?;
    first.kill().await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_claims_to_be_a_broker_has_one_of_its_disks() -> Result<()> {
    let pair = Pair::new()?;
    let (controller, broker) = pair.begin().await?;
    broker.stop().await?;
    let path = pair.path("b1").join("logs/dir.json");
    let whole = fs::read_to_string(&path)?;
    let mut file: serde_json::Value = serde_json::from_str(&whole)?;
    let id = file.get("directory_id").and_then(serde_json::Value::as_str).context("no id")?;
    let last = if id.ends_with('0') { "1" } else { "0" };
    let another = format!("{}{last}", id.get(..id.len() - 1).context("an id")?);
    // Its id with another directory's, and one that nobody ever got.
    *file.get_mut("directory_id").context("no id")? = another.clone().into();
    fs::write(&path, file.to_string())?;
    refused(&pair.broker, 1, &["checkpoint: damaged: it belongs to another directory"]).await?;
    let checkpoint = path.with_file_name("checkpoint");
    let known = fs::read(&checkpoint)?;
    fs::remove_file(&checkpoint)?;
    let words = format!("log directory {another} is none of those that broker 1 was registered with");
    refused(&pair.broker, 1, &[&words, "without broker_id, and it joins as a new broker"]).await?;
    *file.get_mut("broker_id").context("no broker")? = 9.into();
    fs::write(&path, file.to_string())?;
    refused(&pair.broker, 1, &["broker 9 is not registered"]).await?;
    // And as it was it goes on.
    fs::write(&path, whole)?;
    fs::write(&checkpoint, known)?;
    pair.broker.start().await?.stop().await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_controller_nothing_is_half_made() -> Result<()> {
    let pair = Pair::new()?;
    let (controller, broker) = pair.begin().await?;
    let api = Api::connect(broker.addr()).await?;
    api.create_topic(TOPIC, 1, &[]).await?;
    controller.kill().await?;
    let refused = format!("{:#}", api.create_topic("half", 1, &[]).await.map(drop).unwrap_err());
    ensure!(refused.contains("controller"), "{refused}");
    api.write(TOPIC, 0, ["meanwhile"]).await?;
    // It goes on, and says what it goes on without.
    let missed = format!("ready\nno controller takes calls now ({}: Connection refused", pair.at);
    let says = async || get(broker.http_addr(), "/readyz").await.is_ok_and(|ready| ready.contains(&missed));
    until("it says whom it asks in vain", &says).await;
    let logs = || -> Result<usize> {
        let entries = fs::read_dir(pair.path("b1").join("logs"))?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("half"))
            .count())
    };
    ensure!(logs()? == 0, "a log was made of a topic that is not there");
    // What is committed is read to its end, though nobody is told beforehand where that is.
    let (code, read) = weir(broker.addr(), &["consume", TOPIC, "--until", "end"])?;
    ensure!(code == Some(0) && read.contains("meanwhile"), "{code:?}: {read}");
    let old = "has not heard a controller for";
    let is_said = async || weir(broker.addr(), &["broker", "list"]).is_ok_and(|(_, said)| said.contains(old));
    until("what is known is said to be old", is_said).await;
    let controller = pair.controller.start().await?;
    api.create_topic("half", 1, &[]).await?;
    ensure!(logs()? == 1);
    until("it says so no more", async || !says().await).await;
    broker.stop().await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_are_the_same_broker_the_earlier_ends() -> Result<()> {
    let pair = Pair::new()?;
    let (controller, mut first) = pair.begin().await?;
    // Its disk, copied while it runs, in another place.
    let twin = pair.path("twin");
    copy(&pair.path("b1"), &twin)?;
    let second = Setup::broker(&twin, controller.controller_addr()).start().await?;
    first.says("another process has registered as broker 1").await?;
    let ended = first.wait().await?;
    ensure!(ended.code() == Some(1), "{ended}");
    // The later one is the broker.
    until("the later one is ready", async || {
        get(second.http_addr(), "/readyz").await.is_ok_and(|ready| ready.starts_with("HTTP/1.1 200"))
    })
    .await;
    second.stop().await?;
    controller.stop().await
}
