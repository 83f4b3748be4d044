//! Models for the tests: untrained, but with every parameter random, and quantised on bundled data.
#![allow(dead_code)] // each test target uses its part

use softedge::data::{self, Dataset};
use softedge::math::random::Stream;
use softedge::model::{Config, Mode, PRESETS, Raw, build};
use softedge::ops::{DType, Width};
use softedge::program::{Init, Program, Space};
use softedge::quant::{Bounds, Calibration, calibrate, freeze, quantise};
use std::collections::HashMap;
use std::sync::OnceLock;

/// The presets that fit microcontrollers.
pub fn small_presets() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().copied().filter(|name| !name.starts_with("soft_"))
}

/// Parameters as before training, with norms and statistics shaken so that folding them matters.
pub fn parameters(program: &Program) -> HashMap<String, Vec<f32>> {
    let mut values = HashMap::new();
    for (i, t) in program.tensors.iter().enumerate().filter(|(_, t)| t.space() == Space::Params) {
        let random = Stream::new(7).fork(i as u64);
        let noise = |k: usize| random.uniform(k as u64) * 2.0 - 1.0;
        let value = (0..t.len()).map(|k| match t.init {
            Init::Zeros => 0.1 * noise(k),
            Init::Ones => 1.0 + 0.3 * noise(k),
            Init::TruncatedNormal(std) => 1.7 * std * noise(k),
        });
        values.insert(t.name.clone(), value.collect());
    }
    values
}

/// A model of `config` before it is frozen, and its parameters.
pub fn unfrozen(config: &Config) -> (Program, HashMap<String, Vec<f32>>) {
    let program = build(config, Mode::Infer { batch: 1 }).unwrap().program;
    let values = parameters(&program);
    (program, values)
}

/// A model of `config`, frozen.
pub fn frozen(config: &Config) -> Program {
    let (program, values) = unfrozen(config);
    freeze(&program, |name| values.get(name).map(Vec::as_slice)).unwrap()
}

/// The bundled training data whose inputs are those of `config`; waves in colour for a camera's.
pub fn data_for(config: &Config) -> &'static Dataset {
    static FASHION: OnceLock<Dataset> = OnceLock::new();
    static WATCH: OnceLock<Dataset> = OnceLock::new();
    let bundled = |name| data::open(name, &Default::default()).unwrap().0;
    let data = match (config.input.raw, config.input.channels) {
        (Raw::I16, _) => WATCH.get_or_init(|| bundled("watch")),
        (_, 3) => Box::leak(Box::new(waves(config.input.height))),
        _ => FASHION.get_or_init(|| bundled("fashion-mini")),
    };
    assert_eq!(data.shape, [config.input.height, config.input.width, config.input.channels]);
    data
}

/// Square images of waves, each with a direction and a length of its own per colour.
fn waves(side: usize) -> Dataset {
    let n = 40;
    let random = Stream::new(11);
    let mut pixels = Vec::with_capacity(n * side * side * 3);
    for image in 0..n {
        let wave: Vec<f32> = (0..9).map(|i| random.uniform(16 * image as u64 + i)).collect();
        for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y as f32, x as f32))) {
            let turns = |c: usize| 12.0 * (wave[3 * c] * y + wave[3 * c + 1] * x) / side as f32 + wave[3 * c + 2];
            pixels.extend((0..3).map(|c| (127.5 + 127.0 * (core::f32::consts::TAU * turns(c)).sin()) as u8));
        }
    }
    let labels = (0..n as u32).map(|i| i % 2).collect();
    Dataset::new("waves", [side, side, 3], data::Raw::U8(pixels), labels, vec!["0".into(), "1".into()]).unwrap()
}

/// The index of the `i`-th of a few inputs from all over a data set.
pub fn spread(data: &Dataset, i: usize) -> usize {
    i * 37 % data.len()
}

/// The integer type of raw input.
pub fn raw_type(config: &Config) -> DType {
    if config.input.raw == Raw::I16 { DType::I16 } else { DType::U8 }
}

/// A model in f32 and in integers.
pub struct Quantised {
    pub frozen: Program,
    pub calibration: Calibration,
    pub integer: Program,
    pub data: &'static Dataset,
}

/// A model of `config` in int8, calibrated on 32 inputs of the bundled data.
pub fn quantised(config: &Config) -> Quantised {
    quantised_to(config, Width::Int8)
}

/// As [`quantised`], with weights of this width.
pub fn quantised_to(config: &Config, weights: Width) -> Quantised {
    let (frozen, data) = (frozen(config), data_for(config));
    let fill = |i: usize, raw: &mut [f32]| data.sample_f32(spread(data, i), raw);
    let calibration = calibrate(&frozen, 32, fill, Bounds::MinMax).unwrap();
    let integer =
        quantise(&frozen, &calibration, raw_type(config), weights).unwrap_or_else(|e| panic!("{}: {e}", config.name));
    Quantised { frozen, calibration, integer, data }
}

/// Random numbers in sequence.
pub struct Random {
    stream: Stream,
    next: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { stream: Stream::new(seed), next: 0 }
    }

    pub fn bits(&mut self) -> u64 {
        self.next += 1;
        self.stream.bits(self.next)
    }

    /// One of `lo..=hi`.
    pub fn within(&mut self, lo: i64, hi: i64) -> i64 {
        let choices = (i128::from(hi) - i128::from(lo) + 1) as u128;
        (i128::from(lo) + (u128::from(self.bits()) % choices) as i128) as i64
    }

    /// A size of `1..=most`.
    pub fn size(&mut self, most: usize) -> usize {
        self.within(1, most as i64) as usize
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.size(choices.len()) - 1]
    }

    /// Whether something happens that does once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.bits().is_multiple_of(times)
    }
}
