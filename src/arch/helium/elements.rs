//! Ops that take each value by itself, copies, and sums over two slices.

use super::{Scale, isa};
use crate::arch::Sum;
use crate::arch::products::{Output, ToI8, ToI16};
use crate::arch::window::{Means, Window};
use crate::math::fixed::Requantise;
use core::arch::naked_asm;

/// Replaces every value by its entry: `y = table[y + 128]`.
#[inline(always)]
pub(in crate::arch) fn table(table: &[i8; 256], y: &mut [i8]) {
    // SAFETY: all of `y` is replaced; a byte has an entry whatever it is.
    unsafe { look_up(y.as_mut_ptr(), y.len(), table) }
}

/// As [`table`], for every `c`-th value from the first on.
#[inline(always)]
pub(in crate::arch) fn table_of_channel(table: &[i8; 256], y: &mut [i8], c: usize) {
    // The distances of 16 pixels are bytes.
    const MOST_CHANNELS: usize = 16;
    if c == 1 {
        self::table(table, y);
    } else if c <= MOST_CHANNELS {
        // SAFETY: as above, of one channel of each pixel; the last may have no channels after it.
        unsafe { look_up_channel(y.as_mut_ptr(), y.len().div_ceil(c), table, c) }
    } else {
        y.iter_mut().step_by(c).for_each(|y| *y = table[usize::from(*y as u8 ^ 0x80)]);
    }
}

/// Copies what both have room for.
#[inline(always)]
pub(in crate::arch) fn copy(from: &[i8], to: &mut [i8]) {
    // SAFETY: both have that many values.
    unsafe { copy_bytes(from.as_ptr(), to.as_mut_ptr(), from.len().min(to.len())) }
}

/// `sum a_i b_i` over the shorter of two slices; wraps.
#[inline(always)]
pub(in crate::arch) fn dot_i64(a: &[i32], b: &[i32]) -> i64 {
    // SAFETY: both have that many values.
    unsafe { dot(a.as_ptr(), b.as_ptr(), a.len().min(b.len())) }
}

/// `sum (a_i - b_i)^2` over the shorter of two slices.
#[inline(always)]
pub(in crate::arch) fn squared_distance(a: &[i8], b: &[i8]) -> i32 {
    // SAFETY: both have that many values.
    unsafe { distance(a.as_ptr(), b.as_ptr(), a.len().min(b.len())) }
}

/// See [`super::super::means`].
#[inline(always)]
pub(in crate::arch) fn means(s: Window, x: &[i8], y: &mut [i8]) -> usize {
    let Some(means) = Means::new(s, x, y) else { return 0 };
    // SAFETY: these channels of all pixels of the window lie inside `x`: `Means::new` saw to it.
    unsafe { window(&means) };
    means.left
}

/// Eight channels at a time.
#[unsafe(naked)]
unsafe extern "C" fn window(means: *const Means) {
    naked_asm!(
        isa!(),
        "push {{r4-r11, lr}}",
        "mov r11, r0",
        "ldm r11, {{r2, r3, r5, r6, r7, r8, r9, r10}}",
        "vdup.32 q3, r10",
        "movs r0, #128",
        "1:",
        "vmov.i32 q0, #0",
        "mov r1, r8",
        "ldr r4, [r11, #32]",
        "vctp.16 r6",
        "2:",
        "dls lr, r3",
        "3:",
        "vpst",
        "vldrbt.s16 q1, [r1]",
        "vadd.i16 q0, q0, q1",
        "add r1, r2",
        "le lr, 3b",
        "add r1, r5",
        "subs r4, #1",
        "bne 2b",
        "vadd.i16 q0, q0, r9",
        "vmovlb.u16 q1, q0",
        "vmovlt.u16 q2, q0",
        "vmulh.u32 q1, q1, q3",
        "vmulh.u32 q2, q2, q3",
        "vmovnt.i32 q1, q2",
        "vsub.i16 q1, q1, r0",
        "vpst",
        "vstrbt.16 q1, [r7], #8",
        "add r8, #8",
        "subs r6, #8",
        "bgt 1b",
        "pop {{r4-r11, pc}}",
    )
}

