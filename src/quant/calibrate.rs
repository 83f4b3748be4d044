//! Ranges of activations, watched on data.

use crate::engine::{Buffer, Executor, Memory, elements, elements_mut};
use crate::error::HostError;
use crate::format::{self, View};
use crate::ops::{DType, Tick};
use crate::program::{Plan, Program, Space, TensorId};
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// How the range of a tensor is taken from the values it had.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "Written")]
pub enum Bounds {
    /// From the smallest to the largest.
    MinMax,
    /// With this percentage of the values inside, the rest cut off in equal parts at both ends;
    /// 99.99 say.
    Percentile(f64),
}

/// [`Bounds`] as they are written: a derived error would not say how to write a percentile.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "must be \"min-max\" or { percentile = 99.99 }")]
enum Written {
    Name(String),
    Table(Percentile),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Percentile {
    percentile: f64,
}

impl TryFrom<Written> for Bounds {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Name(name) if name == "min-max" => Ok(Bounds::MinMax),
            Written::Name(name) => {
                Err(std::format!("must be \"min-max\" or {{ percentile = 99.99 }} and is \"{name}\""))
            }
            Written::Table(Percentile { percentile }) => Ok(Bounds::Percentile(percentile)),
        }
    }
}

/// What was seen of one tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Range after [`Bounds`]: lower end.
    pub lo: f32,
    /// Range after [`Bounds`]: upper end.
    pub hi: f32,
}

impl Observed {
    /// The largest magnitude in the range.
    pub fn magnitude(&self) -> f32 {
        self.lo.abs().max(self.hi.abs())
    }
}

/// The ranges of all activations of a Program, by tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    observed: Vec<Option<Observed>>,
}

impl Calibration {
    /// What was seen of a tensor; `None` for constants and scratch that is not f32.
    pub fn of(&self, id: TensorId) -> Option<&Observed> {
        self.observed[id.index()].as_ref()
    }
}

const BINS: usize = 4096;
/// Most passes of a percentile; each divides the width of a bin by up to [`BINS`].
const PASSES: usize = 4;

/// Runs `program` (frozen, batch 1) on `samples` raw inputs that `fill` writes, and takes the range
/// of every f32 activation.
///
/// # Errors
/// No samples, or a value that is not finite, with the tensor and the sample.
pub fn calibrate(
    program: &Program,
    samples: usize,
    mut fill: impl FnMut(usize, &mut [f32]),
    bounds: Bounds,
) -> Result<Calibration, HostError> {
    if samples == 0 {
        return Err(HostError::new("calibration", "needs at least one sample and has none", "raise quant.samples"));
    }
    let file = Buffer::copy_of(&format::write(program, &Plan::new(program))?);
    let mut observed: Vec<Option<Observed>> = vec![None; program.tensors.len()];
    watch(&file, samples, &mut fill, |sample, id, values| {
        let seen = observed[id].get_or_insert(Observed { min: f32::MAX, max: f32::MIN, lo: 0.0, hi: 0.0 });
        for &v in values {
            if !v.is_finite() {
                let name = &program.tensors[id].name;
                let problem = std::format!("holds {v} on calibration sample {sample}");
                return Err(HostError::new(name, problem, "check the data and the training run"));
            }
            seen.min = seen.min.min(v);
            seen.max = seen.max.max(v);
        }
        Ok(())
    })?;
    for seen in observed.iter_mut().flatten() {
        (seen.lo, seen.hi) = (seen.min, seen.max);
    }
    if let Bounds::Percentile(inside) = bounds {
        for _ in 0..PASSES {
            if !narrow(&file, samples, &mut fill, inside, &mut observed)? {
                break;
            }
        }
    }
    Ok(Calibration { observed })
}

/// Counts the values in bins of the ranges so far, the values outside in the first and last bin, and
/// takes the percentile from the counts. Whether a range shrank to less than half: an outlier then made
/// its bins too wide, and they are to be counted again.
fn narrow(
    file: &Buffer,
    samples: usize,
    fill: &mut impl FnMut(usize, &mut [f32]),
    inside: f64,
    observed: &mut [Option<Observed>],
) -> Result<bool, HostError> {
    let mut counts = vec![[0u64; BINS]; observed.len()];
    let width = |seen: &Observed| (seen.hi - seen.lo).max(f32::MIN_POSITIVE) / BINS as f32;
    watch(file, samples, fill, |_, id, values| {
        if let Some(seen) = &observed[id] {
            for v in values {
                counts[id][(((v - seen.lo) / width(seen)) as usize).min(BINS - 1)] += 1;
            }
        }
        Ok(())
    })?;
    let mut again = false;
    for (seen, counts) in observed.iter_mut().zip(&counts) {
        let Some(seen) = seen else { continue };
        let outside = (counts.iter().sum::<u64>() as f64 * (1.0 - inside / 100.0) / 2.0) as u64;
        let tail = |bins: &mut dyn Iterator<Item = &u64>| {
            let mut below = 0;
            bins.take_while(|&&n| {
                below += n;
                below <= outside
            })
            .count()
        };
        let (before, width) = (seen.hi - seen.lo, width(seen));
        seen.lo += width * tail(&mut counts.iter()) as f32;
        seen.hi -= width * tail(&mut counts.iter().rev()) as f32;
        again |= seen.hi - seen.lo < before / 2.0;
    }
    Ok(again)
}

/// Runs a file on `samples` inputs and shows the values of every f32 activation: sample, tensor,
/// values.
pub(super) fn watch(
    file: &Buffer,
    samples: usize,
    fill: &mut impl FnMut(usize, &mut [f32]),
    mut see: impl FnMut(usize, usize, &[f32]) -> Result<(), HostError>,
) -> Result<(), HostError> {
    let view = View::new_checked(file.bytes()).map_err(|e| HostError::new("frozen model", e.to_string(), ""))?;
    let mut arena = Buffer::zeroed(view.size(Space::Arena));
    let mut executor: Executor<'_> = Executor::new(view, Memory::new(arena.bytes_mut()))
        .map_err(|e| HostError::new("frozen model", e.to_string(), ""))?;
    let input = view.input_id(0);
    for sample in 0..samples {
        let raw = elements_mut(executor.tensor_mut(input).unwrap_or_default());
        fill(sample, raw);
        see(sample, input, raw)?;
        let mut result = Ok(());
        executor.run_watched(0..view.n_ops(), &Tick::default(), |_, record, executor| {
            if let Some(id) = record.operand(record.n_ins())
                && view.tensor(id).dtype == DType::F32
            {
                result = see(sample, id, elements(executor.tensor(id)));
            }
            result.is_ok()
        });
        result?;
    }
    Ok(())
}
