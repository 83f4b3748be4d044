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

/// `acc * multiplier / 2^shift` as [`requantise`] rounds it, for many accumulators.
///
/// For a shift above 32 only the high word of the product counts: with `t = shift - 32` and the product
/// `h 2^32 + l`, `floor((h 2^32 + l + 2^(31+t)) / 2^(32+t))` is `floor((h + 2^(t-1)) / 2^t)`, because
/// `l / 2^32` is less than 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requantise {
    multiplier: i32,
    shift: u32,
}

impl Requantise {
    #[inline(always)]
    pub(crate) const fn new(multiplier: i32, shift: u32) -> Self {
        Self { multiplier, shift }
    }

    pub(crate) const fn multiplier(self) -> i32 {
        self.multiplier
    }

    pub(crate) const fn shift(self) -> u32 {
        self.shift
    }

    #[inline(always)]
    pub(crate) const fn apply(self, acc: i32) -> i32 {
        if self.shift > 32 {
            round_shift_i32(mul_high(acc, self.multiplier), self.shift - 32)
        } else {
            requantise(acc, self.multiplier, self.shift)
        }
    }
}

/// `a * b`.
#[inline(always)]
pub(crate) const fn mul_wide(a: i32, b: i32) -> i64 {
    if cfg!(cortex_m = "v6") {
        (mul_high(a, b) as i64) << 32 | a.wrapping_mul(b) as u32 as i64
    } else {
        a as i64 * b as i64
    }
}

/// The high word of `a * b`.
#[inline(always)]
pub(crate) const fn mul_high(a: i32, b: i32) -> i32 {
    if cfg!(cortex_m = "v6") {
        // ARMv6-M multiplies 32 bits by 32 into 32 only: products of halves then, each of which fits.
        let ((a0, a1), (b0, b1)) = ((a & 0xffff, a >> 16), (b & 0xffff, b >> 16));
        let low = (a0 as u32).wrapping_mul(b0 as u32) >> 16;
        let (middle0, middle1) = (a1 * b0, a0 * b1);
        let carry = low + (middle0 as u32 & 0xffff) + (middle1 as u32 & 0xffff);
        a1 * b1 + (middle0 >> 16) + (middle1 >> 16) + (carry >> 16) as i32
    } else {
        ((a as i64 * b as i64) >> 32) as i32
    }
}

/// `(a * b + 2^31) / 2^32`, rounded down: the high word of the product, rounded to nearest, ties up.
#[inline(always)]
pub(crate) const fn mul_high_rounded(a: i32, b: i32) -> i32 {
    if cfg!(cortex_m = "v6") {
        mul_high(a, b) + (a.wrapping_mul(b) as u32 >> 31) as i32
    } else {
        ((a as i64 * b as i64 + (1 << 31)) >> 32) as i32
    }
}

/// `a * b / 2^16`, rounded down.
#[inline(always)]
pub(crate) const fn mul_q16(a: i32, b: i16) -> i32 {
    if cfg!(cortex_m = "v6") {
        (a >> 16) * b as i32 + (((a & 0xffff) * b as i32) >> 16)
    } else {
        ((a as i64 * b as i64) >> 16) as i32
    }
}

