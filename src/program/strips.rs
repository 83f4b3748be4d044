//! Layers in strips: a pass over an inference Program in integers that trades a little flash for RAM.
//!
//! A convolution needs only the rows of its input that its windows cover, and a linear layer, a LayerNorm, a sum or the
//! last pass of attention only the tokens that they make. Where such layers follow each other, they can run from
//! end to end for a few rows at a time: the maps between them, the wide one inside an MLP say, then exist as strips
//! only, and rows of an input that no later strip reads make room for rows of the output. Neighbouring strips
//! of convolutions compute the rows that both need twice.
//!
//! A strip is made of ordinary ops on [parts](Role::Part) of what the layers read and make as a whole.
//! Padding lies above and below alike, so a strip at the edge of an image may also compute
//! rows at its inner end that lack their neighbours: nobody reads them.
//!
//! Which layers are cut, and into how many strips, is chosen for the whole Program at once: for every arena
//! that some choice leads to, dynamic programming finds the fewest bytes of file.

use super::plan::{least_arena, lifetimes, live_bytes};
use super::{ALIGN, Kind, Node, Op, Plan, Program, Role, Space, Tensor, TensorId};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// The bytes of file that a byte of arena is worth: parts have at least twice as much flash as RAM.
const RAM_WEIGHT: usize = 2;

/// Tokens that kernels of linear layers take at a time, where there are as many.
const TOKENS: usize = 8;

/// The most strips that layers are cut into: each adds its ops to the file, and saves less than the one before.
const MAX_STRIPS: usize = 32;

/// The most layers that are cut together.
const MAX_LAYERS: usize = 16;

/// `program`, with layers in strips where the arena shrinks by more than half of what the file grows.
///
/// The outputs are the same. Only integer ops on one image are cut, and only where rows begin at a multiple of
/// [`ALIGN`] bytes: other Programs come back as they are, and so do those that have parts already.
pub fn in_strips(program: &Program) -> Program {
    if program.tensors.iter().any(|t| matches!(t.role, Role::Part { .. })) {
        return program.clone();
    }
    let mut best = program.clone();
    // The contents of constants need not be copied to every candidate.
    let data: Vec<Vec<u8>> = best.tensors.iter_mut().map(|t| core::mem::take(&mut t.data)).collect();
    best = best_of(best);
    best.tensors.iter_mut().zip(data).for_each(|(t, data)| t.data = data);
    best
}

/// The best that [`in_strips`] finds.
fn best_of(program: Program) -> Program {
    let cost = |p: &Program| RAM_WEIGHT * Plan::new(p).size(Space::Arena) + record_bytes(p);
    let choices = choices(&program);
    let mut best = (cost(&program), program.clone());
    for (least, cuts) in choices {
        // No plan is smaller than what is alive.
        if least >= best.0 {
            break;
        }
        let mut candidate = program.clone();
        for Cut { nodes, rows, .. } in cuts.iter().rev() {
            let run = Run::new(&candidate, nodes.clone()).and_then(|run| run.cut(&candidate, *rows));
            candidate = run.expect("what was cut by itself");
        }
        let cost = cost(&candidate);
        if cost < best.0 {
            best = (cost, candidate);
        }
    }
    best.1
}

/// Bytes that tensors and ops take in a file.
fn record_bytes(program: &Program) -> usize {
    let op = |node: &Node| 4 + 4 * (node.ins.len() + node.outs.len()).div_ceil(2) + 4 * node.op.kind().words();
    32 * program.tensors.len() + program.nodes.iter().map(op).sum::<usize>()
}

/// A way to cut layers.
#[derive(Clone, Debug, PartialEq)]
struct Cut {
    /// The layers.
    nodes: Range<usize>,
    /// Rows of the last one's output that are made at a time.
    rows: usize,
    /// The most bytes that are alive at a time while they run.
    peak: usize,
    /// Bytes that the file grows by.
    growth: usize,
}

/// How many of the [`choices`] are planned at most.
const PLANNED: usize = 32;

