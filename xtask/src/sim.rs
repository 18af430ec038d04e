//! `cargo xtask sim`: many seeds of the whole-cluster simulation, a process each.

mod plants;
mod runs;

use std::path::{Path, PathBuf};

use crate::steps::{Outcome, Steps, cargo};
use plants::{PLANTS, Plant};
use runs::{Runs, Wanted};

/// Seeds unless told otherwise: as many as a change must pass.
const SEEDS: u64 = 200;
/// What is simulated: seeds take turns.
const SCENARIOS: [&str; 5] = ["brokers", "conditions", "controllers", "rotten", "unclean"];

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// These seeds.
    Seeds(Wanted),
    /// Every bug that can be planted, as far as it takes to notice it.
    Plants,
}

fn asked(args: &[String]) -> Result<Asked, String> {
    if args == ["--plants"] {
        return Ok(Asked::Plants);
    }
    let scenarios = SCENARIOS.iter().map(ToString::to_string).collect();
    let mut wanted = Wanted { from: 1, seeds: SEEDS, scenarios, plant: None, until_one_fails: false };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        if flag == "--plants" {
            return Err("--plants says by itself which seeds of what: nothing goes with it".to_owned());
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{flag} {value}: a whole number is needed"));
        match flag.as_str() {
            "--from" => wanted.from = number()?,
            "--seeds" => wanted.seeds = number()?,
            "--scenario" if SCENARIOS.contains(&value.as_str()) => wanted.scenarios = vec![value.clone()],
            "--scenario" => return Err(format!("there is no scenario {value}: {}", SCENARIOS.join(", "))),
            "--plant" => {
                let Plant { name, scenario, .. } = plants::named(value)?;
                wanted.plant = Some((*name).to_owned());
                wanted.scenarios = vec![(*scenario).to_owned()];
            }
            other => {
                return Err(format!(
                    "sim does not know {other}: --seeds N, --from S, --scenario NAME, --plant NAME, --plants"
                ));
            }
        }
    }
    Ok(Asked::Seeds(wanted))
}

/// What a change must pass: the usual seeds, and the bugs that must be noticed.
pub(crate) fn ci(steps: &mut Steps) -> Result<Outcome, String> {
    let held = run(steps, &[])?;
    Ok(held.and(run(steps, &["--plants".to_owned()])?))
}

/// Builds the simulation, and runs what is asked for.
pub(crate) fn run(steps: &mut Steps, args: &[String]) -> Result<Outcome, String> {
    let asked = asked(args)?;
    let Some(built) = build(steps)? else { return Ok(Outcome::Failed) };
    match asked {
        Asked::Seeds(wanted) => {
            let planted = wanted.plant.as_ref().map(|plant| format!(", with {plant}")).unwrap_or_default();
            let name = format!("{} seeds from {} on{planted}", wanted.seeds, wanted.from);
            steps.time(&name, || built.seeds(&wanted))
        }
        Asked::Plants => PLANTS.iter().try_fold(Outcome::Passed, |outcome, plant| {
            Ok(outcome.and(steps.time(&format!("{} planted", plant.name), || built.notices(plant))?))
        }),
    }
}

/// The simulation, built.
struct Built {
    target: PathBuf,
}

/// `None`: it cannot be, and cargo has said why.
fn build(steps: &mut Steps) -> Result<Option<Built>, String> {
    let mut build = cargo();
    build.args(["build", "--locked", "--quiet", "--profile", "sim", "--package", "weir-simulation"]);
    build.args(["--features", "mutants"]);
    if steps.run("the simulation", &mut build)? != Outcome::Passed {
        return Ok(None);
    }
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program's folder: {e}"))?;
    let target = this.parent().and_then(Path::parent).ok_or("this program is in no target folder")?;
    Ok(Some(Built { target: target.to_path_buf() }))
}

impl Built {
    fn runs<'a>(&self, wanted: &'a Wanted) -> Result<Runs<'a>, String> {
        Runs::new(self.target.join("sim/weir-simulation"), self.target.join("sim/out"), wanted)
    }

    /// Seeds must hold; with a bug planted one must fail.
    fn seeds(&self, wanted: &Wanted) -> Result<Outcome, String> {
        let failed = self.runs(wanted)?.run()?;
        if let Some(plant) = &wanted.plant {
            eprintln!("{plant} is noticed by {} of {} seeds", failed.len(), wanted.seeds);
            failed.iter().for_each(|failed| eprintln!("  {}: {}", failed.seed, failed.reason()));
            return Ok(if failed.is_empty() { Outcome::Failed } else { Outcome::Passed });
        }
        if failed.is_empty() {
            return Ok(Outcome::Passed);
        }
        eprintln!(
            "\n{} of {} seeds failed. Each again, with all that happens in it:",
            failed.len(),
            wanted.seeds
        );
        failed.iter().for_each(|failed| eprintln!("  {}", failed.command()));
        Ok(Outcome::Failed)
    }

    /// A bug must be noticed, and be what was noticed: without it the same seed must hold.
    fn notices(&self, plant: &Plant) -> Result<Outcome, String> {
        let Plant { name, scenario, seeds } = *plant;
        let scenarios = vec![scenario.to_owned()];
        let wanted =
            Wanted { from: 1, seeds, scenarios, plant: Some(name.to_owned()), until_one_fails: true };
        let Some(first) = self.runs(&wanted)?.run()?.into_iter().next() else {
            eprintln!("{name} is noticed by none of the first {seeds} seeds of {scenario}");
            return Ok(Outcome::Failed);
        };
        eprintln!("{name}: {scenario}, seeds needed: {}\n  {}", first.seed, first.reason());
        self.seeds(&Wanted { from: first.seed, seeds: 1, plant: None, until_one_fails: false, ..wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Result<Asked, String> {
        asked(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn seeds(args: &[&str]) -> Wanted {
        match of(args) {
            Ok(Asked::Seeds(wanted)) => wanted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_says_which_seeds() {
        let all = seeds(&[]);
        assert_eq!((all.from, all.seeds, all.scenarios.len()), (1, SEEDS, SCENARIOS.len()));
        let some = seeds(&["--seeds", "3", "--from", "7", "--scenario", "controllers"]);
        assert_eq!((some.from, some.seeds, some.plant), (7, 3, None));
        assert_eq!(some.scenarios, ["controllers"]);
        assert!(of(&["--seeds"]).unwrap_err().contains("needs a value"));
        assert!(of(&["--seeds", "many"]).unwrap_err().contains("many"));
        assert!(of(&["--scenario", "none"]).unwrap_err().contains("controllers"));
        assert_eq!(seeds(&["--plant", "no-sync"]).plant.as_deref(), Some("no-sync"));
        assert!(of(&["--plant", "none"]).unwrap_err().contains("no-log-sync"));
        assert_eq!(of(&["--plants"]), Ok(Asked::Plants));
        assert!(of(&["--plants", "--seeds", "3"]).unwrap_err().contains("nothing goes with it"));
        assert!(of(&["--seeds", "3", "--plants"]).unwrap_err().contains("nothing goes with it"));
        assert!(of(&["--verbose", "1"]).unwrap_err().contains("--verbose"));
    }

    #[test]
    fn plants_are_noticed_in_scenarios_that_there_are() {
        for plant in &PLANTS {
            assert!(SCENARIOS.contains(&plant.scenario), "{plant:?}");
            assert_eq!(plants::named(plant.name), Ok(plant), "each has a name of its own");
        }
    }
}