/// `a * b`, unsigned.
#[inline(always)]
const fn mul_wide_u32(a: u32, b: u32) -> u64 {
    if cfg!(cortex_m = "v6") {
        let ((a0, a1), (b0, b1)) = ((a & 0xffff, a >> 16), (b & 0xffff, b >> 16));
        let (middle0, middle1) = (a1 * b0, a0 * b1);
        let carry = ((a0 * b0) >> 16) + (middle0 & 0xffff) + (middle1 & 0xffff);
        let high = a1 * b1 + (middle0 >> 16) + (middle1 >> 16) + (carry >> 16);
        (high as u64) << 32 | a.wrapping_mul(b) as u64
    } else {
        a as u64 * b as u64
    }
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
#[inline(never)]
pub const fn rsqrt(v: u64) -> (u32, i32) {
    if v == 0 {
        return (0, 31);
    }
    let zeros = v.leading_zeros() & !1;
    // v = n / 2^zeros, and x = n / 2^64 lies in [1/4, 1): sought is y = 1 / sqrt(x), in (1, 2].
    let n = v << zeros;
    let x_q31 = (n >> 33) as i32;
    // Minimax parabola, 2.4 % off; each Newton step y += y (1 - x y^2) / 2 squares the error.
    let curve_q29 = mul_high(mul_high(x_q31, 1_759_398_851), x_q31) - mul_high(x_q31, 1_763_812_404);
    let mut y_q29 = 1_433_893_831 + (curve_q29 << 1);
    let mut step = 0;
    while step < 2 {
        let error_q27 = (1 << 27) - mul_high(mul_high(y_q29, y_q29) << 2, x_q31);
        y_q29 += mul_high(y_q29, error_q27 << 4);
        step += 1;
    }
    // The last step takes the exact error, of 2^-18 at most.
    let mut y = (y_q29 as u32) << 1;
    let error_q44 = (rsqrt_rest(y, n) >> 80) as i32;
    y = y.wrapping_add_signed((mul_wide(y_q29, error_q44) >> 44) as i32);
    // It ends a unit off at most; the sign of the rest decides.
    while rsqrt_rest(y, n) < 0 {
        y -= 1;
    }
    while rsqrt_rest(y + 1, n) >= 0 {
        y += 1;
    }
    let mantissa = if y >> 31 == 0 { y } else { (1 << 31) - 1 };
    (mantissa, 62 - zeros as i32 / 2)
}

/// `2^124 - y^2 n`, which is not negative where `y / 2^30 <= 1 / sqrt(n / 2^64)`; `y` is at most `2^31 + 1`.
#[inline(never)]
const fn rsqrt_rest(y: u32, n: u64) -> i128 {
    let square = mul_wide_u32(y, y);
    let (s1, s0, n1, n0) = ((square >> 32) as u32, square as u32, (n >> 32) as u32, n as u32);
    // The square is below 2^63, so the sum of the middle products fits.
    let middle = mul_wide_u32(s0, n1) as u128 + mul_wide_u32(s1, n0) as u128;
    let product = (mul_wide_u32(s1, n1) as u128) << 64 | mul_wide_u32(s0, n0) as u128;
    (1 << 124) - (product + (middle << 32)) as i128
}

/// `floor((2^63 - 1) / x)` for `x` in `[2^31, 2^32)`: a mantissa in `[2^31, 2^32)`.
///
/// Exact by this definition. For any `v > 0` with `z` leading zeros, `1 / v` is
/// `reciprocal(v << z) * 2^(z - 63)` with a relative error below 2^-31. An `x` below 2^31 is taken
/// as 2^31.
pub const fn reciprocal(x: u32) -> u32 {
    let x = if x >> 31 == 0 { 1 << 31 } else { x as u64 };
    // With D = x / 2^32 in [1/2, 1), y is 1/D in Q31: 48/17 - 32/17 D is at most 1/17 off, and each
    // Newton step y (2 - D y) squares the error.
    let mut y = 6_063_483_241 - ((4_042_322_161 * x) >> 32);
    let mut step = 0;
    while step < 3 {
        let rest = (1 << 32) - ((x * y) >> 32);
        y = (y * rest) >> 31;
        step += 1;
    }
    // The steps end a few units off; the product decides.
    const ONE: u64 = (1 << 63) - 1;
    while y * x > ONE {
        y -= 1;
    }
    while (y + 1) * x <= ONE {
        y += 1;
    }
    y as u32
}

/// Steps of the table of `2^-x` over one octave.
const EXP2_STEPS: usize = 128;

/// `E[i] = 2^-(i/128)` in Q30, rounded to nearest, and `E[i] - E[i+1]`, for `i` in `0..128`; in place of `E[0]`, which
/// is `2^30`, one less. No value of [`exp2_neg`] is another for that, and those of 16 octaves and more round to 0.
pub(crate) static EXP2: [[u32; 2]; EXP2_STEPS] = {
    // 2^-(1/128) in Q62: the root of 1/2, seven times.
    let mut root = 1u128 << 61;
    let mut halvings = EXP2_STEPS;
    while halvings > 1 {
        root = (root << 62).isqrt();
        halvings /= 2;
    }
    let mut table = [[0; 2]; EXP2_STEPS];
    let mut power = 1u128 << 62;
    let mut i = 0;
    while i < EXP2_STEPS {
        let value = (power + (1 << 31)) >> 32;
        power = (power * root) >> 62;
        table[i] = [value as u32, (value - ((power + (1 << 31)) >> 32)) as u32];
        i += 1;
    }
    table[0][0] -= 1;
    table
};

/// `2^-(t / 2^16)` in Q15, at most 32767, which stands for 1.
///
/// With `i = (t >> 9) & 127`, `f = t & 511`, `k = t >> 16` and `E[i] = 2^-(i/128)` in Q30, rounded:
/// `y = E[i] - (((E[i] - E[i+1]) * f + 256) >> 9)` and the value is
/// `min(32767, (y + 2^(14+k)) >> (15+k))`; 0 for `t >= 2^20`. All of it fits 32 bits. The error is
/// below 0.63 units of Q15 (at `t = 0`, where 32767 stands for 32768, it is one).
#[inline(always)]
pub const fn exp2_neg(t: u32) -> i32 {
    if t >= 1 << 20 {
        return 0;
    }
    let (i, f, k) = ((t >> 9) as usize % EXP2_STEPS, t & 511, t >> 16);
    let [value, step] = EXP2[i];
    let y = value - ((step * f + 256) >> 9);
    let value = ((y + (1 << (14 + k))) >> (15 + k)) as i32;
    if value > 32767 { 32767 } else { value }
}

/// `2^-x` for `x = distance * multiplier / 2^shift` in Q16, by [`exp2_neg`]; the product is rounded
/// once, to nearest, ties up. `distance` and `multiplier` are not negative, `shift` is 16 to 62.
#[inline(always)]
pub const fn exp2_neg_scaled(distance: i32, multiplier: i32, shift: u32) -> i32 {
    let t = round_shift(distance as i64 * multiplier as i64, shift);
    exp2_neg(if t < 1 << 20 { t as u32 } else { 1 << 20 })
}

/// [`exp2_neg_scaled`] of many distances, by [`Exp2Neg`] where it can.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decay {
    multiplier: i32,
    shift: u32,
    pub(crate) narrow: Option<Exp2Neg>,
}

