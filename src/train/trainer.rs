//! The training loop: shards on all threads, one update, evaluations and checkpoints in between.

use super::checkpoint::{AVERAGE, Checkpoint, FIRST, SECOND, Values};
use super::evaluate::{Evaluation, Evaluator, argmax};
use super::history::{Epoch, EpochEnd, History, Observer, Progress};
use super::samples::{Samples, epoch_order, hold_out};
use super::schedule::run_learning_rate;
use super::step::Step;
use super::workers::Workers;
use super::{Config, Profile, diagnose};
use crate::engine::{Buffer, Executor, Memory, elements, elements_mut};
use crate::error::HostError;
use crate::model::{self, Built, Mode};
use crate::ops::Tick;
use crate::program::Space;
use core::time::Duration;
use rayon::prelude::*;
use std::borrow::ToOwned;
use std::format;
use std::path::Path;
use std::string::{String, ToString};
use std::time::Instant;
use std::vec;
use std::vec::Vec;

/// A model in training.
#[derive(Debug)]
pub struct Trainer {
    config: Config,
    /// The model's configuration, TOML.
    model: String,
    /// Mean and deviation of the raw values, per channel.
    mean: Vec<f32>,
    std: Vec<f32>,
    step: Step,
    evaluator: Evaluator,
    workers: Workers,
    params: Buffer,
    state: Buffer,
    gradients: Gradients,
    position: Position,
}

/// Where a run is.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    /// Steps done.
    step: u64,
    /// Training samples, and a hash of them (hexadecimal); empty before the first step.
    samples: usize,
    fingerprint: String,
    /// Whether `fit` was given a validation set; unknown before the first step and in older checkpoints.
    own_validation: Option<bool>,
    /// Sum of the losses of the epoch's steps so far.
    loss: f64,
    /// Samples of the epoch so far that were classified correctly.
    correct: u64,
    /// Seconds spent on the epoch's steps so far.
    seconds: f64,
    history: History,
}

/// Why a run came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// The observer asked for an end.
    Stopped,
}

/// What a step gives.
#[derive(Clone, Copy, Debug)]
struct StepResult {
    loss: f64,
    correct: u64,
    gradient_norm: f32,
}

impl Trainer {
    /// A run that trains `model` from its first values on.
    ///
    /// # Errors
    /// The first field of either configuration that makes no sense.
    pub fn new(model: &model::Config, config: Config) -> Result<Self, HostError> {
        config.check()?;
        let train = Mode::Train { batch: config.shard, label_smoothing: config.label_smoothing };
        let training = model::build(model, train)?;
        let inference = model::build(model, Mode::Infer { batch: config.shard })?;
        Self::with_programs(model, training, inference, config)
    }

    /// As [`new`](Self::new), for Programs that were changed after they were built (quantisation-aware
    /// training). `training` and `inference` have the same parameters, those of `model`.
    ///
    /// # Errors
    /// Programs that do not fit each other or `config`.
    pub fn with_programs(
        model: &model::Config,
        training: Built,
        inference: Built,
        config: Config,
    ) -> Result<Self, HostError> {
        config.check()?;
        let text = toml::to_string(model).map_err(|e| HostError::new("model", e.to_string(), ""))?;
        let shard = training.program.tensor(training.input).shape[0];
        if shard != config.shard {
            let problem = format!("is built for batches of {shard} where train.shard is {}", config.shard);
            return Err(HostError::new("training program", problem, "build it with train.shard"));
        }
        let step = Step::new(training, &config)?;
        let evaluator = Evaluator::new(inference)?;
        let signature: Vec<_> = step.params().map(|(t, at)| (t.name.clone(), t.shape.clone(), at)).collect();
        if signature != evaluator.signature() {
            return Err(HostError::new(
                "inference program",
                "has other parameters than the training program",
                "build both from one configuration",
            ));
        }
        let workers = Workers::new(config.threads)?;
        let params = step.initial_params(config.seed);
        let state = step.initial_state(&params);
        let bytes = step.compiled.view().size(Space::Grads);
        let gradients = Gradients::new(bytes, config.batch / config.shard, workers.threads());
        let position = Position::default();
        let c = model.input.channels;
        let or = |v: &[f32], default: f32| if v.is_empty() { vec![default; c] } else { v.to_owned() };
        let (mean, std) = (or(&model.input.mean, 0.0), or(&model.input.std, 1.0));
        Ok(Self { config, model: text, mean, std, step, evaluator, workers, params, state, gradients, position })
    }

