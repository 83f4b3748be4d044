//! `softedge eval`.

use crate::data::Choice;
use crate::infer;
use crate::model_file::ModelFile;
use crate::report::confusion;
use crate::run_folder::{self, MODEL, Trained};
use crate::terminal::{Table, percent, say};
use softedge::data::Dataset;
use softedge::error::HostError;
use softedge::format::MAGIC;
use softedge::train::Evaluation;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The folder of a run, a checkpoint, or a .soft model.
    model: PathBuf,
    #[command(flatten)]
    samples: Choice,
    /// Draw the confusion matrix.
    #[arg(long, value_name = "FILE.svg")]
    confusion: Option<PathBuf>,
    /// Threads; 0 takes as many as there are cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

pub fn run(args: Args) -> Result<(), HostError> {
    if let Some(drawing) = &args.confusion {
        run_folder::check_output(drawing, &[&args.model, &args.model.join(MODEL)])?;
    }
    let (models, set) = open(&args)?;
    say!("{}, {} samples of {}\n", args.samples.split().name(), set.len(), set.name);
    let mut evaluations = Vec::new();
    for model in &models {
        evaluations.push(infer::evaluate(model, &set, args.threads)?);
    }
    let mut table = Table::new(&["model", "arithmetic", ">loss", ">correct", ">accuracy"]);
    for (model, e) in models.iter().zip(&evaluations) {
        let correct = format!("{} of {}", e.correct(), e.samples());
        let arithmetic = if model.is_integer() { "integers" } else { "f32" };
        table.row([
            model.path.display().to_string(),
            arithmetic.into(),
            format!("{:.4}", e.loss()),
            correct,
            percent(e.accuracy()),
        ]);
    }
    say!("{table}\n");
    // The last is the one for a device, if there is one.
    if let Some(evaluation) = evaluations.last() {
        say!("{}", per_class(evaluation, &set));
        if let Some(path) = args.confusion {
            let title = format!("{}, {}", set.name, args.samples.split().name());
            run_folder::write(&path, confusion::draw(&title, evaluation, &set.classes))?;
            say!("\nconfusion matrix   {}", path.display());
        }
    }
    Ok(())
}

/// The models that `args` names, and the samples.
fn open(args: &Args) -> Result<(Vec<ModelFile>, Dataset), HostError> {
    // A damaged model is one by its name, any other by its first bytes.
    let is_file = args.model.extension().is_some_and(|e| e.eq_ignore_ascii_case("soft")) || has_magic(&args.model);
    let (models, config) = if is_file {
        (vec![ModelFile::open(&args.model)?], run_folder::beside(&args.model)?)
    } else {
        let trained = Trained::open(&args.model)?;
        let mut models = vec![run_folder::compiled(&trained.checkpoint.path, &trained.frozen(1)?)?];
        if args.model.is_dir() {
            match trained.quantised() {
                Some(integer) => models.push(ModelFile::open(&integer)?),
                None if trained.folder.join(MODEL).is_file() => say!(
                    "{MODEL} is older than the checkpoint and left out; renew it by `softedge quantise {}`\n",
                    args.model.display()
                ),
                None => {}
            }
        }
        (models, Some(trained.config))
    };
    let set = args.samples.open(&models[0], config)?;
    Ok((models, set))
}

/// Whether the file starts as a `.soft` file does.
fn has_magic(path: &Path) -> bool {
    let mut start = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && u32::from_le_bytes(start) == MAGIC
}

fn per_class(evaluation: &Evaluation, set: &Dataset) -> Table {
    let mut table = Table::new(&["class", ">samples", ">recall", ">precision", "most often taken for"]);
    for (class, name) in set.classes.iter().enumerate() {
        let row = evaluation.confusion(class);
        let part = |p: Option<f64>| p.map_or("-".into(), percent);
        let others = row.iter().enumerate().filter(|(i, n)| *i != class && **n > 0);
        let worst = others.max_by_key(|(i, n)| (**n, std::cmp::Reverse(*i)));
        table.row([
            name.clone(),
            row.iter().sum::<u64>().to_string(),
            part(evaluation.recall(class)),
            part(evaluation.precision(class)),
            worst.map_or(String::new(), |(i, n)| format!("{} ({n})", set.classes[i])),
        ]);
    }
    table
}
