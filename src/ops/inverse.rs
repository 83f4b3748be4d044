//! The inverse of the landmark Gram matrix, `(A + ridge I)^-1`: by Newton's iteration as published,
//! or by a direct symmetric factorisation.
//!
//! Newton's iteration (SOFT, Alg. 2 and Eq. 10, after Ben-Israel and Cohen 1966), stopped after `T`
//! steps, is a spectral filter: an eigenvalue `x` of `A` becomes `(1 - (1 - alpha x^2)^(2^T)) / x`.
//! The direct inverse is what it converges to, at about a fortieth of the cost. In integers it is never formed: see
//! [`solve`](super::solve).

use super::{Part, Signature, f32s, i16s, i32s};
use crate::arch::{Matrix, dot_i64, matmul, matmul_f64, vectorised};
use crate::math::fixed::{reciprocal, round_shift, saturate_i32};

/// Most steps of Newton's iteration: an eigenvalue of 1e-8 has converged after 60.
pub const MAX_STEPS: usize = 1000;
const TOO_MANY_STEPS: &str = "Newton's iteration takes at most 1000 steps";

shape! {
    /// Newton's iteration, `a[count, m, m]` -> `v[count, m, m]`, with scratch.
    pub struct InverseNewton {
        /// Matrices: batch times heads.
        pub count: usize,
        /// Landmarks.
        pub m: usize,
        /// Steps `T`; the paper takes 20.
        pub iterations: usize,
        /// Added to the diagonal; the official code takes 0.01.
        pub ridge: f32,
    }
}

impl InverseNewton {
    /// Input `a`; outputs `v`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { count, m, iterations, ridge } = *self;
        if iterations > MAX_STEPS {
            return Signature::invalid(TOO_MANY_STEPS);
        }
        if !(ridge >= 0.0 && ridge < f32::INFINITY) {
            return Signature::invalid("the ridge of Newton's inverse is negative or not finite");
        }
        let square = f32s(&[count, m, m]);
        Signature::new(&[square], &[square, f32s(&[3, m, m])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[2, self.count, self.iterations, self.m, self.m, self.m])
    }
}

/// `V <- V + (I - V P) V`, `iterations` times, from `V = alpha P`, where `P = a + ridge I` and
/// `alpha = 1.8 / (largest row sum of a)^2`, each matrix by itself.
///
/// The published `2V - V P V` in an order that forgives rounding: the residual `I - V P`, summed in
/// f64, is small where the iteration has converged, and its error with it.
pub fn newton(s: &InverseNewton, a: &[f32], v: &mut [f32], scratch: &mut [f32]) {
    let InverseNewton { m, iterations, ridge, .. } = *s;
    let (p, rest) = scratch.split_at_mut(m * m);
    let (residuals, next) = rest.split_at_mut(m * m);
    for (a, v) in a.chunks_exact(m * m).zip(v.chunks_exact_mut(m * m)) {
        let norm = a.chunks_exact(m).map(|row| row.iter().sum()).fold(0.0, f32::max);
        let alpha = 0.9 * 2.0 / (norm * norm);
        p.copy_from_slice(a);
        for p in p.iter_mut().step_by(m + 1) {
            *p += ridge;
        }
        for (v, p) in v.iter_mut().zip(&*p) {
            *v = alpha * p;
        }
        for _ in 0..iterations {
            let identity = |i, j| if i == j { 1.0 } else { 0.0 };
            matmul_f64(Matrix::new(v, m, m), Matrix::new(p, m, m), residuals, |i, j, sum| identity(i, j) - sum);
            next.copy_from_slice(v);
            matmul(Matrix::new(residuals, m, m), Matrix::new(v, m, m), next, true);
            v.copy_from_slice(next);
        }
    }
}

shape! {
    /// Direct inverse, `a[count, m, m]` -> `v[count, m, m]`, with scratch.
    pub struct InverseLdlt {
        /// Matrices: batch times heads.
        pub count: usize,
        /// Landmarks.
        pub m: usize,
        /// Added to the diagonal; must be positive.
        pub ridge: f32,
    }
}

