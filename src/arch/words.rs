//! Cores that multiply one pair of values at a time: activations are widened to a word each, because
//! several words load at once; weights are read as they are.
#![allow(unsafe_code)]

#[cfg(cortex_m = "v7")]
use super::depthwise::Finish;
use super::depthwise::{self, QUAD, Taps};
#[cfg(cortex_m = "v7")]
use super::products::Scale;
use super::products::{
    Channels, Columns, Core, Multiply, Output, Stored, TILE_ROWS, unpack_int4_row, unpacked_int4_words,
};

#[cfg(any(test, cortex_m))]
pub(super) mod attention;
#[cfg(any(test, cortex_m = "v7"))]
mod softmax;

pub(super) enum Words {}

/// The sums of a tile's rows with one channel.
pub(crate) type Sums = [i32; TILE_ROWS];

impl Core for Words {
    #[inline(always)]
    fn row_words(k: usize) -> usize {
        k
    }

    #[inline(always)]
    fn pair_words(_: usize) -> usize {
        0
    }

    #[inline(never)]
    fn widen(x: &[i8], lane: usize, block: &mut [i32]) {
        let (rows, _) = block.as_chunks_mut::<TILE_ROWS>();
        if x.is_empty() {
            return rows.iter_mut().for_each(|row| row[lane % TILE_ROWS] = 0);
        }
        // Four at a time, for fewer turns.
        let ((fours, rest), (x_fours, x_rest)) = (rows.as_chunks_mut::<4>(), x.as_chunks::<4>());
        for (rows, x) in fours.iter_mut().zip(x_fours) {
            for (row, &x) in rows.iter_mut().zip(x) {
                row[lane % TILE_ROWS] = i32::from(x);
            }
        }
        for (row, &x) in rest.iter_mut().zip(x_rest) {
            row[lane % TILE_ROWS] = i32::from(x);
        }
    }
}

impl<W: Weight> Multiply<W> for Words {
    #[inline(always)]
    fn space_words(k: usize) -> usize {
        W::space_words(k)
    }

    #[inline(always)]
    fn columns<O: Output>(
        channels: Channels<'_, W>,
        k: usize,
        space: &mut [i32],
        panel: &[i32],
        output: O,
        y: &mut [O::T],
        n: usize,
    ) {
        for (channel, j) in channels.iter(k).zip(0..n) {
            let w = W::numbers(channel.w, k, space);
            #[cfg(cortex_m = "v7")]
            if let Some((y, to)) = output.as_i8(y)
                && let Some(scale) = super::products::Scale::new(channel.scale, to)
                && !w.is_empty()
            {
                cortex_m::fill(w, channel.bias, scale, to.lo, panel, Columns { y, n, j });
                continue;
            }
            let blocks = panel.chunks_exact(TILE_ROWS * w.len());
            let tiles =
                blocks.map(|block| sums(block, w, channel.bias).map(|sum| [output.put(channel.scale.apply(sum))]));
            Columns { y: &mut *y, n, j }.store(tiles);
        }
    }
}

/// Weights as they are stored, and how they become numbers that are read one by one.
pub(crate) trait Weight: Stored {
    /// What is read.
    type Number: Number;

    /// Words that the numbers of a channel take.
    fn space_words(_: usize) -> usize {
        0
    }

    /// The `k` weights of a channel, in `space` where they are stored in another way.
    fn numbers<'a>(w: &'a [Self], k: usize, space: &'a mut [i32]) -> &'a [Self::Number];
}

impl Weight for i8 {
    type Number = i8;

    #[inline(always)]
    fn numbers<'a>(w: &'a [Self], _: usize, _: &'a mut [i32]) -> &'a [i8] {
        w
    }
}

impl Weight for i16 {
    type Number = i16;

    #[inline(always)]
    fn numbers<'a>(w: &'a [Self], _: usize, _: &'a mut [i32]) -> &'a [i16] {
        w
    }
}

impl Weight for u8 {
    type Number = i8;

    #[inline(always)]
    fn space_words(k: usize) -> usize {
        unpacked_int4_words(k)
    }

    #[inline(always)]
    fn numbers<'a>(w: &'a [Self], k: usize, space: &'a mut [i32]) -> &'a [i8] {
        unpack_int4_row(w, space);
        // SAFETY: every byte is an i8.
        let (_, bytes, _) = unsafe { space.align_to() };
        bytes.get(..k).unwrap_or_default()
    }
}

