//! Every integer op as its documentation states it, with plain loops over exact integers: no arena,
//! no blocks, no code of the library's.

use crate::parse::{File, Op, Type};
use std::sync::LazyLock;

/// A tensor of integers.
type Values = Vec<i64>;

/// The arena of a model, and the values of all tensors that are known by what was written to them.
pub struct Run<'f> {
    file: &'f File,
    /// Tensors share bytes: one may be a part of another. `None` is what nothing, or scratch, was written to.
    arena: Vec<Option<u8>>,
    values: Vec<Option<Values>>,
}

impl<'f> Run<'f> {
    pub fn new(file: &'f File, inputs: &[Values]) -> Self {
        let values = file.tensors.iter().map(|t| t.constant.clone()).collect();
        let mut run = Run { file, arena: vec![None; file.arena], values };
        for (id, input) in file.inputs.iter().zip(inputs) {
            run.set(*id, input.clone());
        }
        run
    }

    /// What was written to a tensor last; `None` for scratch, which only the engine has.
    pub fn get(&self, id: usize) -> Option<&Values> {
        self.values[id].as_ref()
    }

    /// The values in a tensor's bytes.
    pub fn read(&self, id: usize) -> Values {
        let tensor = &self.file.tensors[id];
        tensor.constant.clone().unwrap_or_else(|| {
            let bytes = &self.arena[tensor.offset..][..tensor.len * tensor.dtype.bytes()];
            tensor.dtype.numbers(&bytes.iter().map(|b| b.expect("written before it is read")).collect::<Vec<_>>())
        })
    }

    fn set(&mut self, id: usize, values: Values) {
        let tensor = &self.file.tensors[id];
        let (lo, hi) = tensor.dtype.range();
        assert_eq!(values.len(), tensor.len, "length of tensor {id}");
        assert!(values.iter().all(|v| (lo..=hi).contains(v)), "tensor {id} leaves {:?}", tensor.dtype);
        let bytes = tensor.dtype.bytes_of(&values);
        self.arena[tensor.offset..][..bytes.len()].iter_mut().zip(bytes).for_each(|(to, byte)| *to = Some(byte));
        self.values[id] = Some(values);
    }

    /// Runs one op.
    pub fn step(&mut self, op: &Op) {
        // Only last inputs are absent.
        let ins: Vec<Values> = op.ins.iter().flatten().map(|id| self.read(*id)).collect();
        let ins: Vec<&Values> = ins.iter().collect();
        for tensor in op.outs.iter().flatten().map(|id| &self.file.tensors[*id]) {
            self.arena[tensor.offset..][..tensor.len * tensor.dtype.bytes()].fill(None);
        }
        let to = |i: usize| self.file.tensors[op.outs[i].expect("an output")].dtype;
        let result = match op.name {
            "InputU8" | "InputI16" => input(op, &ins),
            "LinearI8" | "LinearI16" | "LinearI8W16" | "LinearI16W16" => linear(op, &ins, ins[1], to(0)),
            "LinearI8W4" | "LinearI16W4" => linear(op, &ins, &unpacked(ins[1], op.count("k")), to(0)),
            "ConvI8" | "ConvI16" | "ConvI8W16" | "ConvI16W16" => conv(op, &ins, ins[1], to(0)),
            "ConvI8W4" | "ConvI16W4" => {
                let k = op.count("kh") * op.count("kw") * op.count("c_in");
                conv(op, &ins, &unpacked(ins[1], k), to(0))
            }
            "DepthwiseI8" | "DepthwiseI16" => depthwise(op, &ins, to(0)),
            "LayerNormI8" | "LayerNormI16" => layer_norm(op, &ins, to(0)),
            "TableI8" => ins[0].iter().map(|x| ins[1][(x + 128) as usize]).collect(),
            "AvgPoolI8" | "AvgPoolI16" => average(op, &ins),
            "MaxPoolI8" => maximum(op, &ins),
            "AddI16" | "AddI16I8" | "AddI8" => add(op, &ins, to(0)),
            "RescaleI16I8" | "RescaleI8I16" | "RescaleI8" => rescale(op, &ins, to(0)),
            "PrependI16" => [&ins[1][..], &ins[0][..]].concat(),
            "TakeI16" | "TakeI8" => ins[0].chunks(op.count("c")).nth(op.count("index")).unwrap().to_vec(),
            "SoftmaxAttentionI8" => softmax_attention(op, &ins),
            "GramI8" => gram(op, &ins),
            "InverseNewtonQ22" => per_matrix(op, ins[0], |a, m| newton(op, a, m)),
            "SymNormQ22" => sym_norm(op, &ins),
            "AccumulateI8" => accumulate(op, &ins),
            "ApplyI8" => apply(op, &ins),
            "GramTriangleI8" => lower(&gram(op, &ins), op.count("m")),
            "FactorQ26" => factor(op, ins[0]),
            "SolveQ26" => {
                let (x, exponents) = solve(op, &ins);
                self.set(op.outs[1].expect("an output"), exponents);
                x
            }
            "SymScaleQ30" => sym_scale(op, ins[0]),
            "NarrowI16" => {
                let (u, exponents) = narrow(op, &ins);
                self.set(op.outs[1].expect("an output"), u);
                exponents
            }
            "ProductQ22" => {
                let (u, exponents) = product(op, &ins);
                self.set(op.outs[1].expect("an output"), exponents);
                u
            }
            name => panic!("no reference for {name}"),
        };
        self.set(op.outs[0].expect("an output"), result);
    }
}

