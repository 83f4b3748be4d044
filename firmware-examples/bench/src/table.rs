//! The results as Markdown.

use crate::cmsis_nn;
use crate::cores::{Core, Counts};
use crate::models::{Model, Steps};
use crate::rows::{Answer, Row};
use softedge::program::Kind;
use std::cmp::Reverse;
use std::fmt::Write;

/// The table of one core.
pub fn of_workloads(rows: &[Row], parts: bool) -> String {
    let mut header = vec!["workload", "what", "MACs", "instructions", "per MAC", "CMSIS-NN", "CMSIS-NN / ours"];
    let cycles = rows.iter().any(|row| row.total().m4_cycles.is_some());
    if cycles {
        header.extend(["M4 cycles, estimated", "CMSIS-NN", "CMSIS-NN / ours"]);
    }
    header.extend(["scratch bytes", "CMSIS-NN", "code bytes"]);
    let mut text = line(&header) + &line(&rule(&header, 2));
    for row in rows.iter().filter(|row| !row.workload.odd) {
        let (total, macs) = (row.total(), row.workload.op.macs());
        let theirs = cmsis_nn::cost(row.core.name, row.workload);
        let mut cells = vec![
            row.workload.name.into(),
            row.workload.title.into(),
            if macs == 0 { String::new() } else { grouped(macs) },
            grouped(total.instructions),
            if macs == 0 { String::new() } else { format!("{:.2}", total.instructions as f64 / macs as f64) },
        ];
        cells.extend(against(total.instructions, theirs.as_ref().map(|theirs| theirs.instructions)));
        if cycles {
            cells.push(total.m4_cycles.map(grouped).unwrap_or_default());
            cells
                .extend(against(total.m4_cycles.unwrap_or_default(), theirs.as_ref().and_then(|theirs| theirs.cycles)));
        }
        let scratch = theirs.and_then(|theirs| theirs.scratch).map(grouped).unwrap_or_default();
        cells.extend([grouped(row.workload.op.scratch() as u64), scratch, grouped(total.code_bytes)]);
        text += &line(&cells);
        for (part, counts) in row.parts.iter().filter(|_| parts && row.parts.len() > 1) {
            let mut cells = vec![String::new(); header.len()];
            (cells[1], cells[3]) = (format!("- {part}"), grouped(counts.instructions));
            if cycles {
                cells[7] = counts.m4_cycles.map(grouped).unwrap_or_default();
            }
            *cells.last_mut().expect("not empty") = grouped(counts.code_bytes);
            text += &line(&cells);
        }
    }
    match rows.iter().filter(|row| row.workload.odd).count() {
        0 => text,
        n_odd => text + &format!("\nand {n_odd} ops of odd shapes\n"),
    }
}

/// The table of how far outputs are from the real numbers that they stand for.
pub fn of_errors(answers: &[Answer]) -> String {
    let header = ["workload", "what", "largest error, steps", "rms error, steps", "rms error / rms output"];
    let mut text = line(&header) + &line(&rule(&header, 2));
    for answer in answers.iter().filter(|answer| !answer.workload.odd) {
        let Some(error) = answer.deviation else { continue };
        let steps = [error.largest, error.rms].map(|steps| format!("{steps:.4}"));
        let part = format!("{:.2} %", 100.0 * error.relative());
        text += &line(&[answer.workload.name, answer.workload.title, &steps[0], &steps[1], &part]);
    }
    text
}

/// The table of a model: instructions of its kinds of ops, the dearest on the first core first, or where `parts`
/// of every op in order; `counts` are those of each op on each core.
pub fn of_model(model: &Model, cores: &[&Core], counts: &[Vec<Counts>], parts: bool) -> String {
    let has_cycles = |counts: &[Counts]| counts.iter().any(|counts| counts.m4_cycles.is_some());
    let mut groups: Vec<(Kind, Vec<usize>)> = Vec::new();
    for (i, op) in model.ops.iter().enumerate() {
        match groups.iter_mut().find(|(kind, _)| *kind == op.kind && !parts) {
            Some((_, ops)) => ops.push(i),
            None => groups.push((op.kind, vec![i])),
        }
    }
    if !parts {
        groups.sort_by_key(|(_, ops)| Reverse(ops.iter().map(|&i| counts[0][i].instructions).sum::<u64>()));
    }
    let mut header = vec!["op", if parts { "output" } else { "ops" }, "MACs"];
    for (core, counts) in cores.iter().zip(counts) {
        header.push(core.name);
        if has_cycles(counts) {
            header.push("M4 cycles, estimated");
        }
    }
    let mut text = line(&header) + &line(&rule(&header, if parts { 2 } else { 1 }));
    let mut row = |name: &str, what: String, ops: &[usize]| {
        let mut cells = vec![name.into(), what, grouped(ops.iter().map(|&i| model.ops[i].macs).sum())];
        for counts in counts {
            let sum: Counts = ops.iter().map(|&i| counts[i]).sum();
            cells.push(grouped(sum.instructions));
            if has_cycles(counts) {
                cells.push(sum.m4_cycles.map(grouped).unwrap_or_default());
            }
        }
        text += &line(&cells);
    };
    for (kind, ops) in &groups {
        row(kind.name(), if parts { model.ops[ops[0]].output.clone() } else { ops.len().to_string() }, ops);
    }
    let all: Vec<_> = (0..model.ops.len()).collect();
    row("all", if parts { String::new() } else { all.len().to_string() }, &all);
    text
}

/// The table of a model's steps: the longest, and what all of them take beside a run in one piece, of which
/// `counts` are those of each op on each core.
pub fn of_steps(model: &Model, cores: &[&Core], counts: &[Vec<Counts>], steps: &[Vec<Steps>]) -> String {
    let header = ["core", "longest step", "rows of a step", "steps", "instructions", "all steps", "one piece", "more"];
    let mut text = line(&header) + &line(&rule(&header, 2));
    for ((core, counts), steps) in cores.iter().zip(counts).zip(steps) {
        let whole: u64 = counts.iter().map(|op| op.instructions).sum();
        for Steps { rows, n, op, longest, instructions } in steps {
            text += &line(&[
                core.name.into(),
                model.ops[*op].kind.name().into(),
                rows.to_string(),
                grouped(*n as u64),
                grouped(*longest),
                grouped(*instructions),
                grouped(whole),
                format!("{:.1} %", 100.0 * (*instructions as f64 / whole as f64 - 1.0)),
            ]);
        }
    }
    text
}

/// The line under a table's header; the first columns hold words and the others numbers.
fn rule(header: &[&str], words: usize) -> Vec<&'static str> {
    (0..header.len()).map(|i| if i < words { "---" } else { "---:" }).collect()
}

/// Their figure, and how many times ours it is.
fn against(ours: u64, theirs: Option<f64>) -> [String; 2] {
    match theirs {
        Some(theirs) => [millions(theirs), format!("{:.2}", theirs / ours as f64)],
        None => Default::default(),
    }
}

fn line<T: AsRef<str>>(cells: &[T]) -> String {
    let mut text = String::from("|");
    for cell in cells {
        write!(text, " {} |", cell.as_ref()).expect("strings grow");
    }
    text + "\n"
}

/// In millions, with three digits.
fn millions(x: f64) -> String {
    let x = x / 1e6;
    let decimals = 2 - x.log10().floor() as i32;
    format!("{x:.*} M", decimals.max(0) as usize)
}

/// With commas between thousands.
fn grouped(x: u64) -> String {
    let digits = x.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group));
    groups.collect::<Vec<_>>().join(",")
}
