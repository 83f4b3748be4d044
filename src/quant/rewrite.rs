//! The rewrite of a frozen f32 Program into integers, op by op.
//!
//! Every f32 activation becomes int8 or int16:
//!
//! - int16, symmetric: the residual stream, inputs of LayerNorm, the logits;
//! - int8, symmetric: what attention reads (queries, keys, values, landmarks), LayerNorm's output;
//! - int8 with a zero point: the rest.
//!
//! Weights are symmetric, per output channel: int8, or those of linear layers and convolutions int4 or int16.
//! Depthwise convolutions keep int8: their few weights are a hundredth of a file, and each is used once for
//! every value it meets. Zero points of inputs are folded into biases.

use super::calibrate::{Calibration, Observed};
use super::freeze::values;
use crate::error::HostError;
use crate::math::fixed::Multiplier;
use crate::ops::fake_quant::FakeQuantWeights;
use crate::ops::{self, DType, Width};
use crate::program::{Kind, Node, Op, Program, Role, TensorId};
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

/// Room above the largest calibrated magnitude of an int16 tensor, which has bits to spare.
const HEADROOM: f64 = 1.5;

/// The integer Program of `frozen` (an inference Program of batch 1), with the ranges of
/// `calibration`, for raw input of type `raw` (u8 or i16), and with weights of this width.
///
/// # Errors
/// An op that has no integer form, or a tensor whose range no integer format can hold, with its name.
pub fn quantise(frozen: &Program, calibration: &Calibration, raw: DType, weights: Width) -> Result<Program, HostError> {
    let mut rewrite = Rewrite::new(frozen, calibration, raw, weights)?;
    for i in 0..frozen.nodes.len() {
        rewrite.node(i)?;
    }
    rewrite.finish()
}

/// An integer tensor that stands for an f32 one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Form {
    id: TensorId,
    dtype: DType,
    scale: f64,
    zero: i32,
}

/// How the values of a tensor are to be represented.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// int16 rather than int8.
    wide: bool,
    /// Zero point 0.
    symmetric: bool,
    lo: f64,
    hi: f64,
}

struct Rewrite<'a> {
    source: &'a Program,
    /// Of linear layers and convolutions.
    weights: Width,
    wanted: Vec<Wanted>,
    /// The forms made so far of every source tensor; the first is the one its op wrote.
    forms: Vec<Vec<Form>>,
    /// Source tensors that a ReLU makes of a sole-read tensor, folded into the op before it.
    relu_of: Vec<Option<TensorId>>,
    /// The exponents of the columns of a product.
    exponents: Vec<Option<TensorId>>,
    out: Program,
}

