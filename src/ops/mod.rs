//! The ops: plain functions over slices, one file per op.
//!
//! Every file holds the op's shape (a small struct of 32-bit fields), its signature (which slices
//! it takes, their element types and lengths), the f32 forward, the hand-written backward beside
//! it, the integer forward beside those, and tests against a naive reference.
//!
//! Conventions, the same everywhere:
//!
//! - A kernel takes the shape, then the inputs, then the outputs, in the order of its signature.
//! - An absent optional operand (a bias, a gradient nobody needs) is the empty slice.
//! - A kernel **overwrites** its outputs, gradients included; nothing accumulates into what was
//!   there. Where a tensor feeds several ops, differentiation adds the parts with explicit ops.
//! - An op whose signature is [`in_place`](Signature::in_place) takes no first input: its first
//!   output already holds it.
//! - Activations are channels-last: images `[batch, h, w, c]`, tokens `[batch, n, c]`, where head
//!   `i` of width `d` is the channels `i*d .. (i+1)*d`.
//! - Letters: `n` tokens, `m` landmarks, `heads`, `d` head width, `c` channels, `k` contraction.
//! - Scratch is an output like any other; its length is derived by the shape that uses it.
//! - An integer kernel that can be taken in parts is told which [`Part`] to compute: rows of the shape's `rows()`. All
//!   parts in order, with the same operands, compute what [`Whole`] does. Kernels whose rows are elements of their
//!   operands need not be told: they compute as many as the slices have.

use crate::arch::int4_row;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum DType {
    /// IEEE single precision.
    F32 = 0,
    /// 32-bit signed integer.
    I32 = 1,
    /// 16-bit signed integer.
    I16 = 2,
    /// 8-bit signed integer.
    I8 = 3,
    /// 8-bit unsigned integer.
    U8 = 4,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::I16 => 2,
            DType::I8 | DType::U8 => 1,
        }
    }

    /// The type with this code in a file, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => DType::F32,
            1 => DType::I32,
            2 => DType::I16,
            3 => DType::I8,
            4 => DType::U8,
            _ => return None,
        })
    }

    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::I16 => "i16",
            DType::I8 => "i8",
            DType::U8 => "u8",
        }
    }
}

/// How wide the weights of an integer linear op or convolution are. All are symmetric, with a scale per
/// output channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(feature = "quant", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Width {
    /// -7 to 7, two to a byte. Weights of a row are in blocks of eight, the last filled up with zeros: the low
    /// halves of a block's four bytes hold its first four weights, the high halves the others, each in two's
    /// complement.
    Int4,
    /// -127 to 127.
    #[default]
    Int8,
    /// -32767 to 32767, or less in long rows: sums stay inside 32 bits.
    Int16,
}

impl Width {
    /// All of them, the narrowest first.
    pub const ALL: [Width; 3] = [Width::Int4, Width::Int8, Width::Int16];

    /// The name used in reports and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Width::Int4 => "int4",
            Width::Int8 => "int8",
            Width::Int16 => "int16",
        }
    }

    /// The largest weight in a row of `k`. Of int16, a row whose weights are all as large, times int8, sums to
    /// 2^29 at most.
    pub const fn largest(self, k: usize) -> i32 {
        const MOST: usize = 1 << 22;
        match self {
            Width::Int4 => 7,
            Width::Int8 => 127,
            Width::Int16 if k <= MOST / i16::MAX as usize => i16::MAX as i32,
            Width::Int16 if k <= MOST => (MOST / k) as i32,
            Width::Int16 => 1,
        }
    }

    /// The weights of `rows` rows of `k`.
    pub(crate) const fn operand(self, rows: usize, k: usize) -> Operand {
        match self {
            Width::Int4 => operand(DType::U8, &[rows, int4_row(k)]),
            Width::Int8 => i8s(&[rows, k]),
            Width::Int16 => i16s(&[rows, k]),
        }
    }
}

/// What an op expects of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Element type.
    pub dtype: DType,
    /// Elements; products saturate, so that an absurd shape matches no tensor.
    pub len: u64,
    /// Whether the operand may be absent.
    pub optional: bool,
}

impl Operand {
    const NONE: Self = Self { dtype: DType::U8, len: 0, optional: true };

    /// The same operand, which may be absent.
    pub const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// The same operand, longer by the product of `dims`: scratch that holds several things.
    pub const fn plus(self, dims: &[usize]) -> Self {
        Self { len: self.len.saturating_add(size(dims)), ..self }
    }
}

/// An operand of `dtype` with the given dimensions.
// Never inlined, as all that makes signatures: what checks a file would hold it once for every operand.
#[inline(never)]
pub const fn operand(dtype: DType, dims: &[usize]) -> Operand {
    Operand { dtype, len: size(dims), optional: false }
}

/// An f32 operand.
pub const fn f32s(dims: &[usize]) -> Operand {
    operand(DType::F32, dims)
}

/// An i32 operand.
pub const fn i32s(dims: &[usize]) -> Operand {
    operand(DType::I32, dims)
}

/// An i16 operand.
pub const fn i16s(dims: &[usize]) -> Operand {
    operand(DType::I16, dims)
}

/// An i8 operand.
pub const fn i8s(dims: &[usize]) -> Operand {
    operand(DType::I8, dims)
}

