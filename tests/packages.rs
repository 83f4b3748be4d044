//! The packages for real boards: they build, start where their chip starts, and leave room.
//!
//! Needs the bare-metal targets: `./test.sh` gets them and runs this test; plain `cargo test` leaves it out.

#[path = "common/firmware.rs"]
mod firmware;

use firmware::{bare_cargo, flash, succeed, target_dir};
use object::{Object, ObjectSection, SectionFlags, elf};
use std::fs;
use std::process::Command;

struct Package {
    name: &'static str,
    target: &'static str,
    /// Sections that the chip looks for, and where it does.
    starts: &'static [(&'static str, u64)],
}

const M4: &str = "thumbv7em-none-eabihf";

const PACKAGES: [Package; 6] = [
    Package { name: "nucleo-f446re", target: M4, starts: &[(".vector_table", 0x0800_0000)] },
    Package { name: "nucleo-h743zi", target: M4, starts: &[(".vector_table", 0x0800_0000)] },
    Package { name: "nrf52840-dk", target: M4, starts: &[(".vector_table", 0)] },
    Package {
        name: "pico",
        target: "thumbv6m-none-eabi",
        starts: &[(".boot2", 0x1000_0000), (".vector_table", 0x1000_0100)],
    },
    Package {
        name: "pico2",
        target: "thumbv8m.main-none-eabihf",
        // After the vectors of 16 exceptions and 53 interrupts.
        starts: &[(".vector_table", 0x1000_0000), (".start_block", 0x1000_0114)],
    },
    Package { name: "esp32-c3", target: "riscv32imc-unknown-none-elf", starts: &[(".flash.appdesc", 0x3c00_0020)] },
];

#[test]
fn every_package_fits_a_chip_half_its_size() {
    println!("\n| board | flash | statics |\n|---|---:|---:|");
    for Package { name, target, starts } in &PACKAGES {
        let package = format!("boards/{name}");
        succeed(bare_cargo(&package).args(["build", "--quiet", "--release", "--locked", "--target", target]));
        let image = fs::read(target_dir().join(target).join("release").join(name)).unwrap();
        let image = object::File::parse(&*image).unwrap();
        for (section, address) in *starts {
            let section = image.section_by_name(section).unwrap_or_else(|| panic!("{name}: no {section}"));
            assert!(section.address() == *address && section.size() > 0, "{name}: {section:?}");
        }
        assert!(image.section_by_name(".defmt").is_some_and(|s| s.size() > 0), "{name}: no log");
        let (flash, statics) = (flash(&image), image.sections().filter(is_static).map(|s| s.size()).sum::<u64>());
        println!("| {name} | {flash} | {statics} |");
        assert!(flash <= 256 << 10 && statics <= 32 << 10, "{name}: {flash} bytes of flash, {statics} of statics");
    }
}

#[test]
fn the_motion_sensor_passes_its_tests() {
    let manifest = "firmware-examples/motion/Cargo.toml";
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--quiet", "--locked", "--manifest-path", manifest]).env("CARGO_TARGET_DIR", target_dir());
    succeed(&mut cargo);
}

fn is_static(section: &object::Section<'_, '_>) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. }
        if sh_flags.contains(elf::SHF_ALLOC) && sh_flags.contains(elf::SHF_WRITE))
}
