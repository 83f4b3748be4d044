//! Quantisation-aware training: the integers' rounding inside the training Program, gradients
//! straight through it.
//!
//! The model is frozen first, so that batch norm is folded and the weights that are rounded are the
//! weights that are shipped; its constants then train on. Every op reads its activations rounded as its
//! integer op does in the Program that [`quantise`](super::quantise) makes, which may read as int8 what
//! another reads as int16; weights are rounded to the width they have there, per output channel. Int16
//! activations, which round a hundred times finer, are left alone.

use super::freeze::{make_constant, values};
use super::rewrite::rounding_of;
use crate::error::HostError;
use crate::model::{self, Built, Mode};
use crate::ops::{DType, Width, cross_entropy, fake_quant};
use crate::program::{Node, Op, Program, Role, Tensor, TensorId};
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
    let built = model::build(model, Mode::Infer { batch: config.shard })?;
    let (thawed, start) = thaw(frozen, &built.program);
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

/// Constants become parameters again, decayed as in `built`, and what they hold the start of training.
fn thaw(frozen: &Program, built: &Program) -> (Program, Checkpoint) {
    let mut program = frozen.clone();
    let mut start = Checkpoint::default();
    for id in weights(frozen) {
        let t = &mut program.tensors[id.index()];
        t.role = Role::Param { decay: decays(built, &t.name) };
        t.data = Vec::new();
        start.tensors.insert(t.name.clone(), Values { shape: t.shape.clone(), values: values(frozen, id) });
    }
    (program, start)
}

/// Whether the parameter of `built` that was frozen to `name` decays. Folding keeps the names of weights;
/// what it adds are biases, and resized position embeddings, which decay as those that were resized.
fn decays(built: &Program, name: &str) -> bool {
    let Some(mut id) = built.find(name) else { return false };
    while let Some(writer) = built.nodes.iter().find(|n| n.outs[0] == Some(id)) {
        let Some(x) = writer.ins[0] else { return false };
        id = x;
    }
    built.tensor(id).role == Role::Param { decay: true }
}

/// Inserts the rounding of `integer` before every op that reads int8 activations there, and before
/// every weight.
fn round(thawed: &Program, integer: &Program) -> Program {
    let mut program = Program { nodes: Vec::new(), ..thawed.clone() };
    // The rounded tensors so far, by the integer tensors they stand for.
    let mut rounded: Vec<Option<TensorId>> = vec![None; integer.tensors.len()];
    for node in &thawed.nodes {
        let Node { op, ins, outs } = node;
        let forms: Vec<_> = (0..ins.len()).map(|i| int8_read(thawed, integer, node, i)).collect();
        let mut ins = ins.clone();
        for (x, form) in ins.iter_mut().zip(&forms) {
            if let (Some(id), Some(form)) = (*x, *form) {
                let new = || round_activation(&mut program, id, integer.tensor(form));
                *x = Some(*rounded[form.index()].get_or_insert_with(new));
            }
        }
        // An op with weights reads int8.
        let input_scale = forms.first().copied().flatten().map_or(1.0, |form| integer.tensor(form).scale);
        let accumulator = integer_op(thawed, integer, node).and_then(|node| node.op.accumulator());
        let width = accumulator.map_or(Width::Int8, |accumulator| accumulator.weights);
        if let (Some(op), Some(&Some(w))) = (rounding_of(op, input_scale, width), ins.get(1)) {
            let (name, shape) = (rounded_name(&program, w), program.tensor(w).shape.clone());
            let bias = ins.get(2).copied().flatten();
            ins[1] = Some(program.apply(&name, op, &[Some(w), bias], &shape));
        }
        program.push(*op, &ins, outs);
    }
    program
}

fn rounded_name(program: &Program, id: TensorId) -> String {
    program.tensor(id).name.clone() + ".rounded"
}

/// Appends the rounding of `x` to the int8 tensor `form`.
fn round_activation(program: &mut Program, x: TensorId, form: &Tensor) -> TensorId {
    let (name, shape) = (rounded_name(program, x), program.tensor(x).shape.clone());
    let len = program.tensor(x).len();
    let op = fake_quant::FakeQuant { len, scale: form.scale, zero: form.zero, lo: -128, hi: 127 };
    program.apply(&name, op, &[Some(x)], &shape)
}

