//! The Program of a training step: forward, loss, backward, then the optimizer.
//!
//! The first [`shard_ops`](Program::shard_ops) ops run once per shard of the batch, with parameters
//! that are only read and gradients of their own. After the shards' gradients are averaged, the
//! rest runs once: the norm of the whole gradient, AdamW over the two regions of parameters (with
//! and without weight decay), the running statistics, the average of the parameters. Each is one op
//! over a whole region, not one per tensor.

use super::Config;
use super::samples::{Purpose, stream};
use super::schedule::average_decay;
use crate::engine::Buffer;
use crate::error::HostError;
use crate::format::{self, View};
use crate::math::random::Stream;
use crate::model::Built;
use crate::ops::{DType, adamw, batch_norm};
use crate::program::{Init, ParamLayout, Plan, Program, Role, Space, Tensor, TensorId, differentiate};
use core::ops::Range;
use std::format;
use std::string::ToString;
use std::vec::Vec;

/// Weight of a batch in the running statistics of batch norm, as PyTorch's default.
const MOMENTUM: f32 = 0.1;

/// A Program, written and checked, with the names of its tensors.
#[derive(Debug)]
pub struct Compiled {
    /// The Program the file was written from.
    pub program: Program,
    /// Checked; nothing changes it.
    file: Buffer,
}

impl Compiled {
    /// Plans, writes and checks `program`.
    ///
    /// # Errors
    /// What the check found: the builder of `program` is at fault.
    pub fn new(program: Program) -> Result<Self, HostError> {
        let plan = Plan::new(&program);
        debug_assert_eq!(crate::program::verify(&program, &plan), Ok(()));
        let file = Buffer::copy_of(&format::write(&program, &plan)?);
        View::new_checked(file.bytes()).map_err(|e| HostError::new("program", e.to_string(), "this is a bug"))?;
        Ok(Self { program, file })
    }

    /// The checked file.
    pub fn view(&self) -> View<'_> {
        View::checked_before(self.file.bytes())
    }
}

/// A training step.
#[derive(Debug)]
pub struct Step {
    /// The Program.
    pub compiled: Compiled,
    /// Where the parameters and their gradients are.
    pub layout: ParamLayout,
    /// Input: raw samples, `[shard, h, w, c]`.
    pub input: TensorId,
    /// Input: target probabilities, `[shard, classes]`.
    pub target: TensorId,
    /// Output of a shard: scores, `[shard, classes]`.
    pub logits: TensorId,
    /// Output of a shard: mean loss, one value.
    pub loss: TensorId,
    /// Output of the update: norm of the whole gradient, before clipping.
    pub norm: TensorId,
    /// State: `[lr, 1 - beta1^t, 1 - beta2^t, decay of the average]`, written before every update.
    pub hyper: TensorId,
    /// State: AdamW's first and second moments of the parameters, in the order of the regions.
    pub moments: Vec<Moments>,
    /// State: the average of all parameters and statistics, laid out as they are; if it is on.
    pub average: Option<TensorId>,
}

/// The moments of one region of the parameters.
#[derive(Clone, Debug)]
pub struct Moments {
    /// The region, in bytes.
    pub region: Range<usize>,
    /// First moment.
    pub first: TensorId,
    /// Second moment.
    pub second: TensorId,
}

