//! Integer matrix products, rows of int8 activations times rows of int8 weights: the blocking that
//! every core shares, around the loops that each has for itself.
//!
//! A panel of activations is widened once and then meets all weights, a tile of
//! [`TILE_ROWS`] x [`TILE_COLUMNS`] sums at a time, which stay in registers. What "widened" means is up
//! to the core. Rows that are missing in the last tile are zero; any shape will do.

use crate::math::fixed::{Requantise, mul_high, saturate_i8, saturate_i16};
use core::ops::RangeInclusive;
use core::slice::ChunksExact;

/// Rows of activations in a tile.
pub(super) const TILE_ROWS: usize = 4;
/// Rows of weights, that is columns of the result, in a tile.
pub(super) const TILE_COLUMNS: usize = 2;

/// `x[rows, k]`, `w[n, k]` -> `y[rows, n]`.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Rows of activations.
    pub(crate) rows: usize,
    /// Values of a row.
    pub(crate) k: usize,
    /// Rows of weights.
    pub(crate) n: usize,
}

impl Shape {
    /// A panel is about as long as this many words, if that is enough for [`Self::LEAST_ROWS`] rows.
    const PANEL: usize = 1024;
    /// Rows of int16: a tile on cores that take a word for every value.
    const LEAST_ROWS: usize = 2 * TILE_ROWS;
    /// More rows would hardly make widening the weights for each panel cheaper.
    const MOST_ROWS: usize = 32;

    /// Words of the widened panel and the weights of a tile, for rows of int16; the same on every core,
    /// since the file plans them.
    pub(crate) const fn panel(&self) -> usize {
        let row = self.k.div_ceil(4).saturating_mul(2);
        let mut rows = if self.rows < Self::MOST_ROWS { self.rows } else { Self::MOST_ROWS };
        if rows.saturating_mul(row) > Self::PANEL {
            rows = Self::PANEL / row;
        }
        let rows = if rows < Self::LEAST_ROWS { Self::LEAST_ROWS } else { rows.next_multiple_of(TILE_ROWS) };
        (rows + TILE_COLUMNS).saturating_mul(row)
    }
}

/// Where the rows of activations come from, one after the other: a tensor, or the patches of an image.
pub(crate) trait Rows {
    /// The next row; `buffer` is as long, for rows that have to be put together.
    fn next<'a>(&'a mut self, buffer: &'a mut [i8]) -> &'a [i8];
}

/// Rows that lie one behind the other.
pub(crate) struct Dense<'x>(ChunksExact<'x, i8>);

impl<'x> Dense<'x> {
    /// Rows of `k` values.
    pub(crate) fn new(x: &'x [i8], k: usize) -> Self {
        Self(x.chunks_exact(k))
    }
}

impl Rows for Dense<'_> {
    #[inline(always)]
    fn next<'a>(&'a mut self, _: &'a mut [i8]) -> &'a [i8] {
        self.0.next().unwrap_or_default()
    }
}

/// What a requantised sum becomes.
pub(crate) trait Output: Copy {
    /// An element of the result.
    type T;

    /// The element.
    fn put(self, q: i32) -> Self::T;

    /// Zero point, smallest and largest element.
    #[cfg(cortex_m = "dsp")]
    fn range(self) -> [i16; 3];

    /// The result and this, if they are int8: some cores have a way of their own for it.
    #[cfg_attr(not(any(test, cortex_m, target_arch = "riscv32")), allow(dead_code))]
    #[inline(always)]
    fn as_i8(self, _: &mut [Self::T]) -> Option<(&mut [i8], ToI8)> {
        None
    }
}

/// `clamp(q + zero, lo, hi)`.
#[derive(Clone, Copy)]
pub(crate) struct ToI8 {
    pub(crate) zero: i32,
    pub(crate) lo: i32,
    pub(crate) hi: i32,
}

impl Output for ToI8 {
    type T = i8;

    #[inline(always)]
    fn put(self, q: i32) -> i8 {
        saturate_i8((q + self.zero).max(self.lo).min(self.hi))
    }

    #[cfg(cortex_m = "dsp")]
    fn range(self) -> [i16; 3] {
        [self.zero as i16, self.lo as i16, self.hi as i16]
    }

    #[inline(always)]
    fn as_i8(self, y: &mut [i8]) -> Option<(&mut [i8], ToI8)> {
        Some((y, self))
    }
}

/// `q`, saturated.
#[derive(Clone, Copy)]
pub(crate) struct ToI16;

impl Output for ToI16 {
    type T = i16;

