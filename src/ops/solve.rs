//! The direct inverse of the landmarks' kernel, applied: `U = (A + ridge I)^-1 W` without the inverse, by
//! `A + ridge I = L D L^T`, a forward substitution, a division by `D` and a back substitution.
//!
//! Integers only: of [`GramTriangleI8`](super::gram::GramTriangleI8)'s `A` [`FactorQ26`] makes `L` and `1 / D`,
//! [`SolveQ26`] makes `U` of `W`, and [`NarrowI16`] brings it to int16 for [`ApplyI8`](super::kernel::ApplyI8).
//! Besides the triangle and `W`, which are overwritten, that needs memory for four columns of `W`.

use super::inverse::{MAX_LANDMARKS, TOO_MANY_LANDMARKS, reciprocal_q22, ridge_fault, rounded, triangle};
use super::product::{half_up, narrow};
use super::{Part, Signature, i16s, i32s, size};
use crate::arch::{
    self, Block, COLUMNS, NARROWED, column_bits, column_sums, dot_i64, few, put, row_sums, scale_columns,
};
use crate::math::fixed::mul_wide;

shape! {
    /// In place: `A`, the lower triangle `i32[heads, m (m + 1) / 2]` in Q15 of symmetric, positive semi-definite
    /// matrices -> `L` and the reciprocals of `D` in `A + ridge I = L D L^T`, with scratch.
    ///
    /// `L_ij`, `j < i`, in Q26 lies where `a_ij` was, at `i (i + 1) / 2 + j`, and `r_i = 1 / D_i` in Q22 where `a_ii`
    /// was. Sums are of 64 bits and exact; each value below is rounded once and saturated to 32 bits. For each
    /// head, for `i` from 0 to `m - 1`:
    ///
    /// 1. for `j` from 0 to `i - 1`: `U_j = round_shift(2^41 a_ij - sum_{k<j} U_k L_jk, 26)` (Q30),
    ///    `L_ij = round_shift(U_j r_j, 26)` (Q26);
    /// 2. `D = max(round_shift(2^41 a_ii + 2^34 ridge - sum_{k<i} U_k L_ik, 26), 2^8 ridge)` (Q30), `z` its
    ///    leading zeros as a `u32`, `r_i = round_shift(reciprocal(D << z), 11 - z)` (Q22).
    ///
    /// No value leaves its format and no sum 64 bits: `D` lies between `ridge` and `1 + ridge <= 2`, by Cauchy-Schwarz
    /// the sums are at most `1 + ridge` in magnitude and `|L|` at most `ridge^-1/2 <= 16`. Any other `a` gives a
    /// meaningless but defined result.
    pub struct FactorQ26 {
        /// Heads.
        pub heads: usize,
        /// Landmarks, at most [`MAX_LANDMARKS`].
        pub m: usize,
        /// Added to the diagonal, in Q22: 1/256 (2^14) to 1.
        pub ridge: i32,
    }
}

impl FactorQ26 {
    /// Input `a`; outputs `L` and `1 / D` in place of it, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { heads, m, ridge } = *self;
        if m > MAX_LANDMARKS {
            return Signature::invalid(TOO_MANY_LANDMARKS);
        }
        if let Some(fault) = ridge_fault(ridge) {
            return Signature::invalid(fault);
        }
        let factor = i32s(&[heads, triangle(m)]);
        Signature::new(&[factor], &[factor, i32s(&[m])]).in_place()
    }

    /// Rows that can be computed by themselves, in order: the rows of all triangles.
    pub const fn rows(&self) -> usize {
        size(&[self.heads, self.m]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.heads, self.m, self.m, self.m]) / 6
    }
}