    /// The run of a checkpoint, to go on where it was; with another number of threads if one is given.
    ///
    /// # Errors
    /// A file that is damaged or does not fit the configuration in it.
    pub fn resume(path: &Path, threads: Option<usize>) -> Result<Self, HostError> {
        let checkpoint = Checkpoint::read(path)?;
        let model: model::Config = checkpoint.parsed("softedge.model", &checkpoint.model)?;
        let mut config: Config = checkpoint.parsed("softedge.train", &checkpoint.train)?;
        config.threads = threads.unwrap_or(config.threads);
        let mut trainer = Self::new(&model, config)?;
        trainer.restore(&checkpoint)?;
        Ok(trainer)
    }

    /// Takes parameters, optimizer state and position from a checkpoint.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape or is not finite.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), HostError> {
        let Self { step, params, state, .. } = self;
        let (params, state) = (params.elements_mut(), state.elements_mut());
        for (t, at) in step.params() {
            let (name, shape) = (&t.name, &t.shape);
            checkpoint.copy(name, shape, &mut params[at..][..t.len()])?;
            if let Some(range) = step.average_range(t, at) {
                checkpoint.copy(&format!("{AVERAGE}{name}"), shape, &mut state[range])?;
            }
            if let Some([first, second]) = step.moments_ranges(t, at) {
                checkpoint.copy(&format!("{FIRST}{name}"), shape, &mut state[first])?;
                checkpoint.copy(&format!("{SECOND}{name}"), shape, &mut state[second])?;
            }
        }
        self.position = checkpoint.parsed("softedge.position", &checkpoint.position)?;
        Ok(())
    }

    /// Starts from the weights of a checkpoint, with a fresh optimizer, at step 0.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape or is not finite.
    pub fn start_from(&mut self, checkpoint: &Checkpoint) -> Result<(), HostError> {
        self.params = self.evaluator.params(checkpoint)?;
        self.state = self.step.initial_state(&self.params);
        self.position = Position::default();
        Ok(())
    }

    /// Everything the run needs to go on.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            model: self.model.clone(),
            train: toml::to_string(&self.config).expect("a checked configuration can be written"),
            position: toml::to_string(&self.position).expect("a position can be written"),
            ..Checkpoint::default()
        };
        let (params, state) = (self.params.elements::<f32>(), self.state.elements::<f32>());
        for (t, at) in self.step.params() {
            let mut put = |prefix: &str, values: &[f32]| {
                let values = Values { shape: t.shape.clone(), values: values.to_owned() };
                checkpoint.tensors.insert(format!("{prefix}{}", t.name), values);
            };
            put("", &params[at..][..t.len()]);
            if let Some(range) = self.step.average_range(t, at) {
                put(AVERAGE, &state[range]);
            }
            if let Some([first, second]) = self.step.moments_ranges(t, at) {
                put(FIRST, &state[first]);
                put(SECOND, &state[second]);
            }
        }
        checkpoint
    }

    /// The settings of the run.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The training step's Program.
    pub fn step_program(&self) -> &Step {
        &self.step
    }

    /// All epochs so far.
    pub fn history(&self) -> &History {
        &self.position.history
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.workers.threads()
    }

    /// The parameters and statistics as evaluation uses them: averaged where the run averages them.
    pub fn weights(&self) -> Buffer {
        match self.step.average {
            Some(average) => Buffer::copy_of(&self.state.bytes()[self.step.state_bytes(average)]),
            None => self.params.clone(),
        }
    }

    /// Evaluates all `samples`.
    ///
    /// # Errors
    /// Samples that do not fit the model, or a sample that is not finite.
    pub fn evaluate(&mut self, samples: &Samples<'_>) -> Result<Evaluation, HostError> {
        let weights = self.weights();
        self.evaluator.evaluate(&weights, samples, &mut self.workers)
    }

    /// Times the forward and backward ops of one shard, the first of `samples`, on one thread.
    ///
    /// # Errors
    /// Samples that do not fit the model or do not fill a shard, or a sample that is not finite.
    pub fn profile(&mut self, samples: &Samples<'_>, runs: usize) -> Result<Profile, HostError> {
        self.evaluator.check(samples)?;
        let shard = self.config.shard;
        if samples.len < shard {
            let problem = format!("{} samples where a shard has {shard}", samples.len);
            return Err(HostError::new("data", problem, "give more samples or lower train.shard"));
        }
        let batch: Vec<u32> = (0..shard as u32).collect();
        let (shards, workers, gradients) = self.shards(samples, &batch);
        workers.reserve(shards.step.compiled.view().size(Space::Arena));
        let mut executor = shards.executor(workers.arena(), &mut gradients.mean, 0)?;
        let mut failed = None;
        let profile = Profile::new(&shards.step.compiled.program, &mut executor, runs, &shards.tick(0), |executor| {
            failed = failed.take().or(shards.fill(executor, 0).err());
        });
        failed.map_or(Ok(profile), Err)
    }

    /// Trains to the end of the last epoch, from where the run is.
    ///
    /// Evaluations use `validation`, or a part of `samples` that is then held out. Checkpoints go to
    /// `checkpoint`, if given.
    ///
    /// # Errors
    /// Samples that do not fit the model or, when resumed, are not those the run began with; a sample,
    /// loss or gradient that is not finite (the step at fault is not applied); a checkpoint that
    /// cannot be written.
    pub fn fit(
        &mut self,
        samples: &Samples<'_>,
        validation: Option<&Samples<'_>>,
        checkpoint: Option<&Path>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, HostError> {
        self.evaluator.check(samples)?;
        if let Some(validation) = validation {
            self.evaluator.check(validation)?;
        }
        self.check_same_samples(samples)?;
        self.check_same_validation(validation.is_some())?;
        let fraction = if validation.is_some() { 0.0 } else { self.config.validation };
        let (kept, held) = hold_out(samples.labels, samples.classes, fraction, self.config.seed);
        let batch = self.config.batch;
        let per_epoch = (kept.len() / batch) as u64;
        if per_epoch == 0 {
            return Err(HostError::new(
                "train.batch",
                format!("is {batch}, and there are {} training samples", kept.len()),
                "take a smaller batch or give more samples",
            ));
        }
        let steps = per_epoch * self.config.epochs as u64;
        let (started, first_step) = (Instant::now(), self.position.step);
        while self.position.step < steps {
            let epoch = self.position.step / per_epoch;
            let order = epoch_order(&kept, self.config.seed, epoch);
            for batch in order.chunks_exact(batch).skip((self.position.step % per_epoch) as usize) {
                let stepped = Instant::now();
                let lr = run_learning_rate(&self.config, per_epoch, self.position.step);
                let result = self.train_step(samples, batch, lr)?;
                let position = &mut self.position;
                position.step += 1;
                position.loss += result.loss;
                position.correct += result.correct;
                position.seconds += stepped.elapsed().as_secs_f64();
                let done_here = position.step - first_step;
                let elapsed = started.elapsed();
                let in_epoch = (position.step - epoch * per_epoch) as f64;
                let progress = Progress {
                    epoch: epoch as usize + 1,
                    epochs: self.config.epochs,
                    step: position.step,
                    steps,
                    loss: result.loss as f32,
                    epoch_loss: (position.loss / in_epoch) as f32,
                    epoch_accuracy: (position.correct as f64 / (in_epoch * batch.len() as f64)) as f32,
                    lr,
                    gradient_norm: result.gradient_norm,
                    samples_per_second: (done_here * batch.len() as u64) as f32 / elapsed.as_secs_f32(),
                    elapsed,
                    remaining: Duration::from_secs_f64(
                        elapsed.as_secs_f64() / done_here as f64 * (steps - position.step) as f64,
                    ),
                };
                let ends_epoch = self.position.step.is_multiple_of(per_epoch);
                if ends_epoch {
                    self.end_epoch(lr, per_epoch, samples, &held, validation, observer)?;
                }
                let stop = observer.on_step(&progress).is_break();
                let every = self.config.checkpoint_every as u64;
                let due = every > 0 && self.position.step.is_multiple_of(every);
                if let Some(path) = checkpoint
                    && (ends_epoch || due || stop)
                {
                    self.checkpoint().write(path)?;
                }
                if stop {
                    return Ok(Outcome::Stopped);
                }
            }
        }
        Ok(Outcome::Finished)
    }

    /// Remembers the samples at the first step, and compares them when resumed.
    fn check_same_samples(&mut self, samples: &Samples<'_>) -> Result<(), HostError> {
        let fingerprint = format!("{:016x}", samples.fingerprint());
        let position = &mut self.position;
        if position.step == 0 {
            (position.samples, position.fingerprint) = (samples.len, fingerprint);
        } else if (position.samples, &position.fingerprint) != (samples.len, &fingerprint) {
            return Err(HostError::new(
                "data",
                format!(
                    "the run began with {} samples and {} are there now, or their values or labels differ",
                    position.samples, samples.len
                ),
                "resume with the same data, or start a new run",
            ));
        }
        Ok(())
    }

    /// What is held out, and so the number of steps, depends on it.
    fn check_same_validation(&mut self, given: bool) -> Result<(), HostError> {
        let words = |given| if given { "with" } else { "without" };
        match self.position.own_validation {
            Some(began) if self.position.step > 0 && began != given => Err(HostError::new(
                "validation",
                format!("the run began {} a validation set and goes on {} one", words(began), words(given)),
                "resume as it began, or start a new run",
            )),
            _ => {
                self.position.own_validation = Some(given);
                Ok(())
            }
        }
    }

    fn end_epoch(
        &mut self,
        lr: f32,
        per_epoch: u64,
        samples: &Samples<'_>,
        held: &[u32],
        validation: Option<&Samples<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<(), HostError> {
        let epoch = (self.position.step / per_epoch) as usize;
        let every = self.config.eval_every;
        let due = epoch == self.config.epochs || (every > 0 && epoch.is_multiple_of(every));
        let evaluation = match validation {
            _ if !due => None,
            Some(validation) => Some(self.evaluate(validation)?),
            None if held.is_empty() => None,
            None => {
                let weights = self.weights();
                Some(self.evaluator.evaluate_some(&weights, samples, held, &mut self.workers)?)
            }
        };
        let trained = per_epoch as f64 * self.config.batch as f64;
        let position = &mut self.position;
        let row = Epoch {
            epoch,
            step: position.step,
            lr,
            loss: position.loss / per_epoch as f64,
            accuracy: position.correct as f64 / trained,
            validation_loss: evaluation.as_ref().map(Evaluation::loss),
            validation_accuracy: evaluation.as_ref().map(Evaluation::accuracy),
            seconds: position.seconds,
            samples_per_second: trained / position.seconds,
        };
        (position.loss, position.correct, position.seconds) = (0.0, 0, 0.0);
        position.history.epochs.push(row);
        observer.on_epoch(&EpochEnd {
            history: &self.position.history,
            epoch: &row,
            evaluation: evaluation.as_ref(),
            checkpoint: &|| self.checkpoint(),
        })
    }

    /// The shards of the next step, and what they run on.
    fn shards<'s>(
        &'s mut self,
        samples: &'s Samples<'s>,
        batch: &'s [u32],
    ) -> (Shards<'s>, &'s mut Workers, &'s mut Gradients) {
        let Self { config, mean, std, step, workers, params, state, gradients, position, .. } = self;
        let shards = Shards { step, config, mean, std, params, state, samples, batch, number: position.step };
        (shards, workers, gradients)
    }

    /// One optimizer step. Where it fails, parameters and moments are as they were.
    fn train_step(&mut self, samples: &Samples<'_>, batch: &[u32], lr: f32) -> Result<StepResult, HostError> {
        let (shards, workers, gradients) = self.shards(samples, batch);
        workers.reserve(shards.step.compiled.view().size(Space::Arena));
        let results = shards.run(workers, gradients)?;
        let loss = results.iter().map(|r| f64::from(r.loss)).sum::<f64>() / results.len() as f64;
        let correct = results.iter().map(|r| r.correct).sum();
        if !loss.is_finite() {
            return Err(shards.diagnose(workers, gradients, &format!("the loss is {loss}")));
        }

        let Self { config, step, workers, params, state, gradients, position, .. } = self;
        let number = position.step;
        state.elements_mut()[step.hyper_range()].copy_from_slice(&step.hyperparameters(config, lr, number));
        let memory = Memory::new(workers.arena())
            .with(Space::Grads, gradients.mean.bytes_mut())
            .with(Space::Params, params.bytes_mut())
            .with(Space::State, state.bytes_mut());
        let view = step.compiled.view();
        let mut executor: Executor<'_> = Executor::new(view, memory).map_err(bug)?;
        let clip = view.shard_ops();
        executor.run_range(clip..clip + 1, &Tick::default());
        let gradient_norm = elements::<f32>(executor.tensor(step.norm.index()))[0];
        if !gradient_norm.is_finite() {
            let (shards, workers, gradients) = self.shards(samples, batch);
            return Err(shards.diagnose(workers, gradients, &format!("the norm of the gradient is {gradient_norm}")));
        }
        executor.run_range(clip + 1..view.n_ops(), &Tick::default());
        Ok(StepResult { loss, correct, gradient_norm })
    }
}

