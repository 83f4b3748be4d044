//! Ordinary attention, `Y = softmax(scale Q K^T) V`: the last stage of the official models, and the
//! yardstick of the others. Streamed: no `n x n` matrix exists.

use super::gram::kernel_fault;
use super::kernel::{Head, dot_i8, output_fault};
use super::{Operand, Part, Signature, f32s, i8s, i32s, size};
use crate::arch::{Matrix, Softmax, ToI8, matmul, scaled, softmax, vectorised};
use crate::math::fixed::{Decay, exp2_neg_scaled, reciprocal, round_shift};
use crate::math::float::exp;

/// Rows of scores held at a time.
const BLOCK: usize = 16;

const fn block(n: usize) -> usize {
    if n < BLOCK { n } else { BLOCK }
}

shape! {
    /// `q, k, v: [batch, n, heads*d]` -> `y[batch, n, heads*d]`, with scratch.
    pub struct SoftmaxAttention {
        /// Images.
        pub batch: usize,
        /// Tokens per image.
        pub n: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head.
        pub d: usize,
        /// Factor of the scores, usually `1 / sqrt(d)`.
        pub scale: f32,
    }
}

impl SoftmaxAttention {
    /// Inputs `q, k, v`; outputs `y`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, heads, d, .. } = *self;
        let tokens = f32s(&[batch, n, heads, d]);
        Signature::new(&[tokens, tokens, tokens], &[tokens, f32s(&[block(n), n]).plus(&[block(n), d])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[2, self.batch, self.heads, self.n, self.n, self.d])
    }
}

/// `y = softmax(scale q k^T) v` for each image and head.
pub fn forward(s: &SoftmaxAttention, q: &[f32], k: &[f32], v: &[f32], y: &mut [f32], scratch: &mut [f32]) {
    let SoftmaxAttention { n, heads, d, scale, .. } = *s;
    let width = heads * d;
    let (scores, y_rows) = scratch.split_at_mut(block(n) * n);
    let images = q.chunks_exact(n * width).zip(k.chunks_exact(n * width)).zip(v.chunks_exact(n * width));
    for (((q, k), v), y) in images.zip(y.chunks_exact_mut(n * width)) {
        for h in 0..heads {
            let head = Head { h, d, width };
            for (q, y) in q.chunks(BLOCK * width).zip(y.chunks_mut(BLOCK * width)) {
                let rows = q.len() / width;
                let p = &mut scores[..rows * n];
                softmax_rows(head.matrix(q), head.matrix(k), scale, p);
                matmul(Matrix::new(p, rows, n), head.matrix(v), &mut y_rows[..rows * d], false);
                head.store(y_rows, y);
            }
        }
    }
}

/// `p[rows, n] = softmax(scale q k^T)`.
fn softmax_rows(q: Matrix<'_>, k: Matrix<'_>, scale: f32, p: &mut [f32]) {
    matmul(q, k.t(), p, false);
    vectorised(
        #[inline(always)]
        || {
            for row in p.chunks_exact_mut(k.rows) {
                let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| if b * scale > a { b * scale } else { a });
                for p in row.iter_mut() {
                    *p = exp(*p * scale - largest);
                }
                let norm = 1.0 / row.iter().sum::<f32>();
                for p in row.iter_mut() {
                    *p *= norm;
                }
            }
        },
    );
}

shape! {
    /// Backward of [`SoftmaxAttention`]: `q, k, v, dy -> dq, dk, dv`, with scratch.
    pub struct SoftmaxAttentionGrad {
        /// Images.
        pub batch: usize,
        /// Tokens per image.
        pub n: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head.
        pub d: usize,
        /// Factor of the scores.
        pub scale: f32,
    }
}

impl SoftmaxAttentionGrad {
    /// Inputs `q, k, v, dy`; outputs `dq, dk, dv`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, heads, d, .. } = *self;
        let tokens = f32s(&[batch, n, heads, d]);
        Signature::new(&[tokens, tokens, tokens, tokens], &[tokens, tokens, tokens, grad_scratch(n, d)])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[5, self.batch, self.heads, self.n, self.n, self.d])
    }
}

