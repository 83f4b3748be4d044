//! Cortex-M cores with packed multiply-accumulates (M4, M7, M33, and where Helium has no loops): `SMLAD` adds two
//! int16 products at once. A word of a panel holds two of four neighbouring values, 0 and 2 or 1 and 3, as
//! `SXTB16` leaves them; the words of a tile's rows, and of its columns, alternate.
//!
//! Bytes are loaded and stored four at a time wherever they lie: memory is normal, and `UNALIGN_TRP` is
//! clear, as after reset.
#![allow(unsafe_code)]

use super::depthwise::{self, Finish, QUAD, Row, Sums, Taps};
use super::products::{Channels, Columns, Core, INT4_BYTES, Multiply, Output, Scale, Stored, TILE_COLUMNS, TILE_ROWS};
use crate::math::fixed::Requantise;
use core::arch::{asm, naked_asm};
use core::mem::{self, MaybeUninit};
use core::ops::Range;
use core::ptr;

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
    if last.is_empty() {
        return;
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

    #[inline(never)]
    fn columns<O: Output>(
        channels: Channels<'_, W>,
        k: usize,
        space: &mut [i32],
        panel: &[i32],
        output: O,
        y: &mut [O::T],
        n: usize,
    ) {
        let block = space.len() / TILE_COLUMNS * TILE_ROWS;
        if block == 0 || !space.len().is_multiple_of(COLUMNS_STEP) || n == 0 {
            return;
        }
        let ([zero, ..], (lo, is_direct)) = (output.range(), limits(output));
        let is_i8 = size_of::<O::T>() == size_of::<i8>();
        // Blocks whose rows are all there.
        let rows = y.len() / (TILE_ROWS * n) * TILE_ROWS;
        let (whole, last) = panel.split_at(panel.len().min(rows / TILE_ROWS * block));
        let last = last.get(..block).unwrap_or_default();
        let mut pairs = Pairs {
            tiles: if is_i8 { Tiles::of_i8(lo.into()) } else { Tiles::new(Results::I16) },
            w: ptr::null(),
            row: W::row(k) * size_of::<W>(),
            groups: space.len() / COLUMNS_STEP,
            space: ptr::null_mut(),
            widen: W::widen_groups(k, channels.w),
            bias: ptr::null(),
            multiplier: ptr::null(),
            shift: ptr::null(),
            round: 2 * i32::from(zero) + 1,
            y: ptr::null_mut(),
            step: TILE_COLUMNS * size_of::<O::T>(),
        };
        // The loop reads whole groups, so that other channels have to follow where rows end inside one.
        let count = channels.count(k).min(n);
        let reach = if is_direct { count.saturating_sub(W::beyond(k).div_ceil(k.max(1))) } else { 0 };
        let mut j = 0;
        while j < count {
            pairs.tiles.of(space);
            // Where some rows are missing, these need the weights of every pair.
            let wanted = reach.saturating_sub(j) / TILE_COLUMNS;
            let wanted = if last.is_empty() { wanted } else { wanted.min(1) };
            let first = channels.shift.get(j..j + TILE_COLUMNS).unwrap_or_default();
            let wanted = if first.iter().all(Scale::is_usual) { wanted } else { 0 };
            if wanted > 0 {
                pairs.tiles.pairs = wanted;
                pairs.space = space.as_mut_ptr();
                pairs.w = channels.w.as_ptr().wrapping_add(j * W::row(k)).cast();
                pairs.bias = channels.bias.as_ptr().wrapping_add(j);
                pairs.multiplier = channels.multiplier.as_ptr().wrapping_add(j);
                pairs.shift = channels.shift.as_ptr().wrapping_add(j);
                let mut tile = MaybeUninit::uninit();
                // SAFETY: so many pairs of channels there are from `j` on, and weights after them where the groups of
                // theirs are not whole. `space` has room for two columns of these groups, of
                // which there is at least one, and every block as many. `y` has `TILE_ROWS` rows of `n` elements,
                // as wide as is stored, for each block of `whole`, and the columns of these channels; where there
                // is none there is one of `last`, one pair, and `tile` has room for that.
                unsafe {
                    if whole.is_empty() {
                        pairs.run(last, tile.as_mut_ptr(), TILE_COLUMNS);
                    } else {
                        pairs.run(whole, y.as_mut_ptr().add(j), n);
                    }
                }
                let done = wanted - mem::take(&mut pairs.tiles.pairs);
                if done > 0 {
                    if !last.is_empty() {
                        let columns = Columns { y: y.get_mut(rows * n..).unwrap_or_default(), n, j };
                        // SAFETY: as above; `tile` was written if there is no block but this.
                        unsafe {
                            if !whole.is_empty() {
                                pairs.tiles.run(last, tile.as_mut_ptr(), TILE_COLUMNS);
                            }
                            store::<O>(columns, tile);
                        }
                    }
                    j += done * TILE_COLUMNS;
                    continue;
                }
            }
            pair_alone(&mut pairs.tiles, channels, k, space, panel, output, Columns { y: &mut *y, n, j });
            j += TILE_COLUMNS;
        }
    }
}

