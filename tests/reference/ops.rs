//! Small random programs of the integer ops, with the extreme values that models rarely reach.

use crate::common::Random;
use softedge::ops::DType;
use softedge::ops::add::{AddI8, AddI16, AddI16I8};
use softedge::ops::conv::{ConvI8, ConvI8W4, ConvI8W16, ConvI16, ConvI16W4, ConvI16W16};
use softedge::ops::depthwise::{DepthwiseI8, DepthwiseI16};
use softedge::ops::gram::{GramI8, GramTriangleI8};
use softedge::ops::input::{InputI16, InputU8};
use softedge::ops::inverse::InverseNewtonQ22;
use softedge::ops::kernel::{AccumulateI8, ApplyI8};
use softedge::ops::layer_norm::{LayerNormI8, LayerNormI16};
use softedge::ops::linear::{LinearI8, LinearI8W4, LinearI8W16, LinearI16, LinearI16W4, LinearI16W16};
use softedge::ops::pool::{AvgPoolI8, AvgPoolI16, MaxPoolI8};
use softedge::ops::product::ProductQ22;
use softedge::ops::rescale::{RescaleI8, RescaleI8I16, RescaleI16I8};
use softedge::ops::softmax_attention::SoftmaxAttentionI8;
use softedge::ops::solve::{FactorQ26, NarrowI16, SolveQ26};
use softedge::ops::sym_norm::{SymNormQ22, SymScaleQ30};
use softedge::ops::table::TableI8;
use softedge::ops::tokens::{PrependI16, TakeI8, TakeI16};
use softedge::program::{Op, Program, Role, TensorId};

/// Values of an element type; once in a while the extremes only.
fn values(random: &mut Random, dtype: DType, len: u64) -> Vec<u8> {
    let extremes = random.once_in(4);
    let mut bytes = vec![];
    for _ in 0..len {
        let bits =
            if extremes { random.one_of(&[i64::from(i32::MIN), i64::from(i32::MAX)]) } else { random.bits() as i64 };
        let any = match dtype {
            DType::I32 => bits as i32,
            // Top bits, sign included.
            dtype => (bits as i32) >> (32 - 8 * dtype.size()),
        };
        bytes.extend(&any.to_le_bytes()[..dtype.size()]);
    }
    bytes
}

fn le_bytes(values: impl Iterator<Item = i64>, dtype: DType) -> Vec<u8> {
    values.flat_map(|v| v.to_le_bytes().into_iter().take(dtype.size())).collect()
}

/// Per channel: bias (or offset), multiplier, shift.
fn requantisation(random: &mut Random, op: &Op, input: usize, len: u64) -> Option<Vec<u8>> {
    let is_input = matches!(op, Op::InputU8(_) | Op::InputI16(_));
    let bias = if is_input { i64::from(i32::MAX) } else { 1 << 28 };
    let channels = 0..len;
    let bytes = match (is_input, input) {
        (true, 2) | (false, 2) => le_bytes(channels.map(|_| random.within(-bias, bias)), DType::I32),
        (true, 1) | (false, 3) => le_bytes(channels.map(|_| i64::from(mantissa(random))), DType::I32),
        (true, 3) => le_bytes(channels.map(|_| random.within(32, 62)), DType::I8),
        (false, 4) => le_bytes(channels.map(|_| random.within(31, 50)), DType::I8),
        _ => return None,
    };
    Some(bytes)
}

/// The mantissa of a factor.
fn mantissa(random: &mut Random) -> i32 {
    if random.once_in(9) { 0 } else { random.within(1 << 30, (1 << 31) - 1) as i32 }
}

/// Columns of `u` as `ProductQ22` and `NarrowI16` leave them: magnitudes of a column sum to 65535 at most.
fn columns(random: &mut Random, m: usize, len: u64) -> Vec<u8> {
    let most = (65535 / m as i64).min(32767);
    le_bytes((0..len).map(|_| random.within(-most, most)), DType::I16)
}

/// Zero point and bounds of an int8 output.
fn bounds(random: &mut Random) -> [i32; 3] {
    let lo = random.within(-128, 127);
    [random.within(-128, 127), lo, random.within(lo, 127)].map(|v| v as i32)
}

