//! Where a number first stopped being finite.

use super::step::Compiled;
use crate::engine::{Executor, elements};
use crate::error::HostError;
use crate::ops::{DType, Tick};
use crate::program::TensorId;
use std::format;

pub(super) const REMEDY: &str =
    "lower train.lr, lengthen train.warmup_epochs, or lower train.clip; check the data for outliers";

/// Runs `executor`, whose inputs are filled, op by op, and says which op first took or made a value that is not finite. `None` if all of them stay finite.
pub(super) fn first_bad_op(compiled: &Compiled, executor: &mut Executor<'_>, tick: &Tick) -> Option<HostError> {
    let mut found = None;
    let program = &compiled.program;
    executor.run_watched(0..usize::MAX, tick, |i, record, executor| {
        // Of an in-place op, the first input is gone: an earlier op wrote it, and was looked at.
        let first = usize::from(record.decode().signature().is_in_place());
        for operand in first..record.n_ins() + record.n_outs() {
            let Some(id) = record.operand(operand) else { continue };
            let Some((at, value)) = first_bad(executor, id) else { continue };
            let tensor = program.tensor(TensorId(id as u16));
            let kind = if operand < record.n_ins() { "its input" } else { "its output" };
            found = Some(HostError::new(
                format!("step {}, op {i} ({})", tick.step, record.kind.name()),
                format!("{kind} `{}` holds {value} at {at} of {}", tensor.name, tensor.len()),
                REMEDY,
            ));
            return false;
        }
        true
    });
    found
}

fn first_bad(executor: &Executor<'_>, id: usize) -> Option<(usize, f32)> {
    if executor.view().tensor(id).dtype != DType::F32 {
        return None;
    }
    let values: &[f32] = elements(executor.tensor(id));
    values.iter().position(|v| !v.is_finite()).map(|at| (at, values[at]))
}
