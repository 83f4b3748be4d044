//! Pooling of channels-last images: the adaptive average that gives SOFT's landmarks and the mean of
//! all tokens before the head, and the maximum.

use super::window::Axis;
use super::{DType, Part, Signature, Whole, f32s, i8s, operand};
use crate::arch::{Window, means, vectorised};
use core::num::NonZero;
use core::ops::Range;

shape! {
    /// `x[batch, h, w, c]` -> `y[batch, oh, ow, c]`: the mean of every window.
    ///
    /// The windows are those of PyTorch's `adaptive_avg_pool2d`: along the height, window `i` is the
    /// rows `floor(i h / oh) .. ceil((i + 1) h / oh)`. `oh = ow = 1` is the mean of the image.
    pub struct AvgPool {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the output.
        pub oh: usize,
        /// Width of the output.
        pub ow: usize,
    }
}

/// Inputs of window `i` of `windows` over `size` inputs.
#[inline(always)]
const fn span(size: usize, windows: usize, i: usize) -> Range<usize> {
    i * size / windows..((i + 1) * size).div_ceil(windows)
}

/// Inputs of the widest window, or one more.
const fn widest(size: usize, windows: usize) -> usize {
    if size.is_multiple_of(windows) { size / windows } else { size.div_ceil(windows) + 1 }
}

impl AvgPool {
    const fn reason(&self) -> Option<&'static str> {
        // The borders of the windows are computed in 32 bits.
        const LIMIT: u64 = 1 << 31;
        if super::size(&[self.batch, self.h, self.w, self.c, self.oh, self.ow]) == 0 {
            Some("a pooling of no images, pixels or channels")
        } else if super::size(&[self.h, self.oh]) >= LIMIT || super::size(&[self.w, self.ow]) >= LIMIT {
            Some("a pooling of a side times a side of 2^31 or more")
        } else {
            None
        }
    }

    const fn x_dims(&self) -> [usize; 4] {
        [self.batch, self.h, self.w, self.c]
    }

    const fn y_dims(&self) -> [usize; 4] {
        [self.batch, self.oh, self.ow, self.c]
    }

    /// Pixels of the largest window, or a few more.
    const fn largest_window(&self) -> u64 {
        super::size(&[widest(self.h, self.oh), widest(self.w, self.ow)])
    }

    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        if let Some(why) = self.reason() {
            return Signature::invalid(why);
        }
        Signature::new(&[f32s(&self.x_dims())], &[f32s(&self.y_dims())])
    }

    /// Multiply-accumulates: one per input.
    pub const fn macs(&self) -> u64 {
        super::size(&self.x_dims())
    }

    /// Blocks of channels of all pixels of the output.
    const fn rows(&self) -> usize {
        super::size(&[self.oh, self.ow, self.c.div_ceil(ROW)]) as usize
    }

    /// The `i`-th window of an image in the order of the output, as rows and columns.
    #[inline(always)]
    fn window(&self, i: usize) -> (Range<usize>, Range<usize>) {
        (span(self.h, self.oh, i / self.ow), span(self.w, self.ow, i % self.ow))
    }

    /// Offset and length of every row of a window.
    #[inline(always)]
    fn runs(&self, rows: Range<usize>, columns: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let Self { w, c, .. } = *self;
        rows.map(move |y| (y * w + columns.start) * c..(y * w + columns.end) * c)
    }
}

/// The mean of every window.
pub fn average(s: &AvgPool, x: &[f32], y: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(s.h * s.w * s.c).zip(y.chunks_exact_mut(s.oh * s.ow * s.c)) {
                for (i, y) in y.chunks_exact_mut(s.c).enumerate() {
                    let (rows, columns) = s.window(i);
                    let scale = 1.0 / (rows.len() * columns.len()) as f32;
                    y.fill(0.0);
                    for run in s.runs(rows, columns) {
                        for x in x[run].chunks_exact(s.c) {
                            for (y, x) in y.iter_mut().zip(x) {
                                *y += x;
                            }
                        }
                    }
                    for y in y {
                        *y *= scale;
                    }
                }
            }
        },
    );
}