/// A Program that is one op on random operands: the first input is the caller's, the others are
/// constants.
pub fn one_op(op: Op, random: &mut Random) -> Program {
    let mut program = Program::new();
    let signature = op.signature();
    assert_eq!(signature.reason(), None, "{op:?}");
    let requantises = op.accumulator().is_some() || matches!(op, Op::InputU8(_) | Op::InputI16(_));
    let ins: Vec<Option<TensorId>> = (0..signature.n_ins())
        .map(|i| {
            let (dtype, len) = (signature.input(i).dtype, signature.input(i).len);
            let shape = [len as usize];
            if i == 0 {
                let id = program.add("x", dtype, &shape, Role::Activation);
                program.inputs.push(id);
                return Some(id);
            }
            let special = match (op, i) {
                (Op::ApplyI8(s), 2) => Some(columns(random, s.m, len)),
                (Op::ApplyI8(_), 3) => Some(le_bytes((0..len).map(|_| random.within(0, 62)), DType::I32)),
                _ if requantises => requantisation(random, &op, i, len),
                _ => None,
            };
            let data = special.unwrap_or_else(|| values(random, dtype, len));
            Some(program.constant(format!("constant {i}"), dtype, &shape, data))
        })
        .collect();
    let y = program.apply("y", op, &ins, &[signature.output(0).len as usize]);
    program.outputs.push(y);
    program
}

/// Random bytes for the inputs of a Program.
pub fn raw(program: &Program, random: &mut Random) -> Vec<Vec<u8>> {
    program.inputs.iter().map(|id| program.tensor(*id)).map(|x| values(random, x.dtype, x.len() as u64)).collect()
}

/// SOFT attention on random tokens, landmarks and values, with kernels from nearly 0 to nearly 1: the
/// Gram matrices go from the identity to all but singular.
pub fn attention(random: &mut Random) -> Program {
    let heads = random.size(3);
    // Now and then large enough for the larger groups of tokens.
    let (m, d) = if random.once_in(16) { (17, 32) } else { (random.size(12), random.size(9)) };
    let n = if random.once_in(8) { random.within(510, 1100) as usize } else { random.size(40) };
    let (multiplier, shift) = exponent(random);
    let mut program = Program::new();
    let [q, l, v] = [("q", n), ("l", m), ("v", n)].map(|(name, tokens)| {
        let id = program.add(name, DType::I8, &[tokens, heads * d], Role::Activation);
        program.inputs.push(id);
        Some(id)
    });
    let op = AccumulateI8 { n, m, heads, d, multiplier, shift, w_shift: AccumulateI8::w_shift(n) };
    let w = program.apply("w", op, &[q, l, v], &[heads, m, d]);
    let ridge = random.one_of(&[1 << 14, 41943, 1 << 22]);
    let (u, exponents) = if random.once_in(2) {
        let triangle = [heads, m * (m + 1) / 2];
        let a = program.apply("a", GramTriangleI8 { m, heads, d, multiplier, shift }, &[l], &triangle);
        let scale = SymScaleQ30 { heads, m };
        let scale = random.once_in(2).then(|| program.apply("scale", scale, &[Some(a)], &[heads, m]));
        let factor = program.apply("factor", FactorQ26 { heads, m, ridge }, &[Some(a)], &triangle);
        let x = program.apply("x", SolveQ26 { heads, m, d }, &[Some(w), Some(factor), scale], &[heads, m, d]);
        let shifts = program.nodes.last().expect("the solution").outs[1];
        let e = program.apply("exponents", NarrowI16 { heads, m, d }, &[shifts, Some(x)], &[heads, d]);
        (program.nodes.last().expect("the narrow solution").outs[1], Some(e))
    } else {
        let a = program.apply("a", GramI8 { m, heads, d, multiplier, shift }, &[l], &[heads, m, m]);
        let iterations = random.size(24);
        let inverse = InverseNewtonQ22 { heads, m, iterations, ridge: random.one_of(&[0, ridge]) };
        let mut inverse = program.apply("inverse", inverse, &[Some(a)], &[heads, m, m]);
        if random.once_in(2) {
            inverse = program.apply("normalised", SymNormQ22 { heads, m }, &[Some(inverse), Some(a)], &[heads, m, m]);
        }
        let u = program.apply("u", ProductQ22 { heads, m, d }, &[Some(inverse), Some(w)], &[heads, m, d]);
        (Some(u), program.nodes.last().expect("the product").outs[1])
    };
    let [zero, lo, hi] = bounds(random);
    let (out_multiplier, out_shift) = (mantissa(random), random.within(16, 40) as i32);
    let op = ApplyI8 { n, m, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi };
    let y = program.apply("y", op, &[q, l, u, exponents], &[n, heads * d]);
    program.outputs.push(y);
    program
}