impl<'a> Rewrite<'a> {
    fn new(source: &'a Program, calibration: &Calibration, dtype: DType, weights: Width) -> Result<Self, HostError> {
        let n = source.tensors.len();
        let unseen = Observed::default();
        let mut wanted: Vec<Wanted> = (0..n)
            .map(|i| {
                let seen = calibration.of(TensorId(i as u16)).unwrap_or(&unseen);
                // Zero must be exact: it pads convolutions.
                let (lo, hi) = (f64::from(seen.lo).min(0.0), f64::from(seen.hi).max(0.0));
                Wanted { wide: false, symmetric: false, lo, hi: if hi > lo { hi } else { lo + 1e-6 } }
            })
            .collect();
        for &id in &source.outputs {
            wanted[id.index()].wide = true;
        }
        // Backwards, so that an op knows what is wanted of its output.
        for node in source.nodes.iter().rev() {
            let input = |i: usize| node.ins.get(i).copied().flatten().map(TensorId::index);
            let output = node.outs[0].map(TensorId::index);
            match node.op {
                Op::LayerNorm(_) => {
                    wanted[input(0).expect("x")].wide = true;
                    wanted[output.expect("y")].symmetric = true;
                }
                Op::Add(_) | Op::AddBroadcast(_) | Op::Prepend(_) | Op::Take(_)
                    if output.is_some_and(|y| wanted[y].wide) =>
                {
                    wanted[input(0).expect("a")].wide = true;
                }
                Op::Prepend(_) => wanted[input(0).expect("x")].wide = true,
                Op::Gram(_) => wanted[input(0).expect("l")].symmetric = true,
                Op::KernelAccumulate(_) | Op::SoftmaxAttention(_) => {
                    (0..3).filter_map(input).for_each(|t| wanted[t].symmetric = true);
                }
                // Pooling keeps scale and zero point.
                Op::AvgPool(_) | Op::MaxPool(_) => {
                    let (x, y) = (input(0).expect("x"), output.expect("y"));
                    wanted[x].symmetric |= wanted[y].symmetric;
                    wanted[x].wide |= wanted[y].wide;
                }
                _ => {}
            }
        }
        // A residual stream that is wide somewhere stays wide to its end.
        for node in &source.nodes {
            if let (Op::Add(_), &[Some(a), _], &[Some(y)]) = (node.op, &node.ins[..], &node.outs[..]) {
                wanted[y.index()].wide |= wanted[a.index()].wide;
                // A branch is added to it without a zero point of its own.
                if let (true, Some(b)) = (wanted[y.index()].wide, node.ins[1]) {
                    wanted[b.index()].symmetric = true;
                }
            }
        }
        // Queries and landmarks share one scale: that of the larger.
        for node in &source.nodes {
            if let (Op::KernelAccumulate(_), &[Some(q), Some(l), _]) = (node.op, &node.ins[..]) {
                let magnitude = |t: &Wanted| t.hi.max(-t.lo);
                let shared = magnitude(&wanted[q.index()]).max(magnitude(&wanted[l.index()]));
                for t in [q, l] {
                    (wanted[t.index()].lo, wanted[t.index()].hi) = (-shared, shared);
                }
            }
        }
        // Tokens share one scale with the class token that is put before them.
        for node in &source.nodes {
            if let (Op::Prepend(_), &[Some(x), Some(token)]) = (node.op, &node.ins[..]) {
                for v in values(source, token).into_iter().map(f64::from) {
                    let t = &mut wanted[x.index()];
                    (t.lo, t.hi) = (t.lo.min(v), t.hi.max(v));
                }
            }
        }
        let mut relu_of = vec![None; n];
        for (i, node) in source.nodes.iter().enumerate() {
            let Some(x) = node.ins[0] else { continue };
            let others = source.nodes.iter().enumerate().any(|(j, other)| j != i && other.ins.contains(&Some(x)));
            let written_by = source.nodes.iter().find(|p| p.outs[0] == Some(x)).map(|p| p.op);
            let foldable = matches!(written_by, Some(Op::Linear(_) | Op::Conv(_) | Op::Depthwise(_)));
            if matches!(node.op, Op::Relu(_)) && !others && foldable && !source.outputs.contains(&x) {
                relu_of[x.index()] = node.outs[0];
            }
        }
        let mut out = Program { labels: source.labels.clone(), ..Program::new() };
        let mut forms = vec![Vec::new(); n];
        let Some(&input) = source.inputs.first() else {
            return Err(HostError::new("model", "has no input", ""));
        };
        let raw = source.tensor(input);
        let id = out.add(raw.name.clone(), dtype, &raw.shape, Role::Activation);
        out.inputs.push(id);
        forms[input.index()].push(Form { id, dtype, scale: 1.0, zero: 0 });
        Ok(Self { source, weights, wanted, forms, relu_of, exponents: vec![None; n], out })
    }

    fn finish(mut self) -> Result<Program, HostError> {
        for &id in &self.source.outputs {
            let form = self.forms[id.index()].first().copied();
            let form = form.ok_or_else(|| HostError::new(&self.source.tensor(id).name, "is never written", ""))?;
            self.out.outputs.push(form.id);
        }
        Ok(self.out)
    }

