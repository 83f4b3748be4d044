//! Quantisation-aware training: the integers' rounding inside the training Program, gradients
//! straight through it.
//!
//! The model is frozen first, so that batch norm is folded and the weights that are rounded are the
//! weights that are shipped; its constants then train on. Activations are rounded to the integer
//! form that [`quantise`](super::quantise) gives them, weights to int8 per output channel. Int16
//! tensors, which round a hundred times finer, are left alone.

use super::freeze::{make_constant, values};
use crate::error::HostError;
use crate::model::{self, Built};
use crate::ops::{DType, cross_entropy, fake_quant};
use crate::program::{Node, Op, Program, Role, TensorId};
use crate::train::{self, Checkpoint, Trainer, Values};
use std::string::String;
use std::vec;
use std::vec::Vec;

/// A trainer that fine-tunes `frozen` (made for inference of `config.shard` inputs) with the
/// rounding of `integer` (its integer Program, made for one).
///
/// # Errors
/// A configuration that does not fit the Program.
pub fn fine_tune(
    model: &model::Config,
    frozen: &Program,
    integer: &Program,
    config: train::Config,
) -> Result<Trainer, HostError> {
    let (thawed, start) = thaw(frozen);
    let rounded = round(&thawed, integer);
    let inference =
        Built { input: rounded.inputs[0], logits: rounded.outputs[0], program: rounded, target: None, loss: None };
    let training = with_loss(inference.clone(), model.classes, &config);
    let mut trainer = Trainer::with_programs(model, training, inference, config)?;
    trainer.start_from(&start)?;
    Ok(trainer)
}

/// `frozen` with the weights that fine-tuning gave it.
///
/// # Errors
/// A weight that `value` has in another size.
pub fn with_weights<'v>(frozen: &Program, value: impl Fn(&str) -> Option<&'v [f32]>) -> Result<Program, HostError> {
    let mut program = frozen.clone();
    for id in weights(frozen) {
        let t = frozen.tensor(id);
        if let Some(new) = value(&t.name) {
            if new.len() != t.len() {
                let problem = std::format!("needs {} values and has {}", t.len(), new.len());
                return Err(HostError::new(&t.name, problem, "take the weights from fine-tuning this model"));
            }
            make_constant(&mut program, id, new);
        }
    }
    Ok(program)
}

/// The constants that train: all but those that make the raw input numbers.
fn weights(program: &Program) -> Vec<TensorId> {
    let mut found = Vec::new();
    for node in program.nodes.iter().filter(|n| !matches!(n.op, Op::Normalise(_))) {
        for &id in node.ins.iter().flatten() {
            if program.tensor(id).role == Role::Constant && !found.contains(&id) {
                found.push(id);
            }
        }
    }
    found
}

/// Constants become parameters again, and what they hold the start of training.
fn thaw(frozen: &Program) -> (Program, Checkpoint) {
    let mut program = frozen.clone();
    let mut start = Checkpoint::default();
    for id in weights(frozen) {
        let t = &mut program.tensors[id.index()];
        t.role = Role::Param { decay: t.shape.len() > 1 };
        t.data = Vec::new();
        start.tensors.insert(t.name.clone(), Values { shape: t.shape.clone(), values: values(frozen, id) });
    }
    (program, start)
}

/// Inserts the rounding after every op whose output is int8 in `integer`, and before every weight.
fn round(thawed: &Program, integer: &Program) -> Program {
    let mut program = thawed.clone();
    program.nodes.clear();
    // Where later ops read a tensor from: its rounded form.
    let mut rounded: Vec<TensorId> = (0..thawed.tensors.len()).map(|i| TensorId(i as u16)).collect();
    let name = |id: TensorId| -> String { thawed.tensor(id).name.clone() };
    for Node { op, ins, outs } in &thawed.nodes {
        let mut ins: Vec<_> = ins.iter().map(|id| id.map(|id| rounded[id.index()])).collect();
        let weights = match *op {
            Op::Linear(s) => Some((1, s.n, s.k)),
            Op::Conv(s) => Some((1, s.c_out, s.kh * s.kw * s.c_in)),
            Op::Depthwise(s) => Some((s.kh * s.kw, s.c / s.share, 1)),
            _ => None,
        };
        if let (Some((outer, channels, inner)), Some(&Some(w))) = (weights, ins.get(1)) {
            let shape = thawed.tensor(w).shape.clone();
            let op = fake_quant::FakeQuantWeights { outer, channels, inner };
            ins[1] = Some(program.apply(&(name(w) + ".rounded"), op, &[Some(w)], &shape));
        }
        program.push(*op, &ins, outs);
        let Some(y) = outs[0] else { continue };
        // The form its own op writes is the first of that name.
        let form = integer.tensors.iter().find(|t| t.name == name(y) && t.role == Role::Activation);
        if let Some(t) = form.filter(|t| t.dtype == DType::I8) {
            let len = thawed.tensor(y).len();
            let op = fake_quant::FakeQuant { len, scale: t.scale, zero: t.zero, lo: -128, hi: 127 };
            let shape = thawed.tensor(y).shape.clone();
            rounded[y.index()] = program.apply(&(name(y) + ".rounded"), op, &[Some(y)], &shape);
        }
    }
    program
}

/// The forward half of a training step on these scores.
fn with_loss(inference: Built, classes: usize, config: &train::Config) -> Built {
    let Built { mut program, input, logits, .. } = inference;
    let rows = config.shard;
    let target = program.add("target", DType::F32, &[rows, classes], Role::Activation);
    program.inputs.push(target);
    let op = cross_entropy::CrossEntropy { rows, classes, smoothing: config.label_smoothing };
    let loss = program.apply("loss", op, &[Some(logits), Some(target)], &[1]);
    program.outputs = vec![loss, logits];
    Built { program, input, logits, target: Some(target), loss: Some(loss) }
}