// Fixed point.

/// `x / 2^shift`, to nearest, ties up.
fn round_shift(x: i128, shift: i64) -> i128 {
    let half = (1i128 << shift) / 2;
    (x + half) >> shift
}

fn requantise(sum: i64, multiplier: i64, shift: i64) -> i64 {
    round_shift(i128::from(sum) * i128::from(multiplier), shift) as i64
}

fn saturate_32(x: i128) -> i64 {
    x.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i64
}

/// Leading zeros of a 32-bit number.
fn leading_zeros(x: i64) -> i64 {
    32 - bits(x)
}

/// Position of the highest set bit plus 1.
fn bits(x: i64) -> i64 {
    (0..64).find(|n| i128::from(x) < 1i128 << n).unwrap()
}

/// `(mantissa, exponent)` of `1 / sqrt(v)`, by bisection.
fn rsqrt(v: u128) -> (i64, i64) {
    if v == 0 {
        return (0, 31);
    }
    let log4 = (0..32).rfind(|n| 1u128 << (2 * n) <= v).unwrap();
    let exponent = 31 + log4;
    let (mut mantissa, mut above) = (0u128, 1u128 << 31);
    while above - mantissa > 1 {
        let middle = (mantissa + above) / 2;
        if middle * middle * v <= 1u128 << (2 * exponent) {
            mantissa = middle;
        } else {
            above = middle;
        }
    }
    (mantissa as i64, exponent)
}

fn reciprocal(x: i64) -> i64 {
    i64::MAX / x.max(1 << 31)
}

/// `2^-(i / 128)` in Q30, for `i` from 0 to 128.
static EXP2: LazyLock<Values> =
    LazyLock::new(|| (0..=128).map(|i| ((-f64::from(i) / 128.0).exp2() * f64::from(1 << 30)).round() as i64).collect());

/// `2^-(t / 2^16)` in Q15.
fn exp2_neg(t: i128) -> i64 {
    if t >= 1 << 20 {
        return 0;
    }
    let t = t as i64;
    let (i, f, k) = ((t >> 9) as usize & 127, t & 511, t >> 16);
    let y = EXP2[i] - (((EXP2[i] - EXP2[i + 1]) * f + 256) >> 9);
    ((y + (1 << (14 + k))) >> (15 + k)).min(32767)
}

/// The exponential of an op: of a distance times the op's factor.
fn kernel(op: &Op) -> impl Fn(i64) -> i64 + use<> {
    let (multiplier, shift) = (op.field("multiplier"), op.field("shift"));
    move |distance| exp2_neg(round_shift(i128::from(distance) * i128::from(multiplier), shift))
}

/// `clamp(zero + value, lo, hi)` with the op's zero point and bounds; those of int16 are its own.
fn clamped(op: &Op, value: i128, to: Type) -> i64 {
    let (zero, lo, hi) = match to {
        Type::I8 => (op.field("zero"), op.field("lo"), op.field("hi")),
        _ => (0, -32768, 32767),
    };
    (value + i128::from(zero)).clamp(i128::from(lo), i128::from(hi)) as i64
}

// Projections, convolutions, norms, sums.

