//! SOFT's attention. A tile of kernel values is of four rows of a panel and two rows that are read where they are;
//! the exponential is taken of four at a time, with the table gathered. In the first pass the panel is of tokens,
//! in the second of landmarks, so that vectors of values hold what is summed over.
//!
//! Where the memory that the file plans is too little for that, or the exponent's factor too small, the packed
//! multiply-accumulates do it.

use super::products::{MOST_COLUMNS, RESULTS, Tiles, rest, sums, vector, vectors, wide_tiles_i8};
use super::{VECTOR, copy_interleaved, isa, tile_words};
use crate::arch::attention::{Kernel, Outputs, next};
use crate::arch::cortex_m_dsp;
use crate::arch::products::{TILE_COLUMNS, TILE_ROWS, ToI8};
use crate::math::fixed::{Decay, EXP2, Exp2Neg};
use core::arch::naked_asm;

/// Values of int16 of a vector.
const LANES: usize = 8;
/// `sums[m, d] += K1^T v` over at most 512 tokens.
pub(in crate::arch) fn accumulate(k: &Kernel<'_>, q: &[i8], v: &[i8], sums: &mut [i32], scratch: &mut [i32]) {
    let (m, d) = (k.m(), k.d);
    let rows = m.next_multiple_of(TILE_ROWS);
    // The queries, then, when they are done with, the values of the tokens.
    let panel = (tile_words(d) / TILE_ROWS).max(d.div_ceil(2));
    let token = 1 + rows / 2 + panel;
    let most = scratch.len().saturating_sub(m) / token & !(LANES - 1);
    let (Some(curve), true) = (Decay::new(k.multiplier, k.shift).narrow, most > 0) else {
        return cortex_m_dsp::attention::accumulate(k, q, v, sums, scratch);
    };
    let mut scratch = scratch;
    let (l_norms, q_norms) = (next(&mut scratch, m), next(&mut scratch, most));
    let (values, panel) = (next(&mut scratch, rows / 2 * most), next(&mut scratch, panel * most));
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
        // Channels that are missing are zero, tokens too.
        let Some(columns) = panel.get_mut(..d.next_multiple_of(TILE_COLUMNS) * row / 2) else { return };
        columns.fill(0);
        let offsets = core::array::from_fn(|i| (i * row) as u16);
        for i in 0..tokens {
            let x = k.row(v, i);
            // SAFETY: reads all `d` values of `x` and writes as many of int16, `row` apart, the `i`-th of each row.
            unsafe { scatter_i8(x.as_ptr(), x.len(), columns.as_mut_ptr().cast::<i16>().add(i), &offsets, 2 * row) };
        }
        for (sums, values) in sums.chunks_mut(TILE_ROWS * d).zip(values.chunks_exact(TILE_ROWS * row / 2)) {
            let mut pass = Sums {
                x: values.as_ptr(),
                w: columns.as_ptr(),
                w_step: 2 * row,
                turns: Tiles::turns(row / LANES),
                y: sums.as_mut_ptr(),
                second: size_of::<i32>(),
                pairs: d / TILE_COLUMNS,
                rows: sums.len() / d,
                offsets: core::array::from_fn(|i| (i * d) as u32),
            };
            // SAFETY: `values` has four rows of `row` values, `columns` a pair of them for each pair of channels, and
            // `sums` as many rows as are stored.
            unsafe {
                if pass.pairs > 0 {
                    add_pairs(&mut pass);
                }
                if d % TILE_COLUMNS > 0 {
                    // A column of zeros beside the last, which adds nothing to it.
                    (pass.second, pass.pairs) = (0, 1);
                    add_pairs(&mut pass);
                }
            }
        }
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
    let panel = row / TILE_ROWS * tile_words(d);
    let packed = row / 2 * d;
    let most = scratch.len().saturating_sub(row + panel + packed) / (row / 2) & !(TILE_ROWS - 1);
    let fits = most > 0 && k.width <= MOST_COLUMNS && row * LANES <= u16::MAX as usize && u.len() >= m * d;
    let (Some(curve), true) = (Decay::new(k.multiplier, k.shift).narrow, fits) else {
        return cortex_m_dsp::attention::apply(k, q, u, outputs, y, scratch);
    };
    let mut scratch = scratch;
    let (l_norms, panel) = (next(&mut scratch, row), next(&mut scratch, panel));
    let (packed, values) = (next(&mut scratch, packed), next(&mut scratch, row / 2 * most));
    interleave(k, k.l, m, panel, l_norms);
    packed.fill(0);
    let offsets = core::array::from_fn(|i| (i * row) as u16);
    for (j, u) in u.chunks_exact(d).enumerate().take(m) {
        // SAFETY: reads the `d` values of `u` and writes as many, `row` apart, the `j`-th of each row.
        unsafe { scatter_i16(u.as_ptr(), d, packed.as_mut_ptr().cast::<i16>().add(j), &offsets, 2 * row) };
    }
    let mut make = Make::new(panel, l_norms, m, d, curve);
    let ToI8 { zero, lo, hi } = outputs.to;
    for (q, y) in q.chunks(most * k.width).zip(y.chunks_mut(most * k.width)) {
        let tokens = q.len() / k.width;
        for i in (0..tokens).step_by(TILE_COLUMNS) {
            let norms = [i, (i + 1).min(tokens - 1)].map(|i| squared_norm(k.row(q, i)));
            make.pair(k, q, i, norms, values, row);
        }
        let offset = |r: usize, c: usize| (r * k.width + c) as u16;
        let mut tiles = Tiles {
            x: values.as_ptr(),
            w: [core::ptr::null(); TILE_COLUMNS],
            turns: Tiles::turns(row / LANES),
            rest: 0,
            y: core::ptr::null_mut(),
            results: 0,
            step: TILE_ROWS * k.width,
            zero,
            bias: [0; TILE_COLUMNS],
            up: [0; TILE_COLUMNS],
            down: [0; TILE_COLUMNS],
            multiplier: [0; TILE_COLUMNS],
            offsets: core::array::from_fn(|i| offset(i / TILE_COLUMNS, i % TILE_COLUMNS)),
            lo: [lo as i16; RESULTS],
            hi: [hi as i16; RESULTS],
        };
        for c in (0..d).step_by(TILE_COLUMNS) {
            let second = (c + 1).min(d - 1);
            if second == c {
                // The first once more, to the same place.
                tiles.offsets = core::array::from_fn(|i| offset(i / TILE_COLUMNS, 0));
            }
            for (column, c) in [c, second].into_iter().enumerate() {
                let Some(w) = packed.get(c * row / 2..) else { return };
                tiles.w[column] = w.as_ptr().cast();
                tiles.scale(column, outputs.requantise(c));
            }
            let Some(y) = y.get_mut(k.first + c..) else { return };
            tiles.y = y.as_mut_ptr().cast();
            tiles.results = tokens * TILE_COLUMNS;
            // SAFETY: there are `row` values of every token and every channel, and `y` starts at the pair's channels
            // of the first of `tokens` tokens.
            unsafe { wide_tiles_i8(&mut tiles) };
        }
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

/// What [`make`] is told.
#[repr(C)]
struct Make {
    x: *const i32,
    norms: *const i32,
    w: [*const i8; TILE_COLUMNS],
    out: *mut u8,
    tiles: usize,
    turns: usize,
    /// Values after the last whole vector.
    rest: usize,
    pair_norms: [i32; TILE_COLUMNS],
    /// The largest distance that does not give 0.
    last: i32,
    up: u32,
    round: i32,
    multiplier: i32,
    table: *const [u32; 2],
    mask: u32,
}

impl Make {
    /// Of `n` rows of a panel.
    fn new(panel: &[i32], norms: &[i32], n: usize, d: usize, curve: Exp2Neg) -> Self {
        Self {
            x: panel.as_ptr(),
            norms: norms.as_ptr(),
            w: [core::ptr::null(); TILE_COLUMNS],
            out: core::ptr::null_mut(),
            tiles: n.div_ceil(TILE_ROWS),
            turns: Tiles::turns(d / VECTOR),
            rest: d % VECTOR,
            pair_norms: [0; TILE_COLUMNS],
            last: (curve.limit - 1).min(i32::MAX as u32) as i32,
            up: curve.up,
            round: curve.round,
            multiplier: curve.multiplier,
            table: EXP2.as_ptr(),
            mask: (EXP2.len() - 1 << 3) as u32,
        }
    }

    /// The values of rows `i` and `i + 1` of `x`, or of the last twice, with all rows of the panel, into `values`,
    /// of which a row has `row`.
    #[inline(always)]
    fn pair(&mut self, k: &Kernel<'_>, x: &[i8], i: usize, norms: [i32; TILE_COLUMNS], values: &mut [i32], row: usize) {
        let (first, second) = (k.row(x, i), k.row(x, i + 1));
        let second = if second.is_empty() { first } else { second };
        let at = i / TILE_ROWS * TILE_ROWS * row / 2 + i % TILE_ROWS * (VECTOR / size_of::<i32>());
        let Some(values) = values.get_mut(at..) else { return };
        self.w = [first.as_ptr(), second.as_ptr()];
        self.pair_norms = norms;
        self.out = values.as_mut_ptr().cast();
        // SAFETY: both rows have `d` values, as the panel's have. The values of four rows take `row` vectors' eighths,
        // which the tiles do not exceed, and the block of rows `i` and `i + 1` is there.
        unsafe { make(self) };
    }
}

/// What [`add_pairs`] is told.
#[repr(C)]
struct Sums {
    x: *const i32,
    w: *const i32,
    /// Bytes between columns.
    w_step: usize,
    turns: usize,
    y: *mut i32,
    /// Bytes from a sum of the first column to that of the second.
    second: usize,
    pairs: usize,
    /// Rows that are stored.
    rows: usize,
    /// Words to the sums of each row.
    offsets: [u32; TILE_ROWS],
}

/// Adds to the sums of up to four rows their products with one pair of columns after the other.
#[unsafe(naked)]
unsafe extern "C" fn add_pairs(sums: *mut Sums) {
    naked_asm!(
        isa!(),
        "push {{r3-r11, lr}}",
        "vpush {{d8-d15}}",
        "mov r9, r0",
        "vldrw.u32 q6, [r9, #32]",
        "ldr r0, [r9, #28]",
        "vctp.32 r0",
        "ldr r3, [r9, #4]",
        "2:",
        "ldr r1, [r9]",
        "ldrd r0, r7, [r9, #8]",
        "add r5, r3, r0",
        "movs r0, #0",
        "movs r2, #0",
        "movs r4, #0",
        "movs r6, #0",
        "mov r8, r0",
        "mov r10, r0",
        "mov r12, r0",
        "mov lr, r0",
        vectors!(i16),
        sums!(),
        "mov r3, r5",
        "ldrd r0, r2, [r9, #16]",
        "add r2, r0",
        "vpsttt",
        "vldrwt.u32 q2, [r0, q6, uxtw #2]",
        "vaddt.i32 q2, q2, q0",
        "vstrwt.32 q2, [r0, q6, uxtw #2]",
        "vpsttt",
        "vldrwt.u32 q2, [r2, q6, uxtw #2]",
        "vaddt.i32 q2, q2, q1",
        "vstrwt.32 q2, [r2, q6, uxtw #2]",
        "add r0, #8",
        "str r0, [r9, #16]",
        "ldr r7, [r9, #24]",
        "subs r7, #1",
        "str r7, [r9, #24]",
        "bne 2b",
        "str r3, [r9, #4]",
        "vpop {{d8-d15}}",
        "pop {{r3-r11, pc}}",
    )
}

/// Four distances become values. r0: last, r2: up, r4: round, r6: table, r8: its steps; q6: mask, q7: multiplier. A
/// lane that is not loaded is 0, and stays it.
macro_rules! values {
    ($q:literal, $value:literal) => {
        concat!(
            "vcmp.s32 le, ",
            $q,
            ", r0\n",
            "vshl.s32 ",
            $q,
            ", r2\n",
            "vmulh.s32 ",
            $q,
            ", ",
            $q,
            ", q7\n",
            "vadd.i32 ",
            $q,
            ", ",
            $q,
            ", r4\n",
            "vshr.u32 q4, ",
            $q,
            ", #15\n",
            "vand q4, q4, q6\n",
            "vpstt\n",
            "vldrwt.u32 ",
            $value,
            ", [r6, q4]\n",
            "vldrwt.u32 q5, [r8, q4]\n",
            "vshl.i32 q4, ",
            $q,
            ", #14\n",
            "vshr.u32 q4, q4, #23\n",
            "vmul.i32 q5, q5, q4\n",
            "vrshr.u32 q5, q5, #9\n",
            "vsub.i32 ",
            $value,
            ", ",
            $value,
            ", q5\n",
            // -(k + 1): shifts down and rounds.
            "vshr.u32 ",
            $q,
            ", ",
            $q,
            ", #25\n",
            "vmvn ",
            $q,
            ", ",
            $q,
            "\n",
            "vrshl.u32 ",
            $value,
            ", ",
            $value,
            ", ",
            $q,
            "\n",
            "vqmovnb.s32 ",
            $value,
            ", ",
            $value,
            "\n",
        )
    };
}
pub(super) use values;

/// Kernel values: the distances of a tile, then [`Exp2Neg`] of them. A vector of the results has two tiles.
#[unsafe(naked)]
unsafe extern "C" fn make(make: *const Make) {
    naked_asm!(
        isa!(),
        "push {{r3-r11, lr}}",
        "vpush {{d8-d15}}",
        "sub sp, #16",
        "mov r9, r0",
        "ldr r1, [r9]",
        "ldr r11, [r9, #4]",
        "ldrd r2, r3, [r9, #16]",
        "movs r4, #8",
        "strd r2, r3, [sp]",
        "str r4, [sp, #8]",
        "ldr r2, [r9, #52]",
        "vdup.32 q7, r2",
        "ldr r2, [r9, #60]",
        "vdup.32 q6, r2",
        "2:",
        "ldrd r3, r5, [r9, #8]",
        "ldr r7, [r9, #24]",
        "movs r0, #0",
        "movs r2, #0",
        "movs r4, #0",
        "movs r6, #0",
        "mov r8, r0",
        "mov r10, r0",
        "mov r12, r0",
        "mov lr, r0",
        vectors!(i8),
        "ldr r7, [r9, #28]",
        rest!(),
        sums!(),
        "ldrd r0, r2, [r9, #32]",
        "vldrw.u32 q2, [r11], #16",
        "vshl.i32 q0, q0, #1",
        "vshl.i32 q1, q1, #1",
        "vsub.i32 q0, q2, q0",
        "vsub.i32 q1, q2, q1",
        "vadd.i32 q0, q0, r0",
        "vadd.i32 q1, q1, r2",
        "ldrd r0, r2, [r9, #40]",
        "ldr r4, [r9, #48]",
        "ldr r6, [r9, #56]",
        "add r8, r6, #4",
        values!("q0", "q2"),
        values!("q1", "q3"),
        "ldrd r2, r3, [sp]",
        "ldr r4, [sp, #8]",
        "vstrh.32 q2, [r2]",
        "vstrh.32 q3, [r2, #16]",
        "add r2, r4",
        "rsb r4, r4, #64",
        "subs r3, #1",
        "strd r2, r3, [sp]",
        "str r4, [sp, #8]",
        "bne 2b",
        "add sp, #16",
        "vpop {{d8-d15}}",
        "pop {{r3-r11, pc}}",
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

/// Writes `n` values `step` bytes apart as int16; `offsets` are those of eight, in elements.
macro_rules! scatter {
    ($load:literal) => {
        naked_asm!(
            isa!(),
            "push {{r7, lr}}",
            "vldrh.u16 q1, [r3]",
            "ldr r12, [sp, #8]",
            "lsl r12, r12, #3",
            "wlstp.16 lr, r1, 2f",
            "1:",
            $load,
            "vstrh.16 q0, [r2, q1, uxtw #1]",
            "add r2, r12",
            "letp lr, 1b",
            "2:",
            "pop {{r7, pc}}",
        )
    };
}

/// See [`scatter`].
#[unsafe(naked)]
unsafe extern "C" fn scatter_i8(from: *const i8, n: usize, to: *mut i16, offsets: &[u16; LANES], step: usize) {
    scatter!("vldrb.s16 q0, [r0], #8")
}

/// See [`scatter`].
#[unsafe(naked)]
unsafe extern "C" fn scatter_i16(from: *const i16, n: usize, to: *mut i16, offsets: &[u16; LANES], step: usize) {
    scatter!("vldrh.u16 q0, [r0], #16")
}
