//! A model on an emulated Cortex-M4: the firmware of `firmware-examples/emulated` in QEMU.

use crate::model_file::ModelFile;
use softedge::error::HostError;
use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const TARGET: &str = "thumbv7em-none-eabihf";

/// What the firmware did.
pub struct Emulated {
    /// The scores of all inputs, as the host writes them.
    pub scores: Vec<u8>,
    /// Most bytes of stack that an inference used.
    pub stack: u32,
    /// Most instructions that an inference took, where they could be counted.
    pub instructions: Option<u64>,
}

/// Runs `model` on the inputs in the file `inputs`.
///
/// # Errors
/// What is missing on this machine and how to get it, or how the firmware failed.
pub fn run(model: &ModelFile, inputs: &Path, folder: &Path) -> Result<Emulated, HostError> {
    let root = repository().ok_or_else(|| {
        HostError::new(
            "firmware-examples/emulated",
            "not found above the current folder",
            "run the demo in a checkout of softedge's repository",
        )
    })?;
    if !runs(Command::new("qemu-system-arm").arg("--version")) {
        return Err(HostError::new(
            "qemu-system-arm",
            "not found",
            "install QEMU (Debian and Ubuntu: `apt-get install qemu-system-arm`)",
        ));
    }
    let fail = |problem: String| {
        let remedy = format!("`rustup target add {TARGET}`, or `tools/setup.sh`, gets what it needs");
        HostError::new("firmware-examples/emulated", problem, remedy)
    };
    let absolute = |path: &Path| {
        path.canonicalize().map_err(|e| HostError::new(path.display(), format!("cannot be read: {e}"), ""))
    };
    let counter = absolute(folder)?.join("libicount.so");
    let counts = runs(Command::new(root.join("tools/icount/build.sh")).arg(&counter));
    let input = File::open(inputs).map_err(|e| HostError::new(inputs.display(), format!("cannot be read: {e}"), ""))?;

    let mut cargo = Command::new(root.join("tools/bare-cargo"));
    cargo
        .args(["run", "--quiet", "--release", "--target", TARGET])
        .current_dir(root.join("firmware-examples/emulated"));
    cargo.env("CARGO_TARGET_DIR", root.join("target/firmware")).env("SOFTEDGE_MODEL", absolute(&model.path)?);
    if counts {
        cargo.env("ICOUNT", &counter);
    }
    let ran = cargo.stdin(input).output();
    let _ = std::fs::remove_file(&counter);
    let Output { status, stdout, stderr } = ran.map_err(|e| fail(format!("tools/bare-cargo: {e}")))?;
    let stderr = String::from_utf8_lossy(&stderr);
    if !status.success() {
        let last = stderr.trim_end().lines().last().unwrap_or_default();
        return Err(fail(format!("{status}: {last}")));
    }
    // An answer is the scores, then the stack in a u32.
    let answer = model.view().output(0).bytes() + 4;
    let (mut scores, mut stack) = (Vec::new(), 0);
    for answer in stdout.chunks_exact(answer) {
        let (values, bytes) = answer.split_at(answer.len() - 4);
        scores.extend_from_slice(values);
        stack = stack.max(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    }
    let instructions = stderr.lines().filter_map(|l| l.strip_prefix("instructions ")?.parse().ok()).max();
    Ok(Emulated { scores, stack, instructions })
}

/// The checkout of the repository that holds the current folder.
fn repository() -> Option<PathBuf> {
    let here = env::current_dir().ok()?;
    here.ancestors().find(|folder| folder.join("firmware-examples/emulated/Cargo.toml").is_file()).map(Into::into)
}

fn runs(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}
