//! Ordinary attention, `Y = softmax(scale Q K^T) V`: the last stage of the official models, and the
//! yardstick of the others. Streamed: no `n x n` matrix exists.

use super::kernel::Head;
use super::{Operand, Signature, f32s, size};
use crate::arch::{Matrix, matmul, vectorised};
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Reals, assert_close, check_gradients, reals};

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
}
