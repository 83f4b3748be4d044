//! The library as C sees it: the header compiles, the archive has nothing in the way of others, and a
//! firmware in C computes what the host computes, bit for bit.
//!
//! Needs QEMU, the bare-metal targets and compilers for C: `./test.sh` gets them and runs this test; plain
//! `cargo test` leaves it out.

use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection, ObjectSymbol, SymbolScope};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const EXAMPLE: &str = "firmware-examples/c";
const MODEL: &str = "firmware-examples/minimal/src/gesture.soft";
const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

#[test]
fn the_header_is_c99_and_cpp() {
    for (compiler, options) in [
        ("cc", &["-x", "c", "-std=c99"]),
        ("arm-none-eabi-gcc", &["-x", "c", "-std=c99"]),
        // Both ways to store an enum, of which bare-metal Arm takes the other one by itself.
        ("arm-none-eabi-gcc", &["-x", "c", "-fno-short-enums"]),
        ("c++", &["-x", "c++", "-std=c++11"]),
    ] {
        let mut command = Command::new(compiler);
        succeed(command.args(options).args(WARNINGS).args([
            "-fsyntax-only",
            "-include",
            "include/softedge.h",
            "/dev/null",
        ]));
    }
}

#[test]
fn the_archive_defines_what_the_header_declares_and_calls_nobody() {
    let declared = declared();
    assert_eq!(declared.len(), 12, "{declared:?}");
    for target in ["thumbv6m-none-eabi", "thumbv7em-none-eabihf", "riscv32imc-unknown-none-elf"] {
        succeed(make().arg("library").arg(format!("TARGET={target}")));
        let archive = fs::read(target_dir().join(target).join("capi/libsoftedge.a")).unwrap();
        let mut public = BTreeSet::new();
        for member in ArchiveFile::parse(&*archive).unwrap().members() {
            let member = member.unwrap();
            let ours = member.name().starts_with(b"softedge");
            let object = object::File::parse(member.data(&*archive).unwrap()).unwrap();
            for symbol in object.symbols().filter(|s| s.is_global() && !s.name().unwrap_or_default().is_empty()) {
                let name = symbol.name().unwrap();
                if symbol.is_undefined() {
                    assert!(!ours || for_the_compiler(name), "{target}: {name} is called");
                } else if symbol.scope() == SymbolScope::Dynamic {
                    public.insert(name.to_owned());
                } else {
                    // For this archive alone: what the compiler needs, and inner loops in assembler.
                    let inner = if ours { name.contains("8softedge4arch") } else { of_the_compiler(&symbol, name) };
                    assert!(inner, "{target}: {name} is defined");
                }
                assert!(!name.contains("4core3fmt"), "{target}: {name} formats text");
            }
        }
        assert_eq!(public, declared, "{target}");
    }
}

#[test]
fn a_firmware_in_c_computes_what_the_host_computes() {
    let scores = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c-scores.bin");
    let window = Path::new(EXAMPLE).join("window.raw");
    let mut host = Command::new(env!("CARGO_BIN_EXE_softedge"));
    let told = succeed(host.args(["run", MODEL]).arg(&window).args(["--top", "100", "--outputs"]).arg(&scores));
    let told = String::from_utf8(told.stdout).unwrap();
    let scores = fs::read(&scores).unwrap();
    let scores: Vec<i16> = scores.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();

    assert_eq!(scores.len(), 7);

    for (option, name) in [("STEP_ROWS=", "gesture"), ("STEP_ROWS=8", "gesture-steps-8")] {
        let said = succeed(make().args(["--silent", "run", option]).stdin(Stdio::null())).stdout;
        let said = String::from_utf8(said).unwrap();
        // The size of the firmware, the label, and a line per score.
        let lines: Vec<&str> = said.lines().skip_while(|line| *line != "upright row").collect();
        assert_eq!(lines.len(), 1 + scores.len(), "{said}");
        for (line, score) in lines[1..].iter().zip(&scores) {
            assert_eq!(line.rsplit_once(' ').map(|(_, number)| number), Some(&*score.to_string()), "{said}");
            assert!(told.contains(line), "the host says {told}, the board {line}");
        }

        let image = fs::read(target_dir().join("c").join(name).with_extension("elf")).unwrap();
        let image = object::File::parse(&*image).unwrap();
        let size = |name: &str| image.section_by_name(name).map_or(0, |section| section.size());
        let embedded = [Path::new(MODEL), &window].map(|file| fs::metadata(file).unwrap().len());
        let code = size(".text") + size(".rodata") + size(".data") - embedded.iter().sum::<u64>();
        assert!(code <= 96 << 10, "{code} bytes of code");
        println!("{said}{code} bytes of flash beside the model and its input; the scores of the host, bit for bit");
        // Who runs in one piece only has no code for steps.
        let steps = image.symbols().any(|symbol| symbol.name() == Ok("softedge_step"));
        assert_eq!(steps, name != "gesture");
    }
}

