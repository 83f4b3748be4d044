//! Softmax attention, four queries at a time, one to a lane: their scores with all keys, exponentials and weights
//! in the same place, and the sums of the values, four channels at a time.

use super::attention::{EXP2_MASK, values};
use super::products::{Tiles, rest, sums, vector, vectors};
use super::{Scale, VECTOR, copy_interleaved, isa, tile_words};
use crate::arch::attention::next;
use crate::arch::cortex_m_dsp::Dsp;
use crate::arch::products::TILE_ROWS;
use crate::arch::softmax::{self, Softmax};
use crate::math::fixed::{EXP2, MAX_SHIFT, Requantise, reciprocal};
use core::arch::naked_asm;

/// Lanes of int32: queries, or channels.
const LANES: usize = 4;

/// See [`super::super::softmax`].
pub(in crate::arch) fn run(s: &Softmax, q: &[i8], k: &[i8], v: &[i8], y: &mut [i8], scratch: &mut [i32]) {
    let all = s.n * s.width;
    let (rows, panel) = (s.n * LANES, tile_words(s.d));
    let fits = s.n > 0 && scratch.len() >= rows + panel && k.len() >= all && v.len() >= all;
    let (Some(curve), true) = (s.decay.narrow, fits) else {
        return softmax::run::<Dsp>(s, q, k, v, y, scratch);
    };
    let mut scratch = scratch;
    // What follows the last row is written where the number of keys is odd, after the panel's last use.
    let space = next(&mut scratch, rows + panel);
    let (weights, queries) = (space.as_mut_ptr().cast::<[i32; LANES]>(), rows);
    let multiplier = if s.shift > MAX_SHIFT as i32 { 0 } else { s.multiplier };
    let scale = Scale::new(Requantise::new(multiplier, s.shift.max(0) as u32));
    let mut exponentials = Exponentials {
        up: curve.up,
        multiplier: curve.multiplier,
        table: EXP2.as_ptr(),
        mask: EXP2_MASK,
        largest: [0; LANES],
        totals: [0; LANES],
    };
    for (q, y) in q.chunks(TILE_ROWS * s.width).zip(y.chunks_mut(TILE_ROWS * s.width)) {
        let here = q.len() / s.width;
        for i in 0..here {
            let x = s.row(q, i);
            let Some(tile) = space.get_mut(queries..) else { return };
            // SAFETY: all of `x`, `d` values, is read; the tile has a vector of each row for every sixteen of them.
            unsafe { copy_interleaved(x.as_ptr(), x.len(), tile.as_mut_ptr().cast::<i8>().add(i * VECTOR)) };
        }
        let mut scores = Scores {
            x: core::ptr::null(),
            w: s.row(k, 0).as_ptr(),
            step: s.width,
            second: s.width,
            turns: Tiles::turns(s.d / VECTOR),
            rest: s.d % VECTOR,
            out: weights,
            pairs: s.n / 2,
            largest: [i32::MIN; LANES],
        };
        let mut shares = Shares { inverse: [0; LANES], down: [0; LANES] };
        // SAFETY: the keys have `n` rows, the head's channels of each `d` values as the queries'. There is room for
        // the scores of `n` keys and one more.
        unsafe {
            scores.x = space.as_ptr().add(queries);
            if scores.pairs > 0 {
                self::scores(&mut scores);
            }
            if s.n % 2 > 0 {
                // The last key twice.
                (scores.second, scores.pairs) = (0, 1);
                self::scores(&mut scores);
            }
            exponentials.largest = scores.largest;
            exponents(weights, s.n, &mut exponentials);
            for ((total, inverse), down) in exponentials.totals.iter().zip(&mut shares.inverse).zip(&mut shares.down) {
                // At least 32767.
                let zeros = total.leading_zeros();
                (*inverse, *down) = (reciprocal(total << zeros), zeros as i32 - 24);
            }
            share(weights, s.n, &shares);
        }
        for c in (0..s.d).step_by(LANES) {
            let (Some(v), Some(y)) = (v.get(s.first + c..), y.get_mut(s.first + c..)) else { return };
            let pass = Sums {
                x: weights,
                v: v.as_ptr(),
                step: s.width,
                n: s.n,
                y: y.as_mut_ptr(),
                queries: here,
                channels: (s.d - c).min(LANES),
                up: scale.up,
                down: scale.down,
                zero: s.to.zero,
                multiplier: scale.multiplier,
                lo: s.to.lo,
                hi: s.to.hi,
            };
            // SAFETY: there are `n` rows of weights and of values, and `here` rows of `y`, with so many channels from
            // the first on.
            unsafe { weigh(&pass) };
        }
    }
}

