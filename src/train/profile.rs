//! Where the time of a Program goes, op by op.

use crate::engine::{Executor, Runs};
use crate::ops::Tick;
use crate::program::{Kind, Program, TensorId};
use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BTreeMap;
use std::string::String;
use std::time::Instant;
use std::vec::Vec;

/// The time of one op, or of all ops of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct OpTime {
    /// Kind of the op.
    pub kind: Kind,
    /// Name of the tensor it writes; empty for all ops of a kind.
    pub output: String,
    /// Time of one run: the shortest of all, which other processes disturbed least.
    pub time: Duration,
    /// Multiply-accumulates of one run.
    pub macs: u64,
}

/// The times of all ops, in the order of execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The ops.
    pub ops: Vec<OpTime>,
}

impl Profile {
    /// Runs all ops of `executor` (bound to `program`, with its inputs filled) `runs` times, on one
    /// thread; `fill` writes the inputs before each run.
    pub fn new<S: Runs>(
        program: &Program,
        executor: &mut Executor<'_, S>,
        runs: usize,
        tick: &Tick,
        mut fill: impl FnMut(&mut Executor<'_, S>),
    ) -> Self {
        let mut ops: Vec<OpTime> = Vec::new();
        for run in 0..runs {
            fill(executor);
            let mut last = Instant::now();
            executor.run_watched(0..usize::MAX, tick, |i, record, _| {
                let time = last.elapsed();
                if run == 0 {
                    let output = record.operand(record.n_ins()).map(|id| &program.tensor(TensorId(id as u16)).name);
                    let output = output.cloned().unwrap_or_default();
                    ops.push(OpTime { kind: record.kind, output, time, macs: record.decode().macs() });
                } else {
                    ops[i].time = ops[i].time.min(time);
                }
                last = Instant::now();
                true
            });
        }
        Self { ops }
    }

    /// Time of all ops.
    pub fn total(&self) -> Duration {
        self.ops.iter().map(|op| op.time).sum()
    }

    /// Sums by kind of op, the longest first.
    pub fn by_kind(&self) -> Vec<OpTime> {
        let mut kinds: BTreeMap<Kind, OpTime> = BTreeMap::new();
        for op in &self.ops {
            let none = OpTime { kind: op.kind, output: String::new(), time: Duration::ZERO, macs: 0 };
            let sum = kinds.entry(op.kind).or_insert(none);
            sum.time += op.time;
            sum.macs += op.macs;
        }
        let mut kinds: Vec<OpTime> = kinds.into_values().collect();
        kinds.sort_by_key(|op| Reverse(op.time));
        kinds
    }
}
