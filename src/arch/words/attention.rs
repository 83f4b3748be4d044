//! SOFT's attention. Kernel values have a word each, of four landmarks or four tokens side by side; what they
//! multiply is int16, read as it is.

use super::{Sums, Words, sums, sums_i16};
use crate::arch::attention::{Kernel, Outputs, Plan, next, tokens_of_words};
use crate::arch::products::{Core, TILE_ROWS};
use crate::math::fixed::Decay;

/// Values of a word of columns.
const COLUMN_PACK: usize = 2;

/// `sums[m, d] += K1^T v` over at most 512 tokens.
pub(crate) fn accumulate(k: &Kernel<'_>, q: &[i8], v: &[i8], sums: &mut [i32], mut scratch: &mut [i32]) {
    let (m, d) = (k.m(), k.d);
    let most = tokens_of_words(Plan { m, d }.few_tokens());
    let scratch = &mut scratch;
    let (l_norms, values) = (next(scratch, m), next(scratch, m.next_multiple_of(TILE_ROWS) * most));
    let panel = next(scratch, d * TILE_ROWS.max(most / COLUMN_PACK));
    let maker = Maker::new(k, l_norms);
    for (q, v) in q.chunks(most * k.width).zip(v.chunks(most * k.width)) {
        let tokens = (q.len() / k.width).next_multiple_of(TILE_ROWS);
        for i in (0..tokens).step_by(TILE_ROWS) {
            maker.make(q, i, panel, |j, of_landmark| {
                // A block of the values is of four landmarks.
                let at = (j / TILE_ROWS * tokens + i) * TILE_ROWS + j % TILE_ROWS;
                let to = values.get_mut(at..).unwrap_or_default().iter_mut().step_by(TILE_ROWS);
                to.zip(of_landmark).for_each(|(to, value)| *to = value);
            });
        }
        // The queries are done with.
        let column = tokens / COLUMN_PACK;
        pack(d, column, panel, |i, c| k.row(v, i).get(c).map_or(0, |&v| i16::from(v)));
        for (sums, values) in sums.chunks_mut(TILE_ROWS * d).zip(values.chunks_exact(TILE_ROWS * tokens)) {
            for (c, column) in panel.chunks_exact(column).enumerate().take(d) {
                let tile = sums_i16(values, column);
                sums.iter_mut().skip(c).step_by(d).zip(tile).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

/// `y = K1 u` for `u[m, d]` and the head's channels of `y[_, width]`.
pub(crate) fn apply(k: &Kernel<'_>, q: &[i8], u: &[i16], outputs: Outputs<'_>, y: &mut [i8], mut scratch: &mut [i32]) {
    let (m, d) = (k.m(), k.d);
    let most = tokens_of_words(Plan { m, d }.tokens());
    let scratch = &mut scratch;
    let (l_norms, values) = (next(scratch, m), next(scratch, m * most));
    let column = m.div_ceil(COLUMN_PACK);
    let (panel, packed) = (next(scratch, TILE_ROWS * d), next(scratch, column * d));
    let maker = Maker::new(k, l_norms);
    pack(d, column, packed, |j, c| u.get(j * d + c).filter(|_| j < m).copied().unwrap_or(0));
    let block = TILE_ROWS * m;
    for (q, y) in q.chunks(most * k.width).zip(y.chunks_mut(most * k.width)) {
        let tokens = q.len() / k.width;
        for (i, values) in (0..tokens).step_by(TILE_ROWS).zip(values.chunks_exact_mut(block)) {
            maker.make(q, i, panel, |j, of_tokens| {
                values.iter_mut().skip(j * TILE_ROWS).zip(of_tokens).for_each(|(to, value)| *to = value);
            });
        }
        for (c, column) in packed.chunks_exact(column).enumerate() {
            let scale = outputs.scale(c);
            for (y, values) in y.chunks_mut(TILE_ROWS * k.width).zip(values.chunks_exact(block)) {
                let y = y.iter_mut().skip(k.first + c).step_by(k.width);
                for (y, sum) in y.zip(sums_i16(values, column)) {
                    *y = scale.map_or_else(|| outputs.put(sum, c), |scale| scale.apply(sum, outputs.to.lo));
                }
            }
        }
    }
}

/// Packs `value(i, c)` for each of `d` channels, two rows to a word, `column` words for a channel.
#[inline(always)]
fn pack(d: usize, column: usize, to: &mut [i32], value: impl Fn(usize, usize) -> i16) {
    for (c, column) in to.chunks_exact_mut(column.max(1)).enumerate().take(d) {
        for (word, i) in column.iter_mut().zip((0..).step_by(COLUMN_PACK)) {
            let ([a0, a1], [b0, b1]) = (value(i, c).to_ne_bytes(), value(i + 1, c).to_ne_bytes());
            *word = i32::from_ne_bytes([a0, a1, b0, b1]);
        }
    }
}

/// Makes kernel values.
struct Maker<'a> {
    k: &'a Kernel<'a>,
    /// Squared norms of the landmarks.
    norms: &'a [i32],
    decay: Decay,
}

impl<'a> Maker<'a> {
    fn new(k: &'a Kernel<'a>, norms: &'a mut [i32]) -> Self {
        norms.iter_mut().enumerate().for_each(|(j, norm)| *norm = norm_of(k.row(k.l, j)));
        Self { k, norms, decay: Decay::new(k.multiplier, k.shift) }
    }

    /// For each landmark passes `put` its kernel values with the rows `i` to `i + 3` of `x`, which are widened
    /// into the first words of `panel`.
    #[inline(always)]
    fn make(&self, x: &[i8], i: usize, panel: &mut [i32], mut put: impl FnMut(usize, Sums)) {
        let Some(block) = panel.get_mut(..TILE_ROWS * self.k.d) else { return };
        let norms: Sums = core::array::from_fn(|lane| {
            let row = self.k.row(x, i + lane);
            Words::widen(row, lane, block);
            norm_of(row)
        });
        for (j, &l_norm) in self.norms.iter().enumerate() {
            let tile = sums(block, self.k.row(self.k.l, j), 0);
            put(j, core::array::from_fn(|lane| self.decay.value(norms[lane] + l_norm - 2 * tile[lane])));
        }
    }
}

fn norm_of(x: &[i8]) -> i32 {
    x.iter().map(|&x| i32::from(x) * i32::from(x)).sum()
}