/// A kind of op on a random shape.
pub type Shape = fn(&mut Random) -> Op;

/// Every integer op that takes any operands, as a random shape of it.
pub const SHAPES: &[Shape] = &[
    |r| InputU8 { rows: r.size(9), c: r.size(5), zero: int8(r) }.into(),
    |r| InputI16 { rows: r.size(9), c: r.size(5), zero: int8(r) }.into(),
    |r| linear_to_i8(r).into(),
    |r| LinearI8W4::from_words(&linear_to_i8(r).to_words()).into(),
    |r| LinearI8W16::from_words(&linear_to_i8(r).to_words()).into(),
    |r| linear_to_i16(r).into(),
    |r| LinearI16W4::from_words(&linear_to_i16(r).to_words()).into(),
    |r| LinearI16W16::from_words(&linear_to_i16(r).to_words()).into(),
    |r| conv_to_i8(r).into(),
    |r| ConvI8W4::from_words(&conv_to_i8(r).to_words()).into(),
    |r| ConvI8W16::from_words(&conv_to_i8(r).to_words()).into(),
    |r| conv_to_i16(r).into(),
    |r| ConvI16W4::from_words(&conv_to_i16(r).to_words()).into(),
    |r| ConvI16W16::from_words(&conv_to_i16(r).to_words()).into(),
    |r| {
        let (Window { batch, h, w, kh, kw, stride_h, stride_w, pad_h, pad_w }, [zero, lo, hi]) =
            (Window::new(r), bounds(r));
        let (share, zero_in) = (r.size(6), int8(r));
        let c = share * r.size(20);
        DepthwiseI8 { batch, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share, zero_in, zero, lo, hi }.into()
    },
    |r| {
        let Window { batch, h, w, kh, kw, stride_h, stride_w, pad_h, pad_w } = Window::new(r);
        let (share, zero_in) = (r.size(6), int8(r));
        let c = share * r.size(20);
        DepthwiseI16 { batch, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share, zero_in }.into()
    },
    |r| {
        let [zero, lo, hi] = bounds(r);
        LayerNormI8 { rows: r.size(9), c: r.size(70), eps: eps(r), shift: r.size(30) as i32, zero, lo, hi }.into()
    },
    |r| LayerNormI16 { rows: r.size(9), c: r.size(70), eps: eps(r), shift: r.size(30) as i32 }.into(),
    |r| TableI8 { len: r.size(300) }.into(),
    |r| AvgPoolI8 { h: r.size(9), w: r.size(9), c: r.size(40), oh: r.size(9), ow: r.size(9) }.into(),
    |r| AvgPoolI16 { h: r.size(9), w: r.size(9), c: r.size(40), oh: r.size(9), ow: r.size(9) }.into(),
    |r| {
        let Window { batch, h, w, kh, kw, stride_h, stride_w, .. } = Window::new(r);
        MaxPoolI8 { batch, h: h + kh, w: w + kw, c: r.size(20), kh, kw, stride_h, stride_w }.into()
    },
    |r| {
        let (shift, m) = factors(r, 32768);
        AddI16 { len: r.size(100), ma: m(r), mb: m(r), shift }.into()
    },
    |r| {
        let (shift, m) = factors(r, 32768);
        AddI16I8 { len: r.size(100), ma: m(r), mb: m(r), shift }.into()
    },
    |r| {
        let ((shift, m), [_, lo, hi]) = (factors(r, 128), bounds(r));
        let (ma, mb, offset) = (m(r), m(r), r.within(-(1 << 28), 1 << 28) as i32);
        AddI8 { len: r.size(100), ma, mb, offset, shift, lo, hi }.into()
    },
    |r| {
        let (multiplier, shift, [zero, lo, hi]) = (mantissa(r), r.within(16, 62) as i32, bounds(r));
        RescaleI16I8 { len: r.size(100), multiplier, shift, zero, lo, hi }.into()
    },
    |r| {
        let (multiplier, shift) = (mantissa(r), r.within(16, 62) as i32);
        RescaleI8I16 { len: r.size(100), multiplier, shift, zero_in: int8(r) }.into()
    },
    |r| {
        let (multiplier, shift, [zero, lo, hi]) = (mantissa(r), r.within(16, 62) as i32, bounds(r));
        RescaleI8 { len: r.size(100), multiplier, shift, zero_in: int8(r), zero, lo, hi }.into()
    },
    |r| PrependI16 { n: r.size(9), c: r.size(9) }.into(),
    |r| TakeI16 { n: 9, c: r.size(9), index: r.size(9) - 1 }.into(),
    |r| TakeI8 { n: 9, c: r.size(9), index: r.size(9) - 1 }.into(),
    |r| {
        let (multiplier, shift) = exponent(r);
        let (out_multiplier, out_shift, [zero, lo, hi]) = (mantissa(r), r.within(38, 62) as i32, bounds(r));
        let (n, heads, d) = (r.size(70), r.size(3), r.size(9));
        SoftmaxAttentionI8 { n, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi }.into()
    },
    |r| ProductQ22 { heads: r.size(3), m: r.size(20), d: r.size(9) }.into(),
    |r| NarrowI16 { heads: r.size(3), m: r.size(20), d: r.size(9) }.into(),
    |r| SymScaleQ30 { heads: r.size(3), m: r.size(20) }.into(),
    |r| SymNormQ22 { heads: r.size(3), m: r.size(20) }.into(),
    |r| {
        let (multiplier, shift) = exponent(r);
        let (out_multiplier, out_shift, [zero, lo, hi]) = (mantissa(r), r.within(16, 62) as i32, bounds(r));
        let (n, m, heads, d) = (r.size(9), r.size(9), r.size(3), r.size(9));
        ApplyI8 { n, m, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi }.into()
    },
];

