//! Depthwise convolution of channels-last images: every channel with a filter of its own, or, on
//! SOFT's local path over V, one filter for all channels of a head.

use super::window::{Axis, Overlap};
use super::{Operand, Signature, f32s, i8s, i16s, i32s};
use crate::arch::vectorised;
use crate::math::fixed::{requantise, saturate_i8, saturate_i16};

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

    /// Number of filters.
    const fn filters(&self) -> usize {
        self.c / self.share
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
type Lanes<const V: usize, const G: usize> = [[f32; V]; G];

/// A computation that goes through all channels in blocks.
trait Pass {
    /// Computes the channels `channel .. channel + V * G`. Where a filter is shared, all channels of
    /// one vector share it.
    fn block<const V: usize, const G: usize>(&mut self, channel: usize);

    /// Computes all channels.
    #[inline(always)]
    fn all(&mut self, s: &Depthwise) {
        // The widest vector of the hosts, four times, so that the sums do not wait for each other.
        const V: usize = 8;
        const G: usize = 4;
        let mut channel = 0;
        if s.share == 1 || s.share.is_multiple_of(V) {
            while s.c - channel >= V * G {
                self.block::<V, G>(channel);
                channel += V * G;
            }
            while s.c - channel >= V {
                self.block::<V, 1>(channel);
                channel += V;
            }
        }
        while channel < s.c {
            self.block::<1, 1>(channel);
            channel += 1;
        }
    }
}

/// The lanes of `pixel` from `channel` on.
#[inline(always)]
fn load<const V: usize, const G: usize>(pixel: &[f32], channel: usize) -> Lanes<V, G> {
    let mut lanes = [[0.0; V]; G];
    lanes.as_flattened_mut().copy_from_slice(&pixel[channel..channel + V * G]);
    lanes
}

/// What each lane from `channel` on reads of one value per filter.
#[inline(always)]
fn spread<const V: usize, const G: usize>(filters: &[f32], channel: usize, share: usize) -> Lanes<V, G> {
    if share == 1 { load(filters, channel) } else { core::array::from_fn(|g| [filters[(channel + g * V) / share]; V]) }
}

/// Adds the lanes from `channel` on to the sums of their filters.
#[inline(always)]
fn fold<const V: usize, const G: usize>(lanes: Lanes<V, G>, channel: usize, share: usize, sums: &mut [f32]) {
    if share == 1 {
        for (sum, lane) in sums[channel..channel + V * G].iter_mut().zip(lanes.as_flattened()) {
            *sum += lane;
        }
    } else {
        for (g, lanes) in lanes.iter().enumerate() {
            sums[(channel + g * V) / share] += lanes.iter().sum::<f32>();
        }
    }
}

#[inline(always)]
fn multiply_add<const V: usize, const G: usize>(acc: &mut Lanes<V, G>, a: &Lanes<V, G>, b: &Lanes<V, G>) {
    let factors = a.as_flattened().iter().zip(b.as_flattened());
    for (acc, (a, b)) in acc.as_flattened_mut().iter_mut().zip(factors) {
        *acc += a * b;
    }
}

/// Adds to `acc` the sum of `w * source` over the taps and pixels of `source[.., width, c]` where
/// `rows` and `columns` meet.
#[inline(always)]
fn gather<const V: usize, const G: usize>(
    s: &Depthwise,
    source: &[f32],
    width: usize,
    rows: Overlap,
    columns: Overlap,
    w: &[f32],
    channel: usize,
    mut acc: Lanes<V, G>,
) -> Lanes<V, G> {
    let filters = s.filters();
    for t in 0..rows.len {
        let pixels = &source[((rows.at + t) * width + columns.at) * s.c..][..columns.len * s.c];
        let row = &w[rows.tap(t) * s.kw * filters..][..s.kw * filters];
        for (u, pixel) in pixels.chunks_exact(s.c).enumerate() {
            let x: Lanes<V, G> = load(pixel, channel);
            let w: Lanes<V, G> = spread(&row[columns.tap(u) * filters..][..filters], channel, s.share);
            multiply_add(&mut acc, &x, &w);
        }
    }
    acc
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
    fn block<const V: usize, const G: usize>(&mut self, channel: usize) {
        let Self { s, x, w, b, .. } = *self;
        let (oh, ow) = (s.oh(), s.ow());
        let bias: Lanes<V, G> = if b.is_empty() { [[0.0; V]; G] } else { spread(b, channel, s.share) };
        for (x, y) in x.chunks_exact(s.h * s.w * s.c).zip(self.y.chunks_exact_mut(oh * ow * s.c)) {
            for (oy, y) in y.chunks_exact_mut(ow * s.c).enumerate() {
                let rows = s.vertical().inputs(oy);
                for (ox, y) in y.chunks_exact_mut(s.c).enumerate() {
                    let columns = s.horizontal().inputs(ox);
                    let lanes = gather(s, x, s.w, rows, columns, w, channel, bias);
                    y[channel..channel + V * G].copy_from_slice(lanes.as_flattened());
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
    fn block<const V: usize, const G: usize>(&mut self, channel: usize) {
        let Self { s, w, dy, .. } = *self;
        let (oh, ow) = (s.oh(), s.ow());
        for (dx, dy) in self.dx.chunks_exact_mut(s.h * s.w * s.c).zip(dy.chunks_exact(oh * ow * s.c)) {
            for (iy, dx) in dx.chunks_exact_mut(s.w * s.c).enumerate() {
                let rows = s.vertical().windows_over(iy);
                for (ix, dx) in dx.chunks_exact_mut(s.c).enumerate() {
                    let columns = s.horizontal().windows_over(ix);
                    let lanes = gather(s, dy, ow, rows, columns, w, channel, [[0.0; V]; G]);
                    dx[channel..channel + V * G].copy_from_slice(lanes.as_flattened());
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
    fn block<const V: usize, const G: usize>(&mut self, channel: usize) {
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
                        let mut acc: Lanes<V, G> = [[0.0; V]; G];
                        for o in 0..len {
                            let x: Lanes<V, G> = load(&x[(at + o * s.stride_w) * s.c..], channel);
                            let g: Lanes<V, G> = load(&dy[(first + o) * s.c..], channel);
                            multiply_add(&mut acc, &x, &g);
                        }
                        fold(acc, channel, s.share, dw);
                    }
                }
                if !self.db.is_empty() {
                    let mut acc: Lanes<V, G> = [[0.0; V]; G];
                    for g in dy.chunks_exact(s.c) {
                        multiply_add(&mut acc, &load(g, channel), &[[1.0; V]; G]);
                    }
                    fold(acc, channel, s.share, self.db);
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

    /// Inputs `x, w, bias, multiplier, shift`; output `y`.
    pub const fn signature(&self) -> Signature {
        if self.lo < -128 || self.hi > 127 || self.lo > self.hi || self.zero < -128 || self.zero > 127 {
            return Signature::invalid("the output range of an int8 depthwise convolution leaves int8");
        }
        let s = self.geometry();
        integer_signature(&s, self.zero_in, i8s(&s.y_dims()))
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs()
    }
}

/// Integer forward to int8.
pub fn forward_i8(s: &DepthwiseI8, x: &[i8], w: &[i8], bias: &[i32], multiplier: &[i32], shift: &[i8], y: &mut [i8]) {
    integer(&s.geometry(), s.zero_in, x, w, bias, multiplier, shift, y, |q| {
        saturate_i8((q + s.zero).clamp(s.lo, s.hi))
    });
}

shape! {
    /// Integer [`Depthwise`] to int16 (symmetric), for the residual stream: `x i8, w i8,
    /// bias i32[c/share], multiplier i32[c/share], shift i8[c/share] -> y i16`.
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

    /// Inputs `x, w, bias, multiplier, shift`; output `y`.
    pub const fn signature(&self) -> Signature {
        let s = self.geometry();
        integer_signature(&s, self.zero_in, i16s(&s.y_dims()))
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs()
    }
}

/// Integer forward to int16.
pub fn forward_i16(
    s: &DepthwiseI16,
    x: &[i8],
    w: &[i8],
    bias: &[i32],
    multiplier: &[i32],
    shift: &[i8],
    y: &mut [i16],
) {
    integer(&s.geometry(), s.zero_in, x, w, bias, multiplier, shift, y, saturate_i16);
}

const fn integer_signature(s: &Depthwise, zero_in: i32, y: Operand) -> Signature {
    if let Some(why) = s.reason() {
        return Signature::invalid(why);
    }
    if zero_in < -128 || zero_in > 127 {
        return Signature::invalid("the zero point of an int8 input leaves int8");
    }
    let per_filter = [s.filters()];
    Signature::new(&[i8s(&s.x_dims()), i8s(&s.w_dims()), i32s(&per_filter), i32s(&per_filter), i8s(&per_filter)], &[y])
}

/// The pixels of an image, row by row.
#[inline(always)]
fn pixels(h: usize, w: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..h).flat_map(move |y| (0..w).map(move |x| (y, x)))
}

/// Channels whose integer sums a small core keeps in registers.
const SUMS: usize = 4;

#[inline(always)]
fn integer<T>(
    s: &Depthwise,
    zero_in: i32,
    x: &[i8],
    w: &[i8],
    bias: &[i32],
    multiplier: &[i32],
    shift: &[i8],
    y: &mut [T],
    finish: impl Fn(i32) -> T,
) {
    let (oh, ow, filters) = (s.oh(), s.ow(), s.filters());
    let padding = [zero_in as i8; SUMS];
    vectorised(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(s.h * s.w * s.c).zip(y.chunks_exact_mut(oh * ow * s.c)) {
                for ((oy, ox), y) in pixels(oh, ow).zip(y.chunks_exact_mut(s.c)) {
                    for (block, y) in y.chunks_mut(SUMS).enumerate() {
                        let channel = block * SUMS;
                        let filter: [usize; SUMS] = core::array::from_fn(|i| (channel + i.min(y.len() - 1)) / s.share);
                        let mut acc = filter.map(|f| bias[f]);
                        for ky in 0..s.kh {
                            let iy = (oy * s.stride_h + ky).checked_sub(s.pad_h).filter(|&i| i < s.h);
                            for kx in 0..s.kw {
                                let ix = (ox * s.stride_w + kx).checked_sub(s.pad_w).filter(|&i| i < s.w);
                                let x = match (iy, ix) {
                                    (Some(iy), Some(ix)) => &x[(iy * s.w + ix) * s.c + channel..],
                                    _ => &padding[..],
                                };
                                let w = &w[(ky * s.kw + kx) * filters..];
                                for ((acc, &x), &f) in acc.iter_mut().zip(x).zip(&filter) {
                                    *acc += i32::from(x) * i32::from(w[f]);
                                }
                            }
                        }
                        for ((y, acc), f) in y.iter_mut().zip(acc).zip(filter) {
                            *y = finish(requantise(acc, multiplier[f], shift[f] as u32));
                        }
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
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
                forward_i8(&s, &x, &w, &bias, &multiplier, &shift, &mut y);
                forward_i16(&s16, &x, &w, &bias, &multiplier, &shift, &mut y16);

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
