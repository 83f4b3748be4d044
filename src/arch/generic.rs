//! The plain versions.

use super::products::{Channels, Output, Rows, Shape, Stored};

/// A view of a row-major or transposed matrix: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A contiguous row-major matrix.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Rows `stride` elements apart, as the channels of one head among others are.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// Panics unless every element lies inside `data`.
    #[cfg(feature = "train")]
    pub(crate) fn assert_inside(&self) {
        if self.rows > 0 && self.cols > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride;
            assert!(last < self.data.len(), "matrix outside its slice");
        }
    }
}

/// `c = a . b` or `c += a . b`; see [`super::matmul`].
#[cfg_attr(feature = "train", allow(dead_code))]
pub(crate) fn matmul(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    if b.cols == 0 {
        return;
    }
    for (i, row) in c.chunks_exact_mut(b.cols).enumerate() {
        if !accumulate {
            row.fill(0.0);
        }
        for p in 0..a.cols {
            let x = a.data[i * a.row_stride + p * a.col_stride];
            let start = p * b.row_stride;
            for (j, y) in row.iter_mut().enumerate() {
                *y += x * b.data[start + j * b.col_stride];
            }
        }
    }
}

/// See [`super::matmul_f64`]; both matrices row-major.
#[inline(always)]
pub(crate) fn matmul_f64(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], finish: impl Fn(usize, usize, f64) -> f64) {
    const LANES: usize = 16;
    let a_rows = a.data.chunks(a.row_stride).map(|row| &row[..a.cols]);
    for (i, (a, c)) in a_rows.zip(c.chunks_exact_mut(b.cols)).enumerate() {
        for (block, c) in c.chunks_mut(LANES).enumerate() {
            let mut sums = [0f64; LANES];
            for (a, b) in a.iter().zip(b.data.chunks(b.row_stride)) {
                let b = &b[block * LANES..][..c.len()];
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum += f64::from(*a) * f64::from(*b);
                }
            }
            for (lane, (c, sum)) in c.iter_mut().zip(sums).enumerate() {
                *c = finish(i, block * LANES + lane, sum) as f32;
            }
        }
    }
}

/// See [`super::products`].
#[cfg_attr(any(cortex_m, target_arch = "riscv32"), allow(dead_code))]
#[inline(always)]
pub(super) fn products<W: Stored, O: Output>(
    s: Shape,
    rows: &mut dyn Rows,
    channels: Channels<'_, W>,
    output: O,
    y: &mut [O::T],
    buffer: &mut [i8],
) {
    for y in y.chunks_exact_mut(s.n) {
        let x = rows.next(buffer);
        for (y, channel) in y.iter_mut().zip(channels.iter(s.k)) {
            *y = output.put(channel.scale.apply(channel.bias + W::dot(x, channel.w)));
        }
    }
}
