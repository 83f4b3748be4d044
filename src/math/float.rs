//! Scalar f32 functions: those of `std` where there is one, else of libm. Feature `fast-math` then starts
//! the square root from micromath, for cores with an FPU.

/// Square root, correctly rounded; to 3e-7 with feature `fast-math` without `std`.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return f32::sqrt(x);
    #[cfg(all(not(feature = "std"), feature = "fast-math"))]
    return fast_sqrt(x);
    #[cfg(not(any(feature = "std", feature = "fast-math")))]
    return libm::sqrtf(x);
}

/// micromath's guess of the reciprocal root, up to 6 % off, and three of Newton's steps, which each square
/// the relative error (times 1.5). On an FPU half the instructions of libm's integers; without one, four times.
#[cfg(all(not(feature = "std"), feature = "fast-math"))]
fn fast_sqrt(x: f32) -> f32 {
    if !(f32::MIN_POSITIVE..f32::INFINITY).contains(&x) {
        return libm::sqrtf(x);
    }
    let half = 0.5 * x;
    let newton = |y: f32| y * (1.5 - half * y * y);
    x * newton(newton(newton(micromath::F32Ext::invsqrt(x))))
}

/// Natural logarithm.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return f32::ln(x);
    #[cfg(not(feature = "std"))]
    return libm::logf(x);
}

/// Error function, accurate to 1e-7, branch-free so that loops over it vectorise (N. Juffa's two
/// polynomials).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    // |x| > 0.93: 1 - exp(polynomial).
    let r = -1.728_534_7e-5 * t + 3.831_972e-4;
    let u = -3.883_964_4e-3 * t + 2.425_462_2e-2;
    let r = r * s + u;
    let r = r * t - 0.106_777_88;
    let r = r * t - 0.634_846_7;
    let r = r * t - 0.128_717_51;
    let far = (1.0 - exp(r * t - t)).copysign(x);
    let p = -5.967_617e-4 * s + 4.991_192_4e-3;
    let p = p * s - 2.676_813_5e-2;
    let p = p * s + 0.112_819_925;
    let p = p * s - 0.376_125_34;
    let p = p * s + 0.128_379_17;
    let near = p * x + x;
    if t > 0.927_734_4 { far } else { near }
}

/// `x` rounded to the nearest integer, ties up, for `|x| < 2^22`: the float twin of
/// [`round_shift`](super::fixed::round_shift). NaN stays NaN.
#[inline(always)]
pub fn round_ties_up(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds, ties to even; x - even is exact, so a tie that went down shows.
    const ROUND: f32 = 12_582_912.0;
    let even = (x + ROUND) - ROUND;
    if x - even == 0.5 { even + 1.0 } else { even }
}

const LANES: usize = 8;

/// Sum of `f` over a slice, in eight lanes that are added at the end: an order that is fixed and
/// that vectorises.
#[inline(always)]
pub fn sum(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum_pairs(a, a, |a, _| f(a))
}

/// Sum of `f` over the pairs of two slices, in the order of [`sum`].
#[inline(always)]
pub fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += f(a, b);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += f(a, b);
    }
    lanes.iter().sum()
}

/// The largest element of a slice, `-inf` of an empty one; NaN is passed over.
#[inline(always)]
pub fn largest(a: &[f32]) -> f32 {
    let (blocks, rest) = a.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for (lane, &a) in lanes.iter_mut().zip(block) {
            *lane = if a > *lane { a } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &a| if a > m { a } else { m })
}

/// `sum a_i b_i`, in the order of [`sum`].
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_pairs(a, b, |a, b| a * b)
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
    fn square_roots_are_close_to_f64() {
        for i in 0..50_000u32 {
            let x = f32::from_bits(i * 42_781 + 1);
            let exact = f64::from(x).sqrt();
            assert!((f64::from(sqrt(x)) - exact).abs() <= 3e-7 * exact, "{x:e}: {:e}", sqrt(x));
        }
        assert_eq!([sqrt(0.0), sqrt(f32::INFINITY)], [0.0, f32::INFINITY]);
        assert!(sqrt(-1.0).is_nan() && sqrt(f32::NAN).is_nan());
    }

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

    #[test]
    fn erf_is_close_to_f64() {
        let mut x = -6.0f32;
        while x < 6.0 {
            assert!((f64::from(erf(x)) - libm::erf(f64::from(x))).abs() < 1e-7, "{x}");
            x += 0.000_113;
        }
        assert_eq!((erf(0.0), erf(f32::INFINITY), erf(-1e30)), (0.0, 1.0, -1.0));
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn rounds_to_nearest_ties_up() {
        for i in -4_000..4_000 {
            let x = i as f32 / 16.0;
            assert_eq!(round_ties_up(x), (x + 0.5).floor(), "{x}");
        }
        // The floats beside a tie, where x + 0.5 itself would round.
        assert_eq!(round_ties_up(0.499_999_97), 0.0);
        assert_eq!(round_ties_up(-0.500_000_06), -1.0);
        assert_eq!(round_ties_up(4_194_303.5), 4_194_304.0);
        assert!(round_ties_up(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_cover_every_element_once() {
        for len in [0, 1, 7, 8, 9, 31] {
            let a: Vec<f32> = (0..len).map(|i| i as f32 + 1.0).collect();
            assert_eq!(sum(&a, |a| a), (len * (len + 1) / 2) as f32);
            assert_eq!(sum_pairs(&a, &a, |a, b| a * b), a.iter().map(|a| a * a).sum::<f32>());
            for i in 0..len {
                let mut b = a.clone();
                b[i] = 100.0;
                assert_eq!(largest(&b), 100.0);
            }
        }
    }
}
