//! Batch normalisation: over the batch while training, by running statistics otherwise.
//!
//! Ioffe and Szegedy 2015, with the conventions of PyTorch: the biased variance normalises, the
//! unbiased one goes into the running statistics.

use super::{Signature, f32s};
use crate::arch::vectorised;
use crate::math::float::sqrt;

shape! {
    /// Training mode: `x[rows, c]`, `gamma[c]`, `beta[c]` -> `y[rows, c]`, `mean[c]`, `var[c]`.
    ///
    /// `var` is the unbiased variance, for [`RunningUpdate`]; of a single row it is 0, like the biased
    /// one.
    pub struct BatchNorm {
        /// Rows: batch times pixels.
        pub rows: usize,
        /// Channels.
        pub c: usize,
        /// Added to the variance; above 0.
        pub eps: f32,
    }
}

const fn reason(rows: usize, c: usize, eps: f32) -> Option<&'static str> {
    if rows == 0 || c == 0 {
        Some("a batch normalisation of no rows or channels")
    } else if eps > 0.0 && eps < f32::INFINITY {
        None
    } else {
        Some("the eps of a batch normalisation is not above 0")
    }
}

impl BatchNorm {
    /// Inputs `x, gamma, beta`; outputs `y, mean, var`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, eps } = *self;
        if let Some(why) = reason(rows, c, eps) {
            return Signature::invalid(why);
        }
        Signature::new(&[f32s(&[rows, c]), f32s(&[c]), f32s(&[c])], &[f32s(&[rows, c]), f32s(&[c]), f32s(&[c])])
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[2, self.rows, self.c])
    }
}

/// A computation that goes through all channels in blocks, each from the first row to the last.
trait Pass {
    /// Computes the channels `channel .. channel + V`.
    fn block<const V: usize>(&mut self, channel: usize);

    /// Computes all `c` channels.
    fn all(&mut self, c: usize) {
        let channel = self.blocks::<16>(c, 0);
        let channel = self.blocks::<4>(c, channel);
        self.blocks::<1>(c, channel);
    }

    /// Computes as many blocks as fit behind `channel`; the first channel that is left.
    fn blocks<const V: usize>(&mut self, c: usize, mut channel: usize) -> usize {
        while c - channel >= V {
            self.block::<V>(channel);
            channel += V;
        }
        channel
    }
}

#[inline(always)]
fn load<const V: usize>(row: &[f32], channel: usize) -> [f32; V] {
    let mut lanes = [0.0; V];
    lanes.copy_from_slice(&row[channel..channel + V]);
    lanes
}

#[inline(always)]
fn store<const V: usize>(lanes: [f32; V], row: &mut [f32], channel: usize) {
    row[channel..channel + V].copy_from_slice(&lanes);
}

/// Mean and biased variance of `V` channels. In f64 one pass is enough: squares of f32 are exact, and
/// what cancels is far below f32.
fn moments<const V: usize>(x: &[f32], c: usize, channel: usize) -> ([f64; V], [f64; V]) {
    vectorised(
        #[inline(always)]
        || {
            let rows = (x.len() / c) as f64;
            let (mut sum, mut squares) = ([0.0; V], [0.0; V]);
            for x in x.chunks_exact(c) {
                let x = load::<V>(x, channel).map(f64::from);
                add(&mut sum, x);
                add(&mut squares, x.map(|x| x * x));
            }
            let mean = sum.map(|s| s / rows);
            (mean, core::array::from_fn(|i| (squares[i] / rows - mean[i] * mean[i]).max(0.0)))
        },
    )
}

#[inline(always)]
fn add<const V: usize>(sums: &mut [f64; V], x: [f64; V]) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum += x;
    }
}

#[inline(always)]
fn reciprocal_deviation(var: f32, eps: f32) -> f32 {
    1.0 / sqrt(var + eps)
}

/// `y = (x - mean) / sqrt(biased variance + eps) * gamma + beta`, and the statistics.
pub fn forward(
    s: &BatchNorm,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    y: &mut [f32],
    mean: &mut [f32],
    var: &mut [f32],
) {
    Forward { s, x, gamma, beta, y, mean, var }.all(s.c);
}

struct Forward<'a> {
    s: &'a BatchNorm,
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    y: &'a mut [f32],
    mean: &'a mut [f32],
    var: &'a mut [f32],
}

