//! Runs a model on an emulated board, as a filter: images on standard input, and for each of them
//! its logits (i16) and the bytes of stack its inference used (u32) on standard output, both
//! little-endian. Nothing is formatted, so that the image's size is the model's and the engine's.
#![no_std]
#![no_main]

mod count;
mod placeholder;
mod stack;

use core::panic::PanicInfo;

#[cfg(target_arch = "arm")]
use cortex_m_rt::entry;
#[cfg(target_arch = "riscv32")]
use riscv_rt::entry;
use semihosting::{
    io::{self, Read, Write},
    process,
};

use placeholder::Engine;

#[entry]
fn main() -> ! {
    match serve() {
        Ok(()) => process::exit(0),
        Err(_) => process::exit(1),
    }
}

fn serve() -> io::Result<()> {
    let (mut images, mut answers) = (io::stdin()?, io::stdout()?);
    let mut engine = Engine::new();
    while images.read_exact(engine.input()).is_ok() {
        let (scores, stack) = stack::used_by(|| count::instructions_of(|| engine.run()));
        for score in scores {
            answers.write_all(&score.to_le_bytes())?;
        }
        answers.write_all(&stack.to_le_bytes())?;
    }
    Ok(())
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    process::exit(101)
}
