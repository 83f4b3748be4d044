//! Four columns of a matrix that lies in rows, or fewer: a row of them is a vector, whose lanes are predicated.

use super::isa;
use crate::arch::columns::Magnitudes;
use crate::arch::triangle::COLUMNS;
use core::arch::naked_asm;

/// Columns as the loops below take them, in the order of their registers.
#[repr(C)]
struct Columns<T> {
    x: *mut T,
    /// Bytes from row to row.
    step: usize,
    rows: usize,
    lanes: usize,
}

impl<T> Columns<T> {
    /// As many rows as `x` has all of.
    #[inline(always)]
    fn new(x: *mut T, len: usize, d: usize, n: usize) -> Self {
        let rows = len.checked_sub(n).and_then(|rest| rest.checked_div(d)).map_or(0, |rest| rest + 1);
        Self { x, step: d * size_of::<T>(), rows, lanes: n }
    }
}

/// See [`super::super::columns::column_bits`].
#[inline(always)]
pub(in crate::arch) fn bits(x: &[i32], d: usize, n: usize) -> [u32; COLUMNS] {
    let mut bits = [0; COLUMNS];
    let columns = Columns::new(x.as_ptr().cast_mut(), x.len(), d, n);
    // SAFETY: reads the `n` values of so many rows; all of `bits` is written.
    unsafe { bits_of(&columns, &mut bits) };
    bits
}

/// See [`super::super::columns::scale_columns`].
#[inline(always)]
pub(in crate::arch) fn scale(x: &mut [i32], d: usize, n: usize, s: &[i32], up: u32, shifts: [u32; COLUMNS]) {
    let mut columns = Columns::new(x.as_mut_ptr(), x.len(), d, n);
    columns.rows = columns.rows.min(s.len());
    // SAFETY: reads and writes the `n` values of so many rows, of which `s` has one each.
    unsafe { scale_by(&columns, s.as_ptr(), up, &shifts) };
}

/// See [`super::super::columns::magnitudes`].
#[inline(always)]
pub(in crate::arch) fn magnitudes(x: &[i32], d: usize, n: usize) -> Magnitudes {
    let mut found = [[0; COLUMNS]; 3];
    let columns = Columns::new(x.as_ptr().cast_mut(), x.len(), d, n);
    // SAFETY: reads the `n` values of so many rows; all of `found` is written.
    unsafe { magnitudes_of(&columns, &mut found) };
    let [bits, low, high] = found;
    Magnitudes { bits, sums: core::array::from_fn(|c| (u64::from(high[c]) << 16) + u64::from(low[c])) }
}

/// See [`super::super::columns::round_columns`].
#[inline(always)]
pub(in crate::arch) fn round(
    x: &[i32],
    d: usize,
    u: &mut [i16],
    du: usize,
    n: usize,
    shifts: [u32; COLUMNS],
) -> Magnitudes {
    let mut found = [[0; COLUMNS]; 2];
    let (mut from, to) =
        (Columns::new(x.as_ptr().cast_mut(), x.len(), d, n), Columns::new(u.as_mut_ptr(), u.len(), du, n));
    from.rows = from.rows.min(to.rows);
    let down = shifts.map(|shift| -(shift as i32));
    // SAFETY: reads the `n` values of so many rows of `x` and writes as many of `u`; all of `found` is written.
    unsafe { round_to(&from, &to, &down, &mut found) };
    let [bits, sums] = found;
    Magnitudes { bits, sums: sums.map(u64::from) }
}

