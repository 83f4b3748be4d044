//! Runs a model on an emulated board, as a filter: raw inputs on standard input, and for each of
//! them the scores and, in a u32, the bytes of stack its inference used on standard output; all
//! little-endian. Nothing is formatted, so that the image's size is the model's and the engine's. With feature
//! `steps` the model runs in steps.
#![no_std]
#![no_main]

mod count;
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
use softedge::engine::{Arena, Element, Engine, Model, Scores};

softedge::include_model!(static MODEL = concat!(env!("OUT_DIR"), "/model.soft"));
static ARENA: Arena<{ MODEL.arena_bytes() }> = Arena::new();

#[entry]
fn main() -> ! {
    match serve() {
        Ok(()) => process::exit(0),
        Err(_) => process::exit(1),
    }
}

fn serve() -> io::Result<()> {
    let (mut inputs, mut answers) = (io::stdin()?, io::stdout()?);
    let Ok(arena) = ARENA.take() else { process::exit(1) };
    let mut engine = Engine::new(&MODEL, arena);
    while inputs.read_exact(bytes_mut(engine.input())).is_ok() {
        let (scores, stack) = stack::used_by(|| count::instructions_of(|| run(&mut engine)));
        answers.write_all(bytes(scores.values()))?;
        answers.write_all(&stack.to_le_bytes())?;
    }
    Ok(())
}

#[cfg(not(feature = "steps"))]
fn run<'e, M: Model>(engine: &'e mut Engine<'_, M>) -> Scores<'e, M::Output> {
    engine.run()
}

#[cfg(feature = "steps")]
fn run<'e, M: Model>(engine: &'e mut Engine<'_, M>) -> Scores<'e, M::Output> {
    let mut steps = engine.start();
    while steps.step(8) {}
    steps.finish()
}

fn bytes<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: elements are plain numbers, and a byte is aligned everywhere.
    unsafe { elements.align_to().1 }
}

fn bytes_mut<T: Element>(elements: &mut [T]) -> &mut [u8] {
    // SAFETY: elements are plain numbers, which any bytes are, and a byte is aligned everywhere.
    unsafe { elements.align_to_mut().1 }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    process::exit(101)
}
