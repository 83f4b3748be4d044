//! The C interface: a checked model and its arena behind plain functions, for firmware written in C.
//!
//! `include/softedge.h` is made from this file by cbindgen. Every function says by its code how it went,
//! and nothing is written where the code is not [`SOFTEDGE_OK`](softedge_code::SOFTEDGE_OK). Integer models
//! only, as in firmware that takes its models at run time.
//!
//! Null and misaligned pointers, lengths that no memory has, banks that overlap, and an engine that was
//! never made are refused. What no callee can check is the caller's, for all functions:
//!
//! - A pointer that is not null points to as much memory as the length beside it says, or to one value of
//!   its type.
//! - From [`softedge_init`] on, file and arena stay where they are, the file unchanged, the arena touched
//!   through the pointers that the engine gives only.
//! - An engine is used by one thread or interrupt at a time.
#![allow(unsafe_code)]
// These are C's names; what a caller must keep is the same for all functions, and above.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

use crate::engine::{Executor, Integers, Memory, Runs};
use crate::error::Error;
use crate::format::{TensorRecord, View};
use crate::ops::{DType, Tick};
use crate::program::{ALIGN, Space};
use core::ffi::{CStr, c_char, c_void};
use core::ops::Range;
use softedge_code::*;

/// Alignment in bytes of a model file and of an arena.
pub const SOFTEDGE_ALIGN: usize = 16;

/// Words of an engine.
pub const SOFTEDGE_ENGINE_WORDS: usize = 20;

/// How a call went. The numbers never change; up to SOFTEDGE_ARENA_TAKEN they are the errors of the Rust
/// library.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum softedge_code {
    /// All is well.
    SOFTEDGE_OK = 0,
    /// The bytes end before the file does.
    SOFTEDGE_TRUNCATED = 1,
    /// The bytes do not start with the magic of a .soft file.
    SOFTEDGE_NOT_A_MODEL = 2,
    /// The file is of a version this library does not read.
    SOFTEDGE_VERSION = 3,
    /// The checksum does not match: some byte changed since the file was written.
    SOFTEDGE_CHECKSUM = 4,
    /// The file, the arena or another pointer is not aligned.
    SOFTEDGE_MISALIGNED = 5,
    /// A header, tensor or metadata field that no writer produces; or bytes after the end of the file.
    SOFTEDGE_MALFORMED = 6,
    /// An op whose operands do not fit its shape or each other.
    SOFTEDGE_OP = 7,
    /// The model uses an op that this library does not run: it is not an integer model.
    SOFTEDGE_UNSUPPORTED_OP = 8,
    /// The arena is smaller than the model needs.
    SOFTEDGE_TOO_SMALL = 9,
    /// A program writes to memory that was handed over for reading only.
    SOFTEDGE_READ_ONLY = 10,
    /// The scores are no integers.
    SOFTEDGE_ELEMENT_TYPE = 11,
    /// The arena is already in use.
    SOFTEDGE_ARENA_TAKEN = 12,
    /// A pointer is null.
    SOFTEDGE_NULL = 100,
    /// A length that no memory has.
    SOFTEDGE_LENGTH = 101,
    /// File, arena and engine share bytes.
    SOFTEDGE_OVERLAP = 102,
    /// The engine was not made by softedge_init, or making it failed.
    SOFTEDGE_NO_ENGINE = 103,
    /// There is no such class, or the model carries no labels.
    SOFTEDGE_NO_LABEL = 104,
}

/// Type of an element.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum softedge_type {
    /// float
    SOFTEDGE_F32 = 0,
    /// int32_t
    SOFTEDGE_I32 = 1,
    /// int16_t
    SOFTEDGE_I16 = 2,
    /// int8_t
    SOFTEDGE_I8 = 3,
    /// uint8_t
    SOFTEDGE_U8 = 4,
}

/// A model's raw input or its scores, in the arena.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softedge_tensor {
    /// The elements.
    pub values: *mut c_void,
    /// Number of elements.
    pub len: usize,
    /// Number of bytes.
    pub bytes: usize,
    /// Type of the elements.
    pub element: softedge_type,
    /// Real value of one unit.
    pub scale: f32,
}

