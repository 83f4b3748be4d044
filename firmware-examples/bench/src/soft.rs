//! One head of SOFT's attention, int8 in and int8 out, as a quantised model computes it: landmarks by
//! pooling, the first pass over the tokens, the product with the direct inverse of the landmarks' Gram matrix by
//! its factors, and the second pass.

use crate::memory::{Memory, room};
use crate::{Meter, measure};
use softedge::ops::gram::{self, GramTriangleI8};
use softedge::ops::kernel::{self, AccumulateI8, ApplyI8};
use softedge::ops::pool::{self, AvgPoolI8};
use softedge::ops::solve::{self, FactorQ26, NarrowI16, SolveQ26};
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

    const fn gram(&self) -> GramTriangleI8 {
        let (multiplier, shift) = Self::EXPONENT;
        GramTriangleI8 { m: self.m(), heads: 1, d: self.d, multiplier, shift }
    }

    const fn factor(&self) -> FactorQ26 {
        FactorQ26 { heads: 1, m: self.m(), ridge: Self::RIDGE }
    }

    const fn accumulate(&self) -> AccumulateI8 {
        let (multiplier, shift) = Self::EXPONENT;
        let w_shift = AccumulateI8::w_shift(self.n());
        AccumulateI8 { n: self.n(), m: self.m(), heads: 1, d: self.d, multiplier, shift, w_shift }
    }

    const fn solve(&self) -> SolveQ26 {
        SolveQ26 { heads: 1, m: self.m(), d: self.d }
    }

    const fn narrow(&self) -> NarrowI16 {
        NarrowI16 { heads: 1, m: self.m(), d: self.d }
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
            + self.factor().macs()
            + self.accumulate().macs()
            + self.solve().macs()
            + self.narrow().macs()
            + self.apply().macs()
    }

    /// Bytes of everything between the inputs and the output, in the places of [`Self::run`].
    const fn scratch(&self) -> usize {
        let accumulate = self.accumulate().signature();
        let first = room(accumulate.output(0)) + room(accumulate.output(1));
        let rest = self.before_exponents() + room(self.solve().signature().output(1));
        room(self.pool().signature().output(0)) + larger(first, rest)
    }

    /// Bytes of the solution and of what comes and goes beside it, up to the exponents.
    const fn before_exponents(&self) -> usize {
        let (factor, solve) = (self.factor().signature(), self.solve().signature());
        let factors = room(factor.output(0)) + larger(room(factor.output(1)), room(solve.output(2)));
        larger(room(solve.output(0)) + factors, self.work() + room(self.narrow().signature().output(1)))
    }

    /// Bytes of the solution, which make room for the scratch of the second pass.
    const fn work(&self) -> usize {
        larger(room(self.solve().signature().output(0)), room(self.apply().signature().output(1)))
    }

    /// Measures each of its ops.
    pub(crate) fn run(&self, q: &[i8], v: &[i8], y: &mut [i8], mut memory: Memory<'_>, meter: &mut impl Meter) {
        let (pool, gram, accumulate) = (self.pool(), self.gram(), self.accumulate());
        let (factor, solve, narrow, apply) = (self.factor(), self.solve(), self.narrow(), self.apply());

        let landmarks = memory.take(pool.signature().output(0));
        measure(meter, "landmarks", || pool::average_i8(&pool, q, landmarks));
        {
            let mut memory = memory.scope();
            let w = memory.take(accumulate.signature().output(0));
            let scratch = memory.take(accumulate.signature().output(1));
            measure(meter, "first pass", || kernel::accumulate_i8(&accumulate, q, landmarks, v, w, scratch));
        }
        let mut before = memory.part(self.before_exponents());
        let e = memory.take(solve.signature().output(1));
        {
            // `w` is where the first pass left it, and the solution takes its place.
            let mut memory = before.scope();
            let w = memory.take(solve.signature().output(0));
            let f = memory.take(factor.signature().output(0));
            measure(meter, "Gram matrix", || gram::triangle_i8(&gram, landmarks, f));
            {
                let scratch = memory.scope().take(factor.signature().output(1));
                measure(meter, "factors", || solve::factor_q26(&factor, f, scratch));
            }
            let scratch = memory.take(solve.signature().output(2));
            measure(meter, "substitutions", || solve::solve_q26(&solve, f, &[], w, e, scratch));
        }
        let mut work = before.part(self.work());
        let u = before.take(narrow.signature().output(1));
        {
            let x = work.scope().take(solve.signature().output(0));
            measure(meter, "int16", || solve::narrow_i16(&narrow, x, e, u));
        }
        let scratch = work.take(apply.signature().output(1));
        measure(meter, "second pass", || kernel::apply_i8(&apply, q, landmarks, u, e, y, scratch));
    }
}

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
