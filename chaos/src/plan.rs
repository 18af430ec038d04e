//! What happens in a history, and when: drawn from its seed before it begins.

use std::fmt;
use std::time::Duration;

use weir_tests::dice::Dice;
use weir_tests::history::Place;

use crate::asked::Scenario;
use crate::clients::{TOPICS, places};
use crate::trouble::Trouble;
use crate::who::Who;

/// Before the first thing goes wrong.
const CALM: Duration = Duration::from_secs(1);
/// The longest pause between two that begin, in milliseconds.
const PAUSE_MS_MAX: u64 = 3_000;
/// The shortest time for which something is wrong, in milliseconds.
const SHORT_MS: u64 = 200;
/// Each fault lasts at most this long as a rule ...
const LASTS_MS_MAX: u64 = 8_000;
/// ... and sometimes this long: far beyond every session and patience of a connection.
const LASTS_MS_LONG: u64 = 60_000;
/// How often a leader is killed where only that happens, and for how long it is away.
const LEADER_EVERY: Duration = Duration::from_secs(5);
const LEADER_AWAY: Duration = Duration::from_millis(1_500);

/// By so much what is to be wrong in the end outlasts it.
const BEYOND: Duration = Duration::from_secs(1);
/// How long a disk is full where only that happens: for a moment, or until a follower has lagged for too long.
const FULL_SHORT: Duration = Duration::from_secs(4);
const FULL_LONG: Duration = Duration::from_secs(13);

/// How long a leader hangs where only that happens, and has to come back.
const PAUSED: Duration = Duration::from_secs(60);
const BACK: Duration = Duration::from_secs(5);
/// How often a controller loses its disk where only that happens.
const WIPED_EVERY: Duration = Duration::from_secs(10);

/// When power is lost where only that happens, and how often from then on.
const POWER_FIRST: Duration = Duration::from_secs(2);
const POWER_EVERY: Duration = Duration::from_secs(12);

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(Who),
    KillLeader(Place),
    KillLeadingController,
    KillControllers,
    KillAll,
    /// In order, as an upgrade does.
    Stop(Who),
    Pause(Who),
    PauseLeader(Place),
    PauseControllers,
    /// Neither hears the other.
    Cut(Who, Who),
    /// The second does not hear the first.
    OneWay(Who, Who),
    /// One controller and one broker are by themselves; clients reach everybody.
    Apart(Who, Who),
    /// Two halves that only one of them all sees both of.
    Bridge {
        middle: Who,
        left: Vec<Who>,
        right: Vec<Who>,
    },
    Unplug(Who),
    Narrow(Who),
    /// On the way from the first to the second.
    Way(Trouble, Who, Who),
    /// On all ways from and to one.
    Ways(Trouble, Who),
    /// A broker's disk has no room left.
    FullDisk,
    /// What a broker writes gets to its disk seconds later.
    SlowDisk,
    /// A broker's data is gone; it comes back as a new broker.
    LoseDisk(Who),
    /// Power is lost everywhere, with what was not synced; a broker may have lost its disk as well.
    LosePower(Option<Who>),
    /// A controller's data is gone; it comes back and asks for a place.
    WipeController(Who),
}

