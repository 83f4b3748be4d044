//! The Gram matrix of the landmarks, `A = exp(-|L_i - L_j|^2 / 2)` (SOFT, Eq. 5 and 8).
//!
//! Symmetric, positive semi-definite, entries in `[0, 1]`, diagonal 1. The paper's `1/sqrt(d)` is
//! folded into the tokens before they come here.

use super::inverse::{MAX_LANDMARKS, TOO_MANY_LANDMARKS, triangle};
use super::{Part, Signature, f32s, i8s, i16s, i32s, size};
use crate::arch::{Kernel, gram_row, squared_distance, vectorised};
use crate::math::fixed::{Decay, MAX_SHIFT, MIN_SHIFT};
use crate::math::float::exp;
use core::mem::take;

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
        size(&[self.batch, self.heads, self.m, self.m, self.d]) / 2
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
                        let row = &mut a[i * m..][..i];
                        for (j, a) in row.iter_mut().enumerate() {
                            *a = half_distance(landmark(i), landmark(j));
                        }
                        for a in row {
                            *a = exp(-*a);
                        }
                        a[i * m + i] = 1.0;
                        for j in 0..i {
                            a[j * m + i] = a[i * m + j];
                        }
                    }
                }
            }
        },
    );
}

/// `|a - b|^2 / 2`.
#[inline(always)]
fn half_distance(a: &[f32], b: &[f32]) -> f32 {
    // Four lanes: heads are narrow.
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut lanes = [0.0; 4];
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += (a - b) * (a - b);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    0.5 * ((lanes[0] + lanes[2]) + (lanes[1] + lanes[3]) + rest)
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
        size(&[self.batch, self.heads, self.m, self.m, self.d])
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

shape! {
    /// Integer [`Gram`] of one image: `l i8[m, heads*d]` -> `a i16[heads, m, m]` in Q15.
    ///
    /// `a_ij = exp2_neg_scaled(sum_c (l_ic - l_jc)^2, multiplier, shift)`, see
    /// [`exp2_neg_scaled`](crate::math::fixed::exp2_neg_scaled): 1 is stored as 32767, and each value
    /// is within 0.63 / 2^15 of the kernel but for the 1. With `scale` the real value of one step of
    /// `l` (zero point 0), `multiplier / 2^shift = 2^16 * log2(e) * scale^2 / 2`.
    pub struct GramI8 {
        /// Landmarks.
        pub m: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head, at most [`MAX_WIDTH`].
        pub d: usize,
        /// Mantissa of the exponent's factor.
        pub multiplier: i32,
        /// Right shift of the exponent's factor.
        pub shift: i32,
    }
}

/// Widest head of the integer kernels: squared distances of int8 vectors stay inside 31 bits.
pub const MAX_WIDTH: usize = 32767;

/// What is wrong with an exponent's factor or a head's width, if anything is.
pub(super) const fn kernel_fault(d: usize, multiplier: i32, shift: i32) -> Option<&'static str> {
    if d > MAX_WIDTH {
        Some("a head is wider than 32767")
    } else if multiplier < 0 || shift < MIN_SHIFT as i32 || shift > MAX_SHIFT as i32 {
        Some("the factor of a kernel's exponent is negative or its shift is outside 16 to 62")
    } else {
        None
    }
}

impl GramI8 {
    /// Input `l`; output `a`.
    pub const fn signature(&self) -> Signature {
        let Self { m, heads, d, multiplier, shift } = *self;
        if let Some(fault) = kernel_fault(d, multiplier, shift) {
            return Signature::invalid(fault);
        }
        Signature::new(&[i8s(&[m, heads, d])], &[i16s(&[heads, m, m])])
    }

    /// Rows that can be computed by themselves: the rows of all matrices, each with the column it mirrors.
    pub const fn rows(&self) -> usize {
        size(&[self.heads, self.m]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[self.heads, self.m, self.m, self.d]) / 2
    }
}

/// Integer forward of some rows, Q15.
pub fn forward_i8(s: &GramI8, part: &impl Part, l: &[i8], a: &mut [i16]) {
    let GramI8 { m, heads, d, multiplier, shift } = *s;
    let decay = Decay::new(multiplier, shift as u32);
    for (h, a) in a.chunks_exact_mut(m * m).enumerate() {
        let landmark = |i: usize| &l[(i * heads + h) * d..][..d];
        for i in part.group(h, m).rows(m) {
            for j in 0..=i {
                let value = decay.value(squared_distance(landmark(i), landmark(j))) as i16;
                a[i * m + j] = value;
                a[j * m + i] = value;
            }
        }
    }
}

shape! {
    /// The lower triangle of [`GramI8`]'s matrices: `l i8[m, heads*d]` -> `a i32[heads, m (m + 1) / 2]` in Q15.
    ///
    /// The rows follow each other, each from column 0 to the diagonal: `a_ij`, `j <= i`, lies at
    /// `i (i + 1) / 2 + j` and has the value that it has there.
    pub struct GramTriangleI8 {
        /// Landmarks, at most [`MAX_LANDMARKS`].
        pub m: usize,
        /// Heads.
        pub heads: usize,
        /// Width of a head, at most [`MAX_WIDTH`].
        pub d: usize,
        /// Mantissa of the exponent's factor.
        pub multiplier: i32,
        /// Right shift of the exponent's factor.
        pub shift: i32,
    }
}