/// What [`scores`] is told.
#[repr(C)]
struct Scores {
    x: *const i32,
    w: *const i8,
    /// Bytes between keys.
    step: usize,
    /// Bytes from the first key of a pair to the second.
    second: usize,
    turns: usize,
    /// Values after the last whole vector.
    rest: usize,
    out: *mut [i32; LANES],
    pairs: usize,
    largest: [i32; LANES],
}

/// The scores of four queries with one pair of keys after the other, and the largest so far.
#[unsafe(naked)]
unsafe extern "C" fn scores(scores: *mut Scores) {
    naked_asm!(
        isa!(),
        "push {{r3-r11, lr}}",
        "vpush {{d8-d15}}",
        "mov r9, r0",
        "vldrw.u32 q6, [r9, #32]",
        "ldr r11, [r9, #24]",
        "2:",
        "ldr r1, [r9]",
        "ldrd r3, r0, [r9, #4]",
        "ldrd r5, r7, [r9, #12]",
        "add r0, r3, r0, lsl #1",
        "add r5, r3",
        "str r0, [r9, #4]",
        "movs r0, #0",
        "movs r2, #0",
        "movs r4, #0",
        "movs r6, #0",
        "mov r8, r0",
        "mov r10, r0",
        "mov r12, r0",
        "mov lr, r0",
        vectors!(i8),
        "ldr r7, [r9, #20]",
        rest!(),
        sums!(),
        "ldr r7, [r9, #28]",
        "vstrw.32 q0, [r11], #16",
        "vmax.s32 q6, q6, q0",
        "vstrw.32 q1, [r11], #16",
        "vmax.s32 q6, q6, q1",
        "subs r7, #1",
        "str r7, [r9, #28]",
        "bne 2b",
        "str r11, [r9, #24]",
        "vstrw.32 q6, [r9, #32]",
        "vpop {{d8-d15}}",
        "pop {{r3-r11, pc}}",
    )
}

/// What [`exponents`] is told.
#[repr(C)]
struct Exponentials {
    up: u32,
    multiplier: i32,
    table: *const [u32; 2],
    mask: u32,
    largest: [i32; LANES],
    totals: [u32; LANES],
}

/// The exponentials of `n > 0` scores of each query, in their place, and their sums.
#[unsafe(naked)]
unsafe extern "C" fn exponents(x: *mut [i32; LANES], n: usize, exponentials: *mut Exponentials) {
    naked_asm!(
        isa!(),
        "push {{r4-r10, lr}}",
        "vpush {{d8-d15}}",
        "mov r9, r2",
        "mov r10, r0",
        "mov r7, r1",
        "ldrd r0, r5, [r9]",
        "ldrd r6, r12, [r9, #8]",
        "add r8, r6, #4",
        "vdup.32 q7, r5",
        "vdup.32 q6, r12",
        "vldrw.u32 q3, [r9, #16]",
        "vmov.i32 q1, #0",
        "dls lr, r7",
        "1:",
        "vldrw.u32 q0, [r10]",
        "vsub.i32 q0, q3, q0",
        values!("q0", "q2", "r0", "r6", "r8"),
        "vrshr.u32 q2, q2, #15",
        "vqmovnb.s32 q2, q2",
        "vadd.i32 q1, q1, q2",
        "vstrw.32 q2, [r10], #16",
        "le lr, 1b",
        "vstrw.32 q1, [r9, #32]",
        "vpop {{d8-d15}}",
        "pop {{r4-r10, pc}}",
    )
}

