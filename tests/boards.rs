//! The same model file on every emulated board: its scores equal the host's bit for bit.
//!
//! Prints what an inference costs there. Needs QEMU and the bare-metal targets: `./test.sh` gets
//! them and runs this test; plain `cargo test` leaves it out.

#[path = "common/firmware.rs"]
mod firmware;
#[path = "../firmware-examples/minimal/src/window.rs"]
mod window;

use firmware::{bare_cargo, flash, succeed, target_dir};
use object::{Object, ObjectSection, ObjectSymbol};
use softedge::data::{self, Dataset};
use softedge::engine::{Buffer, Executor, Integers, Loaded, Memory};
use softedge::format::{View, write};
use softedge::model::{Mode, build, preset};
use softedge::ops::{DType, Tick, Width};
use softedge::program::{Plan, Space, in_strips};
use softedge::quant::{Bounds, calibrate, freeze, quantise};
use softedge::train::{self, Trainer};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use window::WINDOW;

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
const IN_STEPS: &str = "in steps of 8 rows";

const FASHION_MODEL: &str = "firmware-examples/two-models/src/fashion.soft";
const GESTURE_MODEL: &str = "firmware-examples/minimal/src/gesture.soft";

/// A model, the raw inputs of [`INFERENCES`] inferences, and the bytes of the scores that the host
/// computes from them.
struct Case {
    name: &'static str,
    model: PathBuf,
    inputs: PathBuf,
    scores: Vec<u8>,
    /// Bytes of the model's file.
    file: u64,
    /// Bytes of arena it needs.
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
    let (mut code_on_m4f, mut most_stack) = (Vec::new(), BTreeMap::new());
    let twin = depthwise();
    for (case, boards, how) in [
        (&*FASHION, &BOARDS[..], "in one piece"),
        (&GESTURE, &BOARDS, "in one piece"),
        (&GESTURE, &BOARDS, IN_STEPS),
        (&twin, &BOARDS[2..3], "in one piece"),
    ] {
        let Case { name, file, arena, .. } = case;
        let mut table = format!("\n{name} {how}: file {file} bytes, arena {arena} bytes\n\n");
        table += "| core | instructions | stack | flash | of it code |\n|---|---:|---:|---:|---:|\n";
        for board in boards {
            let Run { scores, instructions, stack, flash } = board.run(case, how, &counter);
            assert!(scores == case.scores, "the scores of {} on {} are not the host's", case.name, board.core);
            let code = flash - case.file;
            // What `softedge inspect` reserves when it says which boards a model fits; steps take some more code.
            let room = if how == IN_STEPS { 60 << 10 } else { 56 << 10 };
            assert!(code <= room && stack <= 2 << 10, "{}: {code} bytes of code, {stack} of stack", board.core);
            let documented = documented_stack(board.core);
            assert!(stack <= documented, "{}: {stack} bytes of stack, documented are {documented}", board.core);
            let most = most_stack.entry(board.core).or_insert(0);
            *most = stack.max(*most);
            if board.core == BOARDS[2].core {
                code_on_m4f.push(code);
            }
            writeln!(table, "| {} | {instructions} | {stack} | {flash} | {code} |", board.core).unwrap();
        }
        println!("{table}\n{INFERENCES} inferences, on every core the scores of the host, bit for bit");
    }
    // The twin has neither the landmarks' ops nor the two kernel passes, so its firmware has no code for them.
    assert!(code_on_m4f[3] + 5000 < code_on_m4f[0], "code of SOFT and of its depthwise twin: {code_on_m4f:?}");
    for (core, most) in most_stack {
        let documented = documented_stack(core);
        assert!(documented < most + most / 10, "{core}: {most} bytes of stack, documented are {documented}");
    }
}

/// The bytes of stack that the engine's documentation gives a core.
fn documented_stack(core: &str) -> u32 {
    let row = include_str!("../src/engine/mod.rs").lines().find_map(|l| l.strip_prefix(&format!("//! | {core} | ")));
    row.and_then(|row| row.trim_end_matches(" |").replace(',', "").parse().ok()).expect("a row of the table")
}

#[test]
fn the_demo_ends_on_a_board() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    let _ = fs::remove_dir_all(&folder);
    let mut demo = Command::new(env!("CARGO_BIN_EXE_softedge"));
    let said = succeed(demo.args(["demo", "--epochs", "1", "--out"]).arg(&folder)).stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("32 images: every score equals the host's, bit for bit."), "{said}");
    assert!(said.contains("bytes of stack") && said.contains("nRF52840"), "{said}");
    for name in ["config.toml", "best.safetensors", "model.soft", "curves.svg", "confusion.svg", "memory.svg"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
}

#[test]
fn the_smallest_program_recognises_an_exercise() {
    let target = BOARDS[2].target;
    let output = succeed(bare_cargo("minimal").args(["run", "--quiet", "--release", "--target", target]));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "upright row\n");
}

#[test]
fn a_cooperative_firmware_loses_no_sample() {
    let target = BOARDS[2].target;
    let output = succeed(bare_cargo("cooperative").args(["run", "--quiet", "--release", "--target", target]));
    let said = String::from_utf8(output.stdout).unwrap();
    let file = Buffer::copy_of(&fs::read(GESTURE_MODEL).unwrap());
    let mut arena = Buffer::zeroed(GESTURE.arena);
    let mut model = Loaded::<Integers>::new(file.bytes(), arena.bytes_mut()).unwrap();
    model.input::<i16>().unwrap().copy_from_slice(WINDOW.as_flattened());
    let scores = model.run::<i16>().unwrap();
    let line = |(class, score): (usize, &i16)| format!("{} {score}", scores.label(class).unwrap());
    let expected: Vec<String> = scores.values().iter().enumerate().map(line).collect();

    let lines: Vec<&str> = said.lines().collect();
    let runs: Vec<_> = lines.chunks(1 + expected.len()).map(|run| run.split_first().unwrap()).collect();
    let [(in_steps, of_steps), (whole, of_whole)] = runs[..] else { panic!("two runs: {said}") };
    assert!(of_steps == expected && of_whole == expected, "{said}, the host: {expected:?}");
    let numbers = |line: &str| -> [u32; 3] {
        let numbers: Vec<_> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        numbers.try_into().unwrap()
    };
    let [taken, wait, lost] = numbers(in_steps);
    assert!(lost == 0 && taken >= 8 && wait < 10_000, "{said}");
    let [_, _, lost] = numbers(whole);
    assert!(lost >= 4, "nothing to lose: {said}");
    println!("{in_steps}\n{whole}");
}

