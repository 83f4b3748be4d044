//! `softedge train`.

use crate::config::Config;
use crate::data::{Filled, Sets, Split};
use crate::infer;
use crate::report::{confusion, curves};
use crate::run_folder::{self, BEST, CONFIG, CONFUSION, CURVES, LAST, METRICS, Trained};
use crate::terminal::{self, count, dims, percent, say};
use crate::watch::{Watch, interruptible};
use softedge::error::HostError;
use softedge::train::{self, Checkpoint, Epoch, EpochEnd, History, Outcome, Trainer};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A preset (see `softedge presets`) or a configuration file.
    #[arg(value_name = "PRESET|FILE.toml", required_unless_present = "resume")]
    config: Option<String>,
    /// Go on with the run in this folder, as if it had never stopped.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "data", "epochs", "batch", "lr", "seed", "set", "out"])]
    resume: Option<PathBuf>,
    #[command(flatten)]
    recipe: Recipe,
    /// Seed of everything random.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder of the run; default: a new one in runs/, named after the model.
    #[arg(long, short, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// What overrides the configuration's data and training.
#[derive(clap::Args)]
pub struct Recipe {
    /// Data: fashion-mini, fashion-mnist, watch, or a path.
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// Passes over the training samples.
    #[arg(long)]
    epochs: Option<usize>,
    /// Samples per optimizer step.
    #[arg(long)]
    batch: Option<usize>,
    /// Learning rate after the warm-up.
    #[arg(long)]
    lr: Option<f32>,
    /// Threads; 0 takes as many as there are cores. Results do not depend on it.
    #[arg(long)]
    threads: Option<usize>,
    /// Set any field of the configuration; may be given several times.
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
}

impl Recipe {
    /// Changes `config` accordingly.
    pub fn apply(&self, config: &mut Config) -> Result<(), HostError> {
        for assignment in &self.set {
            config.set(assignment)?;
        }
        if let Some(source) = &self.data {
            config.data.source.clone_from(source);
        }
        let train = &mut config.train;
        train.batch = self.batch.unwrap_or(train.batch);
        train.lr = self.lr.unwrap_or(train.lr);
        train.threads = self.threads.unwrap_or(train.threads);
        if let Some(epochs) = self.epochs {
            train.epochs = epochs;
            train.warmup_epochs = train.warmup_epochs.min(epochs as f32);
        }
        Ok(())
    }
}

pub fn run(args: Args) -> Result<(), HostError> {
    let (folder, outcome) = match args.resume {
        Some(folder) => {
            let outcome = resume(&folder, args.recipe.threads)?;
            (folder, outcome)
        }
        None => {
            let config = configured(&args)?;
            let folder = args.out.unwrap_or_else(|| free_folder(&config.model.config.name));
            let outcome = start(config, &folder)?;
            (folder, outcome)
        }
    };
    match outcome {
        Outcome::Finished => say!("next       softedge quantise {}", folder.display()),
        Outcome::Stopped => say!("stopped; go on with `softedge train --resume {}`", folder.display()),
    }
    Ok(())
}

/// The configuration with what the command line overrides.
fn configured(args: &Args) -> Result<Config, HostError> {
    let mut config = Config::open(args.config.as_deref().unwrap_or_default())?;
    args.recipe.apply(&mut config)?;
    config.train.seed = args.seed.unwrap_or(config.train.seed);
    Ok(config)
}

/// `runs/NAME`, or with the first number that makes it new.
pub fn free_folder(name: &str) -> PathBuf {
    let numbered = (2..).map(|i| format!("{name}-{i}"));
    let mut folders = std::iter::once(name.to_string()).chain(numbered).map(|name| Path::new("runs").join(name));
    folders.find(|folder| !folder.exists()).unwrap_or_default()
}

/// Begins a run and trains to its end.
pub fn start(config: Config, folder: &Path) -> Result<Outcome, HostError> {
    run_folder::check_free(folder)?;
    let (config, sets) = fitted(config)?;
    begin(&config, &sets, folder)
}

