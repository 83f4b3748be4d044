//! Augmentation: what a training sample could as well have looked like.
//!
//! Works on raw values, before the model's own normalisation, in place and without memory of its
//! own. Every random number is a function of seed, step, shard and sample, so nothing depends on
//! the number of threads. Images are `[h, w, c]`; a time series is `1 x length x c`, where width
//! means time: a shift moves it in time, a flip reverses it, an erased rectangle is a gap.

use crate::error::HostError;
use crate::math::float::{exp, ln, sqrt};
use crate::math::random::Stream;
use crate::ops::Tick;
use std::format;

/// Which augmentations are made, in the order of the fields; by default none.
///
/// Mixup and CutMix pair the first sample of a shard with the last, the second with the last but
/// one, and so on; the middle one of an odd number stays. Where both are on, each pair draws one of
/// them. Values are not clamped.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Shifts by up to this part of height and width, either way; in `[0, 1)`, 0 is off.
    pub shift: f32,
    /// What a shift moves in.
    pub fill: Fill,
    /// Probability of mirroring left and right; in `[0, 1]`, 0 is off.
    pub flip: f32,
    /// Multiplies each channel of a sample by a factor from `[1 - scale, 1 + scale)`; in `[0, 1]`,
    /// 0 is off.
    pub scale: f32,
    /// Adds noise of this standard deviation, in units of the channel's; at least 0, 0 is off. The
    /// sum of four uniform numbers: nearly normal, never beyond 3.5 deviations.
    pub jitter: f32,
    /// Probability of erasing a rectangle to the channel's mean (Zhong et al. 2017, arXiv:1708.04896;
    /// Cutout: DeVries, Taylor 2017, arXiv:1708.04552); in `[0, 1]`, 0 is off.
    pub erase: f32,
    /// Smallest and largest part of the area erased, in `[0, 1]`. Default: 0.02 to 0.33.
    pub erase_area: [f32; 2],
    /// The alpha of mixup (Zhang et al. 2017, arXiv:1710.09412): the share of the partner is drawn
    /// from Beta(alpha, alpha); in `[0, 4]`, 0 is off.
    pub mixup: f32,
    /// The alpha of CutMix (Yun et al. 2019, arXiv:1905.04899): the area of the rectangle swapped
    /// with the partner is drawn from Beta(alpha, alpha); in `[0, 4]`, 0 is off.
    pub cutmix: f32,
}

/// What a shift moves in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// Raw zeros: black.
    #[default]
    Zero,
    /// The outermost values again.
    Edge,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            shift: 0.0,
            fill: Fill::Zero,
            flip: 0.0,
            scale: 0.0,
            jitter: 0.0,
            erase: 0.0,
            erase_area: [0.02, 0.33],
            mixup: 0.0,
            cutmix: 0.0,
        }
    }
}

/// Names of the random decisions: each has a stream of its own.
#[derive(Clone, Copy)]
enum Draw {
    Shift,
    Flip,
    Scale,
    Jitter,
    Erase,
    Mix,
}

/// Sets the streams of augmentation apart from those of ops that share seed and step.
const SALT: u64 = u64::from_le_bytes(*b"augment\0");

