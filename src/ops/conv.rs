//! 2-D convolution of channels-last images: patch embedding, and SOFT's landmarks, where every head
//! is convolved with the same weights. A 1-D convolution has `h = 1` and `kh = 1`.

use super::window::Axis;
use super::{DType, Part, Signature, Width, f32s, i8s, i32s, operand, size};
use crate::arch::{Channels, Matrix, Output, Rows, Shape, ToI8, ToI16, Weight, copy, matmul, products, vectorised};

shape! {
    /// `x[batch, h, w, heads*c_in]`, `w[c_out, kh, kw, c_in]`, `b[c_out]`? ->
    /// `y[batch, oh, ow, heads*c_out]`, scratch.
    ///
    /// A cross-correlation with zero padding, as in every framework.
    pub struct Conv {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Input channels, of one head.
        pub c_in: usize,
        /// Output channels, of one head.
        pub c_out: usize,
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
        /// Groups of channels that are each convolved with the same weights; 1 for an ordinary
        /// convolution.
        pub heads: usize,
    }
}

impl Conv {
    /// Scratch is a strip of patches of about this many elements, so that it stays in a cache.
    const STRIP: usize = 16384;

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
        if self.batch == 0 || self.c_in == 0 || self.c_out == 0 || self.heads == 0 {
            Some("a convolution of no images, channels or heads")
        } else if self.vertical().reason().is_some() {
            self.vertical().reason()
        } else {
            self.horizontal().reason()
        }
    }

    /// Elements of one patch.
    const fn patch(&self) -> usize {
        self.kh.saturating_mul(self.kw).saturating_mul(self.c_in)
    }

    /// Elements of scratch: as many patches as [`Self::STRIP`] holds, at least one, and no more than
    /// there are.
    const fn scratch(&self) -> u64 {
        let patch = self.patch();
        let patches = size(&[self.batch, self.oh(), self.ow(), self.heads]);
        let strip = if patch > Self::STRIP { 1 } else { Self::STRIP / patch };
        if patches < strip as u64 { patches * patch as u64 } else { size(&[strip, patch]) }
    }

    /// The matrix product that the convolution is.
    const fn products(&self) -> Shape {
        let rows = size(&[self.batch, self.oh(), self.ow(), self.heads]) as usize;
        Shape { rows, k: self.patch(), n: self.c_out }
    }

    const fn dims(&self) -> Dims {
        let Self { batch, h, w, c_in, c_out, kh, kw, heads, .. } = *self;
        Dims {
            x: [batch, h, w, heads, c_in],
            w: [c_out, kh, kw, c_in],
            y: [batch, self.oh(), self.ow(), heads, c_out],
            scratch: self.scratch() as usize,
        }
    }

    /// Inputs `x, w, b?`; outputs `y`, scratch.
    pub const fn signature(&self) -> Signature {
        if let Some(why) = self.reason() {
            return Signature::invalid(why);
        }
        let d = self.dims();
        Signature::new(&[f32s(&d.x), f32s(&d.w), f32s(&[self.c_out]).optional()], &[f32s(&d.y), f32s(&[d.scratch])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        size(&[self.batch, self.oh(), self.ow(), self.heads, self.c_out]).saturating_mul(self.patch() as u64)
    }
}

struct Dims {
    x: [usize; 5],
    w: [usize; 4],
    y: [usize; 5],
    scratch: usize,
}

/// One patch: the window of one output pixel on the channels of one head.
#[derive(Clone, Copy)]
struct Patch {
    image: usize,
    oy: usize,
    ox: usize,
    head: usize,
}

impl Patch {
    /// Patch `i` in the order of the output.
    fn nth(s: &Conv, i: usize) -> Self {
        if i == 0 {
            return Self { image: 0, oy: 0, ox: 0, head: 0 };
        }
        let (pixel, head) = (i / s.heads, i % s.heads);
        let (row, ox) = (pixel / s.ow(), pixel % s.ow());
        Self { image: row / s.oh(), oy: row % s.oh(), ox, head }
    }

    /// The patch after this one.
    #[inline(always)]
    fn next(self, oh: usize, ow: usize, heads: usize) -> Self {
        if self.head + 1 < heads {
            Self { head: self.head + 1, ..self }
        } else if self.ox + 1 < ow {
            Self { ox: self.ox + 1, head: 0, ..self }
        } else if self.oy + 1 < oh {
            Self { oy: self.oy + 1, ox: 0, head: 0, ..self }
        } else {
            Self { image: self.image + 1, oy: 0, ox: 0, head: 0 }
        }
    }

    /// Whether no part of the patch lies in the padding.
    fn is_inside(self, s: &Conv) -> bool {
        let (rows, columns) = (s.vertical().inputs(self.oy), s.horizontal().inputs(self.ox));
        rows.len == s.kh && columns.len == s.kw
    }

    /// Calls `f(patch offset, x offset, length)` for every run of the patch that is contiguous in
    /// `x`; what lies in the padding is left out.
    #[inline(always)]
    fn runs(self, s: &Conv, mut f: impl FnMut(usize, usize, usize)) {
        let (rows, columns) = (s.vertical().inputs(self.oy), s.horizontal().inputs(self.ox));
        for t in 0..rows.len {
            let from = (rows.tap(t) * s.kw + columns.tap(0)) * s.c_in;
            let pixel = (self.image * s.h + rows.at + t) * s.w + columns.at;
            if s.heads == 1 {
                f(from, pixel * s.c_in, columns.len * s.c_in);
            } else {
                for u in 0..columns.len {
                    f(from + u * s.c_in, ((pixel + u) * s.heads + self.head) * s.c_in, s.c_in);
                }
            }
        }
    }
}

/// The patches from `first` on as the rows of `strip`.
fn gather(s: &Conv, first: usize, x: &[f32], strip: &mut [f32]) {
    let (oh, ow) = (s.oh(), s.ow());
    if s.pad_h > 0 || s.pad_w > 0 {
        strip.fill(0.0);
    }
    let mut at = Patch::nth(s, first);
    for patch in strip.chunks_exact_mut(s.patch()) {
        at.runs(s, |to, from, len| patch[to..to + len].copy_from_slice(&x[from..from + len]));
        at = at.next(oh, ow, s.heads);
    }
}

/// Adds the rows of `strip` to the inputs they were gathered from.
fn scatter_add(s: &Conv, first: usize, strip: &[f32], dx: &mut [f32]) {
    let (oh, ow) = (s.oh(), s.ow());
    vectorised(
        #[inline(always)]
        || {
            let mut at = Patch::nth(s, first);
            for patch in strip.chunks_exact(s.patch()) {
                at.runs(s, |from, to, len| {
                    for (dx, g) in dx[to..to + len].iter_mut().zip(&patch[from..from + len]) {
                        *dx += g;
                    }
                });
                at = at.next(oh, ow, s.heads);
            }
        },
    );
}

/// `y = x * w + b`, each head by itself.
pub fn forward(s: &Conv, x: &[f32], w: &[f32], b: &[f32], y: &mut [f32], scratch: &mut [f32]) {
    let patch = s.patch();
    let weights = Matrix::new(w, s.c_out, patch).t();
    let per_strip = scratch.len() / patch;
    for (i, y) in y.chunks_mut(per_strip * s.c_out).enumerate() {
        let patches = y.len() / s.c_out;
        let strip = &mut scratch[..patches * patch];
        gather(s, i * per_strip, x, strip);
        if !b.is_empty() {
            for y in y.chunks_exact_mut(s.c_out) {
                y.copy_from_slice(b);
            }
        }
        matmul(Matrix::new(strip, patches, patch), weights, y, !b.is_empty());
    }
}

shape! {
    /// Backward of [`Conv`]: `x, w, dy -> dx?, dw, db?, scratch`.
    pub struct ConvGrad {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Input channels, of one head.
        pub c_in: usize,
        /// Output channels, of one head.
        pub c_out: usize,
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
        /// Groups of channels that share the weights.
        pub heads: usize,
    }
}

impl ConvGrad {
    /// The convolution this is the backward of.
    pub const fn geometry(&self) -> Conv {
        Conv::from_words(&self.to_words())
    }

    /// Inputs `x, w, dy`; outputs `dx?, dw, db?`, scratch.
    pub const fn signature(&self) -> Signature {
        let s = self.geometry();
        if let Some(why) = s.reason() {
            return Signature::invalid(why);
        }
        let d = s.dims();
        Signature::new(
            &[f32s(&d.x), f32s(&d.w), f32s(&d.y)],
            &[f32s(&d.x).optional(), f32s(&d.w), f32s(&[s.c_out]).optional(), f32s(&[d.scratch])],
        )
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.geometry().macs().saturating_mul(2)
    }
}

/// `dx = dy * flipped w`, `dw = dy^T patches`, `db = sum of dy over pixels`; overwrites all three.
pub fn backward(
    s: &ConvGrad,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
    scratch: &mut [f32],
) {
    let s = &s.geometry();
    let patch = s.patch();
    let per_strip = scratch.len() / patch;
    dx.fill(0.0);
    db.fill(0.0);
    for (i, dy) in dy.chunks(per_strip * s.c_out).enumerate() {
        let first = i * per_strip;
        let patches = dy.len() / s.c_out;
        let strip = &mut scratch[..patches * patch];
        let dy_rows = Matrix::new(dy, patches, s.c_out);
        gather(s, first, x, strip);
        matmul(dy_rows.t(), Matrix::new(strip, patches, patch), dw, i > 0);
        if !dx.is_empty() {
            matmul(dy_rows, Matrix::new(w, s.c_out, patch), strip, false);
            scatter_add(s, first, strip, dx);
        }
        if !db.is_empty() {
            add_column_sums(dy, s.c_out, db);
        }
    }
}

/// Adds the sums of the columns of `rows[.., c]` to `sums`, each strip summed by itself first.
fn add_column_sums(rows: &[f32], c: usize, sums: &mut [f32]) {
    const LANES: usize = 16;
    vectorised(
        #[inline(always)]
        || {
            for (block, sums) in sums.chunks_mut(LANES).enumerate() {
                let mut acc = [0.0; LANES];
                for row in rows.chunks_exact(c) {
                    for (acc, v) in acc.iter_mut().zip(&row[block * LANES..]) {
                        *acc += v;
                    }
                }
                for (sum, acc) in sums.iter_mut().zip(acc) {
                    *sum += acc;
                }
            }
        },
    );
}

shapes! {
    /// Integer [`Conv`] to int8:
    /// `x i8, w i8, bias i32[c_out], multiplier i32[c_out], shift i8[c_out] -> y i8`.
    ///
    /// `y = clamp(requantise(bias + sum x w) + zero, lo, hi)`, where `x` is `zero_in` in the padding.
    /// The zero point of `x` is folded into `bias` by the exporter. The checker proves that no
    /// accumulator overflows.
    pub struct ConvI8;

    /// [`ConvI8`] with weights of [int4](super::Width::Int4): `w u8[c_out, 4 ceil(k / 8)]` for the `k = kh kw c_in`
    /// of an output channel.
    pub struct ConvI8W4;

    /// [`ConvI8`] with weights of [int16](super::Width::Int16): `w i16`.
    pub struct ConvI8W16;

    fields {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Input channels, of one head.
        pub c_in: usize,
        /// Output channels, of one head.
        pub c_out: usize,
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
        /// Groups of channels that share the weights.
        pub heads: usize,
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

macro_rules! to_i8 {
    ($($Name:ident, $Width:ident, $forward:ident($W:ty);)*) => {$(
        impl $Name {
            /// Inputs `x, w, bias, multiplier, shift`; outputs `y`, a patch, scratch.
            pub const fn signature(&self) -> Signature {
                if self.lo < -128 || self.hi > 127 || self.lo > self.hi || self.zero < -128 || self.zero > 127 {
                    return Signature::invalid("the output range of an int8 convolution leaves int8");
                }
                integer_signature(&self.geometry(), self.zero_in, Width::$Width, DType::I8)
            }
        }

        #[doc = concat!("Integer forward of some rows of [`", stringify!($Name), "`].")]
        pub fn $forward(
            s: &$Name,
            part: &impl Part,
            x: &[i8],
            w: &[$W],
            bias: &[i32],
            multiplier: &[i32],
            shift: &[i8],
            y: &mut [i8],
            patch: &mut [i8],
            scratch: &mut [i32],
        ) {
            let $Name { zero, lo, hi, .. } = *s;
            let weights = Channels { w, bias, multiplier, shift };
            integer(&s.geometry(), part, s.zero_in, x, weights, ToI8 { zero, lo, hi }, y, patch, scratch);
        }
    )*};
}

to_i8! {
    ConvI8, Int8, forward_i8(i8);
    ConvI8W4, Int4, forward_i8_w4(u8);
    ConvI8W16, Int16, forward_i8_w16(i16);
}

shapes! {
    /// Integer [`Conv`] to int16 (symmetric), for the residual stream:
    /// `x i8, w i8, bias i32[c_out], multiplier i32[c_out], shift i8[c_out] -> y i16`.
    ///
    /// `y = clamp(requantise(bias + sum x w), -32768, 32767)`, otherwise as [`ConvI8`].
    pub struct ConvI16;

    /// [`ConvI16`] with weights of [int4](super::Width::Int4), as those of [`ConvI8W4`].
    pub struct ConvI16W4;

    /// [`ConvI16`] with weights of [int16](super::Width::Int16): `w i16`.
    pub struct ConvI16W16;

    fields {
        /// Images.
        pub batch: usize,
        /// Height of the input.
        pub h: usize,
        /// Width of the input.
        pub w: usize,
        /// Input channels, of one head.
        pub c_in: usize,
        /// Output channels, of one head.
        pub c_out: usize,
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
        /// Groups of channels that share the weights.
        pub heads: usize,
        /// Zero point of the input: what the padding reads.
        pub zero_in: i32,
    }
}

macro_rules! to_i16 {
    ($($Name:ident, $Width:ident, $forward:ident($W:ty);)*) => {$(
        impl $Name {
            /// Inputs `x, w, bias, multiplier, shift`; outputs `y`, a patch, scratch.
            pub const fn signature(&self) -> Signature {
                integer_signature(&self.geometry(), self.zero_in, Width::$Width, DType::I16)
            }
        }

        #[doc = concat!("Integer forward of some rows of [`", stringify!($Name), "`].")]
        pub fn $forward(
            s: &$Name,
            part: &impl Part,
            x: &[i8],
            w: &[$W],
            bias: &[i32],
            multiplier: &[i32],
            shift: &[i8],
            y: &mut [i16],
            patch: &mut [i8],
            scratch: &mut [i32],
        ) {
            let weights = Channels { w, bias, multiplier, shift };
            integer(&s.geometry(), part, s.zero_in, x, weights, ToI16, y, patch, scratch);
        }
    )*};
}

to_i16! {
    ConvI16, Int8, forward_i16(i8);
    ConvI16W4, Int4, forward_i16_w4(u8);
    ConvI16W16, Int16, forward_i16_w16(i16);
}

macro_rules! convolutions {
    ($($Name:ident)*) => {$(
        impl $Name {
            /// The same convolution in f32.
            pub const fn geometry(&self) -> Conv {
                Conv::from_words(&self.to_words())
            }

            /// Rows that can be computed by themselves: the pixels of the output, each head by itself.
            pub const fn rows(&self) -> usize {
                self.geometry().products().rows
            }

            /// Multiply-accumulates.
            pub const fn macs(&self) -> u64 {
                self.geometry().macs()
            }
        }
    )*};
}

convolutions! { ConvI8 ConvI8W4 ConvI8W16 ConvI16 ConvI16W4 ConvI16W16 }

const fn integer_signature(s: &Conv, zero_in: i32, w: Width, y: DType) -> Signature {
    if let Some(why) = s.reason() {
        return Signature::invalid(why);
    }
    if zero_in < -128 || zero_in > 127 {
        return Signature::invalid("the zero point of an int8 input leaves int8");
    }
    let d = s.dims();
    let per_channel = [s.c_out];
    Signature::new(
        &[i8s(&d.x), w.operand(s.c_out, s.patch()), i32s(&per_channel), i32s(&per_channel), i8s(&per_channel)],
        &[operand(y, &d.y), i8s(&[s.patch()]), i32s(&[s.products().panel()])],
    )
}

#[inline(always)]
fn integer<W: Weight, O: Output>(
    s: &Conv,
    part: &impl Part,
    zero_in: i32,
    x: &[i8],
    weights: Channels<'_, W>,
    output: O,
    y: &mut [O::T],
    patch: &mut [i8],
    scratch: &mut [i32],
) {
    let at = Patch::nth(s, part.start());
    let mut patches = Patches { s, x, zero: zero_in as i8, at, oh: s.oh(), ow: s.ow() };
    products(s.products(), &mut patches, weights, output, part.cut_mut(y, s.c_out), patch, scratch);
}

/// The patches of an image, in the order of the output.
struct Patches<'a> {
    s: &'a Conv,
    x: &'a [i8],
    /// What the padding reads.
    zero: i8,
    at: Patch,
    oh: usize,
    ow: usize,
}

impl Rows for Patches<'_> {
    /// Once in a firmware, not for every row of a tile.
    #[inline(never)]
    fn next<'a>(&'a mut self, patch: &'a mut [i8]) -> &'a [i8] {
        if !self.at.is_inside(self.s) {
            patch.fill(self.zero);
        }
        self.at.runs(self.s, |to, from, len| {
            let from = self.x.get(from..from + len);
            if let (Some(to), Some(from)) = (patch.get_mut(to..to + len), from) {
                copy(from, to);
            }
        });
        self.at = self.at.next(self.oh, self.ow, self.s.heads);
        patch
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
    fn taps(s: &Conv, mut f: impl FnMut(usize, usize, Option<usize>)) {
        let (oh, ow) = (s.oh(), s.ow());
        for b in 0..s.batch {
            for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                for (head, co) in (0..s.heads).flat_map(|head| (0..s.c_out).map(move |co| (head, co))) {
                    let y = (((b * oh + oy) * ow + ox) * s.heads + head) * s.c_out + co;
                    for ky in 0..s.kh {
                        for kx in 0..s.kw {
                            for ci in 0..s.c_in {
                                let w = ((co * s.kh + ky) * s.kw + kx) * s.c_in + ci;
                                let iy = (oy * s.stride_h + ky).checked_sub(s.pad_h).filter(|&i| i < s.h);
                                let ix = (ox * s.stride_w + kx).checked_sub(s.pad_w).filter(|&i| i < s.w);
                                let x = iy
                                    .zip(ix)
                                    .map(|(iy, ix)| (((b * s.h + iy) * s.w + ix) * s.heads + head) * s.c_in + ci);
                                f(y, w, x);
                            }
                        }
                    }
                }
            }
        }
    }

    fn reference(s: &Conv, t: &[Vec<f64>]) -> Vec<f64> {
        let (x, w, b) = (&t[0], &t[1], &t[2]);
        let outputs = s.signature().output(0).len as usize;
        let mut y: Vec<f64> = (0..outputs).map(|i| if b.is_empty() { 0.0 } else { b[i % s.c_out] }).collect();
        taps(s, |o, k, i| y[o] += i.map_or(0.0, |i| x[i] * w[k]));
        y
    }

    /// batch, h, w, c_in, c_out, kh, kw, stride_h, stride_w, pad_h, pad_w, heads
    const SHAPES: [[u32; 12]; 10] = [
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1],
        [2, 5, 4, 3, 2, 3, 3, 1, 1, 1, 1, 1],
        [1, 7, 6, 1, 5, 3, 3, 2, 2, 1, 1, 1],
        [2, 4, 4, 3, 3, 2, 2, 2, 2, 0, 0, 2],
        [1, 5, 5, 2, 3, 3, 3, 2, 2, 1, 1, 3],
        [1, 1, 9, 2, 4, 1, 5, 1, 2, 0, 2, 1],
        [1, 3, 3, 2, 2, 5, 7, 1, 1, 4, 3, 1],
        [1, 8, 3, 1, 17, 2, 1, 3, 4, 1, 0, 2],
        [3, 6, 6, 4, 2, 4, 4, 4, 4, 1, 1, 1],
        [2, 5, 6, 9, 3, 3, 3, 1, 2, 1, 1, 2],
    ];

    #[test]
    fn forward_and_backward_match_the_reference() {
        for words in SHAPES {
            let s = Conv::from_words(&words);
            let signature = s.signature();
            for bias in [true, false] {
                let lens = [signature.input(0).len, signature.input(1).len, if bias { s.c_out as u64 } else { 0 }];
                let names = ["x", "w", "b"];
                let inputs: [_; 3] = core::array::from_fn(|i| reals(names[i], lens[i] as usize));
                let [x, w, b] = inputs.each_ref().map(|v| v.f32());
                let outputs = signature.output(0).len as usize;
                let mut scratch = vec![9.0; signature.output(1).len as usize];
                let mut y = vec![9.0; outputs];
                forward(&s, &x, &w, &b, &mut y, &mut scratch);
                assert_close("y", &y, &reference(&s, &inputs.each_ref().map(|v| v.f64())), 1e-6);

                check_gradients(
                    &inputs,
                    outputs,
                    |t| reference(&s, t),
                    |dy| {
                        let s = ConvGrad::from_words(&words);
                        let mut scratch = vec![9.0; s.signature().output(3).len as usize];
                        let (mut dx, mut dw, mut db) = (vec![9.0; x.len()], vec![9.0; w.len()], vec![9.0; b.len()]);
                        backward(&s, &x, &w, dy, &mut dx, &mut dw, &mut db, &mut scratch);
                        let mut again = vec![9.0; w.len()];
                        backward(&s, &x, &w, dy, &mut [], &mut again, &mut [], &mut scratch);
                        assert_eq!(dw, again, "dw depends on the other gradients");
                        vec![dx, dw, db]
                    },
                );
            }
        }
    }

    #[test]
    fn strips_do_not_show() {
        let s = ConvGrad::from_words(&[2, 5, 4, 3, 2, 3, 3, 1, 1, 1, 1, 2]);
        let f = s.geometry();
        let len = |i: usize| s.signature().input(i).len as usize;
        let (x, w, dy) = (reals("x", len(0)).f32(), reals("w", len(1)).f32(), reals("dy", len(2)).f32());
        let run = |patches: usize| {
            let mut scratch = vec![9.0; patches * f.patch()];
            let (mut y, mut dx) = (vec![9.0; len(2)], vec![9.0; len(0)]);
            let (mut dw, mut db) = (vec![9.0; len(1)], vec![9.0; 2]);
            forward(&f, &x, &w, &[], &mut y, &mut scratch);
            backward(&s, &x, &w, &dy, &mut dx, &mut dw, &mut db, &mut scratch);
            [y, dx, dw, db]
        };
        let whole = run(2 * 5 * 4 * 2);
        for patches in [1, 3, 7, 79] {
            for (a, b) in run(patches).iter().zip(&whole) {
                assert_close("strip", a, &b.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), 1e-6);
            }
        }
    }

    #[test]
    fn scratch_is_bounded_and_large_enough() {
        let image = Conv::from_words(&[64, 224, 224, 3, 32, 3, 3, 2, 2, 1, 1, 1]);
        assert_eq!(image.scratch(), 16384 / 27 * 27);
        let wide = Conv::from_words(&[1, 8, 8, 3000, 4, 3, 3, 1, 1, 1, 1, 1]);
        assert_eq!(wide.scratch(), 27000, "one patch at least");
        let small = Conv::from_words(&[1, 4, 4, 2, 3, 2, 2, 2, 2, 0, 0, 1]);
        assert_eq!(small.scratch(), 4 * 8, "no more patches than there are");
    }

    #[test]
    fn integer_forward_is_exact() {
        for words in SHAPES {
            for zero_in in [0, -128, 57] {
                let g = Conv::from_words(&words);
                let [batch, h, w, c_in, c_out, kh, kw, stride_h, stride_w, pad_h, pad_w, heads] =
                    words.map(|w| w as usize);
                let (zero, lo, hi) = (3, -100, 90);
                let s = ConvI8 {
                    batch,
                    h,
                    w,
                    c_in,
                    c_out,
                    kh,
                    kw,
                    stride_h,
                    stride_w,
                    pad_h,
                    pad_w,
                    heads,
                    zero_in,
                    zero,
                    lo,
                    hi,
                };
                let s16 =
                    ConvI16 { batch, h, w, c_in, c_out, kh, kw, stride_h, stride_w, pad_h, pad_w, heads, zero_in };
                assert_eq!(s.geometry(), g);
                assert_eq!(s16.geometry(), g);
                let len = |i: usize| s.signature().input(i).len as usize;
                let (x, w) = (ints::<i8>("x", len(0)), ints::<i8>("w", len(1)));
                let bias: Vec<i32> = ints::<i16>("b", c_out).iter().map(|&b| i32::from(b)).collect();
                let multiplier = vec![1_518_500_250; c_out];
                let shift: Vec<i8> = (0..c_out).map(|j| 37 + (j % 3) as i8).collect();
                let outputs = s.signature().output(0).len as usize;
                let (mut y, mut y16) = (vec![0i8; outputs], vec![0i16; outputs]);
                let (mut patch, mut scratch) =
                    (vec![9; s.signature().output(1).len as usize], vec![9; s.signature().output(2).len as usize]);
                forward_i8(&s, &Whole, &x, &w, &bias, &multiplier, &shift, &mut y, &mut patch, &mut scratch);
                forward_i16(&s16, &Whole, &x, &w, &bias, &multiplier, &shift, &mut y16, &mut patch, &mut scratch);

                let mut acc: Vec<i128> = (0..outputs).map(|i| i128::from(bias[i % c_out])).collect();
                taps(&g, |o, k, i| acc[o] += i.map_or(i128::from(zero_in), |i| i128::from(x[i])) * i128::from(w[k]));
                for (i, acc) in acc.into_iter().enumerate() {
                    let co = i % c_out;
                    let scaled = (acc * i128::from(multiplier[co]) + (1 << (shift[co] - 1))) >> shift[co];
                    assert_eq!(i128::from(y[i]), (scaled + 3).clamp(-100, 90), "{words:?} {zero_in} [{i}]");
                    assert_eq!(i128::from(y16[i]), scaled.clamp(-32768, 32767), "{words:?} {zero_in} [{i}]");
                }
            }
        }
    }

    #[test]
    fn absurd_shapes_are_refused() {
        let huge = u32::MAX;
        for words in [
            [0, 4, 4, 1, 1, 2, 2, 1, 1, 0, 0, 1],
            [1, 0, 4, 1, 1, 2, 2, 1, 1, 0, 0, 1],
            [1, 4, 4, 1, 1, 2, 2, 0, 1, 0, 0, 1],
            [1, 4, 4, 1, 1, 2, 2, 1, 1, 2, 0, 1],
            [1, 4, 4, 1, 1, 2, 5, 1, 1, 0, 0, 1],
            [1, 4, 4, 1, 1, 2, 2, 1, 1, 0, 0, 0],
        ] {
            assert!(Conv::from_words(&words).signature().reason().is_some(), "{words:?}");
            assert!(ConvGrad::from_words(&words).signature().reason().is_some(), "{words:?}");
            let integer: Vec<u32> = words.into_iter().chain([0, 0, 0, 0]).collect();
            assert!(ConvI8::from_words(&integer).signature().reason().is_some(), "{words:?}");
            assert!(ConvI16::from_words(&integer).signature().reason().is_some(), "{words:?}");
        }
        // No overflow on the way: an absurd shape matches no tensor.
        let s = Conv::from_words(&[huge, huge, huge, huge, huge, huge, huge, huge, huge, huge - 1, huge - 1, huge]);
        assert_eq!(s.signature().input(0).len, u64::MAX);
        assert_eq!(s.macs(), u64::MAX);

        let words = [1, 4, 4, 1, 1, 2, 2, 1, 1, 0, 0, 1, 128, 0, -128i32 as u32, 127];
        assert!(ConvI8::from_words(&words).signature().reason().is_some());
        assert!(ConvI16::from_words(&words).signature().reason().is_some());
    }
}
