//! Inner loops that know the CPU. Called by `ops` only; the CPU `unsafe` lives here alone.
//!
//! Every function has a plain version that always exists; the choice is made at compile time by
//! target features, or once at run time on x86-64 hosts.

#[cfg_attr(not(any(test, cortex_m)), allow(dead_code))]
mod attention;
mod columns;
// Helium has loops of its own for most of it.
#[cfg(cortex_m = "dsp")]
#[cfg_attr(cortex_m = "helium", allow(dead_code))]
mod cortex_m_dsp;
// Other cores keep to plain loops, and only plan for the scratch of these.
#[cfg_attr(any(not(cortex_m), cortex_m = "helium"), allow(dead_code))]
mod depthwise;
mod generic;
#[cfg(cortex_m = "helium")]
mod helium;
#[cfg_attr(any(cortex_m = "helium", not(any(test, cortex_m, target_arch = "riscv32"))), allow(dead_code))]
mod products;
#[cfg_attr(not(any(test, cortex_m = "dsp", cortex_m = "v7")), allow(dead_code))]
mod softmax;
mod triangle;
#[cfg(any(cortex_m = "v7", cortex_m = "dsp"))]
#[cfg_attr(cortex_m = "helium", allow(dead_code))]
mod wide;
mod window;
#[cfg(any(test, cortex_m = "v6", cortex_m = "v7", target_arch = "riscv32"))]
mod words;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod x86_64;

#[cfg(not(any(cortex_m = "v7", cortex_m = "dsp")))]
use crate::math::fixed::mul_wide;
use crate::math::fixed::{Decay, Requantise};
pub(crate) use attention::{Kernel, Outputs, Plan, scaled};
pub(crate) use columns::{Magnitudes, NARROWED, column_bits, few, magnitudes, put, round_columns, scale_columns};
/// Weights that [`products`] takes: `i8`, `i16`, and `u8` for int4.
#[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
pub(crate) use cortex_m_dsp::Weight;
pub(crate) use depthwise::Sliding;
pub(crate) use generic::Matrix;
#[cfg(cortex_m = "helium")]
pub(crate) use helium::products::Weight;
#[cfg(not(any(cortex_m, target_arch = "riscv32")))]
pub(crate) use products::Stored as Weight;
pub(crate) use products::{Channels, Dense, Output, Rows, Shape, ToI8, ToI16, int4_row};
pub(crate) use softmax::Softmax;
pub(crate) use triangle::{Block, COLUMNS, column_sums, factor_row, row_sums, substitute};
pub(crate) use window::Window;
#[cfg(any(cortex_m = "v6", cortex_m = "v7", target_arch = "riscv32"))]
pub(crate) use words::Weight;
/// The path of cores that multiply one pair of values at a time.
#[cfg(test)]
pub(crate) use words::attention::{accumulate as kernel_accumulate_by_words, apply as kernel_apply_by_words};

/// `y_rj = output(requantise(bias_j + sum_k x_rk w_jk))` for int8 activations and weights of int4, int8 or int16.
///
/// `panel` has [`Shape::panel`] words; `buffer` room for a row where the rows need it. No sum overflows:
/// the checker proved it.
#[inline(always)]
pub(crate) fn products<W: Weight, O: Output>(
    s: Shape,
    rows: &mut dyn Rows,
    channels: Channels<'_, W>,
    output: O,
    y: &mut [O::T],
    buffer: &mut [i8],
    panel: &mut [i32],
) {
    #[cfg(cortex_m = "helium")]
    W::products(s, rows, channels, output, y, buffer, panel);
    #[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
    products::run::<cortex_m_dsp::Dsp, W, _>(s, rows, channels, output, y, buffer, panel);
    #[cfg(any(cortex_m = "v6", cortex_m = "v7", target_arch = "riscv32"))]
    products::run::<words::Words, W, _>(s, rows, channels, output, y, buffer, panel);
    #[cfg(not(any(cortex_m, target_arch = "riscv32")))]
    {
        let _ = panel;
        vectorised(
            #[inline(always)]
            || generic::products(s, rows, channels, output, y, buffer),
        );
    }
}

