//! Cortex-M cores with packed multiply-accumulates (M4, M7, M33, and where Helium has no loops): `SMLAD` adds two
//! int16 products at once. A word of a panel holds two of four neighbouring values, 0 and 2 or 1 and 3, as
//! `SXTB16` leaves them; the words of a tile's rows, and of its columns, alternate.
//!
//! Bytes are loaded and stored four at a time wherever they lie: memory is normal, and `UNALIGN_TRP` is
//! clear, as after reset.
#![allow(unsafe_code)]

use super::depthwise::{self, Finish, QUAD, Row, Sums, Taps};
use super::products::{
    Columns, Core, INT4, INT4_BYTES, Multiply, Output, Pair, Scale, Stored, TILE_COLUMNS, TILE_ROWS,
};
use core::arch::{asm, naked_asm};
use core::mem::MaybeUninit;
use core::ops::Range;

pub(super) enum Dsp {}

/// Values that are widened together, and the words they take.
const GROUP: usize = 4;
const GROUP_WORDS: usize = 2;
/// The sums of a tile.
type Tile = [[i32; TILE_COLUMNS]; TILE_ROWS];
/// Words of a group of a tile's rows and columns.
const ROWS_STEP: usize = TILE_ROWS * GROUP_WORDS;
const COLUMNS_STEP: usize = TILE_COLUMNS * GROUP_WORDS;

/// The values of a group that is not full, and zeros.
#[inline(always)]
fn padded(rest: &[i8]) -> [i8; GROUP] {
    core::array::from_fn(|i| rest.get(i).copied().unwrap_or(0))
}

impl Core for Dsp {
    #[inline(always)]
    fn row_words(k: usize) -> usize {
        k.div_ceil(GROUP) * GROUP_WORDS
    }

    #[inline(always)]
    fn pair_words(k: usize) -> usize {
        TILE_COLUMNS * Self::row_words(k)
    }

    #[inline(never)]
    fn widen(x: &[i8], lane: usize, block: &mut [i32]) {
        widen_by(widen, x, lane, block);
    }
}

/// Widens a row by `widen`, or [`widen_in_order`].
#[inline(always)]
fn widen_by(
    widen: unsafe extern "C" fn(*const [i8; GROUP], usize, *mut i32),
    x: &[i8],
    lane: usize,
    block: &mut [i32],
) {
    let (groups, rest) = x.as_chunks();
    let Some((whole, last)) = block.split_at_mut_checked(groups.len() * ROWS_STEP) else { return };
    if !groups.is_empty() && lane < TILE_ROWS {
        // SAFETY: reads all groups and writes two words of each step of `whole`, at `lane` and TILE_ROWS after it.
        unsafe { widen(groups.as_ptr(), groups.len(), whole.as_mut_ptr().add(lane)) };
    }
    if last.len() == ROWS_STEP && lane < TILE_ROWS {
        // SAFETY: as above, for one group and one step.
        unsafe { widen(&padded(rest), 1, last.as_mut_ptr().add(lane)) };
    } else {
        // A row that is missing.
        last.iter_mut().skip(lane).step_by(TILE_ROWS).for_each(|word| *word = 0);
    }
}

impl<W: Weight> Multiply<W> for Dsp {
    #[inline(always)]
    fn widen_row(x: &[i8], lane: usize, block: &mut [i32]) {
        W::widen_row(x, lane, block);
    }

