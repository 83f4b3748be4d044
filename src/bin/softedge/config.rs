//! The configuration file: what a run is, in one TOML file of four tables.

use crate::presets;
use serde::de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use softedge::data::{Dataset, Options, Raw};
use softedge::error::HostError;
use softedge::model::{self, Landmarks, Mixer, Soft};
use softedge::ops::Width;
use softedge::quant::Bounds;
use softedge::train;
use std::path::Path;

/// A configuration file, or a preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub model: Model,
    #[serde(default)]
    pub data: Data,
    #[serde(default)]
    pub train: train::Config,
    #[serde(default)]
    pub quant: Quant,
}

/// The model: a table, or the name of a preset, which then takes on the shape of the data.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub config: model::Config,
    /// Whether its input and classes give way to those of the data.
    pub adapts: bool,
}

/// Where the samples come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// A built-in name or a path; see [`softedge::data::read`].
    pub source: String,
    /// How to read it.
    pub read: Options,
}

/// How the model becomes integers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quant {
    /// Training samples that the ranges of activations are taken from.
    pub samples: usize,
    /// How.
    pub bounds: Bounds,
    /// Epochs of fine-tuning with the integers' rounding (quantisation-aware training).
    pub epochs: usize,
    /// Its learning rate, which falls like that of training.
    pub lr: f32,
    /// Width of the weights of linear layers and convolutions.
    pub weights: Width,
}

impl Data {
    /// Sets a field of how it is read, `channels=6` say.
    pub fn set_read(&mut self, assignment: &str) -> Result<(), HostError> {
        self.read = with(&self.read, "--read", assignment, "size, channels, label and header are the most used")?;
        Ok(())
    }
}

impl Default for Quant {
    fn default() -> Self {
        Self { samples: 256, bounds: Bounds::MinMax, epochs: 0, lr: 1e-4, weights: Width::Int8 }
    }
}

impl Quant {
    /// Checks that the settings make sense.
    pub fn check(&self) -> Result<(), HostError> {
        let fail =
            |field: &str, problem: String, remedy: &str| Err(HostError::new(format!("quant.{field}"), problem, remedy));
        if self.samples == 0 {
            return fail("samples", "is 0, and ranges are taken from samples".into(), "256 are enough for most");
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return fail("lr", format!("is {} where a number above 0 is needed", self.lr), "1e-4 is a good start");
        }
        match self.bounds {
            Bounds::Percentile(p) if !(50.0..=100.0).contains(&p) => {
                fail("bounds", format!("is the percentile {p} where 50 to 100 is needed"), "99.99 is a good start")
            }
            _ => Ok(()),
        }
    }
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.config.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;

        impl<'de> Visitor<'de> for NameOrTable {
            type Value = Model;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a preset, or a table")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Model, E> {
                let config = model::preset(name).ok_or_else(|| E::custom(presets::unknown(name).to_string()))?;
                Ok(Model { config, adapts: true })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Model, A::Error> {
                let config = model::Config::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Model { config, adapts: false })
            }
        }

        deserializer.deserialize_any(NameOrTable)
    }
}

impl Config {
    /// The preset with this name, if there is one: a model with the data and the settings that train it.
    pub fn preset(name: &str) -> Option<Self> {
        let config = model::preset(name)?;
        let (source, train) = presets::recipe(name);
        let data = Data { source: source.into(), ..Data::default() };
        Some(Self { model: Model { config, adapts: true }, data, train, quant: Quant::default() })
    }

    /// The preset with this name, or the file at this path.
    pub fn open(name_or_path: &str) -> Result<Self, HostError> {
        let path = Path::new(name_or_path);
        if let Some(config) = Self::preset(name_or_path) {
            return Ok(config);
        }
        if !path.exists() && path.extension().is_none() {
            return Err(presets::unknown(name_or_path));
        }
        Self::read(path)
    }

