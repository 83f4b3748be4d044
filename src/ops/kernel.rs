//! The two passes over the tokens: `W = K1^T V` and `Y = K1 U`, where
//! `K1_ij = exp(-|Q_i - L_j|^2 / 2)` relates the `n` tokens to the `m` landmarks (SOFT, Eq. 8 and 9).
//!
//! `K1` is never stored: its rows are made a block at a time, in each pass again, so the extra
//! memory does not depend on `n`.

use super::gram::kernel_fault;
use super::{Operand, Part, Rows, Signature, f32s, i8s, i16s, i32s, size};
use crate::arch::{
    Kernel, Matrix, Outputs, Plan, ToI8, kernel_accumulate, kernel_apply, matmul, scaled, vectorised, vectorised_wide,
};
use crate::math::fixed::{MAX_SHIFT, MIN_SHIFT, exp2_neg_scaled, round_shift_i32};
use crate::math::float::{exp, sum};

/// Rows of `K1` held at a time.
const BLOCK: usize = 64;

const fn block(n: usize) -> usize {
    if n < BLOCK { n } else { BLOCK }
}

/// Half the squared norm of each row of `x`, rows `stride` elements apart.
#[inline(always)]
fn half_norms(x: &[f32], d: usize, stride: usize, norms: &mut [f32]) {
    for (norm, x) in norms.iter_mut().zip(x.chunks(stride)) {
        *norm = half_norm(&x[..d]);
    }
}