/// An error that no input can cause.
fn bug(error: crate::Error) -> HostError {
    HostError::new("training program", error.to_string(), "this is a bug of the library: report it")
}

/// The gradients of a step.
#[derive(Debug)]
struct Gradients {
    /// Of the whole batch.
    mean: Buffer,
    /// Of the shards that run at the same time: enough that no thread waits long, and few where a
    /// batch has many shards.
    shards: Vec<Buffer>,
}

impl Gradients {
    fn new(bytes: usize, shards: usize, threads: usize) -> Self {
        let together = shards.min(4 * threads);
        Self { mean: Buffer::zeroed(bytes), shards: (0..together).map(|_| Buffer::zeroed(bytes)).collect() }
    }

    /// Adds the first `count` shards to the sum, in their order, whichever thread adds a part.
    fn add(&mut self, count: usize, workers: &Workers) {
        const PART: usize = 8192;
        let shards: Vec<&[f32]> = self.shards[..count].iter().map(Buffer::elements).collect();
        let sum = self.mean.elements_mut::<f32>().par_chunks_mut(PART).enumerate();
        workers.install(|| {
            sum.for_each(|(i, sum)| {
                for shard in &shards {
                    for (sum, g) in sum.iter_mut().zip(&shard[i * PART..]) {
                        *sum += g;
                    }
                }
            });
        });
    }
}

