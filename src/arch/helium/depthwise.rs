//! Depthwise convolutions, sixteen channels together. The rows under the kernel are copied, padding included,
//! into a strip with a vector for each pixel, which moves down the image with it.
//!
//! Loads widen eight values to int16; `VMULLB` and `VMULLT` multiply the even and the odd ones to int32.

use super::{Scale, VECTOR, isa};
use crate::arch::depthwise::Sliding;
use crate::arch::products::{Channels, Output};
use crate::math::fixed::Requantise;
use core::arch::naked_asm;

/// Words of a vector.
const WORDS: usize = VECTOR / size_of::<i32>();
/// Lanes of int32, and of int16.
const LANES: usize = 4;
const RESULTS: usize = 8;

/// What the sums of every other of eight channels start from and are requantised by.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Lanes {
    bias: [i32; LANES],
    up: [i32; LANES],
    multiplier: [i32; LANES],
    down: [i32; LANES],
}

/// What the loop over the pixels of a row is told.
#[repr(C)]
struct Row {
    x: *const i8,
    w: *const i8,
    y: *mut u8,
    /// Taps of a row and rows.
    taps: usize,
    rows: usize,
    /// Bytes from the end of a row of taps to the next row of the strip.
    step: usize,
    /// Bytes between neighbouring pixels of the strip.
    stride: usize,
    pixels: usize,
    /// Bytes between neighbouring pixels of `y`.
    y_stride: usize,
    /// Channels among the first eight, and among the others.
    channels: [usize; 2],
    zero: i32,
    lo: [i16; RESULTS],
    hi: [i16; RESULTS],
    /// Even and odd channels among the first eight, and among the others.
    lanes: [Lanes; 4],
}

/// See [`super::super::depthwise`]. Once in a firmware for each type of output.
#[inline(never)]
pub(in crate::arch) fn run<O: Output>(
    s: &Sliding,
    x: &[i8],
    channels: Channels<'_>,
    output: O,
    y: &mut [O::T],
    scratch: &mut [i32],
) {
    let row = s.columns() * WORDS;
    let Some((strip, scratch)) = scratch.split_at_mut_checked(s.rows() * row) else { return };
    let Some(weights) = scratch.get_mut(..s.kh * s.kw * WORDS) else { return };
    let [zero, lo, hi] = output.range();
    let padding = i32::from_ne_bytes([s.zero_in as u8; 4]);
    strip.fill(padding);
    for first in (0..s.c).step_by(VECTOR) {
        let here = (s.c - first).min(VECTOR);
        let filter = |i: usize| (first + i.min(here - 1)) / s.share;
        let (bytes, filters) = (weights.as_mut_ptr().cast::<i8>(), s.c / s.share);
        for (tap, w) in channels.w.chunks_exact(filters).enumerate().take(s.kh * s.kw) {
            for i in 0..VECTOR {
                // SAFETY: `weights` has a vector of bytes for each tap.
                unsafe { bytes.add(tap * VECTOR + i).write(w.get(filter(i)).copied().unwrap_or(0)) };
            }
        }
        let mut lanes = [Lanes::default(); 4];
        for i in 0..here {
            let (filter, lanes, at) = (filter(i), &mut lanes[i / RESULTS * 2 + i % 2], i % RESULTS / 2);
            let of = |values: &[i32]| values.get(filter).copied().unwrap_or(0);
            let shift = channels.shift.get(filter).map_or(62, |&shift| shift as u32);
            let scale = Scale::new(Requantise::new(of(channels.multiplier), shift));
            lanes.bias[at] = of(channels.bias);
            (lanes.up[at], lanes.multiplier[at], lanes.down[at]) = (scale.up, scale.multiplier, scale.down);
        }
        let mut pass = Row {
            x: core::ptr::null(),
            w: bytes,
            y: core::ptr::null_mut(),
            taps: s.kw,
            rows: s.kh,
            step: (s.columns() - s.kw) * VECTOR,
            stride: s.stride_w * VECTOR,
            pixels: s.ow,
            y_stride: s.c * size_of::<O::T>(),
            channels: [here.min(RESULTS), here.saturating_sub(RESULTS)],
            zero: i32::from(zero),
            lo: [lo; RESULTS],
            hi: [hi; RESULTS],
            lanes,
        };
        // The window's rows start at `at`; the first `held` of them are there already.
        let (mut at, mut held) = (0, 0);
        for (y, oy) in y.chunks_exact_mut(s.ow * s.c).zip(s.first..) {
            if at + s.kh > s.rows() {
                strip.copy_within(at * row..(at + held) * row, 0);
                at = 0;
            }
            let Some(window) = strip.get_mut(at * row..) else { return };
            for (t, row) in window.chunks_exact_mut(row).enumerate().take(s.kh).skip(held) {
                // What is left and right of the image stays as it is.
                let Some(row) = row.get_mut(s.pad_w * WORDS..(s.pad_w + s.w) * WORDS) else { return };
                let iy = (oy * s.stride_h + t).checked_sub(s.pad_h).filter(|&iy| iy < s.h);
                match iy.and_then(|iy| x.get((iy * s.w) * s.c + first..)) {
                    None => row.fill(padding),
                    // SAFETY: reads `here` channels of the `w` pixels of a row that lies in the image, and writes
                    // a vector for each.
                    Some(x) => unsafe { copy_pixels(x.as_ptr(), s.c, row.as_mut_ptr().cast(), s.w, here) },
                }
            }
            let Some(y) = y.get_mut(first..) else { return };
            (pass.x, pass.y) = (window.as_ptr().cast(), y.as_mut_ptr().cast());
            // SAFETY: the window has `kh` rows, each with all taps of `ow` pixels, the weights as many taps; `y` has
            // the channels from `first` on of `ow` pixels, in elements that are as wide as is stored.
            unsafe {
                match size_of::<O::T>() {
                    1 => row_i8(&pass),
                    _ => row_i16(&pass),
                }
            }
            held = s.kh.saturating_sub(s.stride_h);
            at = if held > 0 { at + s.stride_h } else { 0 };
        }
    }
}