    /// The file at this path.
    pub fn read(path: &Path) -> Result<Self, HostError> {
        let fail = |problem: String, remedy: &str| HostError::new(path.display(), problem, remedy);
        if path.is_dir() {
            return Err(fail("is a folder where a configuration file is needed".into(), "name the .toml file in it"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fail(format!("cannot be read: {e}"), "check the path"))?;
        toml::from_str(&text).map_err(|e| fail(indented(&e), "see `softedge presets --show fashion-nano`"))
    }

    /// Sets the field at a dotted path, `train.lr=1e-3` say; `model.stages.0.depth=2` counts from 0.
    pub fn set(&mut self, assignment: &str) -> Result<(), HostError> {
        let adapts = self.model.adapts && !assignment.starts_with("model=");
        *self = with(self, "--set", assignment, SHOW)?;
        self.model.adapts |= adapts;
        Ok(())
    }

    /// Fits the model to the data: a preset takes on its input and classes, and every model its labels.
    /// Says what it changed.
    pub fn fit_to(&mut self, set: &Dataset) -> Vec<String> {
        let mut changes = Vec::new();
        let Model { config, adapts } = &mut self.model;
        if *adapts {
            let [h, w, c] = set.shape;
            let raw = match set.raw {
                Raw::U8(_) => model::Raw::U8,
                Raw::I16(_) => model::Raw::I16,
                Raw::F32(_) => model::Raw::F32,
            };
            let input = &mut config.input;
            let reshaped = (input.height, input.width, input.channels, input.raw) != (h, w, c, raw);
            // What is no preset's was set by the user.
            let source = &*self.data.source;
            let stale = |values: &[f32]| {
                values.len() != c || presets::data_of(values).is_some_and(|own| reshaped || !own.contains(&source))
            };
            let [mean_is_stale, std_is_stale] = [&input.mean, &input.std].map(|values| stale(values));
            if reshaped {
                (input.height, input.width, input.channels, input.raw) = (h, w, c, raw);
                changes.push(format!("input {h}x{w}x{c} {}", set.raw.kind()));
            }
            if mean_is_stale || std_is_stale {
                let (mean, std) = set.moments();
                if mean_is_stale {
                    input.mean = mean;
                }
                if std_is_stale {
                    // A constant channel carries nothing, whatever its scale.
                    input.std = std.into_iter().map(|s| if s > 0.0 { s } else { 1.0 }).collect();
                }
                changes.push("mean and deviation of the training samples".into());
            }
            if reshaped {
                changes.extend(limit_landmarks(config));
            }
            if config.classes != set.classes.len() {
                config.classes = set.classes.len();
                config.labels.clear();
                changes.push(format!("{} classes", config.classes));
            }
        }
        if config.labels.is_empty() && config.classes == set.classes.len() {
            config.labels.clone_from(&set.classes);
        }
        changes
    }

    /// The file, with a comment on every field.
    pub fn to_toml(&self) -> Result<String, HostError> {
        let text = toml::to_string(self).map_err(|e| HostError::new("configuration", e.to_string(), ""))?;
        Ok(presets::commented(&text))
    }
}

/// `settings` with the field at a dotted path set by `assignment`, a value of the option `flag`.
fn with<T: Serialize + DeserializeOwned>(
    settings: &T,
    flag: &str,
    assignment: &str,
    show: &str,
) -> Result<T, HostError> {
    let fail = |problem: String, remedy: &str| HostError::new(format!("{flag} {assignment}"), problem, remedy);
    let Some((path, text)) = assignment.split_once('=') else {
        return Err(fail("has no `=`".into(), "write it as FIELD=VALUE"));
    };
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let set = |value: toml::Value| -> Result<T, HostError> {
        let mut whole = toml::Value::try_from(settings).map_err(|e| fail(e.to_string(), ""))?;
        let mut at = &mut whole;
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            let next = match at {
                toml::Value::Array(items) => part.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
                other => other.get_mut(part),
            };
            at = next.ok_or_else(|| fail(format!("there is no `{part}` in the configuration"), show))?;
        }
        match at {
            toml::Value::Table(table) => table.insert(last.into(), value),
            _ => return Err(fail(format!("`{parents}` is no table"), show)),
        };
        whole.try_into().map_err(|e: toml::de::Error| fail(indented(&e), show))
    };
    let as_text = || toml::Value::String(text.into());
    match toml::from_str::<toml::Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value")) {
        None => set(as_text()),
        // A text may look like a number, as the number of a column does.
        Some(value) => set(value).or_else(|e| set(as_text()).map_err(|_| e)),
    }
}

/// No more landmarks than tokens, either way. Says what it changed.
fn limit_landmarks(config: &mut model::Config) -> Option<String> {
    let mut limited = false;
    for (grid, stage) in config.grids().into_iter().zip(&mut config.stages) {
        if let Mixer::Soft(Soft { landmarks: Landmarks::Pool([h, w]), .. }) = &mut stage.mixer {
            limited |= *h > grid.h || *w > grid.w;
            (*h, *w) = ((*h).min(grid.h), (*w).min(grid.w));
        }
    }
    limited.then(|| "landmarks limited to its tokens".into())
}

const SHOW: &str = "`softedge presets --show fashion-nano` shows all fields";

