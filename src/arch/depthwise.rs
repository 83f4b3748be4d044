//! Integer depthwise convolutions: the blocking that every core shares, around the loop that each has
//! for itself.
//!
//! Four channels go through the image together. The rows under the kernel are widened once, padding
//! included, into a strip that moves down the image with it; what "widened" means is up to the core. All
//! pixels are then alike, any shape will do.

use super::products::{Channels, Output, Scale};
use crate::math::fixed::Requantise;
#[cfg(cortex_m)]
use core::ops::Range;

/// Channels that are computed together.
pub(super) const QUAD: usize = 4;
/// Taps of a row that a core takes in one go.
pub(super) const MOST_TAPS: usize = 8;
/// Words of a value of each channel, on the core that takes most.
const MOST_WORDS: usize = QUAD;
/// Pixels whose sums are kept before they are requantised.
const PIXELS: usize = 16;
/// Rows that a strip has beside those under the kernel, so that it need not move with every row.
const SPARE_ROWS: usize = 4;

/// The sums of four channels.
pub(super) type Sums = [i32; QUAD];

/// A kernel on an image: `x[h, w, c]`, `w[kh, kw, c/share]` -> some rows of `y[oh, ow, c]`.
#[derive(Clone, Copy)]
pub(crate) struct Sliding {
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    pub(crate) kh: usize,
    pub(crate) kw: usize,
    pub(crate) stride_h: usize,
    pub(crate) stride_w: usize,
    pub(crate) pad_h: usize,
    pub(crate) pad_w: usize,
    /// Neighbouring channels that use one filter.
    pub(crate) share: usize,
    /// The first row of the output.
    pub(crate) first: usize,
    pub(crate) ow: usize,
    /// What the padding reads.
    pub(crate) zero_in: i8,
}

impl Sliding {
    /// Columns of a strip.
    pub(super) const fn columns(&self) -> usize {
        self.pad_w.saturating_mul(2).saturating_add(self.w)
    }

    /// Rows of a strip.
    pub(super) const fn rows(&self) -> usize {
        let (some, all) = (self.kh.saturating_add(SPARE_ROWS), self.pad_h.saturating_mul(2).saturating_add(self.h));
        if some < all { some } else { all }
    }

    /// Words of the sums, the strip and the weights; the same on every core, since the file plans them.
    pub(crate) const fn scratch(&self) -> usize {
        let strip = self.rows().saturating_mul(self.columns());
        let widened = strip.saturating_add(self.kh.saturating_mul(self.kw)).saturating_mul(MOST_WORDS);
        widened.saturating_add(PIXELS * QUAD)
    }
}

/// Taps that a core adds in one go: `rows` times `taps` neighbours.
#[derive(Clone, Copy)]
pub(super) struct Taps {
    // Loops that end with the weights need not count them.
    pub(super) rows: usize,
    /// 1 to [`MOST_TAPS`].
    pub(super) taps: usize,
    /// Words between the rows of a strip.
    pub(super) row: usize,
    /// Words between the first taps of neighbouring pixels.
    pub(super) stride: usize,
}

/// What a core's loop over the pixels of a row is told, in the order in which it reads it.
#[cfg(cortex_m)]
#[repr(C)]
pub(super) struct Row {
    x: *const i32,
    w: *const i32,
    sums: *mut Sums,
    rows: usize,
    w_end: *const i32,
    /// Bytes from the end of a row of taps to the next row of the strip.
    step: usize,
    taps: usize,
    /// Bytes between neighbouring pixels.
    stride: usize,
    pixels: usize,
}

#[cfg(cortex_m)]
impl Row {
    /// `None` where a pixel would not find all its taps in `strip` and `weights`, or there is none.
    #[inline(always)]
    pub(super) fn new<C: Core>(t: Taps, strip: &[i32], weights: &[i32], sums: &mut [Sums]) -> Option<Self> {
        let Taps { rows, taps, row, stride } = t;
        let (pixels, run) = (sums.len(), taps * C::WORDS);
        let Range { start: w, end: w_end } = weights.get(..rows * run)?.as_ptr_range();
        let inside = pixels.checked_sub(1)? * stride + rows.checked_sub(1)? * row + run <= strip.len();
        (inside && (1..=MOST_TAPS).contains(&taps)).then(|| {
            let word = size_of::<i32>();
            let (step, stride) = ((row - run) * word, stride * word);
            Self { x: strip.as_ptr(), w, sums: sums.as_mut_ptr(), rows, w_end, step, taps, stride, pixels }
        })
    }
}