/// One model on one arena. Made by softedge_init in memory of the caller's; zeros are an engine that was
/// not made yet. Nothing needs to be freed.
#[repr(C)]
#[derive(Debug)]
pub struct softedge_engine {
    /// Not for the caller.
    pub words: [usize; SOFTEDGE_ENGINE_WORDS],
}

/// What the words of an engine hold.
#[repr(C)]
struct Made {
    /// [`READY`] once the rest is there.
    tag: usize,
    executor: Executor<'static, Integers>,
}

const READY: usize = u32::from_le_bytes(*b"soft") as usize;

const _: () = {
    assert!(SOFTEDGE_ALIGN == ALIGN);
    assert!(size_of::<Made>() <= size_of::<softedge_engine>(), "raise SOFTEDGE_ENGINE_WORDS");
    assert!(align_of::<Made>() <= align_of::<softedge_engine>());
};

/// Checks the model in `len` bytes at `file`, which must lie at a multiple of SOFTEDGE_ALIGN: every byte of
/// it, so that nothing can go wrong while it runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_check(file: *const c_void, len: usize) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { model(file, len) }.map(|_| ()))
}

/// Bytes of arena that the model needs. Checks it first, as softedge_check does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_arena_bytes(file: *const c_void, len: usize, bytes: *mut usize) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { model(file, len).and_then(|view| give(bytes, view.size(Space::Arena))) })
}

/// Checks the model, as softedge_check does, and makes an engine of it with `arena_len` bytes at `arena`: at
/// a multiple of SOFTEDGE_ALIGN, and as many as softedge_arena_bytes says or more. The file is read in
/// place, so it can stay in flash. File and arena belong to the engine from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_init(
    engine: *mut softedge_engine,
    file: *const c_void,
    len: usize,
    arena: *mut c_void,
    arena_len: usize,
) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { init(engine, file, len, arena, arena_len) })
}

/// The raw input, to be written before every run: its bytes are reused while the model runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_input(engine: *mut softedge_engine, input: *mut softedge_tensor) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { made_mut(engine).and_then(|m| give(input, tensor(m, View::input_id))) })
}

/// Runs the model on its input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_run(engine: *mut softedge_engine) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { made_mut(engine) }.map(|executor| executor.run(&Tick::default())))
}

/// The scores of the last run, one per class: logits, in units of their scale. They stay until the input is
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_scores(engine: *mut softedge_engine, scores: *mut softedge_tensor) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { made_mut(engine).and_then(|m| give(scores, tensor(m, View::output_id))) })
}

/// The class with the largest score of the last run; the first of equals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_argmax(engine: *const softedge_engine, class_index: *mut usize) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { made(engine).and_then(argmax).and_then(|class| give(class_index, class)) })
}

/// The name of a class: `len` bytes of UTF-8 at `text`, in the file, without a NUL at their end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_label(
    engine: *const softedge_engine,
    class_index: usize,
    text: *mut *const c_char,
    len: *mut usize,
) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { label(engine, class_index, text, len) })
}

/// What a code means and what to do about it; never null, with a NUL at its end.
#[unsafe(no_mangle)]
pub extern "C" fn softedge_error_text(code: i32) -> *const c_char {
    text_of(code).as_ptr()
}

type Result<T> = core::result::Result<T, softedge_code>;

fn code(result: Result<()>) -> softedge_code {
    match result {
        Ok(()) => SOFTEDGE_OK,
        Err(code) => code,
    }
}

impl From<Error> for softedge_code {
    fn from(error: Error) -> Self {
        match error {
            Error::Truncated { .. } => SOFTEDGE_TRUNCATED,
            Error::NotAModel { .. } => SOFTEDGE_NOT_A_MODEL,
            Error::Version { .. } => SOFTEDGE_VERSION,
            Error::Checksum { .. } => SOFTEDGE_CHECKSUM,
            Error::Misaligned { .. } => SOFTEDGE_MISALIGNED,
            Error::Malformed { .. } => SOFTEDGE_MALFORMED,
            Error::Op { .. } => SOFTEDGE_OP,
            Error::UnsupportedOp { .. } => SOFTEDGE_UNSUPPORTED_OP,
            Error::TooSmall { .. } => SOFTEDGE_TOO_SMALL,
            Error::ReadOnly { .. } => SOFTEDGE_READ_ONLY,
            Error::ElementType { .. } => SOFTEDGE_ELEMENT_TYPE,
            Error::ArenaTaken => SOFTEDGE_ARENA_TAKEN,
        }
    }
}

