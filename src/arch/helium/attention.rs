//! SOFT's attention. A tile of kernel values is of four rows of a panel and two rows that are read where they are; the
//! exponential is taken of four at a time, with the table gathered. In the first pass the panel is of tokens, in the
//! second of landmarks, and the values of each of the two rows lie together: they are what is summed over next, two
//! rows of them with four channels at a time.
//!
//! Where the memory that the file plans is too little for that, or the exponent's factor too small, the packed
//! multiply-accumulates do it.

use super::products::{Tiles, sums, vector, vectors};
use super::{Scale, VECTOR, copy_interleaved, isa, tile_words};
use crate::arch::attention::{Kernel, Outputs, Plan, next};
use crate::arch::cortex_m_dsp;
use crate::arch::products::{TILE_COLUMNS, TILE_ROWS, ToI8};
use crate::math::fixed::{Decay, EXP2, Exp2Neg};
use core::arch::naked_asm;
use core::marker::PhantomData;

/// Values of int16 and of int32 of a vector.
const LANES: usize = 8;
const LANES_I32: usize = 4;
/// Channels that are summed together: the rows of a tile.
const QUAD: usize = TILE_ROWS;

/// See [`super::super::kernel_accumulate`].
pub(in crate::arch) fn accumulate(
    k: &Kernel<'_>,
    q: &[i8],
    v: &[i8],
    w: &mut [i32],
    w_shift: u32,
    scratch: &mut [i32],
) {
    let (m, d) = (k.m(), k.d);
    let rows = m.next_multiple_of(TILE_COLUMNS);
    // The queries, then, when they are done with, the values of the tokens.
    let token = 1 + rows / 2 + tile_words(d) / TILE_ROWS;
    let most = (scratch.len().saturating_sub(m) / token & !(LANES - 1)).min(Sums::MOST_VECTORS * LANES);
    let group = Plan { m, d }.group();
    let most = match w_shift {
        0 => most,
        _ if most < group => 0,
        _ => group,
    };
    let (Some(curve), true) = (Decay::new(k.multiplier, k.shift).narrow, most > 0 && w.len() == m * d) else {
        return cortex_m_dsp::attention::accumulate(k, q, v, w, w_shift, scratch);
    };
    let mut scratch = scratch;
    let (l_norms, q_norms) = (next(&mut scratch, m), next(&mut scratch, most));
    let (values, panel) = (next(&mut scratch, rows / 2 * most), scratch);
    for (norm, j) in l_norms.iter_mut().zip(0..) {
        *norm = squared_norm(k.row(k.l, j));
    }
    for (q, v) in q.chunks(most * k.width).zip(v.chunks(most * k.width)) {
        let tokens = q.len() / k.width;
        let row = tokens.next_multiple_of(LANES);
        interleave(k, q, tokens, panel, q_norms);
        let mut make = Make::new(panel, q_norms, tokens, d, curve);
        for j in (0..m).step_by(TILE_COLUMNS) {
            let norms = [j, (j + 1).min(m - 1)].map(|j| l_norms.get(j).copied().unwrap_or(0));
            make.pair(k, k.l, j, norms, values, row);
        }
        let Some(mut columns) = Transposed::<i8>::new(panel, d, row, tokens) else { return };
        for i in 0..tokens {
            let (x, to) = (k.row(v, i), columns.column(i));
            // SAFETY: reads all `d` values of `x` and writes as many, to column `i` of their rows.
            unsafe { scatter_i8(x.as_ptr(), x.len(), to, &columns.offsets, columns.step) };
        }
        add_products(d, row, columns.words, values, w, w_shift);
    }
}