impl Fault {
    /// What it is counted as.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Kill(Who::Broker(_)) => "broker killed",
            Self::Kill(_) => "controller killed",
            Self::KillLeader(_) => "leader killed",
            Self::KillLeadingController => "leading controller killed",
            Self::KillControllers => "all controllers killed",
            Self::KillAll => "everybody killed",
            Self::Stop(Who::Broker(_)) => "broker stopped",
            Self::Stop(_) => "controller stopped",
            Self::Pause(_) => "process paused",
            Self::PauseLeader(_) => "leader paused",
            Self::PauseControllers => "all controllers paused",
            Self::Cut(..) => "cut",
            Self::OneWay(..) => "one-way cut",
            Self::Apart(..) => "minority apart",
            Self::Bridge { .. } => "bridge cut",
            Self::Unplug(_) => "node unplugged",
            Self::Narrow(_) => "narrow wire",
            Self::Way(trouble, ..) | Self::Ways(trouble, _) => trouble.kind(),
            Self::FullDisk => "disk full",
            Self::SlowDisk => "disk slow",
            Self::LoseDisk(_) => "disk lost",
            Self::LosePower(None) => "power lost",
            Self::LosePower(Some(_)) => "power and a disk lost",
            Self::WipeController(_) => "controller wiped",
        }
    }

    /// Whether it takes a disk that can be filled, held up or left in the dark, which not every machine allows.
    pub(crate) fn needs_disk(&self) -> bool {
        matches!(self, Self::FullDisk | Self::SlowDisk | Self::LosePower(_))
    }

    /// Whether everything must be well when it begins: what is promised holds for one disk at a time.
    pub(crate) fn needs_calm(&self) -> bool {
        matches!(self, Self::LoseDisk(_) | Self::WipeController(_) | Self::LosePower(Some(_)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |all: &[Who]| all.iter().map(Who::to_string).collect::<Vec<_>>().join(" ");
        match self {
            Self::Kill(who) => write!(f, "{who} is killed"),
            Self::KillLeader(place) => write!(f, "the leader of {place} is killed"),
            Self::KillLeadingController => f.write_str("the leading controller is killed"),
            Self::KillControllers => f.write_str("all controllers are killed"),
            Self::KillAll => f.write_str("everybody is killed"),
            Self::Stop(who) => write!(f, "{who} is told to stop"),
            Self::Pause(who) => write!(f, "{who} is paused"),
            Self::PauseLeader(place) => write!(f, "the leader of {place} is paused"),
            Self::PauseControllers => f.write_str("all controllers are paused"),
            Self::Cut(one, other) => write!(f, "{one} and {other} do not hear each other"),
            Self::OneWay(from, to) => write!(f, "{to} does not hear {from}"),
            Self::Apart(controller, broker) => {
                write!(f, "{controller} and {broker} are apart from the others")
            }
            Self::Bridge { middle, left, right } => {
                write!(f, "only {middle} sees both {} and {}", list(left), list(right))
            }
            Self::Unplug(who) => write!(f, "{who} is unplugged"),
            Self::Narrow(who) => write!(f, "the wire of {who} is narrow"),
            Self::Way(trouble, from, to) => write!(f, "{trouble:?}: from {from} to {to}"),
            Self::Ways(trouble, who) => write!(f, "{trouble:?}: all from and to {who}"),
            Self::FullDisk => f.write_str("a disk is full"),
            Self::SlowDisk => f.write_str("a disk is slow"),
            Self::LoseDisk(who) => write!(f, "{who} loses its disk"),
            Self::LosePower(None) => f.write_str("power is lost everywhere"),
            Self::LosePower(Some(who)) => write!(f, "power is lost everywhere, and {who} loses its disk"),
            Self::WipeController(who) => write!(f, "{who} loses its disk"),
        }
    }
}

/// One of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Since things began to break.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.1} s for {:.1} s: {}", self.at.as_secs_f64(), self.lasts.as_secs_f64(), self.fault)
    }
}

/// The plan of a history in which things break for so long.
pub(crate) fn plan(scenario: Scenario, seed: u64, breaking: Duration) -> Vec<Planned> {
    let dice = Dice::new(seed);
    match scenario {
        Scenario::Mixed => mixed(dice, breaking),
        Scenario::KillLeaders => kill_leaders(dice, breaking),
        Scenario::ControllersDown => controllers_down(dice, breaking),
        Scenario::BadWays => bad_ways(dice, breaking),
        Scenario::FullDisk => full_disk(dice, breaking),
        Scenario::SlowDisk => slow_disk(breaking),
        Scenario::PauseLeaders => pause_leaders(dice, breaking),
        Scenario::WipeControllers => wipe_controllers(breaking),
        Scenario::PowerLoss => power_loss(dice, breaking),
    }
}

/// Leaders of one partition after the other.
fn kill_leaders(mut dice: Dice, breaking: Duration) -> Vec<Planned> {
    let places = places(&TOPICS);
    let mut plan = Vec::new();
    let mut at = CALM;
    while at + LEADER_AWAY <= breaking {
        let place = one_of(&mut dice, &places);
        plan.push(Planned { at, lasts: LEADER_AWAY, fault: Fault::KillLeader(place) });
        at += LEADER_EVERY;
    }
    plan
}

/// Once, until the end: dead or paused, as the seed says.
fn controllers_down(mut dice: Dice, breaking: Duration) -> Vec<Planned> {
    let fault = if dice.percent(50) { Fault::KillControllers } else { Fault::PauseControllers };
    vec![Planned { at: CALM, lasts: breaking.saturating_sub(CALM) + BEYOND, fault }]
}