impl Decay {
    pub(crate) const fn new(multiplier: i32, shift: u32) -> Self {
        Self { multiplier, shift, narrow: Exp2Neg::new(multiplier, shift) }
    }

    #[inline(always)]
    pub(crate) fn value(&self, distance: i32) -> i32 {
        match &self.narrow {
            Some(narrow) => narrow.value(distance),
            None => exp2_neg_scaled(distance, self.multiplier, self.shift),
        }
    }
}

/// [`exp2_neg_scaled`] in 32 bits.
///
/// The distance is shifted up first, so far that `t` always stands [`Self::FRACTION`] bits above the low
/// word of the product and its fields at fixed places in the high word. Distances that give `t >= 2^20` are
/// told by a comparison; any other is small enough to be shifted.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Exp2Neg {
    /// Distances from here on give 0.
    pub(crate) limit: u32,
    pub(crate) up: u32,
    pub(crate) multiplier: i32,
    /// Half a unit of `t`, and the 14 by which a table value is shifted beside the octaves.
    pub(crate) round: i32,
}

impl Exp2Neg {
    /// Bits of `t`'s fraction in the high word.
    const FRACTION: u32 = 9;
    /// The shift that leaves so many.
    const SHIFT: u32 = 32 + Self::FRACTION;

    /// `None` where the factor is below 2^-11, for which there is no such form. Arguments as for
    /// [`exp2_neg_scaled`].
    const fn new(multiplier: i32, shift: u32) -> Option<Self> {
        let round = (1 << (Self::FRACTION - 1)) + (14 << (Self::FRACTION + 16));
        if multiplier == 0 {
            return Some(Self { limit: u32::MAX, up: 0, multiplier, round });
        }
        // A mantissa of 31 bits, as usual, has distances below the limit fit 31 bits after the shift.
        let spare = multiplier.leading_zeros() - 1;
        let (multiplier, shift) = (multiplier << spare, shift + spare);
        if shift > Self::SHIFT {
            return None;
        }
        // The largest distance with `t < 2^20`.
        let end = (1 << (20 + shift)) - (1 << (shift - 1));
        let (mut last, mut bit) = (0u64, 1u64 << 31);
        while bit > 0 {
            if (last + bit) * (multiplier as u64) < end {
                last += bit;
            }
            bit >>= 1;
        }
        Some(Self { limit: last as u32 + 1, up: Self::SHIFT - shift, multiplier, round })
    }

    /// `exp2_neg_scaled(distance, ..)`.
    #[inline(always)]
    fn value(&self, distance: i32) -> i32 {
        if distance as u32 >= self.limit {
            return 0;
        }
        let t = mul_high(distance << self.up, self.multiplier) + self.round;
        let (i, f, k) = ((t >> 18) as usize % EXP2_STEPS, (t >> 9) as u32 & 511, t >> 25);
        let [value, step] = EXP2[i];
        let y = value - ((step * f + 256) >> 9);
        (((y >> k) + 1) >> 1).min(32767) as i32
    }
}