    fn name(&self, id: TensorId) -> &'a str {
        &self.source.tensor(id).name
    }

    /// Adds the integer tensor for `id` in the representation that is wanted of it, or in int8.
    fn form(&mut self, id: TensorId, dtype: DType) -> Form {
        let t = self.wanted[id.index()];
        let (scale, zero) = match dtype {
            DType::I16 => (t.hi.max(-t.lo) * HEADROOM / 32767.0, 0),
            _ if t.symmetric => (t.hi.max(-t.lo) / 127.0, 0),
            _ => {
                let scale = (t.hi - t.lo) / 255.0;
                (scale, ((-128.0 - t.lo / scale + 0.5).floor() as i32).clamp(-128, 127))
            }
        };
        self.add(id, dtype, scale, zero)
    }

    /// Adds an integer tensor for `id` with this scale and zero point.
    fn add(&mut self, id: TensorId, dtype: DType, scale: f64, zero: i32) -> Form {
        let t = self.source.tensor(id);
        let new = self.out.add(t.name.clone(), dtype, &t.shape, Role::Activation);
        let tensor = &mut self.out.tensors[new.index()];
        (tensor.scale, tensor.zero) = (scale as f32, zero);
        let form = Form { id: new, dtype, scale, zero };
        self.forms[id.index()].push(form);
        form
    }

    /// The form of `id` in this type, made by rescaling where its op wrote the other.
    fn read(&mut self, id: Option<TensorId>, dtype: DType) -> Result<Form, HostError> {
        let id = id.ok_or_else(|| HostError::new("model", "an operand is absent", ""))?;
        if let Some(&form) = self.forms[id.index()].iter().find(|f| f.dtype == dtype) {
            return Ok(form);
        }
        let Some(&from) = self.forms[id.index()].first() else {
            return Err(HostError::new(self.name(id), "is read before it is written", ""));
        };
        let len = self.source.tensor(id).len();
        let to = self.form(id, dtype);
        let Multiplier { value, shift } = self.multiplier(id, from.scale / to.scale)?;
        let (multiplier, shift) = (value, shift as i32);
        let op: Op = match (from.dtype, dtype) {
            (DType::I16, DType::I8) => {
                ops::rescale::RescaleI16I8 { len, multiplier, shift, zero: to.zero, lo: -128, hi: 127 }.into()
            }
            (DType::I8, DType::I16) => ops::rescale::RescaleI8I16 { len, multiplier, shift, zero_in: from.zero }.into(),
            (from, to) => {
                let problem = format!("is {} where {} is needed", from.name(), to.name());
                return Err(HostError::new(self.name(id), problem, "this model has no integer form"));
            }
        };
        self.out.push(op, &[Some(from.id)], &[Some(to.id)]);
        Ok(to)
    }

    fn multiplier(&self, id: TensorId, factor: f64) -> Result<Multiplier, HostError> {
        Multiplier::from_f64(factor).ok_or_else(|| {
            let problem = format!("would be scaled by {factor}, which no multiplier holds");
            HostError::new(self.name(id), problem, "look for activations or weights that are all but zero, or diverged")
        })
    }

    fn constant_i8(&mut self, name: String, shape: &[usize], values: &[i8]) -> Option<TensorId> {
        Some(self.out.constant(name, DType::I8, shape, values.iter().map(|v| *v as u8).collect()))
    }

    fn constant_i16(&mut self, name: String, shape: &[usize], values: &[i16]) -> Option<TensorId> {
        Some(self.out.constant(name, DType::I16, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
    }

    /// Weights of this width, whose rows are the first dimension of `shape`.
    fn constant_weights(&mut self, name: String, shape: &[usize], width: Width, values: &[i32]) -> Option<TensorId> {
        match width {
            Width::Int4 => {
                let packed: Vec<u8> = values.chunks(values.len() / shape[0]).flat_map(packed_int4).collect();
                let shape = [shape[0], packed.len() / shape[0]];
                Some(self.out.constant(name, DType::U8, &shape, packed))
            }
            Width::Int8 => self.constant_i8(name, shape, &values.iter().map(|v| *v as i8).collect::<Vec<_>>()),
            Width::Int16 => self.constant_i16(name, shape, &values.iter().map(|v| *v as i16).collect::<Vec<_>>()),
        }
    }

    fn constant_i32(&mut self, name: String, shape: &[usize], values: &[i32]) -> Option<TensorId> {
        Some(self.out.constant(name, DType::I32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
    }

    /// A linear op: `x`, quantised weights and bias, multiplier and shift per channel. Returns the input's
    /// form, the operands after it, the output's form and the smallest output.
    fn linear(&mut self, node: &Node) -> Result<Requantised, HostError> {
        let x = self.read(node.ins[0], DType::I8)?;
        let w_id = node.ins[1].expect("weights");
        let written = node.outs[0].expect("y");
        let y_id = self.relu_of[written.index()].unwrap_or(written);
        let relu = y_id != written;
        // A ReLU is a clamp at the zero point, which int16 tensors do not have.
        let dtype = if self.wanted[y_id.index()].wide && !relu { DType::I16 } else { DType::I8 };
        let y = self.form(y_id, dtype);

        let w = values(self.source, w_id);
        let width = if matches!(node.op, Op::Depthwise(_)) { Width::Int8 } else { self.weights };
        let rounding = rounding_of(&node.op, x.scale as f32, width).expect("an op with weights");
        let channels = rounding.channels;
        let bias = node.ins[2].map_or_else(|| vec![0.0; channels], |b| values(self.source, b));
        if let Some(v) = w.iter().find(|v| !v.is_finite()) {
            let problem = format!("holds {v}");
            return Err(HostError::new(self.name(w_id), problem, "look for a training run that diverged"));
        }
        let scales: Vec<f32> = (0..channels).map(|c| ops::fake_quant::weight_scale(&rounding, &w, &bias, c)).collect();
        let mut sums = vec![0i64; channels];
        let quantised: Vec<i32> = w
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let channel = rounding.channel(i);
                let q = ops::fake_quant::quantise(*v, scales[channel], 0, -rounding.largest, rounding.largest);
                sums[channel] += i64::from(q);
                q
            })
            .collect();
        let biases: Vec<i32> = (0..channels)
            .map(|c| {
                let b = (f64::from(bias[c]) / (x.scale * f64::from(scales[c])) + 0.5).floor() as i64;
                (b - i64::from(x.zero) * sums[c]).clamp(-(1 << 30), 1 << 30) as i32
            })
            .collect();
        let mut multipliers = Vec::new();
        let mut shifts = Vec::new();
        for scale in &scales {
            let m = self.multiplier(y_id, x.scale * f64::from(*scale) / y.scale)?;
            multipliers.push(m.value);
            shifts.push(m.shift as i8);
        }
        let name = self.name(w_id);
        let shape = self.source.tensor(w_id).shape.clone();
        let operands = [
            Some(x.id),
            self.constant_weights(name.into(), &shape, width, &quantised),
            self.constant_i32(format!("{name}.bias"), &[channels], &biases),
            self.constant_i32(format!("{name}.multiplier"), &[channels], &multipliers),
            self.constant_i8(format!("{name}.shift"), &[channels], &shifts),
        ];
        Ok(Requantised { x, operands, y, lo: if relu { y.zero } else { -128 } })
    }

    fn table(&mut self, node: &Node, f: impl Fn(f64) -> f64) -> Result<(), HostError> {
        let x = self.read(node.ins[0], DType::I8)?;
        let y_id = node.outs[0].expect("y");
        let y = self.form(y_id, DType::I8);
        let table = ops::table::table_i8(f, x.scale, x.zero, y.scale, y.zero);
        let table = self.constant_i8(format!("{}.table", self.name(y_id)), &[256], &table);
        let len = self.source.tensor(y_id).len();
        self.out.push(ops::table::TableI8 { len }, &[Some(x.id), table], &[Some(y.id)]);
        Ok(())
    }

    fn node(&mut self, i: usize) -> Result<(), HostError> {
        let source = self.source;
        let node = &source.nodes[i];
        let y_id = node.outs[0].expect("the first output is never optional");
        match node.op {
            Op::Normalise(s) => {
                let x = self.forms[node.ins[0].expect("x").index()][0];
                let y = self.form(y_id, DType::I8);
                let [factor, offset] = [1, 2].map(|i| values(source, node.ins[i].expect("constants")));
                let mean: Vec<f32> = factor.iter().zip(&offset).map(|(f, o)| -o / f).collect();
                let std: Vec<f32> = factor.iter().map(|f| 1.0 / f).collect();
                let p = ops::input::quantise_parameters(&mean, &std, y.scale)?;
                let name = self.name(y_id);
                let operands = [
                    Some(x.id),
                    self.constant_i32(format!("{name}.multiplier"), &[s.c], &p.multiplier),
                    self.constant_i32(format!("{name}.offset"), &[s.c], &p.offset),
                    self.constant_i8(format!("{name}.shift"), &[s.c], &p.shift),
                ];
                let op: Op = match x.dtype {
                    DType::U8 => ops::input::InputU8 { rows: s.rows, c: s.c, zero: y.zero }.into(),
                    _ => ops::input::InputI16 { rows: s.rows, c: s.c, zero: y.zero }.into(),
                };
                self.out.push(op, &operands, &[Some(y.id)]);
            }
            Op::Linear(s) => {
                let r = self.linear(node)?;
                let (rows, k, n) = (s.rows, s.k, s.n);
                let (zero, lo, hi) = (r.y.zero, r.lo, 127);
                let op: Op = match (r.y.dtype, self.weights) {
                    (DType::I16, Width::Int4) => ops::linear::LinearI16W4 { rows, k, n }.into(),
                    (DType::I16, Width::Int8) => ops::linear::LinearI16 { rows, k, n }.into(),
                    (DType::I16, Width::Int16) => ops::linear::LinearI16W16 { rows, k, n }.into(),
                    (_, Width::Int4) => ops::linear::LinearI8W4 { rows, k, n, zero, lo, hi }.into(),
                    (_, Width::Int8) => ops::linear::LinearI8 { rows, k, n, zero, lo, hi }.into(),
                    (_, Width::Int16) => ops::linear::LinearI8W16 { rows, k, n, zero, lo, hi }.into(),
                };
                let scratch = self.scratch(y_id, op, 1)?;
                self.out.push(op, &r.operands, &[Some(r.y.id), scratch]);
            }
            Op::Conv(s) => {
                let r = self.linear(node)?;
                let kinds = match self.weights {
                    Width::Int4 => [Kind::ConvI8W4, Kind::ConvI16W4],
                    Width::Int8 => [Kind::ConvI8, Kind::ConvI16],
                    Width::Int16 => [Kind::ConvI8W16, Kind::ConvI16W16],
                };
                self.windowed(kinds, &s.to_words(), y_id, &r)?;
            }
            Op::Depthwise(s) => {
                let r = self.linear(node)?;
                self.windowed([Kind::DepthwiseI8, Kind::DepthwiseI16], &s.to_words(), y_id, &r)?;
            }
            Op::Relu(_) => {
                // Folded into the op before, or a clamp at the zero point by table.
                if self.forms[y_id.index()].is_empty() {
                    self.table(node, |v| v.max(0.0))?;
                }
            }
            Op::GeluTanh(_) => self.table(node, ops::gelu::tanh_of)?,
            Op::GeluErf(_) => self.table(node, ops::gelu::erf_of)?,
            Op::LayerNorm(s) => {
                let x = self.read(node.ins[0], DType::I16)?;
                let wide = self.wanted[y_id.index()].wide;
                let y = self.form(y_id, if wide { DType::I16 } else { DType::I8 });
                let [gamma, beta] = [1, 2].map(|i| values(source, node.ins[i].expect("parameters")));
                let p = ops::layer_norm::quantise_parameters(&gamma, &beta, x.scale, y.scale, f64::from(s.eps))?;
                let name = self.name(y_id);
                let operands = [
                    Some(x.id),
                    self.constant_i16(format!("{name}.gamma"), &[s.c], &p.gamma),
                    self.constant_i32(format!("{name}.beta"), &[s.c], &p.beta),
                ];
                let (rows, c, eps, shift) = (s.rows, s.c, p.eps, p.shift);
                let op: Op = if wide {
                    ops::layer_norm::LayerNormI16 { rows, c, eps, shift }.into()
                } else {
                    ops::layer_norm::LayerNormI8 { rows, c, eps, shift, zero: y.zero, lo: -128, hi: 127 }.into()
                };
                self.out.push(op, &operands, &[Some(y.id)]);
            }
            Op::AvgPool(s) => {
                let x = self.forms[node.ins[0].expect("x").index()][0];
                let y = self.add(y_id, x.dtype, x.scale, x.zero);
                let (h, w, c, oh, ow) = (s.h, s.w, s.c, s.oh, s.ow);
                let op: Op = match x.dtype {
                    DType::I16 => ops::pool::AvgPoolI16 { h, w, c, oh, ow }.into(),
                    _ => ops::pool::AvgPoolI8 { h, w, c, oh, ow }.into(),
                };
                self.out.push(op, &[Some(x.id)], &[Some(y.id)]);
            }
            Op::MaxPool(s) => {
                let x = self.read(node.ins[0], DType::I8)?;
                let y = self.add(y_id, DType::I8, x.scale, x.zero);
                self.out.push(ops::pool::MaxPoolI8::from_words(&s.to_words()), &[Some(x.id)], &[Some(y.id)]);
            }
            Op::Add(s) => self.sum(node, s.len)?,
            Op::AddBroadcast(s) => self.sum(node, s.len)?,
            Op::Prepend(s) => {
                let x = self.read(node.ins[0], DType::I16)?;
                // Copied, not rescaled: one scale for the tokens and the class token.
                let token = values(source, node.ins[1].expect("token"));
                let largest = token.iter().fold(0.0f64, |a, v| a.max(f64::from(v.abs())));
                if largest > x.scale * 32767.0 {
                    let problem = format!("reaches {largest} where its tokens end at {}", x.scale * 32767.0);
                    return Err(HostError::new(
                        self.name(y_id),
                        problem,
                        "train longer: the class token is an outlier",
                    ));
                }
                let y = self.add(y_id, DType::I16, x.scale, 0);
                let token = self.quantised_i16(&token, x.scale, format!("{}.token", self.name(y_id)), &[s.c]);
                self.out.push(ops::tokens::PrependI16 { n: s.n, c: s.c }, &[Some(x.id), token], &[Some(y.id)]);
            }
            Op::Take(s) => {
                let x = self.forms[node.ins[0].expect("x").index()][0];
                let y = self.add(y_id, x.dtype, x.scale, x.zero);
                let (n, c, index) = (s.n, s.c, s.index);
                let op: Op = match x.dtype {
                    DType::I16 => ops::tokens::TakeI16 { n, c, index }.into(),
                    _ => ops::tokens::TakeI8 { n, c, index }.into(),
                };
                self.out.push(op, &[Some(x.id)], &[Some(y.id)]);
            }
            // Made where the product with the direct inverse is, which needs them no earlier.
            Op::Gram(_) if self.reads(y_id, |op| matches!(op, Op::InverseLdlt(_))) => {}
            Op::InverseLdlt(_) => {}
            Op::SymNorm(_) if self.direct(node.ins[0]).is_some() => {}
            Op::Gram(s) => {
                let l = self.read(node.ins[0], DType::I8)?;
                let a = self.add(y_id, DType::I16, ONE_Q15, 0);
                let (multiplier, shift) = self.exponent(y_id, l.scale)?;
                let op = ops::gram::GramI8 { m: s.m, heads: s.heads, d: s.d, multiplier, shift };
                self.check(y_id, op.into())?;
                self.out.push(op, &[Some(l.id)], &[Some(a.id)]);
            }
            Op::InverseNewton(ops::inverse::InverseNewton { count, m, iterations, ridge }) => {
                let ridge = q22(ridge);
                self.inverse(node, ops::inverse::InverseNewtonQ22 { heads: count, m, iterations, ridge }.into())?;
            }
            Op::SymNorm(s) => {
                let v = self.read(node.ins[0], DType::I32)?;
                let a = self.read(node.ins[1], DType::I16)?;
                let y = self.add(y_id, DType::I32, v.scale, 0);
                let op = ops::sym_norm::SymNormQ22 { heads: s.count, m: s.m };
                self.out.push(op, &[Some(v.id), Some(a.id)], &[Some(y.id)]);
            }
            Op::KernelAccumulate(s) => {
                let [q, l, v] = self.attended(node)?;
                let (multiplier, shift) = self.exponent(y_id, q.scale)?;
                let w_shift = ops::kernel::AccumulateI8::w_shift(s.n);
                let w = self.add(y_id, DType::I32, v.scale * ONE_Q15 * f64::from(w_shift).exp2(), 0);
                let op: Op =
                    ops::kernel::AccumulateI8 { n: s.n, m: s.m, heads: s.heads, d: s.d, multiplier, shift, w_shift }
                        .into();
                let scratch = self.scratch(y_id, op, 1)?;
                self.out.push(op, &[Some(q.id), Some(l.id), Some(v.id)], &[Some(w.id), scratch]);
            }
            Op::Product(s) => {
                if let Some(direct) = self.direct(node.ins[0]) {
                    return self.solve(node, s, direct);
                }
                let inverse = self.read(node.ins[0], DType::I32)?;
                let w = self.read(node.ins[1], DType::I32)?;
                // In units of w, times a power of two per column that travels beside it.
                let u = self.add(y_id, DType::I16, w.scale, 0);
                let op: Op = ops::product::ProductQ22 { heads: s.count, m: s.m, d: s.d }.into();
                let exponents = self.part(y_id, "exponents", &[s.count, s.d]);
                self.exponents[y_id.index()] = exponents;
                let scratch = self.scratch(y_id, op, 2)?;
                self.out.push(op, &[Some(inverse.id), Some(w.id)], &[Some(u.id), exponents, scratch]);
            }
            Op::KernelApply(s) => {
                let q = self.read(node.ins[0], DType::I8)?;
                let l = self.read(node.ins[1], DType::I8)?;
                let u = self.read(node.ins[2], DType::I16)?;
                let exponents = node.ins[2].and_then(|u| self.exponents[u.index()]);
                let y = self.form(y_id, DType::I8);
                let (multiplier, shift) = self.exponent(y_id, q.scale)?;
                let out = self.multiplier(y_id, u.scale / y.scale)?;
                let op: Op = ops::kernel::ApplyI8 {
                    n: s.n,
                    m: s.m,
                    heads: s.heads,
                    d: s.d,
                    multiplier,
                    shift,
                    out_multiplier: out.value,
                    out_shift: out.shift as i32,
                    zero: y.zero,
                    lo: -128,
                    hi: 127,
                }
                .into();
                let scratch = self.scratch(y_id, op, 1)?;
                self.out.push(op, &[Some(q.id), Some(l.id), Some(u.id), exponents], &[Some(y.id), scratch]);
            }
            Op::SoftmaxAttention(s) => {
                let [q, k, v] = self.attended(node)?;
                let y = self.form(y_id, DType::I8);
                let exponent = 65536.0 * core::f64::consts::LOG2_E * f64::from(s.scale) * q.scale * k.scale;
                let factor = self.multiplier(y_id, exponent)?;
                let out = self.multiplier(y_id, f64::from(-23).exp2() * v.scale / y.scale)?;
                let op: Op = ops::softmax_attention::SoftmaxAttentionI8 {
                    n: s.n,
                    heads: s.heads,
                    d: s.d,
                    multiplier: factor.value,
                    shift: factor.shift as i32,
                    out_multiplier: out.value,
                    out_shift: out.shift as i32,
                    zero: y.zero,
                    lo: -128,
                    hi: 127,
                }
                .into();
                let scratch = self.scratch(y_id, op, 1)?;
                self.out.push(op, &[Some(q.id), Some(k.id), Some(v.id)], &[Some(y.id), scratch]);
            }
            op => {
                let problem = format!("is made by {}, which has no integer form", op.kind().name());
                return Err(HostError::new(self.name(y_id), problem, "use a model of ops that have one"));
            }
        }
        Ok(())
    }

    /// Queries, keys or landmarks, and values.
    fn attended(&mut self, node: &Node) -> Result<[Form; 3], HostError> {
        let [q, k, v] = [0, 1, 2].map(|i| node.ins[i]);
        Ok([self.read(q, DType::I8)?, self.read(k, DType::I8)?, self.read(v, DType::I8)?])
    }

    /// Multiplier and shift that turn a squared distance at `scale` into the exponent of the Gaussian
    /// kernel, base 2, in Q16.
    fn exponent(&self, id: TensorId, scale: f64) -> Result<(i32, i32), HostError> {
        let factor = self.multiplier(id, 65536.0 * core::f64::consts::LOG2_E * scale * scale / 2.0)?;
        Ok((factor.value, factor.shift as i32))
    }

    fn inverse(&mut self, node: &Node, op: Op) -> Result<(), HostError> {
        let y_id = node.outs[0].expect("the first output is never optional");
        let a = self.read(node.ins[0], DType::I16)?;
        let v = self.add(y_id, DType::I32, f64::from(-22).exp2(), 0);
        let scratch = self.scratch(y_id, op, 1)?;
        self.out.push(op, &[Some(a.id)], &[Some(v.id), scratch]);
        Ok(())
    }

    /// The op that writes a source tensor.
    fn maker(&self, id: Option<TensorId>) -> Option<&'a Node> {
        self.source.nodes.iter().find(|node| node.outs[0] == id)
    }

    /// Whether such an op reads a source tensor.
    fn reads(&self, id: TensorId, is_such: impl Fn(Op) -> bool) -> bool {
        self.source.nodes.iter().any(|node| node.ins.contains(&Some(id)) && is_such(node.op))
    }

    /// The direct inverse that this tensor is, or is after its symmetric normalisation.
    fn direct(&self, id: Option<TensorId>) -> Option<Direct<'a>> {
        let (mut inverse, mut is_normalised) = (self.maker(id)?, false);
        if let Op::SymNorm(_) = inverse.op {
            (inverse, is_normalised) = (self.maker(inverse.ins[0])?, true);
        }
        let gram = self.maker(inverse.ins[0])?;
        match (inverse.op, gram.op) {
            (Op::InverseLdlt(s), Op::Gram(shape)) => {
                Some(Direct { id: inverse.outs[0]?, ridge: s.ridge, gram, shape, is_normalised })
            }
            _ => None,
        }
    }

    /// The product with a direct inverse: kernel matrix, factors, substitutions, int16.
    fn solve(&mut self, node: &Node, s: ops::product::Product, direct: Direct<'_>) -> Result<(), HostError> {
        let y_id = node.outs[0].expect("the first output is never optional");
        let Direct { id: f_id, ridge, gram, shape, is_normalised } = direct;
        let (l, a_id) = (self.read(gram.ins[0], DType::I8)?, gram.outs[0].expect("a"));
        let (heads, m, d) = (shape.heads, s.m, s.d);
        let (multiplier, shift) = self.exponent(a_id, l.scale)?;
        let op: Op = ops::gram::GramTriangleI8 { m, heads, d: shape.d, multiplier, shift }.into();
        self.check(a_id, op)?;
        let triangle = [op.signature().output(0).len as usize];
        let a = self.named(a_id, &triangle, ONE_Q15);
        self.out.push(op, &[Some(l.id)], &[a]);

        let scale = if is_normalised { self.part(y_id, "scale", &[heads, m]) } else { None };
        if is_normalised {
            self.out.push(ops::sym_norm::SymScaleQ30 { heads, m }, &[a], &[scale]);
        }
        let op: Op = ops::solve::FactorQ26 { heads, m, ridge: q22(ridge) }.into();
        let f = self.named(f_id, &triangle, f64::from(-26).exp2());
        let scratch = self.scratch(f_id, op, 1)?;
        self.out.push(op, &[a], &[f, scratch]);

        let w = self.read(node.ins[1], DType::I32)?;
        let op: Op = ops::solve::SolveQ26 { heads, m, d }.into();
        let [x, shifts] =
            [("solution", [heads, m, d]), ("shifts", [heads, 1, d])].map(|(name, shape)| self.part(y_id, name, &shape));
        let scratch = self.scratch(y_id, op, 2)?;
        self.out.push(op, &[Some(w.id), f, scale], &[x, shifts, scratch]);

        // In units of w, times a power of two per column that travels beside it.
        let op = ops::solve::NarrowI16 { heads, m, d };
        let exponents = self.part(y_id, "exponents", &[heads, d]);
        let u = self.add(y_id, DType::I16, w.scale, 0);
        self.exponents[y_id.index()] = exponents;
        self.out.push(op, &[shifts, x], &[exponents, Some(u.id)]);
        Ok(())
    }

    /// An i32 tensor with the name of `id`, another shape and this scale.
    fn named(&mut self, id: TensorId, shape: &[usize], scale: f64) -> Option<TensorId> {
        let new = self.out.add(self.name(id), DType::I32, shape, Role::Activation);
        self.out.tensors[new.index()].scale = scale as f32;
        Some(new)
    }

    /// An i32 tensor that belongs to `id`.
    fn part(&mut self, id: TensorId, part: &str, shape: &[usize]) -> Option<TensorId> {
        Some(self.out.add(format!("{}.{part}", self.name(id)), DType::I32, shape, Role::Activation))
    }

    /// Refuses an op whose fields its integer form does not take.
    fn check(&self, id: TensorId, op: Op) -> Result<(), HostError> {
        let Some(reason) = op.signature().reason() else { return Ok(()) };
        Err(HostError::new(
            self.name(id),
            format!("has no integer form: {reason}, in {op:?}"),
            "train with at most 255 landmarks and a soft.ridge of 1/256 to 1 (Q22: 16384 to 4194304; newton: from 0)",
        ))
    }

    /// Scratch of `op`, its output `i`.
    fn scratch(&mut self, id: TensorId, op: Op, i: usize) -> Result<Option<TensorId>, HostError> {
        self.check(id, op)?;
        let scratch = op.signature().output(i);
        let name = format!("{}.scratch", self.name(id));
        Ok(Some(self.out.add(name, scratch.dtype, &[scratch.len as usize], Role::Activation)))
    }

    fn quantised_i16(&mut self, values: &[f32], scale: f64, name: String, shape: &[usize]) -> Option<TensorId> {
        let q: Vec<i16> =
            values.iter().map(|v| (f64::from(*v) / scale + 0.5).floor().clamp(-32768.0, 32767.0) as i16).collect();
        self.constant_i16(name, shape, &q)
    }

    /// A convolution to int8 or int16: `words` are the shape of its f32 op, to which the integer one appends its
    /// zero points and bounds.
    fn windowed(
        &mut self,
        [narrow, wide]: [Kind; 2],
        words: &[u32],
        y_id: TensorId,
        r: &Requantised,
    ) -> Result<(), HostError> {
        let mut words = words.to_vec();
        words.push(r.x.zero as u32);
        let op = if r.y.dtype == DType::I16 {
            Op::decode(wide, &words)
        } else {
            words.extend([r.y.zero as u32, r.lo as u32, 127]);
            Op::decode(narrow, &words)
        };
        let mut outs = vec![Some(r.y.id)];
        for i in 1..op.signature().n_outs() {
            outs.push(self.scratch(y_id, op, i)?);
        }
        self.out.push(op, &r.operands, &outs);
        Ok(())
    }

    /// `y = a + b`, where `b` is an activation or a constant (a position embedding).
    fn sum(&mut self, node: &Node, len: usize) -> Result<(), HostError> {
        let (y_id, b_id) = (node.outs[0].expect("y"), node.ins[1].expect("b"));
        let wide = self.wanted[y_id.index()].wide;
        let a = self.read(node.ins[0], if wide { DType::I16 } else { DType::I8 })?;
        let b = if self.source.tensor(b_id).role == Role::Constant {
            let v = values(self.source, b_id);
            let scale = v.iter().fold(1e-9f64, |m, v| m.max(f64::from(v.abs()))) / 127.0;
            let q: Vec<i8> = v.iter().map(|v| (f64::from(*v) / scale + 0.5).floor() as i8).collect();
            let shape = self.source.tensor(b_id).shape.clone();
            let id = self.constant_i8(self.name(b_id).into(), &shape, &q).expect("just made");
            Form { id, dtype: DType::I8, scale, zero: 0 }
        } else {
            match self.forms[b_id.index()].first() {
                Some(&form) if wide && form.zero == 0 => form,
                _ => self.read(Some(b_id), if wide { DType::I16 } else { DType::I8 })?,
            }
        };
        let y = self.form(y_id, a.dtype);
        let op: Option<Op> = if wide {
            match b.dtype {
                DType::I16 => ops::add::AddI16::from_scales(len, a.scale, b.scale, y.scale).map(Op::from),
                _ => ops::add::AddI16I8::from_scales(len, a.scale, b.scale, y.scale).map(Op::from),
            }
        } else {
            let at = |form: Form| (form.scale, form.zero as i8);
            ops::add::AddI8::from_scales(len, at(a), at(b), at(y)).map(Op::from)
        };
        let op = op.ok_or_else(|| {
            let problem = format!("adds scales {} and {} to {}, which are too far apart", a.scale, b.scale, y.scale);
            HostError::new(self.name(y_id), problem, "look for activations that are all but zero, or diverged")
        })?;
        self.out.push(op, &[Some(a.id), Some(b.id)], &[Some(y.id)]);
        Ok(())
    }
}

