//! Differentiation ahead of time: appends each op's hand-written backward op.
//!
//! There is no tape. Walking the ops backwards, the gradient of a tensor that several ops read is
//! the sum of what each gives, added by explicit ops; every backward op overwrites what it writes.
//! Ops whose gradient is the cotangent itself (a residual add) cost nothing: the cotangent tensor is
//! passed on.

use super::{Op, Program, Role, TensorId};
use crate::ops::{self, DType};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// The gradients that [`differentiate`] appended.
#[derive(Clone, Debug, Default)]
pub struct Differentiated {
    /// Parameters and their gradients.
    pub gradients: Vec<(TensorId, TensorId)>,
}

/// Appends to `program` the gradient of `loss` (one element) with respect to every parameter.
///
/// Parameters the loss does not depend on get no gradient tensor.
///
/// # Panics
/// If an op between the parameters and the loss has no backward: the builder is at fault.
pub fn differentiate(program: &mut Program, loss: TensorId) -> Differentiated {
    let forward = program.nodes.clone();
    let mut wants: Vec<bool> = program.tensors.iter().map(|t| matches!(t.role, Role::Param { .. })).collect();
    let mut reads = vec![0usize; wants.len()];
    for node in &forward {
        let any = node.ins.iter().flatten().any(|id| wants[id.index()]);
        // A bias sets the scale of rounded weights, and gets no gradient from that.
        let given = if matches!(node.op, Op::FakeQuantWeights(_)) { &node.ins[..1] } else { &node.ins[..] };
        for id in given.iter().flatten() {
            reads[id.index()] += 1;
        }
        for id in node.outs.iter().flatten() {
            wants[id.index()] |= any;
        }
    }
    let mut pass = Pass { program, wants, reads, parts: Vec::new() };
    pass.parts.resize(pass.wants.len(), Vec::new());
    let one = pass.program.constant_f32("loss.gradient", &[1], &[1.0]);
    pass.parts[loss.index()].push(one);
    for node in forward.iter().rev() {
        let Some(out) = node.outs[0] else { continue };
        if pass.wants[out.index()]
            && let Some(dy) = pass.total(out)
        {
            pass.backward(node.op, &node.ins, node.outs[0], dy);
        }
    }
    let mut result = Differentiated::default();
    for i in 0..pass.parts.len() {
        let id = TensorId(i as u16);
        if matches!(pass.program.tensor(id).role, Role::Param { .. })
            && let Some(gradient) = pass.total(id)
        {
            result.gradients.push((id, gradient));
        }
    }
    result
}

struct Pass<'p> {
    program: &'p mut Program,
    /// Whether the gradient of a (forward) tensor is needed.
    wants: Vec<bool>,
    /// How many operands of forward ops a tensor is, those without a gradient aside.
    reads: Vec<usize>,
    /// What the ops walked so far give to the gradient of a tensor.
    parts: Vec<Vec<TensorId>>,
}