impl From<DType> for softedge_type {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::SOFTEDGE_F32,
            DType::I32 => Self::SOFTEDGE_I32,
            DType::I16 => Self::SOFTEDGE_I16,
            DType::I8 => Self::SOFTEDGE_I8,
            DType::U8 => Self::SOFTEDGE_U8,
        }
    }
}

/// By number, because C may pass any. [`Error::summary`] has no NUL, and speaks of Rust.
const fn text_of(code: i32) -> &'static CStr {
    match code {
        0 => c"all is well",
        1 => c"the model file is cut short: copy it again, and pass its whole length",
        2 => c"not a .soft model: export one with `softedge export`",
        3 => c"the model's format is not this library's: update the library or export the model again",
        4 => c"the model file is damaged (checksum): copy it again",
        5 => c"a pointer is not aligned: file and arena must start at a multiple of SOFTEDGE_ALIGN",
        6 => c"the file is malformed or longer than the model: pass its exact length or export it again",
        7 => c"an op of the model does not fit its operands: export the model again",
        8 => c"the model uses an op that this library does not run: quantise it, then export",
        9 => c"the arena is too small: give it what softedge_arena_bytes says",
        10 => c"the model writes to read-only memory: export it again",
        11 => c"the scores are no integers: quantise the model, then export",
        12 => c"the arena was taken before: share it",
        100 => c"a pointer is null",
        101 => c"a length reaches beyond the end of memory",
        102 => c"file, arena and engine overlap: give each memory of its own",
        103 => c"the engine was not made: call softedge_init and look at its code",
        104 => c"the model has no label for this class",
        _ => c"not a code of this library",
    }
}

/// The address range of `len` bytes at `start`, if there can be such bytes.
fn range(start: *const c_void, len: usize) -> Result<Range<usize>> {
    if start.is_null() {
        return Err(SOFTEDGE_NULL);
    }
    if len > isize::MAX as usize {
        return Err(SOFTEDGE_LENGTH);
    }
    let end = start.addr().checked_add(len).ok_or(SOFTEDGE_LENGTH)?;
    Ok(start.addr()..end)
}

/// [`range`] of a bank of memory, which is aligned.
fn bank(start: *const c_void, len: usize) -> Result<Range<usize>> {
    let range = range(start, len)?;
    if range.start % ALIGN != 0 { Err(SOFTEDGE_MISALIGNED) } else { Ok(range) }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Refuses a pointer that no value can be behind.
fn placed<T>(pointer: *const T) -> Result<()> {
    if pointer.is_null() {
        Err(SOFTEDGE_NULL)
    } else if !pointer.is_aligned() {
        Err(SOFTEDGE_MISALIGNED)
    } else {
        Ok(())
    }
}

/// The checked model at `file`, if its ops are integer ones.
///
/// # Safety
/// The module's demands on `file`; it lives as long as the view is used.
unsafe fn model(file: *const c_void, len: usize) -> Result<View<'static>> {
    bank(file, len)?;
    // SAFETY: not null and no longer than memory can be; the caller vouches for the rest.
    let bytes = unsafe { core::slice::from_raw_parts(file.cast::<u8>(), len) };
    let view = View::new_checked(bytes)?;
    if view.op_set().union(Integers::OPS) != Integers::OPS {
        return Err(SOFTEDGE_UNSUPPORTED_OP);
    }
    Ok(view)
}

