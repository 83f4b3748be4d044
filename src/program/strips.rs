//! The first layers in strips: a pass over an inference Program in integers that trades a little flash for RAM.
//!
//! A convolution needs only the rows of its input that its windows cover. Where several layers with such
//! locality follow each other, they can run from end to end for a few rows of the last one's output at a time:
//! the maps between them then exist as strips only, and rows of an input that no later strip reads make
//! room for rows of the output. Neighbouring strips compute the rows that both need twice.
//!
//! A strip is made of ordinary ops on [parts](Role::Part) of the first layer's input and of the last layer's
//! output. Padding lies above and below alike, so a strip at the edge of an image may also compute
//! rows at its inner end that lack their neighbours: nobody reads them.

use super::plan::least_arena;
use super::{ALIGN, Kind, Op, OpSet, Plan, Program, Role, Space, TensorId};
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

/// `program`, with layers in strips where the arena shrinks by more than the file grows.
///
/// The outputs are the same. Only integer ops on one image are cut, and only where rows begin at a multiple of
/// [`ALIGN`] bytes: other Programs come back as they are.
pub fn in_strips(program: &Program) -> Program {
    let mut best = program.clone();
    // The contents of constants need not be copied to every candidate.
    let data: Vec<Vec<u8>> = best.tensors.iter_mut().map(|t| core::mem::take(&mut t.data)).collect();
    best = best_of(best);
    best.tensors.iter_mut().zip(data).for_each(|(t, data)| t.data = data);
    best
}

/// The best that [`in_strips`] finds.
fn best_of(mut best: Program) -> Program {
    let mut cost = Plan::new(&best).size(Space::Arena) + record_bytes(&best);
    loop {
        // Ranked by the least arenas, which are quick to know, and taken by the plan.
        let candidates = runs(&best).into_iter().flat_map(|layers| {
            let rows = 1..=layers.last().map_or(0, |last| last.oh / 2);
            let best = &best;
            rows.filter_map(move |rows| cut(best, &layers, rows))
        });
        let least = candidates.min_by_key(|candidate| least_arena(candidate) + record_bytes(candidate));
        let Some(candidate) = least else { return best };
        let new_cost = Plan::new(&candidate).size(Space::Arena) + record_bytes(&candidate);
        if new_cost >= cost {
            return best;
        }
        (best, cost) = (candidate, new_cost);
    }
}

/// Bytes that tensors and ops take in a file.
fn record_bytes(program: &Program) -> usize {
    let op = |node: &super::Node| 4 + 4 * (node.ins.len() + node.outs.len()).div_ceil(2) + 4 * node.op.kind().words();
    32 * program.tensors.len() + program.nodes.iter().map(op).sum::<usize>()
}

/// A layer whose rows depend on a few rows of its input.
#[derive(Clone)]
struct Layer {
    /// Its node.
    node: usize,
    /// Rows of the input and of the output.
    h: usize,
    oh: usize,
    /// Bytes of a row of the input, elements and bytes of a row of the output.
    row_in: usize,
    row_len: usize,
    row_out: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
}

/// Some rows of a layer's output, and what makes them.
struct Strip {
    /// The rows of the input that it reads.
    rows: Range<usize>,
    /// Padding above and below those.
    pad: usize,
    /// Rows that it makes before those that are wanted.
    lead: usize,
    /// Rows that it makes.
    made: usize,
}

impl Layer {
    /// The layer that node `i` is, where its input has `h` rows if the op does not say.
    fn new(program: &Program, i: usize, h: Option<usize>) -> Option<Self> {
        let node = &program.nodes[i];
        if !OpSet::INTEGERS.contains(node.op.kind()) {
            return None;
        }
        let (x, y) = (program.tensor(node.ins[0]?), program.tensor(node.outs[0]?));
        let (mut h, mut kernel, mut stride, mut pad) = (h, 1, 1, 0);
        match node.op.kind() {
            Kind::TableI8 | Kind::RescaleI16I8 | Kind::RescaleI8I16 | Kind::RescaleI8 => {}
            _ => {
                if field(&node.op, "batch")? != 1 {
                    return None;
                }
                h = Some(field(&node.op, "h")?);
                (kernel, stride) = (field(&node.op, "kh")?, field(&node.op, "stride_h")?);
                pad = field(&node.op, "pad_h").unwrap_or(0);
            }
        }
        let h = h?;
        let oh = (h + 2 * pad - kernel) / stride + 1;
        let (row_in, row_len, row_out) = (x.bytes() / h, y.len() / oh, y.bytes() / oh);
        Some(Self { node: i, h, oh, row_in, row_len, row_out, kernel, stride, pad })
    }

