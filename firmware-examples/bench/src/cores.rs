//! The emulated cores: how to build the firmware for each, and how to run it.

use object::{Object, ObjectSection};
use serde::Serialize;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A core and the board that it is emulated on.
pub struct Core {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is, for a table.
    pub title: &'static str,
    target: &'static str,
    rustflags: &'static str,
    /// Its linker script in `emulated/memory`.
    memory: &'static str,
    emulator: &'static [&'static str],
}

/// Every core that is measured.
pub const CORES: &[Core] = &[
    Core {
        name: "m0",
        title: "Cortex-M0 (ARMv6-M code, on an emulated M3)",
        target: "thumbv6m-none-eabi",
        rustflags: "",
        memory: "mps2",
        emulator: &["qemu-system-arm", "-M", "mps2-an385"],
    },
    Core {
        name: "m3",
        title: "Cortex-M3",
        target: "thumbv7m-none-eabi",
        rustflags: "",
        memory: "mps2",
        emulator: &["qemu-system-arm", "-M", "mps2-an385"],
    },
    Core {
        name: "m4",
        title: "Cortex-M4F",
        target: "thumbv7em-none-eabihf",
        rustflags: "",
        memory: "mps2",
        emulator: &["qemu-system-arm", "-M", "mps2-an386"],
    },
    Core {
        name: "m7",
        title: "Cortex-M7",
        target: "thumbv7em-none-eabihf",
        rustflags: "-C target-cpu=cortex-m7",
        memory: "mps2",
        emulator: &["qemu-system-arm", "-M", "mps2-an500"],
    },
    Core {
        name: "m33",
        title: "Cortex-M33",
        target: "thumbv8m.main-none-eabihf",
        // The target alone does not say that the core has DSP instructions.
        rustflags: "-C target-cpu=cortex-m33",
        memory: "mps2-an505",
        emulator: &["qemu-system-arm", "-M", "mps2-an505"],
    },
    Core {
        name: "m55",
        title: "Cortex-M55 with Helium",
        target: "thumbv8m.main-none-eabihf",
        rustflags: "-C target-cpu=cortex-m55",
        memory: "mps3-an547",
        emulator: &["qemu-system-arm", "-M", "mps3-an547"],
    },
    Core {
        name: "rv32",
        title: "RV32IMC",
        target: "riscv32imc-unknown-none-elf",
        rustflags: "",
        memory: "virt",
        emulator: &["qemu-system-riscv32", "-M", "virt", "-bios", "none"],
    },
];

/// What the plugin counted in one region.
#[derive(Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// Executed instructions.
    pub instructions: u64,
    /// Distinct bytes of code among them.
    pub code_bytes: u64,
    /// Cycles, estimated; only on the Cortex-M4, for which the plugin does it.
    pub m4_cycles: Option<u64>,
}

/// What a run of the firmware gave.
pub struct Run {
    /// Checksums of the outputs.
    pub checksums: Vec<u32>,
    /// Counts of the measured regions, in order.
    pub regions: Vec<Counts>,
}

/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Builds the plugin that counts.
pub fn build_plugin(folder: &Path) -> Result<PathBuf, String> {
    let library = folder.join("libicount.so");
    finish(Command::new(format!("{ROOT}/tools/icount/build.sh")).arg(&library))?;
    Ok(library)
}

impl Core {
    /// Builds the firmware; `folder` is Cargo's target folder. Returns the image and the compiler that made it.
    pub fn build(&self, folder: &Path) -> Result<(PathBuf, String), String> {
        let mut cargo = Command::new(format!("{ROOT}/tools/bare-cargo"));
        cargo
            .args(["build", "--quiet", "--profile", "firmware", "--bin", "firmware", "--features", "firmware"])
            .args(["--target", self.target])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", folder)
            .env("RUSTFLAGS", self.rustflags)
            .env("SOFTEDGE_MEMORY", self.memory);
        finish(&mut cargo)
            .map_err(|e| format!("{e}\n`rustup target add {}` or tools/setup.sh may help", self.target))?;
        let image = folder.join(self.target).join("firmware/firmware");
        let rustc = compiler(&image).ok_or_else(|| format!("{}: does not say what compiled it", image.display()))?;
        Ok((image, rustc))
    }

    /// Runs the workloads of these numbers.
    pub fn run(&self, image: &Path, plugin: &Path, profile: Option<&Path>, numbers: &[u8]) -> Result<Run, String> {
        let mut plugin = plugin.display().to_string();
        if let Some(folder) = profile {
            plugin += &format!(",profile={}/{}.txt", folder.display(), self.name);
        }
        let mut emulator = Command::new(format!("{ROOT}/firmware-examples/emulated/run.sh"));
        emulator.args(self.emulator).arg("-kernel").arg(image).env("ICOUNT", plugin);
        let failed = |e: std::io::Error| format!("{}: {e}", self.emulator[0]);
        emulator.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = emulator.spawn().map_err(failed)?;
        // So few bytes fit the pipe; dropped, it ends.
        child.stdin.take().expect("piped").write_all(numbers).map_err(failed)?;
        let Output { status, stdout, stderr } = child.wait_with_output().map_err(failed)?;
        let said = String::from_utf8_lossy(&stderr);
        if !status.success() {
            return Err(format!("the firmware for {} ended with {status}:\n{said}", self.title));
        }
        let (answers, _) = stdout.as_chunks();
        let checksums = answers.iter().map(|&a| u32::from_le_bytes(a)).collect();
        let mut regions = counts(&said);
        if self.name != "m4" {
            // What an M4 would take for code that was compiled for another core says little.
            regions.iter_mut().for_each(|region| region.m4_cycles = None);
        }
        Ok(Run { checksums, regions })
    }
}

/// The regions in what the plugin said.
fn counts(said: &str) -> Vec<Counts> {
    let mut regions: Vec<Counts> = Vec::new();
    for line in said.lines() {
        let Some((figure, Ok(value))) = line.split_once(' ').map(|(figure, value)| (figure, value.parse())) else {
            continue;
        };
        if figure == "instructions" {
            regions.push(Counts { instructions: value, ..Counts::default() });
        } else if let Some(region) = regions.last_mut() {
            match figure {
                "code_bytes" => region.code_bytes = value,
                "cortex_m4_cycles" => region.m4_cycles = Some(value),
                _ => {}
            }
        }
    }
    regions
}

/// The compiler that made an image, as it says in its section for comments.
fn compiler(image: &Path) -> Option<String> {
    let bytes = fs::read(image).ok()?;
    let file = object::File::parse(&*bytes).ok()?;
    let comments = file.section_by_name(".comment")?.data().ok()?;
    let mut comments = comments.split(|&byte| byte == 0).filter_map(|c| str::from_utf8(c).ok());
    comments.find_map(|c| c.strip_prefix("rustc version ")).map(Into::into)
}

/// Runs a command to its successful end.
fn finish(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}