/// The smallest element of a result, and whether its largest is that of its type.
#[inline(always)]
fn limits<O: Output>(output: O) -> (i16, bool) {
    let [_, lo, hi] = output.range();
    (lo, hi == if size_of::<O::T>() == size_of::<i8>() { i16::from(i8::MAX) } else { i16::MAX })
}

/// The results of channel `j` and of the one after it, if there is one, on every block of `panel`.
#[inline(never)]
fn pair_alone<W: Weight, O: Output>(
    tiles: &mut Tiles,
    channels: Channels<'_, W>,
    k: usize,
    space: &mut [i32],
    panel: &[i32],
    output: O,
    columns: Columns<'_, O::T>,
) {
    let Columns { y, n, j } = columns;
    let mut left = channels.iter(k).skip(j);
    let Some(first) = left.next() else { return };
    // Where there is no second, the first once more: its results are dropped.
    let pair = [first, left.next().unwrap_or(first)];
    W::widen_columns(pair.map(|channel| channel.w), space);
    tiles.bias = pair.map(|channel| channel.bias);
    let ([zero, ..], (_, is_direct)) = (output.range(), limits(output));
    let block = space.len() / TILE_COLUMNS * TILE_ROWS;
    tiles.of(space);
    if is_direct && let [Some(a), Some(b)] = pair.map(|channel| Scale::around(channel.scale, zero.into())) {
        (tiles.scale0, tiles.scale1) = (MaybeUninit::new(a), MaybeUninit::new(b));
        let inside = if j + TILE_COLUMNS <= n { y.len() / (TILE_ROWS * n) } else { 0 };
        let (whole, edge) = panel.split_at(panel.len().min(inside * block));
        let (y, y_edge) = y.split_at_mut(inside * TILE_ROWS * n);
        // SAFETY: a block has as many groups as the columns, at least one, `y` the rows of `whole`, and `tile` those
        // of a block, all of which is written. Elements are as wide as is stored.
        unsafe {
            if !whole.is_empty() {
                tiles.run(whole, y.as_mut_ptr().add(j), n);
            }
            for (y, block) in y_edge.chunks_mut(TILE_ROWS * n).zip(edge.chunks_exact(block)) {
                let mut tile = MaybeUninit::uninit();
                tiles.run(block, tile.as_mut_ptr(), TILE_COLUMNS);
                store::<O>(Columns { y, n, j }, tile);
            }
        }
        return;
    }
    let results = mem::replace(&mut tiles.results, Results::Sums);
    for (y, block) in y.chunks_mut(TILE_ROWS * n).zip(panel.chunks_exact(block)) {
        let mut sums = MaybeUninit::<Tile>::uninit();
        // SAFETY: as above; all of `sums` is written.
        let sums = unsafe {
            tiles.run(block, sums.as_mut_ptr(), 0);
            sums.assume_init()
        };
        for (y, sums) in y.chunks_exact_mut(n).zip(sums) {
            for ((y, sum), channel) in y.iter_mut().skip(j).zip(sums).zip(&pair) {
                *y = output.put(apply(channel.scale, sum));
            }
        }
    }
    tiles.results = results;
}