    #[inline(always)]
    fn pair<O: Output>(
        pair: Pair<'_, W>,
        _: usize,
        space: &mut [i32],
        panel: &[i32],
        output: O,
        columns: Columns<'_, O::T>,
    ) {
        W::widen_columns(pair.map(|channel| channel.w), space);
        if space.is_empty() || space.len() % COLUMNS_STEP != 0 {
            return;
        }
        let block = space.len() / TILE_COLUMNS * TILE_ROWS;
        let Range { start: w, end: w_end } = space.as_ptr_range();
        let bias = pair.map(|channel| channel.bias);
        let Columns { y, n, j } = columns;
        if let Some((y, to)) = output.as_i8(y)
            && let [Some(scale0), Some(scale1)] = pair.map(|channel| Scale::new(channel.scale, to))
        {
            let lo = u32::from_ne_bytes([to.lo as i8 as u8; 4]);
            return Columns { y, n, j }.fill::<TILE_COLUMNS>(panel, block, |panel, y, n| {
                let (Range { start: x, end: x_end }, y) = (panel.as_ptr_range(), y.as_mut_ptr());
                // SAFETY: the weights have at least one group, every block of the panel as many, and `y` room for
                // two elements of each row, `n` apart.
                unsafe { tiles_i8(&mut Tiles { x, w, w_end, y, n, x_end, bias, scales: [scale0, scale1], lo }) };
            });
        }
        let [a, b] = pair.map(|channel| channel.scale);
        let tiles = panel.chunks_exact(block).map(|block| {
            let mut sums = MaybeUninit::uninit();
            // SAFETY: the weights have at least one group, the block as many; all of `sums` is written.
            let sums: Tile = unsafe {
                tile_sums(block.as_ptr(), w, w_end, &mut sums, bias[0], bias[1]);
                sums.assume_init()
            };
            sums.map(|sums| [output.put(a.apply(sums[0])), output.put(b.apply(sums[1]))])
        });
        Columns { y, n, j }.store(tiles);
    }
}

/// Weights as they are stored, and how they meet a panel.
pub(crate) trait Weight: Stored {
    /// Widens a row of activations.
    #[inline(always)]
    fn widen_row(x: &[i8], lane: usize, block: &mut [i32]) {
        <Dsp as Core>::widen(x, lane, block);
    }

    /// Widens the weights of a tile into `space`.
    fn widen_columns(columns: [&[Self]; TILE_COLUMNS], space: &mut [i32]);
}

impl Weight for i8 {
    #[inline(always)]
    fn widen_columns(columns: [&[Self]; TILE_COLUMNS], space: &mut [i32]) {
        widen_columns(columns, space);
    }
}

/// Int4: a block of weights is two groups.
impl Weight for u8 {
    #[inline(always)]
    fn widen_columns([w0, w1]: [&[Self]; TILE_COLUMNS], space: &mut [i32]) {
        const BLOCK: usize = INT4 / GROUP * COLUMNS_STEP;
        let ((w0, _), (w1, _)) = (w0.as_chunks::<INT4_BYTES>(), w1.as_chunks::<INT4_BYTES>());
        let blocks = w0.len().min(w1.len()).min(space.len() / BLOCK);
        let Some((whole, last)) = space.split_at_mut_checked(blocks * BLOCK) else { return };
        if blocks > 0 {
            // SAFETY: reads that many blocks of both and writes as many, which `whole` has.
            unsafe { widen_pair_int4(w0.as_ptr(), w1.as_ptr(), blocks, whole.as_mut_ptr()) };
        }
        if let (Some(w0), Some(w1)) = (w0.get(blocks), w1.get(blocks)) {
            // Of the last block only the first group counts.
            let mut block = [0; BLOCK];
            // SAFETY: as above, for one block.
            unsafe { widen_pair_int4(w0, w1, 1, block.as_mut_ptr()) };
            last.iter_mut().zip(block).for_each(|(to, word)| *to = word);
        }
    }
}

/// Int16: neighbours are in a word as they are stored, and so are those of the panel.
impl Weight for i16 {
    #[inline(never)]
    fn widen_row(x: &[i8], lane: usize, block: &mut [i32]) {
        widen_by(widen_in_order, x, lane, block);
    }

    #[inline(always)]
    fn widen_columns([w0, w1]: [&[Self]; TILE_COLUMNS], space: &mut [i32]) {
        /// Values of a column that are copied together.
        const RUN: usize = 8;
        let is_aligned = |w: &[i16]| w.as_ptr().addr().is_multiple_of(align_of::<i32>());
        let runs = if is_aligned(w0) && is_aligned(w1) { w0.len().min(w1.len()) / RUN } else { 0 };
        let runs = runs.min(space.len() / (RUN / GROUP * COLUMNS_STEP));
        let Some((whole, last)) = space.split_at_mut_checked(runs * (RUN / GROUP * COLUMNS_STEP)) else { return };
        if runs > 0 {
            // SAFETY: both are at multiples of four; reads that many runs of each and writes as many words, which
            // `whole` has.
            unsafe { alternate(w0.as_ptr().cast(), w1.as_ptr().cast(), runs, whole.as_mut_ptr()) };
        }
        let word = |w: &[i16], i: usize| {
            let [low, high] = [0, 1].map(|at| w.get(runs * RUN + 2 * i + at).copied().unwrap_or(0));
            i32::from(low as u16) | i32::from(high) << 16
        };
        for (i, words) in last.as_chunks_mut().0.iter_mut().enumerate() {
            *words = [word(w0, i), word(w1, i)];
        }
    }
}

