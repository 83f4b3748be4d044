//! A configuration to its Program.

use super::config::{Config, Grid, Head};
use super::layers::Layers;
use crate::error::HostError;
use crate::ops;
use crate::ops::DType;
use crate::program::{Program, Role, TensorId};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// What a Program is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Scores of `batch` inputs.
    Infer {
        /// Inputs per run.
        batch: usize,
    },
    /// The forward half of a training step: loss and scores of `batch` inputs.
    Train {
        /// Inputs per run.
        batch: usize,
        /// Share of the target that is spread evenly over the classes, in `[0, 1)`.
        label_smoothing: f32,
    },
}

/// Far above any sensible batch, so that no size overflows.
const MAX_BATCH: usize = 1 << 16;

/// A Program and the tensors that a caller fills and reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The Program. In training it ends with the loss: gradients and optimizer are appended to it.
    pub program: Program,
    /// Raw values, `f32[batch, height, width, channels]`.
    pub input: TensorId,
    /// Scores before softmax, `f32[batch, classes]`.
    pub logits: TensorId,
    /// In training, the wanted distribution over the classes, `f32[batch, classes]`.
    pub target: Option<TensorId>,
    /// In training, the mean cross-entropy of the batch, `f32[1]`.
    pub loss: Option<TensorId>,
}

/// The Program of `config` for `mode`.
///
/// Outputs are the logits, or in training the loss and the logits. Running statistics of batch
/// normalisation are read in inference; in training, the batch's are written at the statistics'
/// places among the gradients.
///
/// # Errors
/// The first field of `config` or `mode` that makes no sense; see [`Config::validate`].
pub fn build(config: &Config, mode: Mode) -> Result<Built, HostError> {
    config.validate()?;
    let (Mode::Infer { batch } | Mode::Train { batch, .. }) = mode;
    if !(1..=MAX_BATCH).contains(&batch) {
        return Err(HostError::new("batch", format!("must be 1 to {MAX_BATCH}, found {batch}"), ""));
    }
    if let Mode::Train { label_smoothing, .. } = mode
        && !(0.0..1.0).contains(&label_smoothing)
    {
        return Err(HostError::new("label_smoothing", format!("must be in [0, 1), found {label_smoothing}"), ""));
    }
    if let Mode::Train { batch: 1, .. } = mode {
        check_batch_norms(config)?;
    }
    let mut layers = Layers::new(mode, config.linear_std);
    let (input, x) = normalised(&mut layers, config, batch);
    let logits = classify(&mut layers, config, x);

    let mut program = layers.program;
    program.labels.clone_from(&config.labels);
    program.inputs = vec![input];
    program.outputs = vec![logits];
    let mut built = Built { program, input, logits, target: None, loss: None };
    if let Mode::Train { label_smoothing, .. } = mode {
        let (program, classes) = (&mut built.program, config.classes);
        let target = program.add("target", DType::F32, &[batch, classes], Role::Activation);
        let op = ops::cross_entropy::CrossEntropy { rows: batch, classes, smoothing: label_smoothing };
        let loss = program.apply("loss", op, &[Some(logits), Some(target)], &[1]);
        program.inputs.push(target);
        program.outputs = vec![loss, logits];
        (built.target, built.loss) = (Some(target), Some(loss));
    }
    Ok(built)
}

/// Checks that no batch norm sees one value per channel, which it would make 0, in a batch of 1.
fn check_batch_norms(config: &Config) -> Result<(), HostError> {
    let mut grid = Grid { h: config.input.height, w: config.input.width };
    for (s, stage) in config.stages.iter().enumerate() {
        for (i, layer) in stage.embed.iter().enumerate() {
            grid = layer.output(grid);
            if layer.batch_norm && grid.n() == 1 {
                return Err(HostError::new(
                    format!("stages[{s}].embed[{i}].batch_norm"),
                    "normalises over one value per channel: the map is 1 x 1 and train.shard is 1",
                    "set train.shard to 2 or more, or batch_norm to false",
                ));
            }
        }
    }
    Ok(())
}

