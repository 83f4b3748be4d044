//! The layers of the models, as ops appended to a Program.
//!
//! A layer takes the tensor it reads and gives the tensor it makes; widths come from their shapes.
//! Images, and tokens that lie on a grid, are `[batch, h, w, c]`; tokens with a class token in front
//! are `[batch, n, c]`. A layer `name` has the parameters `name.weight` and `name.bias`.

use super::Mode;
use super::config::{ConvLayer, Drop, Gelu, Grid, Inverse, Landmarks, Local, Mixer, Norm, Per, Soft, Stage};
use crate::math::float::sqrt;
use crate::ops;
use crate::ops::DType;
use crate::program::{Init, Program, Role, TensorId};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// BatchNorm's addition to the variance.
const BATCH_NORM_EPS: f32 = 1e-5;

/// Standard deviation that position embeddings and class tokens start with.
const EMBEDDING_STD: f32 = 0.02;

/// Appends layers to a Program.
pub struct Layers {
    /// The Program so far.
    pub program: Program,
    training: bool,
    linear_std: Option<f32>,
    dropouts: i32,
}

impl Layers {
    /// An empty Program for `mode`; see [`Config::linear_std`](super::Config::linear_std).
    pub fn new(mode: Mode, linear_std: Option<f32>) -> Self {
        Self { program: Program::new(), training: matches!(mode, Mode::Train { .. }), linear_std, dropouts: 0 }
    }

    fn shape(&self, x: TensorId) -> Vec<usize> {
        self.program.tensor(x).shape.clone()
    }

    /// Channels, and rows that have them.
    fn rows(&self, x: TensorId) -> (usize, usize) {
        let t = self.program.tensor(x);
        let c = *t.shape.last().expect("a tensor has a dimension");
        (t.len() / c, c)
    }

    /// Batch, height, width, channels.
    fn image(&self, x: TensorId) -> (usize, Grid, usize) {
        let [batch, h, w, c] = self.program.tensor(x).shape[..] else { panic!("an image has four dimensions") };
        (batch, Grid { h, w }, c)
    }