impl GramTriangleI8 {
    /// Input `l`; output `a`.
    pub const fn signature(&self) -> Signature {
        let Self { m, heads, d, multiplier, shift } = *self;
        if let Some(fault) = kernel_fault(d, multiplier, shift) {
            return Signature::invalid(fault);
        }
        if m > MAX_LANDMARKS {
            return Signature::invalid(TOO_MANY_LANDMARKS);
        }
        Signature::new(&[i8s(&[m, heads, d])], &[i32s(&[heads, triangle(m)])])
    }

    /// Rows that can be computed by themselves: the rows of all triangles.
    pub const fn rows(&self) -> usize {
        size(&[self.heads, self.m]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[self.heads, self.m, self.m, self.d]) / 2
    }
}

/// Integer forward of some rows, Q15, exactly as [`GramTriangleI8`] says.
pub fn triangle_i8(s: &GramTriangleI8, part: &impl Part, l: &[i8], a: &mut [i32]) {
    let GramTriangleI8 { m, heads, d, multiplier, shift } = *s;
    let decay = Decay::new(multiplier, shift as u32);
    for (h, a) in a.chunks_exact_mut(triangle(m)).enumerate() {
        let landmark = |i: usize| &l[(i * heads + h) * d..][..d];
        let part = part.group(h, m);
        let k = Kernel { l, width: heads * d, first: h * d, d, multiplier, shift: shift as u32 };
        let mut rest = &mut a[triangle(part.start())..];
        for i in part.rows(m) {
            let (row, below) = take(&mut rest).split_at_mut(i + 1);
            rest = below;
            if !gram_row(&k, &decay, i, row) {
                for (j, a) in row.iter_mut().enumerate() {
                    *a = decay.value(squared_distance(landmark(i), landmark(j)));
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::math::fixed::Multiplier;
    use crate::ops::Whole;
    use crate::ops::testing::{assert_close, check_gradients, ints, reals};

    pub(in crate::ops) fn reference(s: &Gram, l: &[f64]) -> Vec<f64> {
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

    #[test]
    fn integer_forward_is_close_to_the_gram_of_the_dequantised_landmarks() {
        for (m, heads, d, scale) in
            [(1, 1, 1, 0.5), (5, 2, 3, 0.01), (16, 2, 16, 0.004), (49, 1, 32, 0.02), (4, 1, 33, 0.8)]
        {
            let l = ints::<i8>("l", m * heads * d);
            let factor = Multiplier::from_f64(65536.0 * core::f64::consts::LOG2_E * scale * scale / 2.0).unwrap();
            let s = GramI8 { m, heads, d, multiplier: factor.value, shift: factor.shift as i32 };
            assert_eq!(s.signature().reason(), None);
            let mut a = vec![0; heads * m * m];
            forward_i8(&s, &Whole, &l, &mut a);
            let mut lower = vec![9; heads * triangle(m)];
            let lower_of = GramTriangleI8 { m, heads, d, multiplier: s.multiplier, shift: s.shift };
            triangle_i8(&lower_of, &Whole, &l, &mut lower);
            let expected = a.chunks(m * m).flat_map(|a| (0..m).flat_map(|i| &a[i * m..][..=i])).map(|&a| i32::from(a));
            assert!(expected.eq(lower));
            let real: Vec<f64> = l.iter().map(|&v| f64::from(v) * scale).collect();
            for (i, (&a, want)) in a.iter().zip(reference(&Gram { batch: 1, m, heads, d }, &real)).enumerate() {
                // The exponent's own rounding, 2^-17 of an octave, adds 0.2 units.
                let bound = if want > 0.9999 { 1.0 } else { 0.85 };
                assert!((f64::from(a) - 32768.0 * want).abs() <= bound, "a[{i}] = {a}, right is {}", 32768.0 * want);
            }
        }
    }

    #[test]
    fn integer_forward_survives_the_extremes() {
        let (m, d) = (2, MAX_WIDTH);
        let mut l = vec![127; m * d];
        l[..d].fill(-128);
        let mut a = [7; 4];
        forward_i8(&GramI8 { m, heads: 1, d, multiplier: i32::MAX, shift: 16 }, &Whole, &l, &mut a);
        assert_eq!(a, [32767, 0, 0, 32767]);
        for (d, multiplier, shift) in [(d + 1, 1 << 30, 20), (1, -1, 20), (1, 1 << 30, 15), (1, 1 << 30, 63)] {
            assert!(GramI8 { m, heads: 1, d, multiplier, shift }.signature().reason().is_some());
            assert!(GramTriangleI8 { m, heads: 1, d, multiplier, shift }.signature().reason().is_some());
        }
    }
}