/// `y = K1 u` for `u[m, d]` and the head's channels of `y[_, width]`.
pub(in crate::arch) fn apply(
    k: &Kernel<'_>,
    q: &[i8],
    u: &[i16],
    outputs: Outputs<'_>,
    y: &mut [i8],
    scratch: &mut [i32],
) {
    let (m, d) = (k.m(), k.d);
    let row = m.next_multiple_of(LANES);
    let norms = m.next_multiple_of(TILE_ROWS);
    let panel = norms / TILE_ROWS * tile_words(d);
    let packed = row / 2 * d.next_multiple_of(QUAD);
    let most = scratch.len().saturating_sub(norms + panel + packed) / (row / 2) & !(TILE_COLUMNS - 1);
    let fits = most > 0 && row < Transposed::<i16>::MOST_COLUMNS && u.len() >= m * d;
    let (Some(curve), true) = (Decay::new(k.multiplier, k.shift).narrow, fits) else {
        return cortex_m_dsp::attention::apply(k, q, u, outputs, y, scratch);
    };
    let mut scratch = scratch;
    let (l_norms, panel) = (next(&mut scratch, norms), next(&mut scratch, panel));
    let (packed, values) = (next(&mut scratch, packed), next(&mut scratch, row / 2 * most));
    interleave(k, k.l, m, panel, l_norms);
    let Some(mut columns) = Transposed::<i16>::new(packed, d, row, m) else { return };
    for (j, u) in u.chunks_exact(d).enumerate().take(m) {
        // SAFETY: reads the `d` values of `u` and writes as many, to column `j` of their rows.
        unsafe { scatter_i16(u.as_ptr(), d, columns.column(j), &columns.offsets, columns.step) };
    }
    let mut make = Make::new(panel, l_norms, m, d, curve);
    for (q, y) in q.chunks(most * k.width).zip(y.chunks_mut(most * k.width)) {
        let tokens = q.len() / k.width;
        for i in (0..tokens).step_by(TILE_COLUMNS) {
            let norms = [i, (i + 1).min(tokens - 1)].map(|i| squared_norm(k.row(q, i)));
            make.pair(k, q, i, norms, values, row);
        }
        for (c, columns) in (0..d).step_by(QUAD).zip(columns.words.chunks_exact(QUAD * row / 2)) {
            apply_quad(k, values, row, columns, c, outputs, y);
        }
    }
}

/// See [`super::super::gram_row`].
pub(in crate::arch) fn gram_row(k: &Kernel<'_>, decay: &Decay, i: usize, a: &mut [i32]) -> bool {
    let n = i + 1;
    let (Some(curve), true) = (decay.narrow, n >= LANES_I32 && a.len() == n && n <= k.m()) else { return false };
    let (x, rows) = (k.row(k.l, i), k.l.get(k.first..).unwrap_or_default());
    let table: *const u32 = EXP2.as_ptr().cast();
    let mut pass = Gram {
        norm: squared_norm(x),
        minus_two: -2,
        up: curve.up,
        table,
        steps: table.wrapping_add(1),
        x: x.as_ptr(),
        d: k.d,
        width: k.width,
        w: core::ptr::null(),
        out: core::ptr::null_mut(),
        quads: 0,
        multiplier: curve.multiplier,
        mask: EXP2_MASK,
    };
    // Where fewer than four landmarks are left, the last four.
    let over = (n % LANES_I32 > 0).then_some((n - LANES_I32, 1));
    for (j, quads) in [(0, n / LANES_I32)].into_iter().chain(over) {
        let (Some(w), Some(out)) = (rows.get(j * k.width..), a.get_mut(j..)) else { return false };
        (pass.w, pass.out, pass.quads) = (w.as_ptr(), out.as_mut_ptr(), quads);
        // SAFETY: landmarks `j` to `j + 4 quads` exist, each with `d` values, and so do their places in `a`.
        unsafe { gram_quads(&mut pass) };
    }
    true
}

