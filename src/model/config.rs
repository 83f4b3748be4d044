//! What a model is: the contents of a TOML file or of a preset.
//!
//! A model is a pyramid of stages. A stage embeds the image (or the tokens of the stage before, on
//! their grid) with convolutions and then applies `depth` transformer blocks. A time series is an
//! image of height 1: there every kernel, stride and grid is 1 in height.
//!
//! ```toml
//! name = "two-stages"
//! classes = 10
//!
//! [input]
//! height = 28
//! width = 28
//! channels = 1
//! raw = "u8"
//! mean = [72.9]
//! std = [90.0]
//!
//! [[stages]]
//! embed = [{ channels = 24, kernel = 3, stride = 2 }]
//! heads = 2
//! depth = 1
//! mixer.soft = { landmarks = { pool = [7, 7] } }
//!
//! [[stages]]
//! embed = [{ channels = 48, kernel = 3, stride = 2 }]
//! heads = 4
//! depth = 2
//! mixer = "softmax"
//! ```

use crate::error::HostError;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

#[cfg(feature = "train")]
use serde::{Deserialize, Serialize};

/// A model.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct Config {
    /// Name, used in reports and file names: without `/` and `\\`, at most 200 bytes.
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// Names of the classes, carried into the model file. Default: none.
    #[cfg_attr(feature = "train", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub labels: Vec<String>,
    /// What the classifier reads. Default: the mean of the last stage's tokens.
    #[cfg_attr(feature = "train", serde(default))]
    pub head: Head,
    /// Largest rate of what [`Stage::drop`] names, in `[0, 1)`: it grows linearly from 0 at the first
    /// block to this at the last. Default: 0.
    #[cfg_attr(feature = "train", serde(default))]
    pub drop_rate: f32,
    /// Standard deviation that the weights of linear layers start with. Default: `1 / sqrt(fan-in)`.
    #[cfg_attr(feature = "train", serde(default, skip_serializing_if = "Option::is_none"))]
    pub linear_std: Option<f32>,
    /// What comes in.
    pub input: Input,
    /// The stages, first to last.
    pub stages: Vec<Stage>,
}

/// The raw input of a model, channels-last.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct Input {
    /// Height in pixels; 1 for a time series.
    pub height: usize,
    /// Width in pixels, or samples of a time series.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Element type of the data. Default: `f32`.
    #[cfg_attr(feature = "train", serde(default))]
    pub raw: Raw,
    /// Mean per channel, in raw units. Default: 0.
    #[cfg_attr(feature = "train", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub mean: Vec<f32>,
    /// Standard deviation per channel, in raw units. Default: 1.
    #[cfg_attr(feature = "train", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub std: Vec<f32>,
}

/// Element type of raw input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Raw {
    /// Pixels, 0 to 255.
    U8,
    /// Sensor samples.
    I16,
    /// Anything else.
    #[default]
    F32,
}

/// What the classifier reads after the final LayerNorm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Head {
    /// The mean of the last stage's tokens.
    #[default]
    Mean,
    /// A learned token that joins the last stage, whose mixer must be softmax attention.
    ClassToken,
}

/// A stage: an embedding and its transformer blocks.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct Stage {
    /// Convolutions before the blocks; the last one's channels are the width of the blocks.
    pub embed: Vec<ConvLayer>,
    /// Number of blocks.
    pub depth: usize,
    /// Heads of the attention; a divisor of the channels. Default: 1.
    #[cfg_attr(feature = "train", serde(default = "one"))]
    pub heads: usize,
    /// What mixes the tokens.
    pub mixer: Mixer,
    /// Hidden width of the MLP over the channels. Default: 4.
    #[cfg_attr(feature = "train", serde(default = "four"))]
    pub mlp_ratio: f32,
    /// Where the LayerNorms are. Default: `pre`.
    #[cfg_attr(feature = "train", serde(default))]
    pub norm: Norm,
    /// The MLP's activation. Default: `tanh`.
    #[cfg_attr(feature = "train", serde(default))]
    pub gelu: Gelu,
    /// Added to the variance in LayerNorms. Default: 1e-5.
    #[cfg_attr(feature = "train", serde(default = "layer_norm_eps"))]
    pub layer_norm_eps: f32,
    /// Height and width of the grid a learned position embedding is stored at; it is resized
    /// bilinearly to the tokens' grid. Default: no position embedding.
    #[cfg_attr(feature = "train", serde(default, skip_serializing_if = "Option::is_none"))]
    pub position: Option<[usize; 2]>,
    /// What is dropped, at a rate given by [`Config::drop_rate`]. Default: `path`.
    #[cfg_attr(feature = "train", serde(default))]
    pub drop: Drop,
}

