//! Matrix products: `VMLADAVA` adds sixteen products of int8 to a sum in a core register. Rows of activations
//! are copied, four to a tile, their vectors alternating; weights are read where they are.

use super::{Scale, VECTOR, copy_interleaved, isa};
use crate::arch::cortex_m_dsp::Dsp;
use crate::arch::products::{
    self, Channel, Channels, Output, Rows, Shape, Stored, TILE_COLUMNS, TILE_ROWS, unpack_int4_row, unpacked_int4_words,
};
use crate::math::fixed::Requantise;
use core::arch::naked_asm;

/// Words of a vector of each row of a tile.
const STEP: usize = TILE_ROWS * VECTOR / size_of::<i32>();
/// Lanes that are stored together.
const RESULTS: usize = TILE_ROWS * TILE_COLUMNS;
/// Columns up to which a tile's results have offsets of 16 bits.
const MOST_COLUMNS: usize = u16::MAX as usize / TILE_ROWS;

/// What the loop over the tiles of a pair of columns is told.
#[repr(C)]
pub(super) struct Tiles {
    x: *const i32,
    w: [*const i8; TILE_COLUMNS],
    /// Twice the turns of two whole vectors, and 1 where the first turn has one only.
    turns: usize,
    /// Values after the last whole vector.
    rest: usize,
    y: *mut u8,
    /// Results.
    results: usize,
    /// Bytes between the results of two tiles.
    step: usize,
    zero: i32,
    bias: [i32; TILE_COLUMNS],
    up: [i32; TILE_COLUMNS],
    down: [i32; TILE_COLUMNS],
    multiplier: [i32; TILE_COLUMNS],
    /// Elements from `y` to each result of a tile.
    offsets: [u16; RESULTS],
    lo: [i16; RESULTS],
    hi: [i16; RESULTS],
}

impl Tiles {
    /// The turns of so many whole vectors.
    pub(super) const fn turns(vectors: usize) -> usize {
        vectors.div_ceil(2) << 1 | vectors & 1
    }

    /// Has column `c` requantised by `scale`.
    #[inline(always)]
    fn scale(&mut self, c: usize, scale: Requantise) {
        let Scale { up, multiplier, down } = Scale::new(scale);
        self.up[c] = up;
        self.multiplier[c] = multiplier;
        self.down[c] = down;
    }
}

/// Weights that there are products with.
pub(crate) trait Weight: Stored {
    /// See [`super::super::products`].
    fn products<O: Output>(
        s: Shape,
        rows: &mut dyn Rows,
        channels: Channels<'_, Self>,
        output: O,
        y: &mut [O::T],
        buffer: &mut [i8],
        panel: &mut [i32],
    );
}

impl Weight for i8 {
    #[inline(always)]
    fn products<O: Output>(
        s: Shape,
        rows: &mut dyn Rows,
        channels: Channels<'_, Self>,
        output: O,
        y: &mut [O::T],
        buffer: &mut [i8],
        panel: &mut [i32],
    ) {
        run(s, rows, channels, output, y, buffer, panel);
    }
}

impl Weight for u8 {
    #[inline(always)]
    fn products<O: Output>(
        s: Shape,
        rows: &mut dyn Rows,
        channels: Channels<'_, Self>,
        output: O,
        y: &mut [O::T],
        buffer: &mut [i8],
        panel: &mut [i32],
    ) {
        run(s, rows, channels, output, y, buffer, panel);
    }
}

/// Weights of int16 meet the panel of the core's packed multiply-accumulates.
impl Weight for i16 {
    #[inline(always)]
    fn products<O: Output>(
        s: Shape,
        rows: &mut dyn Rows,
        channels: Channels<'_, Self>,
        output: O,
        y: &mut [O::T],
        buffer: &mut [i8],
        panel: &mut [i32],
    ) {
        products::run::<Dsp, Self, O>(s, rows, channels, output, y, buffer, panel);
    }
}

/// Weights that become bytes.
trait Bytes: Stored {
    /// Words of space for the bytes of a channel.
    fn words(k: usize) -> usize;

    /// The `k` weights of a channel, in `space` where they are stored in another way.
    fn bytes(w: &[Self], space: &mut [i32]) -> *const i8;
}

impl Bytes for i8 {
    #[inline(always)]
    fn words(_: usize) -> usize {
        0
    }

    #[inline(always)]
    fn bytes(w: &[Self], _: &mut [i32]) -> *const i8 {
        w.as_ptr()
    }
}

impl Bytes for u8 {
    #[inline(always)]
    fn words(k: usize) -> usize {
        unpacked_int4_words(k)
    }

    #[inline(always)]
    fn bytes(w: &[Self], space: &mut [i32]) -> *const i8 {
        unpack_int4_row(w, space);
        space.as_ptr().cast()
    }
}