#[test]
fn two_models_share_an_arena_where_the_linker_puts_it() {
    let target = BOARDS[2].target;
    let output = succeed(bare_cargo("two-models").args(["run", "--quiet", "--release", "--target", target]));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "T-shirt/top\nupright row\n");
    let image = fs::read(target_dir().join(target).join("release/two-models")).unwrap();
    let image = object::File::parse(&*image).unwrap();
    let section = |name: &str| image.section_by_name(name).unwrap();
    let (weights, arena) = (section(".weights"), section(".arena"));
    let files = [FASHION_MODEL, GESTURE_MODEL].map(|file| fs::metadata(file).unwrap().len());
    assert_eq!((weights.address(), weights.size()), (0x0020_0000, files.iter().sum()));
    assert_eq!(arena.address(), 0x2010_0000);
    let needed = FASHION.arena.max(GESTURE.arena) as u64;
    assert!((needed..needed + 64).contains(&arena.size()), "an arena of {} for {needed}", arena.size());
}

impl Case {
    /// The case of a model's bytes on samples of `test`; leaves the files that the boards need.
    fn new(name: &'static str, model: &[u8], test: &Dataset) -> Self {
        let file = Buffer::copy_of(model);
        let view = View::new_checked(file.bytes()).unwrap();
        let mut arena = Buffer::zeroed(view.size(Space::Arena));
        let mut executor: Executor<'_> = Executor::new(view, Memory::new(arena.bytes_mut())).unwrap();
        let (mut inputs, mut scores) = (Vec::new(), Vec::new());
        for i in 0..INFERENCES {
            let input = test.raw_bytes(i * test.len() / INFERENCES);
            executor.tensor_mut(view.input_id(0)).unwrap().copy_from_slice(&input);
            executor.run(&Tick::default());
            inputs.extend_from_slice(&input);
            scores.extend_from_slice(executor.tensor(view.output_id(0)));
        }
        let place = |kind: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{kind}"));
        let (path, all_inputs) = (place("soft"), place("inputs"));
        fs::write(&path, model).unwrap();
        fs::write(&all_inputs, inputs).unwrap();
        let (file, arena) = (model.len() as u64, view.size(Space::Arena));
        Self { name, model: path, inputs: all_inputs, scores, file, arena }
    }
}

/// Pixels (u8), and a trained model.
static FASHION: LazyLock<Case> = LazyLock::new(|| {
    let (_, test) = data::open("fashion-mini", &Default::default()).unwrap();
    Case::new("fashion-nano", &fs::read(FASHION_MODEL).unwrap(), &test)
});

/// Its twin without attention, with the values it starts its training from.
fn depthwise() -> Case {
    let (train, test) = data::open("fashion-mini", &Default::default()).unwrap();
    let config = preset("fashion-nano-depthwise").unwrap();
    let checkpoint = Trainer::new(&config, train::Config::default()).unwrap().checkpoint();
    let program = build(&config, Mode::Infer { batch: 1 }).unwrap().program;
    let frozen = freeze(&program, |name| checkpoint.weights(name).map(|w| &w.values[..])).unwrap();
    let fill = |i: usize, raw: &mut [f32]| train.sample_f32(i * 37 % train.len(), raw);
    let calibration = calibrate(&frozen, 32, fill, Bounds::MinMax).unwrap();
    let integer = in_strips(&quantise(&frozen, &calibration, DType::U8, Width::Int8).unwrap());
    Case::new("fashion-nano-depthwise", &write(&integer, &Plan::new(&integer)).unwrap(), &test)
}

/// Motion (i16), and a trained model.
static GESTURE: LazyLock<Case> = LazyLock::new(|| {
    let (_, test) = data::open("watch", &Default::default()).unwrap();
    Case::new("watch-nano", &fs::read(GESTURE_MODEL).unwrap(), &test)
});

impl Board {
    fn run(&self, case: &Case, how: &str, counter: &Path) -> Run {
        succeed(&mut self.cargo("build", case, how));
        let image = fs::read(target_dir().join(self.target).join("release/emulated")).unwrap();
        let image = object::File::parse(&*image).unwrap();
        for symbol in image.symbols().filter_map(|s| s.name().ok()) {
            assert!(!forbidden(symbol), "{symbol} is linked into the image for {}", self.core);
        }
        let inputs = File::open(&case.inputs).unwrap();
        let output = succeed(self.cargo("run", case, how).env("ICOUNT", counter).stdin(inputs));
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
            flash: flash(&image),
        }
    }

    /// `cargo build` or `cargo run` of the firmware with the model.
    fn cargo(&self, command: &str, case: &Case, how: &str) -> Command {
        let mut cargo = bare_cargo("emulated");
        cargo.args([command, "--quiet", "--release", "--target", self.target]).env("SOFTEDGE_MODEL", &case.model);
        if how == IN_STEPS {
            cargo.args(["--features", "steps"]);
        }
        cargo
    }
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
