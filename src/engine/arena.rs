//! The memory of a run: banks of bytes, handed to ops as typed slices.
//!
//! This is the one place outside `arch` where the engine needs `unsafe`. What it relies on was
//! proven by [`View::new_checked`]: every tensor lies inside its space at a multiple of [`ALIGN`],
//! and what an op writes overlaps none of its other operands.
#![allow(unsafe_code)]

use super::element::Element;
use crate::error::Error;
use crate::format::{OpRecord, View};
use crate::program::{ALIGN, Space};
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Bytes at a multiple of 16, as a model and every memory bank must be.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct Aligned<T: ?Sized>(pub T);

/// The bytes of an arena, aligned.
pub type ArenaBytes<const N: usize> = Aligned<[u8; N]>;

/// An arena in a `static`, given out once.
///
/// It begins as zeros. A link section of its own must therefore be one that the start-up code zeroes
/// (or the program, before anything asks for the arena), as `firmware-examples/two-models` shows.
///
/// ```
/// use softedge::engine::Arena;
/// static ARENA: Arena<1024> = Arena::new();
/// let bytes = ARENA.take()?;
/// assert_eq!(bytes.0.len(), 1024);
/// assert!(ARENA.take().is_err());
/// # Ok::<(), softedge::Error>(())
/// ```
pub struct Arena<const N: usize> {
    bytes: UnsafeCell<ArenaBytes<N>>,
    asking: AtomicUsize,
    /// 0 until somebody asks. Not a bool: memory that nobody zeroed may hold anything.
    closed: AtomicU8,
}

// SAFETY: the bytes are reachable only through `take`, which gives out one exclusive reference.
unsafe impl<const N: usize> Sync for Arena<N> {}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Arena<N> {
    /// An arena of zeros.
    pub const fn new() -> Self {
        Self { bytes: UnsafeCell::new(Aligned([0; N])), asking: AtomicUsize::new(0), closed: AtomicU8::new(0) }
    }

    /// The arena, once. Models that run one after the other share it by borrowing from it in turn.
    ///
    /// # Errors
    /// [`Error::ArenaTaken`] on every later call, and if two contexts ask at the same moment
    /// possibly for both.
    #[allow(clippy::mut_from_ref)] // once: see the proof below
    pub fn take(&'static self) -> Result<&'static mut ArenaBytes<N>, Error> {
        // Lamport's splitter: at most one caller passes. It needs only loads and stores, so it works
        // on cores without compare-and-swap (Cortex-M0, RV32IMC).
        let me = 0u8;
        let me = &raw const me as usize;
        self.asking.store(me, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) != 0 {
            return Err(Error::ArenaTaken);
        }
        self.closed.store(1, Ordering::SeqCst);
        if self.asking.load(Ordering::SeqCst) != me {
            return Err(Error::ArenaTaken);
        }
        // SAFETY: at most one caller ever gets here. Two callers that are in `take` at the same time
        // have different `me` (their frames are alive together). Were both to pass, both read their
        // own `me` last from `asking`, so the one that stored it first read it before the other
        // stored; it had set `closed` before that read, so the other found it set.
        Ok(unsafe { &mut *self.bytes.get() })
    }
}

/// Bytes on the heap, at a multiple of 16.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, Default)]
pub struct Buffer {
    blocks: alloc::vec::Vec<Aligned<[u8; ALIGN]>>,
    len: usize,
}

#[cfg(feature = "alloc")]
impl Buffer {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self { blocks: alloc::vec![Aligned([0; ALIGN]); len.div_ceil(ALIGN)], len }
    }

    /// `len` zero bytes, if the heap has so much left: for a device, where [`zeroed`](Self::zeroed) would end the
    /// program.
    ///
    /// # Errors
    /// If it has not.
    pub fn try_zeroed(len: usize) -> Result<Self, alloc::collections::TryReserveError> {
        let mut blocks = alloc::vec::Vec::new();
        blocks.try_reserve_exact(len.div_ceil(ALIGN))?;
        blocks.resize(len.div_ceil(ALIGN), Aligned([0; ALIGN]));
        Ok(Self { blocks, len })
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the blocks are `len` bytes or more without padding, and any byte may be read.
        unsafe { core::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.len) }
    }

    /// The bytes, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, exclusively borrowed; any byte may be written.
        unsafe { core::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), self.len) }
    }

    /// The bytes as elements.
    pub fn elements<T: Element>(&self) -> &[T] {
        elements(self.bytes())
    }

    /// The bytes as elements, for writing.
    pub fn elements_mut<T: Element>(&mut self) -> &mut [T] {
        elements_mut(self.bytes_mut())
    }
}

