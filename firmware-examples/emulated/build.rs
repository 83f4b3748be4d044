//! Hands the linker the memory of the board that stands for the target, and the compiler the model
//! named by `SOFTEDGE_MODEL` (the path of a `.soft` file).

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let target = env::var("TARGET").unwrap();
    let (board, scripts): (_, &[_]) = match target.as_str() {
        "thumbv6m-none-eabi" | "thumbv7m-none-eabi" | "thumbv7em-none-eabihf" => ("mps2", &["link.x"]),
        "thumbv8m.main-none-eabihf" => ("mps2-an505", &["link.x"]),
        // riscv-rt's script does not include the memory's.
        "riscv32imc-unknown-none-elf" => ("virt", &["memory.x", "link.x"]),
        other => panic!("no emulated board for the target {other}: see .cargo/config.toml"),
    };
    fs::copy(format!("memory/{board}.x"), out.join("memory.x")).unwrap();
    println!("cargo::rustc-link-search={}", out.display());
    for script in scripts {
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
    println!("cargo::rerun-if-changed=memory");

    let model = env::var("SOFTEDGE_MODEL").expect("SOFTEDGE_MODEL must name a .soft file");
    fs::copy(&model, out.join("model.soft")).unwrap_or_else(|e| panic!("{model}: {e}"));
    println!("cargo::rerun-if-changed={model}");
    println!("cargo::rerun-if-env-changed=SOFTEDGE_MODEL");
}
