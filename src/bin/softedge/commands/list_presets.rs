//! `softedge presets`.

use crate::config::Config;
use crate::presets;
use crate::terminal::{Table, count, dims, say};
use softedge::error::HostError;
use softedge::model::{self, Mixer, Mode};
use softedge::program::ParamLayout;

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
        Table::new(&["preset", "input", ">classes", ">blocks", "attention", ">parameters", ">MACs", "data"]);
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
        table.row([
            name.to_string(),
            dims(&input),
            model.classes.to_string(),
            blocks,
            mixers.join(", "),
            count(parameters as u64),
            count(macs),
            source.into(),
        ]);
    }
    say!("{table}\n\nsoftedge train PRESET trains one; softedge presets --show PRESET prints its configuration file.");
    Ok(())
}

fn mixer(mixer: &Mixer) -> &'static str {
    match mixer {
        Mixer::Soft(_) => "soft",
        Mixer::Softmax => "softmax",
        Mixer::Depthwise(_) => "depthwise",
    }
}