fn input(op: &Op, ins: &[&Values]) -> Values {
    let (c, zero) = (op.count("c"), op.field("zero"));
    let [x, multiplier, offset, shift] = ins else { panic!() };
    let value = |(i, x): (usize, &i64)| {
        let acc = saturate_32(i128::from(4096 * x + offset[i % c]));
        let q = i64::from(requantise(acc, multiplier[i % c], shift[i % c]) as i32);
        (q + zero).clamp(-128, 127)
    };
    x.iter().enumerate().map(value).collect()
}

/// The end of a linear op: `sum` of products for output channel `c`.
fn requantised(op: &Op, ins: &[&Values], c: usize, sum: i64, to: Type) -> i64 {
    let [_, _, bias, multiplier, shift] = ins else { panic!() };
    clamped(op, i128::from(requantise(bias[c] + sum, multiplier[c], shift[c])), to)
}

/// Rows of `k` weights of int4: of every four bytes first the low halves, then the high ones, what is beyond the
/// row left out.
fn unpacked(bytes: &Values, k: usize) -> Values {
    let signed = |half: i64| if half < 8 { half } else { half - 16 };
    let mut weights = vec![];
    for row in bytes.chunks(k.div_ceil(8) * 4) {
        let halves = row.chunks(4).flat_map(|four| four.iter().map(|b| b % 16).chain(four.iter().map(|b| b / 16)));
        weights.extend(halves.take(k).map(signed));
    }
    weights
}

fn linear(op: &Op, ins: &[&Values], w: &Values, to: Type) -> Values {
    let (rows, k, n) = (op.count("rows"), op.count("k"), op.count("n"));
    let x = ins[0];
    let mut y = vec![];
    for row in 0..rows {
        for j in 0..n {
            let sum = (0..k).map(|i| x[row * k + i] * w[j * k + i]).sum();
            y.push(requantised(op, ins, j, sum, to));
        }
    }
    y
}

/// The position of every tap of window `o` along one axis; `None` in the padding.
fn taps(o: usize, size: usize, kernel: usize, stride: usize, pad: usize) -> Vec<Option<usize>> {
    (0..kernel).map(|tap| (o * stride + tap).checked_sub(pad).filter(|position| *position < size)).collect()
}

/// The windows of an image with the op's geometry: for every output pixel, row by row, the pixels it
/// reads (`None` in the padding), row by row.
fn windows(op: &Op, pad_h: usize, pad_w: usize) -> Vec<Vec<Option<usize>>> {
    let (h, w, kh, kw) = (op.count("h"), op.count("w"), op.count("kh"), op.count("kw"));
    let (stride_h, stride_w) = (op.count("stride_h"), op.count("stride_w"));
    let mut windows = vec![];
    for oy in 0..(h + 2 * pad_h - kh) / stride_h + 1 {
        for ox in 0..(w + 2 * pad_w - kw) / stride_w + 1 {
            let columns = taps(ox, w, kw, stride_w, pad_w);
            let rows = taps(oy, h, kh, stride_h, pad_h);
            let pixel = |y: Option<usize>, x: Option<usize>| Some(y? * w + x?);
            windows.push(rows.iter().flat_map(|y| columns.iter().map(move |x| pixel(*y, *x))).collect());
        }
    }
    windows
}

fn conv(op: &Op, ins: &[&Values], weights: &Values, to: Type) -> Values {
    let (c_in, c_out, heads, zero_in) = (op.count("c_in"), op.count("c_out"), op.count("heads"), op.field("zero_in"));
    let windows = windows(op, op.count("pad_h"), op.count("pad_w"));
    let mut y = vec![];
    for image in ins[0].chunks(op.count("h") * op.count("w") * heads * c_in) {
        for window in &windows {
            for head in 0..heads {
                for o in 0..c_out {
                    let mut sum = 0;
                    for (tap, pixel) in window.iter().enumerate() {
                        for c in 0..c_in {
                            let x = pixel.map_or(zero_in, |pixel| image[(pixel * heads + head) * c_in + c]);
                            sum += x * weights[(o * window.len() + tap) * c_in + c];
                        }
                    }
                    y.push(requantised(op, ins, o, sum, to));
                }
            }
        }
    }
    y
}

