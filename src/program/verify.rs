//! An independent check of a plan: it replays the Program on paper, byte range by byte range, and
//! knows nothing of lifetimes or in-place groups.

use super::{Plan, Program, Role, Space, TensorId};
use alloc::vec::Vec;
use core::ops::Range;

/// What is wrong with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A tensor does not fit its space, is not aligned, or does not lie where it is a part of another.
    Outside {
        /// The tensor.
        tensor: TensorId,
    },
    /// An op reads a tensor that nothing wrote before.
    Unwritten {
        /// The op.
        op: usize,
        /// The tensor.
        tensor: TensorId,
    },
    /// An op (or the caller, after the last one) reads a tensor of which `by` overwrote a part.
    Overwritten {
        /// The reading op; the number of ops for the caller.
        op: usize,
        /// The tensor read.
        tensor: TensorId,
        /// The tensor written over it.
        by: TensorId,
    },
    /// Two operands of one op overlap where one is written.
    Alias {
        /// The op.
        op: usize,
        /// The operand that is written.
        tensor: TensorId,
        /// The other operand.
        with: TensorId,
    },
}

/// Checks `plan` against `program`: every tensor inside its space, no op writes over another of its
/// operands (but an in-place op over its first input), every part where it is a part, and every read of an
/// activation sees what was last written to that tensor, its parts or what it is a part of.
///
/// # Errors
/// The first fault in the order of execution.
pub fn verify(program: &Program, plan: &Plan) -> Result<(), Fault> {
    let range = |id: TensorId| {
        let start = plan.offset(id);
        start..start + program.tensor(id).bytes()
    };
    let overlap = |a: TensorId, b: TensorId| {
        let same_space = program.tensor(a).space() == program.tensor(b).space();
        same_space && range(a).start < range(b).end && range(b).start < range(a).end
    };
    for (i, t) in program.tensors.iter().enumerate() {
        let id = TensorId(i as u16);
        let used = t.space() != Space::Arena || plan.lifetime(id).is_some();
        let outside = range(id).end > plan.size(t.space()) || !plan.offset(id).is_multiple_of(super::ALIGN);
        let astray = match t.role {
            Role::Part { of, offset } => range(id).start != range(of).start + offset || range(id).end > range(of).end,
            _ => false,
        };
        if used && (outside || astray) {
            return Err(Fault::Outside { tensor: id });
        }
    }

    let mut contents = Contents { program, plan, of: program.tensors.iter().map(|_| Content::default()).collect() };
    for &id in &program.inputs {
        contents.write(id);
    }
    for (op, node) in program.nodes.iter().enumerate() {
        for &id in node.ins.iter().flatten() {
            contents.read(op, id)?;
        }
        let outs: Vec<TensorId> = node.outs.iter().flatten().copied().collect();
        for (i, &out) in outs.iter().enumerate() {
            let others = node.ins.iter().enumerate().filter_map(|(j, id)| {
                let exempt = i == 0 && j == 0 && node.op.signature().is_in_place();
                id.filter(|&id| !(exempt && range(id) == range(out)))
            });
            if let Some(with) = others.chain(outs[..i].iter().copied()).find(|&other| overlap(out, other)) {
                return Err(Fault::Alias { op, tensor: out, with });
            }
        }
        for &out in &outs {
            contents.write(out);
        }
    }
    for &id in &program.outputs {
        contents.read(program.nodes.len(), id)?;
    }
    Ok(())
}

/// What an activation that is no part holds: which bytes of the arena have its own value, in ascending order,
/// and which the others were last taken by.
#[derive(Clone, Default)]
struct Content {
    own: Vec<Range<usize>>,
    lost: Vec<(Range<usize>, TensorId)>,
}

struct Contents<'a> {
    program: &'a Program,
    plan: &'a Plan,
    of: Vec<Content>,
}

impl Contents<'_> {
    /// The activation that `id` is or is a part of, and the bytes of `id`; `None` outside the arena.
    fn locate(&self, id: TensorId) -> Option<(TensorId, Range<usize>)> {
        let t = self.program.tensor(id);
        let start = self.plan.offset(id);
        let root = match t.role {
            Role::Part { of, .. } => of,
            _ => id,
        };
        (t.space() == Space::Arena).then_some((root, start..start + t.bytes()))
    }

    fn write(&mut self, id: TensorId) {
        let Some((root, bytes)) = self.locate(id) else { return };
        for (i, content) in self.of.iter_mut().enumerate() {
            let meets = |own: &Range<usize>| own.start < bytes.end && bytes.start < own.end;
            if i != root.index() && content.own.iter().any(meets) {
                content.own = content.own.iter().flat_map(|own| without(own, &bytes)).collect();
                content.lost.push((bytes.clone(), id));
            }
        }
        let content = &mut self.of[root.index()];
        content.own = content.own.iter().flat_map(|own| without(own, &bytes)).chain([bytes.clone()]).collect();
        content.own.sort_unstable_by_key(|own| own.start);
    }

    /// Fails if not all bytes of `id` have its value.
    fn read(&self, op: usize, id: TensorId) -> Result<(), Fault> {
        let Some((root, bytes)) = self.locate(id) else { return Ok(()) };
        let content = &self.of[root.index()];
        let mut missing = bytes;
        for own in &content.own {
            if own.start <= missing.start {
                missing.start = missing.start.max(own.end);
            }
        }
        if missing.start >= missing.end {
            return Ok(());
        }
        let taken = content.lost.iter().rev().find(|(lost, _)| lost.contains(&missing.start));
        Err(taken.map_or(Fault::Unwritten { op, tensor: id }, |&(_, by)| Fault::Overwritten { op, tensor: id, by }))
    }
}

/// What is left of `range` without `hole`.
fn without(range: &Range<usize>, hole: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let parts = [range.start..range.end.min(hole.start), range.start.max(hole.end)..range.end];
    parts.into_iter().filter(|part| part.start < part.end)
}