impl Step {
    /// The step that trains what `built` (made for training) computes.
    ///
    /// # Errors
    /// As [`Compiled::new`].
    pub fn new(built: Built, config: &Config) -> Result<Self, HostError> {
        let Built { mut program, input, logits, target: Some(target), loss: Some(loss) } = built else {
            return Err(HostError::new("training program", "has no loss", "build it with Mode::Train"));
        };
        differentiate(&mut program, loss);
        let shard_ops = program.nodes.len();
        let layout = ParamLayout::new(&program);
        let trained = layout.decayed.start..layout.plain.end;

        let hyper = program.add("hyperparameters", DType::F32, &[4], Role::State);
        let gradients = window(&mut program, "gradients", Space::Grads, &trained);
        let clip = adamw::ClipScale { len: trained.len() / 4, max_norm: config.clip };
        let scale = program.add("gradient.scale", DType::F32, &[1], Role::Activation);
        let norm = program.add("gradient.norm", DType::F32, &[1], Role::Activation);
        program.push(clip, &[Some(gradients)], &[Some(scale), Some(norm)]);

        let mut moments = Vec::new();
        let regions = [("decayed", &layout.decayed, config.weight_decay), ("plain", &layout.plain, 0.0)];
        for (name, region, decay) in regions {
            if region.is_empty() {
                continue;
            }
            let len = region.len() / 4;
            let params = window(&mut program, &format!("{name} parameters"), Space::Params, region);
            let gradients = window(&mut program, &format!("{name} gradients"), Space::Grads, region);
            let first = program.add(format!("{name} first moments"), DType::F32, &[len], Role::State);
            let second = program.add(format!("{name} second moments"), DType::F32, &[len], Role::State);
            program.push(
                optimizer(config, len, decay),
                &[Some(gradients), Some(hyper), Some(scale)],
                &[Some(params), Some(first), Some(second)],
            );
            moments.push(Moments { region: region.clone(), first, second });
        }
        if !layout.statistics.is_empty() {
            let batch = window(&mut program, "batch statistics", Space::Grads, &layout.statistics);
            let running = window(&mut program, "running statistics", Space::Params, &layout.statistics);
            let update = batch_norm::RunningUpdate { len: layout.statistics.len() / 4, momentum: MOMENTUM };
            program.push(update, &[Some(batch)], &[Some(running)]);
        }
        let average = (config.ema > 0.0).then(|| {
            let len = layout.bytes() / 4;
            let params = window(&mut program, "all parameters", Space::Params, &(0..layout.bytes()));
            let average = program.add("averaged parameters", DType::F32, &[len], Role::State);
            program.push(adamw::Ema { len }, &[Some(params), Some(hyper)], &[Some(average)]);
            average
        });
        program.shard_ops = shard_ops;
        program.inputs = [input, target].into();
        program.outputs = [loss, logits, norm].into();
        let compiled = Compiled::new(program)?;
        Ok(Self { compiled, layout, input, target, logits, loss, norm, hyper, moments, average })
    }

    /// Parameters and statistics, each with the index of its first element.
    pub fn params(&self) -> impl Iterator<Item = (&Tensor, usize)> {
        params(&self.compiled.program, &self.layout)
    }

    /// The first values of all parameters and statistics.
    pub fn initial_params(&self, seed: u64) -> Buffer {
        let random = stream(seed, Purpose::Initialise);
        let mut buffer = Buffer::zeroed(self.layout.bytes());
        let values = buffer.elements_mut::<f32>();
        for (t, at) in self.params() {
            // By name, so that a new layer leaves the others' first values as they were.
            let random = t.name.bytes().fold(random, |stream, byte| stream.fork(u64::from(byte)));
            initialise(t.init, random, &mut values[at..][..t.len()]);
        }
        buffer
    }

    /// The state before the first step.
    pub fn initial_state(&self, params: &Buffer) -> Buffer {
        let mut state = Buffer::zeroed(self.compiled.view().size(Space::State));
        if let Some(average) = self.average {
            let range = self.state_bytes(average);
            state.bytes_mut()[range].copy_from_slice(params.bytes());
        }
        state
    }

    /// Hyperparameters of step `number` (from 0), for [`hyper`](Self::hyper).
    pub fn hyperparameters(&self, config: &Config, lr: f32, number: u64) -> [f32; 4] {
        optimizer(config, 0, 0.0).hyper(lr, number, average_decay(config.ema, number))
    }

    /// Where a tensor is in the state, in bytes.
    pub fn state_bytes(&self, id: TensorId) -> Range<usize> {
        let t = self.compiled.view().tensor(id.index());
        t.offset..t.offset + t.bytes()
    }

