//! The passes of SOFT's attention over the tokens, in integers: what every core shares.
//!
//! Kernel values are made a block of tokens at a time and meet the values of these tokens, or the
//! landmarks' sums, in tiles of sums that stay in registers, as in [`products`](super::products). How values
//! are packed for that is up to the core; the memory for it is not, since the file plans it.

use super::products::{Scale, TILE_COLUMNS, TILE_ROWS, ToI8};
use crate::math::fixed::{MAX_SHIFT, Requantise, round_shift};
use core::mem::take;

/// The kernel between the tokens and the landmarks of one head.
#[derive(Clone, Copy)]
pub(crate) struct Kernel<'a> {
    /// `[m, width]`.
    pub(crate) l: &'a [i8],
    /// Channels of all heads.
    pub(crate) width: usize,
    /// The head's first channel.
    pub(crate) first: usize,
    /// The head's channels.
    pub(crate) d: usize,
    /// The exponent's factor.
    pub(crate) multiplier: i32,
    pub(crate) shift: u32,
}

impl<'a> Kernel<'a> {
    /// Landmarks.
    pub(super) fn m(&self) -> usize {
        self.l.len() / self.width
    }

    /// The head's channels of row `i` of `x[_, width]`; of a row that is missing, none.
    #[inline(always)]
    pub(super) fn row<'x>(&self, x: &'x [i8], i: usize) -> &'x [i8] {
        channels(x, i * self.width + self.first, self.d)
    }
}

/// The `d` values of `x` from the first on; none where they are not all there.
#[inline(always)]
pub(super) fn channels(x: &[i8], first: usize, d: usize) -> &[i8] {
    x.get(first..).and_then(|x| x.get(..d)).unwrap_or_default()
}

/// How the sums of the second pass become the output.
#[derive(Clone, Copy)]
pub(crate) struct Outputs<'a> {
    pub(crate) multiplier: i32,
    /// The right shift where `e` is 0.
    pub(crate) shift: i32,
    /// For each channel of the head, by how much less is shifted.
    pub(crate) e: &'a [i32],
    pub(crate) to: ToI8,
}

impl Outputs<'_> {
    fn shift_of(&self, c: usize) -> i32 {
        self.shift.saturating_sub(self.e.get(c).copied().unwrap_or(0))
    }

    /// How channel `c` is requantised, where that has the usual form.
    #[inline(always)]
    pub(super) fn scale(&self, c: usize) -> Option<Scale> {
        let shift = u32::try_from(self.shift_of(c)).ok()?;
        Scale::new(Requantise::new(self.multiplier, shift), self.to)
    }

    /// How channel `c` is requantised, whatever its form.
    #[cfg(cortex_m = "helium")]
    pub(super) fn requantise(&self, c: usize) -> Requantise {
        let shift = self.shift_of(c);
        let multiplier = if shift > MAX_SHIFT as i32 { 0 } else { self.multiplier };
        Requantise::new(multiplier, shift.max(0) as u32)
    }

    /// The result of a sum of channel `c`, whatever its form.
    #[inline(always)]
    pub(super) fn put(&self, sum: i32, c: usize) -> i8 {
        scaled(sum, self.multiplier, self.shift_of(c), self.to)
    }
}

/// `clamp(zero + round_shift(sum multiplier, shift), lo, hi)`; a shift above 62 gives `zero`, one below 0
/// counts as 0, where all but 0 is out of range anyway.
#[inline(always)]
pub(crate) fn scaled(sum: i32, multiplier: i32, shift: i32, to: ToI8) -> i8 {
    // |sum multiplier| < 2^62.
    let product = i64::from(sum) * i64::from(multiplier);
    let scaled = if shift > MAX_SHIFT as i32 { 0 } else { round_shift(product, shift.max(0) as u32) };
    (scaled + i64::from(to.zero)).clamp(i64::from(to.lo), i64::from(to.hi)) as i8
}

/// Landmarks and width of a head, from which the memory follows.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) m: usize,
    pub(crate) d: usize,
}

impl Plan {
    const LEAST_TOKENS: usize = 8;
    const MOST_TOKENS: usize = 32;

    /// Tokens of a block, of which kernel values take two bytes: a multiple of 8, for which the block takes
    /// no more than the sums of the first pass do, if it can.
    const fn tokens(self) -> usize {
        let Self { m, d } = self;
        let token = (m.div_ceil(4).saturating_add(d.div_ceil(4))).saturating_mul(2);
        let tokens = m.saturating_mul(d) / if token == 0 { 1 } else { token };
        let tokens = if tokens > Self::MOST_TOKENS { Self::MOST_TOKENS } else { tokens & !7 };
        if tokens < Self::LEAST_TOKENS { Self::LEAST_TOKENS } else { tokens }
    }

    /// Words of a block of rows of int16, as many as its tokens.
    const fn block(self, row: usize) -> usize {
        row.div_ceil(4).saturating_mul(2 * self.tokens())
    }

    /// Words of norms, of a pair of rows and of a block of kernel values.
    const fn shared(self) -> usize {
        let norms = self.m.saturating_add(TILE_ROWS + self.tokens());
        let pair = self.d.div_ceil(4).saturating_mul(2 * TILE_COLUMNS);
        norms.saturating_add(pair).saturating_add(self.block(self.m))
    }

    /// Words of scratch of the first pass: also the tokens of a block.
    pub(crate) const fn accumulate(self) -> usize {
        self.shared().saturating_add(self.block(self.d))
    }

    /// Words of scratch of the second pass: also the packed sums, and the widened landmarks.
    pub(crate) const fn apply(self) -> usize {
        let landmarks = self.m.div_ceil(4).saturating_mul(4);
        let row = self.d.div_ceil(4).saturating_mul(2);
        let pairs = self.shared().saturating_add(landmarks.saturating_mul(row).saturating_mul(2));
        // On a core with one kernel value to a word: norms, kernel values, a tile of tokens and the packed sums.
        let values = self.m.saturating_mul(1 + self.tokens_of(1));
        let words = values.saturating_add(self.d.saturating_mul(TILE_ROWS + self.m.div_ceil(2)));
        if pairs > words { pairs } else { words }
    }

    /// Tokens of a block on a core that packs so many kernel values into a word.
    pub(super) const fn tokens_of(self, pack: usize) -> usize {
        self.tokens() * pack / 2
    }
}

/// The next `n` words of `scratch`.
pub(super) fn next<'a>(scratch: &mut &'a mut [i32], n: usize) -> &'a mut [i32] {
    let (words, rest) = take(scratch).split_at_mut_checked(n).unwrap_or_default();
    *scratch = rest;
    words
}
