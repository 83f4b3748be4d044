//! What is proven about a file before anything else touches it. All `const fn`.

use super::view::{MAX_SHAPE_WORDS, OpRecord, TensorRecord, View, header, op, tensor, u32_at};
use super::{HEADER_BYTES, MAGIC, TENSOR_BYTES, VERSION, word};
use crate::error::Error;
use crate::math::fixed::{MAX_SHIFT, MIN_SHIFT};
use crate::ops::input::RAW_BITS;
use crate::ops::{Operand, Signature, Width};
use crate::program::{ALIGN, Accumulator, Every, Kind, Op, OpSet, Runs, Space};

/// `Err(...)` unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $error:expr) => {
        if !$condition {
            return Err($error);
        }
    };
}

impl<'a> View<'a> {
    /// Checks `bytes` and gives access to them; see the [module](crate::format) for what is proven.
    ///
    /// # Errors
    /// What is wrong with the file, with what was needed and what was there.
    pub const fn new_checked(bytes: &'a [u8]) -> Result<Self, Error> {
        Self::new_checked_for::<Every>(bytes)
    }

    /// As [`new_checked`](Self::new_checked), for a caller that runs no ops but those of `S`: it carries no
    /// code that checks any other, and refuses them.
    ///
    /// # Errors
    /// Those, and [`Error::UnsupportedOp`].
    pub const fn new_checked_for<S: Runs>(bytes: &'a [u8]) -> Result<Self, Error> {
        match check::<S>(bytes) {
            Ok(()) => Ok(Self { bytes }),
            Err(e) => Err(e),
        }
    }

    /// The view of bytes that [`new_checked`](Self::new_checked) accepted before, and that nobody
    /// changed since: the check takes longer than a small model's run.
    #[cfg(feature = "train")]
    pub(crate) fn checked_before(bytes: &'a [u8]) -> Self {
        debug_assert!(check::<Every>(bytes).is_ok());
        Self { bytes }
    }
}

/// The length of the file that begins with `bytes`, its first [`HEADER_BYTES`] or more: how much to
/// receive. Nothing else is known about the file then.
///
/// # Errors
/// Too few bytes, or what is no `.soft` file of this version.
pub const fn file_bytes(bytes: &[u8]) -> Result<usize, Error> {
    ensure!(bytes.len() >= HEADER_BYTES, Error::Truncated { needed: HEADER_BYTES, found: bytes.len() });
    ensure!(u32_at(bytes, 4 * word::MAGIC) == MAGIC, Error::NotAModel { found: u32_at(bytes, 4 * word::MAGIC) });
    let version = u32_at(bytes, 4 * word::VERSION);
    ensure!(
        version <= u16::MAX as u32,
        Error::Malformed { at: 4 * word::VERSION, what: "the high half of the version is not zero" }
    );
    ensure!(version == VERSION as u32, Error::Version { needed: VERSION, found: version as u16 });
    let file_bytes = header(bytes, word::FILE_BYTES);
    let what = "the file would be shorter than its header";
    ensure!(file_bytes >= HEADER_BYTES, Error::Malformed { at: 4 * word::FILE_BYTES, what });
    Ok(file_bytes)
}

/// Checks a whole file.
const fn check<S: Runs>(bytes: &[u8]) -> Result<(), Error> {
    let file_bytes = match file_bytes(bytes) {
        Ok(n) => n,
        Err(e) => return Err(e),
    };
    ensure!(bytes.len() >= file_bytes, Error::Truncated { needed: file_bytes, found: bytes.len() });
    ensure!(
        bytes.len() == file_bytes,
        Error::Malformed { at: 4 * word::FILE_BYTES, what: "bytes after the end of the file" }
    );
    let crc = super::crc::crc32(bytes, 4 * (word::CRC + 1));
    let stored = u32_at(bytes, 4 * word::CRC);
    ensure!(crc == stored, Error::Checksum { needed: stored, found: crc });

    match sections(bytes) {
        Ok(()) => {}
        Err(e) => return Err(e),
    }
    match tensors(bytes) {
        Ok(()) => {}
        Err(e) => return Err(e),
    }
    match io_and_labels(bytes) {
        Ok(()) => {}
        Err(e) => return Err(e),
    }
    ops::<S>(bytes)
}