/// Once in a firmware.
#[inline(never)]
fn apply(scale: Requantise, sum: i32) -> i32 {
    scale.apply(sum)
}

/// Stores a tile of results, but for what lies outside.
///
/// # Safety
///
/// `tile` was written.
#[inline(never)]
unsafe fn store<O: Output>(columns: Columns<'_, O::T>, tile: MaybeUninit<[[O::T; TILE_COLUMNS]; TILE_ROWS]>) {
    // SAFETY: as this function's.
    columns.store(core::iter::once(unsafe { tile.assume_init() }));
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

    /// What widens the groups of rows of `k`, of which these are the first.
    fn widen_groups(k: usize, w: &[Self]) -> WidenGroups;

    /// Elements of the last group of a row that lie beyond it.
    #[inline(always)]
    fn beyond(k: usize) -> usize {
        k.next_multiple_of(GROUP) - k
    }
}

impl Weight for i8 {
    #[inline(always)]
    fn widen_columns(columns: [&[Self]; TILE_COLUMNS], space: &mut [i32]) {
        widen_columns(columns, space);
    }

    #[inline(always)]
    fn widen_groups(_: usize, _: &[Self]) -> WidenGroups {
        widen_pair
    }
}

/// Int4: a block of weights is two groups.
impl Weight for u8 {
    #[inline(always)]
    fn widen_columns([w0, w1]: [&[Self]; TILE_COLUMNS], space: &mut [i32]) {
        let groups = space.len() / COLUMNS_STEP;
        if groups > 0 && w0.len().min(w1.len()) >= groups.div_ceil(2) * INT4_BYTES {
            // SAFETY: both have blocks for so many groups, and `space` room.
            unsafe { widen_pair_int4(w0.as_ptr(), w1.as_ptr(), groups, space.as_mut_ptr()) };
        }
    }

    #[inline(always)]
    fn widen_groups(_: usize, _: &[Self]) -> WidenGroups {
        widen_pair_int4
    }

    #[inline(always)]
    fn beyond(_: usize) -> usize {
        0
    }
}

/// Int16: neighbours are in a word as they are stored, and so are those of the panel.
impl Weight for i16 {
    #[inline(never)]
    fn widen_row(x: &[i8], lane: usize, block: &mut [i32]) {
        widen_by(widen_in_order, x, lane, block);
    }

    #[inline(always)]
    fn widen_columns(columns: [&[Self]; TILE_COLUMNS], space: &mut [i32]) {
        let groups = columns[0].len().min(columns[1].len()) / GROUP;
        let Some((whole, last)) = space.split_at_mut_checked(groups * COLUMNS_STEP) else { return };
        if groups > 0 {
            let [w0, w1] = columns.map(|w| w.as_ptr().cast());
            // SAFETY: reads that many groups of both and writes as many steps, which `whole` has.
            unsafe { alternate_anywhere(w0, w1, groups, whole.as_mut_ptr()) };
        }
        let columns = columns.map(|w| w.get(groups * GROUP..).unwrap_or_default());
        for (i, words) in last.as_chunks_mut().0.iter_mut().enumerate() {
            *words = columns.map(|w| {
                let [low, high] = [2 * i, 2 * i + 1].map(|at| w.get(at).copied().unwrap_or(0));
                i32::from(low as u16) | i32::from(high) << 16
            });
        }
    }

    #[inline(always)]
    fn widen_groups(k: usize, w: &[Self]) -> WidenGroups {
        let is_aligned = k.is_multiple_of(2) && w.as_ptr().addr().is_multiple_of(align_of::<i32>());
        if is_aligned { alternate } else { alternate_anywhere }
    }
}

