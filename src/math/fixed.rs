//! Fixed point: one rounding, requantisation, and the only exponential, reciprocal and root of the
//! integer path. No float, no 64-bit division.
//!
//! **Rounding.** Every shift to the right rounds once, to nearest, ties towards plus infinity:
//! `(x + 2^(s-1)) >> s`. This is CMSIS-NN's single rounding.

/// `x / 2^shift`, rounded to nearest, ties up. `shift` is 0 to 62.
#[inline(always)]
pub const fn round_shift(x: i64, shift: u32) -> i64 {
    if shift == 0 { x } else { (x + (1 << (shift - 1))) >> shift }
}

/// `x / 2^shift` in 32 bits, rounded to nearest, ties up. `shift` is 0 to 31 and `x + 2^(shift-1)`
/// must not overflow.
#[inline(always)]
pub const fn round_shift_i32(x: i32, shift: u32) -> i32 {
    if shift == 0 { x } else { (x + (1 << (shift - 1))) >> shift }
}

/// `acc * multiplier / 2^shift`, rounded once, to nearest, ties up.
///
/// `multiplier` is in `[2^30, 2^31)` (or 0) and `shift` in 16 to 62: [`Multiplier`] makes such pairs.
/// The result fits 32 bits for every accumulator the checker admits.
#[inline(always)]
pub const fn requantise(acc: i32, multiplier: i32, shift: u32) -> i32 {
    round_shift(acc as i64 * multiplier as i64, shift) as i32
}

/// Smallest right shift of a [`Multiplier`]: factors stay below 2^15, products of an i32
/// accumulator inside 64 bits and of an i16 value inside 32.
pub const MIN_SHIFT: u32 = 16;
/// Largest right shift of a [`Multiplier`].
pub const MAX_SHIFT: u32 = 62;

/// A positive real factor as `value / 2^shift` with a 31-bit mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiplier {
    /// Mantissa in `[2^30, 2^31)`, or 0 for a factor too small to matter.
    pub value: i32,
    /// Right shift, [`MIN_SHIFT`] to [`MAX_SHIFT`].
    pub shift: u32,
}

impl Multiplier {
    /// The nearest multiplier to `factor`; `None` for a negative, non-finite or too large factor
    /// (2^15 and above). Used by exporters, never on a device.
    pub fn from_f64(factor: f64) -> Option<Self> {
        if !(0.0..32768.0).contains(&factor) {
            return None;
        }
        if factor < 2.0f64.powi_exact(-32) {
            return Some(Self { value: 0, shift: MAX_SHIFT });
        }
        // factor = mantissa * 2^exponent with mantissa in [0.5, 1)
        let bits = factor.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i32 - 1022;
        let mantissa = f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52));
        let mut value = (mantissa * 2_147_483_648.0 + 0.5) as i64;
        let mut shift = 31 - exponent;
        if value == 1 << 31 {
            value >>= 1;
            shift -= 1;
        }
        if shift < MIN_SHIFT as i32 {
            return None;
        }
        Some(Self { value: value as i32, shift: shift as u32 })
    }
}

trait ExactPowerOfTwo {
    fn powi_exact(self, n: i32) -> f64;
}

impl ExactPowerOfTwo for f64 {
    fn powi_exact(self, n: i32) -> f64 {
        f64::from_bits(((1023 + n) as u64) << 52)
    }
}

/// `x` saturated to 8 bits.
#[inline(always)]
pub const fn saturate_i8(x: i32) -> i8 {
    if x < -128 {
        -128
    } else if x > 127 {
        127
    } else {
        x as i8
    }
}

/// `x` saturated to 16 bits.
#[inline(always)]
pub const fn saturate_i16(x: i32) -> i16 {
    if x < -32768 {
        -32768
    } else if x > 32767 {
        32767
    } else {
        x as i16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_ties_up() {
        for (x, s, want) in [(5, 1, 3), (-5, 1, -2), (6, 2, 2), (-6, 2, -1), (7, 0, 7), (-7, 2, -2)] {
            assert_eq!(round_shift(x, s), want, "{x} >> {s}");
            assert_eq!(i64::from(round_shift_i32(x as i32, s)), want, "{x} >> {s}");
        }
    }

    #[test]
    fn multiplier_reproduces_its_factor() {
        for factor in [1e-6, 0.001, 0.25, 0.5, 0.999_999_999_9, 1.0, 3.7, 200.0, 32767.0] {
            let m = Multiplier::from_f64(factor).unwrap();
            let back = f64::from(m.value) / 2f64.powi(m.shift as i32);
            assert!((back / factor - 1.0).abs() < 1e-9, "{factor}: {m:?}");
            assert!(m.value >= 1 << 30);
        }
        assert_eq!(Multiplier::from_f64(0.0).unwrap().value, 0);
        assert_eq!(Multiplier::from_f64(-1.0), None);
        assert_eq!(Multiplier::from_f64(f64::NAN), None);
        assert_eq!(Multiplier::from_f64(40000.0), None);
    }

    #[test]
    fn requantise_rounds_the_exact_product() {
        let m = Multiplier::from_f64(0.003_7).unwrap();
        for acc in [-2_000_000, -135, -1, 0, 1, 136, 2_000_000] {
            let exact = f64::from(acc) * f64::from(m.value) / 2f64.powi(m.shift as i32);
            assert_eq!(f64::from(requantise(acc, m.value, m.shift)), (exact + 0.5).floor());
        }
    }
}