impl Augment {
    /// Whether every field is in its range.
    ///
    /// # Errors
    ///
    /// Names the first field that is not, its range and its value.
    pub fn check(&self) -> Result<(), HostError> {
        let refuse = |field: &str, needed: &str, found: f32| {
            HostError::new(format!("augment.{field}"), format!("{found} where {needed} is needed"), "0 switches it off")
        };
        for (field, value) in [("flip", self.flip), ("scale", self.scale), ("erase", self.erase)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(refuse(field, "0 to 1", value));
            }
        }
        if !(0.0..1.0).contains(&self.shift) {
            return Err(refuse("shift", "0 or more, below 1,", self.shift));
        }
        if !(0.0..=100.0).contains(&self.jitter) {
            return Err(refuse("jitter", "0 to 100", self.jitter));
        }
        // Far above any published value; the drawing of larger ones would reject nearly every try, and
        // of smaller ones is lost to rounding.
        for (field, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if alpha != 0.0 && !(0.001..=4.0).contains(&alpha) {
                return Err(refuse(field, "0, or 0.001 to 4,", alpha));
            }
        }
        let [least, most] = self.erase_area;
        if !(0.0 <= least && least <= most && most <= 1.0) {
            return Err(HostError::new(
                "augment.erase_area",
                format!("[{least}, {most}] where 0 <= least <= most <= 1 is needed"),
                "the default is [0.02, 0.33]",
            ));
        }
        Ok(())
    }

    /// Augments a shard in place: `samples[batch, h, w, c]` of `shape = [h, w, c]` and the target
    /// probabilities `targets[batch, classes]`.
    ///
    /// `mean` and `std`, `[c]`, are those of the raw values of the training set. The configuration
    /// must pass [`check`](Self::check). Targets keep their sum over the shard; with everything off,
    /// no bit changes.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit each other.
    pub fn apply(
        &self,
        tick: Tick,
        shape: [usize; 3],
        mean: &[f32],
        std: &[f32],
        samples: &mut [f32],
        targets: &mut [f32],
    ) {
        let width = shape.iter().product::<usize>();
        if samples.is_empty() {
            return;
        }
        assert!(samples.len().is_multiple_of(width), "whole samples of {width} values");
        let batch = samples.len() / width;
        assert!(targets.len().is_multiple_of(batch), "as many targets as samples, {batch}");
        assert!(mean.len() == shape[2] && std.len() == shape[2], "mean and std of {} channels", shape[2]);

        let shard = Stream::new(tick.seed).fork(SALT).fork(tick.step).fork(u64::from(tick.shard));
        for (i, sample) in samples.chunks_exact_mut(width).enumerate() {
            let stream = shard.fork(i as u64);
            self.alter(|draw| stream.fork(draw as u64), shape, mean, std, sample);
        }
        if self.mixup > 0.0 || self.cutmix > 0.0 {
            let classes = targets.len() / batch;
            for i in 0..batch / 2 {
                let partner = batch - 1 - i;
                let stream = shard.fork(i as u64).fork(Draw::Mix as u64);
                let (a, b) = pair(samples, width, i, partner);
                let share = self.mix(stream, shape, a, b);
                let (a, b) = pair(targets, classes, i, partner);
                blend(a, b, share);
            }
        }
    }

    /// The augmentations of one sample.
    fn alter(
        &self,
        stream: impl Fn(Draw) -> Stream,
        [h, w, c]: [usize; 3],
        mean: &[f32],
        std: &[f32],
        sample: &mut [f32],
    ) {
        if self.shift > 0.0 {
            let stream = stream(Draw::Shift);
            let steps = |i: u64, length: usize| {
                let most = (self.shift * length as f32) as i64;
                i64::from(stream.below(i, 2 * most as u32 + 1)) - most
            };
            shift(sample, w * c, steps(0, h), self.fill);
            let along = steps(1, w);
            sample.chunks_exact_mut(w * c).for_each(|row| shift(row, c, along, self.fill));
        }
        if stream(Draw::Flip).uniform(0) < self.flip {
            for row in sample.chunks_exact_mut(w * c) {
                row.reverse();
                row.chunks_exact_mut(c).for_each(<[f32]>::reverse);
            }
        }
        if self.scale > 0.0 {
            let stream = stream(Draw::Scale);
            for channel in 0..c {
                let factor = 1.0 + self.scale * (2.0 * stream.uniform(channel as u64) - 1.0);
                sample[channel..].iter_mut().step_by(c).for_each(|v| *v *= factor);
            }
        }
        if self.jitter > 0.0 {
            let stream = stream(Draw::Jitter);
            for (i, (value, std)) in sample.iter_mut().zip(std.iter().cycle()).enumerate() {
                *value += self.jitter * std * normal(stream.bits(i as u64));
            }
        }
        if self.erase > 0.0 {
            let stream = stream(Draw::Erase);
            if stream.uniform(0) < self.erase {
                let [least, most] = self.erase_area;
                let area = least + (most - least) * stream.uniform(1);
                // Height to width from 0.3 to 1 / 0.3, as in the paper.
                let stretch = exp(ln(0.3) * (2.0 * stream.uniform(2) - 1.0));
                let hole = Rectangle::draw(stream.fork(0), [h, w], area, stretch);
                hole.rows([h, w, c], sample).for_each(|row| {
                    row.chunks_exact_mut(c).for_each(|pixel| pixel.copy_from_slice(mean));
                });
            }
        }
    }

    /// Mixes two samples with each other and returns the share of itself that each keeps.
    fn mix(&self, stream: Stream, [h, w, c]: [usize; 3], a: &mut [f32], b: &mut [f32]) -> f32 {
        let cut = self.mixup == 0.0 || (self.cutmix > 0.0 && stream.uniform(0) < 0.5);
        if !cut {
            let share = beta(stream.fork(0), self.mixup);
            blend(a, b, share);
            return share;
        }
        let area = 1.0 - beta(stream.fork(0), self.cutmix);
        let patch = Rectangle::draw(stream.fork(1), [h, w], area, 1.0);
        patch.rows([h, w, c], a).zip(patch.rows([h, w, c], b)).for_each(|(a, b)| a.swap_with_slice(b));
        1.0 - (patch.height * patch.width) as f32 / (h * w) as f32
    }
}