/// The raw input, and the input with mean 0 and standard deviation 1.
fn normalised(layers: &mut Layers, config: &Config, batch: usize) -> (TensorId, TensorId) {
    let input = &config.input;
    let (shape, c) = ([batch, input.height, input.width, input.channels], input.channels);
    let mean = |i: usize| input.mean.get(i).copied().unwrap_or(0.0);
    let std = |i: usize| input.std.get(i).copied().unwrap_or(1.0);
    let factor: Vec<f32> = (0..c).map(|i| 1.0 / std(i)).collect();
    let offset: Vec<f32> = (0..c).map(|i| -mean(i) / std(i)).collect();
    let program = &mut layers.program;
    let raw = program.add("input", DType::F32, &shape, Role::Activation);
    let factor = program.constant_f32("input.factor", &[c], &factor);
    let offset = program.constant_f32("input.offset", &[c], &offset);
    let op = ops::normalise::Normalise { rows: batch * input.height * input.width, c };
    let x = program.apply("input.normalised", op, &[Some(raw), Some(factor), Some(offset)], &shape);
    (raw, x)
}

fn classify(layers: &mut Layers, config: &Config, mut x: TensorId) -> TensorId {
    let grids = config.grids();
    let blocks: usize = config.stages.iter().map(|stage| stage.depth).sum();
    let mut rates = (0..blocks).map(|i| config.drop_rate * i as f32 / blocks.saturating_sub(1).max(1) as f32);
    for (i, (stage, &tokens)) in config.stages.iter().zip(&grids).enumerate() {
        let s = i + 1;
        x = layers.embed(&format!("patch_embed{s}.proj"), &stage.embed, x);
        if config.head == Head::ClassToken && s == config.stages.len() {
            x = layers.class_token("cls_token", x);
        }
        if let Some(grid) = stage.position {
            x = layers.position(&format!("pos_embed{s}"), x, tokens, grid);
        }
        for (b, rate) in rates.by_ref().take(stage.depth).enumerate() {
            x = layers.block(&format!("block{s}.{b}"), stage, x, rate);
        }
    }
    let last = config.stages.last().expect("validated: there is a stage");
    let x = layers.layer_norm("norm", x, last.layer_norm_eps);
    let x = head(layers, config.head, *grids.last().expect("one for each stage"), x);
    layers.linear("head", x, config.classes)
}

