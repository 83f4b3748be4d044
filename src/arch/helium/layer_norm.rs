//! LayerNorm, a row at a time: its sums, and what becomes of its values once their root is known.

use super::isa;
use crate::arch::Standardise;
use crate::arch::products::Output;
use core::arch::naked_asm;

/// The sums of the values and of their squares.
#[inline(always)]
pub(in crate::arch) fn moments(x: &[i16]) -> (i32, i64) {
    let mut squares = 0;
    // SAFETY: all of `x` is read.
    let sum = unsafe { sums(x.as_ptr(), x.len(), &mut squares) };
    (sum, squares)
}

/// What [`standardise_i8`] is told, in the order of its registers.
#[repr(C)]
struct Row {
    x: *const i16,
    gamma: *const i16,
    beta: *const i32,
    y: *mut u8,
    c: usize,
    minus_sum: i32,
    /// Up, or down where negative, as `down` is.
    shift: i32,
    half: i32,
    down: i32,
    zero: i32,
    mantissa: i32,
    lo: i32,
    hi: i32,
}

/// See [`super::super::standardise`].
#[inline(always)]
pub(in crate::arch) fn standardise<O: Output>(
    s: Standardise,
    x: &[i16],
    gamma: &[i16],
    beta: &[i32],
    output: O,
    y: &mut [O::T],
) {
    let c = x.len();
    if c == 0 || gamma.len() < c || beta.len() < c || y.len() < c {
        return;
    }
    let [zero, lo, hi] = output.range().map(i32::from);
    let row = Row {
        x: x.as_ptr(),
        gamma: gamma.as_ptr(),
        beta: beta.as_ptr(),
        y: y.as_mut_ptr().cast(),
        c,
        minus_sum: -s.sum,
        shift: s.up as i32 - s.down as i32,
        half: 1 << (s.shift - 1),
        down: -s.shift,
        zero,
        mantissa: s.mantissa as i32,
        lo,
        hi,
    };
    // SAFETY: all four have `c > 0` elements, those of `y` as wide as is stored.
    unsafe {
        match size_of::<O::T>() {
            1 => standardise_i8(&row),
            _ => standardise_i16(&row),
        }
    }
}

/// The sum of `n` values, and that of their squares.
#[unsafe(naked)]
unsafe extern "C" fn sums(x: *const i16, n: usize, squares: *mut i64) -> i32 {
    naked_asm!(
        isa!(),
        "push {{r4-r6, lr}}",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "wlstp.16 lr, r1, 2f",
        "1:",
        "vldrh.u16 q0, [r0], #16",
        "vaddva.s16 r6, q0",
        "vmlaldava.s16 r4, r5, q0, q0",
        "letp lr, 1b",
        "2:",
        "strd r4, r5, [r2]",
        "mov r0, r6",
        "pop {{r4-r6, pc}}",
    )
}

/// The values of a row, which `$store` stores.
macro_rules! standardise {
    ($store:literal) => {
        naked_asm!(
            isa!(),
            "push {{r4-r12, lr}}",
            "vpush {{d8-d9}}",
            "ldm r0, {{r0-r12}}",
            "vdup.32 q1, r10",
            "vdup.32 q2, r11",
            "vdup.32 q3, r12",
            "dlstp.32 lr, r4",
            "1:",
            "vldrh.s32 q0, [r0], #8",
            "vmul.i32 q0, q0, r4",
            "vldrh.s32 q4, [r1], #8",
            "vadd.i32 q0, q0, r5",
            "vshl.i32 q4, q4, #16",
            "vrshl.s32 q0, r6",
            "vrmulh.s32 q0, q0, q1",
            // The product with gamma, without its low 16 bits.
            "vmulh.s32 q0, q0, q4",
            "vldrw.u32 q4, [r2], #16",
            "vqadd.s32 q0, q0, q4",
            "vqadd.s32 q0, q0, r7",
            "vshl.s32 q0, r8",
            "vadd.i32 q0, q0, r9",
            "vmax.s32 q0, q0, q2",
            "vmin.s32 q0, q0, q3",
            $store,
            "letp lr, 1b",
            "vpop {{d8-d9}}",
            "pop {{r4-r12, pc}}",
        )
    };
}

/// Results of int8.
#[unsafe(naked)]
unsafe extern "C" fn standardise_i8(row: *const Row) {
    standardise!("vstrb.32 q0, [r3], #4")
}

/// Results of int16.
#[unsafe(naked)]
unsafe extern "C" fn standardise_i16(row: *const Row) {
    standardise!("vstrh.32 q0, [r3], #8")
}