/// A rectangle of pixels inside a sample.
struct Rectangle {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Rectangle {
    /// A rectangle of about `area` (a part of the whole) somewhere inside `h x w`, whose height to
    /// width is `stretch` times that of the whole as far as it fits.
    fn draw(stream: Stream, [h, w]: [usize; 2], area: f32, stretch: f32) -> Self {
        let height = ((h as f32 * sqrt(area * stretch)).round() as usize).clamp(1, h);
        // The width makes up for a height that did not fit: a time series is one pixel high.
        let width = ((area * (h * w) as f32 / height as f32).round() as usize).min(w);
        let place = |i, room: usize| stream.below(i, room as u32 + 1) as usize;
        Self { top: place(0, h - height), left: place(1, w - width), height, width }
    }

    /// The rectangle's part of each row it touches.
    fn rows<'a>(&self, [_, w, c]: [usize; 3], sample: &'a mut [f32]) -> impl Iterator<Item = &'a mut [f32]> {
        let span = self.left * c..(self.left + self.width) * c;
        sample.chunks_exact_mut(w * c).skip(self.top).take(self.height).map(move |row| &mut row[span.clone()])
    }
}

/// Moves the blocks of `block` values in `data` by `steps`, fewer than there are blocks.
fn shift(data: &mut [f32], block: usize, steps: i64, fill: Fill) {
    let len = data.len();
    let moved = steps.unsigned_abs() as usize * block;
    let (gap, outermost) = if steps >= 0 {
        data.copy_within(..len - moved, moved);
        (0..moved, 0)
    } else {
        data.copy_within(moved.., 0);
        (len - moved..len, len - block)
    };
    // The move left the outermost block where it was.
    match fill {
        Fill::Zero => data[gap].fill(0.0),
        Fill::Edge => gap.step_by(block).for_each(|at| data.copy_within(outermost..outermost + block, at)),
    }
}

/// Rows `i < j` of `data[_, width]`.
fn pair(data: &mut [f32], width: usize, i: usize, j: usize) -> (&mut [f32], &mut [f32]) {
    let (head, tail) = data.split_at_mut(j * width);
    (&mut head[i * width..][..width], &mut tail[..width])
}

/// Each keeps `share` of itself and gets the rest from the other.
fn blend(a: &mut [f32], b: &mut [f32], share: f32) {
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (share * *a + (1.0 - share) * *b, share * *b + (1.0 - share) * *a);
    }
}

/// A nearly normal number of mean 0 and deviation 1: the sum of four 16-bit uniform numbers.
fn normal(bits: u64) -> f32 {
    let sum: i64 = (0..4).map(|i| (bits >> (16 * i) & 0xFFFF) as i64).sum();
    // Four uniform numbers in 0..2^16 have mean 2 (2^16 - 1) and deviation 2^16 / sqrt(3).
    (sum - 131_070) as f32 * (1.732_050_8 / 65_536.0)
}