/// What a shard gives beside its gradients.
#[derive(Clone, Copy, Debug, Default)]
struct ShardResult {
    loss: f32,
    correct: u64,
}

/// The shards of one step: what all of them read.
struct Shards<'s> {
    step: &'s Step,
    config: &'s Config,
    mean: &'s [f32],
    std: &'s [f32],
    params: &'s Buffer,
    state: &'s Buffer,
    samples: &'s Samples<'s>,
    batch: &'s [u32],
    number: u64,
}

impl<'s> Shards<'s> {
    /// Forward and backward of all shards, and the mean of their gradients.
    fn run(&self, workers: &mut Workers, gradients: &mut Gradients) -> Result<Vec<ShardResult>, HostError> {
        let mut results = vec![ShardResult::default(); self.batch.len() / self.config.shard];
        gradients.mean.bytes_mut().fill(0);
        let together = gradients.shards.len();
        for (wave, results) in results.chunks_mut(together).enumerate() {
            let mut tasks: Vec<_> = results.iter_mut().zip(&mut gradients.shards).collect();
            workers.each(&mut tasks, |arena, i, (result, gradients)| {
                **result = self.run_one(arena, gradients, wave * together + i)?;
                Ok(())
            })?;
            gradients.add(results.len(), workers);
        }
        let factor = 1.0 / results.len() as f32;
        gradients.mean.elements_mut::<f32>().iter_mut().for_each(|g| *g *= factor);
        Ok(results)
    }

