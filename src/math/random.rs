//! Counter-based random numbers: a number is a pure function of its key, so that a mask can be made
//! again in the backward pass and no result depends on the number of threads.

/// SplitMix64's output function (Steele, Lea, Flood 2014).
#[inline(always)]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stream of random numbers addressed by a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(u64);

impl Stream {
    /// The stream with this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent stream for `key` (a step, a shard, an op, an image).
    pub const fn fork(self, key: u64) -> Self {
        Self(mix(self.0 ^ mix(key.wrapping_add(GAMMA))))
    }

    /// The `i`-th 64 random bits.
    #[inline(always)]
    pub const fn bits(self, i: u64) -> u64 {
        mix(self.0.wrapping_add(i.wrapping_add(1).wrapping_mul(GAMMA)))
    }

    /// The `i`-th uniform number in `[0, 1)`, a multiple of 2^-24.
    #[inline(always)]
    pub const fn uniform(self, i: u64) -> f32 {
        (self.bits(i) >> 40) as f32 / 16_777_216.0
    }

    /// The `i`-th integer in `0..n` (by multiplication; the bias is below `n / 2^32`).
    #[inline(always)]
    pub const fn below(self, i: u64, n: u32) -> u32 {
        (((self.bits(i) >> 32) * n as u64) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_splitmix64() {
        // First outputs for seed 0, from the reference implementation.
        let s = Stream::new(0);
        assert_eq!(s.bits(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(s.bits(1), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn forks_differ_and_repeat() {
        let s = Stream::new(7);
        assert_ne!(s.fork(1).bits(0), s.fork(2).bits(0));
        assert_eq!(s.fork(1).bits(5), s.fork(1).bits(5));
        for i in 0..1000 {
            assert!(s.uniform(i) < 1.0);
            assert!(s.below(i, 7) < 7);
        }
    }
}
