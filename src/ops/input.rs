//! The raw input made int8 for an integer model. The f32 twin is [`normalise`](super::normalise).
//!
//! Both ops compute, per channel, with the raw value in Q12 (`sat32` saturates to 32 bits):
//!
//! ```text
//! acc = sat32(4096 x + offset)
//! q   = floor((acc multiplier + 2^(shift-1)) / 2^shift)      (requantise)
//! ```
//!
//! so `offset` is the negative mean in Q12 and the real factor `multiplier / 2^shift` is
//! `1 / (4096 sigma s)` for standard deviation `sigma` and scale `s` of the output. The multiplier
//! is 0 or in `[2^30, 2^31)` and the shift 16 to 62; the checker proves that no `q` overflows 32 bits.
//! `q = x` exactly where `offset = 0`,
//! `multiplier = 2^30` and `shift = 42`.

use super::{Signature, i8s, i16s, i32s, operand};
use crate::arch;
use crate::math::fixed::{requantise, saturate_i8};

/// Fractional bits of the raw value.
pub(crate) const RAW_BITS: u32 = 12;

const ZERO: &str = "the zero point of an input leaves int8";

shape! {
    /// `x u8[rows, c], multiplier i32[c], offset i32[c], shift i8[c] -> y i8[rows, c]`, in place on `x`:
    /// `y = clamp(q + zero, -128, 127)`.
    ///
    /// Pixels as they are, `y = x - 128`, is `zero = -128` with the identity above.
    pub struct InputU8 {
        /// Pixels.
        pub rows: usize,
        /// Channels.
        pub c: usize,
        /// Zero point of the output.
        pub zero: i32,
    }
}

