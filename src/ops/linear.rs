//! `y = x W^T + b`: the projection of tokens, the MLP, the head.

use super::{Operand, Signature, Width, f32s, i8s, i16s, i32s};
use crate::arch::{Channels, Dense, Matrix, Shape, ToI8, ToI16, matmul, products};

shape! {
    /// `x[rows, k]`, `w[n, k]`, `b[n]`? -> `y[rows, n]`.
    pub struct Linear {
        /// Rows of the input: batch times tokens.
        pub rows: usize,
        /// Input features.
        pub k: usize,
        /// Output features.
        pub n: usize,
    }
}

impl Linear {
    /// Inputs `x, w, b?`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, k, n } = *self;
        Signature::new(&[f32s(&[rows, k]), f32s(&[n, k]), f32s(&[n]).optional()], &[f32s(&[rows, n])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.rows, self.k, self.n])
    }
}

/// `y = x W^T + b`.
pub fn forward(s: &Linear, x: &[f32], w: &[f32], b: &[f32], y: &mut [f32]) {
    if !b.is_empty() {
        for row in y.chunks_exact_mut(s.n) {
            row.copy_from_slice(b);
        }
    }
    matmul(Matrix::new(x, s.rows, s.k), Matrix::new(w, s.n, s.k).t(), y, !b.is_empty());
}

shape! {
    /// Backward of [`Linear`]: `x, w, dy -> dx?, dw, db?`.
    pub struct LinearGrad {
        /// Rows of the input: batch times tokens.
        pub rows: usize,
        /// Input features.
        pub k: usize,
        /// Output features.
        pub n: usize,
    }
}

impl LinearGrad {
    /// Inputs `x, w, dy`; outputs `dx?, dw, db?`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, k, n } = *self;
        Signature::new(
            &[f32s(&[rows, k]), f32s(&[n, k]), f32s(&[rows, n])],
            &[f32s(&[rows, k]).optional(), f32s(&[n, k]), f32s(&[n]).optional()],
        )
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[2, self.rows, self.k, self.n])
    }
}

/// `dx = dy W`, `dw = dy^T x`, `db = sum of the rows of dy`; overwrites all three.
pub fn backward(s: &LinearGrad, x: &[f32], w: &[f32], dy: &[f32], dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
    let dy_matrix = Matrix::new(dy, s.rows, s.n);
    if !dx.is_empty() {
        matmul(dy_matrix, Matrix::new(w, s.n, s.k), dx, false);
    }
    matmul(dy_matrix.t(), Matrix::new(x, s.rows, s.k), dw, false);
    if !db.is_empty() {
        db.fill(0.0);
        for row in dy.chunks_exact(s.n) {
            for (sum, g) in db.iter_mut().zip(row) {
                *sum += g;
            }
        }
    }
}

shapes! {
    /// Integer [`Linear`] to int8: `x i8, w i8, bias i32, multiplier i32[n], shift i8[n] -> y i8`, scratch.
    ///
    /// `y = clamp(requantise(bias + sum x w) + zero, lo, hi)`. The zero point of `x` is folded into
    /// `bias` by the exporter. The checker proves that no accumulator overflows.
    pub struct LinearI8;

    /// [`LinearI8`] with weights of [int4](super::Width::Int4): `w u8[n, 4 ceil(k / 8)]`.
    pub struct LinearI8W4;

    /// [`LinearI8`] with weights of [int16](super::Width::Int16): `w i16`.
    pub struct LinearI8W16;

    fields {
        /// Rows of the input: tokens.
        pub rows: usize,
        /// Input features.
        pub k: usize,
        /// Output features.
        pub n: usize,
        /// Zero point of the output.
        pub zero: i32,
        /// Smallest output; above -128 where a ReLU is folded in.
        pub lo: i32,
        /// Largest output.
        pub hi: i32,
    }
}

macro_rules! to_i8 {
    ($($Name:ident, $Width:ident, $forward:ident($W:ty);)*) => {$(
        impl $Name {
            /// Inputs `x, w, bias, multiplier, shift`; outputs `y`, scratch.
            pub const fn signature(&self) -> Signature {
                let Self { rows, k, n, zero, lo, hi } = *self;
                if lo < -128 || hi > 127 || lo > hi || zero < -128 || zero > 127 {
                    return Signature::invalid("the output range of an int8 linear op leaves int8");
                }
                integer_signature(Shape { rows, k, n }, Width::$Width, i8s(&[rows, n]))
            }

            /// Multiply-accumulates.
            pub const fn macs(&self) -> u64 {
                super::size(&[self.rows, self.k, self.n])
            }
        }

        #[doc = concat!("Integer forward of [`", stringify!($Name), "`].")]
        pub fn $forward(
            s: &$Name,
            x: &[i8],
            w: &[$W],
            bias: &[i32],
            multiplier: &[i32],
            shift: &[i8],
            y: &mut [i8],
            scratch: &mut [i32],
        ) {
            let $Name { rows, k, n, zero, lo, hi } = *s;
            let weights = Channels { w, bias, multiplier, shift };
            products(Shape { rows, k, n }, &mut Dense::new(x, k), weights, ToI8 { zero, lo, hi }, y, &mut [], scratch);
        }
    )*};
}

to_i8! {
    LinearI8, Int8, forward_i8(i8);
    LinearI8W4, Int4, forward_i8_w4(u8);
    LinearI8W16, Int16, forward_i8_w16(i16);
}

