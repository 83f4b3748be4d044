//! The inverse of the landmark Gram matrix, `(A + ridge I)^-1`: by Newton's iteration as published,
//! or by a direct symmetric factorisation.
//!
//! Newton's iteration (SOFT, Alg. 2 and Eq. 10, after Ben-Israel and Cohen 1966), stopped after `T`
//! steps, is a spectral filter: an eigenvalue `x` of `A` becomes `(1 - (1 - alpha x^2)^(2^T)) / x`.
//! The direct inverse is what it converges to, at about a fortieth of the cost.

use super::{Signature, f32s};
use crate::arch::{Matrix, matmul, vectorised};
use crate::math::float::dot;

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
        let Self { count, m, ridge, .. } = *self;
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

/// `V <- 2V - V P V`, `iterations` times, from `V = alpha P`, where `P = a + ridge I` and
/// `alpha = 1.8 / (largest row sum of a)^2`, each matrix by itself.
pub fn newton(s: &InverseNewton, a: &[f32], v: &mut [f32], scratch: &mut [f32]) {
    let InverseNewton { m, iterations, ridge, .. } = *s;
    let (minus_p, rest) = scratch.split_at_mut(m * m);
    let (product, next) = rest.split_at_mut(m * m);
    for (a, v) in a.chunks_exact(m * m).zip(v.chunks_exact_mut(m * m)) {
        let norm = a.chunks_exact(m).map(|row| row.iter().sum()).fold(0.0, f32::max);
        let alpha = 0.9 * 2.0 / (norm * norm);
        for (i, (p, a)) in minus_p.iter_mut().zip(a).enumerate() {
            *p = -if i % (m + 1) == 0 { a + ridge } else { *a };
        }
        for (v, p) in v.iter_mut().zip(&*minus_p) {
            *v = -alpha * p;
        }
        for _ in 0..iterations {
            matmul(Matrix::new(v, m, m), Matrix::new(minus_p, m, m), product, false);
            for (next, v) in next.iter_mut().zip(&*v) {
                *next = 2.0 * v;
            }
            matmul(Matrix::new(product, m, m), Matrix::new(v, m, m), next, true);
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
    let (row, reciprocal) = rest.split_at_mut(m);
    vectorised(
        #[inline(always)]
        || {
            for (a, v) in a.chunks_exact(m * m).zip(v.chunks_exact_mut(m * m)) {
                factorise(m, ridge, a, factor, row, reciprocal);
                for i in 0..m {
                    for (z, (w, r)) in row.iter_mut().zip(factor[i * m..][..m].iter().zip(&*reciprocal)).skip(i) {
                        *z = w * r;
                    }
                    for j in 0..=i {
                        let value = dot(&row[i..], &factor[j * m..][i..m]);
                        v[i * m + j] = value;
                        v[j * m + i] = value;
                    }
                }
            }
        },
    );
}

/// Leaves `L` below the diagonal of `factor`, the transpose of `W = L^-1` above it and on it, and
/// `1 / D` in `reciprocal`: every sum is then over contiguous rows.
#[inline(always)]
fn factorise(m: usize, ridge: f32, a: &[f32], factor: &mut [f32], row: &mut [f32], reciprocal: &mut [f32]) {
    for i in 0..m {
        let a = &a[i * m..][..=i];
        let (above, li) = factor.split_at_mut(i * m);
        for j in 0..i {
            // The row of L D; `row[..j]` is ready.
            row[j] = a[j] - dot(&row[..j], &above[j * m..][..j]);
            li[j] = row[j] * reciprocal[j];
        }
        let pivot = a[i] + ridge - dot(&row[..i], &li[..i]);
        reciprocal[i] = 1.0 / pivot.max(ridge);
        li[i] = 1.0;
        for j in 0..i {
            above[j * m + i] = -dot(&li[j..i], &above[j * m..][j..i]);
        }
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
        2 * super::size(&[self.count, self.m, self.m, self.m])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Reals, assert_close, check_gradients, reals};

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

    fn newton_reference(s: &InverseNewton, a: &[f64]) -> Vec<f64> {
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
    fn inverse_reference(m: usize, ridge: f32, a: &[f64]) -> Vec<f64> {
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
    fn ldlt_needs_a_positive_ridge() {
        for ridge in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(InverseLdlt { count: 1, m: 2, ridge }.signature().reason().is_some(), "{ridge}");
        }
        assert!(InverseNewton { count: 1, m: 2, iterations: 20, ridge: f32::NAN }.signature().reason().is_some());
        assert!(InverseNewton { count: 1, m: 2, iterations: 20, ridge: 0.0 }.signature().reason().is_none());
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
}
