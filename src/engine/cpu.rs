//! The f32 ops: inference, backward, loss and optimizer.

use super::arena::Operands;
use super::dispatch::dispatch;
use crate::format::MAX_SHAPE_WORDS;
use crate::ops::*;
use crate::program::{Kind, Op, Runs};

/// Runs an op of this kind; `false` if it is none of these.
#[inline(always)]
pub(super) fn run<S: Runs>(kind: Kind, words: &[u32; MAX_SHAPE_WORDS], o: &mut Operands<'_>, tick: &Tick) -> bool {
    dispatch! { S, kind, words, o, tick;
        Linear: linear::forward(f32, f32, f32, f32_mut);
        LinearGrad: linear::backward(f32, f32, f32, f32_mut, f32_mut, f32_mut);
        Conv: conv::forward(f32, f32, f32, f32_mut, f32_mut);
        ConvGrad: conv::backward(f32, f32, f32, f32_mut, f32_mut, f32_mut, f32_mut);
        Depthwise: depthwise::forward(f32, f32, f32, f32_mut);
        DepthwiseGrad: depthwise::backward(f32, f32, f32, f32_mut, f32_mut, f32_mut);
        BatchNorm: batch_norm::forward(f32, f32, f32, f32_mut, f32_mut, f32_mut);
        BatchNormGrad: batch_norm::backward(f32, f32, f32, f32_mut, f32_mut, f32_mut);
        BatchNormEval: batch_norm::forward_eval(f32, f32, f32, f32, f32_mut) @ in_place;
        BatchNormEvalGrad: batch_norm::backward_eval(f32, f32, f32, f32, f32, f32_mut, f32_mut, f32_mut);
        RunningUpdate: batch_norm::update(f32, f32_mut);
        LayerNorm: layer_norm::forward(f32, f32, f32, f32_mut);
        LayerNormGrad: layer_norm::backward(f32, f32, f32, f32_mut, f32_mut, f32_mut);
        GeluTanh: gelu::tanh(f32_mut) @ in_place;
        GeluTanhGrad: gelu::tanh_grad(f32, f32_mut) @ in_place;
        GeluErf: gelu::erf(f32_mut) @ in_place;
        GeluErfGrad: gelu::erf_grad(f32, f32_mut) @ in_place;
        Relu: relu::forward(f32_mut) @ in_place;
        ReluGrad: relu::backward(f32, f32_mut) @ in_place;
        AvgPool: pool::average(f32, f32_mut);
        AvgPoolGrad: pool::average_grad(f32, f32_mut);
        MaxPool: pool::max(f32, f32_mut);
        MaxPoolGrad: pool::max_grad(f32, f32, f32_mut);
        Add: add::forward(f32, f32_mut) @ in_place;
        AddBroadcast: add::broadcast(f32, f32_mut) @ in_place;
        AddBroadcastGrad: add::broadcast_grad(f32, f32_mut);
        Scale: scale::forward(f32_mut) @ in_place;
        Normalise: normalise::forward(f32, f32, f32_mut) @ in_place;
        Resize: resize::forward(f32, f32_mut);
        ResizeGrad: resize::backward(f32, f32_mut);
        Prepend: tokens::prepend(f32, f32, f32_mut);
        PrependGrad: tokens::prepend_grad(f32, f32_mut, f32_mut);
        Take: tokens::take(f32, f32_mut);
        TakeGrad: tokens::take_grad(f32, f32_mut);
        SoftmaxAttention: softmax_attention::forward(f32, f32, f32, f32_mut, f32_mut);
        SoftmaxAttentionGrad: softmax_attention::backward(f32, f32, f32, f32, f32_mut, f32_mut, f32_mut, f32_mut);
        Gram: gram::forward(f32, f32_mut);
        GramGrad: gram::backward(f32, f32, f32, f32_mut);
        InverseNewton: inverse::newton(f32, f32_mut, f32_mut);
        InverseLdlt: inverse::ldlt(f32, f32_mut, f32_mut);
        InverseGrad: inverse::backward(f32, f32, f32_mut, f32_mut);
        SymNorm: sym_norm::forward(f32, f32_mut) @ in_place;
        SymNormGrad: sym_norm::backward(f32, f32, f32, f32_mut, f32_mut);
        KernelAccumulate: kernel::accumulate(f32, f32, f32, f32_mut, f32_mut);
        KernelAccumulateGrad: kernel::accumulate_grad(f32, f32, f32, f32, f32_mut, f32_mut, f32_mut, f32_mut);
        KernelApply: kernel::apply(f32, f32, f32, f32_mut, f32_mut);
        KernelApplyGrad: kernel::apply_grad(f32, f32, f32, f32, f32_mut, f32_mut, f32_mut, f32_mut);
        Product: product::forward(f32, f32, f32_mut);
        ProductGrad: product::backward(f32, f32, f32, f32_mut, f32_mut);
        CrossEntropy: cross_entropy::forward(f32, f32, f32_mut);
        CrossEntropyGrad: cross_entropy::backward(f32, f32, f32_mut);
        Dropout: dropout::dropout(f32_mut) @ random;
        DropPath: dropout::drop_path(f32_mut) @ random;
        FakeQuant: fake_quant::forward(f32_mut) @ in_place;
        FakeQuantGrad: fake_quant::backward(f32, f32_mut) @ in_place;
        FakeQuantWeights: fake_quant::weights(f32, f32, f32_mut);
        ClipScale: adamw::clip_scale(f32, f32_mut, f32_mut);
        AdamW: adamw::step(f32, f32, f32, f32_mut, f32_mut, f32_mut);
        Ema: adamw::ema(f32, f32, f32_mut);
    }
}