/// A convolution of an embedding.
///
/// Non-overlapping patches (kernel = stride) are not padded; other kernels are odd and padded by
/// `kernel / 2` zeros on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct ConvLayer {
    /// Output channels.
    pub channels: usize,
    /// Width of the kernel, and its height but for time series.
    pub kernel: usize,
    /// Stride. Default: 1.
    #[cfg_attr(feature = "train", serde(default = "one"))]
    pub stride: usize,
    /// Whether batch normalisation follows. Default: yes.
    #[cfg_attr(feature = "train", serde(default = "yes"))]
    pub batch_norm: bool,
    /// Whether a ReLU follows. Default: yes.
    #[cfg_attr(feature = "train", serde(default = "yes"))]
    pub relu: bool,
}

/// What mixes the tokens of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Mixer {
    /// Softmax-free attention.
    Soft(Soft),
    /// Ordinary softmax attention.
    Softmax,
    /// No attention: a depthwise convolution and a linear layer, for comparison with a CNN.
    Depthwise(Depthwise),
}

/// Softmax-free attention (SOFT, arXiv 2110.11945): a Gaussian kernel through landmarks.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct Soft {
    /// How the landmarks are sampled from the tokens.
    pub landmarks: Landmarks,
    /// How the landmarks' Gram matrix is inverted. Default: `ldlt`.
    #[cfg_attr(feature = "train", serde(default))]
    pub inverse: Inverse,
    /// Added to the Gram matrix's diagonal before it is inverted; above 0 for `ldlt`. Default: 0.01.
    #[cfg_attr(feature = "train", serde(default = "ridge"))]
    pub ridge: f32,
    /// Whether the inverse is normalised symmetrically (SOFT++, arXiv 2207.03341). Default: no.
    #[cfg_attr(feature = "train", serde(default))]
    pub sym_norm: bool,
    /// Whether V is scaled by m / n. SOFT adds tokens up where softmax averages them: with
    /// `sym_norm` tokens that are all alike come out n / m times as large, and a small model loses its
    /// first epochs to that. Folded into the projection, so it costs nothing. Default: no, as in
    /// the paper.
    #[cfg_attr(feature = "train", serde(default))]
    pub mean: bool,
    /// A depthwise convolution of V that is added to the result. Default: none.
    #[cfg_attr(feature = "train", serde(default, skip_serializing_if = "Option::is_none"))]
    pub local: Option<Local>,
}

/// How landmarks are sampled from the tokens' grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Landmarks {
    /// A convolution with this kernel and stride, shared by the heads, then LayerNorm and GELU (exact
    /// form), as in the official code.
    Conv(usize),
    /// The means of the cells of a grid of this height and width, as in the paper's first version: no
    /// parameters. Cells overlap where they do not divide the tokens' grid (adaptive pooling).
    Pool([usize; 2]),
}

/// How the landmarks' Gram matrix is inverted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Inverse {
    /// A direct symmetric factorisation.
    #[default]
    Ldlt,
    /// Newton's iteration, this many steps (the paper takes 20).
    Newton(usize),
}