/// Widens the weights of a tile into `space`.
#[inline(always)]
fn widen_columns([w0, w1]: [&[i8]; TILE_COLUMNS], space: &mut [i32]) {
    let ((w0, rest0), (w1, rest1)) = (w0.as_chunks(), w1.as_chunks());
    let groups = w0.len().min(w1.len());
    let Some((whole, last)) = space.split_at_mut_checked(groups * COLUMNS_STEP) else { return };
    if groups > 0 {
        // SAFETY: reads that many groups of both and writes as many steps, which `whole` has.
        unsafe { widen_pair(w0.as_ptr(), w1.as_ptr(), groups, whole.as_mut_ptr()) };
    }
    if last.len() == COLUMNS_STEP {
        // SAFETY: as above, for one group and one step.
        unsafe { widen_pair(&padded(rest0), &padded(rest1), 1, last.as_mut_ptr()) };
    }
}

/// What [`tiles_i8`] is told.
#[repr(C)]
struct Tiles {
    x: *const i32,
    w: *const i32,
    w_end: *const i32,
    y: *mut i8,
    n: usize,
    x_end: *const i32,
    bias: [i32; TILE_COLUMNS],
    scales: [Scale; TILE_COLUMNS],
    /// The smallest result, four times.
    lo: u32,
}

/// The assembler of a naked function knows the target but not the CPU of a Cortex-M33's flags: this names
/// the architecture that all instructions here are of.
macro_rules! isa {
    () => {
        ".arch armv7e-m"
    };
}

/// Widens `n > 0` groups into the words `to[0]` and `to[4]` of every eight.
#[unsafe(naked)]
unsafe extern "C" fn widen(x: *const [i8; GROUP], n: usize, to: *mut i32) {
    naked_asm!(
        isa!(),
        "1:",
        "ldr r3, [r0], #4",
        "sxtb16 r12, r3",
        "sxtb16 r3, r3, ror #8",
        "str r12, [r2], #16",
        "str r3, [r2], #16",
        "subs r1, #1",
        "bne 1b",
        "bx lr",
    )
}

/// Widens `n > 0` groups of two columns: first and second column, values 0 and 2; then values 1 and 3.
#[unsafe(naked)]
unsafe extern "C" fn widen_pair(w0: *const [i8; GROUP], w1: *const [i8; GROUP], n: usize, to: *mut i32) {
    naked_asm!(
        isa!(),
        "push {{r4-r7}}",
        "1:",
        "ldr r6, [r0], #4",
        "ldr r7, [r1], #4",
        "sxtb16 r4, r6",
        "sxtb16 r5, r7",
        "sxtb16 r6, r6, ror #8",
        "sxtb16 r7, r7, ror #8",
        "stmia r3!, {{r4-r7}}",
        "subs r2, #1",
        "bne 1b",
        "pop {{r4-r7}}",
        "bx lr",
    )
}

/// As [`widen`], with values 0 and 1 in the one word and 2 and 3 in the other.
#[unsafe(naked)]
unsafe extern "C" fn widen_in_order(x: *const [i8; GROUP], n: usize, to: *mut i32) {
    naked_asm!(
        isa!(),
        "push {{r4}}",
        "1:",
        "ldr r3, [r0], #4",
        "sxtb16 r12, r3",
        "sxtb16 r3, r3, ror #8",
        "pkhbt r4, r12, r3, lsl #16",
        "pkhtb r3, r3, r12, asr #16",
        "str r4, [r2], #16",
        "str r3, [r2], #16",
        "subs r1, #1",
        "bne 1b",
        "pop {{r4}}",
        "bx lr",
    )
}