/// One hangs for a minute, or for what there is, and has time to come back.
fn pause_leaders(mut dice: Dice, breaking: Duration) -> Vec<Planned> {
    let places = places(&TOPICS);
    let (mut plan, mut at) = (Vec::new(), CALM);
    while at + BACK < breaking {
        let lasts = PAUSED.min(breaking - at - BACK);
        plan.push(Planned { at, lasts, fault: Fault::PauseLeader(one_of(&mut dice, &places)) });
        at += lasts + BACK;
    }
    plan
}

/// In turn. Each is replaced before the next one goes.
fn wipe_controllers(breaking: Duration) -> Vec<Planned> {
    let turns = Who::CONTROLLERS.into_iter().cycle().zip(0_u32..);
    let plan = turns.map(|(who, turn)| Planned {
        at: CALM + turn * WIPED_EVERY,
        lasts: LEADER_AWAY,
        fault: Fault::WipeController(who),
    });
    plan.take_while(|planned| planned.at < breaking).collect()
}

/// Of everybody at once, again and again; the last time a disk goes with it.
fn power_loss(mut dice: Dice, breaking: Duration) -> Vec<Planned> {
    let times = (0_u32..).map(|turn| CALM + POWER_FIRST + turn * POWER_EVERY);
    let times: Vec<Duration> = times.take_while(|at| *at < breaking).collect();
    let lost = one_of(&mut dice, &Who::BROKERS);
    let last = times.last().copied();
    let fault = |at| Fault::LosePower((Some(at) == last).then_some(lost));
    times.into_iter().map(|at| Planned { at, lasts: LEADER_AWAY, fault: fault(at) }).collect()
}

/// Once, until the end.
fn slow_disk(breaking: Duration) -> Vec<Planned> {
    vec![Planned { at: CALM, lasts: breaking.saturating_sub(CALM) + BEYOND, fault: Fault::SlowDisk }]
}

/// Again and again, for less or for more than a follower may lag; the last time until the end.
fn full_disk(mut dice: Dice, breaking: Duration) -> Vec<Planned> {
    let (mut plan, mut at) = (Vec::new(), CALM);
    while at < breaking {
        let lasts = if dice.percent(50) { FULL_SHORT } else { FULL_LONG };
        let room = FULL_SHORT + Duration::from_millis(dice.below(PAUSE_MS_MAX));
        let is_last = at + lasts + room + FULL_SHORT > breaking;
        let lasts = if is_last { breaking - at + BEYOND } else { lasts };
        plan.push(Planned { at, lasts, fault: Fault::FullDisk });
        at += lasts + room;
    }
    plan
}

/// All troubles in turn, in an order of the seed's and over each other, none of them for long.
fn bad_ways(mut dice: Dice, breaking: Duration) -> Vec<Planned> {
    let (mut plan, mut troubles, mut at) = (Vec::new(), Vec::new(), CALM);
    while at < breaking {
        if troubles.is_empty() {
            troubles.extend(Trouble::ALL);
        }
        let drawn = dice.below(troubles.len() as u64);
        let trouble = troubles.swap_remove(usize::try_from(drawn).unwrap_or(0));
        let fault = bad_way(&mut dice, trouble);
        let lasts = Duration::from_millis(SHORT_MS + dice.below(LASTS_MS_MAX));
        plan.push(Planned { at, lasts, fault });
        at += Duration::from_millis(SHORT_MS + dice.below(PAUSE_MS_MAX));
    }
    plan
}

/// All kinds in turn, in an order of the seed's, at any time and over each other.
fn mixed(mut dice: Dice, breaking: Duration) -> Vec<Planned> {
    let mut plan = Vec::new();
    let mut kinds = Vec::new();
    let mut at = CALM;
    // One controller, in the first turn; one broker, late, because its partitions have two replicas from then on. What a second
    // one would show a second history shows.
    let mut turn = KINDS + 1;
    let mut lost = breaking.mul_f64(LOST_AT);
    while at < breaking {
        if at >= lost {
            let fault = Fault::LoseDisk(one_of(&mut dice, &Who::BROKERS));
            plan.push(Planned { at, lasts: lasts(&mut dice, &fault, breaking), fault });
            lost = Duration::MAX;
        }
        if kinds.is_empty() {
            kinds.extend(0..turn);
            turn = KINDS;
        }
        let drawn = dice.below(kinds.len() as u64);
        let kind = kinds.swap_remove(usize::try_from(drawn).unwrap_or(0));
        let fault = fault(&mut dice, kind);
        let lasts = lasts(&mut dice, &fault, breaking);
        plan.push(Planned { at, lasts, fault });
        at += Duration::from_millis(SHORT_MS + dice.below(PAUSE_MS_MAX));
    }
    plan
}

