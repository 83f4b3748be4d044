//! The data of the workloads: random numbers that are as easily made in C as here.

/// Zero point of the int8 inputs of ops with weights.
pub const ZERO_IN: i32 = -7;
/// Zero point of their int8 outputs.
pub const ZERO_OUT: i32 = -3;

/// Where the data of an op with weights comes from.
#[derive(Clone, Copy)]
pub struct Seeds {
    /// Of the input.
    pub x: u32,
    /// Of the weights.
    pub w: u32,
    /// Of the biases.
    pub bias: u32,
    /// Of the factors of the requantisation.
    pub factor: u32,
    /// The factors lie between `2^(exponent - 2)` and `2^exponent`.
    pub exponent: i32,
}

/// Seeds of the other ops.
pub mod seed {
    pub const Q: u32 = 10;
    pub const K: u32 = 11;
    pub const V: u32 = 12;
    pub const NORM_X: u32 = 60;
    pub const GAMMA: u32 = 61;
    pub const BETA: u32 = 62;
    pub const TABLE_X: u32 = 63;
    pub const TABLE: u32 = 64;
    pub const ADD_A: u32 = 65;
    pub const ADD_B: u32 = 66;
    pub const RESCALE_X: u32 = 67;
}

/// Marsaglia's xorshift generator of 32 bits.
fn xorshift(seed: u32) -> impl Iterator<Item = u32> {
    let mut x = seed;
    core::iter::repeat_with(move || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x
    })
}

/// All values of int8.
pub fn i8s(seed: u32) -> impl Iterator<Item = i8> {
    xorshift(seed).map(|x| (x >> 24) as i8)
}

/// Weight `i` of a row of int4: blocks of eight in four bytes, whose low halves are the first four.
pub fn int4(row: &[u8], i: usize) -> i32 {
    let (block, at) = (i / 8, i % 8);
    let byte = row[4 * block + at % 4];
    let half = if at < 4 { byte % 16 } else { byte / 16 };
    if half < 8 { i32::from(half) } else { i32::from(half) - 16 }
}

/// All values of int16.
pub fn i16s(seed: u32) -> impl Iterator<Item = i16> {
    xorshift(seed).map(|x| (x >> 16) as i16)
}

/// Biases from -4096 to 4095.
pub fn biases(seed: u32) -> impl Iterator<Item = i32> {
    xorshift(seed).map(|x| x as i32 >> 19)
}

/// Multipliers in `[2^30, 2^31)`.
pub fn multipliers(seed: u32) -> impl Iterator<Item = i32> {
    xorshift(seed).map(|x| 1 << 30 | (x & 0x3fff_ffff) as i32)
}

/// The right shifts that belong to them.
pub fn shifts(seed: u32, exponent: i32) -> impl Iterator<Item = i8> {
    xorshift(seed).map(move |x| (31 - exponent) as i8 + (x >> 30 & 1) as i8)
}

/// Scales of a LayerNorm, around `32 * 2^8`: with a shift of 12, one standard deviation is some 32 steps.
pub fn gammas(seed: u32) -> impl Iterator<Item = i16> {
    i8s(seed).map(|x| (1 << 13) + (i16::from(x) << 5))
}

/// Its offsets, with the same shift up to 16 steps.
pub fn betas(seed: u32) -> impl Iterator<Item = i32> {
    i8s(seed).map(|x| i32::from(x) << 9)
}

/// FNV-1a in 32 bits.
pub fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}
