//! Scalar f32 functions: `std` where there is one, else micromath (feature `fast-math`), else libm.

macro_rules! unary {
    ($($(#[$meta:meta])* $name:ident = $std:ident, $libm:ident, $fast:ident;)*) => {$(
        $(#[$meta])*
        #[inline(always)]
        pub fn $name(x: f32) -> f32 {
            #[cfg(feature = "std")]
            return f32::$std(x);
            #[cfg(all(not(feature = "std"), feature = "fast-math"))]
            return micromath::F32Ext::$fast(x);
            #[cfg(not(any(feature = "std", feature = "fast-math")))]
            return libm::$libm(x);
        }
    )*};
}

unary! {
    /// Square root.
    sqrt = sqrt, sqrtf, sqrt;
    /// Natural logarithm.
    ln = ln, logf, ln;
}

/// Error function, by libm everywhere: neither std nor micromath has one.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    libm::erff(x)
}

/// e^x, accurate to 2 units in the last place, branch-free so that loops over it vectorise.
///
/// Arguments below -87.3 give 0, above 88.7 infinity; NaN stays NaN. The same bits on every target.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Cody-Waite reduction to |r| <= ln2/2 and a degree-6 polynomial (Cephes expf).
    const LOG2_E: f32 = core::f32::consts::LOG2_E;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.336 { -87.336 } else { x };
    let clamped = if clamped > 88.7 { 88.7 } else { clamped };
    let shifted = clamped * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HI - n * LN2_LO;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    // n reaches 128 just below overflow: two steps keep the scale finite.
    let half = (exponent as i32) >> 1;
    let rest = exponent as i32 - half;
    let scale = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    let result = y * scale(half) * scale(rest);
    let result = if x < -87.336 { 0.0 } else { result };
    if x > 88.7 { f32::INFINITY } else { result }
}

/// tanh(x) by [`exp`], accurate to about 3e-7 absolute, vectorisable.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let clamped = x.clamp(-10.0, 10.0);
    let e = exp(2.0 * clamped);
    1.0 - 2.0 / (e + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_of_f64() {
        let mut worst = 0.0f64;
        let mut x = -87.3f32;
        while x < 88.6 {
            let truth = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - truth) / truth).abs());
            x += 0.000_931;
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(1000.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_close_to_f64() {
        let mut x = -12.0f32;
        while x < 12.0 {
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 4e-7, "{x}");
            x += 0.001_3;
        }
        assert!(tanh(f32::NAN).is_nan());
    }
}
