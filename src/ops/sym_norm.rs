//! SOFT++'s symmetric normalisation of the inverse, `D^-1/2 V D^-1/2` with `D` the row sums of the
//! landmark Gram matrix.

use super::inverse::{MAX_LANDMARKS, TOO_MANY_LANDMARKS, triangle};
use super::{Part, Signature, f32s, i16s, i32s};
use crate::math::fixed::{round_shift, rsqrt, saturate_i32};
use crate::math::float::sqrt;

shape! {
    /// In place: `v[count, m, m]`, `a[count, m, m]` -> `y` in the storage of `v`.
    pub struct SymNorm {
        /// Matrices: batch times heads.
        pub count: usize,
        /// Landmarks.
        pub m: usize,
    }
}

impl SymNorm {
    /// Inputs `v, a`; output `y` in place of `v`.
    pub const fn signature(&self) -> Signature {
        let square = f32s(&[self.count, self.m, self.m]);
        Signature::new(&[square, square], &[square]).in_place()
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[2, self.count, self.m, self.m])
    }
}

/// `y_ij = v_ij / sqrt(D_i D_j)`, `D_i = sum_j a_ij` (the ridge is not in `a`). `y` holds `v` before.
pub fn forward(s: &SymNorm, a: &[f32], y: &mut [f32]) {
    let m = s.m;
    for (a, y) in a.chunks_exact(m * m).zip(y.chunks_exact_mut(m * m)) {
        scale_both_sides(m, a, y);
    }
}

/// Multiplies row `i` and column `i` by `1 / sqrt(D_i)`, for every `i`.
fn scale_both_sides(m: usize, a: &[f32], y: &mut [f32]) {
    for (i, a) in a.chunks_exact(m).enumerate() {
        let scale = 1.0 / sqrt(a.iter().sum());
        for value in &mut y[i * m..][..m] {
            *value *= scale;
        }
        for value in y.iter_mut().skip(i).step_by(m) {
            *value *= scale;
        }
    }
}

shape! {
    /// Backward of [`SymNorm`]: `v, a, dy -> dv, da`, where `v` is the forward's input.
    pub struct SymNormGrad {
        /// Matrices: batch times heads.
        pub count: usize,
        /// Landmarks.
        pub m: usize,
    }
}

impl SymNormGrad {
    /// Inputs `v, a, dy`; outputs `dv, da`.
    pub const fn signature(&self) -> Signature {
        let square = f32s(&[self.count, self.m, self.m]);
        Signature::new(&[square, square, square], &[square, square])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[4, self.count, self.m, self.m])
    }
}

/// `dv_ij = dy_ij / sqrt(D_i D_j)`, `da_ij = -sum_k (dv_ik v_ik + dv_ki v_ki) / (2 D_i)`; overwrites
/// both.
pub fn backward(s: &SymNormGrad, v: &[f32], a: &[f32], dy: &[f32], dv: &mut [f32], da: &mut [f32]) {
    let m = s.m;
    dv.copy_from_slice(dy);
    let inputs = v.chunks_exact(m * m).zip(a.chunks_exact(m * m));
    let outputs = dv.chunks_exact_mut(m * m).zip(da.chunks_exact_mut(m * m));
    for ((v, a), (dv, da)) in inputs.zip(outputs) {
        scale_both_sides(m, a, dv);
        for (i, (a, da)) in a.chunks_exact(m).zip(da.chunks_exact_mut(m)).enumerate() {
            let row: f32 = dv[i * m..].iter().zip(&v[i * m..]).take(m).map(|(dv, v)| dv * v).sum();
            let column: f32 = dv.iter().zip(v).skip(i).step_by(m).map(|(dv, v)| dv * v).sum();
            da.fill(-0.5 * (row + column) / a.iter().sum::<f32>());
        }
    }
}

shape! {
    /// Integer [`SymNorm`] of one image, in place: `inv i32[heads, m, m]` in Q22 and
    /// `a i16[heads, m, m]` in Q15 -> `inv` in Q22.
    ///
    /// For `i` from 0 to `m - 1`, with `D = max(16384, sum_j a_ij)` and `(mantissa, exponent) =
    /// rsqrt(2 D)`: `r = round_shift(mantissa, exponent - 38)`, which is `1 / sqrt(D)` in Q30; then
    /// every value `x` of row `i` and after that every value `x` of column `i` becomes
    /// `saturate_i32(round_shift(x r, 30))`. The diagonal is scaled twice.
    pub struct SymNormQ22 {
        /// Heads.
        pub heads: usize,
        /// Landmarks, at most 255.
        pub m: usize,
    }
}

