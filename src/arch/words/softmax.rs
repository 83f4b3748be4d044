//! Softmax attention.

use super::{Words, sums};
use crate::arch::products::TILE_COLUMNS;
#[cfg(cortex_m = "v7")]
use crate::arch::softmax::{self, PAIR, QUAD};
use crate::arch::softmax::{Core, Scores};
#[cfg(cortex_m = "v7")]
use crate::{arch::wide, math::fixed::Decay};

impl Core for Words {
    #[inline(always)]
    fn scores(queries: &[i32], keys: [&[i8]; TILE_COLUMNS], _: &mut [i32], scores: Scores<'_>) {
        let Scores { first, second, largest } = scores;
        for ((key, first), second) in keys.into_iter().zip(first).zip(second) {
            let [a, b, c, d] = sums(queries, key, 0);
            (*first, *second) = ([a, b], [c, d]);
            largest.iter_mut().zip([a, b, c, d]).for_each(|(largest, score)| *largest = score.max(*largest));
        }
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