/// What may be cut: sets of cuts and the least that each costs, best first.
fn choices(program: &Program) -> Vec<(usize, Vec<Cut>)> {
    let (live, lives) = (live_bytes(program), lifetimes(program));
    let cuttable = |i: usize| Rows::of(&program.nodes[i].op).is_some();
    let floor = (0..live.len()).filter(|&i| !cuttable(i)).map(|i| live[i]).max().unwrap_or(0);
    let mut cuts: Vec<Vec<Cut>> = vec![Vec::new(); live.len()];
    for first in 0..live.len() {
        for end in first + 1..=live.len().min(first + MAX_LAYERS) {
            if !cuttable(end - 1) {
                break;
            }
            let highest = live[first..end].iter().max().copied().unwrap_or(0);
            if highest > floor {
                cuts[first].extend(ways(program, &lives, first..end).into_iter().filter(|cut| cut.peak < highest));
            }
        }
    }
    let mut arenas: Vec<usize> = cuts.iter().flatten().map(|cut| cut.peak.max(floor)).collect();
    arenas.sort_unstable();
    arenas.dedup();
    let file = record_bytes(program);
    let at = |arena: usize| {
        let (growth, chosen) = within(arena, &live, &cuts)?;
        Some((RAM_WEIGHT * arena + file + growth, chosen))
    };
    let mut found: Vec<(usize, Vec<Cut>)> = arenas.into_iter().filter_map(at).collect();
    // A larger arena than cuts need is that of a choice found already.
    found.dedup_by(|a, b| a.1 == b.1);
    found.sort_by_key(|(cost, _)| *cost);
    found.truncate(PLANNED);
    found
}

/// The cuts with which an arena of so many bytes may do, where the file grows least, and by how much.
/// `cuts` are those that begin at each node.
fn within(arena: usize, live: &[usize], cuts: &[Vec<Cut>]) -> Option<(usize, Vec<Cut>)> {
    // From each node to the end: the growth, and the cut that begins there.
    let mut best: Vec<Option<(usize, Option<&Cut>)>> = vec![None; live.len() + 1];
    best[live.len()] = Some((0, None));
    for i in (0..live.len()).rev() {
        let whole = if live[i] <= arena { best[i + 1].map(|(growth, _)| (growth, None)) } else { None };
        let fitting = cuts[i].iter().filter(|cut| cut.peak <= arena);
        let cut = fitting.filter_map(|cut| Some((best[cut.nodes.end]?.0 + cut.growth, Some(cut))));
        best[i] = whole.into_iter().chain(cut).min_by_key(|(growth, _)| *growth);
    }
    let (growth, _) = best[0]?;
    let (mut chosen, mut i) = (Vec::new(), 0);
    while i < live.len() {
        match best[i]?.1 {
            Some(cut) => {
                chosen.push(cut.clone());
                i = cut.nodes.end;
            }
            None => i += 1,
        }
    }
    Some((growth, chosen))
}

/// All ways to cut these layers.
fn ways(program: &Program, lives: &[Option<Range<usize>>], nodes: Range<usize>) -> Vec<Cut> {
    let alone = alone(program, lives, nodes.clone());
    let whole = record_bytes(&alone);
    let Some(run) = Run::new(&alone, 0..nodes.len()) else { return Vec::new() };
    let way = |rows: usize| {
        let strips = run.cut(&alone, rows)?;
        let (peak, growth) = (least_arena(&strips), record_bytes(&strips) - whole);
        Some(Cut { nodes: nodes.clone(), rows, peak, growth })
    };
    run.strip_rows(&alone).into_iter().filter_map(way).collect()
}

/// A Program of these nodes alone: what is alive before them comes in, what is alive after them goes out.
fn alone(program: &Program, lives: &[Option<Range<usize>>], nodes: Range<usize>) -> Program {
    let alive_across = |moment: usize| {
        let across = |life: &Option<Range<usize>>| life.as_ref().is_some_and(|l| l.start < moment && moment < l.end);
        let ids = lives.iter().enumerate().filter(|(_, life)| across(life));
        ids.map(|(i, _)| TensorId(i as u16)).collect()
    };
    Program {
        tensors: program.tensors.clone(),
        inputs: alive_across(nodes.start + 1),
        outputs: alive_across(nodes.end + 1),
        shard_ops: nodes.len(),
        nodes: program.nodes[nodes].to_vec(),
        labels: Vec::new(),
    }
}

