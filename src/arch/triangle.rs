//! Products of a packed lower triangle with a few columns side by side, in 64-bit sums.
//!
//! Row `i` of the triangle begins at word `i (i + 1) / 2` and ends with the diagonal. What it is multiplied
//! with lies in rows of [`COLUMNS`] values, so that a value of the triangle is loaded once for all of them.
//! Sums wrap: each caller says why they do not.
#![allow(unsafe_code)]

#[cfg(cortex_m = "helium")]
use super::helium;
#[cfg(not(any(cortex_m = "v7", cortex_m = "dsp")))]
use crate::math::fixed::mul_wide;

/// Columns that are multiplied at once.
pub(crate) const COLUMNS: usize = 4;

/// `n` columns, at most [`COLUMNS`], of a matrix `i32[m, d]`: `x` begins with the first value of the first. A column
/// stands for `round_shift(2^shift x_i, down)`, where `2^shift x_i` has 32 bits and `down` is 1 to 31.
pub(crate) struct Block<'a> {
    pub(crate) x: &'a mut [i32],
    pub(crate) d: usize,
    pub(crate) n: usize,
    pub(crate) shifts: [u32; COLUMNS],
    pub(crate) down: u32,
}

/// Solves `L D L^T x = w` for the columns in place, with the numbers of [`SolveQ26`](crate::ops::solve::SolveQ26), or
/// by `plain(block, scratch)` on cores that have nothing better.
///
/// `f` is the triangle, with the reciprocals of `D` on its diagonal; `scratch` has `m` times [`COLUMNS`] words.
#[inline(always)]
pub(crate) fn substitute(
    f: &[i32],
    block: &mut Block<'_>,
    scratch: &mut [i32],
    plain: impl FnOnce(&mut Block<'_>, &mut [i32]),
) {
    #[cfg(cortex_m = "helium")]
    {
        let _ = plain;
        helium::triangle::substitute(f, block, scratch);
    }
    #[cfg(not(cortex_m = "helium"))]
    {
        let _ = f;
        plain(block, scratch);
    }
}

/// Makes row `l` of `L` of that of a matrix, with the numbers of [`FactorQ26`](crate::ops::solve::FactorQ26) and its
/// `U` in `row`, or by `plain(l, row)` on cores that have nothing better. `above` are the rows of `L` before it.
#[inline(always)]
pub(crate) fn factor_row(above: &[i32], l: &mut [i32], row: &mut [i32], plain: impl FnOnce(&mut [i32], &mut [i32])) {
    #[cfg(cortex_m = "helium")]
    {
        let _ = plain;
        helium::triangle::factor_row(above, l, row);
    }
    #[cfg(not(cortex_m = "helium"))]
    {
        let _ = above;
        plain(l, row);
    }
}

/// `sum_k l_k x_k` over the shorter of a piece of a row and the rows of `x`.
#[inline(always)]
pub(crate) fn row_sums(l: &[i32], x: &[[i32; COLUMNS]]) -> [i64; COLUMNS] {
    #[cfg(any(cortex_m = "v7", cortex_m = "dsp"))]
    return smlal::row_sums(l, x);
    #[cfg(not(any(cortex_m = "v7", cortex_m = "dsp")))]
    l.iter().zip(x).fold([0; COLUMNS], |sums, (&l, x)| add(sums, l, x))
}

/// `sum_k l_k x_k` with the values of a column from row `row` on, of which `l` holds the first, over the rows of `x`
/// and of `l`.
#[inline(always)]
pub(crate) fn column_sums(l: &[i32], row: usize, x: &[[i32; COLUMNS]]) -> [i64; COLUMNS] {
    #[cfg(any(cortex_m = "v7", cortex_m = "dsp"))]
    return smlal::column_sums(l, row, x);
    #[cfg(not(any(cortex_m = "v7", cortex_m = "dsp")))]
    {
        let mut at = 0;
        x.iter().zip(row + 1..).fold([0; COLUMNS], |sums, (x, step)| {
            let l = l.get(at).copied().unwrap_or(0);
            at += step;
            add(sums, l, x)
        })
    }
}

#[cfg(not(any(cortex_m = "v7", cortex_m = "dsp")))]
#[inline(always)]
fn add(sums: [i64; COLUMNS], l: i32, x: &[i32; COLUMNS]) -> [i64; COLUMNS] {
    core::array::from_fn(|c| sums[c].wrapping_add(mul_wide(l, x[c])))
}

/// Cores with Thumb-2 multiply and add to 64 bits in one instruction.
#[cfg(any(cortex_m = "v7", cortex_m = "dsp"))]
mod smlal {
    use super::COLUMNS;
    use core::arch::naked_asm;
    use core::mem::MaybeUninit;

    type Sums = [i64; COLUMNS];

    #[inline(always)]
    pub(super) fn row_sums(l: &[i32], x: &[[i32; COLUMNS]]) -> Sums {
        let n = l.len().min(x.len());
        let mut sums = MaybeUninit::uninit();
        // SAFETY: both have `n` elements; all of `sums` is written.
        unsafe {
            row(&mut sums, l.as_ptr(), x.as_ptr(), x.as_ptr().add(n));
            sums.assume_init()
        }
    }

    #[inline(always)]
    pub(super) fn column_sums(l: &[i32], row: usize, x: &[[i32; COLUMNS]]) -> Sums {
        let n = x.len();
        // The last of `n` values is the sum of the steps before it away from the first.
        if n == 0 || (n - 1) * (2 * row + n) / 2 >= l.len() {
            return Sums::default();
        }
        let (mut sums, x) = (MaybeUninit::uninit(), x.as_ptr_range());
        // SAFETY: there are `n` rows, at least one, and `l` has as many values of the column; all of `sums` is written.
        unsafe {
            column(&mut sums, l.as_ptr(), x.start, x.end, (row + 1) * size_of::<i32>());
            sums.assume_init()
        }
    }

    /// Adds the products of the value in a register with the row at r1, which moves on, to r4 to r11.
    macro_rules! add {
        ($l:literal, $a:literal, $b:literal) => {
            concat!(
                "ldrd ",
                $a,
                ", ",
                $b,
                ", [r1], #8\n",
                "smlal r4, r5, ",
                $l,
                ", ",
                $a,
                "\n",
                "smlal r6, r7, ",
                $l,
                ", ",
                $b,
                "\n",
                "ldrd ",
                $a,
                ", ",
                $b,
                ", [r1], #8\n",
                "smlal r8, r9, ",
                $l,
                ", ",
                $a,
                "\n",
                "smlal r10, r11, ",
                $l,
                ", ",
                $b,
                "\n"
            )
        };
    }
    macro_rules! zero {
        () => {
            "
            movs r4, #0
            movs r5, #0
            movs r6, #0
            movs r7, #0
            mov r8, r4
            mov r9, r4
            mov r10, r4
            mov r11, r4
            "
        };
    }

    /// Sums over the rows from `x` to before `x_end`, which may be none.
    #[unsafe(naked)]
    unsafe extern "C" fn row(
        sums: &mut MaybeUninit<Sums>,
        l: *const i32,
        x: *const [i32; COLUMNS],
        x_end: *const [i32; COLUMNS],
    ) {
        naked_asm!(
            "push {{r0, r4-r11, lr}}",
            "mov r0, r1",
            "mov r1, r2",
            "mov lr, r3",
            zero!(),
            "b 2f",
            "1:",
            "ldr r2, [r0], #4",
            add!("r2", "r3", "r12"),
            "2:",
            "cmp r1, lr",
            "bne 1b",
            "pop {{r0}}",
            "stm r0, {{r4-r11}}",
            "pop {{r4-r11, pc}}",
        )
    }

    /// Sums over the rows from `x` to before `x_end`, at least one. The second value of the column lies `step` bytes
    /// behind the first, and each of those after it a word further than that behind the one before.
    #[unsafe(naked)]
    unsafe extern "C" fn column(
        sums: &mut MaybeUninit<Sums>,
        l: *const i32,
        x: *const [i32; COLUMNS],
        x_end: *const [i32; COLUMNS],
        step: usize,
    ) {
        naked_asm!(
            "push {{r0, r3, r4-r11, lr}}",
            "mov r0, r1",
            "mov r1, r2",
            "ldr r2, [sp, #44]",
            zero!(),
            "1:",
            "ldr r3, [r0]",
            "add r0, r2",
            "adds r2, #4",
            add!("r3", "r12", "lr"),
            "ldr r3, [sp, #4]",
            "cmp r1, r3",
            "bne 1b",
            "pop {{r0, r3}}",
            "stm r0, {{r4-r11}}",
            "pop {{r4-r11, pc}}",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_triangle() {
        let m = 9;
        let l = |i: usize, k: usize| (i * 1000 + k) as i32 - 4000;
        let packed: Vec<i32> = (0..m).flat_map(|i| (0..=i).map(move |k| l(i, k))).collect();
        let x: Vec<[i32; COLUMNS]> = (0..m as i32).map(|k| [k, -k, i32::MAX - k, 7]).collect();
        let sum = |terms: &[(i32, usize)]| -> [i64; COLUMNS] {
            core::array::from_fn(|c| terms.iter().map(|&(l, k)| i64::from(l) * i64::from(x[k][c])).sum())
        };
        for i in 0..m {
            let row = &packed[i * (i + 1) / 2..][..i];
            assert_eq!(row_sums(row, &x), sum(&(0..i).map(|k| (l(i, k), k)).collect::<Vec<_>>()));
            let column = packed.get((i + 1) * (i + 2) / 2 + i..).unwrap_or_default();
            let terms: Vec<_> = (i + 1..m).map(|k| (l(k, i), k)).collect();
            assert_eq!(column_sums(column, i + 1, &x[i + 1..]), sum(&terms));
        }
    }
}
