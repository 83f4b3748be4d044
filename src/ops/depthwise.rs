//! Depthwise convolution of channels-last images: every channel with a filter of its own, or, on
//! SOFT's local path over V, one filter for all channels of a head.

use super::window::{Axis, Overlap};
use super::{DType, Part, Signature, f32s, i8s, i32s, operand, size};
use crate::arch::{self, Channels, Output, Sliding, ToI8, ToI16, vectorised};
use crate::math::fixed::requantise;

shape! {
    /// `x[batch, h, w, c]`, `w[kh, kw, c/share]`, `b[c/share]`? -> `y[batch, oh, ow, c]`.
    ///
    /// A cross-correlation with zero padding; channel `i` uses filter `i / share`.
    pub struct Depthwise {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the kernel.
        pub kh: usize,
        /// Width of the kernel.
        pub kw: usize,
        /// Vertical stride.
        pub stride_h: usize,
        /// Horizontal stride.
        pub stride_w: usize,
        /// Rows of padding above and below; less than `kh`.
        pub pad_h: usize,
        /// Columns of padding left and right; less than `kw`.
        pub pad_w: usize,
        /// Neighbouring channels that use one filter, a divisor of `c`: the head width on SOFT's
        /// local path, 1 for an ordinary depthwise convolution.
        pub share: usize,
    }
}

impl Depthwise {
    const fn vertical(&self) -> Axis {
        Axis { size: self.h, kernel: self.kh, stride: self.stride_h, pad: self.pad_h }
    }

    const fn horizontal(&self) -> Axis {
        Axis { size: self.w, kernel: self.kw, stride: self.stride_w, pad: self.pad_w }
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
            Some("a depthwise convolution of no images or channels")
        } else if self.share == 0 || !self.c.is_multiple_of(self.share) {
            Some("channels that the channels of one filter do not divide")
        } else if self.vertical().reason().is_some() {
            self.vertical().reason()
        } else {
            self.horizontal().reason()
        }
    }

    /// Rows of pixels of all images.
    const fn rows(&self) -> usize {
        size(&[self.batch, self.oh()]) as usize
    }

    /// Number of filters.
    const fn filters(&self) -> usize {
        self.c / self.share
    }

    /// As a core is told it.
    const fn sliding(&self, zero_in: i32) -> Sliding {
        let Self { h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share, .. } = *self;
        let (first, ow, zero_in) = (0, self.ow(), zero_in as i8);
        Sliding { h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share, first, ow, zero_in }
    }

    const fn x_dims(&self) -> [usize; 4] {
        [self.batch, self.h, self.w, self.c]
    }

    const fn w_dims(&self) -> [usize; 3] {
        [self.kh, self.kw, self.filters()]
    }

    const fn y_dims(&self) -> [usize; 4] {
        [self.batch, self.oh(), self.ow(), self.c]
    }

    /// Inputs `x, w, b?`; output `y`.
    pub const fn signature(&self) -> Signature {
        if let Some(why) = self.reason() {
            return Signature::invalid(why);
        }
        Signature::new(
            &[f32s(&self.x_dims()), f32s(&self.w_dims()), f32s(&[self.filters()]).optional()],
            &[f32s(&self.y_dims())],
        )
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.batch, self.oh(), self.ow(), self.c, self.kh, self.kw])
    }
}

/// Neighbouring channels that are computed together, as `G` vectors of `V`.
type Lanes<T, const V: usize, const G: usize> = [[T; V]; G];

/// A block of `V * G` channels. Where filters are shared, all channels of one vector share one.
#[derive(Clone, Copy)]
struct Block<const V: usize, const G: usize> {
    /// The first channel.
    channel: usize,
    /// The filter of each vector; of the first channel where filters are not shared.
    filter: [usize; G],
    shared: bool,
}

impl<const V: usize, const G: usize> Block<V, G> {
    #[inline(always)]
    fn new(s: &Depthwise, channel: usize) -> Self {
        Self { channel, filter: core::array::from_fn(|g| (channel + g * V) / s.share), shared: s.share > 1 }
    }