/// A number from Beta(alpha, alpha), by Jöhnk's method, in logarithms so that a small alpha cannot
/// underflow.
fn beta(stream: Stream, alpha: f32) -> f32 {
    // Half a step above the multiples of 2^-24 that `uniform` gives: never 0.
    let log_power = |i| ln(stream.uniform(i) + 0.5 / 16_777_216.0) / alpha;
    let mut i = 0;
    loop {
        let (u, v) = (log_power(i), log_power(i + 1));
        if exp(u) + exp(v) <= 1.0 {
            return 1.0 / (1.0 + exp(v - u));
        }
        i += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::reals;
    use std::vec;
    use std::vec::Vec;

    const SHAPES: [[usize; 3]; 5] = [[1, 1, 1], [1, 1, 5], [1, 33, 6], [7, 5, 3], [28, 28, 1]];

    fn all_on() -> Augment {
        Augment {
            shift: 0.3,
            fill: Fill::Edge,
            flip: 0.5,
            scale: 0.2,
            jitter: 0.1,
            erase: 0.5,
            mixup: 0.4,
            cutmix: 1.0,
            ..Augment::default()
        }
    }

    struct Shard {
        shape: [usize; 3],
        samples: Vec<f32>,
        targets: Vec<f32>,
    }

    impl Shard {
        /// `batch` samples and one-hot targets of 3 classes.
        fn new(shape: [usize; 3], batch: usize) -> Self {
            let width = shape.iter().product::<usize>();
            let targets = (0..batch * 3).map(|i| f32::from(u8::from(i % 3 == i / 3 % 3))).collect();
            Self { shape, samples: reals("samples", batch * width).f32(), targets }
        }

        fn apply(&self, augment: &Augment, tick: Tick) -> (Vec<f32>, Vec<f32>) {
            let (mut samples, mut targets) = (self.samples.clone(), self.targets.clone());
            let (mean, std) = (vec![0.25; self.shape[2]], vec![0.5; self.shape[2]]);
            augment.check().unwrap();
            augment.apply(tick, self.shape, &mean, &std, &mut samples, &mut targets);
            (samples, targets)
        }
    }

    fn tick(step: u64) -> Tick {
        Tick { seed: 3, step, shard: 1 }
    }

    #[test]
    fn nothing_on_changes_no_bit() {
        for shape in SHAPES {
            let mut shard = Shard::new(shape, 3);
            shard.samples[0] = -0.0;
            let (samples, targets) = shard.apply(&Augment::default(), tick(0));
            assert!(samples.iter().zip(&shard.samples).all(|(a, b)| a.to_bits() == b.to_bits()));
            assert_eq!(targets, shard.targets);
        }
    }

    #[test]
    fn equal_keys_give_equal_results_and_other_keys_do_not() {
        for shape in SHAPES {
            let shard = Shard::new(shape, 5);
            let first = shard.apply(&all_on(), tick(7));
            assert_eq!(first, shard.apply(&all_on(), tick(7)));
            for other in [Tick { seed: 4, ..tick(7) }, tick(8), Tick { shard: 2, ..tick(7) }] {
                assert_ne!(first, shard.apply(&all_on(), other));
            }
        }
    }

    #[test]
    fn a_sample_that_is_not_mixed_ignores_its_batch_mates() {
        let augment = Augment { mixup: 0.0, cutmix: 0.0, ..all_on() };
        let shard = Shard::new([7, 5, 3], 4);
        let (all, _) = shard.apply(&augment, tick(2));
        let alone = Shard { samples: shard.samples[..105].to_vec(), targets: shard.targets[..3].to_vec(), ..shard };
        assert_eq!(alone.apply(&augment, tick(2)).0, all[..105]);
    }

    #[test]
    fn a_shift_matches_the_reference() {
        for (length, block) in [(1, 3), (2, 1), (5, 2), (9, 3)] {
            let data = reals("data", length * block).f32();
            for steps in 1 - length as i64..length as i64 {
                for fill in [Fill::Zero, Fill::Edge] {
                    let mut shifted = data.clone();
                    shift(&mut shifted, block, steps, fill);
                    for at in 0..length as i64 {
                        let from = at - steps;
                        let inside = from.clamp(0, length as i64 - 1);
                        for i in 0..block {
                            let value = data[inside as usize * block + i];
                            let expected = if inside != from && fill == Fill::Zero { 0.0 } else { value };
                            assert_eq!(shifted[at as usize * block + i], expected);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn shifts_reach_their_limits_in_both_directions() {
        // A sample that holds its own coordinates shows how far it was shifted.
        let [h, w] = [10, 20];
        let coordinates = (0..h * w).flat_map(|i| [(i / w) as f32, (i % w) as f32]).collect();
        let shard = Shard { shape: [h, w, 2], samples: coordinates, targets: vec![1.0] };
        let augment = Augment { shift: 0.2, fill: Fill::Edge, ..Augment::default() };
        let centre = (5 * w + 10) * 2;
        let moves: Vec<[i32; 2]> = (0..400)
            .map(|step| shard.apply(&augment, tick(step)).0)
            .map(|sample| [5 - sample[centre] as i32, 10 - sample[centre + 1] as i32])
            .collect();
        for (axis, most) in [(0, 2), (1, 4)] {
            assert_eq!(moves.iter().map(|by| by[axis]).min(), Some(-most));
            assert_eq!(moves.iter().map(|by| by[axis]).max(), Some(most));
        }
    }

    #[test]
    fn a_flip_mirrors_pixels_and_keeps_channels() {
        let shard = Shard::new([2, 3, 2], 1);
        let augment = Augment { flip: 1.0, ..Augment::default() };
        let (flipped, _) = shard.apply(&augment, tick(0));
        for (row, flipped) in shard.samples.chunks_exact(6).zip(flipped.chunks_exact(6)) {
            assert_eq!(flipped, [row[4], row[5], row[2], row[3], row[0], row[1]]);
        }
    }

    #[test]
    fn scaling_is_one_factor_per_channel_in_its_range() {
        let shard = Shard { shape: [1, 9, 2], samples: vec![1.0; 18], targets: vec![1.0] };
        let augment = Augment { scale: 0.3, ..Augment::default() };
        for step in 0..100 {
            let (scaled, _) = shard.apply(&augment, tick(step));
            let (x, y) = (scaled[0], scaled[1]);
            assert!([x, y].iter().all(|factor| (0.7..1.3).contains(factor)) && x != y);
            assert!(scaled.chunks_exact(2).all(|pixel| pixel == [x, y]));
        }
    }

    #[test]
    fn jitter_has_the_deviation_asked_for() {
        let shard = Shard { shape: [100, 100, 1], samples: vec![2.0; 10_000], targets: vec![1.0] };
        let (noisy, _) = shard.apply(&Augment { jitter: 0.2, ..Augment::default() }, tick(0));
        let noise: Vec<f64> = noisy.iter().map(|v| f64::from(*v) - 2.0).collect();
        let mean = noise.iter().sum::<f64>() / 1e4;
        let deviation = (noise.iter().map(|v| v * v).sum::<f64>() / 1e4).sqrt();
        // 0.2 of the channel's 0.5; the bounds are 4 standard errors.
        assert!(mean.abs() < 0.004 && (deviation - 0.1).abs() < 0.003, "{mean} {deviation}");
        assert!(noise.iter().all(|v| v.abs() < 0.35));
    }

    #[test]
    fn erasing_sets_one_rectangle_to_the_mean() {
        let augment = Augment { erase: 1.0, erase_area: [0.1, 0.3], ..Augment::default() };
        for shape in [[1, 100, 3], [20, 30, 1]] {
            let [h, w, c] = shape;
            for step in 0..50 {
                let shard = Shard { shape, samples: vec![9.0; h * w * c], targets: vec![1.0] };
                let (erased, _) = shard.apply(&augment, tick(step));
                let holes: Vec<usize> = (0..h * w).filter(|i| erased[i * c] == 0.25).collect();
                assert!(erased.chunks_exact(c).all(|pixel| pixel == vec![pixel[0]; c]));
                let rows = holes[holes.len() - 1] / w - holes[0] / w + 1;
                assert_eq!(holes.len() % rows, 0);
                assert!(holes.iter().all(|i| (i % w).abs_diff(holes[0] % w) < holes.len() / rows));
                // The width is rounded: half a column more or less.
                let (area, slack) = (holes.len() as f32, 0.5 * rows as f32);
                assert!(area >= 0.1 * (h * w) as f32 - slack && area <= 0.3 * (h * w) as f32 + slack, "{area}");
            }
        }
    }

    #[test]
    fn mixing_conserves_samples_and_labels() {
        for shape in SHAPES {
            for batch in [1, 2, 5, 8] {
                for (mixup, cutmix) in [(0.2, 0.0), (0.0, 1.0), (0.4, 0.4)] {
                    let shard = Shard::new(shape, batch);
                    let augment = Augment { mixup, cutmix, ..Augment::default() };
                    let (samples, targets) = shard.apply(&augment, tick(5));
                    let sums = |v: &[f32], width: usize| -> Vec<f32> {
                        (0..width).map(|at| v[at..].iter().step_by(width).sum()).collect()
                    };
                    let width = shape.iter().product();
                    for (v, original, width) in [(&samples, &shard.samples, width), (&targets, &shard.targets, 3)] {
                        for (sum, expected) in sums(v, width).iter().zip(sums(original, width)) {
                            assert!((sum - expected).abs() < 1e-5);
                        }
                    }
                    for row in targets.chunks_exact(3) {
                        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6 && row.iter().all(|&t| t >= 0.0));
                    }
                    if batch % 2 == 1 {
                        let middle = batch / 2 * width;
                        assert_eq!(samples[middle..middle + width], shard.samples[middle..middle + width]);
                    }
                }
            }
        }
    }

    #[test]
    fn targets_tell_what_a_mixed_sample_holds() {
        // Samples that equal their targets stay so: by value in mixup, by area in CutMix.
        for (mixup, cutmix) in [(0.3, 0.0), (0.0, 0.8), (0.5, 0.5)] {
            let augment = Augment { mixup, cutmix, ..Augment::default() };
            for shape in [[1, 40, 2], [12, 9, 1]] {
                let width = shape.iter().product::<usize>();
                let mut samples = vec![0.0; 2 * width];
                samples[..width].fill(1.0);
                let shard = Shard { shape, samples, targets: vec![1.0, 0.0, 0.0, 1.0] };
                let mut shares = Vec::new();
                for step in 0..50 {
                    let (samples, targets) = shard.apply(&augment, tick(step));
                    for (sample, target) in samples.chunks_exact(width).zip(targets.chunks_exact(2)) {
                        let held = sample.iter().sum::<f32>() / width as f32;
                        assert!((held - target[0]).abs() < 1e-5, "{held} {target:?}");
                    }
                    shares.push(targets[0]);
                }
                assert!(shares.iter().any(|&s| s < 0.4) && shares.iter().any(|&s| s > 0.6));
            }
        }
    }

    #[test]
    fn beta_has_the_moments_of_its_distribution() {
        for alpha in [0.01f32, 0.2, 1.0, 4.0] {
            let draws: Vec<f64> = (0..20_000).map(|i| f64::from(beta(Stream::new(11).fork(i), alpha))).collect();
            assert!(draws.iter().all(|v| (0.0..=1.0).contains(v)));
            let mean = draws.iter().sum::<f64>() / 2e4;
            let variance = draws.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 2e4;
            let expected = 1.0 / (4.0 * (2.0 * f64::from(alpha) + 1.0));
            assert!((mean - 0.5).abs() < 4.0 * (expected / 2e4).sqrt(), "{alpha}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.04, "{alpha}: {variance}, {expected}");
        }
    }

    #[test]
    fn fields_out_of_range_are_refused_by_name() {
        let base = Augment::default();
        assert_eq!(all_on().check(), Ok(()));
        for (field, augment) in [
            ("shift", Augment { shift: 1.0, ..base }),
            ("flip", Augment { flip: -0.1, ..base }),
            ("scale", Augment { scale: f32::NAN, ..base }),
            ("jitter", Augment { jitter: f32::INFINITY, ..base }),
            ("erase", Augment { erase: 1.5, ..base }),
            ("erase_area", Augment { erase_area: [0.5, 0.2], ..base }),
            ("mixup", Augment { mixup: 5.0, ..base }),
            ("cutmix", Augment { cutmix: -1.0, ..base }),
        ] {
            assert_eq!(augment.check().unwrap_err().place, format!("augment.{field}"));
        }
        assert!(toml::from_str::<Augment>("shift = 0.1\nfill = \"edge\"").is_ok());
        assert!(toml::from_str::<Augment>("shfit = 0.1").unwrap_err().message().contains("shfit"));
    }
}
