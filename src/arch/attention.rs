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
    /// Least tokens of a block; heads of twice as many landmarks have room to spare.
    const FEW: usize = 8;
    const MOST_TOKENS: usize = 32;

    /// Tokens of a block of the second pass, two values to a word: a multiple of 8, for which the block takes no more
    /// than the sums of the first pass do, if it can.
    pub(super) const fn tokens(self) -> usize {
        let Self { m, d } = self;
        let token = (m.div_ceil(4).saturating_add(d.div_ceil(4))).saturating_mul(2);
        let tokens = m.saturating_mul(d) / if token == 0 { 1 } else { token };
        let tokens = if tokens > Self::MOST_TOKENS { Self::MOST_TOKENS } else { tokens & !7 };
        if tokens < Self::FEW { Self::FEW } else { tokens }
    }

    /// Tokens of a block of the first pass, which has its sums in memory, too: a multiple of 4, no more than three for
    /// four landmarks, if it can.
    pub(super) const fn few_tokens(self) -> usize {
        let (tokens, few) = (self.tokens(), (self.m - self.m.div_ceil(4)) & !3);
        if few > tokens { tokens } else { larger(few, Self::FEW) }
    }

    /// Landmarks, with those that are missing in the last tile.
    const fn landmarks(self) -> usize {
        self.m.div_ceil(TILE_ROWS).saturating_mul(TILE_ROWS)
    }

    /// Whether the second pass has all sums packed from the start. They are packed for each block anew where their memory
    /// counts beside the rest.
    pub(super) const fn packs_once(self) -> bool {
        self.m < 2 * Self::FEW || self.tokens() == Self::MOST_TOKENS
    }

    /// Norms of the landmarks, those of the last tile that are missing too, and of a block of tokens.
    const fn norms(self, tokens: usize) -> usize {
        self.m.saturating_add(TILE_ROWS + tokens)
    }

    /// Words of scratch of the first pass.
    pub(crate) const fn accumulate(self) -> usize {
        let Self { m, d } = self;
        // Two values to a word: norms, a pair of rows, kernel values and the tokens of a block.
        let tokens = self.few_tokens();
        let quads = d.div_ceil(4).saturating_mul(2);
        let pairs = self.norms(tokens).saturating_add(quads.saturating_mul(TILE_COLUMNS + tokens));
        let pairs = pairs.saturating_add(self.landmarks().saturating_mul(tokens / 2));
        // One to a word: norms, kernel values and a tile of rows or the packed values of a block.
        let tokens = tokens_of_words(tokens);
        let rows = d.saturating_mul(if tokens / 2 > TILE_ROWS { tokens / 2 } else { TILE_ROWS });
        larger(pairs, m.saturating_add(self.landmarks().saturating_mul(tokens)).saturating_add(rows))
    }

    /// Words of scratch of the second pass.
    pub(crate) const fn apply(self) -> usize {
        let Self { m, d } = self;
        let landmarks = self.landmarks();
        // Two values to a word: norms, a pair of rows, kernel values, widened landmarks and packed sums.
        let quads = d.div_ceil(4).saturating_mul(2);
        let pairs = self.norms(self.tokens()).saturating_add(landmarks.saturating_mul(self.tokens() / 2));
        let pairs = pairs.saturating_add(quads.saturating_mul(landmarks.saturating_add(TILE_COLUMNS)));
        let pairs = pairs.saturating_add(landmarks.saturating_mul(if self.packs_once() { quads } else { 1 }));
        // One to a word, but for the sums: norms, kernel values, a tile of rows and packed sums.
        let values = m.saturating_mul(1 + tokens_of_words(self.tokens()));
        larger(pairs, values.saturating_add(d.saturating_mul(TILE_ROWS + m.div_ceil(2))))
    }
}

/// Tokens of a block on a core that has one kernel value to a word, where those with two have `tokens`.
pub(super) const fn tokens_of_words(tokens: usize) -> usize {
    larger(tokens / 2, Plan::FEW)
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
