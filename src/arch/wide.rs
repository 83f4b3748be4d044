//! Products of 32 bits, summed in 64, on Cortex-M cores that have an instruction for it.
#![allow(unsafe_code)]

use core::arch::naked_asm;

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
