//! The `.soft` file: one Program with its weights, little-endian, read in place.
//!
//! # Layout
//!
//! ```text
//! header   128 bytes   32 words, below
//! io         4 (n_inputs + n_outputs)   tensor indices: inputs, then outputs
//! tensors   32 n_tensors                tensor records
//! ops        4 op_words                 op records, in the order of execution
//! labels     labels_bytes               n_labels strings, each a length byte and UTF-8
//! weights    weights_bytes              constants, at a multiple of 16
//! ```
//!
//! Sections follow each other in this order; each starts at the next multiple of 4 (the weights: of
//! 16) and the bytes between are zero. The file must be loaded at an address that is a multiple of
//! 16, so that every tensor is aligned where it lies.
//!
//! | word | header field |
//! |---|---|
//! | 0 | magic: the bytes `S O F T` |
//! | 1 | version in the low half, zero in the high half |
//! | 2 | bytes of the whole file |
//! | 3 | CRC-32 (IEEE, reflected) of every byte from word 4 on |
//! | 4 to 7 | bytes of arena, parameters, gradients, optimizer state |
//! | 8, 9 | tensors: byte offset, number |
//! | 10, 11, 12 | ops: byte offset, number, words |
//! | 13 | ops of the first phase, which runs once per shard; equal to word 11 for inference |
//! | 14, 15, 16 | inputs and outputs: byte offset, number of inputs, number of outputs |
//! | 17, 18, 19 | labels: byte offset, bytes, number |
//! | 20, 21 | weights: byte offset, bytes |
//! | 22 to 25 | set of op kinds, one bit per code, lowest first |
//! | 26 to 31 | zero |
//!
//! A tensor record is 8 words: element type ([`DType`](crate::ops::DType)), [space](crate::program::Space),
//! rank (1 to 4) and weight layout (a byte each, in that order; layout 0 is the plain one and the only one so
//! far); byte offset in its space, a multiple of 16; four dimensions, slowest first, none of them 0, 1 beyond
//! the rank; the scale (f32) and the zero point (i32) of an integer tensor: real = scale (integer - zero). The
//! scale is positive and finite in every record; where it means nothing, it is 1 and the zero point 0. There
//! are at most 65,534 tensors. A tensor in the weights is a constant: no op writes it, and it is no input or
//! output of the model, which has at least one of each. The first input is the raw input and the first
//! output the scores. Tensors of the arena may share bytes: an op may read rows of an image that another wrote
//! whole, or a whole that several ops wrote in parts. A run may reuse the memory of its inputs; what other tensors of the arena hold before
//! it does not count.
//!
//! An op record is a word with the [kind](crate::program::Kind) (low half), the number of inputs and of
//! outputs (a byte each); tensor indices as halfwords, two per word, `0xffff` where an optional operand is
//! absent, and a zero halfword after an odd number of them; then the shape, one word per field in the order of
//! its declaration (integers, or f32 bits). Operands are those of the shape's `signature`, scratch included.
//! Where the shape says "in place", its first output may lie exactly where its first input does, or
//! elsewhere. The biases, multipliers, offsets and shifts that integer products and raw inputs take as operands
//! are constants: multipliers are not negative and shifts 16 to 62. So are weights of int16. Weights of
//! [int4](crate::ops::Width::Int4) are a tensor of u8 that has four bytes for every eight weights of a row.
//!
//! The scratch of `LinearI8`, `LinearI16`, `ConvI8`, `ConvI16` and their variants with other weights is a panel for
//! the fastest product on any core, of `(R + 2) r` words of i32: for a product of `rows` by `k` values (a convolution: `batch oh ow heads`
//! by `kh kw c_in`), `r = 2 ceil(k / 4)`, and `R` is `min(rows, 32)`, but `floor(1024 / r)` where `min(rows, 32) r`
//! is above 1024, rounded up to a multiple of 4 and at least 8.
//!
//! # Versions
//!
//! A reader accepts its own version and rejects all others with [`Error::Version`]. New op codes do
//! not change the version: a reader that does not know a code says which.
//!
//! # Trust
//!
//! [`View::new_checked`] is the one gate. It proves, in a `const fn` that runs at compile time too:
//! every section and tensor lies inside its bounds and is aligned, and no tensor is empty; every
//! operand of every op has the element type and length that the op's shape asks for; nothing an op
//! writes overlaps another of its operands; no requantisation shift leaves its range and no accumulator
//! can overflow (only ops on landmarks may, where they are given what is no Gram matrix or not the output of
//! the op before them). After it no access can fail: a file made by an enemy may compute nonsense, and take as
//! long as [`Op::macs`](crate::program::Op::macs) says, but neither panics nor touches other memory.

mod check;
mod crc;
#[cfg(feature = "train")]
pub mod safetensors;
mod view;
#[cfg(feature = "alloc")]
mod write;

pub use check::file_bytes;
pub(crate) use view::MAX_SHAPE_WORDS;
pub use view::{OpRecord, Ops, TensorRecord, View};
#[cfg(feature = "alloc")]
pub use write::write;

#[cfg(doc)]
use crate::Error;

/// The version this library writes and reads.
pub const VERSION: u16 = 4;

/// First word of every file: the bytes `SOFT`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"SOFT");

/// Index of an absent operand.
pub(crate) const ABSENT: u16 = 0xffff;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// Bytes of a tensor's record.
pub(crate) const TENSOR_BYTES: usize = 32;

/// Indices of the header's words.
pub(crate) mod word {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 1;
    pub const FILE_BYTES: usize = 2;
    pub const CRC: usize = 3;
    pub const ARENA_BYTES: usize = 4;
    pub const PARAMS_BYTES: usize = 5;
    pub const GRADS_BYTES: usize = 6;
    pub const STATE_BYTES: usize = 7;
    pub const TENSORS_AT: usize = 8;
    pub const N_TENSORS: usize = 9;
    pub const OPS_AT: usize = 10;
    pub const N_OPS: usize = 11;
    pub const OP_WORDS: usize = 12;
    pub const SHARD_OPS: usize = 13;
    pub const IO_AT: usize = 14;
    pub const N_INPUTS: usize = 15;
    pub const N_OUTPUTS: usize = 16;
    pub const LABELS_AT: usize = 17;
    pub const LABELS_BYTES: usize = 18;
    pub const N_LABELS: usize = 19;
    pub const WEIGHTS_AT: usize = 20;
    pub const WEIGHTS_BYTES: usize = 21;
    pub const OPS_SET: usize = 22;
    pub const RESERVED: usize = 26;
    pub const COUNT: usize = 32;
}