shape! {
    /// Backward of [`AvgPool`]: `dy -> dx`.
    pub struct AvgPoolGrad {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the output.
        pub oh: usize,
        /// Width of the output.
        pub ow: usize,
    }
}

impl AvgPoolGrad {
    const fn geometry(&self) -> AvgPool {
        AvgPool::from_words(&self.to_words())
    }

    /// Input `dy`; output `dx`.
    pub const fn signature(&self) -> Signature {
        let s = self.geometry();
        if let Some(why) = s.reason() {
            return Signature::invalid(why);
        }
        Signature::new(&[f32s(&s.y_dims())], &[f32s(&s.x_dims())])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs()
    }
}

/// Every window hands an equal share of its gradient to its inputs; overwrites `dx`.
pub fn average_grad(s: &AvgPoolGrad, dy: &[f32], dx: &mut [f32]) {
    let s = s.geometry();
    dx.fill(0.0);
    vectorised(
        #[inline(always)]
        || {
            for (dx, dy) in dx.chunks_exact_mut(s.h * s.w * s.c).zip(dy.chunks_exact(s.oh * s.ow * s.c)) {
                for (i, dy) in dy.chunks_exact(s.c).enumerate() {
                    let (rows, columns) = s.window(i);
                    let scale = 1.0 / (rows.len() * columns.len()) as f32;
                    for run in s.runs(rows, columns) {
                        for dx in dx[run].chunks_exact_mut(s.c) {
                            for (dx, g) in dx.iter_mut().zip(dy) {
                                *dx += scale * g;
                            }
                        }
                    }
                }
            }
        },
    );
}

shape! {
    /// Integer [`AvgPool`] of one image: `x i8 -> y i8` with the same scale and zero point.
    ///
    /// `y` is the mean rounded once, to nearest, ties up.
    pub struct AvgPoolI8 {
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the output.
        pub oh: usize,
        /// Width of the output.
        pub ow: usize,
    }
}

shape! {
    /// Integer [`AvgPool`] of one image: `x i16 -> y i16` with the same scale and zero point.
    ///
    /// `y` is the mean rounded once, to nearest, ties up.
    pub struct AvgPoolI16 {
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the output.
        pub oh: usize,
        /// Width of the output.
        pub ow: usize,
    }
}

impl AvgPoolI8 {
    const fn geometry(&self) -> AvgPool {
        let Self { h, w, c, oh, ow } = *self;
        AvgPool { batch: 1, h, w, c, oh, ow }
    }

    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        integer_signature(&self.geometry(), DType::I8)
    }

    /// Rows that can be computed by themselves: up to 16 channels of each pixel of the output.
    pub const fn rows(&self) -> usize {
        self.geometry().rows()
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs()
    }
}

impl AvgPoolI16 {
    const fn geometry(&self) -> AvgPool {
        let Self { h, w, c, oh, ow } = *self;
        AvgPool { batch: 1, h, w, c, oh, ow }
    }

    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        integer_signature(&self.geometry(), DType::I16)
    }

    /// Rows that can be computed by themselves: up to 16 channels of each pixel of the output.
    pub const fn rows(&self) -> usize {
        self.geometry().rows()
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs()
    }
}

/// Most pixels of an integer window: their sum, made positive, must fit 32 bits.
const MAX_WINDOW: u32 = 1 << 16;

const fn integer_signature(s: &AvgPool, dtype: DType) -> Signature {
    if let Some(why) = s.reason() {
        return Signature::invalid(why);
    }
    if s.largest_window() > MAX_WINDOW as u64 {
        return Signature::invalid("an integer pooling window of more than 65536 pixels");
    }
    Signature::new(&[operand(dtype, &s.x_dims())], &[operand(dtype, &s.y_dims())])
}

