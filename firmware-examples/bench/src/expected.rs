//! The counts that were measured last, in a file that is checked in: what makes an op slower shows in a diff.

use crate::cores::CORES;
use crate::rows::Row;
use bench::WORKLOADS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/expected.toml");
const HEADER: &str =
    "# Executed instructions, by core and workload; `cargo run --release -- --update` writes this file.\n";

/// A compiler gives the same counts every time: a change beyond this many per cent was made in the code.
const MARGIN: u64 = 1;

/// Another compiler shapes loops in another way, in plain Rust by 10 to 20 per cent. What it cannot explain is
/// that a kernel is no longer chosen, or that a function is no longer inlined into a loop: those cost twice
/// as much and more.
const MARGIN_OF_ANOTHER_COMPILER: u64 = 50;

/// The file.
#[derive(Default, Serialize, Deserialize)]
pub struct Expected {
    /// The compiler that the counts belong to.
    rustc: String,
    instructions: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Expected {
    /// Reads the file.
    pub fn read() -> Result<Self, String> {
        let text = fs::read_to_string(FILE).map_err(|e| format!("{FILE}: {e}; --update writes it"))?;
        toml::from_str(&text).map_err(|e| format!("{FILE}: {e}"))
    }

    /// Writes these counts into the file. The others stay, unless another compiler made them or nothing has
    /// their name any more.
    pub fn update(rows: &[Row], rustc: &str) -> Result<(), String> {
        let mut expected = Self::read().unwrap_or_default();
        if expected.rustc != rustc {
            expected = Self { rustc: rustc.into(), ..Self::default() };
        }
        expected.instructions.retain(|name, _| CORES.iter().any(|core| core.name == name));
        for counts in expected.instructions.values_mut() {
            counts.retain(|name, _| WORKLOADS.iter().any(|workload| workload.name == name));
        }
        for row in rows {
            let counts = expected.instructions.entry(row.core.name.into()).or_default();
            counts.insert(row.workload.name.into(), row.total().instructions);
        }
        let text = toml::to_string(&expected).map_err(|e| e.to_string())?;
        fs::write(FILE, HEADER.to_owned() + &text).map_err(|e| format!("{FILE}: {e}"))
    }

    /// Holds counts against the file.
    ///
    /// # Errors
    /// The counts that are off by more than the margin; another compiler's may be lower by any amount.
    pub fn check(&self, rows: &[Row], rustc: &str) -> Result<(), String> {
        let same = self.rustc == rustc;
        let margin = if same { MARGIN } else { MARGIN_OF_ANOTHER_COMPILER };
        if !same {
            eprintln!("expected.toml holds the counts of rustc {}, this is rustc {rustc}:", self.rustc);
            eprintln!("only what is more than {margin} % above them fails");
        }
        let mut off = String::new();
        for row in rows {
            let (core, workload, count) = (row.core.name, row.workload.name, row.total().instructions);
            let Some(&expected) = self.instructions.get(core).and_then(|counts| counts.get(workload)) else {
                off += &format!("\n{core} {workload}: {count} instructions, and expected.toml has no such count");
                continue;
            };
            let above = 100 * count > (100 + margin) * expected;
            let below = same && 100 * count < (100 - margin) * expected;
            if above || below {
                let change = 100.0 * (count as f64 / expected as f64 - 1.0);
                off += &format!("\n{core} {workload}: {count} instructions, expected {expected} ({change:+.1} %)");
            }
        }
        if off.is_empty() {
            return Ok(());
        }
        Err(format!("counts are off by more than {margin} %; if they are to stay so, run with --update:{off}"))
    }
}