/// How the rows of an op's output depend on those of its input. A row is what an image has of them, or a token,
/// or some tokens.
#[derive(Clone, Copy)]
struct Rows {
    /// The inputs, from the first on, of which it reads some rows; all of any other.
    inputs: usize,
    /// The field of its shape that says how much there is.
    field: &'static str,
    reach: Reach,
}

#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// Of single elements: any rows will do.
    Elements,
    /// Of a token each.
    Tokens,
    /// Of the rows of an image below a window.
    Windows,
}

impl Rows {
    /// `None` if the op cannot be cut.
    fn of(op: &Op) -> Option<Self> {
        use Reach::*;
        let (inputs, field, reach) = match op.kind() {
            Kind::TableI8 | Kind::RescaleI16I8 | Kind::RescaleI8I16 | Kind::RescaleI8 => (1, "len", Elements),
            Kind::AddI16 | Kind::AddI16I8 | Kind::AddI8 => (2, "len", Elements),
            Kind::InputU8 | Kind::InputI16 => (1, "rows", Tokens),
            Kind::LinearI8 | Kind::LinearI8W4 | Kind::LinearI8W16 => (1, "rows", Tokens),
            Kind::LinearI16 | Kind::LinearI16W4 | Kind::LinearI16W16 => (1, "rows", Tokens),
            Kind::LayerNormI8 | Kind::LayerNormI16 => (1, "rows", Tokens),
            Kind::ApplyI8 => (1, "n", Tokens),
            Kind::ConvI8
            | Kind::ConvI8W4
            | Kind::ConvI8W16
            | Kind::ConvI16
            | Kind::ConvI16W4
            | Kind::ConvI16W16
            | Kind::DepthwiseI8
            | Kind::DepthwiseI16
            | Kind::MaxPoolI8 => (1, "h", Windows),
            _ => return None,
        };
        (reach != Windows || get(op, "batch") == Some(1)).then_some(Self { inputs, field, reach })
    }
}

/// The field of an op's shape with this name.
fn get(op: &Op, name: &str) -> Option<usize> {
    let i = op.kind().fields().iter().position(|field| *field == name)?;
    let mut words = Vec::new();
    op.encode(|word| words.push(word));
    Some(words[i] as usize)
}

/// A layer of which each row of the output depends on a few rows of the inputs.
struct Layer {
    /// Its node.
    node: usize,
    how: Rows,
    /// Rows of the input and of the output.
    h: usize,
    oh: usize,
    /// Bytes of a row of each input that is cut, elements and bytes of a row of the output.
    rows_in: Vec<usize>,
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
    /// The first row that it makes, not after the first that is wanted.
    first: usize,
    /// Rows that it makes.
    made: usize,
}