/// A project of one's own takes the library by `softedge.cmake`.
#[test]
fn cmake_makes_the_same_firmware() {
    let build = target_dir().join("cmake");
    // CMake takes no folder that was made elsewhere.
    let _ = fs::remove_dir_all(&build);
    let cargo = format!("-DSOFTEDGE_CARGO={}/tools/bare-cargo", env!("CARGO_MANIFEST_DIR"));
    let target = format!("-DSOFTEDGE_CARGO_TARGET_DIR={}", target_dir().display());
    let mut configure = Command::new("cmake");
    configure.args(["-S", EXAMPLE, "-DCMAKE_TOOLCHAIN_FILE=cortex-m4f.cmake"]).arg("-B").arg(&build);
    succeed(configure.args([cargo, target]));
    let said = succeed(Command::new("cmake").arg("--build").arg(&build).args(["--target", "run"]).stdin(Stdio::null()));
    let made = succeed(make().arg("--silent").arg("run").stdin(Stdio::null()));
    let scores = |output: &Output| {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = said.lines().skip_while(|line| *line != "upright row").take(8).map(String::from);
        lines.collect::<Vec<_>>()
    };
    assert_eq!(scores(&said).len(), 8, "{said:?}");
    assert_eq!(scores(&said), scores(&made));
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string("include/softedge.h").unwrap();
    let declarations = header.lines().filter_map(|line| line.split_once('(')?.0.split_once("softedge_"));
    let functions = declarations.filter_map(|(_, rest)| rest.split([' ', '*']).next_back());
    functions.map(|name| format!("softedge_{}", name.trim_start_matches("softedge_"))).collect()
}

/// Whether the compiler calls a function of its own accord where nothing computes with floats: memory, what
/// ARMv6-M has no instruction for, and comparisons of the floats in a file that is being checked.
fn for_the_compiler(name: &str) -> bool {
    let memory = ["memcpy", "memmove", "memset", "memcmp", "bcmp"].contains(&name) || name.starts_with("__aeabi_mem");
    let whole = ["lmul", "lasr", "llsl", "llsr", "uidiv", "uidivmod", "idiv", "idivmod"];
    let compare = ["__eqsf2", "__nesf2", "__ltsf2", "__lesf2", "__gtsf2", "__gesf2", "__unordsf2"];
    let arm = |name: &str| whole.contains(&name) || name.starts_with("fcmp");
    memory || name == "__clzsi2" || compare.contains(&name) || name.strip_prefix("__aeabi_").is_some_and(arm)
}

/// Whether a definition of compiler-builtins is in nobody's way: a name that C reserves, or a weak one.
fn of_the_compiler(symbol: &object::Symbol<'_, '_>, name: &str) -> bool {
    symbol.is_weak()
        || ["__", "anon.", "mem"].iter().any(|start| name.starts_with(start))
        || name.contains("compiler_builtins")
}

fn make() -> Command {
    let mut make = Command::new("make");
    make.current_dir(EXAMPLE).env("CARGO_TARGET_DIR", target_dir());
    make.arg(format!("CARGO={}/tools/bare-cargo", env!("CARGO_MANIFEST_DIR")));
    make.arg(format!("BUILD={}", target_dir().join("c").display()));
    make
}

fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("firmware")
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}
