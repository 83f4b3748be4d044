//! Softmax attention.

use super::{Words, sums};
use crate::arch::products::TILE_ROWS;
#[cfg(cortex_m = "v7")]
use crate::arch::softmax::{self, Keys, PAIR, QUAD};
use crate::arch::softmax::{Core, Scores, Softmax};
#[cfg(cortex_m = "v7")]
use crate::{arch::wide, math::fixed::Decay};

impl Core for Words {
    #[inline(always)]
    fn scores(s: &Softmax, queries: &[i32], keys: &[i8], _: &mut [i32], scores: Scores<'_>) -> [i32; TILE_ROWS] {
        #[cfg(cortex_m = "v7")]
        if s.d > 0 && queries.len() == TILE_ROWS * s.d {
            let n = scores.first.len().min(scores.second.len()).min(keys.len() / s.width);
            let mut pass = Keys::new(s, queries, scores);
            if let Some(keys) = keys.get(s.first..).filter(|_| n > 0 && s.first + s.d <= s.width) {
                (pass.keys, pass.step, pass.left) = (keys.as_ptr(), s.width - s.d, n);
                // SAFETY: `n` rows of keys have `d` values each, the queries as many, at least one, and both slices of
                // scores have room for all keys.
                unsafe { super::cortex_m::scores(&mut pass) };
            }
            return pass.largest;
        }
        let mut largest = [i32::MIN; TILE_ROWS];
        for ((keys, first), second) in keys.chunks(s.width).zip(scores.first).zip(scores.second) {
            let [a, b, c, d] = sums(queries, s.row(keys, 0), 0);
            (*first, *second) = ([a, b], [c, d]);
            largest.iter_mut().zip([a, b, c, d]).for_each(|(largest, score)| *largest = score.max(*largest));
        }
        largest
    }

    #[cfg(cortex_m = "v7")]
    #[inline(always)]
    fn weights(decay: &Decay, pair: &mut [[i32; PAIR]], largest: &[i32; PAIR]) {
        match &decay.narrow {
            Some(narrow) => wide::weights(narrow, pair, largest),
            None => softmax::weights(decay, pair, largest),
        }
    }

    #[cfg(cortex_m = "v7")]
    #[inline(always)]
    fn weigh(x: &[[i32; PAIR]], v: &[i8], width: usize) -> [[i32; QUAD]; PAIR] {
        wide::weigh(x, v, width)
    }
}
