//! The list of what is measured.

use crate::data::{Seeds, ZERO_IN, ZERO_OUT};
use crate::soft::LOG2_E_Q30;
use crate::{Op, Soft};
use softedge::ops::add::AddI16I8;
use softedge::ops::conv::{ConvI8, ConvI8W4, ConvI8W16};
use softedge::ops::depthwise::DepthwiseI8;
use softedge::ops::layer_norm::LayerNormI8;
use softedge::ops::linear::{LinearI8, LinearI8W4, LinearI8W16, LinearI16, LinearI16W4, LinearI16W16};
use softedge::ops::rescale::RescaleI16I8;
use softedge::ops::softmax_attention::SoftmaxAttentionI8;
use softedge::ops::table::TableI8;

/// One op to measure.
pub struct Workload {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is, for a table.
    pub title: &'static str,
    /// Whether it is here for its odd shape: its output is checked, and no table shows it.
    pub odd: bool,
    /// The op itself.
    pub op: Op,
}

/// Everything that is measured. A, B, D and E are those that CMSIS-NN was measured with, and attention has
/// its `Q`, `K` and `V`.
pub const WORKLOADS: &[Workload] = &[
    workload("A", "linear [196x64] . [64x64]", linear(64, 2)),
    workload("A-int4", "as A, weights of int4", linear_w4(196, 64, 64)),
    workload("A-int16", "as A, weights of int16", linear_w16(196, 64, 64)),
    workload("B", "linear [196x64] . [64x256]", linear(256, 3)),
    workload("B-int4", "as B, weights of int4", linear_w4(196, 64, 256)),
    workload("B-int16", "as B, weights of int16", linear_w16(196, 64, 256)),
    workload("D", "convolution 3x3, 32x32x16 -> 32", CONV),
    workload("E", "depthwise convolution 3x3, 14x14x64", DEPTHWISE),
    workload("patch", "convolution 3x3 stride 2, 28x28x1 -> 24", PATCH),
    workload("logits", "linear [64] . [64x10] to int16", LOGITS),
    workload("norm", "LayerNorm 196x64, int16 to int8", norm(196, 64)),
    workload("gelu", "table of 256, 196x256", Op::Table(TableI8 { len: 196 * 256 })),
    workload("add", "residual sum 196x64, int16 + int8", Op::Add(ADD_SHAPE)),
    workload("rescale", "rescale 196x64, int16 to int8", Op::Rescale(RESCALE_SHAPE)),
    workload("softmax-196", "softmax attention, 196 tokens", softmax(196)),
    workload("soft-196-49", "SOFT, 196 tokens, 49 landmarks", soft(14, 7, 1)),
    workload("soft-196-16", "SOFT, 196 tokens, 16 landmarks", soft(14, 4, 1)),
    workload("softmax-784", "softmax attention, 784 tokens", softmax(784)),
    workload("soft-784-49", "SOFT, 784 tokens, 49 landmarks", soft(28, 7, 2)),
    workload("soft-784-16", "SOFT, 784 tokens, 16 landmarks", soft(28, 4, 2)),
    workload("soft-3136-49", "SOFT, 3136 tokens, 49 landmarks", soft(56, 7, 3)),
    workload("soft-3136-16", "SOFT, 3136 tokens, 16 landmarks", soft(56, 4, 3)),
    // No size a multiple of what a kernel takes at a time, and the least there is.
    odd("linear-1x1x1", linear_of(1, 1, 1, 2)),
    odd("linear-7x37x5", linear_of(7, 37, 5, 2)),
    odd("linear-5x3x33", linear_of(5, 3, 33, 2)),
    odd("linear-3x66x7", linear_of(3, 66, 7, 2)),
    odd("linear-2x129x3", linear_of(2, 129, 3, 2)),
    odd("logits-1x37x3", Op::Logits(LinearI16 { rows: 1, k: 37, n: 3 }, LOGITS_SEEDS)),
    odd("linear-int4-1x1x1", linear_w4(1, 1, 1)),
    odd("linear-int4-7x37x5", linear_w4(7, 37, 5)),
    odd("linear-int4-5x3x33", linear_w4(5, 3, 33)),
    odd("linear-int4-2x133x3", linear_w4(2, 133, 3)),
    odd(
        "logits-int4-1x37x3",
        Op::LogitsW4(LinearI16W4 { rows: 1, k: 37, n: 3 }, Seeds { exponent: 3, ..LOGITS_SEEDS }),
    ),
    odd("linear-int16-1x1x1", linear_w16(1, 1, 1)),
    odd("linear-int16-7x37x5", linear_w16(7, 37, 5)),
    odd("linear-int16-5x3x33", linear_w16(5, 3, 33)),
    odd("linear-int16-2x134x3", linear_w16(2, 134, 3)),
    odd(
        "logits-int16-1x37x3",
        Op::LogitsW16(LinearI16W16 { rows: 1, k: 37, n: 3 }, Seeds { exponent: -9, ..LOGITS_SEEDS }),
    ),
    // Outputs that a ReLU cuts, and scales whose shifts only in part are those that kernels are made for.
    odd("linear-6x37x9-relu", linear_from(6, 37, 9, ZERO_OUT)),
    odd("linear-int16-5x261x7-scales", linear_w16_by(5, 261, 7, -24)),
    odd("logits-5x9x7-scales", Op::Logits(LinearI16 { rows: 5, k: 9, n: 7 }, Seeds { exponent: -1, ..LOGITS_SEEDS })),
    odd("conv-int4-5x7x3", conv_w4([5, 7], [3, 5], [3, 3], [2, 1], [1, 1])),
    odd("conv-int16-9x6x5", conv_w16([9, 6], [5, 3], [2, 3], [1, 2], [0, 2])),
    odd("conv-5x7x3", conv([5, 7], [3, 5], [3, 3], [2, 1], [1, 1])),
    odd("conv-9x6x5", conv([9, 6], [5, 3], [2, 3], [1, 2], [0, 2])),
    odd("conv-4x11x1", conv([4, 11], [1, 7], [5, 5], [3, 2], [2, 2])),
    odd("depthwise-5x7x3", depthwise([5, 7], 3, [3, 3], [1, 1], [1, 1])),
    odd("depthwise-6x9x33", depthwise([6, 9], 33, [5, 3], [2, 1], [2, 0])),
    odd("depthwise-1x1x1", depthwise([1, 1], 1, [3, 3], [1, 1], [1, 1])),
    odd("norm-3x1", norm(3, 1)),
    odd("norm-3x37", norm(3, 37)),
    odd("norm-5x66", norm(5, 66)),
    odd("gelu-37", Op::Table(TableI8 { len: 37 })),
    odd("add-37", Op::Add(AddI16I8 { len: 37, ..ADD_SHAPE })),
    odd("rescale-37", Op::Rescale(RescaleI16I8 { len: 37, ..RESCALE_SHAPE })),
    odd("softmax-1x1", softmax_of(1, 1)),
    odd("softmax-7x5", softmax_of(7, 5)),
    odd("softmax-50x31", softmax_of(50, 31)),
    odd("softmax-131x6", softmax_of(131, 6)),
    odd("soft-1-1x1", soft_of(1, 1, 1, 0)),
    odd("soft-25-9x5", soft_of(5, 3, 5, 0)),
    odd("soft-49-1x31", soft_of(7, 1, 31, 0)),
    odd("soft-49-4x40", soft_of(7, 2, 40, 0)),
    odd("soft-81-25x6", soft_of(9, 5, 6, 0)),
    odd("soft-529-9x33", soft_of(23, 3, 33, 1)),
];

