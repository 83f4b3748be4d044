//! Means of windows, four channels at a time: two words of two sums each.

use crate::arch::window::{Means, Window};
use core::arch::naked_asm;

/// See [`super::super::means`].
#[inline(always)]
pub(in crate::arch) fn means(s: Window, x: &[i8], y: &mut [i8]) -> usize {
    let (quads, _) = y.as_chunks_mut::<4>();
    let Some(means) = Means::new(s, x, quads.as_flattened_mut()) else { return 0 };
    // SAFETY: these channels of all pixels of the window lie inside `x`: `Means::new` saw to it.
    unsafe { window(&means) };
    means.left
}

/// A multiple of four channels. r1: channels of a pixel, r2: columns, r3: step, r5: y, r6: x, r7: offset twice, r8:
/// inverse; sums of channels 0 and 2 in r9, of 1 and 3 in r10.
#[unsafe(naked)]
unsafe extern "C" fn window(means: *const Means) {
    naked_asm!(
        isa!(),
        "push {{r4-r11, lr}}",
        "ldm r0!, {{r1-r8}}",
        "push {{r4}}",
        "pkhbt r7, r7, r7, lsl #16",
        "1:",
        "movs r4, #0",
        "mov r9, r4",
        "mov r10, r4",
        "mov r11, r6",
        "ldr r12, [r0]",
        "2:",
        "mov lr, r2",
        "3:",
        "ldr r4, [r11]",
        "add r11, r1",
        "sxtab16 r9, r9, r4",
        "sxtab16 r10, r10, r4, ror #8",
        "subs lr, #1",
        "bne 3b",
        "add r11, r3",
        "subs r12, #1",
        "bne 2b",
        "uadd16 r9, r9, r7",
        "uadd16 r10, r10, r7",
        "uxth r4, r9",
        "umull r4, r11, r4, r8",
        "lsr r4, r9, #16",
        "umull r4, r12, r4, r8",
        "uxth r4, r10",
        "umull r4, r9, r4, r8",
        "lsr r4, r10, #16",
        "umull r4, r10, r4, r8",
        "orr r11, r11, r9, lsl #8",
        "orr r11, r11, r12, lsl #16",
        "orr r11, r11, r10, lsl #24",
        "eor r11, #0x80808080",
        "str r11, [r5], #4",
        "add r6, #4",
        "ldr r4, [sp]",
        "subs r4, #4",
        "str r4, [sp]",
        "bne 1b",
        "add sp, #4",
        "pop {{r4-r11, pc}}",
    )
}
