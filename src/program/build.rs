//! A Program while it is being made: named tensors and ops, not yet placed in memory.

use super::{Op, Space};
use crate::ops::DType;
use alloc::string::String;
use alloc::vec::Vec;

/// Index of a tensor in its Program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u16);

impl TensorId {
    /// As an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a tensor is to the model; decides its space and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Written and read by ops, or by the caller before a run.
    Activation,
    /// Bytes of an activation that is itself no part: what is written to one is written to the other.
    Part {
        /// The activation.
        of: TensorId,
        /// Byte offset there, a multiple of [`ALIGN`](super::ALIGN).
        offset: usize,
    },
    /// A constant; its bytes are in [`Tensor::data`].
    Constant,
    /// A trained parameter; `decay` says whether weight decay applies to it.
    Param {
        /// Whether weight decay applies (matrices yes; biases, norms, class token no).
        decay: bool,
    },
    /// A running statistic: updated by averaging, not by gradients.
    Statistic,
    /// The gradient of a parameter, or the batch value of a statistic, at the same offset in the
    /// gradients as its parameter has in the parameters.
    GradOf(TensorId),
    /// Optimizer state.
    State,
    /// A window onto a whole region of a space, from `offset` on: all decayed parameters, say.
    Window {
        /// The space.
        space: Space,
        /// Byte offset there.
        offset: usize,
    },
}

/// What a parameter or statistic holds before training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Init {
    /// All zeros.
    #[default]
    Zeros,
    /// All ones.
    Ones,
    /// Normal with this standard deviation, cut off at two of them.
    TruncatedNormal(f32),
}

/// A tensor of a Program.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name; parameters are found by it in checkpoints.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, at most four, slowest first.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
    /// Real value of one quantum, for integer tensors.
    pub scale: f32,
    /// Integer that stands for zero.
    pub zero: i32,
    /// Bytes of a constant.
    pub data: Vec<u8>,
    /// First value of a parameter or statistic.
    pub init: Init,
}

impl Tensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// The space it lives in.
    pub fn space(&self) -> Space {
        match self.role {
            Role::Activation | Role::Part { .. } => Space::Arena,
            Role::Constant => Space::Weights,
            Role::Param { .. } | Role::Statistic => Space::Params,
            Role::GradOf(_) => Space::Grads,
            Role::State => Space::State,
            Role::Window { space, .. } => space,
        }
    }
}

/// An op and the tensors it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The op.
    pub op: Op,
    /// Its inputs; `None` where an optional one is absent.
    pub ins: Vec<Option<TensorId>>,
    /// Its outputs, scratch included; `None` where an optional one is absent.
    pub outs: Vec<Option<TensorId>>,
}

/// A flat list of tensors and a flat list of ops over them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// All ops, in the order of execution.
    pub nodes: Vec<Node>,
    /// Tensors the caller fills before a run.
    pub inputs: Vec<TensorId>,
    /// Tensors the caller reads after a run.
    pub outputs: Vec<TensorId>,
    /// Ops of the first phase, run once per shard; the rest run once per step (the optimizer).
    /// Equal to the number of ops where there is one phase.
    pub shard_ops: usize,
    /// Names of the classes, for a classifier.
    pub labels: Vec<String>,
}