shapes! {
    /// Integer [`Linear`] to int16 (symmetric), for the residual stream and the logits:
    /// `x i8, w i8, bias i32, multiplier i32[n], shift i8[n] -> y i16`, scratch.
    ///
    /// `y = clamp(requantise(bias + sum x w), -32768, 32767)`, otherwise as [`LinearI8`].
    pub struct LinearI16;

    /// [`LinearI16`] with weights of [int4](super::Width::Int4): `w u8[n, 4 ceil(k / 8)]`.
    pub struct LinearI16W4;

    /// [`LinearI16`] with weights of [int16](super::Width::Int16): `w i16`.
    pub struct LinearI16W16;

    fields {
        /// Rows of the input: tokens.
        pub rows: usize,
        /// Input features.
        pub k: usize,
        /// Output features.
        pub n: usize,
    }
}

macro_rules! to_i16 {
    ($($Name:ident, $Width:ident, $forward:ident($W:ty);)*) => {$(
        impl $Name {
            /// Inputs `x, w, bias, multiplier, shift`; outputs `y`, scratch.
            pub const fn signature(&self) -> Signature {
                let Self { rows, k, n } = *self;
                integer_signature(Shape { rows, k, n }, Width::$Width, i16s(&[rows, n]))
            }

            /// Multiply-accumulates.
            pub const fn macs(&self) -> u64 {
                super::size(&[self.rows, self.k, self.n])
            }
        }

        #[doc = concat!("Integer forward of [`", stringify!($Name), "`].")]
        pub fn $forward(
            s: &$Name,
            x: &[i8],
            w: &[$W],
            bias: &[i32],
            multiplier: &[i32],
            shift: &[i8],
            y: &mut [i16],
            scratch: &mut [i32],
        ) {
            let $Name { rows, k, n } = *s;
            let weights = Channels { w, bias, multiplier, shift };
            products(Shape { rows, k, n }, &mut Dense::new(x, k), weights, ToI16, y, &mut [], scratch);
        }
    )*};
}

to_i16! {
    LinearI16, Int8, forward_i16(i8);
    LinearI16W4, Int4, forward_i16_w4(u8);
    LinearI16W16, Int16, forward_i16_w16(i16);
}

const fn integer_signature(s: Shape, w: Width, y: Operand) -> Signature {
    let Shape { rows, k, n } = s;
    let channels = i32s(&[n]);
    Signature::new(&[i8s(&[rows, k]), w.operand(n, k), channels, channels, i8s(&[n])], &[y, i32s(&[s.panel()])])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, ints, reals};

    fn reference(s: &Linear, t: &[Vec<f64>]) -> Vec<f64> {
        let (x, w, b) = (&t[0], &t[1], &t[2]);
        let mut y = vec![0.0; s.rows * s.n];
        for r in 0..s.rows {
            for j in 0..s.n {
                let bias = if b.is_empty() { 0.0 } else { b[j] };
                y[r * s.n + j] = bias + (0..s.k).map(|i| x[r * s.k + i] * w[j * s.k + i]).sum::<f64>();
            }
        }
        y
    }

    #[test]
    fn forward_and_backward_match_the_reference() {
        for (rows, k, n, bias) in [(1, 1, 1, true), (5, 7, 3, true), (4, 16, 9, false), (33, 12, 20, true)] {
            let s = Linear { rows, k, n };
            let inputs = [reals("x", rows * k), reals("w", n * k), reals("b", if bias { n } else { 0 })];
            let [x, w, b] = inputs.each_ref().map(|v| v.f32());
            let mut y = vec![0.0; rows * n];
            forward(&s, &x, &w, &b, &mut y);
            assert_close("y", &y, &reference(&s, &inputs.each_ref().map(|v| v.f64())), 1e-6);

            check_gradients(
                &inputs,
                rows * n,
                |t| reference(&s, t),
                |dy| {
                    let s = LinearGrad { rows, k, n };
                    let (mut dx, mut dw, mut db) = (vec![9.0; x.len()], vec![9.0; w.len()], vec![9.0; b.len()]);
                    backward(&s, &x, &w, dy, &mut dx, &mut dw, &mut db);
                    vec![dx, dw, db]
                },
            );
        }
    }

    #[test]
    fn integer_forward_is_exact() {
        for (rows, k, n) in [(1, 1, 1), (3, 5, 7), (9, 32, 4)] {
            let (x, w) = (ints::<i8>("x", rows * k), ints::<i8>("w", n * k));
            let bias: Vec<i32> = ints::<i16>("b", n).iter().map(|&b| i32::from(b)).collect();
            let multiplier = vec![1_518_500_250; n];
            let shift: Vec<i8> = (0..n).map(|j| 37 + (j % 3) as i8).collect();
            let s = LinearI8 { rows, k, n, zero: 3, lo: -100, hi: 90 };
            let (mut y, mut y16) = (vec![0i8; rows * n], vec![0i16; rows * n]);
            let mut scratch = vec![9; s.signature().output(1).len as usize];
            forward_i8(&s, &x, &w, &bias, &multiplier, &shift, &mut y, &mut scratch);
            forward_i16(&LinearI16 { rows, k, n }, &x, &w, &bias, &multiplier, &shift, &mut y16, &mut scratch);
            for r in 0..rows {
                for j in 0..n {
                    let acc: i128 = i128::from(bias[j])
                        + (0..k).map(|i| i128::from(x[r * k + i]) * i128::from(w[j * k + i])).sum::<i128>();
                    let scaled = (acc * i128::from(multiplier[j]) + (1 << (shift[j] - 1))) >> shift[j];
                    assert_eq!(i128::from(y[r * n + j]), (scaled + 3).clamp(-100, 90));
                    assert_eq!(i128::from(y16[r * n + j]), scaled.clamp(-32768, 32767));
                }
            }
        }
    }
}