impl InverseLdlt {
    /// Input `a`; outputs `v`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { count, m, ridge } = *self;
        if !(ridge > 0.0 && ridge < f32::INFINITY) {
            return Signature::invalid("the ridge of the direct inverse is not a positive number");
        }
        let square = f32s(&[count, m, m]);
        Signature::new(&[square], &[square, f32s(&[m, m]).plus(&[2, m])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.count, self.m, self.m, self.m]) / 2
    }
}

/// `v = (a + ridge I)^-1` through `a + ridge I = L D L^T`, `v = W^T D^-1 W` with `W = L^-1`.
///
/// `a` is symmetric and positive semi-definite (only its lower triangle is read), so no pivot is
/// below `ridge` but for rounding; one that is gets raised to it.
pub fn ldlt(s: &InverseLdlt, a: &[f32], v: &mut [f32], scratch: &mut [f32]) {
    let InverseLdlt { m, ridge, .. } = *s;
    let (factor, rest) = scratch.split_at_mut(m * m);
    let (row, reciprocals) = rest.split_at_mut(m);
    vectorised(
        #[inline(always)]
        || {
            for (a, v) in a.chunks_exact(m * m).zip(v.chunks_exact_mut(m * m)) {
                factorise(m, ridge, a, factor, row, reciprocals);
                v.fill(0.0);
                for (k, (w, r)) in factor.chunks_exact(m).zip(&*reciprocals).enumerate() {
                    for (v, wi) in v.chunks_exact_mut(m).zip(&w[..=k]) {
                        add_scaled(v, r * wi, &w[..=k]);
                    }
                }
            }
        },
    );
}

/// Leaves `W = L^-1` below and on the diagonal of `factor`, the transpose of `L` above it, and
/// `1 / D` in `reciprocals`: every inner loop then runs along rows and needs no horizontal sum.
#[inline(always)]
fn factorise(m: usize, ridge: f32, a: &[f32], factor: &mut [f32], row: &mut [f32], reciprocals: &mut [f32]) {
    for i in 0..m {
        // The row of L D, ending in the pivot.
        let row = &mut row[..=i];
        row.copy_from_slice(&a[i * m..][..=i]);
        let (above, w) = factor.split_at_mut(i * m);
        let w = &mut w[..=i];
        w.fill(0.0);
        w[i] = 1.0;
        for (k, above) in above.chunks_exact_mut(m).enumerate() {
            let u = row[k];
            let l = u * reciprocals[k];
            above[i] = l;
            let (w_k, l_k) = above.split_at(k + 1);
            add_scaled(&mut row[k + 1..], -u, l_k);
            add_scaled(w, -l, w_k);
        }
        reciprocals[i] = 1.0 / (row[i] + ridge).max(ridge);
    }
}

/// `y += factor x`, over the shorter of the two.
#[inline(always)]
fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

shape! {
    /// Backward of [`InverseNewton`] and [`InverseLdlt`]: `v, dv -> da`, with scratch.
    ///
    /// The rule of an exact inverse. For the direct inverse it is the true gradient. For Newton's
    /// iteration it is the official rule, true only as far as the iteration has converged.
    pub struct InverseGrad {
        /// Matrices: batch times heads.
        pub count: usize,
        /// Landmarks.
        pub m: usize,
    }
}

impl InverseGrad {
    /// Inputs `v, dv`; outputs `da`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { count, m } = *self;
        let square = f32s(&[count, m, m]);
        Signature::new(&[square, square], &[square, f32s(&[m, m])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[2, self.count, self.m, self.m, self.m])
    }
}

/// `da = -v^T dv v^T`; overwrites `da`.
pub fn backward(s: &InverseGrad, v: &[f32], dv: &[f32], da: &mut [f32], scratch: &mut [f32]) {
    let m = s.m;
    let inputs = v.chunks_exact(m * m).zip(dv.chunks_exact(m * m));
    for ((v, dv), da) in inputs.zip(da.chunks_exact_mut(m * m)) {
        let vt = Matrix::new(v, m, m).t();
        matmul(vt, Matrix::new(dv, m, m), scratch, false);
        for value in scratch.iter_mut() {
            *value = -*value;
        }
        matmul(Matrix::new(scratch, m, m), vt, da, false);
    }
}