/// Two blocks of scores, a block of rows, and a head's `dk` and `dv`.
const fn grad_scratch(n: usize, d: usize) -> Operand {
    f32s(&[2, block(n), n]).plus(&[block(n), d]).plus(&[2, n, d])
}

/// With `P` the softmax, `dP = dy v^T` and `dS = scale P o (dP - rowsum(P o dP))`:
/// `dq = dS k`, `dk = dS^T q`, `dv = P^T dy`. Overwrites all three.
pub fn backward(
    s: &SoftmaxAttentionGrad,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dy: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    scratch: &mut [f32],
) {
    let SoftmaxAttentionGrad { n, heads, d, scale, .. } = *s;
    let width = heads * d;
    let (scores, rest) = scratch.split_at_mut(block(n) * n);
    let (d_scores, rest) = rest.split_at_mut(block(n) * n);
    let (dq_rows, rest) = rest.split_at_mut(block(n) * d);
    let (dk_head, dv_head) = rest.split_at_mut(n * d);
    let image = n * width;
    let inputs =
        q.chunks_exact(image).zip(k.chunks_exact(image)).zip(v.chunks_exact(image)).zip(dy.chunks_exact(image));
    let outputs = dq.chunks_exact_mut(image).zip(dk.chunks_exact_mut(image)).zip(dv.chunks_exact_mut(image));
    for ((((q, k), v), dy), ((dq, dk), dv)) in inputs.zip(outputs) {
        for h in 0..heads {
            let head = Head { h, d, width };
            dk_head.fill(0.0);
            dv_head.fill(0.0);
            let blocks = q.chunks(BLOCK * width).zip(dy.chunks(BLOCK * width));
            for ((q, dy), dq) in blocks.zip(dq.chunks_mut(BLOCK * width)) {
                let rows = q.len() / width;
                let (p, ds) = (&mut scores[..rows * n], &mut d_scores[..rows * n]);
                softmax_rows(head.matrix(q), head.matrix(k), scale, p);
                matmul(Matrix::new(p, rows, n).t(), head.matrix(dy), dv_head, true);
                matmul(head.matrix(dy), head.matrix(v).t(), ds, false);
                for (ds, p) in ds.chunks_exact_mut(n).zip(p.chunks_exact(n)) {
                    let mean: f32 = ds.iter().zip(p).map(|(ds, p)| ds * p).sum();
                    for (ds, p) in ds.iter_mut().zip(p) {
                        *ds = scale * p * (*ds - mean);
                    }
                }
                let ds = Matrix::new(ds, rows, n);
                matmul(ds.t(), head.matrix(q), dk_head, true);
                matmul(ds, head.matrix(k), &mut dq_rows[..rows * d], false);
                head.store(dq_rows, dq);
            }
            head.store(dk_head, dk);
            head.store(dv_head, dv);
        }
    }
}

shape! {
    /// Integer [`SoftmaxAttention`] of one image: `q, k, v: i8[n, heads*d]` -> `y i8[n, heads*d]`, with
    /// scratch.
    ///
    /// For each head and token `i`, with exact scores `S_j = sum_c q_ic k_jc` and `M` the largest:
    ///
    /// 1. `p_j = exp2_neg_scaled(M - S_j, multiplier, shift)` (Q15), where `multiplier / 2^shift` is
    ///    `2^16 * log2(e) * scale * scale_q * scale_k`, `scale` usually `1 / sqrt(d)`;
    /// 2. with `P = sum_j p_j` and `z` its leading zeros as a `u32`:
    ///    `x_j = round_shift(p_j * reciprocal(P << z), 40 - z)`, the weight in Q23;
    /// 3. `y_ic = clamp(zero + round_shift(out_multiplier * sum_j x_j v_jc, out_shift), lo, hi)`, exact in 64
    ///    bits, where `out_multiplier / 2^out_shift` is `2^-23 * scale_v / scale_y`.
    ///
    /// The last sum is at most `128 (2^23 + n / 2) < 2^31` in magnitude.
    pub struct SoftmaxAttentionI8 {
        /// Tokens, at most 65536.
        pub n: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head, at most [`MAX_WIDTH`](super::gram::MAX_WIDTH).
        pub d: usize,
        /// Mantissa of the exponent's factor.
        pub multiplier: i32,
        /// Right shift of the exponent's factor.
        pub shift: i32,
        /// Mantissa of the output's factor.
        pub out_multiplier: i32,
        /// Right shift of the output's factor.
        pub out_shift: i32,
        /// Zero point of the output.
        pub zero: i32,
        /// Smallest output.
        pub lo: i32,
        /// Largest output.
        pub hi: i32,
    }
}