fn depthwise(op: &Op, ins: &[&Values], to: Type) -> Values {
    let (channels, share, zero_in) = (op.count("c"), op.count("share"), op.field("zero_in"));
    let windows = windows(op, op.count("pad_h"), op.count("pad_w"));
    let mut y = vec![];
    for image in ins[0].chunks(op.count("h") * op.count("w") * channels) {
        for window in &windows {
            for c in 0..channels {
                let x = |pixel: &Option<usize>| pixel.map_or(zero_in, |pixel| image[pixel * channels + c]);
                let w = |tap: usize| ins[1][tap * (channels / share) + c / share];
                let sum = window.iter().enumerate().map(|(tap, pixel)| x(pixel) * w(tap)).sum();
                y.push(requantised(op, ins, c / share, sum, to));
            }
        }
    }
    y
}

fn layer_norm(op: &Op, ins: &[&Values], to: Type) -> Values {
    let (c, eps, shift) = (op.field("c"), op.field("eps"), op.field("shift"));
    let mut y = vec![];
    for row in ins[0].chunks(c as usize) {
        let s: i64 = row.iter().sum();
        let squares: i64 = row.iter().map(|x| x * x).sum();
        let v = i128::from(c) * i128::from(squares) - i128::from(s) * i128::from(s)
            + i128::from(eps) * i128::from(c) * i128::from(c) / 256;
        let (r, e) = rsqrt(v as u128);
        for ((x, gamma), beta) in row.iter().zip(ins[1]).zip(ins[2]) {
            let centred = i128::from(c * x - s);
            let d = if e <= 52 { centred << (52 - e) } else { round_shift(centred, e - 52) };
            let norm = round_shift(d * i128::from(r), 32);
            let t = (norm * i128::from(*gamma)).div_euclid(1 << 16);
            let sum = saturate_32(t + i128::from(*beta));
            let q = saturate_32(i128::from(sum) + (1 << (shift - 1))).div_euclid(1 << shift);
            y.push(clamped(op, i128::from(q), to));
        }
    }
    y
}

/// The mean of the values, to nearest, ties up.
fn mean(values: &[i64]) -> i64 {
    let count = values.len() as i64;
    (2 * values.iter().sum::<i64>() + count).div_euclid(2 * count)
}

fn average(op: &Op, ins: &[&Values]) -> Values {
    let (h, w, c, oh, ow) = (op.count("h"), op.count("w"), op.count("c"), op.count("oh"), op.count("ow"));
    let range = |i: usize, size: usize, windows: usize| i * size / windows..((i + 1) * size).div_ceil(windows);
    let mut y = vec![];
    for oy in 0..oh {
        for ox in 0..ow {
            for channel in 0..c {
                let row = |y: usize| range(ox, w, ow).map(move |x| ins[0][(y * w + x) * c + channel]);
                y.push(mean(&range(oy, h, oh).flat_map(row).collect::<Values>()));
            }
        }
    }
    y
}

fn maximum(op: &Op, ins: &[&Values]) -> Values {
    let c = op.count("c");
    let windows = windows(op, 0, 0);
    let mut y = vec![];
    for image in ins[0].chunks(op.count("h") * op.count("w") * c) {
        for window in &windows {
            y.extend((0..c).map(|c_| window.iter().flatten().map(|pixel| image[pixel * c + c_]).max().unwrap()));
        }
    }
    y
}

fn add(op: &Op, ins: &[&Values], to: Type) -> Values {
    let (ma, mb, shift) = (op.field("ma"), op.field("mb"), op.field("shift"));
    let (offset, lo, hi) = match to {
        Type::I8 => (op.field("offset"), op.field("lo"), op.field("hi")),
        _ => (0, -32768, 32767),
    };
    let sum = |(a, b): (&i64, &i64)| round_shift(i128::from(a * ma + b * mb + offset), shift) as i64;
    ins[0].iter().zip(ins[1]).map(|ab| sum(ab).clamp(lo, hi)).collect()
}

fn rescale(op: &Op, ins: &[&Values], to: Type) -> Values {
    let zero_in = if op.name == "RescaleI16I8" { 0 } else { op.field("zero_in") };
    let q = |x: &i64| requantise(x - zero_in, op.field("multiplier"), op.field("shift"));
    ins[0].iter().map(|x| clamped(op, i128::from(q(x)), to)).collect()
}

// Attention.

/// The rows of `x[n, heads*d]`, of the channels of `head`.
fn rows<'a>(op: &Op, x: &'a Values, head: usize) -> Vec<&'a [i64]> {
    let (heads, d) = (op.count("heads"), op.count("d"));
    x.chunks(heads * d).map(|row| &row[head * d..][..d]).collect()
}