/// What a core's way of finishing pixels is told.
#[cfg(any(cortex_m = "dsp", cortex_m = "v7"))]
#[repr(C)]
pub(super) struct Finish<'a> {
    scales: &'a [Scale; QUAD],
    sums: *const Sums,
    y: *mut i8,
    c: usize,
    pixels: usize,
    /// The smallest result, four times.
    lo: [i8; QUAD],
}

#[cfg(any(cortex_m = "dsp", cortex_m = "v7"))]
impl<'a> Finish<'a> {
    /// `None` where `y` has not room for four results of every pixel, or there is none.
    #[inline(always)]
    pub(super) fn new(sums: &[Sums], scales: &'a [Scale; QUAD], lo: i32, y: &mut [i8], c: usize) -> Option<Self> {
        let pixels = sums.len();
        let fits = pixels > 0 && (pixels - 1) * c + QUAD <= y.len();
        let (sums, y) = (sums.as_ptr(), y.as_mut_ptr());
        fits.then_some(Self { scales, sums, y, c, pixels, lo: [lo as i8; QUAD] })
    }
}

/// How a core multiplies.
pub(super) trait Core {
    /// Words of a value of each channel.
    const WORDS: usize;

    /// Widens a value of each channel into `to`, of [`Self::WORDS`] words.
    fn widen(quad: [i8; QUAD], to: &mut [i32]);

    /// Widens the first four of every `c` values of `x` into `to`, one after the other. There are as many
    /// pixels as `to` has room for.
    #[inline(always)]
    fn widen_pixels(x: &[i8], c: usize, to: &mut [i32]) {
        for (x, to) in x.chunks(c).zip(to.chunks_exact_mut(Self::WORDS)) {
            x.first_chunk().into_iter().for_each(|&quad| Self::widen(quad, to));
        }
    }

    /// The results of pixels, in the first four of every `c` elements of `y`.
    #[inline(always)]
    fn finish(sums: &[Sums], scales: &[Scale; QUAD], lo: i32, y: &mut [i8], c: usize) {
        for (y, sums) in y.chunks_mut(c).zip(sums) {
            for ((y, &sum), scale) in y.iter_mut().zip(sums).zip(scales) {
                *y = scale.apply(sum, lo);
            }
        }
    }

    /// Adds to the sums of neighbouring pixels the products of `strip`, from the first pixel's first tap
    /// on, with `weights`.
    fn add(taps: Taps, strip: &[i32], weights: &[i32], sums: &mut [Sums]);
}

/// See [`super::depthwise`]. Once in a firmware for each type of output.
#[inline(never)]
pub(super) fn run<C: Core, O: Output>(
    s: &Sliding,
    x: &[i8],
    channels: Channels<'_>,
    output: O,
    y: &mut [O::T],
    scratch: &mut [i32],
) {
    let Some((sums, scratch)) = scratch.split_at_mut_checked(PIXELS * QUAD) else { return };
    let (sums, _) = sums.as_chunks_mut();
    let Some((strip, scratch)) = scratch.split_at_mut_checked(s.rows() * s.columns() * C::WORDS) else { return };
    let Some(weights) = scratch.get_mut(..s.kh * s.kw * C::WORDS) else { return };
    let row = s.columns() * C::WORDS;
    let mut zero = [0; MOST_WORDS];
    C::widen([s.zero_in; QUAD], &mut zero);
    let zero = zero.get(..C::WORDS).unwrap_or_default();
    strip.chunks_exact_mut(C::WORDS).for_each(|column| column.copy_from_slice(zero));
    for channel in (0..s.c).step_by(QUAD) {
        let quad = Quad::new::<C>(s, channel, &channels, weights);
        // The window's rows start at `at`; the first `held` of them are there already.
        let (mut at, mut held) = (0, 0);
        for (y, oy) in y.chunks_exact_mut(s.ow * s.c).zip(s.first..) {
            if at + s.kh > s.rows() {
                strip.copy_within(at * row..(at + held) * row, 0);
                at = 0;
            }
            let Some(window) = strip.get_mut(at * row..) else { return };
            fill::<C>(s, oy * s.stride_h, held, channel, x, zero, window);
            quad.row::<C, O>(s, window, weights, sums, output, y.get_mut(channel..).unwrap_or_default());
            held = s.kh.saturating_sub(s.stride_h);
            at = if held > 0 { at + s.stride_h } else { 0 };
        }
    }
}