/// As [`widen_pair`], from `n > 0` blocks of int4, each of which becomes two groups. A half byte, its sign bit
/// flipped, is 8 more than it stands for.
#[unsafe(naked)]
unsafe extern "C" fn widen_pair_int4(w0: *const [u8; INT4_BYTES], w1: *const [u8; INT4_BYTES], n: usize, to: *mut i32) {
    naked_asm!(
        isa!(),
        "push {{r4-r9, lr}}",
        "mov r12, #0x08080808",
        "mov lr, #0x0f0f0f0f",
        "1:",
        "ldr r6, [r0], #4",
        "ldr r7, [r1], #4",
        "eor r6, #0x88888888",
        "eor r7, #0x88888888",
        "and r4, lr, r6",
        "and r5, lr, r7",
        "and r8, lr, r6, lsr #4",
        "and r9, lr, r7, lsr #4",
        "ssub8 r4, r4, r12",
        "ssub8 r5, r5, r12",
        "ssub8 r8, r8, r12",
        "ssub8 r9, r9, r12",
        "sxtb16 r6, r4, ror #8",
        "sxtb16 r7, r5, ror #8",
        "sxtb16 r4, r4",
        "sxtb16 r5, r5",
        "stmia r3!, {{r4-r7}}",
        "sxtb16 r4, r8",
        "sxtb16 r5, r9",
        "sxtb16 r6, r8, ror #8",
        "sxtb16 r7, r9, ror #8",
        "stmia r3!, {{r4-r7}}",
        "subs r2, #1",
        "bne 1b",
        "pop {{r4-r9, pc}}",
    )
}

/// `n > 0` times four words of two columns, alternating.
#[unsafe(naked)]
unsafe extern "C" fn alternate(w0: *const i32, w1: *const i32, n: usize, to: *mut i32) {
    naked_asm!(
        isa!(),
        "push {{r4-r11}}",
        "1:",
        "ldmia r0!, {{r4, r6, r8, r10}}",
        "ldmia r1!, {{r5, r7, r9, r11}}",
        "stmia r3!, {{r4-r11}}",
        "subs r2, #1",
        "bne 1b",
        "pop {{r4-r11}}",
        "bx lr",
    )
}

/// Where [`multiply`] enters its loop, into `[sp]`: so far behind its start that what is left at the end
/// are whole turns. r1 and r2: weights and their end, 16 bytes for each group of 96 bytes of code.
macro_rules! enter {
    () => {
        "
        sub r12, r1, r2
        and r12, #48
        add r12, r12, r12, lsl #1
        adr lr, 11f
        add lr, lr, r12, lsl #1
        orr lr, #1
        str lr, [sp]
        "
    };
}
/// The sums of a tile in r4 to r11, row by row, which hold the biases of the first row in r4 and r5. With
/// `add` all of r4 to r11 hold what is added to, and what is left of a turn comes first by branches.
///
/// r0: activations, moved on; r1: weights, whose end is at `[sp, #4]`.
macro_rules! multiply {
    () => {
        concat!(
            "ldr r2, [sp]
            mov r6, r4
            mov r7, r5
            mov r8, r4
            mov r9, r5
            mov r10, r4
            mov r11, r5
            bx r2
            .p2align 2
            ",
            turns!()
        )
    };
    (add) => {
        concat!(
            "ldr r2, [sp, #4]
            sub r2, r1
            lsls r2, r2, #27
            bcs 12f
            bmi 14f
            b 11f
            12:
            bpl 15f
            b 13f
            ",
            turns!()
        )
    };
}
/// Four groups of rows and columns a turn. Loads follow each other where they can: the second takes a cycle
/// less.
macro_rules! turns {
    () => {
        concat!(
            "11:",
            group!(),
            "13:",
            group!(),
            "15:",
            group!(),
            "14:",
            group!(),
            "ldr r2, [sp, #4]
            cmp r1, r2
            bne 11b
            "
        )
    };
}
/// Two words of every row and column.
macro_rules! group {
    () => {
        concat!(word!(), word!())
    };
}
macro_rules! word {
    () => {
        "
        ldrd r2, r3, [r1], #8
        ldr r12, [r0], #4
        ldr lr, [r0], #4
        smlad r4, r12, r2, r4
        smlad r5, r12, r3, r5
        smlad r6, lr, r2, r6
        smlad r7, lr, r3, r7
        ldrd r12, lr, [r0], #8
        smlad r8, r12, r2, r8
        smlad r9, r12, r3, r9
        smlad r10, lr, r2, r10
        smlad r11, lr, r3, r11
        "
    };
}

pub(super) mod attention;
pub(super) mod layer_norm;
pub(super) mod window;

