//! The emulated cores: how to build the firmware for each, and how to run it.

use object::{Object, ObjectSection};
use serde::Serialize;
use std::fs::{self, File};
use std::io;
use std::iter::Sum;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self {
            instructions: a.instructions + b.instructions,
            code_bytes: a.code_bytes + b.code_bytes,
            m4_cycles: b.m4_cycles.map(|cycles| cycles + a.m4_cycles.unwrap_or_default()),
        })
    }
}

/// What a run of a firmware gave.
pub struct Run {
    /// What it wrote.
    pub output: Vec<u8>,
    /// Counts of the measured regions, in order.
    pub regions: Vec<Counts>,
}

/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Where firmware is built and run.
pub struct Workshop {
    /// Cargo's target folder for the firmware.
    folder: PathBuf,
    /// The plugin that counts.
    plugin: PathBuf,
    /// The folder for instructions by function, if they are wanted.
    profile: Option<PathBuf>,
}

impl Workshop {
    /// Makes the folders and builds the plugin.
    pub fn new(folder: PathBuf, profile: Option<PathBuf>) -> Result<Self, String> {
        for folder in [Some(&folder), profile.as_ref()].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let plugin = folder.join("libicount.so");
        finish(Command::new(format!("{ROOT}/tools/icount/build.sh")).arg(&plugin))?;
        Ok(Self { folder, plugin, profile })
    }

    /// Builds a firmware for a core. Returns the image and the compiler that made it.
    pub fn build(&self, core: &Core, firmware: &str) -> Result<(PathBuf, String), String> {
        eprintln!("building for {}", core.title);
        let mut cargo = Command::new(format!("{ROOT}/tools/bare-cargo"));
        cargo
            .args(["build", "--quiet", "--profile", "firmware", "--bin", firmware, "--features", "firmware"])
            .args(["--target", core.target])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", &self.folder)
            .env("RUSTFLAGS", core.rustflags)
            .env("SOFTEDGE_MEMORY", core.memory);
        finish(&mut cargo)
            .map_err(|e| format!("{e}\n`rustup target add {}` or tools/setup.sh may help", core.target))?;
        let image = self.folder.join(core.target).join("firmware").join(firmware);
        let rustc = compiler(&image).ok_or_else(|| format!("{}: does not say what compiled it", image.display()))?;
        Ok((image, rustc))
    }

    /// Runs an image on `input`; its profile gets the names of the core and `what` it runs.
    pub fn run(&self, core: &Core, image: &Path, what: &str, input: &[u8]) -> Result<Run, String> {
        let place = self.folder.join("input");
        let failed = |e: io::Error| format!("{}: {e}", place.display());
        fs::write(&place, input).map_err(failed)?;
        let mut plugin = self.plugin.display().to_string();
        if let Some(folder) = &self.profile {
            plugin += &format!(",profile={}/{}-{what}.txt", folder.display(), core.name);
        }
        let mut emulator = Command::new(format!("{ROOT}/firmware-examples/emulated/run.sh"));
        emulator.args(core.emulator).arg("-kernel").arg(image).env("ICOUNT", plugin);
        emulator.stdin(File::open(&place).map_err(failed)?);
        let Output { status, stdout, stderr } = emulator.output().map_err(|e| format!("{}: {e}", core.emulator[0]))?;
        let said = String::from_utf8_lossy(&stderr);
        if !status.success() {
            let end = if status.code() == Some(124) { "did not end in ten minutes" } else { "failed" };
            return Err(format!("the firmware for {} {end} ({status}) in {what}:\n{said}", core.title));
        }
        let mut regions = counts(&said);
        if core.name != "m4" {
            // What an M4 would take for code that was compiled for another core says little.
            regions.iter_mut().for_each(|region| region.m4_cycles = None);
        }
        Ok(Run { output: stdout, regions })
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