/// `y = output(requantise(bias + sum x w))`, each channel by itself, for int8 activations and weights, or
/// `plain(output, y)` on cores that have nothing better.
///
/// `scratch` has [`Sliding::scratch`] words. No sum overflows: the checker proved it.
#[inline(always)]
pub(crate) fn depthwise<O: Output>(
    s: &Sliding,
    x: &[i8],
    channels: Channels<'_>,
    output: O,
    y: &mut [O::T],
    scratch: &mut [i32],
    plain: impl FnOnce(O, &mut [O::T]),
) {
    #[cfg(cortex_m = "helium")]
    helium::depthwise::run(s, x, channels, output, y, scratch);
    #[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
    depthwise::run::<cortex_m_dsp::Dsp, _>(s, x, channels, output, y, scratch);
    #[cfg(any(cortex_m = "v6", cortex_m = "v7", target_arch = "riscv32"))]
    depthwise::run::<words::Words, _>(s, x, channels, output, y, scratch);
    #[cfg(not(any(cortex_m, target_arch = "riscv32")))]
    {
        let _ = (s, x, channels, scratch);
        vectorised(
            #[inline(always)]
            || plain(output, y),
        );
    }
    #[cfg(any(cortex_m, target_arch = "riscv32"))]
    let _ = plain;
}

/// As [`depthwise`], on the path of cores that multiply one pair of values at a time.
#[cfg(test)]
pub(crate) fn depthwise_by_words<O: Output>(
    s: &Sliding,
    x: &[i8],
    channels: Channels<'_>,
    output: O,
    y: &mut [O::T],
    scratch: &mut [i32],
) {
    depthwise::run::<words::Words, _>(s, x, channels, output, y, scratch);
}

/// The kernel of landmark `i` with each from 0 to itself, in Q15, as many as `a` has. Returns whether it did so.
#[inline(always)]
pub(crate) fn gram_row(k: &Kernel<'_>, decay: &Decay, i: usize, a: &mut [i32]) -> bool {
    #[cfg(cortex_m = "helium")]
    return helium::attention::gram_row(k, decay, i, a);
    #[cfg(not(cortex_m = "helium"))]
    {
        let _ = (k, decay, i, a);
        false
    }
}

/// The means of the first channels of a window of `x`, rounded to nearest, ties up, into `y`. Returns how many it did: all
/// that `y` has, a multiple of 4, or none.
#[inline(always)]
pub(crate) fn means(s: Window, x: &[i8], y: &mut [i8]) -> usize {
    #[cfg(cortex_m = "helium")]
    return helium::elements::means(s, x, y);
    #[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
    return cortex_m_dsp::window::means(s, x, y);
    #[cfg(not(cortex_m = "dsp"))]
    {
        let _ = (s, x, y);
        0
    }
}

/// `w[m, d] += K1^T v` for the kernel values of tokens with the landmarks, or `plain(w, scratch)` on cores that have
/// nothing better. With a shift the sum of each [`Plan::group`] of tokens, from the first, is shifted right by it, rounded,
/// and added; it is then from 2 to 30.
///
/// `scratch` has [`Plan::accumulate`] words.
#[inline(always)]
pub(crate) fn kernel_accumulate(
    k: &Kernel<'_>,
    q: &[i8],
    v: &[i8],
    w: &mut [i32],
    w_shift: u32,
    scratch: &mut [i32],
    plain: impl FnOnce(&mut [i32], &mut [i32]),
) {
    #[cfg(cortex_m = "helium")]
    helium::attention::accumulate(k, q, v, w, w_shift, scratch);
    #[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
    cortex_m_dsp::attention::accumulate(k, q, v, w, w_shift, scratch);
    #[cfg(any(cortex_m = "v6", cortex_m = "v7"))]
    words::attention::accumulate(k, q, v, w, w_shift, scratch);
    #[cfg(not(cortex_m))]
    {
        let _ = (k, q, v, w_shift);
        vectorised(
            #[inline(always)]
            || plain(w, scratch),
        );
    }
    #[cfg(cortex_m)]
    let _ = plain;
}