    /// Which elements of the state are the hyperparameters.
    pub fn hyper_range(&self) -> Range<usize> {
        let bytes = self.state_bytes(self.hyper);
        bytes.start / 4..bytes.end / 4
    }

    /// Which elements of the state are the first and the second moments of parameter `t`, whose first
    /// element is `at`; `None` for a statistic.
    pub fn moments_ranges(&self, t: &Tensor, at: usize) -> Option<[Range<usize>; 2]> {
        let of = self.moments.iter().find(|m| m.region.contains(&(4 * at)))?;
        Some([of.first, of.second].map(|id| {
            let start = (self.state_bytes(id).start - of.region.start) / 4 + at;
            start..start + t.len()
        }))
    }

    /// Which elements of the state are the average of parameter or statistic `t`, whose first element
    /// is `at`; `None` where no average is kept.
    pub fn average_range(&self, t: &Tensor, at: usize) -> Option<Range<usize>> {
        let start = self.state_bytes(self.average?).start / 4 + at;
        Some(start..start + t.len())
    }
}

/// Parameters and statistics of a Program, each with the index of its first element.
pub(super) fn params<'p>(program: &'p Program, layout: &'p ParamLayout) -> impl Iterator<Item = (&'p Tensor, usize)> {
    let is_param = |role| matches!(role, Role::Param { .. } | Role::Statistic);
    let ids = (0..program.tensors.len()).map(|i| TensorId(i as u16));
    let ids = ids.filter(move |&id| is_param(program.tensor(id).role));
    ids.map(|id| (program.tensor(id), layout.offset(id) / size_of::<f32>()))
}

fn optimizer(config: &Config, len: usize, decay: f32) -> adamw::AdamW {
    let [beta1, beta2] = config.betas;
    adamw::AdamW { len, beta1, beta2, eps: config.eps, decay }
}

/// A tensor over the bytes `region` of a space.
fn window(program: &mut Program, name: &str, space: Space, region: &Range<usize>) -> TensorId {
    let role = Role::Window { space, offset: region.start };
    program.add(name, DType::F32, &[region.len() / 4], role)
}

fn initialise(init: Init, random: Stream, values: &mut [f32]) {
    match init {
        Init::Zeros => values.fill(0.0),
        Init::Ones => values.fill(1.0),
        Init::TruncatedNormal(std) => {
            for (i, v) in values.iter_mut().enumerate() {
                *v = std * truncated_normal(random.fork(i as u64));
            }
        }
    }
}

/// A standard normal number cut off at two, by Box and Muller's method with rejection; libm's
/// functions give the same bits on every host.
fn truncated_normal(random: Stream) -> f32 {
    let draw = |i: u64| {
        let [u, v] = [random.uniform(2 * i), random.uniform(2 * i + 1)].map(f64::from);
        libm::sqrt(-2.0 * libm::log(1.0 - u)) * libm::cos(core::f64::consts::TAU * v)
    };
    // 95 of 100 draws are kept.
    (0..).map(draw).find(|z| z.abs() <= 2.0).unwrap_or_default() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_values_are_truncated_normal() {
        let mut values = std::vec![0.0; 20_000];
        initialise(Init::TruncatedNormal(0.5), Stream::new(3), &mut values);
        assert!(values.iter().all(|v| v.abs() <= 1.0));
        let mean = values.iter().sum::<f32>() / 20_000.0;
        let std = (values.iter().map(|v| v * v).sum::<f32>() / 20_000.0).sqrt();
        // A normal cut off at two standard deviations has 0.8796 of its standard deviation.
        assert!(mean.abs() < 0.01 && (std - 0.4398).abs() < 0.01, "{mean} {std}");
        initialise(Init::Ones, Stream::new(3), &mut values);
        assert!(values.iter().all(|&v| v == 1.0));
    }
}