    #[inline(always)]
    fn put(self, q: i32) -> i16 {
        saturate_i16(q)
    }

    #[cfg(cortex_m = "dsp")]
    fn range(self) -> [i16; 3] {
        [0, i16::MIN, i16::MAX]
    }
}

/// Elements that a row of `k` weights of int4 takes, which are bytes: four for every eight weights.
pub(crate) const fn int4_row(k: usize) -> usize {
    k.div_ceil(INT4).saturating_mul(INT4_BYTES)
}

/// Weights of int4 in a block, and its bytes: see [`Width::Int4`](crate::ops::Width::Int4).
pub(super) const INT4: usize = 8;
pub(super) const INT4_BYTES: usize = 4;

/// The first and the last four weights of a block, as four of int8 each.
#[inline(always)]
pub(super) fn unpack_int4(block: [u8; INT4_BYTES]) -> [i32; 2] {
    const LOW: u32 = 0x0f0f_0f0f;
    let signed = |halves: u32| (((halves ^ 0x8888_8888) - 0x0808_0808) ^ 0x8080_8080) as i32;
    let block = u32::from_le_bytes(block);
    [signed(block & LOW), signed(block >> 4 & LOW)]
}

/// Unpacks whole blocks of weights, as many as both have.
#[cfg_attr(
    not(any(test, cortex_m = "v6", cortex_m = "v7", cortex_m = "helium", target_arch = "riscv32")),
    allow(dead_code)
)]
#[inline(never)]
pub(super) fn unpack_int4_row(w: &[u8], to: &mut [i32]) {
    for (to, block) in to.as_chunks_mut().0.iter_mut().zip(w.as_chunks().0) {
        *to = unpack_int4(*block);
    }
}

/// Words that `k` weights of int4 take, unpacked in whole blocks.
#[cfg_attr(
    not(any(test, cortex_m = "v6", cortex_m = "v7", cortex_m = "helium", target_arch = "riscv32")),
    allow(dead_code)
)]
pub(super) const fn unpacked_int4_words(k: usize) -> usize {
    k.div_ceil(INT4) * (INT4 / size_of::<i32>())
}

/// How weights are stored: int8, int16, or int4 in bytes. Numbers lie one by one.
pub(crate) trait Stored: Copy + Into<i32> {
    /// Elements of a row of `k`.
    #[inline(always)]
    fn row(k: usize) -> usize {
        k
    }

    /// The sum of the products of `x` with a row of as many.
    #[inline(always)]
    fn dot(x: &[i8], w: &[Self]) -> i32 {
        x.iter().zip(w).map(|(&x, &w)| i32::from(x) * w.into()).sum()
    }
}

impl Stored for i8 {}

impl Stored for i16 {}

impl Stored for u8 {
    #[inline(always)]
    fn row(k: usize) -> usize {
        int4_row(k)
    }

    #[inline(always)]
    fn dot(x: &[i8], w: &[Self]) -> i32 {
        let blocks = x.chunks(INT4).zip(w.as_chunks().0).map(|(x, block)| {
            let w = unpack_int4(*block).map(i32::to_le_bytes);
            x.iter().zip(w.as_flattened()).map(|(&x, &w)| i32::from(x) * i32::from(w as i8)).sum::<i32>()
        });
        blocks.sum()
    }
}

/// The weights of a layer and how its sums are requantised, per channel.
#[derive(Clone, Copy)]
pub(crate) struct Channels<'a, W = i8> {
    /// A row per channel.
    pub(crate) w: &'a [W],
    pub(crate) bias: &'a [i32],
    pub(crate) multiplier: &'a [i32],
    pub(crate) shift: &'a [i8],
}

/// One channel of [`Channels`].
#[derive(Clone, Copy)]
pub(super) struct Channel<'a, W = i8> {
    pub(super) w: &'a [W],
    pub(super) bias: i32,
    pub(super) scale: Requantise,
}

impl<'a, W: Stored> Channels<'a, W> {
    /// Channel after channel, each of `k` weights.
    #[inline(always)]
    pub(super) fn iter(self, k: usize) -> impl Iterator<Item = Channel<'a, W>> {
        let scales = self.multiplier.iter().zip(self.shift);
        self.w.chunks_exact(W::row(k)).zip(self.bias).zip(scales).map(|((w, &bias), (&multiplier, &shift))| Channel {
            w,
            bias,
            scale: Requantise::new(multiplier, shift as u32),
        })
    }

    /// How many there are of `k` weights each.
    #[cfg(cortex_m = "dsp")]
    #[inline(always)]
    pub(super) fn count(self, k: usize) -> usize {
        self.iter(k).size_hint().0
    }
}

