//! `softedge export`.

use super::quantise::How;
use crate::data::Sets;
use crate::integers::Integers;
use crate::model_file::ModelFile;
use crate::run_folder::{self, MODEL, Trained, compiled};
use crate::terminal::{bytes, say};
use clap::ValueEnum;
use softedge::error::HostError;
use softedge::format::safetensors;
use softedge::model::{self, Mode};
use softedge::program::Space;
use std::fs;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The folder of a run, or a checkpoint.
    checkpoint: PathBuf,
    /// The file to write; default: model.soft, model-f32.soft or model.safetensors beside the checkpoint.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What to write.
    #[arg(long, value_enum, default_value = "integer")]
    format: Format,
    #[command(flatten)]
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A .soft model in integers, for a microcontroller.
    Integer,
    /// A .soft model in f32.
    F32,
    /// The parameters as the official PyTorch code names and lays them out.
    Safetensors,
}

impl Format {
    /// The file it is written to by default.
    fn file_name(self) -> &'static str {
        match self {
            Format::Integer => MODEL,
            Format::F32 => "model-f32.soft",
            Format::Safetensors => "model.safetensors",
        }
    }
}

pub fn run(args: Args) -> Result<(), HostError> {
    let mut trained = Trained::open(&args.checkpoint)?;
    args.how.apply(&mut trained.config)?;
    let out = args.out.unwrap_or_else(|| trained.folder.join(args.format.file_name()));
    run_folder::check_output(&out, &[&trained.checkpoint.path])?;
    if args.format != Format::Integer && args.how.is_given() {
        return Err(HostError::new(
            "--data, --samples, --percentile, --weights and --epochs",
            "are for integers, and this format has none",
            "leave them out, or export with `--format integer`",
        ));
    }
    // What `quantise` made of the run is what it exports.
    let quantised = trained.quantised().filter(|_| args.checkpoint.is_dir() && !args.how.is_given());
    let model = match args.format {
        Format::Integer if let Some(file) = &quantised => {
            let bytes =
                fs::read(file).map_err(|e| HostError::new(file.display(), format!("cannot be read: {e}"), ""))?;
            say!("quantised  {}", file.display());
            ModelFile::new(&out, &bytes)?
        }
        Format::Integer => compiled(&out, &Integers::of(&trained, &Sets::open(&trained.config)?)?.after)?,
        Format::F32 => compiled(&out, &trained.frozen(1)?)?,
        Format::Safetensors => {
            let program = model::build(&trained.config.model.config, Mode::Infer { batch: 1 })?.program;
            let value = |name: &str| trained.checkpoint.weights(name).map(|v| &v.values[..]);
            run_folder::write(&out, safetensors::write(&program, value)?)?;
            say!("written    {}", out.display());
            return Ok(());
        }
    };
    run_folder::write(&model.path, model.view().bytes())?;
    let (flash, ram) = (bytes(model.view().bytes().len()), bytes(model.view().size(Space::Arena)));
    say!("written    {}: {flash} of flash, {ram} of RAM", model.path.display());
    say!("next       softedge inspect {}", model.path.display());
    Ok(())
}
