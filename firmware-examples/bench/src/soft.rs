//! One head of SOFT's attention, int8 in and int8 out, as a quantised model computes it: landmarks by
//! pooling, their Gram matrix, its direct inverse, and the two passes over the tokens.

use crate::memory::{Memory, room};
use crate::{Meter, measure};
use softedge::ops::gram::{self, GramI8};
use softedge::ops::inverse::{self, InverseLdltQ22};
use softedge::ops::kernel::{self, AccumulateI8, ApplyI8};
use softedge::ops::pool::{self, AvgPoolI8};
use softedge::ops::product::{self, ProductQ22};
use softedge::ops::{DType, Signature, i8s, operand};

/// The binary logarithm of e.
pub const LOG2_E_Q30: i32 = 1_549_082_005;

/// `q, v i8[side * side, d]` -> `y i8[side * side, d]`, with scratch; the landmarks are
/// `grid * grid` means of `q`.
#[derive(Clone, Copy)]
pub struct Soft {
    /// Tokens along a side of the image.
    pub side: usize,
    /// Landmarks along a side.
    pub grid: usize,
    /// Width of the head.
    pub d: usize,
    /// One step of the output is `2^y_exponent` steps of `v`.
    pub y_exponent: i32,
}

impl Soft {
    /// One step of `q`: with the values of int8 all equally likely, kernel values lie around 0.2.
    pub const Q_STEP: f64 = 1.0 / 256.0;
    /// Added to the diagonal of the Gram matrix: 0.01 in Q22.
    pub const RIDGE: i32 = 41943;
    /// Multiplier and right shift of the kernel's exponent, `2^16 log2(e) Q_STEP^2 / 2`.
    const EXPONENT: (i32, i32) = (LOG2_E_Q30, 31);

    const fn n(&self) -> usize {
        self.side * self.side
    }

    const fn m(&self) -> usize {
        self.grid * self.grid
    }

    const fn pool(&self) -> AvgPoolI8 {
        AvgPoolI8 { h: self.side, w: self.side, c: self.d, oh: self.grid, ow: self.grid }
    }

    const fn gram(&self) -> GramI8 {
        let (multiplier, shift) = Self::EXPONENT;
        GramI8 { m: self.m(), heads: 1, d: self.d, multiplier, shift }
    }

    const fn inverse(&self) -> InverseLdltQ22 {
        InverseLdltQ22 { heads: 1, m: self.m(), ridge: Self::RIDGE }
    }

    const fn accumulate(&self) -> AccumulateI8 {
        let (multiplier, shift) = Self::EXPONENT;
        let w_shift = AccumulateI8::w_shift(self.n());
        AccumulateI8 { n: self.n(), m: self.m(), heads: 1, d: self.d, multiplier, shift, w_shift }
    }

    const fn product(&self) -> ProductQ22 {
        ProductQ22 { heads: 1, m: self.m(), d: self.d }
    }

    const fn apply(&self) -> ApplyI8 {
        let (multiplier, shift) = Self::EXPONENT;
        // 2^(w_shift - 15 - y_exponent), of which the multiplier is 2^30.
        let (out_multiplier, out_shift) = (1 << 30, 45 - AccumulateI8::w_shift(self.n()) + self.y_exponent);
        let (n, m, heads, d) = (self.n(), self.m(), 1, self.d);
        ApplyI8 { n, m, heads, d, multiplier, shift, out_multiplier, out_shift, zero: 0, lo: -128, hi: 127 }
    }

    /// Inputs `q, v`; outputs `y`, scratch.
    pub const fn signature(&self) -> Signature {
        let tokens = i8s(&[self.n(), self.d]);
        Signature::new(&[tokens, tokens], &[tokens, operand(DType::U8, &[self.scratch()])])
    }

    /// Multiply-accumulates of all its ops.
    pub const fn macs(&self) -> u64 {
        self.pool().macs()
            + self.gram().macs()
            + self.inverse().macs()
            + self.accumulate().macs()
            + self.product().macs()
            + self.apply().macs()
    }

    /// Bytes of everything between the inputs and the output, in the two layers of [`Self::run`].
    const fn scratch(&self) -> usize {
        let (pool, gram, inverse) = (self.pool().signature(), self.gram().signature(), self.inverse().signature());
        let (accumulate, product) = (self.accumulate().signature(), self.product().signature());
        let first = room(inverse.output(0)) + room(gram.output(0)) + room(inverse.output(1));
        let results = room(product.output(0)) + room(product.output(1)) + room(product.output(2));
        let second = self.sums() + larger(room(accumulate.output(1)), results);
        room(pool.output(0)) + larger(first, second)
    }

    /// Bytes of the inverse and the sums over the tokens, which make room for the scratch of the second pass.
    const fn sums(&self) -> usize {
        let (inverse, accumulate, apply) = (self.inverse(), self.accumulate(), self.apply());
        let sums = room(inverse.signature().output(0)) + room(accumulate.signature().output(0));
        larger(sums, room(apply.signature().output(1)))
    }

    /// Measures each of its ops.
    pub(crate) fn run(&self, q: &[i8], v: &[i8], y: &mut [i8], mut memory: Memory<'_>, meter: &mut impl Meter) {
        let (pool, gram, inverse) = (self.pool(), self.gram(), self.inverse());
        let (accumulate, product, apply) = (self.accumulate(), self.product(), self.apply());

        let landmarks = memory.take(pool.signature().output(0));
        measure(meter, "landmarks", || pool::average_i8(&pool, q, landmarks));
        {
            let mut memory = memory.scope();
            let inv = memory.take(inverse.signature().output(0));
            let a = memory.take(gram.signature().output(0));
            let scratch = memory.take(inverse.signature().output(1));
            measure(meter, "Gram matrix", || gram::forward_i8(&gram, landmarks, a));
            measure(meter, "inverse", || inverse::ldlt_q22(&inverse, a, inv, scratch));
        }
        let mut sums = memory.part(self.sums());
        let (u, e);
        {
            // The inverse is where it was.
            let mut sums = sums.scope();
            let inv = sums.take(inverse.signature().output(0));
            let w = sums.take(accumulate.signature().output(0));
            let scratch = memory.scope().take(accumulate.signature().output(1));
            measure(meter, "first pass", || kernel::accumulate_i8(&accumulate, q, landmarks, v, w, scratch));
            u = memory.take(product.signature().output(0));
            e = memory.take(product.signature().output(1));
            let scratch = memory.take(product.signature().output(2));
            measure(meter, "product", || product::forward_q22(&product, inv, w, u, e, scratch));
        }
        let scratch = sums.take(apply.signature().output(1));
        measure(meter, "second pass", || kernel::apply_i8(&apply, q, landmarks, u, e, y, scratch));
    }
}

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
