//! A leader that dies, with a quorum alive and connected, is followed by another within two seconds (correctness rule 31):
//! also when every controller draws the same numbers and all were started at the same moment, and at whatever moment the
//! leader dies. Just after its election is the hardest: others have stood in vain then, and wait longer than usual for their
//! next time.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Scenario;
use crate::life::Death;
use crate::world::note;

/// No cluster is longer without a leader.
const SOON: Duration = Duration::from_secs(2);
/// Nothing happens for so long where it is calm.
const CALM: Duration = Duration::from_secs(1);
/// How often a leader is killed.
const KILLS: usize = 3;

/// Kills leaders, one after the other.
pub(crate) fn check(scenario: &mut Scenario) -> Result<()> {
    if scenario.simulation.dice.percent(50) {
        // All from the start again, with the same chance.
        let chance = scenario.simulation.dice.roll();
        let machines = scenario.quorum.machines().to_vec();
        for machine in &machines {
            scenario.simulation.end(machine, Death::Process);
            machine.draw_as_others(chance);
        }
        machines.iter().for_each(|machine| scenario.simulation.start(machine));
        note("-", format_args!("all controllers draw the same"), &[]);
    }
    for _ in 0..KILLS {
        scenario.until("all controllers live, one leads, and all know", |this| this.quorum.all_follow())?;
        let calm = scenario.simulation.dice.percent(60);
        if calm {
            // Longer than the entry takes that a new leader begins with.
            scenario.wait(CALM)?;
        }
        let leads = scenario.quorum.leader();
        let Some((machine, term)) =
            leads.and_then(|(at, term)| Some((scenario.quorum.machines().get(at)?.clone(), term)))
        else {
            continue;
        };
        let how = if scenario.simulation.dice.percent(50) { Death::Process } else { Death::Power };
        scenario.simulation.end(&machine, how);
        let died = scenario.simulation.now();
        while scenario.quorum.leader().is_none() {
            let waited = scenario.simulation.now() - died;
            ensure!(
                waited < SOON,
                "{} died in term {term} (calm: {calm}), and {waited:?} later nobody leads",
                machine.name()
            );
            scenario.step()?;
        }
        let waited = scenario.simulation.now() - died;
        note("-", format_args!("calm: {calm}, a leader after {waited:?}"), &[]);
        scenario.simulation.start(&machine);
    }
    Ok(())
}
