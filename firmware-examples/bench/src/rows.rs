//! The workloads: what the host computes, and what it costs a core to compute the same.

use crate::cores::{Core, Counts, Workshop};
use crate::reference::{self, Deviation};
use bench::{MEMORY, Meter, Op, WORKLOADS, Workload, data};
use serde_json::{Value, json};
use softedge::engine::Aligned;
use softedge::ops::softmax_attention::SoftmaxAttentionI8;
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
    pub workload: &'static Workload,
    /// Where the output stands for real numbers, how far it is from them.
    pub deviation: Option<Deviation>,
    checksum: u32,
    parts: Vec<&'static str>,
}

impl Answer {
    /// For a program to read.
    pub fn json(&self) -> Value {
        json!({ "workload": self.workload.name, "error": self.deviation })
    }
}

/// Runs the chosen workloads on the host and holds their outputs against the reference.
pub fn answers(chosen: impl Fn(&Workload) -> bool) -> Result<Vec<Answer>, String> {
    let mut memory = Box::new(Aligned([0; MEMORY]));
    let mut answers = Vec::new();
    for (number, workload) in WORKLOADS.iter().enumerate().filter(|(_, workload)| chosen(workload)) {
        let mut parts = Parts::default();
        let output = workload.run(&mut *memory, &mut parts);
        let (number, deviation) = (number as u8, reference::check(workload, output)?);
        answers.push(Answer { number, workload, deviation, checksum: data::checksum(output), parts: parts.0 });
    }
    Ok(answers)
}

/// Says which SOFT attention has a larger error, as a part of its output, than softmax attention of as many tokens.
pub fn soft_is_as_exact(answers: &[Answer]) -> Result<(), String> {
    for answer in answers {
        let Op::Soft(soft) = &answer.workload.op else { continue };
        let same = |softmax: &SoftmaxAttentionI8| (softmax.n, softmax.d) == (soft.side * soft.side, soft.d);
        let softmax = answers.iter().find(|other| matches!(&other.workload.op, Op::Softmax(s) if same(s)));
        if let (Some(ours), Some(theirs)) = (answer.deviation, softmax.and_then(|softmax| softmax.deviation))
            && ours.relative() > theirs.relative()
        {
            let [ours, theirs] = [ours, theirs].map(|error| 100.0 * error.relative());
            let name = answer.workload.name;
            return Err(format!(
                "{name}: an rms error of {ours:.2} % of the output, softmax attention has {theirs:.2} %"
            ));
        }
    }
    Ok(())
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
