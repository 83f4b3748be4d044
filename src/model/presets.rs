//! Models with a name: the official SOFT family, and small ones for microcontrollers.

use super::config::*;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// Names of all presets.
///
/// The official family is that of the official code: 224 x 224 RGB images, 1000 classes. In the paper
/// SOFT-Small has 7 blocks in its third stage; the released code has had 20 from its first commit.
/// `soft_small` is the released one, `soft_small_paper` the paper's. A `soft_norm_` model is SOFT++,
/// with the symmetric normalisation, and with Newton's start per image and head: the official one
/// takes a maximum over the whole batch, so that an image's scores depend on its batch mates. Forward and
/// gradients therefore agree with the official code only with its start, which only the tests have.
///
/// The others fit microcontrollers. Each has two twins with another mixer: `-softmax` with ordinary
/// attention, `-depthwise` with a depthwise convolution. Their integer files are as large as the
/// preset's to within 4 %, and their arenas no larger to within 4 %, before layers are put [in
/// strips](crate::program::in_strips): attention, which needs keys and more memory, has a narrower first stage
/// for that, and the convolution, which needs little, more blocks.
///
/// The `camera-` models have no twins. They are for RGB images of this side, of two classes if the data does
/// not say otherwise, with convolutions before the first stage that run in strips: the arena is hardly larger
/// than the image or than the tokens.
pub const PRESETS: &[&str] = &[
    "soft_tiny",
    "soft_small",
    "soft_small_paper",
    "soft_medium",
    "soft_large",
    "soft_huge",
    "soft_norm_tiny",
    "soft_norm_small",
    "soft_norm_small_paper",
    "soft_norm_medium",
    "soft_norm_large",
    "soft_norm_huge",
    "fashion-nano",
    "fashion-nano-softmax",
    "fashion-nano-depthwise",
    "fashion-micro",
    "fashion-micro-softmax",
    "fashion-micro-depthwise",
    "watch-nano",
    "watch-nano-softmax",
    "watch-nano-depthwise",
    "camera-96",
    "camera-224",
];

/// The model with this name, if there is one.
pub fn preset(name: &str) -> Option<Config> {
    let mut config = if let Some(size) = name.strip_prefix("soft_norm_") {
        official(size, true)?
    } else if let Some(size) = name.strip_prefix("soft_") {
        official(size, false)?
    } else if let Some(side) = name.strip_prefix("camera-") {
        camera(side)?
    } else {
        small(name)?
    };
    config.name = name.to_string();
    Some(config)
}

/// The official model of this size (models/softmax_free_vision_transformer.py).
fn official(size: &str, norm: bool) -> Option<Config> {
    let (third, depths) = match size {
        "tiny" => (320, [1, 2, 3, 2]),
        "small" => (320, [1, 3, 20, 4]),
        "small_paper" => (320, [1, 3, 7, 4]),
        "medium" => (288, [1, 3, 29, 5]),
        "large" => (320, [1, 3, 40, 5]),
        "huge" => (352, [1, 5, 49, 5]),
        _ => return None,
    };
    Some(pyramid(224, 1000, [64, 128, third, 512], [2, 4, third / 32, 16], depths, norm))
}