/// Copies `n > 0` pixels of `channels <= 16` values, `stride` apart, into a vector each; zeros fill it.
#[unsafe(naked)]
unsafe extern "C" fn copy_pixels(from: *const i8, stride: usize, to: *mut i8, n: usize, channels: usize) {
    naked_asm!(
        isa!(),
        "push {{r7, lr}}",
        "ldr r12, [sp, #8]",
        "vctp.8 r12",
        "dls lr, r3",
        "1:",
        "vpst",
        "vldrbt.u8 q0, [r0]",
        "add r0, r1",
        "vstrb.8 q0, [r2], #16",
        "le lr, 1b",
        "pop {{r7, pc}}",
    )
}

/// Adds the products of eight channels to the sums of the even and of the odd ones.
macro_rules! eight {
    ($even:literal, $odd:literal) => {
        concat!(
            "vldrb.s16 q4, [r0], #8
            vldrb.s16 q5, [r1], #8
            vmullb.s16 q6, q4, q5
            vadd.i32 ",
            $even,
            ", ",
            $even,
            ", q6
            vmullt.s16 q4, q4, q5
            vadd.i32 ",
            $odd,
            ", ",
            $odd,
            ", q4
            "
        )
    };
}

/// Requantises sums; what their [`Lanes`] are is at `$at` from r10 on.
macro_rules! requantise {
    ($q:literal, $at:literal) => {
        concat!(
            "vldrw.u32 q4, [r10, #",
            $at,
            " + 16]\nvldrw.u32 q5, [r10, #",
            $at,
            " + 32]\nvldrw.u32 q6, [r10, #",
            $at,
            " + 48]\nvqshl.s32 ",
            $q,
            ", ",
            $q,
            ", q4\nvmulh.s32 ",
            $q,
            ", ",
            $q,
            ", q5\nvrshl.s32 ",
            $q,
            ", ",
            $q,
            ", q6\n"
        )
    };
}

/// Limits and stores eight channels, `$channels` of which there are.
macro_rules! finish {
    ($even:literal, $odd:literal, $channels:literal, $store:literal) => {
        concat!(
            "vqmovnb.s32 ",
            $even,
            ", ",
            $even,
            "\nvqmovnt.s32 ",
            $even,
            ", ",
            $odd,
            "\nvqadd.s16 ",
            $even,
            ", ",
            $even,
            ", r2\nvmin.s16 ",
            $even,
            ", ",
            $even,
            ", q4\nvmax.s16 ",
            $even,
            ", ",
            $even,
            ", q7\nvctp.16 ",
            $channels,
            "\nvpst\n",
            $store,
            "\n"
        )
    };
}

/// The pixels of a row, whose results `$store0` and `$store1` store.
macro_rules! row {
    ($store0:literal, $store1:literal) => {
        naked_asm!(
            isa!(),
            "push {{r3-r11, lr}}",
            "vpush {{d8-d15}}",
            "mov r12, r0",
            "ldm r12, {{r3-r9}}",
            // x: r3, w: r4, y: r5, taps: r6, rows: r7, step: r8, stride: r9
            "ldr r11, [r12, #28]",
            "add r10, r12, #80",
            "vldrw.u32 q7, [r12, #48]",
            "2:",
            "mov r0, r3",
            "mov r1, r4",
            "mov r2, r7",
            "vldrw.u32 q0, [r10]",
            "vldrw.u32 q1, [r10, #64]",
            "vldrw.u32 q2, [r10, #128]",
            "vldrw.u32 q3, [r10, #192]",
            "3:",
            "dls lr, r6",
            "4:",
            eight!("q0", "q1"),
            eight!("q2", "q3"),
            "le lr, 4b",
            "add r0, r8",
            "subs r2, #1",
            "bne 3b",
            requantise!("q0", "0"),
            requantise!("q1", "64"),
            requantise!("q2", "128"),
            requantise!("q3", "192"),
            "ldrd r0, r1, [r12, #36]",
            "ldr r2, [r12, #44]",
            "vldrw.u32 q4, [r12, #64]",
            finish!("q0", "q1", "r0", $store0),
            finish!("q2", "q3", "r1", $store1),
            "ldr r0, [r12, #32]",
            "add r3, r9",
            "add r5, r0",
            "subs r11, #1",
            "bne 2b",
            "vpop {{d8-d15}}",
            "pop {{r3-r11, pc}}",
        )
    };
}

/// Results of int8.
#[unsafe(naked)]
unsafe extern "C" fn row_i8(row: *const Row) {
    row!("vstrbt.16 q0, [r5]", "vstrbt.16 q2, [r5, #8]")
}

/// Results of int16.
#[unsafe(naked)]
unsafe extern "C" fn row_i16(row: *const Row) {
    row!("vstrht.16 q0, [r5]", "vstrht.16 q2, [r5, #16]")
}