#[unsafe(naked)]
unsafe extern "C" fn look_up(y: *mut i8, n: usize, table: &[i8; 256]) {
    naked_asm!(
        isa!(),
        "push {{r7, lr}}",
        "vmov.i8 q1, #0x80",
        "wlstp.8 lr, r1, 2f",
        "1:",
        "vldrb.u8 q0, [r0]",
        "veor q0, q0, q1",
        "vldrb.u8 q2, [r2, q0]",
        "vstrb.8 q2, [r0], #16",
        "letp lr, 1b",
        "2:",
        "pop {{r7, pc}}",
    )
}

/// Values `c` apart, at most 16.
#[unsafe(naked)]
unsafe extern "C" fn look_up_channel(y: *mut i8, n: usize, table: &[i8; 256], c: usize) {
    naked_asm!(
        isa!(),
        "push {{r7, lr}}",
        "mov r12, #0",
        "vidup.u8 q3, r12, #1",
        "vmul.i8 q3, q3, r3",
        "lsl r3, #4",
        "vmov.i8 q1, #0x80",
        "wlstp.8 lr, r1, 2f",
        "1:",
        "vldrb.u8 q0, [r0, q3]",
        "veor q0, q0, q1",
        "vldrb.u8 q2, [r2, q0]",
        "vstrb.8 q2, [r0, q3]",
        "add r0, r3",
        "letp lr, 1b",
        "2:",
        "pop {{r7, pc}}",
    )
}

#[unsafe(naked)]
unsafe extern "C" fn copy_bytes(from: *const i8, to: *mut i8, n: usize) {
    naked_asm!(
        isa!(),
        "push {{r7, lr}}",
        "wlstp.8 lr, r2, 2f",
        "1:",
        "vldrb.u8 q0, [r0], #16",
        "vstrb.8 q0, [r1], #16",
        "letp lr, 1b",
        "2:",
        "pop {{r7, pc}}",
    )
}

#[unsafe(naked)]
unsafe extern "C" fn dot(a: *const i32, b: *const i32, n: usize) -> i64 {
    naked_asm!(
        isa!(),
        "push {{r7, lr}}",
        "mov r12, r2",
        "movs r2, #0",
        "movs r3, #0",
        "wlstp.32 lr, r12, 2f",
        "1:",
        "vldrw.u32 q0, [r0], #16",
        "vldrw.u32 q1, [r1], #16",
        "vmlaldava.s32 r2, r3, q0, q1",
        "letp lr, 1b",
        "2:",
        "mov r0, r2",
        "mov r1, r3",
        "pop {{r7, pc}}",
    )
}

#[unsafe(naked)]
unsafe extern "C" fn distance(a: *const i8, b: *const i8, n: usize) -> i32 {
    naked_asm!(
        isa!(),
        "push {{r7, lr}}",
        "mov r12, r2",
        "movs r2, #0",
        "wlstp.16 lr, r12, 2f",
        "1:",
        "vldrb.s16 q0, [r0], #8",
        "vldrb.s16 q1, [r1], #8",
        "vsub.i16 q0, q0, q1",
        "vmladava.s16 r2, q0, q0",
        "letp lr, 1b",
        "2:",
        "mov r0, r2",
        "pop {{r7, pc}}",
    )
}

/// What the loops of the rescaling are told, in the order of their registers.
#[repr(C)]
struct Values {
    x: *const u8,
    y: *mut u8,
    n: usize,
    minus_zero_in: i32,
    up: i32,
    down: i32,
    zero: i32,
    multiplier: i32,
    lo: i32,
    hi: i32,
}

impl Values {
    #[inline(always)]
    fn new<T, O: Output>(scale: Requantise, zero_in: i32, x: &[T], output: O, y: &mut [O::T]) -> Self {
        let Scale { up, multiplier, down } = Scale::new(scale);
        let [zero, lo, hi] = output.range().map(i32::from);
        let n = x.len().min(y.len());
        let (x, y) = (x.as_ptr().cast(), y.as_mut_ptr().cast());
        Self { x, y, n, minus_zero_in: -zero_in, up, down, zero, multiplier, lo, hi }
    }
}

/// See [`super::super::rescale_i16_i8`].
#[inline(always)]
pub(in crate::arch) fn rescale_i16_i8(scale: Requantise, x: &[i16], output: ToI8, y: &mut [i8]) {
    // SAFETY: `x` and `y` have `n` values of these types.
    unsafe { i16_to_i8(&Values::new(scale, 0, x, output, y)) }
}