    /// The block's channels of `pixel`.
    #[inline(always)]
    fn load<T: Copy + Default>(&self, pixel: &[T]) -> Lanes<T, V, G> {
        let mut lanes = [[T::default(); V]; G];
        lanes.as_flattened_mut().copy_from_slice(&pixel[self.channel..self.channel + V * G]);
        lanes
    }

    /// Writes the block's channels of `pixel`.
    #[inline(always)]
    fn store<T: Copy>(&self, lanes: Lanes<T, V, G>, pixel: &mut [T]) {
        pixel[self.channel..self.channel + V * G].copy_from_slice(lanes.as_flattened());
    }

    /// What each channel reads of one value per filter.
    #[inline(always)]
    fn spread<T: Copy + Default>(&self, filters: &[T]) -> Lanes<T, V, G> {
        if self.shared { self.filter.map(|f| [filters[f]; V]) } else { self.load(filters) }
    }

    /// Adds each channel to the sum of its filter.
    #[inline(always)]
    fn fold(&self, lanes: Lanes<f32, V, G>, sums: &mut [f32]) {
        if self.shared {
            for (lanes, f) in lanes.iter().zip(self.filter) {
                sums[f] += lanes.iter().sum::<f32>();
            }
        } else {
            let sums = &mut sums[self.channel..self.channel + V * G];
            for (sum, lane) in sums.iter_mut().zip(lanes.as_flattened()) {
                *sum += lane;
            }
        }
    }
}

/// A computation that goes through all channels in blocks.
trait Pass {
    /// Computes the channels of one block.
    fn block<const V: usize, const G: usize>(&mut self, block: Block<V, G>);

    /// Computes all channels.
    #[inline(always)]
    fn all(&mut self, s: &Depthwise) {
        let mut channel = 0;
        // A 64-bit core has vectors, and the registers for several sums that do not wait for each
        // other; a 32-bit core keeps four sums.
        if cfg!(target_pointer_width = "64") && (s.share == 1 || s.share.is_multiple_of(8)) {
            channel = self.blocks::<8, 4>(s, channel);
            channel = self.blocks::<8, 2>(s, channel);
            channel = self.blocks::<8, 1>(s, channel);
        }
        if s.share == 1 || s.share.is_multiple_of(4) {
            channel = self.blocks::<4, 1>(s, channel);
        }
        self.blocks::<1, 1>(s, channel);
    }

    /// Computes as many blocks as fit behind `channel`; the first channel that is left.
    #[inline(always)]
    fn blocks<const V: usize, const G: usize>(&mut self, s: &Depthwise, mut channel: usize) -> usize {
        while s.c - channel >= V * G {
            self.block(Block::<V, G>::new(s, channel));
            channel += V * G;
        }
        channel
    }
}

#[inline(always)]
fn multiply_add<const V: usize, const G: usize>(
    acc: &mut Lanes<f32, V, G>,
    a: &Lanes<f32, V, G>,
    b: &Lanes<f32, V, G>,
) {
    let factors = a.as_flattened().iter().zip(b.as_flattened());
    for (acc, (a, b)) in acc.as_flattened_mut().iter_mut().zip(factors) {
        *acc += a * b;
    }
}

/// Calls `f(pixel, filters)` for the pixels of `source[.., width, c]` and the taps of `w` where `rows`
/// and `columns` meet.
#[inline(always)]
fn meet<T>(
    s: &Depthwise,
    source: &[T],
    width: usize,
    rows: Overlap,
    columns: Overlap,
    w: &[T],
    mut f: impl FnMut(&[T], &[T]),
) {
    let filters = s.filters();
    for t in 0..rows.len {
        let pixels = &source[((rows.at + t) * width + columns.at) * s.c..][..columns.len * s.c];
        let w = &w[rows.tap(t) * s.kw * filters..][..s.kw * filters];
        for (u, pixel) in pixels.chunks_exact(s.c).enumerate() {
            f(pixel, &w[columns.tap(u) * filters..][..filters]);
        }
    }
}

