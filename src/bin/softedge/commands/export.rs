//! `softedge export`.

use super::quantise::How;
use crate::data::Sets;
use crate::integers::Integers;
use crate::run_folder::{self, MODEL, Trained, compiled};
use crate::terminal::{bytes, say};
use clap::ValueEnum;
use softedge::error::HostError;
use softedge::program::Space;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The folder of a run, or a checkpoint.
    checkpoint: PathBuf,
    /// The file to write; default: model.soft (or model-f32.soft) beside the checkpoint.
    #[arg(long, value_name = "FILE.soft")]
    out: Option<PathBuf>,
    /// The arithmetic of the model.
    #[arg(long, value_enum, default_value = "integer")]
    format: Arithmetic,
    #[command(flatten)]
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arithmetic {
    Integer,
    F32,
}

pub fn run(args: Args) -> Result<(), HostError> {
    let mut trained = Trained::open(&args.checkpoint)?;
    args.how.apply(&mut trained.config)?;
    let (name, program) = match args.format {
        Arithmetic::F32 => ("model-f32.soft", trained.frozen(1)?),
        Arithmetic::Integer => (MODEL, Integers::of(&trained, &Sets::open(&trained.config)?)?.after),
    };
    let model = compiled(&args.out.unwrap_or_else(|| trained.folder.join(name)), &program)?;
    run_folder::write(&model.path, model.view().bytes())?;
    let (flash, ram) = (bytes(model.view().bytes().len()), bytes(model.view().size(Space::Arena)));
    say!("written    {}: {flash} of flash, {ram} of RAM", model.path.display());
    say!("next       softedge inspect {}", model.path.display());
    Ok(())
}
