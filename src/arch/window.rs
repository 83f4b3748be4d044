//! Means of windows of images: what the cores that have loops for them share.

/// A window of an image from value `first` on: `rows` of `columns` pixels of `c` channels, of which the rows lie
/// `stride` values apart.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) first: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) c: usize,
    pub(crate) stride: usize,
}

/// What a loop is told.
#[cfg(any(cortex_m = "helium", cortex_m = "dsp"))]
#[repr(C)]
pub(super) struct Means {
    c: usize,
    columns: usize,
    /// Bytes from the end of a row to the next.
    step: usize,
    /// Channels.
    pub(super) left: usize,
    y: *mut i8,
    x: *const i8,
    /// What makes every sum positive, and half of the number of pixels.
    offset: u32,
    /// A mean is the high word of its product with a sum.
    inverse: u32,
    rows: usize,
}

#[cfg(any(cortex_m = "helium", cortex_m = "dsp"))]
impl Means {
    /// `None` where there is nothing to do, where the pixels are too few or too many, or not all inside `x`.
    #[inline(always)]
    pub(super) fn new(s: Window, x: &[i8], y: &mut [i8]) -> Option<Self> {
        let Window { first, rows, columns, c, stride } = s;
        let (count, x) = (rows * columns, x.get(first..).unwrap_or_default());
        let row = columns * c;
        let inside = rows > 0 && row <= stride && (rows - 1) * stride + row - c + y.len() <= x.len();
        // Up to 256 pixels have sums of 16 bits. The inverse is too large by less than 2^-32, which is less than what a
        // sum lacks to the next multiple of so few pixels.
        ((2..=256).contains(&count) && inside && !y.is_empty()).then(|| Self {
            c,
            columns,
            step: stride - row,
            left: y.len(),
            y: y.as_mut_ptr(),
            x: x.as_ptr(),
            offset: (128 * count + count / 2) as u32,
            inverse: u32::MAX / count as u32 + 1,
            rows,
        })
    }
}