/// From the exponentials of four queries to their weights in Q23, as [`softmax::Shares`] says.
#[repr(C)]
struct Shares {
    inverse: [u32; LANES],
    /// Negative: the instruction shifts up.
    down: [i32; LANES],
}

/// The weights of `n > 0` exponentials of each query, in their place.
#[unsafe(naked)]
unsafe extern "C" fn share(x: *mut [i32; LANES], n: usize, shares: *const Shares) {
    naked_asm!(
        isa!(),
        "push {{r7, lr}}",
        "vldrw.u32 q1, [r2]",
        "vldrw.u32 q2, [r2, #16]",
        "dls lr, r1",
        "1:",
        "vldrw.u32 q0, [r0]",
        "vshl.i32 q0, q0, #16",
        "vmulh.u32 q0, q0, q1",
        "vrshl.u32 q0, q0, q2",
        "vstrw.32 q0, [r0], #16",
        "le lr, 1b",
        "pop {{r7, pc}}",
    )
}

/// What [`weigh`] is told.
#[repr(C)]
struct Sums {
    x: *const [i32; LANES],
    v: *const i8,
    /// Bytes between tokens.
    step: usize,
    n: usize,
    y: *mut i8,
    queries: usize,
    channels: usize,
    up: i32,
    down: i32,
    zero: i32,
    multiplier: i32,
    lo: i32,
    hi: i32,
}

/// The results of up to four queries in up to four channels.
#[unsafe(naked)]
unsafe extern "C" fn weigh(sums: *const Sums) {
    macro_rules! add {
        () => {
            "
            add r1, r2
            ldm r0!, {{r4-r7}}
            vmla.s32 q0, q4, r4
            vmla.s32 q1, q4, r5
            vmla.s32 q2, q4, r6
            vmla.s32 q3, q4, r7
            "
        };
    }
    macro_rules! finish {
        ($q:literal) => {
            concat!(
                "vqshl.s32 ",
                $q,
                ", r0\nvmulh.s32 ",
                $q,
                ", ",
                $q,
                ", q5\nvrshl.s32 ",
                $q,
                ", r1\nvadd.i32 ",
                $q,
                ", ",
                $q,
                ", r3\nvmax.s32 ",
                $q,
                ", ",
                $q,
                ", q6\nvmin.s32 ",
                $q,
                ", ",
                $q,
                ", q7\nvpst\nvstrbt.32 ",
                $q,
                ", [r7]\nsubs r9, #1\nbeq 4f\nadd r7, r2\n",
            )
        };
    }
    naked_asm!(
        isa!(),
        "push {{r4-r10, lr}}",
        "vpush {{d8-d15}}",
        "mov r12, r0",
        "vmov.i32 q0, #0",
        "vmov.i32 q1, #0",
        "vmov.i32 q2, #0",
        "vmov.i32 q3, #0",
        "ldm r12, {{r0-r3}}",
        "ldrd r8, r9, [r12, #16]",
        "ldr r10, [r12, #24]",
        "vctp.32 r10",
        "dls lr, r3",
        "cmp r10, #4",
        "bne 2f",
        "1:",
        "vldrb.s32 q4, [r1]",
        add!(),
        "le lr, 1b",
        "b 3f",
        "2:",
        "vpst",
        "vldrbt.s32 q4, [r1]",
        add!(),
        "le lr, 2b",
        "3:",
        "mov r7, r8",
        "add r12, #28",
        "ldm r12, {{r0, r1, r3, r4, r5, r6}}",
        "vdup.32 q5, r4",
        "vdup.32 q6, r5",
        "vdup.32 q7, r6",
        finish!("q0"),
        finish!("q1"),
        finish!("q2"),
        finish!("q3"),
        "4:",
        "vpop {{d8-d15}}",
        "pop {{r4-r10, pc}}",
    )
}