impl Pass for Forward<'_> {
    #[inline(always)]
    fn block<const V: usize>(&mut self, channel: usize) {
        let BatchNorm { rows, c, eps } = *self.s;
        let (mean, var) = moments::<V>(self.x, c, channel);
        let unbias = if rows > 1 { rows as f64 / (rows - 1) as f64 } else { 1.0 };
        self.mean[channel..channel + V].copy_from_slice(&mean.map(|m| m as f32));
        self.var[channel..channel + V].copy_from_slice(&var.map(|v| (v * unbias) as f32));

        let mean = mean.map(|m| m as f32);
        let (gamma, beta) = (load::<V>(self.gamma, channel), load::<V>(self.beta, channel));
        let scale: [f32; V] = core::array::from_fn(|i| gamma[i] * reciprocal_deviation(var[i] as f32, eps));
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in self.y.chunks_exact_mut(c).zip(self.x.chunks_exact(c)) {
                    let x = load::<V>(x, channel);
                    store::<V>(core::array::from_fn(|i| (x[i] - mean[i]) * scale[i] + beta[i]), y, channel);
                }
            },
        );
    }
}

shape! {
    /// Backward of [`BatchNorm`]: `x, gamma, dy -> dx?, dgamma, dbeta`. The gradient goes through the
    /// mean and the variance, which are computed again; none comes from the outputs `mean` and `var`.
    pub struct BatchNormGrad {
        /// Rows: batch times pixels.
        pub rows: usize,
        /// Channels.
        pub c: usize,
        /// Added to the variance.
        pub eps: f32,
    }
}

impl BatchNormGrad {
    /// Inputs `x, gamma, dy`; outputs `dx?, dgamma, dbeta`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, eps } = *self;
        if let Some(why) = reason(rows, c, eps) {
            return Signature::invalid(why);
        }
        Signature::new(
            &[f32s(&[rows, c]), f32s(&[c]), f32s(&[rows, c])],
            &[f32s(&[rows, c]).optional(), f32s(&[c]), f32s(&[c])],
        )
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[4, self.rows, self.c])
    }
}

/// With `z = (x - mean) / sqrt(var + eps)`: `dbeta = sum dy`, `dgamma = sum dy z`,
/// `dx = gamma / sqrt(var + eps) * (dy - dbeta / rows - z dgamma / rows)`; overwrites all three.
pub fn backward(
    s: &BatchNormGrad,
    x: &[f32],
    gamma: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    Backward { s, x, gamma, dy, dx, dgamma, dbeta }.all(s.c);
}

struct Backward<'a> {
    s: &'a BatchNormGrad,
    x: &'a [f32],
    gamma: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    dgamma: &'a mut [f32],
    dbeta: &'a mut [f32],
}

impl Pass for Backward<'_> {
    #[inline(always)]
    fn block<const V: usize>(&mut self, channel: usize) {
        let BatchNormGrad { rows, c, eps } = *self.s;
        let (mean, var) = moments::<V>(self.x, c, channel);
        let mean = mean.map(|m| m as f32);
        let deviation: [f32; V] = core::array::from_fn(|i| reciprocal_deviation(var[i] as f32, eps));
        let (dgamma, dbeta) = parameter_grads(self.x, self.dy, c, channel, &mean, &deviation);
        self.dgamma[channel..channel + V].copy_from_slice(&dgamma);
        self.dbeta[channel..channel + V].copy_from_slice(&dbeta);

        let gamma = load::<V>(self.gamma, channel);
        let scale: [f32; V] = core::array::from_fn(|i| gamma[i] * deviation[i]);
        let offset = dbeta.map(|g| g / rows as f32);
        let slope: [f32; V] = core::array::from_fn(|i| dgamma[i] * deviation[i] / rows as f32);
        let inputs = self.x.chunks_exact(c).zip(self.dy.chunks_exact(c));
        vectorised(
            #[inline(always)]
            || {
                for (dx, (x, dy)) in self.dx.chunks_exact_mut(c).zip(inputs) {
                    let (x, dy) = (load::<V>(x, channel), load::<V>(dy, channel));
                    let centred = |i: usize| dy[i] - offset[i] - (x[i] - mean[i]) * slope[i];
                    store::<V>(core::array::from_fn(|i| centred(i) * scale[i]), dx, channel);
                }
            },
        );
    }
}

