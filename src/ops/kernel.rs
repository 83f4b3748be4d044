//! The two passes over the tokens: `W = K1^T V` and `Y = K1 U`, where
//! `K1_ij = exp(-|Q_i - L_j|^2 / 2)` relates the `n` tokens to the `m` landmarks (SOFT, Eq. 8 and 9).
//!
//! `K1` is never stored: its rows are made a block at a time, in each pass again, so the extra
//! memory does not depend on `n`.

use super::{Operand, Signature, f32s, size};
use crate::arch::{Matrix, matmul, vectorised};
use crate::math::float::{dot, exp};

/// Rows of `K1` held at a time.
const BLOCK: usize = 64;

const fn block(n: usize) -> usize {
    if n < BLOCK { n } else { BLOCK }
}

/// Half the squared norm of each row of `x`, rows `stride` elements apart.
#[inline(always)]
fn half_norms(x: &[f32], d: usize, stride: usize, norms: &mut [f32]) {
    for (norm, x) in norms.iter_mut().zip(x.chunks(stride)) {
        *norm = 0.5 * dot(&x[..d], &x[..d]);
    }
}

/// One block of `K1`: `k[rows, m]` from tokens `q[rows, d]` and landmarks `l[m, d]`.
///
/// `exp(q.l - |q|^2/2 - |l|^2/2)`, the exponent clamped at 0 where rounding would lift it above.
fn kernel_rows(q: Matrix<'_>, l: Matrix<'_>, l_norms: &[f32], k: &mut [f32]) {
    matmul(q, l.t(), k, false);
    vectorised(
        #[inline(always)]
        || {
            for (k, q_row) in k.chunks_exact_mut(l.rows).zip(q.data.chunks(q.row_stride)) {
                let q_norm = 0.5 * dot(&q_row[..q.cols], &q_row[..q.cols]);
                for (k, l_norm) in k.iter_mut().zip(l_norms) {
                    *k = exp((*k - q_norm - l_norm).min(0.0));
                }
            }
        },
    );
}

shape! {
    /// First pass: `q[batch, n, heads*d]`, `l[batch, m, heads*d]`, `v[batch, n, heads*d]` ->
    /// `w[batch*heads, m, d]`, with scratch.
    pub struct KernelAccumulate {
        /// Images.
        pub batch: usize,
        /// Tokens per image.
        pub n: usize,
        /// Landmarks per image.
        pub m: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl KernelAccumulate {
    /// Inputs `q, l, v`; outputs `w`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, m, heads, d } = *self;
        let (tokens, landmarks) = (f32s(&[batch, n, heads, d]), f32s(&[batch, m, heads, d]));
        Signature::new(&[tokens, landmarks, tokens], &[f32s(&[batch, heads, m, d]), scratch(n, m)])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[2, self.batch, self.heads, self.n, self.m, self.d])
    }
}

/// The norms of the landmarks and a block of `K1`.
const fn scratch(n: usize, m: usize) -> Operand {
    f32s(&[block(n), m]).plus(&[m])
}

/// `w = K1^T v` for each image and head.
pub fn accumulate(s: &KernelAccumulate, q: &[f32], l: &[f32], v: &[f32], w: &mut [f32], scratch: &mut [f32]) {
    let KernelAccumulate { n, m, heads, d, .. } = *s;
    let width = heads * d;
    let (l_norms, k) = scratch.split_at_mut(m);
    w.fill(0.0);
    let images = q.chunks_exact(n * width).zip(l.chunks_exact(m * width)).zip(v.chunks_exact(n * width));
    for (((q, l), v), w) in images.zip(w.chunks_exact_mut(heads * m * d)) {
        for (h, w) in w.chunks_exact_mut(m * d).enumerate() {
            let l = &l[h * d..];
            half_norms(l, d, width, l_norms);
            let l = Matrix::strided(l, m, d, width);
            for (q, v) in q.chunks(BLOCK * width).zip(v.chunks(BLOCK * width)) {
                let rows = q.len() / width;
                let k = &mut k[..rows * m];
                kernel_rows(Matrix::strided(&q[h * d..], rows, d, width), l, l_norms, k);
                matmul(Matrix::new(k, rows, m).t(), Matrix::strided(&v[h * d..], rows, d, width), w, true);
            }
        }
    }
}

