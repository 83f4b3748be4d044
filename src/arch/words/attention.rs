//! SOFT's attention. In the first pass four channels of the tokens' values have a word each, and what they multiply,
//! kernel values, is int16, read as it is; in the second the kernel values of four tokens are words, and the sums int16.

use super::{Sums, Words, sums, sums_i16};
use crate::arch::attention::{Kernel, Outputs, Plan, next};
use crate::arch::products::{Core, TILE_ROWS};
use crate::math::fixed::{Decay, round_shift_i32};

/// Values of a word of columns.
const COLUMN_PACK: usize = 2;

/// See [`super::super::kernel_accumulate`].
pub(crate) fn accumulate(k: &Kernel<'_>, q: &[i8], v: &[i8], w: &mut [i32], w_shift: u32, mut scratch: &mut [i32]) {
    let (m, d, plan) = (k.m(), k.d, Plan { m: k.m(), d: k.d });
    let most = plan.group();
    let scratch = &mut scratch;
    let (l_norms, values) = (next(scratch, m), next(scratch, m * most / COLUMN_PACK));
    let panel = next(scratch, TILE_ROWS * d.max(most));
    let maker = Maker::new(k, l_norms);
    for (q, v) in q.chunks(most * k.width).zip(v.chunks(most * k.width)) {
        let tokens = (q.len() / k.width).next_multiple_of(TILE_ROWS);
        let column = tokens / COLUMN_PACK;
        for i in (0..tokens).step_by(TILE_ROWS) {
            maker.make(q, i, panel, |j, [a, b, c, d]| {
                let to = values.get_mut(j * column + i / COLUMN_PACK..).unwrap_or_default();
                to.iter_mut().zip([(a, b), (c, d)]).for_each(|(to, (a, b))| *to = pack(a as i16, b as i16));
            });
        }
        // The queries are done with.
        for c in (0..d).step_by(TILE_ROWS) {
            let Some(panel) = panel.get_mut(..TILE_ROWS * tokens) else { return };
            for (i, words) in panel.as_chunks_mut::<TILE_ROWS>().0.iter_mut().enumerate() {
                let values = k.row(v, i).get(c..).unwrap_or_default();
                *words = core::array::from_fn(|lane| values.get(lane).map_or(0, |&value| i32::from(value)));
            }
            for (w, values) in w.chunks_exact_mut(d).zip(values.chunks_exact(column)) {
                let tile = sums_i16(panel, values);
                w.iter_mut().skip(c).zip(tile).for_each(|(w, sum)| *w += round_shift_i32(sum, w_shift));
            }
        }
    }
}

/// `y = K1 u` for `u[m, d]` and the head's channels of `y[_, width]`.
pub(crate) fn apply(k: &Kernel<'_>, q: &[i8], u: &[i16], outputs: Outputs<'_>, y: &mut [i8], mut scratch: &mut [i32]) {
    let (m, d) = (k.m(), k.d);
    let most = Plan { m, d }.second_tokens_of_words();
    let scratch = &mut scratch;
    let (l_norms, values) = (next(scratch, m), next(scratch, m * most));
    let column = m.div_ceil(COLUMN_PACK);
    let (panel, packed) = (next(scratch, TILE_ROWS * d), next(scratch, column * d));
    let maker = Maker::new(k, l_norms);
    for (c, column) in packed.chunks_exact_mut(column.max(1)).enumerate() {
        let value = |j: usize| u.get(j * d + c).copied().unwrap_or(0);
        column.iter_mut().zip((0..).step_by(COLUMN_PACK)).for_each(|(to, j)| *to = pack(value(j), value(j + 1)));
    }
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

/// A word of a column.
#[inline(always)]
fn pack(a: i16, b: i16) -> i32 {
    let ([a0, a1], [b0, b1]) = (a.to_ne_bytes(), b.to_ne_bytes());
    i32::from_ne_bytes([a0, a1, b0, b1])
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