/// Adds to `w[m, d]` the products of the kernel values of up to [`Sums::MOST_VECTORS`] vectors of tokens, of which every
/// landmark has `row`, with the values in `columns`.
fn add_products(d: usize, row: usize, columns: &[i32], values: &[i32], w: &mut [i32], w_shift: u32) {
    let add = if w_shift == 0 { add_quads } else { add_shifted_quads };
    let (quads, quad) = (d / QUAD, QUAD * row / size_of::<i32>());
    let pairs = w.chunks_mut(TILE_COLUMNS * d).zip(values.chunks_exact(TILE_COLUMNS * row / 2));
    for (sums, values) in pairs {
        // The last row may be alone: then it is both, and gets the same sums twice.
        let second = if sums.len() > d { row / 2 } else { 0 };
        let Some(other) = values.get(second..) else { return };
        let w = [values.as_ptr(), other.as_ptr()];
        let y = sums.as_mut_ptr();
        let mut pass = Sums {
            x: columns.as_ptr(),
            w,
            y,
            second: (sums.len() - d) * size_of::<i32>(),
            end: y.wrapping_add(QUAD * quads),
            vectors: row / LANES,
            down: -(w_shift as i32),
        };
        if quads > 0 {
            // SAFETY: `values` has `row` values of each row, `columns` as many of each channel of so many quads, and
            // both rows of `sums` as many channels.
            unsafe { add(&pass) };
        }
        let Some(columns) = columns.get(quads * quad..).filter(|rest| rest.len() >= quad) else { continue };
        let mut rest = [[0; QUAD]; TILE_COLUMNS];
        (pass.x, pass.y, pass.second) = (columns.as_ptr(), rest.as_mut_ptr().cast(), QUAD * size_of::<i32>());
        pass.end = pass.y.wrapping_add(QUAD);
        // SAFETY: as above, for the last quad, whose sums have rows of their own.
        unsafe { add(&pass) };
        for (sums, rest) in sums.chunks_exact_mut(d).zip(rest) {
            sums.iter_mut().skip(QUAD * quads).zip(rest).for_each(|(sum, rest)| *sum += rest);
        }
    }
}

/// The results of up to four channels from `c` on for the kernel values of all tokens of `y`, of which each has `row`.
#[inline(always)]
fn apply_quad(
    k: &Kernel<'_>,
    values: &[i32],
    row: usize,
    columns: &[i32],
    c: usize,
    outputs: Outputs<'_>,
    y: &mut [i8],
) {
    let tokens = y.len() / k.width;
    let channels = (k.d - c).min(QUAD);
    let scales: [_; QUAD] = core::array::from_fn(|i| Scale::new(outputs.requantise(c + i.min(channels - 1))));
    let ToI8 { zero, lo, hi } = outputs.to;
    let mut quad = Quad {
        x: columns.as_ptr(),
        row: 2 * row,
        values: values.as_ptr(),
        turns: Tiles::turns(row / LANES - 1),
        zero,
        step: k.width,
        y: core::ptr::null_mut(),
        end: core::ptr::null_mut(),
        channels,
        multiplier: scales[0].multiplier,
        up: scales.map(|scale| scale.up),
        down: scales.map(|scale| scale.down),
        lo: [lo as i16; LANES],
        hi: [hi as i16; LANES],
    };
    let Some((_, y)) = y.split_at_mut_checked(k.first + c) else { return };
    quad.y = y.as_mut_ptr();
    let paired = tokens & !(TILE_COLUMNS - 1);
    if paired > 0 {
        quad.end = quad.y.wrapping_add(paired * k.width);
        // SAFETY: `values` has `row` values of every token, `columns` of every channel, and `y` starts at the
        // quad's channels of the first of these tokens.
        unsafe { apply_pairs(&quad) };
    }
    let (Some(values), Some(y)) = (values.get(paired * row / 2..), y.get_mut(paired * k.width..)) else { return };
    if tokens > paired {
        // The last token twice, to the same place.
        (quad.values, quad.row, quad.step) = (values.as_ptr(), 0, 0);
        (quad.y, quad.end) = (y.as_mut_ptr(), y.as_mut_ptr());
        // SAFETY: as above, for the last token.
        unsafe { apply_pairs(&quad) };
    }
}

/// Copies the head's channels of the first `n` rows of `x` into the tiles of `panel` and takes their squared norms.
fn interleave(k: &Kernel<'_>, x: &[i8], n: usize, panel: &mut [i32], norms: &mut [i32]) {
    let tiles = panel.chunks_exact_mut(tile_words(k.d)).zip(norms.chunks_mut(TILE_ROWS));
    for ((tile, norms), i) in tiles.zip((0..n).step_by(TILE_ROWS)) {
        for (lane, norm) in norms.iter_mut().enumerate().take(n - i) {
            let x = k.row(x, i + lane);
            let to = tile.as_mut_ptr().cast::<i8>();
            // SAFETY: all of `x`, at most `d` values, is read; the tile has a vector of each row for every sixteen.
            *norm = unsafe { copy_interleaved(x.as_ptr(), x.len(), to.add(lane * VECTOR)) };
        }
    }
}

