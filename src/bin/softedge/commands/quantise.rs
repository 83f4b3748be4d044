//! `softedge quantise`.

use crate::config::Config;
use crate::data::{Sets, Source, Split};
use crate::infer;
use crate::integers::Integers;
use crate::model_file::ModelFile;
use crate::run_folder::{self, MODEL, Trained, compiled, picked};
use crate::terminal::{Table, bytes, percent, progress, say};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use softedge::error::HostError;
use softedge::ops::Width;
use softedge::program::Space;
use softedge::quant::{self, Bounds, Report};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The folder of a run, or a checkpoint.
    checkpoint: PathBuf,
    /// The file to write; default: model.soft beside the checkpoint.
    #[arg(long, short, value_name = "FILE.soft")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// What overrides the table `[quant]`.
#[derive(clap::Args)]
pub struct How {
    #[command(flatten)]
    source: Source,
    /// Training samples that ranges are taken from.
    #[arg(long)]
    samples: Option<usize>,
    /// Cut ranges so that this percentage of the values is inside, 99.99 say.
    #[arg(long, value_name = "PERCENT")]
    percentile: Option<f64>,
    /// Width of the weights of linear layers and convolutions.
    #[arg(long, value_name = "WIDTH", value_parser = width())]
    weights: Option<Width>,
    /// Epochs of fine-tuning with the integers' rounding (quantisation-aware training).
    #[arg(long)]
    epochs: Option<usize>,
    /// Threads; 0 takes as many as there are cores.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

fn width() -> impl TypedValueParser<Value = Width> {
    PossibleValuesParser::new(Width::ALL.map(Width::name))
        .map(|name| Width::ALL.into_iter().find(|width| width.name() == name).unwrap_or_default())
}

impl How {
    /// Whether anything is to be otherwise than the run says.
    pub fn is_given(&self) -> bool {
        let Self { source, samples, percentile, weights, epochs, threads: _ } = self;
        source.is_given() || samples.is_some() || percentile.is_some() || weights.is_some() || epochs.is_some()
    }

    /// Changes `config` accordingly.
    pub fn apply(&self, config: &mut Config) -> Result<(), HostError> {
        self.source.apply(&mut config.data)?;
        config.quant.samples = self.samples.unwrap_or(config.quant.samples);
        config.quant.weights = self.weights.unwrap_or(config.quant.weights);
        config.quant.epochs = self.epochs.unwrap_or(config.quant.epochs);
        if let Some(percent) = self.percentile {
            config.quant.bounds = Bounds::Percentile(percent);
        }
        config.train.threads = self.threads;
        config.quant.check()
    }
}

/// Samples that tensors are compared on: each is run in f32 and in integers.
const COMPARED: usize = 32;

pub fn run(args: Args) -> Result<(), HostError> {
    let mut trained = Trained::open(&args.checkpoint)?;
    args.how.apply(&mut trained.config)?;
    let out = args.out.unwrap_or_else(|| trained.folder.join(MODEL));
    run_folder::check_output(&out, &[&trained.checkpoint.path])?;
    let sets = Sets::open(&trained.config)?;
    let quantised = quantise(&trained, &sets, out)?;
    say!("{}\n", tensors(&quantised.report));
    if !quantised.report.inverses.is_empty() {
        say!("{}\n", inverses(&quantised.report));
    }
    summary(&quantised, &sets, args.how.threads)?;
    run_folder::write(&quantised.after.path, quantised.after.view().bytes())?;
    say!("\nwritten    {}", quantised.after.path.display());
    say!("next       softedge inspect {}", quantised.after.path.display());
    Ok(())
}

/// A model before and after.
pub struct Quantised {
    /// In f32.
    pub before: ModelFile,
    /// In integers, not written yet.
    pub after: ModelFile,
    pub report: Report,
}

/// Turns `trained` into an integer model for the file `out`.
pub fn quantise(trained: &Trained, sets: &Sets, out: PathBuf) -> Result<Quantised, HostError> {
    let Integers { before, tuned, after, calibration } = Integers::of(trained, sets)?;
    let compared = picked(&sets.train, COMPARED);
    let bar = progress("comparing", compared.len() as u64);
    let fill = |i: usize, values: &mut [f32]| {
        sets.train.sample_f32(compared[i], values);
        bar.set_position(i as u64);
    };
    let report = quant::report(&tuned, &calibration, &after, compared.len(), fill)?;
    bar.finish_and_clear();
    let (before, after) = (compiled(&trained.checkpoint.path, &before)?, compiled(&out, &after)?);
    Ok(Quantised { before, after, report })
}

/// Says what was lost and won.
pub fn summary(quantised: &Quantised, sets: &Sets, threads: usize) -> Result<(), HostError> {
    let Quantised { before, after, .. } = quantised;
    let mut table = Table::new(&["", ">f32", ">integers"]);
    if let Some(set) = &sets.validation {
        let (f32s, integers) = (infer::evaluate(before, set, threads)?, infer::evaluate(after, set, threads)?);
        let what = format!("accuracy on {} {} samples", set.len(), Split::Validation.name());
        table.row([what, percent(f32s.accuracy()), percent(integers.accuracy())]);
        table.row(["loss".into(), format!("{:.4}", f32s.loss()), format!("{:.4}", integers.loss())]);
    }
    let mut sizes = |what: &str, size: &dyn Fn(&ModelFile) -> usize| {
        table.row([what.into(), bytes(size(before)), bytes(size(after))]);
    };
    sizes("file", &|m| m.view().bytes().len());
    sizes("arena", &|m| m.view().size(Space::Arena));
    say!("{table}");
    Ok(())
}

/// Every activation, f32 beside integer.
fn tensors(report: &Report) -> Table {
    let mut table = Table::new(&["tensor", "type", ">smallest", ">largest", ">one unit", ">zero", ">SNR dB"]);
    for t in &report.tensors {
        table.row([
            t.name.clone(),
            t.dtype.name().into(),
            format!("{:.4}", t.range.0),
            format!("{:.4}", t.range.1),
            format!("{:.3e}", t.scale),
            t.zero.to_string(),
            format!("{:.1}", t.snr_db),
        ]);
    }
    table
}

/// How well the landmarks' matrices are inverted: the residual of an exact inverse is 0.
fn inverses(report: &Report) -> Table {
    let mut table = Table::new(&["inverse", "kind", ">residual f32", ">residual integers"]);
    for i in &report.inverses {
        let residual = |r: f64| format!("{r:.2e}");
        table.row([i.name.clone(), i.kind.name().into(), residual(i.residual_f32), residual(i.residual_integer)]);
    }
    table
}
