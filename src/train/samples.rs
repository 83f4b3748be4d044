//! The samples of a run, and the order in which an epoch takes them.

use crate::error::HostError;
use crate::math::random::{Stream, mix};
use std::format;
use std::vec::Vec;

/// Labelled samples of one shape, wherever they are.
#[derive(Clone, Copy)]
pub struct Samples<'a> {
    /// Number of samples.
    pub len: usize,
    /// Writes the raw values of a sample, channels-last, as the model takes them.
    pub fill: &'a (dyn Fn(usize, &mut [f32]) + Sync),
    /// The class of each sample.
    pub labels: &'a [u32],
    /// Height, width, channels.
    pub shape: [usize; 3],
    /// Number of classes.
    pub classes: usize,
}

impl core::fmt::Debug for Samples<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { len, shape, classes, .. } = self;
        write!(f, "Samples {{ len: {len}, shape: {shape:?}, classes: {classes} }}")
    }
}

impl Samples<'_> {
    /// Checks that the samples are what a model with this input and number of classes takes.
    pub(super) fn check(&self, shape: [usize; 3], classes: usize) -> Result<(), HostError> {
        let fail = |problem, remedy: &str| Err(HostError::new("data", problem, remedy));
        if self.labels.len() != self.len {
            return fail(
                format!("{} samples and {} labels", self.len, self.labels.len()),
                "give each sample one label",
            );
        }
        if self.shape != shape {
            let ([h, w, c], [mh, mw, mc]) = (self.shape, shape);
            return fail(
                format!("samples of {h} x {w} x {c} where the model takes {mh} x {mw} x {mc}"),
                "set the model's input shape to that of the data",
            );
        }
        if self.classes != classes {
            return fail(
                format!("{} classes where the model has {classes}", self.classes),
                "set the model's number of classes to that of the data",
            );
        }
        if let Some(i) = self.labels.iter().position(|&l| l as usize >= classes) {
            return fail(
                format!("sample {i} has label {}, and there are {classes} classes", self.labels[i]),
                "labels count from 0 and stay below the number of classes",
            );
        }
        Ok(())
    }

    /// Writes the samples with these indices one after the other; `values` may be longer.
    ///
    /// # Errors
    /// A sample that is not finite.
    pub(super) fn gather(&self, indices: &[u32], values: &mut [f32]) -> Result<(), HostError> {
        let width = self.shape.iter().product();
        for (&i, values) in indices.iter().zip(values.chunks_exact_mut(width)) {
            (self.fill)(i as usize, values);
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return Err(HostError::new(
                    format!("sample {i}"),
                    format!("value {at} is {}", values[at]),
                    "remove or fill in samples that are not finite",
                ));
            }
        }
        Ok(())
    }

    /// A hash of values and labels: whether a resumed run has the same data in the same order.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut values = std::vec![0.0f32; self.shape.iter().product()];
        let mut hash = mix(self.len as u64);
        for (i, &label) in self.labels.iter().enumerate() {
            (self.fill)(i, &mut values);
            hash = mix(hash ^ u64::from(label));
            for v in &values {
                // One multiplication per value: every bit of it moves the upper half of the hash.
                hash = (hash ^ u64::from(v.to_bits())).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
            }
        }
        mix(hash)
    }
}

/// Shuffles `order` by a stream of random numbers (Fisher and Yates).
fn shuffle(order: &mut [u32], random: Stream) {
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i as u64, i as u32 + 1) as usize);
    }
}

/// Streams of random numbers of a run, by purpose.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Initialise = 1,
    HoldOut = 2,
    Order = 3,
}

pub(super) fn stream(seed: u64, purpose: Purpose) -> Stream {
    Stream::new(seed).fork(purpose as u64)
}

/// Indices of the samples for training and of those held out: `fraction` of each class.
pub(super) fn hold_out(labels: &[u32], classes: usize, fraction: f32, seed: u64) -> (Vec<u32>, Vec<u32>) {
    let mut order: Vec<u32> = (0..labels.len() as u32).collect();
    if fraction == 0.0 {
        return (order, Vec::new());
    }
    shuffle(&mut order, stream(seed, Purpose::HoldOut));
    let mut wanted = std::vec![0usize; classes];
    for &l in labels {
        wanted[l as usize] += 1;
    }
    for count in &mut wanted {
        *count = (*count as f64 * f64::from(fraction)).round() as usize;
    }
    let (mut held, mut kept): (Vec<u32>, Vec<u32>) = order.into_iter().partition(|&i| {
        let left = &mut wanted[labels[i as usize] as usize];
        let take = *left > 0;
        *left -= usize::from(take);
        take
    });
    held.sort_unstable();
    kept.sort_unstable();
    (kept, held)
}

/// The order in which epoch `epoch` takes the samples in `indices`.
pub(super) fn epoch_order(indices: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
    let mut order = indices.to_vec();
    shuffle(&mut order, stream(seed, Purpose::Order).fork(epoch));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_permutations_that_differ_by_epoch_and_seed() {
        let all: Vec<u32> = (0..1000).collect();
        let orders = [epoch_order(&all, 0, 0), epoch_order(&all, 0, 1), epoch_order(&all, 1, 0)];
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, all);
            assert_ne!(order, &all);
        }
        assert_ne!(orders[0], orders[1]);
        assert_ne!(orders[0], orders[2]);
        assert_eq!(orders[0], epoch_order(&all, 0, 0));
    }

    #[test]
    fn the_same_part_of_every_class_is_held_out() {
        let labels: Vec<u32> = (0..500).map(|i| if i % 5 == 0 { 1 } else { 0 }).collect();
        let (kept, held) = hold_out(&labels, 3, 0.1, 7);
        assert_eq!((kept.len(), held.len()), (450, 50));
        assert_eq!(held.iter().filter(|&&i| labels[i as usize] == 1).count(), 10);
        assert!(kept.iter().all(|i| !held.contains(i)));
        assert!(hold_out(&labels, 3, 0.0, 7).1.is_empty());
    }

    #[test]
    fn what_does_not_fit_the_model_is_said() {
        let fill = |_: usize, _: &mut [f32]| {};
        let good = Samples { len: 2, fill: &fill, labels: &[0, 1], shape: [4, 4, 1], classes: 2 };
        good.check([4, 4, 1], 2).unwrap();
        let problem = |s: Samples, shape, classes| s.check(shape, classes).unwrap_err().problem;
        assert_eq!(problem(good, [4, 5, 1], 2), "samples of 4 x 4 x 1 where the model takes 4 x 5 x 1");
        assert_eq!(problem(good, [4, 4, 1], 3), "2 classes where the model has 3");
        assert_eq!(problem(Samples { len: 3, ..good }, [4, 4, 1], 2), "3 samples and 2 labels");
        let bad = Samples { labels: &[0, 2], ..good };
        assert_eq!(problem(bad, [4, 4, 1], 2), "sample 1 has label 2, and there are 2 classes");
        assert_ne!(good.fingerprint(), bad.fingerprint());
    }
}