/// As [`start`], or goes on where the folder holds a run of this very configuration.
pub fn start_or_resume(config: Config, folder: &Path) -> Result<Outcome, HostError> {
    let (mut config, sets) = fitted(config)?;
    let file = folder.join(CONFIG);
    if !file.exists() {
        return begin(&config, &sets, folder);
    }
    let there = Config::read(&file)?;
    // What a file does not say, or a result does not depend on.
    (config.model.adapts, config.train.threads) = (there.model.adapts, there.train.threads);
    if there != config {
        return Err(HostError::new(
            file.display(),
            "is of a run with other settings",
            "name another folder with --out",
        ));
    }
    go_on(&there, &sets, folder, None)
}

/// The configuration with its model fitted to its data, and the data.
pub fn fitted(mut config: Config) -> Result<(Config, Sets), HostError> {
    config.train.check()?;
    config.quant.check()?;
    let sets = Sets::open(&config)?;
    let changes = config.fit_to(&sets.train);
    if !changes.is_empty() {
        say!("{} fitted to {}: {}", config.model.config.name, config.data.source, changes.join(", "));
    }
    Ok((config, sets))
}

fn begin(config: &Config, sets: &Sets, folder: &Path) -> Result<Outcome, HostError> {
    let trainer = Trainer::new(&config.model.config, config.train.clone())?;
    let was_there = folder.exists();
    run_folder::make(folder)?;
    let file = folder.join(CONFIG);
    run_folder::write(&file, config.to_toml()?)?;
    fit(trainer, config, sets, folder).inspect_err(|_| {
        // A run that could not start is none: its folder would be in the way of the next.
        if !folder.join(LAST).exists() {
            let _ = std::fs::remove_file(&file);
            if !was_there {
                // Only if it is empty.
                let _ = std::fs::remove_dir(folder);
            }
        }
    })
}

fn resume(folder: &Path, threads: Option<usize>) -> Result<Outcome, HostError> {
    let config = Config::read(&folder.join(CONFIG))?;
    let sets = Sets::open(&config)?;
    go_on(&config, &sets, folder, threads)
}

fn go_on(config: &Config, sets: &Sets, folder: &Path, threads: Option<usize>) -> Result<Outcome, HostError> {
    let last = folder.join(LAST);
    let trainer = if last.exists() {
        check_unchanged(config, &Checkpoint::read(&last)?, folder)?;
        Trainer::resume(&last, Some(threads.unwrap_or(config.train.threads)))?
    } else {
        // It was stopped before its first checkpoint.
        Trainer::new(&config.model.config, config.train.clone())?
    };
    fit(trainer, config, sets, folder)
}

/// Checks that the configuration is the one the run began with: another would give neither's result.
fn check_unchanged(config: &Config, checkpoint: &Checkpoint, folder: &Path) -> Result<(), HostError> {
    let fail = |e: &dyn std::fmt::Display| HostError::new(checkpoint.path.display(), e.to_string(), "");
    let began: train::Config = toml::from_str(&checkpoint.train).map_err(|e| fail(&e))?;
    let now = train::Config { threads: began.threads, ..config.train.clone() };
    let text = |config: &train::Config| toml::to_string(config).map_err(|e| fail(&e));
    let (began, now) = (text(&began)?, text(&now)?);
    let model = toml::to_string(&config.model).map_err(|e| fail(&e))?;
    match difference(&began, &now).or_else(|| difference(&checkpoint.model, &model)) {
        None => Ok(()),
        Some((began, now)) => Err(HostError::new(
            folder.join(CONFIG).display(),
            format!("says `{now}` where the run began with `{began}`"),
            "undo the change, or start a new run",
        )),
    }
}