/// One bank of memory: exclusive, or shared and then read-only.
#[derive(Clone, Copy)]
struct Bank {
    start: *mut u8,
    len: usize,
    writable: bool,
}

/// The memory banks of a run. A bank that was not handed over is empty.
pub struct Memory<'m> {
    banks: [Bank; Space::COUNT],
    lifetime: PhantomData<&'m mut [u8]>,
}

// SAFETY: a Memory is the borrows it was made of: exclusive ones of bytes, and shared ones that it
// only reads.
unsafe impl Send for Memory<'_> {}

impl<'m> Memory<'m> {
    /// Memory with this arena and nothing else.
    pub fn new(arena: &'m mut [u8]) -> Self {
        let empty = Bank { start: core::ptr::null_mut(), len: 0, writable: false };
        Self { banks: [empty; Space::COUNT], lifetime: PhantomData }.with(Space::Arena, arena)
    }

    /// With an exclusive bank for `space`.
    pub fn with(mut self, space: Space, bytes: &'m mut [u8]) -> Self {
        self.banks[space as usize] = Bank { start: bytes.as_mut_ptr(), len: bytes.len(), writable: true };
        self
    }

    /// With a shared bank for `space`, which ops may only read.
    pub fn with_shared(mut self, space: Space, bytes: &'m [u8]) -> Self {
        self.banks[space as usize] = Bank { start: bytes.as_ptr().cast_mut(), len: bytes.len(), writable: false };
        self
    }

    /// Checks that the banks are large enough for `view`, aligned, and writable where its first `ops`
    /// ops write.
    pub(super) fn check(&self, view: View<'_>, ops: usize) -> Result<(), Error> {
        for space in Space::ALL {
            let (bank, needed) = (&self.banks[space as usize], view.size(space));
            if bank.len < needed {
                return Err(Error::TooSmall { what: space.name(), needed, found: bank.len });
            }
            let misaligned = (bank.start as usize) % ALIGN;
            if needed > 0 && misaligned != 0 {
                return Err(Error::Misaligned { needed: ALIGN, found: 1 << misaligned.trailing_zeros() });
            }
        }
        for record in view.ops().take(ops) {
            for i in 0..record.n_outs() {
                if let Some(id) = record.operand(record.n_ins() + i) {
                    let space = view.tensor(id).space;
                    if !self.banks[space as usize].writable {
                        return Err(Error::ReadOnly { what: space.name() });
                    }
                }
            }
        }
        Ok(())
    }

    /// The address and bytes of tensor `id`, which lies inside its bank: a file has it there, and an
    /// index that is no tensor's has no bytes, at the start of the arena.
    fn locate(&self, view: View<'_>, id: usize) -> (*mut u8, usize) {
        let t = view.tensor(id);
        // SAFETY: `check` proved the bank at least as large as the space, and the file's check that
        // the tensor lies inside the space.
        (unsafe { self.banks[t.space as usize].start.add(t.offset) }, t.bytes())
    }

    /// The bytes of tensor `id`, for the caller between runs.
    pub(super) fn tensor(&self, view: View<'_>, id: usize) -> &[u8] {
        let (start, bytes) = self.locate(view, id);
        // SAFETY: inside its bank; no op is running, and `self` is borrowed.
        unsafe { core::slice::from_raw_parts(start, bytes) }
    }

    /// The bytes of tensor `id` for writing; `None` in a shared bank.
    pub(super) fn tensor_mut(&mut self, view: View<'_>, id: usize) -> Option<&mut [u8]> {
        if !self.banks[view.tensor(id).space as usize].writable {
            return None;
        }
        let (start, bytes) = self.locate(view, id);
        // SAFETY: as in `tensor`, in an exclusive bank and exclusively borrowed.
        Some(unsafe { core::slice::from_raw_parts_mut(start, bytes) })
    }

    /// The operands of one op.
    pub(super) fn operands<'r>(&'r mut self, view: View<'r>, record: OpRecord<'r>) -> Operands<'r> {
        Operands { memory: self, view, record, next_in: 0, next_out: record.n_ins() }
    }
}