/// Kinds that come again and again.
const KINDS: u64 = 24;
/// Of a hundred troubles, how many are on all ways of a node.
const ALL_WAYS_PERCENT: u64 = 25;
/// When a disk is lost, as a part of the time in which things break.
const LOST_AT: f64 = 0.75;

fn fault(dice: &mut Dice, kind: u64) -> Fault {
    let nodes: Vec<Who> = Who::nodes().collect();
    let all: Vec<Who> = Who::all().collect();
    match kind {
        0 => Fault::Kill(one_of(dice, &Who::BROKERS)),
        1 => Fault::Kill(one_of(dice, &Who::CONTROLLERS)),
        2 => Fault::KillLeader(one_of(dice, &places(&TOPICS))),
        3 => Fault::KillLeadingController,
        4 => Fault::KillControllers,
        5 => Fault::KillAll,
        6 => Fault::Pause(one_of(dice, &nodes)),
        7 => Fault::PauseLeader(one_of(dice, &places(&TOPICS))),
        8 => Fault::PauseControllers,
        9 => pair(dice, &all, Fault::Cut),
        10 => pair(dice, &all, Fault::OneWay),
        11 => Fault::Apart(one_of(dice, &Who::CONTROLLERS), one_of(dice, &Who::BROKERS)),
        12 => bridge(dice),
        13 => Fault::Unplug(one_of(dice, &nodes)),
        14 => Fault::Narrow(one_of(dice, &nodes)),
        15 => Fault::FullDisk,
        16 => Fault::Stop(one_of(dice, &Who::BROKERS)),
        17 => Fault::Stop(one_of(dice, &Who::CONTROLLERS)),
        18 => bad_way(dice, Trouble::Slow),
        19 => bad_way(dice, Trouble::Lossy),
        20 => bad_way(dice, Trouble::Stalled),
        21 => bad_way(dice, Trouble::Trickling),
        22 => bad_way(dice, Trouble::Resetting),
        23 => bad_way(dice, Trouble::HalfClosed),
        _ => Fault::WipeController(one_of(dice, &Who::CONTROLLERS)),
    }
}

fn lasts(dice: &mut Dice, fault: &Fault, breaking: Duration) -> Duration {
    // Each order of magnitude as likely as the others.
    let longest = if dice.percent(8) { LASTS_MS_LONG } else { LASTS_MS_MAX >> dice.below(6) };
    let lasts = Duration::from_millis(SHORT_MS + dice.below(longest));
    // What stops everything leaves time for what comes of it.
    let most = match fault {
        Fault::KillAll | Fault::KillControllers | Fault::FullDisk | Fault::LoseDisk(_) => {
            Duration::from_secs(5)
        }
        _ => breaking,
    };
    // A broker looks once a second how much room there is, and has some ahead.
    let least = if *fault == Fault::FullDisk { most.mul_f64(0.6) } else { Duration::ZERO };
    lasts.clamp(least, most)
}

fn pair(dice: &mut Dice, all: &[Who], of: fn(Who, Who) -> Fault) -> Fault {
    let one = one_of(dice, all);
    let others: Vec<Who> = all.iter().copied().filter(|other| *other != one).collect();
    of(one, one_of(dice, &others))
}

/// Somewhere where something passes: clients have nothing to say to controllers.
fn bad_way(dice: &mut Dice, trouble: Trouble) -> Fault {
    let nodes: Vec<Who> = Who::nodes().collect();
    if dice.percent(ALL_WAYS_PERCENT) {
        return Fault::Ways(trouble, one_of(dice, &nodes));
    }
    let one = one_of(dice, &nodes);
    let beside = matches!(one, Who::Broker(_)).then_some(Who::Clients);
    let others: Vec<Who> = nodes.into_iter().chain(beside).filter(|other| *other != one).collect();
    let other = one_of(dice, &others);
    if dice.percent(50) { Fault::Way(trouble, one, other) } else { Fault::Way(trouble, other, one) }
}

fn bridge(dice: &mut Dice) -> Fault {
    let nodes: Vec<Who> = Who::nodes().collect();
    let middle = one_of(dice, &nodes);
    let mut left: Vec<Who> = nodes.into_iter().filter(|who| *who != middle).collect();
    let mut right = Vec::new();
    for _ in 0..=dice.below(left.len() as u64 - 1) {
        let drawn = dice.below(left.len() as u64);
        right.push(left.swap_remove(usize::try_from(drawn).unwrap_or(0)));
    }
    Fault::Bridge { middle, left, right }
}