/// `x` saturated to 32 bits.
#[inline(always)]
pub const fn saturate_i32(x: i64) -> i32 {
    let low = x as i32;
    if x == low as i64 { low } else { i32::MAX ^ (x >> 63) as i32 }
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

    #[test]
    fn reciprocal_is_the_floor_of_the_exact_value() {
        const ONE: u64 = (1 << 63) - 1;
        let check = |x: u32| assert_eq!(u64::from(reciprocal(x)), ONE / u64::from(x), "{x}");
        (1u32 << 31..(1 << 31) + 70_000).for_each(check);
        (u32::MAX - 70_000..=u32::MAX).for_each(check);
        (1u32 << 31..=u32::MAX).step_by(4093).for_each(check);
        assert_eq!(reciprocal(0), reciprocal(1 << 31));
    }

    #[test]
    fn exp2_neg_is_within_its_bound_everywhere() {
        let exact = |i: usize| (2f64.powi(30) * (-(i as f64) / 128.0).exp2()).round();
        for (i, &[entry, step]) in EXP2.iter().enumerate() {
            let less = if i == 0 { 1.0 } else { 0.0 };
            assert_eq!((f64::from(entry), f64::from(step)), (exact(i) - less, exact(i) - exact(i + 1)));
        }
        // As if the first entry was 2^30.
        for (k, f) in (0..16).flat_map(|k| (0..512).map(move |f| (k, f))) {
            let y = (1 << 30) - ((EXP2[0][1] * f + 256) >> 9);
            assert_eq!(exp2_neg(k << 16 | f), ((y + (1 << (14 + k))) >> (15 + k)).min(32767) as i32, "{k} {f}");
        }
        assert_eq!((exp2_neg(0), exp2_neg(1 << 16), exp2_neg(1 << 20), exp2_neg(u32::MAX)), (32767, 16384, 0, 0));
        let mut last = 32767;
        for t in 1..(1 << 20) + 10 {
            let value = exp2_neg(t);
            let truth = 32768.0 * (-f64::from(t) / 65536.0).exp2();
            let bound = if truth > 32767.5 { 1.0 } else { 0.63 };
            assert!((f64::from(value) - truth).abs() < bound, "{t}: {value} where {truth} is right");
            assert!(value <= last, "{t}: not monotonic");
            last = value;
        }
    }

    #[test]
    fn exp2_neg_in_32_bits_is_the_same() {
        let stream = crate::math::random::Stream::new(3);
        for i in 0..2000u64 {
            let (bits, shift) = (stream.bits(2 * i), 16 + (i % 27) as u32);
            let multiplier = match i % 7 {
                0 => i32::MAX,
                1 => 0,
                2 => (bits >> (33 + bits % 31)) as i32,
                _ => 1 << 30 | (bits >> 34) as i32,
            };
            let Some(curve) = Exp2Neg::new(multiplier, shift) else { continue };
            let edge = curve.limit.min(i32::MAX as u32);
            let near = (edge.saturating_sub(2)..=edge.saturating_add(2)).map(|d| d.min(i32::MAX as u32) as i32);
            let spread = (0..100).map(|j| {
                let bits = stream.bits(10_000 + 100 * i + j);
                (bits >> (33 + bits % 31)) as i32
            });
            for distance in near.chain(spread).chain([0, 1, 2, i32::MAX]) {
                let want = exp2_neg_scaled(distance, multiplier, shift);
                assert_eq!(curve.value(distance), want, "{distance} * {multiplier} >> {shift}");
            }
        }
        assert!(Exp2Neg::new(1 << 30, 41).is_some() && Exp2Neg::new(1 << 30, 42).is_none());
    }

    #[test]
    fn exp2_neg_scaled_survives_the_largest_arguments() {
        assert_eq!(exp2_neg_scaled(i32::MAX, i32::MAX, 16), 0);
        assert_eq!(exp2_neg_scaled(0, i32::MAX, 16), 32767);
        assert_eq!(exp2_neg_scaled(3, 1 << 30, 16), exp2_neg(3 << 14));
        // 1000 * 2^30 / 2^31 = 500
        assert_eq!(exp2_neg_scaled(1000, 1 << 30, 31), exp2_neg(500));
    }
}
