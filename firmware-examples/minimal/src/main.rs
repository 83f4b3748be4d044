//! The smallest program that runs a model: which exercise do these 2.56 seconds of a smartwatch's
//! motion sensor show? `cargo run --release` runs it on an emulated Cortex-M4F.
//!
//! `cargo softedge train watch-nano --epochs 60 --out runs/gesture` has trained the model and
//! `cargo softedge quantise runs/gesture --out firmware-examples/minimal/src/gesture.soft` written it.
#![no_std]
#![no_main]

mod window;

use cortex_m_rt::entry;
use semihosting::{println, process};
use softedge::engine::{Arena, Engine};
use window::WINDOW;

softedge::include_model!(static GESTURE = "gesture.soft");
static ARENA: Arena<{ GESTURE.arena_bytes() }> = Arena::new();

#[entry]
fn main() -> ! {
    let mut engine = Engine::new(&GESTURE, ARENA.take().unwrap());
    engine.input().copy_from_slice(WINDOW.as_flattened());
    let scores = engine.run();
    println!("{}", scores.label(scores.argmax()).unwrap_or("?"));
    process::exit(0)
}