impl SymNormQ22 {
    /// Inputs `inv, a`; output `inv` in place.
    pub const fn signature(&self) -> Signature {
        let Self { heads, m } = *self;
        if m > MAX_LANDMARKS {
            return Signature::invalid(TOO_MANY_LANDMARKS);
        }
        let inv = i32s(&[heads, m, m]);
        Signature::new(&[inv, i16s(&[heads, m, m])], &[inv]).in_place()
    }

    /// Rows that can be computed by themselves, in order: the rows of all matrices, each with its column.
    pub const fn rows(&self) -> usize {
        super::size(&[self.heads, self.m]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[2, self.heads, self.m, self.m])
    }
}

/// Integer forward of some rows in Q22; `inv` holds the inverse before and, once all are done, the normalised one.
pub fn forward_q22(s: &SymNormQ22, part: &impl Part, a: &[i16], inv: &mut [i32]) {
    let m = s.m;
    for (h, (a, inv)) in a.chunks_exact(m * m).zip(inv.chunks_exact_mut(m * m)).enumerate() {
        let rows = part.group(h, m).rows(m);
        for (i, a) in a.chunks_exact(m).enumerate().take(rows.end).skip(rows.start) {
            let scale = i64::from(scale_q30(a.iter().map(|&a| i32::from(a)).sum()));
            let scaled = |x: i32| saturate_i32(round_shift(i64::from(x) * scale, 30));
            for x in &mut inv[i * m..][..m] {
                *x = scaled(*x);
            }
            for x in inv.iter_mut().skip(i).step_by(m) {
                *x = scaled(*x);
            }
        }
    }
}

/// `1 / sqrt(D)` in Q30 of a row sum in Q15.
#[inline(never)]
fn scale_q30(sum: i32) -> i32 {
    // A Gram matrix has row sums of 1 and above; 1/2 keeps any other from overflowing.
    let (mantissa, exponent) = rsqrt(2 * sum.max(1 << 14) as u64);
    round_shift(i64::from(mantissa), (exponent - 38) as u32) as i32
}

shape! {
    /// What [`SymNormQ22`] multiplies rows and columns by, for [`SolveQ26`](super::solve::SolveQ26): the lower triangle
    /// `a i32[heads, m (m + 1) / 2]` of [`GramTriangleI8`](super::gram::GramTriangleI8) in Q15 -> `s i32[heads, m]`
    /// in Q30.
    ///
    /// With `D = max(16384, sum_j a_ij)`, where `a_ij = a_ji` and the sum is of 32 bits, and `(mantissa, exponent) =
    /// rsqrt(2 D)`: `s_i = round_shift(mantissa, exponent - 38)`. For a Gram matrix that is between `2^26` and
    /// `2^30 (1 + 2^-15)`.
    pub struct SymScaleQ30 {
        /// Heads.
        pub heads: usize,
        /// Landmarks, at most 255.
        pub m: usize,
    }
}