fn linear_to_i8(r: &mut Random) -> LinearI8 {
    let [zero, lo, hi] = bounds(r);
    LinearI8 { rows: r.size(9), k: r.size(70), n: r.size(9), zero, lo, hi }
}

fn linear_to_i16(r: &mut Random) -> LinearI16 {
    LinearI16 { rows: r.size(9), k: r.size(70), n: r.size(9) }
}

fn conv_to_i8(r: &mut Random) -> ConvI8 {
    let (Window { batch, h, w, kh, kw, stride_h, stride_w, pad_h, pad_w }, [zero, lo, hi]) =
        (Window::new(r), bounds(r));
    let (c_in, c_out, heads, zero_in) = (r.size(20), r.size(9), r.size(3), int8(r));
    ConvI8 { batch, h, w, c_in, c_out, kh, kw, stride_h, stride_w, pad_h, pad_w, heads, zero_in, zero, lo, hi }
}

fn conv_to_i16(r: &mut Random) -> ConvI16 {
    let Window { batch, h, w, kh, kw, stride_h, stride_w, pad_h, pad_w } = Window::new(r);
    let (c_in, c_out, heads, zero_in) = (r.size(20), r.size(9), r.size(3), int8(r));
    ConvI16 { batch, h, w, c_in, c_out, kh, kw, stride_h, stride_w, pad_h, pad_w, heads, zero_in }
}

fn int8(random: &mut Random) -> i32 {
    random.within(-128, 127) as i32
}

fn eps(random: &mut Random) -> i32 {
    random.one_of(&[0, 1, 1000, i32::MAX])
}

/// The factor of an exponent: from where the distances of a few channels give kernels of 0 to where
/// they give 1.
fn exponent(random: &mut Random) -> (i32, i32) {
    (random.within(1 << 30, (1 << 31) - 1) as i32, random.within(28, 48) as i32)
}

/// A shift, and factors of it that cannot overflow a sum of two values up to `largest`.
fn factors(random: &mut Random, largest: i64) -> (i32, impl Fn(&mut Random) -> i32 + use<>) {
    let shift = random.within(0, 29) as i32;
    let most = ((1 << 31) - (1 << 29)) / largest / 2 - 1;
    (shift, move |random| random.within(-most, most) as i32)
}

/// The geometry of a sliding window.
struct Window {
    batch: usize,
    h: usize,
    w: usize,
    kh: usize,
    kw: usize,
    stride_h: usize,
    stride_w: usize,
    pad_h: usize,
    pad_w: usize,
}

impl Window {
    fn new(random: &mut Random) -> Self {
        let (kh, kw) = (random.size(4), random.size(4));
        let (pad_h, pad_w) = (random.size(kh) - 1, random.size(kw) - 1);
        // At least one window fits.
        let (h, w) = (random.size(7) + kh - 1 - pad_h, random.size(7) + kw - 1 - pad_w);
        let (stride_h, stride_w) = (random.size(3), random.size(3));
        Self { batch: random.size(2), h, w, kh, kw, stride_h, stride_w, pad_h, pad_w }
    }
}
