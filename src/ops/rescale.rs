//! Integers to another scale.
//!
//! All three compute `q = floor((v multiplier + 2^(shift-1)) / 2^shift)` (fixed point's
//! [`requantise`](crate::math::fixed::requantise)) with one multiplier for the tensor: the real factor is
//! `multiplier / 2^shift = s_in / s_out`, by [`Multiplier`](crate::math::fixed::Multiplier).

use super::{Signature, i8s, i16s};
use crate::arch::{ToI8, rescale_i8_i16, rescale_i16_i8, vectorised};
use crate::math::fixed::{MAX_SHIFT, MIN_SHIFT, Requantise, saturate_i8};

const MULTIPLIER: &str = "the multiplier of a rescale is not 0 or in 2^30 to 2^31 - 1, or its shift not in 16 to 62";
const RANGE: &str = "the zero point or output range of a rescale leaves int8";

const fn is_multiplier(multiplier: i32, shift: i32) -> bool {
    (multiplier == 0 || multiplier >= 1 << 30) && shift >= MIN_SHIFT as i32 && shift <= MAX_SHIFT as i32
}

const fn is_i8(v: i32) -> bool {
    v >= -128 && v <= 127
}

shape! {
    /// `x i16[len] (symmetric) -> y i8[len]`: `y = clamp(q + zero, lo, hi)` with `v = x`.
    pub struct RescaleI16I8 {
        /// Elements.
        pub len: usize,
        /// Mantissa of the factor.
        pub multiplier: i32,
        /// Right shift of the factor.
        pub shift: i32,
        /// Zero point of the output.
        pub zero: i32,
        /// Smallest output.
        pub lo: i32,
        /// Largest output.
        pub hi: i32,
    }
}

