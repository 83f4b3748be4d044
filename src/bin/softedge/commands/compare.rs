//! `softedge compare`.

use super::train;
use crate::config::Config;
use crate::data::Sets;
use crate::infer;
use crate::integers::Integers;
use crate::model_file::ModelFile;
use crate::run_folder::{self, LAST, MODEL, Trained, compiled};
use crate::terminal::{Table, bytes, count, duration, say};
use softedge::error::HostError;
use softedge::model::Raw;
use softedge::program::Space;
use softedge::train::{Outcome, Trainer};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Presets or configuration files.
    #[arg(value_name = "PRESET|FILE.toml", required = true)]
    models: Vec<String>,
    /// How many seeds each is trained with, from 0 on.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    #[command(flatten)]
    recipe: train::Recipe,
    /// Folder of the runs; those that are there already are gone on with, or taken as they are.
    #[arg(long, short, value_name = "FOLDER", default_value = "runs/compare")]
    out: PathBuf,
}

/// A line per run.
const RESULTS: &str = "results.csv";

pub fn run(args: Args) -> Result<(), HostError> {
    check(&args)?;
    // First all training, then the test set: nothing that it shows can change a model.
    let mut runs = Vec::new();
    for seed in 0..args.seeds {
        for name in &args.models {
            let mut config = Config::open(name)?;
            args.recipe.apply(&mut config)?;
            config.train.seed = seed;
            let folder = args.out.join(format!("{}-{seed}", config.model.config.name));
            say!("\n{name}, seed {seed}\n");
            if train::start_or_resume(config, &folder)? == Outcome::Stopped {
                say!("stopped; the same command goes on");
                return Ok(());
            }
            runs.push(folder);
        }
    }
    say!("\nIntegers, and the test set.\n");
    let mut results = Vec::new();
    for folder in &runs {
        results.push(Run::of(folder)?);
    }
    let csv: String = results.iter().map(Run::csv).collect();
    let file = args.out.join(RESULTS);
    // Runs of other seeds or models in this folder keep their lines.
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let key = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join(",");
    let done: Vec<String> = csv.lines().map(key).collect();
    let others = before.lines().skip(1).filter(|line| !done.contains(&key(line)));
    let others: String = others.map(|line| format!("{line}\n")).collect();
    run_folder::write(&file, format!("{}\n{csv}{others}", Run::HEADINGS))?;
    say!("{}", table(&results));
    let held_out = results.iter().any(|r| r.validation.is_some());
    let chosen = if held_out { "the epoch chosen by validation" } else { "the last epoch" };
    say!("\nAccuracy in per cent: mean over {} seeds, and sample deviation; {chosen}.", args.seeds);
    say!("Every run is in {}.", args.out.join(RESULTS).display());
    Ok(())
}

/// Checks what can be known before hours of training.
fn check(args: &Args) -> Result<(), HostError> {
    let mut names: Vec<String> = Vec::new();
    for model in &args.models {
        let mut config = Config::open(model)?;
        let seed = config.train.seed;
        args.recipe.apply(&mut config)?;
        if config.train.seed != seed {
            return Err(HostError::new(
                "train.seed",
                "is set by --set",
                "a comparison counts seeds from 0; see --seeds",
            ));
        }
        let config = train::fitted(config)?.0.model.config;
        config.validate()?;
        if config.input.raw == Raw::F32 {
            return Err(HostError::new(model, "reads f32, and integers are compared", "give it data of whole numbers"));
        }
        if names.contains(&config.name) {
            let problem = format!("is called {}, as another model is", config.name);
            return Err(HostError::new(model, problem, "name each model once, and give each a model.name of its own"));
        }
        names.push(config.name);
    }
    Ok(())
}

/// What a run came to.
struct Run {
    model: String,
    seed: u64,
    best_epoch: usize,
    /// Of training, without evaluations.
    seconds: f64,
    macs: u64,
    /// Bytes of the integer model.
    file: usize,
    arena: usize,
    /// On validation samples, if there are any, and on the test set; in f32 and in integers.
    validation: Option<[f64; 2]>,
    test: [f64; 2],
}

