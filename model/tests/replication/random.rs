//! Long walks through large worlds: five brokers, every kind of trouble, every message late. A walk is its seed; one that
//! goes wrong says it, and every step.

use stateright::Model;
use weir_types::Durability::{Fsync, Replicated};

use crate::config::{Config, Faults};
use crate::properties;
use crate::step::Action;
use crate::wire::Kind;
use crate::world::World;

/// Steps of a walk at most.
const STEPS: usize = 300;

const EVERYTHING: Faults = Faults {
    deaths: 4,
    stops: 2,
    drains: 2,
    powers: 4,
    blackouts: 0,
    disks: 2,
    tails: 0,
    copies: 1,
    fences: 3,
    moves: 3,
    lags: 3,
    timeouts: 2,
    repeats: 3,
    breaks: 3,
    mins: 0,
    deletes: 0,
    unclean: 0,
    slows: 0,
};

const LARGE: Config = Config {
    brokers: 5,
    records: 5,
    messages: 4,
    slow: &[Kind::Subscribe, Kind::Welcome, Kind::Data, Kind::Acknowledge, Kind::Alter],
    slow_flush: true,
    stepwise: true,
    faults: EVERYTHING,
    ..Config::new(Fsync, 2)
};

/// More than is promised to be survived.
const BEYOND: Config =
    Config { beyond: true, min_insync: 1, faults: Faults { unclean: 2, ..EVERYTHING }, ..LARGE };

/// How many walks: so many for a change, and a hundred times that for `cargo xtask model --deep`.
fn walks() -> u64 {
    if std::env::var_os("WEIR_MODEL_DEEP").is_some() { 200_000 } else { 2_000 }
}

/// The next number of a sequence that its seed decides (SplitMix64).
fn draw(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Walks once; says how many steps that took.
fn walk(config: &Config, seed: u64) -> usize {
    let mut dice = seed;
    let mut world = World::new(config);
    let mut taken = Vec::new();
    let mut actions = Vec::new();
    while taken.len() < STEPS {
        actions.clear();
        config.actions(&world, &mut actions);
        // Trouble comes one time in sixteen; otherwise there is so much of it that nothing is ever written.
        let trouble = draw(&mut dice).is_multiple_of(16);
        actions.retain(|action| matches!(action, Action::Fault(_) | Action::Lose(_)) == trouble);
        if actions.is_empty() {
            if trouble {
                continue;
            }
            break;
        }
        let chosen = draw(&mut dice) as usize % actions.len();
        let action = actions.swap_remove(chosen);
        let Some(next) = config.next_state(&world, action.clone()) else {
            taken.push(None);
            continue;
        };
        world = next;
        taken.push(Some(action));
        if let Some(missing) = properties::missing(config, &world) {
            let steps: Vec<_> = taken.iter().flatten().map(|action| format!("\n  {action:?}")).collect();
            panic!("seed {seed} of {config:?}: not: {missing}, after{}\n{world:#?}", steps.concat());
        }
    }
    taken.iter().flatten().count()
}

fn walk_often(name: &str, config: &Config) {
    let steps: usize = (0..walks()).map(|seed| walk(config, seed)).sum();
    eprintln!("{name}: {} walks, {steps} steps", walks());
}

#[test]
fn walks_in_class_fsync() {
    walk_often("fsync", &LARGE);
}

#[test]
fn walks_in_class_fsync_where_min_insync_changes() {
    let faults = Faults { mins: 3, disks: 0, copies: 0, ..EVERYTHING };
    walk_often("fsync, min.insync changes", &Config { mins: &[1, 2, 3, 4], faults, ..LARGE });
}

#[test]
fn walks_in_which_records_are_deleted() {
    let faults = Faults { deletes: 3, disks: 0, copies: 0, ..EVERYTHING };
    walk_often("deletes", &Config { faults, ..LARGE });
}

/// (Of who stays away for longer than it is waited for nothing is promised: no time passes.)
#[test]
fn walks_in_which_a_disk_loses_its_end() {
    let faults = Faults { tails: 2, lags: 0, disks: 0, copies: 0, ..EVERYTHING };
    for brokers in [3, 5] {
        walk_often("lost ends", &Config { brokers, faults, ..LARGE });
    }
}

#[test]
fn walks_in_which_disks_are_slow() {
    walk_often("slow disks", &Config { faults: Faults { slows: 6, ..EVERYTHING }, ..LARGE });
}

#[test]
fn walks_in_class_replicated() {
    walk_often("replicated", &Config { durability: Replicated, ..LARGE });
}

#[test]
fn walks_beyond_what_is_promised() {
    for durability in [Fsync, Replicated] {
        walk_often("beyond", &Config { durability, ..BEYOND });
    }
}

/// Walks that found something once, beyond the first ones that every change takes.
#[test]
fn walks_that_found_something() {
    // Who was elected by a person showed what it had written and not flushed.
    walk(&BEYOND, 2_071);
}