fn distance(a: &[i64], b: &[i64]) -> i64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn softmax_attention(op: &Op, ins: &[&Values]) -> Values {
    let (n, heads, d) = (op.count("n"), op.count("heads"), op.count("d"));
    let exponential = kernel(op);
    let mut y = vec![0; n * heads * d];
    for head in 0..heads {
        let [q, k, v] = [0, 1, 2].map(|i| rows(op, ins[i], head));
        for i in 0..n {
            let dot = |k: &&[i64]| q[i].iter().zip(*k).map(|(q, k)| q * k).sum::<i64>();
            let scores: Values = k.iter().map(dot).collect();
            let largest = scores.iter().max().unwrap();
            let p: Values = scores.iter().map(|score| exponential(largest - score)).collect();
            let total: i64 = p.iter().sum();
            let z = leading_zeros(total);
            let r = reciprocal(total << z);
            let x: Values = p.iter().map(|p| round_shift(i128::from(p * r), 40 - z) as i64).collect();
            for c in 0..d {
                let sum: i64 = x.iter().zip(&v).map(|(x, v)| x * v[c]).sum();
                let value = i128::from(op.field("out_multiplier")) * i128::from(sum);
                let value = round_shift(value, op.field("out_shift"));
                y[(i * heads + head) * d + c] = clamped(op, value, Type::I8);
            }
        }
    }
    y
}

fn gram(op: &Op, ins: &[&Values]) -> Values {
    let exponential = kernel(op);
    let mut a = vec![];
    for head in 0..op.count("heads") {
        let l = rows(op, ins[0], head);
        for i in &l {
            a.extend(l.iter().map(|j| exponential(distance(i, j))));
        }
    }
    a
}

/// Applies `f(matrix, m)` to every matrix of `a[heads, m, m]`.
fn per_matrix(op: &Op, a: &Values, f: impl Fn(&[i64], usize) -> Values) -> Values {
    let m = op.count("m");
    a.chunks(m * m).flat_map(|a| f(a, m)).collect()
}

fn newton(op: &Op, a: &[i64], m: usize) -> Values {
    let ridge = op.field("ridge");
    let clamp = |x: i128, bound: i128| x.clamp(-bound, bound) as i64;
    let row_sum = a.chunks(m).map(|row| row.iter().sum()).max().unwrap();
    let r = 16384.max(row_sum);
    let z = leading_zeros(r);
    let y = reciprocal(r << z) as u128;
    let b = ((((y * y) >> 32) * 3_865_470_566) >> 32) as i64;
    let t = bits(b) - 29;
    let beta = b >> t;
    let mut f = 63 - 2 * z - t;
    let mut v: Values = (0..m * m)
        .map(|i| {
            let p = 128 * a[i] + if i / m == i % m { ridge } else { 0 };
            round_shift(i128::from(beta) * i128::from(p), 22) as i64
        })
        .collect();
    for _ in 0..op.count("iterations") {
        let largest = v.iter().map(|v| v.abs()).max().unwrap();
        let g = if f > 22 && largest >= 1 << 29 { f - 1 } else { f };
        let mut product = vec![];
        for i in 0..m {
            for j in 0..m {
                let sum: i128 = (0..m).map(|k| i128::from(v[i * m + k]) * i128::from(a[j * m + k])).sum();
                let value = round_shift(128 * sum + i128::from(ridge) * i128::from(v[i * m + j]), f - 2);
                product.push(clamp(value, (1 << 25) - 1));
            }
        }
        let mut next = v.clone();
        for i in 0..m {
            for j in 0..=i {
                let sum: i128 = (0..m).map(|k| i128::from(product[i * m + k]) * i128::from(v[j * m + k])).sum();
                let value = round_shift((i128::from(v[i * m + j]) << 25) - sum, 24 + f - g);
                next[i * m + j] = clamp(value, 1 << 30);
                next[j * m + i] = next[i * m + j];
            }
        }
        (v, f) = (next, g);
    }
    v.iter().map(|v| round_shift(i128::from(*v), f - 22) as i64).collect()
}

fn sym_scale(op: &Op, a: &Values) -> Values {
    let m = op.count("m");
    let mut scales = vec![];
    for a in a.chunks(packed(m, 0)) {
        for i in 0..m {
            let sum: i64 = (0..m).map(|j| a[packed(i.max(j), i.min(j))]).sum();
            let (mantissa, exponent) = rsqrt(2 * i64::from(sum as i32).max(16384) as u128);
            scales.push(round_shift(mantissa.into(), exponent - 38) as i64);
        }
    }
    scales
}