    /// Declares a parameter.
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init, decay: bool) -> TensorId {
        let id = self.program.add(name, DType::F32, shape, Role::Param { decay });
        self.program.tensors[id.index()].init = init;
        id
    }

    fn statistic(&mut self, name: &str, c: usize, init: Init) -> TensorId {
        let id = self.program.add(name, DType::F32, &[c], Role::Statistic);
        self.program.tensors[id.index()].init = init;
        id
    }

    fn bias(&mut self, name: &str, n: usize) -> TensorId {
        self.param(&format!("{name}.bias"), &[n], Init::Zeros, false)
    }

    /// Scale and offset of a normalisation.
    fn affine(&mut self, name: &str, c: usize) -> [TensorId; 2] {
        [self.param(&format!("{name}.weight"), &[c], Init::Ones, false), self.bias(name, c)]
    }

    /// `y = x W^T + b` on the last dimension.
    pub fn linear(&mut self, name: &str, x: TensorId, n: usize) -> TensorId {
        let (rows, k) = self.rows(x);
        let std = self.linear_std.unwrap_or_else(|| 1.0 / sqrt(k as f32));
        let w = self.param(&format!("{name}.weight"), &[n, k], Init::TruncatedNormal(std), true);
        let b = self.bias(name, n);
        let mut shape = self.shape(x);
        *shape.last_mut().expect("a tensor has a dimension") = n;
        self.program.apply(name, ops::linear::Linear { rows, k, n }, &[Some(x), Some(w), Some(b)], &shape)
    }

    /// A convolution of images, with the same weights for the channels of every head.
    pub fn conv(&mut self, name: &str, x: TensorId, layer: &ConvLayer, heads: usize, bias: bool) -> TensorId {
        let (batch, grid @ Grid { h, w }, c) = self.image(x);
        let (c_in, c_out) = (c / heads, layer.channels);
        let ([kh, kw], [stride_h, stride_w]) = (grid.square(layer.kernel), grid.square(layer.stride));
        let [pad_h, pad_w] = layer.padding(grid);
        let shape = [c_out, kh, kw, c_in];
        let weight = self.param(&format!("{name}.weight"), &shape, fan_in(kh * kw * c_in), true);
        let bias = bias.then(|| self.bias(name, c_out));
        let op = ops::conv::Conv { batch, h, w, c_in, c_out, kh, kw, stride_h, stride_w, pad_h, pad_w, heads };
        let shape = [batch, op.oh(), op.ow(), heads * c_out];
        self.program.apply(name, op, &[Some(x), Some(weight), bias], &shape)
    }

    /// A depthwise convolution of images, padded so that their size stays; `share` neighbouring
    /// channels have one filter.
    pub fn depthwise(&mut self, name: &str, x: TensorId, kernel: usize, share: usize, bias: bool) -> TensorId {
        let (batch, grid @ Grid { h, w }, c) = self.image(x);
        let [kh, kw] = grid.square(kernel);
        let filters = c / share;
        let weight = self.param(&format!("{name}.weight"), &[kh, kw, filters], fan_in(kh * kw), true);
        let bias = bias.then(|| self.bias(name, filters));
        let (pad_h, pad_w) = (kh / 2, kw / 2);
        let op = ops::depthwise::Depthwise { batch, h, w, c, kh, kw, stride_h: 1, stride_w: 1, pad_h, pad_w, share };
        self.program.apply(name, op, &[Some(x), Some(weight), bias], &[batch, h, w, c])
    }

    /// Batch normalisation: with batch statistics in training, with running ones otherwise.
    pub fn batch_norm(&mut self, name: &str, x: TensorId) -> TensorId {
        let (rows, c) = self.rows(x);
        let [gamma, beta] = self.affine(name, c).map(Some);
        let mean = self.statistic(&format!("{name}.running_mean"), c, Init::Zeros);
        let var = self.statistic(&format!("{name}.running_var"), c, Init::Ones);
        let shape = self.shape(x);
        if !self.training {
            let op = ops::batch_norm::BatchNormEval { rows, c, eps: BATCH_NORM_EPS };
            return self.program.apply(name, op, &[Some(x), gamma, beta, Some(mean), Some(var)], &shape);
        }
        let y = self.program.add(name, DType::F32, &shape, Role::Activation);
        let batch_mean = self.program.add(format!("{name}.mean"), DType::F32, &[c], Role::GradOf(mean));
        let batch_var = self.program.add(format!("{name}.var"), DType::F32, &[c], Role::GradOf(var));
        let op = ops::batch_norm::BatchNorm { rows, c, eps: BATCH_NORM_EPS };
        self.program.push(op, &[Some(x), gamma, beta], &[Some(y), Some(batch_mean), Some(batch_var)]);
        y
    }

    /// LayerNorm over the last dimension.
    pub fn layer_norm(&mut self, name: &str, x: TensorId, eps: f32) -> TensorId {
        let (rows, c) = self.rows(x);
        self.layer_norm_of(name, x, rows, c, eps)
    }

    /// LayerNorm over groups of `c` neighbouring elements.
    fn layer_norm_of(&mut self, name: &str, x: TensorId, rows: usize, c: usize, eps: f32) -> TensorId {
        let [gamma, beta] = self.affine(name, c).map(Some);
        let shape = self.shape(x);
        self.program.apply(name, ops::layer_norm::LayerNorm { rows, c, eps }, &[Some(x), gamma, beta], &shape)
    }

    /// `max(x, 0)`.
    pub fn relu(&mut self, name: &str, x: TensorId) -> TensorId {
        let (shape, len) = (self.shape(x), self.program.tensor(x).len());
        self.program.apply(name, ops::relu::Relu { len }, &[Some(x)], &shape)
    }

    /// GELU in the given form.
    pub fn gelu(&mut self, name: &str, x: TensorId, form: Gelu) -> TensorId {
        let (shape, len) = (self.shape(x), self.program.tensor(x).len());
        match form {
            Gelu::Tanh => self.program.apply(name, ops::gelu::GeluTanh { len }, &[Some(x)], &shape),
            Gelu::Erf => self.program.apply(name, ops::gelu::GeluErf { len }, &[Some(x)], &shape),
        }
    }

    /// `x + y`.
    pub fn add(&mut self, name: &str, x: TensorId, y: TensorId) -> TensorId {
        let (shape, len) = (self.shape(x), self.program.tensor(x).len());
        self.program.apply(name, ops::add::Add { len }, &[Some(x), Some(y)], &shape)
    }

    /// Drops elements or paths of `x` in training.
    pub fn drop(&mut self, name: &str, x: TensorId, what: Drop, rate: f32) -> TensorId {
        if !self.training || rate == 0.0 {
            return x;
        }
        let shape = self.shape(x);
        let (batch, id) = (shape[0], self.dropouts);
        let len = self.program.tensor(x).len() / batch;
        self.dropouts += 1;
        match what {
            Drop::Elements => {
                self.program.apply(name, ops::dropout::Dropout { len: batch * len, rate, id }, &[Some(x)], &shape)
            }
            Drop::Path => self.program.apply(name, ops::dropout::DropPath { batch, len, rate, id }, &[Some(x)], &shape),
        }
    }

    /// Adds the learned position embedding `name`, stored at the size `grid`; with a class token,
    /// its row comes first.
    pub fn position(&mut self, name: &str, x: TensorId, tokens: Grid, grid: [usize; 2]) -> TensorId {
        let shape = self.shape(x);
        let (batch, c) = (shape[0], shape[shape.len() - 1]);
        let len = self.program.tensor(x).len() / batch;
        let skip = len / c - tokens.n();
        let [h, w] = grid;
        let stored = [1, skip + h * w, c];
        let mut embedding = self.param(name, &stored, Init::TruncatedNormal(EMBEDDING_STD), true);
        if grid != [tokens.h, tokens.w] {
            let op = ops::resize::Resize { skip, h, w, oh: tokens.h, ow: tokens.w, c };
            embedding = self.program.apply(&format!("{name}.resized"), op, &[Some(embedding)], &[1, len / c, c]);
        }
        let op = ops::add::AddBroadcast { batch, len };
        self.program.apply(&format!("{name}.added"), op, &[Some(x), Some(embedding)], &shape)
    }

    /// Puts the learned class token `name` before the tokens.
    pub fn class_token(&mut self, name: &str, x: TensorId) -> TensorId {
        let (batch, grid, c) = self.image(x);
        let n = grid.n();
        let token = self.param(name, &[1, 1, c], Init::TruncatedNormal(EMBEDDING_STD), false);
        let op = ops::tokens::Prepend { batch, n, c };
        self.program.apply(&format!("{name}.joined"), op, &[Some(x), Some(token)], &[batch, n + 1, c])
    }

    /// The convolutions of an embedding; each counts for three parts (convolution, normalisation,
    /// activation) in the numbering of their names.
    pub fn embed(&mut self, name: &str, layers: &[ConvLayer], mut x: TensorId) -> TensorId {
        for (j, layer) in layers.iter().enumerate() {
            let at = |part: usize| format!("{name}.{}", 3 * j + part);
            x = self.conv(&at(0), x, layer, 1, true);
            if layer.batch_norm {
                x = self.batch_norm(&at(1), x);
            }
            if layer.relu {
                x = self.relu(&at(2), x);
            }
        }
        x
    }

    /// A transformer block: two residual branches, the mixer and the MLP, each dropped at `rate`.
    pub fn block(&mut self, name: &str, stage: &Stage, x: TensorId, rate: f32) -> TensorId {
        let parts = Parts::new(name, &stage.mixer);
        let [norm1, norm2] = &parts.norms;
        let x = self.residual(norm1, stage, x, rate, |layers, x| match &stage.mixer {
            Mixer::Soft(soft) => layers.soft_attention(&parts.mixer, x, stage.heads, stage.layer_norm_eps, soft),
            Mixer::Softmax => layers.softmax_attention(&parts.mixer, x, stage.heads),
            Mixer::Depthwise(d) => layers.depthwise_mixer(&parts.mixer, x, d.kernel),
        });
        let [fc1, fc2] = &parts.mlp;
        self.residual(norm2, stage, x, rate, |layers, x| layers.mlp(fc1, fc2, x, stage.hidden(), stage.gelu))
    }

    fn residual(
        &mut self,
        norm: &str,
        stage: &Stage,
        x: TensorId,
        rate: f32,
        branch: impl FnOnce(&mut Self, TensorId) -> TensorId,
    ) -> TensorId {
        let eps = stage.layer_norm_eps;
        let inner = if stage.norm == Norm::Pre { self.layer_norm(norm, x, eps) } else { x };
        let y = branch(self, inner);
        let y = self.drop(&format!("{norm}.drop"), y, stage.drop, rate);
        let sum = self.add(&format!("{norm}.sum"), x, y);
        if stage.norm == Norm::Post { self.layer_norm(norm, sum, eps) } else { sum }
    }

    /// Softmax-free attention with its projections.
    pub fn soft_attention(&mut self, name: &str, x: TensorId, heads: usize, eps: f32, soft: &Soft) -> TensorId {
        let (_, c) = self.rows(x);
        let q = self.linear(&format!("{name}.W_q"), x, c);
        let mut v = self.linear(&format!("{name}.W_v"), x, c);
        if soft.mean {
            let (_, grid, _) = self.image(x);
            let factor = soft.landmarks.grid(grid).n() as f32 / grid.n() as f32;
            let (len, shape) = (self.program.tensor(v).len(), self.shape(v));
            v = self.program.apply(&format!("{name}.v"), ops::scale::Scale { len, factor }, &[Some(v)], &shape);
        }
        let y = self.soft_kernel(&format!("{name}.attn"), q, v, heads, eps, soft);
        self.linear(&format!("{name}.ff"), y, c)
    }

    /// `K1 A^+ (K1^T V)` of queries that are also the keys, plus the local convolution of `v`
    /// (SOFT, Eq. 8 and 9).
    pub fn soft_kernel(
        &mut self,
        name: &str,
        q: TensorId,
        v: TensorId,
        heads: usize,
        eps: f32,
        soft: &Soft,
    ) -> TensorId {
        let (batch, grid, c) = self.image(q);
        let (n, d, len) = (grid.n(), c / heads, batch * grid.n() * c);
        let shape = self.shape(q);
        // The kernel's exponent is -|q - l|^2 / (2 sqrt(d)): each side carries d^-1/4.
        let factor = 1.0 / sqrt(sqrt(d as f32));
        let q = self.program.apply(&format!("{name}.q"), ops::scale::Scale { len, factor }, &[Some(q)], &shape);
        let l = self.landmarks(name, q, heads, eps, soft.landmarks);
        let (_, landmarks, _) = self.image(l);
        let (m, count) = (landmarks.n(), batch * heads);

        let squares = [count, m, m];
        let named = |part: &str| format!("{name}.{part}");
        let a = self.program.apply(&named("gram"), ops::gram::Gram { batch, m, heads, d }, &[Some(l)], &squares);
        let ridge = soft.ridge;
        let mut inverse = match soft.inverse {
            Inverse::Ldlt => {
                let op = ops::inverse::InverseLdlt { count, m, ridge };
                self.program.apply(&named("inverse"), op, &[Some(a)], &squares)
            }
            Inverse::Newton(iterations) => {
                let op = ops::inverse::InverseNewton { count, m, iterations, ridge };
                self.program.apply(&named("inverse"), op, &[Some(a)], &squares)
            }
        };
        if soft.sym_norm {
            let op = ops::sym_norm::SymNorm { count, m };
            inverse = self.program.apply(&named("sym_norm"), op, &[Some(inverse), Some(a)], &squares);
        }
        let tall = [count, m, d];
        let op = ops::kernel::KernelAccumulate { batch, n, m, heads, d };
        let w = self.program.apply(&named("w"), op, &[Some(q), Some(l), Some(v)], &tall);
        let u =
            self.program.apply(&named("u"), ops::product::Product { count, m, d }, &[Some(inverse), Some(w)], &tall);
        let op = ops::kernel::KernelApply { batch, n, m, heads, d };
        let y = self.program.apply(&named("y"), op, &[Some(q), Some(l), Some(u)], &shape);
        match soft.local {
            None => y,
            Some(Local { kernel, per }) => {
                let share = if per == Per::Head { d } else { 1 };
                let local = self.depthwise(&named("conv"), v, kernel, share, false);
                self.add(&named("sum"), y, local)
            }
        }
    }

    fn landmarks(&mut self, name: &str, q: TensorId, heads: usize, eps: f32, how: Landmarks) -> TensorId {
        let (batch, grid, c) = self.image(q);
        match how {
            Landmarks::Conv(ratio) => {
                let d = c / heads;
                let layer = ConvLayer { channels: d, kernel: ratio, stride: ratio, batch_norm: false, relu: false };
                let l = self.conv(&format!("{name}.Qlandmark_op"), q, &layer, heads, false);
                let rows = self.program.tensor(l).len() / d;
                let l = self.layer_norm_of(&format!("{name}.Qnorm_act.0"), l, rows, d, eps);
                self.gelu(&format!("{name}.landmarks"), l, Gelu::Erf)
            }
            Landmarks::Pool([oh, ow]) => {
                let op = ops::pool::AvgPool { batch, h: grid.h, w: grid.w, c, oh, ow };
                self.program.apply(&format!("{name}.landmarks"), op, &[Some(q)], &[batch, oh, ow, c])
            }
        }
    }

    /// Ordinary attention with its projections.
    pub fn softmax_attention(&mut self, name: &str, x: TensorId, heads: usize) -> TensorId {
        let (rows, c) = self.rows(x);
        let shape = self.shape(x);
        let [q, k, v] = ["q", "k", "v"].map(|part| Some(self.linear(&format!("{name}.{part}"), x, c)));
        let (batch, d) = (shape[0], c / heads);
        let op =
            ops::softmax_attention::SoftmaxAttention { batch, n: rows / batch, heads, d, scale: 1.0 / sqrt(d as f32) };
        let y = self.program.apply(&format!("{name}.y"), op, &[q, k, v], &shape);
        self.linear(&format!("{name}.proj"), y, c)
    }

    /// A depthwise convolution and a linear layer.
    pub fn depthwise_mixer(&mut self, name: &str, x: TensorId, kernel: usize) -> TensorId {
        let (_, c) = self.rows(x);
        let y = self.depthwise(&format!("{name}.conv"), x, kernel, 1, true);
        self.linear(&format!("{name}.proj"), y, c)
    }

    /// Two linear layers with a GELU between them, named `fc1` and `fc2`.
    pub fn mlp(&mut self, fc1: &str, fc2: &str, x: TensorId, hidden: usize, gelu: Gelu) -> TensorId {
        let (_, c) = self.rows(x);
        let y = self.linear(fc1, x, hidden);
        let y = self.gelu(&format!("{fc1}.gelu"), y, gelu);
        self.linear(fc2, y, c)
    }
}

/// Names of the parts of a block: those of the official code's two kinds of block.
struct Parts {
    mixer: String,
    norms: [String; 2],
    mlp: [String; 2],
}

impl Parts {
    fn new(name: &str, mixer: &Mixer) -> Self {
        let part = |part: &str| format!("{name}.{part}");
        match mixer {
            Mixer::Soft(_) => Self {
                mixer: part("att.mha"),
                norms: [part("att.norm1"), part("att.norm2")],
                mlp: [part("att.ff1"), part("att.ff2")],
            },
            Mixer::Softmax | Mixer::Depthwise(_) => Self {
                mixer: part("attn"),
                norms: [part("norm1"), part("norm2")],
                mlp: [part("mlp.fc1"), part("mlp.fc2")],
            },
        }
    }
}

/// A start that keeps the variance of what `n` products sum up.
fn fan_in(n: usize) -> Init {
    Init::TruncatedNormal(1.0 / sqrt(n as f32))
}