/// `dgamma` and `dbeta` of `V` channels.
fn parameter_grads<const V: usize>(
    x: &[f32],
    dy: &[f32],
    c: usize,
    channel: usize,
    mean: &[f32; V],
    deviation: &[f32; V],
) -> ([f32; V], [f32; V]) {
    vectorised(
        #[inline(always)]
        || {
            let (mut dgamma, mut dbeta) = ([0.0; V], [0.0; V]);
            for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
                let (x, dy) = (load::<V>(x, channel), load::<V>(dy, channel));
                add(&mut dbeta, dy.map(f64::from));
                add(&mut dgamma, core::array::from_fn(|i| f64::from(dy[i] * (x[i] - mean[i]))));
            }
            (core::array::from_fn(|i| dgamma[i] as f32 * deviation[i]), dbeta.map(|g| g as f32))
        },
    )
}

shape! {
    /// With running statistics: `x[rows, c]`, `gamma[c]`, `beta[c]`, `mean[c]`, `var[c]` ->
    /// `y[rows, c]` in place of `x`.
    pub struct BatchNormEval {
        /// Rows: batch times pixels.
        pub rows: usize,
        /// Channels.
        pub c: usize,
        /// Added to the variance; above 0.
        pub eps: f32,
    }
}

impl BatchNormEval {
    /// Inputs `x, gamma, beta, mean, var`; output `y`, in place.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, eps } = *self;
        if let Some(why) = reason(rows, c, eps) {
            return Signature::invalid(why);
        }
        Signature::new(&[f32s(&[rows, c]), f32s(&[c]), f32s(&[c]), f32s(&[c]), f32s(&[c])], &[f32s(&[rows, c])])
            .in_place()
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[self.rows, self.c])
    }
}

/// `y = (y - mean) / sqrt(var + eps) * gamma + beta`, in place.
pub fn forward_eval(s: &BatchNormEval, gamma: &[f32], beta: &[f32], mean: &[f32], var: &[f32], y: &mut [f32]) {
    ForwardEval { s, gamma, beta, mean, var, y }.all(s.c);
}

struct ForwardEval<'a> {
    s: &'a BatchNormEval,
    gamma: &'a [f32],
    beta: &'a [f32],
    mean: &'a [f32],
    var: &'a [f32],
    y: &'a mut [f32],
}

impl Pass for ForwardEval<'_> {
    #[inline(always)]
    fn block<const V: usize>(&mut self, channel: usize) {
        let BatchNormEval { c, eps, .. } = *self.s;
        let (gamma, beta) = (load::<V>(self.gamma, channel), load::<V>(self.beta, channel));
        let (mean, var) = (load::<V>(self.mean, channel), load::<V>(self.var, channel));
        let scale: [f32; V] = core::array::from_fn(|i| gamma[i] * reciprocal_deviation(var[i], eps));
        vectorised(
            #[inline(always)]
            || {
                for y in self.y.chunks_exact_mut(c) {
                    let x = load::<V>(y, channel);
                    store::<V>(core::array::from_fn(|i| (x[i] - mean[i]) * scale[i] + beta[i]), y, channel);
                }
            },
        );
    }
}

shape! {
    /// Backward of [`BatchNormEval`]: `x, gamma, mean, var, dy -> dx?, dgamma, dbeta`; the running
    /// statistics are constants.
    pub struct BatchNormEvalGrad {
        /// Rows: batch times pixels.
        pub rows: usize,
        /// Channels.
        pub c: usize,
        /// Added to the variance.
        pub eps: f32,
    }
}

impl BatchNormEvalGrad {
    /// Inputs `x, gamma, mean, var, dy`; outputs `dx?, dgamma, dbeta`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, c, eps } = *self;
        if let Some(why) = reason(rows, c, eps) {
            return Signature::invalid(why);
        }
        Signature::new(
            &[f32s(&[rows, c]), f32s(&[c]), f32s(&[c]), f32s(&[c]), f32s(&[rows, c])],
            &[f32s(&[rows, c]).optional(), f32s(&[c]), f32s(&[c])],
        )
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        super::size(&[2, self.rows, self.c])
    }
}

/// `dx = dy gamma / sqrt(var + eps)`, `dgamma = sum dy (x - mean) / sqrt(var + eps)`,
/// `dbeta = sum dy`; overwrites all three.
pub fn backward_eval(
    s: &BatchNormEvalGrad,
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    var: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    BackwardEval { s, x, gamma, mean, var, dy, dx, dgamma, dbeta }.all(s.c);
}

struct BackwardEval<'a> {
    s: &'a BatchNormEvalGrad,
    x: &'a [f32],
    gamma: &'a [f32],
    mean: &'a [f32],
    var: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    dgamma: &'a mut [f32],
    dbeta: &'a mut [f32],
}