    fn run_one(&self, arena: &mut [u8], gradients: &mut Buffer, shard: usize) -> Result<ShardResult, HostError> {
        let mut executor = self.executor(arena, gradients, shard)?;
        executor.run(&self.tick(shard));
        let logits: &[f32] = elements(executor.tensor(self.step.logits.index()));
        let scores = logits.chunks_exact(self.samples.classes).zip(self.indices(shard));
        let right = scores.filter(|(scores, i)| argmax(scores) == self.samples.labels[**i as usize] as usize);
        let loss = elements(executor.tensor(self.step.loss.index()))[0];
        Ok(ShardResult { loss, correct: right.count() as u64 })
    }

    /// Runs the shards again, op by op, and says which op first made a value that is not finite.
    fn diagnose(&self, workers: &mut Workers, gradients: &mut Gradients, problem: &str) -> HostError {
        for shard in 0..self.batch.len() / self.config.shard {
            let found = self
                .executor(workers.arena(), &mut gradients.mean, shard)
                .map(|mut executor| diagnose::first_bad_op(&self.step.compiled, &mut executor, &self.tick(shard)));
            match found {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return error,
            }
        }
        let problem = format!("{problem}, though every value of every shard is finite");
        HostError::new(format!("step {}", self.number), problem, diagnose::REMEDY)
    }

    fn tick(&self, shard: usize) -> Tick {
        Tick { seed: self.config.seed, step: self.number, shard: shard as u32 }
    }