/// `y = x * w + b`, each channel by itself.
pub fn forward(s: &Depthwise, x: &[f32], w: &[f32], b: &[f32], y: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || Forward { s, x, w, b, y }.all(s),
    );
}

struct Forward<'a> {
    s: &'a Depthwise,
    x: &'a [f32],
    w: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
}

impl Pass for Forward<'_> {
    #[inline(always)]
    fn block<const V: usize, const G: usize>(&mut self, block: Block<V, G>) {
        let Self { s, x, w, b, .. } = *self;
        let (oh, ow) = (s.oh(), s.ow());
        let bias = if b.is_empty() { [[0.0; V]; G] } else { block.spread(b) };
        for (x, y) in x.chunks_exact(s.h * s.w * s.c).zip(self.y.chunks_exact_mut(oh * ow * s.c)) {
            for (oy, y) in y.chunks_exact_mut(ow * s.c).enumerate() {
                let rows = s.vertical().inputs(oy);
                for (ox, y) in y.chunks_exact_mut(s.c).enumerate() {
                    let mut acc = bias;
                    meet(s, x, s.w, rows, s.horizontal().inputs(ox), w, |x, w| {
                        multiply_add(&mut acc, &block.load(x), &block.spread(w));
                    });
                    block.store(acc, y);
                }
            }
        }
    }
}

shape! {
    /// Backward of [`Depthwise`]: `x, w, dy -> dx?, dw, db?`.
    pub struct DepthwiseGrad {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the kernel.
        pub kh: usize,
        /// Width of the kernel.
        pub kw: usize,
        /// Vertical stride.
        pub stride_h: usize,
        /// Horizontal stride.
        pub stride_w: usize,
        /// Rows of padding above and below.
        pub pad_h: usize,
        /// Columns of padding left and right.
        pub pad_w: usize,
        /// Neighbouring channels that use one filter.
        pub share: usize,
    }
}

impl DepthwiseGrad {
    /// The convolution this is the backward of.
    pub const fn geometry(&self) -> Depthwise {
        Depthwise::from_words(&self.to_words())
    }

    /// Inputs `x, w, dy`; outputs `dx?, dw, db?`.
    pub const fn signature(&self) -> Signature {
        let s = self.geometry();
        if let Some(why) = s.reason() {
            return Signature::invalid(why);
        }
        let (x, w) = (f32s(&s.x_dims()), f32s(&s.w_dims()));
        Signature::new(&[x, w, f32s(&s.y_dims())], &[x.optional(), w, f32s(&[s.filters()]).optional()])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs().saturating_mul(2)
    }
}

/// `dx = dy * flipped w`, `dw = sum of x dy`, `db = sum of dy`; overwrites all three.
pub fn backward(s: &DepthwiseGrad, x: &[f32], w: &[f32], dy: &[f32], dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
    let s = &s.geometry();
    dw.fill(0.0);
    db.fill(0.0);
    vectorised(
        #[inline(always)]
        || {
            InputGrad { s, w, dy, dx }.all(s);
            FilterGrad { s, x, dy, dw, db }.all(s);
        },
    );
}

/// Overwrites `dx`, which may be absent.
struct InputGrad<'a> {
    s: &'a Depthwise,
    w: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Pass for InputGrad<'_> {
    #[inline(always)]
    fn block<const V: usize, const G: usize>(&mut self, block: Block<V, G>) {
        let Self { s, w, dy, .. } = *self;
        let (oh, ow) = (s.oh(), s.ow());
        for (dx, dy) in self.dx.chunks_exact_mut(s.h * s.w * s.c).zip(dy.chunks_exact(oh * ow * s.c)) {
            for (iy, dx) in dx.chunks_exact_mut(s.w * s.c).enumerate() {
                let rows = s.vertical().windows_over(iy);
                for (ix, dx) in dx.chunks_exact_mut(s.c).enumerate() {
                    let mut acc = [[0.0; V]; G];
                    meet(s, dy, ow, rows, s.horizontal().windows_over(ix), w, |dy, w| {
                        multiply_add(&mut acc, &block.load(dy), &block.spread(w));
                    });
                    block.store(acc, dx);
                }
            }
        }
    }
}