/// Half the squared norm, in four lanes: heads are narrow.
#[inline(always)]
fn half_norm(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<4>();
    let mut lanes = [0.0; 4];
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane += x * x;
        }
    }
    let rest: f32 = rest.iter().map(|x| x * x).sum();
    0.5 * ((lanes[0] + lanes[2]) + (lanes[1] + lanes[3]) + rest)
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
                let q_norm = half_norm(&q_row[..q.cols]);
                for (k, l_norm) in k.iter_mut().zip(l_norms) {
                    // In this order: where the two are close, both differences are exact.
                    *k = *k - q_norm - l_norm;
                }
            }
        },
    );
    vectorised_wide(
        #[inline(always)]
        || {
            for k in k {
                *k = exp(k.min(0.0));
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

    /// The head's channels of one row.
    #[inline(always)]
    pub(super) fn channels<T>(self, row: &[T]) -> &[T] {
        &row[self.h * self.d..][..self.d]
    }

    /// The head's channels of one row, to write.
    #[inline(always)]
    pub(super) fn channels_mut<T>(self, row: &mut [T]) -> &mut [T] {
        &mut row[self.h * self.d..][..self.d]
    }

    /// Writes contiguous rows of `d` into the head's channels of every row of `x`.
    pub(super) fn store(self, rows: &[f32], x: &mut [f32]) {
        for (x, row) in x.chunks_exact_mut(self.width).zip(rows.chunks_exact(self.d)) {
            self.channels_mut(x).copy_from_slice(row);
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
        vectorised(
            #[inline(always)]
            || {
                for (t, k) in t.chunks_exact_mut(m).zip(k.chunks_exact(m)) {
                    for ((t, k), column) in t.iter_mut().zip(k).zip(self.t_columns.iter_mut()) {
                        *t *= k;
                        *column += *t;
                    }
                }
            },
        );
        let t_matrix = Matrix::new(t, rows, m);
        matmul(t_matrix.t(), head.matrix(q), self.dl, true);
        matmul(t_matrix, head.matrix(l), dq_rows, false);
        vectorised(
            #[inline(always)]
            || {
                let tokens = q.chunks_exact(width).zip(dq.chunks_exact_mut(width));
                for ((q, dq), (dq_row, t)) in tokens.zip(dq_rows.chunks_exact(d).zip(t.chunks_exact(m))) {
                    let sum = sum(t, |t| t);
                    for ((dq, q), tl) in head.channels_mut(dq).iter_mut().zip(head.channels(q)).zip(dq_row) {
                        *dq = tl - sum * q;
                    }
                }
            },
        );
        rows
    }

    /// Writes the gradient of the head's landmarks.
    fn finish(&self, head: Head, l: &[f32], dl: &mut [f32]) {
        let Head { d, width, .. } = head;
        let landmarks = l.chunks_exact(width).zip(dl.chunks_exact_mut(width));
        for (((l, dl), tq), sum) in landmarks.zip(self.dl.chunks_exact(d)).zip(&*self.t_columns) {
            for ((dl, l), tq) in head.channels_mut(dl).iter_mut().zip(head.channels(l)).zip(tq) {
                *dl = tq - sum * l;
            }
        }
    }
}

/// Tokens whose sums `sum k v` fit 32 bits: `512 * 32767 * 128 = 2^31 - 2^16`.
const UNSHIFTED_TOKENS: usize = 512;

/// The integer `K1` of a head, and the squared norms of its landmarks.
struct IntegerRows<'a> {
    k: Kernel<'a>,
    l_norms: &'a mut [i32],
}

impl<'a> IntegerRows<'a> {
    #[inline(always)]
    fn new(k: Kernel<'a>, l_norms: &'a mut [i32]) -> Self {
        for (norm, l) in l_norms.iter_mut().zip(k.l.chunks_exact(k.width)) {
            let l = channels(&k, l);
            *norm = dot_i8(l, l);
        }
        Self { k, l_norms }
    }

    /// One token's row of `K1` in Q15.
    #[inline(always)]
    fn row(&self, token: &[i8]) -> impl Iterator<Item = i32> {
        let q = channels(&self.k, token);
        let q_norm = dot_i8(q, q);
        self.landmarks().map(move |landmark| self.value(q, q_norm, landmark))
    }

    /// Each landmark and its squared norm.
    #[inline(always)]
    fn landmarks(&self) -> impl Iterator<Item = (&[i8], i32)> {
        self.k.l.chunks_exact(self.k.width).map(|l| channels(&self.k, l)).zip(self.l_norms.iter().copied())
    }

    /// The value of two rows of which the squared norms are known.
    #[inline(always)]
    fn value(&self, q: &[i8], q_norm: i32, (l, l_norm): (&[i8], i32)) -> i32 {
        let distance = q_norm + l_norm - 2 * dot_i8(q, l);
        exp2_neg_scaled(distance, self.k.multiplier, self.k.shift)
    }
}

/// The head's channels of one row.
#[inline(always)]
fn channels<'x>(k: &Kernel<'_>, row: &'x [i8]) -> &'x [i8] {
    &row[k.first..][..k.d]
}

#[inline(always)]
pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

shape! {
    /// Integer [`KernelAccumulate`] of one image: `q i8[n, heads*d]`, `l i8[m, heads*d]`,
    /// `v i8[n, heads*d]` -> `w i32[heads, m, d]`, with scratch.
    ///
    /// With `k_ij = exp2_neg_scaled(sum_c (q_ic - l_jc)^2, multiplier, shift)` in Q15 (the factor is that
    /// of [`GramI8`](super::gram::GramI8): `q` and `l` share one scale), each group of tokens from the
    /// first gives an exact sum `B_jc = sum_i k_ij v_ic`, and
    /// `w_jc` is the sum over the groups of `round_shift(B_jc, w_shift)`. A group has 16 tokens where `m <= 16` or
    /// `d < 32`, else 32. One unit of `w` is
    /// `2^(w_shift - 15)` units of `v`. Neither sum can overflow, see [`Self::w_shift`]. Up to 512 tokens `w_shift` is 0
    /// and `w` is exact.
    pub struct AccumulateI8 {
        /// Tokens, at most 2^25.
        pub n: usize,
        /// Landmarks.
        pub m: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head, at most [`MAX_WIDTH`](super::gram::MAX_WIDTH).
        pub d: usize,
        /// Mantissa of the exponent's factor.
        pub multiplier: i32,
        /// Right shift of the exponent's factor.
        pub shift: i32,
        /// [`Self::w_shift`] of `n`.
        pub w_shift: i32,
    }
}

impl AccumulateI8 {
    /// The shift of the sums of `n` tokens: 0 for up to 512; for more the smallest `s`, from 2, with `n <= 512 * 2^s`.
    /// It is not 1, for which a core's multiplication by `2^(32-s)` would not fit 32 bits.
    ///
    /// 512 tokens sum to `2^31 - 2^16` at most. A group of `g` sums to no less than `-g * 32767 * 128 > -g * 2^22` and to
    /// `g * 32767 * 127` at most: with `s` up to 16 it is rounded to no less than `-g * 2^(22-s)`, so that all groups, at most
    /// `512 * 2^s / g`, sum to no less than `-2^31`; and to `g * 32767 * 127 / 2^s + 1/2` at most, so that all sum to
    /// `512 * 32767 * 127 + 256 * 2^s / g < 2^31` at most.
    pub const fn w_shift(n: usize) -> i32 {
        let blocks = n.div_ceil(UNSHIFTED_TOKENS);
        match blocks {
            0 | 1 => 0,
            2..=4 => 2,
            _ => (usize::BITS - (blocks - 1).leading_zeros()) as i32,
        }
    }

    /// Tokens of a row: groups are not divided.
    const fn tokens_of_row(&self) -> usize {
        if self.w_shift == 0 { 1 } else { Plan { m: self.m, d: self.d }.group() }
    }

    /// Inputs `q, l, v`; outputs `w`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { n, m, heads, d, multiplier, shift, w_shift } = *self;
        if let Some(fault) = kernel_fault(d, multiplier, shift) {
            return Signature::invalid(fault);
        }
        if n > 1 << 25 {
            return Signature::invalid("an integer kernel takes at most 2^25 tokens");
        }
        if w_shift != Self::w_shift(n) {
            return Signature::invalid("the shift of W is not the one its number of tokens needs");
        }
        let tokens = i8s(&[n, heads, d]);
        let scratch = i32s(&[Plan { m, d }.accumulate()]);
        Signature::new(&[tokens, i8s(&[m, heads, d]), tokens], &[i32s(&[heads, m, d]), scratch])
    }

    /// Rows that can be computed by themselves, in order: the tokens, or with a shift the groups of tokens, for one head
    /// after the other.
    pub const fn rows(&self) -> usize {
        size(&[self.heads, self.n.div_ceil(self.tokens_of_row())]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[2, self.heads, self.n, self.m, self.d])
    }
}

/// Some rows of the first pass in integers, exactly as [`AccumulateI8`] says. What a head sums to so far stays in `w`.
pub fn accumulate_i8(
    s: &AccumulateI8,
    part: &impl Part,
    q: &[i8],
    l: &[i8],
    v: &[i8],
    w: &mut [i32],
    scratch: &mut [i32],
) {
    accumulate_heads(s, part, l, q, v, w, |k, q, v, w, w_shift| {
        kernel_accumulate(
            k,
            q,
            v,
            w,
            w_shift,
            scratch,
            #[inline(always)]
            |w, scratch| accumulate_plain(k, q, v, w, w_shift, scratch),
        );
    });
}

/// Has `add(kernel, q, v, w, w_shift)` add the tokens of each head.
#[inline(always)]
fn accumulate_heads(
    s: &AccumulateI8,
    part: &impl Part,
    l: &[i8],
    q: &[i8],
    v: &[i8],
    w: &mut [i32],
    mut add: impl FnMut(&Kernel<'_>, &[i8], &[i8], &mut [i32], u32),
) {
    let AccumulateI8 { n, m, heads, d, multiplier, shift, w_shift } = *s;
    let (width, tokens) = (heads * d, s.tokens_of_row());
    for (h, w) in w.chunks_exact_mut(m * d).enumerate() {
        let k = Kernel { l, width, first: h * d, d, multiplier, shift: shift as u32 };
        let rows = n.div_ceil(tokens);
        let rows = part.group(h, rows).rows(rows);
        if rows.is_empty() {
            continue;
        }
        if rows.start == 0 {
            w.fill(0);
        }
        let part = Rows(rows);
        add(&k, part.cut(q, tokens * width), part.cut(v, tokens * width), w, w_shift as u32);
    }
}

/// `w += K1^T v`, the sum of each group of tokens shifted.
#[inline(always)]
fn accumulate_plain(k: &Kernel<'_>, q: &[i8], v: &[i8], w: &mut [i32], w_shift: u32, scratch: &mut [i32]) {
    let m = k.l.len() / k.width;
    let (l_norms, rest) = scratch.split_at_mut(m);
    let rows = IntegerRows::new(*k, l_norms);
    if w_shift == 0 {
        for (q, v) in q.chunks_exact(k.width).zip(v.chunks_exact(k.width)) {
            for (value, w) in rows.row(q).zip(w.chunks_exact_mut(k.d)) {
                add_product(value, channels(k, v), w);
            }
        }
        return;
    }
    let group = Plan { m, d: k.d }.group();
    let (norms, rest) = rest.split_at_mut(group);
    let sums = &mut rest[..k.d];
    for (q, v) in q.chunks(group * k.width).zip(v.chunks(group * k.width)) {
        for (norm, q) in norms.iter_mut().zip(q.chunks_exact(k.width)) {
            let q = channels(k, q);
            *norm = dot_i8(q, q);
        }
        for (landmark, w) in rows.landmarks().zip(w.chunks_exact_mut(k.d)) {
            sums.fill(0);
            for ((q, &norm), v) in q.chunks_exact(k.width).zip(&*norms).zip(v.chunks_exact(k.width)) {
                add_product(rows.value(channels(k, q), norm, landmark), channels(k, v), sums);
            }
            for (w, &sum) in w.iter_mut().zip(&*sums) {
                *w += round_shift_i32(sum, w_shift);
            }
        }
    }
}

#[inline(always)]
fn add_product(value: i32, v: &[i8], sums: &mut [i32]) {
    for (sum, &v) in sums.iter_mut().zip(v) {
        *sum += value * i32::from(v);
    }
}

shape! {
    /// Integer [`KernelApply`] of one image: `q i8[n, heads*d]`, `l i8[m, heads*d]`,
    /// `u i16[heads, m, d]`, `e i32[heads, d]` -> `y i8[n, heads*d]`, with scratch.
    ///
    /// `u` and `e` are those of [`NarrowI16`](super::solve::NarrowI16) or
    /// [`ProductQ22`](super::product::ProductQ22), whose bound on the columns of
    /// `u` keeps `S = sum_j k_ij u_jc` inside 32 bits (of any other `u` it wraps); `k_ij` is that of [`AccumulateI8`]. With
    /// `t = out_shift + 37 - e_c` (the 37 are `k`'s 15 fraction bits and the 22 of `u` at `e = 0`):
    /// `y_ic = clamp(zero + round_shift(S out_multiplier, max(t, 0)), lo, hi)`, and `clamp(zero, lo, hi)` where
    /// `t > 62`; exact in 64 bits.
    ///
    /// `out_multiplier / 2^out_shift` turns units of `w` into units of `y`:
    /// `2^(w_shift - 15) * scale_v / scale_y`.
    pub struct ApplyI8 {
        /// Tokens.
        pub n: usize,
        /// Landmarks.
        pub m: usize,
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

impl ApplyI8 {
    /// Inputs `q, l, u, e`; outputs `y`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { n, m, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi } = *self;
        if let Some(fault) = kernel_fault(d, multiplier, shift) {
            return Signature::invalid(fault);
        }
        if let Some(fault) = output_fault(out_multiplier, out_shift, zero, lo, hi) {
            return Signature::invalid(fault);
        }
        let tokens = i8s(&[n, heads, d]);
        let ins = [tokens, i8s(&[m, heads, d]), i16s(&[heads, m, d]), i32s(&[heads, d])];
        Signature::new(&ins, &[tokens, i32s(&[Plan { m, d }.apply()])])
    }

    /// Rows that can be computed by themselves: the tokens, for one head after the other.
    pub const fn rows(&self) -> usize {
        size(&[self.heads, self.n]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[2, self.heads, self.n, self.m, self.d])
    }
}

/// What is wrong with the requantisation to int8 of an attention op, if anything is.
pub(super) const fn output_fault(multiplier: i32, shift: i32, zero: i32, lo: i32, hi: i32) -> Option<&'static str> {
    if multiplier < 0 || shift < MIN_SHIFT as i32 || shift > MAX_SHIFT as i32 {
        Some("the output factor of an attention op is negative or its shift is outside 16 to 62")
    } else if lo < -128 || hi > 127 || lo > hi || zero < -128 || zero > 127 {
        Some("the output range or zero point of an attention op leaves int8")
    } else {
        None
    }
}

/// Some rows of the second pass in integers, exactly as [`ApplyI8`] says.
pub fn apply_i8(
    s: &ApplyI8,
    part: &impl Part,
    q: &[i8],
    l: &[i8],
    u: &[i16],
    e: &[i32],
    y: &mut [i8],
    scratch: &mut [i32],
) {
    for_heads(s, part, l, u, e, |k, part, u, outputs| {
        let q = part.cut(q, k.width);
        kernel_apply(
            k,
            q,
            u,
            outputs,
            part.cut_mut(y, k.width),
            scratch,
            #[inline(always)]
            |y, scratch| apply_plain(k, q, u, outputs, y, scratch),
        );
    });
}

/// Calls `apply(kernel, tokens, u, outputs)` for each head of which there are rows.
#[inline(always)]
fn for_heads<P: Part>(
    s: &ApplyI8,
    part: &P,
    l: &[i8],
    u: &[i16],
    e: &[i32],
    mut apply: impl FnMut(&Kernel<'_>, &P, &[i16], Outputs<'_>),
) {
    let ApplyI8 { n, m, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi } = *s;
    for (h, (u, e)) in u.chunks_exact(m * d).zip(e.chunks_exact(d)).enumerate() {
        let part = part.group(h, n);
        if part.is_empty() {
            continue;
        }
        let k = Kernel { l, width: heads * d, first: h * d, d, multiplier, shift: shift as u32 };
        let outputs = Outputs { multiplier: out_multiplier, shift: out_shift + 37, e, to: ToI8 { zero, lo, hi } };
        apply(&k, &part, u, outputs);
    }
}

/// `y = K1 u` for one head.
#[inline(always)]
fn apply_plain(k: &Kernel<'_>, q: &[i8], u: &[i16], outputs: Outputs<'_>, y: &mut [i8], scratch: &mut [i32]) {
    let (l_norms, rest) = scratch.split_at_mut(k.l.len() / k.width);
    let sums = &mut rest[..k.d];
    let rows = IntegerRows::new(*k, l_norms);
    for (q, y) in q.chunks_exact(k.width).zip(y.chunks_exact_mut(k.width)) {
        sums.fill(0);
        for (value, u) in rows.row(q).zip(u.chunks_exact(k.d)) {
            for (sum, &u) in sums.iter_mut().zip(u) {
                // Wraps only for a `u` that is of neither.
                *sum = sum.wrapping_add(value * i32::from(u));
            }
        }
        for ((y, &sum), &e) in y[k.first..][..k.d].iter_mut().zip(&*sums).zip(outputs.e) {
            *y = scaled(sum, outputs.multiplier, outputs.shift.saturating_sub(e), outputs.to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{kernel_accumulate_by_words, kernel_apply_by_words};
    use crate::math::fixed::{Multiplier, exp2_neg};
    use crate::math::random::Stream;
    use crate::ops::Whole;
    use crate::ops::testing::{Reals, assert_close, check_gradients, ints, reals};
    use crate::ops::{gram, inverse, product, solve};

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

    /// `2^16 log2(e) scale^2 / 2`.
    fn exponent(scale: f64) -> (i32, i32) {
        let factor = Multiplier::from_f64(65536.0 * core::f64::consts::LOG2_E * scale * scale / 2.0).unwrap();
        (factor.value, factor.shift as i32)
    }

    fn accumulate_int(s: &AccumulateI8, q: &[i8], l: &[i8], v: &[i8]) -> Vec<i32> {
        assert_eq!(s.signature().reason(), None);
        let (mut w, mut by_words) = (vec![9; s.heads * s.m * s.d], vec![9; s.heads * s.m * s.d]);
        let scratch = vec![9; s.signature().output(1).len as usize];
        accumulate_i8(s, &Whole, q, l, v, &mut w, &mut scratch.clone());
        let mut scratch = scratch;
        accumulate_heads(s, &Whole, l, q, v, &mut by_words, |k, q, v, w, w_shift| {
            kernel_accumulate_by_words(k, q, v, w, w_shift, &mut scratch);
        });
        assert_eq!(by_words, w);
        w
    }

    fn apply_int(s: &ApplyI8, q: &[i8], l: &[i8], u: &[i16], e: &[i32]) -> Vec<i8> {
        assert_eq!(s.signature().reason(), None);
        let (mut y, mut by_words) = (vec![9; s.n * s.heads * s.d], vec![9; s.n * s.heads * s.d]);
        let mut scratch = vec![9; s.signature().output(1).len as usize];
        apply_i8(s, &Whole, q, l, u, e, &mut y, &mut scratch);
        scratch.fill(9);
        for_heads(s, &Whole, l, u, e, |k, _, u, outputs| {
            kernel_apply_by_words(k, q, u, outputs, &mut by_words, &mut scratch);
        });
        assert_eq!(by_words, y);
        y
    }

    #[test]
    fn both_passes_are_the_plain_ones_whatever_the_shape() {
        for (n, heads) in [(1, 1), (4, 2), (37, 1), (530, 2)] {
            for (m, d) in [(1, 1), (2, 3), (4, 40), (5, 8), (9, 5), (16, 32), (17, 33), (49, 7)] {
                for (multiplier, shift) in [exponent(0.02), exponent(0.3), exponent(2e-5), (i32::MAX, 16), (3, 20)] {
                    let (tokens, landmarks) = (n * heads * d, m * heads * d);
                    let (q, l, v) = (ints("q", tokens), ints("l", landmarks), ints("v", tokens));
                    let w_shift = AccumulateI8::w_shift(n);
                    accumulate_int(&AccumulateI8 { n, m, heads, d, multiplier, shift, w_shift }, &q, &l, &v);
                    let u: Vec<i16> = ints::<i16>("u", landmarks).iter().map(|u| u / m as i16).collect();
                    // Some columns have the usual form of requantisation, some do not.
                    let e: Vec<i32> = (0..heads * d).map(|c| 10 + 9 * (c as i32 % 5)).collect();
                    let (out_multiplier, out_shift, zero) = (1_400_000_000, 30, -3);
                    for (lo, hi) in [(-100, 127), (-128, 90)] {
                        let s = ApplyI8 { n, m, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi };
                        apply_int(&s, &q, &l, &u, &e);
                    }
                }
            }
        }
    }

    /// The documented value of one kernel entry.
    fn k_q15(q: &[i8], l: &[i8], multiplier: i32, shift: i32) -> i64 {
        let distance: i64 = q.iter().zip(l).map(|(&q, &l)| (i64::from(q) - i64::from(l)).pow(2)).sum();
        let t = (i128::from(distance) * i128::from(multiplier) + (1 << (shift - 1))) >> shift;
        i64::from(exp2_neg(t.min(1 << 20) as u32))
    }

    #[test]
    fn integer_passes_are_what_their_docs_say() {
        let shapes = [(1, 1, 1, 1), (7, 3, 2, 5), (512, 2, 1, 3), (513, 2, 1, 3), (1600, 3, 2, 4), (600, 17, 2, 32)];
        for (n, m, heads, d) in shapes {
            let size = if m > 16 && d >= 32 { 32 } else { 16 };
            let (multiplier, shift) = exponent(0.02);
            let (tokens, landmarks) = (n * heads * d, m * heads * d);
            let (q, l, v) = (ints::<i8>("q", tokens), ints::<i8>("l", landmarks), ints::<i8>("v", tokens));
            let w_shift = AccumulateI8::w_shift(n);
            let w = accumulate_int(&AccumulateI8 { n, m, heads, d, multiplier, shift, w_shift }, &q, &l, &v);
            let u: Vec<i16> = ints::<i16>("u", landmarks).iter().map(|u| u / m as i16).collect();
            let e: Vec<i32> = (0..heads * d).map(|c| 14 + c as i32 % 5).collect();
            let (out_multiplier, out_shift, zero, lo, hi) = (1_400_000_000, 40, -3, -100, 90);
            let s = ApplyI8 { n, m, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi };
            let y = apply_int(&s, &q, &l, &u, &e);
            for (h, c) in (0..heads).flat_map(|h| (0..d).map(move |c| (h, c))) {
                let k = |i: usize, j: usize| {
                    k_q15(&q[(i * heads + h) * d..][..d], &l[(j * heads + h) * d..][..d], multiplier, shift)
                };
                let channel = |i: usize| (i * heads + h) * d + c;
                for j in 0..m {
                    let group = |from: usize| -> i64 {
                        let sum: i64 = (from..n.min(from + size)).map(|i| k(i, j) * i64::from(v[channel(i)])).sum();
                        if w_shift == 0 { sum } else { (sum + (1 << (w_shift - 1))) >> w_shift }
                    };
                    let want: i64 = (0..n).step_by(size).map(group).sum();
                    assert_eq!(i64::from(w[(h * m + j) * d + c]), want);
                }
                for i in 0..n {
                    let sum: i64 = (0..m).map(|j| k(i, j) * i64::from(u[(h * m + j) * d + c])).sum();
                    let t = out_shift + 37 - e[h * d + c];
                    let scaled = (i128::from(sum) * i128::from(out_multiplier) + (1 << (t - 1))) >> t;
                    assert_eq!(i128::from(y[channel(i)]), (scaled + zero as i128).clamp(lo as i128, hi as i128));
                }
            }
        }
    }

    #[test]
    fn no_number_of_tokens_overflows() {
        assert_eq!([1, 512, 513, 2048, 2049, 1 << 25].map(AccumulateI8::w_shift), [0, 0, 2, 2, 3, 16]);
        let (m, heads, d) = (2, 1, 3);
        for n in [196, 512, 5000] {
            for value in [-128i8, 127] {
                let (q, l) = (vec![value; n * d], vec![value; m * d]);
                let w_shift = AccumulateI8::w_shift(n);
                let s = AccumulateI8 { n, m, heads, d, multiplier: i32::MAX, shift: 16, w_shift };
                let w = accumulate_int(&s, &q, &l, &q);
                let exact = 32767.0 * f64::from(value) * n as f64 / 2f64.powi(w_shift);
                assert!(w.iter().all(|&w| (f64::from(w) - exact).abs() < n as f64), "{w:?}, right is {exact}");
            }
        }
        // The most a column of U may hold, kernels of 1, and factors and exponents at their ends.
        let (n, multiplier, shift) = (3, i32::MAX, 16);
        let (q, l, u) = (vec![5; n * d], vec![5; m * d], vec![-32767; m * d]);
        for (out_multiplier, out_shift, e, want) in [
            (i32::MAX, 16, 62, -128),
            (i32::MAX, 16, i32::MAX, -128),
            (i32::MAX, 62, 0, 7),
            (i32::MAX, 62, i32::MIN, 7),
            (0, 16, 62, 7),
        ] {
            let (zero, lo, hi) = (7, -128, 127);
            let s = ApplyI8 { n, m, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi };
            assert_eq!(apply_int(&s, &q, &l, &u, &[e; 3]), vec![want; n * d]);
        }
    }

    #[test]
    fn impossible_integer_shapes_are_refused() {
        let s = AccumulateI8 { n: 600, m: 4, heads: 1, d: 8, multiplier: 1 << 30, shift: 40, w_shift: 2 };
        assert_eq!(s.signature().reason(), None);
        for bad in [
            AccumulateI8 { w_shift: 0, ..s },
            AccumulateI8 { n: 1 << 26, w_shift: 17, ..s },
            AccumulateI8 { d: 40_000, ..s },
            AccumulateI8 { multiplier: -5, ..s },
            AccumulateI8 { shift: 63, ..s },
        ] {
            assert!(bad.signature().reason().is_some(), "{bad:?}");
        }
    }

    /// `side * side` tokens of smooth random fields, in int8.
    fn smooth(name: u64, side: usize, channels: usize, amplitude: f64) -> Vec<i8> {
        const WAVES: usize = 6;
        let s = Stream::new(name);
        let mut x = vec![0.0; side * side * channels];
        for c in 0..channels {
            for wave in 0..WAVES {
                let r = |k: usize| f64::from(s.uniform(((c * WAVES + wave) * 3 + k) as u64));
                let (fx, fy, phase) = (2.0 * r(0) - 1.0, 2.0 * r(1) - 1.0, r(2));
                for at in 0..side * side {
                    let (i, j) = ((at / side) as f64 / side as f64, (at % side) as f64 / side as f64);
                    x[at * channels + c] += (core::f64::consts::TAU * (1.5 * (fx * i + fy * j) + phase)).cos();
                }
            }
        }
        let norm = amplitude / (WAVES as f64 / 2.0).sqrt();
        x.iter().map(|x| (x * norm).round().clamp(-127.0, 127.0) as i8).collect()
    }

    /// The mean of each cell of `grid * grid` cells.
    fn pooled(x: &[i8], side: usize, channels: usize, grid: usize) -> Vec<i8> {
        let cell = |at: usize| at * grid / side;
        let mut sums = vec![(0.0, 0.0); grid * grid * channels];
        for (at, x) in x.iter().enumerate() {
            let (token, c) = (at / channels, at % channels);
            let sum = &mut sums[(cell(token / side) * grid + cell(token % side)) * channels + c];
            *sum = (sum.0 + f64::from(*x), sum.1 + 1.0);
        }
        sums.iter().map(|(sum, count)| (sum / count).round() as i8).collect()
    }

    /// Runs two heads of SOFT on `14 * 14` tokens of standard deviation `sigma` in integers and,
    /// on the dequantised inputs, in f64. Returns the largest and the root mean square error, and the
    /// root mean square of the output, in steps of int8.
    fn whole_head(sigma: f64, grid: usize, newton: bool, rough: bool) -> [f64; 3] {
        let (side, heads, d) = (14, 2, 32);
        let (n, m, width) = (side * side, grid * grid, heads * d);
        let (scale, scale_v, ridge) = (sigma / 40.0, 0.02, 41943);
        let (multiplier, shift) = exponent(scale);
        let q = smooth(1, side, width, 40.0);
        let v = if rough { ints("v", n * width) } else { smooth(2, side, width, 40.0) };
        let l = pooled(&q, side, width, grid);

        let w_shift = AccumulateI8::w_shift(n);
        let w = accumulate_int(&AccumulateI8 { n, m, heads, d, multiplier, shift, w_shift }, &q, &l, &v);
        let (u, e) = if newton {
            let (mut a, mut inv) = (vec![0; heads * m * m], vec![0; heads * m * m]);
            gram::forward_i8(&gram::GramI8 { m, heads, d, multiplier, shift }, &Whole, &l, &mut a);
            let s = inverse::InverseNewtonQ22 { heads, m, iterations: 20, ridge };
            inverse::newton_q22(&s, &Whole, &a, &mut inv, &mut vec![0; m * (m + 1)]);
            let (mut u, mut e) = (vec![0; heads * m * d], vec![0; heads * d]);
            let s = product::ProductQ22 { heads, m, d };
            product::forward_q22(&s, &Whole, &inv, &w, &mut u, &mut e, &mut vec![0; 3 * m]);
            (u, e)
        } else {
            let mut a = vec![0; heads * m * (m + 1) / 2];
            gram::triangle_i8(&gram::GramTriangleI8 { m, heads, d, multiplier, shift }, &Whole, &l, &mut a);
            solve::tests::solution([heads, m, d], ridge, a, w)
        };

        let real = |x: &[i8], scale: f64| -> Vec<f64> { x.iter().map(|&x| f64::from(x) * scale).collect() };
        let (q_real, l_real) = (real(&q, scale), real(&l, scale));
        let a_real = gram::tests::reference(&gram::Gram { batch: 1, m, heads, d }, &l_real);
        let ridge = ridge as f32 / 4_194_304.0;
        let inv_real = if newton {
            let s = inverse::InverseNewton { count: heads, m, iterations: 20, ridge };
            inverse::tests::newton_reference(&s, &a_real)
        } else {
            inverse::tests::inverse_reference(m, ridge, &a_real)
        };
        let s = KernelApply { batch: 1, n, m, heads, d };
        let w_real = accumulate_reference(&s, &[q_real.clone(), l_real.clone(), real(&v, scale_v)]);
        let u_real = product::tests::reference(&product::Product { count: heads, m, d }, &inv_real, &w_real);
        let y_real = apply_reference(&s, &[q_real, l_real, u_real]);

        let scale_y = y_real.iter().fold(0f64, |a, b| a.max(b.abs())) / 127.0;
        let out = Multiplier::from_f64(2f64.powi(w_shift - 15) * scale_v / scale_y).unwrap();
        let (out_multiplier, out_shift, zero, lo, hi) = (out.value, out.shift as i32, 0, -128, 127);
        let s = ApplyI8 { n, m, heads, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi };
        let y = apply_int(&s, &q, &l, &u, &e);
        let errors: Vec<f64> = y.iter().zip(&y_real).map(|(&y, want)| f64::from(y) - want / scale_y).collect();
        let rms = |x: &[f64]| (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt();
        [errors.iter().fold(0f64, |a, b| a.max(b.abs())), rms(&errors), rms(&y_real) / scale_y]
    }

    #[test]
    fn a_whole_head_follows_f64() {
        for sigma in [1.0, 0.42, 0.1, 0.02] {
            for (grid, newton, rough) in [(7, false, false), (7, true, true), (4, true, false), (4, false, true)] {
                let [worst, rms, output] = whole_head(sigma, grid, newton, rough);
                // Nearly all of it is the rounding of the output itself: 0.5 and sqrt(1/12).
                assert!(worst < 0.55 && rms < 0.3, "sigma {sigma} grid {grid}: {worst} steps, rms {rms}");
                assert!(output > 10.0, "the output must use its range to show errors: rms {output}");
            }
        }
    }

    #[test]
    fn a_head_of_many_equal_tokens_gives_their_sum() {
        // Every kernel value is 1, A^+ sums to m / (m + ridge), so y = n v m / (m + ridge).
        let (n, m, d) = (5000, 16, 2);
        for value in [-128i8, 127] {
            let (q, l) = (vec![value; n * d], vec![value; m * d]);
            let (multiplier, shift) = exponent(0.02);
            let mut a = vec![0; m * (m + 1) / 2];
            gram::triangle_i8(&gram::GramTriangleI8 { m, heads: 1, d, multiplier, shift }, &Whole, &l, &mut a);
            let w_shift = AccumulateI8::w_shift(n);
            let w = accumulate_int(&AccumulateI8 { n, m, heads: 1, d, multiplier, shift, w_shift }, &q, &l, &q);
            let (u, e) = solve::tests::solution([1, m, d], 41943, a, w);
            let out = Multiplier::from_f64(2f64.powi(w_shift - 15) / n as f64).unwrap();
            let (out_multiplier, out_shift, zero, lo, hi) = (out.value, out.shift as i32, 0, -128, 127);
            let s = ApplyI8 { n, m, heads: 1, d, multiplier, shift, out_multiplier, out_shift, zero, lo, hi };
            assert_eq!(apply_int(&s, &q, &l, &u, &e), vec![value; n * d]);
        }
    }
}