/// The sums of one tile.
#[unsafe(naked)]
unsafe extern "C" fn tile_sums(
    x: *const i32,
    w: *const i32,
    w_end: *const i32,
    sums: *mut MaybeUninit<Tile>,
    bias0: i32,
    bias1: i32,
) {
    naked_asm!(
        isa!(),
        // w_end is to lie at [sp, #4], sums at [sp, #8].
        "push {{r1-r11, lr}}",
        "ldrd r4, r5, [sp, #48]",
        enter!(),
        multiply!(),
        "ldr r3, [sp, #8]",
        "stmia r3, {{r4-r11}}",
        "add sp, #12",
        "pop {{r4-r11, pc}}",
    )
}

/// Tiles of int8, one below the other.
#[unsafe(naked)]
unsafe extern "C" fn tiles_i8(tiles: *mut Tiles) {
    macro_rules! requantise {
        ($at:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ldr r1, [r12, #",
                $at,
                "]\n",
                "ldr r2, [r12, #",
                $at,
                " + 4]\n",
                "ldr r3, [r12, #",
                $at,
                " + 8]\n",
                requantise!($a),
                requantise!($b),
                requantise!($c),
                requantise!($d)
            )
        };
        ($r:literal) => {
            concat!("smmla ", $r, ", ", $r, ", r1, r2\n", "asr ", $r, ", r3\n", "ssat ", $r, ", #8, ", $r, "\n")
        };
    }
    naked_asm!(
        isa!(),
        // w_end is to lie at [sp, #4], what this is told at [sp, #8].
        "ldrd r1, r2, [r0, #4]",
        "mov r3, r0",
        "push {{r1-r11, lr}}",
        "mov r12, r0",
        "ldr r0, [r12]",
        enter!(),
        "ldr r12, [sp, #8]",
        "2:",
        "ldr r1, [r12, #4]",
        "ldr r4, [r12, #24]",
        "ldr r5, [r12, #28]",
        multiply!(),
        "ldr r12, [sp, #8]",
        requantise!("32", "r4", "r6", "r8", "r10"),
        requantise!("44", "r5", "r7", "r9", "r11"),
        // Four results in r4, rows 0 and 1, and four in r8; then none below `lo`.
        "ldr r1, [r12, #12]",
        "ldr r2, [r12, #16]",
        "ldr r3, [r12, #56]",
        "bfi r4, r5, #8, #8",
        "bfi r6, r7, #8, #8",
        "bfi r8, r9, #8, #8",
        "bfi r10, r11, #8, #8",
        "pkhbt r4, r4, r6, lsl #16",
        "pkhbt r8, r8, r10, lsl #16",
        "ssub8 r5, r4, r3",
        "sel r4, r4, r3",
        "ssub8 r5, r8, r3",
        "sel r8, r8, r3",
        "strh r4, [r1]",
        "lsr r4, r4, #16",
        "strh r4, [r1, r2]",
        "add r1, r1, r2, lsl #1",
        "strh r8, [r1]",
        "lsr r8, r8, #16",
        "strh r8, [r1, r2]",
        "add r1, r1, r2, lsl #1",
        "str r1, [r12, #12]",
        "ldr r3, [r12, #20]",
        "cmp r0, r3",
        "bne 2b",
        "add sp, #12",
        "pop {{r4-r11, pc}}",
    )
}

impl depthwise::Core for Dsp {
    /// Channels 0 and 2, then 1 and 3.
    const WORDS: usize = 2;