/// Most landmarks of the integer ops: their 64-bit sums hold that many terms.
pub const MAX_LANDMARKS: usize = 255;
pub(super) const TOO_MANY_LANDMARKS: &str = "an integer op on landmarks takes at most 255 of them";

/// Values of the lower triangle of an `m` by `m` matrix, its diagonal included; `m` is at most [`MAX_LANDMARKS`].
pub(super) const fn triangle(m: usize) -> usize {
    m * (m + 1) / 2
}

/// `sum a_i b_i` of a row of `V` and one of the Gram matrix, in 64 bits.
#[inline(always)]
fn dot_i16(a: &[i32], b: &[i16]) -> i64 {
    a.iter().zip(b).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum()
}

shape! {
    /// Integer [`InverseNewton`] of one image: `a i16[heads, m, m]` in Q15 (symmetric) ->
    /// `inv i32[heads, m, m]` in Q22, at most 256 in magnitude, with scratch.
    ///
    /// `V` is a matrix of integers with a common number of fraction bits `f`, which starts high, where
    /// `V` is small, and falls as `V` grows: small eigenvalues start with as many digits as they end
    /// with. Sums are of 64 bits and exact; each value below is rounded once. `clamp(x, b)` limits `x`
    /// to `-b..=b`, `bits(x)` is the position of the highest set bit plus 1. For each head:
    ///
    /// 1. `R = max(16384, largest row sum of a)`, `z` its leading zeros as a `u32`, `y = reciprocal(R << z)`,
    ///    `b = (((y y) >> 32) * 3865470566) >> 32` (`1.8 y^2`, unsigned, bits below are dropped),
    ///    `t = bits(b) - 29`, `beta = b >> t`, `f = 63 - 2 z - t`. Then `alpha = beta / 2^f`.
    /// 2. `P_ij = 2^7 a_ij + ridge [i = j]` (Q22) and `V_ij = round_shift(beta P_ij, 22)`.
    /// 3. `iterations` times: if `f > 22` and the largest `|V_ij|` is at least 2^29, `g =
    ///    f - 1`, otherwise `g = f`.
    ///    `T_ij = clamp(round_shift(2^7 sum_k V_ik a_jk + ridge V_ij, f - 2), 2^25 - 1)` (`V P` in Q24).
    ///    For `j <= i`, all from the old `V`:
    ///    `V'_ij = V'_ji = clamp(round_shift(2^25 V_ij - sum_k T_ik V_jk, 24 + f - g), 2^30)`. Then
    ///    `V = V'`, `f = g`.
    /// 4. `inv_ij = round_shift(V_ij, f - 22)`.
    pub struct InverseNewtonQ22 {
        /// Heads.
        pub heads: usize,
        /// Landmarks, at most [`MAX_LANDMARKS`].
        pub m: usize,
        /// Steps.
        pub iterations: usize,
        /// Added to the diagonal, in Q22, from 0 to 1. Below 1/256 (2^14) the inverse can saturate.
        pub ridge: i32,
    }
}

impl InverseNewtonQ22 {
    /// Input `a`; outputs `inv`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { heads, m, iterations, ridge } = *self;
        if iterations > MAX_STEPS {
            return Signature::invalid(TOO_MANY_STEPS);
        }
        if m > MAX_LANDMARKS {
            return Signature::invalid(TOO_MANY_LANDMARKS);
        }
        if ridge < 0 || ridge > 1 << 22 {
            return Signature::invalid("the Q22 ridge of Newton's inverse is not in 0 to 1");
        }
        Signature::new(&[i16s(&[heads, m, m])], &[i32s(&[heads, m, m]), i32s(&[m, m]).plus(&[m])])
    }

    /// Rows of each matrix: the start, and those of every step.
    const fn rows_of_head(&self) -> usize {
        1 + self.iterations * self.m
    }

    /// Rows that can be computed by themselves, in order: of each head the start, then the rows of `V` of every
    /// step.
    pub const fn rows(&self) -> usize {
        super::size(&[self.heads, self.rows_of_head()]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[3, self.heads, self.iterations, self.m, self.m, self.m]) / 2
    }
}