    /// What makes the rows `wanted`; `None` where no rows of the input that begin at a multiple of
    /// [`ALIGN`] do. Where `exact`, nothing is made before them.
    fn strip(&self, wanted: &Range<usize>, exact: bool) -> Option<Strip> {
        let &Self { h, kernel, stride, pad, .. } = self;
        let above = wanted.start * stride < pad;
        let end = (wanted.end - 1) * stride + kernel;
        let padded = above || end > h + pad;
        // Padding moves the first window up: windows are made until it is where the first wanted one is.
        let (mut start, mut lead, pad) = match (padded, above) {
            (false, _) => (wanted.start * stride - pad, 0, 0),
            (true, true) => (0, wanted.start, pad),
            (true, false) => ((wanted.start - pad.div_ceil(stride)) * stride, pad.div_ceil(stride), pad),
        };
        let aligned = |start: usize, lead: usize| {
            (start * self.row_in).is_multiple_of(ALIGN) && (lead * self.row_out).is_multiple_of(ALIGN)
        };
        while !aligned(start, lead) && start >= stride {
            (start, lead) = (start - stride, lead + 1);
        }
        let rows = start..h.min(end - self.pad);
        let made = (rows.len() + 2 * pad - kernel) / stride + 1;
        (aligned(start, lead) && !(exact && lead > 0)).then_some(Strip { rows, pad, lead, made })
    }

    /// The op that makes a strip.
    fn op(&self, program: &Program, strip: &Strip) -> Op {
        let op = &program.nodes[self.node].op;
        let mut words = Vec::new();
        op.encode(|word| words.push(word));
        for (name, value) in [("h", strip.rows.len()), ("pad_h", strip.pad), ("len", strip.made * self.row_len)] {
            if let Some(i) = op.kind().fields().iter().position(|field| *field == name) {
                words[i] = value as u32;
            }
        }
        Op::decode(op.kind(), &words)
    }
}

/// The field of an op's shape with this name.
fn field(op: &Op, name: &str) -> Option<usize> {
    let i = op.kind().fields().iter().position(|field| *field == name)?;
    let mut words = Vec::new();
    op.encode(|word| words.push(word));
    Some(words[i] as usize)
}

/// All runs of layers of which each is the only reader of the one before.
fn runs(program: &Program) -> Vec<Vec<Layer>> {
    let whole = |id: TensorId| {
        let mut roles = program.tensors.iter().map(|t| t.role);
        program.tensor(id).role == Role::Activation && !roles.any(|r| matches!(r, Role::Part { of, .. } if of == id))
    };
    let inner = |id: TensorId| {
        let operands = program.nodes.iter().flat_map(|node| node.ins.iter().chain(&node.outs));
        whole(id) && operands.filter(|o| **o == Some(id)).count() == 2 && !program.outputs.contains(&id)
    };
    let mut runs = Vec::new();
    for first in 0..program.nodes.len() {
        let mut run: Vec<Layer> = Vec::new();
        for i in first..program.nodes.len() {
            let node = &program.nodes[i];
            let follows = match run.last() {
                None => node.ins[0].is_some_and(whole),
                Some(last) => node.ins[0] == program.nodes[last.node].outs[0] && node.ins[0].is_some_and(inner),
            };
            let layer = if follows { Layer::new(program, i, run.last().map(|last| last.oh)) } else { None };
            let (Some(layer), true) = (layer, node.outs[0].is_some_and(whole)) else { break };
            run.push(layer);
            runs.push(run.clone());
        }
    }
    runs
}