/// The sum of the squares of `x`, below 2^31.
fn squared_norm(x: &[i8]) -> i32 {
    // SAFETY: all of `x` is read.
    unsafe { squares(x.as_ptr(), x.len()) }
}

/// A matrix of int8 or int16, one row for each channel and a multiple of [`LANES`] columns, in tiles of four rows of
/// which [`LANES`] elements alternate.
struct Transposed<'a, T> {
    words: &'a mut [i32],
    /// Elements to each of eight neighbours of a column, and bytes to the next eight.
    offsets: [u16; LANES],
    step: usize,
    elements: PhantomData<T>,
}

impl<'a> Transposed<'a, i16> {
    /// Columns up to which the offsets have 16 bits.
    const MOST_COLUMNS: usize = u16::MAX as usize / LANES;
}

impl<'a, T> Transposed<'a, T> {
    /// Of `d` rows, with `columns` of `row` columns to be written: what is not is zero.
    #[inline(always)]
    fn new(words: &'a mut [i32], d: usize, row: usize, columns: usize) -> Option<Self> {
        let rows = d.next_multiple_of(QUAD);
        let words = words.get_mut(..rows * row * size_of::<T>() / size_of::<i32>())?;
        if columns < row || d < rows {
            words.fill(0);
        }
        let offsets = core::array::from_fn(|i| (i / QUAD * QUAD * row + i % QUAD * LANES) as u16);
        Some(Self { words, offsets, step: size_of::<T>() * LANES * row, elements: PhantomData })
    }

    /// The first value of column `i`.
    #[inline(always)]
    fn column(&mut self, i: usize) -> *mut T {
        self.words.as_mut_ptr().cast::<T>().wrapping_add(i / LANES * QUAD * LANES + i % LANES)
    }
}

/// What [`make`] is told.
#[repr(C)]
struct Make {
    pair_norms: [i32; TILE_COLUMNS],
    out: [*mut i16; TILE_COLUMNS],
    minus_two: i32,
    up: u32,
    table: *const u32,
    steps: *const u32,
    w: [*const i8; TILE_COLUMNS],
    x: *const i32,
    norms: *const i32,
    norms_end: *const i32,
    d: usize,
    multiplier: i32,
    mask: u32,
}

impl Make {
    /// Of `n` rows of a panel.
    fn new(panel: &[i32], norms: &[i32], n: usize, d: usize, curve: Exp2Neg) -> Self {
        let norms = norms.as_ptr();
        let table: *const u32 = EXP2.as_ptr().cast();
        Self {
            pair_norms: [0; TILE_COLUMNS],
            out: [core::ptr::null_mut(); TILE_COLUMNS],
            minus_two: -2,
            up: curve.up,
            table,
            steps: table.wrapping_add(1),
            w: [core::ptr::null(); TILE_COLUMNS],
            x: panel.as_ptr(),
            norms,
            norms_end: norms.wrapping_add(n.next_multiple_of(TILE_ROWS)),
            d,
            multiplier: curve.multiplier,
            mask: EXP2_MASK,
        }
    }

    /// The values of rows `i` and `i + 1` of `x`, or of the last twice, with all rows of the panel, into rows `i` and
    /// `i + 1` of `values`, of which each has `row`.
    #[inline(always)]
    fn pair(&mut self, k: &Kernel<'_>, x: &[i8], i: usize, norms: [i32; TILE_COLUMNS], values: &mut [i32], row: usize) {
        let (first, second) = (k.row(x, i), k.row(x, i + 1));
        let second = if second.is_empty() { first } else { second };
        let Some(values) = values.get_mut(i * row / 2..).filter(|values| values.len() >= row) else { return };
        let out = values.as_mut_ptr().cast::<i16>();
        self.w = [first.as_ptr(), second.as_ptr()];
        self.pair_norms = norms;
        self.out = [out, out.wrapping_add(row)];
        // SAFETY: both rows have `d` values, as the panel's have, and both rows of `values` are there, which have no
        // fewer values than the panel rows.
        unsafe { make(self) };
    }
}

