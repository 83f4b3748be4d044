//! A few columns side by side of matrices that lie in rows. They are told by the values from their first one on, the
//! values `d` of a row and how many columns they are.

#[cfg(cortex_m = "helium")]
use super::helium;
use super::triangle::COLUMNS;
#[cfg(not(cortex_m = "helium"))]
use crate::math::fixed::{mul_wide, round_shift};

/// Columns that are narrowed at once: what a core has vectors for.
pub(crate) const NARROWED: usize = if cfg!(cortex_m = "helium") { COLUMNS } else { 1 };

/// Has, for each of `n` columns, the highest bit that any of its values has besides its sign.
#[inline(always)]
pub(crate) fn column_bits(x: &[i32], d: usize, n: usize) -> [u32; COLUMNS] {
    #[cfg(cortex_m = "helium")]
    return helium::columns::bits(x, d, n);
    #[cfg(not(cortex_m = "helium"))]
    {
        let _ = n;
        x.chunks(d).map(few).fold([0; COLUMNS], |bits, x| core::array::from_fn(|c| bits[c] | magnitude(x[c])))
    }
}

/// The first of `x`, and 0 for those that are not there.
#[inline(always)]
pub(crate) fn few(x: &[i32]) -> [i32; COLUMNS] {
    x.first_chunk().copied().unwrap_or_else(|| fewer(x))
}

#[cold]
#[inline(never)]
fn fewer(x: &[i32]) -> [i32; COLUMNS] {
    core::array::from_fn(|c| x.get(c).copied().unwrap_or(0))
}

/// Writes the first `n` values to the first of `x`.
#[inline(always)]
pub(crate) fn put(few: &[i32; COLUMNS], n: usize, x: &mut [i32]) {
    match x.first_chunk_mut() {
        Some(x) if n == COLUMNS => *x = *few,
        _ => put_fewer(few, n, x),
    }
}

#[cold]
#[inline(never)]
fn put_fewer(few: &[i32; COLUMNS], n: usize, x: &mut [i32]) {
    for (c, &few) in few.iter().enumerate().take(n) {
        if let Some(x) = x.get_mut(c) {
            *x = few;
        }
    }
}

/// `x_ic = round_shift(2^shift_c x_ic max(0, s_i) 2^up, 31)` for `n` columns, where `max(0, s_i) 2^up` and
/// `2^shift_c x_ic` have 32 bits.
#[inline(always)]
pub(crate) fn scale_columns(x: &mut [i32], d: usize, n: usize, s: &[i32], up: u32, shifts: [u32; COLUMNS]) {
    #[cfg(cortex_m = "helium")]
    helium::columns::scale(x, d, n, s, up, shifts);
    #[cfg(not(cortex_m = "helium"))]
    scale_by(x, d, s, up, &shifts[..n]);
}

#[cfg(not(cortex_m = "helium"))]
#[inline(never)]
fn scale_by(x: &mut [i32], d: usize, s: &[i32], up: u32, shifts: &[u32]) {
    for (c, shift) in shifts.iter().enumerate() {
        let (mut row, mut at) = (0, c);
        while let (Some(&s), Some(x)) = (s.get(row), x.get_mut(at)) {
            *x = round_shift(mul_wide(*x << shift, s.max(0) << up), 31) as i32;
            (row, at) = (row + 1, at + d);
        }
    }
}

/// What is known of the magnitudes of each of a few columns.
pub(crate) struct Magnitudes {
    /// Has the highest bit of any.
    pub(crate) bits: [u32; NARROWED],
    pub(crate) sums: [u64; NARROWED],
}

/// The magnitudes of `n` columns of at most 2^16 rows, up to [`NARROWED`]. Those of negative values are one too small.
#[inline(always)]
pub(crate) fn magnitudes(x: &[i32], d: usize, n: usize) -> Magnitudes {
    #[cfg(cortex_m = "helium")]
    return helium::columns::magnitudes(x, d, n);
    #[cfg(not(cortex_m = "helium"))]
    {
        let _ = n;
        let (mut bits, mut sum, mut at) = (0, 0, 0);
        while let Some(&x) = x.get(at) {
            bits |= magnitude(x);
            sum += u64::from(magnitude(x));
            at += d;
        }
        Magnitudes { bits: [bits], sums: [sum] }
    }
}

/// `u_ic = round_shift(x_ic, shift_c)` for `n` columns of `x`, up to [`NARROWED`], of which a row has `d` values, and of
/// `u`, of which it has `du`. Returns the magnitudes of these results, which a `u` may have lost some bits of, and of
/// which the sums have 32 bits.
#[inline(always)]
pub(crate) fn round_columns(
    x: &[i32],
    d: usize,
    u: &mut [i16],
    du: usize,
    n: usize,
    shifts: [u32; NARROWED],
) -> Magnitudes {
    #[cfg(cortex_m = "helium")]
    return helium::columns::round(x, d, u, du, n, shifts);
    #[cfg(not(cortex_m = "helium"))]
    {
        let _ = n;
        // Nothing is rounded where nothing is shifted.
        let last = shifts[0].min(1);
        let (mut bits, mut sum, mut at, mut to) = (0, 0u32, 0, 0);
        while let (Some(&x), Some(u)) = (x.get(at), u.get_mut(to)) {
            let value = ((x >> (shifts[0] - last)) + last as i32) >> last;
            *u = value as i16;
            bits |= value.unsigned_abs();
            sum = sum.wrapping_add(value.unsigned_abs());
            (at, to) = (at + d, to + du);
        }
        Magnitudes { bits: [bits], sums: [sum.into()] }
    }
}

/// The magnitude of `x`, or one less where it is negative.
#[cfg(not(cortex_m = "helium"))]
#[inline(always)]
fn magnitude(x: i32) -> u32 {
    (x ^ (x >> 31)) as u32
}
