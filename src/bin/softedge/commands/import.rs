//! `softedge import`.

use crate::config::Config;
use crate::data::Sets;
use crate::run_folder::{self, BEST, CONFIG, LAST};
use crate::terminal::{count, dims, say};
use softedge::error::HostError;
use softedge::format::safetensors;
use softedge::model::{self, Mode};
use softedge::train::{Checkpoint, Trainer, Values};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A safetensors file with the names of the official code; its .pth files convert with
    /// `c = torch.load(FILE, map_location="cpu", weights_only=False)`,
    /// `c = c.get("state_dict_ema") or c.get("state_dict") or c.get("model") or c` and
    /// `safetensors.torch.save_file({k: v.contiguous() for k, v in c.items()}, OUT)`.
    checkpoint: PathBuf,
    /// The model it is of: a preset (soft_tiny, soft_norm_small ...) or a configuration file.
    #[arg(long, value_name = "PRESET|FILE.toml")]
    model: String,
    /// Data to evaluate it on and to train it on with: a built-in name or a path. Without --labels, the
    /// model's classes are theirs, in their order.
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// The names of the model's classes in its order: a text file of one name per line.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Folder of the run.
    #[arg(long, short, value_name = "FOLDER")]
    out: PathBuf,
}

pub fn run(args: Args) -> Result<(), HostError> {
    let mut config = Config::open(&args.model)?;
    // The shape of a checkpoint is what it is.
    config.model.adapts = false;
    if let Some(file) = &args.labels {
        config.model.config.labels = labels(file)?;
    }
    config.model.config.validate()?;
    if let Some(source) = args.data {
        config.data.source = source;
        check_data(&mut config)?;
    }
    let place = args.checkpoint.display();
    let bytes = fs::read(&args.checkpoint)
        .map_err(|e| HostError::new(&place, format!("cannot be read: {e}"), "check the path"))?;
    let model = &config.model.config;
    let program = model::build(model, Mode::Infer { batch: 1 })?.program;
    let parameters =
        safetensors::read(&program, &bytes).map_err(|e| HostError { place: format!("{place}, {}", e.place), ..e })?;
    let values: usize = parameters.values().map(Vec::len).sum();
    let tensors = parameters.into_iter().map(|(name, values)| {
        let shape = program.find(&name).map(|id| program.tensor(id).shape.clone()).unwrap_or_default();
        (name, Values { shape, values })
    });
    let start = Checkpoint { path: args.checkpoint.clone(), tensors: tensors.collect(), ..Checkpoint::default() };
    let mut trainer = Trainer::new(model, config.train.clone())?;
    trainer.start_from(&start)?;
    run_folder::make(&args.out)?;
    run_folder::write(&args.out.join(CONFIG), config.to_toml()?)?;
    for name in [LAST, BEST] {
        trainer.checkpoint().write(&args.out.join(name))?;
    }
    let folder = args.out.display();
    say!("imported   {} parameters of {} into {folder}", count(values as u64), model.name);
    say!("next       softedge eval {folder} --split test, or softedge train --resume {folder}");
    Ok(())
}

/// The lines of a file.
fn labels(file: &Path) -> Result<Vec<String>, HostError> {
    let text = fs::read_to_string(file)
        .map_err(|e| HostError::new(file.display(), format!("cannot be read: {e}"), "give a text file"))?;
    Ok(text.lines().map(|line| line.trim().to_string()).collect())
}

/// Checks that the model takes its data, and gives it their classes if it has none of its own.
fn check_data(config: &mut Config) -> Result<(), HostError> {
    let train = Sets::open(config)?.train;
    let model = &config.model.config;
    let fail = |problem: String, remedy: &str| Err(HostError::new(&config.data.source, problem, remedy));
    let takes = [model.input.height, model.input.width, model.input.channels];
    if train.shape != takes {
        let problem = format!("has samples of {} where {} takes {}", dims(&train.shape), model.name, dims(&takes));
        return fail(problem, "name data of that shape; `data.read.size` of a configuration file resizes images");
    }
    if train.classes.len() != model.classes {
        let problem = format!("has {} classes where {} has {}", train.classes.len(), model.name, model.classes);
        return fail(problem, "name the model's classes with --labels; those of the data are then found among them");
    }
    config.fit_to(&train);
    Ok(())
}