/// What the classifier reads: `[batch, c]`.
fn head(layers: &mut Layers, head: Head, tokens: Grid, x: TensorId) -> TensorId {
    let shape = &layers.program.tensor(x).shape;
    let (batch, c) = (shape[0], shape[shape.len() - 1]);
    match head {
        Head::Mean => {
            let op = ops::pool::AvgPool { batch, h: tokens.h, w: tokens.w, c, oh: 1, ow: 1 };
            layers.program.apply("mean", op, &[Some(x)], &[batch, c])
        }
        Head::ClassToken => {
            let op = ops::tokens::Take { batch, n: tokens.n() + 1, c, index: 0 };
            layers.program.apply("taken", op, &[Some(x)], &[batch, c])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Inverse, Landmarks, Mixer, PRESETS, Soft, preset};
    use crate::program::{ParamLayout, Plan, Space, differentiate, verify};

    fn params(program: &Program) -> Vec<(&str, &[usize], Role)> {
        let kept = |role| matches!(role, Role::Param { .. } | Role::Statistic);
        program.tensors.iter().filter(|t| kept(t.role)).map(|t| (t.name.as_str(), &t.shape[..], t.role)).collect()
    }

    #[test]
    fn inference_and_training_have_the_same_parameters() {
        for name in PRESETS {
            let config = preset(name).unwrap();
            assert_eq!(config.name, *name);
            let infer = build(&config, Mode::Infer { batch: 1 }).unwrap();
            let train = build(&config, Mode::Train { batch: 2, label_smoothing: 0.1 }).unwrap();
            assert_eq!(
                params(&infer.program).iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(),
                params(&train.program).iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(),
                "{name}"
            );
            let layouts = [&infer, &train].map(|built| ParamLayout::new(&built.program));
            assert_eq!(layouts[0].bytes(), layouts[1].bytes());
            for (name, ..) in params(&infer.program) {
                let [a, b] = [&infer, &train].map(|built| built.program.find(name).unwrap());
                assert_eq!(layouts[0].offset(a), layouts[1].offset(b), "{name}");
            }
        }
    }

    #[test]
    fn the_loss_depends_on_every_parameter() {
        for name in ["fashion-nano", "watch-nano-softmax", "watch-nano-depthwise"] {
            let config = preset(name).unwrap();
            let mut built = build(&config, Mode::Train { batch: 2, label_smoothing: 0.0 }).unwrap();
            let count = params(&built.program).iter().filter(|p| matches!(p.2, Role::Param { .. })).count();
            let result = differentiate(&mut built.program, built.loss.unwrap());
            assert_eq!(result.gradients.len(), count, "{name}");
            assert_eq!(verify(&built.program, &Plan::new(&built.program)), Ok(()), "{name}");
        }
    }

    /// A time series is one-dimensional throughout, and a kernel of one landmark is a valid model.
    #[test]
    fn edge_shapes_build() {
        let mut config = preset("watch-nano").unwrap();
        for (landmarks, inverse) in
            [(Landmarks::Pool([1, 1]), Inverse::Newton(3)), (Landmarks::Conv(32), Inverse::Ldlt)]
        {
            for stage in &mut config.stages {
                let Mixer::Soft(soft) = &mut stage.mixer else { panic!() };
                *soft = Soft { landmarks, inverse, sym_norm: true, local: None, ..*soft };
            }
            let built = build(&config, Mode::Infer { batch: 3 }).unwrap();
            assert_eq!(built.program.tensor(built.logits).shape, [3, 7]);
            let weight = |name: &str| &built.program.tensor(built.program.find(name).unwrap()).shape;
            assert_eq!(weight("patch_embed1.proj.0.weight"), &[24, 1, 5, 6]);
            if landmarks == Landmarks::Conv(32) {
                assert_eq!(weight("block1.0.att.mha.attn.Qlandmark_op.weight"), &[12, 1, 32, 12]);
            }
            let plan = Plan::new(&built.program);
            assert_eq!(plan.size(Space::Grads), 0);
            assert_eq!(verify(&built.program, &plan), Ok(()));
        }
    }

    /// Two tensors that are alive together, moved onto each other, never pass the verifier.
    #[test]
    fn a_plan_with_two_live_tensors_in_one_place_is_refused() {
        let mut built = build(&preset("watch-nano").unwrap(), Mode::Train { batch: 1, label_smoothing: 0.0 }).unwrap();
        differentiate(&mut built.program, built.loss.unwrap());
        let (program, plan) = (&built.program, Plan::new(&built.program));
        let lives: Vec<_> = (0..program.tensors.len())
            .map(|i| TensorId(i as u16))
            .filter_map(|id| plan.lifetime(id).map(|life| (id, life)))
            .collect();
        // An op that may write over its input has both alive, in one place.
        let in_place = |a: TensorId, b: TensorId| {
            let mut nodes = program.nodes.iter().filter(|node| node.op.signature().is_in_place());
            nodes.any(|node| [(a, b), (b, a)].contains(&(node.ins[0].unwrap(), node.outs[0].unwrap())))
        };
        let mut mutants = 0;
        for (i, (a, life)) in lives.iter().enumerate() {
            let others = lives[i + 1..]
                .iter()
                .filter(|(b, other)| life.start < other.end && other.start < life.end && !in_place(*a, *b));
            for (b, _) in others.step_by(5) {
                assert_ne!(verify(program, &plan.moved(*a, plan.offset(*b))), Ok(()), "{a:?} on {b:?}");
                assert_ne!(verify(program, &plan.moved(*b, plan.offset(*a))), Ok(()), "{b:?} on {a:?}");
                mutants += 2;
            }
        }
        assert!(mutants > 1000, "{mutants}");
    }

    #[test]
    fn a_batch_norm_of_single_values_is_refused() {
        let mut config = preset("watch-nano").unwrap();
        (config.input.width, config.input.height) = (1, 1);
        for stage in &mut config.stages {
            stage.mixer = Mixer::Softmax;
        }
        let of = |config: &Config, batch| build(config, Mode::Train { batch, label_smoothing: 0.0 });
        let error = of(&config, 1).unwrap_err();
        assert_eq!(error.place, "stages[0].embed[0].batch_norm");
        assert!(error.remedy.contains("train.shard"), "{error}");
        of(&config, 2).unwrap();
        build(&config, Mode::Infer { batch: 1 }).unwrap();
        for layer in config.stages.iter_mut().flat_map(|stage| &mut stage.embed) {
            layer.batch_norm = false;
        }
        of(&config, 1).unwrap();
    }

    #[test]
    fn a_mode_that_makes_no_sense_is_refused() {
        let config = preset("watch-nano").unwrap();
        for (mode, place) in [
            (Mode::Infer { batch: 0 }, "batch"),
            (Mode::Infer { batch: 1 << 40 }, "batch"),
            (Mode::Train { batch: 1, label_smoothing: 1.0 }, "label_smoothing"),
            (Mode::Train { batch: 1, label_smoothing: f32::NAN }, "label_smoothing"),
        ] {
            assert_eq!(build(&config, mode).unwrap_err().place, place);
        }
    }
}
