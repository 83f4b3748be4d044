//! One file per subcommand.

mod compare;
mod demo;
mod eval;
mod export;
mod import;
mod inspect;
pub mod list_presets;
mod quantise;
mod run;
mod train;

use clap::Subcommand;
use softedge::error::HostError;

#[derive(Subcommand)]
pub enum Command {
    /// Train a model from a preset or a configuration file.
    Train(train::Args),
    /// Accuracy of a run, a checkpoint or a .soft model, in all and per class.
    Eval(eval::Args),
    /// Train models with the same recipe over several seeds, and compare their integers.
    Compare(compare::Args),
    /// Turn a trained model into integers, and report what that did to every tensor.
    #[command(visible_alias = "quantize")]
    Quantise(quantise::Args),
    /// Write a trained model to one file: .soft for a device, safetensors for the official code.
    Export(export::Args),
    /// Make a run of a checkpoint of the official SOFT code: to evaluate, export or train on.
    Import(import::Args),
    /// Run a .soft model on images, arrays, raw bytes or samples of a data set.
    Run(run::Args),
    /// Show what a .soft model computes, the memory it takes and the boards it fits.
    Inspect(inspect::Args),
    /// From nothing to an integer model on an emulated Cortex-M4, in a few minutes, offline.
    Demo(demo::Args),
    /// List the presets, or show one as a configuration file.
    Presets(list_presets::Args),
}

impl Command {
    pub fn run(self) -> Result<(), HostError> {
        match self {
            Command::Train(args) => train::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Compare(args) => compare::run(args),
            Command::Quantise(args) => quantise::run(args),
            Command::Export(args) => export::run(args),
            Command::Import(args) => import::run(args),
            Command::Run(args) => run::run(args),
            Command::Inspect(args) => inspect::run(args),
            Command::Demo(args) => demo::run(args),
            Command::Presets(args) => list_presets::run(args),
        }
    }
}
