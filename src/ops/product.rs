//! `U = A W` per head: the small product between the two passes over the tokens.

use super::inverse::{MAX_LANDMARKS, TOO_MANY_LANDMARKS};
use super::{Part, Signature, f32s, i16s, i32s};
use crate::arch::{Magnitudes, Matrix, NARROWED, dot_i64, magnitudes, matmul, matmul_f64, round_columns};

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

/// `u = a w`, summed in f64: where `a` is close to singular its terms cancel.
pub fn forward(s: &Product, a: &[f32], w: &[f32], u: &mut [f32]) {
    let Product { m, d, .. } = *s;
    for ((a, w), u) in a.chunks_exact(m * m).zip(w.chunks_exact(m * d)).zip(u.chunks_exact_mut(m * d)) {
        matmul_f64(Matrix::new(a, m, m), Matrix::new(w, m, d), u, |_, _, sum| sum);
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
        super::size(&[2, self.count, self.m, self.m, self.d])
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

shape! {
    /// Integer [`Product`] of one image: `inv i32[heads, m, m]` in Q22, `w i32[heads, m, d]` ->
    /// `u i16[heads, m, d]` and its exponents `e i32[heads, d]`, with scratch.
    ///
    /// Column `c` of a head stands for `u_ic * 2^(e_c - 22)` in units of `w`. For each head and column,
    /// `bits(x)` being the position of the highest set bit plus 1 and `b = bits(max_j |w_jc|)`:
    ///
    /// 1. `p = max(0, b - 24)` and `x_j = round_shift(w_jc, p)`, so that `|x_j| <= 2^24`;
    /// 2. `R_i = sum_j inv_ij x_j`, exact in 64 bits: `255 * 2^31 * 2^24 < 2^63`;
    /// 3. `t` is the smallest shift, from 0, with `|round_shift(R_i, t)| <= 32767` for every `i` and
    ///    `sum_i |round_shift(R_i, t)| <= 65535`;
    /// 4. `u_ic = round_shift(R_i, t)` and `e_c = p + t`, from 0 to 62.
    ///
    /// So `|sum_j k_j u_jc| <= 32767 * 65535 < 2^31` for any kernel values `0 <= k_j <= 32767`.
    pub struct ProductQ22 {
        /// Heads.
        pub heads: usize,
        /// Landmarks, at most 255.
        pub m: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl ProductQ22 {
    /// Inputs `inv, w`; outputs `u, e`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { heads, m, d } = *self;
        if m > MAX_LANDMARKS {
            return Signature::invalid(TOO_MANY_LANDMARKS);
        }
        Signature::new(
            &[i32s(&[heads, m, m]), i32s(&[heads, m, d])],
            &[i16s(&[heads, m, d]), i32s(&[heads, d]), i32s(&[3, m])],
        )
    }

    /// Rows that can be computed by themselves: the columns of all heads.
    pub const fn rows(&self) -> usize {
        super::size(&[self.heads, self.d]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.heads, self.m, self.m, self.d])
    }
}

/// Integer forward of some columns, exactly as [`ProductQ22`] says.
pub fn forward_q22(
    s: &ProductQ22,
    part: &impl Part,
    inv: &[i32],
    w: &[i32],
    u: &mut [i16],
    e: &mut [i32],
    scratch: &mut [i32],
) {
    let ProductQ22 { m, d, .. } = *s;
    let (column, sums) = scratch.split_at_mut(m);
    // Two words hold the 64 bits of a sum.
    let (sums, _) = sums.as_chunks_mut::<2>();
    let inputs = inv.chunks_exact(m * m).zip(w.chunks_exact(m * d));
    for (h, ((inv, w), (u, e))) in inputs.zip(u.chunks_exact_mut(m * d).zip(e.chunks_exact_mut(d))).enumerate() {
        let columns = part.group(h, d).rows(d);
        for (c, e) in e.iter_mut().enumerate().take(columns.end).skip(columns.start) {
            let mut top = 0;
            for (x, &w) in column.iter_mut().zip(w.iter().skip(c).step_by(d)) {
                *x = w;
                top = w.unsigned_abs().max(top);
            }
            let narrowed = (u32::BITS - top.leading_zeros()).saturating_sub(24);
            if narrowed > 0 {
                column.iter_mut().for_each(|x| *x = half_up(*x >> (narrowed - 1)));
            }
            // Has a bit above those of every magnitude but, for a power of two, its own.
            let mut bits = 0;
            for (sum, inv) in sums.iter_mut().zip(inv.chunks_exact(m)) {
                let value = dot_i64(inv, column);
                *sum = split(value);
                bits |= value ^ (value >> 63);
            }
            // Below this shift the largest value would not fit 15 bits.
            let least = (u64::BITS - bits.leading_zeros()).saturating_sub(16);
            for (x, &sum) in column.iter_mut().zip(&*sums) {
                *x = if least > 0 { join(sum) >> (least - 1) } else { join(sum) << 1 } as i32;
            }
            let [shift, ..] = narrow(column, 1, &mut u[c..], d, 1, 1);
            *e = (narrowed + least + shift - 1) as i32;
        }
    }
}

/// `x / 2`, rounded to nearest, ties up: with `x = floor(y / 2^(s-1))` this is `round_shift(y, s)`.
#[inline(always)]
pub(super) fn half_up(x: i32) -> i32 {
    (x + 1) >> 1
}

/// Writes up to [`NARROWED`] columns of `x`, of which a row has `d` values, shifted down and rounded, to those of `u`,
/// of which it has `du`, and returns the shifts: the smallest, from `least`, after which they fit 16 bits and their
/// magnitudes sum to at most 65535.
pub(super) fn narrow(x: &[i32], d: usize, u: &mut [i16], du: usize, n: usize, least: u32) -> [u32; NARROWED] {
    let Magnitudes { bits, sums } = magnitudes(x, d, n);
    let mut shifts = core::array::from_fn(|c| {
        // Rounding takes at most half from each magnitude, and the sum has one less of some: below these shifts it
        // would be too large, or the largest value not fit 15 bits.
        let of_sum =
            u32::BITS - ((sums[c] >> 9) as u32 / ((65536 + 2 * (MAX_LANDMARKS as u32 + 1)) >> 9)).leading_zeros();
        let of_bits = (u32::BITS - bits[c].leading_zeros()).saturating_sub(15);
        least.max(of_sum).max(of_bits)
    });
    loop {
        let Magnitudes { bits, sums } = round_columns(x, d, u, du, n, shifts);
        let mut fits = true;
        for (shift, (bits, sum)) in shifts.iter_mut().zip(bits.into_iter().zip(sums)) {
            if bits > 32767 || sum > 65535 {
                *shift += 1;
                fits = false;
            }
        }
        if fits {
            return shifts;
        }
    }
}

fn split(x: i64) -> [i32; 2] {
    [x as i32, (x >> 32) as i32]
}

fn join([low, high]: [i32; 2]) -> i64 {
    i64::from(high) << 32 | i64::from(low as u32)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::Whole;
    use crate::ops::testing::{assert_close, check_gradients, ints, reals};

    pub(in crate::ops) fn reference(s: &Product, a: &[f64], w: &[f64]) -> Vec<f64> {
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

    fn check_integer(s: &ProductQ22, inv: &[i32], w: &[i32]) -> (Vec<i16>, Vec<i32>) {
        let ProductQ22 { heads, m, d } = *s;
        assert_eq!(s.signature().reason(), None);
        let (mut u, mut e) = (vec![9; heads * m * d], vec![9; heads * d]);
        forward_q22(s, &Whole, inv, w, &mut u, &mut e, &mut vec![9; 3 * m]);
        for (h, c) in (0..heads).flat_map(|h| (0..d).map(move |c| (h, c))) {
            let exact = |i| -> i128 {
                (0..m).map(|j| i128::from(inv[(h * m + i) * m + j]) * i128::from(w[(h * m + j) * d + c])).sum()
            };
            let magnitude = |i| -> i128 { (0..m).map(|j| i128::from(inv[(h * m + i) * m + j]).abs()).sum() };
            let column: Vec<i128> = (0..m).map(|i| i128::from(u[(h * m + i) * d + c])).collect();
            let e = e[h * d + c];
            assert!((0..=62).contains(&e));
            assert!(column.iter().map(|u| u.abs()).sum::<i128>() <= 65535);
            for (i, &u) in column.iter().enumerate() {
                // Half a unit of u, and half a unit of x for each term where w was narrowed.
                let narrowed = w.iter().map(|w| w.unsigned_abs()).max().unwrap().next_power_of_two() >> 24;
                let bound = (1i128 << e) / 2 + magnitude(i) * i128::from(narrowed);
                assert!(((u << e) - exact(i)).abs() <= bound, "{h} {c} {i}: {u} * 2^{e} where {} is right", exact(i));
            }
            // No exponent is larger than it has to be: half of it would break a limit.
            let largest = column.iter().map(|u| u.abs()).max().unwrap();
            let sum: i128 = column.iter().map(|u| u.abs()).sum();
            assert!(e == 0 || 2 * largest + 2 > 32767 || 2 * sum + m as i128 > 65535, "{column:?} e {e}");
        }
        (u, e)
    }

    #[test]
    fn integer_product_is_exact_to_its_last_place() {
        for (heads, m, d) in [(1, 1, 1), (2, 5, 3), (3, 16, 7), (1, 49, 4), (1, 255, 2)] {
            for (inv_bits, w_bits) in [(30, 31), (24, 20), (10, 8), (2, 1)] {
                let inv: Vec<i32> = ints::<i32>("inv", heads * m * m).iter().map(|v| v >> (31 - inv_bits)).collect();
                let w: Vec<i32> = ints::<i32>("w", heads * m * d).iter().map(|v| v >> (31 - w_bits)).collect();
                check_integer(&ProductQ22 { heads, m, d }, &inv, &w);
            }
        }
    }

    #[test]
    fn integer_product_survives_the_extremes() {
        let (m, d) = (255, 2);
        let s = ProductQ22 { heads: 1, m, d };
        for inv in [i32::MIN, i32::MAX] {
            for w in [i32::MIN, i32::MAX, 0] {
                check_integer(&s, &vec![inv; m * m], &vec![w; m * d]);
            }
        }
        assert!(ProductQ22 { heads: 1, m: 256, d }.signature().reason().is_some());
    }
}