/// The int8 tensor that input `i` of `reader` has gone through in `integer` where `reader`'s op takes
/// it; `None` where it never was int8, or is no activation.
fn int8_read(thawed: &Program, integer: &Program, reader: &Node, i: usize) -> Option<TensorId> {
    let x = thawed.tensor(reader.ins[i]?);
    let form = (*integer_op(thawed, integer, reader)?.ins.get(i)?)?;
    // The op of a folded ReLU reads another tensor.
    let t = integer.tensor(form);
    if t.name != x.name || t.role != Role::Activation {
        return None;
    }
    if t.dtype == DType::I8 {
        return Some(form);
    }
    let writer = integer.nodes.iter().find(|n| n.outs[0] == Some(form))?;
    if matches!(writer.op, Op::RescaleI8I16(_)) { writer.ins[0] } else { None }
}

/// The op of `integer` that does the work of `node`: the first that writes a tensor of the name of its
/// output, or of the output of the ReLU that was folded into it. Ops that rescale that tensor come later.
fn integer_op<'p>(thawed: &Program, integer: &'p Program, node: &Node) -> Option<&'p Node> {
    let writer = |y: TensorId| {
        let name = &thawed.tensor(y).name;
        integer.nodes.iter().find(|n| n.outs[0].is_some_and(|y| integer.tensor(y).name == *name))
    };
    let y = node.outs[0]?;
    let relu = || thawed.nodes.iter().find(|n| matches!(n.op, Op::Relu(_)) && n.ins[0] == Some(y));
    writer(y).or_else(|| writer(relu()?.outs[0]?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Buffer, elements};
    use crate::model::{Config, Head, Mixer, Raw, preset};
    use crate::ops::testing::reals;
    use crate::ops::{layer_norm, linear};
    use crate::program::Init;
    use crate::quant::{Bounds, calibrate, freeze, quantise};
    use std::collections::HashMap;

    /// A model of `config` with random parameters, frozen.
    fn frozen(config: &Config, batch: usize) -> Program {
        let program = model::build(config, Mode::Infer { batch }).unwrap().program;
        let values: HashMap<_, _> = program
            .tensors
            .iter()
            .map(|t| {
                let noise = reals(&t.name, t.len());
                let values = match t.init {
                    Init::Zeros => noise.map(|v| 0.1 * v),
                    Init::Ones => noise.map(|v| 1.0 + 0.3 * v),
                    Init::TruncatedNormal(std) => noise.map(|v| 1.7 * f64::from(std) * v),
                };
                (t.name.clone(), values.f32())
            })
            .collect();
        freeze(&program, |name| values.get(name).map(Vec::as_slice)).unwrap()
    }

    /// The integers of a Program, with ranges from two random inputs.
    fn integers(frozen: &Program, raw: DType) -> Program {
        integers_of(frozen, raw, Width::Int8)
    }

    fn integers_of(frozen: &Program, raw: DType, weights: Width) -> Program {
        let fill = |i: usize, x: &mut [f32]| {
            let noise = reals(["a", "b"][i], x.len()).map(|v| (100.0 * (v + 1.0)).floor());
            x.copy_from_slice(&noise.f32());
        };
        quantise(frozen, &calibrate(frozen, 2, fill, Bounds::MinMax).unwrap(), raw, weights).unwrap()
    }

    fn of_preset(name: &str) -> (Config, Program, Program) {
        let config = preset(name).unwrap();
        let frozen = frozen(&config, 1);
        let integer = integers(&frozen, if config.input.raw == Raw::I16 { DType::I16 } else { DType::U8 });
        (config, frozen, integer)
    }

    /// x -> y, which a LayerNorm reads as int16 and a linear layer as int8, and their sum.
    fn two_readers() -> Program {
        let mut program = Program::new();
        let x = program.add("x", DType::F32, &[1, 4], Role::Activation);
        program.inputs.push(x);
        let matrix = |program: &mut Program, name: &str| program.constant_f32(name, &[4, 4], &reals(name, 16).f32());
        let [w, v] = ["w", "v"].map(|name| matrix(&mut program, name));
        let ones = program.constant_f32("gamma", &[4], &[1.0; 4]);
        let zeros = program.constant_f32("beta", &[4], &[0.0; 4]);
        let linear = linear::Linear { rows: 1, k: 4, n: 4 };
        let norm = layer_norm::LayerNorm { rows: 1, c: 4, eps: 1e-5 };
        let y = program.apply("y", linear, &[Some(x), Some(w), None], &[1, 4]);
        let a = program.apply("a", norm, &[Some(y), Some(ones), Some(zeros)], &[1, 4]);
        let b = program.apply("b", linear, &[Some(y), Some(v), None], &[1, 4]);
        let sum = program.apply("sum", crate::ops::add::Add { len: 4 }, &[Some(a), Some(b)], &[1, 4]);
        program.outputs.push(sum);
        program
    }

    #[test]
    fn every_reader_has_the_rounding_of_its_own_op() {
        let program = two_readers();
        let integer = integers(&program, DType::I16);
        let rounded = round(&program, &integer);
        let reads = |y: &str, i: usize| {
            let node = rounded.nodes.iter().find(|n| n.outs[0] == rounded.find(y)).unwrap();
            rounded.tensor(node.ins[i].unwrap()).name.clone()
        };
        assert_eq!(reads("a", 0), "y");
        assert_eq!(reads("b", 0), "y.rounded");
        assert_eq!([reads("y", 0), reads("y", 1)], ["x.rounded", "w.rounded"]);
        let node = rounded.nodes.iter().find(|n| n.outs[0] == rounded.find("y.rounded")).unwrap();
        let Op::FakeQuant(s) = node.op else { panic!("{:?}", node.op) };
        let form = integer.tensors.iter().find(|t| t.name == "y" && t.dtype == DType::I8).unwrap();
        assert_eq!((s.scale, s.zero, s.lo, s.hi), (form.scale, form.zero, -128, 127));
        // The int8 of `b` is what its int16 reader gets, too, if that is how it was written.
        let b = integer.tensors.iter().find(|t| t.name == "b").unwrap();
        assert_eq!(reads("sum", 1), if b.dtype == DType::I8 { "b.rounded" } else { "b" });
    }

    /// Every int8 tensor that an integer op takes is rounded in training, and no other.
    #[test]
    fn training_rounds_what_integers_read() {
        for name in ["fashion-nano", "fashion-nano-softmax", "watch-nano-depthwise"] {
            let (_, frozen, integer) = of_preset(name);
            let rounded = round(&frozen, &integer);
            let mut trained: Vec<_> = rounded
                .nodes
                .iter()
                .filter_map(|n| match n.op {
                    Op::FakeQuant(s) => {
                        Some((rounded.tensor(n.ins[0].unwrap()).name.clone(), s.scale.to_bits(), s.zero))
                    }
                    _ => None,
                })
                .collect();
            let reads = integer.nodes.iter().flat_map(|n| n.ins.iter().flatten()).map(|id| integer.tensor(*id));
            let int8 = reads.filter(|t| t.role == Role::Activation && t.dtype == DType::I8);
            let mut run: Vec<_> = int8.map(|t| (t.name.clone(), t.scale.to_bits(), t.zero)).collect();
            trained.sort();
            run.sort();
            run.dedup();
            assert_eq!(trained, run, "{name}");
        }
    }

    /// As weights of which some lie beside ties and others vanish beside their bias.
    fn with_hard_weights(mut frozen: Program) -> Program {
        let head = frozen.find("head.weight").unwrap();
        let mut w = values(&frozen, head);
        let k = frozen.tensor(head).shape[1];
        w[..k].iter_mut().for_each(|w| *w *= 1e-9);
        w[k] = 0.9;
        for (i, w) in w[k + 1..3 * k].iter_mut().enumerate() {
            let tie = (i % 126) as f32 * (0.9 / 127.0) + 0.45 / 127.0;
            *w = f32::from_bits(tie.to_bits() - 1 + i as u32 % 3);
        }
        w[2 * k] = -0.9;
        make_constant(&mut frozen, head, &w);
        let bias = frozen.find("head.bias").unwrap();
        let mut b = values(&frozen, bias);
        b[0] = 7.0;
        make_constant(&mut frozen, bias, &b);
        frozen
    }

    /// The weights of a constant, in rows of `k`.
    fn weights_in(t: &Tensor, k: usize) -> Vec<i32> {
        let data = Buffer::copy_of(&t.data);
        match t.dtype {
            DType::I8 => elements::<i8>(data.bytes()).iter().map(|&q| q.into()).collect(),
            DType::I16 => elements::<i16>(data.bytes()).iter().map(|&q| q.into()).collect(),
            _ => {
                let row = |row: &[u8]| -> Vec<i32> {
                    let half = |i: usize| i32::from(row[i / 8 * 4 + i % 4]) >> (i % 8 / 4 * 4) & 15;
                    (0..k).map(|i| (half(i) ^ 8) - 8).collect()
                };
                t.data.chunks(k.div_ceil(8) * 4).flat_map(row).collect()
            }
        }
    }

    #[test]
    fn the_weights_of_training_are_those_of_the_export() {
        for (name, width) in [
            ("fashion-nano", Width::Int8),
            ("fashion-nano", Width::Int4),
            ("fashion-nano", Width::Int16),
            ("fashion-nano-softmax", Width::Int8),
            ("watch-nano-depthwise", Width::Int4),
        ] {
            let (_, frozen, before) = of_preset(name);
            let tuned = with_hard_weights(frozen.clone());
            let fill = |_: usize, x: &mut [f32]| x.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 200) as f32);
            let raw = before.tensor(before.inputs[0]).dtype;
            let calibration = calibrate(&frozen, 1, fill, Bounds::MinMax).unwrap();
            let rounded = round(&frozen, &quantise(&frozen, &calibration, raw, width).unwrap());
            let integer = quantise(&tuned, &calibration, raw, width).unwrap();
            let mut compared = 0;
            for node in &rounded.nodes {
                let Op::FakeQuantWeights(s) = node.op else { continue };
                let [w, b] = [0, 1].map(|i| node.ins[i].map_or(Vec::new(), |id| values(&tuned, id)));
                let mut y = vec![0.0; w.len()];
                fake_quant::weights(&s, &w, &b, &mut y);
                let of = &rounded.tensor(node.ins[0].unwrap()).name;
                let constant =
                    |suffix: &str| Buffer::copy_of(&integer.tensor(integer.find(&(of.clone() + suffix)).unwrap()).data);
                let (multipliers, shifts) = (constant(".multiplier"), constant(".shift"));
                let q = weights_in(integer.tensor(integer.find(of).unwrap()), s.inner);
                let op = integer.nodes.iter().find(|n| n.ins.get(1) == Some(&integer.find(of))).unwrap();
                let [x, z] = [op.ins[0], op.outs[0]].map(|id| f64::from(integer.tensor(id.unwrap()).scale));
                assert_eq!(q.len(), y.len(), "{name}, {of}");
                for (i, (y, q)) in y.iter().zip(q).enumerate() {
                    // What the integer op multiplies by is input scale x weight scale / output scale.
                    let c = s.channel(i);
                    let (m, shift) = (elements::<i32>(multipliers.bytes())[c], elements::<i8>(shifts.bytes())[c]);
                    let scale = f64::from(m) / f64::from(shift).exp2() * z / x;
                    let difference = f64::from(*y) - f64::from(q) * scale;
                    assert!(
                        difference.abs() <= 1e-6 * f64::from(q).abs() * scale,
                        "{name}, {of}, weight {i}: {y} and {q}"
                    );
                }
                compared += y.len();
            }
            let weights = frozen.tensors.iter().filter(|t| t.role == Role::Constant && t.name.ends_with(".weight"));
            let weights = weights.filter(|t| integer.find(&(t.name.clone() + ".multiplier")).is_some());
            assert_eq!(compared, weights.map(Tensor::len).sum::<usize>(), "{name}");
        }
    }

    #[test]
    fn fine_tuning_trains_every_constant() {
        let (model, _, integer) = of_preset("fashion-nano");
        let config = train::Config { shard: 2, batch: 2, threads: 1, ..train::Config::default() };
        let trainer = fine_tune(&model, &frozen(&model, 2), &integer, config).unwrap();
        let step = &trainer.step_program().compiled.program;
        let params: Vec<_> = (0..step.tensors.len()).map(|i| TensorId(i as u16)).collect();
        for id in params.into_iter().filter(|id| matches!(step.tensor(*id).role, Role::Param { .. })) {
            let is_gradient = |y: &TensorId| step.tensor(*y).role == Role::GradOf(id);
            let written = step.nodes.iter().filter(|n| n.outs.iter().flatten().any(is_gradient)).count();
            assert_eq!(written, 1, "gradients of {}", step.tensor(id).name);
        }
    }

    #[test]
    fn weight_decay_is_that_of_training() {
        let mut config = preset("fashion-nano").unwrap();
        config.head = Head::ClassToken;
        // One embedding as it is, one resized.
        (config.stages[0].position, config.stages[1].position) = (Some([14, 14]), Some([5, 5]));
        config.stages[1].mixer = Mixer::Softmax;
        let built = model::build(&config, Mode::Infer { batch: 1 }).unwrap().program;
        let (thawed, _) = thaw(&frozen(&config, 1), &built);
        let decayed = |name: &str| match thawed.tensor(thawed.find(name).unwrap()).role {
            Role::Param { decay } => decay,
            role => panic!("{name} is {role:?}"),
        };
        assert!(!decayed("cls_token") && decayed("pos_embed1") && decayed("pos_embed2.resized"));
        for t in thawed.tensors.iter().filter(|t| matches!(t.role, Role::Param { .. })) {
            let embedding = t.name == "cls_token" || t.name.starts_with("pos_embed");
            assert!(embedding || decayed(&t.name) == (t.shape.len() > 1), "{}", t.name);
        }
    }
}
