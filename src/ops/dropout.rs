//! Dropout and stochastic depth (Huang et al. 2016, "drop path").
//!
//! A mask is a pure function of seed, step, shard, op and position, so it is never stored: the same
//! op applied to `dy` is the backward.

use super::{Signature, Tick, f32s};
use crate::arch::vectorised;
use crate::math::random::Stream;

const RATE: &str = "the rate of a dropout is not in 0 (included) to 1 (excluded)";

const fn is_rate(rate: f32) -> bool {
    rate >= 0.0 && rate < 1.0
}

/// Keeps these masks apart from every other use of the seed.
const MASKS: u64 = u64::from_le_bytes(*b"dropmask");

fn stream(tick: &Tick, id: i32) -> Stream {
    Stream::new(tick.seed).fork(MASKS).fork(tick.step).fork(tick.shard as u64).fork(id as u32 as u64)
}

shape! {
    /// `x[len] -> y[len]`, in place: each element is 0 with probability `rate`, else scaled by
    /// `1 / (1 - rate)`. Its backward is the same op on `dy`.
    pub struct Dropout {
        /// Elements.
        pub len: usize,
        /// Probability of dropping, in `[0, 1)`.
        pub rate: f32,
        /// Which dropout of the model this is: ops with different ids have independent masks.
        pub id: i32,
    }
}

impl Dropout {
    /// Input `x`; output `y`, in place.
    pub const fn signature(&self) -> Signature {
        if !is_rate(self.rate) {
            return Signature::invalid(RATE);
        }
        Signature::new(&[f32s(&[self.len])], &[f32s(&[self.len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `y = x mask / (1 - rate)`; element `i` is kept where the stream's `i`-th uniform is at least `rate`.
pub fn dropout(s: &Dropout, tick: &Tick, y: &mut [f32]) {
    let (stream, rate, scale) = (stream(tick, s.id), s.rate, 1.0 / (1.0 - s.rate));
    vectorised(
        #[inline(always)]
        move || {
            for (i, y) in y.iter_mut().enumerate() {
                *y = if stream.uniform(i as u64) >= rate { *y * scale } else { 0.0 };
            }
        },
    );
}

shape! {
    /// `x[batch, len] -> y[batch, len]`, in place: each image is 0 with probability `rate`, else scaled
    /// by `1 / (1 - rate)`. Its backward is the same op on `dy`.
    pub struct DropPath {
        /// Images.
        pub batch: usize,
        /// Elements per image.
        pub len: usize,
        /// Probability of dropping, in `[0, 1)`.
        pub rate: f32,
        /// Which dropout of the model this is: ops with different ids have independent masks.
        pub id: i32,
    }
}

impl DropPath {
    /// Input `x`; output `y`, in place.
    pub const fn signature(&self) -> Signature {
        let Self { batch, len, rate, .. } = *self;
        if !is_rate(rate) {
            return Signature::invalid(RATE);
        }
        Signature::new(&[f32s(&[batch, len])], &[f32s(&[batch, len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `y = x mask / (1 - rate)`; image `i` is kept where the stream's `i`-th uniform is at least `rate`.
pub fn drop_path(s: &DropPath, tick: &Tick, y: &mut [f32]) {
    let (stream, scale) = (stream(tick, s.id), 1.0 / (1.0 - s.rate));
    for (i, image) in y.chunks_exact_mut(s.len).enumerate() {
        if stream.uniform(i as u64) >= s.rate {
            for y in image {
                *y *= scale;
            }
        } else {
            image.fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Tick = Tick { seed: 42, step: 3, shard: 1 };

    #[test]
    fn keeps_the_expected_share_and_the_mean() {
        let len = 100_000;
        for rate in [0.0, 0.1, 0.5, 0.9] {
            let mut y = vec![1.0; len];
            dropout(&Dropout { len, rate, id: 7 }, &TICK, &mut y);
            let dropped = y.iter().filter(|&&y| y == 0.0).count() as f32 / len as f32;
            let sigma = (rate * (1.0 - rate) / len as f32).sqrt();
            assert!((dropped - rate).abs() <= 4.0 * sigma, "{rate}: {dropped}");
            assert!(y.iter().all(|&y| y == 0.0 || y == 1.0 / (1.0 - rate)));

            let mut y = vec![1.0; 2 * len];
            drop_path(&DropPath { batch: len, len: 2, rate, id: 7 }, &TICK, &mut y);
            assert!(y.chunks(2).all(|image| image[0] == image[1]));
            let dropped = y.iter().filter(|&&y| y == 0.0).count() as f32 / (2 * len) as f32;
            assert!((dropped - rate).abs() <= 4.0 * sigma, "{rate}: {dropped}");
        }
    }

    #[test]
    fn the_mask_depends_on_every_part_of_its_key_and_on_nothing_else() {
        let mask = |tick: Tick, id, len| {
            let mut y = vec![1.0; len];
            dropout(&Dropout { len, rate: 0.5, id }, &tick, &mut y);
            y
        };
        let first = mask(TICK, 0, 64);
        assert_eq!(first, mask(TICK, 0, 64));
        assert_eq!(first, mask(TICK, 0, 100)[..64]);
        for (tick, id) in [
            (Tick { seed: 43, ..TICK }, 0),
            (Tick { step: 4, ..TICK }, 0),
            (Tick { shard: 0, ..TICK }, 0),
            (TICK, 1),
            (TICK, -1),
        ] {
            assert_ne!(first, mask(tick, id, 64), "{tick:?} {id}");
        }
    }

    #[test]
    fn impossible_rates_are_refused() {
        for rate in [-0.1, 1.0, f32::NAN] {
            assert_eq!(Dropout { len: 1, rate, id: 0 }.signature().reason(), Some(RATE));
            assert_eq!(DropPath { batch: 1, len: 1, rate, id: 0 }.signature().reason(), Some(RATE));
        }
    }
}
