//! Cross-entropy of logits against probabilities, with label smoothing.

use super::{Signature, f32s};
use crate::arch::vectorised;
use crate::math::float::{exp, largest, ln, sum, sum_pairs};

const EMPTY: &str = "a cross-entropy needs at least one row and one class";
const SMOOTHING: &str = "the label smoothing of a cross-entropy is not in 0 to 1";

const fn reason(rows: usize, classes: usize, smoothing: f32) -> Option<&'static str> {
    if rows == 0 || classes == 0 {
        return Some(EMPTY);
    }
    // Written so that NaN fails.
    if !(smoothing >= 0.0 && smoothing <= 1.0) {
        return Some(SMOOTHING);
    }
    None
}

shape! {
    /// `logits[rows, classes], target[rows, classes] -> loss[1]`.
    ///
    /// Targets are probabilities: one-hot rows, or the mixtures of mixup. Smoothing mixes in the
    /// uniform distribution: `t' = (1 - smoothing) t + smoothing / classes`.
    pub struct CrossEntropy {
        /// Images.
        pub rows: usize,
        /// Classes.
        pub classes: usize,
        /// Label smoothing, 0 to 1.
        pub smoothing: f32,
    }
}

impl CrossEntropy {
    /// Inputs `logits, target`; output `loss`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, classes, smoothing } = *self;
        if let Some(why) = reason(rows, classes, smoothing) {
            return Signature::invalid(why);
        }
        Signature::new(&[f32s(&[rows, classes]), f32s(&[rows, classes])], &[f32s(&[1])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `loss = mean over the rows of sum t' (log sum exp z - z)`, stable for logits of any size.
pub fn forward(s: &CrossEntropy, logits: &[f32], target: &[f32], loss: &mut [f32]) {
    let (keep, uniform) = (1.0 - s.smoothing, s.smoothing / s.classes as f32);
    let classes = s.classes;
    let total = vectorised(
        #[inline(always)]
        move || {
            let mut total = 0.0;
            for (z, t) in logits.chunks_exact(classes).zip(target.chunks_exact(classes)) {
                let max = largest(z);
                let log_sum = ln(sum(z, |z| exp(z - max)));
                total += sum_pairs(z, t, |z, t| (keep * t + uniform) * (log_sum - (z - max)));
            }
            total
        },
    );
    loss.fill(total / s.rows as f32);
}

shape! {
    /// Backward of [`CrossEntropy`] for a gradient of 1: `logits[rows, classes], target[rows, classes]
    /// -> dlogits[rows, classes]`.
    pub struct CrossEntropyGrad {
        /// Images.
        pub rows: usize,
        /// Classes.
        pub classes: usize,
        /// Label smoothing, 0 to 1.
        pub smoothing: f32,
    }
}

impl CrossEntropyGrad {
    /// Inputs `logits, target`; output `dlogits`.
    pub const fn signature(&self) -> Signature {
        let Self { rows, classes, smoothing } = *self;
        if let Some(why) = reason(rows, classes, smoothing) {
            return Signature::invalid(why);
        }
        let one = f32s(&[rows, classes]);
        Signature::new(&[one, one], &[one])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `dlogits = (softmax(z) sum t' - t') / rows`.
pub fn backward(s: &CrossEntropyGrad, logits: &[f32], target: &[f32], dlogits: &mut [f32]) {
    let (keep, uniform) = (1.0 - s.smoothing, s.smoothing / s.classes as f32);
    let mean = 1.0 / s.rows as f32;
    vectorised(
        #[inline(always)]
        move || {
            let rows = logits.chunks_exact(s.classes).zip(target.chunks_exact(s.classes));
            for ((z, t), d) in rows.zip(dlogits.chunks_exact_mut(s.classes)) {
                let max = largest(z);
                for (d, &z) in d.iter_mut().zip(z) {
                    *d = exp(z - max);
                }
                let weight = sum(t, |t| keep * t + uniform) / sum(d, |e| e);
                for (d, &t) in d.iter_mut().zip(t) {
                    *d = (*d * weight - (keep * t + uniform)) * mean;
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, reals};

    fn reference(s: &CrossEntropy, z: &[f64], t: &[f64]) -> f64 {
        let smoothing = f64::from(s.smoothing);
        let mut loss = 0.0;
        for r in 0..s.rows {
            let row = r * s.classes..(r + 1) * s.classes;
            let total: f64 = z[row.clone()].iter().map(|z| z.exp()).sum();
            for i in row {
                let t = (1.0 - smoothing) * t[i] + smoothing / s.classes as f64;
                loss -= t * (z[i].exp() / total).ln();
            }
        }
        loss / s.rows as f64
    }

    #[test]
    fn forward_and_backward_match_the_reference() {
        for (rows, classes, smoothing) in [(1, 1, 0.0), (3, 10, 0.1), (5, 7, 0.0), (2, 1000, 0.1), (2, 3, 1.0)] {
            let s = CrossEntropy { rows, classes, smoothing };
            // Weights of any sum: the gradient must not rely on probabilities.
            let z = reals("logits", rows * classes).map(|z| 8.0 * z);
            let t = reals("target", rows * classes).map(|t| 0.5 + 0.5 * t);
            let (z32, t32, t64) = (z.f32(), t.f32(), t.f64());
            let mut loss = [9.0];
            forward(&s, &z32, &t32, &mut loss);
            let want = reference(&s, &z.f64(), &t64);
            assert!((f64::from(loss[0]) - want).abs() < 1e-6 * want.max(1.0), "{} {want}", loss[0]);
            let mut dz = vec![9.0; rows * classes];
            backward(&CrossEntropyGrad { rows, classes, smoothing }, &z32, &t32, &mut dz);
            check_gradients(
                &[z],
                1,
                |at| vec![reference(&s, &at[0], &t64)],
                |dy| vec![dz.iter().map(|d| d * dy[0]).collect()],
            );
        }
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let s = CrossEntropy { rows: 2, classes: 2, smoothing: 0.0 };
        let (z, t) = ([3e4, -3e4, -3e4, 3e4], [1.0, 0.0, 1.0, 0.0]);
        let mut loss = [9.0];
        forward(&s, &z, &t, &mut loss);
        assert_eq!(loss, [3e4]);
        let mut dz = [9.0; 4];
        backward(&CrossEntropyGrad { rows: 2, classes: 2, smoothing: 0.0 }, &z, &t, &mut dz);
        assert_close("dz", &dz, &[0.0, 0.0, -0.5, 0.5], 1e-6);
    }

    #[test]
    fn shapes_without_a_mean_are_refused() {
        for s in [(0, 3, 0.0), (3, 0, 0.0), (1, 1, -0.1), (1, 1, 1.1), (1, 1, f32::NAN)] {
            let s = CrossEntropy { rows: s.0, classes: s.1, smoothing: s.2 };
            assert!(s.signature().reason().is_some(), "{s:?}");
        }
    }
}
