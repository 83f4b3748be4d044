//! The C interface: a checked model and its arena behind plain functions, for firmware written in C.
//!
//! `include/softedge.h` is made from this file by cbindgen. Every function says by its code how it went,
//! and nothing is written where the code is not [`SOFTEDGE_OK`]. It runs integer models only, as does firmware
//! in Rust that takes its models at run time.
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

use crate::engine::{Executor, Integers, Memory, Progress};
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
pub const SOFTEDGE_ENGINE_WORDS: usize = 24;

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
    /// No run in steps has begun, or it was given up.
    SOFTEDGE_NO_RUN = 105,
    /// A run in steps is not over.
    SOFTEDGE_UNFINISHED = 106,
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
    /// The run in steps that began last, if nothing came after it.
    run: Option<Progress<'static>>,
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

/// The raw input, to be written before every run: its bytes are reused while the model runs. A run in steps that is
/// not over is given up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_input(engine: *mut softedge_engine, input: *mut softedge_tensor) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { made_mut(engine).and_then(|made| give_input(made, input)) })
}

/// Runs the model on its input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_run(engine: *mut softedge_engine) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { made_mut(engine) }.map(|made| {
        made.run = None;
        made.executor.run(&Tick::default());
    }))
}

/// Begins a run of the model on its input that goes on by softedge_step, so that the firmware can do something else
/// in between. One that was not over is given up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_start(engine: *mut softedge_engine) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { made_mut(engine) }.map(|made| made.run = Some(Progress::new(made.executor.view().ops()))))
}

/// Goes on with the run that softedge_start began by at most `rows` rows, at least 1, of one op. `ops_left` says how
/// many ops are not done: 0 when the run is over. A row is a token of a linear layer, a pixel of a convolution and so
/// on; what it costs is told for each op by the Rust library, at engine::Steps.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_step(
    engine: *mut softedge_engine,
    rows: usize,
    ops_left: *mut usize,
) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { made_mut(engine).and_then(|made| step(made, rows, ops_left)) })
}

/// Computes what is left of the run that softedge_start began. Its scores are those of softedge_run, bit for bit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_finish(engine: *mut softedge_engine) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe { made_mut(engine) }.and_then(|made| {
        let run = made.run.as_mut().ok_or(SOFTEDGE_NO_RUN)?;
        while made.executor.step(run, usize::MAX) {}
        Ok(())
    }))
}

/// The scores of the last run, one per class: logits, in units of their scale. They stay until the input is
/// written or the next run begins.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softedge_scores(engine: *mut softedge_engine, scores: *mut softedge_tensor) -> softedge_code {
    // SAFETY: the caller keeps what the module asks for.
    code(unsafe {
        made_mut(engine).and_then(|made| {
            made.is_done()?;
            give(scores, tensor(&mut made.executor, View::output_id))
        })
    })
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
        105 => c"no run in steps has begun: call softedge_start",
        106 => c"a run in steps is not over: call softedge_finish",
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
    Ok(View::new_checked_for::<Integers>(bytes)?)
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
    unsafe { engine.cast::<Made>().write(Made { tag: READY, executor, run: None }) };
    Ok(())
}

impl Made {
    /// Refuses to show the scores of a run that is not over.
    fn is_done(&self) -> Result<()> {
        match &self.run {
            Some(run) if run.ops_left() > 0 => Err(SOFTEDGE_UNFINISHED),
            _ => Ok(()),
        }
    }
}

/// What an engine was made of.
///
/// # Safety
/// The module's demands on `engine`.
unsafe fn made<'e>(engine: *const softedge_engine) -> Result<&'e Made> {
    placed(engine)?;
    // SAFETY: in place, and any words are an engine's.
    if unsafe { (*engine).words[0] } != READY {
        return Err(SOFTEDGE_NO_ENGINE);
    }
    // SAFETY: `init` alone writes the tag, and with it all of it.
    Ok(unsafe { &*engine.cast::<Made>() })
}

