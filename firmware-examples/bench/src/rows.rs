//! The workloads: what the host computes, and what it costs a core to compute the same.

use crate::cores::{Core, Counts, Workshop};
use crate::reference;
use bench::{MEMORY, Meter, WORKLOADS, Workload, data};
use serde_json::{Value, json};
use softedge::engine::Aligned;
use std::path::Path;

/// What a workload cost on a core.
pub struct Row {
    pub core: &'static Core,
    pub workload: &'static Workload,
    pub parts: Vec<(&'static str, Counts)>,
}

impl Row {
    /// The sum of its parts.
    pub fn total(&self) -> Counts {
        self.parts.iter().map(|&(_, counts)| counts).sum()
    }

    /// For a program to read.
    pub fn json(&self) -> Value {
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
pub struct Answer {
    number: u8,
    workload: &'static Workload,
    checksum: u32,
    parts: Vec<&'static str>,
}

/// Runs the chosen workloads on the host and holds their outputs against the reference.
pub fn answers(chosen: impl Fn(&Workload) -> bool) -> Result<Vec<Answer>, String> {
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

/// Runs the workloads of `answers` on a core, whose firmware is `image`; an error if an output is not the host's.
pub fn measure(workshop: &Workshop, core: &'static Core, image: &Path, answers: &[Answer]) -> Result<Vec<Row>, String> {
    let numbers: Vec<u8> = answers.iter().map(|answer| answer.number).collect();
    let run = workshop.run(core, image, "ops", &numbers)?;
    let (checksums, _) = run.output.as_chunks();
    let n_regions: usize = answers.iter().map(|answer| answer.parts.len()).sum();
    if (checksums.len(), run.regions.len()) != (answers.len(), n_regions) {
        let found = (checksums.len(), run.regions.len());
        return Err(format!("{}: {found:?} outputs and counts, not {:?}", core.title, (answers.len(), n_regions)));
    }
    let mut regions = run.regions.into_iter();
    let mut rows = Vec::new();
    for (answer, &checksum) in answers.iter().zip(checksums) {
        if u32::from_le_bytes(checksum) != answer.checksum {
            return Err(format!("{}: the output of {} is not the host's", core.title, answer.workload.name));
        }
        let parts = answer.parts.iter().copied().zip(&mut regions).collect();
        rows.push(Row { core, workload: answer.workload, parts });
    }
    Ok(rows)
}