shape! {
    /// Backward of [`KernelAccumulate`]: `q, l, v, dw -> dq, dl, dv`, with scratch.
    pub struct KernelAccumulateGrad {
        /// Images.
        pub batch: usize,
        /// Tokens per image.
        pub n: usize,
        /// Landmarks per image.
        pub m: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl KernelAccumulateGrad {
    /// Inputs `q, l, v, dw`; outputs `dq, dl, dv`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, m, heads, d } = *self;
        let (tokens, landmarks) = (f32s(&[batch, n, heads, d]), f32s(&[batch, m, heads, d]));
        Signature::new(
            &[tokens, landmarks, tokens, f32s(&[batch, heads, m, d])],
            &[tokens, landmarks, tokens, grad_scratch(n, m, d)],
        )
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[5, self.batch, self.heads, self.n, self.m, self.d])
    }
}

/// `dv = K1 dw`; with `T = K1 o (v dw^T)`: `dq_i = sum_j T_ij (l_j - q_i)`,
/// `dl_j = sum_i T_ij (q_i - l_j)`. Overwrites all three.
pub fn accumulate_grad(
    s: &KernelAccumulateGrad,
    q: &[f32],
    l: &[f32],
    v: &[f32],
    dw: &[f32],
    dq: &mut [f32],
    dl: &mut [f32],
    dv: &mut [f32],
    scratch: &mut [f32],
) {
    let KernelAccumulateGrad { n, m, heads, d, .. } = *s;
    let width = heads * d;
    let mut parts = GradScratch::split(n, m, d, scratch);
    let inputs = q.chunks_exact(n * width).zip(l.chunks_exact(m * width)).zip(v.chunks_exact(n * width));
    let outputs =
        dq.chunks_exact_mut(n * width).zip(dl.chunks_exact_mut(m * width)).zip(dv.chunks_exact_mut(n * width));
    for ((((q, l), v), ((dq, dl), dv)), dw) in inputs.zip(outputs).zip(dw.chunks_exact(heads * m * d)) {
        for (h, dw) in dw.chunks_exact(m * d).enumerate() {
            let head = Head { h, d, width };
            parts.start(head, l);
            let blocks = q.chunks(BLOCK * width).zip(v.chunks(BLOCK * width));
            let grads = dq.chunks_mut(BLOCK * width).zip(dv.chunks_mut(BLOCK * width));
            for ((q, v), (dq, dv)) in blocks.zip(grads) {
                let rows = parts.block(head, q, l, v, dw, dq);
                matmul(
                    Matrix::new(&parts.k[..rows * m], rows, m),
                    Matrix::new(dw, m, d),
                    &mut parts.rows[..rows * d],
                    false,
                );
                head.store(parts.rows, dv);
            }
            parts.finish(head, l, dl);
        }
    }
}

