//! Bilinear resizing of position embeddings, so that a model takes images of any size.

use super::{Operand, Signature, f32s};
use crate::arch::vectorised;

shape! {
    /// `x[skip + h*w, c]` -> `y[skip + oh*ow, c]`: the first `skip` rows (the class token) are copied,
    /// the others are a grid that is resized bilinearly.
    ///
    /// The rule is PyTorch's `interpolate(mode="bilinear", align_corners=False)`: output `i` lies at
    /// `(i + 1/2) h / oh - 1/2`, clamped to the grid, without antialiasing.
    pub struct Resize {
        /// Rows in front that are copied.
        pub skip: usize,
        /// Height of the input grid.
        pub h: usize,
        /// Width of the input grid.
        pub w: usize,
        /// Height of the output grid.
        pub oh: usize,
        /// Width of the output grid.
        pub ow: usize,
        /// Channels.
        pub c: usize,
    }
}

impl Resize {
    const fn reason(&self) -> Option<&'static str> {
        // Positions are counted in halves of an output: `2 * oh * h` must fit 32 bits.
        const LIMIT: u64 = 1 << 31;
        if super::size(&[self.h, self.w, self.oh, self.ow, self.c]) == 0 {
            Some("a resize of an empty grid")
        } else if super::size(&[self.h, self.oh]) >= LIMIT || super::size(&[self.w, self.ow]) >= LIMIT {
            Some("a resize of a side times a side of 2^31 or more")
        } else {
            None
        }
    }

    const fn grid(&self, h: usize, w: usize) -> Operand {
        f32s(&[h.saturating_mul(w).saturating_add(self.skip), self.c])
    }

    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        if let Some(why) = self.reason() {
            return Signature::invalid(why);
        }
        Signature::new(&[self.grid(self.h, self.w)], &[self.grid(self.oh, self.ow)])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[4, self.oh, self.ow, self.c])
    }

    /// The four input rows of output `(oy, ox)` and their weights.
    #[inline(always)]
    fn corners(&self, oy: usize, ox: usize) -> [(usize, f32); 4] {
        let [(top, t), (bottom, b)] = neighbours(self.h, self.oh, oy);
        let [(left, l), (right, r)] = neighbours(self.w, self.ow, ox);
        let row = |y: usize, x: usize| self.skip + y * self.w + x;
        [(row(top, left), t * l), (row(top, right), t * r), (row(bottom, left), b * l), (row(bottom, right), b * r)]
    }
}

/// The two inputs of `size` between which output `i` of `outputs` lies, and their weights.
#[inline(always)]
fn neighbours(size: usize, outputs: usize, i: usize) -> [(usize, f32); 2] {
    // The position times 2 * outputs is an integer.
    let unit = 2 * outputs;
    let position = ((2 * i + 1) * size).saturating_sub(outputs);
    let (before, rest) = (position / unit, position % unit);
    let after = (before + 1).min(size - 1);
    let weight = rest as f32 / unit as f32;
    [(before, 1.0 - weight), (after, weight)]
}

/// Resizes the grid behind the first `skip` rows.
pub fn forward(s: &Resize, x: &[f32], y: &mut [f32]) {
    let (head, grid) = y.split_at_mut(s.skip * s.c);
    head.copy_from_slice(&x[..s.skip * s.c]);
    vectorised(
        #[inline(always)]
        || {
            for (oy, y) in grid.chunks_exact_mut(s.ow * s.c).enumerate() {
                for (ox, y) in y.chunks_exact_mut(s.c).enumerate() {
                    y.fill(0.0);
                    for (row, weight) in s.corners(oy, ox) {
                        add_scaled(&x[row * s.c..], weight, y);
                    }
                }
            }
        },
    );
}

/// `y += weight * x`.
#[inline(always)]
fn add_scaled(x: &[f32], weight: f32, y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += weight * x;
    }
}

shape! {
    /// Backward of [`Resize`]: `dy[skip + oh*ow, c] -> dx[skip + h*w, c]`.
    pub struct ResizeGrad {
        /// Rows in front that are copied.
        pub skip: usize,
        /// Height of the input grid.
        pub h: usize,
        /// Width of the input grid.
        pub w: usize,
        /// Height of the output grid.
        pub oh: usize,
        /// Width of the output grid.
        pub ow: usize,
        /// Channels.
        pub c: usize,
    }
}

