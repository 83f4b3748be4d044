//! Cortex-M cores with integer vectors of 16 bytes (Cortex-M55, M85): Helium, the M-profile Vector Extension.
//! What has no loops here runs on their packed multiply-accumulates.
//!
//! What is left of a row after the last whole vector is loaded, and stored, under a predicate: any shape will do
//! and nothing outside a slice is touched.
#![allow(unsafe_code)]

pub(super) mod attention;
pub(super) mod columns;
pub(super) mod depthwise;
pub(super) mod elements;
pub(super) mod layer_norm;
pub(super) mod products;
pub(super) mod softmax;
pub(super) mod triangle;

use super::products::TILE_ROWS;
use crate::math::fixed::Requantise;
use core::arch::naked_asm;

/// Bytes of a vector.
const VECTOR: usize = 16;

/// Bytes of a vector of each row of a tile.
const STEP: usize = TILE_ROWS * VECTOR;

/// Words of a vector of each row of a tile, for so many values of int8 a row.
const fn tile_words(d: usize) -> usize {
    d.div_ceil(VECTOR) * STEP / size_of::<i32>()
}

/// The assembler of a naked function knows the target but not the CPU of the flags.
macro_rules! isa {
    () => {
        ".cpu cortex-m55"
    };
}
use isa;

/// Requantisation by saturating shift up, high word of a product, and rounding shift down.
///
/// The multiplier has all its 31 bits. For a shift above 32 there is nothing to shift up and the high word is
/// enough, as in [`Requantise`]. Any other shift is made 33 by shifting the sum up. Where that saturates, the
/// result is 2^28 or more either way: it is limited to int8 or int16 afterwards.
#[derive(Clone, Copy)]
struct Scale {
    up: i32,
    multiplier: i32,
    /// Negative: the instruction shifts up.
    down: i32,
}

impl Scale {
    #[inline(always)]
    fn new(scale: Requantise) -> Self {
        let spare = scale.multiplier().leading_zeros().saturating_sub(1);
        let shift = (scale.shift() + spare) as i32;
        let up = (33 - shift).max(0);
        Self { up, multiplier: scale.multiplier() << spare, down: 32 - shift - up }
    }
}

/// Copies `n` bytes into the first of every four vectors from `to` on; what a vector has beyond them stays.
/// Returns the sum of their squares, which wraps.
#[unsafe(naked)]
unsafe extern "C" fn copy_interleaved(from: *const i8, n: usize, to: *mut i8) -> i32 {
    naked_asm!(
        isa!(),
        "push {{r7, lr}}",
        "movs r12, #0",
        "wlstp.8 lr, r1, 2f",
        "1:",
        "vldrb.u8 q0, [r0], #16",
        "vmladava.s8 r12, q0, q0",
        "vstrb.8 q0, [r2], #64",
        "letp lr, 1b",
        "2:",
        "mov r0, r12",
        "pop {{r7, pc}}",
    )
}
