//! What happens in a history, and when: drawn from its seed before it begins.

use std::fmt;
use std::time::Duration;

use weir_tests::dice::Dice;
use weir_tests::history::Place;

use crate::asked::Scenario;
use crate::clients::places;
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
    /// A broker's disk has no room left.
    FullDisk,
    /// A broker's data is gone; it comes back as a new broker.
    LoseDisk(Who),
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
            Self::FullDisk => "disk full",
            Self::LoseDisk(_) => "disk lost",
            Self::WipeController(_) => "controller wiped",
        }
    }

    /// Whether everything must be well when it begins: what is promised holds for one disk at a time.
    pub(crate) fn needs_calm(&self) -> bool {
        matches!(self, Self::LoseDisk(_) | Self::WipeController(_))
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
            Self::FullDisk => f.write_str("a disk is full"),
            Self::LoseDisk(who) => write!(f, "{who} loses its disk"),
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
    }
}

/// Leaders of one partition after the other.
fn kill_leaders(mut dice: Dice, breaking: Duration) -> Vec<Planned> {
    let places = places();
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
    vec![Planned { at: CALM, lasts: breaking.saturating_sub(CALM), fault }]
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
const KINDS: u64 = 18;
/// When a disk is lost, as a part of the time in which things break.
const LOST_AT: f64 = 0.75;

fn fault(dice: &mut Dice, kind: u64) -> Fault {
    let nodes: Vec<Who> = Who::nodes().collect();
    let all: Vec<Who> = Who::all().collect();
    match kind {
        0 => Fault::Kill(one_of(dice, &Who::BROKERS)),
        1 => Fault::Kill(one_of(dice, &Who::CONTROLLERS)),
        2 => Fault::KillLeader(one_of(dice, &places())),
        3 => Fault::KillLeadingController,
        4 => Fault::KillControllers,
        5 => Fault::KillAll,
        6 => Fault::Pause(one_of(dice, &nodes)),
        7 => Fault::PauseLeader(one_of(dice, &places())),
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
    lasts.min(most)
}

fn pair(dice: &mut Dice, all: &[Who], of: fn(Who, Who) -> Fault) -> Fault {
    let one = one_of(dice, all);
    let others: Vec<Who> = all.iter().copied().filter(|other| *other != one).collect();
    of(one, one_of(dice, &others))
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
        assert_eq!(kinds.len(), 20, "{kinds:?}");
        assert_eq!(plan.iter().filter(|planned| planned.fault.needs_calm()).count(), 2);
        assert!(plan.iter().any(|planned| planned.lasts > Duration::from_secs(20)));
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
                assert!(plan.is_empty() && only.at + only.lasts == MINUTES);
                only.fault.kind()
            })
            .collect();
        assert_eq!(kinds, BTreeSet::from(["all controllers killed", "all controllers paused"]));
    }
}
