//! Every workload computed again, the plain way: from the definition of its op, in exact integers; LayerNorm
//! and attention in f64, from the real numbers that the integers stand for.

use bench::data::{self, Seeds, ZERO_IN, ZERO_OUT, seed};
use bench::{Op, Soft, Workload};
use serde::Serialize;
use softedge::ops::conv::Conv;
use softedge::ops::layer_norm::LayerNormI8;
use softedge::ops::softmax_attention::SoftmaxAttentionI8;
use softedge::ops::{DType, Signature};

/// FNV-1a of what CMSIS-NN computes in workload A, built with its single rounding.
const CMSIS_NN_A: u32 = 0x9a62_3c42;

/// Most steps that an output may be off where it stands for a real number: half of one is its own rounding.
const TOLERANCE: f64 = 0.75;

/// How far an output is from the real numbers that it stands for.
#[derive(Clone, Copy, Serialize)]
pub struct Deviation {
    /// Largest error, in steps of the output.
    pub largest: f64,
    /// Root mean square error, in steps of the output.
    pub rms: f64,
    /// Root mean square of the right output, in its steps.
    pub output_rms: f64,
}

impl Deviation {
    fn new(output: &[f64], truth: &[f64]) -> Self {
        let rms = |x: &mut dyn Iterator<Item = f64>| (x.map(|x| x * x).sum::<f64>() / truth.len() as f64).sqrt();
        let errors = || output.iter().zip(truth).map(|(y, truth)| y - truth);
        let largest = errors().fold(0.0, |largest, error| error.abs().max(largest));
        Self { largest, rms: rms(&mut errors()), output_rms: rms(&mut truth.iter().copied()) }
    }

    /// The root mean square error as a part of the output.
    pub fn relative(&self) -> f64 {
        self.rms / self.output_rms
    }
}

/// Says how `output`, the bytes of the workload's output, is wrong; where it stands for real numbers, how far it is
/// from them.
pub fn check(workload: &Workload, output: &[u8]) -> Result<Option<Deviation>, String> {
    if workload.name == "A" && data::checksum(output) != CMSIS_NN_A {
        return Err("A: the output is not CMSIS-NN's".into());
    }
    let signature = workload.op.signature();
    let (lowest, highest, output): (_, _, Vec<f64>) = match signature.output(0).dtype {
        DType::I8 => (-128.0, 127.0, output.iter().map(|&y| f64::from(y as i8)).collect()),
        _ => (-32768.0, 32767.0, output.as_chunks().0.iter().map(|&y| f64::from(i16::from_le_bytes(y))).collect()),
    };
    let lowest = if let Op::Linear(s, _) = &workload.op { f64::from(s.lo) } else { lowest };
    macro_rules! linear {
        ($s:ident, $seeds:ident, $zero_out:expr) => {
            (weighted(&signature, $s.n, $s.k, $seeds, $zero_out, |i| row(i, $s.k, $s.n)), 0.0)
        };
    }
    let (truth, tolerance) = match &workload.op {
        Op::Linear(s, seeds) => linear!(s, seeds, ZERO_OUT),
        Op::LinearW4(s, seeds) => linear!(s, seeds, ZERO_OUT),
        Op::LinearW16(s, seeds) => linear!(s, seeds, ZERO_OUT),
        Op::Logits(s, seeds) => linear!(s, seeds, 0),
        Op::LogitsW4(s, seeds) => linear!(s, seeds, 0),
        Op::LogitsW16(s, seeds) => linear!(s, seeds, 0),
        Op::Conv(s, seeds) => (conv(&signature, &s.geometry(), seeds), 0.0),
        Op::ConvW4(s, seeds) => (conv(&signature, &s.geometry(), seeds), 0.0),
        Op::ConvW16(s, seeds) => (conv(&signature, &s.geometry(), seeds), 0.0),
        Op::Depthwise(s, seeds) => {
            let pairs = |i: usize| {
                let (pixel, c) = (i / s.c, i % s.c);
                let inside = window(
                    pixel,
                    s.geometry().ow(),
                    [s.h, s.w],
                    [s.kh, s.kw],
                    [s.stride_h, s.stride_w],
                    [s.pad_h, s.pad_w],
                );
                inside.into_iter().map(|(from, tap)| (from * s.c + c, tap * s.c + c)).collect()
            };
            (weighted(&signature, s.c, s.kh * s.kw, seeds, ZERO_OUT, pairs), 0.0)
        }
        Op::LayerNorm(s) => (layer_norm(s), TOLERANCE),
        Op::Table(s) => {
            let table: Vec<i8> = data::i8s(seed::TABLE).take(256).collect();
            let look_up = |x: i8| f64::from(table[(i32::from(x) + 128) as usize]);
            (data::i8s(seed::TABLE_X).take(s.len).map(look_up).collect(), 0.0)
        }
        Op::Add(s) => {
            let sum = |(a, b)| rounded(i64::from(a) * i64::from(s.ma) + i64::from(b) * i64::from(s.mb), s.shift);
            (data::i16s(seed::ADD_A).zip(data::i8s(seed::ADD_B)).take(s.len).map(sum).collect(), 0.0)
        }
        Op::Rescale(s) => {
            let scaled = |x| rounded(i64::from(x) * i64::from(s.multiplier), s.shift) + f64::from(ZERO_OUT);
            (data::i16s(seed::RESCALE_X).take(s.len).map(scaled).collect(), 0.0)
        }
        Op::Softmax(s) => (softmax(s), TOLERANCE),
        Op::Soft(s) => (soft(s), TOLERANCE),
    };
    assert_eq!(truth.len(), output.len());
    let truth: Vec<f64> = truth.iter().map(|truth| truth.clamp(lowest, highest)).collect();
    for (i, (y, truth)) in output.iter().zip(&truth).enumerate() {
        if (y - truth).abs() > tolerance {
            return Err(format!("{}: output {i} is {y} and should be {truth}", workload.name));
        }
    }
    Ok((tolerance > 0.0).then(|| Deviation::new(&output, &truth)))
}

