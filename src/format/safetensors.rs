//! Checkpoints of the official PyTorch code, as safetensors: read into the parameters of a Program
//! and written from them.
//!
//! Names are equal, layouts are not: PyTorch keeps convolution weights as `[out, in, h, w]`, and the
//! official code keeps the keys and values of softmax attention in one tensor, `kv`. Both are
//! converted here, on the way in and on the way out. `num_batches_tracked` is ignored when read and
//! not written: PyTorch counts anew.

use crate::error::HostError;
use crate::program::{Op, Program, Role, Tensor, TensorId};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// A parameter or running statistic and its form in a checkpoint.
struct Entry<'p> {
    tensor: &'p Tensor,
    /// The checkpoint's tensor that it is, or is a half of.
    name: String,
    /// Dimensions there, of a whole tensor.
    shape: Vec<usize>,
    /// Of `kv`, whether it is the second half.
    half: Option<bool>,
    /// Its values are this many matrices of this many rows and columns, transposed in the checkpoint.
    matrices: [usize; 3],
}

impl<'p> Entry<'p> {
    fn new(program: &'p Program, id: TensorId) -> Self {
        let tensor = program.tensor(id);
        let mut this =
            Self { tensor, name: tensor.name.clone(), shape: tensor.shape.clone(), half: None, matrices: [1; 3] };
        let op = program.nodes.iter().find(|node| node.ins.get(1) == Some(&Some(id))).map(|node| node.op);
        match (op, &tensor.shape[..]) {
            (Some(Op::Conv(_)), &[c_out, kh, kw, c_in]) => {
                this.shape = vec![c_out, c_in, kh, kw];
                this.matrices = [c_out, kh * kw, c_in];
            }
            (Some(Op::Depthwise(_)), &[kh, kw, filters]) => {
                this.shape = vec![filters, 1, kh, kw];
                this.matrices = [1, kh * kw, filters];
            }
            _ => this.matrices = [1, 1, tensor.len()],
        }
        for (part, second) in [(".attn.k.", false), (".attn.v.", true)] {
            if tensor.name.contains(part) {
                this.name = tensor.name.replace(part, ".attn.kv.");
                this.shape[0] *= 2;
                this.half = Some(second);
            }
        }
        this
    }

    fn all(program: &'p Program) -> impl Iterator<Item = Self> {
        let ids = (0..program.tensors.len()).map(|i| TensorId(i as u16));
        ids.filter(|&id| matches!(program.tensor(id).role, Role::Param { .. } | Role::Statistic))
            .map(|id| Self::new(program, id))
    }
}

/// Each of `count` matrices transposed.
fn transposed(values: &[f32], [count, rows, cols]: [usize; 3]) -> Vec<f32> {
    (0..count * rows * cols)
        .map(|i| {
            let (matrix, row, col) = (i / (rows * cols), i % rows, i / rows % cols);
            values[(matrix * rows + row) * cols + col]
        })
        .collect()
}

/// The parameters and running statistics of `program`, by name, from the checkpoint in `bytes`.
///
/// # Errors
/// Bytes that are no whole safetensors file; a tensor that is missing, of another shape or type, or
/// holds a value that is not finite; a tensor that the model does not have.
pub fn read(program: &Program, bytes: &[u8]) -> Result<BTreeMap<String, Vec<f32>>, HostError> {
    const OTHER: &str = "use the configuration the checkpoint was trained with";
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| HostError::new("checkpoint", format!("not a whole safetensors file: {e}"), "copy it again"))?;
    let mut parameters = BTreeMap::new();
    let mut known: Vec<String> = Vec::new();
    for entry in Entry::all(program) {
        let Entry { name, shape, .. } = &entry;
        let fail = |problem: String| HostError::new(name, problem, OTHER);
        let found = file.tensor(name).map_err(|_| fail(format!("needs {shape:?}, and there is no such tensor")))?;
        if (found.shape(), found.dtype()) != (&shape[..], Dtype::F32) {
            return Err(fail(format!("needs f32 {shape:?}, found {} {:?}", found.dtype(), found.shape())));
        }
        let (words, _) = found.data().as_chunks::<4>();
        let mut values: Vec<f32> = words.iter().map(|w| f32::from_le_bytes(*w)).collect();
        if let Some(value) = values.iter().find(|v| !v.is_finite()) {
            return Err(HostError::new(name, format!("holds {value}"), "use another checkpoint"));
        }
        let len = entry.tensor.len();
        match entry.half {
            Some(true) => drop(values.drain(..len)),
            _ => values.truncate(len),
        }
        let [count, rows, cols] = entry.matrices;
        parameters.insert(entry.tensor.name.clone(), transposed(&values, [count, cols, rows]));
        known.push(entry.name);
    }
    let unknown = |name: &&str| !name.ends_with(".num_batches_tracked") && !known.iter().any(|known| known == name);
    let mut unknown: Vec<&str> = file.names().into_iter().filter(unknown).collect();
    unknown.sort_unstable();
    match unknown[..] {
        [] => Ok(parameters),
        [first, ..] => {
            let problem = format!("the model has no such tensor, one of {} it does not have", unknown.len());
            Err(HostError::new(first, problem, OTHER))
        }
    }
}

