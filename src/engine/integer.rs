//! The integer ops: the same functions on a host and on a device, so the same bits.

use super::arena::Operands;
use crate::format::MAX_SHAPE_WORDS;
use crate::ops::*;
use crate::program::{Kind, Op, Runs};

/// Elements that count as a row of an op that knows no larger unit.
const ROW: usize = 64;
/// Pixels, or samples, of raw input that do.
const PIXELS: usize = 32;

/// One arm per kind: decodes the shape, binds the operands in order, calls the op.
///
/// `Kind(shape, its rows): function(operands)`. `operand * width` is cut to the rows that are run, `part` passes them to
/// a function that cuts by itself; `in_place` drops the first input.
macro_rules! integers {
    ($S:ident, $kind:ident, $words:ident, $operands:ident, $part:ident;
     $($Kind:ident($s:ident, $rows:expr): $($module:ident)::+($($operand:ident $(* $width:expr)?),*) $(@ $in_place:ident)?;)*) => {
        match $kind {
            $(Kind::$Kind if const { $S::OPS.contains(Kind::$Kind) } => {
                let Op::$Kind($s) = Op::decode(Kind::$Kind, $words) else { return Some(0) };
                let rows: usize = $rows;
                $(integers!(@ $in_place $operands, $part);)?
                $($module)::+(&$s, $(integers!(@ $operands, $part, $operand $(* $width)?)),*);
                Some(rows)
            })*
            _ => None,
        }
    };
    (@ in_place $o:ident, $part:ident) => { $o.take_over($part.start() == 0) };
    (@ $o:ident, $part:ident, part) => { &$part };
    (@ $o:ident, $part:ident, i8 * $width:expr) => { $part.cut($o.i8(), $width) };
    (@ $o:ident, $part:ident, i16 * $width:expr) => { $part.cut($o.i16(), $width) };
    (@ $o:ident, $part:ident, i32 * $width:expr) => { $part.cut($o.i32(), $width) };
    (@ $o:ident, $part:ident, i8_mut * $width:expr) => { $part.cut_mut($o.i8_mut(), $width) };
    (@ $o:ident, $part:ident, i16_mut * $width:expr) => { $part.cut_mut($o.i16_mut(), $width) };
    (@ $o:ident, $part:ident, i32_mut * $width:expr) => { $part.cut_mut($o.i32_mut(), $width) };
    (@ $o:ident, $part:ident, $whole:ident) => { $o.$whole() };
}