impl Run {
    const HEADINGS: &str = "model,seed,best_epoch,seconds,macs,file,arena,\
        validation_f32,validation_integers,test_f32,test_integers";

    /// Quantises the best checkpoint of the run in `folder` and evaluates it.
    fn of(folder: &Path) -> Result<Self, HostError> {
        let trained = Trained::open(folder)?;
        let sets = Sets::open(&trained.config)?;
        let Integers { before, after, .. } = Integers::of(&trained, &sets)?;
        let path = folder.join(MODEL);
        let models = [compiled(&trained.checkpoint.path, &before)?, compiled(&path, &after)?];
        run_folder::write(&path, models[1].view().bytes())?;
        let threads = trained.config.train.threads;
        let accuracy = |set| -> Result<[f64; 2], HostError> {
            let of = |model: &ModelFile| infer::evaluate(model, set, threads).map(|e| e.accuracy());
            Ok([of(&models[0])?, of(&models[1])?])
        };
        let last = Trainer::resume(&folder.join(LAST), None)?;
        let epochs = last.history();
        let view = models[1].view();
        Ok(Self {
            model: trained.config.model.config.name.clone(),
            seed: trained.config.train.seed,
            best_epoch: train::best_epoch(epochs).map_or(0, |e| e.epoch),
            seconds: epochs.epochs.iter().map(|e| e.seconds).sum(),
            macs: before.nodes.iter().map(|n| n.op.macs()).sum(),
            file: view.bytes().len(),
            arena: view.size(Space::Arena),
            validation: sets.validation.as_ref().map(accuracy).transpose()?,
            test: accuracy(&sets.test)?,
        })
    }

    fn csv(&self) -> String {
        let Self { model, seed, best_epoch, seconds, macs, file, arena, .. } = self;
        let [f32s, integers] = self.validation.map_or([String::new(), String::new()], |v| v.map(|a| a.to_string()));
        let [test_f32s, test_integers] = self.test;
        format!(
            "{model},{seed},{best_epoch},{seconds:.1},{macs},{file},{arena},{f32s},{integers},{test_f32s},{test_integers}\n"
        )
    }
}

/// A row for each model: means and deviations over its runs.
fn table(results: &[Run]) -> Table {
    let headings =
        ["model", ">MACs", ">file", ">arena", ">validation, f32", ">integers", ">test, f32", ">integers", ">training"];
    let mut table = Table::new(&headings);
    let mut names: Vec<&str> = results.iter().map(|r| &*r.model).collect();
    names.sort_unstable();
    names.dedup();
    names.sort_by_key(|name| results.iter().position(|r| r.model == *name));
    for name in names {
        let runs: Vec<&Run> = results.iter().filter(|r| r.model == name).collect();
        let spread = |of: &dyn Fn(&Run) -> Option<f64>| {
            runs.iter().map(|run| of(run)).collect::<Option<Vec<f64>>>().map_or("-".into(), |v| mean_and_deviation(&v))
        };
        let seconds = runs.iter().map(|r| r.seconds).sum::<f64>() / runs.len() as f64;
        table.row([
            name.into(),
            count(runs[0].macs),
            bytes(runs[0].file),
            bytes(runs[0].arena),
            spread(&|r| r.validation.map(|v| v[0])),
            spread(&|r| r.validation.map(|v| v[1])),
            spread(&|r| Some(r.test[0])),
            spread(&|r| Some(r.test[1])),
            duration(seconds),
        ]);
    }
    table
}

/// Parts of one as `91.23 ± 0.12` per cent; without a deviation where there is but one.
fn mean_and_deviation(parts: &[f64]) -> String {
    let n = parts.len() as f64;
    let mean = parts.iter().sum::<f64>() / n;
    let variance = parts.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let mean = 100.0 * mean;
    if n > 1.0 { format!("{mean:.2} ± {:.2}", 100.0 * variance.sqrt()) } else { format!("{mean:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_those_of_a_sample() {
        assert_eq!(mean_and_deviation(&[0.9, 0.91, 0.92]), "91.00 ± 1.00");
        assert_eq!(mean_and_deviation(&[0.905]), "90.50");
    }
}