/// The checkpoint of `program` with the parameters and running statistics that `value` gives by name.
///
/// # Errors
/// A tensor that `value` does not have, or has in another size.
pub fn write<'v>(program: &Program, value: impl Fn(&str) -> Option<&'v [f32]>) -> Result<Vec<u8>, HostError> {
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for entry in Entry::all(program) {
        let (name, needed) = (&entry.tensor.name, entry.tensor.len());
        let values = value(name).unwrap_or_default();
        if values.len() != needed {
            let problem = format!("needs {needed} values, found {}", values.len());
            return Err(HostError::new(name, problem, "give all parameters of the model"));
        }
        let bytes = transposed(values, entry.matrices).into_iter().flat_map(f32::to_le_bytes);
        // Keys are declared before values: the halves of `kv` come in their order.
        tensors.entry(entry.name).or_insert((entry.shape, Vec::new())).1.extend(bytes);
    }
    let fail = |e: safetensors::SafeTensorError| HostError::new("checkpoint", e.to_string(), "");
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        Ok((name.as_str(), TensorView::new(Dtype::F32, shape.to_owned(), bytes).map_err(fail)?))
    });
    safetensors::serialize(views.collect::<Result<Vec<_>, HostError>>()?, None).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mode, build, preset};

    fn program(name: &str) -> Program {
        build(&preset(name).unwrap(), Mode::Infer { batch: 1 }).unwrap().program
    }

    /// Different values everywhere.
    fn values(program: &Program) -> BTreeMap<String, Vec<f32>> {
        let mut start = 0;
        let mut numbers = |len: usize| {
            start += len;
            (start - len..start).map(|i| i as f32).collect()
        };
        Entry::all(program).map(|e| (e.tensor.name.clone(), numbers(e.tensor.len()))).collect()
    }

    fn write_all(program: &Program, values: &BTreeMap<String, Vec<f32>>) -> Vec<u8> {
        write(program, |name| values.get(name).map(|v| &v[..])).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for name in ["soft_tiny", "fashion-nano", "watch-nano-softmax", "watch-nano-depthwise"] {
            let program = program(name);
            let values = values(&program);
            assert_eq!(read(&program, &write_all(&program, &values)).unwrap(), values, "{name}");
        }
    }

    #[test]
    fn the_official_model_has_the_official_tensors() {
        let program = program("soft_tiny");
        let bytes = write_all(&program, &values(&program));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut ours: Vec<String> = file.iter().map(|(name, view)| format!("{name} {:?}", view.shape())).collect();
        let official = include_str!("../../tests/golden/soft_tiny.keys");
        let mut official: Vec<&str> = official.lines().filter(|l| !l.contains("num_batches_tracked")).collect();
        ours.sort_unstable();
        official.sort_unstable();
        assert_eq!(ours, official);
    }

    #[test]
    fn layouts_are_those_of_pytorch() {
        let program = program("soft_tiny");
        let values = values(&program);
        let bytes = write_all(&program, &values);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let at = |name: &str, index: [usize; 4]| {
            let view = file.tensor(name).unwrap();
            let flat = view.shape().iter().zip(index).fold(0, |flat, (&size, i)| flat * size + i);
            f32::from_le_bytes(view.data()[4 * flat..][..4].try_into().unwrap())
        };
        let ours = |name: &str, flat: usize| values[name][flat];
        let name = "patch_embed1.proj.3.weight";
        assert_eq!(at(name, [5, 7, 1, 2]), ours(name, ((5 * 3 + 1) * 3 + 2) * 32 + 7));
        let name = "block1.0.att.mha.attn.conv.weight";
        assert_eq!(at(name, [1, 0, 4, 8]), ours(name, (4 * 9 + 8) * 2 + 1));
        let (name, n) = ("block4.1.attn.kv.weight", 512);
        assert_eq!(at(name, [0, 3, 0, 0]), -1.0 + at(name, [0, 4, 0, 0]));
        let view = file.tensor(name).unwrap();
        let row = |i: usize| f32::from_le_bytes(view.data()[4 * i * n..][..4].try_into().unwrap());
        assert_eq!(row(9), ours("block4.1.attn.k.weight", 9 * n));
        assert_eq!(row(n + 9), ours("block4.1.attn.v.weight", 9 * n));
    }

    #[test]
    fn another_model_is_refused_by_name() {
        let nano = program("fashion-nano");
        let mut config = preset("fashion-nano").unwrap();
        config.stages.iter_mut().for_each(|stage| stage.mixer = crate::model::Mixer::Softmax);
        let softmax = build(&config, Mode::Infer { batch: 1 }).unwrap().program;
        let bytes = write_all(&nano, &values(&nano));
        let error = read(&softmax, &bytes).unwrap_err();
        assert_eq!(error.place, "block1.0.norm1.weight");
        assert!(error.problem.contains("no such tensor"), "{error}");

        let deeper = write_all(&nano, &values(&nano));
        let mut config = preset("fashion-nano").unwrap();
        config.stages[1].depth -= 1;
        let shallower = build(&config, Mode::Infer { batch: 1 }).unwrap().program;
        let error = read(&shallower, &deeper).unwrap_err();
        assert!(error.place.starts_with("block2.1.") && error.problem.contains("one of 15"), "{error}");

        config.stages[1].embed[0].channels = 32;
        let narrower = build(&config, Mode::Infer { batch: 1 }).unwrap().program;
        let error = read(&narrower, &bytes).unwrap_err();
        assert_eq!(error.problem, "needs f32 [32, 24, 3, 3], found F32 [48, 24, 3, 3]");

        let mut values = values(&nano);
        values.get_mut("norm.weight").unwrap()[3] = f32::NAN;
        assert_eq!(read(&nano, &write_all(&nano, &values)).unwrap_err().problem, "holds NaN");
        for cut in [0, 7, 100, bytes.len() - 1] {
            assert_eq!(read(&nano, &bytes[..cut]).unwrap_err().place, "checkpoint");
        }
        assert_eq!(write(&nano, |_| None).unwrap_err().problem, "needs 216 values, found 0");
    }
}