/// Adds to `dw` and to `db`, which may be absent. Every row is summed by itself first.
struct FilterGrad<'a> {
    s: &'a Depthwise,
    x: &'a [f32],
    dy: &'a [f32],
    dw: &'a mut [f32],
    db: &'a mut [f32],
}

impl Pass for FilterGrad<'_> {
    #[inline(always)]
    fn block<const V: usize, const G: usize>(&mut self, block: Block<V, G>) {
        let Self { s, x, dy, .. } = *self;
        let (oh, ow, filters) = (s.oh(), s.ow(), s.filters());
        for (x, dy) in x.chunks_exact(s.h * s.w * s.c).zip(dy.chunks_exact(oh * ow * s.c)) {
            for (oy, dy) in dy.chunks_exact(ow * s.c).enumerate() {
                let rows = s.vertical().inputs(oy);
                for t in 0..rows.len {
                    let x = &x[(rows.at + t) * s.w * s.c..][..s.w * s.c];
                    let dw = &mut self.dw[rows.tap(t) * s.kw * filters..][..s.kw * filters];
                    for (kx, dw) in dw.chunks_exact_mut(filters).enumerate() {
                        let (first, at, len) = s.horizontal().windows_of_tap(kx);
                        let mut acc = [[0.0; V]; G];
                        for o in 0..len {
                            let x = &x[(at + o * s.stride_w) * s.c..];
                            let g = &dy[(first + o) * s.c..];
                            multiply_add(&mut acc, &block.load(x), &block.load(g));
                        }
                        block.fold(acc, dw);
                    }
                }
                if !self.db.is_empty() {
                    let mut acc = [[0.0; V]; G];
                    for g in dy.chunks_exact(s.c) {
                        multiply_add(&mut acc, &block.load(g), &[[1.0; V]; G]);
                    }
                    block.fold(acc, self.db);
                }
            }
        }
    }
}

shape! {
    /// Integer [`Depthwise`] to int8: `x i8, w i8, bias i32[c/share], multiplier i32[c/share],
    /// shift i8[c/share] -> y i8`.
    ///
    /// `y = clamp(requantise(bias + sum x w) + zero, lo, hi)`, where `x` is `zero_in` in the padding.
    /// The zero point of `x` is folded into `bias` by the exporter. The checker proves that no
    /// accumulator overflows.
    pub struct DepthwiseI8 {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the kernel.
        pub kh: usize,
        /// Width of the kernel.
        pub kw: usize,
        /// Vertical stride.
        pub stride_h: usize,
        /// Horizontal stride.
        pub stride_w: usize,
        /// Rows of padding above and below.
        pub pad_h: usize,
        /// Columns of padding left and right.
        pub pad_w: usize,
        /// Neighbouring channels that use one filter.
        pub share: usize,
        /// Zero point of the input: what the padding reads.
        pub zero_in: i32,
        /// Zero point of the output.
        pub zero: i32,
        /// Smallest output; above -128 where a ReLU is folded in.
        pub lo: i32,
        /// Largest output.
        pub hi: i32,
    }
}

impl DepthwiseI8 {
    /// The same convolution in f32.
    pub const fn geometry(&self) -> Depthwise {
        Depthwise::from_words(&self.to_words())
    }

    /// Inputs `x, w, bias, multiplier, shift`; outputs `y`, scratch.
    pub const fn signature(&self) -> Signature {
        if self.lo < -128 || self.hi > 127 || self.lo > self.hi || self.zero < -128 || self.zero > 127 {
            return Signature::invalid("the output range of an int8 depthwise convolution leaves int8");
        }
        integer_signature(&self.geometry(), self.zero_in, DType::I8)
    }