/// What the parser says, without the newline at its end.
fn indented(e: &toml::de::Error) -> String {
    e.to_string().trim_end().replace('\n', "\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nano() -> Config {
        Config::preset("fashion-nano").unwrap()
    }

    #[test]
    fn presets_survive_their_file() {
        for name in model::PRESETS {
            let config = Config::preset(name).unwrap();
            config.train.check().unwrap();
            let mut read: Config = toml::from_str(&config.to_toml().unwrap()).unwrap();
            read.model.adapts = true;
            assert_eq!(read, config, "{name}");
        }
    }

    #[test]
    fn every_field_of_a_preset_has_a_comment() {
        for name in model::PRESETS {
            let text = Config::preset(name).unwrap().to_toml().unwrap();
            for line in text.lines().filter(|line| line.contains(" = ")) {
                assert!(line.contains("  # "), "{name}: {line}");
            }
        }
    }

    #[test]
    fn a_model_can_be_named_in_a_file() {
        let config: Config = toml::from_str("model = \"watch-nano\"\ndata.source = \"watch\"").unwrap();
        assert_eq!((config.model.config.classes, config.model.adapts), (7, true));
        let error = toml::from_str::<Config>("model = \"watch-nan\"").unwrap_err().to_string();
        assert!(error.contains("fashion-nano"), "{error}");
        let error = toml::from_str::<Config>("model = \"watch-nano\"\n[train]\nepoch = 3").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("`epoch`"), "{error}");
    }

    #[test]
    fn fields_are_set_by_path() {
        let mut config = nano();
        config.set("train.lr=1e-4").unwrap();
        config.set("model.stages.1.depth=5").unwrap();
        config.set("data.source=my/folder").unwrap();
        config.set("data.read.size=[32, 32]").unwrap();
        config.data.set_read("label=0").unwrap();
        config.set("quant.bounds={ percentile = 99.9 }").unwrap();
        assert_eq!((config.train.lr, config.model.config.stages[1].depth), (1e-4, 5));
        assert_eq!((&*config.data.source, config.data.read.size), ("my/folder", Some([32, 32])));
        assert_eq!(config.data.read.label.as_deref(), Some("0"));
        assert_eq!((config.quant.bounds, config.model.adapts), (Bounds::Percentile(99.9), true));
        for (bad, what) in [
            ("train.lr", "no `=`"),
            ("train.lrr=1", "unknown field `lrr`"),
            ("trian.lr=1", "no `trian`"),
            ("train.epochs=many", "invalid type"),
            ("model.stages.7.depth=1", "no `7`"),
            ("quant.bounds=percentile", "{ percentile = 99.99 }"),
            ("quant.bounds={ percentil = 99 }", "{ percentile = 99.99 }"),
        ] {
            let error = config.set(bad).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_preset_takes_on_the_mean_and_deviation_of_other_data() {
        let classes = nano().model.config.classes;
        let names = (0..classes).map(|i| format!("c{i}")).collect();
        let pixels = (0..28 * 28).map(|i| if i % 2 == 0 { 10 } else { 20 }).collect();
        let set = Dataset::new("t", [28, 28, 1], Raw::U8(pixels), vec![0], names).unwrap();
        let fitted = |source: &str, settings: &[&str]| {
            let mut config = nano();
            config.data.source = source.into();
            settings.iter().for_each(|setting| config.set(setting).unwrap());
            let said = config.fit_to(&set);
            let input = config.model.config.input;
            (input.mean[0], input.std[0], said.len())
        };
        let own = nano().model.config.input;
        for source in ["fashion-mini", "fashion-mnist"] {
            assert_eq!(fitted(source, &[]), (own.mean[0], own.std[0], 0));
        }
        assert_eq!(fitted("mine", &[]), (15.0, 5.0, 1));
        assert_eq!(fitted("mine", &["model.name=other"]), (15.0, 5.0, 1));
        assert_eq!(fitted("mine", &["model.input.mean=[3.0]", "model.input.std=[2.0]"]), (3.0, 2.0, 0));
        assert_eq!(fitted("mine", &["model.input.std=[2.0]"]), (15.0, 2.0, 1));
    }

    #[test]
    fn a_preset_takes_on_the_shape_of_the_data() {
        let set = |classes: usize| {
            let names = (0..classes).map(|i| format!("c{i}")).collect();
            Dataset::new("t", [1, 2, 1], Raw::I16(vec![1, 3, 5, 7]), vec![0, 1], names).unwrap()
        };
        let mut config = nano();
        assert_eq!(
            config.fit_to(&set(3)),
            [
                "input 1x2x1 i16",
                "mean and deviation of the training samples",
                "landmarks limited to its tokens",
                "3 classes"
            ]
        );
        let model = &config.model.config;
        assert_eq!((model.input.mean[0], model.classes, &*model.labels[2]), (4.0, 3, "c2"));
        assert!(config.fit_to(&set(3)).is_empty());
        let mut fixed = nano();
        fixed.model.adapts = false;
        assert!(fixed.fit_to(&set(3)).is_empty());
        assert_eq!((fixed.model.config.classes, fixed.model.config.labels.len()), (10, 0));
    }
}
