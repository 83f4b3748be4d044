//! Softmax attention in integers, on every core: the scores of four queries with all keys, their
//! exponentials and weights in the same place, and the sums of the values, two queries and four channels
//! at a time.

use super::attention::{channels, next, scaled};
use super::products::{self, Scale, TILE_ROWS, ToI8};
use crate::math::fixed::{Decay, Requantise, reciprocal};

/// Queries whose weights lie side by side.
pub(super) const PAIR: usize = 2;
/// Channels that are summed together.
pub(super) const QUAD: usize = 4;

/// The attention of one head.
#[derive(Clone, Copy)]
pub(crate) struct Softmax {
    /// Tokens.
    pub(crate) n: usize,
    /// Channels of all heads.
    pub(crate) width: usize,
    /// The head's first channel.
    pub(crate) first: usize,
    /// The head's channels.
    pub(crate) d: usize,
    /// From the distance to the largest score to a value of Q15.
    pub(crate) decay: Decay,
    /// How a sum of values, in Q23, becomes an output.
    pub(crate) multiplier: i32,
    pub(crate) shift: i32,
    pub(crate) to: ToI8,
}

impl Softmax {
    /// Words of the weights of four queries, and of these and two keys as int16; the same on every core, since
    /// the file plans them. A core that takes a word for every value has no use for the keys.
    pub(crate) const fn scratch(n: usize, d: usize) -> usize {
        let row = d.div_ceil(4).saturating_mul(4);
        n.saturating_mul(TILE_ROWS).saturating_add(row.saturating_mul(TILE_ROWS))
    }

    /// The head's channels of row `i` of `x[_, width]`; of a row that is missing, none.
    #[inline(always)]
    pub(super) fn row<'x>(&self, x: &'x [i8], i: usize) -> &'x [i8] {
        channels(x, i * self.width + self.first, self.d)
    }
}

/// Where the scores of four queries go, two queries side by side: as many as there are keys.
pub(super) struct Scores<'a> {
    pub(super) first: &'a mut [[i32; PAIR]],
    pub(super) second: &'a mut [[i32; PAIR]],
}

/// What a loop over keys is told, for four widened queries.
#[cfg(any(cortex_m = "dsp", cortex_m = "v7"))]
#[repr(C)]
pub(super) struct Keys {
    /// The largest scores so far.
    pub(super) largest: [i32; TILE_ROWS],
    pub(super) queries: *const i32,
    pub(super) keys: *const i8,
    /// Values of a key.
    pub(super) d: usize,
    /// Bytes from the last value that is read of a key to the next key.
    pub(super) step: usize,
    pub(super) first: *mut [i32; PAIR],
    pub(super) second: *mut [i32; PAIR],
    /// Keys.
    pub(super) left: usize,
}

#[cfg(any(cortex_m = "dsp", cortex_m = "v7"))]
impl Keys {
    /// No keys yet.
    pub(super) fn new(s: &Softmax, queries: &[i32], scores: Scores<'_>) -> Self {
        Self {
            largest: [i32::MIN; TILE_ROWS],
            queries: queries.as_ptr(),
            keys: core::ptr::null(),
            d: s.d,
            step: 0,
            first: scores.first.as_mut_ptr(),
            second: scores.second.as_mut_ptr(),
            left: 0,
        }
    }
}