/// Saturating product of dimensions.
#[inline(never)]
pub const fn size(dims: &[usize]) -> u64 {
    let mut product = 1u64;
    let mut i = 0;
    while i < dims.len() {
        product = product.saturating_mul(dims[i] as u64);
        i += 1;
    }
    product
}

/// Most inputs an op has.
pub const MAX_INS: usize = 6;
/// Most outputs an op has, scratch included.
pub const MAX_OUTS: usize = 5;

/// The operands of an op: inputs, then outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    ins: [Operand; MAX_INS],
    outs: [Operand; MAX_OUTS],
    n_ins: usize,
    n_outs: usize,
    in_place: bool,
    invalid: Option<&'static str>,
}

impl Signature {
    /// A signature with these inputs and outputs.
    #[inline(never)]
    pub const fn new(ins: &[Operand], outs: &[Operand]) -> Self {
        let mut s = Self {
            ins: [Operand::NONE; MAX_INS],
            outs: [Operand::NONE; MAX_OUTS],
            n_ins: ins.len(),
            n_outs: outs.len(),
            in_place: false,
            invalid: None,
        };
        let mut i = 0;
        while i < ins.len() {
            s.ins[i] = ins[i];
            i += 1;
        }
        i = 0;
        while i < outs.len() {
            s.outs[i] = outs[i];
            i += 1;
        }
        s
    }

    /// The signature of a shape that makes no sense, with the reason.
    pub const fn invalid(why: &'static str) -> Self {
        let mut s = Self::new(&[], &[]);
        s.invalid = Some(why);
        s
    }

    /// The same signature, where the first output takes over the storage of the first input (which
    /// has the same type and length): the kernel finds its input in its output.
    pub const fn in_place(mut self) -> Self {
        self.in_place = true;
        self
    }

    /// Whether the kernel finds its first input in its first output.
    pub const fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Why the shape makes no sense, if it does not.
    pub const fn reason(&self) -> Option<&'static str> {
        self.invalid
    }

    /// Number of inputs.
    pub const fn n_ins(&self) -> usize {
        self.n_ins
    }

    /// Number of outputs.
    pub const fn n_outs(&self) -> usize {
        self.n_outs
    }

    /// Input `i`.
    pub const fn input(&self, i: usize) -> Operand {
        self.ins[i]
    }

    /// Output `i`.
    pub const fn output(&self, i: usize) -> Operand {
        self.outs[i]
    }
}

/// What a run knows beside its tensors: the counters that key the random numbers of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tick {
    /// Seed of the run.
    pub seed: u64,
    /// Optimizer step, from 0.
    pub step: u64,
    /// Shard of the batch, from 0.
    pub shard: u32,
}

/// One field of a shape to and from its 32-bit word.
macro_rules! word {
    (to usize $v:expr) => {
        $v as u32
    };
    (to i32 $v:expr) => {
        $v as u32
    };
    (to f32 $v:expr) => {
        $v.to_bits()
    };
    (from usize $w:expr) => {
        $w as usize
    };
    (from i32 $w:expr) => {
        $w as i32
    };
    (from f32 $w:expr) => {
        f32::from_bits($w)
    };
}
pub(crate) use word;

/// Declares an op's shape: a struct of `usize`, `i32` and `f32` fields that a file stores as
/// 32-bit words in the order of declaration.
macro_rules! shape {
    ($(#[$meta:meta])* pub struct $Name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $Name { $($(#[$fmeta])* pub $field: $ty,)* }

        impl $Name {
            /// Words the shape takes in a file.
            pub const WORDS: usize = [$(stringify!($field)),*].len();

            /// Names of the fields, in order.
            pub const FIELDS: [&'static str; Self::WORDS] = [$(stringify!($field)),*];

            /// The shape stored in the first [`Self::WORDS`] words.
            pub const fn from_words(words: &[u32]) -> Self {
                let mut i = 0;
                $(let $field = $crate::ops::word!(from $ty words[i]); i += 1;)*
                let _ = i;
                Self { $($field,)* }
            }

            /// The words that store this shape.
            pub const fn to_words(self) -> [u32; Self::WORDS] {
                [$($crate::ops::word!(to $ty self.$field)),*]
            }
        }
    };
}

/// Declares shapes with the same fields: of variants of an op that differ in a type of operand.
macro_rules! shapes {
    ($($(#[$meta:meta])* pub struct $Name:ident;)* fields $fields:tt) => {
        $(shape! { $(#[$meta])* pub struct $Name $fields })*
    };
}

pub mod adamw;
pub mod add;
pub mod batch_norm;
pub mod conv;
pub mod cross_entropy;
pub mod depthwise;
pub mod dropout;
pub mod fake_quant;
pub mod gelu;
pub mod gram;
pub mod input;
pub mod inverse;
pub mod kernel;
pub mod layer_norm;
pub mod linear;
pub mod normalise;
pub mod pool;
pub mod product;
pub mod relu;
pub mod rescale;
pub mod resize;
pub mod scale;
pub mod softmax_attention;
pub mod solve;
pub mod sym_norm;
pub mod table;
pub mod tokens;

mod part;
mod window;

pub use part::{Part, Rows, Whole};

#[cfg(test)]
pub(crate) mod testing;