/// The first line that differs; the shorter text goes on with empty ones.
fn difference<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, &'a str)> {
    let longer = a.lines().count().max(b.lines().count());
    let lines = |text: &'a str| text.lines().chain(std::iter::repeat(""));
    lines(a).zip(lines(b)).take(longer).find(|(a, b)| a != b)
}

/// Trains to the end, or until the user interrupts, and brings the folder up to date after each epoch.
/// The best checkpoint is written before the last one: a run that is killed between the two writes it again.
fn fit(mut trainer: Trainer, config: &Config, sets: &Sets, folder: &Path) -> Result<Outcome, HostError> {
    announce(&trainer, config, sets, folder);
    let (train, held) = (Filled::new(&sets.train), sets.validation.as_ref().map(Filled::new));
    let validation = held.as_ref().map(Filled::samples);
    let bar = terminal::progress("training", 0);
    let mut keep = |end: &EpochEnd<'_>| {
        if best_epoch(end.history) == Some(end.epoch) {
            (end.checkpoint)().write(&folder.join(BEST))?;
        }
        run_folder::write(&folder.join(METRICS), end.history.to_csv())?;
        run_folder::write(&folder.join(CURVES), curves::draw(&config.model.config.name, end.history))
    };
    let mut watch = Watch::new(&bar, config.train.epochs, &mut keep);
    let last = folder.join(LAST);
    let outcome = interruptible(|| trainer.fit(&train.samples(), validation.as_ref(), Some(&last), &mut watch))?;
    bar.finish_and_clear();
    if outcome == Outcome::Finished {
        conclude(trainer.history(), sets, folder, config.train.threads)?;
    }
    Ok(outcome)
}

fn announce(trainer: &Trainer, config: &Config, sets: &Sets, folder: &Path) {
    let model = &config.model.config;
    let input = [model.input.height, model.input.width, model.input.channels];
    let parameters = count((trainer.step_program().layout.bytes() / 4) as u64);
    let held = sets.validation.as_ref().map_or(0, |set| set.len());
    say!("model      {}, input {}, {} classes, {parameters} parameters", model.name, dims(&input), model.classes);
    say!("data       {}, {} for training, {held} held out for validation", sets.train.name, sets.train.len());
    say!("threads    {}", trainer.threads());
    say!("folder     {}\n", folder.display());
}

/// The first epoch of the highest validation accuracy; the last one where none was evaluated.
pub fn best_epoch(history: &History) -> Option<&Epoch> {
    let evaluated = history.epochs.iter().filter(|e| e.validation_accuracy.is_some());
    let better = |best: &Epoch, e: &Epoch| e.validation_accuracy > best.validation_accuracy;
    evaluated.reduce(|best, e| if better(best, e) { e } else { best }).or(history.epochs.last())
}

/// Draws what the best epoch confuses, and says what to do next.
fn conclude(history: &History, sets: &Sets, folder: &Path, threads: usize) -> Result<(), HostError> {
    let Some(best) = best_epoch(history) else { return Ok(()) };
    say!("");
    match (&sets.validation, best.validation_accuracy) {
        (Some(set), Some(accuracy)) => {
            let trained = Trained::open(&folder.join(BEST))?;
            let model = run_folder::compiled(&folder.join(BEST), &trained.frozen(1)?)?;
            let evaluation = infer::evaluate(&model, set, threads)?;
            let title = format!("{}, {}", trained.config.model.config.name, Split::Validation.name());
            run_folder::write(&folder.join(CONFUSION), confusion::draw(&title, &evaluation, &set.classes))?;
            say!("best       epoch {}, validation accuracy {}", best.epoch, percent(accuracy));
        }
        _ => say!("best       epoch {}, nothing was held out for validation", best.epoch),
    }
    let names = [CONFIG, METRICS, CURVES, CONFUSION, BEST, LAST].into_iter().filter(|name| folder.join(name).exists());
    say!("folder     {}: {}", folder.display(), names.collect::<Vec<_>>().join(", "));
    Ok(())
}