/// A model of the official architecture, for square images.
fn pyramid(
    side: usize,
    classes: usize,
    channels: [usize; 4],
    heads: [usize; 4],
    depths: [usize; 4],
    norm: bool,
) -> Config {
    let conv = |channels, stride| ConvLayer { channels, kernel: 3, stride, batch_norm: true, relu: true };
    let stage = |i: usize, ratio, local, position| Stage {
        embed: if i == 0 { vec![conv(32, 2), conv(32, 1), conv(channels[0], 2)] } else { vec![conv(channels[i], 2)] },
        depth: depths[i],
        heads: heads[i],
        mixer: Mixer::Soft(Soft {
            landmarks: Landmarks::Conv(ratio),
            inverse: Inverse::Newton(20),
            ridge: if norm { 0.0 } else { 0.01 },
            sym_norm: norm,
            mean: false,
            local: Some(Local { kernel: local, per: Per::Head }),
        }),
        mlp_ratio: 4.0,
        norm: Norm::Post,
        gelu: Gelu::Tanh,
        layer_norm_eps: 1e-5,
        position: Some([position, position]),
        drop: Drop::Elements,
    };
    Config {
        name: String::new(),
        classes,
        labels: Vec::new(),
        head: Head::ClassToken,
        drop_rate: 0.1,
        linear_std: Some(0.02),
        input: photographs(side),
        stages: vec![
            stage(0, 8, 9, 56),
            stage(1, 4, 5, 28),
            stage(2, 2, 3, 14),
            Stage {
                mixer: Mixer::Softmax,
                norm: Norm::Pre,
                gelu: Gelu::Erf,
                layer_norm_eps: 1e-6,
                drop: Drop::Path,
                ..stage(3, 1, 0, 7)
            },
        ],
    }
}

/// A stage of a small model: one convolution, then pre-norm blocks.
struct Small {
    channels: usize,
    kernel: usize,
    heads: usize,
    depth: usize,
    mlp_ratio: f32,
    landmarks: [usize; 2],
}

impl Small {
    fn stage(self) -> Stage {
        Stage {
            embed: vec![ConvLayer {
                channels: self.channels,
                kernel: self.kernel,
                stride: 2,
                batch_norm: true,
                relu: true,
            }],
            depth: self.depth,
            heads: self.heads,
            mixer: Mixer::Soft(Soft {
                landmarks: Landmarks::Pool(self.landmarks),
                inverse: Inverse::Ldlt,
                ridge: 0.01,
                sym_norm: true,
                mean: true,
                local: Some(Local { kernel: 3, per: Per::Channel }),
            }),
            mlp_ratio: self.mlp_ratio,
            norm: Norm::Pre,
            gelu: Gelu::Tanh,
            layer_norm_eps: 1e-5,
            position: None,
            drop: Drop::Path,
        }
    }
}

/// A small preset or a twin of it.
fn small(name: &str) -> Option<Config> {
    let (name, twin) = match name.rsplit_once('-') {
        Some((name, "softmax")) => (name, Some(Mixer::Softmax)),
        Some((name, "depthwise")) => (name, Some(Mixer::Depthwise(Depthwise { kernel: 3 }))),
        _ => (name, None),
    };
    let (input, classes, mut stages, deeper) = match name {
        "fashion-nano" => (
            fashion(),
            10,
            [
                Small { channels: 24, kernel: 3, heads: 2, depth: 1, mlp_ratio: 2.0, landmarks: [4, 4] },
                Small { channels: 48, kernel: 3, heads: 4, depth: 2, mlp_ratio: 1.5, landmarks: [4, 4] },
            ],
            [0, 1],
        ),
        "fashion-micro" => (
            fashion(),
            10,
            [
                Small { channels: 32, kernel: 3, heads: 2, depth: 2, mlp_ratio: 2.0, landmarks: [4, 4] },
                Small { channels: 64, kernel: 3, heads: 4, depth: 3, mlp_ratio: 2.0, landmarks: [4, 4] },
            ],
            [1, 1],
        ),
        "watch-nano" => (
            watch(),
            7,
            [
                Small { channels: 24, kernel: 5, heads: 2, depth: 1, mlp_ratio: 2.0, landmarks: [1, 16] },
                Small { channels: 48, kernel: 3, heads: 4, depth: 2, mlp_ratio: 2.0, landmarks: [1, 16] },
            ],
            [0, 1],
        ),
        _ => return None,
    };
    match twin {
        Some(Mixer::Softmax) => stages[0].channels -= 4,
        Some(_) => stages.iter_mut().zip(deeper).for_each(|(stage, more)| stage.depth += more),
        None => {}
    }
    let mut stages: Vec<Stage> = stages.into_iter().map(Small::stage).collect();
    if let Some(mixer) = twin {
        stages.iter_mut().for_each(|stage| stage.mixer = mixer);
    }
    Some(of_stages(input, classes, stages))
}

