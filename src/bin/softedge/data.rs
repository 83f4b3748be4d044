//! The samples of a configuration, split.

use crate::config::{Config, Model};
use crate::infer;
use crate::model_file::ModelFile;
use crate::run_folder::CONFIG;
use clap::ValueEnum;
use softedge::data::{self, Dataset};
use softedge::error::HostError;
use softedge::train::Samples;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Split {
    /// What training learns from.
    Train,
    /// What it is watched by: a part of the training set that is held out.
    Validation,
    /// What nothing is chosen by.
    Test,
    /// Every sample there is.
    All,
}

impl Split {
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
            Split::All => "all",
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
    /// Opens the data of `config`, with the classes in the order of its model's labels where it has
    /// any. What is held out for validation depends on the labels,
    /// `train.validation` and `train.seed` alone.
    pub fn open(config: &Config) -> Result<Self, HostError> {
        if config.data.source.is_empty() {
            return Err(HostError::new(
                "data.source",
                "names no data",
                "name a data set or a path with --data, `--data fashion-mini` say",
            ));
        }
        let (mut train, mut test) = data::open(&config.data.source, &config.data.read)?;
        let Model { config: model, adapts } = &config.model;
        // A preset's classes give way where there are more or fewer; of another shape, the shape is the error.
        let input = [model.input.height, model.input.width, model.input.channels];
        let fits = if *adapts { model.classes == train.classes.len() } else { train.shape == input };
        if !model.labels.is_empty() && fits {
            data::map_classes(&mut [&mut train, &mut test], &model.labels)?;
        }
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
            Split::All => {
                let all = if let Some(held) = &self.validation { self.train.join(held)? } else { self.train };
                all.join(&self.test)
            }
            Split::Validation => self.validation.ok_or_else(|| {
                HostError::new("train.validation", "is 0, so nothing was held out", "use --split train or --split test")
            }),
        }
    }
}

/// Which samples a command on a model reads.
#[derive(clap::Args)]
pub struct Choice {
    /// Samples of this data set in place of the run's.
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// The part of the data; keep the test set for the end. Default: what the run held out for
    /// validation, or with --data all.
    #[arg(long, value_enum)]
    split: Option<Split>,
}

impl Choice {
    /// The part that is read.
    pub fn split(&self) -> Split {
        self.split.unwrap_or(if self.data.is_some() { Split::All } else { Split::Validation })
    }

    /// The samples, with the classes in the order of `model`; `beside` is the configuration of the run
    /// that the model lies with.
    pub fn open(&self, model: &ModelFile, beside: Option<Config>) -> Result<Dataset, HostError> {
        let fail = |problem: String, remedy: &str| Err(HostError::new(model.path.display(), problem, remedy));
        let set = match (beside, self.data.as_deref(), self.split()) {
            (config, Some(source), Split::All) => {
                data::open_whole(source, &config.map(|c| c.data.read).unwrap_or_default())?
            }
            (Some(mut config), source, split) => {
                config.data.source = source.map_or(config.data.source, Into::into);
                Sets::open(&config)?.take(split)?
            }
            (None, Some(source), Split::Test) => data::open(source, &data::Options::default())?.1,
            (None, Some(_), _) => {
                return fail(
                    format!("has no {CONFIG} beside it, so what it was trained on is not known"),
                    "use --split test or --split all, or keep the file in the folder of its run",
                );
            }
            (None, None, _) => {
                return fail(
                    format!("has no {CONFIG} beside it, so its data is not known"),
                    "name a data set or a path with --data",
                );
            }
        };
        infer::check_shape(model, &set)?;
        let labels: Option<Vec<String>> =
            (0..model.view().output(0).len()).map(|i| model.view().label(i).map(Into::into)).collect();
        match labels {
            Some(labels) => set.with_classes(&labels),
            None => Ok(set),
        }
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