const fn workload(name: &'static str, title: &'static str, op: Op) -> Workload {
    Workload { name, title, op, odd: false }
}

const fn odd(name: &'static str, op: Op) -> Workload {
    Workload { name, title: name, op, odd: true }
}

const fn linear(n: usize, w: u32) -> Op {
    linear_of(196, 64, n, w)
}

const fn linear_of(rows: usize, k: usize, n: usize, w: u32) -> Op {
    let s = LinearI8 { rows, k, n, zero: ZERO_OUT, lo: -128, hi: 127 };
    Op::Linear(s, Seeds { w, ..LINEAR_SEEDS })
}

/// With `lo` as the smallest output.
const fn linear_from(rows: usize, k: usize, n: usize, lo: i32) -> Op {
    Op::Linear(LinearI8 { rows, k, n, zero: ZERO_OUT, lo, hi: 127 }, LINEAR_SEEDS)
}

/// Int4 is a sixteenth of int8, int16 256 times as large.
const fn linear_w4(rows: usize, k: usize, n: usize) -> Op {
    let s = LinearI8W4 { rows, k, n, zero: ZERO_OUT, lo: -128, hi: 127 };
    Op::LinearW4(s, Seeds { exponent: -5, ..LINEAR_SEEDS })
}

const fn linear_w16(rows: usize, k: usize, n: usize) -> Op {
    linear_w16_by(rows, k, n, -17)
}

/// With scales from `2^(exponent - 2)` to `2^exponent`.
const fn linear_w16_by(rows: usize, k: usize, n: usize, exponent: i32) -> Op {
    let s = LinearI8W16 { rows, k, n, zero: ZERO_OUT, lo: -128, hi: 127 };
    Op::LinearW16(s, Seeds { exponent, ..LINEAR_SEEDS })
}

