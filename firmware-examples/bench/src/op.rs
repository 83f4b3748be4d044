//! The ops: their operands from the generators, and the one measured call of each.

use crate::data::{self, Seeds, ZERO_IN, seed};
use crate::memory::{Memory, bytes, room};
use crate::{Meter, Soft, measure};
use core::hint::black_box;
use softedge::ops::add::{self, AddI16I8};
use softedge::ops::conv::{self, ConvI8};
use softedge::ops::depthwise::{self, DepthwiseI8};
use softedge::ops::layer_norm::{self, LayerNormI8};
use softedge::ops::linear::{self, LinearI8, LinearI16};
use softedge::ops::rescale::{self, RescaleI16I8};
use softedge::ops::softmax_attention::{self, SoftmaxAttentionI8};
use softedge::ops::table::{self, TableI8};
use softedge::ops::{Signature, Whole};

/// An op and what its data is made of.
#[derive(Clone, Copy)]
pub enum Op {
    Linear(LinearI8, Seeds),
    Logits(LinearI16, Seeds),
    Conv(ConvI8, Seeds),
    Depthwise(DepthwiseI8, Seeds),
    LayerNorm(LayerNormI8),
    Table(TableI8),
    Add(AddI16I8),
    Rescale(RescaleI16I8),
    Softmax(SoftmaxAttentionI8),
    Soft(Soft),
}

/// The expression for the shape of any op.
macro_rules! shape {
    ($op:expr, $s:ident => $value:expr) => {
        match $op {
            Op::Linear($s, _) => $value,
            Op::Logits($s, _) => $value,
            Op::Conv($s, _) => $value,
            Op::Depthwise($s, _) => $value,
            Op::LayerNorm($s) => $value,
            Op::Table($s) => $value,
            Op::Add($s) => $value,
            Op::Rescale($s) => $value,
            Op::Softmax($s) => $value,
            Op::Soft($s) => $value,
        }
    };
}

impl Op {
    /// One step of the scores of softmax attention, after the usual `1 / sqrt(d)`.
    pub const SCORE_STEP: f64 = 1.0 / 8192.0;

    /// Its operands.
    pub const fn signature(&self) -> Signature {
        shape!(self, s => s.signature())
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        shape!(self, s => s.macs())
    }

    /// Bytes of scratch: every output but the first.
    pub const fn scratch(&self) -> usize {
        let signature = self.signature();
        let (mut sum, mut i) = (0, 1);
        while i < signature.n_outs() {
            sum += bytes(signature.output(i));
            i += 1;
        }
        sum
    }

    /// Bytes of memory for all operands.
    pub const fn memory(&self) -> usize {
        let signature = self.signature();
        let (mut sum, mut i) = (0, signature.is_in_place() as usize);
        while i < signature.n_ins() {
            sum += room(signature.input(i));
            i += 1;
        }
        i = 0;
        while i < signature.n_outs() {
            sum += room(signature.output(i));
            i += 1;
        }
        sum
    }