    /// Indices of the samples of a shard.
    fn indices(&self, shard: usize) -> &'s [u32] {
        &self.batch[shard * self.config.shard..][..self.config.shard]
    }

    /// An executor with the inputs of a shard.
    fn executor<'m>(
        &'m self,
        arena: &'m mut [u8],
        gradients: &'m mut Buffer,
        shard: usize,
    ) -> Result<Executor<'m>, HostError> {
        let memory = Memory::new(arena)
            .with(Space::Grads, gradients.bytes_mut())
            .with_shared(Space::Params, self.params.bytes())
            .with_shared(Space::State, self.state.bytes());
        let mut executor = Executor::first_phase(self.step.compiled.view(), memory).map_err(bug)?;
        self.fill(&mut executor, shard)?;
        Ok(executor)
    }

    /// Writes the inputs of a shard: its samples, augmented, and their targets.
    fn fill(&self, executor: &mut Executor<'_>, shard: usize) -> Result<(), HostError> {
        let indices = self.indices(shard);
        let mut targets = vec![0.0; indices.len() * self.samples.classes];
        for (target, &i) in targets.chunks_exact_mut(self.samples.classes).zip(indices) {
            target[self.samples.labels[i as usize] as usize] = 1.0;
        }
        let Self { mean, std, samples: Samples { shape, .. }, .. } = *self;
        let inputs = elements_mut(executor.tensor_mut(self.step.input.index()).unwrap_or_default());
        self.samples.gather(indices, inputs)?;
        self.config.augment.apply(self.tick(shard), *shape, mean, std, inputs, &mut targets);
        let target = elements_mut(executor.tensor_mut(self.step.target.index()).unwrap_or_default());
        target.copy_from_slice(&targets);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::random::Stream;
    use crate::train::augment::Augment;
    use core::ops::ControlFlow;
    use std::fs;

    const MODEL: &str = r#"
        name = "test"
        classes = 3
        drop_rate = 0.2
        input = { height = 8, width = 8, channels = 1 }

        [[stages]]
        embed = [{ channels = 8, kernel = 3, stride = 2 }]
        heads = 2
        depth = 2
        mlp_ratio = 2.0
        mixer.soft = { landmarks = { pool = [2, 2] }, local = { kernel = 3 } }
        drop = "elements"
    "#;

    fn model() -> model::Config {
        toml::from_str(MODEL).unwrap()
    }

    fn config() -> Config {
        Config {
            epochs: 3,
            batch: 24,
            shard: 4,
            lr: 5e-3,
            warmup_epochs: 0.5,
            ema: 0.99,
            threads: 1,
            validation: 0.2,
            augment: Augment { shift: 0.1, jitter: 0.1, mixup: 0.2, ..Augment::default() },
            ..Config::default()
        }
    }

    /// A bright bar, a bright column or neither, in noise.
    fn pixels(i: usize, values: &mut [f32]) {
        let random = Stream::new(i as u64);
        for (at, v) in values.iter_mut().enumerate() {
            let bright = [at / 8 == 3, at % 8 == 3, false][i % 3];
            *v = random.uniform(at as u64) - 0.5 + f32::from(u8::from(bright));
        }
    }

    const SAMPLES: usize = 200;

    fn labels() -> Vec<u32> {
        (0..SAMPLES as u32).map(|i| i % 3).collect()
    }

    fn samples<'a>(fill: &'a (dyn Fn(usize, &mut [f32]) + Sync), labels: &'a [u32]) -> Samples<'a> {
        Samples { len: labels.len(), fill, labels, shape: [8, 8, 1], classes: 3 }
    }

    /// Stops at a step; remembers what it was told.
    #[derive(Default)]
    struct Watch {
        stop_at: Option<u64>,
        losses: Vec<f32>,
        epochs: usize,
    }

    impl Observer for Watch {
        fn on_step(&mut self, progress: &Progress) -> ControlFlow<()> {
            self.losses.push(progress.loss);
            if Some(progress.step) == self.stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }

        fn on_epoch(&mut self, end: &EpochEnd<'_>) -> Result<(), HostError> {
            assert_eq!(end.evaluation.unwrap().samples(), 39);
            assert_eq!(end.history.epochs.last(), Some(end.epoch));
            self.epochs += 1;
            Ok(())
        }
    }

    fn trained(config: Config) -> Trainer {
        let mut trainer = Trainer::new(&model(), config).unwrap();
        let labels = labels();
        assert_eq!(trainer.fit(&samples(&pixels, &labels), None, None, &mut ()), Ok(Outcome::Finished));
        trainer
    }

    #[test]
    fn learns_what_can_be_learned() {
        let mut trainer = Trainer::new(&model(), Config { epochs: 20, ..config() }).unwrap();
        let labels = labels();
        let samples = samples(&pixels, &labels);
        let before = trainer.evaluate(&samples).unwrap();
        let mut watch = Watch::default();
        trainer.fit(&samples, None, None, &mut watch).unwrap();
        let after = trainer.evaluate(&samples).unwrap();
        assert!(before.accuracy() < 0.6 && after.accuracy() > 0.98, "{} {}", before.accuracy(), after.accuracy());
        // 13 of 66 or 67 samples of each class are held out; 161 are left, 6 batches of 24.
        assert_eq!((watch.losses.len(), watch.epochs), (120, 20));
        let rows = &trainer.history().epochs;
        assert_eq!(rows.len(), 20);
        assert!(rows[19].loss < rows[0].loss && rows[19].validation_accuracy > Some(0.95));
    }

    /// Along the gradient of each parameter, the loss changes by the gradient's length: through every
    /// op of the model, batch statistics, masks and sums over shards included.
    #[test]
    fn gradients_of_a_step_match_differences_of_its_loss() {
        let labels = labels();
        let samples = samples(&pixels, &labels);
        let batch: Vec<u32> = (0..24).collect();
        let mut trainer = Trainer::new(&model(), config()).unwrap();
        let loss = |trainer: &mut Trainer| {
            let (shards, workers, gradients) = trainer.shards(&samples, &batch);
            workers.reserve(shards.step.compiled.view().size(Space::Arena));
            let results = shards.run(workers, gradients).unwrap();
            results.iter().map(|r| f64::from(r.loss)).sum::<f64>() / results.len() as f64
        };
        loss(&mut trainer);
        let gradients = trainer.gradients.mean.elements::<f32>().to_vec();
        let places: Vec<_> = trainer.step.params().map(|(t, at)| (t.name.clone(), at..at + t.len())).collect();
        let mut checked = 0;
        for (name, range) in places {
            let g = &gradients[range.clone()];
            let length = g.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
            // A bias before batch norm has no influence; statistics have no gradient.
            if name.contains("running") || length < 0.01 {
                continue;
            }
            const STEP: f64 = 4e-3;
            let mut at = |step: f64| {
                let params = trainer.params.clone();
                for (p, g) in trainer.params.elements_mut::<f32>()[range.clone()].iter_mut().zip(g) {
                    *p += (step * f64::from(*g) / length) as f32;
                }
                let loss = loss(&mut trainer);
                trainer.params = params;
                loss
            };
            let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            assert!((difference - length).abs() < 0.02 * length + 1e-4, "{name}: {difference} and {length}");
            checked += 1;
        }
        assert!(checked > 20, "{checked}");
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let one = trained(config());
        for threads in [2, 3] {
            let more = trained(Config { threads, ..config() });
            assert_eq!(one.params.bytes(), more.params.bytes());
            assert_eq!(one.state.bytes(), more.state.bytes());
        }
        let other = trained(Config { seed: 1, ..config() });
        assert_ne!(one.params.bytes(), other.params.bytes());
    }

    #[test]
    fn a_resumed_run_ends_with_the_same_bits() {
        let whole = trained(config());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        let labels = labels();
        let samples = samples(&pixels, &labels);
        // In the middle of an epoch, and at its end.
        for stop in [1, 8, 12] {
            let mut first = Trainer::new(&model(), config()).unwrap();
            let mut watch = Watch { stop_at: Some(stop), ..Watch::default() };
            assert_eq!(first.fit(&samples, None, Some(&path), &mut watch), Ok(Outcome::Stopped));
            drop(first);
            let mut second = Trainer::resume(&path, Some(2)).unwrap();
            let error = second.fit(&samples, Some(&samples), None, &mut ()).unwrap_err();
            assert_eq!(error.problem, "the run began without a validation set and goes on with one");
            assert_eq!(second.fit(&samples, None, Some(&path), &mut ()), Ok(Outcome::Finished));
            assert_eq!(second.params.bytes(), whole.params.bytes());
            assert_eq!(second.state.bytes(), whole.state.bytes());
            let losses = |t: &Trainer| t.history().epochs.iter().map(|e| (e.loss, e.accuracy)).collect::<Vec<_>>();
            assert_eq!(losses(&second), losses(&whole));
        }
        // What a finished run wrote evaluates the same, and nothing is left beside it.
        let mut finished = Trainer::resume(&path, None).unwrap();
        assert_eq!(finished.fit(&samples, None, None, &mut ()), Ok(Outcome::Finished));
        assert_eq!(finished.params.bytes(), whole.params.bytes());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn resuming_with_other_data_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        let labels = labels();
        let mut trainer = Trainer::new(&model(), config()).unwrap();
        let mut watch = Watch { stop_at: Some(2), ..Watch::default() };
        trainer.fit(&samples(&pixels, &labels), None, Some(&path), &mut watch).unwrap();
        let mut resumed = Trainer::resume(&path, None).unwrap();
        let error = resumed.fit(&samples(&pixels, &labels[..198]), None, None, &mut ()).unwrap_err();
        assert!(error.problem.contains("began with 200 samples and 198 are there"), "{error}");
    }

    #[test]
    fn a_damaged_or_foreign_checkpoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        let trainer = Trainer::new(&model(), config()).unwrap();
        trainer.checkpoint().write(&path).unwrap();
        let good = fs::read(&path).unwrap();
        Trainer::resume(&path, None).unwrap();
        let problem = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = Trainer::resume(&path, None).unwrap_err();
            assert!(error.place.starts_with(path.to_str().unwrap()), "{error}");
            assert!(!error.remedy.is_empty(), "{error}");
            error.problem
        };
        for cut in [0, 7, 8, 100, good.len() / 2, good.len() - 1] {
            assert!(problem(&good[..cut]).contains("not a whole safetensors file"), "{cut}");
        }
        let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        for at in (0..good.len()).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let problem = problem(&bad);
            assert!(at < header || problem.contains("checksum"), "{at}: {problem}");
        }
        assert!(problem(b"not a checkpoint at all").contains("not a whole safetensors file"));
        let missing = folder.path().join("missing");
        assert!(Trainer::resume(&missing, None).unwrap_err().problem.contains("cannot be read"));

        // Another model's.
        let mut wider = model();
        wider.stages[0].mlp_ratio = 3.0;
        let mut other = Trainer::new(&wider, config()).unwrap();
        let error = other.start_from(&trainer.checkpoint()).unwrap_err();
        assert!(error.place.ends_with("block1.0.att.ff1.fc1.weight") || error.place.contains("ff1"), "{error}");
        assert_eq!(error.problem, "needed with shape [24, 8], and it has shape [16, 8]");
        let mut deeper = model();
        deeper.stages[0].depth = 3;
        let mut other = Trainer::new(&deeper, config()).unwrap();
        let error = other.start_from(&trainer.checkpoint()).unwrap_err();
        assert!(error.place.contains("block1.2.") && error.problem.contains("no such tensor"), "{error}");
        deeper.stages[0].depth = 1;
        let mut other = Trainer::new(&deeper, config()).unwrap();
        let error = other.start_from(&trainer.checkpoint()).unwrap_err();
        assert!(error.place.contains("block1.1.") && error.problem.contains("the model has no such"), "{error}");
    }

    #[test]
    fn weights_of_a_checkpoint_start_another_run() {
        let trainer = trained(config());
        let mut other = Trainer::new(&model(), Config { ema: 0.0, seed: 5, ..config() }).unwrap();
        other.start_from(&trainer.checkpoint()).unwrap();
        assert_eq!(other.weights().bytes(), trainer.weights().bytes());
        assert_eq!(other.position.step, 0);
    }

    #[test]
    fn bad_data_is_named_and_nothing_is_applied() {
        let fill = |i: usize, values: &mut [f32]| {
            pixels(i, values);
            if i == 77 {
                values[5] = f32::NAN;
            }
        };
        let labels = labels();
        let mut trainer = Trainer::new(&model(), Config { validation: 0.0, threads: 2, ..config() }).unwrap();
        let error = trainer.fit(&samples(&fill, &labels), None, None, &mut ()).unwrap_err();
        assert_eq!((&*error.place, &*error.problem), ("sample 77", "value 5 is NaN"));
        let error = trainer.evaluate(&samples(&fill, &labels)).unwrap_err();
        assert_eq!(error.place, "sample 77");
    }

    #[test]
    fn the_op_that_overflows_is_named() {
        // Finite samples whose products are not.
        let fill = |_: usize, values: &mut [f32]| values.fill(3e38);
        let labels = labels();
        let mut trainer = Trainer::new(&model(), config()).unwrap();
        let before = (trainer.params.clone(), trainer.step.moments.len());
        let error = trainer.fit(&samples(&fill, &labels), None, None, &mut ()).unwrap_err();
        assert!(error.place.starts_with("step 0, op 1 (Conv)"), "{error}");
        assert!(error.problem.starts_with("its output `patch_embed1.proj.0`"), "{error}");
        assert_eq!(before.0.bytes(), trainer.params.bytes());
        assert_eq!(trainer.position.step, 0);
    }

    #[test]
    fn a_parameter_that_is_lost_is_named() {
        let labels = labels();
        let mut trainer = Trainer::new(&model(), config()).unwrap();
        let (_, at) = trainer.step.params().find(|(t, _)| t.name == "head.weight").unwrap();
        trainer.params.elements_mut::<f32>()[at + 2] = f32::INFINITY;
        let error = trainer.fit(&samples(&pixels, &labels), None, None, &mut ()).unwrap_err();
        assert!(error.problem.starts_with("its input `head.weight` holds inf at 2 of 24"), "{error}");
    }

    #[test]
    fn a_profile_has_every_op_of_a_shard_and_their_sums() {
        let labels = labels();
        let mut trainer = Trainer::new(&model(), config()).unwrap();
        let profile = trainer.profile(&samples(&pixels, &labels), 2).unwrap();
        assert_eq!(profile.ops.len(), trainer.step_program().compiled.view().shard_ops());
        assert_eq!(profile.ops[1].output, "patch_embed1.proj.0");
        assert_eq!(profile.by_kind().iter().map(|op| op.time).sum::<Duration>(), profile.total());
        assert!(profile.by_kind().windows(2).all(|w| w[0].time >= w[1].time));
        let error = trainer.profile(&samples(&pixels, &labels[..3]), 2).unwrap_err();
        assert_eq!(error.problem, "3 samples where a shard has 4");
    }

    #[test]
    fn too_few_samples_for_a_batch_is_said() {
        let labels = vec![0, 1, 2];
        let mut trainer = Trainer::new(&model(), config()).unwrap();
        let error = trainer.fit(&samples(&pixels, &labels), None, None, &mut ()).unwrap_err();
        assert_eq!((&*error.place, &*error.problem), ("train.batch", "is 24, and there are 3 training samples"));
    }
}
