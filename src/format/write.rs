//! The writer: a placed Program to the bytes of a file.

use super::{ABSENT, HEADER_BYTES, MAGIC, VERSION, crc::crc32, word};
use crate::error::HostError;
use crate::program::{ALIGN, OpSet, Plan, Program, Role, Space};
use alloc::vec::Vec;
use alloc::{format, vec};

/// The `.soft` file of `program`, placed by `plan`.
///
/// # Errors
/// A label of more than 255 bytes; a file, a memory bank or a dimension that 32 bits do not count.
pub fn write(program: &Program, plan: &Plan) -> Result<Vec<u8>, HostError> {
    let mut header = [0u32; word::COUNT];
    let mut bytes = vec![0; HEADER_BYTES];
    let word32 = |v: usize| {
        u32::try_from(v).map_err(|_| {
            let problem = format!("would hold the size {v}, and the format counts to {}", u32::MAX);
            HostError::new(".soft file", problem, "take a smaller model or batch")
        })
    };
    let pad = |bytes: &mut Vec<u8>, align: usize| bytes.resize(bytes.len().next_multiple_of(align), 0);

    header[word::IO_AT] = word32(bytes.len())?;
    header[word::N_INPUTS] = word32(program.inputs.len())?;
    header[word::N_OUTPUTS] = word32(program.outputs.len())?;
    for id in program.inputs.iter().chain(&program.outputs) {
        bytes.extend(u32::from(id.0).to_le_bytes());
    }

    header[word::TENSORS_AT] = word32(bytes.len())?;
    header[word::N_TENSORS] = word32(program.tensors.len())?;
    for (i, t) in program.tensors.iter().enumerate() {
        let id = crate::program::TensorId(i as u16);
        bytes.extend([t.dtype as u8, t.space() as u8, t.shape.len() as u8, 0]);
        bytes.extend(word32(plan.offset(id))?.to_le_bytes());
        for d in 0..4 {
            bytes.extend(word32(*t.shape.get(d).unwrap_or(&1))?.to_le_bytes());
        }
        bytes.extend(t.scale.to_le_bytes());
        bytes.extend(t.zero.to_le_bytes());
    }

    header[word::OPS_AT] = word32(bytes.len())?;
    header[word::N_OPS] = word32(program.nodes.len())?;
    header[word::SHARD_OPS] = word32(program.shard_ops)?;
    let mut set = OpSet::EMPTY;
    for node in &program.nodes {
        set = set.with(node.op.kind());
        bytes.extend((node.op.kind() as u16).to_le_bytes());
        bytes.extend([node.ins.len() as u8, node.outs.len() as u8]);
        for id in node.ins.iter().chain(&node.outs) {
            bytes.extend(id.map_or(ABSENT, |id| id.0).to_le_bytes());
        }
        pad(&mut bytes, 4);
        node.op.encode(|w| bytes.extend(w.to_le_bytes()));
    }
    header[word::OP_WORDS] = word32(bytes.len())? / 4 - header[word::OPS_AT] / 4;
    for i in 0..4 {
        header[word::OPS_SET + i] = (set.bits() >> (32 * i)) as u32;
    }

    header[word::LABELS_AT] = word32(bytes.len())?;
    header[word::N_LABELS] = word32(program.labels.len())?;
    for label in &program.labels {
        let len = u8::try_from(label.len()).map_err(|_| {
            HostError::new(format!("label {label:?}"), format!("has {} bytes", label.len()), "255 are the most")
        })?;
        bytes.push(len);
        bytes.extend(label.as_bytes());
    }
    header[word::LABELS_BYTES] = word32(bytes.len())? - header[word::LABELS_AT];

    pad(&mut bytes, ALIGN);
    let weights_at = bytes.len();
    header[word::WEIGHTS_AT] = word32(weights_at)?;
    header[word::WEIGHTS_BYTES] = word32(plan.size(Space::Weights))?;
    bytes.resize(weights_at + plan.size(Space::Weights), 0);
    for (i, t) in program.tensors.iter().enumerate().filter(|(_, t)| t.role == Role::Constant) {
        let at = weights_at + plan.offset(crate::program::TensorId(i as u16));
        bytes[at..at + t.data.len()].copy_from_slice(&t.data);
    }

    header[word::MAGIC] = MAGIC;
    header[word::VERSION] = u32::from(VERSION);
    header[word::FILE_BYTES] = word32(bytes.len())?;
    header[word::ARENA_BYTES] = word32(plan.size(Space::Arena))?;
    header[word::PARAMS_BYTES] = word32(plan.size(Space::Params))?;
    header[word::GRADS_BYTES] = word32(plan.size(Space::Grads))?;
    header[word::STATE_BYTES] = word32(plan.size(Space::State))?;
    let put = |bytes: &mut Vec<u8>, i: usize, w: u32| bytes[4 * i..4 * i + 4].copy_from_slice(&w.to_le_bytes());
    for (i, w) in header.into_iter().enumerate() {
        put(&mut bytes, i, w);
    }
    let crc = crc32(&bytes, 4 * (word::CRC + 1));
    put(&mut bytes, word::CRC, crc);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::DType;
    use alloc::vec::Vec;

    fn problem(change: impl Fn(&mut Program)) -> Option<std::string::String> {
        let mut program = Program::new();
        change(&mut program);
        write(&program, &Plan::new(&program)).err().map(|e| e.to_string())
    }

    #[test]
    fn every_tensor_that_a_program_takes_fits_its_file() {
        let mut program = Program::new();
        let x = program.add("x", DType::U8, &[1], Role::Activation);
        program.inputs.push(x);
        program.outputs.push(x);
        let mut add = || program.add("unused", DType::U8, &[1], Role::Activation);
        (1..65_534).for_each(|_| _ = add());
        assert!(std::panic::catch_unwind(core::panic::AssertUnwindSafe(add)).is_err());
        let bytes = write(&program, &Plan::new(&program)).unwrap();
        assert_eq!(crate::format::View::new_checked(&bytes).unwrap().n_tensors(), 65_534);
    }

    #[test]
    fn what_the_format_cannot_count_is_an_error() {
        assert_eq!(problem(|p| p.labels = Vec::from(["x".repeat(255)])), None);
        let long = problem(|p| p.labels = Vec::from(["x".repeat(256)])).unwrap();
        assert!(long.contains("has 256 bytes") && long.contains("255 are the most"), "{long}");
        let far = problem(|p| {
            p.add("x", DType::U8, &[1 << 16, 1 << 16], Role::Activation);
        });
        assert_eq!(far, None, "an unused tensor takes no memory");
        let huge = problem(|p| {
            let x = p.add("x", DType::U8, &[1 << 16, 1 << 16], Role::Activation);
            p.inputs.push(x);
        });
        assert!(huge.unwrap().contains("4294967296"));
    }
}