/// `y = outputs(K1 u)` for the kernel values of the tokens with the landmarks, into the head's channels of `y`,
/// or `plain(y, scratch)` on cores that have nothing better.
///
/// `scratch` has [`Plan::apply`] words.
#[inline(always)]
pub(crate) fn kernel_apply(
    k: &Kernel<'_>,
    q: &[i8],
    u: &[i16],
    outputs: Outputs<'_>,
    y: &mut [i8],
    scratch: &mut [i32],
    plain: impl FnOnce(&mut [i8], &mut [i32]),
) {
    #[cfg(cortex_m = "helium")]
    helium::attention::apply(k, q, u, outputs, y, scratch);
    #[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
    cortex_m_dsp::attention::apply(k, q, u, outputs, y, scratch);
    #[cfg(any(cortex_m = "v6", cortex_m = "v7"))]
    words::attention::apply(k, q, u, outputs, y, scratch);
    #[cfg(not(cortex_m))]
    {
        let _ = (k, q, u, outputs);
        vectorised(
            #[inline(always)]
            || plain(y, scratch),
        );
    }
    #[cfg(cortex_m)]
    let _ = plain;
}

/// `y = softmax(q k^T) v` for the head's channels of all, or `plain(y, scratch)` on cores that have nothing
/// better.
///
/// `scratch` has [`Softmax::scratch`] words.
#[inline(always)]
pub(crate) fn softmax(
    s: &Softmax,
    q: &[i8],
    k: &[i8],
    v: &[i8],
    y: &mut [i8],
    scratch: &mut [i32],
    plain: impl FnOnce(&mut [i8], &mut [i32]),
) {
    #[cfg(cortex_m = "helium")]
    helium::softmax::run(s, q, k, v, y, scratch);
    #[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
    softmax::run::<cortex_m_dsp::Dsp>(s, q, k, v, y, scratch);
    #[cfg(cortex_m = "v7")]
    softmax::run::<words::Words>(s, q, k, v, y, scratch);
    #[cfg(not(any(cortex_m = "dsp", cortex_m = "v7")))]
    {
        let _ = (s, q, k, v);
        vectorised(
            #[inline(always)]
            || plain(y, scratch),
        );
    }
    #[cfg(any(cortex_m = "dsp", cortex_m = "v7"))]
    let _ = plain;
}

/// As [`softmax`], on the path of cores that multiply one pair of values at a time.
#[cfg(test)]
pub(crate) fn softmax_by_words(s: &Softmax, q: &[i8], k: &[i8], v: &[i8], y: &mut [i8], scratch: &mut [i32]) {
    softmax::run::<words::Words>(s, q, k, v, y, scratch);
}

/// The sums of a LayerNorm's row and of its squares.
#[inline(always)]
pub(crate) fn moments(x: &[i16]) -> (i32, i64) {
    #[cfg(cortex_m = "helium")]
    return helium::layer_norm::moments(x);
    #[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
    return cortex_m_dsp::layer_norm::moments(x);
    #[cfg(not(cortex_m = "dsp"))]
    {
        let sum = x.iter().map(|&x| i32::from(x)).sum();
        (sum, x.iter().map(|&x| i64::from(i32::from(x) * i32::from(x))).sum())
    }
}

/// How a row is standardised, in the terms of [`LayerNormI8`](crate::ops::layer_norm::LayerNormI8): `D_i` is
/// shifted `up` and `down`, one of which is 0, and the result by `shift`, from 1 on.
#[derive(Clone, Copy)]
#[cfg_attr(not(cortex_m = "dsp"), allow(dead_code))]
pub(crate) struct Standardise {
    /// Whether no sum with a beta can leave 32 bits.
    pub(crate) is_tame: bool,
    pub(crate) sum: i32,
    pub(crate) up: u32,
    pub(crate) down: u32,
    pub(crate) mantissa: u32,
    pub(crate) shift: i32,
}