/// Some rows of Newton's iteration in integers, exactly as [`InverseNewtonQ22`] says. What is known so far stays
/// in `inv` and `scratch`.
pub fn newton_q22(s: &InverseNewtonQ22, part: &impl Part, a: &[i16], inv: &mut [i32], scratch: &mut [i32]) {
    let InverseNewtonQ22 { m, iterations, ridge, .. } = *s;
    let (next, product) = scratch.split_at_mut(m * m);
    let ridge = i64::from(ridge);
    for (h, (a, v)) in a.chunks_exact(m * m).zip(inv.chunks_exact_mut(m * m)).enumerate() {
        let rows = part.group(h, s.rows_of_head()).rows(s.rows_of_head());
        if rows.is_empty() {
            continue;
        }
        // Between rows the product is free: it keeps the fraction bits of `V` and of `V'`.
        let [mut f, mut g, ..] = product[0].to_ne_bytes().map(u32::from);
        for row in rows {
            match row.checked_sub(1) {
                None => {
                    let (beta, fraction) = newton_start(m, a);
                    for (v, &a) in v.iter_mut().zip(a) {
                        *v = round_shift(beta * (i64::from(a) << 7), 22) as i32;
                    }
                    for (v, &a) in v.iter_mut().zip(a).step_by(m + 1) {
                        *v = round_shift(beta * ((i64::from(a) << 7) + ridge), 22) as i32;
                    }
                    f = fraction;
                }
                Some(at) => {
                    let i = at % m;
                    if i == 0 {
                        // V' is at most 2V (both are positive semi-definite), so it fits 2^30 from below 2^29.
                        let top = v.iter().fold(0, |top, v| v.unsigned_abs().max(top));
                        g = if f > 22 && top >= 1 << 29 { f - 1 } else { f };
                    }
                    vectorised(
                        #[inline(always)]
                        || newton_row(m, i, ridge, a, v, f, g, next, product),
                    );
                    if i + 1 == m {
                        v.copy_from_slice(next);
                        f = g;
                    }
                }
            }
            if row == iterations * m {
                for v in v.iter_mut() {
                    *v = round_shift(i64::from(*v), f - 22) as i32;
                }
            }
        }
        product[0] = i32::from_ne_bytes([f as u8, g as u8, 0, 0]);
    }
}

/// `alpha = beta / 2^f = 1.8 / (largest row sum)^2` with `beta` in `[2^28, 2^29)`, `f` in 26 to 44.
///
/// A Gram matrix has row sums of 1 and above; the bound of 1/2 keeps any other from overflowing.
fn newton_start(m: usize, a: &[i16]) -> (i64, u32) {
    let sums = a.chunks_exact(m).map(|row| row.iter().map(|&a| i32::from(a)).sum::<i32>());
    let norm = sums.fold(1 << 14, i32::max) as u32;
    let zeros = norm.leading_zeros();
    let y = u64::from(reciprocal(norm << zeros));
    // 1.8 in Q31.
    let b = (((y * y) >> 32) * 3_865_470_566) >> 32;
    let surplus = 64 - b.leading_zeros() - 29;
    ((b >> surplus) as i64, 63 - 2 * zeros - surplus)
}

/// Row `i`, and the column it mirrors, of one step from `v` with `f` fraction bits to `next` with `g`.
#[inline(always)]
fn newton_row(
    m: usize,
    i: usize,
    ridge: i64,
    a: &[i16],
    v: &[i32],
    f: u32,
    g: u32,
    next: &mut [i32],
    product: &mut [i32],
) {
    const T_LIMIT: i64 = (1 << 25) - 1;
    const V_LIMIT: i64 = 1 << 30;
    let vi = &v[i * m..][..m];
    // At most 255 * 2^30 * 2^15 * 2^7 + 2^52 < 2^61.
    for (t, (aj, &v)) in product.iter_mut().zip(a.chunks_exact(m).zip(vi)) {
        let sum = (dot_i16(vi, aj) << 7) + ridge * i64::from(v);
        *t = round_shift(sum, f - 2).clamp(-T_LIMIT, T_LIMIT) as i32;
    }
    // At most 2^55 + 255 (2^25 - 1) 2^30 < 2^63 - 2^24.
    for (j, vj) in v.chunks_exact(m).enumerate().take(i + 1) {
        let sum = (i64::from(vi[j]) << 25) - dot_i64(product, vj);
        let value = round_shift(sum, 24 + f - g).clamp(-V_LIMIT, V_LIMIT) as i32;
        next[i * m + j] = value;
        next[j * m + i] = value;
    }
}