/// See [`super::super::products`]. Once in a firmware for each type of weights and of output.
#[inline(never)]
fn run<W: Bytes, O: Output>(
    s: Shape,
    rows: &mut dyn Rows,
    channels: Channels<'_, W>,
    output: O,
    y: &mut [O::T],
    buffer: &mut [i8],
    panel: &mut [i32],
) {
    let Some((space0, panel)) = panel.split_at_mut_checked(W::words(s.k)) else { return };
    let Some((space1, panel)) = panel.split_at_mut_checked(W::words(s.k)) else { return };
    let block = s.k.div_ceil(VECTOR) * STEP;
    // Beyond that, tiles have one row that is stored.
    let panel_rows = if s.n <= MOST_COLUMNS { panel.len() / block * TILE_ROWS } else { 1 };
    let [zero, lo, hi] = output.range();
    let offset = |r: usize, c: usize| (r * s.n + c) as u16;
    let (whole, rest) = (s.k / VECTOR, s.k % VECTOR);
    for y in y.chunks_mut(panel_rows.saturating_mul(s.n).max(1)) {
        let rows_here = y.len() / s.n;
        let mut missing = rows_here;
        for block in panel.chunks_exact_mut(block) {
            for lane in 0..missing.min(TILE_ROWS) {
                let x = rows.next(buffer);
                let (to, n) = (block.as_mut_ptr().cast::<i8>(), x.len().min(s.k));
                // SAFETY: `n` bytes are read from `x`; `block` has a vector of each row for every sixteen of them.
                unsafe { copy_interleaved(x.as_ptr(), n, to.add(lane * VECTOR)) };
            }
            missing = missing.saturating_sub(TILE_ROWS);
            if missing == 0 {
                break;
            }
        }
        let mut tiles = Tiles {
            x: panel.as_ptr(),
            w: [core::ptr::null(); TILE_COLUMNS],
            turns: Tiles::turns(whole),
            rest,
            y: core::ptr::null_mut(),
            results: 0,
            step: TILE_ROWS * s.n * size_of::<O::T>(),
            zero: i32::from(zero),
            bias: [0; TILE_COLUMNS],
            up: [0; TILE_COLUMNS],
            down: [0; TILE_COLUMNS],
            multiplier: [0; TILE_COLUMNS],
            offsets: core::array::from_fn(|i| offset(i / TILE_COLUMNS, i % TILE_COLUMNS)),
            lo: [lo; RESULTS],
            hi: [hi; RESULTS],
        };
        let mut channels = channels.iter(s.k);
        let mut y = y;
        while let Some(first) = channels.next() {
            // Where there is no second, the first once more, to the same place.
            let second = channels.next().unwrap_or_else(|| {
                tiles.offsets = core::array::from_fn(|i| offset(i / TILE_COLUMNS, 0));
                first
            });
            tiles.w = [W::bytes(first.w, space0), W::bytes(second.w, space1)];
            for (c, Channel { bias, scale, .. }) in [first, second].into_iter().enumerate() {
                tiles.bias[c] = bias;
                tiles.scale(c, scale);
            }
            tiles.y = y.as_mut_ptr().cast();
            tiles.results = rows_here * TILE_COLUMNS;
            // SAFETY: each `w` has `k` values, or whole blocks of as many. The panel has as many tiles as results
            // need: no more rows were asked for. `y` starts at the pair's column of the first of `rows_here` rows,
            // each of `n` elements that are as wide as is stored.
            unsafe {
                match size_of::<O::T>() {
                    1 => tiles_i8(&mut tiles),
                    _ => tiles_i16(&mut tiles),
                }
            }
            y = y.get_mut(TILE_COLUMNS..).unwrap_or_default();
        }
    }
}

