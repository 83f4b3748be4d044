//! The integer ops: the same functions on a host and on a device, so the same bits.

use super::arena::Operands;
use super::dispatch::dispatch;
use crate::format::MAX_SHAPE_WORDS;
use crate::ops::*;
use crate::program::{Kind, Op, Runs};

/// Runs an op of this kind; `false` if it is none of these.
#[inline(always)]
pub(super) fn run<S: Runs>(kind: Kind, words: &[u32; MAX_SHAPE_WORDS], o: &mut Operands<'_>) -> bool {
    dispatch! { S, kind, words, o, tick;
        InputU8: input::forward_u8(i32, i32, i8, i8_mut) @ in_place;
        InputI16: input::forward_i16(i16, i32, i32, i8, i8_mut);
        LinearI8: linear::forward_i8(i8, i8, i32, i32, i8, i8_mut, i32_mut);
        LinearI16: linear::forward_i16(i8, i8, i32, i32, i8, i16_mut, i32_mut);
        ConvI8: conv::forward_i8(i8, i8, i32, i32, i8, i8_mut, i8_mut, i32_mut);
        ConvI16: conv::forward_i16(i8, i8, i32, i32, i8, i16_mut, i8_mut, i32_mut);
        DepthwiseI8: depthwise::forward_i8(i8, i8, i32, i32, i8, i8_mut, i32_mut);
        DepthwiseI16: depthwise::forward_i16(i8, i8, i32, i32, i8, i16_mut, i32_mut);
        LayerNormI8: layer_norm::forward_i8(i16, i16, i32, i8_mut);
        LayerNormI16: layer_norm::forward_i16(i16, i16, i32, i16_mut);
        TableI8: table::forward_i8(i8, i8_mut) @ in_place;
        AvgPoolI8: pool::average_i8(i8, i8_mut);
        AvgPoolI16: pool::average_i16(i16, i16_mut);
        MaxPoolI8: pool::max_i8(i8, i8_mut);
        AddI16: add::forward_i16(i16, i16_mut) @ in_place;
        AddI16I8: add::forward_i16_i8(i8, i16_mut) @ in_place;
        AddI8: add::forward_i8(i8, i8_mut) @ in_place;
        RescaleI16I8: rescale::i16_to_i8(i16, i8_mut);
        RescaleI8I16: rescale::i8_to_i16(i8, i16_mut);
        RescaleI8: rescale::i8_to_i8(i8_mut) @ in_place;
        PrependI16: tokens::prepend_i16(i16, i16, i16_mut);
        TakeI16: tokens::take_i16(i16, i16_mut);
        TakeI8: tokens::take_i8(i8, i8_mut);
        SoftmaxAttentionI8: softmax_attention::forward_i8(i8, i8, i8, i8_mut, i32_mut);
        GramI8: gram::forward_i8(i8, i16_mut);
        InverseNewtonQ22: inverse::newton_q22(i16, i32_mut, i32_mut);
        SymNormQ22: sym_norm::forward_q22(i16, i32_mut) @ in_place;
        AccumulateI8: kernel::accumulate_i8(i8, i8, i8, i32_mut, i32_mut);
        ProductQ22: product::forward_q22(i32, i32, i16_mut, i32_mut, i32_mut);
        ApplyI8: kernel::apply_i8(i8, i8, i16, i32, i8_mut, i32_mut);
        GramTriangleI8: gram::triangle_i8(i8, i32_mut);
        FactorQ26: solve::factor_q26(i32_mut, i32_mut) @ in_place;
        SolveQ26: solve::solve_q26(i32, i32, i32_mut, i32_mut, i32_mut) @ in_place;
        SymScaleQ30: sym_norm::scale_triangle_q30(i32, i32_mut);
        NarrowI16: solve::narrow_i16(i32, i32_mut, i16_mut) @ in_place;
    }
}