/// Runs this part of an op of this kind and says how many rows the op has; `None` if it is none of these.
///
/// An op of one row is never split.
#[inline(always)]
pub(super) fn run<S: Runs>(
    kind: Kind,
    words: &[u32; MAX_SHAPE_WORDS],
    o: &mut Operands<'_>,
    part: impl Part,
) -> Option<usize> {
    integers! { S, kind, words, o, part;
        InputU8(s, s.rows.div_ceil(PIXELS)): input::forward_u8(i32, i32, i8, i8_mut * PIXELS * s.c) @ in_place;
        InputI16(s, s.rows.div_ceil(PIXELS)): input::forward_i16(i16 * PIXELS * s.c, i32, i32, i8, i8_mut * PIXELS * s.c);
        LinearI8(s, s.rows): linear::forward_i8(i8 * s.k, i8, i32, i32, i8, i8_mut * s.n, i32_mut);
        LinearI16(s, s.rows): linear::forward_i16(i8 * s.k, i8, i32, i32, i8, i16_mut * s.n, i32_mut);
        ConvI8(s, s.rows()): conv::forward_i8(part, i8, i8, i32, i32, i8, i8_mut, i8_mut, i32_mut);
        ConvI16(s, s.rows()): conv::forward_i16(part, i8, i8, i32, i32, i8, i16_mut, i8_mut, i32_mut);
        DepthwiseI8(s, s.rows()): depthwise::forward_i8(part, i8, i8, i32, i32, i8, i8_mut, i32_mut);
        DepthwiseI16(s, s.rows()): depthwise::forward_i16(part, i8, i8, i32, i32, i8, i16_mut, i32_mut);
        LayerNormI8(s, s.rows): layer_norm::forward_i8(i16 * s.c, i16, i32, i8_mut * s.c);
        LayerNormI16(s, s.rows): layer_norm::forward_i16(i16 * s.c, i16, i32, i16_mut * s.c);
        TableI8(s, s.len.div_ceil(ROW)): table::forward_i8(i8, i8_mut * ROW) @ in_place;
        AvgPoolI8(s, s.rows()): pool::average_i8(part, i8, i8_mut);
        AvgPoolI16(s, s.rows()): pool::average_i16(part, i16, i16_mut);
        MaxPoolI8(s, s.rows()): pool::max_i8(part, i8, i8_mut);
        AddI16(s, s.len.div_ceil(ROW)): add::forward_i16(i16 * ROW, i16_mut * ROW) @ in_place;
        AddI16I8(s, s.len.div_ceil(ROW)): add::forward_i16_i8(i8 * ROW, i16_mut * ROW) @ in_place;
        AddI8(s, s.len.div_ceil(ROW)): add::forward_i8(i8 * ROW, i8_mut * ROW) @ in_place;
        RescaleI16I8(s, s.len.div_ceil(ROW)): rescale::i16_to_i8(i16 * ROW, i8_mut * ROW);
        RescaleI8I16(s, s.len.div_ceil(ROW)): rescale::i8_to_i16(i8 * ROW, i16_mut * ROW);
        RescaleI8(s, s.len.div_ceil(ROW)): rescale::i8_to_i8(i8_mut * ROW) @ in_place;
        PrependI16(s, s.rows()): tokens::prepend_i16(part, i16, i16, i16_mut);
        TakeI16(s, 1): tokens::take_i16(i16, i16_mut);
        TakeI8(s, 1): tokens::take_i8(i8, i8_mut);
        SoftmaxAttentionI8(s, s.rows()): softmax_attention::forward_i8(part, i8, i8, i8, i8_mut, i32_mut);
        GramI8(s, s.rows()): gram::forward_i8(part, i8, i16_mut);
        InverseNewtonQ22(s, s.rows()): inverse::newton_q22(part, i16, i32_mut, i32_mut);
        SymNormQ22(s, s.rows()): sym_norm::forward_q22(part, i16, i32_mut) @ in_place;
        AccumulateI8(s, s.rows()): kernel::accumulate_i8(part, i8, i8, i8, i32_mut, i32_mut);
        ProductQ22(s, s.rows()): product::forward_q22(part, i32, i32, i16_mut, i32_mut, i32_mut);
        ApplyI8(s, s.rows()): kernel::apply_i8(part, i8, i8, i16, i32, i8_mut, i32_mut);
        GramTriangleI8(s, s.rows()): gram::triangle_i8(part, i8, i32_mut);
        FactorQ26(s, s.rows()): solve::factor_q26(part, i32_mut, i32_mut) @ in_place;
        SolveQ26(s, s.rows()): solve::solve_q26(part, i32, i32, i32_mut, i32_mut, i32_mut) @ in_place;
        SymScaleQ30(s, s.heads): sym_norm::scale_triangle_q30(i32 * s.m * (s.m + 1) / 2, i32_mut * s.m);
        NarrowI16(s, s.rows()): solve::narrow_i16(part, i32, i32_mut, i16_mut) @ in_place;
        LinearI8W4(s, s.rows): linear::forward_i8_w4(i8 * s.k, u8, i32, i32, i8, i8_mut * s.n, i32_mut);
        LinearI16W4(s, s.rows): linear::forward_i16_w4(i8 * s.k, u8, i32, i32, i8, i16_mut * s.n, i32_mut);
        ConvI8W4(s, s.rows()): conv::forward_i8_w4(part, i8, u8, i32, i32, i8, i8_mut, i8_mut, i32_mut);
        ConvI16W4(s, s.rows()): conv::forward_i16_w4(part, i8, u8, i32, i32, i8, i16_mut, i8_mut, i32_mut);
        LinearI8W16(s, s.rows): linear::forward_i8_w16(i8 * s.k, i16, i32, i32, i8, i8_mut * s.n, i32_mut);
        LinearI16W16(s, s.rows): linear::forward_i16_w16(i8 * s.k, i16, i32, i32, i8, i16_mut * s.n, i32_mut);
        ConvI8W16(s, s.rows()): conv::forward_i8_w16(part, i8, i16, i32, i32, i8, i8_mut, i8_mut, i32_mut);
        ConvI16W16(s, s.rows()): conv::forward_i16_w16(part, i8, i16, i32, i32, i8, i16_mut, i8_mut, i32_mut);
    }
}