/// Every section starts where the one before ends, aligned, and the last ends with the file.
const fn sections(bytes: &[u8]) -> Result<(), Error> {
    let sections = [
        (word::IO_AT, 4 * (header(bytes, word::N_INPUTS) as u64 + header(bytes, word::N_OUTPUTS) as u64)),
        (word::TENSORS_AT, TENSOR_BYTES as u64 * header(bytes, word::N_TENSORS) as u64),
        (word::OPS_AT, 4 * header(bytes, word::OP_WORDS) as u64),
        (word::LABELS_AT, header(bytes, word::LABELS_BYTES) as u64),
        (word::WEIGHTS_AT, header(bytes, word::WEIGHTS_BYTES) as u64),
    ];
    let mut end = HEADER_BYTES as u64;
    let mut i = 0;
    while i < sections.len() {
        let (field, length) = sections[i];
        let align = if field == word::WEIGHTS_AT { ALIGN as u64 } else { 4 };
        let start = end.next_multiple_of(align);
        ensure!(
            header(bytes, field) as u64 == start,
            Error::Malformed { at: 4 * field, what: "a section does not start where the one before ends" }
        );
        let mut gap = end as usize;
        end = start + length;
        ensure!(end <= bytes.len() as u64, Error::Malformed { at: 4 * field, what: "a section ends beyond the file" });
        while gap < start as usize {
            ensure!(bytes[gap] == 0, Error::Malformed { at: gap, what: "a byte between two sections is not zero" });
            gap += 1;
        }
        i += 1;
    }
    ensure!(
        end == bytes.len() as u64,
        Error::Malformed { at: 4 * word::WEIGHTS_BYTES, what: "bytes after the last section" }
    );
    i = word::RESERVED;
    while i < word::COUNT {
        ensure!(header(bytes, i) == 0, Error::Malformed { at: 4 * i, what: "a reserved header word is not zero" });
        i += 1;
    }
    ensure!(
        header(bytes, word::N_TENSORS) < 0xffff,
        Error::Malformed { at: 4 * word::N_TENSORS, what: "more than 65,534 tensors" }
    );
    ensure!(
        header(bytes, word::SHARD_OPS) <= header(bytes, word::N_OPS),
        Error::Malformed { at: 4 * word::SHARD_OPS, what: "more ops in the first phase than there are" }
    );
    Ok(())
}

const fn tensors(bytes: &[u8]) -> Result<(), Error> {
    let view = View { bytes };
    let mut i = 0;
    while i < view.n_tensors() {
        let at = header(bytes, word::TENSORS_AT) + i * TENSOR_BYTES;
        let t = match tensor(bytes, at) {
            Ok(t) => t,
            Err(e) => return Err(e),
        };
        ensure!(t.rank >= 1 && t.rank <= 4, Error::Malformed { at, what: "a tensor has one to four dimensions" });
        ensure!(t.layout == 0, Error::Malformed { at, what: "unknown weight layout" });
        let mut product = t.dtype.size() as u64;
        let mut d = 0;
        while d < 4 {
            ensure!(
                d < t.rank || t.dims[d] == 1,
                Error::Malformed { at, what: "a dimension beyond the rank is not 1" }
            );
            // No op has to think of empty operands.
            ensure!(t.dims[d] > 0, Error::Malformed { at, what: "a dimension is 0" });
            product = product.saturating_mul(t.dims[d] as u64);
            d += 1;
        }
        ensure!(t.offset.is_multiple_of(ALIGN), Error::Malformed { at, what: "a tensor is not aligned" });
        ensure!(
            (t.offset as u64).saturating_add(product) <= view.size(t.space) as u64,
            Error::Malformed { at, what: "a tensor does not fit its memory space" }
        );
        ensure!(
            t.scale.is_finite() && t.scale > 0.0,
            Error::Malformed { at, what: "a scale is not a positive number" }
        );
        i += 1;
    }
    Ok(())
}

const fn io_and_labels(bytes: &[u8]) -> Result<(), Error> {
    let view = View { bytes };
    let at = header(bytes, word::IO_AT);
    let mut i = 0;
    while i < view.n_inputs() + view.n_outputs() {
        let id = u32_at(bytes, at + 4 * i) as usize;
        ensure!(id < view.n_tensors(), Error::Malformed { at: at + 4 * i, what: "an input or output is no tensor" });
        ensure!(
            !matches!(view.tensor(id).space, Space::Weights),
            Error::Malformed { at: at + 4 * i, what: "an input or output is a constant" }
        );
        i += 1;
    }
    ensure!(
        view.n_inputs() >= 1 && view.n_outputs() >= 1,
        Error::Malformed { at: 4 * word::N_INPUTS, what: "a model has at least one input and one output" }
    );
    let mut labels = 0;
    let start = header(bytes, word::LABELS_AT);
    let end = start + header(bytes, word::LABELS_BYTES);
    let mut p = start;
    while p < end {
        let next = p + 1 + bytes[p] as usize;
        ensure!(next <= end, Error::Malformed { at: p, what: "a label ends beyond its section" });
        let text = bytes.split_at(next).0.split_at(p + 1).1;
        ensure!(core::str::from_utf8(text).is_ok(), Error::Malformed { at: p, what: "a label is not UTF-8" });
        labels += 1;
        p = next;
    }
    ensure!(
        labels == view.n_labels(),
        Error::Malformed { at: start, what: "another number of labels than the header says" }
    );
    Ok(())
}

