//! A run in steps, of any size, computes what a run in one piece does, and no step does more than its rows.

mod common;

use common::{quantised_to, raw_type, small_presets, spread};
use softedge::engine::{Buffer, Element, Integers, Loaded};
use softedge::format::{View, write};
use softedge::model::{Config, preset};
use softedge::ops::add::AddI16;
use softedge::ops::conv::ConvI8;
use softedge::ops::depthwise::DepthwiseI16;
use softedge::ops::pool::{AvgPoolI16, MaxPoolI8};
use softedge::ops::rescale::{RescaleI8, RescaleI16I8};
use softedge::ops::tokens::TakeI16;
use softedge::ops::{DType, Width, size};
use softedge::program::{Kind, Op, OpSet, Plan, Program, Role, Space, in_strips};
use std::collections::BTreeSet;
use std::fs;

const GESTURE: &str = "firmware-examples/minimal/src/gesture.soft";
const FASHION: &str = "firmware-examples/two-models/src/fashion.soft";

/// The dearest row of any preset for microcontrollers: multiply-accumulates, or elements where it has none.
const MOST_OF_A_ROW: u64 = 55_296;

/// The rows of an op, and the multiply-accumulates, or the elements where it has none, of its dearest row: the table at
/// `Steps`, from the shapes alone.
fn rows(op: &Op) -> (usize, u64) {
    let windows = |size: usize, pad: usize, kernel: usize, stride: usize| (size + 2 * pad - kernel) / stride + 1;
    macro_rules! conv {
        ($s:ident) => {{
            let pixels = windows($s.h, $s.pad_h, $s.kh, $s.stride_h) * windows($s.w, $s.pad_w, $s.kw, $s.stride_w);
            ($s.batch * pixels * $s.heads, size(&[$s.kh, $s.kw, $s.c_in, $s.c_out]))
        }};
    }
    macro_rules! depthwise {
        ($s:ident, $pad_h:expr, $pad_w:expr) => {{
            let row = windows($s.w, $pad_w, $s.kw, $s.stride_w);
            ($s.batch * windows($s.h, $pad_h, $s.kh, $s.stride_h), size(&[row, $s.c, $s.kh, $s.kw]))
        }};
    }
    macro_rules! average {
        ($s:ident) => {{
            // Windows reach over the border between inputs where the sizes do not divide.
            let widest = |size: usize, n: usize| (0..n).map(|i| ((i + 1) * size).div_ceil(n) - i * size / n).max();
            let window = widest($s.h, $s.oh).unwrap() * widest($s.w, $s.ow).unwrap();
            ($s.oh * $s.ow * $s.c.div_ceil(16), size(&[window, $s.c.min(16)]))
        }};
    }
    let elements = |len: usize| (len.div_ceil(64), len.min(64) as u64);
    match *op {
        Op::InputU8(s) => (s.rows.div_ceil(32), size(&[s.rows.min(32), s.c])),
        Op::InputI16(s) => (s.rows.div_ceil(32), size(&[s.rows.min(32), s.c])),
        Op::LinearI8(s) => (s.rows, size(&[s.k, s.n])),
        Op::LinearI16(s) => (s.rows, size(&[s.k, s.n])),
        Op::LinearI8W4(s) => (s.rows, size(&[s.k, s.n])),
        Op::LinearI16W4(s) => (s.rows, size(&[s.k, s.n])),
        Op::LinearI8W16(s) => (s.rows, size(&[s.k, s.n])),
        Op::LinearI16W16(s) => (s.rows, size(&[s.k, s.n])),
        Op::ConvI8(s) => conv!(s),
        Op::ConvI16(s) => conv!(s),
        Op::ConvI8W4(s) => conv!(s),
        Op::ConvI16W4(s) => conv!(s),
        Op::ConvI8W16(s) => conv!(s),
        Op::ConvI16W16(s) => conv!(s),
        Op::DepthwiseI8(s) => depthwise!(s, s.pad_h, s.pad_w),
        Op::DepthwiseI16(s) => depthwise!(s, s.pad_h, s.pad_w),
        Op::MaxPoolI8(s) => depthwise!(s, 0, 0),
        Op::AvgPoolI8(s) => average!(s),
        Op::AvgPoolI16(s) => average!(s),
        Op::LayerNormI8(s) => (s.rows, s.c as u64),
        Op::LayerNormI16(s) => (s.rows, s.c as u64),
        Op::TableI8(s) => elements(s.len),
        Op::AddI16(s) => elements(s.len),
        Op::AddI16I8(s) => elements(s.len),
        Op::AddI8(s) => elements(s.len),
        Op::RescaleI16I8(s) => elements(s.len),
        Op::RescaleI8I16(s) => elements(s.len),
        Op::RescaleI8(s) => elements(s.len),
        Op::PrependI16(s) => (s.n + 1, s.c as u64),
        Op::TakeI16(s) => (1, s.c as u64),
        Op::TakeI8(s) => (1, s.c as u64),
        Op::SoftmaxAttentionI8(s) => (s.heads * s.n, size(&[2, s.n, s.d])),
        Op::AccumulateI8(s) => {
            let group = if s.m > 16 && s.d >= 32 { 32 } else { 16 };
            let tokens = if s.n > 512 { group } else { 1 };
            (s.heads * s.n.div_ceil(tokens), size(&[2, tokens, s.m, s.d]))
        }
        Op::ApplyI8(s) => (s.heads * s.n, size(&[2, s.m, s.d])),
        Op::GramI8(s) => (s.heads * s.m, size(&[s.m, s.d])),
        Op::InverseNewtonQ22(s) => (s.heads * (1 + s.iterations * s.m), size(&[5, s.m, s.m])),
        Op::GramTriangleI8(s) => (s.heads * s.m, size(&[s.m, s.d])),
        Op::FactorQ26(s) => (s.heads * s.m, size(&[s.m, s.m]).div_ceil(2)),
        Op::SolveQ26(s) => (s.heads * s.d.div_ceil(4), size(&[4, s.m, s.m])),
        Op::NarrowI16(s) => (s.heads * s.d, size(&[2, s.m])),
        Op::SymScaleQ30(s) => (s.heads, size(&[s.m, s.m]).div_ceil(2)),
        Op::SymNormQ22(s) => (s.heads * s.m, size(&[2, s.m])),
        Op::ProductQ22(s) => (s.heads * s.d, size(&[s.m, s.m])),
        _ => panic!("{op:?} is no integer op"),
    }
}