/// Widens the weights of a tile into `space`.
#[inline(always)]
fn widen_columns([w0, w1]: [&[i8]; TILE_COLUMNS], space: &mut [i32]) {
    let ((w0, rest0), (w1, rest1)) = (w0.as_chunks::<GROUP>(), w1.as_chunks::<GROUP>());
    let groups = w0.len().min(w1.len());
    let Some((whole, last)) = space.split_at_mut_checked(groups * COLUMNS_STEP) else { return };
    if groups > 0 {
        // SAFETY: reads that many groups of both and writes as many steps, which `whole` has.
        unsafe { widen_pair(w0.as_ptr().cast(), w1.as_ptr().cast(), groups, whole.as_mut_ptr()) };
    }
    if last.len() == COLUMNS_STEP {
        // SAFETY: as above, for one group and one step.
        unsafe { widen_pair(padded(rest0).as_ptr().cast(), padded(rest1).as_ptr().cast(), 1, last.as_mut_ptr()) };
    }
}

/// What becomes of a tile's sums.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Results {
    /// Requantised to int8.
    I8,
    /// As that, and not below [`Tiles::lo`].
    I8From,
    /// Requantised to int16.
    I16,
    /// Stored as they are, one tile behind the other.
    Sums,
}

/// What [`tiles`] is told. The order is that of the loads.
#[repr(C)]
struct Tiles {
    scale0: MaybeUninit<Scale>,
    /// Address of the code for `results`, which [`tiles`] finds.
    code: MaybeUninit<usize>,
    scale1: MaybeUninit<Scale>,
    /// The first result of the next tile, and elements from a row to the next.
    y: *mut u8,
    n: usize,
    x_end: *const i32,
    w: *const i32,
    bias: [i32; TILE_COLUMNS],
    x: *const i32,
    w_end: *const i32,
    results: Results,
    /// The smallest result, four times.
    lo: u32,
    /// If not 0, this is part of [`Pairs`], and so many of these are left.
    pairs: usize,
}

impl Tiles {
    #[inline(always)]
    fn new(results: Results) -> Self {
        Self {
            scale0: MaybeUninit::uninit(),
            code: MaybeUninit::uninit(),
            scale1: MaybeUninit::uninit(),
            y: ptr::null_mut(),
            n: 0,
            x_end: ptr::null(),
            w: ptr::null(),
            bias: [0; TILE_COLUMNS],
            x: ptr::null(),
            w_end: ptr::null(),
            results,
            lo: 0,
            pairs: 0,
        }
    }

    /// Results of int8 from `lo` on.
    #[inline(always)]
    fn of_i8(lo: i32) -> Self {
        let results = if lo <= i8::MIN.into() { Results::I8 } else { Results::I8From };
        Self { lo: u32::from_ne_bytes([lo as i8 as u8; 4]), ..Self::new(results) }
    }

    /// Takes these weights.
    #[inline(always)]
    fn of(&mut self, columns: &[i32]) {
        let Range { start, end } = columns.as_ptr_range();
        (self.w, self.w_end) = (start, end);
    }

    /// Multiplies every block of `panel` with the columns and stores the results from `y` on, rows `n` elements apart.
    ///
    /// # Safety
    ///
    /// The columns have whole groups, at least one, and so has every block of `panel`, of which there is at least one.
    /// They are those of the last [`Self::of`]. `y` has room for what `results` says.
    #[inline(always)]
    unsafe fn run<T>(&mut self, panel: &[i32], y: *mut T, n: usize) {
        let Range { start, end } = panel.as_ptr_range();
        (self.x, self.x_end) = (start, end);
        (self.y, self.n) = (y.cast(), n);
        // SAFETY: as this function's.
        unsafe { tiles(self) };
    }
}

/// What [`tiles`] is told of more pairs of columns than one.
#[repr(C)]
struct Pairs {
    /// All but columns, scales, biases and `y` are set.
    tiles: Tiles,
    /// The weights of the first channel, and bytes from one to the next.
    w: *const u8,
    row: usize,
    /// Groups of a row, and where they are widened to.
    groups: usize,
    space: *mut i32,
    widen: WidenGroups,
    bias: *const i32,
    multiplier: *const i32,
    shift: *const i8,
    /// Twice the zero point and 1: a [`Scale`]'s `round`, doubled, before it is shifted.
    round: i32,
    /// Where the results of the next pair begin, and bytes from there to those of the one after.
    y: *mut u8,
    step: usize,
}