/// The values of a LayerNorm's row, or `plain(output, y)` on cores that have nothing better.
#[inline(always)]
pub(crate) fn standardise<O: Output>(
    s: Standardise,
    x: &[i16],
    gamma: &[i16],
    beta: &[i32],
    output: O,
    y: &mut [O::T],
    plain: impl FnOnce(O, &mut [O::T]),
) {
    #[cfg(cortex_m = "helium")]
    {
        let _ = plain;
        helium::layer_norm::standardise(s, x, gamma, beta, output, y);
    }
    #[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
    {
        let by_pairs =
            output.as_i8(y).is_some_and(|(y, to)| cortex_m_dsp::layer_norm::standardise(s, x, gamma, beta, to, y));
        if !by_pairs {
            plain(output, y);
        }
    }
    #[cfg(not(cortex_m = "dsp"))]
    {
        let _ = (s, x, gamma, beta);
        plain(output, y);
    }
}

/// Replaces every value by its entry of a table: `y = table[y + 128]`.
#[inline(always)]
pub(crate) fn table(table: &[i8; 256], y: &mut [i8]) {
    #[cfg(cortex_m = "helium")]
    helium::elements::table(table, y);
    #[cfg(not(cortex_m = "helium"))]
    for y in y {
        *y = entry(table, *y);
    }
}

/// As [`table`], for every `c`-th value from the first on.
#[inline(always)]
pub(crate) fn table_of_channel(table: &[i8; 256], y: &mut [i8], c: usize) {
    #[cfg(cortex_m = "helium")]
    helium::elements::table_of_channel(table, y, c);
    #[cfg(not(cortex_m = "helium"))]
    {
        let mut at = 0;
        while let Some(y) = y.get_mut(at) {
            *y = entry(table, *y);
            at += c;
        }
    }
}

/// `table[x + 128]`.
#[cfg(not(cortex_m = "helium"))]
#[inline(always)]
fn entry(table: &[i8; 256], x: i8) -> i8 {
    table[usize::from(x as u8 ^ 0x80)]
}

/// `y = output(requantise(x))`, as much as both have.
#[inline(always)]
pub(crate) fn rescale_i16_i8(scale: Requantise, x: &[i16], output: ToI8, y: &mut [i8]) {
    #[cfg(cortex_m = "helium")]
    helium::elements::rescale_i16_i8(scale, x, output, y);
    #[cfg(not(cortex_m = "helium"))]
    vectorised(
        #[inline(always)]
        || y.iter_mut().zip(x).for_each(|(y, &x)| *y = output.put(scale.apply(i32::from(x)))),
    );
}

/// `y = requantise(x - zero_in)`, saturated, as much as both have.
#[inline(always)]
pub(crate) fn rescale_i8_i16(scale: Requantise, zero_in: i32, x: &[i8], y: &mut [i16]) {
    #[cfg(cortex_m = "helium")]
    helium::elements::rescale_i8_i16(scale, zero_in, x, y);
    #[cfg(not(cortex_m = "helium"))]
    vectorised(
        #[inline(always)]
        || y.iter_mut().zip(x).for_each(|(y, &x)| *y = ToI16.put(scale.apply(i32::from(x) - zero_in))),
    );
}

/// `y = clamp(round_shift(y ma + b mb + offset, shift), lo, hi)`; nothing overflows 32 bits.
#[derive(Clone, Copy)]
#[cfg_attr(not(cortex_m = "helium"), allow(dead_code))]
pub(crate) struct Sum {
    pub(crate) ma: i32,
    pub(crate) mb: i32,
    pub(crate) offset: i32,
    pub(crate) shift: i32,
    pub(crate) lo: i32,
    pub(crate) hi: i32,
}

macro_rules! add {
    ($(#[$doc:meta])* $name:ident: $a:ty, $b:ty) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(s: Sum, b: &[$b], y: &mut [$a], plain: impl FnOnce(&[$b], &mut [$a])) {
            #[cfg(cortex_m = "helium")]
            {
                let _ = plain;
                helium::elements::$name(s, b, y);
            }
            #[cfg(not(cortex_m = "helium"))]
            {
                let _ = s;
                vectorised(
                    #[inline(always)]
                    || plain(b, y),
                );
            }
        }
    };
}

