//! The checked view of a file: after [`View::new_checked`] no access fails.

use super::{ABSENT, TENSOR_BYTES, word};
use crate::error::Error;
use crate::ops::DType;
use crate::program::{Kind, Op, OpSet, Space};

/// A checked `.soft` file.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) bytes: &'a [u8],
}

/// A tensor of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TensorRecord {
    /// Element type.
    pub dtype: DType,
    /// The memory it lives in.
    pub space: Space,
    /// How many of the dimensions count.
    pub rank: usize,
    /// Layout tag of weights; 0 is the plain one.
    pub layout: u8,
    /// Byte offset in its space.
    pub offset: usize,
    /// Dimensions, slowest first, 1 beyond the rank.
    pub dims: [usize; 4],
    /// Real value of one quantum of an integer tensor.
    pub scale: f32,
    /// Integer that stands for zero.
    pub zero: i32,
}

#[cfg(feature = "defmt")]
impl defmt::Format for View<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "model of {=usize} bytes, {=usize} ops", self.bytes.len(), self.n_ops());
    }
}

impl TensorRecord {
    /// What an index out of range gives: no bytes, at the start of the arena.
    const NONE: Self = Self {
        dtype: DType::U8,
        space: Space::Arena,
        rank: 1,
        layout: 0,
        offset: 0,
        dims: [0; 4],
        scale: 1.0,
        zero: 0,
    };

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.dims[0] * self.dims[1] * self.dims[2] * self.dims[3]
    }

    /// Whether it has no element.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all elements.
    pub const fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// The dimensions that count.
    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

/// Little-endian word at byte `at`.
#[inline(always)]
pub(super) const fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Header word `i`.
#[inline(always)]
pub(super) const fn header(bytes: &[u8], i: usize) -> usize {
    u32_at(bytes, 4 * i) as usize
}

impl<'a> View<'a> {
    /// All bytes of the file.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes a run needs in `space`.
    pub const fn size(&self, space: Space) -> usize {
        header(
            self.bytes,
            match space {
                Space::Arena => word::ARENA_BYTES,
                Space::Weights => word::WEIGHTS_BYTES,
                Space::Params => word::PARAMS_BYTES,
                Space::Grads => word::GRADS_BYTES,
                Space::State => word::STATE_BYTES,
            },
        )
    }

    /// The kinds of ops it uses.
    pub const fn op_set(&self) -> OpSet {
        let b = self.bytes;
        let at = 4 * word::OPS_SET;
        let (lo, hi) = (
            u32_at(b, at) as u128 | (u32_at(b, at + 4) as u128) << 32,
            u32_at(b, at + 8) as u128 | (u32_at(b, at + 12) as u128) << 32,
        );
        OpSet::from_bits(lo | hi << 64)
    }

    /// Number of tensors.
    pub const fn n_tensors(&self) -> usize {
        header(self.bytes, word::N_TENSORS)
    }

    /// Number of ops.
    pub const fn n_ops(&self) -> usize {
        header(self.bytes, word::N_OPS)
    }

    /// Ops of the first phase, which runs once per shard.
    pub const fn shard_ops(&self) -> usize {
        header(self.bytes, word::SHARD_OPS)
    }

    /// Number of inputs.
    pub const fn n_inputs(&self) -> usize {
        header(self.bytes, word::N_INPUTS)
    }

    /// Number of outputs.
    pub const fn n_outputs(&self) -> usize {
        header(self.bytes, word::N_OUTPUTS)
    }

    /// The `i`-th tensor; an empty one in the arena where there are fewer.
    pub const fn tensor(&self, i: usize) -> TensorRecord {
        if i >= self.n_tensors() {
            return TensorRecord::NONE;
        }
        let at = header(self.bytes, word::TENSORS_AT) + i * TENSOR_BYTES;
        match tensor(self.bytes, at) {
            Ok(t) => t,
            Err(_) => TensorRecord::NONE,
        }
    }

    /// Index of the tensor that is the `i`-th input; of none where there are fewer.
    pub const fn input_id(&self, i: usize) -> usize {
        if i >= self.n_inputs() {
            return usize::MAX;
        }
        u32_at(self.bytes, header(self.bytes, word::IO_AT) + 4 * i) as usize
    }

    /// Index of the tensor that is the `i`-th output; of none where there are fewer.
    pub const fn output_id(&self, i: usize) -> usize {
        if i >= self.n_outputs() {
            return usize::MAX;
        }
        u32_at(self.bytes, header(self.bytes, word::IO_AT) + 4 * (self.n_inputs() + i)) as usize
    }

    /// The tensor that is the `i`-th input.
    pub const fn input(&self, i: usize) -> TensorRecord {
        self.tensor(self.input_id(i))
    }

    /// The tensor that is the `i`-th output.
    pub const fn output(&self, i: usize) -> TensorRecord {
        self.tensor(self.output_id(i))
    }