/// A number that weights are read as, and the loops for it.
pub(crate) trait Number: Copy + Into<i32> {
    /// Adds the products of four rows of `n > 0` words with `n` weights to `sums`.
    #[cfg(cortex_m)]
    unsafe fn sums(x: *const i32, w: *const Self, n: usize, sums: *mut Sums);

    /// Tiles of one column of int8, one below the other.
    #[cfg(cortex_m = "v7")]
    unsafe fn tiles(tiles: *mut cortex_m::Tiles<Self>);
}

impl Number for i8 {
    #[cfg(cortex_m)]
    #[inline(always)]
    unsafe fn sums(x: *const i32, w: *const Self, n: usize, sums: *mut Sums) {
        // SAFETY: the caller's.
        unsafe { cortex_m::sums(x, w, n, sums) }
    }

    #[cfg(cortex_m = "v7")]
    #[inline(always)]
    unsafe fn tiles(tiles: *mut cortex_m::Tiles<Self>) {
        // SAFETY: the caller's.
        unsafe { cortex_m::tiles_i8(tiles) }
    }
}

impl Number for i16 {
    #[cfg(cortex_m)]
    #[inline(always)]
    unsafe fn sums(x: *const i32, w: *const Self, n: usize, sums: *mut Sums) {
        // SAFETY: the caller's.
        unsafe { cortex_m::sums_i16(x, w, n, sums) }
    }

    #[cfg(cortex_m = "v7")]
    #[inline(always)]
    unsafe fn tiles(tiles: *mut cortex_m::Tiles<Self>) {
        // SAFETY: the caller's.
        unsafe { cortex_m::tiles_i8_w16(tiles) }
    }
}

/// The sums of a block of activations with the weights `w`.
#[inline(always)]
fn sums<N: Number>(block: &[i32], w: &[N], bias: i32) -> Sums {
    #[cfg(cortex_m)]
    if !w.is_empty() && block.len() == TILE_ROWS * w.len() {
        let mut sums = [bias; TILE_ROWS];
        // SAFETY: reads the whole block and the weights, TILE_ROWS words for each, at least one; writes `sums`.
        unsafe { N::sums(block.as_ptr(), w.as_ptr(), w.len(), &mut sums) };
        return sums;
    }
    let (rows, _) = block.as_chunks::<TILE_ROWS>();
    rows.iter().zip(w).fold([bias; TILE_ROWS], |sums, (x, &w)| {
        let w: i32 = w.into();
        core::array::from_fn(|i| sums[i] + x[i] * w)
    })
}

/// The sums of four rows of words with the int16 values of `column`, two to a word; without a partner the
/// last counts only the lower half.
#[cfg(any(test, cortex_m))]
#[inline(always)]
fn sums_i16(block: &[i32], column: &[i32]) -> Sums {
    #[cfg(cortex_m)]
    if !block.is_empty() && block.len().div_ceil(2 * TILE_ROWS) == column.len() {
        let mut sums = Sums::default();
        // SAFETY: reads the whole block, of as many rows as there are values in the column but one, at least one;
        // writes `sums`.
        unsafe { cortex_m::sums_i16(block.as_ptr(), column.as_ptr().cast(), block.len() / TILE_ROWS, &mut sums) };
        return sums;
    }
    let values = column.iter().flat_map(|word| {
        let [a0, a1, b0, b1] = word.to_ne_bytes();
        [[a0, a1], [b0, b1]].map(|value| i32::from(i16::from_ne_bytes(value)))
    });
    let (rows, _) = block.as_chunks::<TILE_ROWS>();
    rows.iter()
        .zip(values)
        .fold(Sums::default(), |sums, (x, w)| core::array::from_fn(|i| sums[i].wrapping_add(x[i].wrapping_mul(w))))
}

impl depthwise::Core for Words {
    const WORDS: usize = QUAD;

    #[inline(always)]
    fn widen(quad: [i8; QUAD], to: &mut [i32]) {
        to.iter_mut().zip(quad).for_each(|(to, value)| *to = i32::from(value));
    }

    #[cfg(cortex_m = "v7")]
    #[inline(always)]
    fn widen_pixels(x: &[i8], c: usize, to: &mut [i32]) {
        let n = to.len() / QUAD;
        if n > 0 && (n - 1) * c + QUAD <= x.len() {
            // SAFETY: every pixel's four values lie inside `x`, as was just asked, and its words inside `to`.
            unsafe { cortex_m::widen_pixels(x.as_ptr(), c, to.as_mut_ptr(), n) };
        }
    }