/// `sum / count`, rounded to nearest, ties up, for values from `-offset` to `offset - 1`, where `offset` is a power of
/// two, at most 2^15, and `count` at most [`MAX_WINDOW`].
///
/// Divides the sum of `value + offset`, which is at most 65535 * 2^16 and with half of `count` still
/// fits 32 bits. For odd counts half is rounded down: what is lost, a half of 1, is less than the
/// distance of the dividend to the next multiple.
#[derive(Clone, Copy)]
struct Mean {
    count: NonZero<u32>,
    offset: u32,
    /// The smallest integer above `2^bits / count`, with which few pixels need no division.
    inverse: Option<u32>,
}

impl Mean {
    #[inline(always)]
    fn new(count: u32, offset: u32) -> Self {
        let count = NonZero::new(count).unwrap_or(NonZero::<u32>::MIN);
        let all = 1 << Self::bits(offset);
        // The dividend is below `2 offset count`, and the inverse too large by at most 1: below `2 offset count^2 <= 2^bits`
        // the quotient grows by less than `1 / count`, and the product fits 32 bits.
        let few = (2 * offset).checked_mul(count.get()).and_then(|most| most.checked_mul(count.get()));
        // A core with a loop of its own takes few pixels there.
        let inverse = few.is_some_and(|few| few <= all && !OWN_LOOP).then(|| all / count + 1);
        Self { count, offset, inverse }
    }

    /// Such that `2 offset 2^bits = 2^32`.
    #[inline(always)]
    fn bits(offset: u32) -> u32 {
        31 - offset.ilog2()
    }

    #[inline(always)]
    fn of(self, sum: i32) -> i32 {
        let Self { count, offset, inverse } = self;
        let dividend = (sum as u32).wrapping_add(offset * count.get()) + count.get() / 2;
        let quotient = match inverse {
            Some(inverse) => (dividend * inverse) >> Self::bits(offset),
            None => dividend / count,
        };
        quotient as i32 - offset as i32
    }
}

/// The sums of `N` channels of a window.
#[cfg_attr(cortex_m = "dsp", inline(never))]
#[cfg_attr(not(cortex_m = "dsp"), inline(always))]
fn sums<const N: usize, T: Copy + Into<i32>>(window: Window, x: &[T]) -> [i32; N] {
    let Window { first, rows, columns, c, stride } = window;
    let mut sums = [0; N];
    let mut at = first;
    for _ in 0..rows {
        for _ in 0..columns {
            // All are there; a loop that can end here is not unrolled, for which windows are too small.
            let Some(x) = x.get(at..).and_then(<[T]>::first_chunk::<N>) else { return sums };
            sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += x.into());
            at += c;
        }
        at += stride - columns * c;
    }
    sums
}

/// Whether [`means`] takes most channels, and code for the rest had better be small.
const OWN_LOOP: bool = cfg!(cortex_m = "dsp");

/// Channels whose sums a small core keeps in registers.
const SUMS: usize = 4;

/// Channels of a row: enough that a row of a small window is worth a step.
const ROW: usize = 16;

#[inline(always)]
fn integer<T: Copy + Into<i32>>(
    s: &AvgPool,
    part: &impl Part,
    x: &[T],
    y: &mut [T],
    offset: u32,
    narrow: impl Fn(i32) -> T,
    means: impl Fn(Window, &[T], &mut [T]) -> usize,
) {
    let of_window = s.c.div_ceil(ROW);
    for (i, y) in y.chunks_exact_mut(s.c).enumerate() {
        let part = part.group(i, of_window);
        if part.is_empty() {
            continue;
        }
        let (rows, columns) = s.window(i);
        let (channel, y) = (part.start() * ROW, part.cut_mut(y, ROW));
        let first = (rows.start * s.w + columns.start) * s.c + channel;
        let window = Window { first, rows: rows.len(), columns: columns.len(), c: s.c, stride: s.w * s.c };
        let done = means(window, x, y);
        let y = y.get_mut(done..).unwrap_or_default();
        if y.is_empty() {
            continue;
        }
        plain(Window { first: first + done, ..window }, x, y, offset, &narrow);
    }
}