/// Some rows of the factorisation, exactly as [`FactorQ26`] says; `f` holds `A` before.
pub fn factor_q26(s: &FactorQ26, part: &impl Part, f: &mut [i32], row: &mut [i32]) {
    let FactorQ26 { m, ridge, .. } = *s;
    for (h, f) in f.chunks_exact_mut(triangle(m)).enumerate() {
        for i in part.group(h, m).rows(m) {
            let (above, rest) = f.split_at_mut(triangle(i));
            let (li, diagonal) = rest[..=i].split_at_mut(i);
            arch::factor_row(above, li, row, |li, row| factor_row(above, li, row));
            let a = (i64::from(diagonal[0]) << 41).wrapping_add(i64::from(ridge) << 34);
            diagonal[0] = reciprocal_q22(rounded(a.wrapping_sub(dot_i64(&row[..i], li))).max(ridge << 8));
        }
    }
}

/// The values of a row of `L` before the diagonal, in place, and those of its `U`.
#[inline(always)]
fn factor_row(mut above: &[i32], l: &mut [i32], row: &mut [i32]) {
    for (j, l) in l.iter_mut().enumerate() {
        let (lj, below) = above.split_at(j + 1);
        row[j] = rounded((i64::from(*l) << 41).wrapping_sub(dot_i64(&row[..j], lj)));
        *l = rounded(mul_wide(row[j], lj[j]));
        above = below;
    }
}

shape! {
    /// In place: `w i32[heads, m, d]`, the `L` and `1 / D` of [`FactorQ26`] and, if it is there, the `s` of
    /// [`SymScaleQ30`](super::sym_norm::SymScaleQ30) -> `x i32[heads, m, d]` and the exponents of its columns
    /// `e i32[heads, d]`, with scratch.
    ///
    /// Column `c` of a head stands for `x_ic * 2^(e_c - 22)` in units of `w`. Sums are of 64 bits and exact; `y` and `z` are
    /// rounded once and saturated to 32 bits. For each head, `bits(x)` being the position of the highest set bit plus 1:
    ///
    /// 1. `k = bits(max_i s_i)`, `S_i = max(0, s_i) 2^(31-k)`, `scaled_i(x) = round_shift(x S_i, 31)`; where `s` is absent,
    ///    `k = 30` and `scaled_i(x) = x`.
    ///
    /// For each column, where `p` is 22 up to 4 landmarks, 21 up to 16, 20 up to 64 and 19 above:
    ///
    /// 2. `t` is the largest shift, to 31, with `-2^31 <= 2^t w_ic < 2^31` for every `i`, and
    ///    `w'_i = round_shift(scaled_i(2^t w_ic), 31 - p)`: at most `2^p`;
    /// 3. for `i` from 0 to `m - 1`: `y_i = round_shift(2^26 w'_i - sum_{k<i} L_ik y_k, 26)`;
    /// 4. for `i` from `m - 1` to 0: `z_i = round_shift(2^4 y_i r_i - sum_{k>i} L_ki z_k, 26)`;
    /// 5. `x_ic = scaled_i(z_i)`, `e_c = 2 k - 7 - p - t`.
    ///
    /// No value saturates and no sum leaves 64 bits. With `|w'|` the norm of the column, at most `2^p m^1/2 <= 2^23`,
    /// `y` is at most `((1 + ridge) / ridge)^1/2 |w'| < 2^28`. `M = ridge (A + ridge I)^-1` has its eigenvalues in 0 to 1,
    /// so `sum_j M_ij^2 <= M_ii`, `sum_j |M_ij| <= M_ii + ((m - 1) (M_ii - M_ii^2))^1/2 <= (1 + m^1/2) / 2`, and `z` is at
    /// most `2^p (1 + m^1/2) / (2 ridge) <= 3/4 2^31`. Any other `L` gives a meaningless but defined result.
    pub struct SolveQ26 {
        /// Heads.
        pub heads: usize,
        /// Landmarks, at most [`MAX_LANDMARKS`].
        pub m: usize,
        /// Width of a head.
        pub d: usize,
    }
}

/// Bits of the largest magnitude of a column of `m` values: `2^23` is at least `m^1/2` times that magnitude.
const fn column_bits_of(m: usize) -> u32 {
    match m {
        ..=4 => 22,
        5..=16 => 21,
        17..=64 => 20,
        _ => 19,
    }
}