    /// Rows that can be computed by themselves: the rows of the output's pixels.
    pub const fn rows(&self) -> usize {
        self.geometry().rows()
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs()
    }
}

/// Integer forward to int8 of some rows.
pub fn forward_i8(
    s: &DepthwiseI8,
    part: &impl Part,
    x: &[i8],
    w: &[i8],
    bias: &[i32],
    multiplier: &[i32],
    shift: &[i8],
    y: &mut [i8],
    scratch: &mut [i32],
) {
    let DepthwiseI8 { zero, lo, hi, .. } = *s;
    let filters = Channels { w, bias, multiplier, shift };
    integer(&s.geometry(), part, s.zero_in, x, filters, ToI8 { zero, lo, hi }, y, scratch);
}

shape! {
    /// Integer [`Depthwise`] to int16 (symmetric), for the residual stream: `x i8, w i8,
    /// bias i32[c/share], multiplier i32[c/share], shift i8[c/share] -> y i16`.
    ///
    /// `y = clamp(requantise(bias + sum x w), -32768, 32767)`, otherwise as [`DepthwiseI8`].
    pub struct DepthwiseI16 {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Channels.
        pub c: usize,
        /// Height of the kernel.
        pub kh: usize,
        /// Width of the kernel.
        pub kw: usize,
        /// Vertical stride.
        pub stride_h: usize,
        /// Horizontal stride.
        pub stride_w: usize,
        /// Rows of padding above and below.
        pub pad_h: usize,
        /// Columns of padding left and right.
        pub pad_w: usize,
        /// Neighbouring channels that use one filter.
        pub share: usize,
        /// Zero point of the input: what the padding reads.
        pub zero_in: i32,
    }
}

impl DepthwiseI16 {
    /// The same convolution in f32.
    pub const fn geometry(&self) -> Depthwise {
        Depthwise::from_words(&self.to_words())
    }

    /// Inputs `x, w, bias, multiplier, shift`; outputs `y`, scratch.
    pub const fn signature(&self) -> Signature {
        integer_signature(&self.geometry(), self.zero_in, DType::I16)
    }

    /// Rows that can be computed by themselves: the rows of the output's pixels.
    pub const fn rows(&self) -> usize {
        self.geometry().rows()
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs()
    }
}

/// Integer forward to int16 of some rows.
pub fn forward_i16(
    s: &DepthwiseI16,
    part: &impl Part,
    x: &[i8],
    w: &[i8],
    bias: &[i32],
    multiplier: &[i32],
    shift: &[i8],
    y: &mut [i16],
    scratch: &mut [i32],
) {
    let filters = Channels { w, bias, multiplier, shift };
    integer(&s.geometry(), part, s.zero_in, x, filters, ToI16, y, scratch);
}

const fn integer_signature(s: &Depthwise, zero_in: i32, y: DType) -> Signature {
    if let Some(why) = s.reason() {
        return Signature::invalid(why);
    }
    if zero_in < -128 || zero_in > 127 {
        return Signature::invalid("the zero point of an int8 input leaves int8");
    }
    let per_filter = [s.filters()];
    Signature::new(
        &[i8s(&s.x_dims()), i8s(&s.w_dims()), i32s(&per_filter), i32s(&per_filter), i8s(&per_filter)],
        &[operand(y, &s.y_dims()), i32s(&[s.sliding(zero_in).scratch()])],
    )
}

#[inline(always)]
fn integer<O: Output<T: Copy + Default>>(
    s: &Depthwise,
    part: &impl Part,
    zero_in: i32,
    x: &[i8],
    filters: Channels<'_>,
    output: O,
    y: &mut [O::T],
    scratch: &mut [i32],
) {
    let (oh, row) = (s.oh(), s.ow() * s.c);
    let images = x.chunks_exact(s.h * s.w * s.c).zip(y.chunks_exact_mut(oh * row));
    for (i, (x, y)) in images.enumerate() {
        let part = part.group(i, oh);
        let first = part.start();
        if part.is_empty() {
            continue;
        }
        arch::depthwise(
            &Sliding { first, ..s.sliding(zero_in) },
            x,
            filters,
            output,
            part.cut_mut(y, row),
            scratch,
            #[inline(always)]
            |output, y| Integer { s, first, zero_in, x, filters, y, output }.all(s),
        );
    }
}

