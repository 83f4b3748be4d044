//! The samples of a configuration, split.

use crate::config::Config;
use crate::run_folder::CONFIG;
use clap::ValueEnum;
use softedge::data::{self, Dataset};
use softedge::error::HostError;
use softedge::train::Samples;
use std::path::Path;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Split {
    /// What training learns from.
    Train,
    /// What it is watched by: a part of the training set that is held out.
    Validation,
    /// What nothing is chosen by.
    Test,
}

impl Split {
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }
}

/// A data set in its three parts.
pub struct Sets {
    pub train: Dataset,
    /// Absent where nothing is held out.
    pub validation: Option<Dataset>,
    pub test: Dataset,
}

impl Sets {
    /// Opens the data of `config`. What is held out for validation depends on the labels,
    /// `train.validation` and `train.seed` alone.
    pub fn open(config: &Config) -> Result<Self, HostError> {
        if config.data.source.is_empty() {
            return Err(HostError::new(
                "data.source",
                "names no data",
                "name a data set or a path with --data, `--data fashion-mini` say",
            ));
        }
        let (train, test) = data::open(&config.data.source, &config.data.read)?;
        if config.train.validation == 0.0 {
            return Ok(Self { train, validation: None, test });
        }
        let (train, validation) = train.split(config.train.validation, config.train.seed)?;
        Ok(Self { train, validation: Some(validation), test })
    }

    /// One part.
    pub fn take(self, split: Split) -> Result<Dataset, HostError> {
        match split {
            Split::Train => Ok(self.train),
            Split::Test => Ok(self.test),
            Split::Validation => self.validation.ok_or_else(|| {
                HostError::new("train.validation", "is 0, so nothing was held out", "use --split train or --split test")
            }),
        }
    }
}

/// The samples that a command on the file `model` reads: those of `source`, or else of the configuration
/// beside the file.
pub fn named(model: &Path, beside: Option<Config>, source: Option<&str>, split: Split) -> Result<Dataset, HostError> {
    match (beside, source) {
        (Some(mut config), source) => {
            config.data.source = source.map_or(config.data.source, Into::into);
            Sets::open(&config)?.take(split)
        }
        (None, Some(source)) if split == Split::Test => Ok(data::open(source, &data::Options::default())?.1),
        (None, Some(_)) => Err(HostError::new(
            model.display(),
            format!("has no {CONFIG} beside it, so what it was trained on is not known"),
            "use --split test, or keep the file in the folder of its run",
        )),
        (None, None) => Err(HostError::new(
            model.display(),
            format!("has no {CONFIG} beside it, so its data is not known"),
            "name a data set or a path with --data",
        )),
    }
}

type Fill<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

/// A data set as training takes it.
pub struct Filled<'a> {
    set: &'a Dataset,
    fill: Box<Fill<'a>>,
}

impl<'a> Filled<'a> {
    pub fn new(set: &'a Dataset) -> Self {
        Self { set, fill: Box::new(|i, out: &mut [f32]| set.sample_f32(i, out)) }
    }

    pub fn samples(&self) -> Samples<'_> {
        let Self { set, fill } = self;
        Samples { len: set.len(), fill: &**fill, labels: &set.labels, shape: set.shape, classes: set.classes.len() }
    }
}
