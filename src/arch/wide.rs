//! Products of 32 bits on Cortex-M cores with Thumb-2, which sum them in one instruction.
#![allow(unsafe_code)]

use super::softmax::{PAIR, QUAD};
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
