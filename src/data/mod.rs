//! Readers of data sets: IDX, image folders, CSV, NPZ; two small sets are bundled.
//!
//! [`open`] recognises what a path holds and returns a training and a test [`Dataset`], whole in
//! memory. Values stay as they were stored: models carry their own normalisation. Nothing here is
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

/// The training and the test set of `source`: a built-in name or a path.
///
/// | source | what is read |
/// |---|---|
/// | `fashion-mini` | 5000 + 1000 images of Fashion-MNIST, [bundled](bundle) |
/// | `watch` | 1456 + 364 windows of a smartwatch's motion sensor, [bundled](bundle) |
/// | `fashion-mnist` | the full set where [`idx::fashion_mnist`] finds it |
/// | a folder with `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte`, plain or `.gz` | [`idx`] |
/// | a `.csv` or `.tsv` file, or a folder with `train.csv` and `test.csv` | [`csv`](mod@csv) |
/// | a `.npz` file, or a folder of `.npy` files | [`npz`] |
/// | a folder of folders of images | [`folder`] |
///
/// A path that is spelled like a built-in name is written `./watch`.
///
/// # Errors
/// A source that is not there, is none of these or is damaged.
pub fn open(source: &str, options: &Options) -> Result<(Dataset, Dataset), HostError> {
    match read(source, options)? {
        (train, Some(test)) => Ok((train, test)),
        (all, None) => all.split(options.holdout, options.seed),
    }
}

/// All samples of `source`, as [`open`] finds them: those for training, then those for the test.
///
/// # Errors
/// As for [`open`].
pub fn open_whole(source: &str, options: &Options) -> Result<Dataset, HostError> {
    match read(source, options)? {
        (train, Some(test)) => train.join(&test),
        (all, None) => Ok(all),
    }
}

/// The training and the test set of `source`; or all of it where it is not divided.
fn read(source: &str, options: &Options) -> Result<(Dataset, Option<Dataset>), HostError> {
    match source {
        "fashion-mini" => return bundle::fashion_mini().map(|(train, test)| (train, Some(test))),
        "watch" => return bundle::watch().map(|(train, test)| (train, Some(test))),
        "fashion-mnist" => return idx::fashion_mnist().map(|(train, test)| (train, Some(test))),
        _ => {}
    }
    let path = Path::new(source);
    let (train, test) = if path.is_dir() {
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
            _ => return Err(HostError::new(source, format!("a file of unknown kind \"{extension}\""), KNOWN)),
        }
    };
    if let Some(test) = &test {
        train.check_alike(test, source)?;
    }
    Ok((train, test))
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
