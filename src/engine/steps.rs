//! A run in pieces, for firmware that has other things to do before it is over.

use super::arena::Operands;
use super::device::Scores;
use super::element::Element;
use super::executor::Executor;
use crate::format::{MAX_SHAPE_WORDS, OpRecord, Ops};
use crate::ops::*;
use crate::program::{Kind, Op, Runs};
use core::marker::PhantomData;
use core::ops::Range;

/// Elements that count as a row of an op whose shape has no rows.
const ROW: usize = 64;

/// A run that has begun. It holds the engine, so that nobody changes the input under it; dropped before its end, it
/// leaves an input to be written again, as a whole run does.
pub struct Steps<'e, 'm, S, T> {
    executor: &'e mut Executor<'m, S>,
    ops: Ops<'m>,
    op: Option<OpRecord<'m>>,
    /// Rows of `op` that are done.
    done: usize,
    output: PhantomData<T>,
}

impl<'e, 'm, S: Runs, T: Element> Steps<'e, 'm, S, T> {
    pub(super) fn new(executor: &'e mut Executor<'m, S>) -> Self {
        let mut ops = executor.view().ops();
        let op = ops.next();
        Self { executor, ops, op, done: 0, output: PhantomData }
    }

    /// Computes at most `rows` rows (at least 1) of one op, and says whether there is more to do.
    ///
    /// Linear ops, LayerNorm and the second pass of SOFT's attention are split by tokens, tables, sums and
    /// rescaling by 64 elements. Of all others a step computes the whole op.
    pub fn step(&mut self, rows: usize) -> bool {
        let Some(record) = self.op else { return false };
        let next = self.done.saturating_add(rows.max(1));
        match self.executor.run_rows(&record, self.done..next) {
            Some(all) if next < all => self.done = next,
            _ => (self.op, self.done) = (self.ops.next(), 0),
        }
        self.op.is_some()
    }

    /// Computes what is left and gives the scores: those of a run in one piece, bit for bit.
    pub fn finish(mut self) -> Scores<'e, T> {
        while self.step(usize::MAX) {}
        self.executor.scores()
    }
}

/// The rows `r` of `x`, each of `width` elements; those that are there.
fn cut<'x, T>(x: &'x [T], r: &Range<usize>, width: usize) -> &'x [T] {
    let end = r.end.saturating_mul(width).min(x.len());
    x.get(r.start.saturating_mul(width)..end).unwrap_or_default()
}

/// As [`cut`], to write.
fn cut_mut<'x, T>(x: &'x mut [T], r: &Range<usize>, width: usize) -> &'x mut [T] {
    let end = r.end.saturating_mul(width).min(x.len());
    x.get_mut(r.start.saturating_mul(width)..end).unwrap_or_default()
}

/// Runs these rows of an op of this kind, if its rows can be computed by themselves, and says how many it has.
#[inline(always)]
pub(super) fn run<S: Runs>(
    kind: Kind,
    words: &[u32; MAX_SHAPE_WORDS],
    o: &mut Operands<'_>,
    r: &Range<usize>,
) -> Option<usize> {
    macro_rules! split {
        // The field that counts rows; how the operands in rows are cut; the call, without in-place input.
        ($($Kind:ident($s:ident, $rows:ident / $unit:expr): $($module:ident)::+(
            $($cut:ident $(* $width:expr)?),*) $(@ $in_place:ident)?;)*) => {
            match kind {
                $(Kind::$Kind if const { S::OPS.contains(Kind::$Kind) } => {
                    let Op::$Kind($s) = Op::decode(Kind::$Kind, words) else { return None };
                    $(o.$in_place(r.start == 0);)?
                    let from = r.start.saturating_mul($unit).min($s.$rows);
                    let part = r.end.saturating_mul($unit).min($s.$rows) - from;
                    let mut shape = $s;
                    shape.$rows = part;
                    $($module)::+(&shape, $(split!(@ o, r, $cut $(* $width)?)),*);
                    Some($s.$rows.div_ceil($unit))
                })*
                _ => None,
            }
        };
        (@ $o:ident, $r:ident, i8 * $width:expr) => { cut($o.i8(), $r, $width) };
        (@ $o:ident, $r:ident, i16 * $width:expr) => { cut($o.i16(), $r, $width) };
        (@ $o:ident, $r:ident, i8_mut * $width:expr) => { cut_mut($o.i8_mut(), $r, $width) };
        (@ $o:ident, $r:ident, i16_mut * $width:expr) => { cut_mut($o.i16_mut(), $r, $width) };
        (@ $o:ident, $r:ident, $whole:ident) => { $o.$whole() };
    }
    split! {
        LinearI8(s, rows / 1): linear::forward_i8(i8 * s.k, i8, i32, i32, i8, i8_mut * s.n, i32_mut);
        LinearI16(s, rows / 1): linear::forward_i16(i8 * s.k, i8, i32, i32, i8, i16_mut * s.n, i32_mut);
        LayerNormI8(s, rows / 1): layer_norm::forward_i8(i16 * s.c, i16, i32, i8_mut * s.c);
        LayerNormI16(s, rows / 1): layer_norm::forward_i16(i16 * s.c, i16, i32, i16_mut * s.c);
        ApplyI8(s, n / 1): kernel::apply_i8(i8 * s.heads * s.d, i8, i16, i32, i8_mut * s.heads * s.d, i32_mut);
        TableI8(s, len / ROW): table::forward_i8(i8, i8_mut * ROW) @ take_over_if;
        AddI16(s, len / ROW): add::forward_i16(i16 * ROW, i16_mut * ROW) @ take_over_if;
        AddI16I8(s, len / ROW): add::forward_i16_i8(i8 * ROW, i16_mut * ROW) @ take_over_if;
        AddI8(s, len / ROW): add::forward_i8(i8 * ROW, i8_mut * ROW) @ take_over_if;
        RescaleI16I8(s, len / ROW): rescale::i16_to_i8(i16 * ROW, i8_mut * ROW);
        RescaleI8I16(s, len / ROW): rescale::i8_to_i16(i8 * ROW, i16_mut * ROW);
        RescaleI8(s, len / ROW): rescale::i8_to_i8(i8_mut * ROW) @ take_over_if;
    }
}