impl Layer {
    /// The layer that node `i` is, with so many rows in and out.
    fn new(program: &Program, i: usize, how: Rows, h: usize, oh: usize) -> Option<Self> {
        let node = &program.nodes[i];
        let (kernel, stride, pad) = match how.reach {
            Reach::Windows => (get(&node.op, "kh")?, get(&node.op, "stride_h")?, get(&node.op, "pad_h").unwrap_or(0)),
            _ => (1, 1, 0),
        };
        let y = program.tensor(node.outs[0]?);
        let ins: Vec<_> = node.ins[..how.inputs].iter().map(|x| x.map(|x| program.tensor(x))).collect::<Option<_>>()?;
        let whole = ins.iter().all(|x| x.len().is_multiple_of(h)) && y.len().is_multiple_of(oh);
        if !whole || (how.reach == Reach::Tokens && !get(&node.op, how.field)?.is_multiple_of(h)) {
            return None;
        }
        let rows_in = ins.iter().map(|x| x.bytes() / h).collect();
        let (row_len, row_out) = (y.len() / oh, y.bytes() / oh);
        Some(Self { node: i, how, h, oh, rows_in, row_len, row_out, kernel, stride, pad })
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
            let mut bytes = self.rows_in.iter().map(|row| start * row);
            bytes.all(|bytes| bytes.is_multiple_of(ALIGN)) && (lead * self.row_out).is_multiple_of(ALIGN)
        };
        while !aligned(start, lead) && start >= stride {
            (start, lead) = (start - stride, lead + 1);
        }
        let rows = start..h.min(end - self.pad);
        let made = (rows.len() + 2 * pad - kernel) / stride + 1;
        let possible = aligned(start, lead) && !(exact && lead > 0);
        possible.then_some(Strip { rows, pad, first: wanted.start - lead, made })
    }

    /// The op that makes a strip.
    fn op(&self, program: &Program, strip: &Strip) -> Op {
        let op = &program.nodes[self.node].op;
        let mut words = Vec::new();
        op.encode(|word| words.push(word));
        let mut set = |name: &str, value: &dyn Fn(usize) -> usize| {
            if let Some(i) = op.kind().fields().iter().position(|field| *field == name) {
                words[i] = value(words[i] as usize) as u32;
            }
        };
        match self.how.reach {
            Reach::Windows => {
                set("h", &|_| strip.rows.len());
                set("pad_h", &|_| strip.pad);
            }
            _ => set(self.how.field, &|all| all / self.oh * strip.made),
        }
        Op::decode(op.kind(), &words)
    }
}

/// Layers that follow each other, and can be cut together.
struct Run {
    layers: Vec<Layer>,
    /// The tensors that exist between these layers only.
    inner: Vec<TensorId>,
    nodes: Range<usize>,
}

impl Run {
    /// `None` if these nodes cannot be cut together.
    fn new(program: &Program, nodes: Range<usize>) -> Option<Self> {
        let how: Vec<Rows> = nodes.clone().map(|i| Rows::of(&program.nodes[i].op)).collect::<Option<_>>()?;
        let heights = heights(program, &nodes, &how)?;
        let mut layers = Vec::new();
        for (i, how) in nodes.clone().zip(how) {
            let node = &program.nodes[i];
            let height = |id: Option<TensorId>| heights.get(&id?).copied();
            layers.push(Layer::new(program, i, how, height(node.ins[0])?, height(node.outs[0])?)?);
        }
        let made: Vec<TensorId> = nodes.clone().filter_map(|i| program.nodes[i].outs[0]).collect();
        // Of what is made here, nothing else is read as a whole; what is not cut and not made here is as it is.
        let mut whole = layers.iter().flat_map(|l| &program.nodes[l.node].ins[l.how.inputs..]).flatten();
        if whole.any(|id| made.contains(id)) || heights.keys().any(|id| program.tensor(*id).role != Role::Activation) {
            return None;
        }
        let is_part = |t: &Tensor, whole: TensorId| matches!(t.role, Role::Part { of, .. } if of == whole);
        let elsewhere = |id: &TensorId| {
            let others = program.nodes[..nodes.start].iter().chain(&program.nodes[nodes.end..]);
            let mut operands = others.flat_map(|node| node.ins.iter().chain(&node.outs)).flatten();
            let in_parts = || program.tensors.iter().any(|t| is_part(t, *id));
            program.outputs.contains(id) || operands.any(|operand| operand == id) || in_parts()
        };
        let (outer, inner): (Vec<TensorId>, Vec<TensorId>) = made.into_iter().partition(elsewhere);
        let oh = layers.last()?.oh;
        outer.iter().all(|id| heights[id] == oh).then_some(Self { layers, inner, nodes })
    }