impl InputU8 {
    /// Inputs `x, multiplier, offset, shift`; output `y`, in place on `x`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, zero } = *self;
        if zero < -128 || zero > 127 {
            return Signature::invalid(ZERO);
        }
        let x = operand(super::DType::U8, &[rows, c]);
        Signature::new(&[x, i32s(&[c]), i32s(&[c]), i8s(&[c])], &[i8s(&[rows, c])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Pixels from which a table of a channel's values pays.
const MANY: usize = 2 * TABLE;
const TABLE: usize = 256;

/// uint8, whose bits are in `y`, to int8.
pub fn forward_u8(s: &InputU8, multiplier: &[i32], offset: &[i32], shift: &[i8], y: &mut [i8]) {
    let channels = multiplier.iter().zip(offset).zip(shift);
    let q = |y: i8, ((&multiplier, &offset), &shift)| value(i32::from(y as u8), multiplier, offset, shift, s.zero);
    if y.len() < MANY * s.c {
        for y in y.chunks_exact_mut(s.c) {
            y.iter_mut().zip(channels.clone()).for_each(|(y, channel)| *y = q(*y, channel));
        }
        return;
    }
    for (first, channel) in channels.enumerate() {
        replace(y.get_mut(first..).unwrap_or_default(), s.c, |y| q(y, channel));
    }
}

/// Replaces every `c`-th value from the first on by its image. Not inlined, so that no other op has the table on its stack.
#[inline(never)]
fn replace(y: &mut [i8], c: usize, image: impl Fn(i8) -> i8) {
    let table: [i8; TABLE] = core::array::from_fn(|i| image(i as u8 as i8 ^ i8::MIN));
    arch::table_of_channel(&table, y, c);
}

shape! {
    /// `x i16[rows, c], multiplier i32[c], offset i32[c], shift i8[c] -> y i8[rows, c]`:
    /// `y = clamp(q + zero, -128, 127)`.
    pub struct InputI16 {
        /// Samples.
        pub rows: usize,
        /// Channels.
        pub c: usize,
        /// Zero point of the output.
        pub zero: i32,
    }
}

impl InputI16 {
    /// Inputs `x, multiplier, offset, shift`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, zero } = *self;
        if zero < -128 || zero > 127 {
            return Signature::invalid(ZERO);
        }
        Signature::new(&[i16s(&[rows, c]), i32s(&[c]), i32s(&[c]), i8s(&[c])], &[i8s(&[rows, c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// int16 to int8.
pub fn forward_i16(s: &InputI16, x: &[i16], multiplier: &[i32], offset: &[i32], shift: &[i8], y: &mut [i8]) {
    for (x, y) in x.chunks_exact(s.c).zip(y.chunks_exact_mut(s.c)) {
        let channels = multiplier.iter().zip(offset).zip(shift);
        for ((y, &x), ((&multiplier, &offset), &shift)) in y.iter_mut().zip(x).zip(channels) {
            *y = value(i32::from(x), multiplier, offset, shift, s.zero);
        }
    }
}

#[inline(always)]
fn value(x: i32, multiplier: i32, offset: i32, shift: i8, zero: i32) -> i8 {
    let acc = (x << RAW_BITS).saturating_add(offset);
    saturate_i8(requantise(acc, multiplier, shift as u32).saturating_add(zero))
}

/// The operands of [`InputU8`] and [`InputI16`].
#[cfg(feature = "std")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Mantissa of the factor per channel.
    pub multiplier: std::vec::Vec<i32>,
    /// Offset per channel, raw units in Q12.
    pub offset: std::vec::Vec<i32>,
    /// Right shift per channel.
    pub shift: std::vec::Vec<i8>,
}

/// Operands of both ops from the mean and standard deviation of each channel, in raw units, and the
/// scale `s` of the output, whose zero point is the field `zero`.
///
/// # Errors
///
/// A mean or standard deviation for which the result, over the whole range of the raw value, would
/// not fit 32 bits: one that is not finite, a deviation that is not positive or far below one raw
/// unit times `s`, a mean far outside the range.
#[cfg(feature = "std")]
pub fn quantise_parameters(mean: &[f32], std: &[f32], s: f64) -> Result<Parameters, crate::error::HostError> {
    use crate::error::HostError;
    use crate::math::fixed::Multiplier;
    use std::format;
    use std::vec::Vec;

    let unit = f64::from(1u32 << RAW_BITS);
    if mean.len() != std.len() {
        return Err(HostError::new(
            "input",
            format!("{} means and {} standard deviations", mean.len(), std.len()),
            "give one of each per channel",
        ));
    }
    let mut p = Parameters { multiplier: Vec::new(), offset: Vec::new(), shift: Vec::new() };
    for (channel, (&mean, &std)) in mean.iter().zip(std).enumerate() {
        let (mean, step) = (f64::from(mean), f64::from(std) * s);
        let offset = (-mean * unit + 0.5).floor();
        let largest = 32768.0 * unit + offset.abs();
        // Written so that NaN fails. The checker wants room for rounding and the zero point.
        let fits = step > 0.0
            && step.is_finite()
            && largest < 2_147_483_648.0
            && largest / (unit * step) < 2_147_483_648.0 - 512.0;
        let multiplier = Multiplier::from_f64(1.0 / (unit * step)).filter(|_| fits);
        let Some(Multiplier { value, shift }) = multiplier else {
            return Err(HostError::new(
                format!("input channel {channel}"),
                format!("mean {mean} and standard deviation {std} at output scale {s} do not fit the integer input"),
                "give mean and standard deviation in the units of the raw values",
            ));
        };
        p.multiplier.push(value);
        p.offset.push(offset as i32);
        p.shift.push(shift as i8);
    }
    Ok(p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::ints;

    #[test]
    fn is_exactly_the_formula() {
        let (multiplier, offset, shift) = ([0, 1 << 30, i32::MAX], [5, -1_000_000, i32::MIN], [16i8, 40, 45]);
        let q = |x: i32, i: usize| {
            let acc = (4096 * i64::from(x) + i64::from(offset[i])).clamp(i32::MIN.into(), i32::MAX.into());
            (i128::from(acc) * i128::from(multiplier[i]) + (1 << (shift[i] - 1))) >> shift[i]
        };
        // Few pixels and many, which are looked up.
        for (rows, first, c) in [(40, 0, 3), (MANY - 1, 0, 2), (MANY, 0, 3), (MANY + 5, 1, 1), (1000, 2, 1)] {
            let x: Vec<u8> = ints::<i8>("x", rows * c).iter().map(|&x| x as u8).collect();
            let s = InputU8 { rows, c, zero: -128 };
            let mut y: Vec<i8> = x.iter().map(|&x| x as i8).collect();
            let channels = first..first + c;
            forward_u8(&s, &multiplier[channels.clone()], &offset[channels.clone()], &shift[channels], &mut y);
            for (i, (&x, &y)) in x.iter().zip(&y).enumerate() {
                assert_eq!(i128::from(y), (q(x.into(), first + i % c) - 128).clamp(-128, 127));
            }
        }
        let (rows, c) = (40, 3);
        let mut y = vec![0; rows * c];
        let x = ints::<i16>("x", rows * c);
        forward_i16(&InputI16 { rows, c, zero: 0 }, &x, &multiplier, &offset, &shift, &mut y);
        for (i, (&x, &y)) in x.iter().zip(&y).enumerate() {
            assert_eq!(i128::from(y), q(x.into(), i % c).clamp(-128, 127));
        }
        assert!(InputU8 { rows, c, zero: 128 }.signature().reason().is_some());
    }

    #[cfg(feature = "std")]
    #[test]
    fn pixels_minus_128_are_exact() {
        let p = quantise_parameters(&[0.0], &[1.0], 1.0).unwrap();
        assert_eq!(p, Parameters { multiplier: vec![1 << 30], offset: vec![0], shift: vec![42] });
        let mut y: Vec<i8> = (0..=255u8).map(|x| x as i8).collect();
        forward_u8(&InputU8 { rows: 256, c: 1, zero: -128 }, &p.multiplier, &p.offset, &p.shift, &mut y);
        assert_eq!(y, (-128..=127).collect::<Vec<i8>>());
    }

    #[cfg(feature = "std")]
    #[test]
    fn parameters_give_the_normalised_value() {
        let (mean, std) = ([123.675, 116.28, 0.5], [58.395, 57.12, 0.25]);
        let (s, zero) = (0.02, -3);
        let p = quantise_parameters(&mean, &std, s).unwrap();
        let (rows, c) = (256, 3);
        let x: Vec<u8> = (0..rows * c).map(|i| (i / c) as u8).collect();
        let mut y: Vec<i8> = x.iter().map(|&x| x as i8).collect();
        forward_u8(&InputU8 { rows, c, zero }, &p.multiplier, &p.offset, &p.shift, &mut y);
        for (i, (&x, &y)) in x.iter().zip(&y).enumerate() {
            let real = (f64::from(x) - f64::from(mean[i % c])) / (f64::from(std[i % c]) * s) + f64::from(zero);
            assert!((f64::from(y) - real.clamp(-128.0, 127.0)).abs() < 0.53, "{x}: {y} {real}");
        }

        let (mean, std, zero) = ([-1000.0, 0.0], [9000.0, 300.0], 17);
        let p = quantise_parameters(&mean, &std, s).unwrap();
        let x = ints::<i16>("x", 1000);
        let mut y = vec![0; 1000];
        forward_i16(&InputI16 { rows: 500, c: 2, zero }, &x, &p.multiplier, &p.offset, &p.shift, &mut y);
        for (i, (&x, &y)) in x.iter().zip(&y).enumerate() {
            let real = (f64::from(x) - f64::from(mean[i % 2])) / (f64::from(std[i % 2]) * s) + f64::from(zero);
            assert!((f64::from(y) - real.clamp(-128.0, 127.0)).abs() < 0.501, "{x}: {y} {real}");
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn statistics_that_do_not_fit_are_refused() {
        assert!(quantise_parameters(&[0.0], &[1.0, 1.0], 1.0).is_err());
        for (mean, std, s) in [
            (0.0, 0.0, 1.0),
            (0.0, -1.0, 1.0),
            (f32::NAN, 1.0, 1.0),
            (0.0, 1.0, f64::NAN),
            (1e9, 1.0, 1.0),
            (0.0, 1e-9, 1.0),
            (0.0, 1.0, f64::INFINITY),
        ] {
            assert!(quantise_parameters(&[mean], &[std], s).is_err(), "{mean} {std} {s}");
        }
    }
}
