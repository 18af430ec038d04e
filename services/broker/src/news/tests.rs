use std::collections::BTreeSet;

use tokio::time::advance;
use weir_metadata::{Broker, BrokerState, ImageHead, ImageParts, Partition, TopicSummary};
use weir_runtime::testing::{Said, listen};
use weir_types::TopicId;

use super::*;

const ME: BrokerId = BrokerId(1);
const PARTITIONS: i32 = 3_000;

/// Whoever leads, and who is in sync.
type Record = (Option<i32>, &'static [i32]);

/// Topic `a`, whose partitions have replicas on brokers 1 to 3, of which two must be in sync. Broker 2 is in this state.
fn image(state: BrokerState, record: impl Fn(i32) -> Record) -> Image {
    // Not its first: see below.
    image_in(2, state, record)
}

/// The same in a leader epoch.
fn image_in(epoch: i32, state: BrokerState, record: impl Fn(i32) -> Record) -> Image {
    let mut parts = ImageParts::new(ImageHead { version: 1, ..Image::default().head() });
    for (id, state) in [(1, BrokerState::Active), (2, state), (3, BrokerState::Active)] {
        parts.broker(Broker {
            id: BrokerId(id),
            epoch: 1,
            state,
            persisted_epoch: 1,
            directories: Vec::new(),
            rack: String::new(),
            endpoints: Vec::new(),
            version: String::new(),
            registered_ms: 0,
            incarnation: 1,
            failed: Vec::new(),
            stopped: false,
        });
    }
    parts.topic(TopicSummary {
        id: TopicId(7),
        name: "a".into(),
        partitions: PARTITIONS,
        replication_factor: 3,
        config: Default::default(),
        copied: Default::default(),
        revision: 1,
        created_ms: 1,
    });
    for number in 0..PARTITIONS {
        let (leader, isr) = record(number);
        let mut partition = Partition::new([1, 2, 3].map(BrokerId), 2);
        partition.leader = leader.map(BrokerId);
        partition.leader_epoch = epoch;
        partition.isr = isr.iter().copied().map(BrokerId).collect();
        parts.partition(TopicId(7), number, partition);
    }
    parts.finish()
}

fn led(isr: &'static [i32]) -> Image {
    image(BrokerState::Active, |_| (Some(1), isr))
}

fn all() -> BTreeSet<PartitionId> {
    (0..PARTITIONS).map(|partition| PartitionId { topic: TopicId(7), partition }).collect()
}

fn mine(image: &Image) -> Seen<'_> {
    Seen { image, is_mine: true }
}

/// This change of everything, where other replicas stand so.
fn change(news: &News, older: &Image, newer: &Image, behind: Option<Behind>) {
    news.note(|gathered| compare(gathered, ME, (mine(older), mine(newer)), &all(), |_, _| behind));
}

/// After so long that what comes is said at once.
async fn later() {
    advance(GATHER).await;
}

#[tokio::test(start_paused = true)]
async fn leaderships_of_thousands_are_one_line_with_where_they_came_from_and_went() {
    listen();
    let (said, news) = (Said::here(), News::default());
    let other = image(BrokerState::Active, |number| (if number < 10 { None } else { Some(2) }, &[1, 2, 3]));
    change(&news, &other, &led(&[1, 2, 3]), None);
    assert_eq!(said.count("leaderships have come to this broker"), 1);
    assert_eq!(said.count("broker 2 (2990), nobody (10)"), 1);
    assert_eq!(said.count("3000"), 1);
    assert_eq!(said.count("a/0, a/1, a/2, a/3, a/4, …"), 1);
    later().await;
    let gone = Image::default();
    change(&news, &led(&[1, 2, 3]), &other, None);
    later().await;
    change(&news, &led(&[1, 2, 3]), &gone, None);
    assert_eq!(said.count("leaderships have gone from this broker"), 2);
    assert_eq!(said.count("broker 2 (2990), nobody (10)"), 2);
    assert_eq!(said.count("deleted (3000)"), 1);
    later().await;
    change(&news, &led(&[1, 2, 3]), &led(&[1, 2, 3]), None);
    assert_eq!(said.count("leaderships"), 3, "nothing else happened");
}

