//! Fake quantisation for training: values pass through the integers they will become.
//!
//! [`quantise`] and [`weight_scale`] are the rounding and the scale that the exporter uses, so that
//! the exported integers are those the training saw.

use super::{Signature, f32s};
use crate::arch::vectorised;
use crate::math::float::round_ties_up;

const SCALE: &str = "the scale of a fake quantisation is not positive and finite";
const RANGE: &str = "the levels of a fake quantisation leave 16 bits or are empty";

const fn reason(scale: f32, zero: i32, lo: i32, hi: i32) -> Option<&'static str> {
    // Written so that NaN fails.
    if !(scale > 0.0 && scale < f32::INFINITY) {
        return Some(SCALE);
    }
    if lo < -32768 || hi > 32767 || lo > hi || zero < -32768 || zero > 32767 {
        return Some(RANGE);
    }
    None
}

/// `round(x / scale) + zero` before it is clamped; far values stop at 2^21, beyond every clamp.
#[inline(always)]
fn level(x: f32, scale: f32, zero: i32) -> f32 {
    const FAR: f32 = 2_097_152.0;
    round_ties_up((x / scale).clamp(-FAR, FAR)) + zero as f32
}

/// The integer of a real value: `clamp(round(x / scale) + zero, lo, hi)`, to nearest, ties up. The
/// division is that of f32. NaN gives 0. `zero`, `lo` and `hi` are within 16 bits.
pub fn quantise(x: f32, scale: f32, zero: i32, lo: i32, hi: i32) -> i32 {
    (level(x, scale, zero) as i32).clamp(lo, hi)
}

/// The scale of the weights of one output channel in symmetric integers: `max |w| / largest`, but no less than
/// [`SMALLEST_SCALE`], nor than keeps the integer `bias / (input_scale scale)` within 29 bits and a sign. 1
/// where all weights and the bias are 0. `bias` has one value per channel, or none. NaN among the weights
/// gives NaN.
#[inline(always)]
pub fn weight_scale(s: &FakeQuantWeights, w: &[f32], bias: &[f32], channel: usize) -> f32 {
    // Magnitudes order like their bits; NaN is above all, so it shows.
    let weights = chunks_of(w, channel, s.channels, s.inner).flatten();
    let largest = f32::from_bits(weights.map(|w| w.abs().to_bits()).fold(0, u32::max));
    let bias = bias.get(channel).map_or(0.0, |b| b.abs());
    if largest == 0.0 && bias == 0.0 {
        return 1.0;
    }
    let (scale, least) = (largest / s.largest as f32, (bias / s.input_scale / BIAS_LIMIT).max(SMALLEST_SCALE));
    if scale < least { least } else { scale }
}

/// The smallest scale of weights: below it they are as good as zero.
pub const SMALLEST_SCALE: f32 = 1e-12;

/// 2^29: the largest integer of a bias, before the zero point of the input is folded into it.
const BIAS_LIMIT: f32 = 536_870_912.0;

shape! {
    /// `x[len] -> y[len]`, in place: `y = (clamp(round(x / scale) + zero, lo, hi) - zero) scale`.
    pub struct FakeQuant {
        /// Elements.
        pub len: usize,
        /// Real step between two levels.
        pub scale: f32,
        /// Level of the real 0.
        pub zero: i32,
        /// Lowest level.
        pub lo: i32,
        /// Highest level.
        pub hi: i32,
    }
}