impl Pass for BackwardEval<'_> {
    #[inline(always)]
    fn block<const V: usize>(&mut self, channel: usize) {
        let BatchNormEvalGrad { c, eps, .. } = *self.s;
        let mean = load::<V>(self.mean, channel);
        let deviation = load::<V>(self.var, channel).map(|v| reciprocal_deviation(v, eps));
        let (dgamma, dbeta) = parameter_grads(self.x, self.dy, c, channel, &mean, &deviation);
        self.dgamma[channel..channel + V].copy_from_slice(&dgamma);
        self.dbeta[channel..channel + V].copy_from_slice(&dbeta);

        let gamma = load::<V>(self.gamma, channel);
        let scale: [f32; V] = core::array::from_fn(|i| gamma[i] * deviation[i]);
        vectorised(
            #[inline(always)]
            || {
                for (dx, dy) in self.dx.chunks_exact_mut(c).zip(self.dy.chunks_exact(c)) {
                    let dy = load::<V>(dy, channel);
                    store::<V>(core::array::from_fn(|i| dy[i] * scale[i]), dx, channel);
                }
            },
        );
    }
}

shape! {
    /// Moves running statistics towards those of a batch: `batch[len]` -> `running[len]`, which is
    /// read and written.
    pub struct RunningUpdate {
        /// Values: channels.
        pub len: usize,
        /// Weight of the batch, 0 to 1; PyTorch's default is 0.1.
        pub momentum: f32,
    }
}

impl RunningUpdate {
    /// Input `batch`; output `running`, whose old values count.
    pub const fn signature(&self) -> Signature {
        if self.momentum >= 0.0 && self.momentum <= 1.0 {
            Signature::new(&[f32s(&[self.len])], &[f32s(&[self.len])])
        } else {
            Signature::invalid("the momentum of running statistics is not between 0 and 1")
        }
    }

    /// Multiply-accumulates.
    pub const fn macs(&self) -> u64 {
        self.len as u64
    }
}