    #[cfg(cortex_m = "v7")]
    #[inline(always)]
    fn finish(sums: &[depthwise::Sums], scales: &[Scale; QUAD], lo: i32, y: &mut [i8], c: usize) {
        if let Some(mut finish) = Finish::new(sums, scales, lo, y, c) {
            // SAFETY: `y` has room for all pixels: `Finish::new` saw to it.
            unsafe { cortex_m::finish_pixels(&mut finish) };
        }
    }

    #[inline(always)]
    fn add(taps: Taps, strip: &[i32], weights: &[i32], sums: &mut [depthwise::Sums]) {
        #[cfg(cortex_m)]
        if let Some(mut row) = depthwise::Row::new::<Self>(taps, strip, weights, sums) {
            // SAFETY: all that is read lies inside both slices: `Row::new` saw to it.
            unsafe { cortex_m::add(&mut row) };
        }
        #[cfg(not(cortex_m))]
        for (pixel, sums) in sums.iter_mut().enumerate() {
            let rows = strip.get(pixel * taps.stride..).unwrap_or_default().chunks(taps.row).take(taps.rows);
            for (x, w) in rows.zip(weights.chunks_exact(taps.taps * QUAD)) {
                for (x, w) in x.as_chunks::<QUAD>().0.iter().zip(w.as_chunks::<QUAD>().0) {
                    *sums = core::array::from_fn(|i| sums[i] + x[i] * w[i]);
                }
            }
        }
    }
}

#[cfg(cortex_m)]
mod cortex_m {
    use super::Sums;
    use crate::arch::depthwise;
    #[cfg(cortex_m = "v7")]
    use crate::arch::products::{Columns, Scale, TILE_ROWS};
    #[cfg(cortex_m = "v7")]
    use crate::arch::softmax::Keys;
    use core::arch::naked_asm;
    #[cfg(cortex_m = "v7")]
    use core::ops::Range;