shape! {
    /// Second pass: `q[batch, n, heads*d]`, `l[batch, m, heads*d]`, `u[batch*heads, m, d]` ->
    /// `y[batch, n, heads*d]`, with scratch.
    pub struct KernelApply {
        /// Images.
        pub batch: usize,
        /// Tokens per image.
        pub n: usize,
        /// Landmarks per image.
        pub m: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl KernelApply {
    /// Inputs `q, l, u`; outputs `y`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, m, heads, d } = *self;
        let (tokens, landmarks) = (f32s(&[batch, n, heads, d]), f32s(&[batch, m, heads, d]));
        Signature::new(&[tokens, landmarks, f32s(&[batch, heads, m, d])], &[tokens, scratch(n, m).plus(&[block(n), d])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[2, self.batch, self.heads, self.n, self.m, self.d])
    }
}

/// `y = K1 u` for each image and head.
pub fn apply(s: &KernelApply, q: &[f32], l: &[f32], u: &[f32], y: &mut [f32], scratch: &mut [f32]) {
    let KernelApply { n, m, heads, d, .. } = *s;
    let width = heads * d;
    let (l_norms, rest) = scratch.split_at_mut(m);
    let (k, y_rows) = rest.split_at_mut(block(n) * m);
    let images = q.chunks_exact(n * width).zip(l.chunks_exact(m * width)).zip(u.chunks_exact(heads * m * d));
    for (((q, l), u), y) in images.zip(y.chunks_exact_mut(n * width)) {
        for (h, u) in u.chunks_exact(m * d).enumerate() {
            let head = Head { h, d, width };
            half_norms(&l[h * d..], d, width, l_norms);
            for (q, y) in q.chunks(BLOCK * width).zip(y.chunks_mut(BLOCK * width)) {
                let rows = q.len() / width;
                let k = &mut k[..rows * m];
                kernel_rows(head.matrix(q), head.matrix(l), l_norms, k);
                matmul(Matrix::new(k, rows, m), Matrix::new(u, m, d), &mut y_rows[..rows * d], false);
                head.store(y_rows, y);
            }
        }
    }
}

shape! {
    /// Backward of [`KernelApply`]: `q, l, u, dy -> dq, dl, du`, with scratch.
    pub struct KernelApplyGrad {
        /// Images.
        pub batch: usize,
        /// Tokens per image.
        pub n: usize,
        /// Landmarks per image.
        pub m: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl KernelApplyGrad {
    /// Inputs `q, l, u, dy`; outputs `dq, dl, du`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, m, heads, d } = *self;
        let (tokens, landmarks) = (f32s(&[batch, n, heads, d]), f32s(&[batch, m, heads, d]));
        let per_head = f32s(&[batch, heads, m, d]);
        Signature::new(&[tokens, landmarks, per_head, tokens], &[tokens, landmarks, per_head, grad_scratch(n, m, d)])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[5, self.batch, self.heads, self.n, self.m, self.d])
    }
}

/// `du = K1^T dy`; with `T = K1 o (dy u^T)`: `dq_i = sum_j T_ij (l_j - q_i)`,
/// `dl_j = sum_i T_ij (q_i - l_j)`. Overwrites all three.
pub fn apply_grad(
    s: &KernelApplyGrad,
    q: &[f32],
    l: &[f32],
    u: &[f32],
    dy: &[f32],
    dq: &mut [f32],
    dl: &mut [f32],
    du: &mut [f32],
    scratch: &mut [f32],
) {
    let KernelApplyGrad { n, m, heads, d, .. } = *s;
    let width = heads * d;
    let mut parts = GradScratch::split(n, m, d, scratch);
    du.fill(0.0);
    let inputs = q.chunks_exact(n * width).zip(l.chunks_exact(m * width)).zip(dy.chunks_exact(n * width));
    let outputs = dq.chunks_exact_mut(n * width).zip(dl.chunks_exact_mut(m * width));
    let small = u.chunks_exact(heads * m * d).zip(du.chunks_exact_mut(heads * m * d));
    for ((((q, l), dy), (dq, dl)), (u, du)) in inputs.zip(outputs).zip(small) {
        for (h, (u, du)) in u.chunks_exact(m * d).zip(du.chunks_exact_mut(m * d)).enumerate() {
            let head = Head { h, d, width };
            parts.start(head, l);
            let blocks = q.chunks(BLOCK * width).zip(dy.chunks(BLOCK * width));
            for ((q, dy), dq) in blocks.zip(dq.chunks_mut(BLOCK * width)) {
                let rows = parts.block(head, q, l, dy, u, dq);
                matmul(Matrix::new(&parts.k[..rows * m], rows, m).t(), head.matrix(dy), du, true);
            }
            parts.finish(head, l, dl);
        }
    }
}

/// Where the channels of one head lie in rows of `width` channels.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) h: usize,
    pub(super) d: usize,
    pub(super) width: usize,
}

impl Head {
    /// The head's channels of every row of `x`.
    pub(super) fn matrix(self, x: &[f32]) -> Matrix<'_> {
        Matrix::strided(&x[self.h * self.d..], x.len() / self.width, self.d, self.width)
    }

    /// Writes contiguous rows of `d` into the head's channels of every row of `x`.
    pub(super) fn store(self, rows: &[f32], x: &mut [f32]) {
        for (x, row) in x.chunks_exact_mut(self.width).zip(rows.chunks_exact(self.d)) {
            x[self.h * self.d..][..self.d].copy_from_slice(row);
        }
    }
}

/// Two blocks of `[rows, m]`, one of `[rows, d]`, the gradient of a head's landmarks, and the norms
/// and column sums of its landmarks.
const fn grad_scratch(n: usize, m: usize, d: usize) -> Operand {
    f32s(&[2, block(n), m]).plus(&[block(n), d]).plus(&[m, d]).plus(&[2, m])
}

struct GradScratch<'a> {
    m: usize,
    /// A block of `K1`.
    k: &'a mut [f32],
    /// A block of `T`.
    t: &'a mut [f32],
    /// A block of rows of a head.
    rows: &'a mut [f32],
    /// `sum_i T_ij q_i` so far.
    dl: &'a mut [f32],
    l_norms: &'a mut [f32],
    /// `sum_i T_ij` so far.
    t_columns: &'a mut [f32],
}