/// The plain version.
struct Integer<'a, O: Output> {
    s: &'a Depthwise,
    /// The first row of `y`.
    first: usize,
    zero_in: i32,
    /// One image.
    x: &'a [i8],
    filters: Channels<'a>,
    y: &'a mut [O::T],
    output: O,
}

impl<O: Output<T: Copy + Default>> Pass for Integer<'_, O> {
    #[inline(always)]
    fn block<const V: usize, const G: usize>(&mut self, block: Block<V, G>) {
        let Self { s, first, zero_in, x, filters: Channels { w, bias, multiplier, shift }, output, .. } = *self;
        let (ow, filters) = (s.ow(), s.filters());
        let (bias, multiplier, shift) = (block.spread(bias), block.spread(multiplier), block.spread(shift));
        for (y, oy) in self.y.chunks_exact_mut(ow * s.c).zip(first..) {
            let rows = s.vertical().inputs(oy);
            for (ox, y) in y.chunks_exact_mut(s.c).enumerate() {
                let columns = s.horizontal().inputs(ox);
                let mut acc = bias;
                meet(s, x, s.w, rows, columns, w, |x, w| {
                    let (x, w) = (block.load(x), block.spread(w));
                    let factors = x.as_flattened().iter().zip(w.as_flattened());
                    for (acc, (&x, &w)) in acc.as_flattened_mut().iter_mut().zip(factors) {
                        *acc += i32::from(x) * i32::from(w);
                    }
                });
                if zero_in != 0 && rows.len * columns.len < s.kh * s.kw {
                    for (tap, w) in w.chunks_exact(filters).enumerate() {
                        if !(rows.has_tap(tap / s.kw) && columns.has_tap(tap % s.kw)) {
                            let w = block.spread(w);
                            for (acc, &w) in acc.as_flattened_mut().iter_mut().zip(w.as_flattened()) {
                                *acc += zero_in * i32::from(w);
                            }
                        }
                    }
                }
                let mut out = [[O::T::default(); V]; G];
                let scales = multiplier.as_flattened().iter().zip(shift.as_flattened());
                let sums = acc.as_flattened().iter().zip(scales);
                for (out, (&acc, (&multiplier, &shift))) in out.as_flattened_mut().iter_mut().zip(sums) {
                    *out = output.put(requantise(acc, multiplier, shift as u32));
                }
                block.store(out, y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Whole;
    use crate::ops::testing::{assert_close, check_gradients, ints, reals};
    use std::vec;
    use std::vec::Vec;

    /// Every (output, weight, input or padding) that meet, as flat indices, by the definition.
    fn taps(s: &Depthwise, mut f: impl FnMut(usize, usize, Option<usize>)) {
        let (oh, ow) = (s.oh(), s.ow());
        for b in 0..s.batch {
            for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                for c in 0..s.c {
                    for (ky, kx) in (0..s.kh).flat_map(|ky| (0..s.kw).map(move |kx| (ky, kx))) {
                        let iy = (oy * s.stride_h + ky).checked_sub(s.pad_h).filter(|&i| i < s.h);
                        let ix = (ox * s.stride_w + kx).checked_sub(s.pad_w).filter(|&i| i < s.w);
                        f(
                            ((b * oh + oy) * ow + ox) * s.c + c,
                            (ky * s.kw + kx) * (s.c / s.share) + c / s.share,
                            iy.zip(ix).map(|(iy, ix)| ((b * s.h + iy) * s.w + ix) * s.c + c),
                        );
                    }
                }
            }
        }
    }

    fn reference(s: &Depthwise, t: &[Vec<f64>]) -> Vec<f64> {
        let (x, w, b) = (&t[0], &t[1], &t[2]);
        let outputs = s.batch * s.oh() * s.ow() * s.c;
        let mut y: Vec<f64> = (0..outputs).map(|i| if b.is_empty() { 0.0 } else { b[i % s.c / s.share] }).collect();
        taps(s, |o, k, i| y[o] += i.map_or(0.0, |i| x[i] * w[k]));
        y
    }

    /// batch, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share
    const SHAPES: [[u32; 11]; 11] = [
        [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1],
        [2, 5, 4, 3, 3, 3, 1, 1, 1, 1, 1],
        [1, 6, 5, 8, 3, 3, 2, 2, 1, 1, 1],
        [1, 3, 4, 43, 3, 3, 1, 1, 1, 1, 1],
        [1, 4, 3, 40, 3, 3, 1, 1, 1, 1, 8],
        [2, 3, 3, 48, 3, 3, 1, 2, 1, 1, 16],
        [1, 4, 4, 64, 3, 3, 2, 1, 1, 1, 32],
        [1, 5, 5, 12, 5, 5, 1, 1, 2, 2, 4],
        [1, 4, 4, 6, 9, 9, 1, 1, 4, 4, 3],
        [2, 1, 9, 9, 1, 5, 1, 2, 0, 2, 9],
        [1, 7, 7, 5, 2, 3, 3, 4, 1, 0, 5],
    ];

    #[test]
    fn forward_and_backward_match_the_reference() {
        for words in SHAPES {
            let s = Depthwise::from_words(&words);
            let signature = s.signature();
            for bias in [true, false] {
                let lens = [signature.input(0).len, signature.input(1).len, if bias { s.filters() as u64 } else { 0 }];
                let names = ["x", "w", "b"];
                let inputs: [_; 3] = core::array::from_fn(|i| reals(names[i], lens[i] as usize));
                let [x, w, b] = inputs.each_ref().map(|v| v.f32());
                let outputs = signature.output(0).len as usize;
                let mut y = vec![9.0; outputs];
                forward(&s, &x, &w, &b, &mut y);
                assert_close("y", &y, &reference(&s, &inputs.each_ref().map(|v| v.f64())), 1e-6);

                check_gradients(
                    &inputs,
                    outputs,
                    |t| reference(&s, t),
                    |dy| {
                        let s = DepthwiseGrad::from_words(&words);
                        let (mut dx, mut dw, mut db) = (vec![9.0; x.len()], vec![9.0; w.len()], vec![9.0; b.len()]);
                        backward(&s, &x, &w, dy, &mut dx, &mut dw, &mut db);
                        let mut again = vec![9.0; w.len()];
                        backward(&s, &x, &w, dy, &mut [], &mut again, &mut []);
                        assert_eq!(dw, again, "dw depends on the other gradients");
                        vec![dx, dw, db]
                    },
                );
            }
        }
    }

    #[test]
    fn integer_forward_is_exact() {
        for words in SHAPES {
            for zero_in in [0, -128, 57] {
                let g = Depthwise::from_words(&words);
                let Depthwise { batch, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share } = g;
                let (zero, lo, hi) = (-7, -90, 100);
                let s = DepthwiseI8 {
                    batch,
                    h,
                    w,
                    c,
                    kh,
                    kw,
                    stride_h,
                    stride_w,
                    pad_h,
                    pad_w,
                    share,
                    zero_in,
                    zero,
                    lo,
                    hi,
                };
                let s16 = DepthwiseI16 { batch, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, share, zero_in };
                assert_eq!(s.geometry(), g);
                assert_eq!(s16.geometry(), g);
                let len = |i: usize| s.signature().input(i).len as usize;
                let (x, w) = (ints::<i8>("x", len(0)), ints::<i8>("w", len(1)));
                let bias: Vec<i32> = ints::<i16>("b", len(2)).iter().map(|&b| i32::from(b)).collect();
                let multiplier = vec![1_518_500_250; len(3)];
                let shift: Vec<i8> = (0..len(4)).map(|j| 37 + (j % 3) as i8).collect();
                let outputs = s.signature().output(0).len as usize;
                let (mut y, mut y16) = (vec![0i8; outputs], vec![0i16; outputs]);
                let mut scratch = vec![9; s.signature().output(1).len as usize];
                forward_i8(&s, &Whole, &x, &w, &bias, &multiplier, &shift, &mut y, &mut scratch);
                forward_i16(&s16, &Whole, &x, &w, &bias, &multiplier, &shift, &mut y16, &mut scratch);
                let (mut by_words, mut by_words16) = (vec![0i8; outputs], vec![0i16; outputs]);
                let filters = Channels { w: &w, bias: &bias, multiplier: &multiplier, shift: &shift };
                let sliding = g.sliding(zero_in);
                let image = outputs / batch;
                let images = by_words.chunks_mut(image).zip(by_words16.chunks_mut(image));
                for (x, (y, y16)) in x.chunks(h * g.w * c).zip(images) {
                    arch::depthwise_by_words(&sliding, x, filters, ToI8 { zero, lo, hi }, y, &mut scratch);
                    arch::depthwise_by_words(&sliding, x, filters, ToI16, y16, &mut scratch);
                }
                assert_eq!((&by_words, &by_words16), (&y, &y16), "{words:?} {zero_in}");

                let mut acc: Vec<i128> = (0..outputs).map(|i| i128::from(bias[i % c / share])).collect();
                taps(&g, |o, k, i| acc[o] += i.map_or(i128::from(zero_in), |i| i128::from(x[i])) * i128::from(w[k]));
                for (i, acc) in acc.into_iter().enumerate() {
                    let f = i % c / share;
                    let scaled = (acc * i128::from(multiplier[f]) + (1 << (shift[f] - 1))) >> shift[f];
                    assert_eq!(i128::from(y[i]), (scaled - 7).clamp(-90, 100), "{words:?} {zero_in} [{i}]");
                    assert_eq!(i128::from(y16[i]), scaled.clamp(-32768, 32767), "{words:?} {zero_in} [{i}]");
                }
            }
        }
    }

    #[test]
    fn absurd_shapes_are_refused() {
        let huge = u32::MAX;
        for words in [
            [0, 4, 4, 2, 2, 2, 1, 1, 0, 0, 1],
            [1, 4, 4, 2, 2, 2, 1, 1, 0, 0, 0],
            [1, 4, 4, 6, 2, 2, 1, 1, 0, 0, 4],
            [1, 4, 4, 2, 2, 2, 1, 0, 0, 0, 1],
            [1, 4, 4, 2, 2, 7, 1, 1, 0, 1, 1],
        ] {
            assert!(Depthwise::from_words(&words).signature().reason().is_some(), "{words:?}");
            assert!(DepthwiseGrad::from_words(&words).signature().reason().is_some(), "{words:?}");
            let integer: Vec<u32> = words.into_iter().chain([0, 0, 0, 0]).collect();
            assert!(DepthwiseI8::from_words(&integer).signature().reason().is_some(), "{words:?}");
            assert!(DepthwiseI16::from_words(&integer).signature().reason().is_some(), "{words:?}");
        }
        let s = Depthwise::from_words(&[huge, huge, huge, huge, huge, huge, 1, 1, huge - 1, huge - 1, 1]);
        assert_eq!(s.signature().input(0).len, u64::MAX);
        assert_eq!(s.macs(), u64::MAX);

        let words = [1, 4, 4, 1, 2, 2, 1, 1, 0, 0, 1, 0, 0, -129i32 as u32, 127];
        assert!(DepthwiseI8::from_words(&words).signature().reason().is_some());
        let words = [1, 4, 4, 1, 2, 2, 1, 1, 0, 0, 1, -129i32 as u32];
        assert!(DepthwiseI16::from_words(&words).signature().reason().is_some());
    }
}