impl Pairs {
    /// Widens the weights of one pair of columns after the other, and multiplies every block of `panel` with them.
    /// Stops at one whose scales are not usual.
    ///
    /// # Safety
    ///
    /// As for [`Tiles::run`], with what is told of the columns in place of [`Tiles::of`].
    #[inline(always)]
    unsafe fn run<T>(&mut self, panel: &[i32], y: *mut T, n: usize) {
        let Range { start, end } = panel.as_ptr_range();
        (self.tiles.x, self.tiles.x_end, self.tiles.n) = (start, end, n);
        self.y = y.cast();
        // SAFETY: as this function's; there are pairs, so that more than `tiles` is read.
        unsafe { tiles((&raw mut *self).cast()) };
    }
}

/// Widens so many groups, at least one, of the weights of two columns. The last may reach over the end of a row.
type WidenGroups = unsafe extern "C" fn(*const u8, *const u8, usize, *mut i32);

/// The sums of one tile; zero where rows and columns are not of the same length.
fn tile_sums(rows: &[i32], columns: &[i32], bias: [i32; TILE_COLUMNS]) -> Tile {
    let is_whole = !columns.is_empty() && columns.len().is_multiple_of(COLUMNS_STEP);
    if !is_whole || columns.len() * TILE_ROWS != rows.len() * TILE_COLUMNS {
        return Tile::default();
    }
    let mut tiles = Tiles { bias, ..Tiles::new(Results::Sums) };
    tiles.of(columns);
    let mut sums = MaybeUninit::<Tile>::uninit();
    // SAFETY: the columns have at least one group, the rows as many; all of `sums` is written.
    unsafe {
        tiles.run(rows, sums.as_mut_ptr(), 0);
        sums.assume_init()
    }
}

/// The assembler of a naked function knows the target but not the CPU of a Cortex-M33's flags: this names
/// the architecture that all instructions here are of.
macro_rules! isa {
    () => {
        ".arch armv7e-m"
    };
}

/// `$body` as often as `$n` says, which is not 0, two to a turn.
macro_rules! twice {
    ($n:literal, $body:expr) => {
        concat!(
            "adds ", $n, ", #1\n", "lsrs ", $n, ", ", $n, ", #1\n", "bcc 2f\n", "1:\n", $body, "2:\n", $body, "subs ",
            $n, ", #1\n", "bne 1b\n"
        )
    };
}

/// Widens `n > 0` groups into the words `to[0]` and `to[4]` of every eight.
#[unsafe(naked)]
unsafe extern "C" fn widen(x: *const [i8; GROUP], n: usize, to: *mut i32) {
    macro_rules! group {
        () => {
            "
            ldr r3, [r0], #4
            sxtb16 r12, r3
            sxtb16 r3, r3, ror #8
            str r12, [r2], #16
            str r3, [r2], #16
            "
        };
    }
    naked_asm!(isa!(), twice!("r1", group!()), "bx lr")
}

/// Widens `n > 0` groups of two columns: first and second column, values 0 and 2; then values 1 and 3.
#[unsafe(naked)]
unsafe extern "C" fn widen_pair(w0: *const u8, w1: *const u8, n: usize, to: *mut i32) {
    macro_rules! group {
        () => {
            "
            ldr r6, [r0], #4
            ldr r7, [r1], #4
            sxtb16 r4, r6
            sxtb16 r5, r7
            sxtb16 r6, r6, ror #8
            sxtb16 r7, r7, ror #8
            stmia r3!, {{r4-r7}}
            "
        };
    }
    naked_asm!(isa!(), "push {{r4-r7}}", twice!("r2", group!()), "pop {{r4-r7}}", "bx lr")
}

/// As [`widen`], with values 0 and 1 in the one word and 2 and 3 in the other.
#[unsafe(naked)]
unsafe extern "C" fn widen_in_order(x: *const [i8; GROUP], n: usize, to: *mut i32) {
    macro_rules! group {
        () => {
            "
            ldr r3, [r0], #4
            sxtb16 r12, r3
            sxtb16 r3, r3, ror #8
            pkhbt r4, r12, r3, lsl #16
            pkhtb r3, r3, r12, asr #16
            str r4, [r2], #16
            str r3, [r2], #16
            "
        };
    }
    naked_asm!(isa!(), "push {{r4}}", twice!("r1", group!()), "pop {{r4}}", "bx lr")
}