impl SolveQ26 {
    /// Inputs `w`, the factors, `s` (optional); outputs `x` in place of `w`, `e`, scratch.
    pub const fn signature(&self) -> Signature {
        let Self { heads, m, d } = *self;
        if m > MAX_LANDMARKS {
            return Signature::invalid(TOO_MANY_LANDMARKS);
        }
        let w = i32s(&[heads, m, d]);
        let ins = [w, i32s(&[heads, triangle(m)]), i32s(&[heads, m]).optional()];
        Signature::new(&ins, &[w, i32s(&[heads, d]), i32s(&[m, COLUMNS])]).in_place()
    }

    /// Rows that can be computed by themselves: four columns of a head.
    pub const fn rows(&self) -> usize {
        size(&[self.heads, self.d.div_ceil(COLUMNS)]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.heads, self.m, self.m, self.d])
    }
}

/// Both substitutions for some columns, exactly as [`SolveQ26`] says; `x` holds `w` before.
pub fn solve_q26(
    s: &SolveQ26,
    part: &impl Part,
    f: &[i32],
    scale: &[i32],
    x: &mut [i32],
    e: &mut [i32],
    scratch: &mut [i32],
) {
    let SolveQ26 { m, d, .. } = *s;
    let p = column_bits_of(m);
    let heads = f.chunks_exact(triangle(m)).zip(x.chunks_exact_mut(m * d)).zip(e.chunks_exact_mut(d));
    for (h, ((f, x), e)) in heads.enumerate() {
        let part = part.group(h, d.div_ceil(COLUMNS));
        if part.is_empty() {
            continue;
        }
        let rows = part.rows(d.div_ceil(COLUMNS));
        let scale = scale.get(h * m..).and_then(|scale| scale.get(..m));
        let bits = scale.map_or(30, |s| u32::BITS - s.iter().fold(0, |bits, &s| bits | s.max(0)).leading_zeros());
        for first in rows.map(|row| row * COLUMNS) {
            let (x, n) = (&mut x[first..], COLUMNS.min(d - first));
            let mut shifts = column_bits(x, d, n).map(|bits| bits.leading_zeros() - 1);
            for (e, t) in e[first..].iter_mut().zip(shifts) {
                *e = 2 * bits as i32 - (7 + p + t) as i32;
            }
            if let Some(s) = scale {
                scale_columns(x, d, n, s, 31 - bits, shifts);
                shifts = [0; COLUMNS];
            }
            let mut block = Block { x: &mut *x, d, n, shifts, down: 31 - p };
            arch::substitute(f, &mut block, scratch, |block, scratch| substitute(f, block, scratch));
            if let Some(s) = scale {
                scale_columns(x, d, n, s, 31 - bits, [0; COLUMNS]);
            }
        }
    }
}

/// See [`arch::substitute`].
#[inline(always)]
fn substitute(f: &[i32], block: &mut Block<'_>, scratch: &mut [i32]) {
    let Block { ref mut x, d, n, shifts, down } = *block;
    let (columns, _) = scratch.as_chunks_mut::<COLUMNS>();
    for (y, w) in columns.iter_mut().zip(x.chunks(d).map(few)) {
        *y = core::array::from_fn(|c| half_up(w[c] << shifts[c] >> (down - 1)));
    }
    for i in 0..columns.len() {
        let (above, rest) = columns.split_at_mut(i);
        subtract(&mut rest[0], 1 << 22, &row_sums(&f[triangle(i)..][..i], above));
    }
    for i in (0..columns.len()).rev() {
        let (rest, below) = columns.split_at_mut(i + 1);
        let sums = column_sums(f.get(triangle(i + 1) + i..).unwrap_or_default(), i + 1, below);
        subtract(&mut rest[i], f[triangle(i) + i], &sums);
    }
    for (z, x) in columns.iter().zip(x.chunks_mut(d)) {
        put(z, n, x);
    }
}

