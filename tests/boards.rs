//! The same model file on every emulated board: its scores equal the host's bit for bit.
//!
//! Prints what an inference costs there. Needs QEMU and the bare-metal targets: `./test.sh` gets
//! them and runs this test; plain `cargo test` leaves it out.

use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use softedge::engine::{Buffer, Executor, Memory};
use softedge::format::{self, View};
use softedge::math::random::Stream;
use softedge::ops::{
    DType, Tick, conv::ConvI8, depthwise::DepthwiseI8, input::InputU8, linear::LinearI16, pool::AvgPoolI8,
};
use softedge::program::{Op, Plan, Program, Role, Space, TensorId};
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

const INFERENCES: usize = 64;

/// A model, the raw inputs of [`INFERENCES`] inferences, and the bytes of the scores that the host
/// computes from them.
struct Case {
    name: &'static str,
    model: PathBuf,
    inputs: PathBuf,
    scores: Vec<u8>,
    arena: usize,
}

/// What one board did with them.
struct Run {
    scores: Vec<u8>,
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
    for case in [Case::new("network", &network())] {
        println!("\n{}: {INFERENCES} inferences, arena {} bytes\n", case.name, case.arena);
        println!("| core | instructions | stack | flash |");
        println!("|---|---:|---:|---:|");
        for board in &BOARDS {
            let run = board.run(&case, &counter);
            println!("| {} | {} | {} | {} |", board.core, run.instructions, run.stack, run.flash);
            assert!(run.scores == case.scores, "the scores of {} on {} are not the host's", case.name, board.core);
        }
    }
}

impl Case {
    /// The case of `program` on random bytes; leaves the files that the boards need.
    fn new(name: &'static str, program: &Program) -> Self {
        let place = |kind: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{kind}"));
        let (model, inputs) = (place("soft"), place("inputs"));
        let file = Buffer::copy_of(&format::write(program, &Plan::new(program)));
        fs::write(&model, file.bytes()).unwrap();

        let view = View::new_checked(file.bytes()).unwrap();
        let mut arena = Buffer::zeroed(view.size(Space::Arena));
        let mut executor: Executor<'_> = Executor::new(view, Memory::new(arena.bytes_mut())).unwrap();
        let (mut all_inputs, mut scores) = (Vec::new(), Vec::new());
        for i in 0..INFERENCES {
            let stream = Stream::new(1).fork(i as u64);
            let input = executor.tensor_mut(view.input_id(0)).unwrap();
            input.iter_mut().zip(0..).for_each(|(byte, j)| *byte = stream.bits(j) as u8);
            all_inputs.extend_from_slice(input);
            executor.run(&Tick::default());
            scores.extend_from_slice(executor.tensor(view.output_id(0)));
        }
        fs::write(&inputs, all_inputs).unwrap();
        Self { name, model, inputs, scores, arena: view.size(Space::Arena) }
    }
}

/// A small convolutional network with random weights.
fn network() -> Program {
    let mut p = Program::new();
    let input = p.add("input", DType::U8, &[28, 28, 1], Role::Activation);
    p.inputs.push(input);
    let unit = [(DType::I32, 1 << 30), (DType::I32, 0), (DType::I8, 42)];
    let unit = unit.map(|(dtype, v)| constant(&mut p, dtype, &[v]));
    let ins = [Some(input), Some(unit[0]), Some(unit[1]), Some(unit[2])];
    let x = p.apply("x", InputU8 { rows: 784, c: 1, zero: -128 }, &ins, &[784]);
    let conv = ConvI8 {
        batch: 1,
        h: 28,
        w: 28,
        c_in: 1,
        c_out: 8,
        kh: 3,
        kw: 3,
        stride_h: 2,
        stride_w: 2,
        pad_h: 1,
        pad_w: 1,
        heads: 1,
        zero_in: -128,
        zero: 3,
        lo: 3,
        hi: 127,
    };
    let x = requantising(&mut p, conv, x, &[14, 14, 8], 72);
    let depthwise = DepthwiseI8 {
        batch: 1,
        h: 14,
        w: 14,
        c: 8,
        kh: 5,
        kw: 5,
        stride_h: 1,
        stride_w: 1,
        pad_h: 2,
        pad_w: 2,
        share: 1,
        zero_in: 3,
        zero: 0,
        lo: -128,
        hi: 127,
    };
    let x = requantising(&mut p, depthwise, x, &[14, 14, 8], 200);
    let x = p.apply("pooled", AvgPoolI8 { h: 14, w: 14, c: 8, oh: 7, ow: 7 }, &[Some(x)], &[7, 7, 8]);
    let scores = requantising(&mut p, LinearI16 { rows: 1, k: 392, n: 10 }, x, &[10], 3920);
    p.outputs.push(scores);
    p
}

/// Appends an op that requantises, with random weights and factors that keep its outputs in range.
fn requantising(p: &mut Program, op: impl Into<Op>, x: TensorId, shape: &[usize], weights: usize) -> TensorId {
    let channels = *shape.last().unwrap();
    let stream = Stream::new(2).fork(weights as u64);
    let weights: Vec<i32> = (0..weights as u64).map(|i| stream.bits(i) as i8 as i32).collect();
    let ins = [
        x,
        constant(p, DType::I8, &weights),
        constant(p, DType::I32, &vec![100; channels]),
        constant(p, DType::I32, &vec![1_500_000_000; channels]),
        constant(p, DType::I8, &vec![40; channels]),
    ];
    p.apply("y", op, &ins.map(Some), shape)
}

fn constant(p: &mut Program, dtype: DType, values: &[i32]) -> TensorId {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()[..dtype.size()].to_vec()).collect();
    p.constant("constant", dtype, &[values.len()], bytes)
}

impl Board {
    fn run(&self, case: &Case, counter: &Path) -> Run {
        succeed(&mut self.cargo("build", case));
        let image = fs::read(target_dir().join(self.target).join("release/emulated")).unwrap();
        let image = object::File::parse(&*image).unwrap();
        for symbol in image.symbols().filter_map(|s| s.name().ok()) {
            assert!(!forbidden(symbol), "{symbol} is linked into the image for {}", self.core);
        }
        let inputs = File::open(&case.inputs).unwrap();
        let output = succeed(self.cargo("run", case).env("ICOUNT", counter).stdin(inputs));
        let counts = String::from_utf8_lossy(&output.stderr);
        let counts: Vec<u64> = counts.lines().filter_map(|l| l.strip_prefix("instructions ")?.parse().ok()).collect();
        assert_eq!(counts.len(), INFERENCES, "counts of instructions of {}", self.core);

        // An answer is the scores and the stack in a u32.
        let answers = output.stdout.chunks_exact(output.stdout.len() / INFERENCES);
        let (scores, stacks): (Vec<_>, Vec<_>) = answers.map(|a| a.split_at(a.len() - 4)).unzip();
        Run {
            scores: scores.concat(),
            instructions: *counts.iter().max().unwrap(),
            stack: stacks.iter().map(|&b| u32::from_le_bytes(b.try_into().unwrap())).max().unwrap(),
            flash: image.sections().filter(in_flash).map(|s| s.size()).sum(),
        }
    }

    /// `cargo build` or `cargo run` of the firmware with the model.
    fn cargo(&self, command: &str, case: &Case) -> Command {
        let mut cargo = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/bare-cargo"));
        cargo.args([command, "--quiet", "--release", "--target", self.target]);
        cargo.current_dir("firmware-examples/emulated");
        cargo.env("CARGO_TARGET_DIR", target_dir()).env("SOFTEDGE_MODEL", &case.model);
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