/// `x / 2^shift`, to nearest, ties up.
fn rounded(x: i64, shift: i32) -> f64 {
    (x + (1 << (shift - 1))).div_euclid(1 << shift) as f64
}

/// An op with weights, `k` to a channel: `pairs` lists which inputs meet which weights in an output.
fn weighted(
    signature: &Signature,
    channels: usize,
    k: usize,
    seeds: &Seeds,
    zero_out: i32,
    pairs: impl Fn(usize) -> Vec<(usize, usize)>,
) -> Vec<f64> {
    let x: Vec<i8> = data::i8s(seeds.x).take(signature.input(0).len as usize).collect();
    let len = signature.input(1).len as usize;
    let w: Vec<i32> = match signature.input(1).dtype {
        DType::I8 => data::i8s(seeds.w).take(len).map(i32::from).collect(),
        DType::I16 => data::i16s(seeds.w).take(len).map(i32::from).collect(),
        _ => {
            let bytes: Vec<u8> = data::i8s(seeds.w).take(len).map(|w| w as u8).collect();
            bytes.chunks(len / channels).flat_map(|row| (0..k).map(|i| data::int4(row, i))).collect()
        }
    };
    let factors = data::multipliers(seeds.factor).zip(data::shifts(seeds.factor, seeds.exponent));
    let scales: Vec<_> = data::biases(seeds.bias).zip(factors).take(channels).collect();
    let output = |i: usize| {
        let (bias, (multiplier, shift)) = scales[i % channels];
        let products =
            pairs(i).into_iter().map(|(x_at, w_at)| i64::from(i32::from(x[x_at]) - ZERO_IN) * i64::from(w[w_at]));
        let sum = i64::from(bias) + products.sum::<i64>();
        rounded(sum * i64::from(multiplier), i32::from(shift)) + f64::from(zero_out)
    };
    (0..signature.output(0).len as usize).map(output).collect()
}

fn conv(signature: &Signature, s: &Conv, seeds: &Seeds) -> Vec<f64> {
    let taps = s.kh * s.kw;
    let pairs = |i: usize| {
        let (pixel, c) = (i / s.c_out, i % s.c_out);
        let inside = window(pixel, s.ow(), [s.h, s.w], [s.kh, s.kw], [s.stride_h, s.stride_w], [s.pad_h, s.pad_w]);
        let channels = |(from, tap)| (0..s.c_in).map(move |k| (from * s.c_in + k, (c * taps + tap) * s.c_in + k));
        inside.into_iter().flat_map(channels).collect()
    };
    weighted(signature, s.c_out, taps * s.c_in, seeds, ZERO_OUT, pairs)
}

/// The pairs of output `i` of a linear op.
fn row(i: usize, k: usize, n: usize) -> Vec<(usize, usize)> {
    (0..k).map(|j| (i / n * k + j, i % n * k + j)).collect()
}

/// The input pixels of a window that lie in the image, each with its tap.
fn window(
    pixel: usize,
    ow: usize,
    [h, w]: [usize; 2],
    [kh, kw]: [usize; 2],
    [stride_h, stride_w]: [usize; 2],
    [pad_h, pad_w]: [usize; 2],
) -> Vec<(usize, usize)> {
    let inside = |tap: usize| {
        let y = (pixel / ow * stride_h + tap / kw).checked_sub(pad_h).filter(|&y| y < h)?;
        let x = (pixel % ow * stride_w + tap % kw).checked_sub(pad_w).filter(|&x| x < w)?;
        Some((y * w + x, tap))
    };
    (0..kh * kw).filter_map(inside).collect()
}

