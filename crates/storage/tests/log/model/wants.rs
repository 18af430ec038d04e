//! What a process has to do without for a while: room, descriptors. It loses nothing by that, and damages nothing.

use weir_io::{Effect, Fault, FaultDisk, Op, Rule, RuleId};

use super::{Checked, World};
use crate::support::Process;

impl World {
    /// Some call on the files of partitions fails while they are opened, and a few times more.
    pub(super) fn hinder_the_start(&mut self, disk: &FaultDisk) -> Option<RuleId> {
        if !self.dice.percent(25) {
            return None;
        }
        let ops = [
            (Op::Open, Fault::TooManyFiles),
            (Op::Read, Fault::TooManyFiles),
            (Op::Len, Fault::TooManyFiles),
            (Op::List, Fault::TooManyFiles),
            (Op::Map, Fault::TooManyFiles),
            (Op::OpenDir, Fault::TooManyFiles),
            (Op::Create, Fault::TooManyFiles),
            (Op::Write, Fault::NoSpace),
            (Op::SetLen, Fault::NoSpace),
            (Op::Unlink, Fault::TooManyFiles),
            (Op::DropCache, Fault::TooManyFiles),
        ];
        let (op, fault) = ops[self.dice.below(ops.len() as u64) as usize];
        let (nth, times) = (self.dice.below(30), 1 + self.dice.below(4));
        self.history.push(format!("start: {op:?} number {nth} fails {times} times"));
        self.wants = true;
        let of_a_partition = Rule::on([op], Effect::Fail(fault)).path(|path| path.components().count() > 3);
        Some(disk.add(of_a_partition.nth(nth).times(times)))
    }

    /// What could not be opened is, as soon as there is what was wanting.
    pub(super) fn reopen(&mut self, process: &Process, disk: &FaultDisk, rule: RuleId) -> Checked<()> {
        if self.dice.percent(50) {
            disk.remove(rule);
        }
        for offline in &process.report.offline {
            for attempt in 0.. {
                let reopened = process.dir.reopen(offline.id);
                self.history.push(format!("p{} reopened: {}", offline.id.partition, reopened.is_ok()));
                let is_known =
                    reopened.is_ok() || matches!(reopened, Err(weir_storage::Error::Damaged { .. }));
                if is_known || disk.is_dead() || !process.fatal.lock().is_empty() {
                    break;
                }
                require!(attempt < 100, "partition {} stays offline: {reopened:?}", offline.id.partition);
            }
        }
        disk.remove(rule);
        Ok(())
    }

    /// Room or descriptors run out for a while; of some writes a part finds room.
    pub(super) fn want(&mut self, disk: &FaultDisk) {
        let ops = [
            (Op::Open, Fault::TooManyFiles),
            (Op::OpenDir, Fault::TooManyFiles),
            (Op::Map, Fault::TooManyFiles),
            (Op::Create, Fault::NoSpace),
            (Op::Write, Fault::NoSpace),
            (Op::Write, Fault::NoSpace),
            (Op::Write, Fault::NoSpace),
        ];
        let (op, fault) = ops[self.dice.below(ops.len() as u64) as usize];
        let (nth, times) = (self.dice.below(4), 1 + self.dice.below(3));
        let torn = Some(self.dice.below(300) as usize).filter(|_| op == Op::Write && self.dice.percent(50));
        self.history.push(format!("{op:?} number {nth} fails {times} times, after {torn:?} bytes"));
        self.wants = true;
        let effect = torn.map_or(Effect::Fail(fault), |bytes| Effect::Torn(bytes, fault));
        disk.add(Rule::on([op], effect).path(|path| path.components().count() > 2).nth(nth).times(times));
    }
}
