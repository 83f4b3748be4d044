//! `softedge presets`.

use crate::config::Config;
use crate::presets;
use crate::run_folder::compiled;
use crate::terminal::{Table, bytes, count, dims, say};
use softedge::error::HostError;
use softedge::math::random::Stream;
use softedge::model::{self, Mixer, Mode};
use softedge::ops::{DType, Width};
use softedge::program::{ParamLayout, Program, Space};
use softedge::quant::{self, Bounds};
use std::collections::HashMap;
use std::path::Path;

#[derive(clap::Args)]
pub struct Args {
    /// Print this preset as a configuration file.
    #[arg(long, value_name = "PRESET")]
    show: Option<String>,
}

pub fn run(args: Args) -> Result<(), HostError> {
    if let Some(name) = args.show {
        let config = Config::preset(&name).ok_or_else(|| presets::unknown(&name))?;
        say!("# softedge train {name}\n\n{}", config.to_toml()?.trim_end());
        return Ok(());
    }
    let mut table =
        Table::new(&["preset", "input", ">blocks", "attention", ">parameters", ">MACs", ">flash", ">RAM", "data"]);
    for name in model::PRESETS {
        let Some(config) = Config::preset(name) else { continue };
        let model = &config.model.config;
        let program = model::build(model, Mode::Infer { batch: 1 })?.program;
        let blocks = model.stages.iter().map(|s| s.depth.to_string()).collect::<Vec<_>>().join("+");
        let mut mixers: Vec<&str> = model.stages.iter().map(|s| mixer(&s.mixer)).collect();
        mixers.dedup();
        let input = [model.input.height, model.input.width, model.input.channels];
        let parameters = ParamLayout::new(&program).bytes() / 4;
        let macs = program.nodes.iter().map(|n| n.op.macs()).sum();
        let source = if config.data.source.is_empty() { "yours (--data)" } else { &config.data.source };
        // The official family is for larger machines than those that count bytes.
        let [flash, ram] = match name.starts_with("soft_") {
            true => [String::new(), String::new()],
            false => {
                let file = compiled(Path::new(name), &untrained(model)?)?;
                [file.view().bytes().len(), file.view().size(Space::Arena)].map(bytes)
            }
        };
        table.row([
            name.to_string(),
            dims(&input),
            blocks,
            mixers.join(", "),
            count(parameters as u64),
            count(macs),
            flash,
            ram,
            source.into(),
        ]);
    }
    say!("{table}\n\nFlash and RAM are those of the integer model's file and arena.");
    say!("softedge train PRESET trains one; softedge presets --show PRESET prints its configuration file.");
    Ok(())
}

/// The integer model of `config` with weights that nobody trained: file and arena are as large as with others.
pub fn untrained(config: &model::Config) -> Result<Program, HostError> {
    let program = model::build(config, Mode::Infer { batch: 1 })?.program;
    let random = Stream::new(0);
    let values = |i: usize, len: usize| (0..len).map(move |k| random.fork(i as u64).uniform(k as u64)).collect();
    let weights: HashMap<&str, Vec<f32>> =
        program.tensors.iter().enumerate().map(|(i, t)| (&t.name[..], values(i, t.len()))).collect();
    let frozen = quant::freeze(&program, |name| weights.get(name).map(|values| &values[..]))?;
    let noise =
        |_, raw: &mut [f32]| raw.iter_mut().enumerate().for_each(|(i, x)| *x = 255.0 * random.uniform(i as u64));
    let calibration = quant::calibrate(&frozen, 1, noise, Bounds::MinMax)?;
    let raw = if config.input.raw == model::Raw::I16 { DType::I16 } else { DType::U8 };
    quant::quantise(&frozen, &calibration, raw, Width::Int8)
}

fn mixer(mixer: &Mixer) -> &'static str {
    match mixer {
        Mixer::Soft(_) => "soft",
        Mixer::Softmax => "softmax",
        Mixer::Depthwise(_) => "depthwise",
    }
}