fn layer_norm(s: &LayerNormI8) -> Vec<f64> {
    let x: Vec<f64> = data::i16s(seed::NORM_X).take(s.rows * s.c).map(f64::from).collect();
    let step = f64::from(-s.shift).exp2();
    let gamma: Vec<f64> = data::gammas(seed::GAMMA).take(s.c).map(|g| f64::from(g) * 16.0 * step).collect();
    let beta: Vec<f64> = data::betas(seed::BETA).take(s.c).map(|b| f64::from(b) * step).collect();
    let normalise = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / s.c as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / s.c as f64;
        let norm = |x: f64| (x - mean) / (variance + f64::from(s.eps) / 256.0).sqrt();
        x.iter().zip(gamma.iter().zip(&beta)).map(|(x, (gamma, beta))| norm(*x) * gamma + beta).collect::<Vec<_>>()
    };
    x.chunks_exact(s.c).flat_map(normalise).collect()
}

/// Tokens of width `d` in real numbers.
fn tokens(seed: u32, step: f64, n: usize, d: usize) -> Vec<Vec<f64>> {
    let x: Vec<f64> = data::i8s(seed).take(n * d).map(|x| f64::from(x) * step).collect();
    x.chunks_exact(d).map(<[f64]>::to_vec).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a . b`
fn product(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let b = transposed(b);
    a.iter().map(|a| b.iter().map(|b| dot(a, b)).collect()).collect()
}

fn transposed(a: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
}

fn softmax(s: &SoftmaxAttentionI8) -> Vec<f64> {
    let [q, k, v] = [seed::Q, seed::K, seed::V].map(|seed| tokens(seed, 1.0, s.n, s.d));
    let scores = |q: &Vec<f64>| -> Vec<f64> { k.iter().map(|k| dot(q, k) * Op::SCORE_STEP).collect() };
    let probabilities = |scores: Vec<f64>| -> Vec<f64> {
        let largest = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let p: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum: f64 = p.iter().sum();
        p.iter().map(|p| p / sum).collect()
    };
    let p: Vec<_> = q.iter().map(scores).map(probabilities).collect();
    product(&p, &v).concat()
}

fn soft(s: &Soft) -> Vec<f64> {
    let n = s.side * s.side;
    let (q, v) = (tokens(seed::Q, Soft::Q_STEP, n, s.d), tokens(seed::V, 1.0, n, s.d));
    let landmarks = landmarks(s);
    let kernel = |a: &[Vec<f64>], b: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        a.iter().map(|a| b.iter().map(|b| (-square(a, b) / 2.0).exp()).collect()).collect()
    };
    let mut a = kernel(&landmarks, &landmarks);
    for (i, row) in a.iter_mut().enumerate() {
        row[i] += f64::from(Soft::RIDGE) / f64::from(1 << 22);
    }
    let k1 = kernel(&q, &landmarks);
    let u = solution(a, product(&transposed(&k1), &v));
    product(&k1, &u).concat().iter().map(|y| y * f64::from(-s.y_exponent).exp2()).collect()
}

/// The mean of each of `grid * grid` windows, rounded to int8 as the tokens are.
fn landmarks(s: &Soft) -> Vec<Vec<f64>> {
    let q = tokens(seed::Q, 1.0, s.side * s.side, s.d);
    let range = |i: usize| i * s.side / s.grid..((i + 1) * s.side).div_ceil(s.grid);
    let mean = |at: usize| {
        let rows = range(at / s.grid).flat_map(|y| range(at % s.grid).map(move |x| y * s.side + x));
        let rows: Vec<&Vec<f64>> = rows.map(|token| &q[token]).collect();
        let sum = |c: usize| rows.iter().map(|row| row[c]).sum::<f64>();
        (0..s.d).map(|c| (sum(c) / rows.len() as f64 + 0.5).floor() * Soft::Q_STEP).collect()
    };
    (0..s.grid * s.grid).map(mean).collect()
}

/// `x` of `a x = b`, by Gauss and Jordan; `a` is positive definite.
fn solution(mut a: Vec<Vec<f64>>, mut b: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    for i in 0..a.len() {
        let (pivot, a_i, b_i) = (a[i][i], a[i].clone(), b[i].clone());
        for (j, (a_j, b_j)) in a.iter_mut().zip(&mut b).enumerate() {
            let factor = if i == j { 1.0 - 1.0 / pivot } else { a_j[i] / pivot };
            a_j.iter_mut().zip(&a_i).for_each(|(x, y)| *x -= factor * y);
            b_j.iter_mut().zip(&b_i).for_each(|(x, y)| *x -= factor * y);
        }
    }
    b
}
