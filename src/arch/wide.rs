//! Products of 32 bits on Cortex-M cores with Thumb-2, which sum them in one instruction.
#![allow(unsafe_code)]

use super::softmax::{PAIR, QUAD, Shares};
use crate::math::fixed::{EXP2, Exp2Neg};
use core::arch::naked_asm;
use core::ops::Range;

/// `sum a_i b_i` over the shorter of two slices; wraps.
#[inline(always)]
pub(super) fn dot_i64(a: &[i32], b: &[i32]) -> i64 {
    // SAFETY: reads as many words of both as the shorter has.
    unsafe { dot(a.as_ptr(), b.as_ptr(), a.len().min(b.len())) }
}

/// The sum over `n` words of both, in r3 and r12.
#[unsafe(naked)]
unsafe extern "C" fn dot(a: *const i32, b: *const i32, n: usize) -> i64 {
    naked_asm!(
        "push {{r4-r11}}",
        "movs r3, #0",
        "mov r12, r3",
        "subs r2, #4",
        "blo 2f",
        "1:",
        "ldmia r0!, {{r4-r7}}",
        "ldmia r1!, {{r8-r11}}",
        "smlal r3, r12, r4, r8",
        "smlal r3, r12, r5, r9",
        "smlal r3, r12, r6, r10",
        "smlal r3, r12, r7, r11",
        "subs r2, #4",
        "bhs 1b",
        "2:",
        "adds r2, #4",
        "beq 4f",
        "3:",
        "ldr r4, [r0], #4",
        "ldr r5, [r1], #4",
        "smlal r3, r12, r4, r5",
        "subs r2, #1",
        "bne 3b",
        "4:",
        "mov r0, r3",
        "mov r1, r12",
        "pop {{r4-r11}}",
        "bx lr",
    )
}

/// [`Core::weigh`](super::softmax::Core::weigh).
#[inline(always)]
pub(super) fn weigh(x: &[[i32; PAIR]], v: &[i8], width: usize) -> [[i32; QUAD]; PAIR] {
    let mut sums = [[0; QUAD]; PAIR];
    if !x.is_empty() && (x.len() - 1) * width + QUAD <= v.len() {
        let Range { start, end } = x.as_ptr_range();
        // SAFETY: there is a weight, and every one finds its four values inside `v`, as was just asked.
        unsafe { weigh_quad(&mut sums, start, v.as_ptr(), width, end) };
    }
    sums
}

/// Writes the sums of the weights from `x` to before `x_end`, at least one, times four values each.
#[unsafe(naked)]
unsafe extern "C" fn weigh_quad(
    sums: &mut [[i32; QUAD]; PAIR],
    x: *const [i32; PAIR],
    v: *const i8,
    width: usize,
    x_end: *const [i32; PAIR],
) {
    macro_rules! token {
        () => {
            "
            ldrd r2, r3, [r0], #8
            ldrsb r12, [r1]
            mla r4, r2, r12, r4
            mla r8, r3, r12, r8
            ldrsb r12, [r1, #1]
            mla r5, r2, r12, r5
            mla r9, r3, r12, r9
            ldrsb r12, [r1, #2]
            mla r6, r2, r12, r6
            mla r10, r3, r12, r10
            ldrsb r12, [r1, #3]
            add r1, lr
            mla r7, r2, r12, r7
            mla r11, r3, r12, r11
            "
        };
    }
    naked_asm!(
        "push {{r0, r4-r11, lr}}",
        "mov r0, r1",
        "mov r1, r2",
        "mov lr, r3",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "movs r7, #0",
        "mov r8, r4",
        "mov r9, r4",
        "mov r10, r4",
        "mov r11, r4",
        // A turn takes four tokens; what is over enters in the middle of the first.
        "ldr r2, [sp, #40]",
        "subs r2, r2, r0",
        "lsls r2, r2, #28",
        "bcs 12f",
        "bmi 14f",
        "b 11f",
        "12:",
        "bpl 15f",
        "b 13f",
        "11:",
        token!(),
        "13:",
        token!(),
        "15:",
        token!(),
        "14:",
        token!(),
        "ldr r12, [sp, #40]",
        "cmp r0, r12",
        "bne 11b",
        "pop {{r0}}",
        "stm r0, {{r4-r11}}",
        "pop {{r4-r11, pc}}",
    )
}

/// [`Core::weights`](super::softmax::Core::weights), for factors that have the narrow form.
#[inline(always)]
pub(super) fn weights(decay: &Exp2Neg, pair: &mut [[i32; PAIR]], largest: &[i32; PAIR]) {
    if pair.is_empty() {
        return;
    }
    let (x, n) = (pair.as_mut_ptr(), pair.len());
    // SAFETY: there are `n` pairs, at least one, of which both calls read and write either word.
    unsafe {
        let first = decay_column(x.cast(), n, decay, &EXP2, largest[0]);
        let second = decay_column(x.cast::<i32>().add(1), n, decay, &EXP2, largest[1]);
        share(x, n, &Shares::new([first, second]));
    }
}

/// Replaces every other word from `x` on, `n > 0` of them, by the exponential of its distance to `largest`;
/// their sum.
#[unsafe(naked)]
unsafe extern "C" fn decay_column(
    x: *mut i32,
    n: usize,
    decay: *const Exp2Neg,
    table: *const [[u32; 2]; 128],
    largest: i32,
) -> u32 {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "ldr r11, [sp, #36]",
        "mov r6, r3",
        "add r1, r0, r1, lsl #3",
        "ldm r2, {{r2-r5}}",
        "mov r7, #256",
        "mov lr, #0",
        "1:",
        "ldr r8, [r0]",
        "sub r8, r11, r8",
        "cmp r8, r2",
        "bhs 3f",
        "lsl r8, r3",
        "smull r10, r8, r8, r4",
        "add r8, r5",
        "ubfx r10, r8, #18, #7",
        "add r10, r6, r10, lsl #3",
        "ldrd r9, r10, [r10]",
        "ubfx r12, r8, #9, #9",
        "mla r10, r10, r12, r7",
        "lsr r8, r8, #25",
        "sub r9, r9, r10, lsr #9",
        "lsr r9, r8",
        "add r9, #1",
        "usat r8, #15, r9, asr #1",
        "add lr, r8",
        "2:",
        "str r8, [r0], #8",
        "cmp r0, r1",
        "bne 1b",
        "mov r0, lr",
        "pop {{r4-r11, pc}}",
        "3:",
        "mov r8, #0",
        "b 2b",
    )
}

/// [`Shares`] of `n > 0` pairs.
#[unsafe(naked)]
unsafe extern "C" fn share(x: *mut [i32; PAIR], n: usize, shares: *const Shares) {
    naked_asm!(
        "push {{r4-r10}}",
        "add r1, r0, r1, lsl #3",
        "ldm r2, {{r2-r7}}",
        "1:",
        "ldrd r8, r9, [r0]",
        "lsl r8, r8, #16",
        "lsl r9, r9, #16",
        "umull r10, r8, r8, r2",
        "umull r10, r9, r9, r3",
        "add r8, r4",
        "add r9, r5",
        "lsr r8, r6",
        "lsr r9, r7",
        "strd r8, r9, [r0], #8",
        "cmp r0, r1",
        "bne 1b",
        "pop {{r4-r10}}",
        "bx lr",
    )
}