/// As [`widen_pair`], from blocks of int4, each of which becomes two groups, or one if no other is asked for. A half
/// byte, its sign bit flipped, is 8 more than it stands for.
#[unsafe(naked)]
unsafe extern "C" fn widen_pair_int4(w0: *const u8, w1: *const u8, n: usize, to: *mut i32) {
    macro_rules! first {
        () => {
            "
            ldr r6, [r0], #4
            ldr r7, [r1], #4
            eor r6, #0x88888888
            eor r7, #0x88888888
            and r4, lr, r6
            and r5, lr, r7
            and r8, lr, r6, lsr #4
            and r9, lr, r7, lsr #4
            ssub8 r4, r4, r12
            ssub8 r5, r5, r12
            sxtb16 r6, r4, ror #8
            sxtb16 r7, r5, ror #8
            sxtb16 r4, r4
            sxtb16 r5, r5
            stmia r3!, {{r4-r7}}
            "
        };
    }
    naked_asm!(
        isa!(),
        "push {{r4-r9, lr}}",
        "mov r12, #0x08080808",
        "mov lr, #0x0f0f0f0f",
        "subs r2, #1",
        "beq 2f",
        "1:",
        first!(),
        "ssub8 r8, r8, r12",
        "ssub8 r9, r9, r12",
        "sxtb16 r4, r8",
        "sxtb16 r5, r9",
        "sxtb16 r6, r8, ror #8",
        "sxtb16 r7, r9, ror #8",
        "stmia r3!, {{r4-r7}}",
        "subs r2, #2",
        "bgt 1b",
        "bmi 3f",
        "2:",
        first!(),
        "3:",
        "pop {{r4-r9, pc}}",
    )
}

/// `n > 0` times two words of two columns, alternating. Both are at multiples of four.
#[unsafe(naked)]
unsafe extern "C" fn alternate(w0: *const u8, w1: *const u8, n: usize, to: *mut i32) {
    naked_asm!(
        isa!(),
        "push {{r4-r11}}",
        "subs r2, #1",
        "beq 2f",
        "1:",
        "ldmia r0!, {{r4, r6, r8, r10}}",
        "ldmia r1!, {{r5, r7, r9, r11}}",
        "stmia r3!, {{r4-r11}}",
        "subs r2, #2",
        "bgt 1b",
        "bmi 3f",
        "2:",
        "ldm r0, {{r4, r6}}",
        "ldm r1, {{r5, r7}}",
        "stm r3, {{r4-r7}}",
        "3:",
        "pop {{r4-r11}}",
        "bx lr",
    )
}

/// As [`alternate`], wherever they lie.
#[unsafe(naked)]
unsafe extern "C" fn alternate_anywhere(w0: *const u8, w1: *const u8, n: usize, to: *mut i32) {
    naked_asm!(
        isa!(),
        "push {{r4-r7}}",
        "1:",
        "ldr r4, [r0], #4",
        "ldr r6, [r0], #4",
        "ldr r5, [r1], #4",
        "ldr r7, [r1], #4",
        "stmia r3!, {{r4-r7}}",
        "subs r2, #1",
        "bne 1b",
        "pop {{r4-r7}}",
        "bx lr",
    )
}

