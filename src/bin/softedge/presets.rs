//! What presets add to their models: the data and the settings that train them, and the comments of
//! their file.

use softedge::error::HostError;
use softedge::model;
use softedge::train;
use softedge::train::augment::Augment;

/// The data and the settings that the models of this name are trained with.
pub fn recipe(name: &str) -> (&'static str, train::Config) {
    let defaults = train::Config::default();
    // A pixel or two of shift, and mirrored clothes are clothes.
    let small = train::Config { batch: 64, lr: 3e-3, ..defaults.clone() };
    if name.starts_with("fashion-") {
        let augment = Augment { shift: 0.07, flip: 0.5, ..Augment::default() };
        return ("fashion-mnist", train::Config { augment, ..small });
    }
    if name.starts_with("watch-") {
        // No person is held out: one is too few to choose the epoch by, and the last is as good as any on
        // people left out in turn.
        return ("watch", train::Config { epochs: 60, validation: 0.0, ..small });
    }
    if name.starts_with("camera-") {
        let augment = Augment { shift: 0.1, flip: 0.5, ..Augment::default() };
        return ("", train::Config { augment, ..small });
    }
    // The official settings for a batch of 128; rates are 1e-3 and 5e-5 for 1024 images. Not done here:
    // RandAugment, random resized crops and colour jitter.
    let augment = Augment { flip: 0.5, erase: 0.25, mixup: 0.8, cutmix: 1.0, ..Augment::default() };
    let official = train::Config {
        epochs: 300,
        batch: 128,
        // Batch norm sees this many images at once.
        shard: 16,
        lr: 1.25e-4,
        min_lr: 6.25e-6,
        warmup_epochs: 10.0,
        ema: 0.99996,
        augment,
        ..defaults
    };
    ("", official)
}

/// The data that a preset with this mean or deviation of its input has them from, if one has.
pub fn data_of(values: &[f32]) -> Option<&'static [&'static str]> {
    let has = |input: model::Input| input.mean == values || input.std == values;
    let name = model::PRESETS.iter().find(|name| model::preset(name).is_some_and(|preset| has(preset.input)))?;
    Some(match recipe(name).0 {
        "fashion-mnist" => &["fashion-mnist", "fashion-mini"],
        "watch" => &["watch"],
        _ => &[],
    })
}

/// The error for a name that is no preset.
pub fn unknown(name: &str) -> HostError {
    HostError::new(
        name,
        "neither a preset nor a configuration file",
        format!("the presets are {}; a file ends in .toml", model::PRESETS.join(", ")),
    )
}

