//! How much of an op is computed: all of it, or some of its rows.

use core::ops::Range;

/// How much of an integer op is computed. A type, so that who computes whole ops only has no code for parts.
pub trait Part: Sized {
    /// The first row.
    fn start(&self) -> usize;

    /// Whether there is no row.
    fn is_empty(&self) -> bool;

    /// The rows, of `all`.
    fn rows(&self, all: usize) -> Range<usize>;

    /// What is computed of the `i`-th group of `len` rows.
    fn group(&self, i: usize, len: usize) -> Self;

    /// What the rows have of `x`, of which each has `width` elements.
    fn cut<'x, T>(&self, x: &'x [T], width: usize) -> &'x [T];

    /// As [`cut`](Self::cut), to write.
    fn cut_mut<'x, T>(&self, x: &'x mut [T], width: usize) -> &'x mut [T];
}

/// All of an op.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

impl Part for Whole {
    #[inline(always)]
    fn start(&self) -> usize {
        0
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        false
    }

    #[inline(always)]
    fn rows(&self, all: usize) -> Range<usize> {
        0..all
    }

    #[inline(always)]
    fn group(&self, _: usize, _: usize) -> Self {
        Self
    }

    #[inline(always)]
    fn cut<'x, T>(&self, x: &'x [T], _: usize) -> &'x [T] {
        x
    }

    #[inline(always)]
    fn cut_mut<'x, T>(&self, x: &'x mut [T], _: usize) -> &'x mut [T] {
        x
    }
}

/// These rows, of those that there are.
#[derive(Clone, Debug)]
pub struct Rows(pub Range<usize>);

impl Part for Rows {
    #[inline(always)]
    fn start(&self) -> usize {
        self.0.start
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline(always)]
    fn rows(&self, all: usize) -> Range<usize> {
        self.0.start.min(all)..self.0.end.min(all)
    }

    #[inline(always)]
    fn group(&self, i: usize, len: usize) -> Self {
        let first = i * len;
        Self(self.0.start.saturating_sub(first).min(len)..self.0.end.saturating_sub(first).min(len))
    }

    #[inline(always)]
    fn cut<'x, T>(&self, x: &'x [T], width: usize) -> &'x [T] {
        let end = self.0.end.saturating_mul(width).min(x.len());
        x.get(self.0.start.saturating_mul(width)..end).unwrap_or_default()
    }

    #[inline(always)]
    fn cut_mut<'x, T>(&self, x: &'x mut [T], width: usize) -> &'x mut [T] {
        let end = self.0.end.saturating_mul(width).min(x.len());
        x.get_mut(self.0.start.saturating_mul(width)..end).unwrap_or_default()
    }
}