/// Lets `window` hold the rows of the padded image from `top` on, the first `held` of which it holds already.
#[inline(always)]
fn fill<C: Core>(s: &Sliding, top: usize, held: usize, channel: usize, x: &[i8], zero: &[i32], window: &mut [i32]) {
    let row = s.columns() * C::WORDS;
    for (t, row) in window.chunks_exact_mut(row).enumerate().take(s.kh).skip(held) {
        // What is left and right of the image stays as it is.
        let Some(row) = row.get_mut(s.pad_w * C::WORDS..) else { return };
        let Some(row) = row.get_mut(..s.w * C::WORDS) else { return };
        let columns = row.chunks_exact_mut(C::WORDS);
        let from = (top + t).checked_sub(s.pad_h).and_then(|iy| x.get(iy * s.w * s.c + channel..));
        match from.filter(|x| !x.is_empty()) {
            None => columns.for_each(|column| column.copy_from_slice(zero)),
            Some(x) if channel + QUAD <= s.c => C::widen_pixels(x, s.c, row),
            Some(x) => {
                for (column, pixel) in columns.zip(x.chunks(s.c)) {
                    C::widen(lanes(s.c - channel, |i| pixel.get(i).copied().unwrap_or(0)), column);
                }
            }
        }
    }
}

/// The values of `n` channels, and of what is missing to a quad zeros.
#[inline(always)]
fn lanes(n: usize, value: impl Fn(usize) -> i8) -> [i8; QUAD] {
    core::array::from_fn(|i| if i < n { value(i) } else { 0 })
}

/// Four neighbouring channels, or what is left of them.
struct Quad {
    lanes: usize,
    bias: Sums,
    scales: [Requantise; QUAD],
}

impl Quad {
    /// Widens the weights of the quad from `channel` on into `weights`, in the order in which they are
    /// taken.
    #[inline(always)]
    fn new<C: Core>(s: &Sliding, channel: usize, channels: &Channels<'_>, weights: &mut [i32]) -> Self {
        let n = (s.c - channel).min(QUAD);
        let filter = |i: usize| (channel + i.min(n - 1)) / s.share;
        let filters: [usize; QUAD] = core::array::from_fn(filter);
        let mut to = weights.chunks_exact_mut(C::WORDS);
        for first in (0..s.kw).step_by(MOST_TAPS) {
            for row in channels.w.chunks_exact(s.kw * (s.c / s.share)) {
                let taps = row.chunks_exact(s.c / s.share).skip(first).take(MOST_TAPS);
                for (w, to) in taps.zip(&mut to) {
                    C::widen(lanes(n, |i| w.get(filters[i]).copied().unwrap_or(0)), to);
                }
            }
        }
        let of = |values: &[i32]| filters.map(|f| values.get(f).copied().unwrap_or(0));
        let (multipliers, shifts) = (of(channels.multiplier), filters.map(|f| channels.shift.get(f).copied()));
        let scale = |i: usize| Requantise::new(multipliers[i], shifts[i].unwrap_or(62) as u32);
        Self { lanes: n, bias: of(channels.bias), scales: core::array::from_fn(scale) }
    }

    /// The pixels of a row of the output, the first of which starts at this quad.
    #[inline(always)]
    fn row<C: Core, O: Output>(
        &self,
        s: &Sliding,
        strip: &[i32],
        weights: &[i32],
        sums: &mut [Sums],
        output: O,
        y: &mut [O::T],
    ) {
        let (row, stride) = (s.columns() * C::WORDS, s.stride_w * C::WORDS);
        for (i, y) in y.chunks_mut(PIXELS * s.c).enumerate() {
            let Some(sums) = sums.get_mut(..y.len().div_ceil(s.c)) else { return };
            sums.fill(self.bias);
            let mut weights = weights;
            for first in (0..s.kw).step_by(MOST_TAPS) {
                let taps = Taps { rows: s.kh, taps: (s.kw - first).min(MOST_TAPS), row, stride };
                let (now, rest) = weights.split_at(weights.len().min(s.kh * taps.taps * C::WORDS));
                let strip = strip.get(i * PIXELS * stride + first * C::WORDS..).unwrap_or_default();
                C::add(taps, strip, now, sums);
                weights = rest;
            }
            self.finish::<C, O>(sums, output, y, s.c);
        }
    }

    /// Requantises and stores the sums of pixels that are `c` channels apart.
    #[inline(always)]
    fn finish<C: Core, O: Output>(&self, sums: &[Sums], output: O, y: &mut [O::T], c: usize) {
        if self.lanes == QUAD
            && let Some((y, to)) = output.as_i8(y)
            && let [Some(s0), Some(s1), Some(s2), Some(s3)] = self.scales.map(|scale| Scale::new(scale, to))
        {
            return C::finish(sums, &[s0, s1, s2, s3], to.lo, y, c);
        }
        for (y, sums) in y.chunks_mut(c).zip(sums) {
            for ((y, &sum), scale) in y.iter_mut().zip(sums).zip(self.scales).take(self.lanes) {
                *y = output.put(scale.apply(sum));
            }
        }
    }
}