/// A vector of four rows and two columns, whose sums are in even registers. `$w0` and `$w1` load the latter, `$load`
/// the former.
macro_rules! vector {
    ($load:literal, $multiply:literal, $w0:literal, $w1:literal) => {
        concat!(
            $w0,
            "\n",
            $w1,
            "\n",
            vector!($load, "q2, [r1], #64"),
            vector!($multiply, "r0, q0, q2"),
            vector!($load, "q3, [r1, #-48]"),
            vector!($multiply, "r8, q1, q2"),
            vector!($load, "q2, [r1, #-32]"),
            vector!($multiply, "r2, q0, q3"),
            vector!($multiply, "r10, q1, q3"),
            vector!($load, "q3, [r1, #-16]"),
            vector!($multiply, "r4, q0, q2"),
            vector!($multiply, "r12, q1, q2"),
            vector!($multiply, "r6, q0, q3"),
            vector!($multiply, "lr, q1, q3")
        )
    };
    (i8, $w0:literal, $w1:literal) => {
        vector!("vldrb.u8", "vmladava.s8", $w0, $w1)
    };
    (i8) => {
        vector!(i8, "vldrb.u8 q0, [r3], #16", "vldrb.u8 q1, [r5], #16")
    };
    (i16) => {
        vector!("vldrh.u16", "vmladava.s16", "vldrh.u16 q0, [r3], #16", "vldrh.u16 q1, [r5], #16")
    };
    // The sums start with it.
    (first i8 $w0:literal, $w1:literal) => {
        vector!("vldrb.u8", "vmladav.s8", $w0, $w1)
    };
    (first i8) => {
        vector!(first i8 "vldrb.u8 q0, [r3], #16", "vldrb.u8 q1, [r5], #16")
    };
    (first i16) => {
        vector!("vldrh.u16", "vmladav.s16", "vldrh.u16 q0, [r3], #16", "vldrh.u16 q1, [r5], #16")
    };
    ($instruction:literal, $operands:literal) => {
        concat!($instruction, " ", $operands, "\n")
    };
}
pub(super) use vector;

/// All whole vectors of a tile; r7: [`Tiles::turns`].
macro_rules! vectors {
    ($type:tt) => {
        concat!(
            "lsrs r7, r7, #1
            bcs 14f
            beq 15f
            13:
            ",
            vector!($type),
            "14:\n",
            vector!($type),
            "subs r7, #1
            bne 13b
            15:
            "
        )
    };
}
pub(super) use vectors;

/// What is left of a tile of int8 rows, r7 values.
macro_rules! rest {
    () => {
        concat!(
            "cbz r7, 16f
            vctp.8 r7
            vpstt
            ",
            // Weights that are missing are zero, whatever they meet.
            vector!(i8, "vldrbt.u8 q0, [r3]", "vldrbt.u8 q1, [r5]"),
            "16:\n"
        )
    };
}
pub(super) use rest;

/// The sums of a tile, those of the first column in q0 and of the second in q1.
macro_rules! sums {
    () => {
        "
        vmov q0[2], q0[0], r0, r4
        vmov q0[3], q0[1], r2, r6
        vmov q1[2], q1[0], r8, r12
        vmov q1[3], q1[1], r10, lr
        "
    };
}
pub(super) use sums;

/// Tiles of four rows and two columns, one below the other, which `$store` stores.
macro_rules! tiles {
    ($store:literal) => {
        naked_asm!(
            isa!(),
            "push {{r3-r11, lr}}",
            "vpush {{d8-d15}}",
            "mov r9, r0",
            "ldr r1, [r9]",
            "ldrd r0, r2, [r9, #60]",
            "vdup.32 q4, r0",
            "vdup.32 q5, r2",
            "vldrw.u32 q6, [r9, #68]",
            "vldrw.u32 q7, [r9, #84]",
            "2:",
            "ldrd r0, r8, [r9, #36]",
            "ldrd r3, r5, [r9, #4]",
            "ldr r7, [r9, #12]",
            "mov r2, r0",
            "mov r4, r0",
            "mov r6, r0",
            "mov r10, r8",
            "mov r12, r8",
            "mov lr, r8",
            vectors!(i8),
            "ldr r7, [r9, #16]",
            rest!(),
            sums!(),
            "ldrd r0, r2, [r9, #44]",
            "ldrd r4, r6, [r9, #52]",
            "vqshl.s32 q0, r0",
            "vqshl.s32 q1, r2",
            "vmulh.s32 q0, q0, q4",
            "vmulh.s32 q1, q1, q5",
            "vrshl.s32 q0, r4",
            "vrshl.s32 q1, r6",
            "ldrd r0, r2, [r9, #20]",
            "ldrd r4, r6, [r9, #28]",
            "vldrw.u32 q2, [r9, #100]",
            // The columns alternate.
            "vqmovnb.s32 q0, q0",
            "vqmovnt.s32 q0, q1",
            "vqadd.s16 q0, q0, r6",
            "vmin.s16 q0, q0, q2",
            "vmax.s16 q0, q0, q7",
            "vctp.16 r2",
            "vpst",
            $store,
            "add r0, r4",
            "subs r2, #8",
            "strd r0, r2, [r9, #20]",
            "bgt 2b",
            "vpop {{d8-d15}}",
            "pop {{r3-r11, pc}}",
        )
    };
}

/// Results of int8.
#[unsafe(naked)]
unsafe extern "C" fn tiles_i8(tiles: *mut Tiles) {
    tiles!("vstrbt.16 q0, [r0, q6]")
}

/// Results of int16.
#[unsafe(naked)]
unsafe extern "C" fn tiles_i16(tiles: *mut Tiles) {
    tiles!("vstrht.16 q0, [r0, q6, uxtw #1]")
}