/// What an engine was made of, to run it.
///
/// # Safety
/// The module's demands on `engine`.
unsafe fn made_mut<'e>(engine: *mut softedge_engine) -> Result<&'e mut Made> {
    // SAFETY: the caller keeps the module's demands.
    unsafe { made(engine)? };
    // SAFETY: as in `made`; nobody else uses the engine meanwhile.
    Ok(unsafe { &mut *engine.cast::<Made>() })
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

/// See [`softedge_input`].
///
/// # Safety
/// The module's demands on `input`.
unsafe fn give_input(made: &mut Made, input: *mut softedge_tensor) -> Result<()> {
    // SAFETY: the caller keeps the module's demands.
    unsafe { give(input, tensor(&mut made.executor, View::input_id))? };
    made.run = None;
    Ok(())
}

/// See [`softedge_step`].
///
/// # Safety
/// The module's demands on `ops_left`.
unsafe fn step(made: &mut Made, rows: usize, ops_left: *mut usize) -> Result<()> {
    placed(ops_left)?;
    let run = made.run.as_mut().ok_or(SOFTEDGE_NO_RUN)?;
    made.executor.step(run, rows);
    // SAFETY: the caller keeps the module's demands.
    unsafe { give(ops_left, run.ops_left()) }
}

fn argmax(made: &Made) -> Result<usize> {
    made.is_done()?;
    let executor = &made.executor;
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
unsafe fn label(engine: *const softedge_engine, class: usize, text: *mut *const c_char, len: *mut usize) -> Result<()> {
    // SAFETY: the caller keeps the module's demands.
    let executor = &unsafe { made(engine)? }.executor;
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

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use crate::engine::{Buffer, Loaded};
    use crate::format::write;
    use crate::ops::{relu::Relu, tokens::TakeI8};
    use crate::program::{Plan, Program, Role, TensorId};
    use core::ptr::{null, null_mut};

    const BLANK: softedge_engine = softedge_engine { words: [0; SOFTEDGE_ENGINE_WORDS] };
    const NOTHING: softedge_tensor =
        softedge_tensor { values: null_mut(), len: 0, bytes: 0, element: softedge_type::SOFTEDGE_F32, scale: 0.0 };
    const GARBAGE: usize = 0x5a5a;

    /// A model of one op: the scores are the second of three tokens. `change` may spoil it.
    fn take(change: impl Fn(&mut Program, TensorId)) -> Buffer {
        let mut p = Program::new();
        let x = p.add("x", DType::I8, &[3, 4], Role::Activation);
        p.inputs.push(x);
        let y = p.apply("y", TakeI8 { n: 3, c: 4, index: 1 }, &[Some(x)], &[4]);
        p.outputs.push(y);
        p.labels = ["north", "\u{f6}st", "south"].map(String::from).into();
        change(&mut p, y);
        Buffer::copy_of(&write(&p, &Plan::new(&p)).unwrap())
    }

    fn sound() -> Buffer {
        take(|p, y| p.tensors[y.index()].scale = 0.25)
    }

    /// A model of floats.
    fn floats() -> Buffer {
        let mut p = Program::new();
        let x = p.add("x", DType::F32, &[4], Role::Activation);
        p.inputs.push(x);
        let y = p.apply("y", Relu { len: 4 }, &[Some(x)], &[4]);
        p.outputs.push(y);
        Buffer::copy_of(&write(&p, &Plan::new(&p)).unwrap())
    }

    fn check(file: &[u8]) -> softedge_code {
        // SAFETY: all of a slice.
        unsafe { softedge_check(file.as_ptr().cast(), file.len()) }
    }

    fn arena_for(file: &Buffer) -> Buffer {
        let mut bytes = 0;
        // SAFETY: all of a slice, and a local.
        let code = unsafe { softedge_arena_bytes(file.bytes().as_ptr().cast(), file.bytes().len(), &mut bytes) };
        assert_eq!(code, SOFTEDGE_OK);
        Buffer::zeroed(bytes)
    }

    fn init(engine: &mut softedge_engine, file: &[u8], arena: &mut [u8]) -> softedge_code {
        let (from, arena_len) = (file.as_ptr().cast(), arena.len());
        // SAFETY: all of two slices, which the tests leave alone while they use the engine.
        unsafe { softedge_init(engine, from, file.len(), arena.as_mut_ptr().cast(), arena_len) }
    }

    /// Calls `test` with an engine of the model.
    fn with(file: &Buffer, test: impl FnOnce(&mut softedge_engine)) {
        let (mut engine, mut arena) = (BLANK, arena_for(file));
        assert_eq!(init(&mut engine, file.bytes(), arena.bytes_mut()), SOFTEDGE_OK);
        test(&mut engine);
    }

    /// What one of the functions that describe a tensor gives.
    fn described(
        function: unsafe extern "C" fn(*mut softedge_engine, *mut softedge_tensor) -> softedge_code,
        engine: &mut softedge_engine,
    ) -> softedge_tensor {
        let mut tensor = NOTHING;
        // SAFETY: an engine of this test, and a local.
        assert_eq!(unsafe { function(engine, &mut tensor) }, SOFTEDGE_OK);
        tensor
    }

    /// Writes the input and runs.
    fn run<T: Copy>(engine: &mut softedge_engine, input: &[T]) {
        let tensor = described(softedge_input, engine);
        assert_eq!((tensor.len, tensor.bytes), (input.len(), size_of_val(input)));
        // SAFETY: so many elements were promised there; then an engine of this test.
        unsafe {
            tensor.values.cast::<T>().copy_from_nonoverlapping(input.as_ptr(), input.len());
            assert_eq!(softedge_run(engine), SOFTEDGE_OK);
        }
    }

    fn values<'a, T>(tensor: &softedge_tensor) -> &'a [T] {
        // SAFETY: so many elements were promised there.
        unsafe { core::slice::from_raw_parts(tensor.values.cast(), tensor.len) }
    }

    fn best(engine: &softedge_engine) -> (softedge_code, usize) {
        let mut class = GARBAGE;
        // SAFETY: an engine of this test, and a local.
        (unsafe { softedge_argmax(engine, &mut class) }, class)
    }

    fn name(engine: &softedge_engine, class: usize) -> core::result::Result<&str, softedge_code> {
        let (mut text, mut len) = (null(), GARBAGE);
        // SAFETY: an engine of this test, and two locals.
        match unsafe { softedge_label(engine, class, &mut text, &mut len) } {
            // SAFETY: so many bytes were promised there.
            SOFTEDGE_OK => Ok(core::str::from_utf8(unsafe { core::slice::from_raw_parts(text.cast(), len) }).unwrap()),
            code => {
                assert!(text.is_null() && len == GARBAGE, "written in spite of {code:?}");
                Err(code)
            }
        }
    }

    #[test]
    fn a_model_runs_from_the_check_to_the_label() {
        let file = sound();
        assert_eq!(check(file.bytes()), SOFTEDGE_OK);
        with(&file, |engine| {
            run::<i8>(engine, &[9, 9, 9, 9, -3, 7, -128, 7, 8, 8, 8, 8]);
            let scores = described(softedge_scores, engine);
            assert_eq!(values::<i8>(&scores), [-3, 7, -128, 7]);
            assert_eq!((scores.len, scores.bytes, scores.scale), (4, 4, 0.25));
            assert_eq!(scores.element, softedge_type::SOFTEDGE_I8);
            assert_eq!(best(engine), (SOFTEDGE_OK, 1), "the first of equals");
            assert_eq!(["north", "\u{f6}st", "south"], [0, 1, 2].map(|class| name(engine, class).unwrap()));
            run::<i8>(engine, &[0, 0, 0, 0, -3, -7, -128, -2, 0, 0, 0, 0]);
            assert_eq!(best(engine), (SOFTEDGE_OK, 3));
        });
    }

    #[test]
    fn a_trained_model_gives_the_scores_that_rust_gets() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/firmware-examples/minimal/src/gesture.soft");
        let file = Buffer::copy_of(&std::fs::read(path).unwrap());
        let input: Vec<i16> = (0..768).map(|i| ((i * 7919) % 1601) as i16 - 800).collect();
        let mut arena = arena_for(&file);
        let mut model = Loaded::<Integers>::new(file.bytes(), arena.bytes_mut()).unwrap();
        model.input::<i16>().unwrap().copy_from_slice(&input);
        let expected = model.run::<i16>().unwrap();
        with(&file, |engine| {
            assert_eq!(described(softedge_input, engine).element, softedge_type::SOFTEDGE_I16);
            run(engine, &input);
            let scores = described(softedge_scores, engine);
            assert_eq!((values::<i16>(&scores), scores.scale), (expected.values(), expected.scale()));
            assert_eq!(scores.element, softedge_type::SOFTEDGE_I16);
            assert_eq!(best(engine), (SOFTEDGE_OK, expected.argmax()));
            assert_eq!(name(engine, expected.argmax()).ok(), expected.label(expected.argmax()));
        });
    }

    #[test]
    fn a_run_in_steps_gives_the_scores_of_a_whole_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/firmware-examples/minimal/src/gesture.soft");
        let file = Buffer::copy_of(&std::fs::read(path).unwrap());
        let input: Vec<i16> = (0..768).map(|i| ((i * 7919) % 1601) as i16 - 800).collect();
        let set = |engine: &mut softedge_engine| {
            let tensor = described(softedge_input, engine);
            // SAFETY: so many elements were promised there.
            unsafe { tensor.values.cast::<i16>().copy_from_nonoverlapping(input.as_ptr(), input.len()) };
        };
        let step = |engine: &mut softedge_engine, rows: usize| {
            let mut left = GARBAGE;
            // SAFETY: an engine of this test, and a local.
            match unsafe { softedge_step(engine, rows, &mut left) } {
                SOFTEDGE_OK => Ok(left),
                code => {
                    assert_eq!(left, GARBAGE);
                    Err(code)
                }
            }
        };
        with(&file, |engine| {
            run(engine, &input);
            let expected = values::<i16>(&described(softedge_scores, engine)).to_vec();
            let n_ops = View::new_checked(file.bytes()).unwrap().n_ops();
            assert_eq!(step(engine, 1), Err(SOFTEDGE_NO_RUN), "none has begun");
            // SAFETY: an engine of this test, here and below.
            assert_eq!(unsafe { softedge_finish(engine) }, SOFTEDGE_NO_RUN);
            for rows in [0, 1, 5, 1000, usize::MAX] {
                set(engine);
                assert_eq!(unsafe { softedge_start(engine) }, SOFTEDGE_OK);
                let (mut steps, mut before) = (1, n_ops);
                loop {
                    let left = step(engine, rows).unwrap();
                    assert!(left == before || left + 1 == before);
                    before = left;
                    if left == 0 {
                        break;
                    }
                    steps += 1;
                    assert_eq!(best(engine), (SOFTEDGE_UNFINISHED, GARBAGE));
                    let mut tensor = NOTHING;
                    assert_eq!(unsafe { softedge_scores(engine, &mut tensor) }, SOFTEDGE_UNFINISHED);
                    assert!(tensor.values.is_null());
                }
                assert!(if rows < 2 { steps > 4 * n_ops } else { steps >= n_ops }, "{steps} steps");
                assert_eq!(step(engine, rows), Ok(0), "it is over");
                assert_eq!(values::<i16>(&described(softedge_scores, engine)), expected, "by {rows}");
                // Given up for another, which is finished early.
                set(engine);
                assert_eq!(unsafe { softedge_start(engine) }, SOFTEDGE_OK);
                step(engine, 3).unwrap();
                set(engine);
                assert_eq!(step(engine, 3), Err(SOFTEDGE_NO_RUN), "the input may have changed");
                assert_eq!(unsafe { softedge_start(engine) }, SOFTEDGE_OK);
                step(engine, 3).unwrap();
                assert_eq!(unsafe { softedge_finish(engine) }, SOFTEDGE_OK);
                assert_eq!(values::<i16>(&described(softedge_scores, engine)), expected);
                // And for a whole one.
                assert_eq!(unsafe { softedge_start(engine) }, SOFTEDGE_OK);
                run(engine, &input);
                assert_eq!(step(engine, 3), Err(SOFTEDGE_NO_RUN));
                assert_eq!(values::<i16>(&described(softedge_scores, engine)), expected);
            }
        });
    }

    #[test]
    fn a_bad_file_is_refused_by_all_that_take_one() {
        let file = sound();
        let bytes = file.bytes();
        let spoilt = |at: usize, value: u8| {
            let mut copy = file.clone();
            copy.bytes_mut()[at] = value;
            copy
        };
        let mut longer = Buffer::zeroed(bytes.len() + 16);
        longer.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        let mut off = Buffer::zeroed(bytes.len() + 8);
        off.bytes_mut()[8..].copy_from_slice(bytes);
        let (magic, version, last) = (spoilt(0, b's'), spoilt(4, 255), spoilt(bytes.len() - 1, 0xa5));
        let float = floats();
        for (file, expected) in [
            (&bytes[..bytes.len() - 1], SOFTEDGE_TRUNCATED),
            (&bytes[..0], SOFTEDGE_TRUNCATED),
            (magic.bytes(), SOFTEDGE_NOT_A_MODEL),
            (version.bytes(), SOFTEDGE_VERSION),
            (last.bytes(), SOFTEDGE_CHECKSUM),
            (longer.bytes(), SOFTEDGE_MALFORMED),
            (&off.bytes()[8..], SOFTEDGE_MISALIGNED),
            (float.bytes(), SOFTEDGE_UNSUPPORTED_OP),
        ] {
            assert_eq!(check(file), expected);
            let (mut needed, mut engine, mut arena) = (GARBAGE, BLANK, Buffer::zeroed(4096));
            // SAFETY: all of a slice, and a local.
            let code = unsafe { softedge_arena_bytes(file.as_ptr().cast(), file.len(), &mut needed) };
            assert_eq!((code, needed), (expected, GARBAGE));
            assert_eq!(init(&mut engine, file, arena.bytes_mut()), expected);
            assert_eq!(best(&engine), (SOFTEDGE_NO_ENGINE, GARBAGE));
        }
    }

    #[test]
    fn a_null_file_and_lengths_beyond_memory_are_refused() {
        let file = sound();
        let start = file.bytes().as_ptr().cast();
        let (mut engine, mut arena, mut needed) = (BLANK, arena_for(&file), GARBAGE);
        let (arena, room) = (arena.bytes_mut().as_mut_ptr().cast::<c_void>(), arena.bytes().len());
        // SAFETY: nothing is read of a null pointer or of memory with such a length.
        unsafe {
            assert_eq!(softedge_check(null(), 512), SOFTEDGE_NULL);
            assert_eq!(softedge_arena_bytes(null(), 512, &mut needed), SOFTEDGE_NULL);
            assert_eq!(softedge_init(&mut engine, null(), 512, arena, room), SOFTEDGE_NULL);
            for len in [usize::MAX, usize::MAX / 2 + 1] {
                assert_eq!(softedge_check(start, len), SOFTEDGE_LENGTH);
                assert_eq!(softedge_arena_bytes(start, len, &mut needed), SOFTEDGE_LENGTH);
                assert_eq!(softedge_init(&mut engine, start, len, arena, room), SOFTEDGE_LENGTH);
            }
            // Around the end of the address space.
            let high = core::ptr::without_provenance((isize::MAX as usize + 1) | 1 << (usize::BITS - 2));
            assert_eq!(softedge_check(high, isize::MAX as usize), SOFTEDGE_LENGTH);
        }
        assert_eq!(needed, GARBAGE);
    }

    #[test]
    fn an_arena_or_engine_that_does_not_fit_is_refused() {
        let file = sound();
        let needed = arena_for(&file).bytes().len();
        let (bytes, len) = (file.bytes().as_ptr().cast(), file.bytes().len());
        let (mut engine, mut memory) = (BLANK, Buffer::zeroed(needed + 16));
        let arena = memory.bytes_mut();
        assert_eq!(init(&mut engine, file.bytes(), &mut arena[..needed - 1]), SOFTEDGE_TOO_SMALL);
        assert_eq!(init(&mut engine, file.bytes(), &mut arena[..0]), SOFTEDGE_TOO_SMALL);
        assert_eq!(init(&mut engine, file.bytes(), &mut arena[8..]), SOFTEDGE_MISALIGNED);
        let arena = arena.as_mut_ptr().cast::<c_void>();
        // SAFETY: nothing is read or written where these point.
        unsafe {
            assert_eq!(softedge_init(&mut engine, bytes, len, null_mut(), needed), SOFTEDGE_NULL);
            assert_eq!(softedge_init(null_mut(), bytes, len, arena, needed), SOFTEDGE_NULL);
            assert_eq!(softedge_init(&mut engine, bytes, len, arena, usize::MAX), SOFTEDGE_LENGTH);
            let odd = (&raw mut engine).byte_add(1);
            assert_eq!(softedge_init(odd, bytes, len, arena, needed), SOFTEDGE_MISALIGNED);
            assert_eq!(softedge_init(&mut engine, bytes, len, bytes.cast_mut(), len), SOFTEDGE_OVERLAP);
            assert_eq!(softedge_init(arena.cast(), bytes, len, arena, needed), SOFTEDGE_OVERLAP);
            assert_eq!(softedge_init(bytes.cast_mut().cast(), bytes, len, arena, needed), SOFTEDGE_OVERLAP);
        }
        assert_eq!(check(file.bytes()), SOFTEDGE_OK, "the file is as it was");
        assert_eq!(best(&engine), (SOFTEDGE_NO_ENGINE, GARBAGE));
    }

    #[test]
    fn an_engine_that_was_not_made_does_nothing() {
        let refused = |engine: *mut softedge_engine, expected| {
            let (mut tensor, mut class, mut text, mut len) = (NOTHING, GARBAGE, null(), GARBAGE);
            // SAFETY: null, misaligned or an engine of this test; and locals.
            unsafe {
                assert_eq!(softedge_input(engine, &mut tensor), expected);
                assert_eq!(softedge_run(engine), expected);
                assert_eq!(softedge_start(engine), expected);
                assert_eq!(softedge_step(engine, 1, &mut class), expected);
                assert_eq!(softedge_finish(engine), expected);
                assert_eq!(softedge_scores(engine, &mut tensor), expected);
                assert_eq!(softedge_argmax(engine, &mut class), expected);
                assert_eq!(softedge_label(engine, 0, &mut text, &mut len), expected);
            }
            assert!(tensor.values.is_null() && text.is_null());
            assert_eq!((class, len), (GARBAGE, GARBAGE));
        };
        let mut engine = BLANK;
        refused(null_mut(), SOFTEDGE_NULL);
        refused(&mut engine, SOFTEDGE_NO_ENGINE);
        refused((&raw mut engine).wrapping_byte_add(1), SOFTEDGE_MISALIGNED);
        let (file, mut damaged) = (sound(), sound());
        damaged.bytes_mut()[100] ^= 1;
        let mut arena = arena_for(&file);
        assert_eq!(init(&mut engine, file.bytes(), arena.bytes_mut()), SOFTEDGE_OK);
        assert_eq!(init(&mut engine, damaged.bytes(), arena.bytes_mut()), SOFTEDGE_CHECKSUM);
        refused(&mut engine, SOFTEDGE_NO_ENGINE);
    }

    #[test]
    fn results_go_nowhere_but_where_they_can() {
        let file = sound();
        let (start, len) = (file.bytes().as_ptr().cast(), file.bytes().len());
        with(&file, |engine| {
            let (mut tensor, mut class, mut text, mut size) = (NOTHING, GARBAGE, null(), GARBAGE);
            let odd_tensor = (&raw mut tensor).wrapping_byte_add(1);
            let odd = (&raw mut class).wrapping_byte_add(1);
            // SAFETY: an engine of this test; nothing is written to null or where it is not aligned.
            unsafe {
                assert_eq!(softedge_arena_bytes(start, len, null_mut()), SOFTEDGE_NULL);
                assert_eq!(softedge_arena_bytes(start, len, odd), SOFTEDGE_MISALIGNED);
                assert_eq!(softedge_input(engine, null_mut()), SOFTEDGE_NULL);
                assert_eq!(softedge_input(engine, odd_tensor), SOFTEDGE_MISALIGNED);
                assert_eq!(softedge_start(engine), SOFTEDGE_OK);
                assert_eq!(softedge_step(engine, 1, null_mut()), SOFTEDGE_NULL);
                assert_eq!(softedge_step(engine, 1, odd), SOFTEDGE_MISALIGNED);
                assert_eq!(softedge_argmax(engine, &mut class), SOFTEDGE_UNFINISHED, "no step was taken");
                assert_eq!(softedge_finish(engine), SOFTEDGE_OK);
                assert_eq!(softedge_scores(engine, null_mut()), SOFTEDGE_NULL);
                assert_eq!(softedge_scores(engine, odd_tensor), SOFTEDGE_MISALIGNED);
                assert_eq!(softedge_argmax(engine, null_mut()), SOFTEDGE_NULL);
                assert_eq!(softedge_argmax(engine, odd), SOFTEDGE_MISALIGNED);
                assert_eq!(softedge_label(engine, 0, null_mut(), &mut size), SOFTEDGE_NULL);
                assert_eq!(softedge_label(engine, 0, &mut text, null_mut()), SOFTEDGE_NULL);
                assert_eq!(softedge_label(engine, 0, &mut text, odd), SOFTEDGE_MISALIGNED);
            }
            assert!(tensor.values.is_null() && text.is_null());
            assert_eq!((class, size), (GARBAGE, GARBAGE));
        });
    }

    #[test]
    fn a_class_without_a_label_has_none() {
        with(&sound(), |engine| {
            assert_eq!(name(engine, 3), Err(SOFTEDGE_NO_LABEL));
            assert_eq!(name(engine, usize::MAX), Err(SOFTEDGE_NO_LABEL));
        });
        with(&take(|p, _| p.labels.clear()), |engine| assert_eq!(name(engine, 0), Err(SOFTEDGE_NO_LABEL)));
    }

    #[test]
    fn scores_of_floats_have_no_largest() {
        let file = take(|p, _| {
            let f = p.add("f", DType::F32, &[4], Role::Activation);
            p.inputs.push(f);
            p.outputs = Vec::from([f]);
        });
        with(&file, |engine| {
            assert_eq!(described(softedge_scores, engine).element, softedge_type::SOFTEDGE_F32);
            assert_eq!(best(engine), (SOFTEDGE_ELEMENT_TYPE, GARBAGE));
        });
    }

    #[test]
    fn the_numbers_of_codes_and_types_stay() {
        let (needed, found, what, index, kind, at) = (0, 0, "", 0, 0, 0);
        let errors = [
            Error::Truncated { needed, found },
            Error::NotAModel { found: 0 },
            Error::Version { needed: 0, found: 0 },
            Error::Checksum { needed: 0, found: 0 },
            Error::Misaligned { needed, found },
            Error::Malformed { at, what },
            Error::Op { index, kind, what },
            Error::UnsupportedOp { index, kind },
            Error::TooSmall { what, needed, found },
            Error::ReadOnly { what },
            Error::ElementType { what, needed: "", found: "" },
            Error::ArenaTaken,
        ];
        assert_eq!(errors.map(|e| softedge_code::from(e) as i32), core::array::from_fn(|i| i as i32 + 1));
        let own = [SOFTEDGE_NULL, SOFTEDGE_LENGTH, SOFTEDGE_OVERLAP, SOFTEDGE_NO_ENGINE, SOFTEDGE_NO_LABEL];
        assert_eq!(own.map(|code| code as i32), [100, 101, 102, 103, 104]);
        assert_eq!([SOFTEDGE_NO_RUN, SOFTEDGE_UNFINISHED].map(|code| code as i32), [105, 106]);
        assert_eq!(SOFTEDGE_OK as i32, 0);
        let types = [DType::F32, DType::I32, DType::I16, DType::I8, DType::U8];
        assert_eq!(types.map(|t| softedge_type::from(t) as u8), types.map(|t| t as u8));
    }

    #[test]
    fn every_code_has_a_text_of_its_own() {
        // SAFETY: never null, with a NUL at its end.
        let text = |code| unsafe { CStr::from_ptr(softedge_error_text(code)) }.to_str().unwrap();
        let codes: Vec<i32> = (0..=12).chain(100..=106).collect();
        let mut texts: Vec<_> = codes.iter().map(|&code| text(code)).collect();
        for stranger in [-1, 13, 99, 107, i32::MIN, i32::MAX] {
            assert_eq!(text(stranger), "not a code of this library");
        }
        texts.push(text(-1));
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), codes.len() + 1);
        assert!(texts.iter().all(|t| !t.is_empty()));
    }
}
