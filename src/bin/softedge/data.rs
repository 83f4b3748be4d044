//! The samples of a configuration, split.

use crate::config::{Config, Data, Model};
use crate::infer;
use crate::model_file::ModelFile;
use crate::run_folder::CONFIG;
use crate::terminal::warning;
use clap::ValueEnum;
use softedge::data::{self, Dataset};
use softedge::error::HostError;
use softedge::train::Samples;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Split {
    /// What training learns from.
    Train,
    /// What it is watched by: the data's own validation set, or a part of the training set that is held out.
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
    /// any. Where the data have no validation set, what is held out for it depends on the labels,
    /// `train.validation` and `train.seed` alone.
    pub fn open(config: &Config) -> Result<Self, HostError> {
        if config.data.source.is_empty() {
            return Err(HostError::new(
                "data.source",
                "names no data",
                "name a data set or a path with --data, `--data fashion-mini` say",
            ));
        }
        let stored = data::read(&config.data.source, &config.data.read)?;
        let (mut train, mut validation, mut test) = stored.divided(&config.data.read)?;
        let Model { config: model, adapts } = &config.model;
        // A preset's classes give way where there are more or fewer; of another shape, the shape is the error.
        let input = [model.input.height, model.input.width, model.input.channels];
        let fits = if *adapts { model.classes == train.classes.len() } else { train.shape == input };
        if !model.labels.is_empty() && fits {
            let mut parts = vec![&mut train, &mut test];
            parts.extend(&mut validation);
            data::map_classes(&mut parts, &model.labels)?;
        }
        if validation.is_some() || config.train.validation == 0.0 {
            return Ok(Self { train, validation, test });
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

/// Data in place of a run's.
#[derive(clap::Args)]
pub struct Source {
    /// Samples of this data set in place of the run's.
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// How to read it where it is stored otherwise than the run's: a field of [data.read], `channels=6`
    /// say; may be given several times.
    #[arg(long, value_name = "FIELD=VALUE", requires = "data")]
    read: Vec<String>,
}

impl Source {
    /// Whether there is any.
    pub fn is_given(&self) -> bool {
        self.data.is_some()
    }

    /// Changes `data` accordingly.
    pub fn apply(&self, data: &mut Data) -> Result<(), HostError> {
        if let Some(source) = &self.data {
            data.source.clone_from(source);
        }
        self.read.iter().try_for_each(|assignment| data.set_read(assignment))
    }
}

/// Which samples a command on a model reads.
#[derive(clap::Args)]
pub struct Choice {
    #[command(flatten)]
    source: Source,
    /// The part of the data; keep the test set for the end. Default: what the run held out for
    /// validation, or with --data all.
    #[arg(long, value_enum)]
    split: Option<Split>,
}

impl Choice {
    /// The part that is read.
    pub fn split(&self) -> Split {
        self.split.unwrap_or(if self.source.is_given() { Split::All } else { Split::Validation })
    }

    /// The samples, with the classes in the order of `model`; `beside` is the configuration of the run
    /// that the model lies with.
    pub fn open(&self, model: &ModelFile, mut beside: Option<Config>) -> Result<Dataset, HostError> {
        let fail = |problem: String, remedy: &str| Err(HostError::new(model.path.display(), problem, remedy));
        let mut alone = Data::default();
        let data = beside.as_mut().map_or(&mut alone, |config| &mut config.data);
        self.source.apply(data)?;
        let set = match (self.source.is_given(), self.split()) {
            (true, Split::All) => data::read(&data.source, &data.read)?.whole()?,
            (true, Split::Test) => data::read(&data.source, &data.read)?.test(&data.read)?,
            (given, split) => match &beside {
                Some(config) => Sets::open(config)?.take(split)?,
                None if given => {
                    return fail(
                        format!("has no {CONFIG} beside it, so what it was trained on is not known"),
                        "use --split test or --split all, or keep the file in the folder of its run",
                    );
                }
                None => {
                    return fail(
                        format!("has no {CONFIG} beside it, so its data is not known"),
                        "name a data set or a path with --data",
                    );
                }
            },
        };
        infer::check_shape(model, &set)?;
        with_classes_of(model, set)
    }
}

/// `set` with the classes of `model`. One that names none has them by number: names are then taken in
/// their order, which a warning says.
fn with_classes_of(model: &ModelFile, set: Dataset) -> Result<Dataset, HostError> {
    let view = model.view();
    let n = view.output(0).len();
    if let Some(labels) = (0..n).map(|i| view.label(i).map(Into::into)).collect::<Option<Vec<String>>>() {
        return set.with_classes(&labels);
    }
    let numbers: Vec<String> = (0..n).map(|class| class.to_string()).collect();
    if numbers.starts_with(&set.classes) {
        return set.with_classes(&numbers);
    }
    if set.classes.len() == n {
        let (place, name, classes) = (model.path.display(), &set.name, set.classes.join(", "));
        warning(&format!(
            "{place} names no classes: those of {name} are taken in the order {classes}; check that it is the model's"
        ));
    }
    Ok(set)
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
