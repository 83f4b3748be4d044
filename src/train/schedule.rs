//! What changes from step to step: the learning rate, and the decay of the parameters' average.

use super::Config;

/// Learning rate of step `step` (from 0) of `steps`: a linear warm-up over the first `warmup` steps,
/// then half a cosine from `lr` down to `min_lr`, which the last step has.
pub fn learning_rate(lr: f32, min_lr: f32, warmup: u64, steps: u64, step: u64) -> f32 {
    if step < warmup {
        return lr * (step + 1) as f32 / warmup as f32;
    }
    let last = steps.saturating_sub(1).max(warmup + 1);
    let progress = ((step - warmup) as f64 / (last - warmup) as f64).min(1.0);
    let cosine = 0.5 * (1.0 + libm::cos(core::f64::consts::PI * progress));
    min_lr + ((lr - min_lr) as f64 * cosine) as f32
}

/// Learning rate of step `step` (from 0) of a run with `steps_per_epoch` steps per epoch.
pub fn run_learning_rate(config: &Config, steps_per_epoch: u64, step: u64) -> f32 {
    let warmup = (f64::from(config.warmup_epochs) * steps_per_epoch as f64) as u64;
    learning_rate(config.lr, config.min_lr, warmup, config.epochs as u64 * steps_per_epoch, step)
}

/// Decay of the parameters' average at step `step` (from 0): `(2 + step) / (11 + step)` until that
/// reaches `decay`, so that the first parameters are forgotten soon.
pub fn average_decay(decay: f32, step: u64) -> f32 {
    decay.min(((2 + step) as f64 / (11 + step) as f64) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn warms_up_then_follows_a_cosine() {
        let lr: Vec<f32> = (0..110).map(|s| learning_rate(1.0, 0.1, 10, 110, s)).collect();
        assert_eq!((lr[0], lr[4], lr[9], lr[10]), (0.1, 0.5, 1.0, 1.0));
        assert_eq!(lr[109], 0.1);
        assert!(lr[10..].windows(2).all(|w| w[1] < w[0]));
        // A third of the way down, the cosine is at three quarters.
        assert!((lr[10 + 33] - (0.1 + 0.9 * 0.75)).abs() < 1e-6);
    }

    #[test]
    fn short_and_degenerate_runs_stay_in_range() {
        for (warmup, steps) in [(0, 1), (1, 1), (5, 5), (0, 2), (3, 4)] {
            for step in 0..steps + 3 {
                let lr = learning_rate(1.0, 0.25, warmup, steps, step);
                assert!((0.2..=1.0).contains(&lr), "{warmup} {steps} {step}: {lr}");
            }
        }
    }

    #[test]
    fn the_average_slows_down_to_its_decay() {
        assert!((average_decay(0.9, 0) - 2.0 / 11.0).abs() < 1e-7);
        assert!(average_decay(0.9, 20) < 0.9);
        assert_eq!(average_decay(0.9, 1000), 0.9);
    }

    #[test]
    fn a_fraction_of_an_epoch_warms_up() {
        let config = Config { epochs: 2, warmup_epochs: 0.5, lr: 1.0, ..Config::default() };
        assert_eq!(run_learning_rate(&config, 10, 0), 0.2);
        assert_eq!(run_learning_rate(&config, 10, 4), 1.0);
        assert_eq!(run_learning_rate(&config, 10, 19), config.min_lr);
    }
}
