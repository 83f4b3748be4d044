//! What is done with a packed lower triangle: both substitutions for four columns at once, and its factorisation.
//!
//! Products are summed four at a time, along a row of the triangle or, gathered, along a column. Where a value is
//! rounded to Q26, `-sum` is taken without a negation: all bits of `sum - 2^25 - 1` are inverted, after the shift.

use super::isa;
use crate::arch::triangle::{Block, COLUMNS};
use core::arch::naked_asm;

/// What a sum begins with: `-2^25 - 1`.
const REST: [u32; 2] = [!(1 << 25), !0];

/// What [`substitute_columns`] is told.
#[repr(C)]
struct Substitution {
    /// For each row, in the order of the registers: columns, sums, a row of the triangle and its length.
    columns: [*mut i32; COLUMNS],
    sums: [[u32; 2]; COLUMNS],
    l: *const i32,
    n: usize,
    x: *mut i32,
    /// Bytes from row to row of `x`.
    step: usize,
    m: usize,
    /// The last value of the diagonal, and the bytes to the one before it.
    diagonal: *const i32,
    diagonal_step: usize,
    /// Where the last column of the triangle would begin if its rows were all of one length.
    last: *const i32,
    lanes: usize,
    shifts: [i32; COLUMNS],
    /// Words to the last four rows of the triangle, the last first, and from them to those of the four rows before.
    rows: [u32; COLUMNS],
    rows_steps: [u32; COLUMNS],
}

/// See [`super::super::triangle::substitute`].
#[inline(always)]
pub(in crate::arch) fn substitute(f: &[i32], block: &mut Block<'_>, scratch: &mut [i32]) {
    let Block { ref mut x, d, n, shifts, down } = *block;
    let m = scratch.len() / COLUMNS;
    let inside = |last: usize| f.len() >= m * (m + 1) / 2 && x.len() >= last * d + n;
    if !(1..=COLUMNS).contains(&n) || !m.checked_sub(1).is_some_and(inside) {
        return;
    }
    let columns = scratch.as_mut_ptr();
    let row = |lane: usize| m.wrapping_sub(1 + lane) as u32;
    let pass = Substitution {
        columns: core::array::from_fn(|c| columns.wrapping_add(c * m)),
        sums: [REST; COLUMNS],
        l: f.as_ptr(),
        n: 0,
        x: x.as_mut_ptr(),
        step: d * size_of::<i32>(),
        m,
        diagonal: f.as_ptr().wrapping_add(m * (m + 1) / 2 - 1),
        diagonal_step: m * size_of::<i32>(),
        last: f.as_ptr().wrapping_add(m - 1),
        lanes: n,
        shifts: shifts.map(|shift| shift as i32 - down as i32),
        rows: core::array::from_fn(|lane| row(lane).wrapping_mul(row(lane).wrapping_add(1)) / 2),
        rows_steps: core::array::from_fn(|lane| row(lane).wrapping_mul(4).wrapping_sub(6)),
    };
    // SAFETY: `f` has a triangle of `m > 0` rows, `x` has `n` values, one to four, of as many rows, and `scratch` room
    // for four columns of them. The lanes of rows above the triangle are never loaded.
    unsafe { substitute_columns(&pass) };
}

/// See [`super::super::triangle::factor_row`].
#[inline(always)]
pub(in crate::arch) fn factor_row(above: &[i32], l: &mut [i32], row: &mut [i32]) {
    let n = l.len();
    if n > 0 && above.len() >= n * (n + 1) / 2 && row.len() >= n {
        // SAFETY: there are `n > 0` rows above, and as many values of `l` and of `row`.
        unsafe { factor_values(above.as_ptr(), l.as_mut_ptr(), row.as_mut_ptr(), n) };
    }
}