/// The largest and the smallest value of each column show the bits of all.
#[unsafe(naked)]
unsafe extern "C" fn bits_of(columns: &Columns<i32>, bits: &mut [u32; COLUMNS]) {
    naked_asm!(
        isa!(),
        "push {{r4, lr}}",
        "ldm r0, {{r0, r2, r3, r4}}",
        "vctp.32 r4",
        "vmov.i32 q1, #0",
        "vmov.i32 q2, #0",
        "wls lr, r3, 2f",
        "1:",
        "vpst",
        "vldrwt.u32 q0, [r0]",
        "add r0, r2",
        "vmax.s32 q1, q1, q0",
        "vmin.s32 q2, q2, q0",
        "le lr, 1b",
        "2:",
        "vshr.s32 q0, q2, #31",
        "veor q0, q0, q2",
        "vorr q0, q0, q1",
        "vstrw.32 q0, [r1]",
        "pop {{r4, pc}}",
    )
}

#[unsafe(naked)]
unsafe extern "C" fn scale_by(columns: &Columns<i32>, s: *const i32, up: u32, shifts: &[u32; COLUMNS]) {
    naked_asm!(
        isa!(),
        "push {{r4-r6, lr}}",
        "vldrw.u32 q1, [r3]",
        "ldm r0, {{r0, r4, r5, r6}}",
        "vctp.32 r6",
        "wls lr, r5, 2f",
        "1:",
        "ldr r3, [r1], #4",
        "bic r3, r3, r3, asr #31",
        "lsls r3, r2",
        "vpstttt",
        "vldrwt.u32 q0, [r0]",
        "vshlt.s32 q0, q0, q1",
        "vqrdmulht.s32 q0, q0, r3",
        "vstrwt.32 q0, [r0]",
        "add r0, r4",
        "le lr, 1b",
        "2:",
        "pop {{r4-r6, pc}}",
    )
}

/// Also the sums of the low halves and of the high halves.
#[unsafe(naked)]
unsafe extern "C" fn magnitudes_of(columns: &Columns<i32>, found: &mut [[u32; COLUMNS]; 3]) {
    naked_asm!(
        isa!(),
        "push {{r4, lr}}",
        "vpush {{d8-d9}}",
        "ldm r0, {{r0, r2, r3, r4}}",
        "vctp.32 r4",
        "vmov.i32 q2, #0",
        "vmov.i32 q3, #0",
        "vmov.i32 q4, #0",
        "wls lr, r3, 2f",
        "1:",
        "vpst",
        "vldrwt.u32 q0, [r0]",
        "add r0, r2",
        "vshr.s32 q1, q0, #31",
        "veor q0, q0, q1",
        "vorr q2, q2, q0",
        "vmovlb.u16 q1, q0",
        "vadd.i32 q3, q3, q1",
        "vmovlt.u16 q1, q0",
        "vadd.i32 q4, q4, q1",
        "le lr, 1b",
        "2:",
        "vstrw.32 q2, [r1]",
        "vstrw.32 q3, [r1, #16]",
        "vstrw.32 q4, [r1, #32]",
        "vpop {{d8-d9}}",
        "pop {{r4, pc}}",
    )
}

/// The rows are those of `from`.
#[unsafe(naked)]
unsafe extern "C" fn round_to(
    from: &Columns<i32>,
    to: &Columns<i16>,
    down: &[i32; COLUMNS],
    found: &mut [[u32; COLUMNS]; 2],
) {
    naked_asm!(
        isa!(),
        "push {{r4-r6, lr}}",
        "vldrw.u32 q1, [r2]",
        "ldm r0, {{r0, r4, r5, r6}}",
        "ldm r1, {{r1, r2}}",
        "vctp.32 r6",
        "vmov.i32 q2, #0",
        "vmov.i32 q3, #0",
        "wls lr, r5, 2f",
        "1:",
        "vpsttt",
        "vldrwt.u32 q0, [r0]",
        "vrshlt.s32 q0, q0, q1",
        "vstrht.32 q0, [r1]",
        "vabs.s32 q0, q0",
        "vorr q2, q2, q0",
        "vadd.i32 q3, q3, q0",
        "add r0, r4",
        "add r1, r2",
        "le lr, 1b",
        "2:",
        "vstrw.32 q2, [r3]",
        "vstrw.32 q3, [r3, #16]",
        "pop {{r4-r6, pc}}",
    )
}