/// A depthwise convolution beside the attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct Local {
    /// Width of the kernel, odd, and its height but for time series.
    pub kernel: usize,
    /// What has a filter of its own. Default: each `channel`.
    #[cfg_attr(feature = "train", serde(default))]
    pub per: Per,
}

/// What has a filter of its own in a [`Local`] convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Per {
    /// Each channel.
    #[default]
    Channel,
    /// Each head: its channels share one filter, as in the official code.
    Head,
}

/// A depthwise convolution in place of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct Depthwise {
    /// Width of the kernel, odd, and its height but for time series.
    pub kernel: usize,
}

/// Where the LayerNorms of a block are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Norm {
    /// On the input of each branch: `x + f(norm(x))`.
    #[default]
    Pre,
    /// After each residual add: `norm(x + f(x))`.
    Post,
}

/// The form of GELU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Gelu {
    /// The tanh approximation.
    #[default]
    Tanh,
    /// The exact form.
    Erf,
}

/// What training drops at random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Drop {
    /// A whole residual branch of an image (stochastic depth).
    #[default]
    Path,
    /// Single elements of a residual branch, as the official code does in stages 1 to 3.
    Elements,
}

#[cfg(feature = "train")]
mod defaults {
    pub(super) fn one() -> usize {
        1
    }
    pub(super) fn four() -> f32 {
        4.0
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn layer_norm_eps() -> f32 {
        1e-5
    }
    pub(super) fn ridge() -> f32 {
        0.01
    }
}
#[cfg(feature = "train")]
use defaults::{four, layer_norm_eps, one, ridge, yes};

/// Height and width of an image or of a grid of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Height; 1 for a time series.
    pub h: usize,
    /// Width, or length of a time series.
    pub w: usize,
}

impl Grid {
    /// Number of cells.
    pub fn n(self) -> usize {
        self.h * self.w
    }

    /// A kernel or stride of `width`: its height and width on this grid.
    pub fn square(self, width: usize) -> [usize; 2] {
        [if self.h == 1 { 1 } else { width }, width]
    }
}

impl ConvLayer {
    /// Height and width of the padding on each side.
    pub fn padding(&self, on: Grid) -> [usize; 2] {
        on.square(self.kernel).map(|k| if self.kernel == self.stride { 0 } else { k / 2 })
    }

    /// The grid it makes of `on`.
    pub fn output(&self, on: Grid) -> Grid {
        let (kernel, stride, pad) = (on.square(self.kernel), on.square(self.stride), self.padding(on));
        let size = |size: usize, i: usize| (size + 2 * pad[i]).checked_sub(kernel[i]).map_or(0, |r| r / stride[i] + 1);
        Grid { h: size(on.h, 0), w: size(on.w, 1) }
    }
}

impl Stage {
    /// Channels of its tokens.
    pub fn channels(&self) -> usize {
        self.embed.last().map_or(0, |layer| layer.channels)
    }

    /// Hidden width of its MLPs.
    pub fn hidden(&self) -> usize {
        (self.channels() as f32 * self.mlp_ratio + 0.5) as usize
    }
}

impl Landmarks {
    /// The landmarks' grid on a grid of tokens.
    pub fn grid(self, tokens: Grid) -> Grid {
        match self {
            Landmarks::Conv(ratio) => {
                let [h, w] = tokens.square(ratio);
                Grid { h: tokens.h / h, w: tokens.w / w }
            }
            Landmarks::Pool([h, w]) => Grid { h, w },
        }
    }
}