/// A row after the other, with its sums in r4 to r11. The values that are known of a column lie together: from the
/// first on, or, in the back substitution, from the last on.
#[unsafe(naked)]
unsafe extern "C" fn substitute_columns(pass: &Substitution) {
    /// Adds the products of q0 with each column.
    macro_rules! add {
        () => {
            "
            vldrw.u32 q1, [r0], #16
            vmlaldava.s32 r4, r5, q0, q1
            vldrw.u32 q1, [r1], #16
            vmlaldava.s32 r6, r7, q0, q1
            vldrw.u32 q1, [r2], #16
            vmlaldava.s32 r8, r9, q0, q1
            vldrw.u32 q1, [r3], #16
            vmlaldava.s32 r10, r11, q0, q1
            "
        };
    }
    /// Takes `2^26 x` from a sum and divides it by `2^26`.
    macro_rules! subtract {
        ($x:literal, $low:literal, $high:literal) => {
            concat!(
                "subs ",
                $low,
                ", ",
                $low,
                ", ",
                $x,
                ", lsl #26\n",
                "sbc ",
                $high,
                ", ",
                $high,
                ", ",
                $x,
                ", asr #6\n",
                "sqshll ",
                $low,
                ", ",
                $high,
                ", #6\n",
            )
        };
    }
    /// Takes `2^4 r0 x` from a sum and divides it by `2^26`.
    macro_rules! subtract_product {
        ($x:literal, $low:literal, $high:literal) => {
            concat!(
                "smull r2, r3, r0, ",
                $x,
                "\n",
                "lsll r2, r3, #4\n",
                "subs ",
                $low,
                ", r2\n",
                "sbc ",
                $high,
                ", r3\n",
                "sqshll ",
                $low,
                ", ",
                $high,
                ", #6\n",
            )
        };
    }
    /// Writes the inverted bits of the quotients behind those of the rows before, and to the row of `x` at a register.
    macro_rules! write {
        ($x:literal) => {
            concat!(
                "vmov q0[2], q0[0], r5, r9\n",
                "vmov q0[3], q0[1], r7, r11\n",
                "vmvn q0, q0\n",
                "vstrw.32 q0, [q5, #4]!\n",
                "vpst\n",
                "vstrwt.32 q0, [",
                $x,
                "]\n",
            )
        };
    }
    naked_asm!(
        isa!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "add r1, r0, #80",
        "ldr r2, [r1], #4",
        "vctp.32 r2",
        "vldrw.u32 q4, [r1]",
        "vldrw.u32 q6, [r1, #16]",
        "vldrw.u32 q7, [r1, #32]",
        "vldrw.u32 q5, [r0]",
        "movs r2, #4",
        "vsub.i32 q5, q5, r2",
        "add r1, r0, #56",
        "ldm r1, {{r1-r6}}",
        "push {{r1-r6}}",
        "ldm r0, {{r0-r12, lr}}",
        "push {{r0-r12, lr}}",
        "1:",
        "ldm sp, {{r0-r12, lr}}",
        "wlstp.32 lr, lr, 3f",
        "2:",
        "vldrw.u32 q0, [r12], #16",
        add!(),
        "letp lr, 2b",
        "3:",
        "ldrd r0, r1, [sp, #56]",
        "vpst",
        "vldrwt.u32 q0, [r0]",
        "vrshl.s32 q0, q0, q4",
        "vmov r2, r12, q0[2], q0[0]",
        "vmov r3, lr, q0[3], q0[1]",
        subtract!("r2", "r4", "r5"),
        subtract!("r3", "r6", "r7"),
        subtract!("r12", "r8", "r9"),
        subtract!("lr", "r10", "r11"),
        write!("r0"),
        "add r0, r1",
        "str r0, [sp, #56]",
        "ldrd r12, lr, [sp, #48]",
        "add lr, #1",
        "add r12, r12, lr, lsl #2",
        "strd r12, lr, [sp, #48]",
        "ldr r2, [sp, #64]",
        "cmp lr, r2",
        "bne 1b",
        // Back, by columns of the triangle.
        "subs r0, r1",
        "str r0, [sp, #56]",
        "ldr r12, [sp, #76]",
        "movs r0, #0",
        "strd r12, r0, [sp, #48]",
        "mov r0, sp",
        "vldrw.u32 q5, [r0]",
        "movs r2, #4",
        "vsub.i32 q5, q5, r2",
        "vmov.i32 q4, #16",
        "4:",
        "ldm sp, {{r0-r12, lr}}",
        "vmov q2, q6",
        "vmov q3, q7",
        "wlstp.32 lr, lr, 6f",
        "5:",
        "vldrw.u32 q0, [r12, q2, uxtw #2]",
        "vsub.i32 q2, q2, q3",
        add!(),
        "vsub.i32 q3, q3, q4",
        "letp lr, 5b",
        "6:",
        "ldrd r2, r3, [sp, #68]",
        "ldr r0, [r2]",
        "subs r2, r3",
        "subs r3, #4",
        "strd r2, r3, [sp, #68]",
        "ldr r1, [sp, #56]",
        "vpst",
        "vldrwt.u32 q0, [r1]",
        "vmov r12, lr, q0[2], q0[0]",
        subtract_product!("r12", "r4", "r5"),
        subtract_product!("lr", "r8", "r9"),
        "vmov r12, lr, q0[3], q0[1]",
        subtract_product!("r12", "r6", "r7"),
        subtract_product!("lr", "r10", "r11"),
        write!("r1"),
        "ldr r0, [sp, #60]",
        "subs r1, r0",
        "str r1, [sp, #56]",
        "ldrd r12, lr, [sp, #48]",
        "sub r12, #4",
        "add lr, #1",
        "strd r12, lr, [sp, #48]",
        "ldr r2, [sp, #64]",
        "cmp lr, r2",
        "bne 4b",
        "add sp, #80",
        "vpop {{d8-d15}}",
        "pop {{r4-r11, pc}}",
    )
}

/// Replaces the `n` values of `l`, at least one, and writes those of `row`.
#[unsafe(naked)]
unsafe extern "C" fn factor_values(above: *const i32, l: *mut i32, row: *mut i32, n: usize) {
    naked_asm!(
        isa!(),
        "push {{r4-r9, lr}}",
        "mov r8, #0",
        "1:",
        "mvn r4, #0x2000000",
        "mvn r5, #0",
        "mov r6, r2",
        "mov r7, r0",
        "wlstp.32 lr, r8, 3f",
        "2:",
        "vldrw.u32 q0, [r7], #16",
        "vldrw.u32 q1, [r6], #16",
        "vmlaldava.s32 r4, r5, q0, q1",
        "letp lr, 2b",
        "3:",
        "ldr r6, [r1]",
        "sub r5, r5, r6, lsl #9",
        "sqshll r4, r5, #6",
        "mvns r5, r5",
        "str r5, [r2, r8, lsl #2]",
        // The reciprocal on the diagonal.
        "ldr r6, [r0, r8, lsl #2]",
        "smull r4, r5, r5, r6",
        "srshrl r4, r5, #26",
        "sqshll r4, r5, #32",
        "str r5, [r1], #4",
        "add r8, #1",
        "add r0, r0, r8, lsl #2",
        "cmp r8, r3",
        "bne 1b",
        "pop {{r4-r9, pc}}",
    )
}
