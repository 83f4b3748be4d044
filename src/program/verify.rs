//! An independent check of a plan: it replays the Program on paper, byte range by byte range, and
//! knows nothing of lifetimes or in-place groups.

use super::{Plan, Program, Role, Space, TensorId};
use alloc::vec::Vec;

/// What is wrong with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A tensor does not fit its space or is not aligned.
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
/// operands (but an in-place op over its first input), and every read of an activation sees the
/// tensor's own last write.
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
        let used = t.role != Role::Activation || plan.lifetime(id).is_some();
        if used && (range(id).end > plan.size(t.space()) || !plan.offset(id).is_multiple_of(super::ALIGN)) {
            return Err(Fault::Outside { tensor: id });
        }
    }

    // What each activation holds: unwritten, its own value, or (partly) another's.
    let mut written: Vec<bool> = program.tensors.iter().map(|_| false).collect();
    let mut spoiled: Vec<Option<TensorId>> = program.tensors.iter().map(|_| None).collect();
    let in_arena = |id: TensorId| program.tensor(id).space() == Space::Arena;
    let arena: Vec<TensorId> =
        (0..program.tensors.len()).map(|i| TensorId(i as u16)).filter(|&id| in_arena(id)).collect();
    let write = |id: TensorId, written: &mut [bool], spoiled: &mut [Option<TensorId>]| {
        if in_arena(id) {
            for &other in arena.iter().filter(|&&o| o != id && written[o.index()] && overlap(o, id)) {
                spoiled[other.index()] = Some(id);
            }
            written[id.index()] = true;
            spoiled[id.index()] = None;
        }
    };
    let read = |op: usize, id: TensorId, written: &[bool], spoiled: &[Option<TensorId>]| {
        if !in_arena(id) {
            return Ok(());
        }
        match (written[id.index()], spoiled[id.index()]) {
            (false, _) => Err(Fault::Unwritten { op, tensor: id }),
            (_, Some(by)) => Err(Fault::Overwritten { op, tensor: id, by }),
            _ => Ok(()),
        }
    };

    for &id in &program.inputs {
        write(id, &mut written, &mut spoiled);
    }
    for (op, node) in program.nodes.iter().enumerate() {
        for &id in node.ins.iter().flatten() {
            read(op, id, &written, &spoiled)?;
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
            write(out, &mut written, &mut spoiled);
        }
    }
    for &id in &program.outputs {
        read(program.nodes.len(), id, &written, &spoiled)?;
    }
    Ok(())
}