/// Adds the products of all groups to r4 to r11, row by row. What is left of a turn of four comes first.
///
/// r0: activations, moved on; r1: weights, whose end is at `[sp, #4]`.
macro_rules! multiply {
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
            11:
            ",
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
/// Two words of every row and column; `short` takes an instruction less and a cycle more.
macro_rules! group {
    () => {
        concat!(word!(), word!())
    };
    (short) => {
        concat!(word!(short), word!())
    };
}
/// Loads follow each other where they can: an `LDR` takes a cycle less then, an `LDRD` does not.
macro_rules! word {
    () => {
        word!(
            "ldr r12, [r0], #4
            ldr lr, [r0], #4
            "
        )
    };
    (short) => {
        word!("ldrd r12, lr, [r0], #8\n")
    };
    ($load:literal) => {
        concat!(
            "ldrd r2, r3, [r1], #8\n",
            $load,
            "smlad r4, r12, r2, r4
            smlad r5, r12, r3, r5
            smlad r6, lr, r2, r6
            smlad r7, lr, r3, r7
            ldrd r12, lr, [r0], #8
            smlad r8, r12, r2, r8
            smlad r9, r12, r3, r9
            smlad r10, lr, r2, r10
            smlad r11, lr, r3, r11
            "
        )
    };
}

pub(super) mod attention;
pub(super) mod layer_norm;
pub(super) mod window;

/// Tiles, one below the other: their sums in r4 to r11, row by row, and then what is to become of them.
///
/// The loop over the groups that follow the first has eight to a turn. It is entered so far behind its start that
/// what is left at the end are whole turns.
#[unsafe(naked)]
unsafe extern "C" fn tiles(tiles: *mut Tiles) {
    /// The values of the first column, and of the second, as integers of so many bits; then r1: `y`, r2: `n`,
    /// r3: `x_end`, r12: behind it.
    macro_rules! requantise {
        ($bits:literal) => {
            concat!(
                requantise!($bits, "r4", "r6", "r8", "r10"),
                "ldmia r12!, {{r1, r2, r3}}\n",
                requantise!($bits, "r5", "r7", "r9", "r11"),
                "ldmia r12!, {{r1, r2, r3}}\n"
            )
        };
        ($bits:literal, $($r:literal),*) => {
            concat!($(
                "smmla ", $r, ", ", $r, ", r1, r2\n",
                "asr ", $r, ", r3\n",
                "ssat ", $r, ", #", $bits, ", ", $r, "\n",
            )*)
        };
    }
    /// The next tile, if there is one, and the end.
    macro_rules! next {
        () => {
            "
            str r1, [r12, #-12]
            cmp r0, r3
            bne 2b
            b 3b
            "
        };
    }
    naked_asm!(
        isa!(),
        // The entry is to lie at [sp], w_end at [sp, #4], what this is told at [sp, #8].
        "ldr r1, [r0, #40]",
        "ldr r2, [r0, #56]",
        "mov r3, r0",
        "push {{r1-r11, lr}}",
        "ldr r6, [r0, #60]",
        "adr.w r7, 20f",
        "ldrh r6, [r7, r6, lsl #1]",
        "add r6, r7",
        "str r6, [r0, #12]",
        // 16 bytes of weights are 92 of code.
        "adr.w r4, 12f",
        "subs r1, r2",
        "adds r1, #16",
        "beq 1f",
        "and r1, #112",
        "movs r3, #23",
        "muls r1, r3, r1",
        "adr.w r4, 11f",
        "add r4, r4, r1, lsr #2",
        "1:",
        "orr r4, #1",
        "str r4, [sp]",
        "mov r4, r0",
        "ldr r0, [r4, #68]",
        "cbz r0, 7f",
        // The next pair of columns.
        "5:",
        "add.w r12, r4, #72",
        "ldm r12, {{r0, r1, r2, r3, r5}}",
        "add r6, r0, r1, lsl #1",
        "str r6, [r12]",
        "add r1, r0",
        "blx r5",
        "add.w r12, r4, #92",
        "ldm r12, {{r0, r1, r2, r3}}",
        "ldrd r5, r6, [r0], #8",
        "ldrd r7, r10, [r1], #8",
        "ldrsb r9, [r2], #1",
        "ldrsb lr, [r2], #1",
        "stm r12, {{r0, r1, r2}}",
        "strd r5, r6, [r4, #44]",
        // A scale: multiplier, round and shift, from 1 to 23.
        "sub r9, #33",
        "cmp r9, #22",
        "bhi 4f",
        "lsl r8, r3, r9",
        "add r9, #1",
        "stm r4, {{r7, r8, r9}}",
        "sub r12, lr, #33",
        "cmp r12, #22",
        "bhi 4f",
        "lsl r11, r3, r12",
        "add r12, #1",
        "add.w r0, r4, #16",
        "stm r0, {{r10, r11, r12}}",
        "ldrd r0, r1, [r4, #108]",
        "str r0, [r4, #28]",
        "add r0, r1",
        "str r0, [r4, #108]",
        "7:",
        "add.w r12, r4, #40",
        "ldr r0, [r4, #52]",
        "2:",
        "ldm r12, {{r1, r4, r5}}",
        // The rows that start with the biases, those that hold them last.
        "ldrd r2, r3, [r1], #8",
        "ldrd r12, lr, [r0, #8]",
        "smlad r8, r12, r2, r4",
        "smlad r9, r12, r3, r5",
        "smlad r10, lr, r2, r4",
        "smlad r11, lr, r3, r5",
        "ldrd r12, lr, [r0], #16",
        "smlad r6, lr, r2, r4",
        "smlad r7, lr, r3, r5",
        "smlad r4, r12, r2, r4",
        "smlad r5, r12, r3, r5",
        word!(),
        "ldr pc, [sp]",
        "11:",
        group!(short),
        group!(short),
        group!(short),
        group!(short),
        group!(short),
        group!(short),
        group!(short),
        group!(short),
        "ldr r2, [sp, #4]",
        "cmp r1, r2",
        "bne 11b",
        "12:",
        "ldr r12, [sp, #8]",
        "ldm r12!, {{r1, r2, r3, pc}}",
        "3:",
        "ldr r4, [sp, #8]",
        "ldr r0, [r4, #68]",
        "subs r0, #1",
        "bmi 4f",
        "str r0, [r4, #68]",
        "bne 5b",
        "4:",
        "add sp, #12",
        "pop {{r4-r11, pc}}",
        ".p2align 2",
        "20:",
        ".2byte 21f - 20b + 1, 22f - 20b + 1, 23f - 20b + 1, 24f - 20b + 1",
        // Results::I8
        "21:",
        requantise!("8"),
        "bfi r4, r5, #8, #8",
        "bfi r6, r7, #8, #8",
        "bfi r8, r9, #8, #8",
        "bfi r10, r11, #8, #8",
        "strh r4, [r1]",
        "strh r6, [r1, r2]",
        "add r1, r1, r2, lsl #1",
        "strh r8, [r1]",
        "strh r10, [r1, r2]",
        "add r1, r1, r2, lsl #1",
        next!(),
        // Results::I8From
        "22:",
        requantise!("8"),
        "ldr lr, [r12, #24]",
        "bfi r4, r5, #8, #8",
        "bfi r6, r7, #8, #8",
        "bfi r8, r9, #8, #8",
        "bfi r10, r11, #8, #8",
        "pkhbt r4, r4, r6, lsl #16",
        "pkhbt r8, r8, r10, lsl #16",
        "ssub8 r5, r4, lr",
        "sel r4, r4, lr",
        "ssub8 r5, r8, lr",
        "sel r8, r8, lr",
        "strh r4, [r1]",
        "lsr r4, r4, #16",
        "strh r4, [r1, r2]",
        "add r1, r1, r2, lsl #1",
        "strh r8, [r1]",
        "lsr r8, r8, #16",
        "strh r8, [r1, r2]",
        "add r1, r1, r2, lsl #1",
        next!(),
        // Results::I16
        "23:",
        requantise!("16"),
        "pkhbt r4, r4, r5, lsl #16",
        "pkhbt r6, r6, r7, lsl #16",
        "pkhbt r8, r8, r9, lsl #16",
        "pkhbt r10, r10, r11, lsl #16",
        "str r4, [r1]",
        "str r6, [r1, r2, lsl #1]",
        "add r1, r1, r2, lsl #2",
        "str r8, [r1]",
        "str r10, [r1, r2, lsl #1]",
        "add r1, r1, r2, lsl #2",
        next!(),
        // Results::Sums
        "24:",
        "add r12, #12",
        "ldmia r12!, {{r1, r2, r3}}",
        "stmia r1!, {{r4-r11}}",
        next!(),
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