const _: () = {
    let mut i = 0;
    while i < Kind::ALL.len() {
        assert!(Kind::ALL[i].words() <= MAX_SHAPE_WORDS, "raise MAX_SHAPE_WORDS");
        i += 1;
    }
};

const fn ops<S: Runs>(bytes: &[u8]) -> Result<(), Error> {
    let view = View { bytes };
    let start = header(bytes, word::OPS_AT);
    let mut rest = bytes.split_at(start).1.split_at(4 * header(bytes, word::OP_WORDS)).0;
    let mut set = OpSet::EMPTY;
    let mut index = 0;
    while index < view.n_ops() {
        let (record, tail) = match op(rest) {
            Ok(r) => r,
            Err(Error::Malformed { what, .. }) => return Err(Error::Op { index, kind: kind_at(rest), what }),
            Err(e) => return Err(e),
        };
        let kind = record.kind as u16;
        let Some((op, signature)) = Op::decode_for::<S>(record.kind, &record.words()) else {
            return Err(Error::UnsupportedOp { index, kind });
        };
        match operands(view, &record, &op, &signature) {
            Ok(()) => {}
            Err(what) => return Err(Error::Op { index, kind, what }),
        }
        set = set.with(record.kind);
        rest = tail;
        index += 1;
    }
    ensure!(rest.is_empty(), Error::Malformed { at: start, what: "words after the last op" });
    ensure!(
        set.bits() == view.op_set().bits(),
        Error::Malformed { at: 4 * word::OPS_SET, what: "the set of ops is not the one the program uses" }
    );
    Ok(())
}

const fn kind_at(bytes: &[u8]) -> u16 {
    if bytes.len() < 2 { 0 } else { u16::from_le_bytes([bytes[0], bytes[1]]) }
}

const fn operands(view: View<'_>, record: &OpRecord<'_>, op: &Op, signature: &Signature) -> Result<(), &'static str> {
    if let Some(reason) = signature.reason() {
        return Err(reason);
    }
    ensure!(
        record.n_ins == signature.n_ins() && record.n_outs == signature.n_outs(),
        "another number of operands than its kind has"
    );
    let count = record.n_ins + record.n_outs;
    if let [low, high] = *record.operands.split_at(2 * count).1 {
        ensure!(low == 0 && high == 0, "the halfword after an odd number of operands is not zero");
    }
    let mut i = 0;
    while i < count {
        let is_out = i >= record.n_ins;
        let expected = if is_out { signature.output(i - record.n_ins) } else { signature.input(i) };
        match operand(view, record, i, expected, is_out) {
            Ok(()) => {}
            Err(e) => return Err(e),
        }
        i += 1;
    }
    // Outputs overlap nothing; an in-place output may be exactly its first input.
    i = record.n_ins;
    while i < count {
        let mut j = 0;
        while j < i {
            let taken_over = signature.is_in_place() && i == record.n_ins && j == 0;
            if let (Some(a), Some(b)) = (record.operand(i), record.operand(j)) {
                let (a, b) = (view.tensor(a), view.tensor(b));
                ensure!(
                    !overlap(&a, &b) || (taken_over && a.offset == b.offset && a.bytes() == b.bytes()),
                    "an output overlaps another operand"
                );
            }
            j += 1;
        }
        i += 1;
    }
    match op {
        Op::InputU8(_) => raw_input(view, record, u8::MAX as u64),
        Op::InputI16(_) => raw_input(view, record, i16::MIN.unsigned_abs() as u64),
        _ => match op.accumulator() {
            Some(accumulator) => accumulators(view, record, accumulator),
            None => Ok(()),
        },
    }
}

const fn operand(
    view: View<'_>,
    record: &OpRecord<'_>,
    i: usize,
    expected: Operand,
    is_out: bool,
) -> Result<(), &'static str> {
    let Some(id) = record.operand(i) else {
        ensure!(expected.optional, "an operand that is not optional is absent");
        return Ok(());
    };
    ensure!(id < view.n_tensors(), "an operand is no tensor");
    let t = view.tensor(id);
    ensure!(t.dtype as u8 == expected.dtype as u8, "an operand has another element type than its kind needs");
    ensure!(t.len() as u64 == expected.len, "an operand has another length than the shape needs");
    ensure!(!is_out || !matches!(t.space, Space::Weights), "an output is a constant");
    Ok(())
}

const fn overlap(a: &TensorRecord, b: &TensorRecord) -> bool {
    a.space as u8 == b.space as u8 && a.offset < b.offset + b.bytes() && b.offset < a.offset + a.bytes()
}

