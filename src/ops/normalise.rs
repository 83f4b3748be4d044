//! The raw input made ready for an f32 model: `y = x factor + offset` per channel.
//!
//! For data of mean `mu` and standard deviation `sigma`, `factor = 1 / sigma` and
//! `offset = -mu / sigma`. The integer twin is [`input`](super::input).

use super::{Signature, f32s};

shape! {
    /// `x[rows, c], factor[c], offset[c] -> y[rows, c]`, in place. Constants: it has no backward.
    pub struct Normalise {
        /// Pixels or samples.
        pub rows: usize,
        /// Channels.
        pub c: usize,
    }
}

impl Normalise {
    /// Inputs `x, factor, offset`; output `y`, in place on `x`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c } = *self;
        Signature::new(&[f32s(&[rows, c]), f32s(&[c]), f32s(&[c])], &[f32s(&[rows, c])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `y = x factor + offset`.
pub fn forward(s: &Normalise, factor: &[f32], offset: &[f32], y: &mut [f32]) {
    for row in y.chunks_exact_mut(s.c) {
        for (y, (factor, offset)) in row.iter_mut().zip(factor.iter().zip(offset)) {
            *y = *y * factor + offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, reals};

    #[test]
    fn matches_the_reference() {
        for (rows, c) in [(1, 1), (5, 3), (4, 17)] {
            let (x, factor, offset) = (reals("x", rows * c), reals("factor", c), reals("offset", c));
            let mut y = x.f32();
            forward(&Normalise { rows, c }, &factor.f32(), &offset.f32(), &mut y);
            let (x, factor, offset) = (x.f64(), factor.f64(), offset.f64());
            let want: Vec<f64> = (0..rows * c).map(|i| x[i] * factor[i % c] + offset[i % c]).collect();
            assert_close("y", &y, &want, 1e-6);
        }
    }
}