/// Holds runs in steps of so many rows against a whole run, and the steps of each op against the rows that it has.
fn check<I: Element + Default>(name: &str, file: &[u8], value: impl Fn(usize) -> I) -> Vec<Op> {
    let file = Buffer::copy_of(file);
    let view = View::new_checked(file.bytes()).unwrap();
    let mut arena = Buffer::zeroed(view.size(Space::Arena));
    let mut model = Loaded::<Integers>::new(file.bytes(), arena.bytes_mut()).unwrap();
    let fill = |model: &mut Loaded<'_, Integers>| {
        model.input().unwrap().iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
    };
    fill(&mut model);
    let want = model.run::<i16>().unwrap().values().to_vec();
    assert!(want.iter().any(|&score| score != want[0]), "{name}");
    let ops: Vec<Op> = view.ops().map(|op| op.decode()).collect();
    for most in [1, 2, 3, 7, 100, usize::MAX] {
        // One that is given up half-way leaves nothing behind.
        fill(&mut model);
        let mut steps = model.start::<i16>().unwrap();
        while steps.ops_left() > ops.len() / 2 {
            assert!(steps.step(most));
        }
        steps.step(most);
        fill(&mut model);
        let mut steps = model.start::<i16>().unwrap();
        for (i, op) in ops.iter().enumerate() {
            for _ in 0..rows(op).0.div_ceil(most) {
                assert_eq!(steps.ops_left(), ops.len() - i, "{name}: {op:?} by {most}");
                assert_eq!(steps.step(most), steps.ops_left() > 0);
            }
        }
        assert_eq!(steps.ops_left(), 0, "{name} by {most}");
        assert!(!steps.step(most), "nothing is left");
        assert_eq!(steps.finish().values(), want, "{name} by {most}");
    }
    // Steps of changing size, and an early end.
    fill(&mut model);
    let mut steps = model.start::<i16>().unwrap();
    (0..50).for_each(|i| assert!(steps.step(i % 5)));
    assert_eq!(steps.finish().values(), want, "{name} finished early");
    assert!(model.start::<i8>().is_err(), "scores of another type");
    ops
}

/// An untrained model of `config`, as it would be exported, through [`check`].
fn check_config(config: &Config, weights: Width) -> Vec<Op> {
    let model = quantised_to(config, weights);
    let integer = in_strips(&model.integer);
    let file = write(&integer, &Plan::new(&integer)).unwrap();
    let raw = model.data.raw_bytes(spread(model.data, 3));
    match raw_type(config) {
        DType::I16 => check(&config.name, &file, |i| i16::from_le_bytes([raw[2 * i], raw[2 * i + 1]])),
        _ => check(&config.name, &file, |i| raw[i]),
    }
}

/// An official model, made small: Newton's inverse, with or without the symmetric normalisation, and a class token.
fn official(name: &str, side: usize) -> Config {
    let mut config = preset(name).unwrap();
    (config.input.height, config.input.width) = (side, side);
    for (stage, heads) in config.stages.iter_mut().zip([1, 1, 2, 2]) {
        stage.embed.last_mut().unwrap().channels = 8 * heads;
        (stage.heads, stage.depth) = (heads, 1);
    }
    config
}

