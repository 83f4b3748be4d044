//! SOFT's attention. Kernel values are int16, two to a word; a tile of them is made of a panel, four
//! rows at a time, and a pair of rows. In the first pass the panel is of tokens, so that words hold two
//! tokens and multiply two tokens' values; in the second it is of landmarks.

use super::{COLUMNS_STEP, Dsp, GROUP, ROWS_STEP, Tiles, padded, tile_sums, widen_columns};
use crate::arch::attention::{Kernel, Outputs, Plan, next};
use crate::arch::products::{Columns, Core, TILE_COLUMNS, TILE_ROWS};
use crate::arch::softmax::{self, Keys, PAIR, QUAD, Scores, Softmax};
use crate::arch::wide;
use crate::math::fixed::{Decay, EXP2, Exp2Neg, round_shift_i32};
use core::arch::{asm, naked_asm};
use core::mem::MaybeUninit;
use core::ops::Range;

/// Kernel values of a word.
const PACK: usize = 2;
/// Bytes of a tile of kernel values: four of the panel, for each of four rows.
const KERNEL_STEP: usize = TILE_ROWS * TILE_ROWS / PACK;

/// See [`super::super::kernel_accumulate`].
pub(in crate::arch) fn accumulate(
    k: &Kernel<'_>,
    q: &[i8],
    v: &[i8],
    w: &mut [i32],
    w_shift: u32,
    mut scratch: &mut [i32],
) {
    let (m, d, plan) = (k.m(), k.d, Plan { m: k.m(), d: k.d });
    let (row, most, wide) = (Dsp::row_words(d), plan.group(), plan.widened_tokens());
    let scratch = &mut scratch;
    let (l_norms, q_norms) = (next(scratch, m.next_multiple_of(TILE_COLUMNS)), next(scratch, wide));
    let (pair, values) =
        (next(scratch, TILE_COLUMNS * row), next(scratch, m.next_multiple_of(TILE_ROWS) * most / PACK));
    let panel = next(scratch, plan.first_panel());
    // Of the values that meet the kernel values, the panel has so many channels at a time.
    let channels = panel.len() * PACK / most & !(GROUP - 1);
    let maker = Maker::new(k);
    maker.norms(k.l, pair, l_norms);
    for (q, v) in q.chunks(most * k.width).zip(v.chunks(most * k.width)) {
        let tokens = (q.len() / k.width).next_multiple_of(TILE_ROWS);
        for (q, i) in q.chunks(wide * k.width).zip((0..).step_by(wide)) {
            let tokens_here = (q.len() / k.width).next_multiple_of(TILE_ROWS);
            let Some(panel) = panel.get_mut(..tokens_here * row) else { return };
            let Some(q_norms) = q_norms.get_mut(..tokens_here) else { return };
            maker.widen(q, panel, q_norms);
            for (j, l_norms) in (0..m).step_by(TILE_COLUMNS).zip(l_norms.as_chunks().0) {
                maker.pair(k.l, j, pair);
                // A block of the values is of four landmarks.
                let at = (j / TILE_ROWS * tokens + i) * TILE_ROWS / PACK + j % TILE_ROWS;
                maker.make(panel, q_norms, pair, *l_norms, values.get_mut(at..).unwrap_or_default());
            }
        }
        // The queries are done with.
        for first in (0..d).step_by(channels.max(1)) {
            let channels = first..d.min(first + channels);
            widen_tokens(k, v, tokens, channels.clone(), panel);
            for (w, values) in w.chunks_mut(TILE_ROWS * d).zip(values.chunks_exact(TILE_ROWS * tokens / PACK)) {
                add_products(d, channels.clone(), values, panel, w, w_shift);
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
    mut scratch: &mut [i32],
) {
    let (m, d, plan) = (k.m(), k.d, Plan { m: k.m(), d: k.d });
    let (row, most, landmarks) = (Dsp::row_words(d), plan.second_tokens(), m.next_multiple_of(TILE_ROWS));
    let scratch = &mut scratch;
    let (l_norms, pair) = (next(scratch, landmarks), next(scratch, TILE_COLUMNS * row));
    let (values, panel) = (next(scratch, most * landmarks / PACK), next(scratch, landmarks * row));
    // For each pair of channels the words of both alternate.
    let column = TILE_COLUMNS * landmarks / PACK;
    let pairs = if plan.is_small() { 1 } else { d.div_ceil(TILE_COLUMNS) };
    let packed = next(scratch, pairs * column);
    let mut is_packed = false;
    let maker = Maker::new(k);
    maker.widen(k.l, panel, l_norms);
    let block = TILE_ROWS * landmarks / PACK;
    for (q, y) in q.chunks(most * k.width).zip(y.chunks_mut(most * k.width)) {
        let tokens = q.len() / k.width;
        for i in (0..tokens).step_by(TILE_COLUMNS) {
            maker.pair(q, i, pair);
            // A block of the values is of four tokens.
            let at = i / TILE_ROWS * block + i % TILE_ROWS;
            maker.make(panel, l_norms, pair, pair_norms(pair), values.get_mut(at..).unwrap_or_default());
        }
        let Some(values) = values.get(..tokens.div_ceil(TILE_ROWS) * block) else { return };
        for c in (0..d).step_by(TILE_COLUMNS) {
            let at = if plan.is_small() { 0 } else { c / TILE_COLUMNS * column };
            let Some(packed) = packed.get_mut(at..).and_then(|packed| packed.get_mut(..column)) else { return };
            if !is_packed {
                pack_channels(u, d, c, packed);
            }
            apply_pair(k, values, block, packed, c, outputs, y);
        }
        is_packed = !plan.is_small();
    }
}

/// Packs channels `c` and `c + 1` of `u[_, d]`, two rows to a word; what is missing is zero.
#[inline(never)]
fn pack_channels(u: &[i16], d: usize, c: usize, packed: &mut [i32]) {
    let ((pairs, _), rows) = (packed.as_chunks_mut::<TILE_COLUMNS>(), u.get(c..).unwrap_or_default());
    let both = c + 1 < d;
    // Those with both channels of both rows, or more than there is room for.
    let whole = if both { (rows.len() + d - TILE_COLUMNS) / (PACK * d) } else { 0 };
    let (inside, rest) = pairs.split_at_mut(whole.min(pairs.len()));
    if !inside.is_empty() {
        // SAFETY: reads two values of each of so many pairs of rows and writes as many words.
        unsafe { pack_two(rows.as_ptr(), d * size_of::<i16>(), inside.len(), inside.as_mut_ptr()) };
    }
    for (pair, i) in rest.iter_mut().zip((whole * PACK * d..).step_by(PACK * d)) {
        *pair = [pack_one(rows, d, i), if both { pack_one(rows, d, i + 1) } else { 0 }];
    }
}

/// Packs value `i` and the one `d` after it; what is missing is zero.
#[inline(never)]
fn pack_one(values: &[i16], d: usize, i: usize) -> i32 {
    let value = |i: usize| values.get(i).copied().unwrap_or(0);
    pack(value(i), value(i + d))
}

/// Packs two values of each of `2 n` rows, `row` bytes apart, those of two rows into a word; `n > 0`.
#[unsafe(naked)]
unsafe extern "C" fn pack_two(u: *const i16, row: usize, n: usize, to: *mut [i32; TILE_COLUMNS]) {
    naked_asm!(
        isa!(),
        "push {{r4-r6, lr}}",
        "add lr, r3, r2, lsl #3",
        "1:",
        "ldr r4, [r0, r1]",
        "ldr r2, [r0]",
        "add r0, r0, r1, lsl #1",
        "pkhbt r5, r2, r4, lsl #16",
        "pkhtb r6, r4, r2, asr #16",
        "strd r5, r6, [r3], #8",
        "cmp r3, lr",
        "bne 1b",
        "pop {{r4-r6, pc}}",
    )
}

/// The results of channels `c` and `c + 1`, if there is a second, of every block of kernel values.
fn apply_pair(
    k: &Kernel<'_>,
    values: &[i32],
    block: usize,
    packed: &[i32],
    c: usize,
    outputs: Outputs<'_>,
    y: &mut [i8],
) {
    let columns = Columns { y, n: k.width, j: k.first + c };
    if block == 0 || packed.len() * TILE_ROWS != block * TILE_COLUMNS {
        return;
    }
    if c + 1 < k.d
        && let [Some(scale0), Some(scale1)] = [outputs.scale(c), outputs.scale(c + 1)]
    {
        let [scale0, scale1] = [scale0, scale1].map(MaybeUninit::new);
        let mut tiles = Tiles { scale0, scale1, ..Tiles::of_i8(outputs.to.lo) };
        tiles.of(packed);
        return columns.fill::<TILE_COLUMNS>(values, block, |values, y, n| {
            // SAFETY: the columns have at least one group, every block as many, and `y` room for two elements of
            // each row, `n` apart.
            unsafe { tiles.run(values, y.as_mut_ptr(), n) };
        });
    }
    let tiles = values.chunks_exact(block).map(|values| tile_sums(values, packed, [0; TILE_COLUMNS]));
    if c + 1 < k.d {
        columns.store(tiles.map(|tile| tile.map(|[a, b]| [outputs.put(a, c), outputs.put(b, c + 1)])));
    } else {
        columns.store(tiles.map(|tile| tile.map(|[a, _]| [outputs.put(a, c)])));
    }
}

/// Adds the products of a block of kernel values, of four landmarks, with the channels that `panel` has to up to four
/// rows of `w`, each of `d`; with a shift those of the block are shifted first.
fn add_products(d: usize, channels: Range<usize>, values: &[i32], panel: &[i32], w: &mut [i32], w_shift: u32) {
    let column = values.len() / TILE_ROWS * TILE_COLUMNS;
    let whole = if w.len() == TILE_ROWS * d && channels.end <= d { channels.len() / TILE_COLUMNS } else { 0 };
    let (inside, edge) = panel.split_at(panel.len().min(whole * column));
    if whole > 0 && column > 0 && column % COLUMNS_STEP == 0 && inside.len() == whole * column {
        let mut pass = Sums {
            x: values.as_ptr(),
            w: inside.as_ptr(),
            y: w.as_mut_ptr().wrapping_add(channels.start),
            y_step: d * size_of::<i32>(),
            w_step: column * size_of::<i32>(),
            multiplier: if w_shift == 0 { 0 } else { 1 << (u32::BITS - w_shift) },
            pairs: whole,
            zero: [0; TILE_ROWS * TILE_COLUMNS],
        };
        // SAFETY: the panel has that many pairs of columns, each of whole groups, and `values` as many groups; four
        // rows of `d` sums have the channels.
        unsafe { add_tiles(&mut pass) };
    }
    for (c, panel) in channels.clone().step_by(TILE_COLUMNS).skip(whole).zip(edge.chunks_exact(column.max(1))) {
        for (w, sums) in w.chunks_exact_mut(d).zip(tile_sums(values, panel, [0; TILE_COLUMNS])) {
            let w = w.iter_mut().take(channels.end).skip(c);
            w.zip(sums).for_each(|(w, sum)| *w += round_shift_i32(sum, w_shift));
        }
    }
}

/// Packs these channels of the values of `tokens` tokens, those that are missing as zeros: for each pair of channels the
/// words of both alternate, which hold two tokens each.
fn widen_tokens(k: &Kernel<'_>, v: &[i8], tokens: usize, channels: Range<usize>, panel: &mut [i32]) {
    let column = TILE_COLUMNS * tokens / PACK;
    // A group of four channels, and room for it behind the words of earlier tokens.
    let room = |to: &mut [i32], groups: usize| groups > 0 && to.len() >= (2 * groups - 1) * column + TILE_COLUMNS;
    let row = |i: usize| k.row(v, i).get(channels.clone()).unwrap_or_default();
    for i in (0..tokens).step_by(PACK) {
        let ((a, a_rest), (b, b_rest)) = (row(i).as_chunks(), row(i + 1).as_chunks());
        let to = panel.get_mut(i / PACK * TILE_COLUMNS..).unwrap_or_default();
        let both = a.len().min(b.len());
        if room(to, both) {
            // SAFETY: reads that many groups of both, and `to` has room for their words.
            unsafe { widen_two(a.as_ptr(), b.as_ptr(), both, to.as_mut_ptr(), column * size_of::<i32>()) };
        }
        for group in both..channels.len().div_ceil(GROUP) {
            let a = a.get(group).copied().unwrap_or_else(|| padded(a_rest));
            let b = b.get(group).copied().unwrap_or_else(|| padded(b_rest));
            let to = to.get_mut(2 * group * column..).unwrap_or_default();
            if room(to, 1) {
                // SAFETY: as above, for one group.
                unsafe { widen_two(&a, &b, 1, to.as_mut_ptr(), column * size_of::<i32>()) };
            }
        }
    }
}

impl softmax::Core for Dsp {
    #[inline(always)]
    fn scores(s: &Softmax, queries: &[i32], keys: &[i8], space: &mut [i32], scores: Scores<'_>) -> [i32; TILE_ROWS] {
        let (groups, n) = (s.d.div_ceil(GROUP), scores.first.len().min(scores.second.len()));
        let mut pass = Keys::new(s, queries, scores);
        if groups == 0 || queries.len() != groups * ROWS_STEP || space.len() < groups {
            return pass.largest;
        }
        // What the last group of a key has beyond it meets zeros. A key is copied where no such values follow.
        let inside = keys.get(s.first..).unwrap_or_default();
        let whole = inside.len().checked_sub(GROUP * groups).map_or(0, |rest| n.min(rest / s.width + 1));
        if whole > 0 {
            (pass.keys, pass.left, pass.step) = (inside.as_ptr(), whole, s.width.wrapping_sub(GROUP * groups));
            // SAFETY: every key has its groups inside `keys`, the queries as many, at least one, and both slices of
            // scores have room for all keys.
            unsafe { self::scores(&mut pass) };
        }
        for j in whole..n {
            let (key, rest) = s.row(keys, j).as_chunks();
            for (to, group) in space.iter_mut().zip(key.iter().copied().chain([padded(rest)])) {
                *to = i32::from_le_bytes(group.map(|v| v as u8));
            }
            (pass.keys, pass.left) = (space.as_ptr().cast(), 1);
            // SAFETY: as above, for the one key that `space` has.
            unsafe { self::scores(&mut pass) };
        }
        pass.largest
    }

    #[inline(always)]
    fn weights(decay: &Decay, pair: &mut [[i32; PAIR]], largest: &[i32; PAIR]) {
        match &decay.narrow {
            Some(narrow) => wide::weights(narrow, pair, largest),
            None => softmax::weights(decay, pair, largest),
        }
    }

    #[inline(always)]
    fn weigh(x: &[[i32; PAIR]], v: &[i8], width: usize) -> [[i32; QUAD]; PAIR] {
        wide::weigh(x, v, width)
    }
}

/// Makes kernel values.
struct Maker<'a> {
    k: &'a Kernel<'a>,
    decay: Decay,
}

impl<'a> Maker<'a> {
    fn new(k: &'a Kernel<'a>) -> Self {
        Self { k, decay: Decay::new(k.multiplier, k.shift) }
    }

    /// Widens rows `i` and `i + 1` of `x`; where there is no second, the first once more.
    fn pair(&self, x: &[i8], i: usize, pair: &mut [i32]) {
        let first = self.k.row(x, i);
        let second = self.k.row(x, i + 1);
        widen_columns([first, if second.is_empty() { first } else { second }], pair);
    }

    /// The squared norms of all rows of `x`, which go through `pair`.
    fn norms(&self, x: &[i8], pair: &mut [i32], norms: &mut [i32]) {
        for (norms, i) in norms.as_chunks_mut::<TILE_COLUMNS>().0.iter_mut().zip((0..).step_by(TILE_COLUMNS)) {
            self.pair(x, i, pair);
            *norms = pair_norms(pair);
        }
    }

    /// Widens the rows of `x`, times -2, and takes their squared norms. Rows that are missing are zero.
    fn widen(&self, x: &[i8], panel: &mut [i32], norms: &mut [i32]) {
        let block = TILE_ROWS * Dsp::row_words(self.k.d);
        let blocks = panel.chunks_exact_mut(block.max(1)).zip(norms.as_chunks_mut::<TILE_ROWS>().0);
        for ((block, norms), i) in blocks.zip((0..).step_by(TILE_ROWS)) {
            for lane in 0..TILE_ROWS {
                Dsp::widen(self.k.row(x, i + lane), lane, block);
            }
            *norms = [0; TILE_ROWS];
            for words in block.as_chunks_mut::<TILE_ROWS>().0 {
                for (word, norm) in words.iter_mut().zip(norms.iter_mut()) {
                    *norm = smlad(*word, *word, *norm);
                    *word = minus_twice(*word);
                }
            }
        }
    }

    /// The kernel values of all rows of a panel and two others, into the first two of every four words of `values`.
    fn make(&self, panel: &[i32], norms: &[i32], pair: &[i32], pair_norms: [i32; TILE_COLUMNS], values: &mut [i32]) {
        let blocks = norms.len() / TILE_ROWS;
        let length = pair.len() / TILE_COLUMNS * TILE_ROWS;
        let fits = panel.len() == blocks * length && values.len() + TILE_COLUMNS >= blocks * KERNEL_STEP;
        if length == 0 || blocks == 0 || !fits || pair.len() % COLUMNS_STEP != 0 {
            return;
        }
        if let Some(curve) = self.decay.narrow {
            let Range { start: w, end: w_end } = pair.as_ptr_range();
            let (x, norms, out, table) = (panel.as_ptr(), norms.as_ptr(), values.as_mut_ptr(), EXP2.as_ptr());
            // SAFETY: the pair has whole groups, at least one, every block of the panel as many; there are four
            // norms for each block and, as was asked, room for its words.
            unsafe { make(&mut Make { x, w, w_end, norms, pair_norms, out, blocks, curve, table }) };
            return;
        }
        let blocks = panel.chunks_exact(length).zip(norms.as_chunks::<TILE_ROWS>().0);
        for ((block, norms), values) in blocks.zip(values.chunks_mut(KERNEL_STEP)) {
            let tile = tile_sums(block, pair, [0; TILE_COLUMNS]);
            let value = |i: usize, j: usize| self.decay.value(norms[i] + pair_norms[j] + tile[i][j]) as i16;
            for (i, values) in (0..TILE_ROWS).step_by(PACK).zip(values.chunks_mut(TILE_ROWS)) {
                values.iter_mut().zip(0..TILE_COLUMNS).for_each(|(word, j)| *word = pack(value(i, j), value(i + 1, j)));
            }
        }
    }
}

/// The squared norms of a pair of rows.
fn pair_norms(pair: &[i32]) -> [i32; TILE_COLUMNS] {
    let words = pair.as_chunks::<TILE_COLUMNS>().0.iter();
    words.fold([0; TILE_COLUMNS], |[a, b], &[x, y]| [smlad(x, x, a), smlad(y, y, b)])
}

/// `sum (a_i - b_i)^2`.
#[inline(always)]
pub(in crate::arch) fn squared_distance(a: &[i8], b: &[i8]) -> i32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let sum = a.iter().zip(b).fold(0, |sum, (&a, &b)| add_squares(a, b, sum));
    if a_rest.is_empty() { sum } else { add_squares(padded(a_rest), padded(b_rest), sum) }
}

/// `sum` and the squared differences of a group.
#[inline(always)]
fn add_squares(a: [i8; GROUP], b: [i8; GROUP], sum: i32) -> i32 {
    let [a, b] = [a, b].map(|group| i32::from_le_bytes(group.map(|v| v as u8)));
    let (even, odd): (i32, i32);
    // SAFETY: instructions between registers, which every core with packed products has. The differences set
    // the flags of bytes, which nothing here relies upon.
    unsafe {
        asm!(
            "sxtb16 {even}, {a}", "sxtb16 {t}, {b}", "ssub16 {even}, {even}, {t}",
            "sxtb16 {odd}, {a}, ror #8", "sxtb16 {t}, {b}, ror #8", "ssub16 {odd}, {odd}, {t}",
            a = in(reg) a, b = in(reg) b, t = out(reg) _, even = out(reg) even, odd = out(reg) odd,
            options(pure, nomem, nostack)
        );
    }
    smlad(odd, odd, smlad(even, even, sum))
}

#[inline(always)]
fn pack(low: i16, high: i16) -> i32 {
    i32::from(high) << 16 | i32::from(low as u16)
}

/// `sum` and the products of both halves.
#[inline(always)]
fn smlad(a: i32, b: i32, sum: i32) -> i32 {
    let result;
    // SAFETY: one instruction between registers, which every core with packed products has.
    unsafe {
        asm!("smlad {}, {}, {}, {}", lateout(reg) result, in(reg) a, in(reg) b, in(reg) sum, options(pure, nomem, nostack));
    }
    result
}

/// Both halves times -2.
#[inline(always)]
fn minus_twice(x: i32) -> i32 {
    let result;
    // SAFETY: as above. The sums set the flags of bytes, which nothing here relies upon.
    unsafe {
        asm!(
            "sadd16 {r}, {x}, {x}", "ssub16 {r}, {zero}, {r}",
            r = out(reg) result, x = in(reg) x, zero = in(reg) 0, options(pure, nomem, nostack)
        );
    }
    result
}

/// What [`make`] is told.
#[repr(C)]
struct Make {
    x: *const i32,
    w: *const i32,
    w_end: *const i32,
    norms: *const i32,
    pair_norms: [i32; TILE_COLUMNS],
    out: *mut i32,
    blocks: usize,
    curve: Exp2Neg,
    table: *const [u32; 2],
}

/// Kernel values: the distances of a tile in r4 to r11, then [`Exp2Neg`] of each, in words of two rows.
#[unsafe(naked)]
unsafe extern "C" fn make(make: *mut Make) {
    // The distance in a register becomes the value. r0: limit, r1: up, r2: multiplier, r3: round, r12: table, lr: 256.
    macro_rules! value {
        ($s:literal, $done:literal, $zero:literal) => {
            concat!(
                "cmp ",
                $s,
                ", r0\n",
                "bhs ",
                $zero,
                "f\n",
                "lsl ",
                $s,
                ", r1\n",
                "smmla ",
                $s,
                ", ",
                $s,
                ", r2, r3\n",
                "ubfx r10, ",
                $s,
                ", #18, #7\n",
                "add r10, r12, r10, lsl #3\n",
                "ldrd r8, r9, [r10]\n",
                "ubfx r10, ",
                $s,
                ", #9, #9\n",
                "mla r9, r9, r10, lr\n",
                "lsr ",
                $s,
                ", #25\n",
                "sub r8, r8, r9, lsr #9\n",
                "lsr r8, ",
                $s,
                "\n",
                "add r8, #1\n",
                "usat ",
                $s,
                ", #15, r8, asr #1\n",
                $done,
                ":\n"
            )
        };
    }
    macro_rules! zero {
        ($s:literal, $done:literal, $zero:literal) => {
            concat!($zero, ":\n", "movs ", $s, ", #0\n", "b ", $done, "b\n")
        };
    }
    naked_asm!(
        isa!(),
        "push {{r4-r11, lr}}",
        "ldr r1, [r0, #8]",
        "sub sp, #24",
        "strd r0, r1, [sp]",
        "2:",
        "ldr r12, [sp]",
        "ldr r3, [r12, #12]",
        "ldrd r0, r1, [r12, #16]",
        "ldmia r3!, {{r4, r6, r8, r10}}",
        "str r3, [r12, #12]",
        "add r5, r4, r1",
        "add r4, r0",
        "add r7, r6, r1",
        "add r6, r0",
        "add r9, r8, r1",
        "add r8, r0",
        "add r11, r10, r1",
        "add r10, r0",
        "ldrd r0, r1, [r12]",
        multiply!(add),
        "ldr r2, [sp]",
        "str r0, [r2]",
        "strd r8, r9, [sp, #8]",
        "strd r10, r11, [sp, #16]",
        "ldr r11, [r2, #24]",
        "mov lr, #256",
        "add r2, #32",
        "ldm r2, {{r0, r1, r2, r3, r12}}",
        value!("r4", "21", "31"),
        value!("r5", "22", "32"),
        value!("r6", "23", "33"),
        value!("r7", "24", "34"),
        "pkhbt r4, r4, r6, lsl #16",
        "pkhbt r5, r5, r7, lsl #16",
        "strd r4, r5, [r11]",
        "ldrd r4, r5, [sp, #8]",
        "ldrd r6, r7, [sp, #16]",
        value!("r4", "25", "35"),
        value!("r5", "26", "36"),
        value!("r6", "27", "37"),
        value!("r7", "28", "38"),
        "pkhbt r4, r4, r6, lsl #16",
        "pkhbt r5, r5, r7, lsl #16",
        "strd r4, r5, [r11, #16]",
        "ldr r12, [sp]",
        "add r11, #32",
        "str r11, [r12, #24]",
        "ldr r3, [r12, #28]",
        "subs r3, #1",
        "str r3, [r12, #28]",
        "bne 2b",
        "add sp, #24",
        "pop {{r4-r11, pc}}",
        zero!("r4", "21", "31"),
        zero!("r5", "22", "32"),
        zero!("r6", "23", "33"),
        zero!("r7", "24", "34"),
        zero!("r4", "25", "35"),
        zero!("r5", "26", "36"),
        zero!("r6", "27", "37"),
        zero!("r7", "28", "38"),
    )
}

/// What [`add_tiles`] is told.
#[repr(C)]
struct Sums {
    x: *const i32,
    w: *const i32,
    y: *mut i32,
    /// Bytes between the rows of sums.
    y_step: usize,
    /// Bytes between pairs of columns.
    w_step: usize,
    /// The sums' factor, over 2^32; 0 if they are added to `y` as they are.
    multiplier: i32,
    pairs: usize,
    /// What sums that have a factor start from.
    zero: [i32; TILE_ROWS * TILE_COLUMNS],
}

/// Adds to the sums of four rows their products with one pair of columns after the other.
#[unsafe(naked)]
unsafe extern "C" fn add_tiles(sums: *mut Sums) {
    naked_asm!(
        isa!(),
        "push {{r0, r1, r4-r11, lr}}",
        "2:",
        "ldr r12, [sp]",
        "ldm r12, {{r0, r1, r2, r3, r12, lr}}",
        "add r12, r1",
        "str r12, [sp, #4]",
        "cmp lr, #0",
        "bne 3f",
        "ldrd r4, r5, [r2]",
        "add r2, r3",
        "ldrd r6, r7, [r2]",
        "add r2, r3",
        "ldrd r8, r9, [r2]",
        "add r2, r3",
        "ldrd r10, r11, [r2]",
        "4:",
        multiply!(add),
        "ldr r12, [sp]",
        "ldr lr, [r12, #20]",
        "ldrd r2, r3, [r12, #8]",
        "add r0, r2, #8",
        "strd r1, r0, [r12, #4]",
        "cmp lr, #0",
        "bne 5f",
        "strd r4, r5, [r2]",
        "add r2, r3",
        "strd r6, r7, [r2]",
        "add r2, r3",
        "strd r8, r9, [r2]",
        "add r2, r3",
        "strd r10, r11, [r2]",
        "6:",
        "ldr r3, [r12, #24]",
        "subs r3, #1",
        "str r3, [r12, #24]",
        "bne 2b",
        "add sp, #8",
        "pop {{r4-r11, pc}}",
        "3:",
        "ldr r2, [sp]",
        "adds r2, #28",
        "ldm r2, {{r4-r11}}",
        "b 4b",
        // The high word of a product, to nearest, is what a sum adds.
        "5:",
        "ldrd r0, r1, [r2]",
        "smmlar r4, r4, lr, r0",
        "smmlar r5, r5, lr, r1",
        "strd r4, r5, [r2]",
        "add r2, r3",
        "ldrd r0, r1, [r2]",
        "smmlar r6, r6, lr, r0",
        "smmlar r7, r7, lr, r1",
        "strd r6, r7, [r2]",
        "add r2, r3",
        "ldrd r0, r1, [r2]",
        "smmlar r8, r8, lr, r0",
        "smmlar r9, r9, lr, r1",
        "strd r8, r9, [r2]",
        "add r2, r3",
        "ldrd r0, r1, [r2]",
        "smmlar r10, r10, lr, r0",
        "smmlar r11, r11, lr, r1",
        "strd r10, r11, [r2]",
        "b 6b",
    )
}

/// Packs `n > 0` groups of four channels of two tokens: channels 0 and 1 into `to[0]` and `to[1]`, 2 and 3
/// `step` bytes on, the next group after as many again.
#[unsafe(naked)]
unsafe extern "C" fn widen_two(a: *const [i8; GROUP], b: *const [i8; GROUP], n: usize, to: *mut i32, step: usize) {
    naked_asm!(
        isa!(),
        "ldr r12, [sp]",
        "push {{r4-r9}}",
        "1:",
        "ldr r4, [r0], #4",
        "ldr r5, [r1], #4",
        "sxtb16 r6, r4",
        "sxtb16 r4, r4, ror #8",
        "sxtb16 r7, r5",
        "sxtb16 r5, r5, ror #8",
        "pkhbt r8, r6, r7, lsl #16",
        "pkhbt r9, r4, r5, lsl #16",
        "strd r8, r9, [r3]",
        "add r3, r12",
        "pkhtb r8, r7, r6, asr #16",
        "pkhtb r9, r5, r4, asr #16",
        "strd r8, r9, [r3]",
        "add r3, r12",
        "subs r2, #1",
        "bne 1b",
        "pop {{r4-r9}}",
        "bx lr",
    )
}

/// The scores of four queries with one key after the other, and the largest so far. A key's groups are widened on the
/// way; they are entered so far behind the start that what is left at the end are whole turns of four.
#[unsafe(naked)]
unsafe extern "C" fn scores(keys: *mut Keys) {
    macro_rules! group {
        () => {
            "
            ldr r3, [r1], #4
            ldm r0!, {{r8-r11}}
            sxtb16 r2, r3
            sxtb16 r3, r3, ror #8
            smlad r4, r8, r2, r4
            smlad r5, r9, r2, r5
            smlad r6, r10, r2, r6
            smlad r7, r11, r2, r7
            ldm r0!, {{r8-r11}}
            smlad r4, r8, r3, r4
            smlad r5, r9, r3, r5
            smlad r6, r10, r3, r6
            smlad r7, r11, r3, r7
            "
        };
    }
    macro_rules! larger {
        ($than:literal, $score:literal) => {
            concat!("cmp ", $score, ", ", $than, "\n", "it gt\n", "movgt ", $than, ", ", $score, "\n")
        };
    }
    naked_asm!(
        isa!(),
        "push {{r0, r4-r11, lr}}",
        "mov r8, r0",
        "ldrd r0, r1, [r8, #16]",
        // 32 bytes of queries and 52 of code to a group.
        "ldr r12, [r8, #24]",
        "add r12, #3",
        "bic r12, #3",
        "add r12, r0, r12, lsl #3",
        "sub r2, r0, r12",
        "ubfx r2, r2, #5, #2",
        "movs r3, #52",
        "adr lr, 11f",
        "mla lr, r2, r3, lr",
        "orr lr, #1",
        "2:",
        "ldr r0, [r8, #16]",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "movs r7, #0",
        "bx lr",
        ".p2align 2",
        "11:",
        group!(),
        group!(),
        group!(),
        group!(),
        "cmp r0, r12",
        "bne 11b",
        "ldr r8, [sp]",
        "ldrd r2, r3, [r8, #32]",
        "strd r4, r5, [r2], #8",
        "strd r6, r7, [r3], #8",
        "strd r2, r3, [r8, #32]",
        "ldm r8, {{r2, r3, r9, r10}}",
        larger!("r2", "r4"),
        larger!("r3", "r5"),
        larger!("r9", "r6"),
        larger!("r10", "r7"),
        "stm r8, {{r2, r3, r9, r10}}",
        "ldr r2, [r8, #28]",
        "ldr r3, [r8, #40]",
        "add r1, r2",
        "subs r3, #1",
        "str r3, [r8, #40]",
        "bne 2b",
        "pop {{r0, r4-r11, pc}}",
    )
}