    #[inline(always)]
    fn widen(quad: [i8; QUAD], to: &mut [i32]) {
        let quad = i32::from_le_bytes(quad.map(|v| v as u8));
        let (even, odd): (i32, i32);
        // SAFETY: two instructions between registers, which every core with packed products has.
        unsafe {
            asm!(
                "sxtb16 {even}, {quad}", "sxtb16 {odd}, {quad}, ror #8",
                quad = in(reg) quad, even = out(reg) even, odd = lateout(reg) odd,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        to.iter_mut().zip([even, odd]).for_each(|(to, pair)| *to = pair);
    }

    #[inline(always)]
    fn widen_pixels(x: &[i8], c: usize, to: &mut [i32]) {
        let n = to.len() / Self::WORDS;
        if n > 0 && (n - 1) * c + QUAD <= x.len() {
            // SAFETY: every pixel's four values lie inside `x`, as was just asked, and its two words inside `to`.
            unsafe { widen_pixels(x.as_ptr(), c, to.as_mut_ptr(), n) };
        }
    }

    #[inline(always)]
    fn finish(sums: &[Sums], scales: &[Scale; QUAD], lo: i32, y: &mut [i8], c: usize) {
        if let Some(mut finish) = Finish::new(sums, scales, lo, y, c) {
            // SAFETY: `y` has room for all pixels: `Finish::new` saw to it.
            unsafe { finish_pixels(&mut finish) };
        }
    }

    #[inline(always)]
    fn add(taps: Taps, strip: &[i32], weights: &[i32], sums: &mut [Sums]) {
        if let Some(mut row) = Row::new::<Self>(taps, strip, weights, sums) {
            // SAFETY: all that is read lies inside both slices: `Row::new` saw to it.
            unsafe { add(&mut row) };
        }
    }
}

/// Adds the taps of every pixel to its sums. The taps of a row are entered so far from their end as there
/// are taps.
#[unsafe(naked)]
unsafe extern "C" fn add(row: *mut Row) {
    macro_rules! tap {
        () => {
            "
            ldrd r2, r3, [r1], #8
            ldrd r8, r9, [r0], #8
            smlabb r4, r8, r2, r4
            smlabb r5, r9, r3, r5
            smlatt r6, r8, r2, r6
            smlatt r7, r9, r3, r7
            "
        };
    }
    naked_asm!(
        isa!(),
        "push {{r0, r4-r11, lr}}",
        "ldr r10, [r0, #20]",
        "ldr r1, [r0, #24]",
        "rsb r1, #8",
        "movs r2, #24",
        "adr lr, 5f",
        "mla lr, r1, r2, lr",
        "orr lr, #1",
        "2:",
        "ldr r12, [sp]",
        "ldm r12, {{r0, r1, r2, r11}}",
        "ldm r2, {{r4-r7}}",
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
        "add r0, r10",
        "subs r11, #1",
        "bne 3b",
        "ldr r12, [sp]",
        "ldr r2, [r12, #8]",
        "stmia r2!, {{r4-r7}}",
        "str r2, [r12, #8]",
        "ldr r0, [r12]",
        "ldr r3, [r12, #28]",
        "add r0, r3",
        "str r0, [r12]",
        "ldr r3, [r12, #32]",
        "subs r3, #1",
        "str r3, [r12, #32]",
        "bne 2b",
        "add sp, #4",
        "pop {{r4-r11, pc}}",
    )
}

/// Widens `n > 0` pixels of four channels, `c` values apart.
#[unsafe(naked)]
unsafe extern "C" fn widen_pixels(x: *const i8, c: usize, to: *mut i32, n: usize) {
    naked_asm!(
        isa!(),
        "push {{r4, r5}}",
        "1:",
        "ldr r5, [r0]",
        "add r0, r1",
        "sxtb16 r4, r5",
        "sxtb16 r5, r5, ror #8",
        "strd r4, r5, [r2], #8",
        "subs r3, #1",
        "bne 1b",
        "pop {{r4, r5}}",
        "bx lr",
    )
}

/// Requantises and stores.
#[unsafe(naked)]
unsafe extern "C" fn finish_pixels(finish: *mut Finish<'_>) {
    macro_rules! lane {
        ($r:literal) => {
            concat!(
                "ldmia r11!, {{r8-r10}}\n",
                "smmla ",
                $r,
                ", ",
                $r,
                ", r8, r9\n",
                "asr ",
                $r,
                ", r10\n",
                "ssat ",
                $r,
                ", #8, ",
                $r,
                "\n"
            )
        };
    }
    naked_asm!(
        isa!(),
        "push {{r4-r11, lr}}",
        "ldm r0, {{r0-r3, r12, lr}}",
        "1:",
        "ldmia r1!, {{r4-r7}}",
        "mov r11, r0",
        lane!("r4"),
        lane!("r5"),
        lane!("r6"),
        lane!("r7"),
        "bfi r4, r5, #8, #8",
        "bfi r6, r7, #8, #8",
        "pkhbt r4, r4, r6, lsl #16",
        "ssub8 r5, r4, lr",
        "sel r4, r4, lr",
        "str r4, [r2]",
        "add r2, r3",
        "subs r12, #1",
        "bne 1b",
        "pop {{r4-r11, pc}}",
    )
}
