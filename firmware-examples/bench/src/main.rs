//! Counts what softedge's integer ops cost on emulated microcontrollers: builds the firmware for every core,
//! runs it in QEMU, checks every output and prints tables.

mod cmsis_nn;
mod cores;
mod expected;
mod reference;
mod table;

use bench::{MEMORY, Meter, WORKLOADS, Workload, data};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use cores::{CORES, Core, Counts, Run};
use expected::Expected;
use serde_json::{Value, json};
use softedge::engine::Aligned;
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
    /// Also print the parts of SOFT's attention
    #[arg(long)]
    parts: bool,
    /// Also write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write instructions by function and measured region into this folder, a file per core
    #[arg(long, value_name = "FOLDER")]
    profile: Option<PathBuf>,
    /// Fail where a count differs from expected.toml by more than 1 %
    #[arg(long)]
    assert: bool,
    /// Write the counts to expected.toml
    #[arg(long, conflicts_with = "assert")]
    update: bool,
}

/// What a workload cost on a core.
struct Row {
    core: &'static Core,
    workload: &'static Workload,
    parts: Vec<(&'static str, Counts)>,
}

impl Row {
    fn total(&self) -> Counts {
        self.parts.iter().fold(Counts::default(), |sum, (_, part)| Counts {
            instructions: sum.instructions + part.instructions,
            code_bytes: sum.code_bytes + part.code_bytes,
            m4_cycles: part.m4_cycles.map(|cycles| cycles + sum.m4_cycles.unwrap_or_default()),
        })
    }

    fn json(&self) -> Value {
        let op = &self.workload.op;
        let parts: Vec<_> = self.parts.iter().map(|(part, counts)| json!({ "part": part, "counts": counts })).collect();
        json!({
            "core": self.core.name,
            "workload": self.workload.name,
            "macs": op.macs(),
            "scratch_bytes": op.scratch(),
            "counts": self.total(),
            "parts": parts,
        })
    }
}

/// A workload's number, and what the host computed.
struct Answer {
    number: u8,
    workload: &'static Workload,
    checksum: u32,
    parts: Vec<&'static str>,
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
    let chosen = |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let answers = answers(|workload| chosen(&arguments.workload, workload.name))?;
    let numbers: Vec<u8> = answers.iter().map(|answer| answer.number).collect();
    // Beside the folder of this program's profile.
    let program = env::current_exe().map_err(|e| e.to_string())?;
    let folder = program.ancestors().nth(2).unwrap_or(Path::new("target")).join("firmware");
    for folder in [Some(&folder), arguments.profile.as_ref()].into_iter().flatten() {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let plugin = cores::build_plugin(&folder)?;

    let (mut rows, mut compilers) = (Vec::new(), Vec::new());
    for core in CORES.iter().filter(|core| chosen(&arguments.core, core.name)) {
        eprintln!("building for {}", core.title);
        let (image, rustc) = core.build(&folder)?;
        let run = core.run(&image, &plugin, arguments.profile.as_deref(), &numbers)?;
        let first = rows.len();
        rows.extend(matched(core, &answers, &run)?);
        println!("## {}\n\n{}", core.title, table::markdown(&rows[first..], arguments.parts));
        compilers.push(rustc);
    }
    compilers.dedup();
    let rustc = compilers.join(" and ");
    println!("rustc {rustc}; every output is the host's, bit for bit");

    if let Some(path) = &arguments.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        let text = format!("{:#}\n", json!({ "rustc": rustc, "rows": rows }));
        fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if arguments.update {
        Expected::update(&rows, &rustc)?;
    }
    if arguments.assert {
        Expected::read()?.check(&rows, &rustc)?;
    }
    Ok(())
}

/// Runs the chosen workloads on the host and holds their outputs against the reference.
fn answers(chosen: impl Fn(&Workload) -> bool) -> Result<Vec<Answer>, String> {
    let mut memory = Box::new(Aligned([0; MEMORY]));
    let mut answers = Vec::new();
    for (number, workload) in WORKLOADS.iter().enumerate().filter(|(_, workload)| chosen(workload)) {
        let mut parts = Parts::default();
        let output = workload.run(&mut *memory, &mut parts);
        reference::check(workload, output)?;
        answers.push(Answer { number: number as u8, workload, checksum: data::checksum(output), parts: parts.0 });
    }
    Ok(answers)
}

/// Takes down what parts there are.
#[derive(Default)]
struct Parts(Vec<&'static str>);

impl Meter for Parts {
    fn measure(&mut self, part: &'static str, work: impl FnOnce()) {
        self.0.push(part);
        work();
    }
}

/// The rows of a run, if its outputs are the host's.
fn matched(core: &'static Core, answers: &[Answer], run: &Run) -> Result<Vec<Row>, String> {
    let regions: usize = answers.iter().map(|answer| answer.parts.len()).sum();
    if (run.checksums.len(), run.regions.len()) != (answers.len(), regions) {
        let found = (run.checksums.len(), run.regions.len());
        return Err(format!("{}: {found:?} outputs and counts, not {:?}", core.title, (answers.len(), regions)));
    }
    let mut regions = run.regions.iter().copied();
    let mut rows = Vec::new();
    for (answer, checksum) in answers.iter().zip(&run.checksums) {
        if *checksum != answer.checksum {
            return Err(format!("{}: the output of {} is not the host's", core.title, answer.workload.name));
        }
        let parts = answer.parts.iter().copied().zip(&mut regions).collect();
        rows.push(Row { core, workload: answer.workload, parts });
    }
    Ok(rows)
}