/// Two images through the ops that no preset has, and a convolution of both.
fn others() -> Program {
    let mut p = Program::new();
    let (h, w, c) = (9, 6, 20);
    let x = p.add("x", DType::I16, &[2 * h, w + 1, c], Role::Activation);
    p.inputs.push(x);
    let pool = AvgPoolI16 { h: 2 * h, w: w + 1, c, oh: 2 * h, ow: w };
    let [a, b] = ["a", "b"].map(|name| p.apply(name, pool, &[Some(x)], &[2, h, w, c]));
    let len = 2 * h * w * c;
    let sum = AddI16 { len, ma: 9000, mb: 20000, shift: 15 };
    let sum = p.apply("sum", sum, &[Some(a), Some(b)], &[2, h, w, c]);
    let narrow = RescaleI16I8 { len, multiplier: 1 << 30, shift: 36, zero: 3, lo: -128, hi: 127 };
    let narrow = p.apply("narrow", narrow, &[Some(sum)], &[2, h, w, c]);
    let scaled = RescaleI8 { len, multiplier: 1 << 30, shift: 31, zero_in: 3, zero: -5, lo: -100, hi: 127 };
    let scaled = p.apply("scaled", scaled, &[Some(narrow)], &[2, h, w, c]);
    let largest = MaxPoolI8 { batch: 2, h, w, c, kh: 3, kw: 2, stride_h: 2, stride_w: 1 };
    let (h, w) = (4, 5);
    let largest = p.apply("largest", largest, &[Some(scaled)], &[2, h, w, c]);
    let constants = |p: &mut Program, name: &str, taps: usize, n: usize| {
        let name = |what: &str| format!("{name}.{what}");
        let weights = (0..taps).map(|i| (i * 89 % 251) as u8).collect();
        let words = |value: i32| vec![value; n].into_iter().flat_map(i32::to_le_bytes).collect();
        [
            Some(p.constant(name("w"), DType::I8, &[taps], weights)),
            Some(p.constant(name("bias"), DType::I32, &[n], words(500))),
            Some(p.constant(name("multiplier"), DType::I32, &[n], words(1 << 30))),
            Some(p.constant(name("shift"), DType::I8, &[n], vec![38; n])),
        ]
    };
    let (batch, kh, kw, stride_h, stride_w, pad_h, pad_w, zero_in) = (2, 3, 3, 1, 1, 1, 1, -5);
    let (heads, c_in, c_out, zero, lo, hi) = (2, c / 2, c / 2, 0, -128, 127);
    #[rustfmt::skip]
    let conv = ConvI8 {
        batch, h, w, c_in, c_out, kh, kw, stride_h, stride_w, pad_h, pad_w, heads, zero_in, zero, lo, hi,
    };
    let [weights, bias, multiplier, shift] = constants(&mut p, "conv", c_out * kh * kw * c_in, c_out);
    let conv = p.apply("conv", conv, &[Some(largest), weights, bias, multiplier, shift], &[2, h, w, c]);
    let [weights, bias, multiplier, shift] = constants(&mut p, "depthwise", kh * kw * c, c);
    let (share, zero_in) = (1, 0);
    let depthwise = DepthwiseI16 { batch, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share, zero_in };
    let tokens = p.apply("tokens", depthwise, &[Some(conv), weights, bias, multiplier, shift], &[2 * h * w, c]);
    let taken = p.apply("taken", TakeI16 { n: 2 * h * w, c, index: 23 }, &[Some(tokens)], &[c]);
    p.outputs.push(taken);
    p
}

#[test]
fn steps_of_any_size_compute_what_a_whole_run_does() {
    check(GESTURE, &fs::read(GESTURE).unwrap(), |i| (i * 7919 % 4001) as i16 - 2000);
    check(FASHION, &fs::read(FASHION).unwrap(), |i| (i * 31 % 256) as u8);
    let mut kinds = BTreeSet::new();
    let mut dearest = 0;
    for name in small_presets() {
        let ops = check_config(&preset(name).unwrap(), Width::Int8);
        kinds.extend(ops.iter().map(Op::kind));
        let most = ops.iter().max_by_key(|op| rows(op).1).unwrap();
        println!("{name}: {} of {most:?}", rows(most).1);
        dearest = dearest.max(rows(most).1);
    }
    assert_eq!(dearest, MOST_OF_A_ROW);
    // 576 tokens in the first stage: more than are summed before a shift.
    for config in [official("soft_norm_tiny", 96), official("soft_tiny", 64)] {
        for weights in Width::ALL {
            kinds.extend(check_config(&config, weights).iter().map(Op::kind));
        }
    }
    let program = others();
    let file = write(&program, &Plan::new(&program)).unwrap();
    kinds.extend(check("others", &file, |i| (i * 7919 % 8001) as i16 - 4000).iter().map(Op::kind));
    let missing: Vec<Kind> =
        Kind::ALL.iter().copied().filter(|kind| OpSet::INTEGERS.contains(*kind) && !kinds.contains(kind)).collect();
    assert_eq!(missing, []);
}
