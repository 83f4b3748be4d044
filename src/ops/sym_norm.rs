//! SOFT++'s symmetric normalisation of the inverse, `D^-1/2 V D^-1/2` with `D` the row sums of the
//! landmark Gram matrix.

use super::{Signature, f32s};
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
        2 * super::size(&[self.count, self.m, self.m])
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
        4 * super::size(&[self.count, self.m, self.m])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, reals};

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
}
