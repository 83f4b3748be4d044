//! Sums: residual connections, position embeddings.

use super::{Signature, f32s, i8s, i16s};
use crate::arch::{Sum, add_i8, add_i16_i8, vectorised};
use crate::math::fixed::{round_shift_i32, saturate_i8, saturate_i16};

shape! {
    /// `a[len], b[len] -> y[len]`, in place on `a`. The gradients of both are `dy` itself.
    pub struct Add {
        /// Elements.
        pub len: usize,
    }
}

impl Add {
    /// Inputs `a, b`; output `y`, in place on `a`.
    pub const fn signature(&self) -> Signature {
        let one = f32s(&[self.len]);
        Signature::new(&[one, one], &[one]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `y = a + b`.
pub fn forward(_: &Add, b: &[f32], y: &mut [f32]) {
    for (y, b) in y.iter_mut().zip(b) {
        *y += b;
    }
}

shape! {
    /// The same addend for every image: `x[batch, len], p[len] -> y[batch, len]`, in place on `x`.
    pub struct AddBroadcast {
        /// Images.
        pub batch: usize,
        /// Elements per image.
        pub len: usize,
    }
}

impl AddBroadcast {
    /// Inputs `x, p`; output `y`, in place on `x`.
    pub const fn signature(&self) -> Signature {
        let Self { batch, len } = *self;
        Signature::new(&[f32s(&[batch, len]), f32s(&[len])], &[f32s(&[batch, len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `y = x + p` for each image.
pub fn broadcast(s: &AddBroadcast, p: &[f32], y: &mut [f32]) {
    for y in y.chunks_exact_mut(s.len) {
        for (y, p) in y.iter_mut().zip(p) {
            *y += p;
        }
    }
}

shape! {
    /// Backward of [`AddBroadcast`]: `dy[batch, len] -> dp[len]`; the gradient of `x` is `dy` itself.
    pub struct AddBroadcastGrad {
        /// Images.
        pub batch: usize,
        /// Elements per image.
        pub len: usize,
    }
}

impl AddBroadcastGrad {
    /// Input `dy`; output `dp`.
    pub const fn signature(&self) -> Signature {
        let Self { batch, len } = *self;
        Signature::new(&[f32s(&[batch, len])], &[f32s(&[len])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `dp` = the sum of `dy` over the batch; overwrites it.
pub fn broadcast_grad(s: &AddBroadcastGrad, dy: &[f32], dp: &mut [f32]) {
    dp.fill(0.0);
    for dy in dy.chunks_exact(s.len) {
        for (sum, g) in dp.iter_mut().zip(dy) {
            *sum += g;
        }
    }
}

const OVERFLOW: &str = "the factors of an integer add could overflow 32 bits";

/// Whether `shift` is 0 to 30 and `largest + 2^(shift-1)` fits 32 bits.
const fn fits(largest: i64, shift: i32) -> bool {
    shift >= 0 && shift <= 30 && largest + ((1 << shift) >> 1) < 1 << 31
}

const fn magnitude(v: i32) -> i64 {
    v.unsigned_abs() as i64
}

/// The shape `at(ma, mb, shift)` with the largest shift that its signature admits, for
/// `ma / 2^shift` nearest to `s_a / s_out` and `mb / 2^shift` to `s_b / s_out`.
fn finest<T>(s_a: f64, s_b: f64, s_out: f64, at: impl Fn(i32, i32, i32) -> T, ok: impl Fn(&T) -> bool) -> Option<T> {
    let factors = [s_a / s_out, s_b / s_out];
    if !factors.iter().all(|f| *f > 0.0 && f.is_finite()) {
        return None;
    }
    // A factor that does not fit saturates, and its shape is refused.
    let [ma, mb] = factors.map(|f| move |shift: i32| libm::floor(libm::ldexp(f, shift) + 0.5) as i32);
    (0..=30).rev().map(|shift| at(ma(shift), mb(shift), shift)).find(ok)
}

shape! {
    /// Residual sum in int16 (symmetric): `a i16[len], b i16[len] -> y i16[len]`, in place on `a`.
    ///
    /// `y = clamp(floor((a ma + b mb + 2^(shift-1)) / 2^shift), -32768, 32767)`; with `shift = 0`
    /// nothing is added before the shift. The signature is invalid unless
    /// `32768 (|ma| + |mb|) + 2^(shift-1) < 2^31` and `shift` is 0 to 30, so that no value of `a` and `b` overflows.
    pub struct AddI16 {
        /// Elements.
        pub len: usize,
        /// Factor of `a`.
        pub ma: i32,
        /// Factor of `b`.
        pub mb: i32,
        /// Right shift.
        pub shift: i32,
    }
}

impl AddI16 {
    /// The finest factors from the scales of `a`, `b` and `y`; `None` unless all are positive and
    /// `s_a / s_out + s_b / s_out` is below 65535. Used by exporters, never on a device.
    pub fn from_scales(len: usize, s_a: f64, s_b: f64, s_out: f64) -> Option<Self> {
        finest(s_a, s_b, s_out, |ma, mb, shift| Self { len, ma, mb, shift }, |s| s.signature().reason().is_none())
    }

    /// Inputs `a, b`; output `y`, in place on `a`.
    pub const fn signature(&self) -> Signature {
        if !fits((magnitude(self.ma) + magnitude(self.mb)) * 32768, self.shift) {
            return Signature::invalid(OVERFLOW);
        }
        let one = i16s(&[self.len]);
        Signature::new(&[one, one], &[one]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Integer sum of two int16.
pub fn forward_i16(s: &AddI16, b: &[i16], y: &mut [i16]) {
    let AddI16 { ma, mb, shift, .. } = *s;
    vectorised(
        #[inline(always)]
        move || {
            for (y, &b) in y.iter_mut().zip(b) {
                *y = saturate_i16(round_shift_i32(i32::from(*y) * ma + i32::from(b) * mb, shift as u32));
            }
        },
    );
}

shape! {
    /// Residual sum of int16 and int8 (both symmetric): `a i16[len], b i8[len] -> y i16[len]`, in place on `a`.
    ///
    /// The formula of [`AddI16`]. The signature is invalid unless
    /// `32768 |ma| + 128 |mb| + 2^(shift-1) < 2^31` and `shift` is 0 to 30.
    pub struct AddI16I8 {
        /// Elements.
        pub len: usize,
        /// Factor of `a`.
        pub ma: i32,
        /// Factor of `b`.
        pub mb: i32,
        /// Right shift.
        pub shift: i32,
    }
}

impl AddI16I8 {
    /// The finest factors from the scales of `a`, `b` and `y`; `None` unless all are positive and
    /// `s_a / s_out + s_b / s_out / 256` is below 65535. Used by exporters, never on a device.
    pub fn from_scales(len: usize, s_a: f64, s_b: f64, s_out: f64) -> Option<Self> {
        finest(s_a, s_b, s_out, |ma, mb, shift| Self { len, ma, mb, shift }, |s| s.signature().reason().is_none())
    }

    /// Inputs `a, b`; output `y`, in place on `a`.
    pub const fn signature(&self) -> Signature {
        if !fits(magnitude(self.ma) * 32768 + magnitude(self.mb) * 128, self.shift) {
            return Signature::invalid(OVERFLOW);
        }
        let len = self.len;
        Signature::new(&[i16s(&[len]), i8s(&[len])], &[i16s(&[len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Integer sum of int16 and int8.
pub fn forward_i16_i8(s: &AddI16I8, b: &[i8], y: &mut [i16]) {
    let AddI16I8 { ma, mb, shift, .. } = *s;
    let sum = Sum { ma, mb, offset: 0, shift, lo: i16::MIN.into(), hi: i16::MAX.into() };
    add_i16_i8(
        sum,
        b,
        y,
        #[inline(always)]
        |b, y| {
            for (y, &b) in y.iter_mut().zip(b) {
                *y = saturate_i16(round_shift_i32(i32::from(*y) * ma + i32::from(b) * mb, shift as u32));
            }
        },
    );
}

shape! {
    /// Sum of two int8: `a i8[len], b i8[len] -> y i8[len]`, in place on `a`.
    ///
    /// `y = clamp(floor((a ma + b mb + offset + 2^(shift-1)) / 2^shift), lo, hi)`; with `shift = 0`
    /// no half is added. All zero points are in `offset = zero_out 2^shift - zero_a ma - zero_b mb`.
    /// The signature is invalid unless `128 (|ma| + |mb|) + |offset| + 2^(shift-1) < 2^31`, `shift` is
    /// 0 to 30 and `-128 <= lo <= hi <= 127`.
    pub struct AddI8 {
        /// Elements.
        pub len: usize,
        /// Factor of `a`.
        pub ma: i32,
        /// Factor of `b`.
        pub mb: i32,
        /// The zero points.
        pub offset: i32,
        /// Right shift.
        pub shift: i32,
        /// Smallest output.
        pub lo: i32,
        /// Largest output.
        pub hi: i32,
    }
}

impl AddI8 {
    /// The finest factors from scale and zero point of `a`, `b` and `y`, with the whole range of
    /// int8 as output; `None` unless all scales are positive and the sum in units of `y` stays below
    /// 2^31. Used by exporters, never on a device.
    pub fn from_scales(len: usize, a: (f64, i8), b: (f64, i8), y: (f64, i8)) -> Option<Self> {
        let zero = |of: (f64, i8)| i64::from(of.1);
        let at = |ma: i32, mb: i32, shift: i32| {
            let offset = (zero(y) << shift) - zero(a) * i64::from(ma) - zero(b) * i64::from(mb);
            // What leaves 32 bits is refused with its factors.
            let offset = offset.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            Self { len, ma, mb, offset, shift, lo: -128, hi: 127 }
        };
        finest(a.0, b.0, y.0, at, |s| s.signature().reason().is_none())
    }

    /// Inputs `a, b`; output `y`, in place on `a`.
    pub const fn signature(&self) -> Signature {
        let Self { len, ma, mb, offset, shift, lo, hi } = *self;
        if !fits((magnitude(ma) + magnitude(mb)) * 128 + magnitude(offset), shift) {
            return Signature::invalid(OVERFLOW);
        }
        if lo < -128 || hi > 127 || lo > hi {
            return Signature::invalid("the output range of an int8 add leaves int8");
        }
        let one = i8s(&[len]);
        Signature::new(&[one, one], &[one]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Integer sum of two int8.
pub fn forward_i8(s: &AddI8, b: &[i8], y: &mut [i8]) {
    let AddI8 { ma, mb, offset, shift, lo, hi, .. } = *s;
    add_i8(
        Sum { ma, mb, offset, shift, lo, hi },
        b,
        y,
        #[inline(always)]
        |b, y| {
            for (y, &b) in y.iter_mut().zip(b) {
                let q = round_shift_i32(i32::from(*y) * ma + i32::from(b) * mb + offset, shift as u32);
                *y = saturate_i8(q.max(lo).min(hi));
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, ints, reals};

    #[test]
    fn sums_match_the_reference() {
        for (batch, len) in [(1, 1), (3, 7), (2, 64)] {
            let inputs = [reals("x", batch * len), reals("p", len)];
            let [x, p] = inputs.each_ref().map(|v| v.f32());
            let reference = |t: &[Vec<f64>]| (0..batch * len).map(|i| t[0][i] + t[1][i % len]).collect::<Vec<_>>();
            let mut y = x.clone();
            broadcast(&AddBroadcast { batch, len }, &p, &mut y);
            assert_close("y", &y, &reference(&inputs.each_ref().map(|v| v.f64())), 1e-7);
            check_gradients(&inputs, batch * len, reference, |dy| {
                let mut dp = vec![9.0; len];
                broadcast_grad(&AddBroadcastGrad { batch, len }, dy, &mut dp);
                vec![dy.to_vec(), dp]
            });

            let mut y = x.clone();
            forward(&Add { len: batch * len }, &x, &mut y);
            assert_eq!(y, x.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
        }
    }

    fn exact(a: i64, ma: i32, b: i64, mb: i32, offset: i32, shift: i32) -> i64 {
        let sum = a * i64::from(ma) + b * i64::from(mb) + i64::from(offset);
        if shift == 0 { sum } else { (sum + (1 << (shift - 1))) >> shift }
    }

    #[test]
    fn integer_sums_are_exact_at_the_ends_of_their_range() {
        let len = 1000;
        let (mut a, mut b) = (ints::<i16>("a", len), ints::<i16>("b", len));
        (a[0], b[0], a[1], b[1], a[2], b[2]) = (-32768, -32768, 32767, 32767, -32768, 32767);
        for (ma, mb, shift) in [(1, 1, 0), (3, -5, 1), (40_000, 25_535, 15), (-65_535, 0, 15), (16_384, 16_384, 30)] {
            let s = AddI16 { len, ma, mb, shift };
            assert_eq!(s.signature().reason(), None, "{s:?}");
            let mut y = a.clone();
            forward_i16(&s, &b, &mut y);
            for i in 0..len {
                let q = exact(a[i].into(), ma, b[i].into(), mb, 0, shift);
                assert_eq!(i64::from(y[i]), q.clamp(-32768, 32767));
            }
        }
        let b8: Vec<i8> = b.iter().map(|b| (b >> 8) as i8).collect();
        for (ma, mb, shift) in [(1, 256, 0), (32_767, 8_388_735, 15), (0, -16_777_215, 7)] {
            let s = AddI16I8 { len, ma, mb, shift };
            assert_eq!(s.signature().reason(), None, "{s:?}");
            let mut y = a.clone();
            forward_i16_i8(&s, &b8, &mut y);
            for i in 0..len {
                let q = exact(a[i].into(), ma, b8[i].into(), mb, 0, shift);
                assert_eq!(i64::from(y[i]), q.clamp(-32768, 32767));
            }
        }
        let a8: Vec<i8> = a.iter().map(|a| (a >> 8) as i8).collect();
        for (ma, mb, offset, shift) in [(1, 1, -3, 0), (4_000_000, -4_000_000, 1 << 30, 24), (1, 1, i32::MAX - 256, 0)]
        {
            let s = AddI8 { len, ma, mb, offset, shift, lo: -20, hi: 100 };
            assert_eq!(s.signature().reason(), None, "{s:?}");
            let mut y = a8.clone();
            forward_i8(&s, &b8, &mut y);
            for i in 0..len {
                let q = exact(a8[i].into(), ma, b8[i].into(), mb, offset, shift);
                assert_eq!(i64::from(y[i]), q.clamp(-20, 100));
            }
        }
    }

    #[test]
    fn factors_that_could_overflow_are_refused() {
        let sum = |ma, mb, shift| AddI16 { len: 1, ma, mb, shift }.signature().reason();
        assert_eq!(sum(32_768, 32_768, 0), Some(OVERFLOW));
        assert_eq!(sum(65_535, 0, 17), Some(OVERFLOW));
        assert_eq!(sum(i32::MIN, i32::MIN, 0), Some(OVERFLOW));
        assert_eq!(sum(1, 1, 31), Some(OVERFLOW));
        assert_eq!(sum(1, 1, -1), Some(OVERFLOW));
        assert_eq!(AddI16I8 { len: 1, ma: 0, mb: 1 << 24, shift: 0 }.signature().reason(), Some(OVERFLOW));
        let s = AddI8 { len: 1, ma: 1, mb: 1, offset: 0, shift: 1, lo: -128, hi: 127 };
        assert_eq!(s.signature().reason(), None);
        assert_eq!(AddI8 { offset: i32::MIN, ..s }.signature().reason(), Some(OVERFLOW));
        assert!(AddI8 { hi: 128, ..s }.signature().reason().is_some());
    }

    #[test]
    fn scales_give_the_real_sum() {
        let len = 500;
        let (a, b) = (ints::<i16>("a", len), ints::<i16>("b", len));
        for (s_a, s_b, s_out) in [(1e-3, 1e-3, 2e-3), (1e-3, 3e-5, 1.1e-3), (0.7, 0.2, 1.0), (2e-3, 1e-3, 4e-3)] {
            let s = AddI16::from_scales(len, s_a, s_b, s_out).unwrap();
            let mut y = a.clone();
            forward_i16(&s, &b, &mut y);
            for i in 0..len {
                let real = (f64::from(a[i]) * s_a + f64::from(b[i]) * s_b) / s_out;
                assert!((f64::from(y[i]) - real).abs() <= 1.6, "{s:?}: {} {real}", y[i]);
            }
            let (a8, b8) = ((a[0] >> 8) as i8, b.iter().map(|b| (b >> 8) as i8).collect::<Vec<_>>());
            let s_wide = s_b * 256.0;
            let s = AddI16I8::from_scales(len, s_a, s_wide, s_out).unwrap();
            let mut y = a.clone();
            forward_i16_i8(&s, &b8, &mut y);
            for i in 0..len {
                let real = (f64::from(a[i]) * s_a + f64::from(b8[i]) * s_wide) / s_out;
                assert!((f64::from(y[i]) - real).abs() <= 1.6, "{s:?}: {} {real}", y[i]);
            }
            let (za, zb, zy) = (-12, 100, 7);
            let s = AddI8::from_scales(len, (s_a, za), (s_b, zb), (s_out, zy)).unwrap();
            let mut y = vec![a8; len];
            forward_i8(&s, &b8, &mut y);
            for i in 0..len {
                let real = (f64::from(a8 - za) * s_a + (f64::from(b8[i]) - f64::from(zb)) * s_b) / s_out;
                assert!((f64::from(y[i]) - (real + f64::from(zy)).clamp(-128.0, 127.0)).abs() <= 0.501, "{s:?}");
            }
        }
        for (s_a, s_b, s_out) in
            [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, f64::NAN), (1e6, 1.0, 1.0), (1.0, 1.0, 0.0)]
        {
            assert_eq!(AddI16::from_scales(1, s_a, s_b, s_out), None);
        }
        assert_eq!(AddI8::from_scales(1, (1e9, 0), (1.0, 0), (1.0, 0)), None);
    }
}