/// Where the results of channels go: columns of `y[_, n]` from `j` on.
pub(super) struct Columns<'a, T> {
    pub(super) y: &'a mut [T],
    pub(super) n: usize,
    pub(super) j: usize,
}

impl<T> Columns<'_, T> {
    /// Stores what `tiles` yields, `C` columns from `j` on, but for what lies outside.
    #[inline(always)]
    pub(super) fn store<const C: usize>(self, tiles: impl Iterator<Item = [[T; C]; TILE_ROWS]>) {
        for (y, tile) in self.y.chunks_mut(TILE_ROWS * self.n).zip(tiles) {
            for (y, values) in y.chunks_exact_mut(self.n).zip(tile) {
                y.iter_mut().skip(self.j).zip(values).for_each(|(y, v)| *y = v);
            }
        }
    }
}

impl Columns<'_, i8> {
    /// Lets `tiles(panel, y, n)` write `C` columns of every block of `panel` (of `block` words): those that
    /// lie inside directly, with `y` from the first element on; those over an edge each to a copy.
    ///
    /// `y` has at least `n * (TILE_ROWS * blocks - 1) + C` elements.
    #[cfg(any(cortex_m = "dsp", cortex_m = "v7"))]
    #[inline(always)]
    pub(super) fn fill<const C: usize>(
        self,
        panel: &[i32],
        block: usize,
        mut tiles: impl FnMut(&[i32], &mut [i8], usize),
    ) {
        let Self { y, n, j } = self;
        let inside = if j + C <= n { y.len() / (TILE_ROWS * n) } else { 0 };
        let (whole, over) = panel.split_at(panel.len().min(inside * block));
        let (y, edge) = y.split_at_mut(whole.len() / block * TILE_ROWS * n);
        if let Some(y) = y.get_mut(j..).filter(|y| !y.is_empty()) {
            tiles(whole, y, n);
        }
        let over = over.chunks_exact(block).map(|block| {
            let mut tile = [[0; C]; TILE_ROWS];
            tiles(block, tile.as_flattened_mut(), C);
            tile
        });
        Columns { y: edge, n, j }.store(over);
    }
}

/// Requantisation to int8 by the high word of a product alone: `(h + round) >> shift`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Scale {
    multiplier: i32,
    /// Half of `2^shift`, and the zero point times it.
    round: i32,
    shift: u32,
}

impl Scale {
    /// `None` where the scale or the output has another form.
    #[inline(always)]
    pub(super) fn new(scale: Requantise, to: ToI8) -> Option<Self> {
        if to.hi == 127 { Self::around(scale, to.zero) } else { None }
    }

    /// Shifts of [`Requantise`] that give a scale of this form: a product is below 2^62 and a zero point below 2^8, so
    /// up to 23 bits more than 32 the sum with `round` stays inside 32.
    const USUAL: RangeInclusive<u32> = 33..=55;

    /// Whether a shift gives a scale of this form.
    #[cfg(cortex_m = "dsp")]
    #[inline(always)]
    pub(super) fn is_usual(shift: &i8) -> bool {
        Self::USUAL.contains(&(*shift as u32))
    }

    /// `None` where the scale has another form.
    #[inline(always)]
    pub(super) fn around(scale: Requantise, zero: i32) -> Option<Self> {
        Self::USUAL.contains(&scale.shift()).then(|| {
            let shift = scale.shift() - 32;
            Self { multiplier: scale.multiplier(), round: (2 * zero + 1) << (shift - 1), shift }
        })
    }

    /// The result of a sum, not below `lo`.
    #[inline(always)]
    pub(super) fn apply(self, sum: i32, lo: i32) -> i8 {
        saturate_i8(((mul_high(sum, self.multiplier) + self.round) >> self.shift).max(lo))
    }
}

/// How a core holds what it multiplies.
pub(super) trait Core {
    /// Words of a row of activations in a panel.
    fn row_words(k: usize) -> usize;

    /// Words that the weights of a tile take beside the panel, at most as many as two rows of int16.
    fn pair_words(k: usize) -> usize;

    /// Widens `x` into `block`, the words of a tile's rows, as row `lane` of them.
    fn widen(x: &[i8], lane: usize, block: &mut [i32]);
}

/// How a core multiplies by weights of a width.
pub(super) trait Multiply<W>: Core {
    /// As [`Core::pair_words`], for these weights.
    fn space_words(k: usize) -> usize {
        Self::pair_words(k)
    }