/// See [`super::super::rescale_i8_i16`].
#[inline(always)]
pub(in crate::arch) fn rescale_i8_i16(scale: Requantise, zero_in: i32, x: &[i8], y: &mut [i16]) {
    // SAFETY: `x` and `y` have `n` values of these types.
    unsafe { i8_to_i16(&Values::new(scale, zero_in, x, ToI16, y)) }
}

macro_rules! rescale {
    ($load:literal, $store:literal) => {
        naked_asm!(
            isa!(),
            "push {{r4-r10, lr}}",
            "ldm r0, {{r0-r9}}",
            "vdup.32 q1, r7",
            "vdup.32 q2, r8",
            "vdup.32 q3, r9",
            "wlstp.32 lr, r2, 2f",
            "1:",
            $load,
            "vadd.i32 q0, q0, r3",
            "vqshl.s32 q0, r4",
            "vmulh.s32 q0, q0, q1",
            "vrshl.s32 q0, r5",
            "vadd.i32 q0, q0, r6",
            "vmax.s32 q0, q0, q2",
            "vmin.s32 q0, q0, q3",
            $store,
            "letp lr, 1b",
            "2:",
            "pop {{r4-r10, pc}}",
        )
    };
}

#[unsafe(naked)]
unsafe extern "C" fn i16_to_i8(values: *const Values) {
    rescale!("vldrh.s32 q0, [r0], #8", "vstrb.32 q0, [r1], #4")
}

#[unsafe(naked)]
unsafe extern "C" fn i8_to_i16(values: *const Values) {
    rescale!("vldrb.s32 q0, [r0], #4", "vstrh.32 q0, [r1], #8")
}

/// What the loops of the sums are told, in the order of their registers.
#[repr(C)]
struct Terms {
    b: *const u8,
    y: *mut u8,
    n: usize,
    ma: i32,
    mb: i32,
    down: i32,
    offset: i32,
    lo: i32,
    hi: i32,
}

impl Terms {
    #[inline(always)]
    fn new<A, B>(s: Sum, b: &[B], y: &mut [A]) -> Self {
        let Sum { ma, mb, offset, shift, lo, hi } = s;
        let n = b.len().min(y.len());
        Self { b: b.as_ptr().cast(), y: y.as_mut_ptr().cast(), n, ma, mb, down: -shift, offset, lo, hi }
    }
}

/// See [`super::super::add_i16_i8`].
#[inline(always)]
pub(in crate::arch) fn add_i16_i8(s: Sum, b: &[i8], y: &mut [i16]) {
    // SAFETY: `b` and `y` have `n` values of these types.
    unsafe { i16_plus_i8(&Terms::new(s, b, y)) }
}

/// See [`super::super::add_i8`].
#[inline(always)]
pub(in crate::arch) fn add_i8(s: Sum, b: &[i8], y: &mut [i8]) {
    // SAFETY: `b` and `y` have `n` values of these types.
    unsafe { i8_plus_i8(&Terms::new(s, b, y)) }
}

macro_rules! sum {
    ($load_y:literal, $load_b:literal, [$($clamp:literal),*], $store:literal) => {
        naked_asm!(
            isa!(),
            "push {{r4-r8, lr}}",
            "ldm r0, {{r0-r8}}",
            "vdup.32 q2, r7",
            "vdup.32 q3, r8",
            "wlstp.32 lr, r2, 2f",
            "1:",
            $load_y,
            $load_b,
            "vmul.i32 q0, q0, r3",
            "vmla.s32 q0, q1, r4",
            $($clamp,)*
            $store,
            "letp lr, 1b",
            "2:",
            "pop {{r4-r8, pc}}",
        )
    };
}

// In int16 there is no offset, and all of it is the range.
#[unsafe(naked)]
unsafe extern "C" fn i16_plus_i8(terms: *const Terms) {
    sum!(
        "vldrh.s32 q0, [r1]",
        "vldrb.s32 q1, [r0], #4",
        ["vrshl.s32 q0, r5", "vqmovnb.s32 q0, q0"],
        "vstrh.32 q0, [r1], #8"
    )
}

#[unsafe(naked)]
unsafe extern "C" fn i8_plus_i8(terms: *const Terms) {
    sum!(
        "vldrb.s32 q0, [r1]",
        "vldrb.s32 q1, [r0], #4",
        ["vadd.i32 q0, q0, r6", "vrshl.s32 q0, r5", "vmax.s32 q0, q0, q2", "vmin.s32 q0, q0, q3"],
        "vstrb.32 q0, [r1], #4"
    )
}
