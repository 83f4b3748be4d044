//! Hands the linker the memory of the board that the firmware is for: `SOFTEDGE_MEMORY` names one of the
//! scripts in `../emulated/memory`.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=SOFTEDGE_MEMORY");
    if env::var("CARGO_CFG_TARGET_OS").unwrap() != "none" {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let board = env::var("SOFTEDGE_MEMORY").expect("SOFTEDGE_MEMORY must name a script of ../emulated/memory");
    let script = format!("../emulated/memory/{board}.x");
    fs::copy(&script, out.join("memory.x")).unwrap_or_else(|e| panic!("{script}: {e}"));
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-search={}", out.display());
    // riscv-rt's script does not include the memory's.
    let riscv = env::var("CARGO_CFG_TARGET_ARCH").unwrap() == "riscv32";
    for script in if riscv { &["memory.x", "link.x"][..] } else { &["link.x"] } {
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
}