/// See [`softedge_init`].
///
/// # Safety
/// The module's demands.
unsafe fn init(
    engine: *mut softedge_engine,
    file: *const c_void,
    len: usize,
    arena: *mut c_void,
    arena_len: usize,
) -> Result<()> {
    placed(engine)?;
    let banks = [range(engine.cast(), size_of::<softedge_engine>())?, bank(file, len)?, bank(arena, arena_len)?];
    if overlap(&banks[0], &banks[1]) || overlap(&banks[0], &banks[2]) || overlap(&banks[1], &banks[2]) {
        return Err(SOFTEDGE_OVERLAP);
    }
    // SAFETY: in place, and any words are an engine's. Cleared so that no older one is left if this fails.
    unsafe { engine.write(softedge_engine { words: [0; SOFTEDGE_ENGINE_WORDS] }) };
    // SAFETY: the caller keeps the module's demands.
    let view = unsafe { model(file, len)? };
    // SAFETY: not null, no longer than memory can be, apart from file and engine; the caller leaves the
    // arena to the engine.
    let arena = unsafe { core::slice::from_raw_parts_mut(arena.cast::<u8>(), arena_len) };
    let executor = Executor::new(view, Memory::new(arena))?;
    // SAFETY: in place, large and aligned enough: see the assertions at `Made`.
    unsafe { engine.cast::<Made>().write(Made { tag: READY, executor }) };
    Ok(())
}

/// The executor of an engine.
///
/// # Safety
/// The module's demands on `engine`.
unsafe fn made<'e>(engine: *const softedge_engine) -> Result<&'e Executor<'static, Integers>> {
    placed(engine)?;
    // SAFETY: in place, and any words are an engine's.
    if unsafe { (*engine).words[0] } != READY {
        return Err(SOFTEDGE_NO_ENGINE);
    }
    // SAFETY: `init` alone writes the tag, and with it the executor.
    Ok(unsafe { &(*engine.cast::<Made>()).executor })
}

/// The executor of an engine, to run it.
///
/// # Safety
/// The module's demands on `engine`.
unsafe fn made_mut<'e>(engine: *mut softedge_engine) -> Result<&'e mut Executor<'static, Integers>> {
    // SAFETY: the caller keeps the module's demands.
    unsafe { made(engine)? };
    // SAFETY: as in `made`; nobody else uses the engine meanwhile.
    Ok(unsafe { &mut (*engine.cast::<Made>()).executor })
}

/// Writes `value` to where the caller wants it.
///
/// # Safety
/// The module's demands on `to`.
unsafe fn give<T>(to: *mut T, value: T) -> Result<()> {
    placed(to)?;
    // SAFETY: in place; the caller vouches for the memory.
    unsafe { to.write(value) };
    Ok(())
}

/// The model's first input or output.
fn tensor(executor: &mut Executor<'static, Integers>, id: fn(&View<'static>, usize) -> usize) -> softedge_tensor {
    let view = executor.view();
    let id = id(&view, 0);
    let TensorRecord { dtype, scale, .. } = view.tensor(id);
    let bytes = executor.tensor_mut(id).unwrap_or_default();
    softedge_tensor {
        values: bytes.as_mut_ptr().cast(),
        len: bytes.len() / dtype.size(),
        bytes: bytes.len(),
        element: dtype.into(),
        scale,
    }
}

fn argmax(executor: &Executor<'static, Integers>) -> Result<usize> {
    match executor.view().output(0).dtype {
        DType::I32 => Ok(executor.scores::<i32>().argmax()),
        DType::I16 => Ok(executor.scores::<i16>().argmax()),
        DType::I8 => Ok(executor.scores::<i8>().argmax()),
        DType::U8 => Ok(executor.scores::<u8>().argmax()),
        // No integer op makes them, and comparing them would link floats in software.
        DType::F32 => Err(SOFTEDGE_ELEMENT_TYPE),
    }
}

/// See [`softedge_label`].
///
/// # Safety
/// The module's demands.
unsafe fn label(
    engine: *const softedge_engine,
    class: usize,
    text: *mut *const c_char,
    len: *mut usize,
) -> Result<()> {
    // SAFETY: the caller keeps the module's demands.
    let executor = unsafe { made(engine)? };
    // Both before either is written.
    placed(text)?;
    placed(len)?;
    let label = executor.view().label(class).ok_or(SOFTEDGE_NO_LABEL)?;
    // SAFETY: the caller keeps the module's demands.
    unsafe {
        give(text, label.as_ptr().cast())?;
        give(len, label.len())
    }
}

/// Where a panic would end, in a library of its own: no input reaches one, and there is nobody to tell.
#[cfg(all(target_os = "none", not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(test)]
mod tests;