/// Sizes are height and width; channels those of the input and of the output.
const fn conv_of(
    [h, w]: [usize; 2],
    [c_in, c_out]: [usize; 2],
    [kh, kw]: [usize; 2],
    [stride_h, stride_w]: [usize; 2],
    [pad_h, pad_w]: [usize; 2],
) -> ConvI8 {
    let (zero_in, zero, lo, hi) = (ZERO_IN, ZERO_OUT, -128, 127);
    ConvI8 { batch: 1, h, w, c_in, c_out, kh, kw, stride_h, stride_w, pad_h, pad_w, heads: 1, zero_in, zero, lo, hi }
}

const fn conv(size: [usize; 2], channels: [usize; 2], kernel: [usize; 2], stride: [usize; 2], pad: [usize; 2]) -> Op {
    Op::Conv(conv_of(size, channels, kernel, stride, pad), CONV_SEEDS)
}

const fn conv_w4(
    size: [usize; 2],
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
) -> Op {
    let s = ConvI8W4::from_words(&conv_of(size, channels, kernel, stride, pad).to_words());
    Op::ConvW4(s, Seeds { exponent: -6, ..CONV_SEEDS })
}

const fn conv_w16(
    size: [usize; 2],
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
) -> Op {
    let s = ConvI8W16::from_words(&conv_of(size, channels, kernel, stride, pad).to_words());
    Op::ConvW16(s, Seeds { exponent: -18, ..CONV_SEEDS })
}

const fn depthwise_of(
    [h, w]: [usize; 2],
    c: usize,
    [kh, kw]: [usize; 2],
    [stride_h, stride_w]: [usize; 2],
    [pad_h, pad_w]: [usize; 2],
) -> DepthwiseI8 {
    let (zero_in, zero, lo, hi) = (ZERO_IN, ZERO_OUT, -128, 127);
    DepthwiseI8 { batch: 1, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share: 1, zero_in, zero, lo, hi }
}

const fn depthwise(size: [usize; 2], c: usize, kernel: [usize; 2], stride: [usize; 2], pad: [usize; 2]) -> Op {
    Op::Depthwise(depthwise_of(size, c, kernel, stride, pad), DEPTHWISE_SEEDS)
}

const fn norm(rows: usize, c: usize) -> Op {
    Op::LayerNorm(LayerNormI8 { rows, c, eps: 256, shift: 12, zero: 0, lo: -128, hi: 127 })
}

const LINEAR_SEEDS: Seeds = Seeds { x: 1, w: 2, bias: 4, factor: 5, exponent: -9 };

const CONV_SEEDS: Seeds = Seeds { x: 20, w: 21, bias: 22, factor: 23, exponent: -10 };
const CONV: Op = conv([32, 32], [16, 32], [3, 3], [1, 1], [1, 1]);

const DEPTHWISE_SEEDS: Seeds = Seeds { x: 30, w: 31, bias: 32, factor: 33, exponent: -8 };
const DEPTHWISE: Op = depthwise([14, 14], 64, [3, 3], [1, 1], [1, 1]);

const PATCH: Op = {
    let s = conv_of([28, 28], [1, 24], [3, 3], [2, 2], [1, 1]);
    Op::Conv(s, Seeds { x: 40, w: 41, bias: 42, factor: 43, exponent: -8 })
};

const LOGITS_SEEDS: Seeds = Seeds { x: 50, w: 51, bias: 52, factor: 53, exponent: -1 };
const LOGITS: Op = Op::Logits(LinearI16 { rows: 1, k: 64, n: 10 }, LOGITS_SEEDS);

/// A sum that uses most of int16: 0.6 and 61 are the factors.
const ADD_SHAPE: AddI16I8 = AddI16I8 { len: 196 * 64, ma: 20_000, mb: 2_000_000, shift: 15 };

/// The factor is `2^-8.5`: most of int16 becomes most of int8.
const RESCALE_SHAPE: RescaleI16I8 =
    RescaleI16I8 { len: 196 * 64, multiplier: 1_518_500_250, shift: 39, zero: ZERO_OUT, lo: -128, hi: 127 };

/// Width of the heads.
const D: usize = 32;

/// The scores of the CMSIS-NN workload: `q . k` in steps of `2^-13`. The output has the scale of `v`.
const fn softmax(n: usize) -> Op {
    softmax_of(n, D)
}

const fn softmax_of(n: usize, d: usize) -> Op {
    let (multiplier, shift) = (LOG2_E_Q30, 27);
    let (out_multiplier, out_shift, zero, lo, hi) = (1 << 30, 53, 0, -128, 127);
    Op::Softmax(SoftmaxAttentionI8 { n, heads: 1, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi })
}

const fn soft(side: usize, grid: usize, y_exponent: i32) -> Op {
    soft_of(side, grid, D, y_exponent)
}

const fn soft_of(side: usize, grid: usize, d: usize, y_exponent: i32) -> Op {
    Op::Soft(Soft { side, grid, d, y_exponent })
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