/// `running = (1 - momentum) running + momentum batch`.
pub fn update(s: &RunningUpdate, batch: &[f32], running: &mut [f32]) {
    for (running, batch) in running.iter_mut().zip(batch) {
        *running = (1.0 - s.momentum) * *running + s.momentum * batch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Reals, assert_close, check_gradients, reals};
    use std::vec;
    use std::vec::Vec;

    const EPS: f32 = 1e-3;

    /// Mean and biased variance of column `j`, in two passes.
    fn statistics(x: &[f64], c: usize, j: usize) -> (f64, f64) {
        let column: Vec<f64> = x.iter().skip(j).step_by(c).copied().collect();
        let rows = column.len() as f64;
        let mean = column.iter().sum::<f64>() / rows;
        (mean, column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / rows)
    }

    fn normalise(t: &[Vec<f64>], c: usize, statistics: impl Fn(usize) -> (f64, f64)) -> Vec<f64> {
        let (x, gamma, beta) = (&t[0], &t[1], &t[2]);
        let statistics: Vec<_> = (0..c).map(statistics).collect();
        x.iter()
            .enumerate()
            .map(|(i, x)| {
                let (mean, var) = statistics[i % c];
                (x - mean) / (var + f64::from(EPS)).sqrt() * gamma[i % c] + beta[i % c]
            })
            .collect()
    }

    fn inputs(rows: usize, c: usize) -> [Reals; 3] {
        // Far from centred, as the outputs of a convolution with a bias are.
        [reals("x", rows * c).map(|x| 2.0 * x + 5.0), reals("gamma", c), reals("beta", c)]
    }

    /// rows, channels
    const SHAPES: [(usize, usize); 6] = [(1, 1), (2, 3), (7, 4), (5, 16), (33, 37), (12, 24)];

    #[test]
    fn training_matches_the_reference() {
        for (rows, c) in SHAPES {
            let inputs = inputs(rows, c);
            let [x, gamma, beta] = inputs.each_ref().map(|v| v.f32());
            let (mut y, mut mean, mut var) = (vec![9.0; rows * c], vec![9.0; c], vec![9.0; c]);
            forward(&BatchNorm { rows, c, eps: EPS }, &x, &gamma, &beta, &mut y, &mut mean, &mut var);
            let t = inputs.each_ref().map(|v| v.f64());
            let (want_mean, want_var): (Vec<f64>, Vec<f64>) = (0..c)
                .map(|j| {
                    let (mean, var) = statistics(&t[0], c, j);
                    (mean, if rows > 1 { var * rows as f64 / (rows as f64 - 1.0) } else { var })
                })
                .unzip();
            assert_close("mean", &mean, &want_mean, 1e-7);
            assert_close("var", &var, &want_var, 1e-6);
            assert_close("y", &y, &normalise(&t, c, |j| statistics(&t[0], c, j)), 2e-6);

            check_gradients(
                &inputs,
                rows * c,
                |t| normalise(t, c, |j| statistics(&t[0], c, j)),
                |dy| {
                    let s = BatchNormGrad { rows, c, eps: EPS };
                    let (mut dx, mut dgamma, mut dbeta) = (vec![9.0; rows * c], vec![9.0; c], vec![9.0; c]);
                    backward(&s, &x, &gamma, dy, &mut dx, &mut dgamma, &mut dbeta);
                    let mut again = vec![9.0; c];
                    backward(&s, &x, &gamma, dy, &mut [], &mut again, &mut dbeta);
                    assert_eq!(dgamma, again);
                    // Of one row nothing is left but the bias: an f64 difference sees only rounding.
                    if rows == 1 {
                        assert!(dx.iter().chain(&dgamma).all(|&g| g == 0.0));
                        return vec![Vec::new(), Vec::new(), dbeta];
                    }
                    vec![dx, dgamma, dbeta]
                },
            );
        }
    }

    #[test]
    fn running_statistics_match_the_reference() {
        for (rows, c) in SHAPES {
            let inputs = inputs(rows, c);
            let [x, gamma, beta] = inputs.each_ref().map(|v| v.f32());
            let (mean, var) = (reals("mean", c), reals("var", c).map(|v| v + 1.5));
            let (m, v) = (mean.f64(), var.f64());
            let mut y = x.clone();
            forward_eval(&BatchNormEval { rows, c, eps: EPS }, &gamma, &beta, &mean.f32(), &var.f32(), &mut y);
            let t = inputs.each_ref().map(|v| v.f64());
            assert_close("y", &y, &normalise(&t, c, |j| (m[j], v[j])), 1e-6);

            check_gradients(
                &inputs,
                rows * c,
                |t| normalise(t, c, |j| (m[j], v[j])),
                |dy| {
                    let s = BatchNormEvalGrad { rows, c, eps: EPS };
                    let (mut dx, mut dgamma, mut dbeta) = (vec![9.0; rows * c], vec![9.0; c], vec![9.0; c]);
                    let (mean, var) = (mean.f32(), var.f32());
                    backward_eval(&s, &x, &gamma, &mean, &var, dy, &mut dx, &mut dgamma, &mut dbeta);
                    vec![dx, dgamma, dbeta]
                },
            );
        }
    }

    #[test]
    fn a_large_mean_does_not_drown_the_variance() {
        let (rows, c) = (4096, 3);
        let x = reals("x", rows * c).map(|x| x + 1000.0);
        let (mut y, mut mean, mut var) = (vec![0.0; rows * c], vec![0.0; c], vec![0.0; c]);
        let s = BatchNorm { rows, c, eps: EPS };
        forward(&s, &x.f32(), &vec![1.0; c], &vec![0.0; c], &mut y, &mut mean, &mut var);
        let want: Vec<f64> = (0..c).map(|j| statistics(&x.f64(), c, j).1 * rows as f64 / (rows as f64 - 1.0)).collect();
        assert_close("var", &var, &want, 1e-6);
    }

    #[test]
    fn running_statistics_move() {
        let mut running = [1.0, -2.0];
        update(&RunningUpdate { len: 2, momentum: 0.25 }, &[5.0, 2.0], &mut running);
        assert_eq!(running, [2.0, -1.0]);
    }

    #[test]
    fn absurd_shapes_are_refused() {
        for (rows, c, eps) in [(0, 1, 1e-5), (1, 0, 1e-5), (1, 1, 0.0), (1, 1, f32::NAN), (1, 1, f32::INFINITY)] {
            assert!(BatchNorm { rows, c, eps }.signature().reason().is_some());
            assert!(BatchNormGrad { rows, c, eps }.signature().reason().is_some());
            assert!(BatchNormEval { rows, c, eps }.signature().reason().is_some());
            assert!(BatchNormEvalGrad { rows, c, eps }.signature().reason().is_some());
        }
        for momentum in [-0.1, 1.1, f32::NAN] {
            assert!(RunningUpdate { len: 1, momentum }.signature().reason().is_some());
        }
        assert!(BatchNormEval { rows: 2, c: 3, eps: 1e-5 }.signature().is_in_place());
    }
}
