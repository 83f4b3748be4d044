//! An inference Program with its parameters baked in, and everything foldable folded.

use crate::error::HostError;
use crate::ops;
use crate::program::{Node, Op, Program, Role, TensorId};
use std::vec;
use std::vec::Vec;

/// The frozen form of an inference Program: parameters become constants; batch norm and scales are
/// folded into the convolution or projection before them; ops on constants alone (the resizing of
/// position embeddings) are computed.
///
/// `value` gives the f32 values of a parameter or running statistic by name.
///
/// # Errors
/// A parameter that `value` does not have, or has in another size; an op that only training has.
pub fn freeze<'v>(program: &Program, value: impl Fn(&str) -> Option<&'v [f32]>) -> Result<Program, HostError> {
    let mut frozen = program.clone();
    for t in &mut frozen.tensors {
        if matches!(t.role, Role::Param { .. } | Role::Statistic) {
            let values = value(&t.name).ok_or_else(|| {
                HostError::new(
                    &t.name,
                    "the checkpoint has no such tensor",
                    "use the configuration it was trained with",
                )
            })?;
            if values.len() != t.len() {
                let problem = std::format!("needs {} values and has {}", t.len(), values.len());
                return Err(HostError::new(&t.name, problem, "use the configuration it was trained with"));
            }
            t.role = Role::Constant;
            t.data = bytes(values);
        }
    }
    fold_constants(&mut frozen);
    fold_batch_norm(&mut frozen);
    fold_scales(&mut frozen);
    drop_unused(&mut frozen);
    Ok(frozen)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The values of an f32 constant.
pub(super) fn values(program: &Program, id: TensorId) -> Vec<f32> {
    program.tensor(id).data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn is_constant(program: &Program, id: Option<TensorId>) -> bool {
    id.is_some_and(|id| program.tensor(id).role == Role::Constant)
}

pub(super) fn make_constant(program: &mut Program, id: TensorId, values: &[f32]) {
    let t = &mut program.tensors[id.index()];
    t.role = Role::Constant;
    t.data = bytes(values);
}

/// Computes the ops whose inputs are all constants.
fn fold_constants(program: &mut Program) {
    let mut kept = Vec::new();
    for node in core::mem::take(&mut program.nodes) {
        match (node.op, node.ins[0], node.outs[0]) {
            (Op::Resize(s), Some(x), Some(y)) if is_constant(program, Some(x)) => {
                let mut resized = vec![0.0; program.tensor(y).len()];
                ops::resize::forward(&s, &values(program, x), &mut resized);
                make_constant(program, y, &resized);
            }
            _ => kept.push(node),
        }
    }
    program.nodes = kept;
}

/// The node that writes `id`, if nothing but `reader` reads it and it is no output.
fn sole_producer(program: &Program, id: TensorId, reader: usize) -> Option<usize> {
    let others = program.nodes.iter().enumerate().any(|(i, n)| i != reader && n.ins.contains(&Some(id)));
    if others || program.outputs.contains(&id) {
        return None;
    }
    program.nodes.iter().position(|n| n.outs[0] == Some(id))
}

/// Folds `y = scale[c] x + shift[c]` per output channel into the linear op `producer`.
fn fold_affine(program: &mut Program, producer: usize, scale: &[f32], shift: &[f32], y: TensorId) -> bool {
    let node = program.nodes[producer].clone();
    // Where the channel of a weight is: rows of `k` weights each, or the last dimension.
    let (Some(w), channel_last) = (match node.op {
        Op::Linear(_) | Op::Conv(_) => (node.ins[1], false),
        Op::Depthwise(s) if s.share == 1 => (node.ins[1], true),
        _ => (None, false),
    }) else {
        return false;
    };
    let channels = scale.len();
    let old = values(program, w);
    let k = old.len() / channels;
    let weights: Vec<f32> =
        old.iter().enumerate().map(|(i, v)| v * scale[if channel_last { i % channels } else { i / k }]).collect();
    let old_bias = node.ins[2].map_or_else(|| vec![0.0; channels], |b| values(program, b));
    let bias: Vec<f32> = old_bias.iter().zip(scale).zip(shift).map(|((b, s), o)| b * s + o).collect();
    let name = |program: &Program, id: TensorId| program.tensor(id).name.clone();
    let (w_name, w_shape) = (name(program, w), program.tensor(w).shape.clone());
    let folded_w = program.constant_f32(w_name, &w_shape, &weights);
    let b_name = node.ins[2].map_or_else(|| name(program, y) + ".bias", |b| name(program, b));
    let folded_b = program.constant_f32(b_name, &[channels], &bias);
    let node = &mut program.nodes[producer];
    node.ins[1] = Some(folded_w);
    node.ins[2] = Some(folded_b);
    node.outs[0] = Some(y);
    true
}

fn fold_batch_norm(program: &mut Program) {
    let mut i = 0;
    while i < program.nodes.len() {
        let node = program.nodes[i].clone();
        if let (Op::BatchNormEval(s), [Some(x), Some(gamma), Some(beta), Some(mean), Some(var)], [Some(y)]) =
            (node.op, &node.ins[..], &node.outs[..])
            && let Some(producer) = sole_producer(program, *x, i)
        {
            let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(|id| values(program, *id));
            let scale: Vec<f32> = gamma.iter().zip(&var).map(|(g, v)| g / (v + s.eps).sqrt()).collect();
            let shift: Vec<f32> = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
            if fold_affine(program, producer, &scale, &shift, *y) {
                program.nodes.remove(i);
                continue;
            }
        }
        i += 1;
    }
}

fn fold_scales(program: &mut Program) {
    let mut i = 0;
    while i < program.nodes.len() {
        let node = program.nodes[i].clone();
        if let (Op::Scale(s), Some(x), Some(y)) = (node.op, node.ins[0], node.outs[0])
            && let Some(producer) = sole_producer(program, x, i)
            && let Op::Linear(linear) = program.nodes[producer].op
            && fold_affine(program, producer, &vec![s.factor; linear.n], &vec![0.0; linear.n], y)
        {
            program.nodes.remove(i);
            continue;
        }
        i += 1;
    }
}

/// Removes tensors that no op uses, and renumbers the rest.
fn drop_unused(program: &mut Program) {
    let mut used = vec![false; program.tensors.len()];
    let mut mark = |id: &TensorId| used[id.index()] = true;
    program.inputs.iter().chain(&program.outputs).for_each(&mut mark);
    program.nodes.iter().for_each(|n| n.ins.iter().chain(&n.outs).flatten().for_each(&mut mark));
    let mut new = vec![TensorId(0); program.tensors.len()];
    let mut kept = Vec::new();
    for (i, t) in core::mem::take(&mut program.tensors).into_iter().enumerate() {
        if used[i] {
            new[i] = TensorId(kept.len() as u16);
            kept.push(t);
        }
    }
    program.tensors = kept;
    let renumber = |id: &mut TensorId| *id = new[id.index()];
    program.inputs.iter_mut().chain(&mut program.outputs).for_each(renumber);
    for Node { ins, outs, .. } in &mut program.nodes {
        ins.iter_mut().chain(outs).flatten().for_each(renumber);
    }
    program.shard_ops = program.nodes.len();
}
