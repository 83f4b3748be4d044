//! The Gram matrix of the landmarks, `A = exp(-|L_i - L_j|^2 / 2)` (SOFT, Eq. 5 and 8).
//!
//! Symmetric, positive semi-definite, entries in `[0, 1]`, diagonal 1. The paper's `1/sqrt(d)` is
//! folded into the tokens before they come here.

use super::{Signature, f32s};
use crate::arch::vectorised;
use crate::math::float::{exp, sum_pairs};

shape! {
    /// Landmarks `l[batch, m, heads*d]` -> `a[batch*heads, m, m]`.
    pub struct Gram {
        /// Images.
        pub batch: usize,
        /// Landmarks per image.
        pub m: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl Gram {
    /// Input `l`; output `a`.
    pub const fn signature(&self) -> Signature {
        let Self { batch, m, heads, d } = *self;
        Signature::new(&[f32s(&[batch, m, heads, d])], &[f32s(&[batch, heads, m, m])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.batch, self.heads, self.m, self.m, self.d]) / 2
    }
}

/// `a_ij = exp(-|l_i - l_j|^2 / 2)`, exactly symmetric and exactly 1 on the diagonal.
pub fn forward(s: &Gram, l: &[f32], a: &mut [f32]) {
    let Gram { m, heads, d, .. } = *s;
    let width = heads * d;
    vectorised(
        #[inline(always)]
        || {
            for (l, a) in l.chunks_exact(m * width).zip(a.chunks_exact_mut(heads * m * m)) {
                for (h, a) in a.chunks_exact_mut(m * m).enumerate() {
                    let landmark = |i: usize| &l[i * width + h * d..][..d];
                    for i in 0..m {
                        a[i * m + i] = 1.0;
                        for j in 0..i {
                            let square = sum_pairs(landmark(i), landmark(j), |a, b| (a - b) * (a - b));
                            let value = exp(-0.5 * square);
                            a[i * m + j] = value;
                            a[j * m + i] = value;
                        }
                    }
                }
            }
        },
    );
}

shape! {
    /// Backward of [`Gram`]: `l, a, da -> dl`.
    pub struct GramGrad {
        /// Images.
        pub batch: usize,
        /// Landmarks per image.
        pub m: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl GramGrad {
    /// Inputs `l, a, da`; output `dl`.
    pub const fn signature(&self) -> Signature {
        let Self { batch, m, heads, d } = *self;
        let (tokens, square) = (f32s(&[batch, m, heads, d]), f32s(&[batch, heads, m, m]));
        Signature::new(&[tokens, square, square], &[tokens])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.batch, self.heads, self.m, self.m, self.d])
    }
}

/// `dl_i = sum_j (da_ij + da_ji) a_ij (l_j - l_i)`; `da` need not be symmetric. Overwrites `dl`.
pub fn backward(s: &GramGrad, l: &[f32], a: &[f32], da: &[f32], dl: &mut [f32]) {
    let GramGrad { m, heads, d, .. } = *s;
    let width = heads * d;
    dl.fill(0.0);
    let square = heads * m * m;
    let images = l.chunks_exact(m * width).zip(dl.chunks_exact_mut(m * width));
    let matrices = a.chunks_exact(square).zip(da.chunks_exact(square));
    vectorised(
        #[inline(always)]
        || {
            for ((l, dl), (a, da)) in images.zip(matrices) {
                for (h, (a, da)) in a.chunks_exact(m * m).zip(da.chunks_exact(m * m)).enumerate() {
                    for (i, dl) in dl.chunks_exact_mut(width).enumerate() {
                        let dl = &mut dl[h * d..][..d];
                        let li = &l[i * width + h * d..][..d];
                        for (j, lj) in l.chunks_exact(width).enumerate() {
                            let lj = &lj[h * d..][..d];
                            let t = (da[i * m + j] + da[j * m + i]) * a[i * m + j];
                            for (g, (lj, li)) in dl.iter_mut().zip(lj.iter().zip(li)) {
                                *g += t * (lj - li);
                            }
                        }
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, reals};

    fn reference(s: &Gram, l: &[f64]) -> Vec<f64> {
        let Gram { batch, m, heads, d } = *s;
        let at = |b: usize, i: usize, h: usize, c: usize| l[((b * m + i) * heads + h) * d + c];
        let mut a = Vec::new();
        for b in 0..batch {
            for h in 0..heads {
                for i in 0..m {
                    for j in 0..m {
                        let square: f64 = (0..d).map(|c| (at(b, i, h, c) - at(b, j, h, c)).powi(2)).sum();
                        a.push((-square / 2.0).exp());
                    }
                }
            }
        }
        a
    }

    #[test]
    fn forward_and_backward_match_the_reference() {
        for (batch, m, heads, d) in [(1, 1, 1, 1), (2, 4, 3, 5), (1, 9, 2, 8), (2, 16, 1, 17)] {
            let s = Gram { batch, m, heads, d };
            let inputs = [reals("l", batch * m * heads * d)];
            let l = inputs[0].f32();
            let mut a = vec![9.0; batch * heads * m * m];
            forward(&s, &l, &mut a);
            assert_close("a", &a, &reference(&s, &inputs[0].f64()), 1e-6);

            let s_grad = GramGrad { batch, m, heads, d };
            check_gradients(
                &inputs,
                a.len(),
                |t| reference(&s, &t[0]),
                |da| {
                    let mut dl = vec![9.0; l.len()];
                    backward(&s_grad, &l, &a, da, &mut dl);
                    vec![dl]
                },
            );
        }
    }

    #[test]
    fn symmetric_with_unit_diagonal_even_far_from_the_origin() {
        let (m, d) = (7, 12);
        let l: Vec<f32> = reals("l", m * d).f32().iter().map(|v| 1000.0 + v).collect();
        let mut a = vec![0.0; m * m];
        forward(&Gram { batch: 1, m, heads: 1, d }, &l, &mut a);
        for i in 0..m {
            assert_eq!(a[i * m + i], 1.0);
            for j in 0..m {
                assert_eq!(a[i * m + j], a[j * m + i]);
            }
        }
    }
}