/// The means of the channels of a window from the first on.
#[inline(never)]
fn plain<T: Copy + Into<i32>>(mut window: Window, x: &[T], y: &mut [T], offset: u32, narrow: impl Fn(i32) -> T) {
    let mean = Mean::new((window.rows * window.columns) as u32, offset);
    let (blocks, rest) = if OWN_LOOP { (&mut [][..], y) } else { y.as_chunks_mut() };
    for y in blocks {
        *y = sums::<SUMS, T>(window, x).map(|sum| narrow(mean.of(sum)));
        window.first += SUMS;
    }
    for y in rest {
        let [sum] = sums(window, x);
        *y = narrow(mean.of(sum));
        window.first += 1;
    }
}

/// Integer means of the windows of some rows, int8.
pub fn average_i8(s: &AvgPoolI8, part: &impl Part, x: &[i8], y: &mut [i8]) {
    integer(&s.geometry(), part, x, y, 1 << 7, |v| v as i8, means);
}

/// Integer means of the windows of some rows, int16.
pub fn average_i16(s: &AvgPoolI16, part: &impl Part, x: &[i16], y: &mut [i16]) {
    integer(&s.geometry(), part, x, y, 1 << 15, |v| v as i16, |_, _, _| 0);
}

shape! {
    /// `x[batch, h, w, c]` -> `y[batch, oh, ow, c]`: the maximum of every window, without padding; NaN
    /// wins.
    pub struct MaxPool {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the window.
        pub kh: usize,
        /// Width of the window.
        pub kw: usize,
        /// Vertical stride.
        pub stride_h: usize,
        /// Horizontal stride.
        pub stride_w: usize,
    }
}

impl MaxPool {
    const fn vertical(&self) -> Axis {
        Axis { size: self.h, kernel: self.kh, stride: self.stride_h, pad: 0 }
    }

    const fn horizontal(&self) -> Axis {
        Axis { size: self.w, kernel: self.kw, stride: self.stride_w, pad: 0 }
    }

    /// Height of the output.
    pub const fn oh(&self) -> usize {
        self.vertical().windows()
    }

    /// Width of the output.
    pub const fn ow(&self) -> usize {
        self.horizontal().windows()
    }

    const fn reason(&self) -> Option<&'static str> {
        if self.batch == 0 || self.c == 0 {
            Some("a pooling of no images, pixels or channels")
        } else if self.vertical().reason().is_some() {
            self.vertical().reason()
        } else {
            self.horizontal().reason()
        }
    }

    const fn x_dims(&self) -> [usize; 4] {
        [self.batch, self.h, self.w, self.c]
    }

    const fn y_dims(&self) -> [usize; 4] {
        [self.batch, self.oh(), self.ow(), self.c]
    }

    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        if let Some(why) = self.reason() {
            return Signature::invalid(why);
        }
        Signature::new(&[f32s(&self.x_dims())], &[f32s(&self.y_dims())])
    }

    /// Comparisons.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.batch, self.oh(), self.ow(), self.c, self.kh, self.kw])
    }

    /// Offsets of the first channel of every pixel of window `(oy, ox)`.
    #[inline(always)]
    fn pixels(&self, oy: usize, ox: usize) -> impl Iterator<Item = usize> {
        let Self { w, c, kh, kw, stride_h, stride_w, .. } = *self;
        let corner = oy * stride_h * w + ox * stride_w;
        (0..kh).flat_map(move |ky| (0..kw).map(move |kx| (corner + ky * w + kx) * c))
    }

    /// Rows of pixels of all images.
    const fn rows(&self) -> usize {
        super::size(&[self.batch, self.oh()]) as usize
    }

    #[inline(always)]
    fn each<T: Copy>(&self, part: &impl Part, x: &[T], y: &mut [T], better: impl Fn(T, T) -> bool) {
        let (oh, ow) = (self.oh(), self.ow());
        let images = x.chunks_exact(self.h * self.w * self.c).zip(y.chunks_exact_mut(oh * ow * self.c));
        for (i, (x, y)) in images.enumerate() {
            let part = part.group(i, oh);
            for (y, oy) in part.cut_mut(y, ow * self.c).chunks_exact_mut(ow * self.c).zip(part.start()..) {
                for (ox, y) in y.chunks_exact_mut(self.c).enumerate() {
                    for (i, at) in self.pixels(oy, ox).enumerate() {
                        for (y, &x) in y.iter_mut().zip(&x[at..]) {
                            *y = if i == 0 || better(x, *y) { x } else { *y };
                        }
                    }
                }
            }
        }
    }
}

