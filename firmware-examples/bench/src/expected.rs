//! The counts that were measured last, in a file that is checked in: what makes an op slower shows in a diff.

use crate::cores::CORES;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/expected.toml");
const HEADER: &str = "# Executed instructions by core, of workloads, of whole models and of the longest step of such; `cargo run --release\n\
     # -- --update` writes the first, with `--preset all --step 1 --step 8` the others.\n";

/// A compiler gives the same counts every time: a change beyond this many per cent was made in the code.
const MARGIN: u64 = 1;

/// Another compiler shapes loops in another way, in plain Rust by 10 to 20 per cent. What it cannot explain is
/// that a kernel is no longer chosen, or that a function is no longer inlined into a loop: those cost twice
/// as much and more.
const MARGIN_OF_ANOTHER_COMPILER: u64 = 50;

/// What was counted.
#[derive(Clone, Copy)]
pub enum Subject {
    Workloads,
    /// One inference of a preset.
    Presets,
    /// The longest step of an inference of a preset, "preset by rows".
    Steps,
}

/// Executed instructions.
pub struct Count {
    /// Short name of the core.
    pub core: &'static str,
    /// The workload or the preset.
    pub name: String,
    pub instructions: u64,
}

/// Counts by core and name.
type Table = BTreeMap<String, BTreeMap<String, u64>>;

/// The file.
#[derive(Default, Serialize, Deserialize)]
pub struct Expected {
    /// The compiler that the counts belong to.
    rustc: String,
    #[serde(default)]
    workloads: Table,
    #[serde(default)]
    presets: Table,
    #[serde(default)]
    steps: Table,
}

impl Expected {
    /// Reads the file.
    pub fn read() -> Result<Self, String> {
        let text = fs::read_to_string(FILE).map_err(|e| format!("{FILE}: {e}; --update writes it"))?;
        toml::from_str(&text).map_err(|e| format!("{FILE}: {e}"))
    }

    fn table(&mut self, subject: Subject) -> &mut Table {
        match subject {
            Subject::Workloads => &mut self.workloads,
            Subject::Presets => &mut self.presets,
            Subject::Steps => &mut self.steps,
        }
    }

    /// Writes these counts into the file. The others stay, unless another compiler made them or nothing has
    /// their name any more: `exists` says so.
    pub fn update(
        subject: Subject,
        counts: &[Count],
        rustc: &str,
        exists: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let mut expected = Self::read().unwrap_or_default();
        if expected.rustc != rustc {
            expected = Self { rustc: rustc.into(), ..Self::default() };
        }
        let table = expected.table(subject);
        table.retain(|name, _| CORES.iter().any(|core| core.name == name));
        for counts in table.values_mut() {
            counts.retain(|name, _| exists(name));
        }
        for count in counts {
            table.entry(count.core.into()).or_default().insert(count.name.clone(), count.instructions);
        }
        let text = toml::to_string(&expected).map_err(|e| e.to_string())?;
        fs::write(FILE, HEADER.to_owned() + &text).map_err(|e| format!("{FILE}: {e}"))
    }

    /// Holds counts against the file.
    ///
    /// # Errors
    /// The counts that are off by more than the margin; another compiler's may be lower by any amount.
    pub fn check(mut self, subject: Subject, counts: &[Count], rustc: &str) -> Result<(), String> {
        let same = self.rustc == rustc;
        let margin = if same { MARGIN } else { MARGIN_OF_ANOTHER_COMPILER };
        if !same {
            eprintln!("expected.toml holds the counts of rustc {}, this is rustc {rustc}:", self.rustc);
            eprintln!("only what is more than {margin} % above them fails");
        }
        let table = self.table(subject);
        let mut off = String::new();
        for Count { core, name, instructions: count } in counts {
            let Some(&expected) = table.get(*core).and_then(|counts| counts.get(name)) else {
                off += &format!("\n{core} {name}: {count} instructions, and expected.toml has no such count");
                continue;
            };
            let above = 100 * count > (100 + margin) * expected;
            let below = same && 100 * count < (100 - margin) * expected;
            if above || below {
                let change = 100.0 * (*count as f64 / expected as f64 - 1.0);
                off += &format!("\n{core} {name}: {count} instructions, expected {expected} ({change:+.1} %)");
            }
        }
        if off.is_empty() {
            return Ok(());
        }
        Err(format!("counts are off by more than {margin} %; if they are to stay so, run with --update:{off}"))
    }
}