/// A row of weights in blocks of int4; see [`Width::Int4`].
fn packed_int4(row: &[i32]) -> Vec<u8> {
    let block = |block: &[i32]| {
        let half = |i: usize| block.get(i).map_or(0, |&q| q as u8 & 0xf);
        [0, 1, 2, 3].map(|i| half(i) | half(i + 4) << 4)
    };
    row.chunks(8).flat_map(block).collect()
}

/// How the weights of an op are rounded to `width`, its second input; `None` for an op without weights.
/// `input_scale` is that of its first input.
pub(super) fn rounding_of(op: &Op, input_scale: f32, width: Width) -> Option<FakeQuantWeights> {
    let (outer, channels, inner) = match *op {
        Op::Linear(s) => (1, s.n, s.k),
        Op::Conv(s) => (1, s.c_out, s.kh * s.kw * s.c_in),
        Op::Depthwise(s) => (s.kh * s.kw, s.c / s.share, 1),
        _ => return None,
    };
    let largest = width.largest(outer * inner);
    Some(FakeQuantWeights { outer, channels, inner, input_scale, largest })
}

/// Real value of one unit of Q15.
const ONE_Q15: f64 = 1.0 / 32768.0;

/// A ridge in Q22.
fn q22(ridge: f32) -> i32 {
    (f64::from(ridge) * f64::from(1 << 22) + 0.5).floor() as i32
}

/// A direct inverse of the source.
struct Direct<'a> {
    id: TensorId,
    ridge: f32,
    /// The op that writes its matrix.
    gram: &'a Node,
    shape: ops::gram::Gram,
    is_normalised: bool,
}

struct Requantised {
    x: Form,
    operands: [Option<TensorId>; 5],
    y: Form,
    lo: i32,
}