/// A small model of these stages.
fn of_stages(input: Input, classes: usize, stages: Vec<Stage>) -> Config {
    Config {
        name: String::new(),
        classes,
        labels: Vec::new(),
        head: Head::Mean,
        drop_rate: 0.0,
        linear_std: None,
        input,
        stages,
    }
}

/// Square RGB images, with the means and deviations of ImageNet's.
fn photographs(side: usize) -> Input {
    Input {
        height: side,
        width: side,
        channels: 3,
        raw: Raw::U8,
        mean: vec![123.675, 116.28, 103.53],
        std: vec![58.395, 57.12, 57.375],
    }
}

/// A small model for the images of a camera.
fn camera(side: &str) -> Option<Config> {
    let landmarks = [4, 4];
    let stage = |channels, heads, depth| Small { channels, kernel: 3, heads, depth, mlp_ratio: 2.0, landmarks }.stage();
    let (side, stem, stages) = match side {
        "96" => (96, vec![8], vec![stage(32, 2, 1), stage(64, 4, 2)]),
        "224" => (224, vec![8, 16], vec![stage(32, 2, 1), stage(64, 4, 2), stage(96, 6, 2)]),
        _ => return None,
    };
    let mut config = of_stages(photographs(side), 2, stages);
    let embed = &mut config.stages[0].embed;
    let last = embed[0];
    embed.splice(..0, stem.into_iter().map(|channels| ConvLayer { channels, ..last }));
    Some(config)
}

/// Fashion-MNIST: 28 x 28 grey pixels, with the mean and deviation of its training set.
fn fashion() -> Input {
    Input { height: 28, width: 28, channels: 1, raw: Raw::U8, mean: vec![72.94], std: vec![90.02] }
}

/// Windows of a smartwatch's motion, 2.56 s at 50 Hz: acceleration in units of 2 mg and angular rate
/// in units of half a degree per second, with the means and deviations of the training subjects.
fn watch() -> Input {
    Input {
        height: 1,
        width: 128,
        channels: 6,
        raw: Raw::I16,
        mean: vec![-19.8, 178.0, -66.4, 3.7, -0.2, 1.2],
        std: vec![487.6, 247.0, 282.0, 121.7, 299.1, 121.6],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mode, build};
    use crate::program::Role;

    fn parameters(config: &Config) -> usize {
        let program = build(config, Mode::Infer { batch: 1 }).unwrap().program;
        program.tensors.iter().filter(|t| matches!(t.role, Role::Param { .. })).map(|t| t.len()).sum()
    }

    /// The official code's counts, exact for its smallest models and in millions for the others.
    #[test]
    fn the_official_family_has_the_official_sizes() {
        for name in ["soft_tiny", "soft_norm_tiny"] {
            assert_eq!(parameters(&preset(name).unwrap()), 13_069_056, "{name}");
        }
        for (name, millions) in [
            ("soft_small", "38.86"),
            ("soft_small_paper", "24.11"),
            ("soft_medium", "45.81"),
            ("soft_large", "64.70"),
            ("soft_huge", "87.11"),
        ] {
            for name in [name.to_string(), name.replace("soft_", "soft_norm_")] {
                let count = parameters(&preset(&name).unwrap());
                assert_eq!(std::format!("{:.2}", count as f64 / 1e6), millions, "{name}");
            }
        }
    }

    #[test]
    fn every_preset_has_its_name_and_no_other_name_is_one() {
        for name in PRESETS {
            preset(name).unwrap().validate().unwrap();
        }
        for name in ["", "soft_", "soft_norm_", "-softmax", "soft_tiny-softmax", "fashion-nano-softmax-depthwise"] {
            assert_eq!(preset(name), None, "{name}");
        }
    }
}