impl Config {
    /// The grid of tokens of each stage.
    pub fn grids(&self) -> Vec<Grid> {
        let mut grid = Grid { h: self.input.height, w: self.input.width };
        let mut grids = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            grid = stage.embed.iter().fold(grid, |grid, layer| layer.output(grid));
            grids.push(grid);
        }
        grids
    }

    /// Checks that the model can be built.
    ///
    /// # Errors
    /// The field at fault, what it needs and what was there.
    pub fn validate(&self) -> Result<(), HostError> {
        let Input { height, width, channels, ref mean, ref std, .. } = self.input;
        let name = self.name.as_str();
        let plain = (1..=MAX_NAME).contains(&name.len())
            && ![".", ".."].contains(&name)
            && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control());
        let needed = format!("must be usable as a file name of 1 to {MAX_NAME} bytes without / and \\");
        check("name", plain, &needed, format!("{name:?}"))?;
        counts("classes", self.classes, MAX_WIDTH)?;
        let labels = self.labels.len();
        check("labels", labels == 0 || labels == self.classes, &format!("must name {} classes", self.classes), labels)?;
        if let Some(label) = self.labels.iter().find(|label| label.len() > 255) {
            check("labels", false, "must each take at most 255 bytes", label.len())?;
        }
        check("drop_rate", (0.0..1.0).contains(&self.drop_rate), "must be in [0, 1)", self.drop_rate)?;
        let linear_std = self.linear_std.unwrap_or(1.0);
        check("linear_std", positive(linear_std), "must be above 0", linear_std)?;
        counts("input.height", height, MAX_WIDTH)?;
        counts("input.width", width, MAX_WIDTH)?;
        counts("input.channels", channels, MAX_WIDTH)?;
        for (field, values) in [("input.mean", mean), ("input.std", std)] {
            let per_channel = format!("must have one value for each of {channels} channels");
            check(field, values.is_empty() || values.len() == channels, &per_channel, values.len())?;
        }
        for &mean in mean {
            check("input.mean", mean.is_finite(), "must be finite", mean)?;
        }
        for &std in std {
            check("input.std", positive(std), "must be above 0", std)?;
        }
        counts("stages", self.stages.len(), MAX_LAYERS)?;
        let mut grid = Grid { h: height, w: width };
        elements("input", grid, channels)?;
        for (i, stage) in self.stages.iter().enumerate() {
            grid = stage.validate(&format!("stages[{i}]"), grid)?;
        }
        let layers =
            self.stages.iter().fold(0usize, |sum, s| sum.saturating_add(s.depth).saturating_add(s.embed.len()));
        let needed = format!("must have 1 to {MAX_LAYERS} blocks and convolutions in all");
        check("stages", layers <= MAX_LAYERS, &needed, layers)?;
        let last = self.stages.len() - 1;
        let joined = self.head != Head::ClassToken || self.stages[last].mixer == Mixer::Softmax;
        check("head", joined, &format!("can be class-token only where stages[{last}].mixer is softmax"), "class-token")
    }
}

/// Limits far above any sensible model, so that no size overflows.
const MAX_WIDTH: usize = 1 << 16;
const MAX_NAME: usize = 200;
const MAX_KERNEL: usize = 255;
/// A training step has about a hundred tensors per block, and an index counts to 65,534.
const MAX_LAYERS: usize = 256;
const MAX_LANDMARKS: usize = 4096;
const MAX_ELEMENTS: usize = 1 << 26;

fn positive(value: f32) -> bool {
    value > 0.0 && value.is_finite()
}

/// An error at `field` unless `ok`.
fn check(field: &str, ok: bool, needed: &str, found: impl Display) -> Result<(), HostError> {
    if ok { Ok(()) } else { Err(HostError::new(field, format!("{needed}, found {found}"), "")) }
}

fn counts(field: &str, value: usize, most: usize) -> Result<(), HostError> {
    check(field, (1..=most).contains(&value), &format!("must be 1 to {most}"), value)
}

fn elements(field: &str, Grid { h, w }: Grid, c: usize) -> Result<(), HostError> {
    let needed = format!("must have at most {MAX_ELEMENTS} elements");
    check(field, h.saturating_mul(w).saturating_mul(c) <= MAX_ELEMENTS, &needed, format!("{h} x {w} x {c}"))
}

