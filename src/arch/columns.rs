//! A few columns side by side of matrices that lie in rows. They are told by the values from their first one on, the
//! values `d` of a row and how many columns they are.

#[cfg(cortex_m = "helium")]
use super::helium;
use super::triangle::COLUMNS;
#[cfg(not(cortex_m = "helium"))]
use crate::math::fixed::{mul_wide, round_shift};

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
    x.first_chunk().copied().unwrap_or_else(|| core::array::from_fn(|c| x.get(c).copied().unwrap_or(0)))
}

/// `x_ic = round_shift(2^shift_c x_ic max(0, s_i) 2^up, 31)` for `n` columns, where `max(0, s_i) 2^up` and
/// `2^shift_c x_ic` have 32 bits.
#[inline(always)]
pub(crate) fn scale_columns(x: &mut [i32], d: usize, n: usize, s: &[i32], up: u32, shifts: [u32; COLUMNS]) {
    #[cfg(cortex_m = "helium")]
    helium::columns::scale(x, d, n, s, up, shifts);
    #[cfg(not(cortex_m = "helium"))]
    for (x, &s) in x.chunks_mut(d).zip(s) {
        let s = s.max(0) << up;
        for (x, shift) in x.iter_mut().zip(shifts).take(n) {
            *x = round_shift(mul_wide(*x << shift, s), 31) as i32;
        }
    }
}

/// The magnitude of `x`, or one less where it is negative.
#[cfg(not(cortex_m = "helium"))]
#[inline(always)]
fn magnitude(x: i32) -> u32 {
    (x ^ (x >> 31)) as u32
}