/// One of some, of which there is at least one.
fn one_of<T: Clone>(dice: &mut Dice, all: &[T]) -> T {
    let at = usize::try_from(dice.below(all.len() as u64)).unwrap_or(0);
    all.get(at).or(all.first()).cloned().expect("a plan chooses among some")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_is_one_plan() {
        for scenario in Scenario::ALL {
            assert_eq!(plan(scenario, 7, MINUTES), plan(scenario, 7, MINUTES));
        }
        assert_ne!(plan(Scenario::Mixed, 7, MINUTES), plan(Scenario::Mixed, 8, MINUTES));
    }

    #[test]
    fn in_ten_minutes_everything_happens_and_disks_are_lost_once() {
        let plan = plan(Scenario::Mixed, 1, MINUTES);
        let kinds: BTreeSet<_> = plan.iter().map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds.len(), 26, "{kinds:?}");
        assert_eq!(plan.iter().filter(|planned| planned.fault.needs_calm()).count(), 2);
        assert!(plan.iter().any(|planned| planned.lasts > Duration::from_secs(20)));
    }

    #[test]
    fn ways_have_every_trouble_and_nobody_dies_of_it() {
        let plan = plan(Scenario::BadWays, 1, Duration::from_secs(20));
        assert!(
            plan.iter().all(|planned| matches!(planned.fault, Fault::Way(..) | Fault::Ways(..))),
            "{plan:?}"
        );
        let kinds: BTreeSet<_> = plan.iter().map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds.len(), Trouble::ALL.len(), "{kinds:?}");
    }

    #[test]
    fn a_disk_is_full_in_the_end() {
        for (seed, seconds) in (0..50).zip([10, 20, 60].into_iter().cycle()) {
            let breaking = Duration::from_secs(seconds);
            let plan = plan(Scenario::FullDisk, seed, breaking);
            assert!(plan.iter().all(|planned| planned.lasts >= FULL_SHORT), "{plan:?}");
            let last = plan.last().unwrap();
            assert!(last.at + last.lasts > breaking, "{plan:?}");
        }
    }

    #[test]
    fn a_disk_is_slow_until_the_end() {
        let plan = plan(Scenario::SlowDisk, 1, Duration::from_secs(10));
        let [only] = plan.as_slice() else { panic!("{plan:?}") };
        assert!(only.fault == Fault::SlowDisk && only.at + only.lasts > Duration::from_secs(10), "{plan:?}");
    }

    #[test]
    fn leaders_hang_for_a_minute_if_there_is_one_and_come_back() {
        let lasts = |seconds: u64| -> Vec<u64> {
            let plan = plan(Scenario::PauseLeaders, 1, Duration::from_secs(seconds));
            plan.iter().map(|planned| planned.lasts.as_secs()).collect()
        };
        assert_eq!(lasts(10), [4]);
        assert_eq!(lasts(66), [60]);
        assert_eq!(lasts(100), [60, 29]);
    }

    #[test]
    fn the_first_controller_is_the_first_to_lose_its_disk() {
        let plan = plan(Scenario::WipeControllers, 1, Duration::from_secs(40));
        let whom: Vec<_> = plan.into_iter().map(|planned| planned.fault).collect();
        let wiped = [1, 2, 3, 1].map(|number| Fault::WipeController(Who::Controller(number)));
        assert_eq!(whom, wiped);
    }

    #[test]
    fn a_disk_is_lost_with_the_last_loss_of_power() {
        let plan = plan(Scenario::PowerLoss, 1, Duration::from_secs(30));
        let lost: Vec<_> = plan.iter().map(|planned| planned.fault.kind()).collect();
        assert_eq!(lost, ["power lost", "power lost", "power and a disk lost"]);
    }

    #[test]
    fn leaders_die_every_five_seconds() {
        let plan = plan(Scenario::KillLeaders, 1, MINUTES);
        assert_eq!(plan.len(), 120);
        assert!(plan.iter().all(|planned| planned.fault.kind() == "leader killed"));
    }

    #[test]
    fn the_controllers_are_away_until_the_end() {
        let kinds: BTreeSet<_> = (0..20)
            .map(|seed| {
                let mut plan = plan(Scenario::ControllersDown, seed, MINUTES);
                let only = plan.pop().unwrap();
                assert!(plan.is_empty() && only.at + only.lasts > MINUTES);
                only.fault.kind()
            })
            .collect();
        assert_eq!(kinds, BTreeSet::from(["all controllers killed", "all controllers paused"]));
    }
}
