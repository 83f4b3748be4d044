//! Building firmware for the tests.
#![allow(dead_code)] // each test target uses its part

use object::{Object, ObjectSection, SectionFlags, elf};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Cargo in a package of firmware.
pub fn bare_cargo(package: &str) -> Command {
    let mut cargo = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/bare-cargo"));
    cargo.current_dir(Path::new("firmware-examples").join(package)).env("CARGO_TARGET_DIR", target_dir());
    cargo
}

/// Where firmware is built.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("firmware")
}

/// What a command says that succeeds.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

/// Bytes of flash: code, constants, the model and the initial values of statics.
pub fn flash(image: &object::File<'_>) -> u64 {
    let in_flash = |section: &object::Section<'_, '_>| {
        matches!(section.flags(), SectionFlags::Elf { sh_type, sh_flags }
            if sh_flags.contains(elf::SHF_ALLOC) && sh_type != elf::SHT_NOBITS)
    };
    image.sections().filter(in_flash).map(|s| s.size()).sum()
}