    /// Runs it in `memory`, which afterwards begins with the output.
    pub fn run(&self, mut memory: Memory<'_>, meter: &mut impl Meter) {
        let op = black_box(*self);
        let signature = op.signature();
        let memory = &mut memory;
        match op {
            Op::Linear(s, seeds) => {
                let y = memory.take(signature.output(0));
                let Weighted { x, w, bias, multiplier, shift } = Weighted::new(memory, &signature, &seeds, false);
                let scratch = memory.take(signature.output(1));
                measure(meter, "", || linear::forward_i8(&s, x, w, bias, multiplier, shift, y, scratch));
            }
            Op::Logits(s, seeds) => {
                let y = memory.take(signature.output(0));
                let Weighted { x, w, bias, multiplier, shift } = Weighted::new(memory, &signature, &seeds, false);
                let scratch = memory.take(signature.output(1));
                measure(meter, "", || linear::forward_i16(&s, x, w, bias, multiplier, shift, y, scratch));
            }
            Op::Conv(s, seeds) => {
                let y = memory.take(signature.output(0));
                let Weighted { x, w, bias, multiplier, shift } = Weighted::new(memory, &signature, &seeds, false);
                let (patch, scratch) = (memory.take(signature.output(1)), memory.take(signature.output(2)));
                measure(meter, "", || conv::forward_i8(&s, &Whole, x, w, bias, multiplier, shift, y, patch, scratch));
            }
            Op::Depthwise(s, seeds) => {
                let y = memory.take(signature.output(0));
                let Weighted { x, w, bias, multiplier, shift } = Weighted::new(memory, &signature, &seeds, true);
                let scratch = memory.take(signature.output(1));
                measure(meter, "", || depthwise::forward_i8(&s, &Whole, x, w, bias, multiplier, shift, y, scratch));
            }
            Op::LayerNorm(s) => {
                let y = memory.take(signature.output(0));
                let x = memory.filled(signature.input(0), data::i16s(seed::NORM_X));
                let gamma = memory.filled(signature.input(1), data::gammas(seed::GAMMA));
                let beta = memory.filled(signature.input(2), data::betas(seed::BETA));
                measure(meter, "", || layer_norm::forward_i8(&s, x, gamma, beta, y));
            }
            Op::Table(s) => {
                let y = memory.filled(signature.output(0), data::i8s(seed::TABLE_X));
                let table = memory.filled(signature.input(1), data::i8s(seed::TABLE));
                measure(meter, "", || table::forward_i8(&s, table, y));
            }
            Op::Add(s) => {
                let y = memory.filled(signature.output(0), data::i16s(seed::ADD_A));
                let b = memory.filled(signature.input(1), data::i8s(seed::ADD_B));
                measure(meter, "", || add::forward_i16_i8(&s, b, y));
            }
            Op::Rescale(s) => {
                let y = memory.take(signature.output(0));
                let x = memory.filled(signature.input(0), data::i16s(seed::RESCALE_X));
                measure(meter, "", || rescale::i16_to_i8(&s, x, y));
            }
            Op::Softmax(s) => {
                let y = memory.take(signature.output(0));
                let q = memory.filled(signature.input(0), data::i8s(seed::Q));
                let k = memory.filled(signature.input(1), data::i8s(seed::K));
                let v = memory.filled(signature.input(2), data::i8s(seed::V));
                let scratch = memory.take(signature.output(1));
                measure(meter, "", || softmax_attention::forward_i8(&s, &Whole, q, k, v, y, scratch));
            }
            Op::Soft(s) => {
                let y = memory.take(signature.output(0));
                let q = memory.filled(signature.input(0), data::i8s(seed::Q));
                let v = memory.filled(signature.input(1), data::i8s(seed::V));
                let scratch = memory.take(signature.output(1));
                s.run(q, v, y, Memory::of_scratch(scratch), meter);
            }
        }
    }
}

/// The inputs of an op with weights.
struct Weighted<'m> {
    x: &'m [i8],
    w: &'m [i8],
    bias: &'m [i32],
    multiplier: &'m [i32],
    shift: &'m [i8],
}

impl<'m> Weighted<'m> {
    /// Generates them. A filter's weights lie together, or where `interleaved` every filter's first comes first.
    fn new(memory: &mut Memory<'m>, signature: &Signature, seeds: &Seeds, interleaved: bool) -> Self {
        let x = memory.filled(signature.input(0), data::i8s(seeds.x));
        let w = memory.filled(signature.input(1), data::i8s(seeds.w));
        let bias = memory.filled(signature.input(2), data::biases(seeds.bias));
        let multiplier = memory.filled(signature.input(3), data::multipliers(seeds.factor));
        let shift = memory.filled(signature.input(4), data::shifts(seeds.factor, seeds.exponent));
        // As an exporter does: the zero point of the input goes into the bias.
        let (filters, taps) = (bias.len(), w.len() / bias.len());
        for (i, &w) in w.iter().enumerate() {
            bias[if interleaved { i % filters } else { i / taps }] -= ZERO_IN * i32::from(w);
        }
        Self { x, w, bias, multiplier, shift }
    }
}
