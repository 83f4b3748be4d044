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

/// `1 / sqrt(v)` as `mantissa / 2^exponent`, for `v > 0`.
///
/// `exponent = 31 + floor(log4 v)`, from 31 to 62, and `mantissa = min(floor(2^exponent / sqrt(v)),
/// 2^31 - 1)`, from 2^30: 31 significant bits, a relative error below 2^-30. The value is exact by this
/// definition, not an approximation that another implementation would have to copy. `v = 0` gives
/// `(0, 31)`, so that what is scaled by it becomes 0.
pub const fn rsqrt(v: u64) -> (u32, i32) {
    if v == 0 {
        return (0, 31);
    }
    let zeros = v.leading_zeros() & !1;
    // v = n / 2^zeros, and x = n / 2^64 lies in [1/4, 1): sought is y = 1 / sqrt(x), in (1, 2], in Q30.
    let n = v << zeros;
    let x = n >> 32;
    // Minimax parabola, 2.4% off; each Newton step y += y (1 - x y^2) / 2 squares the error.
    let mut y = 2_867_787_662 + ((((1_759_398_851 * x) >> 32) * x) >> 32) - ((3_527_624_809 * x) >> 32);
    let mut step = 0;
    while step < 3 {
        let xyy = x * ((y * y) >> 29);
        let error = (1i64 << 63).wrapping_sub(xyy as i64) >> 32;
        y = y.wrapping_add_signed((y as i64 * error) >> 32);
        step += 1;
    }
    // The steps end a few units off; y^2 x <= 1 decides.
    while !is_below_rsqrt(y, n) {
        y -= 1;
    }
    while is_below_rsqrt(y + 1, n) {
        y += 1;
    }
    let mantissa = if y >> 31 == 0 { y } else { (1 << 31) - 1 };
    (mantissa as u32, 62 - zeros as i32 / 2)
}

/// Whether `y / 2^30 <= 1 / sqrt(n / 2^64)`.
const fn is_below_rsqrt(y: u64, n: u64) -> bool {
    (y * y) as u128 * n as u128 <= 1 << 124
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

    fn check_rsqrt(v: u64) {
        let (mantissa, exponent) = rsqrt(v);
        let k = (63 - v.leading_zeros() as i32) / 2;
        assert_eq!(exponent, 31 + k, "{v}");
        assert!((1 << 30..1u32 << 31).contains(&mantissa), "{v}");
        // floor(2^exponent / sqrt(v)) is the largest m with m^2 v <= 4^exponent.
        let fits = |m: u32| {
            let square = u128::from(m) * u128::from(m);
            square * u128::from(v) <= 1 << (2 * exponent)
        };
        assert!(fits(mantissa) && (!fits(mantissa + 1) || mantissa == i32::MAX as u32), "{v}: {mantissa}");
        let relative = f64::from(mantissa) / 2f64.powi(exponent) * (v as f64).sqrt() - 1.0;
        assert!(relative.abs() < 2f64.powi(-30), "{v}: {relative}");
    }

    #[test]
    fn rsqrt_is_the_floor_of_the_exact_value() {
        assert_eq!(rsqrt(0), (0, 31));
        assert_eq!(rsqrt(1), ((1 << 31) - 1, 31));
        assert_eq!(rsqrt(2), (1_518_500_249, 31));
        (1..1 << 18).for_each(check_rsqrt);
        for bit in 0..64 {
            let power = 1u64 << bit;
            for v in (power.saturating_sub(300)..=power.saturating_add(300)).filter(|&v| v > 0) {
                check_rsqrt(v);
            }
        }
        let s = crate::math::random::Stream::new(1);
        for i in 0..200_000 {
            check_rsqrt((s.bits(2 * i) >> (s.bits(2 * i + 1) % 64)).max(1));
        }
        (u64::MAX - 1000..=u64::MAX).for_each(check_rsqrt);
    }
}