fn odd(field: &str, kernel: usize) -> Result<(), HostError> {
    counts(field, kernel, MAX_KERNEL)?;
    check(field, kernel % 2 == 1, "must be odd", kernel)
}

impl Stage {
    /// Checks the stage on the image or the tokens that come in, and gives the grid of its tokens.
    fn validate(&self, at: &str, mut grid: Grid) -> Result<Grid, HostError> {
        let field = |name: &str| format!("{at}.{name}");
        counts(&field("embed"), self.embed.len(), MAX_LAYERS)?;
        for (i, layer) in self.embed.iter().enumerate() {
            grid = layer.validate(&field(&format!("embed[{i}]")), grid)?;
        }
        let channels = self.channels();
        let divides = self.heads > 0 && channels.is_multiple_of(self.heads);
        check(&field("heads"), divides, &format!("must divide {channels} channels"), self.heads)?;
        check(&field("mlp_ratio"), positive(self.mlp_ratio), "must be above 0", self.mlp_ratio)?;
        counts(&format!("{at}.mlp_ratio times {channels} channels"), self.hidden(), MAX_WIDTH)?;
        elements(&field("mlp_ratio"), grid, self.hidden())?;
        let eps = self.layer_norm_eps;
        check(&field("layer_norm_eps"), positive(eps), "must be above 0", eps)?;
        if let Some([h, w]) = self.position {
            counts(&field("position"), h, MAX_WIDTH)?;
            counts(&field("position"), w, MAX_WIDTH)?;
            elements(&field("position"), Grid { h, w }, channels)?;
        }
        match &self.mixer {
            Mixer::Soft(soft) => soft.validate(&field("mixer.soft"), grid)?,
            Mixer::Softmax => {}
            Mixer::Depthwise(d) => odd(&field("mixer.depthwise.kernel"), d.kernel)?,
        }
        Ok(grid)
    }
}

impl ConvLayer {
    fn validate(&self, at: &str, on: Grid) -> Result<Grid, HostError> {
        let field = |name: &str| format!("{at}.{name}");
        counts(&field("channels"), self.channels, MAX_WIDTH)?;
        counts(&field("stride"), self.stride, MAX_KERNEL)?;
        counts(&field("kernel"), self.kernel, MAX_KERNEL)?;
        let sensible = self.kernel % 2 == 1 || self.kernel == self.stride;
        check(&field("kernel"), sensible, "must be odd or equal to the stride", self.kernel)?;
        let grid = self.output(on);
        let fits = format!("must fit the {} x {} grid it is applied to", on.h, on.w);
        check(&field("kernel"), grid.n() > 0, &fits, self.kernel)?;
        elements(at, grid, self.channels)?;
        Ok(grid)
    }
}

impl Soft {
    fn validate(&self, at: &str, on: Grid) -> Result<(), HostError> {
        let landmarks = format!("{at}.landmarks");
        if let Landmarks::Conv(ratio) = self.landmarks {
            counts(&landmarks, ratio, MAX_KERNEL)?;
        }
        let Grid { h, w } = self.landmarks.grid(on);
        let within = (1..=on.h).contains(&h) && (1..=on.w).contains(&w);
        let needed = format!("must make 1 x 1 to {} x {} landmarks", on.h, on.w);
        check(&landmarks, within, &needed, format!("{h} x {w}"))?;
        counts(&landmarks, h * w, MAX_LANDMARKS)?;
        if let Some(local) = self.local {
            odd(&format!("{at}.local.kernel"), local.kernel)?;
        }
        let ridge = format!("{at}.ridge");
        match self.inverse {
            Inverse::Ldlt => check(&ridge, positive(self.ridge), "must be above 0 for the direct inverse", self.ridge),
            Inverse::Newton(steps) => {
                counts(&format!("{at}.inverse.newton"), steps, crate::ops::inverse::MAX_STEPS)?;
                check(&ridge, self.ridge == 0.0 || positive(self.ridge), "must be at least 0", self.ridge)
            }
        }
    }
}

