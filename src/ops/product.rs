//! `U = A W` per head: the small product between the two passes over the tokens.

use super::{Signature, f32s};
use crate::arch::{Matrix, matmul};

shape! {
    /// `a[count, m, m]`, `w[count, m, d]` -> `u[count, m, d]`.
    pub struct Product {
        /// Matrices: batch times heads.
        pub count: usize,
        /// Landmarks.
        pub m: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl Product {
    /// Inputs `a, w`; output `u`.
    pub const fn signature(&self) -> Signature {
        let Self { count, m, d } = *self;
        Signature::new(&[f32s(&[count, m, m]), f32s(&[count, m, d])], &[f32s(&[count, m, d])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.count, self.m, self.m, self.d])
    }
}

/// `u = a w`.
pub fn forward(s: &Product, a: &[f32], w: &[f32], u: &mut [f32]) {
    let Product { m, d, .. } = *s;
    for ((a, w), u) in a.chunks_exact(m * m).zip(w.chunks_exact(m * d)).zip(u.chunks_exact_mut(m * d)) {
        matmul(Matrix::new(a, m, m), Matrix::new(w, m, d), u, false);
    }
}

shape! {
    /// Backward of [`Product`]: `a, w, du -> da, dw`.
    pub struct ProductGrad {
        /// Matrices: batch times heads.
        pub count: usize,
        /// Landmarks.
        pub m: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl ProductGrad {
    /// Inputs `a, w, du`; outputs `da, dw`.
    pub const fn signature(&self) -> Signature {
        let Self { count, m, d } = *self;
        let (square, tall) = (f32s(&[count, m, m]), f32s(&[count, m, d]));
        Signature::new(&[square, tall, tall], &[square, tall])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        2 * super::size(&[self.count, self.m, self.m, self.d])
    }
}

/// `da = du w^T`, `dw = a^T du`; overwrites both.
pub fn backward(s: &ProductGrad, a: &[f32], w: &[f32], du: &[f32], da: &mut [f32], dw: &mut [f32]) {
    let ProductGrad { m, d, .. } = *s;
    let squares = a.chunks_exact(m * m).zip(da.chunks_exact_mut(m * m));
    let talls = w.chunks_exact(m * d).zip(du.chunks_exact(m * d)).zip(dw.chunks_exact_mut(m * d));
    for ((a, da), ((w, du), dw)) in squares.zip(talls) {
        let du = Matrix::new(du, m, d);
        matmul(du, Matrix::new(w, m, d).t(), da, false);
        matmul(Matrix::new(a, m, m).t(), du, dw, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, reals};

    fn reference(s: &Product, a: &[f64], w: &[f64]) -> Vec<f64> {
        let Product { count, m, d } = *s;
        let mut u = Vec::new();
        for b in 0..count {
            for i in 0..m {
                for c in 0..d {
                    u.push((0..m).map(|j| a[(b * m + i) * m + j] * w[(b * m + j) * d + c]).sum());
                }
            }
        }
        u
    }

    #[test]
    fn forward_and_backward_match_the_reference() {
        for (count, m, d) in [(1, 1, 1), (3, 4, 5), (2, 9, 3)] {
            let s = Product { count, m, d };
            let inputs = [reals("a", count * m * m), reals("w", count * m * d)];
            let [a, w] = inputs.each_ref().map(|v| v.f32());
            let mut u = vec![9.0; w.len()];
            forward(&s, &a, &w, &mut u);
            assert_close("u", &u, &reference(&s, &inputs[0].f64(), &inputs[1].f64()), 1e-6);
            check_gradients(
                &inputs,
                u.len(),
                |t| reference(&s, &t[0], &t[1]),
                |du| {
                    let (mut da, mut dw) = (vec![9.0; a.len()], vec![9.0; w.len()]);
                    backward(&ProductGrad { count, m, d }, &a, &w, du, &mut da, &mut dw);
                    vec![da, dw]
                },
            );
        }
    }
}