impl FakeQuant {
    /// Input `x`; output `y`, in place.
    pub const fn signature(&self) -> Signature {
        if let Some(why) = reason(self.scale, self.zero, self.lo, self.hi) {
            return Signature::invalid(why);
        }
        Signature::new(&[f32s(&[self.len])], &[f32s(&[self.len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// The real value of each element's integer; NaN stays NaN.
pub fn forward(s: &FakeQuant, y: &mut [f32]) {
    let FakeQuant { scale, zero, lo, hi, .. } = *s;
    let (lo, hi) = (lo as f32, hi as f32);
    vectorised(
        #[inline(always)]
        move || {
            for y in y {
                let q = level(*y, scale, zero);
                let q = if q < lo { lo } else { q };
                let q = if q > hi { hi } else { q };
                *y = (q - zero as f32) * scale;
            }
        },
    );
}

shape! {
    /// Straight-through backward of [`FakeQuant`]: `dy[len], x[len] -> dx[len]`, in place on `dy`.
    pub struct FakeQuantGrad {
        /// Elements.
        pub len: usize,
        /// Real step between two levels.
        pub scale: f32,
        /// Level of the real 0.
        pub zero: i32,
        /// Lowest level.
        pub lo: i32,
        /// Highest level.
        pub hi: i32,
    }
}

impl FakeQuantGrad {
    /// Inputs `dy, x`; output `dx`, in place on `dy`.
    pub const fn signature(&self) -> Signature {
        if let Some(why) = reason(self.scale, self.zero, self.lo, self.hi) {
            return Signature::invalid(why);
        }
        let one = f32s(&[self.len]);
        Signature::new(&[one, one], &[one]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `dx = dy` where the level of `x` is in `lo..=hi`, 0 where it was clamped.
pub fn backward(s: &FakeQuantGrad, x: &[f32], dx: &mut [f32]) {
    let FakeQuantGrad { scale, zero, lo, hi, .. } = *s;
    vectorised(
        #[inline(always)]
        move || {
            for (dx, &x) in dx.iter_mut().zip(x) {
                let q = level(x, scale, zero);
                *dx = if q < lo as f32 || q > hi as f32 { 0.0 } else { *dx };
            }
        },
    );
}

shape! {
    /// Weights in symmetric integers per output channel: `w[outer, channels, inner], bias[channels] -> y` of
    /// the shape of `w`, with `y = clamp(round(w / scale), -largest, largest) scale` and the [`weight_scale`] of each
    /// channel. The bias, which may be absent, only bounds the scale from below. Nothing is clamped beyond
    /// rounding, so the straight-through backward is the identity for `w`, and none for the bias.
    pub struct FakeQuantWeights {
        /// Groups of weights that each hold every channel: taps of a depthwise convolution, or 1.
        pub outer: usize,
        /// Output channels.
        pub channels: usize,
        /// Weights of a channel that lie side by side.
        pub inner: usize,
        /// Scale of the integers that the weights are multiplied with.
        pub input_scale: f32,
        /// The largest integer, 1 to 32767: 127 of int8.
        pub largest: i32,
    }
}

impl FakeQuantWeights {
    /// Inputs `w, bias`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { outer, channels, inner, input_scale, largest } = *self;
        if largest < 1 {
            return Signature::invalid(RANGE);
        }
        if let Some(why) = reason(input_scale, 0, -largest, largest) {
            return Signature::invalid(why);
        }
        let weights = f32s(&[outer, channels, inner]);
        Signature::new(&[weights, f32s(&[channels]).optional()], &[weights])
    }

    /// The output channel of weight `i`.
    pub const fn channel(&self, i: usize) -> usize {
        i / self.inner % self.channels
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// The real value of each weight's integer.
pub fn weights(s: &FakeQuantWeights, w: &[f32], bias: &[f32], y: &mut [f32]) {
    let FakeQuantWeights { channels, inner, largest, .. } = *s;
    let largest = largest as f32;
    vectorised(
        #[inline(always)]
        move || {
            for channel in 0..channels {
                let scale = weight_scale(s, w, bias, channel);
                let targets = y.chunks_exact_mut(inner).skip(channel).step_by(channels);
                for (w, y) in chunks_of(w, channel, channels, inner).zip(targets) {
                    for (y, &w) in y.iter_mut().zip(w) {
                        *y = level(w, scale, 0).clamp(-largest, largest) * scale;
                    }
                }
            }
        },
    );
}

/// The weights of one channel of `w[outer, channels, inner]`.
fn chunks_of(w: &[f32], channel: usize, channels: usize, inner: usize) -> impl Iterator<Item = &[f32]> {
    w.chunks_exact(inner).skip(channel).step_by(channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::reals;

    #[test]
    fn is_the_real_value_of_the_integer() {
        for (len, scale, zero, lo, hi) in
            [(1, 0.5, 0, -128, 127), (999, 0.01, -50, -128, 127), (777, 3e-4, 0, -3000, 32767)]
        {
            let x = reals("x", len).map(|x| 2.0 * x).f32();
            let mut y = x.clone();
            forward(&FakeQuant { len, scale, zero, lo, hi }, &mut y);
            let mut dx = vec![2.0; len];
            backward(&FakeQuantGrad { len, scale, zero, lo, hi }, &x, &mut dx);
            for ((&x, &y), &dx) in x.iter().zip(&y).zip(&dx) {
                let free = (f64::from(x / scale) + 0.5).floor() as i32 + zero;
                assert_eq!(quantise(x, scale, zero, lo, hi), free.clamp(lo, hi));
                assert_eq!(y, (free.clamp(lo, hi) - zero) as f32 * scale);
                assert_eq!(dx, if (lo..=hi).contains(&free) { 2.0 } else { 0.0 });
            }
        }
    }

    #[test]
    fn ties_go_up_and_far_values_clamp() {
        let s = FakeQuant { len: 6, scale: 1.0, zero: 0, lo: -128, hi: 127 };
        let mut y = [0.5, -0.5, 1.5, -1.5, f32::INFINITY, -1e30];
        forward(&s, &mut y);
        assert_eq!(y, [1.0, 0.0, 2.0, -1.0, 127.0, -128.0]);
        let mut nan = [f32::NAN];
        forward(&FakeQuant { len: 1, ..s }, &mut nan);
        assert!(nan[0].is_nan());
    }

    #[test]
    fn channels_reach_their_largest_weight() {
        for (outer, channels, inner) in [(1, 1, 1), (1, 5, 33), (9, 7, 1), (3, 4, 2)] {
            for levels in [127, 7, 32767] {
                let s = FakeQuantWeights { outer, channels, inner, input_scale: 0.1, largest: levels };
                let mut w = reals("w", outer * channels * inner).f32();
                let channel = |i: usize| i / inner % channels;
                w.iter_mut().enumerate().filter(|(i, _)| channel(*i) == 0).for_each(|(_, w)| *w = 0.0);
                let mut y = vec![9.0; w.len()];
                weights(&s, &w, &[], &mut y);
                for c in 0..channels {
                    let of_c: Vec<usize> = (0..w.len()).filter(|&i| channel(i) == c).collect();
                    let largest = of_c.iter().fold(0.0f32, |a, &i| a.max(w[i].abs()));
                    let scale = weight_scale(&s, &w, &[], c);
                    assert_eq!(scale, if largest == 0.0 { 1.0 } else { largest / levels as f32 });
                    for i in of_c {
                        let q = quantise(w[i], scale, 0, -levels, levels);
                        assert!((w[i] - y[i]).abs() <= 0.501 * scale);
                        assert_eq!(y[i], q as f32 * scale);
                        assert!(w[i].abs() < largest || q.abs() == levels || largest == 0.0);
                        assert_eq!(s.channel(i), c);
                    }
                }
            }
        }
    }

    #[test]
    fn scales_leave_room_for_the_bias() {
        let s = FakeQuantWeights { outer: 1, channels: 6, inner: 2, input_scale: 0.25, largest: 127 };
        let w = [-2.54, 1.0, 0.0, 0.0, 0.0, 0.0, 1e-9, 0.0, 1e-20, 0.0, f32::NAN, 1.0];
        let bias = [8.0, 0.0, 8.0, 8.0, 0.0, 8.0];
        let scale = |c: usize| weight_scale(&s, &w, &bias, c);
        assert_eq!(scale(0), 2.54 / 127.0);
        assert_eq!(scale(1), 1.0);
        // 2^29 units of 8 / 2^29 are the bias over the scale of the input.
        assert_eq!([scale(2), scale(3)], [8.0 / 134_217_728.0; 2]);
        assert_eq!(scale(4), SMALLEST_SCALE);
        assert!(scale(5).is_nan());
        let mut y = [9.0; 12];
        weights(&s, &w, &bias, &mut y);
        assert_eq!(y[..10], [-2.54, y[1], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!((y[1] - 1.0).abs() < 0.01 && y[10].is_nan());
    }

    #[test]
    fn levels_outside_16_bits_are_refused() {
        let good = FakeQuant { len: 1, scale: 1.0, zero: 0, lo: -128, hi: 127 };
        assert_eq!(good.signature().reason(), None);
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(FakeQuant { scale, ..good }.signature().reason(), Some(SCALE));
        }
        let weights = FakeQuantWeights { outer: 1, channels: 1, inner: 1, input_scale: 0.0, largest: 127 };
        assert_eq!(weights.signature().reason(), Some(SCALE));
        for largest in [0, -1, 32768, i32::MIN] {
            let weights = FakeQuantWeights { input_scale: 1.0, largest, ..weights };
            assert_eq!(weights.signature().reason(), Some(RANGE));
        }
        for bad in [FakeQuant { lo: 1, hi: 0, ..good }, FakeQuant { zero: 40_000, ..good }] {
            assert_eq!(bad.signature().reason(), Some(RANGE));
        }
    }
}
