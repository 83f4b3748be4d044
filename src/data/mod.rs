//! Readers of data sets: IDX, image folders, CSV, NPZ; two small sets are bundled.
//!
//! [`open`] recognises what a path holds and returns a training and a test [`Dataset`], whole in
//! memory; [`read`] gives the parts as they are stored. Values stay as they were stored: models carry their own normalisation. Nothing here is
//! random but the hold-out of a source without a test set, which [`Options::seed`] fixes.
//!
//! ```
//! # fn main() -> Result<(), softedge::error::HostError> {
//! let (train, test) = softedge::data::open("watch", &Default::default())?;
//! assert_eq!(train.shape, [1, 128, 6]);
//! assert_eq!((train.len(), test.len()), (1456, 364));
//! # Ok(())
//! # }
//! ```

use crate::error::HostError;
use std::ffi::OsStr;
use std::format;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

pub mod bundle;
pub mod csv;
mod dataset;
pub mod folder;
pub mod idx;
pub mod npz;

pub use dataset::{Dataset, Raw, map_classes};

/// How to read a source; the defaults suit most.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Image folders: height and width to resize to. Default: as stored, which must be one size.
    pub size: Option<[usize; 2]>,
    /// Image folders: 1 for grey, 3 for RGB; default: as the first image. CSV and vectors in NPZ:
    /// a row is a time series of this many interleaved channels; default: a vector of features.
    pub channels: Option<usize>,
    /// CSV: name of the label column, or its number from 0 where there is no header. Default: the
    /// last column.
    pub label: Option<String>,
    /// CSV: whether the first line is a header. Default: it is one if none of its features is a
    /// number.
    pub header: Option<bool>,
    /// The part of every class that is held out where the source has no test set, in `(0, 1)`.
    /// Default: 0.2.
    pub holdout: f32,
    /// Seed of the choice of what is held out. Default: 0.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { size: None, channels: None, label: None, header: None, holdout: 0.2, seed: 0 }
    }
}

/// A source as it is stored: in parts, or all for training where it is not divided. At least one is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// What training learns from.
    pub train: Option<Dataset>,
    /// What training is watched by.
    pub validation: Option<Dataset>,
    /// What nothing is chosen by.
    pub test: Option<Dataset>,
}

impl Stored {
    /// A source that is not divided.
    fn whole_of(train: Dataset) -> Self {
        Self { train: Some(train), ..Self::default() }
    }

    /// What `read` makes of the places of the three parts. The first there is gives the classes of all;
    /// of a training set and one other part, that is the test set.
    fn of<P>(
        [train, mut validation, mut test]: [Option<P>; 3],
        mut read: impl FnMut(P, Option<&[String]>) -> Result<Dataset, HostError>,
    ) -> Result<Self, HostError> {
        if train.is_some() && test.is_none() {
            test = validation.take();
        }
        let mut stored = Self::default();
        let mut classes: Option<Vec<String>> = None;
        for (part, place) in
            [(&mut stored.train, train), (&mut stored.validation, validation), (&mut stored.test, test)]
        {
            if let Some(place) = place {
                let set = read(place, classes.as_deref())?;
                classes.get_or_insert_with(|| set.classes.clone());
                *part = Some(set);
            }
        }
        Ok(stored)
    }

    /// All samples: those for training, for validation, for the test.
    ///
    /// # Errors
    /// Parts that do not fit each other.
    pub fn whole(self) -> Result<Dataset, HostError> {
        let mut parts = [self.train, self.validation, self.test].into_iter().flatten();
        let first = parts.next().ok_or_else(|| HostError::new("data", "no samples", "give it at least one"))?;
        parts.try_fold(first, |all, part| all.join(&part))
    }

    /// The test set, which is held out where there is none.
    ///
    /// # Errors
    /// As for [`divided`](Self::divided).
    pub fn test(self, options: &Options) -> Result<Dataset, HostError> {
        match self.test {
            Some(test) => Ok(test),
            None => self.divided(options).map(|(_, _, test)| test),
        }
    }

    /// The training, the validation and the test set. Without a test set, a part of the training samples is
    /// held out for it.
    ///
    /// # Errors
    /// Nothing to train on, or too little to hold some out.
    pub fn divided(self, options: &Options) -> Result<(Dataset, Option<Dataset>, Dataset), HostError> {
        match self {
            Self { train: Some(train), validation, test: Some(test) } => Ok((train, validation, test)),
            Self { train: Some(train), validation, test: None } => {
                let (train, test) = train.split(options.holdout, options.seed)?;
                Ok((train, validation, test))
            }
            Self { train: None, validation, test } => {
                let name = test.or(validation).map_or_else(String::new, |set| set.name);
                Err(HostError::new(
                    name,
                    "has no training samples, only held-out ones",
                    "evaluate on it, or add a training set",
                ))
            }
        }
    }

