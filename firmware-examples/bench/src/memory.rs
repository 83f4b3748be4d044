//! Memory for operands, handed out in order.

use softedge::engine::{Aligned, Element, elements_mut};
use softedge::ops::Operand;

/// Operands begin at multiples of this, as in an engine's arena.
const ALIGN: usize = 16;

/// Bytes of an operand.
pub const fn bytes(operand: Operand) -> usize {
    operand.len as usize * operand.dtype.size()
}

/// Bytes of memory that an operand takes.
pub const fn room(operand: Operand) -> usize {
    bytes(operand).next_multiple_of(ALIGN)
}

/// What is left of a piece of memory.
pub struct Memory<'m>(&'m mut [u8]);

impl<'m> Memory<'m> {
    pub fn new(memory: &'m mut Aligned<[u8]>) -> Self {
        Self(&mut memory.0)
    }

    /// What is left of scratch that was taken from another memory.
    pub fn of_scratch(scratch: &'m mut [u8]) -> Self {
        Self(scratch)
    }

    /// The same memory, where what is taken is free again afterwards.
    pub fn scope(&mut self) -> Memory<'_> {
        Memory(self.0)
    }

    /// The next `bytes`, a multiple of the alignment, as a memory of its own.
    pub fn part(&mut self, bytes: usize) -> Memory<'m> {
        let (part, rest) = core::mem::take(&mut self.0).split_at_mut(bytes);
        self.0 = rest;
        Memory(part)
    }

    /// The next operand. It holds what was last written there.
    pub fn take<T: Element>(&mut self, operand: Operand) -> &'m mut [T] {
        assert!(operand.dtype == T::DTYPE);
        let (taken, rest) = core::mem::take(&mut self.0).split_at_mut(room(operand));
        self.0 = rest;
        elements_mut(&mut taken[..bytes(operand)])
    }

    /// The next operand, filled with `values`.
    pub fn filled<T: Element>(&mut self, operand: Operand, values: impl Iterator<Item = T>) -> &'m mut [T] {
        let elements = self.take(operand);
        for (element, value) in elements.iter_mut().zip(values) {
            *element = value;
        }
        elements
    }
}