impl SymScaleQ30 {
    /// Input `a`; output `s`.
    pub const fn signature(&self) -> Signature {
        let Self { heads, m } = *self;
        if m > MAX_LANDMARKS {
            return Signature::invalid(TOO_MANY_LANDMARKS);
        }
        Signature::new(&[i32s(&[heads, triangle(m)])], &[i32s(&[heads, m])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Integer forward in Q30, exactly as [`SymScaleQ30`] says.
pub fn scale_triangle_q30(s: &SymScaleQ30, a: &[i32], scale: &mut [i32]) {
    let m = s.m;
    for (a, sums) in a.chunks_exact(triangle(m)).zip(scale.chunks_exact_mut(m)) {
        sums.fill(0);
        for i in 0..m {
            let row = &a[triangle(i)..][..=i];
            // Wraps only for what is no Gram matrix.
            for (j, &a) in row.iter().enumerate() {
                sums[i] = sums[i].wrapping_add(a);
                if j < i {
                    sums[j] = sums[j].wrapping_add(a);
                }
            }
        }
        sums.iter_mut().for_each(|sum| *sum = scale_q30(*sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::random::Stream;
    use crate::ops::Whole;
    use crate::ops::testing::{assert_close, check_gradients, ints, reals};

    fn reference(s: &SymNorm, v: &[f64], a: &[f64]) -> Vec<f64> {
        let SymNorm { count, m } = *s;
        let sum = |b: usize, i: usize| a[(b * m + i) * m..][..m].iter().sum::<f64>();
        let mut y = v.to_vec();
        for b in 0..count {
            for i in 0..m {
                for j in 0..m {
                    y[(b * m + i) * m + j] /= (sum(b, i) * sum(b, j)).sqrt();
                }
            }
        }
        y
    }

    #[test]
    fn forward_and_backward_match_the_reference() {
        for (count, m) in [(1, 1), (3, 4), (2, 9)] {
            let s = SymNorm { count, m };
            // Row sums are at least 1, as those of a Gram matrix are.
            let inputs = [reals("v", count * m * m), reals("a", count * m * m).map(|v| 1.0 + v.abs())];
            let [v, a] = inputs.each_ref().map(|v| v.f32());
            let mut y = v.clone();
            forward(&s, &a, &mut y);
            assert_close("y", &y, &reference(&s, &inputs[0].f64(), &inputs[1].f64()), 1e-6);
            check_gradients(
                &inputs,
                y.len(),
                |t| reference(&s, &t[0], &t[1]),
                |dy| {
                    let (mut dv, mut da) = (vec![9.0; v.len()], vec![9.0; a.len()]);
                    backward(&SymNormGrad { count, m }, &v, &a, dy, &mut dv, &mut da);
                    vec![dv, da]
                },
            );
        }
    }

    #[test]
    fn integer_forward_is_within_two_units_of_the_reference() {
        let uniform = Stream::new(5);
        for (heads, m) in [(1, 1), (3, 4), (2, 49), (1, 255)] {
            let mut inv: Vec<i32> = ints::<i32>("inv", heads * m * m).iter().map(|v| v >> 2).collect();
            let a: Vec<i16> = (0..heads * m * m)
                .map(|at| if at % (m * m) % (m + 1) == 0 { 32767 } else { (uniform.bits(at as u64) >> 49) as i16 })
                .collect();
            let real = |v: &[i32]| -> Vec<f64> { v.iter().map(|&v| f64::from(v)).collect() };
            let a_real: Vec<f64> = a.iter().map(|&v| f64::from(v) / 32768.0).collect();
            let want = reference(&SymNorm { count: heads, m }, &real(&inv), &a_real);
            forward_q22(&SymNormQ22 { heads, m }, &Whole, &a, &mut inv);

            let lower = |a: &[i16]| -> Vec<i32> {
                (0..m).flat_map(|i| a[i * m..][..=i].iter().map(|&a| i32::from(a))).collect()
            };
            let triangles: Vec<i32> = a.chunks(m * m).flat_map(lower).collect();
            let mut scale = vec![9; heads * m];
            scale_triangle_q30(&SymScaleQ30 { heads, m }, &triangles, &mut scale);
            for (at, scale) in scale.iter().enumerate() {
                let (b, i) = (at / m, at % m);
                let a = |j: usize| a_real[(b * m + i.max(j)) * m + i.min(j)];
                let want = 2f64.powi(30) / (0..m).map(a).sum::<f64>().sqrt();
                assert!(
                    (f64::from(*scale) - want).abs() < 1.0 + want * 2f64.powi(-26),
                    "{at}: {scale}, right is {want}"
                );
            }
            for (i, (got, want)) in inv.iter().zip(want).enumerate() {
                // Two roundings, and roots that are right to 27 bits.
                assert!(
                    (f64::from(*got) - want).abs() < 1.0 + want.abs() * 2f64.powi(-25),
                    "{i}: {got}, right is {want}"
                );
            }
        }
    }

    #[test]
    fn integer_forward_survives_what_is_no_gram_matrix() {
        for fill in [i16::MIN, 0, i16::MAX] {
            let mut inv = [i32::MAX, i32::MIN, i32::MIN, i32::MAX];
            forward_q22(&SymNormQ22 { heads: 1, m: 2 }, &Whole, &[fill; 4], &mut inv);
            assert!(inv[0] > 0 && inv[1] < 0);
        }
        for fill in [i32::MIN, 0, i32::MAX] {
            scale_triangle_q30(&SymScaleQ30 { heads: 1, m: 2 }, &[fill; 3], &mut [0; 2]);
        }
        assert!(SymScaleQ30 { heads: 1, m: 256 }.signature().reason().is_some());
        assert!(SymNormQ22 { heads: 1, m: 256 }.signature().reason().is_some());
    }
}
