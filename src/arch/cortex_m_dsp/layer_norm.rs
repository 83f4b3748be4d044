//! LayerNorm, two values at a time: a row's sums, and what becomes of its values once their root is known.

use crate::arch::Standardise;
use crate::arch::products::{Output, ToI8};
use crate::math::fixed::{mul_high_rounded, mul_q16};
use core::arch::naked_asm;

/// The sums of the values and of their squares.
#[inline(always)]
pub(in crate::arch) fn moments(x: &[i16]) -> (i32, i64) {
    let (quads, rest) = x.as_chunks::<4>();
    let mut squares = 0;
    // SAFETY: all of `quads` is read.
    let mut sum = if quads.is_empty() { 0 } else { unsafe { sums(quads.as_ptr(), quads.len(), &mut squares) } };
    for x in rest.iter().map(|&x| i32::from(x)) {
        (sum, squares) = (sum + x, squares + i64::from(x * x));
    }
    (sum, squares)
}

/// What [`pairs`] is told, in the order of its registers.
#[repr(C)]
struct Row {
    x: *const [i16; 2],
    gamma: *const [i16; 2],
    beta: *const [i32; 2],
    y: *mut [i8; 2],
    pairs: usize,
    scale: i32,
    minus_offset: i32,
    mantissa: i32,
    bias: i32,
    shift: i32,
}

/// See [`super::super::standardise`]: `false`, and nothing done, where the outputs are less than all of int8 or a
/// sum could leave 32 bits.
#[inline(always)]
pub(in crate::arch) fn standardise(
    s: Standardise,
    x: &[i16],
    gamma: &[i16],
    beta: &[i32],
    to: ToI8,
    y: &mut [i8],
) -> bool {
    let c = x.len();
    let bias = (i64::from(to.zero) << s.shift) + (1 << (s.shift - 1));
    // Beside betas that are tame.
    let fits = s.is_tame && bias.unsigned_abs() <= 1 << 29;
    if !fits || s.down > 0 || (to.lo, to.hi) != (-128, 127) || gamma.len() < c || beta.len() < c || y.len() < c {
        return false;
    }
    let (scale, minus_offset, mantissa) = ((c as i32) << s.up, (s.sum << s.up).wrapping_neg(), s.mantissa as i32);
    if c > 1 {
        let row = Row {
            x: x.as_ptr().cast(),
            gamma: gamma.as_ptr().cast(),
            beta: beta.as_ptr().cast(),
            y: y.as_mut_ptr().cast(),
            pairs: c / 2,
            scale,
            minus_offset,
            mantissa,
            bias: bias as i32,
            shift: s.shift,
        };
        // SAFETY: all four have `c > 1` elements.
        unsafe { pairs(&row) };
    }
    if let (1, Some(i)) = (c % 2, c.checked_sub(1)) {
        let d = scale.wrapping_mul(i32::from(x[i])).wrapping_add(minus_offset);
        y[i] = to.put((mul_q16(mul_high_rounded(d, mantissa), gamma[i]) + beta[i] + (1 << (s.shift - 1))) >> s.shift);
    }
    true
}

/// The sum of `n > 0` times four values, and that of their squares.
#[unsafe(naked)]
unsafe extern "C" fn sums(x: *const [i16; 4], n: usize, squares: *mut i64) -> i32 {
    naked_asm!(
        isa!(),
        "push {{r4-r6, lr}}",
        "movs r3, #0",
        "movs r4, #0",
        "movs r5, #0",
        "mov r6, #0x10001",
        "1:",
        "ldr r12, [r0], #4",
        "ldr lr, [r0], #4",
        "smlad r3, r12, r6, r3",
        "smlald r4, r5, r12, r12",
        "smlad r3, lr, r6, r3",
        "smlald r4, r5, lr, lr",
        "subs r1, #1",
        "bne 1b",
        "strd r4, r5, [r2]",
        "mov r0, r3",
        "pop {{r4-r6, pc}}",
    )
}

/// The values of a row, but for an odd one at its end.
#[unsafe(naked)]
unsafe extern "C" fn pairs(row: *const Row) {
    naked_asm!(
        isa!(),
        "push {{r4-r11, lr}}",
        "ldm r0, {{r0-r9}}",
        "1:",
        "ldrsh r10, [r0], #2",
        "ldrsh r11, [r0], #2",
        "ldr r12, [r1], #4",
        "ldr lr, [r2], #4",
        "mla r10, r10, r5, r6",
        "mla r11, r11, r5, r6",
        "smmulr r10, r10, r7",
        "smmulr r11, r11, r7",
        "smlawb r10, r10, r12, lr",
        "ldr lr, [r2], #4",
        "smlawt r11, r11, r12, lr",
        "add r10, r8",
        "add r11, r8",
        "asr r10, r9",
        "asr r11, r9",
        "ssat r10, #8, r10",
        "ssat r11, #8, r11",
        "strb r10, [r3], #1",
        "strb r11, [r3], #1",
        "subs r4, #1",
        "bne 1b",
        "pop {{r4-r11, pc}}",
    )
}