/// How a core does it.
pub(super) trait Core: products::Core {
    /// The scores of four widened queries with all keys, and the largest of each. There are
    /// [`products::Core::pair_words`] of `space`.
    fn scores(s: &Softmax, queries: &[i32], keys: &[i8], space: &mut [i32], scores: Scores<'_>) -> [i32; TILE_ROWS];

    /// Turns the scores of two queries, the largest of which are given, into their weights.
    #[inline(always)]
    fn weights(decay: &Decay, pair: &mut [[i32; PAIR]], largest: &[i32; PAIR]) {
        weights(decay, pair, largest);
    }

    /// `sum_j x_j v_j` for two queries and four channels, the first of every `width` values of `v`. There are as
    /// many values as weights.
    #[inline(always)]
    fn weigh(x: &[[i32; PAIR]], v: &[i8], width: usize) -> [[i32; QUAD]; PAIR] {
        weigh(x, v, width, QUAD)
    }
}

/// See [`super::softmax`].
pub(super) fn run<C: Core>(s: &Softmax, q: &[i8], k: &[i8], v: &[i8], y: &mut [i8], mut scratch: &mut [i32]) {
    let scratch = &mut scratch;
    let (queries, space) = (next(scratch, TILE_ROWS * C::row_words(s.d)), next(scratch, C::pair_words(s.d)));
    let (first, second) = next(scratch, TILE_ROWS * s.n).split_at_mut(PAIR * s.n);
    let (first, second) = (first.as_chunks_mut::<PAIR>().0, second.as_chunks_mut::<PAIR>().0);
    let scale = u32::try_from(s.shift).ok().and_then(|shift| Scale::new(Requantise::new(s.multiplier, shift), s.to));
    for (q, y) in q.chunks(TILE_ROWS * s.width).zip(y.chunks_mut(TILE_ROWS * s.width)) {
        (0..TILE_ROWS).for_each(|lane| C::widen(s.row(q, lane), lane, queries));
        let scores = Scores { first: &mut *first, second: &mut *second };
        let largest = C::scores(s, queries, k, space, scores);
        let (largest, _) = largest.as_chunks::<PAIR>();
        for ((pair, largest), y) in
            [&mut *first, &mut *second].into_iter().zip(largest).zip(y.chunks_mut(PAIR * s.width))
        {
            C::weights(&s.decay, pair, largest);
            for c in (0..s.d).step_by(QUAD) {
                let v = v.get(s.first + c..).unwrap_or_default();
                // Four channels for the core; what is over here, which may belong to another head.
                let sums = if c + QUAD <= s.d { C::weigh(pair, v, s.width) } else { weigh(pair, v, s.width, s.d - c) };
                for (y, sums) in y.chunks_mut(s.width).zip(sums) {
                    let y = y.iter_mut().take(s.first + s.d).skip(s.first + c);
                    for (y, sum) in y.zip(sums) {
                        *y = match scale {
                            Some(scale) => scale.apply(sum, s.to.lo),
                            None => scaled(sum, s.multiplier, s.shift, s.to),
                        };
                    }
                }
            }
        }
    }
}

/// See [`Core::weights`].
pub(super) fn weights(decay: &Decay, pair: &mut [[i32; PAIR]], largest: &[i32; PAIR]) {
    let totals = core::array::from_fn(|lane| {
        let mut total = 0;
        for x in pair.iter_mut() {
            x[lane] = decay.value(largest[lane] - x[lane]);
            total += x[lane] as u32;
        }
        total
    });
    Shares::new(totals).apply(pair);
}

/// From the exponentials of two queries to their weights in Q23, `round_shift(p inverse, 40 - zeros)`: by the
/// high word of `2^16 p inverse`.
#[repr(C)]
pub(super) struct Shares {
    inverse: [u32; PAIR],
    round: [u32; PAIR],
    shift: [u32; PAIR],
}

impl Shares {
    /// From the sums of the exponentials.
    #[inline(always)]
    pub(super) fn new(totals: [u32; PAIR]) -> Self {
        // The largest exponential is 32767, so a total has 1 to 17 leading zeros.
        let shift = totals.map(|total| 24 - total.leading_zeros());
        Self {
            inverse: totals.map(|total| reciprocal(total << total.leading_zeros())),
            round: shift.map(|shift| 1 << (shift - 1)),
            shift,
        }
    }

    #[inline(always)]
    fn apply(&self, pair: &mut [[i32; PAIR]]) {
        for (lane, &inverse) in self.inverse.iter().enumerate() {
            for x in pair.iter_mut() {
                let high = (u64::from((x[lane] as u32) << 16) * u64::from(inverse)) >> 32;
                x[lane] = ((high as u32 + self.round[lane]) >> self.shift[lane]) as i32;
            }
        }
    }
}

/// [`Core::weigh`] for up to four channels.
fn weigh(x: &[[i32; PAIR]], v: &[i8], width: usize, channels: usize) -> [[i32; QUAD]; PAIR] {
    let mut sums = [[0; QUAD]; PAIR];
    for (x, v) in x.iter().zip(v.chunks(width)) {
        for (sums, x) in sums.iter_mut().zip(x) {
            sums.iter_mut().zip(v).take(channels).for_each(|(sum, &v)| *sum += x * i32::from(v));
        }
    }
    sums
}
