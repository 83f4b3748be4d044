//! The general executor: any checked Program over the memory banks it asks for.

use super::arena::{Memory, Operands};
use super::steps::Progress;
use super::{cpu, integer};
use crate::error::Error;
use crate::format::{OpRecord, View};
use crate::ops::{Rows, Tick, Whole};
use crate::program::{Every, Runs};
use core::marker::PhantomData;
use core::ops::Range;

/// A Program and the memory it runs in.
pub struct Executor<'m, S = Every> {
    view: View<'m>,
    memory: Memory<'m>,
    /// Ops it may run: those before this one.
    end: usize,
    set: PhantomData<S>,
}

impl<'m, S: Runs> Executor<'m, S> {
    /// Binds a Program to its memory. The weights are those of the file.
    ///
    /// # Errors
    /// [`Error::UnsupportedOp`] for a kind outside `S`; [`Error::TooSmall`], [`Error::Misaligned`] or
    /// [`Error::ReadOnly`] for memory that does not fit.
    pub fn new(view: View<'m>, memory: Memory<'m>) -> Result<Self, Error> {
        Self::bind(view, memory, view.n_ops())
    }

    /// As [`new`](Self::new), for the ops of the first phase only: memory that none of those writes
    /// may be shared, as shards of a batch share the parameters.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn first_phase(view: View<'m>, memory: Memory<'m>) -> Result<Self, Error> {
        Self::bind(view, memory, view.shard_ops())
    }

    fn bind(view: View<'m>, memory: Memory<'m>, end: usize) -> Result<Self, Error> {
        for (index, record) in view.ops().enumerate() {
            if !S::OPS.contains(record.kind) {
                return Err(Error::UnsupportedOp { index, kind: record.kind as u16 });
            }
        }
        let memory = memory.with_shared(crate::program::Space::Weights, view.weights());
        memory.check(view, end)?;
        Ok(Self { view, memory, end, set: PhantomData })
    }

    /// Binds a model that was checked while compiling, with nothing but weights and an arena that
    /// is large enough.
    pub(super) fn inference(view: View<'m>, arena: &'m mut [u8]) -> Self {
        let memory = Memory::new(arena).with_shared(crate::program::Space::Weights, view.weights());
        Self { view, memory, end: view.n_ops(), set: PhantomData }
    }

    /// The Program.
    pub fn view(&self) -> View<'m> {
        self.view
    }

    /// Runs every op, of the first phase if it is bound for that only.
    pub fn run(&mut self, tick: &Tick) {
        self.run_range(0..self.end, tick);
    }

    /// Runs the ops with these indices.
    pub fn run_range(&mut self, ops: Range<usize>, tick: &Tick) {
        self.run_watched(ops, tick, |_, _, _| true);
    }

    /// Runs the ops with these indices and shows each, after it ran, to `watch`, which may look at
    /// tensors and change them; stops where `watch` says `false`.
    pub fn run_watched(
        &mut self,
        ops: Range<usize>,
        tick: &Tick,
        mut watch: impl FnMut(usize, &OpRecord<'m>, &mut Self) -> bool,
    ) {
        for (i, record) in self.view.ops().enumerate().take(ops.end.min(self.end)).skip(ops.start) {
            run_op::<S>(&record, self.memory.operands(self.view, record), tick);
            if !watch(i, &record, self) {
                return;
            }
        }
    }

    /// Goes on with a run in steps by at most `rows` rows, at least 1, of one op; says whether there is more to do.
    pub(crate) fn step(&mut self, progress: &mut Progress<'m>, rows: usize) -> bool {
        progress.advance(rows, |record, rows| {
            let (words, mut operands) = (record.words(), self.memory.operands(self.view, *record));
            let all = integer::run::<S>(record.kind, &words, &mut operands, Rows(rows));
            all.unwrap_or_else(|| {
                cpu::run::<S>(record.kind, &words, &mut operands, &Tick::default());
                0
            })
        })
    }

    /// The bytes of the `id`-th tensor; none where there are fewer tensors.
    pub fn tensor(&self, id: usize) -> &[u8] {
        self.memory.tensor(self.view, id)
    }

    /// The bytes of the `id`-th tensor for writing, as [`tensor`](Self::tensor); `None` for a constant or in shared memory.
    pub fn tensor_mut(&mut self, id: usize) -> Option<&mut [u8]> {
        self.memory.tensor_mut(self.view, id)
    }
}

#[inline(always)]
fn run_op<S: Runs>(record: &OpRecord<'_>, mut operands: Operands<'_>, tick: &Tick) {
    let words = record.words();
    if integer::run::<S>(record.kind, &words, &mut operands, Whole).is_none() {
        cpu::run::<S>(record.kind, &words, &mut operands, tick);
    }
}
