//! GELU, `x Phi(x)` (Hendrycks and Gimpel 2016), in its two forms. The official SOFT code uses the
//! tanh form in the MLPs of stages 1 to 3, the exact form at the landmarks and in stage 4. In integers
//! a GELU is a [`table`](super::table).

use super::{Signature, f32s};
use crate::arch::vectorised_wide;
use crate::math::float;

/// 2 sqrt(2 / pi): the tanh form is `x sigmoid(2u)` with `u = sqrt(2/pi) (x + 0.044715 x^3)`.
const TWICE_SQRT_2_PI: f32 = 1.595_769_2;
const CUBIC: f32 = 0.044_715;

/// The tanh form of one number, in f64: for tables, and what the vectorised form is tested against.
pub fn tanh_of(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::tanh(libm::sqrt(2.0 / core::f64::consts::PI) * (x + 0.044_715 * x * x * x)))
}

/// The exact form of one number, in f64: for tables, and what the vectorised form is tested against.
pub fn erf_of(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * core::f64::consts::FRAC_1_SQRT_2))
}

shape! {
    /// The tanh form: `x[len] -> y[len]`, in place.
    pub struct GeluTanh {
        /// Elements.
        pub len: usize,
    }
}

impl GeluTanh {
    /// Input `x`; output `y`, in place.
    pub const fn signature(&self) -> Signature {
        Signature::new(&[f32s(&[self.len])], &[f32s(&[self.len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `sigmoid(2u) = (1 + tanh u) / 2`: one exponential, and exact in the tails where `1 + tanh` cancels.
#[inline(always)]
fn gate(x: f32) -> f32 {
    1.0 / (1.0 + float::exp(-TWICE_SQRT_2_PI * x * (1.0 + CUBIC * x * x)))
}

/// `y = x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`.
pub fn tanh(_: &GeluTanh, y: &mut [f32]) {
    vectorised_wide(
        #[inline(always)]
        move || {
            for y in y {
                *y *= gate(*y);
            }
        },
    );
}

shape! {
    /// Backward of [`GeluTanh`]: `dy[len], x[len] -> dx[len]`, in place on `dy`.
    pub struct GeluTanhGrad {
        /// Elements.
        pub len: usize,
    }
}

impl GeluTanhGrad {
    /// Inputs `dy, x`; output `dx`, in place on `dy`.
    pub const fn signature(&self) -> Signature {
        let one = f32s(&[self.len]);
        Signature::new(&[one, one], &[one]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `dx = dy (s + x s (1 - s) 2u')` with `s = sigmoid(2u)`.
pub fn tanh_grad(_: &GeluTanhGrad, x: &[f32], dx: &mut [f32]) {
    vectorised_wide(
        #[inline(always)]
        move || {
            for (dx, &x) in dx.iter_mut().zip(x) {
                let s = gate(x);
                *dx *= s + x * s * (1.0 - s) * (TWICE_SQRT_2_PI * (1.0 + 3.0 * CUBIC * x * x));
            }
        },
    );
}

shape! {
    /// The exact form: `x[len] -> y[len]`, in place.
    pub struct GeluErf {
        /// Elements.
        pub len: usize,
    }
}

impl GeluErf {
    /// Input `x`; output `y`, in place.
    pub const fn signature(&self) -> Signature {
        Signature::new(&[f32s(&[self.len])], &[f32s(&[self.len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// The normal distribution function.
#[inline(always)]
fn phi(x: f32) -> f32 {
    0.5 * (1.0 + float::erf(core::f32::consts::FRAC_1_SQRT_2 * x))
}

/// `y = x (1 + erf(x / sqrt 2)) / 2`.
pub fn erf(_: &GeluErf, y: &mut [f32]) {
    vectorised_wide(
        #[inline(always)]
        move || {
            for y in y {
                *y *= phi(*y);
            }
        },
    );
}

shape! {
    /// Backward of [`GeluErf`]: `dy[len], x[len] -> dx[len]`, in place on `dy`.
    pub struct GeluErfGrad {
        /// Elements.
        pub len: usize,
    }
}

impl GeluErfGrad {
    /// Inputs `dy, x`; output `dx`, in place on `dy`.
    pub const fn signature(&self) -> Signature {
        let one = f32s(&[self.len]);
        Signature::new(&[one, one], &[one]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `dx = dy (Phi(x) + x exp(-x^2/2) / sqrt(2 pi))`.
pub fn erf_grad(_: &GeluErfGrad, x: &[f32], dx: &mut [f32]) {
    const INV_SQRT_2_PI: f32 = 0.398_942_3;
    vectorised_wide(
        #[inline(always)]
        move || {
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx *= phi(x) + x * (INV_SQRT_2_PI * float::exp(-0.5 * x * x));
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, reals};

    fn check(
        reference: fn(f64) -> f64,
        forward: impl Fn(&mut [f32]),
        backward: impl Fn(&[f32], &mut [f32]),
        len: usize,
    ) {
        let x = reals("x", len).map(|x| 6.0 * x);
        let mut y = x.f32();
        forward(&mut y);
        for (&x, &y) in x.f64().iter().zip(&y) {
            // Two roundings of a result near x, plus what the exponential and the polynomials add.
            assert!((f64::from(y) - reference(x)).abs() < 2e-7 * x.abs().max(1.0), "{x}: {y}");
        }
        let x32 = x.f32();
        check_gradients(
            &[x],
            len,
            |t| t[0].iter().map(|&x| reference(x)).collect(),
            |dy| {
                let mut dx = dy.to_vec();
                backward(&x32, &mut dx);
                vec![dx]
            },
        );
    }

    #[test]
    fn forward_and_backward_match_the_reference() {
        for len in [1, 13, 500] {
            check(tanh_of, |y| tanh(&GeluTanh { len }, y), |x, dx| tanh_grad(&GeluTanhGrad { len }, x, dx), len);
            check(erf_of, |y| erf(&GeluErf { len }, y), |x, dx| erf_grad(&GeluErfGrad { len }, x, dx), len);
        }
    }

    #[test]
    fn large_arguments_stay_finite() {
        let x = [-1e12, -50.0, 50.0, 1e12];
        let (mut y, mut dx) = (x, [1.0; 4]);
        tanh(&GeluTanh { len: 4 }, &mut y);
        tanh_grad(&GeluTanhGrad { len: 4 }, &x, &mut dx);
        assert_eq!((y, dx), ([0.0, 0.0, 50.0, 1e12], [0.0, 0.0, 1.0, 1.0]));
        let (mut y, mut dx) = (x, [1.0; 4]);
        erf(&GeluErf { len: 4 }, &mut y);
        erf_grad(&GeluErfGrad { len: 4 }, &x, &mut dx);
        assert_eq!((y, dx), ([0.0, 0.0, 50.0, 1e12], [0.0, 0.0, 1.0, 1.0]));
    }
}