    /// Rows of strips that are worth a try: the fewest for each number of strips that begin at a multiple of
    /// [`ALIGN`] bytes and have a multiple of [`TOKENS`].
    fn strip_rows(&self, program: &Program) -> Vec<usize> {
        let Some(last) = self.layers.last() else { return Vec::new() };
        let fewest = |row: usize, unit: usize| (0..).map(|i| 1 << i).find(|n| (n * row).is_multiple_of(unit));
        let steps = self.layers.iter().filter_map(|layer| {
            let Node { op, outs, .. } = &program.nodes[layer.node];
            let ends = !outs[0].is_some_and(|y| self.inner.contains(&y));
            let aligned = if ends { fewest(layer.row_out, ALIGN) } else { None };
            let tokens = if layer.how.reach == Reach::Tokens { get(op, layer.how.field)? / layer.oh } else { TOKENS };
            aligned.max(fewest(tokens, TOKENS))
        });
        let step = steps.max().unwrap_or(1);
        let mut rows: Vec<usize> =
            (2..=MAX_STRIPS.min(last.oh)).map(|strips| last.oh.div_ceil(strips).next_multiple_of(step)).collect();
        rows.dedup();
        rows.retain(|&rows| rows < last.oh);
        rows
    }

    /// `program` with these layers in strips of `rows` rows of the last one's output, if they can be cut there.
    fn cut(&self, program: &Program, rows: usize) -> Option<Program> {
        let height = self.layers.last()?.oh;
        let mut out = program.clone();
        let after = out.nodes.split_off(self.nodes.end);
        out.nodes.truncate(self.nodes.start);
        for start in (0..height).step_by(rows) {
            let strips = self.strips(program, start..height.min(start + rows))?;
            self.emit(program, &mut out, start, &strips)?;
        }
        out.nodes.extend(after);
        out.shard_ops = out.nodes.len();
        Some(out)
    }

    /// What each layer makes for the rows `target` of all that is read elsewhere.
    fn strips(&self, program: &Program, target: Range<usize>) -> Option<Vec<Strip>> {
        let mut wanted: BTreeMap<TensorId, Range<usize>> = BTreeMap::new();
        let mut strips = Vec::new();
        for layer in self.layers.iter().rev() {
            let node = &program.nodes[layer.node];
            let y = node.outs[0]?;
            let inner = self.inner.contains(&y);
            // What is read elsewhere is made once, so all here read the same rows of it.
            let rows = match wanted.remove(&y) {
                Some(rows) if inner || rows == target => rows,
                None if !inner => target.clone(),
                _ => return None,
            };
            let strip = layer.strip(&rows, !inner)?;
            for &x in node.ins[..layer.how.inputs].iter().flatten() {
                let all = wanted.entry(x).or_insert_with(|| strip.rows.clone());
                *all = all.start.min(strip.rows.start)..all.end.max(strip.rows.end);
            }
            strips.push(strip);
        }
        strips.reverse();
        Some(strips)
    }

