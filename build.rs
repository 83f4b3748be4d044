//! Tells the library which multiply instructions the target has. The compiler knows, but shows the
//! features of Cortex-M cores to unstable code only.

use std::env;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(cortex_m, values(none(), \"v6\", \"v7\", \"dsp\", \"helium\"))");
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var("TARGET").unwrap_or_default();
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if let Some(core) = core(&target, &flags) {
        println!("cargo::rustc-cfg=cortex_m");
        println!("cargo::rustc-cfg=cortex_m=\"{core}\"");
        if core == "dsp" && is_helium(&target, &flags) {
            println!("cargo::rustc-cfg=cortex_m=\"helium\"");
        }
    }
}

/// `dsp` for the cores with packed multiply-accumulates, which ARMv7E-M always has and ARMv8-M where the
/// flags name such a CPU or the feature and do not take it away (`-dsp`: a Cortex-M33 without it); `v7` for the other cores with Thumb-2, `v6` for those without.
fn core(target: &str, flags: &str) -> Option<&'static str> {
    const DSP: [&str; 5] = ["cortex-m33", "cortex-m35p", "cortex-m55", "cortex-m85", "star-mc1"];
    let architecture = target.strip_prefix("thumb")?.split('-').next()?;
    // The vectors of Helium imply them.
    let is_dsp = |flag: &str| names(flag, &DSP) || flag.contains("+dsp") || flag.contains("+mve");
    match architecture {
        "v7em" => Some("dsp"),
        "v8m.main" if flags.split('\x1f').any(is_dsp) && !flags.contains("-dsp") => Some("dsp"),
        "v7m" | "v8m.main" => Some("v7"),
        "v6m" | "v8m.base" => Some("v6"),
        _ => None,
    }
}

/// Whether an ARMv8-M core with packed multiply-accumulates has integer vectors too: where the flags name such a
/// CPU or the feature and do not take it away (`-mve`: a Cortex-M55 without it).
fn is_helium(target: &str, flags: &str) -> bool {
    const HELIUM: [&str; 2] = ["cortex-m55", "cortex-m85"];
    let has = |flag: &str| names(flag, &HELIUM) || flag.contains("+mve");
    target.starts_with("thumbv8m.main") && flags.split('\x1f').any(has) && !flags.contains("-mve")
}

/// Whether a flag of the compiler names one of these CPUs.
fn names(flag: &str, cpus: &[&str]) -> bool {
    let cpu = flag.trim_start_matches("-C").trim().strip_prefix("target-cpu=");
    cpu.is_some_and(|cpu| cpus.contains(&cpu))
}