/// Whether `x` takes the place of the largest value so far.
#[inline(always)]
fn wins(x: f32, best: f32) -> bool {
    x > best || x.is_nan()
}

/// The maximum of every window.
pub fn max(s: &MaxPool, x: &[f32], y: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || s.each(&Whole, x, y, wins),
    );
}

shape! {
    /// Backward of [`MaxPool`]: `x, dy -> dx`. Of equal maxima the first gets the gradient.
    pub struct MaxPoolGrad {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the window.
        pub kh: usize,
        /// Width of the window.
        pub kw: usize,
        /// Vertical stride.
        pub stride_h: usize,
        /// Horizontal stride.
        pub stride_w: usize,
    }
}

impl MaxPoolGrad {
    const fn geometry(&self) -> MaxPool {
        MaxPool::from_words(&self.to_words())
    }

    /// Inputs `x, dy`; output `dx`.
    pub const fn signature(&self) -> Signature {
        let s = self.geometry();
        if let Some(why) = s.reason() {
            return Signature::invalid(why);
        }
        let x = f32s(&s.x_dims());
        Signature::new(&[x, f32s(&s.y_dims())], &[x])
    }

    /// Comparisons.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs()
    }
}

/// Every window hands its gradient to its first maximum; overwrites `dx`.
pub fn max_grad(s: &MaxPoolGrad, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    const LANES: usize = 8;
    let s = s.geometry();
    let (oh, ow) = (s.oh(), s.ow());
    let image = s.h * s.w * s.c;
    dx.fill(0.0);
    vectorised(
        #[inline(always)]
        || {
            let images = x.chunks_exact(image).zip(dx.chunks_exact_mut(image));
            for ((x, dx), dy) in images.zip(dy.chunks_exact(oh * ow * s.c)) {
                for (oy, dy) in dy.chunks_exact(ow * s.c).enumerate() {
                    for (ox, dy) in dy.chunks_exact(s.c).enumerate() {
                        let (blocks, rest) = dy.as_chunks::<LANES>();
                        for (i, dy) in blocks.iter().enumerate() {
                            hand_back(&s, oy, ox, i * LANES, x, dy, dx);
                        }
                        for (i, &dy) in rest.iter().enumerate() {
                            hand_back(&s, oy, ox, blocks.len() * LANES + i, x, &[dy], dx);
                        }
                    }
                }
            }
        },
    );
}

/// Adds the gradient of window `(oy, ox)` in the channels from `channel` on to the first maxima.
#[inline(always)]
fn hand_back<const V: usize>(
    s: &MaxPool,
    oy: usize,
    ox: usize,
    channel: usize,
    x: &[f32],
    dy: &[f32; V],
    dx: &mut [f32],
) {
    let corner = oy * s.stride_h * s.w + ox * s.stride_w;
    let mut winner = [corner * s.c; V];
    let mut best = [f32::NEG_INFINITY; V];
    for ky in 0..s.kh {
        for kx in 0..s.kw {
            let at = (corner + ky * s.w + kx) * s.c;
            for (i, x) in x[at + channel..][..V].iter().enumerate() {
                let better = wins(*x, best[i]);
                best[i] = if better { *x } else { best[i] };
                winner[i] = if better { at } else { winner[i] };
            }
        }
    }
    for (i, (g, at)) in dy.iter().zip(winner).enumerate() {
        dx[at + channel + i] += g;
    }
}

