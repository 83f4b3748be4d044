//! Counts what softedge's integer ops cost on emulated microcontrollers: builds the firmware for every core,
//! runs it in QEMU, checks every output and prints tables.

mod cmsis_nn;
mod cores;
mod expected;
mod models;
mod reference;
mod rows;
mod table;

use bench::WORKLOADS;
use clap::Parser;
use clap::builder::PossibleValuesParser;
use cores::{CORES, Core, Workshop};
use expected::{Count, Expected, Subject};
use models::Model;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

/// Count what softedge's integer ops cost on emulated microcontrollers
#[derive(Parser)]
struct Arguments {
    /// Only this core; may be repeated
    #[arg(long, value_parser = PossibleValuesParser::new(CORES.iter().map(|core| core.name)))]
    core: Vec<String>,
    /// Only this workload; may be repeated
    #[arg(long, value_parser = PossibleValuesParser::new(WORKLOADS.iter().map(|workload| workload.name)))]
    workload: Vec<String>,
    /// Not the workloads but the ops of this model; may be repeated
    #[arg(long, value_name = "FILE.soft", conflicts_with = "workload")]
    model: Vec<PathBuf>,
    /// Not the workloads but the ops of this preset, with the weights that its training starts from; may be repeated
    #[arg(long, value_parser = PossibleValuesParser::new(models::presets().chain(["all"])), conflicts_with = "workload")]
    preset: Vec<String>,
    /// Also run the models in steps of so many rows, and print the longest step; may be repeated
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "workload")]
    step: Vec<u32>,
    /// Also print the parts of SOFT's attention; of a model, every op by itself
    #[arg(long)]
    parts: bool,
    /// Also write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write instructions by function and measured region into this folder
    #[arg(long, value_name = "FOLDER")]
    profile: Option<PathBuf>,
    /// Fail where a count differs from expected.toml by more than 1 %
    #[arg(long, conflicts_with = "model")]
    assert: bool,
    /// Write the counts to expected.toml
    #[arg(long, conflicts_with_all = ["assert", "model"])]
    update: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    // Beside the folder of this program's profile.
    let program = env::current_exe().map_err(|e| e.to_string())?;
    let folder = program.ancestors().nth(2).unwrap_or(Path::new("target")).join("firmware");
    let workshop = Workshop::new(folder, arguments.profile.clone())?;
    let cores: Vec<_> = CORES.iter().filter(|core| chosen(&arguments.core, core.name)).collect();
    let results = if arguments.model.is_empty() && arguments.preset.is_empty() {
        workloads(arguments, &workshop, &cores)?
    } else {
        profiles(arguments, &workshop, &cores)?
    };
    match &arguments.json {
        Some(path) => fs::write(path, format!("{results:#}\n")).map_err(|e| format!("{}: {e}", path.display())),
        None => Ok(()),
    }
}

/// Whether a list on the command line, which may be left out, has this name.
fn chosen(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|n| n == name)
}