impl SoftmaxAttentionI8 {
    /// Inputs `q, k, v`; outputs `y`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { n, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi } = *self;
        if let Some(fault) = kernel_fault(d, multiplier, shift) {
            return Signature::invalid(fault);
        }
        if let Some(fault) = output_fault(out_multiplier, out_shift, zero, lo, hi) {
            return Signature::invalid(fault);
        }
        if n > 1 << 16 {
            return Signature::invalid("integer softmax attention takes at most 65536 tokens");
        }
        let tokens = i8s(&[n, heads, d]);
        Signature::new(&[tokens, tokens, tokens], &[tokens, i32s(&[Softmax::scratch(n, d)])])
    }

    /// Rows that can be computed by themselves: the tokens, for one head after the other.
    pub const fn rows(&self) -> usize {
        size(&[self.heads, self.n]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[2, self.heads, self.n, self.n, self.d])
    }
}

/// Integer forward of some rows, exactly as [`SoftmaxAttentionI8`] says.
pub fn forward_i8(
    s: &SoftmaxAttentionI8,
    part: &impl Part,
    q: &[i8],
    k: &[i8],
    v: &[i8],
    y: &mut [i8],
    scratch: &mut [i32],
) {
    for (h, head) in heads(s).enumerate() {
        let part = part.group(h, s.n);
        if !part.is_empty() {
            attend(s, &head, part.cut(q, head.width), k, v, part.cut_mut(y, head.width), scratch);
        }
    }
}

/// Some tokens of one head.
fn attend(s: &SoftmaxAttentionI8, head: &Softmax, q: &[i8], k: &[i8], v: &[i8], y: &mut [i8], scratch: &mut [i32]) {
    softmax(
        head,
        q,
        k,
        v,
        y,
        scratch,
        #[inline(always)]
        |y, scratch| forward_plain(s, head, q, k, v, y, scratch),
    );
}

/// What the heads are made of.
fn heads(s: &SoftmaxAttentionI8) -> impl Iterator<Item = Softmax> {
    let SoftmaxAttentionI8 { n, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi } = *s;
    let decay = Decay::new(multiplier, shift as u32);
    (0..heads).map(move |h| Softmax {
        n,
        width: heads * d,
        first: h * d,
        d,
        decay,
        multiplier: out_multiplier,
        shift: out_shift,
        to: ToI8 { zero, lo, hi },
    })
}

