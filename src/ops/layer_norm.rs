//! LayerNorm: each token normalised over its channels, then scaled and shifted.

use super::{Signature, f32s, i8s, i16s, i32s};
use crate::arch::{Output, Standardise, ToI8, ToI16, moments as integer_moments, standardise, vectorised};
use crate::math::fixed::{mul_high_rounded, mul_q16, rsqrt};
use crate::math::float::{sqrt, sum, sum_pairs};

const NO_CHANNELS: &str = "a layer norm needs at least one channel";

shape! {
    /// `x[rows, c], gamma[c], beta[c] -> y[rows, c]`.
    pub struct LayerNorm {
        /// Tokens.
        pub rows: usize,
        /// Channels.
        pub c: usize,
        /// Added to the variance.
        pub eps: f32,
    }
}

impl LayerNorm {
    /// Inputs `x, gamma, beta`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, .. } = *self;
        if c == 0 {
            return Signature::invalid(NO_CHANNELS);
        }
        Signature::new(&[f32s(&[rows, c]), f32s(&[c]), f32s(&[c])], &[f32s(&[rows, c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Mean and reciprocal standard deviation (biased, with `eps`) of a row.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let scale = 1.0 / x.len() as f32;
    let mean = sum(x, |x| x) * scale;
    let variance = sum(x, |x| (x - mean) * (x - mean)) * scale;
    (mean, 1.0 / sqrt(variance + eps))
}

/// `y = (x - mean) / sqrt(variance + eps) gamma + beta`, with the mean and the biased variance of each row.
pub fn forward(s: &LayerNorm, x: &[f32], gamma: &[f32], beta: &[f32], y: &mut [f32]) {
    let LayerNorm { c, eps, .. } = *s;
    vectorised(
        #[inline(always)]
        move || {
            for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
                let (mean, rstd) = moments(x, eps);
                for ((y, &x), (&gamma, &beta)) in y.iter_mut().zip(x).zip(gamma.iter().zip(beta)) {
                    *y = (x - mean) * rstd * gamma + beta;
                }
            }
        },
    );
}

shape! {
    /// Backward of [`LayerNorm`]: `x[rows, c], gamma[c], dy[rows, c] -> dx[rows, c]?, dgamma[c], dbeta[c]`.
    pub struct LayerNormGrad {
        /// Tokens.
        pub rows: usize,
        /// Channels.
        pub c: usize,
        /// Added to the variance.
        pub eps: f32,
    }
}

impl LayerNormGrad {
    /// Inputs `x, gamma, dy`; outputs `dx?, dgamma, dbeta`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, .. } = *self;
        if c == 0 {
            return Signature::invalid(NO_CHANNELS);
        }
        Signature::new(
            &[f32s(&[rows, c]), f32s(&[c]), f32s(&[rows, c])],
            &[f32s(&[rows, c]).optional(), f32s(&[c]), f32s(&[c])],
        )
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// With `g = dy gamma` and `x^ = (x - mean) rstd`: `dx = rstd (g - mean(g) - x^ mean(g x^))`,
/// `dgamma = sum of dy x^`, `dbeta = sum of dy` over the rows; overwrites all three.
pub fn backward(
    s: &LayerNormGrad,
    x: &[f32],
    gamma: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let LayerNormGrad { c, eps, .. } = *s;
    vectorised(
        #[inline(always)]
        move || {
            dgamma.fill(0.0);
            dbeta.fill(0.0);
            let scale = 1.0 / c as f32;
            let mut dx_rows = dx.chunks_exact_mut(c);
            for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
                let (mean, rstd) = moments(x, eps);
                for ((dgamma, dbeta), (&x, &dy)) in dgamma.iter_mut().zip(&mut *dbeta).zip(x.iter().zip(dy)) {
                    *dgamma += dy * ((x - mean) * rstd);
                    *dbeta += dy;
                }
                if let Some(dx) = dx_rows.next() {
                    for (g, (&dy, &gamma)) in dx.iter_mut().zip(dy.iter().zip(gamma)) {
                        *g = dy * gamma;
                    }
                    let mean_g = sum(dx, |g| g) * scale;
                    let slope = sum_pairs(dx, x, |g, x| g * (x - mean)) * scale * rstd * rstd;
                    for (dx, &x) in dx.iter_mut().zip(x) {
                        *dx = rstd * (*dx - mean_g - (x - mean) * slope);
                    }
                }
            }
        },
    );
}

/// Most channels of the integer LayerNorm: `c x_i - sum x` then fits 32 bits.
pub const MAX_CHANNELS: usize = 32767;

const INTEGER_CHANNELS: &str = "an integer layer norm takes 1 to 32767 channels";
const INTEGER_EPS: &str = "the eps of an integer layer norm is negative";
const INTEGER_SHIFT: &str = "the shift of an integer layer norm is not in 1 to 30";

const fn integer_reason(c: usize, eps: i32, shift: i32) -> Option<&'static str> {
    if c == 0 || c > MAX_CHANNELS {
        return Some(INTEGER_CHANNELS);
    }
    if eps < 0 {
        return Some(INTEGER_EPS);
    }
    if shift < 1 || shift > 30 {
        return Some(INTEGER_SHIFT);
    }
    None
}

shape! {
    /// Integer [`LayerNorm`] to int8: `x i16[rows, c], gamma i16[c], beta i32[c] -> y i8[rows, c]`.
    ///
    /// For each row, in integers without overflow (`floor` is an arithmetic shift, `sat32` saturates
    /// to 32 bits, `(r, e)` is [`rsqrt`]):
    ///
    /// ```text
    /// S      = sum x_i                     D_i = c x_i - S
    /// V      = c sum x_i^2 - S^2 + floor(eps c^2 / 256)
    /// (r, e) = rsqrt(V)
    /// d_i    = D_i 2^(52-e) where e <= 52, else floor((D_i + 2^(e-53)) / 2^(e-52))
    /// norm_i = floor((d_i r + 2^31) / 2^32)                       Q20, below 2^28 in magnitude
    /// t_i    = floor(norm_i gamma_i / 2^16)
    /// q_i    = floor(sat32(sat32(t_i + beta_i) + 2^(shift-1)) / 2^shift)
    /// y_i    = clamp(q_i + zero, lo, hi)
    /// ```
    ///
    /// So `gamma` is the real gamma in units of `s_out 2^(4-shift)` and `beta` the real beta in units
    /// of `s_out 2^-shift`. A constant row gives `norm = 0`, with `eps = 0` too.
    pub struct LayerNormI8 {
        /// Tokens.
        pub rows: usize,
        /// Channels, 1 to [`MAX_CHANNELS`].
        pub c: usize,
        /// Added to the variance, in units of the square of the input's quantum, Q8; not negative.
        pub eps: i32,
        /// Right shift of the result, 1 to 30.
        pub shift: i32,
        /// Zero point of the output.
        pub zero: i32,
        /// Smallest output.
        pub lo: i32,
        /// Largest output.
        pub hi: i32,
    }
}

impl LayerNormI8 {
    /// Inputs `x, gamma, beta`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, eps, shift, zero, lo, hi } = *self;
        if let Some(why) = integer_reason(c, eps, shift) {
            return Signature::invalid(why);
        }
        if lo < -128 || hi > 127 || lo > hi || zero < -128 || zero > 127 {
            return Signature::invalid("the output range of an int8 layer norm leaves int8");
        }
        Signature::new(&[i16s(&[rows, c]), i16s(&[c]), i32s(&[c])], &[i8s(&[rows, c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Integer forward to int8.
pub fn forward_i8(s: &LayerNormI8, x: &[i16], gamma: &[i16], beta: &[i32], y: &mut [i8]) {
    let LayerNormI8 { zero, lo, hi, .. } = *s;
    integer_rows(s.c, s.eps, s.shift, x, gamma, beta, y, ToI8 { zero, lo, hi });
}

shape! {
    /// Integer [`LayerNorm`] to int16 (symmetric): `x i16[rows, c], gamma i16[c], beta i32[c] -> y i16[rows, c]`.
    ///
    /// [`LayerNormI8`] states the formula; here `y_i = clamp(q_i, -32768, 32767)`.
    pub struct LayerNormI16 {
        /// Tokens.
        pub rows: usize,
        /// Channels, 1 to [`MAX_CHANNELS`].
        pub c: usize,
        /// Added to the variance, in units of the square of the input's quantum, Q8; not negative.
        pub eps: i32,
        /// Right shift of the result, 1 to 30.
        pub shift: i32,
    }
}

impl LayerNormI16 {
    /// Inputs `x, gamma, beta`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, eps, shift } = *self;
        if let Some(why) = integer_reason(c, eps, shift) {
            return Signature::invalid(why);
        }
        Signature::new(&[i16s(&[rows, c]), i16s(&[c]), i32s(&[c])], &[i16s(&[rows, c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Integer forward to int16.
pub fn forward_i16(s: &LayerNormI16, x: &[i16], gamma: &[i16], beta: &[i32], y: &mut [i16]) {
    integer_rows(s.c, s.eps, s.shift, x, gamma, beta, y, ToI16);
}

#[inline(always)]
fn integer_rows<O: Output>(
    c: usize,
    eps: i32,
    shift: i32,
    x: &[i16],
    gamma: &[i16],
    beta: &[i32],
    y: &mut [O::T],
    output: O,
) {
    let (channels, half) = (c as u64, 1 << (shift - 1));
    let eps = (eps as u64 * channels * channels) >> 8;
    // |t| is below 2^27 and half at most 2^29: beside such offsets, which exporters make, no sum saturates.
    let is_tame = beta.iter().all(|beta| beta.unsigned_abs() <= 1 << 30);
    vectorised(
        #[inline(always)]
        move || {
            for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
                let (sum, squares) = integer_moments(x);
                let spread = channels * squares as u64 - i64::from(sum).pow(2) as u64;
                let (mantissa, exponent) = rsqrt(spread + eps);
                // One of the two shifts is 0. |norm| <= sqrt(c - 1) < 182, so d stays below 2^30.
                let (up, down) = ((52 - exponent).max(0) as u32, (exponent - 52).max(0) as u32);
                let nearest = (1 << down) >> 1;
                let how = Standardise { is_tame, sum, up, down, mantissa, shift };
                standardise(
                    how,
                    x,
                    gamma,
                    beta,
                    output,
                    y,
                    #[inline(always)]
                    |output, y| {
                        let (row, mantissa) = (y.iter_mut().zip(x).zip(gamma.iter().zip(beta)), mantissa as i32);
                        // Cores with a loop of their own for such rows keep to the general one besides.
                        if is_tame && down == 0 && !cfg!(cortex_m = "dsp") {
                            let (scale, offset) = ((c as i32) << up, sum << up);
                            for ((y, &x), (&gamma, &beta)) in row {
                                let d = scale.wrapping_mul(i32::from(x)).wrapping_sub(offset);
                                let t = mul_q16(mul_high_rounded(d, mantissa), gamma);
                                *y = output.put((t + beta + half) >> shift);
                            }
                        } else {
                            for ((y, &x), (&gamma, &beta)) in row {
                                let d = ((c as i32 * i32::from(x) - sum + nearest) >> down) << up;
                                let t = mul_q16(mul_high_rounded(d, mantissa), gamma);
                                *y = output.put(t.saturating_add(beta).saturating_add(half) >> shift);
                            }
                        }
                    },
                );
            }
        },
    );
}

/// What turns a LayerNorm into integers: the operands and fields of [`LayerNormI8`] and [`LayerNormI16`].
#[cfg(feature = "std")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Scale per channel.
    pub gamma: std::vec::Vec<i16>,
    /// Offset per channel.
    pub beta: std::vec::Vec<i32>,
    /// The field `eps`.
    pub eps: i32,
    /// The field `shift`.
    pub shift: i32,
}

/// The integer parameters of a LayerNorm from input scale `s_in` to output scale `s_out`: the
/// largest shift at which every gamma fits 16 bits and every beta 31. Used by exporters, never on
/// a device.
///
/// # Errors
///
/// Scales that are not positive; an `eps` that is negative or, seen from `s_in`, above 2^23 squared
/// quanta; a gamma or beta that is not finite or too large for `s_out`.
#[cfg(feature = "std")]
pub fn quantise_parameters(
    gamma: &[f32],
    beta: &[f32],
    s_in: f64,
    s_out: f64,
    eps: f64,
) -> Result<Parameters, crate::error::HostError> {
    use crate::error::HostError;
    use std::format;

    for (name, scale) in [("input", s_in), ("output", s_out)] {
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(HostError::new(
                "layer norm",
                format!("the {name} scale must be positive and finite and is {scale}"),
                "calibrate on data that reaches this layer",
            ));
        }
    }
    let quanta = eps / (s_in * s_in) * 256.0;
    if !(0.0..2_147_483_647.0).contains(&quanta) {
        return Err(HostError::new(
            "layer norm",
            format!("eps {eps} at input scale {s_in} must be 0 to 8388607 squared quanta and is {}", quanta / 256.0),
            "use a larger input scale: the input is far smaller than sqrt(eps)",
        ));
    }
    let largest = |values: &[f32]| {
        values.iter().fold(0.0, |a: f64, v| if v.is_finite() { a.max(f64::from(v.abs())) } else { f64::INFINITY })
    };
    let (gamma_max, beta_max) = (largest(gamma) / s_out, largest(beta) / s_out);
    let fits = |shift: &i32| {
        gamma_max * f64::from(shift - 4).exp2() <= 32767.0 && beta_max * f64::from(*shift).exp2() <= f64::from(1 << 30)
    };
    let Some(shift) = (1..=30).rev().find(fits) else {
        return Err(HostError::new(
            "layer norm",
            format!(
                "gamma and beta must be finite and below 262136 and 536870912 output quanta; they reach {gamma_max} and {beta_max}"
            ),
            "use a larger output scale, or look for a training run that diverged",
        ));
    };
    let nearest = |v: f32, bits: i32| (f64::from(v) / s_out * f64::from(bits).exp2() + 0.5).floor();
    Ok(Parameters {
        gamma: gamma.iter().map(|&v| nearest(v, shift - 4) as i16).collect(),
        beta: beta.iter().map(|&v| nearest(v, shift) as i32).collect(),
        // Not 0 unless eps is: it then still separates a constant row from a nearly constant one.
        eps: if eps > 0.0 { ((quanta + 0.5) as i32).max(1) } else { 0 },
        shift,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Reals, assert_close, check_gradients, ints, reals};

    fn reference(rows: usize, c: usize, eps: f64, t: &[Vec<f64>]) -> Vec<f64> {
        let (x, gamma, beta) = (&t[0], &t[1], &t[2]);
        let mut y = vec![0.0; rows * c];
        for r in 0..rows {
            let row = &x[r * c..(r + 1) * c];
            let mean = row.iter().sum::<f64>() / c as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
            for i in 0..c {
                let norm = if variance + eps > 0.0 { (row[i] - mean) / (variance + eps).sqrt() } else { 0.0 };
                y[r * c + i] = norm * gamma[i] + beta[i];
            }
        }
        y
    }

    #[test]
    fn forward_and_backward_match_the_reference() {
        for (rows, c, eps, with_dx) in
            [(1, 1, 1e-2, true), (5, 7, 1e-5, true), (3, 8, 1e-6, false), (4, 33, 1e-5, true), (2, 512, 1e-5, true)]
        {
            let eps64 = f64::from(eps);
            let inputs = [reals("x", rows * c).map(|x| 3.0 * x + 1.0), reals("gamma", c), reals("beta", c)];
            let [x, gamma, beta] = inputs.each_ref().map(Reals::f32);
            let mut y = vec![9.0; rows * c];
            forward(&LayerNorm { rows, c, eps }, &x, &gamma, &beta, &mut y);
            assert_close("y", &y, &reference(rows, c, eps64, &inputs.each_ref().map(Reals::f64)), 2e-6);
            check_gradients(
                &inputs,
                rows * c,
                |t| reference(rows, c, eps64, t),
                |dy| {
                    let mut dx = vec![9.0; if with_dx { rows * c } else { 0 }];
                    let (mut dgamma, mut dbeta) = (vec![9.0; c], vec![9.0; c]);
                    backward(&LayerNormGrad { rows, c, eps }, &x, &gamma, dy, &mut dx, &mut dgamma, &mut dbeta);
                    vec![dx, dgamma, dbeta]
                },
            );
        }
    }

    /// The documented formula in 128 bits, with the root from its definition.
    fn exact(c: usize, eps: i32, shift: i32, x: &[i16], gamma: &[i16], beta: &[i32]) -> Vec<i128> {
        let n = c as i128;
        let sum: i128 = x.iter().map(|&x| i128::from(x)).sum();
        let squares: i128 = x.iter().map(|&x| i128::from(x).pow(2)).sum();
        let v = n * squares - sum * sum + ((i128::from(eps) * n * n) >> 8);
        let mut exponent = 31;
        while v >> (2 * (exponent - 30)) > 0 {
            exponent += 1;
        }
        // The largest r below 2^31 with r^2 v <= 4^e, bit by bit.
        let mut r = 0i128;
        for bit in (0..31).rev() {
            let next = r | 1 << bit;
            if v > 0 && next * next * v <= 1 << (2 * exponent) {
                r = next;
            }
        }
        let saturate = |v: i128| v.clamp(i128::from(i32::MIN), i128::from(i32::MAX));
        (0..c)
            .map(|i| {
                let d = n * i128::from(x[i]) - sum;
                let d =
                    if exponent <= 52 { d << (52 - exponent) } else { (d + (1 << (exponent - 53))) >> (exponent - 52) };
                let norm = (d * r + (1 << 31)) >> 32;
                assert!(norm.abs() < 1 << 28);
                let t = (norm * i128::from(gamma[i])) >> 16;
                saturate(saturate(t + i128::from(beta[i])) + (1 << (shift - 1))) >> shift
            })
            .collect()
    }

    fn check_exact(c: usize, eps: i32, shift: i32, x: &[i16], gamma: &[i16], beta: &[i32]) {
        let rows = x.len() / c;
        let (mut y8, mut y16) = (vec![0; rows * c], vec![0; rows * c]);
        let s = LayerNormI8 { rows, c, eps, shift, zero: -7, lo: -100, hi: 127 };
        assert_eq!(s.signature().reason(), None);
        forward_i8(&s, x, gamma, beta, &mut y8);
        forward_i16(&LayerNormI16 { rows, c, eps, shift }, x, gamma, beta, &mut y16);
        for r in 0..rows {
            let row = r * c..(r + 1) * c;
            let q = exact(c, eps, shift, &x[row.clone()], gamma, beta);
            for ((&q, &y8), &y16) in q.iter().zip(&y8[row.clone()]).zip(&y16[row]) {
                assert_eq!(i128::from(y8), (q - 7).clamp(-100, 127));
                assert_eq!(i128::from(y16), q.clamp(-32768, 32767));
            }
        }
    }

    #[test]
    fn integer_forward_is_exactly_the_formula() {
        for (c, eps, shift) in [(1, 0, 1), (7, 1, 5), (32, 300, 12), (33, 0, 20), (1024, i32::MAX, 30), (1024, 0, 9)] {
            let gamma = ints::<i16>("gamma", c);
            let beta: Vec<i32> = ints::<i32>("beta", c);
            let mut x = ints::<i16>("x", 6 * c);
            // Small values, a constant row, and the largest spread there is.
            x[c..2 * c].iter_mut().for_each(|x| *x >>= 11);
            x[2 * c..3 * c].fill(-32768);
            x[3 * c..4 * c].iter_mut().enumerate().for_each(|(i, x)| *x = if i % 2 == 0 { 32767 } else { -32768 });
            x[4 * c..5 * c].iter_mut().enumerate().for_each(|(i, x)| *x = if i == 0 { 32767 } else { -32768 });
            x[5 * c..].iter_mut().enumerate().for_each(|(i, x)| *x = i16::from(i == 0));
            check_exact(c, eps, shift, &x, &gamma, &beta);
        }
    }

    #[test]
    fn integer_forward_survives_hostile_parameters_and_the_most_channels() {
        for extreme in [i16::MIN, i16::MAX] {
            let c = MAX_CHANNELS;
            let mut x = vec![-32768; 2 * c];
            x[0] = 32767;
            x[c..].iter_mut().step_by(2).for_each(|x| *x = 32767);
            for beta in [i32::MIN, i32::MAX] {
                check_exact(c, i32::MAX, 30, &x, &vec![extreme; c], &vec![beta; c]);
                check_exact(c, 0, 1, &x, &vec![extreme; c], &vec![beta; c]);
            }
        }
    }

    #[test]
    fn shapes_outside_the_proof_are_refused() {
        let good = LayerNormI8 { rows: 1, c: 4, eps: 1, shift: 7, zero: 0, lo: -128, hi: 127 };
        assert_eq!(good.signature().reason(), None);
        assert!(LayerNorm { rows: 1, c: 0, eps: 1e-5 }.signature().reason().is_some());
        for bad in [
            LayerNormI8 { c: 0, ..good },
            LayerNormI8 { c: MAX_CHANNELS + 1, ..good },
            LayerNormI8 { eps: -1, ..good },
            LayerNormI8 { shift: 0, ..good },
            LayerNormI8 { shift: 31, ..good },
            LayerNormI8 { hi: 128, ..good },
            LayerNormI8 { lo: 5, hi: 4, ..good },
            LayerNormI8 { zero: i32::MAX, ..good },
        ] {
            assert!(bad.signature().reason().is_some(), "{bad:?}");
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn integers_are_close_to_the_reals() {
        for (c, input, s_in, eps) in
            [(8, 3.0, 1e-3, 1e-5), (64, 20.0, 1e-3, 1e-6), (64, 0.04, 2e-6, 1e-5), (512, 1.0, 1.0 / 4096.0, 1e-5)]
        {
            let rows = 9;
            let x: Vec<i16> =
                reals("x", rows * c).f64().iter().map(|&x| ((x + 0.3) * input / s_in / 1.3) as i16).collect();
            let (gamma, beta) = (reals("gamma", c).map(|g| 1.0 + 0.5 * g), reals("beta", c));
            let real = [x.iter().map(|&x| f64::from(x) * s_in).collect(), gamma.f64(), beta.f64()];
            let want = reference(rows, c, eps, &real);
            let largest = want.iter().fold(0.0f64, |a, y| a.max(y.abs()));

            let s_out = largest / 127.0;
            let p = quantise_parameters(&gamma.f32(), &beta.f32(), s_in, s_out, eps).unwrap();
            let s = LayerNormI8 { rows, c, eps: p.eps, shift: p.shift, zero: 0, lo: -128, hi: 127 };
            let mut y = vec![0; rows * c];
            forward_i8(&s, &x, &p.gamma, &p.beta, &mut y);
            for (&y, &want) in y.iter().zip(&want) {
                assert!((f64::from(y) - want / s_out).abs() < 0.51, "{y}: {}", want / s_out);
            }

            let s_out = largest / 32767.0;
            let p = quantise_parameters(&gamma.f32(), &beta.f32(), s_in, s_out, eps).unwrap();
            let mut y = vec![0; rows * c];
            forward_i16(&LayerNormI16 { rows, c, eps: p.eps, shift: p.shift }, &x, &p.gamma, &p.beta, &mut y);
            for (&y, &want) in y.iter().zip(&want) {
                // Half a unit from the output's rounding, up to one from gamma's 16 bits.
                assert!((f64::from(y) - want / s_out).abs() < 1.6, "{y}: {}", want / s_out);
            }
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_constant_row_gives_beta() {
        let (gamma, beta) = ([1.0; 5], [-1.0, -0.5, 0.0, 0.25, 1.0]);
        for eps in [0.0, 1e-5] {
            let p = quantise_parameters(&gamma, &beta, 0.01, 0.01, eps).unwrap();
            let s = LayerNormI8 { rows: 1, c: 5, eps: p.eps, shift: p.shift, zero: 3, lo: -128, hi: 127 };
            let mut y = [0; 5];
            forward_i8(&s, &[-32768; 5], &p.gamma, &p.beta, &mut y);
            assert_eq!(y, [-97, -47, 3, 28, 103]);
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn parameters_that_do_not_fit_are_refused() {
        for (gamma, beta, s_in, s_out, eps) in [
            (1.0, 0.0, 0.0, 0.1, 1e-5),
            (1.0, 0.0, 0.1, f64::NAN, 1e-5),
            (1.0, 0.0, 1e-9, 0.1, 1e-5),
            (1.0, 0.0, 0.1, 0.1, -1e-5),
            (f32::NAN, 0.0, 0.1, 0.1, 1e-5),
            (1.0, f32::INFINITY, 0.1, 0.1, 1e-5),
            (1e9, 0.0, 0.1, 0.1, 1e-5),
        ] {
            assert!(quantise_parameters(&[gamma, 1.0], &[beta, 0.0], s_in, s_out, eps).is_err());
        }
    }
}