/// Measures the workloads.
fn workloads(arguments: &Arguments, workshop: &Workshop, cores: &[&'static Core]) -> Result<Value, String> {
    let answers = rows::answers(|workload| chosen(&arguments.workload, workload.name))?;
    let (mut rows, mut compilers) = (Vec::new(), Vec::new());
    for core in cores {
        let (image, rustc) = workshop.build(core, "ops")?;
        let first = rows.len();
        rows.extend(rows::measure(workshop, core, &image, &answers)?);
        println!("## {}\n\n{}", core.title, table::of_workloads(&rows[first..], arguments.parts));
        compilers.push(rustc);
    }
    if answers.iter().any(|answer| answer.deviation.is_some()) {
        println!("## Error of the output against f64, on every core\n\n{}", table::of_errors(&answers));
    }
    rows::soft_is_as_exact(&answers)?;
    let rustc = conclude(compilers);
    let counts = rows.iter().map(|row| Count {
        core: row.core.name,
        name: row.workload.name.into(),
        instructions: row.total().instructions,
    });
    let exists = |name: &str| WORKLOADS.iter().any(|workload| workload.name == name);
    expectations(arguments, Subject::Workloads, &counts.collect::<Vec<_>>(), &rustc, exists)?;
    let rows: Vec<_> = rows.iter().map(|row| row.json()).collect();
    let errors: Vec<_> =
        answers.iter().filter(|answer| answer.deviation.is_some()).map(|answer| answer.json()).collect();
    Ok(json!({ "rustc": rustc, "rows": rows, "errors": errors }))
}

/// Measures every op of the models.
fn profiles(arguments: &Arguments, workshop: &Workshop, cores: &[&'static Core]) -> Result<Value, String> {
    let of_preset = |name: &&str| arguments.preset.iter().any(|chosen| chosen == name || chosen == "all");
    let files = arguments.model.iter().map(|path| Model::read(path));
    let models: Vec<_> =
        files.chain(models::presets().filter(of_preset).map(Model::of_preset)).collect::<Result<_, _>>()?;
    let mut compilers = Vec::new();
    let mut counts: Vec<Vec<_>> = models.iter().map(|_| Vec::new()).collect();
    let mut steps: Vec<Vec<_>> = models.iter().map(|_| Vec::new()).collect();
    for core in cores {
        let (image, rustc) = workshop.build(core, "model")?;
        for (model, counts) in models.iter().zip(&mut counts) {
            counts.push(model.measure(workshop, core, &image)?);
        }
        compilers.push(rustc);
        if !arguments.step.is_empty() {
            let (image, _) = workshop.build(core, "steps")?;
            for (model, steps) in models.iter().zip(&mut steps) {
                let of = |&rows| model.measure_steps(workshop, core, &image, rows);
                steps.push(arguments.step.iter().map(of).collect::<Result<Vec<_>, _>>()?);
            }
        }
    }
    for ((model, counts), steps) in models.iter().zip(&counts).zip(&steps) {
        println!("## {}\n\n{}", model.name, table::of_model(model, cores, counts, arguments.parts));
        if !steps.is_empty() {
            println!("{}", table::of_steps(model, cores, counts, steps));
        }
    }
    let rustc = conclude(compilers);
    let totals = models.iter().zip(&counts).flat_map(|(model, counts)| {
        cores.iter().zip(counts).map(|(core, ops)| Count {
            core: core.name,
            name: model.name.clone(),
            instructions: ops.iter().map(|op| op.instructions).sum(),
        })
    });
    let exists = |name: &str| models::presets().any(|preset| preset == name);
    expectations(arguments, Subject::Presets, &totals.collect::<Vec<_>>(), &rustc, exists)?;
    let longest = models.iter().zip(&steps).flat_map(|(model, steps)| {
        cores.iter().zip(steps).flat_map(|(core, steps)| {
            steps.iter().map(|steps| Count {
                core: core.name,
                name: format!("{} by {}", model.name, steps.rows),
                instructions: steps.longest,
            })
        })
    });
    let exists = |name: &str| name.split_once(" by ").is_some_and(|(name, _)| exists(name));
    expectations(arguments, Subject::Steps, &longest.collect::<Vec<_>>(), &rustc, exists)?;
    let models = models.iter().zip(&counts).zip(&steps);
    let models: Vec<_> = models.map(|((model, counts), steps)| model.json(cores, counts, steps)).collect();
    Ok(json!({ "rustc": rustc, "models": models }))
}

/// Does what the command line wants of the counts that are expected.
fn expectations(
    arguments: &Arguments,
    subject: Subject,
    counts: &[Count],
    rustc: &str,
    exists: impl Fn(&str) -> bool,
) -> Result<(), String> {
    if arguments.update {
        Expected::update(subject, counts, rustc, exists)?;
    }
    if arguments.assert {
        Expected::read()?.check(subject, counts, rustc)?;
    }
    Ok(())
}

/// Says under the tables what made them; returns the name of the compiler.
fn conclude(mut compilers: Vec<String>) -> String {
    compilers.dedup();
    let rustc = compilers.join(" and ");
    println!("rustc {rustc}; every output is the host's, bit for bit");
    rustc
}