/// What the fields mean, by table and name; the library's documentation says more.
const COMMENTS: &[(&str, &str)] = &[
    ("model.name", "in reports and file names"),
    ("model.classes", "number of classes"),
    ("model.labels", "their names"),
    ("model.head", "what the classifier reads: mean (of the tokens) or class-token"),
    ("model.drop_rate", "of the last block; grows from 0 at the first"),
    ("model.linear_std", "first weights of linear layers; default 1 / sqrt(fan-in)"),
    ("model.input.height", "1 for a time series"),
    ("model.input.width", "or samples of a time series"),
    ("model.input.channels", "1 grey, 3 RGB, or those of the sensor"),
    ("model.input.raw", "element type of the data: u8, i16 or f32"),
    ("model.input.mean", "per channel, in raw units"),
    ("model.input.std", "per channel, in raw units"),
    ("model.stages.depth", "transformer blocks"),
    ("model.stages.heads", "a divisor of the channels"),
    ("model.stages.mixer", "soft, softmax or depthwise"),
    ("model.stages.mlp_ratio", "hidden width of the MLP over the channels"),
    ("model.stages.norm", "LayerNorm before each branch (pre) or after each sum (post)"),
    ("model.stages.gelu", "tanh or erf"),
    ("model.stages.layer_norm_eps", "added to the variance"),
    ("model.stages.position", "grid of a learned position embedding"),
    ("model.stages.drop", "path (whole branches) or elements"),
    ("model.stages.embed.channels", "the last one's are the width of the blocks"),
    ("model.stages.embed.kernel", "odd, or equal to the stride"),
    ("model.stages.embed.stride", "of the convolution"),
    ("model.stages.embed.batch_norm", "after the convolution"),
    ("model.stages.embed.relu", "after the batch norm"),
    ("model.stages.mixer.soft.inverse", "of the landmarks' Gram matrix: ldlt (direct), or { newton = steps }"),
    ("model.stages.mixer.soft.inverse.newton", "steps of Newton's iteration"),
    ("model.stages.mixer.soft.ridge", "added to its diagonal"),
    ("model.stages.mixer.soft.sym_norm", "SOFT++'s symmetric normalisation"),
    ("model.stages.mixer.soft.mean", "scales V by landmarks / tokens"),
    ("model.stages.mixer.soft.landmarks.pool", "means of the cells of this grid"),
    ("model.stages.mixer.soft.landmarks.conv", "a learned convolution of this kernel and stride"),
    ("model.stages.mixer.soft.local.kernel", "of a depthwise convolution of V beside the attention"),
    ("model.stages.mixer.soft.local.per", "a filter for each channel or head"),
    ("model.stages.mixer.depthwise.kernel", "odd"),
    ("data.source", "fashion-mini, fashion-mnist, watch, or a path"),
    ("data.read.size", "resize images to this height and width"),
    ("data.read.channels", "1 grey, 3 RGB; of a time series in CSV or NPZ, how many"),
    ("data.read.label", "CSV: the label's column"),
    ("data.read.header", "CSV: whether the first line is one"),
    ("data.read.holdout", "part held out as test set where the source has none"),
    ("data.read.seed", "of that choice"),
    ("train.epochs", "passes over the training samples"),
    ("train.batch", "samples per optimizer step"),
    ("train.shard", "samples that go through the model together; batch is a multiple"),
    ("train.lr", "after the warm-up"),
    ("train.min_lr", "of the last step"),
    ("train.warmup_epochs", "may be a fraction"),
    ("train.weight_decay", "times the learning rate; matrices only"),
    ("train.betas", "AdamW's moments"),
    ("train.eps", "of AdamW"),
    ("train.clip", "largest norm of the gradient; 0 = off"),
    ("train.label_smoothing", "in [0, 1)"),
    ("train.ema", "decay of the averaged parameters; 0 = off"),
    ("train.augment.shift", "by up to this part of height and width"),
    ("train.augment.fill", "what a shift moves in: zero or edge"),
    ("train.augment.flip", "probability of mirroring left and right"),
    ("train.augment.scale", "factor per channel in [1 - scale, 1 + scale)"),
    ("train.augment.jitter", "noise, in deviations of the channel"),
    ("train.augment.erase", "probability of erasing a rectangle"),
    ("train.augment.erase_area", "smallest and largest part of the area"),
    ("train.augment.mixup", "alpha; 0 = off"),
    ("train.augment.cutmix", "alpha; 0 = off"),
    ("train.seed", "of everything random"),
    ("train.threads", "0 = all cores; results do not depend on it"),
    ("train.validation", "part of the training samples that chooses the epoch, where no set is given for it"),
    ("train.eval_every", "epochs"),
    ("train.checkpoint_every", "steps, beside one after each epoch"),
    ("quant.samples", "training samples that ranges are taken from"),
    ("quant.epochs", "of fine-tuning with the integers' rounding; 0 = none"),
    ("quant.lr", "of fine-tuning"),
    ("quant.weights", "of linear layers and convolutions: int4, int8 or int16"),
    ("quant.bounds", "min-max, or { percentile = 99.99 }"),
];

/// `text` with a comment at every field.
pub fn commented(text: &str) -> String {
    let mut section = String::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).into();
        }
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        let comment = COMMENTS.iter().find(|(name, _)| *name == format!("{section}.{key}"));
        lines.push(comment.map_or_else(|| line.to_string(), |(_, comment)| format!("{line:<36}  # {comment}")));
    }
    lines.join("\n") + "\n"
}
