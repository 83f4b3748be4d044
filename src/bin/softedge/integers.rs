//! A trained model turned into integers.

use crate::config::Quant;
use crate::data::{Filled, Sets};
use crate::run_folder::{Trained, picked};
use crate::terminal::{dims, progress, say, warning};
use crate::watch::{Watch, interruptible};
use softedge::data::Dataset;
use softedge::error::HostError;
use softedge::model::{self, Inverse, Mixer, Soft};
use softedge::ops::DType;
use softedge::program::Program;
use softedge::quant::{self, Calibration};
use softedge::train::{self, EpochEnd, Outcome};

/// With less on the diagonal of the Gram matrix, its integer inverse can leave the range of Q22.
const LEAST_RIDGE: f32 = 1.0 / 256.0;

/// A model in both arithmetics.
pub struct Integers {
    /// In f32, as it was trained.
    pub before: Program,
    /// In f32, with the weights that were turned into integers: others where it was fine-tuned.
    pub tuned: Program,
    pub after: Program,
    pub calibration: Calibration,
}

impl Integers {
    /// Turns `trained` into integers by its table `[quant]`.
    pub fn of(trained: &Trained, sets: &Sets) -> Result<Self, HostError> {
        let raw = match trained.config.model.config.input.raw {
            model::Raw::U8 => DType::U8,
            model::Raw::I16 => DType::I16,
            model::Raw::F32 => {
                return Err(HostError::new(
                    "model.input.raw",
                    "is f32, and an integer model reads u8 or i16",
                    "train on whole numbers, or export with `--format f32`",
                ));
            }
        };
        trained.config.quant.check()?;
        warn_of_unbounded_inverses(&trained.config.model.config);
        let Quant { samples, bounds, epochs, weights, .. } = trained.config.quant;
        check_data(&trained.config.model.config, &sets.train)?;
        let before = trained.frozen(1)?;
        let picked = picked(&sets.train, samples);
        let bar = progress("calibrating", picked.len() as u64);
        let fill = |i: usize, out: &mut [f32]| {
            sets.train.sample_f32(picked[i], out);
            bar.set_position(i as u64);
        };
        let calibration = quant::calibrate(&before, picked.len(), fill, bounds)?;
        bar.finish_and_clear();
        let mut after = quant::quantise(&before, &calibration, raw, weights)?;
        let mut tuned = before.clone();
        if epochs > 0 {
            tuned = fine_tuned(trained, sets, &before, &after)?;
            after = quant::quantise(&tuned, &calibration, raw, weights)?;
        }
        Ok(Self { before, tuned, after, calibration })
    }
}

/// Warns of attention whose integer inverse nothing bounds.
fn warn_of_unbounded_inverses(model: &model::Config) {
    for (i, stage) in model.stages.iter().enumerate() {
        if let Mixer::Soft(Soft { inverse: Inverse::Newton(steps), ridge, .. }) = stage.mixer
            && ridge < LEAST_RIDGE
        {
            warning(&format!(
                "stages[{i}].mixer.soft: with a ridge of {ridge}, {steps} steps of Newton's iteration need not \
                 converge where landmarks are alike, and the integer inverse may saturate; see the residuals of \
                 `softedge quantise`, or train with inverse = \"ldlt\" or a ridge of 0.01"
            ));
        }
    }
}

/// Checks that the samples of `set` are raw input of the model: ranges seen on any others mean nothing.
fn check_data(model: &model::Config, set: &Dataset) -> Result<(), HostError> {
    let fail = |problem: String, remedy: &str| Err(HostError::new(&set.name, problem, remedy));
    let takes = [model.input.height, model.input.width, model.input.channels];
    if set.shape != takes {
        let problem = format!("has samples of {} where the model takes {}", dims(&set.shape), dims(&takes));
        return fail(problem, "give it the data it was trained with");
    }
    let range = match model.input.raw {
        model::Raw::U8 => 0.0..=255.0,
        _ => -32768.0..=32767.0,
    };
    let mut values = vec![0.0; set.width()];
    for i in 0..set.len() {
        set.sample_f32(i, &mut values);
        if let Some(v) = values.iter().find(|v| v.fract() != 0.0 || !range.contains(*v)) {
            let problem = format!("sample {i} holds {v}, and the model's raw input is whole numbers in {range:?}");
            return fail(problem, "train on such numbers, or export with `--format f32`");
        }
    }
    Ok(())
}

/// `frozen` with weights that were trained on with the rounding of `integer`.
fn fine_tuned(trained: &Trained, sets: &Sets, frozen: &Program, integer: &Program) -> Result<Program, HostError> {
    let Quant { epochs, lr, .. } = trained.config.quant;
    let base = trained.config.train.clone();
    let config = train::Config { epochs, lr, min_lr: base.min_lr.min(lr), warmup_epochs: 0.0, ..base };
    let model = &trained.config.model.config;
    let mut trainer = quant::fine_tune(model, &trained.frozen(config.shard)?, integer, config)?;
    let (train, held) = (Filled::new(&sets.train), sets.validation.as_ref().map(Filled::new));
    let validation = held.as_ref().map(Filled::samples);
    let bar = progress("fine-tuning", 0);
    let mut keep_nothing = |_: &EpochEnd<'_>| Ok(());
    let mut watch = Watch::new(&bar, epochs, &mut keep_nothing);
    let outcome = interruptible(|| trainer.fit(&train.samples(), validation.as_ref(), None, &mut watch))?;
    bar.finish_and_clear();
    say!("");
    if outcome == Outcome::Stopped {
        return Err(HostError::new("fine-tuning", "was interrupted", "nothing was written; start it again"));
    }
    let checkpoint = trainer.checkpoint();
    quant::with_weights(frozen, |name| checkpoint.weights(name).map(|v| &v.values[..]))
}