/// One head.
#[inline(always)]
fn forward_plain(
    s: &SoftmaxAttentionI8,
    head: &Softmax,
    q: &[i8],
    k: &[i8],
    v: &[i8],
    y: &mut [i8],
    scratch: &mut [i32],
) {
    let Softmax { n, width, first, d, to, .. } = *head;
    let (row, sums) = scratch.split_at_mut(n);
    let sums = &mut sums[..d];
    for (q, y) in q.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let q = &q[first..][..d];
        let mut largest = i32::MIN;
        for (score, k) in row.iter_mut().zip(k.chunks_exact(width)) {
            *score = dot_i8(q, &k[first..][..d]);
            largest = largest.max(*score);
        }
        let mut total = 0;
        for p in row.iter_mut() {
            *p = exp2_neg_scaled(largest - *p, s.multiplier, s.shift as u32);
            total += *p as u32;
        }
        // The largest weight is 32767, so the total has at most 17 leading zeros.
        let zeros = total.leading_zeros();
        let inverse = i64::from(reciprocal(total << zeros));
        sums.fill(0);
        for (&p, v) in row.iter().zip(v.chunks_exact(width)) {
            let weight = round_shift(i64::from(p) * inverse, 40 - zeros) as i32;
            for (sum, &v) in sums.iter_mut().zip(&v[first..][..d]) {
                *sum += weight * i32::from(v);
            }
        }
        for (y, &sum) in y[first..][..d].iter_mut().zip(&*sums) {
            *y = scaled(sum, s.out_multiplier, s.out_shift, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::softmax_by_words;
    use crate::math::fixed::Multiplier;
    use crate::ops::Whole;
    use crate::ops::testing::{Reals, assert_close, check_gradients, ints, reals};

    fn reference(s: &SoftmaxAttention, t: &[Vec<f64>]) -> Vec<f64> {
        let SoftmaxAttention { batch, n, heads, d, scale } = *s;
        let row = |x: &'_ Vec<f64>, b: usize, i: usize, h: usize| x[((b * n + i) * heads + h) * d..][..d].to_vec();
        let mut y = Vec::new();
        for (b, i) in (0..batch).flat_map(|b| (0..n).map(move |i| (b, i))) {
            for h in 0..heads {
                let q = row(&t[0], b, i, h);
                let score = |j| q.iter().zip(row(&t[1], b, j, h)).map(|(q, k)| q * k).sum::<f64>() * f64::from(scale);
                let p: Vec<f64> = (0..n).map(|j| score(j).exp()).collect();
                let sum: f64 = p.iter().sum();
                y.extend((0..d).map(|c| (0..n).map(|j| p[j] / sum * row(&t[2], b, j, h)[c]).sum::<f64>()));
            }
        }
        y
    }

    fn scratch_of(signature: Signature) -> Vec<f32> {
        vec![9.0; signature.output(signature.n_outs() - 1).len as usize]
    }

    #[test]
    fn forward_and_backward_match_the_reference() {
        for (batch, n, heads, d, scale) in
            [(1, 1, 1, 1, 1.0), (2, 5, 2, 3, 0.5), (1, 16, 1, 4, 0.5), (1, 35, 2, 5, 2.0)]
        {
            let s = SoftmaxAttention { batch, n, heads, d, scale };
            let len = batch * n * heads * d;
            let inputs = [reals("q", len), reals("k", len), reals("v", len)];
            let [q, k, v] = inputs.each_ref().map(Reals::f32);
            let mut y = vec![9.0; len];
            forward(&s, &q, &k, &v, &mut y, &mut scratch_of(s.signature()));
            assert_close("y", &y, &reference(&s, &inputs.each_ref().map(Reals::f64)), 2e-6);
            check_gradients(
                &inputs,
                len,
                |t| reference(&s, t),
                |dy| {
                    let s = SoftmaxAttentionGrad { batch, n, heads, d, scale };
                    let (mut dq, mut dk, mut dv) = (vec![9.0; len], vec![9.0; len], vec![9.0; len]);
                    let mut scratch = scratch_of(s.signature());
                    backward(&s, &q, &k, &v, dy, &mut dq, &mut dk, &mut dv, &mut scratch);
                    vec![dq, dk, dv]
                },
            );
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let s = SoftmaxAttention { batch: 1, n: 2, heads: 1, d: 1, scale: 1.0 };
        let mut y = vec![0.0; 2];
        forward(&s, &[1e4, -1e4], &[1e4, -1e4], &[1.0, 2.0], &mut y, &mut scratch_of(s.signature()));
        assert_eq!(y, [1.0, 2.0]);
    }

    fn integer(n: usize, heads: usize, d: usize, scale_q: f64, scale_k: f64, out: f64) -> SoftmaxAttentionI8 {
        let scale = 1.0 / (d as f64).sqrt();
        let exponent = Multiplier::from_f64(65536.0 * core::f64::consts::LOG2_E * scale * scale_q * scale_k).unwrap();
        let out = Multiplier::from_f64(out * 2f64.powi(-23)).unwrap();
        SoftmaxAttentionI8 {
            n,
            heads,
            d,
            multiplier: exponent.value,
            shift: exponent.shift as i32,
            out_multiplier: out.value,
            out_shift: out.shift as i32,
            zero: 0,
            lo: -128,
            hi: 127,
        }
    }

    /// Writes `y` and asserts that the path of cores which multiply one pair of values at a time agrees.
    fn both(s: &SoftmaxAttentionI8, q: &[i8], k: &[i8], v: &[i8], y: &mut [i8]) {
        let mut scratch = vec![9; s.signature().output(1).len as usize];
        let mut by_words = y.to_vec();
        for head in heads(s) {
            softmax_by_words(&head, q, k, v, &mut by_words, &mut scratch);
        }
        forward_i8(s, &Whole, q, k, v, y, &mut scratch);
        assert_eq!(by_words, y, "{s:?}");
    }

    #[test]
    fn integer_forward_is_the_plain_one_whatever_the_shape() {
        for n in [1, 2, 3, 4, 6, 9, 130] {
            for (heads, d) in [(1, 1), (2, 3), (1, 4), (3, 6), (1, 33)] {
                let mut s = integer(n, heads, d, 0.03, 0.05, 3.0);
                let [q, k, v] = ["q", "k", "v"].map(|name| ints::<i8>(name, n * heads * d));
                for (shift, out_shift, hi) in [(s.shift, s.out_shift, 127), (61, 40, 90), (16, 62, 127)] {
                    (s.shift, s.out_shift, s.hi) = (shift, out_shift, hi);
                    both(&s, &q, &k, &v, &mut vec![9; q.len()]);
                }
            }
        }
    }

    #[test]
    fn integer_forward_is_within_a_step_of_the_softmax_of_the_dequantised_inputs() {
        for (n, heads, d, scale_q) in [(1, 1, 1, 0.02), (5, 2, 3, 0.1), (64, 1, 16, 0.02), (700, 2, 8, 0.005)] {
            let scale_k = 0.03;
            // Averages of many values are small: a finer output step shows them.
            let out = (n as f64).sqrt();
            let s = integer(n, heads, d, scale_q, scale_k, out);
            assert_eq!(s.signature().reason(), None);
            let [q, k, v] = ["q", "k", "v"].map(|name| ints::<i8>(name, n * heads * d));
            let mut y = vec![99; n * heads * d];
            both(&s, &q, &k, &v, &mut y);
            let real = |x: &[i8], scale: f64| -> Vec<f64> { x.iter().map(|&x| f64::from(x) * scale).collect() };
            let float = SoftmaxAttention { batch: 1, n, heads, d, scale: 1.0 };
            let q_real = real(&q, scale_q / (d as f64).sqrt());
            let want = reference(&float, &[q_real, real(&k, scale_k), real(&v, out)]);
            for (i, (&y, want)) in y.iter().zip(want).enumerate() {
                // Half a step of the output, and the weights' errors: one unit of Q15 each at most.
                let bound = 0.5 + 0.1 * out / 8.0;
                assert!((f64::from(y) - want.clamp(-128.0, 127.0)).abs() < bound, "y[{i}] = {y}, right is {want}");
            }
        }
    }

    #[test]
    fn integer_forward_survives_the_extremes() {
        for n in [2, 5000] {
            for value in [-128i8, 127] {
                let mut s = integer(n, 1, 2, 0.1, 0.1, 1.0);
                let x = vec![value; 2 * n];
                let mut y = vec![0; 2 * n];
                both(&s, &x, &x, &x, &mut y);
                assert!(y.iter().all(|&y| y == value), "the mean of equal values is that value");
                (s.multiplier, s.shift, s.out_multiplier, s.out_shift) = (i32::MAX, 16, i32::MAX, 16);
                both(&s, &x, &x, &x, &mut y);
                assert!(y.iter().all(|&y| y == if value < 0 { -128 } else { 127 }));
            }
        }
        let s = integer(4, 1, 2, 0.1, 0.1, 1.0);
        for bad in [
            SoftmaxAttentionI8 { n: (1 << 16) + 1, ..s },
            SoftmaxAttentionI8 { d: 40_000, ..s },
            SoftmaxAttentionI8 { out_shift: 63, ..s },
            SoftmaxAttentionI8 { hi: 128, ..s },
            SoftmaxAttentionI8 { multiplier: -1, ..s },
        ] {
            assert!(bad.signature().reason().is_some());
        }
    }
}