    /// Appends the ops of `strips` to `out`, which has all before. `start` is their first row.
    fn emit(&self, program: &Program, out: &mut Program, start: usize, strips: &[Strip]) -> Option<()> {
        // The rows that there are of each tensor between the layers; parts of the others.
        let mut strip_of: BTreeMap<TensorId, (TensorId, Range<usize>)> = BTreeMap::new();
        let mut parts: Vec<(TensorId, Range<usize>, TensorId)> = Vec::new();
        let mut part = |out: &mut Program, of: TensorId, rows: Range<usize>, row_len: usize, name: &str| {
            let known = parts.iter().find(|(id, r, _)| *id == of && *r == rows);
            known.map(|(.., part)| *part).unwrap_or_else(|| {
                let part = out.part(name, of, rows.start * row_len, &[rows.len(), row_len]);
                parts.push((of, rows, part));
                part
            })
        };
        for (layer, strip) in self.layers.iter().zip(strips) {
            let node = &program.nodes[layer.node];
            let op = layer.op(program, strip);
            let mut ins = node.ins.clone();
            for x in ins[..layer.how.inputs].iter_mut().flatten() {
                let whole = program.tensor(*x);
                let name = format!("{}.rows{start}", whole.name);
                *x = match strip_of.get(x) {
                    Some((id, rows)) if *rows == strip.rows => *id,
                    Some((id, rows)) => {
                        let rows = strip.rows.start - rows.start..strip.rows.end - rows.start;
                        part(out, *id, rows, whole.len() / layer.h, &name)
                    }
                    None => part(out, *x, strip.rows.clone(), whole.len() / layer.h, &name),
                };
            }
            // The first strip's tensors take the place of those that no longer exist.
            let reshaped = |out: &mut Program, id: TensorId, shape: &[usize]| {
                if start == 0 {
                    out.tensors[id.index()].shape = shape.into();
                    return id;
                }
                let whole = program.tensor(id);
                let new = out.add(format!("{}.rows{start}", whole.name), whole.dtype, shape, Role::Activation);
                let tensor = &mut out.tensors[new.index()];
                (tensor.scale, tensor.zero) = (whole.scale, whole.zero);
                new
            };
            let y = node.outs[0]?;
            let made = strip.first..strip.first + strip.made;
            let mut outs = vec![Some(if self.inner.contains(&y) {
                let id = reshaped(out, y, &[strip.made, layer.row_len]);
                strip_of.insert(y, (id, made));
                id
            } else if made.end <= layer.oh && (made.start * layer.row_out).is_multiple_of(ALIGN) {
                let name = format!("{}.rows{start}", program.tensor(y).name);
                part(out, y, made, layer.row_len, &name)
            } else {
                return None;
            })];
            for (i, &scratch) in node.outs.iter().enumerate().skip(1) {
                let len = op.signature().output(i).len as usize;
                outs.push(scratch.map(|id| reshaped(out, id, &[len])));
            }
            out.push(op, &ins, &outs);
        }
        Some(())
    }
}