impl Program {
    /// An empty Program.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tensor with this id.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.index()]
    }

    /// The tensor with this name, if there is one.
    pub fn find(&self, name: &str) -> Option<TensorId> {
        self.tensors.iter().position(|t| t.name == name).map(|i| TensorId(i as u16))
    }

    /// Adds a tensor.
    ///
    /// # Panics
    /// If there are 65,534 tensors already: a file holds no more.
    pub fn add(&mut self, name: impl Into<String>, dtype: DType, shape: &[usize], role: Role) -> TensorId {
        assert!(self.tensors.len() < usize::from(u16::MAX) - 1, "a Program has at most 65,534 tensors");
        assert!(!shape.is_empty() && shape.len() <= 4, "a tensor has one to four dimensions");
        self.tensors.push(Tensor {
            name: name.into(),
            dtype,
            shape: shape.into(),
            role,
            scale: 1.0,
            zero: 0,
            data: Vec::new(),
            init: Init::Zeros,
        });
        TensorId((self.tensors.len() - 1) as u16)
    }

    /// Adds the elements of activation `of` from element `first` on as a tensor of their own.
    ///
    /// # Panics
    /// If they are not all in `of`, or do not begin at a multiple of [`ALIGN`](super::ALIGN) bytes.
    pub fn part(&mut self, name: impl Into<String>, of: TensorId, first: usize, shape: &[usize]) -> TensorId {
        let (whole, offset) = (self.tensor(of), first * self.tensor(of).dtype.size());
        assert!(whole.role == Role::Activation && offset.is_multiple_of(super::ALIGN), "a part of {}", whole.name);
        assert!(first + shape.iter().product::<usize>() <= whole.len(), "a part of {}", whole.name);
        let (dtype, scale, zero) = (whole.dtype, whole.scale, whole.zero);
        let id = self.add(name, dtype, shape, Role::Part { of, offset });
        let part = &mut self.tensors[id.index()];
        (part.scale, part.zero) = (scale, zero);
        id
    }

    /// Adds a constant with these little-endian bytes.
    pub fn constant(&mut self, name: impl Into<String>, dtype: DType, shape: &[usize], data: Vec<u8>) -> TensorId {
        let id = self.add(name, dtype, shape, Role::Constant);
        assert_eq!(data.len(), self.tensor(id).bytes(), "a constant has the bytes of its shape");
        self.tensors[id.index()].data = data;
        id
    }

    /// Adds an f32 constant.
    pub fn constant_f32(&mut self, name: impl Into<String>, shape: &[usize], values: &[f32]) -> TensorId {
        self.constant(name, DType::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Appends `op` on existing tensors.
    ///
    /// # Panics
    /// If the operands do not fit the op's signature: the builder of the Program is at fault.
    pub fn push(&mut self, op: impl Into<Op>, ins: &[Option<TensorId>], outs: &[Option<TensorId>]) {
        let op = op.into();
        let signature = op.signature();
        assert_eq!(signature.reason(), None, "{op:?}");
        assert_eq!((ins.len(), outs.len()), (signature.n_ins(), signature.n_outs()), "operands of {op:?}");
        let expected = (0..ins.len()).map(|i| signature.input(i)).chain((0..outs.len()).map(|i| signature.output(i)));
        for (expected, &id) in expected.zip(ins.iter().chain(outs)) {
            match id {
                None => assert!(expected.optional, "{op:?}: an operand that is not optional is absent"),
                Some(id) => {
                    let t = self.tensor(id);
                    assert_eq!((t.dtype, t.len() as u64), (expected.dtype, expected.len), "{op:?}: operand {}", t.name);
                }
            }
        }
        self.nodes.push(Node { op, ins: ins.into(), outs: outs.into() });
        self.shard_ops = self.nodes.len();
    }

    /// Appends `op` and the activations it writes: the first with `shape`, further ones (scratch,
    /// statistics) flat, all named after `name`. Returns the first.
    pub fn apply(&mut self, name: &str, op: impl Into<Op>, ins: &[Option<TensorId>], shape: &[usize]) -> TensorId {
        let op = op.into();
        let signature = op.signature();
        assert_eq!(signature.reason(), None, "{name}: {op:?}");
        let outs: Vec<_> = (0..signature.n_outs())
            .map(|i| {
                let out = signature.output(i);
                let flat = [out.len as usize];
                let (name, shape) =
                    if i == 0 { (String::from(name), shape) } else { (alloc::format!("{name}.scratch"), &flat[..]) };
                Some(self.add(name, out.dtype, shape, Role::Activation))
            })
            .collect();
        self.push(op, ins, &outs);
        outs[0].expect("the first output is not optional")
    }
}
