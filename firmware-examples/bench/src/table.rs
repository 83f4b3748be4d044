//! The results as Markdown.

use crate::{Row, cmsis_nn};
use std::fmt::Write;

/// The table of one core.
pub fn markdown(rows: &[Row], parts: bool) -> String {
    let mut header = vec!["workload", "what", "MACs", "instructions", "per MAC", "CMSIS-NN", "CMSIS-NN / ours"];
    let cycles = rows.iter().any(|row| row.total().m4_cycles.is_some());
    if cycles {
        header.extend(["M4 cycles, estimated", "CMSIS-NN", "CMSIS-NN / ours"]);
    }
    header.extend(["scratch bytes", "code bytes"]);
    let mut text = line(&header);
    text += &line(&header.iter().enumerate().map(|(i, _)| if i < 2 { "---" } else { "---:" }).collect::<Vec<_>>());
    for row in rows {
        let (total, macs) = (row.total(), row.workload.op.macs());
        let theirs = cmsis_nn::cost(row.core.name, row.workload);
        let mut cells = vec![
            row.workload.name.into(),
            row.workload.title.into(),
            if macs == 0 { String::new() } else { grouped(macs) },
            grouped(total.instructions),
            if macs == 0 { String::new() } else { format!("{:.2}", total.instructions as f64 / macs as f64) },
        ];
        cells.extend(against(total.instructions, theirs.map(|(instructions, _)| instructions)));
        if cycles {
            cells.push(total.m4_cycles.map(grouped).unwrap_or_default());
            cells.extend(against(total.m4_cycles.unwrap_or_default(), theirs.and_then(|(_, cycles)| cycles)));
        }
        cells.extend([grouped(row.workload.op.scratch() as u64), grouped(total.code_bytes)]);
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
    text
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
