//! What a training run is told.

use super::augment::Augment;
use crate::error::HostError;
use std::format;

/// The settings of a training run: the table `[train]` of a configuration file.
///
/// ```
/// let config: softedge::train::Config = toml::from_str("epochs = 3\nlr = 2e-3")?;
/// assert_eq!((config.epochs, config.batch), (3, 128));
/// assert!(toml::from_str::<softedge::train::Config>("epoch = 3").is_err());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Passes over the training samples.
    pub epochs: usize,
    /// Samples per optimizer step, a multiple of `shard`. The last incomplete batch of an epoch is
    /// dropped.
    pub batch: usize,
    /// Samples that go through the model together. A batch is split in shards of this size whatever
    /// the number of threads, so results do not depend on it; batch norm normalises over one shard.
    pub shard: usize,
    /// Learning rate after the warm-up.
    pub lr: f32,
    /// Learning rate of the last step.
    pub min_lr: f32,
    /// Epochs over which the learning rate rises from zero to `lr`; may be a fraction.
    pub warmup_epochs: f32,
    /// Decoupled weight decay, times the learning rate; matrices only.
    pub weight_decay: f32,
    /// Decay of AdamW's first and second moments.
    pub betas: [f32; 2],
    /// Added to the root of AdamW's second moment.
    pub eps: f32,
    /// Largest norm of the whole gradient; longer ones are scaled down to it. 0 switches it off.
    pub clip: f32,
    /// Probability that the loss spreads evenly over all classes.
    pub label_smoothing: f32,
    /// Decay of the exponential moving average of the parameters, which evaluation then uses;
    /// 0 switches it off.
    pub ema: f32,
    /// How the training samples are augmented.
    pub augment: Augment,
    /// Seed of everything random: first parameters, order of samples, augmentation, dropout.
    pub seed: u64,
    /// Threads; 0 takes as many as there are cores. Results do not depend on it.
    pub threads: usize,
    /// Part of the training samples that is held out for validation where no validation set is
    /// given, in `[0, 1)`.
    pub validation: f32,
    /// Epochs between evaluations; the last epoch is always evaluated. 0: only the last.
    pub eval_every: usize,
    /// Optimizer steps between checkpoints; there is always one after each epoch. 0: only those.
    pub checkpoint_every: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch: 128,
            shard: 16,
            lr: 2e-3,
            min_lr: 1e-5,
            warmup_epochs: 1.0,
            weight_decay: 0.05,
            betas: [0.9, 0.999],
            eps: 1e-8,
            clip: 1.0,
            label_smoothing: 0.1,
            ema: 0.0,
            augment: Augment::default(),
            seed: 0,
            threads: 0,
            validation: 0.1,
            eval_every: 1,
            checkpoint_every: 0,
        }
    }
}

impl Config {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// The first field that does not, with what was needed.
    pub fn check(&self) -> Result<(), HostError> {
        let positive = |v: f32| v.is_finite() && v > 0.0;
        let below_one = |v: f32| (0.0..1.0).contains(&v);
        let not_negative = |v: f32| v.is_finite() && v >= 0.0;
        let checks: [(&str, bool, &str, &dyn core::fmt::Debug); 16] = [
            ("epochs", (1..=1_000_000).contains(&self.epochs), "1 to 1,000,000", &self.epochs),
            ("shard", self.shard > 0, "at least 1", &self.shard),
            (
                "batch",
                self.batch > 0 && self.batch.is_multiple_of(self.shard.max(1)),
                "a multiple of train.shard",
                &self.batch,
            ),
            ("lr", positive(self.lr), "above 0", &self.lr),
            ("min_lr", not_negative(self.min_lr) && self.min_lr <= self.lr, "between 0 and train.lr", &self.min_lr),
            (
                "warmup_epochs",
                not_negative(self.warmup_epochs) && self.warmup_epochs <= self.epochs as f32,
                "between 0 and train.epochs",
                &self.warmup_epochs,
            ),
            ("weight_decay", not_negative(self.weight_decay), "0 or more", &self.weight_decay),
            ("betas", self.betas.iter().all(|&b| below_one(b)), "two numbers in [0, 1)", &self.betas),
            ("eps", positive(self.eps), "above 0", &self.eps),
            ("clip", not_negative(self.clip), "0 or more", &self.clip),
            ("label_smoothing", below_one(self.label_smoothing), "in [0, 1)", &self.label_smoothing),
            ("ema", below_one(self.ema), "in [0, 1)", &self.ema),
            ("validation", below_one(self.validation), "in [0, 1)", &self.validation),
            ("seed", self.seed <= i64::MAX as u64, "at most 2^63 - 1, the largest integer of TOML", &self.seed),
            ("threads", self.threads <= 1024, "at most 1024", &self.threads),
            ("batch", self.batch / self.shard.max(1) <= 65_536, "at most 65,536 shards", &self.batch),
        ];
        match checks.iter().find(|c| !c.1) {
            None => self.augment.check().map_err(|e| HostError { place: format!("train.{}", e.place), ..e }),
            Some((field, _, needed, found)) => Err(HostError::new(
                format!("train.{field}"),
                format!("must be {needed} and is {found:?}"),
                "change it in the configuration",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_make_sense_and_survive_toml() {
        let config = Config::default();
        config.check().unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn nonsense_is_named() {
        let augment = Augment { flip: 1.5, ..Augment::default() };
        let cases: [(Config, &str); 7] = [
            (Config { epochs: 0, ..Config::default() }, "train.epochs"),
            (Config { batch: 100, shard: 16, ..Config::default() }, "train.batch"),
            (Config { batch: 16, shard: 0, ..Config::default() }, "train.shard"),
            (Config { lr: f32::NAN, ..Config::default() }, "train.lr"),
            (Config { betas: [0.9, 1.0], ..Config::default() }, "train.betas"),
            (Config { validation: 1.0, ..Config::default() }, "train.validation"),
            (Config { augment, ..Config::default() }, "train.augment.flip"),
        ];
        for (config, place) in cases {
            assert_eq!(config.check().unwrap_err().place, place);
        }
    }
}
