//! Checkpoints: everything a run needs to go on as if it had never stopped, in one safetensors file.
//!
//! | tensor | what |
//! |---|---|
//! | `NAME` | parameter or running statistic |
//! | `optimizer.first.NAME`, `optimizer.second.NAME` | AdamW's moments of a parameter |
//! | `average.NAME` | moving average of a parameter or statistic, if the run keeps one |
//!
//! | metadata | what |
//! |---|---|
//! | `softedge.model` | the model's configuration, TOML |
//! | `softedge.train` | the run's [`Config`](super::Config), TOML |
//! | `softedge.position` | where the run is, TOML |
//! | `softedge.checksum` | over all tensors and all other metadata |
//!
//! A checkpoint is written to a file beside it, flushed to the disk and renamed: whenever the
//! process is killed, there is a whole checkpoint.

use crate::error::HostError;
use crate::math::random::mix;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::borrow::ToOwned;
use std::collections::{BTreeMap, HashMap};
use std::format;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

pub(super) const FIRST: &str = "optimizer.first.";
pub(super) const SECOND: &str = "optimizer.second.";
pub(super) const AVERAGE: &str = "average.";

const MODEL: &str = "softedge.model";
const TRAIN: &str = "softedge.train";
const POSITION: &str = "softedge.position";
const CHECKSUM: &str = "softedge.checksum";

/// What to do about a checkpoint of another model.
const OTHER: &str = "use the model configuration it was trained with";

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Elements.
    pub values: Vec<f32>,
}

/// Tensors by name, with the texts that describe them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// The file it was read from, for messages.
    pub path: PathBuf,
    /// All tensors.
    pub tensors: BTreeMap<String, Values>,
    /// The model's configuration, TOML.
    pub model: String,
    /// The run's configuration, TOML.
    pub train: String,
    /// Where the run is, TOML.
    pub position: String,
}

impl Checkpoint {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or is not a checkpoint.
    pub fn read(path: &Path) -> Result<Self, HostError> {
        let fail = |problem: String, remedy: &str| HostError::new(path.display(), problem, remedy);
        let damaged = |problem: String| fail(problem, "the file is damaged: go back to an earlier checkpoint");
        let bytes = fs::read(path).map_err(|e| fail(format!("cannot be read: {e}"), "check the path"))?;
        let file =
            SafeTensors::deserialize(&bytes).map_err(|e| damaged(format!("not a whole safetensors file: {e}")))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let text = |key: &str| {
            metadata.get(key).cloned().ok_or_else(|| {
                fail(format!("has no metadata `{key}`"), "give a checkpoint that `softedge train` has written")
            })
        };
        let mut checkpoint = Self {
            path: path.to_owned(),
            tensors: BTreeMap::new(),
            model: text(MODEL)?,
            train: text(TRAIN)?,
            position: text(POSITION)?,
        };
        for (name, view) in file.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(damaged(format!("tensor `{name}` is of type {} where f32 is needed", view.dtype())));
            }
            let (values, _) = view.data().as_chunks::<4>();
            let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
            checkpoint.tensors.insert(name, Values { shape: view.shape().into(), values });
        }
        if text(CHECKSUM)? != checkpoint.checksum() {
            return Err(damaged("the checksum does not match what is there".to_owned()));
        }
        Ok(checkpoint)
    }

    /// Writes the checkpoint to `path`: all of it, or nothing.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, path: &Path) -> Result<(), HostError> {
        let metadata = [
            (MODEL, self.model.clone()),
            (TRAIN, self.train.clone()),
            (POSITION, self.position.clone()),
            (CHECKSUM, self.checksum()),
        ];
        let metadata: HashMap<String, String> = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let bytes: Vec<(&String, &Values, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, t)| (name, t, t.values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let views = bytes.iter().map(|(name, t, bytes)| {
            TensorView::new(Dtype::F32, t.shape.clone(), bytes).map(|view| (name.as_str(), view))
        });
        let fail = |e: &dyn core::fmt::Display| {
            HostError::new(path.display(), format!("cannot be written: {e}"), "check the folder and the space left")
        };
        let views: Vec<_> = views.collect::<Result<_, _>>().map_err(|e| fail(&e))?;
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| fail(&e))?;
        replace(path, &bytes).map_err(|e| fail(&e))
    }

    /// The values of a parameter or statistic for use after training: averaged where the run averages
    /// them.
    pub fn weights(&self, name: &str) -> Option<&Values> {
        self.tensors.get(&format!("{AVERAGE}{name}")).or_else(|| self.tensors.get(name))
    }

    /// One of the texts, parsed.
    pub(super) fn parsed<T: serde::de::DeserializeOwned>(&self, key: &str, text: &str) -> Result<T, HostError> {
        toml::from_str(text).map_err(|e| {
            self.error(key, format!("cannot be read: {}", e.message()), "it was written by another version of softedge")
        })
    }

    /// Copies tensor `name` to where a Program has it.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape, or is not finite.
    pub(super) fn copy(&self, name: &str, shape: &[usize], to: &mut [f32]) -> Result<(), HostError> {
        self.copy_values(name, self.tensors.get(name), shape, to)
    }

    /// As [`copy`](Self::copy), of [`weights`](Self::weights).
    pub(super) fn copy_weights(&self, name: &str, shape: &[usize], to: &mut [f32]) -> Result<(), HostError> {
        self.copy_values(name, self.weights(name), shape, to)
    }

    fn copy_values(&self, name: &str, from: Option<&Values>, shape: &[usize], to: &mut [f32]) -> Result<(), HostError> {
        let Some(Values { shape: found, values }) = from else {
            return Err(self.error(name, format!("needed with shape {shape:?}, and there is no such tensor"), OTHER));
        };
        if found != shape || values.len() != to.len() {
            return Err(self.error(name, format!("needed with shape {shape:?}, and it has shape {found:?}"), OTHER));
        }
        if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
            return Err(self.error(name, format!("holds {bad}"), "go back to an earlier checkpoint"));
        }
        to.copy_from_slice(values);
        Ok(())
    }

    /// Checks that there is no parameter beside those that are `known`.
    pub(super) fn check_no_more(&self, known: impl Fn(&str) -> bool) -> Result<(), HostError> {
        let mut names = self.tensors.keys().filter(|n| ![FIRST, SECOND, AVERAGE].iter().any(|p| n.starts_with(p)));
        match names.find(|name| !known(name)) {
            Some(name) => Err(self.error(name, "there, and the model has no such tensor".to_owned(), OTHER)),
            None => Ok(()),
        }
    }

    fn error(&self, part: &str, problem: String, remedy: &str) -> HostError {
        HostError::new(format!("{}: {part}", self.path.display()), problem, remedy)
    }

    fn checksum(&self) -> String {
        let mut hash = 0;
        let mut feed = |word: u64| hash = mix(hash ^ word);
        for text in [&self.model, &self.train, &self.position] {
            text.bytes().for_each(|b| feed(u64::from(b)));
            feed(u64::MAX);
        }
        for (name, t) in &self.tensors {
            name.bytes().for_each(|b| feed(u64::from(b)));
            t.shape.iter().for_each(|&d| feed(d as u64));
            t.values.iter().for_each(|v| feed(u64::from(v.to_bits())));
        }
        format!("{hash:016x}")
    }
}

/// Replaces the contents of `path` in one step.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    // The rename itself is on the disk when its folder is.
    #[cfg(unix)]
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