/// `round_shift(2^4 x factor - sum, 26)` in place of each `x`.
#[inline(never)]
fn subtract(row: &mut [i32; COLUMNS], factor: i32, sums: &[i64; COLUMNS]) {
    for (x, &sum) in row.iter_mut().zip(sums) {
        *x = rounded((mul_wide(*x, factor) << 4).wrapping_sub(sum));
    }
}

shape! {
    /// The exponents of [`SolveQ26`] in place, `e i32[heads, d]`, and its `x i32[heads, m, d]` -> the exponents
    /// `e i32[heads, d]` of `u i16[heads, m, d]`.
    ///
    /// Column `c` of a head stands for `u_ic * 2^(e_c - 22)` in units of `w`. For each head and column:
    ///
    /// 1. `t` is the smallest shift, from 0, with `|round_shift(x_ic, t)| <= 32767` for every `i` and
    ///    `sum_i |round_shift(x_ic, t)| <= 65535`;
    /// 2. `u_ic = round_shift(x_ic, t)` and `e_c` becomes `e_c + t`, saturated to 32 bits.
    ///
    /// So `|sum_j k_j u_jc| <= 32767 * 65535 < 2^31` for any kernel values `0 <= k_j <= 32767`.
    pub struct NarrowI16 {
        /// Heads.
        pub heads: usize,
        /// Landmarks, at most [`MAX_LANDMARKS`].
        pub m: usize,
        /// Width of a head.
        pub d: usize,
    }
}

impl NarrowI16 {
    /// Inputs `e, x`; outputs `e` in place, `u`.
    pub const fn signature(&self) -> Signature {
        let Self { heads, m, d } = *self;
        if m > MAX_LANDMARKS {
            return Signature::invalid(TOO_MANY_LANDMARKS);
        }
        let e = i32s(&[heads, d]);
        Signature::new(&[e, i32s(&[heads, m, d])], &[e, i16s(&[heads, m, d])]).in_place()
    }