    /// Adds the taps of every pixel to its sums. The taps of a row are entered so far from their end as
    /// there are taps.
    #[cfg(cortex_m = "v7")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn add(row: *mut depthwise::Row) {
        macro_rules! tap {
            () => {
                "
                ldmia.w r0!, {{r8-r11}}
                ldmia.w r1!, {{r2, r3}}
                mla r4, r8, r2, r4
                mla r5, r9, r3, r5
                ldmia.w r1!, {{r2, r3}}
                mla r6, r10, r2, r6
                mla r7, r11, r3, r7
                "
            };
        }
        naked_asm!(
            "ldr r1, [r0, #16]",
            "push {{r0, r1, r4-r11, lr}}",
            "ldr r12, [r0, #20]",
            "ldr r1, [r0, #24]",
            "rsb r1, #8",
            "movs r2, #28",
            "adr lr, 5f",
            "mla lr, r1, r2, lr",
            "orr lr, #1",
            "2:",
            "ldr r2, [sp]",
            "ldr r0, [r2]",
            "ldr r1, [r2, #4]",
            "ldr r3, [r2, #8]",
            "ldm r3, {{r4-r7}}",
            "3:",
            "bx lr",
            ".p2align 2",
            "5:",
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            "ldr r2, [sp, #4]",
            "add r0, r12",
            "cmp r1, r2",
            "bne 3b",
            "ldr r2, [sp]",
            "ldr r3, [r2, #8]",
            "stmia r3!, {{r4-r7}}",
            "str r3, [r2, #8]",
            "ldr r0, [r2]",
            "ldr r3, [r2, #28]",
            "add r0, r3",
            "str r0, [r2]",
            "ldr r3, [r2, #32]",
            "subs r3, #1",
            "str r3, [r2, #32]",
            "bne 2b",
            "add sp, #8",
            "pop {{r4-r11, pc}}",
        )
    }

    /// Widens `n > 0` pixels of four channels, `c` values apart.
    #[cfg(cortex_m = "v7")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn widen_pixels(x: *const i8, c: usize, to: *mut i32, n: usize) {
        naked_asm!(
            "push {{r4-r7}}",
            "1:",
            "ldrsb r4, [r0]",
            "ldrsb r5, [r0, #1]",
            "ldrsb r6, [r0, #2]",
            "ldrsb r7, [r0, #3]",
            "add r0, r1",
            "stmia r2!, {{r4-r7}}",
            "subs r3, #1",
            "bne 1b",
            "pop {{r4-r7}}",
            "bx lr",
        )
    }

    /// Requantises and stores.
    #[cfg(cortex_m = "v7")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn finish_pixels(finish: *mut depthwise::Finish<'_>) {
        macro_rules! lane {
            ($r:literal, $at:literal) => {
                concat!(
                    "ldmia r11!, {{r8-r10}}\n",
                    "smull r8, ",
                    $r,
                    ", ",
                    $r,
                    ", r8\n",
                    "add ",
                    $r,
                    ", r9\n",
                    "asr ",
                    $r,
                    ", r10\n",
                    "ssat ",
                    $r,
                    ", #8, ",
                    $r,
                    "\n",
                    "cmp ",
                    $r,
                    ", lr\n",
                    "it lt\n",
                    "movlt ",
                    $r,
                    ", lr\n",
                    "strb ",
                    $r,
                    ", [r2, #",
                    $at,
                    "]\n"
                )
            };
        }
        naked_asm!(
            "push {{r4-r11, lr}}",
            "ldm r0, {{r0-r3, r12, lr}}",
            "sxtb lr, lr",
            "1:",
            "ldmia r1!, {{r4-r7}}",
            "mov r11, r0",
            lane!("r4", "0"),
            lane!("r5", "1"),
            lane!("r6", "2"),
            lane!("r7", "3"),
            "add r2, r3",
            "subs r12, #1",
            "bne 1b",
            "pop {{r4-r11, pc}}",
        )
    }

    /// As [`add`] above, in the registers and instructions of ARMv6-M: sums are in the high registers,
    /// products overwrite the words.
    #[cfg(cortex_m = "v6")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn add(row: *mut depthwise::Row) {
        macro_rules! tap {
            () => {
                "
                ldm r0!, {{r4-r7}}
                ldm r1!, {{r2, r3}}
                muls r4, r2, r4
                add r8, r4
                muls r5, r3, r5
                add r9, r5
                ldm r1!, {{r2, r3}}
                muls r6, r2, r6
                add r10, r6
                muls r7, r3, r7
                add r11, r7
                "
            };
        }
        naked_asm!(
            "push {{r4-r7, lr}}",
            "mov r4, r8",
            "mov r5, r9",
            "mov r6, r10",
            "mov r7, r11",
            "ldr r1, [r0, #20]",
            "push {{r0, r1, r4-r7}}",
            "ldr r1, [r0, #16]",
            "mov r12, r1",
            "ldr r1, [r0, #24]",
            "movs r2, #8",
            "subs r2, r2, r1",
            "movs r1, #22",
            "muls r2, r1, r2",
            "adr r1, 5f",
            "adds r1, r1, r2",
            "adds r1, #1",
            "mov lr, r1",
            "2:",
            "ldr r2, [sp]",
            "ldr r3, [r2, #8]",
            "ldm r3!, {{r4-r7}}",
            "mov r8, r4",
            "mov r9, r5",
            "mov r10, r6",
            "mov r11, r7",
            "ldr r0, [r2]",
            "ldr r1, [r2, #4]",
            "3:",
            "bx lr",
            ".p2align 2",
            "5:",
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            tap!(),
            "ldr r2, [sp, #4]",
            "adds r0, r0, r2",
            "cmp r1, r12",
            "bne 3b",
            "ldr r2, [sp]",
            "ldr r3, [r2, #8]",
            "mov r4, r8",
            "mov r5, r9",
            "mov r6, r10",
            "mov r7, r11",
            "stm r3!, {{r4-r7}}",
            "str r3, [r2, #8]",
            "ldr r0, [r2]",
            "ldr r3, [r2, #28]",
            "adds r0, r0, r3",
            "str r0, [r2]",
            "ldr r3, [r2, #32]",
            "subs r3, #1",
            "str r3, [r2, #32]",
            "bne 2b",
            "pop {{r0, r1, r4-r7}}",
            "mov r8, r4",
            "mov r9, r5",
            "mov r10, r6",
            "mov r11, r7",
            "pop {{r4-r7, pc}}",
        )
    }

    /// One weight with four words: six instructions for four products. `load` is the load of the weight.
    #[cfg(cortex_m = "v7")]
    macro_rules! weight {
        ($load:literal) => {
            concat!(
                $load,
                "
                ldmia r0!, {{r8-r11}}
                mla r4, r8, r12, r4
                mla r5, r9, r12, r5
                mla r6, r10, r12, r6
                mla r7, r11, r12, r7
                "
            )
        };
    }
    /// Adds to r4 to r7 the products of the `r2 > 0` weights at r1 with four words each from r0 on.
    #[cfg(cortex_m = "v7")]
    macro_rules! multiply {
        () => {
            multiply!("ldrsb r12, [r1], #1")
        };
        ($load:literal) => {
            concat!(
                "subs r2, #8
                blo 12f
                11:",
                weight!($load),
                weight!($load),
                weight!($load),
                weight!($load),
                weight!($load),
                weight!($load),
                weight!($load),
                weight!($load),
                "subs r2, #8
                bhs 11b
                12:
                adds r2, #8
                beq 14f
                13:",
                weight!($load),
                "subs r2, #1
                bne 13b
                14:
                "
            )
        };
    }

    /// What [`tiles_i8`] is told.
    #[cfg(cortex_m = "v7")]
    #[repr(C)]
    pub(crate) struct Tiles<N> {
        x: *const i32,
        w: *const N,
        k: usize,
        y: *mut i8,
        n: usize,
        x_end: *const i32,
        bias: i32,
        lo: i32,
        scale: Scale,
    }

    /// The results of one channel, in int8.
    #[cfg(cortex_m = "v7")]
    #[inline(always)]
    pub(super) fn fill<N: super::Number>(
        w: &[N],
        bias: i32,
        scale: Scale,
        lo: i32,
        panel: &[i32],
        columns: Columns<'_, i8>,
    ) {
        columns.fill::<1>(panel, TILE_ROWS * w.len(), |panel, y, n| {
            let (Range { start: x, end: x_end }, y) = (panel.as_ptr_range(), y.as_mut_ptr());
            // SAFETY: there is at least one weight, every block of the panel has TILE_ROWS words for each, and `y`
            // room for an element of each row, `n` apart.
            unsafe { N::tiles(&mut Tiles { x, w: w.as_ptr(), k: w.len(), y, n, x_end, bias, lo, scale }) };
        });
    }

    /// Requantises a sum, and stores it.
    #[cfg(cortex_m = "v7")]
    macro_rules! finish {
        ($r:literal, $to:literal) => {
            concat!(
                "smull r12, ",
                $r,
                ", ",
                $r,
                ", r8\n",
                "add ",
                $r,
                ", r9\n",
                "asr ",
                $r,
                ", r10\n",
                "ssat ",
                $r,
                ", #8, ",
                $r,
                "\n",
                "cmp ",
                $r,
                ", r11\n",
                "it lt\n",
                "movlt ",
                $r,
                ", r11\n",
                "strb ",
                $r,
                ", ",
                $to,
                "\n",
            )
        };
    }
    /// Tiles of one column of int8, one below the other; `$load` loads a weight.
    #[cfg(cortex_m = "v7")]
    macro_rules! tiles {
        ($load:literal) => {
            naked_asm!(
                "push {{r0, r4-r11, lr}}",
                "mov r3, r0",
                "ldr r0, [r3]",
                "2:",
                "ldr r1, [r3, #4]",
                "ldr r2, [r3, #8]",
                "ldr r4, [r3, #24]",
                "mov r5, r4",
                "mov r6, r4",
                "mov r7, r4",
                multiply!($load),
                "ldr r3, [sp]",
                "ldr r1, [r3, #12]",
                "ldr r2, [r3, #16]",
                "ldr r11, [r3, #28]",
                "ldr r8, [r3, #32]",
                "ldr r9, [r3, #36]",
                "ldr r10, [r3, #40]",
                finish!("r4", "[r1]"),
                finish!("r5", "[r1, r2]"),
                "add r1, r1, r2, lsl #1",
                finish!("r6", "[r1]"),
                finish!("r7", "[r1, r2]"),
                "add r1, r1, r2, lsl #1",
                "str r1, [r3, #12]",
                "ldr r2, [r3, #20]",
                "cmp r0, r2",
                "bne 2b",
                "add sp, #4",
                "pop {{r4-r11, pc}}",
            )
        };
    }

    /// With weights of int8.
    #[cfg(cortex_m = "v7")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn tiles_i8(tiles: *mut Tiles<i8>) {
        tiles!("ldrsb r12, [r1], #1")
    }

    /// With weights of int16.
    #[cfg(cortex_m = "v7")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn tiles_i8_w16(tiles: *mut Tiles<i16>) {
        tiles!("ldrsh r12, [r1], #2")
    }

    /// The scores of four queries with one key after the other, at least one, and the largest so far.
    #[cfg(cortex_m = "v7")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn scores(keys: *mut Keys) {
        macro_rules! larger {
            ($than:literal, $score:literal) => {
                concat!("cmp ", $score, ", ", $than, "\nit gt\nmovgt ", $than, ", ", $score, "\n")
            };
        }
        naked_asm!(
            "push {{r4-r11}}",
            "mov r3, r0",
            "ldr r1, [r3, #20]",
            "2:",
            "ldr r0, [r3, #16]",
            "ldr r2, [r3, #24]",
            "movs r4, #0",
            "movs r5, #0",
            "movs r6, #0",
            "movs r7, #0",
            multiply!(),
            "ldrd r8, r9, [r3, #32]",
            "strd r4, r5, [r8], #8",
            "strd r6, r7, [r9], #8",
            "strd r8, r9, [r3, #32]",
            "ldm r3, {{r8-r11}}",
            larger!("r8", "r4"),
            larger!("r9", "r5"),
            larger!("r10", "r6"),
            larger!("r11", "r7"),
            "stm r3, {{r8-r11}}",
            "ldr r2, [r3, #28]",
            "ldr r4, [r3, #40]",
            "add r1, r2",
            "subs r4, #1",
            "str r4, [r3, #40]",
            "bne 2b",
            "pop {{r4-r11}}",
            "bx lr",
        )
    }

    /// Adds the products of four rows of `n > 0` words with `n` weights to `sums`.
    #[cfg(cortex_m = "v7")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn sums(x: *const i32, w: *const i8, n: usize, sums: *mut Sums) {
        naked_asm!("push {{r4-r11}}", "ldm r3, {{r4-r7}}", multiply!(), "stm r3, {{r4-r7}}", "pop {{r4-r11}}", "bx lr",)
    }

    /// As [`sums`], with weights of int16.
    #[cfg(cortex_m = "v7")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn sums_i16(x: *const i32, w: *const i16, n: usize, sums: *mut Sums) {
        naked_asm!(
            "push {{r4-r11}}",
            "ldm r3, {{r4-r7}}",
            multiply!("ldrsh r12, [r1], #2"),
            "stm r3, {{r4-r7}}",
            "pop {{r4-r11}}",
            "bx lr",
        )
    }

    /// Adds products to `sums`, in the registers and instructions of ARMv6-M: sums are in the high registers,
    /// products overwrite the words. From the end of the weights r7 counts up to zero.
    #[cfg(cortex_m = "v6")]
    macro_rules! sums {
        ($bytes:literal, $load:literal, $next:literal) => {
            naked_asm!(
                "push {{r4-r7, lr}}",
                "mov r4, r8",
                "mov r5, r9",
                "mov r6, r10",
                "mov r7, r11",
                "push {{r3-r7}}",
                "ldm r3!, {{r4-r7}}",
                "mov r8, r4",
                "mov r9, r5",
                "mov r10, r6",
                "mov r11, r7",
                $bytes,
                "adds r1, r1, r2",
                "rsbs r7, r2, #0",
                "1:",
                $load,
                "ldm r0!, {{r3-r6}}",
                "muls r3, r2, r3",
                "add r8, r3",
                "muls r4, r2, r4",
                "add r9, r4",
                "muls r5, r2, r5",
                "add r10, r5",
                "muls r6, r2, r6",
                "add r11, r6",
                $next,
                "bne 1b",
                "pop {{r3}}",
                "mov r4, r8",
                "mov r5, r9",
                "mov r6, r10",
                "mov r7, r11",
                "stm r3!, {{r4-r7}}",
                "pop {{r4-r7}}",
                "mov r8, r4",
                "mov r9, r5",
                "mov r10, r6",
                "mov r11, r7",
                "pop {{r4-r7, pc}}",
            )
        };
    }

    /// Adds the products of four rows of `n > 0` words with `n` weights to `sums`.
    #[cfg(cortex_m = "v6")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn sums(x: *const i32, w: *const i8, n: usize, sums: *mut Sums) {
        sums!("", "ldrsb r2, [r1, r7]", "adds r7, #1")
    }

    /// As [`sums`], with weights of int16.
    #[cfg(cortex_m = "v6")]
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn sums_i16(x: *const i32, w: *const i16, n: usize, sums: *mut Sums) {
        sums!("lsls r2, r2, #1", "ldrsh r2, [r1, r7]", "adds r7, #2")
    }
}
