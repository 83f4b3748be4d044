//! A model file over samples.

use crate::model_file::ModelFile;
use crate::terminal;
use softedge::data::{Dataset, Raw};
use softedge::engine::{Buffer, Every, Executor, Memory};
use softedge::error::HostError;
use softedge::format::View;
use softedge::ops::{DType, Tick};
use softedge::program::{Op, Space};
use softedge::train::{Evaluation, Judged};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A sample as a model takes it whose raw input is of type `dtype`.
pub fn raw_input(dtype: DType, set: &Dataset, i: usize) -> Result<Vec<u8>, HostError> {
    if dtype.name() == set.raw.kind() {
        return Ok(set.raw_bytes(i).into_owned());
    }
    let mut values = vec![0.0f32; set.width()];
    set.sample_f32(i, &mut values);
    encode(dtype, &values).ok_or_else(|| {
        HostError::new(
            format!("{}, sample {i}", set.name),
            format!("has values that are not whole numbers in the range of {}", dtype.name()),
            "the model takes raw data: give it the data it was trained with",
        )
    })
}

/// Values in the bytes of an element type, if it has them all.
pub fn encode(dtype: DType, values: &[f32]) -> Option<Vec<u8>> {
    let whole = |lo: f32, hi: f32| values.iter().all(|v| v.fract() == 0.0 && (lo..=hi).contains(v));
    match dtype {
        DType::F32 if values.iter().all(|v| v.is_finite()) => {
            Some(values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DType::U8 if whole(0.0, 255.0) => Some(values.iter().map(|v| *v as u8).collect()),
        DType::I8 if whole(-128.0, 127.0) => Some(values.iter().map(|v| *v as i8 as u8).collect()),
        DType::I16 if whole(-32768.0, 32767.0) => Some(values.iter().flat_map(|v| (*v as i16).to_le_bytes()).collect()),
        _ => None,
    }
}

/// Whether all of these little-endian f32 are finite.
pub fn is_finite(bytes: &[u8]) -> bool {
    bytes.chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite())
}

/// A model file with an arena.
pub struct Runner<'m> {
    executor: Executor<'m, Every>,
}

impl<'m> Runner<'m> {
    /// Binds `model` to `arena`, which has the bytes of [`arena`] or more.
    pub fn new(model: &'m ModelFile, arena: &'m mut Buffer) -> Result<Self, HostError> {
        let executor = Executor::new(model.view(), Memory::new(arena.bytes_mut()));
        let executor = executor.map_err(|e| HostError::new(model.path.display(), e.to_string(), ""))?;
        Ok(Self { executor })
    }

    /// The scores' bytes for an input's bytes, which must be as many as the model takes.
    pub fn run(&mut self, input: &[u8]) -> &[u8] {
        let view = self.executor.view();
        let place = self.executor.tensor_mut(view.input_id(0)).unwrap_or_default();
        place.copy_from_slice(input);
        self.executor.run(&Tick::default());
        self.executor.tensor(view.output_id(0))
    }