impl<'a> GradScratch<'a> {
    fn split(n: usize, m: usize, d: usize, scratch: &'a mut [f32]) -> Self {
        let (k, rest) = scratch.split_at_mut(block(n) * m);
        let (t, rest) = rest.split_at_mut(block(n) * m);
        let (rows, rest) = rest.split_at_mut(block(n) * d);
        let (dl, rest) = rest.split_at_mut(m * d);
        let (l_norms, t_columns) = rest.split_at_mut(m);
        Self { m, k, t, rows, dl, l_norms, t_columns }
    }

    fn start(&mut self, head: Head, l: &[f32]) {
        half_norms(&l[head.h * head.d..], head.d, head.width, self.l_norms);
        self.dl.fill(0.0);
        self.t_columns.fill(0.0);
    }

    /// Makes a block of `K1` and of `T = K1 o (x g^T)`, adds its part of `dl`, writes its rows of
    /// `dq`; returns the number of rows.
    fn block(&mut self, head: Head, q: &[f32], l: &[f32], x: &[f32], g: &[f32], dq: &mut [f32]) -> usize {
        let Head { d, width, .. } = head;
        let (m, rows) = (self.m, q.len() / width);
        let (k, t, dq_rows) = (&mut self.k[..rows * m], &mut self.t[..rows * m], &mut self.rows[..rows * d]);
        kernel_rows(head.matrix(q), head.matrix(l), self.l_norms, k);
        matmul(head.matrix(x), Matrix::new(g, m, d).t(), t, false);
        for (t, k) in t.chunks_exact_mut(m).zip(k.chunks_exact(m)) {
            for ((t, k), column) in t.iter_mut().zip(k).zip(self.t_columns.iter_mut()) {
                *t *= k;
                *column += *t;
            }
        }
        let t_matrix = Matrix::new(t, rows, m);
        matmul(t_matrix.t(), head.matrix(q), self.dl, true);
        matmul(t_matrix, head.matrix(l), dq_rows, false);
        let tokens = q.chunks_exact(width).zip(dq.chunks_exact_mut(width));
        for ((q, dq), (dq_row, t)) in tokens.zip(dq_rows.chunks_exact(d).zip(t.chunks_exact(m))) {
            let sum: f32 = t.iter().sum();
            let (q, dq) = (&q[head.h * d..][..d], &mut dq[head.h * d..][..d]);
            for ((dq, q), tl) in dq.iter_mut().zip(q).zip(dq_row) {
                *dq = tl - sum * q;
            }
        }
        rows
    }