    /// The weights.
    pub const fn weights(&self) -> &'a [u8] {
        let at = header(self.bytes, word::WEIGHTS_AT);
        self.bytes.split_at(at).1
    }

    /// Number of labels.
    pub const fn n_labels(&self) -> usize {
        header(self.bytes, word::N_LABELS)
    }

    /// The `i`-th label, if there is one.
    pub fn label(&self, i: usize) -> Option<&'a str> {
        let at = header(self.bytes, word::LABELS_AT);
        let mut rest = self.bytes.get(at..at + header(self.bytes, word::LABELS_BYTES))?;
        if i >= self.n_labels() {
            return None;
        }
        for _ in 0..i {
            let (&len, tail) = rest.split_first()?;
            rest = tail.get(usize::from(len)..)?;
        }
        let (&len, tail) = rest.split_first()?;
        core::str::from_utf8(tail.get(..usize::from(len))?).ok()
    }

    /// All ops, in the order of execution.
    pub const fn ops(&self) -> Ops<'a> {
        let at = header(self.bytes, word::OPS_AT);
        Ops { bytes: self.bytes.split_at(at).1, left: self.n_ops() }
    }
}

/// Iterator over the ops of a checked file.
#[derive(Clone, Copy, Debug)]
pub struct Ops<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Ops<'a> {
    /// The next op.
    pub const fn next_op(&mut self) -> Option<OpRecord<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        match op(self.bytes) {
            Ok((record, rest)) => {
                self.bytes = rest;
                Some(record)
            }
            Err(_) => None,
        }
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = OpRecord<'a>;

    fn next(&mut self) -> Option<OpRecord<'a>> {
        self.next_op()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Ops<'_> {}

/// One op of a file: its kind, the indices of its operands and its shape, still encoded.
#[derive(Clone, Copy, Debug)]
pub struct OpRecord<'a> {
    /// Its kind.
    pub kind: Kind,
    pub(super) n_ins: usize,
    pub(super) n_outs: usize,
    pub(super) operands: &'a [u8],
    pub(super) shape: &'a [u8],
}

const fn malformed<T>(at: usize, what: &'static str) -> Result<T, Error> {
    Err(Error::Malformed { at, what })
}

/// The tensor record at byte `at`.
pub(super) const fn tensor(bytes: &[u8], at: usize) -> Result<TensorRecord, Error> {
    let tag = u32_at(bytes, at).to_le_bytes();
    let Some(dtype) = DType::from_code(tag[0]) else { return malformed(at, "unknown element type") };
    let Some(space) = Space::from_code(tag[1]) else { return malformed(at, "unknown memory space") };
    let mut dims = [1; 4];
    let mut i = 0;
    while i < 4 {
        dims[i] = u32_at(bytes, at + 8 + 4 * i) as usize;
        i += 1;
    }
    Ok(TensorRecord {
        dtype,
        space,
        rank: tag[2] as usize,
        layout: tag[3],
        offset: u32_at(bytes, at + 4) as usize,
        dims,
        scale: f32::from_bits(u32_at(bytes, at + 24)),
        zero: u32_at(bytes, at + 28) as i32,
    })
}

/// The op record at the start of `bytes` and what follows it. The operands are not yet checked.
pub(super) const fn op(bytes: &[u8]) -> Result<(OpRecord<'_>, &[u8]), Error> {
    const CUT: Error = Error::Malformed { at: 0, what: "the last op is cut short" };
    let Some((tag, rest)) = bytes.split_at_checked(4) else { return Err(CUT) };
    let tag = u32_at(tag, 0);
    let Some(kind) = Kind::from_code(tag as u16) else { return malformed(0, "unknown kind of op") };
    let (n_ins, n_outs) = ((tag >> 16 & 0xff) as usize, (tag >> 24) as usize);
    let Some((operands, rest)) = rest.split_at_checked(4 * (n_ins + n_outs).div_ceil(2)) else { return Err(CUT) };
    let Some((shape, rest)) = rest.split_at_checked(4 * kind.words()) else { return Err(CUT) };
    Ok((OpRecord { kind, n_ins, n_outs, operands, shape }, rest))
}

/// Most words a shape takes.
pub(crate) const MAX_SHAPE_WORDS: usize = 24;

impl OpRecord<'_> {
    /// Number of inputs, absent ones included.
    pub const fn n_ins(&self) -> usize {
        self.n_ins
    }

    /// Number of outputs, absent ones included.
    pub const fn n_outs(&self) -> usize {
        self.n_outs
    }

    /// Index of the tensor that is operand `i` (inputs, then outputs), if it is present.
    pub const fn operand(&self, i: usize) -> Option<usize> {
        if i >= self.n_ins + self.n_outs {
            return None;
        }
        match u16::from_le_bytes([self.operands[2 * i], self.operands[2 * i + 1]]) {
            ABSENT => None,
            id => Some(id as usize),
        }
    }

    /// The words of its shape; those beyond [`Kind::words`] are zero.
    #[inline(always)]
    pub const fn words(&self) -> [u32; MAX_SHAPE_WORDS] {
        let mut words = [0; MAX_SHAPE_WORDS];
        let mut i = 0;
        while i < MAX_SHAPE_WORDS && 4 * i < self.shape.len() {
            words[i] = u32_at(self.shape, 4 * i);
            i += 1;
        }
        words
    }

    /// The op with its shape decoded.
    pub const fn decode(&self) -> Op {
        Op::decode(self.kind, &self.words())
    }
}