/// The rows of every matrix, from their beginning to the diagonal.
fn lower(matrices: &[i64], m: usize) -> Values {
    let below = |(at, value): (usize, &i64)| (at % m <= at / m % m).then_some(*value);
    matrices.iter().enumerate().filter_map(below).collect()
}

/// Where a packed triangle has row `i`, column `j`.
fn packed(i: usize, j: usize) -> usize {
    (0..=i).sum::<usize>() + j
}

fn factor(op: &Op, a: &Values) -> Values {
    let (m, ridge) = (op.count("m"), i128::from(op.field("ridge")));
    let mut triangles = vec![];
    for a in a.chunks(packed(m, 0)) {
        let a = |i: usize, j: usize| i128::from(a[packed(i, j)]);
        let (mut l, mut r) = (vec![vec![0i128; m]; m], vec![0i128; m]);
        for i in 0..m {
            let mut u: Vec<i128> = vec![];
            for j in 0..i {
                let sum: i128 = (0..j).map(|k| u[k] * l[j][k]).sum();
                u.push(saturate_32(round_shift((a(i, j) << 41) - sum, 26)).into());
                l[i][j] = saturate_32(round_shift(u[j] * r[j], 26)).into();
            }
            let sum: i128 = (0..i).map(|k| u[k] * l[i][k]).sum();
            let pivot = saturate_32(round_shift((a(i, i) << 41) + (ridge << 34) - sum, 26));
            let pivot = pivot.max((ridge << 8) as i64);
            let z = leading_zeros(pivot);
            r[i] = round_shift(reciprocal(pivot << z).into(), 11 - z);
            triangles.extend(l[i][..i].iter().chain([&r[i]]).map(|value| *value as i64));
        }
    }
    triangles
}

fn solve(op: &Op, ins: &[&Values]) -> (Values, Values) {
    let (m, heads, d) = (op.count("m"), op.count("heads"), op.count("d"));
    let (mut x, mut e) = (vec![0; heads * m * d], vec![0; heads * d]);
    let p = [(4, 22), (16, 21), (64, 20), (255, 19)].into_iter().find(|(most, _)| m <= *most).unwrap().1;
    for head in 0..heads {
        let f = |i: usize, j: usize| i128::from(ins[1][head * packed(m, 0) + packed(i, j)]);
        let value = |sum: i128| i128::from(saturate_32(round_shift(sum, 26)));
        let scales = ins.get(2).map(|s| s[head * m..][..m].iter().map(|s| 0.max(*s)).collect::<Values>());
        let k = scales.as_ref().map_or(30, |s| bits(*s.iter().max().unwrap()));
        let scaled = |i: usize, x: i128| match &scales {
            Some(s) => round_shift(x * (i128::from(s[i]) << (31 - k)), 31),
            None => x,
        };
        for c in 0..d {
            let w: Values = (0..m).map(|i| ins[0][(head * m + i) * d + c]).collect();
            let fits = |t: &i64| w.iter().all(|w| w << t == i64::from((w << t) as i32));
            let t = (0..=31).rev().find(fits).unwrap();
            let mut y: Vec<i128> = vec![];
            for (i, w) in w.iter().enumerate() {
                let sum: i128 = (0..i).map(|k| f(i, k) * y[k]).sum();
                y.push(value((round_shift(scaled(i, (w << t).into()), 31 - p) << 26) - sum));
            }
            for i in (0..m).rev() {
                // What lies behind is of `z` already.
                let sum: i128 = (i + 1..m).map(|k| f(k, i) * y[k]).sum();
                y[i] = value(16 * y[i] * f(i, i) - sum);
                x[(head * m + i) * d + c] = scaled(i, y[i]) as i64;
            }
            e[head * d + c] = 2 * k - 7 - p - t;
        }
    }
    (x, e)
}

fn narrow(op: &Op, ins: &[&Values]) -> (Values, Values) {
    let (m, d) = (op.count("m"), op.count("d"));
    let (mut u, mut exponents) = (vec![0; ins[1].len()], vec![]);
    for (column, e) in ins[0].iter().enumerate() {
        let places = |i: usize| (column / d * m + i) * d + column % d;
        let shifted = |t: i64| (0..m).map(move |i| round_shift(ins[1][places(i)].into(), t) as i64);
        let fits = |t: &i64| shifted(*t).all(|u| u.abs() <= 32767) && shifted(*t).map(i64::abs).sum::<i64>() <= 65535;
        let t = (0..).find(fits).unwrap();
        shifted(t).enumerate().for_each(|(i, value)| u[places(i)] = value);
        exponents.push(saturate_32((e + t).into()));
    }
    (u, exponents)
}