/// `bytes` as elements; empty where they are not aligned, which tensors always are.
pub fn elements<T: Element>(bytes: &[u8]) -> &[T] {
    // SAFETY: every bit pattern is a value of an element type.
    let (before, elements, _) = unsafe { bytes.align_to() };
    if before.is_empty() { elements } else { &[] }
}

/// `bytes` as elements for writing; empty where they are not aligned, which tensors always are.
pub fn elements_mut<T: Element>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: every bit pattern is a value of an element type, and every element is plain bytes.
    let (before, elements, _) = unsafe { bytes.align_to_mut() };
    if before.is_empty() { elements } else { &mut [] }
}

/// The operands of one op, given out once each, in order, as typed slices.
pub(super) struct Operands<'r> {
    memory: &'r Memory<'r>,
    view: View<'r>,
    record: OpRecord<'r>,
    next_in: usize,
    next_out: usize,
}

macro_rules! inputs {
    ($($ty:ident)*) => {$(
        /// The next input; empty where it is absent.
        #[inline(always)]
        pub(super) fn $ty(&mut self) -> &'r [$ty] {
            let (start, bytes) = self.input();
            // SAFETY: the tensor lies inside its bank, at a multiple of ALIGN, which is a multiple of
            // the element's; every bit pattern is a value; while the op runs nothing writes there,
            // for what an op writes overlaps none of its inputs (an input that an in-place op
            // overwrites is not given out).
            unsafe { core::slice::from_raw_parts(start.cast(), bytes / size_of::<$ty>()) }
        }
    )*};
}

macro_rules! outputs {
    ($($name:ident: $ty:ty;)*) => {$(
        /// The next output; empty where it is absent.
        #[inline(always)]
        pub(super) fn $name(&mut self) -> &'r mut [$ty] {
            let (start, bytes) = self.output();
            // SAFETY: as for inputs; and the bank is exclusive, the output overlaps no other
            // operand, and it is given out once.
            unsafe { core::slice::from_raw_parts_mut(start.cast(), bytes / size_of::<$ty>()) }
        }
    )*};
}

impl<'r> Operands<'r> {
    inputs!(f32 i32 i16 i8 u8);

    outputs! {
        f32_mut: f32;
        i32_mut: i32;
        i16_mut: i16;
        i8_mut: i8;
    }

    fn at(&self, i: usize, end: usize) -> (*mut u8, usize) {
        match if i < end { self.record.operand(i) } else { None } {
            Some(id) => self.memory.locate(self.view, id),
            None => (core::ptr::without_provenance_mut(ALIGN), 0),
        }
    }

    fn input(&mut self) -> (*mut u8, usize) {
        self.next_in += 1;
        self.at(self.next_in - 1, self.record.n_ins())
    }

    fn output(&mut self) -> (*mut u8, usize) {
        self.next_out += 1;
        self.at(self.next_out - 1, self.record.n_ins() + self.record.n_outs())
    }

    /// Skips the first input of an in-place op, after making sure, before its first part, that its value is in the
    /// output.
    #[inline(always)]
    pub(super) fn take_over(&mut self, first: bool) {
        if !first {
            self.next_in += 1;
            return;
        }
        let (from, bytes) = self.input();
        let (to, room) = self.at(self.record.n_ins(), self.record.n_ins() + 1);
        if from != to {
            // SAFETY: both lie inside their banks; `copy` allows any overlap.
            unsafe { core::ptr::copy(from, to, if bytes < room { bytes } else { room }) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "alloc")]
    #[test]
    fn a_buffer_is_zeros_or_an_error() {
        let buffer = Buffer::try_zeroed(33).unwrap();
        assert_eq!((buffer.bytes(), buffer.bytes().as_ptr() as usize % ALIGN), (&[0; 33][..], 0));
        assert!(Buffer::try_zeroed(usize::MAX).is_err());
    }

    #[test]
    fn an_arena_is_given_out_once_whoever_asks() {
        for _ in 0..200 {
            let arena: &'static Arena<16> = Box::leak(Box::new(Arena::new()));
            let wins: usize = std::thread::scope(|s| {
                let asking: Vec<_> = (0..4).map(|_| s.spawn(|| usize::from(arena.take().is_ok()))).collect();
                asking.into_iter().map(|a| a.join().unwrap()).sum()
            });
            assert!(wins <= 1);
            assert!(arena.take().is_err());
        }
        static ALONE: Arena<16> = Arena::new();
        assert!(ALONE.take().is_ok());
        assert_eq!(ALONE.take().err(), Some(Error::ArenaTaken));
    }
}