/// What [`gram_quads`] is told.
#[repr(C)]
struct Gram {
    norm: i32,
    minus_two: i32,
    up: u32,
    table: *const u32,
    steps: *const u32,
    x: *const i8,
    d: usize,
    width: usize,
    w: *const i8,
    out: *mut i32,
    quads: usize,
    multiplier: i32,
    mask: u32,
}

/// The kernel of one landmark with one quad of landmarks after the other.
#[unsafe(naked)]
unsafe extern "C" fn gram_quads(gram: *mut Gram) {
    // Sixteen channels of the landmark and of four others: their products, and the squares of the latter.
    macro_rules! channels {
        ($multiply:literal) => {
            concat!(
                "vctp.8 r9
                vpstttt
                vldrbt.u8 q0, [r11], #16
                vldrbt.u8 q1, [r1], #16
                vldrbt.u8 q2, [r3], #16
                vldrbt.u8 q3, [r5], #16
                vpst
                vldrbt.u8 q4, [r7], #16
                ",
                channels!($multiply, "r0, q0, q1"),
                channels!($multiply, "r8, q1, q1"),
                channels!($multiply, "r2, q0, q2"),
                channels!($multiply, "r10, q2, q2"),
                channels!($multiply, "r4, q0, q3"),
                channels!($multiply, "r12, q3, q3"),
                channels!($multiply, "r6, q0, q4"),
                channels!($multiply, "lr, q4, q4")
            )
        };
        ($multiply:literal, $operands:literal) => {
            concat!($multiply, " ", $operands, "\n")
        };
    }
    naked_asm!(
        isa!(),
        "push {{r0, r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "ldrd r2, r3, [r0, #44]",
        "vdup.32 q7, r2",
        "vdup.32 q6, r3",
        "2:",
        "ldr r9, [sp, #64]",
        "ldr r11, [r9, #20]",
        "ldrd r0, r1, [r9, #28]",
        "ldr r2, [r9, #24]",
        "add r3, r1, r0",
        "add r5, r3, r0",
        "add r7, r5, r0",
        "add r0, r7",
        "str r0, [r9, #32]",
        "mov r9, r2",
        channels!("vmladav.s8"),
        "3:",
        "subs r9, #16",
        "ble 4f",
        channels!("vmladava.s8"),
        "b 3b",
        "4:",
        sums!(),
        "ldr r9, [sp, #64]",
        "ldm r9, {{r0, r2, r4, r6, r8}}",
        "vadd.i32 q2, q1, r0",
        "vmla.s32 q2, q0, r2",
        values!("q2", "q0", "r4", "r6", "r8"),
        "vrshr.u32 q0, q0, #15",
        "vqmovnb.s32 q0, q0",
        "ldrd r1, r3, [r9, #36]",
        "vstrw.32 q0, [r1], #16",
        "subs r3, #1",
        "strd r1, r3, [r9, #36]",
        "bne 2b",
        "vpop {{d8-d15}}",
        "pop {{r0, r4-r11, pc}}",
    )
}

/// What [`add_quads`] and [`add_shifted_quads`] are told.
#[repr(C)]
struct Sums {
    x: *const i32,
    w: [*const i32; TILE_COLUMNS],
    y: *mut i32,
    /// Bytes from a sum of the first row to that of the second.
    second: usize,
    /// Where `y` has had its last quad.
    end: *mut i32,
    /// Vectors of a row, from 1 on.
    vectors: usize,
    /// Bits by which the sums are shifted, negative.
    down: i32,
}

impl Sums {
    const MOST_VECTORS: usize = 4;
}

/// As [`vector`](super::products), of int16 with rows of int8.
macro_rules! widened {
    ($multiply:literal) => {
        concat!(
            "vldrh.u16 q0, [r3], #16
            vldrh.u16 q1, [r5], #16
            vldrb.s16 q2, [r1], #32
            ",
            widened!($multiply, "r0, q0, q2"),
            "vldrb.s16 q3, [r1, #-24]\n",
            widened!($multiply, "r8, q1, q2"),
            "vldrb.s16 q2, [r1, #-16]\n",
            widened!($multiply, "r2, q0, q3"),
            widened!($multiply, "r10, q1, q3"),
            "vldrb.s16 q3, [r1, #-8]\n",
            widened!($multiply, "r4, q0, q2"),
            widened!($multiply, "r12, q1, q2"),
            widened!($multiply, "r6, q0, q3"),
            widened!($multiply, "lr, q1, q3")
        )
    };
    ($multiply:literal, $operands:literal) => {
        concat!($multiply, " ", $operands, "\n")
    };
}

/// Adds to the sums of two rows their products with one quad of channels after the other.
#[unsafe(naked)]
unsafe extern "C" fn add_quads(sums: *const Sums) {
    naked_asm!(
        isa!(),
        "push {{r3-r11, lr}}",
        "mov r9, r0",
        "ldr r1, [r9]",
        "ldr r11, [r9, #12]",
        // The vectors are entered so far from their end as there are: 56 bytes of code each.
        "ldr r0, [r9, #24]",
        "rsb r0, r0, #4",
        "movs r2, #56",
        "adr r7, 11f",
        "mla r7, r0, r2, r7",
        "orr r7, r7, #1",
        "2:",
        "ldr r8, [r9, #16]",
        "ldm r11, {{r0, r2, r4, r6}}",
        "add r8, r11",
        "ldm r8, {{r8, r10, r12, lr}}",
        "ldrd r3, r5, [r9, #4]",
        "bx r7",
        ".p2align 2",
        "11:",
        widened!("vmladava.s16"),
        widened!("vmladava.s16"),
        widened!("vmladava.s16"),
        widened!("vmladava.s16"),
        "ldr r3, [r9, #16]",
        "add r3, r11",
        "stm r3, {{r8, r10, r12, lr}}",
        "stm r11!, {{r0, r2, r4, r6}}",
        "ldr r0, [r9, #20]",
        "cmp r11, r0",
        "bne 2b",
        "pop {{r3-r11, pc}}",
    )
}

/// As [`add_quads`], with the sums shifted.
#[unsafe(naked)]
unsafe extern "C" fn add_shifted_quads(sums: *const Sums) {
    naked_asm!(
        isa!(),
        "push {{r3-r11, lr}}",
        "vpush {{d8-d9}}",
        "mov r9, r0",
        "ldr r1, [r9]",
        "ldr r11, [r9, #12]",
        // As there, for all vectors but the first.
        "ldrd r0, r2, [r9, #24]",
        "vdup.32 q4, r2",
        "rsb r0, r0, #4",
        "movs r2, #56",
        "adr r7, 11f",
        "mla r7, r0, r2, r7",
        "orr r7, r7, #1",
        "2:",
        "ldrd r3, r5, [r9, #4]",
        widened!("vmladav.s16"),
        "bx r7",
        ".p2align 2",
        "11:",
        widened!("vmladava.s16"),
        widened!("vmladava.s16"),
        widened!("vmladava.s16"),
        sums!(),
        "ldrd r0, r2, [r9, #16]",
        "add r0, r11",
        "vrshl.s32 q0, q0, q4",
        "vrshl.s32 q1, q1, q4",
        "vldrw.u32 q2, [r11]",
        "vldrw.u32 q3, [r0]",
        "vadd.i32 q0, q0, q2",
        "vadd.i32 q1, q1, q3",
        "vstrw.32 q0, [r11], #16",
        "vstrw.32 q1, [r0]",
        "cmp r11, r2",
        "bne 2b",
        "vpop {{d8-d9}}",
        "pop {{r3-r11, pc}}",
    )
}

/// What [`apply_pairs`] is told.
#[repr(C)]
struct Quad {
    x: *const i32,
    /// Bytes of a token's kernel values.
    row: usize,
    values: *const i32,
    /// [`Tiles::turns`] of the vectors after the first.
    turns: usize,
    zero: i32,
    /// Bytes between tokens.
    step: usize,
    y: *mut i8,
    /// Where `y` has had its last pair.
    end: *mut i8,
    channels: usize,
    multiplier: i32,
    up: [i32; QUAD],
    down: [i32; QUAD],
    lo: [i16; LANES],
    hi: [i16; LANES],
}

/// The results of up to four channels of one pair of tokens after the other.
#[unsafe(naked)]
unsafe extern "C" fn apply_pairs(quad: *const Quad) {
    naked_asm!(
        isa!(),
        "push {{r3-r11, lr}}",
        "vpush {{d8-d15}}",
        "mov r9, r0",
        "ldrd r0, r1, [r9, #32]",
        "vctp.32 r0",
        "vdup.32 q7, r1",
        "vldrw.u32 q4, [r9, #40]",
        "vldrw.u32 q5, [r9, #56]",
        "vldrw.u32 q6, [r9, #72]",
        "ldr r11, [r9, #24]",
        "ldr r5, [r9, #8]",
        "2:",
        "ldrd r1, r0, [r9]",
        "mov r3, r5",
        "add r5, r0",
        vector!(first i16),
        "ldr r7, [r9, #12]",
        vectors!(i16),
        sums!(),
        "ldrd r0, r4, [r9, #16]",
        "vqshl.s32 q0, q0, q4",
        "vqshl.s32 q1, q1, q4",
        "vmulh.s32 q0, q0, q7",
        "vmulh.s32 q1, q1, q7",
        "vrshl.s32 q0, q0, q5",
        "vrshl.s32 q1, q1, q5",
        "vldrw.u32 q2, [r9, #88]",
        // The tokens alternate.
        "vqmovnb.s32 q0, q0",
        "vqmovnt.s32 q0, q1",
        "vqadd.s16 q0, q0, r0",
        "vmin.s16 q0, q0, q2",
        "vmax.s16 q0, q0, q6",
        "mov r1, r11",
        "add r2, r11, r4",
        "vpsttt",
        "vstrbt.32 q0, [r1]",
        "vshrt.u32 q0, q0, #16",
        "vstrbt.32 q0, [r2]",
        "add r11, r2, r4",
        "ldr r0, [r9, #28]",
        "cmp r11, r0",
        "bne 2b",
        "vpop {{d8-d15}}",
        "pop {{r3-r11, pc}}",
    )
}

/// Bytes of the index into [`EXP2`], whose entries have eight.
pub(super) const EXP2_MASK: u32 = (EXP2.len() - 1 << 3) as u32;

/// From four distances to `$value`, 2^15 times what [`exp2_neg`](crate::math::fixed::exp2_neg) rounds: the distances
/// in `$q` are lost. `$up`: [`Exp2Neg::up`], `$table` and `$steps`: [`EXP2`] and its steps; q6: [`EXP2_MASK`], q7:
/// [`Exp2Neg::multiplier`]. Needs q4 and q5.
///
/// A distance from the limit on is saturated by the shift, or has 16 octaves or more: either way the value is below
/// 2^14 and rounded to 0, because no entry of the table reaches 2^30.
macro_rules! values {
    ($q:literal, $value:literal, $up:literal, $table:literal, $steps:literal) => {
        concat!(
            "vqshl.s32 ",
            $q,
            ", ",
            $up,
            "\nvmulh.s32 ",
            $q,
            ", ",
            $q,
            ", q7\nvrshr.s32 ",
            $q,
            ", ",
            $q,
            ", #9\nvshr.u32 q4, ",
            $q,
            ", #6\nvand q4, q4, q6\nvldrw.u32 ",
            $value,
            ", [",
            $table,
            ", q4]\nvldrw.u32 q5, [",
            $steps,
            ", q4]\nvshl.i32 q4, ",
            $q,
            ", #23\nvrmulh.u32 q5, q5, q4\nvsub.i32 ",
            $value,
            ", ",
            $value,
            ", q5\nvshr.u32 ",
            $q,
            ", ",
            $q,
            ", #16\nvneg.s32 ",
            $q,
            ", ",
            $q,
            "\nvshl.u32 ",
            $value,
            ", ",
            $value,
            ", ",
            $q,
            "\n",
        )
    };
}
pub(super) use values;

/// Kernel values: the distances of a tile, then [`values`] of them.
#[unsafe(naked)]
unsafe extern "C" fn make(make: *mut Make) {
    naked_asm!(
        isa!(),
        "push {{r3-r11, lr}}",
        "vpush {{d8-d15}}",
        "mov r9, r0",
        "ldrd r0, r2, [r9, #56]",
        "vdup.32 q7, r0",
        "vdup.32 q6, r2",
        "ldrd r1, r11, [r9, #40]",
        "ldr r7, [r9, #52]",
        "2:",
        "ldrd r3, r5, [r9, #32]",
        // Heads of 32 need no predicates and no loop.
        "cmp r7, #32",
        "bne 5f",
        vector!(first i8),
        vector!(i8),
        "3:",
        sums!(),
        "vldrw.u32 q2, [r11], #16",
        "ldm r9, {{r0, r2, r3, r5, r6, r8, r10, r12}}",
        "vadd.i32 q3, q2, r2",
        "vadd.i32 q2, q2, r0",
        "vmla.s32 q2, q0, r6",
        "vmla.s32 q3, q1, r6",
        values!("q2", "q0", "r8", "r10", "r12"),
        values!("q3", "q1", "r8", "r10", "r12"),
        "vqrshrnb.s32 q0, q0, #15",
        "vqrshrnb.s32 q1, q1, #15",
        "vstrh.32 q0, [r3], #8",
        "vstrh.32 q1, [r5], #8",
        "ldr r0, [r9, #48]",
        "strd r3, r5, [r9, #8]",
        "cmp r11, r0",
        "bne 2b",
        "vpop {{d8-d15}}",
        "pop {{r3-r11, pc}}",
        "5:",
        "vctp.8 r7",
        "vpstt",
        // Values that are missing are zero, whatever they meet.
        vector!(first i8 "vldrbt.u8 q0, [r3], #16", "vldrbt.u8 q1, [r5], #16"),
        "6:",
        "subs r7, #16",
        "ble 7f",
        "vctp.8 r7",
        "vpstt",
        vector!(i8, "vldrbt.u8 q0, [r3], #16", "vldrbt.u8 q1, [r5], #16"),
        "b 6b",
        "7:",
        "ldr r7, [r9, #52]",
        "b 3b",
    )
}

/// The sum of the squares of `n` values.
#[unsafe(naked)]
unsafe extern "C" fn squares(x: *const i8, n: usize) -> i32 {
    naked_asm!(
        isa!(),
        "push {{r7, lr}}",
        "movs r2, #0",
        "wlstp.8 lr, r1, 2f",
        "1:",
        "vldrb.u8 q0, [r0], #16",
        "vmladava.s8 r2, q0, q0",
        "letp lr, 1b",
        "2:",
        "mov r0, r2",
        "pop {{r7, pc}}",
    )
}

/// Writes `n` values; `offsets` are those of eight, in elements, and `step` bytes on are those of the next.
macro_rules! scatter {
    ($load:literal, $store:literal) => {
        naked_asm!(
            isa!(),
            "push {{r7, lr}}",
            "vldrh.u16 q1, [r3]",
            "ldr r12, [sp, #8]",
            "wlstp.16 lr, r1, 2f",
            "1:",
            $load,
            $store,
            "add r2, r12",
            "letp lr, 1b",
            "2:",
            "pop {{r7, pc}}",
        )
    };
}

/// See [`scatter`].
#[unsafe(naked)]
unsafe extern "C" fn scatter_i8(from: *const i8, n: usize, to: *mut i8, offsets: &[u16; LANES], step: usize) {
    scatter!("vldrb.u16 q0, [r0], #8", "vstrb.16 q0, [r2, q1]")
}

/// See [`scatter`].
#[unsafe(naked)]
unsafe extern "C" fn scatter_i16(from: *const i16, n: usize, to: *mut i16, offsets: &[u16; LANES], step: usize) {
    scatter!("vldrh.u16 q0, [r0], #16", "vstrh.16 q0, [r2, q1, uxtw #1]")
}