    /// Rows that can be computed by themselves: the columns of all heads.
    pub const fn rows(&self) -> usize {
        size(&[self.heads, self.d]) as usize
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Integer forward of some columns, exactly as [`NarrowI16`] says.
pub fn narrow_i16(s: &NarrowI16, part: &impl Part, x: &[i32], e: &mut [i32], u: &mut [i16]) {
    let NarrowI16 { m, d, .. } = *s;
    let heads = x.chunks_exact(m * d).zip(u.chunks_exact_mut(m * d)).zip(e.chunks_exact_mut(d));
    for (h, ((x, u), e)) in heads.enumerate() {
        let columns = part.group(h, d).rows(d);
        for c in columns.clone().step_by(NARROWED) {
            let n = NARROWED.min(columns.end - c);
            let shifts = narrow(&x[c..], d, &mut u[c..], d, n, 0);
            for (e, t) in e[c..].iter_mut().zip(shifts).take(n) {
                *e = e.saturating_add(t as i32);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::Whole;
    use crate::ops::inverse::tests::inverse_reference;
    use crate::ops::sym_norm::{SymScaleQ30, scale_triangle_q30};
    use crate::ops::testing::{ints, reals};

    /// `u` and its exponents from the lower triangles of `A` and from `w`.
    pub(in crate::ops) fn solution(
        [heads, m, d]: [usize; 3],
        ridge: i32,
        mut a: Vec<i32>,
        mut w: Vec<i32>,
    ) -> (Vec<i16>, Vec<i32>) {
        let (mut u, mut e) = (vec![9; w.len()], vec![9; heads * d]);
        let s = FactorQ26 { heads, m, ridge };
        assert_eq!(s.signature().reason(), None);
        factor_q26(&s, &Whole, &mut a, &mut vec![9; m]);
        solve_q26(&SolveQ26 { heads, m, d }, &Whole, &a, &[], &mut w, &mut e, &mut vec![9; COLUMNS * m]);
        narrow_i16(&NarrowI16 { heads, m, d }, &Whole, &w, &mut e, &mut u);
        (u, e)
    }

    /// A kernel matrix in Q15 of `m` points in `dim` dimensions; small `scale` makes it nearly singular.
    fn kernel(m: usize, dim: usize, scale: f64) -> Vec<f64> {
        let x = reals("points", m * dim).f64();
        let square = |i: usize, j: usize| (0..dim).map(|c| (x[i * dim + c] - x[j * dim + c]).powi(2)).sum::<f64>();
        let value = |at| (32768.0 * (-scale * scale * square(at / m, at % m) / 2.0).exp()).round().min(32767.0);
        (0..m * m).map(value).collect()
    }

    fn lower(m: usize, a: &[f64]) -> Vec<i32> {
        (0..m).flat_map(|i| a[i * m..][..=i].iter().map(|&a| a as i32)).collect()
    }

    #[test]
    fn solutions_follow_f64() {
        let ridge = 41943;
        for (m, d) in [(1, 1), (4, 3), (16, 5), (49, 4)] {
            for (dim, scale) in [(32, 0.6), (8, 0.6), (4, 0.25), (1, 1e-3)] {
                for (bits, is_normalised) in [(31, false), (24, true), (12, false), (12, true)] {
                    let a = kernel(m, dim, scale);
                    let mut x: Vec<i32> = ints::<i32>("w", m * d).iter().map(|w| w >> (31 - bits)).collect();
                    let w: Vec<f64> = x.iter().map(|&w| f64::from(w)).collect();
                    let (mut f, mut e) = (lower(m, &a), vec![9; d]);
                    factor_q26(&FactorQ26 { heads: 1, m, ridge }, &Whole, &mut f, &mut vec![9; m]);
                    let mut s = vec![9; if is_normalised { m } else { 0 }];
                    if is_normalised {
                        scale_triangle_q30(&SymScaleQ30 { heads: 1, m }, &lower(m, &a), &mut s);
                    }
                    solve_q26(&SolveQ26 { heads: 1, m, d }, &Whole, &f, &s, &mut x, &mut e, &mut vec![9; COLUMNS * m]);
                    let s = |i: usize| s.get(i).map_or(1.0, |s| f64::from(*s) / f64::from(1 << 30));
                    let real: Vec<f64> = a.iter().map(|a| a / 32768.0).collect();
                    let inverse = inverse_reference(m, ridge as f32 / 4_194_304.0, &real);
                    for c in 0..d {
                        let exact =
                            |i: usize| (0..m).map(|j| s(i) * inverse[i * m + j] * s(j) * w[j * d + c]).sum::<f64>();
                        let found = |i: usize| f64::from(x[i * d + c]) * f64::from(e[c] - 22).exp2();
                        let largest = (0..m).map(|i| exact(i).abs()).fold(0.0, f64::max);
                        let error = (0..m).map(|i| (found(i) - exact(i)).abs()).fold(0.0, f64::max) / largest;
                        // Rounding to 20 bits, amplified by the condition number.
                        let bound = if scale < 0.5 { 3e-5 } else { 1e-5 };
                        assert!(error < bound, "m {m} dim {dim} scale {scale}, {bits} bits: {error:.1e} off");
                    }
                }
            }
        }
    }

    /// Both substitutions for one column, in the words of [`SolveQ26`].
    fn substituted(m: usize, f: &[i32], s: Option<&[i32]>, w: &[i32]) -> (Vec<i32>, i32) {
        let round_shift = |x: i64, shift: u32| (i128::from(x) + (1 << shift >> 1)) >> shift;
        let l = |i: usize, j: usize| i64::from(f[i * (i + 1) / 2 + j]);
        let saturated = |x: i64| round_shift(x, 26).clamp(i32::MIN.into(), i32::MAX.into()) as i64;
        let k = s.map_or(30, |s| (0..32).find(|k| s.iter().all(|&s| i64::from(s) < 1 << k)).unwrap());
        let scaled =
            |i: usize, x: i64| s.map_or(x, |s| round_shift(x * (i64::from(s[i].max(0)) << (31 - k)), 31) as i64);
        let p = [(4, 22), (16, 21), (64, 20)].iter().find(|(most, _)| m <= *most).map_or(19, |(_, p)| *p);
        let fits = |t: &i32| w.iter().all(|&w| i32::try_from(i64::from(w) << t).is_ok());
        let t = (0..32).rev().find(fits).unwrap();
        let mut z: Vec<i64> = Vec::new();
        for i in 0..m {
            let w = round_shift(scaled(i, i64::from(w[i]) << t), 31 - p) as i64;
            let sum: i64 = (0..i).map(|k| l(i, k) * z[k]).sum();
            z.push(saturated((w << 26) - sum));
        }
        for i in (0..m).rev() {
            let sum: i64 = (i + 1..m).map(|k| l(k, i) * z[k]).sum();
            z[i] = saturated(((z[i] * l(i, i)) << 4) - sum);
        }
        (z.iter().zip(0..).map(|(&z, i)| scaled(i, z) as i32).collect(), 2 * k - 7 - p as i32 - t)
    }

    #[test]
    fn substitutions_are_what_their_docs_say() {
        let mut is_saturated = false;
        for (heads, m, d) in [(1, 1, 1), (2, 4, 3), (1, 5, 4), (3, 7, 6), (1, 17, 9)] {
            // Sums of products with these stay inside 64 bits.
            for (bits, l_bits, is_scaled) in [(0, 20, false), (20, 26, true), (31, 26, true), (31, 27, false)] {
                let f: Vec<i32> = ints::<i32>("l", heads * triangle(m)).iter().map(|l| l >> (31 - l_bits)).collect();
                let w: Vec<i32> = ints::<i32>("w", heads * m * d).iter().map(|w| w >> (31 - bits)).collect();
                let s = if is_scaled { ints::<i32>("s", heads * m) } else { Vec::new() };
                let (mut x, mut e) = (w.clone(), vec![9; heads * d]);
                solve_q26(&SolveQ26 { heads, m, d }, &Whole, &f, &s, &mut x, &mut e, &mut vec![9; COLUMNS * m]);
                is_saturated |= x.contains(&i32::MAX);
                for (h, c) in (0..heads).flat_map(|h| (0..d).map(move |c| (h, c))) {
                    let column = |x: &[i32]| (0..m).map(|i| x[(h * m + i) * d + c]).collect::<Vec<_>>();
                    let s = is_scaled.then(|| &s[h * m..][..m]);
                    let f = &f[h * triangle(m)..][..triangle(m)];
                    assert_eq!((column(&x), e[h * d + c]), substituted(m, f, s, &column(&w)), "{m} {d}, {h} {c}");
                }
            }
        }
        assert!(is_saturated);
    }

    /// `I - C / (m - 1)^1/2` in Q15 with Paley's conference matrix `C` of `m - 1`, a prime: it has an eigenvalue 0, and its
    /// inverse with a small ridge the largest row sums of magnitudes that are possible.
    fn paley(m: usize) -> Vec<f64> {
        let q = m - 1;
        let residue = |x: usize| x == 0 || (1..q).any(|r| r * r % q == x);
        let plus = |i: usize, j: usize| i == q || j == q || residue((q + i - j) % q);
        let size = (32768.0 / (q as f64).sqrt()).floor();
        let value = |i, j| {
            if i == j {
                32768.0
            } else if plus(i, j) {
                -size
            } else {
                size
            }
        };
        (0..m * m).map(|at| value(at / m, at % m)).collect()
    }

    #[test]
    fn the_largest_solutions_there_are_do_not_saturate() {
        let ridge = 1 << 14;
        let equal = |m: usize| (m, vec![32768.0; m * m]);
        let conference = |m: usize| (m, paley(m));
        let matrices = [equal(2), equal(4), equal(64), equal(254), conference(6), conference(14), conference(62)];
        for (m, a) in matrices.into_iter().chain([conference(230)]) {
            let real: Vec<f64> = a.iter().map(|a| a / 32768.0).collect();
            let inverse = inverse_reference(m, 1.0 / 256.0, &real);
            // The largest magnitude there can be in the place of the first landmark.
            let mut x: Vec<i32> = inverse[..m].iter().map(|v| if *v < 0.0 { -i32::MAX } else { i32::MAX }).collect();
            let want: Vec<f64> =
                inverse.chunks(m).map(|row| row.iter().zip(&x).map(|(v, &w)| v * f64::from(w)).sum()).collect();
            let (mut f, mut e) = (lower(m, &a), vec![9]);
            factor_q26(&FactorQ26 { heads: 1, m, ridge }, &Whole, &mut f, &mut vec![9; m]);
            solve_q26(&SolveQ26 { heads: 1, m, d: 1 }, &Whole, &f, &[], &mut x, &mut e, &mut vec![9; COLUMNS * m]);
            for (i, (&x, right)) in x.iter().zip(&want).enumerate() {
                let found = f64::from(x) * f64::from(e[0] - 22).exp2();
                assert!((found - right).abs() < 1e-3 * want[0].abs(), "m {m}, {i}: {found}, right is {right}");
            }
        }
    }

    #[test]
    fn columns_are_narrowed_as_little_as_they_have_to_be() {
        for (heads, m, d) in [(1, 1, 1), (2, 5, 3), (3, 16, 7), (1, 255, 2)] {
            for bits in [32, 24, 16, 15, 3, 0] {
                let x: Vec<i32> =
                    ints::<i32>("x", heads * m * d).iter().map(|x| (i64::from(*x) >> (32 - bits)) as i32).collect();
                let (mut u, mut e) = (vec![9; x.len()], vec![7; heads * d]);
                narrow_i16(&NarrowI16 { heads, m, d }, &Whole, &x, &mut e, &mut u);
                for (h, c) in (0..heads).flat_map(|h| (0..d).map(move |c| (h, c))) {
                    let column = |i: usize| (h * m + i) * d + c;
                    let t = e[h * d + c] - 7;
                    let rounded = |t: i32| -> Vec<i64> {
                        (0..m).map(|i| (i64::from(x[column(i)]) + (1 << t >> 1)) >> t).collect()
                    };
                    let fits = |t: i32| {
                        let magnitudes = || rounded(t).into_iter().map(i64::abs);
                        magnitudes().all(|u| u <= 32767) && magnitudes().sum::<i64>() <= 65535
                    };
                    assert!(fits(t) && (t == 0 || !fits(t - 1)), "{t}");
                    let found: Vec<_> = (0..m).map(|i| i64::from(u[column(i)])).collect();
                    assert_eq!(found, rounded(t));
                }
            }
        }
    }

    #[test]
    fn what_is_no_kernel_matrix_gives_anything() {
        for m in [1, 7, 255] {
            for ridge in [1 << 14, 1 << 22] {
                let size = triangle(m);
                for a in [vec![i32::MIN; size], vec![0; size], vec![i32::MAX; size], ints("a", size)] {
                    solution([1, m, 3], ridge, a, ints("w", 3 * m));
                }
            }
        }
        let mut e = [i32::MAX, 0];
        narrow_i16(&NarrowI16 { heads: 1, m: 1, d: 2 }, &Whole, &[i32::MIN, i32::MIN], &mut e, &mut [0; 2]);
        assert_eq!(e, [i32::MAX, 17]);
        assert!(FactorQ26 { heads: 1, m: 256, ridge: 1 << 16 }.signature().reason().is_some());
        assert!(FactorQ26 { heads: 1, m: 4, ridge: (1 << 14) - 1 }.signature().reason().is_some());
        assert!(SolveQ26 { heads: 1, m: 256, d: 1 }.signature().reason().is_some());
        assert!(NarrowI16 { heads: 1, m: 256, d: 1 }.signature().reason().is_some());
    }
}