/// `program` with `layers` in strips of `rows` rows of the last one's output, if they can be cut there.
fn cut(program: &Program, layers: &[Layer], rows: usize) -> Option<Program> {
    let (first, last) = (layers.first()?, layers.last()?);
    let mut out = program.clone();
    let after = out.nodes.split_off(last.node + 1);
    out.nodes.truncate(first.node);
    for start in (0..last.oh).step_by(rows) {
        // What the last layer wants of the one before, and so on up to the first.
        let mut strips = Vec::new();
        let mut wanted = start..last.oh.min(start + rows);
        for layer in layers.iter().rev() {
            let strip = layer.strip(&wanted, layer.node == last.node)?;
            wanted = strip.rows.clone();
            strips.push(strip);
        }
        let x = program.nodes[first.node].ins[0]?;
        let name = format!("{}.rows{}", program.tensor(x).name, wanted.start);
        let shape = [wanted.len(), program.tensor(x).len() / first.h];
        let mut x = out.part(name, x, wanted.start * shape[1], &shape);
        while let Some(strip) = strips.pop() {
            let layer = &layers[layers.len() - 1 - strips.len()];
            let node = &program.nodes[layer.node];
            let op = layer.op(program, &strip);
            let y = node.outs[0]?;
            let name = format!("{}.rows{start}", program.tensor(y).name);
            let shape = [strip.made, layer.row_len];
            // The first strip's tensors take the place of those that no longer exist.
            let mut strip_of = |id: TensorId, name, shape: &[usize]| {
                if start == 0 {
                    out.tensors[id.index()].shape = shape.into();
                    return id;
                }
                let whole = program.tensor(id);
                let new = out.add(name, whole.dtype, shape, Role::Activation);
                let tensor = &mut out.tensors[new.index()];
                (tensor.scale, tensor.zero) = (whole.scale, whole.zero);
                new
            };
            let mut outs = Vec::new();
            for (i, &scratch) in node.outs.iter().enumerate().skip(1) {
                let len = op.signature().output(i).len as usize;
                outs.push(scratch.map(|id| strip_of(id, format!("{name}.scratch"), &[len])));
            }
            let made = match strips.last() {
                Some(_) => strip_of(y, name.clone(), &shape),
                None if start + strip.made <= layer.oh && (start * layer.row_out).is_multiple_of(ALIGN) => {
                    out.part(name.clone(), y, start * layer.row_len, &shape)
                }
                None => return None,
            };
            outs.insert(0, Some(made));
            let mut ins = node.ins.clone();
            ins[0] = Some(x);
            out.push(op, &ins, &outs);
            x = match strips.last() {
                Some(next) if next.rows.len() < strip.made => {
                    out.part(name, made, strip.lead * layer.row_len, &[next.rows.len(), layer.row_len])
                }
                _ => made,
            };
        }
    }
    out.nodes.extend(after);
    out.shard_ops = out.nodes.len();
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Buffer, Executor, Memory};
    use crate::format::{View, write};
    use crate::math::random::Stream;
    use crate::ops::conv::ConvI8;
    use crate::ops::depthwise::{DepthwiseI8, DepthwiseI16};
    use crate::ops::pool::MaxPoolI8;
    use crate::ops::rescale::{RescaleI8I16, RescaleI16I8};
    use crate::ops::table::TableI8;
    use crate::ops::{DType, Tick};
    use crate::program::verify;
    use std::vec;

    /// Random numbers in sequence.
    struct Random(Stream, u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.1 += 1;
            self.0.below(self.1, n as u32) as usize
        }

        fn one_of(&mut self, choices: &[usize]) -> usize {
            choices[self.below(choices.len())]
        }
    }

    /// Some layers on one image, the last of them read as a whole.
    fn layers(r: &mut Random) -> Program {
        let mut p = Program::new();
        let (mut h, mut w, mut c) = (8 + r.below(30), r.one_of(&[4, 8, 16, 6]), r.one_of(&[4, 8, 3]));
        let mut x = p.add("x", DType::I8, &[1, h, w, c], Role::Activation);
        p.inputs.push(x);
        for i in 0..1 + r.below(4) {
            let (k, stride) = (r.one_of(&[1, 2, 3, 5]), 1 + r.below(3));
            let (pad, kw) = (r.below(k), r.one_of(&[1, 3]));
            let bytes = |n: usize, r: &mut Random| (0..n).map(|_| r.below(256) as u8).collect::<Vec<u8>>();
            let words = |n: usize, value: i32| vec![value; n].into_iter().flat_map(i32::to_le_bytes).collect();
            let (zero_in, zero, lo, hi) = (r.below(256) as i32 - 128, 5, -100, 120);
            let out = r.one_of(&[4, 8]);
            let kind = r.below(5);
            let filters = match kind {
                0 => out,
                _ => c,
            };
            let constants = |p: &mut Program, taps: usize, r: &mut Random| {
                let w = bytes(taps, r);
                [
                    Some(p.constant("w", DType::I8, &[taps], w)),
                    Some(p.constant("bias", DType::I32, &[filters], words(filters, 77))),
                    Some(p.constant("multiplier", DType::I32, &[filters], words(filters, 1 << 30))),
                    Some(p.constant("shift", DType::I8, &[filters], vec![37; filters])),
                ]
            };
            let (heads, batch, kh, stride_h, stride_w, pad_h, pad_w) = (1, 1, k, stride, 1, pad, kw / 2);
            let name = format!("y{i}");
            let oh = (h + 2 * pad).checked_sub(k).map(|room| room / stride + 1);
            x = match kind {
                0 if let Some(oh) = oh => {
                    let (c_in, c_out) = (c, out);
                    let [weights, bias, multiplier, shift] = constants(&mut p, c_out * kh * kw * c_in, r);
                    let op = ConvI8 {
                        batch,
                        h,
                        w,
                        c_in,
                        c_out,
                        kh,
                        kw,
                        stride_h,
                        stride_w,
                        pad_h,
                        pad_w,
                        heads,
                        zero_in,
                        zero,
                        lo,
                        hi,
                    };
                    (h, c) = (oh, c_out);
                    p.apply(&name, op, &[Some(x), weights, bias, multiplier, shift], &[1, h, w, c])
                }
                1 if let Some(oh) = oh => {
                    let [weights, bias, multiplier, shift] = constants(&mut p, kh * kw * c, r);
                    let share = 1;
                    let op = DepthwiseI8 {
                        batch,
                        h,
                        w,
                        c,
                        kh,
                        kw,
                        stride_h,
                        stride_w,
                        pad_h,
                        pad_w,
                        share,
                        zero_in,
                        zero,
                        lo,
                        hi,
                    };
                    h = oh;
                    p.apply(&name, op, &[Some(x), weights, bias, multiplier, shift], &[1, h, w, c])
                }
                2 if h >= k && w >= 2 => {
                    let op = MaxPoolI8 { batch, h, w, c, kh, kw: 2, stride_h, stride_w: 2 };
                    (h, w) = ((h - k) / stride + 1, (w - 2) / 2 + 1);
                    p.apply(&name, op, &[Some(x)], &[1, h, w, c])
                }
                3 => {
                    let len = h * w * c;
                    let (multiplier, shift) = (1 << 30, 24);
                    let wide = RescaleI8I16 { len, multiplier, shift, zero_in };
                    let wide = p.apply(&format!("{name}.wide"), wide, &[Some(x)], &[1, h, w, c]);
                    let narrow = RescaleI16I8 { len, multiplier, shift: 36, zero, lo, hi };
                    p.apply(&name, narrow, &[Some(wide)], &[1, h, w, c])
                }
                _ => {
                    let table = bytes(256, r);
                    let table = p.constant("table", DType::I8, &[256], table);
                    p.apply(&name, TableI8 { len: h * w * c }, &[Some(x), Some(table)], &[1, h, w, c])
                }
            };
        }
        // To int16, in part of the cases: rows of twice the bytes.
        let [weights, bias, multiplier] = [1, 4, 4].map(|size| vec![1; size * c]);
        let constants = [
            Some(p.constant("w", DType::I8, &[c], weights)),
            Some(p.constant("bias", DType::I32, &[c], bias)),
            Some(p.constant("multiplier", DType::I32, &[c], multiplier)),
            Some(p.constant("shift", DType::I8, &[c], vec![20; c])),
        ];
        let [weights, bias, multiplier, shift] = constants;
        let (batch, kh, kw, stride_h, stride_w, pad_h, pad_w, share, zero_in) = (1, 1, 1, 1, 1, 0, 0, 1, 0);
        let op = DepthwiseI16 { batch, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share, zero_in };
        let y = p.apply("y", op, &[Some(x), weights, bias, multiplier, shift], &[1, h, w, c]);
        p.outputs.push(y);
        p
    }

    /// The output of a Program with this plan, in an arena that was full of something else.
    fn run(program: &Program, plan: &Plan) -> Vec<u8> {
        let file = Buffer::copy_of(&write(program, plan).unwrap());
        let view = View::new_checked(file.bytes()).unwrap();
        let mut arena = Buffer::zeroed(view.size(Space::Arena));
        arena.bytes_mut().fill(0xaa);
        let mut executor: Executor<'_> = Executor::new(view, Memory::new(arena.bytes_mut())).unwrap();
        let input = executor.tensor_mut(view.input_id(0)).unwrap();
        input.iter_mut().enumerate().for_each(|(i, x)| *x = Stream::new(3).below(i as u64, 256) as u8);
        executor.run(&Tick::default());
        executor.tensor(view.output_id(0)).to_vec()
    }

    /// `plan` with an activation and its parts elsewhere.
    fn moved(program: &Program, plan: &Plan, id: TensorId, to: usize) -> Plan {
        let parts = program.tensors.iter().enumerate().filter_map(|(i, t)| match t.role {
            Role::Part { of, offset } if of == id => Some((TensorId(i as u16), to + offset)),
            _ => None,
        });
        parts.fold(plan.moved(id, to), |plan, (part, to)| plan.moved(part, to))
    }

    #[test]
    fn strips_compute_what_the_whole_does_and_no_wrong_plan_of_them_is_accepted() {
        let (mut cuts, mut refused, mut accepted) = (0, 0, 0);
        for seed in 0..150 {
            let mut r = Random(Stream::new(seed), 0);
            let whole = layers(&mut r);
            let expected = run(&whole, &Plan::new(&whole));
            for layers in runs(&whole) {
                let rows = 1 + r.below(layers.last().unwrap().oh.max(2) / 2);
                let Some(strips) = cut(&whole, &layers, rows) else { continue };
                let plan = Plan::new(&strips);
                assert_eq!(verify(&strips, &plan), Ok(()), "{seed}: {strips:?}");
                assert_eq!(run(&strips, &plan), expected, "{seed}, {rows} rows: {strips:?}");
                cuts += 1;
                let roots: Vec<TensorId> = (0..strips.tensors.len())
                    .map(|i| TensorId(i as u16))
                    .filter(|id| strips.tensor(*id).role == Role::Activation)
                    .collect();
                for _ in 0..4 {
                    let [id, other] = [0, 1].map(|_| roots[r.below(roots.len())]);
                    let to = plan.offset(other) + ALIGN * r.below(4);
                    let mutant = moved(&strips, &plan, id, to);
                    if verify(&strips, &mutant).is_ok() {
                        assert_eq!(run(&strips, &mutant), expected, "{seed}: {id:?} on {other:?}");
                        accepted += 1;
                    } else {
                        refused += 1;
                    }
                }
                // A part without its whole.
                let part = (0..strips.tensors.len())
                    .map(|i| TensorId(i as u16))
                    .find(|id| matches!(strips.tensor(*id).role, Role::Part { .. }) && plan.offset(*id) > 0);
                if let Some(part) = part {
                    let fault = verify(&strips, &plan.moved(part, plan.offset(part) - ALIGN));
                    assert_eq!(fault, Err(crate::program::Fault::Outside { tensor: part }));
                }
            }
        }
        std::println!("{cuts} cuts, {refused} plans refused, {accepted} accepted");
        assert!(cuts > 150 && refused > 300 && accepted > 100, "{cuts} {refused} {accepted}");
    }

    /// Rows of the image make room for rows of its feature map.
    #[test]
    fn an_image_need_not_coexist_with_its_map() {
        let mut p = Program::new();
        let (h, w, c_in, c_out) = (64, 64, 4, 8);
        let x = p.add("x", DType::I8, &[1, h, w, c_in], Role::Activation);
        p.inputs.push(x);
        let ins = [
            Some(x),
            Some(p.constant("w", DType::I8, &[c_out, 3, 3, c_in], vec![1; c_out * 9 * c_in])),
            Some(p.constant("bias", DType::I32, &[c_out], vec![0; 4 * c_out])),
            Some(p.constant("multiplier", DType::I32, &[c_out], vec![1; 4 * c_out])),
            Some(p.constant("shift", DType::I8, &[c_out], vec![30; c_out])),
        ];
        let words = [1, h, w, c_in, c_out, 3, 3, 2, 2, 1, 1, 1, 0, 0, 0, 127].map(|word| word as u32);
        let y = p.apply("y", ConvI8::from_words(&words), &ins, &[1, h / 2, w / 2, c_out]);
        p.outputs.push(y);
        let strips = in_strips(&p);
        let [before, after] = [&p, &strips].map(|p| Plan::new(p).size(Space::Arena));
        let (image, map) = (h * w * c_in, h / 2 * (w / 2) * c_out);
        assert!(before >= image + map, "{before}");
        assert!(after < image + map / 2, "{after}");
        assert_eq!(run(&strips, &Plan::new(&strips)), run(&p, &Plan::new(&p)));
    }
}
