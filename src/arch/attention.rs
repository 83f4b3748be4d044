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
    const MOST_TOKENS: usize = 32;
    const LEAST_TOKENS: usize = 8;

    /// Whether memory counts more than time: blocks are small and the second pass packs its sums for each of them anew.
    pub(super) const fn is_small(self) -> bool {
        self.m <= 16
    }

    /// Tokens of a block of the first pass, whose products are summed exactly before they are shifted, where they are.
    /// The larger the fewer instructions; with 16 landmarks of a head of 32 more than 16 would not fit 4 kB. A multiple of
    /// 8, part of the op's arithmetic: the same on every core.
    pub(crate) const fn group(self) -> usize {
        if self.is_small() || self.d < Self::MOST_TOKENS { 16 } else { Self::MOST_TOKENS }
    }

    /// Tokens of such a block that are widened at a time: a multiple of 4.
    pub(super) const fn widened_tokens(self) -> usize {
        if self.is_small() { Self::LEAST_TOKENS } else { self.group() }
    }

    /// Tokens of a block of the second pass, of which kernel values take two bytes: a multiple of 8, for which they take
    /// no more than `u` does, if it can.
    pub(super) const fn second_tokens(self) -> usize {
        let tokens = if self.d > Self::MOST_TOKENS { Self::MOST_TOKENS } else { self.d & !(Self::LEAST_TOKENS - 1) };
        larger(tokens, Self::LEAST_TOKENS)
    }

    /// The same on a core that has a word for each kernel value.
    pub(super) const fn second_tokens_of_words(self) -> usize {
        if self.is_small() { Self::LEAST_TOKENS } else { larger(self.second_tokens() / 2, TILE_ROWS) }
    }

    /// Landmarks, with those that are missing in the last tile.
    const fn landmarks(self) -> usize {
        self.m.div_ceil(TILE_ROWS).saturating_mul(TILE_ROWS)
    }

    /// Words of a row of int16, in whole groups of 4.
    const fn row(self) -> usize {
        self.d.div_ceil(4).saturating_mul(2)
    }

    /// Words of the first pass for the tokens, and then for the values of some of their channels.
    pub(super) const fn first_panel(self) -> usize {
        // One value to a word, four channels have the most.
        larger(self.row().saturating_mul(self.widened_tokens()), TILE_ROWS * self.group())
    }

    /// Words of scratch of the first pass: norms, kernel values, the panel.
    pub(crate) const fn accumulate(self) -> usize {
        let norms = self.landmarks().saturating_add(self.group());
        let values = self.landmarks().saturating_mul(self.group() / 2);
        // Words have a pair of rows, too; of vectors the panel has all tokens, one value to a byte.
        let words = self.row().saturating_mul(TILE_COLUMNS).saturating_add(self.first_panel());
        let vectors = self.d.div_ceil(16).saturating_mul(4 * self.group());
        norms.saturating_add(values).saturating_add(larger(words, vectors))
    }

    /// Words of scratch of the second pass: norms, kernel values, rows to make them of, packed sums.
    pub(crate) const fn apply(self) -> usize {
        let Self { m, d } = self;
        let (landmarks, row) = (self.landmarks(), self.row());
        // Two kernel values to a word: landmarks are widened, and so are two tokens.
        let values = landmarks.saturating_mul(1 + self.second_tokens() / 2);
        let rows = row.saturating_mul(landmarks.saturating_add(TILE_COLUMNS));
        let packed = landmarks.saturating_mul(if self.is_small() { 1 } else { row });
        let pairs = values.saturating_add(rows).saturating_add(packed);
        // One to a word: a tile of tokens is widened.
        let values = m.saturating_mul(1 + self.second_tokens_of_words());
        let words = values.saturating_add(d.saturating_mul(TILE_ROWS + m.div_ceil(2)));
        // Vectors: landmarks are copied, eight kernel values or sums have four words.
        let rows = landmarks.saturating_mul(1 + d.div_ceil(16) * 4);
        let values =
            d.div_ceil(4).saturating_mul(4).saturating_add(Self::LEAST_TOKENS).saturating_mul(m.div_ceil(8) * 4);
        larger(larger(pairs, words), rows.saturating_add(values))
    }
}

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// The next `n` words of `scratch`.
pub(super) fn next<'a>(scratch: &mut &'a mut [i32], n: usize) -> &'a mut [i32] {
    let (words, rest) = take(scratch).split_at_mut_checked(n).unwrap_or_default();
    *scratch = rest;
    words
}