#[tokio::test(start_paused = true)]
async fn what_an_image_says_of_another_process_is_no_leadership_of_this_one() {
    listen();
    let (said, news) = (Said::here(), News::default());
    let image = led(&[1, 2]);
    let others = Seen { image: &image, is_mine: false };
    news.note(|gathered| compare(gathered, ME, (others, others), &all(), |_, _| None));
    assert_eq!(said.count("leaderships"), 0);
    news.note(|gathered| compare(gathered, ME, (others, mine(&image)), &all(), |_, _| None));
    assert_eq!((said.count("leaderships have come"), said.count("nobody (3000)")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_in_sync_set_is_said_with_why_and_who_joins_again() {
    let why = |state, behind| {
        listen();
        let (said, news) = (Said::here(), News::default());
        change(&news, &led(&[1, 2, 3]), &image(state, |_| (Some(1), &[1, 3])), behind);
        assert_eq!(said.count("replicas have left the in-sync sets"), 1);
        let words =
            ["is fenced", "its disk is slow", "its broker stops", "do not reach each other", "was behind"];
        let why: Vec<_> = words.into_iter().filter(|words| said.count(words) == 1).collect();
        (why, said.count("12345"))
    };
    let (lags, silent) = (Behind { is_heard: true, ms: 12_345 }, Behind { is_heard: false, ms: 12_345 });
    assert_eq!(why(BrokerState::Active, Some(lags)), (vec!["was behind"], 1));
    assert_eq!(why(BrokerState::Active, Some(silent)), (vec!["do not reach each other"], 1));
    assert_eq!(why(BrokerState::Fenced, None), (vec!["is fenced"], 0));
    assert_eq!(why(BrokerState::Slow, Some(lags)).0, ["its disk is slow"]);
    assert_eq!(why(BrokerState::Draining, Some(lags)).0, ["its broker stops"]);
    let (said, news) = (Said::here(), News::default());
    let stops = image(BrokerState::Draining, |_| (Some(1), &[1, 2, 3]));
    change(&news, &stops, &image(BrokerState::Fenced, |_| (Some(1), &[1, 3])), None);
    assert_eq!(said.count("its broker stops"), 1, "it has by now");
    let (said, news) = (Said::here(), News::default());
    change(&news, &led(&[1, 3]), &led(&[1, 2, 3]), None);
    assert_eq!(said.count("replicas have joined the in-sync sets"), 1);
}

#[tokio::test(start_paused = true)]
async fn appends_that_are_refused_are_said_and_that_they_are_taken_again() {
    listen();
    let (said, news) = (Said::here(), News::default());
    let told = || (said.count("appends are refused"), said.count("appends are taken again"));
    let change = async |older: &Image, newer: &Image| {
        later().await;
        change(&news, older, newer, None);
        later().await;
        news.look();
    };
    change(&led(&[1, 2, 3]), &led(&[1, 2])).await;
    assert_eq!(told(), (0, 0), "two are enough");
    for round in 1..=2 {
        change(&led(&[1, 2]), &led(&[1])).await;
        assert_eq!(told(), (round, round - 1));
        change(&led(&[1]), &led(&[1])).await;
        change(&led(&[1]), &led(&[1, 2])).await;
        assert_eq!(told(), (round, round));
    }
    change(&led(&[1, 2]), &led(&[1])).await;
    let away = image(BrokerState::Active, |_| (Some(2), &[2]));
    change(&led(&[1]), &away).await;
    assert_eq!(told(), (3, 2), "others lead them, who say what they refuse");
    change(&away, &led(&[1])).await;
    assert_eq!(told(), (4, 2), "who comes to lead what it must refuse says so");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_a_moment_is_not_said() {
    listen();
    let (said, news) = (Said::here(), News::default());
    change(&news, &Image::default(), &led(&[1]), None);
    change(&news, &led(&[1]), &led(&[1, 2]), None);
    later().await;
    news.look();
    change(&news, &led(&[1, 2]), &led(&[1]), None);
    change(&news, &led(&[1]), &image(BrokerState::Active, |_| (Some(2), &[2])), None);
    later().await;
    news.look();
    assert_eq!((said.count("appends are refused"), said.count("appends are taken again")), (0, 0));
    assert_eq!((said.count("leaderships have come"), said.count("replicas have joined")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_happens_within_a_second_is_one_line() {
    listen();
    let (said, news) = (Said::here(), News::default());
    let told = || said.count("replicas have joined");
    for first in 0..100 {
        let joined = |until: i32| {
            image(BrokerState::Active, move |number| {
                (Some(1), if number < until { &[1, 2, 3] } else { &[1, 3] })
            })
        };
        change(&news, &joined(first * 30), &joined((first + 1) * 30), None);
        advance(Duration::from_millis(9)).await;
    }
    assert_eq!(told(), 1, "the first at once");
    news.look();
    assert_eq!(told(), 1);
    advance(GATHER).await;
    news.look();
    assert_eq!((told(), said.count("2970")), (2, 1), "and the rest together");
    change(&news, &led(&[1, 3]), &led(&[1, 2, 3]), None);
    news.say();
    assert_eq!(told(), 3, "whoever stops keeps nothing to itself");
    news.say();
    assert_eq!(told(), 3);
}

#[tokio::test(start_paused = true)]
async fn in_sync_sets_that_are_not_changed_are_said_seldom() {
    listen();
    let (said, news) = (Said::here(), News::default());
    let image = led(&[1]);
    news.unchanged(&image, std::iter::empty(), "");
    assert_eq!(said.count("did not change in-sync sets"), 0, "none was refused");
    for _ in 0..120 {
        news.unchanged(&image, all().into_iter().skip(7).take(2), "broker 2 is fenced");
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!((said.count("did not change in-sync sets"), said.count("broker 2 is fenced")), (2, 2));
    assert_eq!(said.count("\"a/7, a/8\""), 2, "each is one, however often it is refused");
    news.unchanged(&image, all().into_iter().skip(8).take(1), "broker 2 is fenced");
    assert_eq!(said.count("\"a/7, a/8\""), 3, "with all that came meanwhile");
    news.unchanged(&image, all().into_iter().skip(5).take(1), "broker 2 is fenced");
    advance(Duration::from_secs(3_600)).await;
    news.unchanged(&image, all().into_iter().skip(9).take(1), "broker 3 is fenced");
    assert_eq!(said.count("\"a/9\""), 1, "and nothing that is long over");
}

#[tokio::test(start_paused = true)]
async fn each_has_refused_for_a_second_before_it_is_said() {
    listen();
    let (said, news) = (Said::here(), News::default());
    let few = |until: i32| {
        image(BrokerState::Active, move |number| (Some(1), if number < until { &[1] } else { &[1, 2] }))
    };
    change(&news, &few(0), &few(1), None);
    advance(GATHER - Duration::from_millis(100)).await;
    change(&news, &few(1), &few(2), None);
    advance(Duration::from_millis(100)).await;
    news.look();
    assert_eq!(said.count("appends are refused"), 1);
    assert_eq!(
        said.count("\"a/0\""),
        2,
        "who left there, and what it refuses: the other one does so for a moment"
    );
    change(&news, &few(2), &few(1), None);
    change(&news, &few(1), &few(3), None);
    later().await;
    news.look();
    assert_eq!((said.count("appends are refused"), said.count("appends are taken again")), (2, 0));
    assert_eq!(said.count("\"a/1, a/2\""), 2, "those that come meanwhile are one line of each");
}

#[tokio::test(start_paused = true)]
async fn a_new_partition_is_given_time_until_its_other_replicas_have_joined() {
    listen();
    let (said, news) = (Said::here(), News::default());
    let new = |isr: &'static [i32]| {
        let mut parts = ImageParts::new(ImageHead { version: 1, ..Image::default().head() });
        let summary = led(&[1]).topic(TopicId(7)).unwrap().summary();
        parts.topic(TopicSummary { partitions: 1, ..summary });
        let mut partition = Partition::new([1, 2, 3].map(BrokerId), 2);
        (partition.leader, partition.leader_epoch) = (Some(ME), 1);
        partition.isr = isr.iter().copied().map(BrokerId).collect();
        parts.partition(TopicId(7), 0, partition);
        parts.finish()
    };
    let first = BTreeSet::from([PartitionId { topic: TopicId(7), partition: 0 }]);
    let change = |older: &Image, newer: &Image| {
        news.note(|gathered| compare(gathered, ME, (mine(older), mine(newer)), &first, |_, _| None));
    };
    let told = || (said.count("appends are refused"), said.count("appends are taken again"));
    change(&Image::default(), &new(&[1]));
    advance(NEW / 2).await;
    news.look();
    change(&new(&[1]), &new(&[1, 2]));
    assert_eq!(told(), (0, 0));
    change(&Image::default(), &new(&[1]));
    advance(NEW).await;
    news.look();
    assert_eq!(told(), (1, 0), "they do not come");
}

#[tokio::test(start_paused = true)]
async fn logs_that_take_nothing_for_want_of_room_are_said_seldom_whatever_else_is_met() {
    listen();
    let (said, news) = (Said::here(), News::default());
    let image = led(&[1]);
    let tries = async |times: u32, count: usize, why: &str, is_full: bool| {
        for _ in 0..times {
            all().into_iter().take(count).for_each(|id| news.untaken(&image, id, why, is_full));
            advance(Duration::from_secs(2)).await;
        }
    };
    tries(1, 100, "no room is left", true).await;
    assert_eq!(said.count("no room is left"), 0, "the others are about to meet it");
    tries(30, 100, "no room is left", true).await;
    assert_eq!((said.count("no room is left"), said.count("100")), (1, 1), "in a minute, with all of them");
    tries(2, 1, "a gap", false).await;
    assert_eq!((said.count("a gap"), said.count("\"a/0\"")), (1, 1), "whatever else is said");
    tries(1, 100, "no room is left", true).await;
    assert_eq!((said.count("no room is left"), said.count("100")), (2, 2), "again");
}

/// By that a leader epoch ends, though its broker lives and nobody else leads.
#[tokio::test(start_paused = true)]
async fn a_replica_that_leaves_because_its_log_is_damaged_leaves_for_that() {
    listen();
    let (said, news) = (Said::here(), News::default());
    let after = image_in(3, BrokerState::Active, |_| (Some(1), &[1, 2]));
    change(&news, &led(&[1, 2, 3]), &after, None);
    assert_eq!(said.count("its log was found damaged"), 1);
}
