//! Links with esp-hal's script, which knows the chip's memory, and defmt's.

fn main() {
    for script in ["linkall.x", "defmt.x"] {
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
}