fn sym_norm(op: &Op, ins: &[&Values]) -> Values {
    let m = op.count("m");
    let mut inverse = ins[0].clone();
    for (inverse, a) in inverse.chunks_mut(m * m).zip(ins[1].chunks(m * m)) {
        for i in 0..m {
            let sum = 16384.max(a[i * m..][..m].iter().sum());
            let (mantissa, exponent) = rsqrt(2 * sum as u128);
            let r = round_shift(i128::from(mantissa), exponent - 38);
            let mut scale = |at: usize| inverse[at] = saturate_32(round_shift(i128::from(inverse[at]) * r, 30));
            (0..m).for_each(|j| scale(i * m + j));
            (0..m).for_each(|j| scale(j * m + i));
        }
    }
    inverse
}

fn accumulate(op: &Op, ins: &[&Values]) -> Values {
    let (n, d) = (op.count("n"), op.count("d"));
    let size = if op.count("m") > 16 && d >= 32 { 32 } else { 16 };
    let exponential = kernel(op);
    let mut w = vec![];
    for head in 0..op.count("heads") {
        let [q, l, v] = [0, 1, 2].map(|i| rows(op, ins[i], head));
        for l in l {
            let mut sums = vec![0; d];
            for first in (0..n).step_by(size) {
                let mut group = vec![0; d];
                for i in first..n.min(first + size) {
                    let k = exponential(distance(q[i], l));
                    group.iter_mut().zip(v[i]).for_each(|(sum, v)| *sum += k * v);
                }
                let shifted = group.iter().map(|sum| round_shift(i128::from(*sum), op.field("w_shift")) as i64);
                sums.iter_mut().zip(shifted).for_each(|(sum, group)| *sum += group);
            }
            w.extend(sums);
        }
    }
    w
}

fn product(op: &Op, ins: &[&Values]) -> (Values, Values) {
    let (m, heads, d) = (op.count("m"), op.count("heads"), op.count("d"));
    let (mut u, mut e) = (vec![0; heads * m * d], vec![0; heads * d]);
    for head in 0..heads {
        let (inverse, w) = (&ins[0][head * m * m..], &ins[1][head * m * d..]);
        for c in 0..d {
            let b = bits((0..m).map(|j| w[j * d + c].abs()).max().unwrap());
            let p = 0.max(b - 24);
            let x: Vec<i128> = (0..m).map(|j| round_shift(i128::from(w[j * d + c]), p)).collect();
            let r: Vec<i128> = (0..m).map(|i| (0..m).map(|j| i128::from(inverse[i * m + j]) * x[j]).sum()).collect();
            let shifted = |t: i64| r.iter().map(move |r| round_shift(*r, t));
            let fits =
                |t: &i64| shifted(*t).all(|u| u.abs() <= 32767) && shifted(*t).map(|u| u.abs()).sum::<i128>() <= 65535;
            let t = (0..).find(fits).unwrap();
            for (i, value) in shifted(t).enumerate() {
                u[(head * m + i) * d + c] = value as i64;
            }
            e[head * d + c] = p + t;
        }
    }
    (u, e)
}

fn apply(op: &Op, ins: &[&Values]) -> Values {
    let (n, m, heads, d) = (op.count("n"), op.count("m"), op.count("heads"), op.count("d"));
    let (u, e) = (ins[2], ins[3]);
    let exponential = kernel(op);
    let mut y = vec![0; n * heads * d];
    for head in 0..heads {
        let [q, l] = [0, 1].map(|i| rows(op, ins[i], head));
        for i in 0..n {
            let k: Values = l.iter().map(|l| exponential(distance(q[i], l))).collect();
            for c in 0..d {
                let sum: i64 = (0..m).map(|j| k[j] * u[(head * m + j) * d + c]).sum();
                let t = op.field("out_shift") + 37 - e[head * d + c];
                let value = i128::from(sum) * i128::from(op.field("out_multiplier"));
                let value = if t > 62 { 0 } else { round_shift(value, t.max(0)) };
                y[(i * heads + head) * d + c] = clamped(op, value, Type::I8);
            }
        }
    }
    y
}