    /// As [`Core::widen`], for these weights.
    #[inline(always)]
    fn widen_row(x: &[i8], lane: usize, block: &mut [i32]) {
        Self::widen(x, lane, block);
    }

    /// The results `y[_, n]` of all channels, of `k` weights each, on every block of `panel`.
    fn columns<O: Output>(
        channels: Channels<'_, W>,
        k: usize,
        space: &mut [i32],
        panel: &[i32],
        output: O,
        y: &mut [O::T],
        n: usize,
    );
}

/// See [`super::products`]. Once in a firmware for each type of weights and of output, hence not for each type of
/// rows.
#[inline(never)]
pub(super) fn run<C: Multiply<W>, W: Stored, O: Output>(
    s: Shape,
    rows: &mut dyn Rows,
    channels: Channels<'_, W>,
    output: O,
    y: &mut [O::T],
    buffer: &mut [i8],
    panel: &mut [i32],
) {
    let words = C::row_words(s.k);
    let Some((space, panel)) = panel.split_at_mut_checked(C::space_words(s.k)) else { return };
    let panel_rows = (panel.len() / words) & !(TILE_ROWS - 1);
    for y in y.chunks_mut(panel_rows.saturating_mul(s.n).max(1)) {
        let mut blocks = 0;
        for (y, block) in y.chunks(TILE_ROWS * s.n).zip(panel.chunks_exact_mut(TILE_ROWS * words)) {
            let mut missing = y.len();
            for lane in 0..TILE_ROWS {
                let x = if missing > 0 { rows.next(buffer) } else { &[] };
                missing = missing.saturating_sub(s.n);
                C::widen_row(x, lane, block);
            }
            blocks += block.len();
        }
        C::columns(channels, s.k, space, panel.get(..blocks).unwrap_or_default(), output, y, s.n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{generic, words::Words};
    use crate::ops::testing::ints;

    fn both<W: Stored, O: Output<T: Clone + Default + core::fmt::Debug + PartialEq>>(s: Shape, w: &[W], output: O)
    where
        Words: Multiply<W>,
    {
        let Shape { rows, k, n } = s;
        let x = ints::<i8>("x", rows * k);
        let bias: Vec<i32> = ints::<i16>("b", n).iter().map(|&b| i32::from(b)).collect();
        let multiplier = vec![1_518_500_250; n];
        let shift: Vec<i8> = (0..n).map(|j| 31 + (j % 9) as i8).collect();
        let channels = Channels { w, bias: &bias, multiplier: &multiplier, shift: &shift };
        let (mut want, mut y) = (vec![O::T::default(); rows * n], vec![O::T::default(); rows * n]);
        generic::products(s, &mut Dense::new(&x, k), channels, output, &mut want, &mut []);
        let mut panel = vec![9; s.panel()];
        run::<Words, W, _>(s, &mut Dense::new(&x, k), channels, output, &mut y, &mut [], &mut panel);
        assert_eq!(y, want, "{rows} x {k} x {n}");
    }

    #[test]
    fn tiles_are_the_plain_product_whatever_the_shape() {
        for rows in [1, 2, 3, 4, 5, 7, 8, 33, 70] {
            for k in [1, 2, 3, 4, 5, 8, 23, 64, 301] {
                for n in [1, 2, 3, 8, 11] {
                    let s = Shape { rows, k, n };
                    let to = ToI8 { zero: 3, lo: -100, hi: 90 };
                    let w = ints::<i8>("w", n * k);
                    both(s, &w, to);
                    both(s, &w, ToI16);
                    let w: Vec<u8> = ints::<i8>("w", n * int4_row(k)).iter().map(|&w| w as u8).collect();
                    both(s, &w, to);
                    both(s, &w, ToI16);
                    let w = ints::<i16>("w", n * k);
                    both(s, &w, to);
                    both(s, &w, ToI16);
                }
            }
        }
    }

    #[test]
    fn blocks_of_int4_are_eight_numbers() {
        for low in -8i8..8 {
            for high in -8i8..8 {
                let byte = (low as u8 & 15) | (high as u8) << 4;
                for at in 0..4 {
                    let mut block = [0x5a; 4];
                    block[at] = byte;
                    let [first, last] = unpack_int4(block).map(i32::to_le_bytes);
                    for i in 0..4 {
                        let expected = if i == at { [low, high] } else { [-6, 5] };
                        assert_eq!([first[i] as i8, last[i] as i8], expected);
                    }
                }
            }
        }
    }
}
