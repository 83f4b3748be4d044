//! `softedge demo`.

use super::{inspect, quantise, train};
use crate::config::Config;
use crate::data::Sets;
use crate::emulator::{self, Emulated};
use crate::infer::{self, Runner};
use crate::model_file::{ArenaMap, ModelFile};
use crate::report::memory_map;
use crate::run_folder::{self, MODEL, Trained};
use crate::terminal::{count, duration, percent, say};
use crate::{boards, presets};
use softedge::data::Dataset;
use softedge::error::HostError;
use softedge::program::Space;
use softedge::train::Outcome;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run; default: a new one in runs/.
    #[arg(long, short, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Passes over the training samples; 30 take about three minutes on two cores.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Threads; 0 takes as many as there are cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

const PRESET: &str = "fashion-nano";
/// Test images that the host and the emulated board both run.
const COMPARED: usize = 32;

pub fn run(args: Args) -> Result<(), HostError> {
    let started = Instant::now();
    let folder = args.out.unwrap_or_else(|| train::free_folder("demo"));
    let mut config = Config::preset(PRESET).ok_or_else(|| presets::unknown(PRESET))?;
    config.data.source = "fashion-mini".into();
    config.train.epochs = args.epochs as usize;
    config.train.batch = 64;
    config.train.threads = args.threads;
    config.train.warmup_epochs = config.train.warmup_epochs.min(args.epochs as f32);

    say!("1  Train {PRESET} on a part of Fashion-MNIST that comes with softedge: 5,000 images.\n");
    if train::start(config, &folder)? == Outcome::Stopped {
        return Ok(());
    }
    say!("\n2  Turn it into integers.\n");
    let trained = Trained::open(&folder)?;
    let sets = Sets::open(&trained.config)?;
    let quantised = quantise::quantise(&trained, &sets, folder.join(MODEL))?;
    quantise::summary(&quantised, &sets, args.threads)?;
    let model = quantised.after;
    run_folder::write(&model.path, model.view().bytes())?;

    say!("\n3  What it takes.\n");
    let map = ArenaMap::new(model.view());
    inspect::memory(model.view(), &map);
    let (flash, ram) = (model.view().bytes().len(), model.view().size(Space::Arena));
    let fitting: Vec<&str> = boards::BOARDS.iter().filter(|b| b.fits(flash, ram)).map(|b| b.name).collect();
    say!("  fits       {}", if fitting.is_empty() { "none of the boards known".into() } else { fitting.join(", ") });
    let drawing = folder.join("memory.svg");
    run_folder::write(&drawing, memory_map::draw(PRESET, model.view(), &map))?;

    say!("\n4  How good it is: the 1,000 test images, which nothing was chosen by.\n");
    let (f32s, integers) = (
        infer::evaluate(&quantised.before, &sets.test, args.threads)?,
        infer::evaluate(&model, &sets.test, args.threads)?,
    );
    say!("  f32        {} ({} of {})", percent(f32s.accuracy()), f32s.correct(), f32s.samples());
    say!("  integers   {} ({} of {})", percent(integers.accuracy()), integers.correct(), integers.samples());
    say!("  The full data set has 60,000 images, and a model trained longer on it is better.");

    say!("\n5  The same file on an emulated Cortex-M4.\n");
    on_board(&model, &sets.test, &folder)?;
    say!("\nAll of it is in {}, after {}.", folder.display(), duration(started.elapsed().as_secs_f64()));
    Ok(())
}

/// Compares host and board, or says what is missing for that.
fn on_board(model: &ModelFile, test: &Dataset, folder: &std::path::Path) -> Result<(), HostError> {
    let picked = run_folder::picked(test, COMPARED);
    let (mut inputs, mut scores) = (Vec::new(), Vec::new());
    let mut arena = infer::arena(model);
    let mut runner = Runner::new(model, &mut arena)?;
    for &i in &picked {
        let input = infer::raw_input(model.view().input(0).dtype, test, i)?;
        scores.extend_from_slice(runner.run(&input));
        inputs.extend(input);
    }
    let file = folder.join("inputs.bin");
    run_folder::write(&file, inputs)?;
    say!("  Building the firmware; the first time takes a minute.");
    match emulator::run(model, &file, folder) {
        Err(missing) => say!("  Skipped. {missing}"),
        Ok(Emulated { scores: board, .. }) if board != scores => {
            return Err(HostError::new(
                model.path.display(),
                "gives other scores on the emulated board than on the host",
                "please report this with the file",
            ));
        }
        Ok(Emulated { stack, instructions, .. }) => {
            say!("  {COMPARED} images: every score equals the host's, bit for bit.");
            let instructions = instructions.map_or(String::new(), |n| format!("{} instructions, ", count(n)));
            say!("  One inference: {instructions}{stack} bytes of stack.");
        }
    }
    Ok(())
}
