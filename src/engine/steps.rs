//! A run in steps, for firmware that has other things to do before it is over.

use super::device::Scores;
use super::element::Element;
use super::executor::Executor;
use crate::format::{OpRecord, Ops};
use crate::program::Runs;
use core::marker::PhantomData;
use core::ops::Range;

/// How far a run in steps is. All else that it knows lies in the arena.
#[derive(Clone, Debug)]
pub(crate) struct Progress<'m> {
    /// The ops that are not done.
    ops: Ops<'m>,
    /// Rows of the first of them that are done.
    done: usize,
}

impl<'m> Progress<'m> {
    /// A run of `ops` that has not begun.
    pub(crate) fn new(ops: Ops<'m>) -> Self {
        Self { ops, done: 0 }
    }

    /// Has `run` compute the next rows, at most `rows` and at least 1, of the op that comes next. It says how many
    /// rows that op has in all.
    #[inline(always)]
    pub(super) fn advance(&mut self, rows: usize, run: impl FnOnce(&OpRecord<'m>, Range<usize>) -> usize) -> bool {
        let mut rest = self.ops;
        let Some(record) = rest.next() else { return false };
        let next = self.done.saturating_add(rows.max(1));
        if run(&record, self.done..next) > next {
            self.done = next;
        } else {
            *self = Self::new(rest);
        }
        self.ops_left() > 0
    }

    /// Ops that are not done.
    pub(crate) fn ops_left(&self) -> usize {
        self.ops.len()
    }
}

/// A run that has begun. It holds the engine, so that nobody changes the input under it; dropped before its end, it
/// leaves an input to be written again, as a whole run does.
///
/// # What a step costs
///
/// A step computes rows of one op. This is a row of each integer op, and what it costs at most:
///
/// | op | a row | cost of a row |
/// |---|---|---|
/// | linear | a token | `k n` multiply-accumulates |
/// | convolution | a pixel of the output, of one head | `kh kw c_in c_out` multiply-accumulates |
/// | depthwise convolution, maximum | a row of the output's pixels | `ow c kh kw` multiply-accumulates or comparisons |
/// | mean over windows | 16 channels of a pixel of the output | 16 additions for each pixel of the window |
/// | LayerNorm | a token | `c` elements |
/// | input | 32 pixels or samples | `32 c` elements |
/// | sums, tables, rescaling | 64 elements | 64 elements |
/// | token put first, token taken out | a token | `c` elements copied |
/// | softmax attention | a token, of one head | `2 n d` multiply-accumulates |
/// | both passes of SOFT's attention | a token, of one head; in the first, of more than 512 tokens, 16 or 32 | `2 m d` multiply-accumulates for each token |
/// | Gram matrix | a row of one head | `m d` multiply-accumulates |
/// | Newton's inverse | a row of one iteration, of one head | `2 m^2` multiply-accumulates of 64 bits, and up to `3 m^2` elements moved |
/// | factors of the direct inverse | a row of one head | `m^2 / 2` multiply-accumulates of 64 bits |
/// | substitutions of the direct inverse | four channels of one head | `4 m^2` multiply-accumulates of 64 bits |
/// | its solution to int16 | a channel of one head | `m` elements, a few times |
/// | symmetric normalisation | a row and a column of one head; its scales: a head | `2 m` elements; `m^2 / 2` additions and `m` roots |
/// | product with the inverse | a channel of one head | `m^2` multiply-accumulates of 64 bits |
///
/// What an op prepares for its rows, it prepares in every step: weights and landmarks are widened, norms are taken. Cores
/// compute four rows of a matrix product or of attention together, so steps of 1 to 3 rows cost what 4 rows do. Where an
/// op that works in place does not find its input there, its first step copies it. An op in floats is one step.
pub struct Steps<'e, 'm, S, T> {
    executor: &'e mut Executor<'m, S>,
    progress: Progress<'m>,
    output: PhantomData<T>,
}

impl<'e, 'm, S: Runs, T: Element> Steps<'e, 'm, S, T> {
    pub(super) fn new(executor: &'e mut Executor<'m, S>) -> Self {
        let progress = Progress::new(executor.view().ops());
        Self { executor, progress, output: PhantomData }
    }

    /// Computes at most `rows` rows, at least 1, of one op, and says whether there is more to do.
    pub fn step(&mut self, rows: usize) -> bool {
        self.executor.step(&mut self.progress, rows)
    }

    /// Ops that are not done: 0 when the run is over.
    pub fn ops_left(&self) -> usize {
        self.progress.ops_left()
    }

    /// Computes what is left and gives the scores: those of a run in one piece, bit for bit.
    pub fn finish(mut self) -> Scores<'e, T> {
        while self.step(usize::MAX) {}
        self.executor.scores()
    }
}
