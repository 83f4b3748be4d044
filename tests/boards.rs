//! The same model file on every emulated board: its logits equal the host's bit for bit.
//!
//! Prints what an inference costs there. Needs QEMU and the bare-metal targets: `./test.sh` gets
//! them and runs this test; plain `cargo test` leaves it out.

use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use softedge::math::random::Stream;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Board {
    core: &'static str,
    target: &'static str,
}

const BOARDS: [Board; 5] = [
    Board { core: "Cortex-M0", target: "thumbv6m-none-eabi" },
    Board { core: "Cortex-M3", target: "thumbv7m-none-eabi" },
    Board { core: "Cortex-M4F", target: "thumbv7em-none-eabihf" },
    Board { core: "Cortex-M33", target: "thumbv8m.main-none-eabihf" },
    Board { core: "RV32IMC", target: "riscv32imc-unknown-none-elf" },
];

const IMAGES: usize = 64;

/// A model, the raw inputs of [`IMAGES`] inferences and the logits the host computes from them.
struct Case {
    name: &'static str,
    images: PathBuf,
    logits: Vec<i16>,
}

/// What one board did with them.
struct Run {
    logits: Vec<i16>,
    /// Most instructions an inference took.
    instructions: u64,
    /// Most bytes of stack an inference took.
    stack: u32,
    /// Bytes of flash: code, constants, the model and the initial values of statics.
    flash: u64,
}

#[test]
fn every_board_computes_what_the_host_computes() {
    let counter = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("libicount.so");
    succeed(Command::new("tools/icount/build.sh").arg(&counter));
    for case in cases() {
        println!("\n{}, {IMAGES} inferences\n", case.name);
        println!("| core | instructions | stack | flash |");
        println!("|---|---:|---:|---:|");
        for board in &BOARDS {
            let run = board.run(&case, &counter);
            println!("| {} | {} | {} | {} |", board.core, run.instructions, run.stack, run.flash);
            assert_eq!(run.logits, case.logits, "logits of {} on {}", case.name, board.core);
        }
    }
}

fn cases() -> Vec<Case> {
    vec![placeholder()]
}

fn placeholder() -> Case {
    let stream = Stream::new(1);
    let bytes: Vec<u8> = (0..784 * IMAGES as u64).map(|i| stream.bits(i) as u8).collect();
    let weights: Vec<i8> = (0..7840).map(|i| (i * 37 % 251) as u8 as i8).collect();
    let x: Vec<i8> = bytes.iter().map(|b| (b ^ 0x80) as i8).collect();
    let mut logits = vec![0; 10 * IMAGES];
    let shape = softedge::ops::linear::LinearI16 { rows: IMAGES, k: 784, n: 10 };
    softedge::ops::linear::forward_i16(&shape, &x, &weights, &[0; 10], &[1 << 30; 10], &[40; 10], &mut logits);
    let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    fs::write(&images, bytes).unwrap();
    Case { name: "placeholder", images, logits }
}

impl Board {
    fn run(&self, case: &Case, counter: &Path) -> Run {
        let image = fs::read(self.build(case)).unwrap();
        let image = object::File::parse(&*image).unwrap();
        for symbol in image.symbols().filter_map(|s| s.name().ok()) {
            assert!(!forbidden(symbol), "{symbol} is linked into the image for {}", self.core);
        }
        let output = self.emulate(&case.images, counter);
        let counts = String::from_utf8_lossy(&output.stderr);
        let counts: Vec<u64> = counts.lines().filter_map(|l| l.strip_prefix("instructions ")?.parse().ok()).collect();
        assert_eq!(counts.len(), IMAGES, "counts of instructions of {}", self.core);

        // Per image: the logits, then the stack in one u32.
        let records = output.stdout.chunks_exact(output.stdout.len() / IMAGES);
        let (logits, stacks): (Vec<_>, Vec<_>) = records.map(|r| r.split_at(r.len() - 4)).unzip();
        Run {
            logits: logits.concat().chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect(),
            instructions: *counts.iter().max().unwrap(),
            stack: stacks.iter().map(|&b| u32::from_le_bytes(b.try_into().unwrap())).max().unwrap(),
            flash: image.sections().filter(in_flash).map(|s| s.size()).sum(),
        }
    }

    /// Builds the firmware and gives the path of its image.
    fn build(&self, _case: &Case) -> PathBuf {
        succeed(&mut self.cargo("build"));
        target_dir().join(self.target).join("release/emulated")
    }

    /// Runs the firmware in QEMU.
    fn emulate(&self, images: &Path, counter: &Path) -> Output {
        succeed(self.cargo("run").env("ICOUNT", counter).stdin(File::open(images).unwrap()))
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/bare-cargo"));
        cargo.current_dir("firmware-examples/emulated").env("CARGO_TARGET_DIR", target_dir());
        cargo.args([command, "--quiet", "--release", "--target", self.target]);
        cargo
    }
}

fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("firmware")
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

fn in_flash(section: &object::Section<'_, '_>) -> bool {
    matches!(section.kind(), SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::Data)
}

/// Whether a function has no place on the integer path: arithmetic on floats in software, libm, or
/// a division of 64-bit integers.
fn forbidden(symbol: &str) -> bool {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| symbol.starts_with(p));
    let contains = |parts: &[&str]| parts.iter().any(|p| symbol.contains(p));
    // Arm's names: f float, d double, i int, l long long.
    starts(&["__aeabi_f", "__aeabi_d", "__aeabi_cf", "__aeabi_cd", "__aeabi_i2", "__aeabi_ui2", "__aeabi_l2"])
        || starts(&["__aeabi_ul2", "__aeabi_ldivmod", "__aeabi_uldivmod"])
        // libgcc's names: sf float, df double, di 64 bits.
        || (starts(&["__"]) && contains(&["sf", "df", "divdi", "moddi", "divmoddi"]))
        // Where they are inlined into each other, what they are made of.
        || contains(&["compiler_builtins5float", "u64_div_rem", "4libm"])
}