impl Pass<'_> {
    /// The sum of the parts of the gradient of `id`.
    fn total(&mut self, id: TensorId) -> Option<TensorId> {
        let parts = core::mem::take(&mut self.parts[id.index()]);
        let (&first, rest) = parts.split_first()?;
        let mut sum = first;
        for (i, &part) in rest.iter().enumerate() {
            let last = i + 1 == rest.len();
            let out = if last { self.gradient_tensor(id) } else { self.activation(id) };
            let len = self.program.tensor(id).len();
            self.program.push(ops::add::Add { len }, &[Some(sum), Some(part)], &[Some(out)]);
            sum = out;
        }
        Some(sum)
    }

    fn activation(&mut self, id: TensorId) -> TensorId {
        let t = self.program.tensor(id);
        let (name, shape) = (format!("d {}", t.name), t.shape.clone());
        self.program.add(name, DType::F32, &shape, Role::Activation)
    }

    /// Where the whole gradient of `id` goes: among the gradients for a parameter.
    fn gradient_tensor(&mut self, id: TensorId) -> TensorId {
        match self.program.tensor(id).role {
            Role::Param { .. } => {
                let t = self.program.tensor(id);
                let (name, shape) = (format!("d {}", t.name), t.shape.clone());
                self.program.add(name, DType::F32, &shape, Role::GradOf(id))
            }
            _ => self.activation(id),
        }
    }

    /// A tensor for one part of the gradient of `id`, if that gradient is needed.
    fn part(&mut self, id: Option<TensorId>) -> Option<TensorId> {
        let id = id.filter(|id| self.wants[id.index()])?;
        let part = if self.reads[id.index()] == 1 { self.gradient_tensor(id) } else { self.activation(id) };
        self.parts[id.index()].push(part);
        Some(part)
    }

    /// As [`Self::part`], where the backward op writes the gradient whether it is needed or not.
    fn part_or_scratch(&mut self, id: Option<TensorId>) -> Option<TensorId> {
        self.part(id).or_else(|| id.map(|id| self.activation(id)))
    }

    /// Passes the cotangent on as it is.
    fn pass_on(&mut self, id: Option<TensorId>, dy: Option<TensorId>) {
        let (Some(dy), Some(id)) = (dy, id) else { return };
        if !self.wants[id.index()] {
            return;
        }
        if matches!(self.program.tensor(id).role, Role::Param { .. }) {
            // A parameter's gradient must lie among the gradients: copy by scaling with one.
            let out = self.part(Some(id));
            let len = self.program.tensor(id).len();
            self.program.push(ops::scale::Scale { len, factor: 1.0 }, &[Some(dy)], &[out]);
        } else {
            self.parts[id.index()].push(dy);
        }
    }

    /// Scratch of `op`, its last output.
    fn scratch(&mut self, op: Op) -> Option<TensorId> {
        let signature = op.signature();
        let out = signature.output(signature.n_outs() - 1);
        Some(self.program.add("scratch", out.dtype, &[out.len as usize], Role::Activation))
    }

    fn backward(&mut self, op: Op, ins: &[Option<TensorId>], y: Option<TensorId>, dy: TensorId) {
        let dy = Some(dy);
        let input = |i: usize| ins.get(i).copied().flatten();
        let (a, b, c) = (input(0), input(1), input(2));
        match op {
            Op::Linear(s) => {
                let grad = ops::linear::LinearGrad { rows: s.rows, k: s.k, n: s.n };
                let outs = [self.part(a), self.part_or_scratch(b), self.part(c)];
                self.program.push(grad, &[a, b, dy], &outs);
            }
            Op::Conv(s) => {
                let grad = ops::conv::ConvGrad::from_words(&s.to_words()).into();
                let outs = [self.part(a), self.part_or_scratch(b), self.part(c), self.scratch(grad)];
                self.program.push(grad, &[a, b, dy], &outs);
            }
            Op::Depthwise(s) => {
                let grad = ops::depthwise::DepthwiseGrad::from_words(&s.to_words());
                let outs = [self.part(a), self.part_or_scratch(b), self.part(c)];
                self.program.push(grad, &[a, b, dy], &outs);
            }
            Op::BatchNorm(s) => {
                let grad = ops::batch_norm::BatchNormGrad { rows: s.rows, c: s.c, eps: s.eps };
                let outs = [self.part(a), self.part_or_scratch(b), self.part_or_scratch(c)];
                self.program.push(grad, &[a, b, dy], &outs);
            }
            Op::BatchNormEval(s) => {
                let grad = ops::batch_norm::BatchNormEvalGrad { rows: s.rows, c: s.c, eps: s.eps };
                let outs = [self.part(a), self.part_or_scratch(b), self.part_or_scratch(c)];
                self.program.push(grad, &[a, b, input(3), input(4), dy], &outs);
            }
            Op::LayerNorm(s) => {
                let grad = ops::layer_norm::LayerNormGrad { rows: s.rows, c: s.c, eps: s.eps };
                let outs = [self.part(a), self.part_or_scratch(b), self.part_or_scratch(c)];
                self.program.push(grad, &[a, b, dy], &outs);
            }
            Op::GeluTanh(s) => {
                let dx = self.part(a);
                self.program.push(ops::gelu::GeluTanhGrad { len: s.len }, &[dy, a], &[dx]);
            }
            Op::GeluErf(s) => {
                let dx = self.part(a);
                self.program.push(ops::gelu::GeluErfGrad { len: s.len }, &[dy, a], &[dx]);
            }
            Op::Relu(s) => {
                let dx = self.part(a);
                self.program.push(ops::relu::ReluGrad { len: s.len }, &[dy, y], &[dx]);
            }
            Op::AvgPool(s) => {
                let dx = self.part(a);
                self.program.push(ops::pool::AvgPoolGrad::from_words(&s.to_words()), &[dy], &[dx]);
            }
            Op::MaxPool(s) => {
                let dx = self.part(a);
                self.program.push(ops::pool::MaxPoolGrad::from_words(&s.to_words()), &[a, dy], &[dx]);
            }
            Op::Add(_) => {
                self.pass_on(a, dy);
                self.pass_on(b, dy);
            }
            Op::AddBroadcast(s) => {
                self.pass_on(a, dy);
                if let dp @ Some(_) = self.part(b) {
                    self.program.push(ops::add::AddBroadcastGrad { batch: s.batch, len: s.len }, &[dy], &[dp]);
                }
            }
            Op::Scale(_) | Op::Dropout(_) | Op::DropPath(_) => {
                let dx = self.part(a);
                self.program.push(op, &[dy], &[dx]);
            }
            Op::Resize(s) => {
                let dx = self.part(a);
                self.program.push(ops::resize::ResizeGrad::from_words(&s.to_words()), &[dy], &[dx]);
            }
            Op::Prepend(s) => {
                let grad = ops::tokens::PrependGrad { batch: s.batch, n: s.n, c: s.c };
                let outs = [self.part_or_scratch(a), self.part_or_scratch(b)];
                self.program.push(grad, &[dy], &outs);
            }
            Op::Take(s) => {
                let dx = self.part(a);
                self.program.push(ops::tokens::TakeGrad::from_words(&s.to_words()), &[dy], &[dx]);
            }
            Op::SoftmaxAttention(s) => {
                let grad = ops::softmax_attention::SoftmaxAttentionGrad::from_words(&s.to_words()).into();
                self.three_inputs(grad, [a, b, c], dy);
            }
            Op::KernelAccumulate(s) => {
                let grad = ops::kernel::KernelAccumulateGrad::from_words(&s.to_words()).into();
                self.three_inputs(grad, [a, b, c], dy);
            }
            Op::KernelApply(s) => {
                let grad = ops::kernel::KernelApplyGrad::from_words(&s.to_words()).into();
                self.three_inputs(grad, [a, b, c], dy);
            }
            Op::Gram(s) => {
                let dl = self.part(a);
                self.program.push(ops::gram::GramGrad::from_words(&s.to_words()), &[a, y, dy], &[dl]);
            }
            Op::InverseNewton(ops::inverse::InverseNewton { count, m, .. })
            | Op::InverseLdlt(ops::inverse::InverseLdlt { count, m, .. }) => {
                let grad = ops::inverse::InverseGrad { count, m }.into();
                let outs = [self.part(a), self.scratch(grad)];
                self.program.push(grad, &[y, dy], &outs);
            }
            Op::SymNorm(s) => {
                let grad = ops::sym_norm::SymNormGrad { count: s.count, m: s.m };
                let outs = [self.part_or_scratch(a), self.part_or_scratch(b)];
                self.program.push(grad, &[a, b, dy], &outs);
            }
            Op::Product(s) => {
                let grad = ops::product::ProductGrad { count: s.count, m: s.m, d: s.d };
                let outs = [self.part_or_scratch(a), self.part_or_scratch(b)];
                self.program.push(grad, &[a, b, dy], &outs);
            }
            Op::CrossEntropy(s) => {
                let dx = self.part(a);
                self.program.push(ops::cross_entropy::CrossEntropyGrad::from_words(&s.to_words()), &[a, b], &[dx]);
            }
            Op::FakeQuant(s) => {
                let dx = self.part(a);
                self.program.push(ops::fake_quant::FakeQuantGrad::from_words(&s.to_words()), &[dy, a], &[dx]);
            }
            Op::FakeQuantWeights(_) => self.pass_on(a, dy),
            _ => panic!("{} has no backward", op.kind().name()),
        }
    }

    /// An attention op: three inputs, their three gradients, and scratch.
    fn three_inputs(&mut self, grad: Op, ins: [Option<TensorId>; 3], dy: Option<TensorId>) {
        let [dq, dk, dv] = ins.map(|id| self.part_or_scratch(id));
        let scratch = self.scratch(grad);
        self.program.push(grad, &[ins[0], ins[1], ins[2], dy], &[dq, dk, dv, scratch]);
    }
}