    /// An error at `place` unless all parts have one shape, element type and classes.
    fn check(&self, place: &str) -> Result<(), HostError> {
        let mut parts = [("training", &self.train), ("validation", &self.validation), ("test", &self.test)]
            .into_iter()
            .filter_map(|(what, part)| Some((what, part.as_ref()?)));
        let Some((first, set)) = parts.next() else { return Ok(()) };
        parts.try_for_each(|(what, other)| set.check_alike(first, other, what, place))
    }
}

/// The training and the test set of `source`: a built-in name or a path; see [`read`]. Samples for
/// validation are among those for training.
///
/// # Errors
/// As for [`read`] and [`Stored::divided`].
pub fn open(source: &str, options: &Options) -> Result<(Dataset, Dataset), HostError> {
    let (train, validation, test) = read(source, options)?.divided(options)?;
    match validation {
        Some(validation) => Ok((train.join(&validation)?, test)),
        None => Ok((train, test)),
    }
}

/// What is stored at `source`: a built-in name or a path.
///
/// | source | what is read |
/// |---|---|
/// | `fashion-mini` | 5000 + 1000 images of Fashion-MNIST, [bundled](bundle) |
/// | `watch` | 1456 + 364 windows of a smartwatch's motion sensor, [bundled](bundle) |
/// | `fashion-mnist` | the full set where [`idx::fashion_mnist`] finds it |
/// | a folder with `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte`, plain or `.gz` | [`idx`] |
/// | a `.csv` or `.tsv` file, or a folder with `train.csv`, `val.csv`, `test.csv` | [`csv`](mod@csv) |
/// | a `.npz` file, or a folder of `.npy` files | [`npz`] |
/// | a folder of folders of images | [`folder`] |
///
/// A source may hold a test set alone. A validation set without a test set beside it is the test set.
/// A path that is spelled like a built-in name is written `./watch`.
///
/// # Errors
/// A source that is not there, is none of these or is damaged.
pub fn read(source: &str, options: &Options) -> Result<Stored, HostError> {
    let both = |(train, test)| Stored { train: Some(train), validation: None, test: Some(test) };
    match source {
        "fashion-mini" => return bundle::fashion_mini().map(both),
        "watch" => return bundle::watch().map(both),
        "fashion-mnist" => return idx::fashion_mnist().map(both),
        _ => {}
    }
    let path = Path::new(source);
    let stored = if path.is_dir() {
        if idx::recognises(path) {
            idx::read(path)?
        } else if csv::recognises(path) {
            csv::read(path, options)?
        } else if npz::recognises(path) {
            npz::read(path, options)?
        } else {
            folder::read(path, options)?
        }
    } else if !path.exists() {
        return Err(HostError::new(source, "neither a path nor the name of a built-in data set", KNOWN));
    } else {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or("").to_ascii_lowercase();
        match extension.as_str() {
            "csv" | "tsv" => csv::read(path, options)?,
            "npz" => npz::read(path, options)?,
            "png" | "jpg" | "jpeg" => {
                return Err(HostError::new(
                    source,
                    "is one image where a data set is needed",
                    "name a folder that holds a folder of images for each class",
                ));
            }
            _ => return Err(HostError::new(source, format!("a file of unknown kind \"{extension}\""), KNOWN)),
        }
    };
    stored.check(source)?;
    Ok(stored)
}

const KNOWN: &str = "built-in are fashion-mini, watch and fashion-mnist; readable are folders of images by class, \
    folders of IDX files, .csv, .tsv and .npz files, and folders of .npy files";

/// The file name of `path` without its extension: what a data set is called.
fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// An error of the operating system at `path`.
fn io_error(path: &Path, error: &std::io::Error) -> HostError {
    HostError::new(path.display(), format!("cannot be read: {error}"), "")
}

/// Class names for labels that are plain numbers.
fn numbered(labels: &[u32], place: &Path) -> Result<Vec<String>, HostError> {
    // More classes than this is a regression target or an identifier.
    const MOST: u32 = 65_536;
    let largest = labels.iter().copied().max().unwrap_or(0);
    if largest >= MOST {
        return Err(HostError::new(
            place.display(),
            format!("the label {largest} where class indices below {MOST} are needed"),
            "number the classes 0, 1, 2, ...",
        ));
    }
    Ok((0..=largest).map(|class| format!("{class}")).collect())
}

/// The product, if it does not overflow.
fn product(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// The shape of a row of `features`: a vector, or a time series of interleaved channels.
fn row_shape(features: usize, channels: Option<usize>, place: &Path) -> Result<[usize; 3], HostError> {
    match channels {
        None => Ok([1, 1, features]),
        Some(channels) if channels > 0 && features.is_multiple_of(channels) => Ok([1, features / channels, channels]),
        Some(channels) => Err(HostError::new(
            place.display(),
            format!("{features} features do not make a time series of {channels} channels"),
            "give as `channels` a divisor of the number of features",
        )),
    }
}