/// The bytes of input `i`, which must be a constant, and its number of elements.
const fn constant<'a>(view: View<'a>, record: &OpRecord<'_>, i: usize) -> Result<(&'a [u8], usize), &'static str> {
    let Some(id) = record.operand(i) else { return Err("requantisation parameters are absent") };
    let t = view.tensor(id);
    ensure!(matches!(t.space, Space::Weights), "requantisation parameters are not constants");
    Ok((view.weights().split_at(t.offset).1, t.len()))
}

/// Proves that multipliers and shifts, the inputs with these indices, are in range.
const fn requantisation(view: View<'_>, record: &OpRecord<'_>, inputs: [usize; 2]) -> Result<(), &'static str> {
    let ((multipliers, channels), (shifts, _)) =
        match (constant(view, record, inputs[0]), constant(view, record, inputs[1])) {
            (Ok(m), Ok(s)) => (m, s),
            (Err(e), _) | (_, Err(e)) => return Err(e),
        };
    let mut c = 0;
    while c < channels {
        let shift = shifts[c] as i8;
        ensure!((u32_at(multipliers, 4 * c) as i32) >= 0, "a requantisation multiplier is negative");
        ensure!(shift >= MIN_SHIFT as i8 && shift <= MAX_SHIFT as i8, "a requantisation shift is out of range");
        c += 1;
    }
    Ok(())
}

/// Proves that what requantisation makes of a raw value of at most `largest` fits 32 bits. Inputs 1, 2, 3
/// are multiplier, offset and shift.
const fn raw_input(view: View<'_>, record: &OpRecord<'_>, largest: u64) -> Result<(), &'static str> {
    match requantisation(view, record, [1, 3]) {
        Ok(()) => {}
        Err(e) => return Err(e),
    }
    let (Ok((multipliers, channels)), Ok((offsets, _)), Ok((shifts, _))) =
        (constant(view, record, 1), constant(view, record, 2), constant(view, record, 3))
    else {
        return Err("requantisation parameters are not constants");
    };
    let mut c = 0;
    while c < channels {
        // Saturated to 32 bits by the op.
        let acc = (largest << RAW_BITS) + (u32_at(offsets, 4 * c) as i32).unsigned_abs() as u64;
        let acc = if acc < 1 << 31 { acc } else { 1 << 31 };
        ensure!(fits(acc, u32_at(multipliers, 4 * c), shifts[c]), REQUANTISED);
        c += 1;
    }
    Ok(())
}

const REQUANTISED: &str = "a requantised value can overflow 32 bits";

/// Whether `largest * multiplier / 2^shift` fits 32 bits, with room for rounding and the zero point.
const fn fits(largest: u64, multiplier: u32, shift: u8) -> bool {
    ((largest * multiplier as u64) >> shift) + 256 <= i32::MAX as u64
}

/// Proves that `bias + sum of products` fits 32 bits, and so does what requantisation makes of it. Inputs 1 to 4
/// are weights, bias, multiplier and shift. The products are those of int8 with any int4 or int8, or with the
/// weights of int16 that are there.
const fn accumulators(view: View<'_>, record: &OpRecord<'_>, accumulator: Accumulator) -> Result<(), &'static str> {
    const LARGEST_INPUT: u64 = 128;
    match requantisation(view, record, [3, 4]) {
        Ok(()) => {}
        Err(e) => return Err(e),
    }
    let Accumulator { products, weights } = accumulator;
    let int16 = match weights {
        Width::Int16 => match constant(view, record, 1) {
            Ok((weights, _)) => Some(weights),
            Err(_) => return Err("weights of int16 are not constants"),
        },
        Width::Int4 | Width::Int8 => None,
    };
    let (Ok((biases, channels)), Ok((multipliers, _)), Ok((shifts, _))) =
        (constant(view, record, 2), constant(view, record, 3), constant(view, record, 4))
    else {
        return Err("requantisation parameters are not constants");
    };
    let mut c = 0;
    while c < channels {
        let bias = u32_at(biases, 4 * c) as i32;
        let magnitudes = match int16 {
            Some(w) => magnitudes(w, c * products as usize, products as usize),
            None if matches!(weights, Width::Int4) => products.saturating_mul(8),
            None => products.saturating_mul(128),
        };
        let largest = magnitudes.saturating_mul(LARGEST_INPUT).saturating_add(bias.unsigned_abs() as u64);
        ensure!(largest <= i32::MAX as u64, "an accumulator can overflow 32 bits");
        ensure!(fits(largest, u32_at(multipliers, 4 * c), shifts[c]), REQUANTISED);
        c += 1;
    }
    Ok(())
}

/// The sum of the magnitudes of `n` values of int16, from the `first` on.
const fn magnitudes(w: &[u8], first: usize, n: usize) -> u64 {
    let (mut sum, mut at) = (0, 2 * first);
    while at < 2 * (first + n) {
        sum += i16::from_le_bytes([w[at], w[at + 1]]).unsigned_abs() as u64;
        at += 2;
    }
    sum
}