#[cfg(feature = "train")]
impl Config {
    /// Reads and validates a model from TOML.
    ///
    /// # Errors
    /// Where the text is not a model, or which field is wrong and how.
    pub fn from_toml(text: &str) -> Result<Self, HostError> {
        let config: Self = toml::from_str(text).map_err(|e| HostError::new("model", format!("{e}"), ""))?;
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::preset;
    use std::string::ToString;

    /// Breaks one field of a preset and gives the error.
    fn error(name: &str, change: impl FnOnce(&mut Config)) -> String {
        let mut config = preset(name).unwrap();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    fn soft(config: &mut Config, stage: usize) -> &mut Soft {
        match &mut config.stages[stage].mixer {
            Mixer::Soft(soft) => soft,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_name_the_field_what_it_needs_and_what_was_there() {
        let nano = |change: fn(&mut Config)| error("fashion-nano", change);
        for (got, want) in [
            (
                nano(|c| c.name = "../x".into()),
                "name: must be usable as a file name of 1 to 200 bytes without / and \\, found \"../x\"",
            ),
            (nano(|c| c.classes = 0), "classes: must be 1 to 65536, found 0"),
            (nano(|c| c.labels = ["a".into()].into()), "labels: must name 10 classes, found 1"),
            (nano(|c| c.drop_rate = 1.0), "drop_rate: must be in [0, 1), found 1"),
            (nano(|c| c.drop_rate = f32::NAN), "drop_rate: must be in [0, 1), found NaN"),
            (nano(|c| c.linear_std = Some(0.0)), "linear_std: must be above 0, found 0"),
            (nano(|c| c.input.width = usize::MAX), "input.width: must be 1 to 65536, found 18446744073709551615"),
            (nano(|c| c.input.std = [1.0; 3].into()), "input.std: must have one value for each of 1 channels, found 3"),
            (nano(|c| c.input.std = [-1.0].into()), "input.std: must be above 0, found -1"),
            (nano(|c| c.input.mean = [f32::INFINITY].into()), "input.mean: must be finite, found inf"),
            (nano(|c| c.stages.clear()), "stages: must be 1 to 256, found 0"),
            (
                nano(|c| c.stages[1].depth = usize::MAX),
                "stages: must have 1 to 256 blocks and convolutions in all, found 18446744073709551615",
            ),
            (nano(|c| c.stages[1].embed.clear()), "stages[1].embed: must be 1 to 256, found 0"),
            (nano(|c| c.stages[1].embed[0].channels = 0), "stages[1].embed[0].channels: must be 1 to 65536, found 0"),
            (nano(|c| c.stages[0].embed[0].stride = 0), "stages[0].embed[0].stride: must be 1 to 255, found 0"),
            (
                nano(|c| c.stages[0].embed[0].kernel = 4),
                "stages[0].embed[0].kernel: must be odd or equal to the stride, found 4",
            ),
            (
                nano(|c| (c.stages[1].embed[0].kernel, c.stages[1].embed[0].stride) = (15, 15)),
                "stages[1].embed[0].kernel: must fit the 14 x 14 grid it is applied to, found 15",
            ),
            (nano(|c| c.stages[1].heads = 5), "stages[1].heads: must divide 48 channels, found 5"),
            (nano(|c| c.stages[1].heads = 0), "stages[1].heads: must divide 48 channels, found 0"),
            (
                nano(|c| c.stages[1].mlp_ratio = 0.001),
                "stages[1].mlp_ratio times 48 channels: must be 1 to 65536, found 0",
            ),
            (nano(|c| c.stages[1].layer_norm_eps = 0.0), "stages[1].layer_norm_eps: must be above 0, found 0"),
            (nano(|c| c.stages[0].position = Some([0, 3])), "stages[0].position: must be 1 to 65536, found 0"),
            (
                nano(|c| soft(c, 1).landmarks = Landmarks::Pool([4, 8])),
                "stages[1].mixer.soft.landmarks: must make 1 x 1 to 7 x 7 landmarks, found 4 x 8",
            ),
            (
                nano(|c| soft(c, 1).landmarks = Landmarks::Conv(8)),
                "stages[1].mixer.soft.landmarks: must make 1 x 1 to 7 x 7 landmarks, found 0 x 0",
            ),
            (
                nano(|c| soft(c, 1).landmarks = Landmarks::Conv(0)),
                "stages[1].mixer.soft.landmarks: must be 1 to 255, found 0",
            ),
            (
                nano(|c| soft(c, 0).ridge = 0.0),
                "stages[0].mixer.soft.ridge: must be above 0 for the direct inverse, found 0",
            ),
            (
                nano(|c| (soft(c, 0).inverse, soft(c, 0).ridge) = (Inverse::Newton(20), -0.5)),
                "stages[0].mixer.soft.ridge: must be at least 0, found -0.5",
            ),
            (
                nano(|c| soft(c, 0).inverse = Inverse::Newton(0)),
                "stages[0].mixer.soft.inverse.newton: must be 1 to 1000, found 0",
            ),
            (
                nano(|c| soft(c, 0).local = Some(Local { kernel: 2, per: Per::Head })),
                "stages[0].mixer.soft.local.kernel: must be odd, found 2",
            ),
            (
                nano(|c| c.head = Head::ClassToken),
                "head: can be class-token only where stages[1].mixer is softmax, found class-token",
            ),
            (
                error("watch-nano-depthwise", |c| c.stages[0].mixer = Mixer::Depthwise(Depthwise { kernel: 4 })),
                "stages[0].mixer.depthwise.kernel: must be odd, found 4",
            ),
            (
                error("soft_tiny", |c| (c.input.height, c.input.width) = (60000, 60000)),
                "input: must have at most 67108864 elements, found 60000 x 60000 x 3",
            ),
        ] {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn a_name_is_a_file_name() {
        let named = |name: &str| Config { name: name.into(), ..preset("fashion-nano").unwrap() }.validate();
        for bad in ["", ".", "..", "a/b", "a\\b", "a\n", &"x".repeat(201)] {
            assert!(named(bad).unwrap_err().to_string().starts_with("name: must be usable"), "{bad}");
        }
        for good in ["a", "a.b", "..a", "x 2", "\u{e9}t\u{e9}"] {
            named(good).unwrap();
        }
    }

    #[cfg(feature = "train")]
    #[test]
    fn toml_round_trips_and_refuses_what_it_does_not_know() {
        for name in crate::model::PRESETS {
            let config = preset(name).unwrap();
            let text = toml::to_string(&config).unwrap();
            assert_eq!(Config::from_toml(&text).unwrap(), config, "{text}");
        }
        let text = toml::to_string(&preset("fashion-nano").unwrap()).unwrap();
        let wrong = Config::from_toml(&text.replacen("heads", "haeds", 1)).unwrap_err().to_string();
        assert!(wrong.contains("unknown field `haeds`") && wrong.contains("line "), "{wrong}");
        let wrong = Config::from_toml(&text.replacen("depth = 1", "depth = -1", 1)).unwrap_err().to_string();
        assert!(wrong.contains("depth") && wrong.contains("-1"), "{wrong}");
    }

    /// The example of the module's documentation, with all defaults.
    #[cfg(feature = "train")]
    #[test]
    fn the_documented_example_is_a_model() {
        let text: String = include_str!("config.rs")
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .skip_while(|line| !line.contains("```toml"))
            .skip(1)
            .take_while(|line| !line.contains("```"))
            .map(|line| format!("{}\n", line.trim_start()))
            .collect();
        let config = Config::from_toml(&text).unwrap();
        assert_eq!(config.stages.len(), 2);
        assert_eq!(config.stages[1].mixer, Mixer::Softmax);
        assert_eq!(soft(&mut config.clone(), 0).inverse, Inverse::Ldlt);
    }
}