impl RescaleI16I8 {
    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { len, multiplier, shift, zero, lo, hi } = *self;
        if !is_multiplier(multiplier, shift) {
            return Signature::invalid(MULTIPLIER);
        }
        if !is_i8(zero) || !is_i8(lo) || !is_i8(hi) || lo > hi {
            return Signature::invalid(RANGE);
        }
        Signature::new(&[i16s(&[len])], &[i8s(&[len])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// int16 to int8.
pub fn i16_to_i8(s: &RescaleI16I8, x: &[i16], y: &mut [i8]) {
    let RescaleI16I8 { multiplier, zero, lo, hi, .. } = *s;
    rescale_i16_i8(Requantise::new(multiplier, s.shift as u32), x, ToI8 { zero, lo, hi }, y);
}

shape! {
    /// `x i8[len] -> y i16[len] (symmetric)`: `y = clamp(q, -32768, 32767)` with `v = x - zero_in`.
    pub struct RescaleI8I16 {
        /// Elements.
        pub len: usize,
        /// Mantissa of the factor.
        pub multiplier: i32,
        /// Right shift of the factor.
        pub shift: i32,
        /// Zero point of the input.
        pub zero_in: i32,
    }
}

impl RescaleI8I16 {
    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { len, multiplier, shift, zero_in } = *self;
        if !is_multiplier(multiplier, shift) {
            return Signature::invalid(MULTIPLIER);
        }
        if !is_i8(zero_in) {
            return Signature::invalid(RANGE);
        }
        Signature::new(&[i8s(&[len])], &[i16s(&[len])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// int8 to int16.
pub fn i8_to_i16(s: &RescaleI8I16, x: &[i8], y: &mut [i16]) {
    rescale_i8_i16(Requantise::new(s.multiplier, s.shift as u32), s.zero_in, x, y);
}

shape! {
    /// `x i8[len] -> y i8[len]`, in place: `y = clamp(q + zero, lo, hi)` with `v = x - zero_in`.
    pub struct RescaleI8 {
        /// Elements.
        pub len: usize,
        /// Mantissa of the factor.
        pub multiplier: i32,
        /// Right shift of the factor.
        pub shift: i32,
        /// Zero point of the input.
        pub zero_in: i32,
        /// Zero point of the output.
        pub zero: i32,
        /// Smallest output.
        pub lo: i32,
        /// Largest output.
        pub hi: i32,
    }
}

impl RescaleI8 {
    /// Input `x`; output `y`, in place.
    pub const fn signature(&self) -> Signature {
        let Self { len, multiplier, shift, zero_in, zero, lo, hi } = *self;
        if !is_multiplier(multiplier, shift) {
            return Signature::invalid(MULTIPLIER);
        }
        if !is_i8(zero_in) || !is_i8(zero) || !is_i8(lo) || !is_i8(hi) || lo > hi {
            return Signature::invalid(RANGE);
        }
        Signature::new(&[i8s(&[len])], &[i8s(&[len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// int8 to int8.
pub fn i8_to_i8(s: &RescaleI8, y: &mut [i8]) {
    let RescaleI8 { multiplier, zero_in, zero, lo, hi, .. } = *s;
    let scale = Requantise::new(multiplier, s.shift as u32);
    vectorised(
        #[inline(always)]
        move || {
            for y in y {
                let q = scale.apply(i32::from(*y) - zero_in);
                *y = saturate_i8((q + zero).max(lo).min(hi));
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::fixed::Multiplier;
    use crate::ops::testing::ints;

    #[test]
    fn every_value_is_rounded_once() {
        let (all8, x16) = ((-128..=127).collect::<Vec<i8>>(), ints::<i16>("x", 999));
        let mut x16 = x16;
        (x16[0], x16[1]) = (i16::MIN, i16::MAX);
        for factor in [0.0, 1e-7, 0.003, 0.5, 1.0, 1.7, 300.0, 32767.9] {
            let m = Multiplier::from_f64(factor).unwrap();
            let (multiplier, shift) = (m.value, m.shift as i32);
            let q = |v: i32| (i128::from(v) * i128::from(multiplier) + (1 << (shift - 1))) >> shift;

            let s = RescaleI16I8 { len: 999, multiplier, shift, zero: -9, lo: -120, hi: 99 };
            assert_eq!(s.signature().reason(), None);
            let mut y = vec![0; 999];
            i16_to_i8(&s, &x16, &mut y);
            for (&x, &y) in x16.iter().zip(&y) {
                assert_eq!(i128::from(y), (q(x.into()) - 9).clamp(-120, 99));
            }

            let s = RescaleI8I16 { len: 256, multiplier, shift, zero_in: 127 };
            assert_eq!(s.signature().reason(), None);
            let mut y = vec![0; 256];
            i8_to_i16(&s, &all8, &mut y);
            for (&x, &y) in all8.iter().zip(&y) {
                assert_eq!(i128::from(y), q(i32::from(x) - 127).clamp(-32768, 32767));
            }

            let s = RescaleI8 { len: 256, multiplier, shift, zero_in: -128, zero: 5, lo: -128, hi: 127 };
            assert_eq!(s.signature().reason(), None);
            let mut y = all8.clone();
            i8_to_i8(&s, &mut y);
            for (&x, &y) in all8.iter().zip(&y) {
                assert_eq!(i128::from(y), (q(i32::from(x) + 128) + 5).clamp(-128, 127));
            }
        }
    }

    #[test]
    fn parameters_outside_the_proof_are_refused() {
        let good = RescaleI8 { len: 1, multiplier: 1 << 30, shift: 30, zero_in: 0, zero: 0, lo: -128, hi: 127 };
        assert_eq!(good.signature().reason(), None);
        for (bad, why) in [
            (RescaleI8 { multiplier: -(1 << 30), ..good }, MULTIPLIER),
            (RescaleI8 { multiplier: 1, ..good }, MULTIPLIER),
            (RescaleI8 { shift: 15, ..good }, MULTIPLIER),
            (RescaleI8 { shift: 63, ..good }, MULTIPLIER),
            (RescaleI8 { zero_in: 128, ..good }, RANGE),
            (RescaleI8 { zero: i32::MIN, ..good }, RANGE),
            (RescaleI8 { lo: 1, hi: 0, ..good }, RANGE),
        ] {
            assert_eq!(bad.signature().reason(), Some(why), "{bad:?}");
        }
    }
}