/// The rows of what these nodes cut: that of images where an op has one, else tokens. `None` where they differ.
fn heights(program: &Program, nodes: &Range<usize>, how: &[Rows]) -> Option<BTreeMap<TensorId, usize>> {
    let mut heights: BTreeMap<TensorId, usize> = BTreeMap::new();
    let set = |heights: &mut BTreeMap<TensorId, usize>, id: Option<TensorId>, rows: usize| {
        (*heights.entry(id?).or_insert(rows) == rows).then_some(())
    };
    let layers = || program.nodes[nodes.clone()].iter().zip(how);
    for (node, how) in layers().filter(|(_, how)| how.reach == Reach::Windows) {
        let (h, kernel) = (get(&node.op, how.field)?, get(&node.op, "kh")?);
        let padded = h + 2 * get(&node.op, "pad_h").unwrap_or(0);
        set(&mut heights, node.ins[0], h)?;
        set(&mut heights, node.outs[0], (padded - kernel) / get(&node.op, "stride_h")? + 1)?;
    }
    loop {
        // What one operand has, all of a layer have.
        let before = heights.len();
        for (node, how) in layers().filter(|(_, how)| how.reach != Reach::Windows) {
            let cut = || node.ins[..how.inputs].iter().chain(&node.outs[..1]);
            if let Some(rows) = cut().find_map(|id| heights.get(&(*id)?).copied()) {
                cut().try_for_each(|&id| set(&mut heights, id, rows))?;
            }
        }
        if heights.len() > before {
            continue;
        }
        let unknown = layers()
            .find(|(node, how)| how.reach == Reach::Tokens && !node.ins[0].is_some_and(|id| heights.contains_key(&id)));
        match unknown {
            Some((node, how)) => set(&mut heights, node.ins[0], get(&node.op, how.field)?)?,
            None => return Some(heights),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Buffer, Executor, Memory};
    use crate::format::{View, write};
    use crate::math::random::Stream;
    use crate::ops::add::AddI16I8;
    use crate::ops::conv::ConvI8;
    use crate::ops::depthwise::{DepthwiseI8, DepthwiseI16};
    use crate::ops::layer_norm::LayerNormI8;
    use crate::ops::linear::LinearI8;
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

    /// Weights, biases and factors of `n` filters of `taps` weights.
    fn filters(p: &mut Program, n: usize, taps: usize, r: &mut Random) -> [Option<TensorId>; 4] {
        let words = |value: i32| vec![value; n].into_iter().flat_map(i32::to_le_bytes).collect();
        let w = (0..n * taps).map(|_| r.below(256) as u8).collect();
        [
            Some(p.constant("w", DType::I8, &[n * taps], w)),
            Some(p.constant("bias", DType::I32, &[n], words(77))),
            Some(p.constant("multiplier", DType::I32, &[n], words(1 << 30))),
            Some(p.constant("shift", DType::I8, &[n], vec![37; n])),
        ]
    }

    /// An MLP beside its input, on `rows` tokens of `c` channels.
    fn residual(p: &mut Program, r: &mut Random, x: TensorId, rows: usize, c: usize) -> TensorId {
        let hidden = r.one_of(&[4, 16, 24]);
        let [gamma, beta] = [2, 4].map(|size| vec![1; size * c]);
        let [gamma, beta] =
            [(DType::I16, gamma), (DType::I32, beta)].map(|(t, data)| Some(p.constant("g", t, &[c], data)));
        let norm = LayerNormI8 { rows, c, eps: 9, shift: 8, zero: 3, lo: -120, hi: 127 };
        let mut y = p.apply("norm", norm, &[Some(x), gamma, beta], &[rows, c]);
        for (k, n) in [(c, hidden), (hidden, c)] {
            let [w, bias, multiplier, shift] = filters(p, n, k, r);
            let op = LinearI8 { rows, k, n, zero: -4, lo: -128, hi: 100 };
            y = p.apply("fc", op, &[Some(y), w, bias, multiplier, shift], &[rows, n]);
        }
        let add = AddI16I8 { len: rows * c, ma: 200, mb: 3000, shift: 8 };
        p.apply("sum", add, &[Some(x), Some(y)], &[rows, c])
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
            let (zero_in, zero, lo, hi) = (r.below(256) as i32 - 128, 5, -100, 120);
            let out = r.one_of(&[4, 8]);
            let kind = r.below(6);
            let (heads, batch, kh, stride_h, stride_w, pad_h, pad_w) = (1, 1, k, stride, 1, pad, kw / 2);
            let name = format!("y{i}");
            let oh = (h + 2 * pad).checked_sub(k).map(|room| room / stride + 1);
            x = match kind {
                0 if let Some(oh) = oh => {
                    let (c_in, c_out) = (c, out);
                    let [weights, bias, multiplier, shift] = filters(&mut p, c_out, kh * kw * c_in, r);
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
                    let [weights, bias, multiplier, shift] = filters(&mut p, c, kh * kw, r);
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
                3 | 4 => {
                    let len = h * w * c;
                    let (multiplier, shift) = (1 << 30, 24);
                    let wide = RescaleI8I16 { len, multiplier, shift, zero_in };
                    let mut wide = p.apply(&format!("{name}.wide"), wide, &[Some(x)], &[1, h, w, c]);
                    for _ in 3..kind {
                        wide = residual(&mut p, r, wide, h * w, c);
                    }
                    let narrow = RescaleI16I8 { len, multiplier, shift: 36, zero, lo, hi };
                    p.apply(&name, narrow, &[Some(wide)], &[1, h, w, c])
                }
                _ => {
                    let table = (0..256).map(|_| r.below(256) as u8).collect();
                    let table = p.constant("table", DType::I8, &[256], table);
                    p.apply(&name, TableI8 { len: h * w * c }, &[Some(x), Some(table)], &[1, h, w, c])
                }
            };
        }
        // To int16, in part of the cases: rows of twice the bytes.
        let [weights, bias, multiplier, shift] = filters(&mut p, c, 1, r);
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
            let n = whole.nodes.len();
            let all = (0..n).flat_map(|first| (first + 1..=n).map(move |end| first..end));
            for layers in all.filter_map(|nodes| Run::new(&whole, nodes)) {
                let rows = 1 + r.below(layers.layers.last().unwrap().oh.max(2) / 2);
                let Some(strips) = layers.cut(&whole, rows) else { continue };
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
