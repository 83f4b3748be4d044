//! The list of what is measured.

use crate::data::{Seeds, ZERO_IN, ZERO_OUT};
use crate::soft::LOG2_E_Q30;
use crate::{Op, Soft};
use softedge::ops::add::AddI16I8;
use softedge::ops::conv::ConvI8;
use softedge::ops::depthwise::DepthwiseI8;
use softedge::ops::layer_norm::LayerNormI8;
use softedge::ops::linear::{LinearI8, LinearI16};
use softedge::ops::rescale::RescaleI16I8;
use softedge::ops::softmax_attention::SoftmaxAttentionI8;
use softedge::ops::table::TableI8;

/// One op to measure.
pub struct Workload {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is, for a table.
    pub title: &'static str,
    /// The op itself.
    pub op: Op,
}

/// Everything that is measured. A, B, D and E are those that CMSIS-NN was measured with, and attention has
/// its `Q`, `K` and `V`.
pub const WORKLOADS: &[Workload] = &[
    workload("A", "linear [196x64] . [64x64]", linear(64, 2)),
    workload("B", "linear [196x64] . [64x256]", linear(256, 3)),
    workload("D", "convolution 3x3, 32x32x16 -> 32", CONV),
    workload("E", "depthwise convolution 3x3, 14x14x64", DEPTHWISE),
    workload("patch", "convolution 3x3 stride 2, 28x28x1 -> 24", PATCH),
    workload("logits", "linear [64] . [64x10] to int16", LOGITS),
    workload("norm", "LayerNorm 196x64, int16 to int8", NORM),
    workload("gelu", "table of 256, 196x256", Op::Table(TableI8 { len: 196 * 256 })),
    workload("add", "residual sum 196x64, int16 + int8", ADD),
    workload("rescale", "rescale 196x64, int16 to int8", RESCALE),
    workload("softmax-196", "softmax attention, 196 tokens", softmax(196)),
    workload("soft-196-49", "SOFT, 196 tokens, 49 landmarks", soft(14, 7, 1)),
    workload("soft-196-16", "SOFT, 196 tokens, 16 landmarks", soft(14, 4, 1)),
    workload("softmax-784", "softmax attention, 784 tokens", softmax(784)),
    workload("soft-784-49", "SOFT, 784 tokens, 49 landmarks", soft(28, 7, 2)),
    workload("soft-784-16", "SOFT, 784 tokens, 16 landmarks", soft(28, 4, 2)),
    workload("soft-3136-49", "SOFT, 3136 tokens, 49 landmarks", soft(56, 7, 3)),
    workload("soft-3136-16", "SOFT, 3136 tokens, 16 landmarks", soft(56, 4, 3)),
];

const fn workload(name: &'static str, title: &'static str, op: Op) -> Workload {
    Workload { name, title, op }
}

const fn linear(n: usize, w: u32) -> Op {
    let s = LinearI8 { rows: 196, k: 64, n, zero: ZERO_OUT, lo: -128, hi: 127 };
    Op::Linear(s, Seeds { x: 1, w, bias: 4, factor: 5, exponent: -9 })
}

const CONV: Op = {
    let s = ConvI8 {
        batch: 1,
        h: 32,
        w: 32,
        c_in: 16,
        c_out: 32,
        kh: 3,
        kw: 3,
        stride_h: 1,
        stride_w: 1,
        pad_h: 1,
        pad_w: 1,
        heads: 1,
        zero_in: ZERO_IN,
        zero: ZERO_OUT,
        lo: -128,
        hi: 127,
    };
    Op::Conv(s, Seeds { x: 20, w: 21, bias: 22, factor: 23, exponent: -10 })
};

const DEPTHWISE: Op = {
    let s = DepthwiseI8 {
        batch: 1,
        h: 14,
        w: 14,
        c: 64,
        kh: 3,
        kw: 3,
        stride_h: 1,
        stride_w: 1,
        pad_h: 1,
        pad_w: 1,
        share: 1,
        zero_in: ZERO_IN,
        zero: ZERO_OUT,
        lo: -128,
        hi: 127,
    };
    Op::Depthwise(s, Seeds { x: 30, w: 31, bias: 32, factor: 33, exponent: -8 })
};

const PATCH: Op = {
    let s = ConvI8 {
        batch: 1,
        h: 28,
        w: 28,
        c_in: 1,
        c_out: 24,
        kh: 3,
        kw: 3,
        stride_h: 2,
        stride_w: 2,
        pad_h: 1,
        pad_w: 1,
        heads: 1,
        zero_in: ZERO_IN,
        zero: ZERO_OUT,
        lo: -128,
        hi: 127,
    };
    Op::Conv(s, Seeds { x: 40, w: 41, bias: 42, factor: 43, exponent: -8 })
};

const LOGITS: Op = {
    let s = LinearI16 { rows: 1, k: 64, n: 10 };
    Op::Logits(s, Seeds { x: 50, w: 51, bias: 52, factor: 53, exponent: -1 })
};

const NORM: Op = Op::LayerNorm(LayerNormI8 { rows: 196, c: 64, eps: 256, shift: 12, zero: 0, lo: -128, hi: 127 });

/// A sum that uses most of int16: 0.6 and 61 are the factors.
const ADD: Op = Op::Add(AddI16I8 { len: 196 * 64, ma: 20_000, mb: 2_000_000, shift: 15 });

/// The factor is `2^-8.5`: most of int16 becomes most of int8.
const RESCALE: Op = {
    let (multiplier, shift) = (1_518_500_250, 39);
    Op::Rescale(RescaleI16I8 { len: 196 * 64, multiplier, shift, zero: ZERO_OUT, lo: -128, hi: 127 })
};

/// Width of the heads.
const D: usize = 32;

/// The scores of the CMSIS-NN workload: `q . k` in steps of `2^-13`. The output has the scale of `v`.
const fn softmax(n: usize) -> Op {
    let (multiplier, shift) = (LOG2_E_Q30, 27);
    let (out_multiplier, out_shift, zero, lo, hi) = (1 << 30, 53, 0, -128, 127);
    Op::Softmax(SoftmaxAttentionI8 { n, heads: 1, d: D, multiplier, shift, out_multiplier, out_shift, zero, lo, hi })
}

const fn soft(side: usize, grid: usize, y_exponent: i32) -> Op {
    Op::Soft(Soft { side, grid, d: D, y_exponent })
}

/// Bytes of memory for any one of them.
pub const MEMORY: usize = {
    let (mut most, mut i) = (0, 0);
    while i < WORKLOADS.len() {
        let memory = WORKLOADS[i].op.memory();
        most = if memory > most { memory } else { most };
        i += 1;
    }
    most
};