    /// Writes the gradient of the head's landmarks.
    fn finish(&self, head: Head, l: &[f32], dl: &mut [f32]) {
        let Head { h, d, width } = head;
        let landmarks = l.chunks_exact(width).zip(dl.chunks_exact_mut(width));
        for (((l, dl), tq), sum) in landmarks.zip(self.dl.chunks_exact(d)).zip(&*self.t_columns) {
            for ((dl, l), tq) in dl[h * d..][..d].iter_mut().zip(&l[h * d..][..d]).zip(tq) {
                *dl = tq - sum * l;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Reals, assert_close, check_gradients, reals};

    const SHAPES: [[usize; 5]; 5] =
        [[1, 1, 1, 1, 1], [2, 5, 3, 2, 3], [1, 64, 2, 1, 4], [1, 70, 4, 2, 5], [2, 129, 3, 1, 9]];

    /// `K1` of every image and head, `[batch, heads, n, m]`.
    fn k1(s: &KernelApply, q: &[f64], l: &[f64]) -> Vec<f64> {
        let KernelApply { batch, n, m, heads, d } = *s;
        let mut k = Vec::new();
        for b in 0..batch {
            for h in 0..heads {
                for i in 0..n {
                    for j in 0..m {
                        let (q, l) =
                            (&q[((b * n + i) * heads + h) * d..][..d], &l[((b * m + j) * heads + h) * d..][..d]);
                        k.push((-q.iter().zip(l).map(|(q, l)| (q - l).powi(2)).sum::<f64>() / 2.0).exp());
                    }
                }
            }
        }
        k
    }

    fn accumulate_reference(s: &KernelApply, t: &[Vec<f64>]) -> Vec<f64> {
        let KernelApply { batch, n, m, heads, d } = *s;
        let k = k1(s, &t[0], &t[1]);
        let mut w = Vec::new();
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            for (j, c) in (0..m).flat_map(|j| (0..d).map(move |c| (j, c))) {
                let term = |i: usize| k[((b * heads + h) * n + i) * m + j] * t[2][((b * n + i) * heads + h) * d + c];
                w.push((0..n).map(term).sum());
            }
        }
        w
    }

    fn apply_reference(s: &KernelApply, t: &[Vec<f64>]) -> Vec<f64> {
        let KernelApply { batch, n, m, heads, d } = *s;
        let k = k1(s, &t[0], &t[1]);
        let mut y = Vec::new();
        for (b, i) in (0..batch).flat_map(|b| (0..n).map(move |i| (b, i))) {
            for (h, c) in (0..heads).flat_map(|h| (0..d).map(move |c| (h, c))) {
                let term = |j: usize| k[((b * heads + h) * n + i) * m + j] * t[2][((b * heads + h) * m + j) * d + c];
                y.push((0..m).map(term).sum());
            }
        }
        y
    }

    fn scratch_of(signature: Signature) -> Vec<f32> {
        vec![9.0; signature.output(signature.n_outs() - 1).len as usize]
    }

    #[test]
    fn accumulate_and_its_backward_match_the_reference() {
        for [batch, n, m, heads, d] in SHAPES {
            let s = KernelApply { batch, n, m, heads, d };
            let (tokens, landmarks) = (batch * n * heads * d, batch * m * heads * d);
            let inputs = [reals("q", tokens), reals("l", landmarks), reals("v", tokens)];
            let [q, l, v] = inputs.each_ref().map(Reals::f32);
            let forward = KernelAccumulate { batch, n, m, heads, d };
            let mut w = vec![9.0; landmarks];
            accumulate(&forward, &q, &l, &v, &mut w, &mut scratch_of(forward.signature()));
            assert_close("w", &w, &accumulate_reference(&s, &inputs.each_ref().map(Reals::f64)), 2e-6);
            check_gradients(
                &inputs,
                w.len(),
                |t| accumulate_reference(&s, t),
                |dw| {
                    let s = KernelAccumulateGrad { batch, n, m, heads, d };
                    let (mut dq, mut dl, mut dv) = (vec![9.0; tokens], vec![9.0; landmarks], vec![9.0; tokens]);
                    let mut scratch = scratch_of(s.signature());
                    accumulate_grad(&s, &q, &l, &v, dw, &mut dq, &mut dl, &mut dv, &mut scratch);
                    vec![dq, dl, dv]
                },
            );
        }
    }

    #[test]
    fn apply_and_its_backward_match_the_reference() {
        for [batch, n, m, heads, d] in SHAPES {
            let s = KernelApply { batch, n, m, heads, d };
            let (tokens, landmarks) = (batch * n * heads * d, batch * m * heads * d);
            let inputs = [reals("q", tokens), reals("l", landmarks), reals("u", landmarks)];
            let [q, l, u] = inputs.each_ref().map(Reals::f32);
            let mut y = vec![9.0; tokens];
            apply(&s, &q, &l, &u, &mut y, &mut scratch_of(s.signature()));
            assert_close("y", &y, &apply_reference(&s, &inputs.each_ref().map(Reals::f64)), 2e-6);
            check_gradients(
                &inputs,
                y.len(),
                |t| apply_reference(&s, t),
                |dy| {
                    let s = KernelApplyGrad { batch, n, m, heads, d };
                    let (mut dq, mut dl, mut du) = (vec![9.0; tokens], vec![9.0; landmarks], vec![9.0; landmarks]);
                    let mut scratch = scratch_of(s.signature());
                    apply_grad(&s, &q, &l, &u, dy, &mut dq, &mut dl, &mut du, &mut scratch);
                    vec![dq, dl, du]
                },
            );
        }
    }

    #[test]
    fn a_token_on_a_landmark_has_kernel_one() {
        // Far from the origin the norms cancel badly; the kernel must still not exceed 1.
        let d = 8;
        let q: Vec<f32> = reals("q", d).f32().iter().map(|v| 30.0 + v).collect();
        let s = KernelApply { batch: 1, n: 1, m: 1, heads: 1, d };
        let mut y = vec![0.0; d];
        apply(&s, &q, &q, &[1.0; 8], &mut y, &mut scratch_of(s.signature()));
        assert!(y.iter().all(|&y| (0.99..=1.0).contains(&y)), "{y:?}");
    }
}
