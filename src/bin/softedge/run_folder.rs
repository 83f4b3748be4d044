//! The folder of a run, and what `eval`, `quantise` and `export` find there.

use crate::config::{Config, Data, Model, Quant};
use crate::model_file::ModelFile;
use softedge::data::Dataset;
use softedge::engine::Buffer;
use softedge::error::{Error, HostError};
use softedge::format::{self, View};
use softedge::math::random::Stream;
use softedge::model::{self, Mode};
use softedge::program::{Plan, Program, in_strips};
use softedge::quant;
use softedge::train::Checkpoint;
use std::fs;
use std::path::{Path, PathBuf};

/// The run's configuration, whole.
pub const CONFIG: &str = "config.toml";
/// A line per epoch.
pub const METRICS: &str = "metrics.csv";
/// Loss and accuracy over the epochs.
pub const CURVES: &str = "curves.svg";
/// The confusion matrix of the best epoch on the validation samples.
pub const CONFUSION: &str = "confusion.svg";
/// The checkpoint a run goes on from.
pub const LAST: &str = "last.safetensors";
/// The checkpoint of the epoch with the best validation accuracy.
pub const BEST: &str = "best.safetensors";
/// The integer model.
pub const MODEL: &str = "model.soft";

/// Checks that `folder` holds no run.
pub fn check_free(folder: &Path) -> Result<(), HostError> {
    if ![CONFIG, BEST, LAST].iter().any(|name| folder.join(name).exists()) {
        return Ok(());
    }
    Err(HostError::new(
        folder.display(),
        "holds a run already",
        format!("go on with it by `softedge train --resume {}`, or name another folder with --out", folder.display()),
    ))
}

/// Makes a folder for a run.
pub fn make(folder: &Path) -> Result<(), HostError> {
    check_free(folder)?;
    fs::create_dir_all(folder)
        .map_err(|e| HostError::new(folder.display(), format!("cannot be made: {e}"), "name another folder with --out"))
}

/// Writes a file, with its name in the error. What was there stays until all of the new one is.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<(), HostError> {
    let replaced = if path.exists() && !path.is_file() {
        // A pipe or a device is written to.
        fs::write(path, contents)
    } else {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        fs::write(&new, contents).and_then(|()| fs::rename(&new, path))
    };
    replaced.map_err(|e| {
        HostError::new(path.display(), format!("cannot be written: {e}"), "check the folder and the space left")
    })
}

/// Checks that nothing is lost by writing `output`: it is none of the files that are read, no checkpoint and
/// no configuration of a run.
pub fn check_output(output: &Path, inputs: &[&Path]) -> Result<(), HostError> {
    let fail = |problem: &str| Err(HostError::new(output.display(), problem, "name another file to write"));
    let Ok(there) = output.canonicalize() else { return Ok(()) };
    if inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == there)) {
        return fail("is read, and would be overwritten");
    }
    let of_a_run = there.file_name().is_some_and(|name| name == CONFIG) && Config::read(&there).is_ok();
    if of_a_run || there.is_file() && Checkpoint::read(&there).is_ok() {
        return fail("belongs to a run, and would be overwritten");
    }
    Ok(())
}

/// A trained model: its checkpoint, and the configuration it was trained with.
pub struct Trained {
    pub config: Config,
    pub checkpoint: Checkpoint,
    /// The folder of the checkpoint.
    pub folder: PathBuf,
}

impl Trained {
    /// Opens the best checkpoint of a run's folder, or a checkpoint.
    pub fn open(path: &Path) -> Result<Self, HostError> {
        let file = if path.is_dir() {
            let found = [BEST, LAST].map(|name| path.join(name)).into_iter().find(|file| file.is_file());
            found.ok_or_else(|| {
                HostError::new(
                    path.display(),
                    format!("has no {BEST} and no {LAST}"),
                    "name the folder of a run that `softedge train` began",
                )
            })?
        } else {
            path.into()
        };
        let checkpoint = Checkpoint::read(&file)?;
        let parsed =
            |what: &str, e: toml::de::Error| HostError::new(format!("{}, {what}", file.display()), e.to_string(), "");
        let model: model::Config = toml::from_str(&checkpoint.model).map_err(|e| parsed("model", e))?;
        let train = toml::from_str(&checkpoint.train).map_err(|e| parsed("train", e))?;
        let folder = file.parent().map(PathBuf::from).unwrap_or_default();
        let (data, quant) = match beside(&file)? {
            Some(config) => (config.data, config.quant),
            None => (Data::default(), Quant::default()),
        };
        let config = Config { model: Model { config: model, adapts: false }, data, train, quant };
        Ok(Self { config, checkpoint, folder })
    }

    /// The integer model in the folder, if it was made after the checkpoint and in this version of the format.
    pub fn quantised(&self) -> Option<PathBuf> {
        let file = self.folder.join(MODEL);
        let made = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
        let bytes = Buffer::copy_of(&fs::read(&file).ok()?);
        let of_another_version = matches!(View::new_checked(bytes.bytes()), Err(Error::Version { .. }));
        (!of_another_version && made(&file)? >= made(&self.checkpoint.path)?).then_some(file)
    }

    /// The model in f32 for `batch` inputs, with its parameters baked in.
    pub fn frozen(&self, batch: usize) -> Result<Program, HostError> {
        let built = model::build(&self.config.model.config, Mode::Infer { batch })?;
        quant::freeze(&built.program, |name| self.checkpoint.weights(name).map(|v| &v.values[..]))
    }
}

/// Indices of `n` samples or all: one, by chance, of each of `n` equal parts of the set, which may be
/// sorted by class or have its classes in turn.
pub fn picked(set: &Dataset, n: usize) -> Vec<usize> {
    let (n, chance) = (n.min(set.len()), Stream::new(0));
    let start = |i: usize| i * set.len() / n;
    (0..n).map(|i| start(i) + chance.below(i as u64, (start(i + 1) - start(i)) as u32) as usize).collect()
}

/// The configuration in the folder of `file`, if there is one.
pub fn beside(file: &Path) -> Result<Option<Config>, HostError> {
    let path = file.with_file_name(CONFIG);
    if path.is_file() { Config::read(&path).map(Some) } else { Ok(None) }
}

/// A Program as the file at `path` will be: in strips where that saves memory.
pub fn compiled(path: &Path, program: &Program) -> Result<ModelFile, HostError> {
    let program = in_strips(program);
    ModelFile::new(path, &format::write(&program, &Plan::new(&program))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use softedge::data::Raw;

    #[test]
    fn samples_are_picked_from_all_classes_in_any_order() {
        let classes = || (0..4).map(|c| c.to_string()).collect();
        for order in [|i: usize| i % 4, |i: usize| i / 16] {
            let labels: Vec<u32> = (0..64).map(|i| order(i) as u32).collect();
            let set = Dataset::new("t", [1, 1, 1], Raw::U8(vec![0; 64]), labels, classes()).unwrap();
            let picked = picked(&set, 16);
            assert!(picked.is_sorted() && picked.len() == 16);
            assert!((0..4).all(|class| picked.iter().any(|&i| set.labels[i] == class)), "{picked:?}");
        }
    }
}