shape! {
    /// Integer [`MaxPool`]: `x i8 -> y i8` with the same scale and zero point.
    pub struct MaxPoolI8 {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the window.
        pub kh: usize,
        /// Width of the window.
        pub kw: usize,
        /// Vertical stride.
        pub stride_h: usize,
        /// Horizontal stride.
        pub stride_w: usize,
    }
}

impl MaxPoolI8 {
    const fn geometry(&self) -> MaxPool {
        MaxPool::from_words(&self.to_words())
    }

    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        let s = self.geometry();
        if let Some(why) = s.reason() {
            return Signature::invalid(why);
        }
        Signature::new(&[i8s(&s.x_dims())], &[i8s(&s.y_dims())])
    }

    /// Rows that can be computed by themselves: the rows of the output's pixels.
    pub const fn rows(&self) -> usize {
        self.geometry().rows()
    }

    /// Comparisons.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs()
    }
}

/// The maximum of every window of some rows, int8.
pub fn max_i8(s: &MaxPoolI8, part: &impl Part, x: &[i8], y: &mut [i8]) {
    s.geometry().each(part, x, y, |x, best| x > best);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, ints, reals};
    use std::vec;
    use std::vec::Vec;

    /// Every (output, input) pair of an average, and the size of its window.
    fn pairs(s: &AvgPool) -> Vec<(usize, usize, usize)> {
        let range = |size: usize, windows: usize, i: usize| {
            let (size, windows, i) = (size as f64, windows as f64, i as f64);
            (i * size / windows).floor() as usize..((i + 1.0) * size / windows).ceil() as usize
        };
        let mut all = Vec::new();
        for b in 0..s.batch {
            for (oy, ox) in (0..s.oh).flat_map(|oy| (0..s.ow).map(move |ox| (oy, ox))) {
                let (rows, columns) = (range(s.h, s.oh, oy), range(s.w, s.ow, ox));
                for c in 0..s.c {
                    for y in rows.clone() {
                        for x in columns.clone() {
                            let to = ((b * s.oh + oy) * s.ow + ox) * s.c + c;
                            let from = ((b * s.h + y) * s.w + x) * s.c + c;
                            all.push((to, from, rows.len() * columns.len()));
                        }
                    }
                }
            }
        }
        all
    }

    /// batch, h, w, c, oh, ow
    const AVERAGES: [[u32; 6]; 7] = [
        [1, 1, 1, 1, 1, 1],
        [2, 7, 5, 3, 3, 2],
        [1, 8, 8, 16, 2, 4],
        [3, 9, 9, 2, 1, 1],
        [1, 5, 6, 7, 5, 6],
        [1, 2, 3, 5, 3, 7],
        [1, 1, 50, 4, 1, 8],
    ];

    #[test]
    fn averages_match_the_reference() {
        for words in AVERAGES {
            let s = AvgPool::from_words(&words);
            let outputs = s.signature().output(0).len as usize;
            let reference = |x: &[f64]| {
                let mut y = vec![0.0; outputs];
                pairs(&s).iter().for_each(|&(to, from, count)| y[to] += x[from] / count as f64);
                y
            };
            let inputs = [reals("x", s.signature().input(0).len as usize)];
            let mut y = vec![9.0; outputs];
            average(&s, &inputs[0].f32(), &mut y);
            assert_close("y", &y, &reference(&inputs[0].f64()), 1e-6);
            check_gradients(
                &inputs,
                outputs,
                |t| reference(&t[0]),
                |dy| {
                    let mut dx = vec![9.0; inputs[0].f32().len()];
                    average_grad(&AvgPoolGrad::from_words(&words), dy, &mut dx);
                    vec![dx]
                },
            );
        }
    }

    /// The mean by integer division in 128 bits.
    fn exact(s: &AvgPool, x: &[i128]) -> Vec<i128> {
        let mut sums = vec![(0, 0); s.oh * s.ow * s.c];
        for (to, from, count) in pairs(s) {
            sums[to] = (sums[to].0 + x[from], count as i128);
        }
        sums.into_iter().map(|(sum, count)| (2 * sum + count).div_euclid(2 * count)).collect()
    }

    #[test]
    fn integer_averages_are_exact() {
        for [_, words @ ..] in AVERAGES {
            let (s, s16) = (AvgPoolI8::from_words(&words), AvgPoolI16::from_words(&words));
            let g = s.geometry();
            assert_eq!(g, s16.geometry());
            let (inputs, outputs) = (g.h * g.w * g.c, g.oh * g.ow * g.c);
            for (x, x16) in [
                (ints::<i8>("x", inputs), ints::<i16>("x", inputs)),
                (vec![-128; inputs], vec![-32768; inputs]),
                (vec![127; inputs], vec![32767; inputs]),
            ] {
                let (mut y, mut y16) = (vec![0; outputs], vec![0; outputs]);
                average_i8(&s, &Whole, &x, &mut y);
                average_i16(&s16, &Whole, &x16, &mut y16);
                let widen = |x: &[i16]| x.iter().map(|&v| i128::from(v)).collect::<Vec<_>>();
                let x: Vec<i16> = x.into_iter().map(i16::from).collect();
                let y: Vec<i16> = y.into_iter().map(i16::from).collect();
                assert_eq!(widen(&y), exact(&g, &widen(&x)));
                assert_eq!(widen(&y16), exact(&g, &widen(&x16)));
            }
        }
    }

    #[test]
    fn means_are_exact_up_to_the_largest_window() {
        for count in [1, 2, 3, 4, 5, 7, 49, 64, 251, 255, 256, 257, 3136, 65535, MAX_WINDOW] {
            for offset in [1 << 7, 1 << 15] {
                let (lowest, highest) = (-(offset as i64) * i64::from(count), (offset as i64 - 1) * i64::from(count));
                let near =
                    |at: i64| (at - 3 * i64::from(count)..=at + 3 * i64::from(count)).step_by(1 + count as usize / 60);
                for sum in near(lowest).chain(near(0)).chain(near(highest)).filter(|s| (lowest..=highest).contains(s)) {
                    let want = (2 * sum + i64::from(count)).div_euclid(2 * i64::from(count));
                    let got = Mean::new(count, offset).of(sum as i32);
                    assert_eq!(i64::from(got), want, "{sum} / {count}");
                }
            }
        }
    }

    #[test]
    fn means_of_few_pixels_need_no_division() {
        for count in 1..=256 {
            let mean = Mean::new(count, 1 << 7);
            assert!(mean.inverse.is_some());
            for sum in -128 * count as i32..=127 * count as i32 {
                assert_eq!(mean.of(sum), (2 * sum + count as i32).div_euclid(2 * count as i32), "{sum} / {count}");
            }
        }
        assert!(Mean::new(257, 1 << 7).inverse.is_none());
    }

    /// batch, h, w, c, kh, kw, stride_h, stride_w
    const MAXIMA: [[u32; 8]; 6] = [
        [1, 1, 1, 1, 1, 1, 1, 1],
        [2, 6, 4, 3, 2, 2, 2, 2],
        [1, 7, 7, 9, 3, 3, 2, 2],
        [1, 5, 6, 2, 3, 2, 1, 1],
        [1, 9, 9, 1, 2, 2, 4, 3],
        [1, 1, 12, 5, 1, 4, 1, 4],
    ];

    /// The first largest input of every output.
    fn winners(s: &MaxPool, x: &[f64]) -> Vec<usize> {
        let mut all = Vec::new();
        for b in 0..s.batch {
            for (oy, ox) in (0..s.oh()).flat_map(|oy| (0..s.ow()).map(move |ox| (oy, ox))) {
                for c in 0..s.c {
                    let at = |i: usize| {
                        let (y, x) = (oy * s.stride_h + i / s.kw, ox * s.stride_w + i % s.kw);
                        ((b * s.h + y) * s.w + x) * s.c + c
                    };
                    let best = (1..s.kh * s.kw).fold(at(0), |best, i| if x[at(i)] > x[best] { at(i) } else { best });
                    all.push(best);
                }
            }
        }
        all
    }

    #[test]
    fn maxima_match_the_reference() {
        for words in MAXIMA {
            let s = MaxPool::from_words(&words);
            let outputs = s.signature().output(0).len as usize;
            let reference = |x: &[f64]| winners(&s, x).into_iter().map(|i| x[i]).collect::<Vec<_>>();
            let inputs = [reals("x", s.signature().input(0).len as usize)];
            let x = inputs[0].f32();
            let mut y = vec![9.0; outputs];
            max(&s, &x, &mut y);
            assert_close("y", &y, &reference(&inputs[0].f64()), 0.0);
            check_gradients(
                &inputs,
                outputs,
                |t| reference(&t[0]),
                |dy| {
                    let mut dx = vec![9.0; x.len()];
                    max_grad(&MaxPoolGrad::from_words(&words), &x, dy, &mut dx);
                    vec![dx]
                },
            );
            let x = ints::<i8>("x", x.len());
            let mut y = vec![0i8; outputs];
            max_i8(&MaxPoolI8::from_words(&words), &Whole, &x, &mut y);
            let exact: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            assert_eq!(y, winners(&s, &exact).into_iter().map(|i| x[i]).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_of_equal_maxima_gets_the_gradient_and_nan_stays() {
        let s = MaxPool { batch: 1, h: 1, w: 4, c: 1, kh: 1, kw: 4, stride_h: 1, stride_w: 1 };
        let grad = MaxPoolGrad::from_words(&s.to_words());
        let mut dx = [9.0; 4];
        max_grad(&grad, &[1.0, 3.0, 3.0, 2.0], &[5.0], &mut dx);
        assert_eq!(dx, [0.0, 5.0, 0.0, 0.0]);
        for at in 0..4 {
            let mut x = [1.0, 3.0, 3.0, 2.0];
            x[at] = f32::NAN;
            let mut y = [0.0];
            max(&s, &x, &mut y);
            assert!(y[0].is_nan());
        }
    }

    #[test]
    fn absurd_shapes_are_refused() {
        for words in [[0, 1, 1, 1, 1, 1], [1, 4, 4, 1, 0, 1], [1, 1 << 16, 1, 1, 1 << 15, 1], [u32::MAX; 6]] {
            assert!(AvgPool::from_words(&words).signature().reason().is_some(), "{words:?}");
            assert!(AvgPoolGrad::from_words(&words).signature().reason().is_some(), "{words:?}");
            let [_, rest @ ..] = words;
            assert!(words[0] == 0 || AvgPoolI8::from_words(&rest).signature().reason().is_some(), "{words:?}");
            assert!(words[0] == 0 || AvgPoolI16::from_words(&rest).signature().reason().is_some(), "{words:?}");
        }
        assert!(AvgPoolI16 { h: 256, w: 257, c: 1, oh: 1, ow: 1 }.signature().reason().is_some());
        assert!(AvgPoolI16 { h: 256, w: 256, c: 1, oh: 1, ow: 1 }.signature().reason().is_none());
        for words in [[1, 4, 4, 1, 5, 1, 1, 1], [1, 4, 4, 0, 1, 1, 1, 1], [1, 4, 4, 1, 1, 1, 0, 1]] {
            assert!(MaxPool::from_words(&words).signature().reason().is_some(), "{words:?}");
            assert!(MaxPoolGrad::from_words(&words).signature().reason().is_some(), "{words:?}");
            assert!(MaxPoolI8::from_words(&words).signature().reason().is_some(), "{words:?}");
        }
    }
}