add! {
    /// A [`Sum`] of int16 and int8, or `plain(b, y)` on cores that have nothing better.
    add_i16_i8: i16, i8
}
add! {
    /// A [`Sum`] of int8, or `plain(b, y)` on cores that have nothing better.
    add_i8: i8, i8
}

/// Copies a slice to one of the same length: a run of a patch, which is short.
#[inline(always)]
pub(crate) fn copy(from: &[i8], to: &mut [i8]) {
    #[cfg(cortex_m = "helium")]
    helium::elements::copy(from, to);
    #[cfg(not(cortex_m = "helium"))]
    to.copy_from_slice(from);
}

/// `sum (a_i - b_i)^2` over slices of the same length, below 2^31.
#[inline(always)]
pub(crate) fn squared_distance(a: &[i8], b: &[i8]) -> i32 {
    #[cfg(cortex_m = "helium")]
    return helium::elements::squared_distance(a, b);
    #[cfg(all(cortex_m = "dsp", not(cortex_m = "helium")))]
    return cortex_m_dsp::attention::squared_distance(a, b);
    #[cfg(not(cortex_m = "dsp"))]
    a.iter().zip(b).map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
}

/// `sum a_i b_i` over the shorter of two slices, in 64 bits. Wraps: each caller says why it does not.
#[inline(always)]
pub(crate) fn dot_i64(a: &[i32], b: &[i32]) -> i64 {
    #[cfg(cortex_m = "helium")]
    return helium::elements::dot_i64(a, b);
    #[cfg(all(any(cortex_m = "v7", cortex_m = "dsp"), not(cortex_m = "helium")))]
    return wide::dot_i64(a, b);
    #[cfg(not(any(cortex_m = "v7", cortex_m = "dsp")))]
    a.iter().zip(b).fold(0, |sum: i64, (&a, &b)| sum.wrapping_add(mul_wide(a, b)))
}

/// `c = a . b` (`accumulate` false) or `c += a . b` (true) for `a[rows, k]`, `b[k, cols]`, `c[rows, cols]`.
///
/// One thread: parallelism is over shards of the batch. Uses the gemm crate with feature `train`.
pub(crate) fn matmul(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    #[cfg(feature = "train")]
    gemm(a, b, c, accumulate);
    #[cfg(not(feature = "train"))]
    generic::matmul(a, b, c, accumulate);
}

/// `c_ij = finish(i, j, sum_k a_ik b_kj)` with the sum and `finish` in f64, for small matrices whose
/// terms cancel.
pub(crate) fn matmul_f64(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], finish: impl Fn(usize, usize, f64) -> f64) {
    vectorised(
        #[inline(always)]
        || generic::matmul_f64(a, b, c, finish),
    );
}

#[cfg(feature = "train")]
#[allow(unsafe_code)]
fn gemm(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    let (rows, k, cols) = (a.rows, a.cols, b.cols);
    a.assert_inside();
    b.assert_inside();
    assert!(b.rows == k && c.len() == rows * cols);
    if c.is_empty() {
        return;
    }
    // The kernel wants its destination column-major: compute the transpose, c^T = b^T a^T.
    let (lhs, rhs) = (b.t(), a.t());
    // SAFETY: both matrices lie inside their slices (asserted above), `c` has rows * cols elements
    // and is exclusively borrowed, and the strides passed are those of the assertion.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            cols,
            rows,
            k,
            c.as_mut_ptr(),
            cols as isize,
            1,
            accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm_common::Parallelism::None,
        );
    }
}

/// As [`vectorised`], with 512-bit vectors where this CPU has them: for long loops over exponentials.
/// Loops in short blocks get slower by it.
#[inline(always)]
pub(crate) fn vectorised_wide<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    return x86_64::vectorised_wide(f);
    #[cfg(not(all(feature = "std", target_arch = "x86_64")))]
    f()
}

/// Runs `f` compiled for the widest vectors this CPU has. Pass an `#[inline(always)]` closure of
/// plain loops; the compiler vectorises them.
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    return x86_64::vectorised(f);
    #[cfg(not(all(feature = "std", target_arch = "x86_64")))]
    f()
}
