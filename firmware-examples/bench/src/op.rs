//! The ops: their operands from the generators, and the one measured call of each.

use crate::data::{self, Seeds, ZERO_IN, seed};
use crate::memory::{Memory, bytes, room};
use crate::{Meter, Soft, measure};
use core::hint::black_box;
use softedge::engine::Element;
use softedge::ops::add::{self, AddI16I8};
use softedge::ops::conv::{self, ConvI8, ConvI8W4, ConvI8W16};
use softedge::ops::depthwise::{self, DepthwiseI8};
use softedge::ops::layer_norm::{self, LayerNormI8};
use softedge::ops::linear::{self, LinearI8, LinearI8W4, LinearI8W16, LinearI16, LinearI16W4, LinearI16W16};
use softedge::ops::rescale::{self, RescaleI16I8};
use softedge::ops::softmax_attention::{self, SoftmaxAttentionI8};
use softedge::ops::table::{self, TableI8};
use softedge::ops::{Signature, Whole};

/// An op and what its data is made of.
#[derive(Clone, Copy)]
pub enum Op {
    Linear(LinearI8, Seeds),
    LinearW4(LinearI8W4, Seeds),
    LinearW16(LinearI8W16, Seeds),
    Logits(LinearI16, Seeds),
    LogitsW4(LinearI16W4, Seeds),
    LogitsW16(LinearI16W16, Seeds),
    Conv(ConvI8, Seeds),
    ConvW4(ConvI8W4, Seeds),
    ConvW16(ConvI8W16, Seeds),
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
            Op::LinearW4($s, _) => $value,
            Op::LinearW16($s, _) => $value,
            Op::Logits($s, _) => $value,
            Op::LogitsW4($s, _) => $value,
            Op::LogitsW16($s, _) => $value,
            Op::Conv($s, _) => $value,
            Op::ConvW4($s, _) => $value,
            Op::ConvW16($s, _) => $value,
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
        macro_rules! linear {
            ($forward:ident, $s:ident, $seeds:ident) => {{
                let y = memory.take(signature.output(0));
                let Weighted { x, w, bias, multiplier, shift } = Weighted::in_rows(memory, &signature, &$seeds, $s.k);
                let scratch = memory.take(signature.output(1));
                measure(meter, "", || linear::$forward(&$s, x, w, bias, multiplier, shift, y, scratch));
            }};
        }
        macro_rules! conv {
            ($forward:ident, $s:ident, $seeds:ident) => {{
                let y = memory.take(signature.output(0));
                let k = $s.kh * $s.kw * $s.c_in;
                let Weighted { x, w, bias, multiplier, shift } = Weighted::in_rows(memory, &signature, &$seeds, k);
                let (patch, scratch) = (memory.take(signature.output(1)), memory.take(signature.output(2)));
                measure(meter, "", || conv::$forward(&$s, &Whole, x, w, bias, multiplier, shift, y, patch, scratch));
            }};
        }
        match op {
            Op::Linear(s, seeds) => linear!(forward_i8, s, seeds),
            Op::LinearW4(s, seeds) => linear!(forward_i8_w4, s, seeds),
            Op::LinearW16(s, seeds) => linear!(forward_i8_w16, s, seeds),
            Op::Logits(s, seeds) => linear!(forward_i16, s, seeds),
            Op::LogitsW4(s, seeds) => linear!(forward_i16_w4, s, seeds),
            Op::LogitsW16(s, seeds) => linear!(forward_i16_w16, s, seeds),
            Op::Conv(s, seeds) => conv!(forward_i8, s, seeds),
            Op::ConvW4(s, seeds) => conv!(forward_i8_w4, s, seeds),
            Op::ConvW16(s, seeds) => conv!(forward_i8_w16, s, seeds),
            Op::Depthwise(s, seeds) => {
                let y = memory.take(signature.output(0));
                let Weighted { x, w, bias, multiplier, shift } = Weighted::interleaved(memory, &signature, &seeds);
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

/// Weights of a width, as an op takes them.
trait Weight: Element {
    /// All values, from a seed.
    fn random(seed: u32) -> impl Iterator<Item = Self>;

    /// The sum of a row of `k` weights.
    fn sum(row: &[Self], k: usize) -> i32;
}

impl Weight for i8 {
    fn random(seed: u32) -> impl Iterator<Item = Self> {
        data::i8s(seed)
    }

    fn sum(row: &[Self], _: usize) -> i32 {
        row.iter().map(|&w| i32::from(w)).sum()
    }
}

impl Weight for i16 {
    fn random(seed: u32) -> impl Iterator<Item = Self> {
        data::i16s(seed)
    }

    fn sum(row: &[Self], _: usize) -> i32 {
        row.iter().map(|&w| i32::from(w)).sum()
    }
}

/// Int4.
impl Weight for u8 {
    fn random(seed: u32) -> impl Iterator<Item = Self> {
        data::i8s(seed).map(|w| w as u8)
    }

    fn sum(row: &[Self], k: usize) -> i32 {
        (0..k).map(|i| data::int4(row, i)).sum()
    }
}

/// The inputs of an op with weights.
struct Weighted<'m, W> {
    x: &'m [i8],
    w: &'m [W],
    bias: &'m [i32],
    multiplier: &'m [i32],
    shift: &'m [i8],
}

impl<'m, W: Weight> Weighted<'m, W> {
    /// Generates them; a filter's `k` weights lie together.
    fn in_rows(memory: &mut Memory<'m>, signature: &Signature, seeds: &Seeds, k: usize) -> Self {
        Self::new(memory, signature, seeds, |w, filters, filter| {
            let row = w.len() / filters;
            W::sum(&w[filter * row..][..row], k)
        })
    }

    /// Generates them. The sum of a filter's weights is that of `sum(w, filters, filter)`.
    fn new(
        memory: &mut Memory<'m>,
        signature: &Signature,
        seeds: &Seeds,
        sum: impl Fn(&[W], usize, usize) -> i32,
    ) -> Self {
        let x = memory.filled(signature.input(0), data::i8s(seeds.x));
        let w = memory.filled(signature.input(1), W::random(seeds.w));
        let bias = memory.filled(signature.input(2), data::biases(seeds.bias));
        let multiplier = memory.filled(signature.input(3), data::multipliers(seeds.factor));
        let shift = memory.filled(signature.input(4), data::shifts(seeds.factor, seeds.exponent));
        // As an exporter does: the zero point of the input goes into the bias.
        let filters = bias.len();
        for (filter, bias) in bias.iter_mut().enumerate() {
            *bias -= ZERO_IN * sum(w, filters, filter);
        }
        Self { x, w, bias, multiplier, shift }
    }
}

impl<'m> Weighted<'m, i8> {
    /// Generates them; every filter's first weight comes first.
    fn interleaved(memory: &mut Memory<'m>, signature: &Signature, seeds: &Seeds) -> Self {
        Self::new(memory, signature, seeds, |w, filters, filter| {
            w.iter().skip(filter).step_by(filters).map(|&w| i32::from(w)).sum()
        })
    }
}