/// What is wrong with the ridge of a direct inverse, if anything is.
pub(super) const fn ridge_fault(ridge: i32) -> Option<&'static str> {
    if ridge < 1 << 14 || ridge > 1 << 22 {
        return Some("the Q22 ridge of the direct inverse is not in 1/256 to 1");
    }
    None
}

/// `round_shift(reciprocal(D << z), 11 - z)` with `z` the leading zeros of a pivot in Q30, at least 2^22: `1 / D` in
/// Q22.
#[inline(never)]
pub(super) fn reciprocal_q22(pivot: i32) -> i32 {
    let zeros = pivot.leading_zeros();
    round_shift(i64::from(reciprocal((pivot as u32) << zeros)), 11 - zeros) as i32
}

/// `x / 2^26`, rounded and saturated.
#[inline(always)]
pub(super) fn rounded(x: i64) -> i32 {
    saturate_i32(x.wrapping_add(1 << 25) >> 26)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::Whole;
    use crate::ops::testing::{Reals, assert_close, check_gradients, ints, reals};

    /// `count` Gram matrices of points in `dim` dimensions; small `scale` makes them nearly singular.
    fn grams(count: usize, m: usize, dim: usize, scale: f64) -> Vec<f64> {
        let x = reals("points", count * m * dim).f64();
        let point = |b: usize, i: usize| &x[(b * m + i) * dim..][..dim];
        let square = |b, i, j| point(b, i).iter().zip(point(b, j)).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        (0..count * m * m)
            .map(|at| f64::from((-scale * scale * square(at / (m * m), at / m % m, at % m) / 2.0).exp() as f32))
            .collect()
    }

    fn product(m: usize, a: &[f64], b: &[f64]) -> Vec<f64> {
        (0..m * m).map(|at| (0..m).map(|k| a[at / m * m + k] * b[k * m + at % m]).sum()).collect()
    }

    pub(in crate::ops) fn newton_reference(s: &InverseNewton, a: &[f64]) -> Vec<f64> {
        let m = s.m;
        let mut out = Vec::new();
        for a in a.chunks(m * m) {
            let norm = a.chunks(m).map(|row| row.iter().sum()).fold(0.0, f64::max);
            let p: Vec<f64> = a
                .iter()
                .enumerate()
                .map(|(i, a)| a + if i % (m + 1) == 0 { f64::from(s.ridge) } else { 0.0 })
                .collect();
            let mut v: Vec<f64> = p.iter().map(|p| 1.8 / norm.powi(2) * p).collect();
            for _ in 0..s.iterations {
                let pv = product(m, &v, &product(m, &p, &v));
                v = v.iter().zip(pv).map(|(v, pv)| 2.0 * v - pv).collect();
            }
            out.extend(v);
        }
        out
    }

    /// Gauss-Jordan elimination with pivoting.
    pub(in crate::ops) fn inverse_reference(m: usize, ridge: f32, a: &[f64]) -> Vec<f64> {
        let mut out = Vec::new();
        for a in a.chunks(m * m) {
            let mut rows: Vec<Vec<f64>> = (0..m)
                .map(|i| {
                    let mut row = a[i * m..][..m].to_vec();
                    row[i] += f64::from(ridge);
                    row.extend((0..m).map(|j| f64::from(u8::from(i == j))));
                    row
                })
                .collect();
            for k in 0..m {
                let pivot = (k..m).max_by(|&i, &j| rows[i][k].abs().total_cmp(&rows[j][k].abs())).unwrap();
                rows.swap(k, pivot);
                let scale = 1.0 / rows[k][k];
                rows[k].iter_mut().for_each(|v| *v *= scale);
                let row = rows[k].clone();
                for (i, other) in rows.iter_mut().enumerate() {
                    let factor = other[k];
                    if i != k {
                        other.iter_mut().zip(&row).for_each(|(v, r)| *v -= factor * r);
                    }
                }
            }
            out.extend(rows.iter().flat_map(|row| row[m..].to_vec()));
        }
        out
    }

    fn newton_f32(s: &InverseNewton, a: &[f32]) -> Vec<f32> {
        let mut v = vec![9.0; a.len()];
        newton(s, a, &mut v, &mut vec![9.0; 3 * s.m * s.m]);
        v
    }

    fn ldlt_f32(s: &InverseLdlt, a: &[f32]) -> Vec<f32> {
        let mut v = vec![9.0; a.len()];
        ldlt(s, a, &mut v, &mut vec![9.0; s.m * (s.m + 2)]);
        v
    }

    fn f32s_of(a: &[f64]) -> Vec<f32> {
        a.iter().map(|&v| v as f32).collect()
    }

    #[test]
    fn newton_follows_the_published_iteration() {
        for (count, m, dim, scale, iterations) in
            [(1, 1, 1, 1.0, 20), (3, 5, 4, 1.0, 20), (2, 16, 8, 0.8, 20), (2, 9, 4, 0.5, 3)]
        {
            let s = InverseNewton { count, m, iterations, ridge: 0.01 };
            let a = grams(count, m, dim, scale);
            assert_close("v", &newton_f32(&s, &f32s_of(&a)), &newton_reference(&s, &a), 3e-5);
        }
    }

    #[test]
    fn ldlt_is_the_inverse() {
        for (count, m, dim, scale, ridge) in [
            (1, 1, 1, 1.0, 0.01),
            (3, 5, 4, 1.0, 0.01),
            (2, 16, 8, 0.8, 0.01),
            (1, 49, 8, 0.6, 0.01),
            (2, 9, 4, 0.5, 0.5),
        ] {
            let s = InverseLdlt { count, m, ridge };
            let a = grams(count, m, dim, scale);
            let v = ldlt_f32(&s, &f32s_of(&a));
            // The bound is that of the problem: condition number (about m / ridge) times f32's rounding.
            assert_close("v", &v, &inverse_reference(m, ridge, &a), f64::from(m as f32 / ridge) * 6e-8);
        }
    }

    #[test]
    fn equal_landmarks_give_a_finite_inverse() {
        let m = 6;
        let s = InverseLdlt { count: 1, m, ridge: 0.01 };
        let v = ldlt_f32(&s, &vec![1.0; m * m]);
        assert_close("v", &v, &inverse_reference(m, 0.01, &vec![1.0; m * m]), 1e-4);
    }

    #[test]
    fn senseless_ridges_and_steps_are_refused() {
        for ridge in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(InverseLdlt { count: 1, m: 2, ridge }.signature().reason().is_some(), "{ridge}");
        }
        assert!(InverseNewton { count: 1, m: 2, iterations: 20, ridge: f32::NAN }.signature().reason().is_some());
        assert!(InverseNewton { count: 1, m: 2, iterations: 20, ridge: 0.0 }.signature().reason().is_none());
        let endless = usize::MAX;
        assert!(InverseNewton { count: 1, m: 2, iterations: endless, ridge: 0.0 }.signature().reason().is_some());
        assert!(InverseNewtonQ22 { heads: 1, m: 2, iterations: 1001, ridge: 0 }.signature().reason().is_some());
    }

    #[test]
    fn backward_is_the_gradient_of_the_inverse() {
        for (count, m) in [(1, 1), (2, 4), (1, 7)] {
            let inputs = [Reals::from(grams(count, m, 16, 1.0))];
            let a = inputs[0].f32();
            let gradient = |v: &[f32], dv: &[f32]| {
                let mut da = vec![9.0; v.len()];
                backward(&InverseGrad { count, m }, v, dv, &mut da, &mut vec![9.0; m * m]);
                vec![da]
            };
            let direct = ldlt_f32(&InverseLdlt { count, m, ridge: 0.01 }, &a);
            let iterated = newton_f32(&InverseNewton { count, m, iterations: 20, ridge: 0.01 }, &a);
            for v in [direct, iterated] {
                check_gradients(&inputs, a.len(), |t| inverse_reference(m, 0.01, &t[0]), |dv| gradient(&v, dv));
            }
        }
    }

    /// Q15 with 1 as 32767.
    fn q15(a: &[f64]) -> Vec<i16> {
        a.iter().map(|a| (a * 32768.0).round().min(32767.0) as i16).collect()
    }

    fn real(a: &[i16]) -> Vec<f64> {
        a.iter().map(|&a| f64::from(a) / 32768.0).collect()
    }

    const RIDGE_Q22: i32 = 41943; // 0.01

    /// Largest difference, beyond the half unit of its format and relative to the largest value, of
    /// an inverse in Q22.
    fn error(got: &[i32], want: &[f64]) -> f64 {
        let scale = want.iter().fold(0f64, |a, b| a.max(b.abs()));
        got.iter()
            .zip(want)
            .map(|(&g, w)| ((f64::from(g) - w * 4_194_304.0).abs() - 0.5) / (scale * 4_194_304.0))
            .fold(0.0, f64::max)
    }

    fn newton_int(s: &InverseNewtonQ22, a: &[i16]) -> Vec<i32> {
        assert_eq!(s.signature().reason(), None);
        let mut inv = vec![9; a.len()];
        newton_q22(s, &Whole, a, &mut inv, &mut vec![9; s.m * (s.m + 1)]);
        inv
    }

    // Well, middling and badly conditioned, as the golden vectors are.
    const CONDITIONS: [(usize, f64); 3] = [(32, 0.6), (8, 0.6), (4, 0.25)];

    #[test]
    fn integer_newton_follows_f64() {
        let ridge = f64::from(RIDGE_Q22) / 4_194_304.0;
        for m in [1, 4, 16, 49] {
            for (dim, scale) in CONDITIONS {
                let a = q15(&grams(2, m, dim, scale));
                let newton = InverseNewtonQ22 { heads: 2, m, iterations: 20, ridge: RIDGE_Q22 };
                let reference = InverseNewton { count: 2, m, iterations: 20, ridge: ridge as f32 };
                let e = error(&newton_int(&newton, &a), &newton_reference(&reference, &real(&a)));
                // Half a unit of Q22, and f32-like growth where the condition number is 1e3 and more.
                let bound = if scale < 0.5 { 1e-5 } else { 3e-7 };
                assert!(e < bound, "m {m} dim {dim}: {e:.1e} off");
            }
        }
    }

    #[test]
    fn integer_newton_follows_f64_at_every_number_of_steps() {
        for iterations in [0, 1, 2, 5, 10, 30, 60] {
            for (m, dim, scale) in [(16, 8, 0.6), (49, 4, 0.25), (9, 1, 0.001)] {
                let a = q15(&grams(1, m, dim, scale));
                let s = InverseNewtonQ22 { heads: 1, m, iterations, ridge: 1 << 16 };
                let reference = InverseNewton { count: 1, m, iterations, ridge: 1.0 / 64.0 };
                let e = error(&newton_int(&s, &a), &newton_reference(&reference, &real(&a)));
                assert!(e < 2e-5, "m {m} after {iterations} steps: {e:.1e} off");
            }
        }
    }

    #[test]
    fn integer_inverse_of_equal_landmarks() {
        // The largest inverse there is: 1 / ridge - 1 / (ridge (m + ridge)) = 240 on the diagonal.
        let (m, ridge) = (16, 1 << 14);
        let a = vec![32767; m * m];
        let want = inverse_reference(m, 1.0 / 256.0, &real(&a));
        // The condition number is 4096.
        let bound = 4096.0 * 2f64.powi(-27);
        let newton = InverseNewtonQ22 { heads: 1, m, iterations: 40, ridge };
        assert!(error(&newton_int(&newton, &a), &want) < bound);
    }

    #[test]
    fn integer_inverse_survives_what_is_no_gram_matrix() {
        for m in [1, 7, 255] {
            for ridge in [1 << 14, 1 << 22] {
                let matrices = [vec![i16::MIN; m * m], vec![0; m * m], vec![i16::MAX; m * m], ints("a", m * m)];
                for a in matrices {
                    newton_int(&InverseNewtonQ22 { heads: 1, m, iterations: 3, ridge }, &a);
                }
            }
        }
        assert!(InverseNewtonQ22 { heads: 1, m: 256, iterations: 20, ridge: 1 << 16 }.signature().reason().is_some());
        assert!(InverseNewtonQ22 { heads: 1, m: 4, iterations: 20, ridge: -1 }.signature().reason().is_some());
    }
}