    /// The real values of scores.
    pub fn scores(&self, raw: &[u8]) -> Vec<f32> {
        let t = self.executor.view().output(0);
        let real = |q: i32| t.scale * (q - t.zero) as f32;
        match t.dtype {
            DType::F32 => raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            DType::I32 => raw.chunks_exact(4).map(|b| real(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
            DType::I16 => raw.chunks_exact(2).map(|b| real(i32::from(i16::from_le_bytes([b[0], b[1]])))).collect(),
            DType::I8 => raw.iter().map(|b| real(i32::from(*b as i8))).collect(),
            DType::U8 => raw.iter().map(|b| real(i32::from(*b))).collect(),
        }
    }
}

/// Checks that these raw values can be in the units of the f32 `model`: fractions that are next to nothing
/// beside the deviation of its data are in others, pixels from 0 to 1 for those from 0 to 255 say. Integer
/// models take no fractions.
pub fn check_units(model: &ModelFile, place: &str, values: &[f32]) -> Result<(), HostError> {
    /// Parts of the deviation.
    const NOTHING: f32 = 1.0 / 32.0;
    let Some(deviation) = smallest_deviation(model.view()) else { return Ok(()) };
    let largest = values.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
    if largest >= NOTHING * deviation || values.iter().all(|v| v.fract() == 0.0) {
        return Ok(());
    }
    Err(HostError::new(
        place,
        format!("has no value beyond {largest:.3}, and those of the model's data deviate by {deviation:.3}"),
        "give raw values in the units of the training data; pixels are 0 to 255",
    ))
}

/// The smallest deviation of a channel by which an f32 model divides its raw input.
fn smallest_deviation(view: View<'_>) -> Option<f32> {
    let first = view.ops().next()?;
    if !matches!(first.decode(), Op::Normalise(_)) {
        return None;
    }
    let factor = Some(view.tensor(first.operand(1)?)).filter(|factor| factor.space == Space::Weights)?;
    let factors = view.weights()[factor.offset..][..factor.bytes()].chunks_exact(4);
    factors.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).map(|f| 1.0 / f.abs()).reduce(f32::min)
}

/// An arena for `model`.
pub fn arena(model: &ModelFile) -> Buffer {
    Buffer::zeroed(model.view().size(Space::Arena))
}

/// Checks that the model takes the samples of `set`.
pub fn check_shape(model: &ModelFile, set: &Dataset) -> Result<(), HostError> {
    let shape = model.input_shape()?;
    if shape == set.shape {
        return Ok(());
    }
    let problem = format!("takes {} where {} has {}", terminal::dims(&shape), set.name, terminal::dims(&set.shape));
    Err(HostError::new(model.path.display(), problem, "give it the data it was trained for"))
}

/// Checks that the model takes the samples of `set`, in their units, and has its classes.
pub fn check(model: &ModelFile, set: &Dataset) -> Result<(), HostError> {
    check_shape(model, set)?;
    let (classes, has) = (model.view().output(0).len(), set.classes.len());
    if classes == has {
        return match &set.raw {
            Raw::F32(values) => check_units(model, &set.name, values),
            _ => Ok(()),
        };
    }
    let problem = format!("tells {classes} classes apart where {} has {has}", set.name);
    Err(HostError::new(model.path.display(), problem, "give it the data it was trained for"))
}

/// Samples that a thread takes at a time.
const CHUNK: usize = 64;

/// Runs `model` over all samples of `set`, on this many threads (0: as many as there are cores).
pub fn evaluate(model: &ModelFile, set: &Dataset, threads: usize) -> Result<Evaluation, HostError> {
    check(model, set)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores } else { threads }.min(set.len().div_ceil(CHUNK));
    let (next, bar) = (AtomicUsize::new(0), terminal::progress("evaluating", set.len() as u64));
    let dtype = model.view().input(0).dtype;
    let work = || -> Result<Vec<(usize, Judged)>, HostError> {
        let mut arena = arena(model);
        let mut runner = Runner::new(model, &mut arena)?;
        let mut judged = Vec::new();
        loop {
            let start = next.fetch_add(CHUNK, Ordering::Relaxed);
            if start >= set.len() {
                return Ok(judged);
            }
            for i in start..(start + CHUNK).min(set.len()) {
                let raw = runner.run(&raw_input(dtype, set, i)?).to_vec();
                judged.push((i, Judged::new(&runner.scores(&raw), set.labels[i])));
                bar.inc(1);
            }
        }
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|w| w.join().expect("a worker does not panic")).collect()
    });
    bar.finish_and_clear();
    let mut judged = parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    // In the order of the samples, so that the sum does not depend on the number of threads.
    judged.sort_by_key(|(i, _)| *i);
    let mut all = Evaluation::new(set.classes.len());
    judged.iter().for_each(|(_, sample)| all.add(sample));
    Ok(all)
}

/// The classes in the order of their scores, largest first.
pub fn ranked(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
}