impl ResizeGrad {
    /// The resize this is the backward of.
    const fn forward(&self) -> Resize {
        Resize::from_words(&self.to_words())
    }

    /// Input `dy`; output `dx`.
    pub const fn signature(&self) -> Signature {
        let s = self.forward();
        if let Some(why) = s.reason() {
            return Signature::invalid(why);
        }
        Signature::new(&[s.grid(s.oh, s.ow)], &[s.grid(s.h, s.w)])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.forward().macs()
    }
}

/// Every output hands its gradient to its four inputs; overwrites `dx`.
pub fn backward(s: &ResizeGrad, dy: &[f32], dx: &mut [f32]) {
    let s = s.forward();
    let (head, grid) = dy.split_at(s.skip * s.c);
    dx.fill(0.0);
    dx[..s.skip * s.c].copy_from_slice(head);
    vectorised(
        #[inline(always)]
        || {
            for (oy, dy) in grid.chunks_exact(s.ow * s.c).enumerate() {
                for (ox, dy) in dy.chunks_exact(s.c).enumerate() {
                    for (row, weight) in s.corners(oy, ox) {
                        add_scaled(dy, weight, &mut dx[row * s.c..][..s.c]);
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, reals};
    use std::vec;
    use std::vec::Vec;

    /// PyTorch's formula in f64.
    fn reference(s: &Resize, x: &[f64]) -> Vec<f64> {
        let side = |size: usize, outputs: usize, i: usize| {
            let at = ((i as f64 + 0.5) * (size as f64 / outputs as f64) - 0.5).max(0.0);
            let before = at.floor() as usize;
            (before, (before + 1).min(size - 1), at - at.floor())
        };
        let mut y = x[..s.skip * s.c].to_vec();
        for oy in 0..s.oh {
            let (top, bottom, v) = side(s.h, s.oh, oy);
            for ox in 0..s.ow {
                let (left, right, u) = side(s.w, s.ow, ox);
                for c in 0..s.c {
                    let at = |y: usize, x_: usize| x[(s.skip + y * s.w + x_) * s.c + c];
                    let upper = at(top, left) * (1.0 - u) + at(top, right) * u;
                    let lower = at(bottom, left) * (1.0 - u) + at(bottom, right) * u;
                    y.push(upper * (1.0 - v) + lower * v);
                }
            }
        }
        y
    }

    /// skip, h, w, oh, ow, c
    const SHAPES: [[u32; 6]; 7] = [
        [0, 1, 1, 1, 1, 1],
        [1, 1, 1, 3, 4, 2],
        [1, 7, 7, 2, 2, 5],
        [0, 14, 14, 4, 3, 3],
        [2, 3, 5, 8, 4, 9],
        [0, 4, 1, 4, 6, 2],
        [1, 5, 4, 1, 1, 3],
    ];

    #[test]
    fn forward_and_backward_match_the_reference() {
        for words in SHAPES {
            let s = Resize::from_words(&words);
            let inputs = [reals("x", s.signature().input(0).len as usize)];
            let outputs = s.signature().output(0).len as usize;
            let mut y = vec![9.0; outputs];
            forward(&s, &inputs[0].f32(), &mut y);
            assert_close("y", &y, &reference(&s, &inputs[0].f64()), 1e-6);
            check_gradients(
                &inputs,
                outputs,
                |t| reference(&s, &t[0]),
                |dy| {
                    let mut dx = vec![9.0; inputs[0].f32().len()];
                    backward(&ResizeGrad::from_words(&words), dy, &mut dx);
                    vec![dx]
                },
            );
        }
    }

    #[test]
    fn the_same_size_is_a_copy() {
        let s = Resize { skip: 1, h: 7, w: 3, oh: 7, ow: 3, c: 4 };
        let x = reals("x", 22 * 4).f32();
        let mut y = vec![9.0; x.len()];
        forward(&s, &x, &mut y);
        assert_eq!(x, y);
    }

    #[test]
    fn absurd_shapes_are_refused() {
        for words in [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 1], [0, 1 << 16, 1, 1 << 15, 1, 1], [u32::MAX; 6]] {
            assert!(Resize::from_words(&words).signature().reason().is_some(), "{words:?}");
            assert!(ResizeGrad::from_words(&words).signature().reason().is_some(), "{words:?}");
        }
    }
}
