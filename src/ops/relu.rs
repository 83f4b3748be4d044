//! `max(x, 0)`. In integers a ReLU is the lower bound of the op before it.

use super::{Signature, f32s};

shape! {
    /// `x[len] -> y[len]`, in place.
    pub struct Relu {
        /// Elements.
        pub len: usize,
    }
}

impl Relu {
    /// Input `x`; output `y`, in place.
    pub const fn signature(&self) -> Signature {
        Signature::new(&[f32s(&[self.len])], &[f32s(&[self.len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `y = max(x, 0)`; NaN stays NaN.
pub fn forward(_: &Relu, y: &mut [f32]) {
    for y in y {
        *y = if *y < 0.0 { 0.0 } else { *y };
    }
}

shape! {
    /// Backward of [`Relu`] from its output: `dy[len], y[len] -> dx[len]`, in place on `dy`.
    pub struct ReluGrad {
        /// Elements.
        pub len: usize,
    }
}

impl ReluGrad {
    /// Inputs `dy, y`; output `dx`, in place on `dy`.
    pub const fn signature(&self) -> Signature {
        let one = f32s(&[self.len]);
        Signature::new(&[one, one], &[one]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `dx = dy` where `y > 0`, else 0.
pub fn backward(_: &ReluGrad, y: &[f32], dx: &mut [f32]) {
    for (dx, &y) in dx.iter_mut().zip(y) {
        *dx = if y > 0.0 { *dx } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, reals};

    #[test]
    fn forward_and_backward_match_the_reference() {
        for len in [1, 7, 64] {
            let x = reals("x", len);
            let mut y = x.f32();
            forward(&Relu { len }, &mut y);
            let want: Vec<f32> = x.f32().iter().map(|x| x.max(0.0)).collect();
            assert_eq!(y, want);
            check_gradients(
                &[x],
                len,
                |t| t[0].iter().map(|x| x.max(0.0)).collect(),
                |dy| {
                    let mut dx = dy.to_vec();
                    backward(&ReluGrad { len }, &y, &mut dx);
                    vec![dx]
                },
            );
        }
    }

    #[test]
    fn special_values() {
        let mut y = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
        forward(&Relu { len: 4 }, &mut y);
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [f32::INFINITY, 0.0, 0.0]);
    }
}
